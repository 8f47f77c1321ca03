"""Tasks inside tasks: what a function submits to an executor that it was given."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from tests.support.observe import until
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import nested
from wetlands_executor import (
    CondaEnvExecutor,
    DependencyFailed,
    InProcessExecutor,
    TaskStatus,
    TaskTimeoutError,
    WorkerCrashed,
    current_task,
)

#: Seconds for many processes to start on a busy machine.
LONG = 100.0
#: Seconds for a hundred of them, one after another.
VERY_LONG = 400.0


def test_a_task_inside_a_task_runs_in_another_worker(single: CondaEnvExecutor) -> None:
    """The only worker waits, so another one is started, and kept for the next."""
    assert single.submit(nested.add_inside, single, 40, 2).result(DEADLINE) == 42
    outer, inner = single.submit(nested.pids, single).result(DEADLINE)
    assert outer != inner
    again = single.submit(nested.pids, single).result(DEADLINE)
    assert set(again) == {outer, inner}
    assert single.worker_count == 2


def test_the_executor_of_the_running_task(single: CondaEnvExecutor) -> None:
    assert single.submit(nested.through_current_task, 1, 2).result(DEADLINE) == 3


def test_a_view_a_default_and_a_global(single: CondaEnvExecutor) -> None:
    """However the executor gets to the function."""
    view = single.options(timeout=50, priority=3)
    assert single.submit(nested.add_inside, view, 1, 2).result(DEADLINE) == 3
    assert single.submit(nested.default_executor, 1, executor=view).result(DEADLINE) == 2

    def with_default(value: int, executor: CondaEnvExecutor = single) -> int:
        return executor.submit(nested.add, value, 1).result()

    assert single.submit(with_default, 1).result(DEADLINE) == 2
    assert single.submit(lambda: single.submit(nested.add, 2, 2).result()).result(DEADLINE) == 4


def test_functions_by_value_inside_a_task(single: CondaEnvExecutor) -> None:
    def outer(executor: CondaEnvExecutor, value: int) -> int:
        def inner(other: int) -> int:
            return other * factor

        factor = 3
        return (
            executor.submit(inner, value).result()
            + executor.submit(lambda other: other + factor, value).result()
        )

    assert single.submit(outer, single, 5).result(DEADLINE) == 23


def test_functions_of_a_script_that_a_worker_has_not_seen(tmp_path: Path) -> None:
    """They are found in ``__main__`` of the parent's worker, and have to travel all the same."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from wetlands_executor import CondaEnvExecutor\n"
        "def square(x):\n"
        "    return x * x\n"
        "def outer(executor):\n"
        "    return [task.result() for task in [executor.submit(square, n) for n in range(5)]]\n"
        "if __name__ == '__main__':\n"
        "    with CondaEnvExecutor(sys.prefix, max_workers=2) as executor:\n"
        "        print(executor.submit(outer, executor).result())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=LONG, check=False
    )
    assert (done.stdout, done.returncode) == ("[0, 1, 4, 9, 16]\n", 0), done.stderr


def test_recursion_by_value(single: CondaEnvExecutor) -> None:
    """The function is its own parent's: the host names it, and it need not travel again."""

    def down(executor: CondaEnvExecutor, depth: int) -> int:
        return depth and 1 + executor.submit(down, executor, depth - 1).result()

    assert single.submit(down, single, 4).result(DEADLINE) == 4


@pytest.mark.timeout(VERY_LONG + DEADLINE)
def test_recursion_to_depth_100_with_one_worker(single: CondaEnvExecutor) -> None:
    assert single.submit(nested.deep, single, 100).result(VERY_LONG) == 100
    assert single.worker_count <= 101


def test_a_tree_of_tasks(make: Callable[..., CondaEnvExecutor]) -> None:
    """Each depth has no more workers than the pool may have."""
    executor = make(2)
    assert executor.submit(nested.tree, executor, 4).result(LONG) == 16
    assert executor.worker_count <= 2 * 5


def test_a_thousand_children(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(2)
    assert executor.submit(nested.many, executor, 1000).result(LONG) == 1000


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chunksize": 7},
        {"buffersize": 3},
        {"return_exceptions": True},
    ],
    ids=str,
)
def test_map_inside_a_task(single: CondaEnvExecutor, how: dict[str, object]) -> None:
    task = single.submit(nested.many_by_map, single, 30, **how)
    assert task.result(DEADLINE) == list(range(30))


