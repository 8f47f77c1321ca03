"""Alarms that a task leaves behind, and whatever else is raised while the worker itself is at work.
"""

from __future__ import annotations

import signal

import pytest

from tests.faults import work
from tests.support.observe import DEADLINE
from wetlands_executor import WorkerCrashed
from wetlands_executor.sharedmem import arena

LARGE = b"x" * 3_000_000
TIMERS = ["ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"]


@pytest.fixture
def pipes_only(monkeypatch):
    """Let large arguments go through the pipe."""
    if arena.current() is not None:
        monkeypatch.setattr(arena.current(), "carries", False)


def check_others(executor):
    """What comes after the culprit: short, large, new functions, many in one batch."""
    for _ in range(3):
        assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
        assert executor.submit(len, LARGE).result(DEADLINE) == len(LARGE)
        assert executor.submit(lambda data: len(data), LARGE).result(DEADLINE) == len(LARGE)
        assert list(executor.map(len, [LARGE, b"", LARGE])) == [len(LARGE), 0, len(LARGE)]
    assert executor.submit(work.burn, 0.3).result(DEADLINE) == "burnt"


@pytest.mark.parametrize("carries", [True, False])
@pytest.mark.parametrize("timer", TIMERS)
def test_an_interval_timer_ends_with_its_call(make, request, timer, carries):
    if not carries:
        request.getfixturevalue("pipes_only")
    executor = make(max_workers=1)
    pid = executor.submit(work.pid).result(DEADLINE)
    executor.submit(work.leave_timer, timer, 0.005).exception(DEADLINE)  # it may hit its own call
    check_others(executor)
    assert executor.submit(work.pid).result(DEADLINE) == pid


@pytest.mark.parametrize("raises", [True, False])
def test_an_alarm_ends_with_its_call(single, raises):
    """Without a handler it would end the process."""
    pid = single.submit(work.pid).result(DEADLINE)
    single.submit(work.leave_alarm, raises).result(DEADLINE)
    assert single.submit(work.burn, 1.3).result(DEADLINE) == "burnt"
    single.submit(work.leave_watchdog, 0.2).result(DEADLINE)
    assert single.submit(work.burn, 0.5).result(DEADLINE) == "burnt"
    assert single.submit(work.pid).result(DEADLINE) == pid


def test_an_alarm_of_an_item_of_a_map(single):
    found = single.map(work.leave_alarm_or_burn, [0.2, 0, 0, 0])
    assert list(found) == ["left", "burnt", "burnt", "burnt"]


def test_an_alarm_within_its_call_interrupts_it(single):
    with pytest.raises(work.Alarm):
        single.submit(work.be_interrupted_by_alarm).result(DEADLINE)
    check_others(single)


def test_an_alarm_of_the_initializer_stays(make):
    executor = make(max_workers=1, initializer=work.count_ticks)
    executor.submit(work.burn, 0.1).result(DEADLINE)
    before = executor.submit(work.ticks).result(DEADLINE)
    executor.submit(work.burn, 0.2).result(DEADLINE)
    assert executor.submit(work.ticks).result(DEADLINE) > before > 0


def test_a_thread_that_was_left_behind_cannot_set_one(single):
    single.submit(work.leave_thread_that_sets_alarm).result(DEADLINE)
    error = single.submit(work.error_of_that_thread).result(DEADLINE)
    assert "task has ended" in error


@pytest.mark.parametrize("way", ["signals", "exceptions"])
def test_a_thread_that_goes_on_raising_in_the_main_thread(make, pipes_only, way):
    """It hits the worker between calls, while it reads arguments, while it answers.

    What hangs or fails is at most what it hits.
    """
    executor = make(max_workers=1)
    pid = executor.submit(work.pid).result(DEADLINE)
    for _ in range(3):
        executor.submit(work.leave_thread_that_raises, way).exception(DEADLINE)
        for _ in range(5):
            error = executor.submit(len, LARGE).exception(DEADLINE)
            assert error is None or isinstance(error, (WorkerCrashed, work.Alarm)), error
    executor.submit(work.burn, 0.5).exception(DEADLINE)
    check_others(executor)
    assert executor.submit(work.pid).result(DEADLINE) != pid


def test_an_argument_that_does_not_fit_into_the_memory_of_the_worker(make, pipes_only):
    """What is left of it in the pipe is not taken for what follows."""
    pytest.importorskip("resource")
    executor = make(max_workers=1)
    executor.submit(work.limit_memory, 100 << 20).result(DEADLINE)
    queued = [
        executor.submit(len, data)
        for data in (b"\1" * (400 << 20), b"a" * 500, b"b" * 70_000, LARGE)
    ]
    error = queued[0].exception(DEADLINE)
    assert isinstance(error, WorkerCrashed)
    assert "does not fit into the memory" in str(error)
    assert [task.result(DEADLINE) for task in queued[1:]] == [500, 70_000, len(LARGE)]


def test_a_handler_stays(single):
    """Only alarms end with a call.

    Handlers are state of the process, as with ``ProcessPoolExecutor``.
    """
    single.submit(work.install_handler, "SIGUSR1").result(DEADLINE)
    assert single.submit(work.has_handler, "SIGUSR1").result(DEADLINE)
    assert single.submit(signal.getsignal, signal.SIGALRM).result(DEADLINE) == signal.SIG_DFL
