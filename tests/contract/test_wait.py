"""``concurrent.futures.wait`` and ``as_completed`` over the futures of each kind of executor."""

from __future__ import annotations

import threading
import time
from concurrent import futures
from concurrent.futures import Executor, Future

import pytest

from tests.contract import workload
from tests.support.rendezvous import DEADLINE, Rendezvous, elapsed


def finished_future(result: object = None) -> Future:
    future: Future = Future()
    future.set_result(result)
    return future


# --------------------------------------------------------------------------------------------- wait


def test_wait_for_all(executor: Executor, rendezvous: Rendezvous) -> None:
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(3)]
    foreign = finished_future()
    threading.Timer(0.05, rendezvous.open).start()
    done, not_done = futures.wait([*tasks, foreign])
    assert done == {*tasks, foreign}
    assert not_done == set()


def test_wait_for_all_counts_failures_as_done(executor: Executor) -> None:
    tasks = [executor.submit(divmod, 1, 0), executor.submit(divmod, 1, 1)]
    assert futures.wait(tasks, DEADLINE) == (set(tasks), set())


def test_wait_for_the_first(executor: Executor, rendezvous: Rendezvous) -> None:
    first, second = (
        executor.submit(workload.arrive, rendezvous.address, number) for number in range(2)
    )
    rendezvous.expect(0, 1)["1"].release()
    assert futures.wait([first, second], DEADLINE, futures.FIRST_COMPLETED) == ({second}, {first})


def test_wait_for_the_first_with_one_done_already(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    task = executor.submit(workload.arrive, rendezvous.address)
    foreign = finished_future()
    assert futures.wait([task, foreign], DEADLINE, futures.FIRST_COMPLETED) == ({foreign}, {task})


def test_wait_for_the_first_exception(executor: Executor, rendezvous: Rendezvous) -> None:
    fine = executor.submit(workload.multiply, 2, 3)
    fine.result()
    failing = executor.submit(workload.arrive_and_raise, rendezvous.address, "failing")
    running = executor.submit(workload.arrive, rendezvous.address, "running")
    arrivals = rendezvous.expect("failing", "running")
    threading.Timer(0.05, arrivals["failing"].release).start()
    assert futures.wait([fine, failing, running], DEADLINE, futures.FIRST_EXCEPTION) == (
        {fine, failing},
        {running},
    )


def test_wait_for_the_first_exception_when_there_is_none(executor: Executor) -> None:
    tasks = [executor.submit(workload.multiply, number, 2) for number in range(5)]
    assert futures.wait(tasks, DEADLINE, futures.FIRST_EXCEPTION) == (set(tasks), set())


def test_a_cancelled_task_is_no_exception_to_wait(single: Executor, rendezvous: Rendezvous) -> None:
    running = single.submit(workload.arrive, rendezvous.address)
    rendezvous.next()
    waiting = [single.submit(workload.identity, number) for number in range(4)]
    assert waiting[-1].cancel()
    done, not_done = futures.wait([running, waiting[-1]], 0.05, futures.FIRST_EXCEPTION)
    assert running in not_done
    rendezvous.open()
    assert futures.wait([running, *waiting], DEADLINE).not_done == set()
    assert done <= {waiting[-1]}


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_wait_times_out_without_an_error(
    executor: Executor, rendezvous: Rendezvous, timeout: float
) -> None:
    task = executor.submit(workload.arrive, rendezvous.address)
    foreign = finished_future()
    began = time.monotonic()
    assert futures.wait([task, foreign], timeout) == ({foreign}, {task})
    assert elapsed(began) < timeout + 5


def test_wait_takes_duplicates_and_nothing(executor: Executor) -> None:
    task = executor.submit(int)
    assert futures.wait([task, task, task], DEADLINE) == ({task}, set())
    assert futures.wait([], 0) == (set(), set())


def test_wait_from_many_threads(executor: Executor, rendezvous: Rendezvous) -> None:
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(10)]
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(len(futures.wait(tasks, DEADLINE).done)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    rendezvous.open()
    for thread in threads:
        thread.join()
    assert results == [10] * 6


# ------------------------------------------------------------------------------------- as_completed


def test_as_completed_yields_in_the_order_of_completion(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    first, second = (
        executor.submit(workload.arrive, rendezvous.address, number) for number in range(2)
    )
    arrivals = rendezvous.expect(0, 1)
    iterator = futures.as_completed([first, second], DEADLINE)
    arrivals["1"].release()
    assert next(iterator) is second
    arrivals["0"].release()
    assert next(iterator) is first
    with pytest.raises(StopIteration):
        next(iterator)


def test_as_completed_yields_failures_and_foreign_futures(executor: Executor) -> None:
    tasks = {executor.submit(divmod, 1, 0), executor.submit(divmod, 1, 1), finished_future()}
    assert set(futures.as_completed(tasks, DEADLINE)) == tasks


def test_as_completed_yields_a_cancelled_task(single: Executor, rendezvous: Rendezvous) -> None:
    running = single.submit(workload.arrive, rendezvous.address)
    rendezvous.next()
    waiting = [single.submit(workload.identity, number) for number in range(4)]
    assert waiting[-1].cancel()
    threading.Timer(0.05, rendezvous.open).start()
    found = list(futures.as_completed([running, *waiting], DEADLINE))
    assert sorted(map(id, found)) == sorted(map(id, [running, *waiting]))


def test_as_completed_drops_duplicates(executor: Executor) -> None:
    task = executor.submit(int)
    assert list(futures.as_completed([task] * 3, DEADLINE)) == [task]


def test_as_completed_of_nothing() -> None:
    assert list(futures.as_completed([], 0)) == []


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_as_completed_times_out_with_the_number_of_unfinished(
    executor: Executor, rendezvous: Rendezvous, timeout: float
) -> None:
    task = executor.submit(workload.arrive, rendezvous.address)
    foreign = finished_future()
    found = []
    with pytest.raises(futures.TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        for future in futures.as_completed([task, foreign], timeout):
            found.append(future)
    assert found == [foreign]


def test_as_completed_while_more_is_submitted(executor: Executor) -> None:
    tasks = {executor.submit(workload.identity, number) for number in range(5)}
    results = []
    for task in futures.as_completed(set(tasks), DEADLINE):
        results.append(executor.submit(workload.multiply, task.result(), 10).result())
    assert sorted(results) == [0, 10, 20, 30, 40]