def test_map_inside_a_task_in_any_order(single: CondaEnvExecutor) -> None:
    task = single.submit(nested.many_by_map, single, 30, ordered=False)
    assert sorted(task.result(DEADLINE)) == list(range(30))


def test_what_a_map_calls_may_submit(single: CondaEnvExecutor) -> None:
    """Calls that travel together have children of their own."""
    found = list(single.map(nested.through_current_task, range(20), range(20)))
    assert found == [2 * value for value in range(20)]


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (nested.by_the_standard_library, list(range(8))),
        (nested.by_callback, 7),
        (nested.by_await, [0, 2, 4]),
        (nested.by_threads, [1, 2, 3, 4, 5, 6]),
    ],
    ids=["wait", "callback", "await", "threads"],
)
def test_other_ways_to_wait(
    single: CondaEnvExecutor, function: Callable[..., object], found: object
) -> None:
    """Whatever waits, another worker takes over."""
    assert single.submit(function, single).result(DEADLINE) == found


def test_an_exception_of_a_child(single: CondaEnvExecutor) -> None:
    assert "ValueError; invalid literal" in single.submit(nested.raise_inside, single).result(
        DEADLINE
    )
    with pytest.raises(ValueError, match="invalid literal"):
        single.submit(nested.let_it_raise, single).result(DEADLINE)
    assert single.submit(nested.with_unpicklable, single).result(DEADLINE) == "TypeError"


def test_a_child_whose_worker_dies(single: CondaEnvExecutor) -> None:
    names = single.submit(nested.crash_inside, single).result(DEADLINE)
    assert "WorkerCrashed" in names
    assert BrokenProcessPool.__name__ in names


def test_tasks_as_arguments_and_started_later(single: CondaEnvExecutor) -> None:
    assert single.submit(nested.chain, single).result(DEADLINE) == 8
    found = single.submit(nested.start_later, single).result(DEADLINE)
    assert found == ["pending", 3, True, True]


