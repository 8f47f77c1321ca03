"""Tasks that read what was written to their worker, or take what wakes its host.

Nothing waits for ever, nothing runs twice. The culprit is the task that runs, or a thread that it
has left behind. What it has read had not begun: it runs elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import harms, work
from tests.support.observe import DEADLINE, pids, until
from wetlands_executor import CondaEnvExecutor, WorkerCrashed, system
from wetlands_executor.worker import wire

pytestmark = pytest.mark.skipif(
    system.PORTABLE_ONLY, reason="needs the page that is shared with the worker"
)

#: Bytes that are read at once: a part of a call, one call, everything.
COUNTS = [1, wire.FRAME, 65536]
#: Calls that wait behind the culprit.
WAITING = 30
#: Bytes of an argument that goes through the bulk pipe.
LARGE = 50_000
NAMES = ["inbox", "bulk", "results", "life", "wakeup", "arguments", "file"]


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def some(request, make) -> CondaEnvExecutor:
    """Executors with one worker, and with two."""
    executor: CondaEnvExecutor = make(max_workers=request.param)
    executor.launch()
    return executor


def replaced(executor: CondaEnvExecutor, pid: int) -> bool:
    return until(lambda: pid not in pids(executor) and len(pids(executor)) == executor._max_workers)


def ran_once(path: Path, count: int) -> None:
    assert Counter(map(int, path.read_text().split())) == dict.fromkeys(range(count), 1)


def well(executor: CondaEnvExecutor) -> None:
    """Short calls one after another, waiting calls, large arguments and results, a map."""
    assert [executor.submit(pow, 2, n).result(DEADLINE) for n in range(10)] == [
        2**n for n in range(10)
    ]
    tasks = [executor.submit(len, b"x" * size) for size in (10, LARGE, 10, 2 * LARGE, 1_000_000)]
    assert [task.result(DEADLINE) for task in tasks] == [10, LARGE, 10, 2 * LARGE, 1_000_000]
    assert list(executor.map(abs, range(300), timeout=DEADLINE)) == list(range(300))


def hold_all(executor: CondaEnvExecutor, rendezvous, *culprit):
    """Let each worker wait in a task, one of them in the culprit; return that, and the arrivals."""
    task = executor.submit(*culprit, rendezvous.address)
    arrivals = [rendezvous.next()]
    others = [
        executor.submit(work.arrive_quietly, rendezvous.address)
        for _ in range(executor._max_workers - 1)
    ]
    arrivals += [rendezvous.next() for _ in others]
    return task, arrivals


@pytest.mark.parametrize("count", COUNTS)
def test_the_task_reads_calls_that_wait(some, rendezvous, tmp_path, count):
    path = tmp_path / "journal"
    culprit, arrivals = hold_all(some, rendezvous, harms.read_own, "inbox", count)
    tasks = [some.submit(work.journal, str(path), n) for n in range(WAITING)]
    assert until(lambda: sum(info.queue_depth for info in some.workers()) == WAITING)
    arrivals[0].release()
    assert culprit.result(DEADLINE) > 0
    pid = culprit.worker_pid
    for arrival in arrivals[1:]:
        arrival.release()
    assert [task.result(DEADLINE) for task in tasks] == list(range(WAITING))
    ran_once(path, WAITING)
    assert replaced(some, pid)
    well(some)


@pytest.mark.parametrize("count", COUNTS)
def test_the_task_reads_from_everything(some, rendezvous, tmp_path, count):
    """Short calls and large ones wait behind it."""
    path = tmp_path / "journal"
    well(some)
    assert some.submit(harms.read_everything, count).exception(DEADLINE) is None
    culprit, arrivals = hold_all(some, rendezvous, harms.read_everything, count)
    short = [some.submit(work.journal, str(path), n) for n in range(WAITING)]
    large = [some.submit(same_length, bytes([n]) * LARGE) for n in range(5)]
    assert until(lambda: sum(info.queue_depth for info in some.workers()) == WAITING + 5)
    for arrival in arrivals:
        arrival.release()
    assert culprit.result(DEADLINE) > 0
    assert [task.result(DEADLINE) for task in short] == list(range(WAITING))
    assert [task.result(DEADLINE) for task in large] == [(LARGE, n, n) for n in range(5)]
    ran_once(path, WAITING)
    well(some)


@pytest.mark.parametrize("count", COUNTS)
def test_the_task_reads_parts_of_a_map(some, rendezvous, count):
    culprit, arrivals = hold_all(some, rendezvous, harms.read_own, "inbox", count)
    results = some.map(abs, range(5000), timeout=DEADLINE)
    # Workers get their parts one after another; it is the culprit's that will be read.
    assert until(
        lambda: any(info.queue_depth for info in some.workers() if info.pid == arrivals[0].pid)
    )
    for arrival in arrivals:
        arrival.release()
    assert culprit.result(DEADLINE) > 0
    assert list(results) == list(range(5000))
    well(some)


@pytest.mark.parametrize("count", [1, 20, LARGE, 1 << 20])
def test_the_task_reads_large_arguments_that_wait(some, rendezvous, count):
    culprit, arrivals = hold_all(some, rendezvous, harms.read_own, "bulk", count)
    tasks = [some.submit(same_length, bytes([n]) * (LARGE + n)) for n in range(10)]
    assert until(lambda: sum(info.queue_depth for info in some.workers()) == 10)
    for arrival in arrivals:
        arrival.release()
    assert culprit.result(DEADLINE) > 0
    assert [task.result(DEADLINE) for task in tasks] == [(LARGE + n, n, n) for n in range(10)]
    assert replaced(some, culprit.worker_pid)
    well(some)


def same_length(data):
    return len(data), min(data), max(data)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["inbox", "bulk", "wakeup"])
def test_a_thread_that_a_task_has_left_reads(some, name, count):
    """It may be faster than the worker for every call."""
    if name == "wakeup" and count == 1:
        pytest.skip("a counter is read as a whole")
    well(some)
    assert some.submit(harms.leave_reader, name, count).exception(DEADLINE) is None
    well(some)
    well(some)


@pytest.mark.parametrize("ahead", [0, WAITING])
def test_a_call_that_was_sent_directly_is_read_by_a_thread(some, tmp_path, ahead):
    """Alone, or with others behind it that the worker runs first."""
    path = tmp_path / "journal"
    well(some)
    some.submit(harms.leave_one_reading, "inbox", wire.FRAME).result(DEADLINE)
    for start in range(0, 3 * (ahead + 1), ahead + 1):  # whichever worker it is
        tasks = [some.submit(work.journal, str(path), n) for n in range(start, start + ahead + 1)]
        assert [task.result(DEADLINE) for task in tasks] == list(range(start, start + ahead + 1))
    ran_once(path, 3 * (ahead + 1))
    well(some)


def test_a_submitter_that_waits_without_limit_is_woken(single):
    """Its wakeup goes to a thread of the worker, again and again."""
    well(single)
    single.submit(harms.leave_reader, "wakeup", 8).result(DEADLINE)
    pid = single.submit(work.pid).result(DEADLINE)
    for n in range(20):
        assert single.submit(pow, 2, n).result() == 2**n
    assert until(lambda: single.submit(work.pid).result() != pid)


@pytest.mark.parametrize(
    "act", [harms.close_own, harms.cover_own, harms.spoil_own], ids=lambda act: act.__name__
)
@pytest.mark.parametrize("name", NAMES)
def test_one_descriptor_is_closed_covered_or_written_to(some, name, act):
    """Calls one after another, and calls that wait behind it. At worst the culprit is lost."""
    well(some)
    error = some.submit(act, name).exception(DEADLINE)
    assert error is None or isinstance(error, WorkerCrashed)
    well(some)
    before = [some.submit(pow, 2, n) for n in range(5)]
    culprit = some.submit(act, name)
    after = [some.submit(pow, 2, n) for n in range(WAITING)] + [some.submit(len, b"x" * LARGE)]
    error = culprit.exception(DEADLINE)
    assert error is None or isinstance(error, WorkerCrashed)
    assert [task.result(DEADLINE) for task in before] == [2**n for n in range(5)]
    assert [task.result(DEADLINE) for task in after] == [2**n for n in range(WAITING)] + [LARGE]
    well(some)


def test_a_neighbour_that_runs_is_left_alone(executor, rendezvous, tmp_path):
    """A thread of an earlier task reads what waits behind it, which does not wait for its end."""
    path = tmp_path / "journal"
    executor.launch()
    culprit = executor.submit(harms.leave_reader, "inbox", 65536, rendezvous.address)
    thief = rendezvous.next()
    culprit.result(DEADLINE)
    busy = [
        executor.submit(work.arrive_and_journal, rendezvous.address, str(path), WAITING + n)
        for n in range(2)
    ]
    arrivals = {arrival.pid: arrival for arrival in (rendezvous.next(), rendezvous.next())}
    assert set(arrivals) == pids(executor)
    tasks = [executor.submit(work.journal, str(path), n) for n in range(WAITING)]
    assert until(lambda: sum(info.queue_depth for info in executor.workers()) == WAITING)
    inbox = next(
        process for process in executor._pool.processes.values() if process.process.pid == thief.pid
    ).process.inbox
    assert system.unread(inbox)
    thief.release()
    assert until(lambda: not system.unread(inbox))
    harmed = arrivals.pop(thief.pid)
    for arrival in arrivals.values():
        arrival.release()
    assert [task.result(DEADLINE) for task in tasks] == list(range(WAITING))
    harmed.release()
    assert [task.result(DEADLINE) for task in busy] == [WAITING, WAITING + 1]
    ran_once(path, WAITING + 2)
    assert replaced(executor, thief.pid)


def test_a_stolen_call_can_be_cancelled(single, rendezvous):
    """The worker was believed to run it."""
    culprit = single.submit(harms.read_own, "inbox", 65536, rendezvous.address)
    arrival = rendezvous.next()
    tasks = [single.submit(pow, 2, n) for n in range(3)]
    assert until(lambda: single.workers()[0].queue_depth == 3)
    arrival.release()
    culprit.result(DEADLINE)
    single.submit(pow, 2, 3)
    for task in tasks:
        task.cancel()
    assert all(task.wait_for(DEADLINE).cancelled() or task.result() is not None for task in tasks)


def test_shutdown_waits_for_what_was_stolen(make, rendezvous):
    executor = make(max_workers=1)
    culprit = executor.submit(harms.read_own, "inbox", 65536, rendezvous.address)
    arrival = rendezvous.next()
    tasks = [executor.submit(pow, 2, n) for n in range(WAITING)]
    assert until(lambda: executor.workers()[0].queue_depth == WAITING)
    arrival.release()
    executor.shutdown()
    assert culprit.result(0) > 0
    assert [task.result(0) for task in tasks] == [2**n for n in range(WAITING)]


def test_an_idle_pool_has_no_watchdog(single):
    """Nor has one whose calls have all been answered."""
    well(single)
    watchdog = single._pool.watchdog
    assert until(lambda: not watchdog.armed)
    assert single.submit(os.getpid).result(DEADLINE) in pids(single)
    assert until(lambda: not watchdog.armed)
