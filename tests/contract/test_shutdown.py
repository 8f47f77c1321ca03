"""``shutdown``, ``with``, and executors that are simply dropped."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Executor, Future

import psutil
import pytest

from tests.contract import workload
from tests.contract.executor_kinds import ExecutorKind, assert_processes_end
from tests.support.rendezvous import DEADLINE, Rendezvous

#: The kinds of executor that have Python 3.14's ``terminate_workers`` and ``kill_workers``.
ENDING = ("process", "conda") if sys.version_info >= (3, 14) else ("conda",)


def test_submit_after_shutdown_is_refused(executor: Executor) -> None:
    executor.submit(int).result()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 5)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(pow, [2], [5])


def test_an_executor_that_was_never_used_can_be_shut_down(executor: Executor) -> None:
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 5)


def test_shutdown_can_be_called_again(executor: Executor) -> None:
    future = executor.submit(workload.identity, 1)
    executor.shutdown()
    executor.shutdown()
    executor.shutdown(wait=False)
    assert future.result(timeout=0) == 1


def test_shutdown_waits_for_what_runs_and_what_waits(
    single: Executor, rendezvous: Rendezvous
) -> None:
    tasks = [single.submit(workload.arrive, rendezvous.address, number) for number in range(5)]
    arrival = rendezvous.next()
    finished = threading.Event()
    thread = threading.Thread(target=lambda: (single.shutdown(wait=True), finished.set()))
    thread.start()
    assert not finished.wait(0.1)
    arrival.release()
    for _ in range(4):
        assert not finished.is_set()
        rendezvous.next().release()
    thread.join(DEADLINE)
    assert finished.is_set()
    assert [task.result(timeout=0) for task in tasks] == list(range(5))


def test_shutdown_without_waiting_returns_and_the_work_is_done(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(4)]
    rendezvous.next()
    executor.shutdown(wait=False)
    assert not any(task.done() for task in tasks)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)
    rendezvous.open()
    assert [task.result(DEADLINE) for task in tasks] == [0, 1, 2, 3]


@pytest.mark.executor_kinds("thread", "in-process", "conda")
def test_shutdown_with_waiting_after_one_without_waits(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    """Not for the standard library's pool of processes: it has forgotten what to wait for."""
    task = executor.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    executor.shutdown(wait=False)
    threading.Timer(0.05, arrival.release).start()
    executor.shutdown(wait=True)
    assert task.result(timeout=0) == 1


def shut_down_cancelling(executor: Executor, tasks: list[Future], rendezvous: Rendezvous) -> None:
    """Shut down with ``cancel_futures``, in a thread, and let the running task go on only after the
    last one has been cancelled.
    """
    cancelled = threading.Event()
    tasks[-1].add_done_callback(lambda _: cancelled.set())
    thread = threading.Thread(
        target=executor.shutdown, kwargs={"wait": True, "cancel_futures": True}
    )
    thread.start()
    assert cancelled.wait(DEADLINE)
    rendezvous.open()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_cancel_futures_cancels_what_waits_and_lets_finish_what_runs(
    single: Executor, rendezvous: Rendezvous
) -> None:
    tasks = [single.submit(workload.arrive, rendezvous.address, number) for number in range(30)]
    rendezvous.next()
    shut_down_cancelling(single, tasks, rendezvous)
    assert all(task.done() for task in tasks)
    ran = [number for number, task in enumerate(tasks) if not task.cancelled()]
    assert ran == list(range(len(ran))), "cancelled ones are the last"
    assert 1 <= len(ran) <= 3
    assert [tasks[number].result() for number in ran] == ran
    with pytest.raises(futures.CancelledError):
        tasks[-1].result(timeout=0)


def test_cancel_futures_calls_the_callbacks_of_what_it_cancels(
    single: Executor, rendezvous: Rendezvous
) -> None:
    tasks = [single.submit(workload.arrive, rendezvous.address, number) for number in range(10)]
    rendezvous.next()
    calls: list[Future] = []
    for task in tasks:
        task.add_done_callback(calls.append)
    shut_down_cancelling(single, tasks, rendezvous)
    assert sorted(map(id, calls)) == sorted(map(id, tasks))


@pytest.mark.executor_kinds("conda")
def test_cancel_futures_cancels_everything_that_no_worker_has_taken(
    single: Executor, rendezvous: Rendezvous
) -> None:
    tasks = [single.submit(workload.arrive, rendezvous.address, number) for number in range(30)]
    rendezvous.next()
    single.shutdown(wait=False, cancel_futures=True)
    assert futures.wait(tasks[1:], DEADLINE).not_done == set(), "while the first one still runs"
    assert [task.cancelled() for task in tasks] == [False] + [True] * 29
    rendezvous.open()
    assert tasks[0].result(DEADLINE) == 0


@pytest.mark.executor_kinds("thread", "in-process", "conda")
def test_several_threads_shut_down_at_the_same_time(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    """Not for the standard library's pool of processes.

    A thread that comes second may find that its attributes have gone.
    """
    task = executor.submit(workload.arrive, rendezvous.address, 1)
    rendezvous.next()
    threads = [threading.Thread(target=executor.shutdown) for _ in range(4)]
    for thread in threads:
        thread.start()
    rendezvous.open()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)
    assert task.result(timeout=0) == 1