def test_asking_and_listening(executor: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = executor.submit(nested.ask, executor, rendezvous.address)
    arrivals = rendezvous.expect("parent", "reported")
    arrivals["parent"].release()
    rendezvous.next().release()
    arrivals["reported"].release()
    found = task.result(DEADLINE)
    assert found == ["running", True, 0.5, "half", "done", "completed", "started", "completion"]


def test_cancelling_children(executor: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    """One that waits will not run, one that runs is asked to stop."""
    task = executor.submit(nested.cancel_inside, executor, rendezvous.address)
    arrivals = rendezvous.expect("parent", "runs")
    arrivals["parent"].release()
    label = ""
    while label != "asked":  # other children may have a worker, and report too
        arrival = rendezvous.next()
        label = arrival.label
        arrival.release()
    arrivals["runs"].release()
    assert task.result(DEADLINE) == [True, True, "canceled", False, "runs"]


def test_cancelling_the_parent_cancels_a_child_that_runs(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(nested.hold_inside, single, rendezvous.address, "child")
    arrival = rendezvous.next()
    seen = [each for each in single.get_progress()["tasks"] if each["state"] == "running"]
    assert len(seen) == 2
    assert not task.cancel()
    arrival.release()
    # The child was asked to stop, and returned all the same; so did its parent.
    assert task.result(DEADLINE) == "child"


def test_cancelling_the_parent_cancels_a_child_that_waits(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    """In another pool, whose only worker is busy: the child never runs."""
    executor, other = make(1), make(1)
    busy = other.submit(nested.arrive, rendezvous.address, "busy")
    arrival = rendezvous.next()
    task = executor.submit(nested.hold_inside, other, rendezvous.address, "child")
    until(lambda: other.get_progress()["total"] == 2)
    assert not task.cancel()
    with pytest.raises(CancelledError):
        task.result(DEADLINE)
    arrival.release()
    assert busy.result(DEADLINE) == "busy"
    assert rendezvous.uninvited() == []


def test_killing_the_parent_cancels_its_children(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make(1, cancel_grace=0.1)
    task = executor.submit(nested.hold_inside, executor, rendezvous.address, "child")
    arrival = rendezvous.next()
    task.kill()
    arrival.wait_until_gone()  # interrupted
    assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
    assert executor.submit(nested.add, 1).result(DEADLINE) == 1


def test_children_end_with_their_parent(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make(2, cancel_grace=0.1)
    executor.submit(nested.leave_behind, executor, rendezvous.address, False).result(DEADLINE)
    assert executor.wait_all(DEADLINE)
    assert executor.get_progress()["running"] == 0


def test_a_detached_child_goes_on(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make(2, cancel_grace=0.1)
    executor.submit(nested.leave_behind, executor, rendezvous.address, True).result(DEADLINE)
    arrival = rendezvous.next()
    assert executor.get_progress()["running"] == 1
    arrival.release()
    assert executor.wait_all(DEADLINE)
    assert executor.get_progress()["completed"] == 2


def test_large_data_goes_both_ways(single: CondaEnvExecutor) -> None:
    size = 3_000_000
    assert single.submit(nested.large_inside, single, size).result(DEADLINE) == [size, 5]


def test_shutdown_waits_for_what_running_tasks_submit(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(nested.wait_after_shutdown, single, rendezvous.address)
    arrival = rendezvous.next()
    single.shutdown(wait=False)
    arrival.release()
    assert task.result(DEADLINE) == 42


def test_cancel_futures_cancels_what_running_tasks_submit(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(nested.wait_after_shutdown, single, rendezvous.address)
    arrival = rendezvous.next()
    single.shutdown(wait=False, cancel_futures=True)
    arrival.release()
    with pytest.raises((CancelledError, RuntimeError)):
        task.result(DEADLINE)


def test_another_pool_that_has_ended(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor, other = make(1), make(1)
    task = executor.submit(nested.wait_after_shutdown, other, rendezvous.address)
    arrival = rendezvous.next()
    other.shutdown()
    arrival.release()
    with pytest.raises(RuntimeError, match="after shutdown"):
        task.result(DEADLINE)


def test_a_function_in_one_pool_maps_in_another(make: Callable[..., CondaEnvExecutor]) -> None:
    executor, other = make(1), make(2)
    assert executor.submit(nested.squares_in, other, [1, 2, 3]).result(DEADLINE) == [1, 4, 9]


def test_what_is_left_of_a_call_that_has_ended(single: CondaEnvExecutor) -> None:
    """Its tasks are cancelled; the executor works for whichever call uses it."""
    assert single.submit(nested.keep, single).result(DEADLINE) == "kept"
    for _ in range(2):
        found = single.submit(nested.keep, single).result(DEADLINE)
        assert found in ("kept", "CancelledError True 2", "1 False 2")


def test_options_that_cannot_be_meant(single: CondaEnvExecutor) -> None:
    found = single.submit(nested.options_inside, single).result(DEADLINE)
    assert [text.split(":")[0] for text in found] == ["TypeError", "ValueError"] + 2 * ["TypeError"]
    assert "colour=...) is not possible inside a task; what is possible: name" in found[0]


def test_what_cannot_be_an_argument(single: CondaEnvExecutor) -> None:
    with InProcessExecutor() as threads:
        view = threads.options(name="it")
        with pytest.raises(TypeError, match="InProcessExecutor"):
            single.submit(nested.add_inside, view, 1, 2).result(DEADLINE)


def test_the_picture_shows_who_has_submitted_what(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(nested.hold_inside, single, rendezvous.address, "child")
    arrival = rendezvous.next()
    under_way = {each["id"]: each["parent"] for each in single.get_progress()["tasks"]}
    assert sorted(under_way.values(), key=str) == [task.id, None]
    assert under_way[task.id] is None
    arrival.release()
    task.result(DEADLINE)
    finished = {each["id"]: each["parent"] for each in single.get_progress()["tasks"]}
    assert finished == under_way


# The ways in which dftracer's page composes tasks, with the executor as a global: see
# docs/coming-from-dftracer.md.


def read(name: str) -> int:
    if not name:
        raise ValueError("no name")
    return len(name)


def double(size: int) -> int:
    return 2 * size


@pytest.mark.parametrize("kind", [CondaEnvExecutor, InProcessExecutor])
def test_composing_tasks(kind: Callable[..., Any]) -> None:
    with kind(max_workers=2) as runtime:

        def by_value(name: str) -> int:
            first = runtime.submit(read, name)
            size = first.result()
            second = runtime.submit(double, size)
            return int(second.result())

        def by_handle(name: str) -> int:
            first = runtime.submit(read, name)
            second = runtime.submit(double, first)
            return int(second.result())

        named = runtime.options(name="compose").submit(by_value, "trace")
        assert (named.result(DEADLINE), named.name) == (10, "compose")
        assert runtime.submit(by_handle, "trace").result(DEADLINE) == 10
        with pytest.raises(ValueError, match="no name"):
            runtime.submit(by_value, "").result(DEADLINE)
        with pytest.raises(DependencyFailed, match="no name"):
            runtime.submit(by_handle, "").result(DEADLINE)
        assert runtime.wait_all(DEADLINE)
        failed = [task.name.rpartition(".")[2] for task in runtime.get_failed()]
        if kind is CondaEnvExecutor:
            failed.append("double")  # has failed in the worker, and was never submitted
        assert sorted(failed) == ["by_handle", "by_value", "double", "read", "read"]


# -------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("retry_on", "attempts"),
    [
        (OSError, 3),
        ((OSError, KeyError), 3),
        (KeyError, 1),
        (nested.is_odd_one, 3),
        (lambda error: "odd" in str(error), 3),
        (None, 1),
    ],
    ids=["type", "types", "another type", "function", "lambda", "the end of a worker"],
)
def test_what_a_child_is_tried_again_after(
    single: CondaEnvExecutor, tmp_path: Path, retry_on: object, attempts: int
) -> None:
    """The function that submits says so: the program need not have the class."""
    view = single.options(retries=2, retry_on=retry_on)
    found = single.submit(nested.retried, view, str(tmp_path)).result(DEADLINE)
    assert found == ["OddError", list(range(1, attempts + 1)), attempts]


def test_a_child_that_dies_is_tried_again_if_its_parent_says_so(
    single: CondaEnvExecutor, tmp_path: Path
) -> None:
    for wanted, runs in ((WorkerCrashed, 3), (ValueError, 1)):
        folder = tmp_path / wanted.__name__
        folder.mkdir()
        view = single.options(retries=2, retry_on=wanted)
        found = single.submit(nested.crash_always, view, str(folder)).result(DEADLINE)
        assert found == ["WorkerCrashed", runs]


def test_a_retry_on_that_raises(single: CondaEnvExecutor, tmp_path: Path) -> None:
    """It is logged, and the failure is final; as in the program."""
    view = single.options(retries=2, retry_on=nested.raise_itself)
    found = single.submit(nested.retried, view, str(tmp_path)).result(DEADLINE)
    assert found == ["OddError", [1], 1]


def test_a_parent_that_ends_while_it_is_asked(
    executor: CondaEnvExecutor, rendezvous: Rendezvous, tmp_path: Path
) -> None:
    """Its answer would come too late: the detached child has failed."""
    task = executor.submit(nested.leave_asked, executor, rendezvous.address, str(tmp_path))
    asked = rendezvous.next()
    assert task.result(DEADLINE) is None
    assert executor.wait_all(DEADLINE)
    asked.release()
    assert executor.get_progress()["failed"] == 1


# --------------------------------------------------------------------------- outputs and events


def test_outputs_of_a_child(single: CondaEnvExecutor) -> None:
    assert single.submit(nested.read_outputs, single).result(DEADLINE) == {
        "number": 2,
        "of a class": "Place(1, 2)",
    }


def test_outputs_of_the_last_attempt(single: CondaEnvExecutor, tmp_path: Path) -> None:
    found = single.submit(nested.outputs_of_tries, single, str(tmp_path)).result(DEADLINE)
    assert found == {"second": 2}


def test_each_listener_gets_each_event_once(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    """However many there are, and whenever they were added."""
    task = executor.submit(nested.listen_often, executor, rendezvous.address)
    arrivals = rendezvous.expect("child", "parent")
    arrivals["parent"].release()
    rendezvous.next().release()
    arrivals["child"].release()
    first, *others, late, removed = task.result(DEADLINE)
    assert first == ["started", "update half", "update 1", "completion"]
    assert others == [first] * 3
    assert late == ["started", "completion"] or late == ["started", "update 1", "completion"]
    assert removed == []


def test_the_stream_of_events(single: CondaEnvExecutor) -> None:
    found = single.submit(nested.stream_events, single).result(DEADLINE)
    assert found[0] == "started"
    assert found[-2:] == ["completion", "completion"]
    assert set(found[1:-2]) <= {"update"}


# ------------------------------------------------------------------------------ failures go on


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (nested.let_it_crash, WorkerCrashed),
        (nested.let_it_time_out, TaskTimeoutError),
        (nested.let_dependency_fail, DependencyFailed),
    ],
)
def test_a_failure_that_is_let_through(
    single: CondaEnvExecutor, function: Callable[..., None], kind: type[Exception]
) -> None:
    """It has the type, the text and the attributes that the program knows, at any depth."""
    error = single.submit(function, single).exception(DEADLINE)
    assert type(error) is kind
    deeper = single.submit(nested.call_inside, single, function).exception(DEADLINE)
    assert type(deeper) is kind
    if kind is WorkerCrashed:
        plain = single.submit(nested.crash).exception(DEADLINE)
        assert (error.exit_code, deeper.exit_code, plain.exit_code) == (7, 7, 7)  # type: ignore[union-attr]
        without_pid = [re.sub(r"\d+", "#", str(each)) for each in (error, deeper, plain)]
        assert without_pid == [without_pid[0]] * 3


def test_the_librarys_exceptions_can_be_caught(single: CondaEnvExecutor) -> None:
    assert single.submit(nested.catch_by_name, single).result(DEADLINE) == [
        "WorkerCrashed 7",
        "TaskTimeoutError",
    ]


# ------------------------------------------------------------------------- tasks not started


def test_a_task_that_is_never_started(executor: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    """The end of the function cancels it, as it does one that waits for another task."""
    task = executor.submit(nested.never_start, executor, rendezvous.address)
    arrivals = rendezvous.expect("child", "parent")
    arrivals["parent"].release()
    assert task.result(DEADLINE) == ["pending", "pending"]
    thread = rendezvous.next()
    assert thread.label == "CancelledError CancelledError RuntimeError"
    thread.release()
    arrivals["child"].release()
    assert executor.wait_all(DEADLINE)


def test_the_end_of_the_pool_cancels_what_was_not_started(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor, other = make(1), make(1)
    task = executor.submit(nested.wait_for_unstarted, other, rendezvous.address)
    rendezvous.next().release()
    other.shutdown()
    with pytest.raises(CancelledError, match="shut down before the task was started"):
        task.result(DEADLINE)


def test_an_unstarted_task_as_an_argument_is_started(single: CondaEnvExecutor) -> None:
    assert single.submit(nested.depend_on_unstarted, single).result(DEADLINE) == 6


def test_a_task_that_is_cancelled_and_then_started(single: CondaEnvExecutor) -> None:
    found = single.submit(nested.start_cancelled, single).result(DEADLINE)
    assert found == [True, "canceled", "canceled"]


# --------------------------------------------------------------------- tasks in this process


@pytest.mark.parametrize("workers", [0, 2])
def test_the_executor_of_a_task_in_this_process(workers: int) -> None:
    with InProcessExecutor(workers) as executor:
        task = executor.submit(lambda: current_task().executor is executor)
        assert task.result(DEADLINE)
        assert executor.submit(nested.through_current_task, 1, 2).result(DEADLINE) == 3


def test_the_number_of_the_try() -> None:
    tries: list[int] = []

    def run() -> int:
        tries.append(current_task().attempt)
        if len(tries) < 3:
            raise OSError
        return tries[-1]

    assert current_task().attempt == 1
    with InProcessExecutor() as executor:
        task = executor.options(retries=2, retry_on=OSError).submit(run)
        assert task.result(DEADLINE) == 3
    assert tries == [1, 2, 3]


def test_the_number_of_the_try_in_a_worker(single: CondaEnvExecutor, tmp_path: Path) -> None:
    """After an exception, after the death of the worker; and of the call behind it."""
    raised = single.options(retries=2, retry_on=OSError)
    assert raised.submit(nested.tries, str(tmp_path / "raised"), 3, False).result(DEADLINE) == [
        1, 2, 3,
    ]  # fmt: skip
    died = single.options(retries=2)
    assert died.submit(nested.tries, str(tmp_path / "died"), 3, True).result(DEADLINE) == [1, 2, 3]
    assert single.submit(nested.attempt).result(DEADLINE) == 1
