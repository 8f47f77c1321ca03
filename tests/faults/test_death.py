"""Workers that die: idle, busy, under load, in the middle of a result."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from concurrent.futures import wait

import pytest

from tests.contract.workload import arrive
from tests.faults import work
from tests.support.observe import DEADLINE, crash_of, gone, group_of, lines, pids, until
from wetlands_executor import CondaEnvExecutor, WorkerCrashed

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_idle_worker_is_replaced(make, rendezvous, number):
    executor = make(
        max_workers=2, initializer=work.announce, initargs=(rendezvous.address, "starts")
    ).launch()
    first = {rendezvous.next().pid, rendezvous.next().pid}
    victim = min(first)
    os.kill(victim, number)
    replacement = rendezvous.next()  # without another submit
    assert gone([victim])
    assert executor.launch().worker_count == 2
    assert pids(executor) == first - {victim} | {replacement.pid}
    assert {executor.submit(work.pid).result(DEADLINE) for _ in range(8)} <= pids(executor)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_busy_worker_dies_with_its_task_only(executor, rendezvous, number):
    culprit = executor.submit(arrive, rendezvous.address, "culprit")
    neighbour = executor.submit(arrive, rendezvous.address, "neighbour")
    arrivals = rendezvous.expect("culprit", "neighbour")
    queued = [executor.submit(work.make, int, n) for n in range(50)]
    os.kill(arrivals["culprit"].pid, number)
    crash = crash_of(culprit)
    assert (crash.exit_code, crash.signal_name) == (-number, number.name)
    assert number.name in str(crash)
    assert str(arrivals["culprit"].pid) in str(crash)
    assert [task.result(DEADLINE) for task in queued] == list(range(50)), (
        "they did not wait for the neighbour"
    )
    assert not neighbour.done()
    arrivals["neighbour"].release()
    assert neighbour.result(DEADLINE) == "neighbour"


def test_all_workers_die_at_once(make, rendezvous):
    executor = make(max_workers=3).launch()
    tasks = [executor.submit(arrive, rendezvous.address, n) for n in range(3)]
    for arrival in rendezvous.expect(0, 1, 2).values():
        os.kill(arrival.pid, signal.SIGKILL)
    for task in tasks:
        crash_of(task)
    assert executor.submit(pow, 2, 5).result(DEADLINE) == 32


def test_queue_behind_a_killed_task_survives(single, rendezvous):
    """What waits in the inbox of the victim goes to its replacement, in order, once."""
    culprit = single.submit(arrive, rendezvous.address, "culprit")
    arrival = rendezvous.next()
    journal = os.path.join(os.path.dirname(rendezvous.address), "journal")
    queued = [single.submit(work.journal, journal, n) for n in range(200)]
    os.kill(arrival.pid, signal.SIGKILL)
    crash_of(culprit)
    assert [task.result(DEADLINE) for task in queued] == list(range(200))
    with open(journal) as file:
        assert list(map(int, file)) == list(range(200))


def test_kills_under_load(make, tmp_path, stress_rng):
    """Many kills among thousands of short tasks from several threads.

    A kill costs at most the task that was running.
    """
    executor = make(max_workers=2).launch()
    journal = tmp_path / "journal"
    count, threads, tasks = 800, 4, {}
    killed: set[int] = set()
    over = threading.Event()

    def submit(start: int) -> None:
        for number in range(start, start + count):
            tasks[number] = executor.submit(work.journal, str(journal), number)
            if number % 7 == 0:
                tasks[number].exception(DEADLINE)

    def kill() -> None:
        completed = 0
        while not over.wait(stress_rng.uniform(0.0, 0.05)):  # the moment of the kill is the point
            # A busy machine may take longer than that to start a worker. If each were killed before
            # it has done anything, the tasks would come to no end.
            before, completed = completed, executor.get_progress()["completed"]
            if completed == before:
                continue
            for info in executor.workers():
                if (
                    info.state in ("idle", "busy")
                    and info.pid not in killed
                    and stress_rng.random() < 0.7
                ):
                    killed.add(info.pid)
                    try:
                        os.kill(info.pid, stress_rng.choice(SIGNALS))
                    except ProcessLookupError:
                        continue

    runners = [threading.Thread(target=submit, args=(index * count,)) for index in range(threads)]
    killer = threading.Thread(target=kill)
    for thread in (*runners, killer):
        thread.start()
    try:
        for thread in runners:
            thread.join()
        _done, open_tasks = wait(tasks.values(), timeout=2 * DEADLINE)
    finally:
        over.set()
        killer.join()
    assert not open_tasks, "every task reaches a final state"
    failed = {number for number, task in tasks.items() if task.exception() is not None}
    assert all(type(tasks[number].exception()) is WorkerCrashed for number in failed)
    assert all(tasks[number].result() == number for number in set(tasks) - failed)
    assert len(failed) <= len(killed), "an innocent task was lost"
    ran = Counter(map(int, lines(journal)))
    assert all(times == 1 for times in ran.values()), "a task ran twice"
    assert set(tasks) - set(ran) <= failed
    assert len(killed) >= 3, "the test has to kill something"


def test_cancels_under_load_with_kills(make, stress_rng):
    """Cancel, steal and death race for the same items.

    All of them end, and what says cancelled has not run.
    """
    executor = make(max_workers=2).launch()
    all_tasks: list[list] = [[] for _ in range(4)]

    def run(tasks: list, seed: int) -> None:
        for number in range(600):
            task = executor.submit(work.make, int, number)
            tasks.append(task)
            draw = (seed * 7919 + number * 104729) % 100
            if draw < 15:
                assert task.cancel() == task.cancelled()
            elif draw < 30:
                try:
                    assert task.result(DEADLINE) == number
                except WorkerCrashed:
                    continue
            elif draw == 99 and number % 3 == 0:
                for pid in list(pids(executor))[:1]:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

    threads = [
        threading.Thread(target=run, args=(tasks, stress_rng.randrange(1000)))
        for tasks in all_tasks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "result() hangs"
    _done, open_tasks = wait([task for tasks in all_tasks for task in tasks], timeout=2 * DEADLINE)
    assert not open_tasks


def test_two_submits_never_queue_behind_each_other(executor, rendezvous):
    """With two idle workers, two tasks that need each other meet, however their submits interleave.
    """
    for round_number in range(150):
        threads = [
            threading.Thread(
                target=executor.submit, args=(arrive, rendezvous.address, f"{round_number} {n}")
            )
            for n in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for arrival in rendezvous.expect(*(f"{round_number} {n}" for n in range(2))).values():
            arrival.release()


def test_death_while_a_large_result_travels(single):
    culprit = single.submit(work.blob_and_die, 200_000_000)
    assert crash_of(culprit).signal_name == "SIGKILL"
    assert single.submit(work.blob, 1_000_000).result(DEADLINE) == b"x" * 1_000_000


def test_death_while_a_large_argument_travels(single, rendezvous):
    """The argument of a queued task was half written when the worker died.

    Its replacement gets it whole.
    """
    culprit = single.submit(arrive, rendezvous.address, "culprit")
    arrival = rendezvous.next()
    large = single.submit(work.make, len, b"x" * 20_000_000)
    os.kill(arrival.pid, signal.SIGKILL)
    crash_of(culprit)
    assert large.result(DEADLINE) == 20_000_000


def test_result_does_not_fit_into_the_worker(make):
    executor = make(max_workers=1, initializer=work.limit_memory, initargs=(150_000_000,))
    before = executor.submit(work.pid).result(DEADLINE)
    with pytest.raises(MemoryError):
        executor.submit(work.blob, 100_000_000).result(DEADLINE)
    with pytest.raises(MemoryError):
        executor.submit(work.blob, 1_000_000_000).result(DEADLINE)
    assert executor.submit(work.blob, 1_000_000).result(DEADLINE) == b"x" * 1_000_000
    assert executor.submit(work.pid).result(DEADLINE) == before


def test_result_does_not_fit_into_the_host(host):
    code, out, err = host("small_host").finish()
    assert (code, out.split()) == (0, ["MemoryError", "1000000", "same"]), err


def test_death_is_reported_to_each_thread_that_waits(single, rendezvous):
    task = single.submit(arrive, rendezvous.address)
    arrival = rendezvous.next()
    seen: list[object] = []
    called = threading.Event()
    task.add_done_callback(lambda done: (seen.append(done.exception()), called.set()))
    waiter = threading.Thread(target=lambda: seen.append(task.exception(DEADLINE)))
    waiter.start()
    os.kill(arrival.pid, signal.SIGKILL)
    waiter.join(DEADLINE)
    assert called.wait(DEADLINE)
    assert [type(error) for error in seen] == [WorkerCrashed] * 2


@pytest.mark.parametrize("end", ["kill_workers", "terminate_workers"])
def test_end_workers_with_work_under_way(make, rendezvous, end):
    executor = make(max_workers=2).launch()
    processes = pids(executor)
    running = [executor.submit(arrive, rendezvous.address, n) for n in range(2)]
    rendezvous.expect(0, 1)
    queued = [executor.submit(work.pid) for _ in range(100)]
    getattr(executor, end)()
    for task in running:
        crash_of(task)
    wait(queued, DEADLINE)
    assert all(task.cancelled() for task in queued)
    executor.shutdown()
    assert gone(processes)
    with pytest.raises(RuntimeError):
        executor.submit(work.pid)


def test_nothing_is_left_in_the_group_of_a_worker(make, rendezvous):
    """Whatever a worker's tasks have started ends with it.

    At its death, at its replacement, at shutdown.
    """
    executor = make(max_workers=1)
    culprit = executor.submit(work.leave_stubborn_subprocess, rendezvous.address)
    arrival = rendezvous.next()
    grandchild = int(arrival.label)
    assert group_of(arrival.pid) == {arrival.pid, grandchild}
    os.kill(arrival.pid, signal.SIGKILL)
    crash_of(culprit)
    assert gone([grandchild])
    left = executor.submit(work.leave_subprocess).result(DEADLINE)
    worker = executor.submit(work.pid).result(DEADLINE)
    assert left in group_of(worker)
    executor.shutdown()
    assert gone([left, worker])
    assert group_of(worker) == set()


def test_worker_that_dies_idle_again_and_again(make, tmp_path):
    """Replacing a worker that cannot stay alive ends, instead of burning a processor for ever."""
    journal = tmp_path / "starts"
    executor = make(max_workers=1, initializer=work.die_soon, initargs=(str(journal),))
    executor.launch(wait=False)
    assert until(lambda: len(lines(journal)) >= 3)
    assert until(lambda: executor.worker_count == 0 and _stable(executor, journal), 10), (
        f"{len(lines(journal))} starts, and still going on"
    )


def _stable(executor: CondaEnvExecutor, journal) -> bool:
    before = len(lines(journal))
    return not until(lambda: executor.worker_count or len(lines(journal)) != before, 1.0)
