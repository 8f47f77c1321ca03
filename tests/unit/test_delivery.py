"""Threads on which user code may run: in order on one, or on as many as it takes.

The tests' own threads are those of the parts; they wait for each other by events.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from wetlands_executor import threads
from wetlands_executor.pool import delivery
from wetlands_executor.pool.delivery import Decoders, SerialThread, run_entry

#: Seconds after which a test gives up.
DEADLINE = 10.0


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    part = Decoders("wetlands-test", list)
    yield part
    part.end()


class Stuck:
    """A job that says that it has begun, and ends when the test lets it."""

    def __init__(self) -> None:
        self.begun, self.free = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.free.wait(DEADLINE)


# ----------------------------------------------------------------------------------------- decoders


def test_a_job_asks_for_a_thread_if_none_waits(decoders: Decoders) -> None:
    done = threading.Event()
    assert decoders.check() is None, "nothing waits"
    assert decoders.put(done.set) is True
    assert decoders.check() == delivery.STALLED_AFTER
    assert done.wait(DEADLINE)


def test_a_stuck_job_holds_up_no_other(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "STALLED_AFTER", 0.0)
    stuck, done = Stuck(), threading.Event()
    decoders.put(stuck)
    decoders.check()
    assert stuck.begun.wait(DEADLINE)
    assert decoders.put(done.set) is True
    decoders.check()
    assert done.wait(DEADLINE)
    stuck.free.set()


def test_a_job_that_has_just_begun_is_given_time(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "STALLED_AFTER", 1000.0)
    stuck, done = Stuck(), threading.Event()
    decoders.put(stuck)
    decoders.check()
    assert stuck.begun.wait(DEADLINE)
    decoders.put(done.set)
    assert decoders.check() == 1000.0
    assert not done.is_set(), "no second thread was started"
    stuck.free.set()
    assert done.wait(DEADLINE)


def test_no_more_threads_are_stuck_than_allowed(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "STALLED_AFTER", 0.0)
    monkeypatch.setattr(delivery, "MOST_DECODERS", 2)
    jobs = [Stuck() for _ in range(3)]
    for job in jobs:
        decoders.put(job)
        decoders.check()
    for job in jobs[:2]:
        assert job.begun.wait(DEADLINE)
    decoders.check()
    assert not jobs[2].begun.is_set()
    for job in jobs:
        job.free.set()
    assert jobs[2].begun.wait(DEADLINE)


def test_all_jobs_have_run_at_the_end() -> None:
    part = Decoders("wetlands-test", list)
    ran: list[int] = []
    for number in range(20):
        part.put(lambda number=number: ran.append(number))  # type: ignore[misc]
    part.check()
    part.end()
    assert sorted(ran) == list(range(20))
    assert part.put(lambda: ran.append(99)) is False
    assert ran[-1] == 99, "what comes later runs in its caller"


def test_without_a_thread_jobs_run_where_they_are_looked_at(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start", refuse)
    ran: list[int] = []
    decoders.put(lambda: ran.append(threading.get_ident()))
    assert decoders.check() is None
    assert ran == [threading.get_ident()]


# ------------------------------------------------------------------------------------ serial thread


def test_jobs_run_in_their_order_on_one_thread() -> None:
    part = SerialThread("wetlands-test", threads.OUTPUT)
    assert (part.started, part.ident) == (False, None)
    ran: list[tuple[int, int]] = []
    for number in range(50):
        part.put(lambda number=number: ran.append((number, threading.get_ident())))  # type: ignore[misc]
    part.end()
    assert [number for number, _ in ran] == list(range(50))
    assert {ident for _, ident in ran} == {part.ident}
    part.put(lambda: ran.append((99, 0)))
    assert ran[-1] == (99, 0)


def test_an_exception_of_a_job_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    part = SerialThread("wetlands-test", threads.OUTPUT)
    ran = threading.Event()

    def leave() -> None:
        raise SystemExit(3)

    part.put(leave)
    part.put(ran.set)
    part.end()
    assert ran.is_set()
    assert "SystemExit" in caplog.text


def test_a_thread_that_was_not_needed_is_not_started_at_the_end() -> None:
    part = SerialThread("wetlands-test", threads.OUTPUT)
    part.end()
    assert (part.started, part.ident) == (False, None)


def test_an_entry_is_run_once() -> None:
    ran: list[int] = []
    entry: list[delivery.Job] = [lambda: ran.append(1)]
    run_entry(entry)
    run_entry(entry)
    assert (ran, entry) == ([1], [])