def test_a_submit_that_races_shutdown_is_refused_or_done(executor: Executor) -> None:
    accepted: list[Future] = []
    refused = []
    under_way = threading.Event()

    def submit() -> None:
        try:
            while True:
                accepted.append(executor.submit(workload.identity, 1))
                under_way.set()
        except RuntimeError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert under_way.wait(DEADLINE)
    executor.shutdown(wait=True)
    for thread in threads:
        thread.join()
    assert refused == ["cannot schedule new futures after shutdown"] * 4
    assert [future.result(timeout=0) for future in accepted] == [1] * len(accepted)


def test_a_callback_can_shut_down(executor: Executor, rendezvous: Rendezvous) -> None:
    finished = threading.Event()
    task = executor.submit(workload.arrive, rendezvous.address, 1)
    rendezvous.next()
    task.add_done_callback(lambda _: (executor.shutdown(wait=False), finished.set()))
    rendezvous.open()
    assert finished.wait(DEADLINE)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)


# --------------------------------------------------------------------------------------------- with


def test_with_gives_the_executor_and_shuts_it_down(executor_kind: ExecutorKind) -> None:
    executor = executor_kind.make()
    with executor as entered:
        assert entered is executor
        assert list(entered.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)


def test_leaving_with_waits_for_the_work(
    executor_kind: ExecutorKind, rendezvous: Rendezvous
) -> None:
    with executor_kind.make(1) as executor:
        tasks = [
            executor.submit(workload.arrive, rendezvous.address, number) for number in range(3)
        ]
        arrival = rendezvous.next()
        threading.Timer(0.05, arrival.release).start()
        threading.Timer(0.1, rendezvous.open).start()
    assert [task.result(timeout=0) for task in tasks] == [0, 1, 2]


def test_an_exception_passes_through_with(executor_kind: ExecutorKind) -> None:
    with pytest.raises(workload.Plain), executor_kind.make() as executor:
        future = executor.submit(workload.identity, 1)
        raise workload.Plain("from the body")
    assert future.result(timeout=0) == 1


# ------------------------------------------------------------------------------------------ dropped


def test_a_dropped_executor_finishes_its_work_and_ends(
    executor_kind: ExecutorKind, rendezvous: Rendezvous
) -> None:
    executor = executor_kind.make(1)
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(4)]
    arrival = rendezvous.next()
    executor_kind.forget(executor)
    reference = weakref.ref(executor)
    del executor
    gc.collect()
    pids = {arrival.pid} if executor_kind.remote else set()
    arrival.release()
    rendezvous.open()
    assert [task.result(DEADLINE) for task in tasks] == [0, 1, 2, 3]
    del tasks
    gc.collect()
    assert reference() is None
    assert_processes_end(pids)


def test_a_dropped_idle_executor_ends_its_workers(executor_kind: ExecutorKind) -> None:
    executor = executor_kind.make()
    pid = executor.submit(workload.pid).result()
    executor_kind.forget(executor)
    del executor
    gc.collect()
    if executor_kind.remote:
        assert_processes_end({pid})


def result_fails(executor: Executor) -> None:
    executor.submit(divmod, 1, 0).result()


def map_fails(executor: Executor) -> None:
    list(executor.map(divmod, [1] * 3, [1, 0, 0]))


def iterator_fails(executor: Executor) -> None:
    results = executor.map(divmod, [1] * 3, [0] * 3)
    next(results)


@pytest.mark.parametrize("fail", [result_fails, map_fails, iterator_fails])
def test_a_failure_whose_traceback_has_the_executor_does_not_keep_it(
    executor_kind: ExecutorKind, fail: Callable[[Executor], None]
) -> None:
    """What an executor remembers of failures refers to frames, and these to the executor."""

    def use() -> tuple[weakref.ref[Executor], int]:
        executor = executor_kind.make(1)
        pid = executor.submit(workload.pid).result()
        executor_kind.forget(executor)
        with pytest.raises(ZeroDivisionError):
            fail(executor)
        return weakref.ref(executor), pid

    reference, pid = use()
    gc.collect()
    assert reference() is None
    if executor_kind.remote:
        assert_processes_end({pid})


@pytest.mark.executor_kinds("process", "conda", "conda-other")
def test_no_worker_is_left_after_shutdown(executor: Executor, rendezvous: Rendezvous) -> None:
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(2)]
    pids = {arrival.pid for arrival in rendezvous.expect(0, 1).values()}
    assert len(pids) == 2
    rendezvous.open()
    executor.shutdown(wait=True)
    assert all(task.done() for task in tasks)
    assert not any(psutil.pid_exists(pid) for pid in pids), "reaped when shutdown returns"


# --------------------------------------------------------- terminate and kill workers (Python 3.14)


@pytest.mark.executor_kinds(*ENDING, "conda-other")
@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_workers_can_be_ended_with_what_they_run(
    single: Executor, rendezvous: Rendezvous, method: str
) -> None:
    running = single.submit(workload.arrive, rendezvous.address, "running")
    arrival = rendezvous.next()
    waiting = [single.submit(workload.arrive, rendezvous.address, number) for number in range(10)]
    getattr(single, method)()
    with pytest.raises(futures.process.BrokenProcessPool):
        running.result(DEADLINE)
    futures.wait(waiting, DEADLINE)
    assert waiting[-1].cancelled()
    assert_processes_end({arrival.pid})
    with pytest.raises(RuntimeError):
        single.submit(int)
    single.shutdown(wait=True)
    assert rendezvous.uninvited() == []


@pytest.mark.executor_kinds(*ENDING)
@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_ending_the_workers_of_an_unused_executor(executor: Executor, method: str) -> None:
    getattr(executor, method)()
    getattr(executor, method)()
    with pytest.raises(RuntimeError):
        executor.submit(int)
