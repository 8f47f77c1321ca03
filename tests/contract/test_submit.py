"""``submit``: signature, arguments, results; state and callbacks of the Future that it returns."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from concurrent import futures
from concurrent.futures import Executor, Future
from functools import partial

import pytest

from tests.contract import workload
from tests.contract.executor_kinds import ExecutorKind
from tests.support.rendezvous import DEADLINE, Rendezvous, elapsed

# ---------------------------------------------------------------------------------------- signature


def test_returns_a_future(executor: Executor) -> None:
    future = executor.submit(pow, 2, 8)
    assert isinstance(future, Future)
    assert future.result() == 256


def test_the_function_is_positional_only(executor: Executor) -> None:
    with pytest.raises(TypeError):
        executor.submit(fn=pow)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        executor.submit()  # type: ignore[call-arg]


def test_no_keyword_is_taken_from_the_callee(executor: Executor) -> None:
    keywords = {
        "self": 1,
        "fn": 2,
        "task": 3,
        "args": 4,
        "kwargs": 5,
        "name": 6,
        "timeout": 7,
        "start": 8,
        "priority": 9,
        "retries": 10,
    }
    assert executor.submit(workload.describe, "first", **keywords).result() == (
        ("first",),
        keywords,
    )


def test_positional_and_keyword_arguments_arrive(executor: Executor) -> None:
    assert executor.submit(workload.multiply, 6, y=7).result() == 42
    assert executor.submit(workload.describe).result() == ((), {})


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (partial(workload.multiply, 6), 42),
        (partial(workload.describe, 1, key=2), ((1, 7), {"key": 2})),
        (workload.Partner(6), 42),
        (workload.Thing.make, workload.Thing(7)),
        (workload.Thing.double, 14),
        (workload.Thing, workload.Thing(7)),
        (str, "7"),
        ([7, 8].index, 0),
        ("{}!".format, "7!"),
    ],
    ids=[
        "partial",
        "partial-keywords",
        "callable-object",
        "classmethod",
        "staticmethod",
        "class",
        "builtin-type",
        "bound-builtin",
        "str-method",
    ],
)
def test_any_callable_will_do(executor: Executor, call: object, expected: object) -> None:
    assert executor.submit(call, 7).result() == expected  # type: ignore[arg-type]


def test_a_bound_method_travels_with_its_object(executor: Executor) -> None:
    assert executor.submit(workload.Thing([1, "é"]).method).result() == [1, "é"]


def test_calling_what_cannot_be_called_fails_the_future(executor: Executor) -> None:
    future = executor.submit(workload.multiply, 1)
    with pytest.raises(TypeError, match="multiply"):
        future.result()
    assert executor.submit(workload.multiply, 2, 3).result() == 6


def test_tasks_of_one_worker_run_in_the_order_of_submission(single: Executor, tmp_path) -> None:
    journal = tmp_path / "journal"
    for number in range(50):
        single.submit(workload.append, str(journal), str(number))
    single.shutdown()
    assert journal.read_text().split() == [str(number) for number in range(50)]


def test_two_workers_run_two_tasks_at_a_time(executor: Executor, rendezvous: Rendezvous) -> None:
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(3)]
    first, second = rendezvous.next(), rendezvous.next()
    assert {first.label, second.label} == {"0", "1"}
    assert not any(task.done() for task in tasks)
    first.release()
    assert rendezvous.next().label == "2"
    rendezvous.open()
    assert [task.result() for task in tasks] == [0, 1, 2]


# ----------------------------------------------------------------------------- result and exception


def test_result_blocks_until_the_task_has_finished(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    future = executor.submit(workload.arrive, rendezvous.address, "x")
    arrival = rendezvous.next()
    threading.Timer(0.1, arrival.release).start()
    assert future.result() == "x"
    assert future.exception() is None


def test_result_can_be_asked_for_again(executor: Executor) -> None:
    future = executor.submit(workload.identity, [1])
    assert future.result() is future.result()


@pytest.mark.parametrize("method", ["result", "exception"])
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_time_out_is_about_the_wait_not_the_task(
    executor: Executor, rendezvous: Rendezvous, method: str, timeout: float
) -> None:
    future = executor.submit(workload.arrive, rendezvous.address, 5)
    arrival = rendezvous.next()
    began = time.monotonic()
    with pytest.raises(futures.TimeoutError):
        getattr(future, method)(timeout=timeout)
    assert elapsed(began) < timeout + 5
    assert future.running()
    assert not future.done()
    arrival.release()
    assert future.result(timeout=DEADLINE) == 5


def test_a_time_out_is_not_reached_by_a_finished_task(executor: Executor) -> None:
    future = executor.submit(workload.identity, 5)
    future.result()
    assert future.result(timeout=0) == 5
    assert future.exception(timeout=0) is None


def test_a_failure_is_raised_by_result_and_returned_by_exception(executor: Executor) -> None:
    future = executor.submit(divmod, 1, 0)
    error = future.exception()
    assert isinstance(error, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    assert caught.value is error
    assert future.done()
    assert not future.cancelled()


def test_many_waiters_get_the_result(executor: Executor, rendezvous: Rendezvous) -> None:
    future = executor.submit(workload.arrive, rendezvous.address, "x")
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(future.result(DEADLINE))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    rendezvous.next().release()
    for thread in threads:
        thread.join()
    assert results == ["x"] * 8


def test_states_of_a_task(single: Executor, rendezvous: Rendezvous) -> None:
    future = single.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    assert (future.running(), future.done(), future.cancelled()) == (True, False, False)
    arrival.release()
    future.result()
    assert (future.running(), future.done(), future.cancelled()) == (False, True, False)


# ---------------------------------------------------------------------------------------- callbacks


def test_callbacks_run_in_the_order_in_which_they_were_added(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    future = executor.submit(workload.arrive, rendezvous.address, 1)
    rendezvous.next()
    calls: list[tuple[int, Future]] = []
    finished = threading.Event()
    for number in range(5):
        future.add_done_callback(lambda done, number=number: calls.append((number, done)))
    future.add_done_callback(lambda _: finished.set())
    rendezvous.open()
    assert finished.wait(DEADLINE)
    assert calls == [(number, future) for number in range(5)]


def test_a_callback_sees_a_finished_future(executor: Executor, rendezvous: Rendezvous) -> None:
    seen: list[object] = []
    finished = threading.Event()

    def look(done: Future) -> None:
        seen.extend([done.done(), done.running(), done.result(timeout=0)])
        finished.set()

    future = executor.submit(workload.arrive, rendezvous.address, "x")
    rendezvous.next()
    future.add_done_callback(look)
    rendezvous.open()
    assert finished.wait(DEADLINE)
    assert seen == [True, False, "x"]


def test_a_callback_of_a_failed_task(executor: Executor, rendezvous: Rendezvous) -> None:
    future = executor.submit(workload.arrive_and_raise, rendezvous.address, "x")
    rendezvous.next()
    errors: list[object] = []
    finished = threading.Event()
    future.add_done_callback(lambda done: (errors.append(done.exception()), finished.set()))
    rendezvous.open()
    assert finished.wait(DEADLINE)
    assert [type(error) for error in errors] == [ValueError]


def test_an_exception_in_a_callback_is_logged_and_harms_no_other(
    executor: Executor, rendezvous: Rendezvous, caplog: pytest.LogCaptureFixture
) -> None:
    future = executor.submit(workload.arrive, rendezvous.address, 1)
    rendezvous.next()
    finished = threading.Event()

    def fail(_: Future) -> None:
        raise workload.Plain("from a callback")

    future.add_done_callback(fail)
    future.add_done_callback(lambda _: finished.set())
    with caplog.at_level(logging.DEBUG):
        rendezvous.open()
        assert finished.wait(DEADLINE)
    logged = [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.exc_info and record.exc_info[0] is workload.Plain
    ]
    caplog.clear()  # the records hold the frames of the thread that ran the callback
    assert len(logged) == 1
    assert logged[0][0] >= logging.ERROR
    assert "exception calling callback" in logged[0][1]
    assert executor.submit(workload.identity, 2).result() == 2


def test_a_callback_can_submit(executor: Executor) -> None:
    futures_: list[Future] = []
    finished = threading.Event()

    def submit_again(done: Future) -> None:
        number = done.result()
        if number == 5:
            finished.set()
            return
        future = executor.submit(workload.identity, number + 1)
        futures_.append(future)
        future.add_done_callback(submit_again)

    executor.submit(workload.identity, 0).add_done_callback(submit_again)
    assert finished.wait(DEADLINE)
    assert [future.result() for future in futures_] == [1, 2, 3, 4, 5]


def test_a_callback_added_to_a_finished_task_runs_at_once_in_the_caller(executor: Executor) -> None:
    future = executor.submit(workload.identity, 1)
    future.result()
    futures.wait([future])
    calls: list[tuple[Future, int]] = []
    future.add_done_callback(lambda done: calls.append((done, threading.get_ident())))
    assert calls == [(future, threading.get_ident())]


def test_an_exception_in_a_callback_that_runs_at_once_is_logged(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    future = executor.submit(workload.identity, 1)
    future.result()

    def fail(_: Future) -> None:
        raise workload.Plain("at once")

    future.add_done_callback(fail)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [workload.Plain]


def test_the_same_callback_twice_is_called_twice(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    future = executor.submit(workload.arrive, rendezvous.address, 1)
    rendezvous.next()
    calls: list[Future] = []
    finished = threading.Event()
    future.add_done_callback(calls.append)
    future.add_done_callback(calls.append)
    future.add_done_callback(lambda _: finished.set())
    rendezvous.open()
    assert finished.wait(DEADLINE)
    assert calls == [future, future]


def test_callbacks_have_run_when_shutdown_returns(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    calls: list[Future] = []
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(5)]
    for task in tasks:
        task.add_done_callback(calls.append)
    rendezvous.open()
    executor.shutdown(wait=True)
    assert sorted(map(id, calls)) == sorted(map(id, tasks))


# ------------------------------------------------------------------------------------------- cancel


def test_a_waiting_task_can_be_cancelled_and_never_runs(
    single: Executor, rendezvous: Rendezvous
) -> None:
    running = single.submit(workload.arrive, rendezvous.address, "running")
    rendezvous.next()
    # The standard library's pool calls those at the head of the queue running before they are.
    waiting = [single.submit(workload.arrive, rendezvous.address, number) for number in range(4)]
    victim = waiting.pop()
    calls: list[Future] = []
    victim.add_done_callback(calls.append)
    assert victim.cancel() is True
    assert (victim.cancelled(), victim.done(), victim.running()) == (True, True, False)
    assert victim.cancel() is True, "cancelling again says the same"
    with pytest.raises(futures.CancelledError):
        victim.result(timeout=DEADLINE)
    with pytest.raises(futures.CancelledError):
        victim.exception(timeout=DEADLINE)
    for arrival in [*rendezvous._arrivals]:
        arrival.release()
    for _ in waiting:
        rendezvous.next().release()
    single.shutdown(wait=True)
    assert rendezvous.uninvited() == []
    assert calls == [victim]
    assert running.result() == "running"
    assert [future.result() for future in waiting] == [0, 1, 2]


def test_a_running_task_is_not_cancelled(single: Executor, rendezvous: Rendezvous) -> None:
    future = single.submit(workload.arrive, rendezvous.address, 1)
    arrival = rendezvous.next()
    assert future.cancel() is False
    assert (future.cancelled(), future.done(), future.running()) == (False, False, True)
    arrival.release()
    assert future.result() == 1
    assert future.cancelled() is False


def test_a_finished_task_is_not_cancelled(executor: Executor) -> None:
    done, failed = executor.submit(workload.identity, 1), executor.submit(divmod, 1, 0)
    done.result()
    failed.exception()
    assert done.cancel() is False
    assert failed.cancel() is False
    assert done.result() == 1
    assert isinstance(failed.exception(), ZeroDivisionError)


def test_a_callback_added_to_a_cancelled_task_runs_at_once(
    single: Executor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address)
    rendezvous.next()
    future = [single.submit(workload.identity, number) for number in range(4)][-1]
    assert future.cancel()
    calls: list[Future] = []
    future.add_done_callback(calls.append)
    assert calls == [future]


@pytest.mark.executor_kinds("conda", "conda-other")
def test_whatever_no_worker_has_taken_is_pending_and_can_be_cancelled(
    single: Executor, rendezvous: Rendezvous
) -> None:
    """Stricter than the standard library, whose pool calls the first few waiting tasks running."""
    running = single.submit(workload.arrive, rendezvous.address, "running")
    rendezvous.next()
    waiting = [single.submit(workload.arrive, rendezvous.address, number) for number in range(100)]
    assert not any(future.running() for future in waiting)
    assert all(future.cancel() for future in waiting)
    assert futures.wait(waiting, timeout=0).not_done == set(), (
        "waiters see a cancelled task as done, at once"
    )
    assert len(list(futures.as_completed(waiting, timeout=0))) == 100
    rendezvous._arrivals[0].release()
    assert running.result() == "running"
    assert single.submit(workload.identity, 1).result() == 1
    single.shutdown()
    assert rendezvous.uninvited() == []


@pytest.mark.executor_kinds("conda")
def test_cancelling_wakes_those_who_wait_for_the_task(
    single: Executor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address)
    rendezvous.next()
    future = single.submit(workload.identity, 1)
    outcomes: list[object] = []

    def ask() -> None:
        try:
            outcomes.append(future.result(DEADLINE))
        except futures.CancelledError as error:
            outcomes.append(type(error))

    def wait() -> None:
        outcomes.append(len(futures.wait([future], DEADLINE).done))

    threads = [threading.Thread(target=ask), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    assert future.cancel()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == sorted(map(str, [futures.CancelledError, 1]))


# --------------------------------------------------------------------------------------- references


def test_the_executor_keeps_neither_arguments_nor_result(executor_kind: ExecutorKind) -> None:
    # Of two threads the second may run the last call while the first still announces its result.
    executor = executor_kind.make(max_workers=2 if executor_kind.remote else 1)
    released = threading.Event()
    argument = workload.Thing("argument")
    weakref.finalize(argument, released.set)
    future = executor.submit(argument.method)
    assert future.result() == "argument"
    del argument
    gc.collect()
    assert released.wait(DEADLINE)

    future = executor.submit(workload.new, workload.Thing, "result")
    result = weakref.ref(future.result())
    assert result() is not None
    del future
    gc.collect()
    executor.submit(int).result()  # the thread that held the last result has moved on
    gc.collect()
    assert result() is None


def test_a_future_that_is_not_kept_runs_all_the_same(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    executor.submit(workload.arrive, rendezvous.address, "alone")
    gc.collect()
    assert rendezvous.next().label == "alone"


# ------------------------------------------------------------------------------------------ threads


def test_many_threads_submit_at_the_same_time(executor: Executor) -> None:
    results: dict[int, list[int]] = {}

    def submit(start: int) -> None:
        tasks = [executor.submit(workload.multiply, start, number) for number in range(25)]
        results[start] = [task.result(DEADLINE) for task in tasks]

    threads = [threading.Thread(target=submit, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {start: [start * number for number in range(25)] for start in range(8)}


def test_a_task_is_settled_once_whatever_happens_at_the_same_time(executor: Executor) -> None:
    """Cancel races the start of each task: it either never ran, or has a result."""
    calls: list[Future] = []
    tasks = []
    for number in range(200):
        task = executor.submit(workload.identity, number)
        task.add_done_callback(calls.append)
        tasks.append((task, task.cancel() if number % 3 else None))
    executor.shutdown(wait=True)
    for number, (task, cancelled) in enumerate(tasks):
        assert task.done()
        if cancelled:
            assert task.cancelled()
        else:
            assert task.result(timeout=0) == number
    assert sorted(map(id, calls)) == sorted(id(task) for task, _ in tasks)


@pytest.mark.executor_kinds("conda", "conda-other")
def test_the_worker_runs_tasks_on_its_main_thread(executor: Executor) -> None:
    assert executor.submit(workload.is_main_thread).result() is True


def test_tasks_run_where_they_should(executor_kind: ExecutorKind, executor: Executor) -> None:
    assert (executor.submit(workload.pid).result() == os.getpid()) is not executor_kind.remote
