"""What ``progress`` counts, yields and refuses; drawn as plain lines into a text stream."""

from __future__ import annotations

import gc
import io
import re
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

import pytest

from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, InProcessExecutor, Task, ends_of, watch
from wetlands_executor.observe import open_display, progress


class Value:
    """Can be referred to weakly."""


def last(stream: io.StringIO) -> str:
    """Return the only line, without its rate and duration."""
    (line,) = stream.getvalue().splitlines()
    return re.sub(r"(, [\d.]+[kM]?/s)?, \d+:\d\d elapsed", "", line)


def test_a_loop_keeps_order_laziness_exceptions_and_the_end(single: CondaEnvExecutor) -> None:
    stream = io.StringIO()
    results = single.map(abs, range(-3, 0))
    assert list(progress(results, stream=stream, description="abs")) == [3, 2, 1]
    assert last(stream) == "abs: 3/3 (100%)"
    assert watch(results) == watch(single)
    assert list(progress(results, stream=stream)) == []
    # lazily: nothing is read ahead
    taken = []
    bar = progress((taken.append(n) or n for n in range(5)), stream=io.StringIO(), total=5)
    loop = iter(bar)
    assert taken == []
    assert [next(loop), next(loop)] == [0, 1]
    assert taken == [0, 1]
    loop.close()
    # what the iterator raises comes out, and what was counted stays
    stream = io.StringIO()
    with pytest.raises(ValueError, match="on purpose"):
        for _ in progress(single.map(workload.fail, ["on purpose"]), stream=stream):
            raise AssertionError("nothing comes")
    list(progress(single.map(workload.fail, ["a"], return_exceptions=True), stream=stream))
    assert stream.getvalue().count("1 failed") == 2
    # what failed before the bar was there is one of its items too
    results = single.map(workload.fail, ["b"], return_exceptions=True)
    assert single.wait_all(20)
    stream = io.StringIO()
    assert len(list(progress(results, stream=stream))) == 1
    assert "1/1 (100%)" in last(stream)
    assert last(stream).endswith("1 failed")
    # a loop that is left drops the iterator: what has not run is cancelled
    for _ in progress(single.map(workload.nap, [0.0] + [1.0] * 9), stream=io.StringIO()):
        break
    assert single.wait_all(20)
    assert single.get_progress()["canceled"] > 0
    # it holds no item
    loop = iter(progress((Value() for _ in range(2)), stream=io.StringIO()))
    reference = weakref.ref(next(loop))
    gc.collect()
    assert reference() is None
    loop.close()


def test_a_block_counts_what_is_submitted_in_it(executor: CondaEnvExecutor, tmp_path) -> None:
    executor.submit(abs, -1).result()
    stream = io.StringIO()
    with progress(executor, stream=stream, description="") as bar:
        list(executor.map(abs, range(10)))
        executor.submit(workload.fail).wait_for()
        executor.options(start=False).submit(abs, 1).cancel()
        path = tmp_path / "tries"
        executor.options(retries=2).submit(workload.die_until, str(path), 3).wait_for()
        bar.write("a line\nand another")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["a line", "and another"]
    assert re.fullmatch(r"12/12 \(100%\), .* elapsed, 1 failed, 2 retried", lines[2]), lines
    view = executor.options(name="view")
    stream = io.StringIO()
    with progress(view, stream=stream, total=4, description="view"):
        view.submit(abs, 1).result()
    assert last(stream) == "view: 1/4 (25%)"


def test_tasks_come_as_they_end(executor: CondaEnvExecutor) -> None:
    tasks = executor.map_tasks(abs, range(20))
    tasks.append(executor.submit(workload.fail))
    stream = io.StringIO()
    assert set(progress(tasks, stream=stream)) == set(tasks)
    assert last(stream) == "21/21 (100%), 1 failed"
    stream = io.StringIO()
    assert [task.result() for task in progress(tasks[3], stream=stream)] == [3]
    assert last(stream) == "1/1 (100%)"
    bare: Task[int] = Task()
    bare.cancel()
    bare.set_running_or_notify_cancel()
    plain: Future[int] = Future()
    plain.set_result(1)
    stream = io.StringIO()
    assert set(progress({bare, plain}, stream=stream)) == {bare, plain}
    assert last(stream) == "2/2 (100%), 1 cancelled"
    stream = io.StringIO()
    with (
        ThreadPoolExecutor(1) as threads,
        progress([threads.submit(abs, -2)], stream=stream) as bar,
    ):
        assert [future.result() for future in bar] == [2]
    assert last(stream) == "1/1 (100%)"
    stream = io.StringIO()
    with InProcessExecutor() as inside, progress(inside, stream=stream):
        inside.submit(abs, -2).result()
    assert last(stream) == "InProcessExecutor: 1/1 (100%)"
    stream = io.StringIO()
    assert len(list(progress(as_completed(tasks), stream=stream))) == 21
    assert last(stream) == "21"


def test_what_has_become_of_futures(executor: CondaEnvExecutor) -> None:
    """Tasks that have all ended are read in another way than others, with one result."""
    waits = executor.options(start=False)
    returned, failed = executor.submit(abs, -1), executor.submit(workload.fail)
    cancelled, unstarted = waits.submit(abs, 1), waits.submit(abs, 1)
    assert cancelled.cancel()
    plain, bare = Future(), Task()
    plain.cancel()
    bare.set_exception(ValueError())
    for task in (returned, failed):
        task.wait_for(20)
    assert ends_of([]) == ([], 0, 0)
    assert ends_of([returned, failed, cancelled]) == ([True] * 3, 1, 1)
    assert ends_of([unstarted, returned, failed, cancelled]) == ([False] + [True] * 3, 1, 1)
    assert ends_of([plain, failed, Future()]) == ([True, True, False], 1, 1)
    assert ends_of([bare, plain, cancelled, returned]) == ([True] * 4, 1, 2)
    assert unstarted.cancel()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ((), "takes executors, or one iterable"),
        ((3,), r"progress\(3\): neither an executor"),
        (([], []), "list, list are no executor"),
    ],
)
def test_what_cannot_be_meant(what, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        progress(*what)


def test_executors_that_cannot_be_looked_at(single: CondaEnvExecutor) -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(TypeError, match="Give progress"):
        progress(threads)
    with pytest.raises(TypeError, match="list is no executor"):
        progress(single, [])
    with pytest.raises(TypeError, match="`with` block"):
        list(progress(single))


def test_the_display_of_a_command(single: CondaEnvExecutor) -> None:
    stream = io.StringIO()
    with open_display(5, stream=stream, description="map") as display:
        display.attach(single, counted=True)
        single.submit(abs, 1).result()
        display.advance(2, failed=1)
        display.expect(4)
        display.line("a line")
    assert stream.getvalue().startswith("a line\nmap: 2/4 (50%), ")
    assert stream.getvalue().endswith("1 failed\n")
    stream = io.StringIO()
    with open_display(5, quiet=True, stream=stream) as display:
        display.attach(single)
        display.advance()
        display.line("a line")
    assert stream.getvalue() == "a line\n"
