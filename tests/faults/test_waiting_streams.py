"""A stream or a log handler of the program may wait for tasks while it is called.

What it waits for may be behind its own lines.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from concurrent.futures import as_completed, wait

import pytest

from tests.faults import work
from tests.support.observe import DEADLINE, awaited
from wetlands_executor import CondaEnvExecutor, printing_task
from wetlands_executor.pool import output


class Waiting(io.StringIO):
    """A stream that does something before its first write; keeps what that returned or raised."""

    def __init__(self, act):
        super().__init__()
        self.act = act
        self.acted = threading.Event()
        self.found = []

    def write(self, text):
        act, self.act = self.act, None
        if act is not None:
            try:
                self.found.append(act())
            except BaseException as error:
                self.found.append(error)
            self.acted.set()
        return super().write(text)


def _nested(executor):
    with executor.submit(pow, 2, 5) as task:
        pass
    return 32 if task.done() else None


WAYS = {
    "result": lambda executor: executor.submit(pow, 2, 5).result(DEADLINE),
    "result without limit": lambda executor: executor.submit(pow, 2, 5).result(),
    "wait_for": lambda executor: executor.submit(pow, 2, 5).wait_for(DEADLINE).result(0),
    "with": _nested,
    "await": lambda executor: awaited(executor.submit(pow, 2, 5)),
    "wait": lambda executor: wait([executor.submit(pow, 2, 5)], DEADLINE).done.pop().result(0),
    "as_completed": lambda executor: next(
        as_completed([executor.submit(pow, 2, 5)], DEADLINE)
    ).result(0),
    "map": lambda executor: sum(executor.map(pow, [2, 2], [4, 4], timeout=DEADLINE)),
    "map unordered": lambda executor: sum(
        executor.map(pow, [2, 2], [4, 4], timeout=DEADLINE, ordered=False)
    ),
    "wait_all": lambda executor: 32 if executor.wait_all(DEADLINE) else None,
    "launch": lambda executor: 32 if executor.launch() is executor else None,
    "what has printed": lambda executor: executor.submit(_say_and_return, 32).result(DEADLINE),
    "a map that prints": lambda executor: sum(
        executor.map(_say_and_return, [2, 30], timeout=DEADLINE)
    ),
    "after what has printed": lambda executor: executor.submit(
        pow, executor.submit(_say_and_return, 2), 5
    ).result(DEADLINE),
    "what has failed": lambda executor: (
        32 if executor.submit(_say_and_raise).exception(DEADLINE) else None
    ),
    "what has died": lambda executor: (
        32 if executor.submit(_say_and_die).exception(DEADLINE) else None
    ),
    "another executor": lambda executor: _in_another(),
}


def _say_and_return(value):
    print("said")
    return value


def _say_and_raise():
    print("said")
    raise ValueError("said")


def _say_and_die():
    print("said", flush=True)
    work.fault("os_exit")


def _in_another():
    with CondaEnvExecutor(max_workers=1) as other:
        return other.submit(_say_and_return, 32).result(DEADLINE)


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_waits(single, way):
    out = Waiting(lambda: WAYS[way](single))
    with contextlib.redirect_stdout(out):
        assert single.submit(work.say, "a", "b").result(DEADLINE) == 2
        single.submit(work.say, "c").result(DEADLINE)
        # The stream may wait for "c" too, whose line comes behind it then, and wake up after this
        # thread.
        assert out.acted.wait(DEADLINE)
        single.submit(work.say, "said").result(DEADLINE)
    assert out.found == [32]
    lines = [line for line in out.getvalue().splitlines() if line != "said"]
    assert lines == ["a", "b", "c"], "none is lost"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_waits_for_the_task_that_has_printed(single, name):
    out = Waiting(lambda: printing_task().result(DEADLINE))
    with (contextlib.redirect_stdout if name == "stdout" else contextlib.redirect_stderr)(out):
        task = single.submit(_say_slowly, name)
        assert task.result(DEADLINE) == "said"
        single.submit(work.say, "next", stream=name).result(DEADLINE)
    assert out.found == ["said"]
    assert out.getvalue() == "first\nsecond\nnext\n"


def _say_slowly(name):
    work.say("first", stream=name)
    work.say("second", stream=name)
    return "said"


def test_a_log_handler_that_waits(single):
    found = []

    class Handler(logging.Handler):
        def handle(self, record):
            found.append((record.getMessage(), single.submit(_say_and_return, 32).result(DEADLINE)))

    handler = Handler()
    logging.getLogger("waiting").addHandler(handler)
    try:
        assert single.submit(_log, 3).result(DEADLINE) == 3
    finally:
        logging.getLogger("waiting").removeHandler(handler)
    assert found == [(f"record {n}", 32) for n in range(3)]


def _log(count):
    for n in range(count):
        logging.getLogger("waiting").warning("record %d", n)
    return count


def test_a_stream_that_waits_for_what_is_behind_a_flood(single, monkeypatch):
    """The worker must finish printing first, more than is read while the output thread does not
    keep up.
    """
    monkeypatch.setattr(output, "OUTPUT_HIGH", 2)
    monkeypatch.setattr(output, "OUTPUT_LOW", 1)
    out = Waiting(lambda: single.submit(pow, 2, 5).result(DEADLINE))
    with contextlib.redirect_stdout(out):
        assert single.submit(work.flood, 60_000, 100).result(DEADLINE) == 60_000
        single.submit(work.say, "end").result(DEADLINE)
    assert out.found == [32]
    numbers = [int(line.split()[0]) for line in out.getvalue().splitlines()[:-1]]
    assert numbers == list(range(60_000))


def test_a_stream_that_waits_when_reading_was_paused_before(single, rendezvous, monkeypatch):
    monkeypatch.setattr(output, "OUTPUT_HIGH", 0)
    monkeypatch.setattr(output, "OUTPUT_LOW", 0)
    entered, go = threading.Event(), threading.Event()

    def act():
        entered.set()
        assert go.wait(DEADLINE)
        return single.submit(pow, 2, 5).result(DEADLINE)

    out = Waiting(act)
    with contextlib.redirect_stdout(out):
        task = single.submit(work.say_arrive_and_flood, rendezvous.address, 60_000)
        assert entered.wait(DEADLINE)
        rendezvous.next().release()
        go.set()
        assert task.result(DEADLINE) == 60_000
        single.submit(work.say, "end").result(DEADLINE)
    assert out.found == [32]
    assert [int(line.split()[0]) for line in out.getvalue().splitlines()[:-1]] == [
        -1,
        *range(60_000),
    ]


def test_lines_come_before_results_again_after_a_wait(single):
    out = Waiting(lambda: single.submit(pow, 2, 5).result(DEADLINE))
    with contextlib.redirect_stdout(out):
        for n in range(100):
            single.submit(work.say, f"line {n}").result(DEADLINE)
            if n:
                assert out.getvalue().endswith(f"line {n}\n")


def test_a_stream_that_waits_at_the_end_of_the_executor():
    """The I/O thread has ended by then, and waits for the output thread."""
    entered, go = threading.Event(), threading.Event()

    def act():
        entered.set()
        assert go.wait(DEADLINE)
        return task.result(DEADLINE)

    out = Waiting(act)
    with contextlib.redirect_stdout(out):
        executor = CondaEnvExecutor(max_workers=1)
        first = executor.submit(work.say, "a")
        task = executor.submit(_say_and_return, 32)
        assert entered.wait(DEADLINE)
        executor.shutdown(wait=False)
        assert executor._pool.lifecycle.workers_gone.wait(DEADLINE)
        assert not task.done()
        go.set()
        assert executor._pool.lifecycle.join(DEADLINE)
    assert first.result(0) == 1
    assert out.found == [32]
    assert out.getvalue() == "a\nsaid\n"


def test_a_stream_that_shuts_the_executor_down():
    out = Waiting(lambda: executor.shutdown())
    with contextlib.redirect_stdout(out):
        executor = CondaEnvExecutor(max_workers=1)
        task = executor.submit(_say_and_return, 32)
        assert task.result(DEADLINE) == 32
        assert executor._pool.lifecycle.join(DEADLINE)
    assert out.found == [None]
    assert out.getvalue() == "said\n"
