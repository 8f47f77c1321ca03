"""``Task`` as a Future: alone, and as one of a pool whose outcome another thread brings.

Tasks of a pool belong to a real executor that never starts a process: the test settles them, as the
I/O thread does.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    InvalidStateError,
    as_completed,
    wait,
)
from concurrent.futures._base import _create_and_install_waiters  # type: ignore[attr-defined]
from typing import Any

import pytest

from wetlands_executor import CondaEnvExecutor, Task, TaskStatus
from wetlands_executor.futures.settling import settle, settle_cancelled

#: Seconds after which a wait of these tests has failed.
DEADLINE = 20
ROUNDS = 60


@pytest.fixture
def pool() -> Iterator[Any]:
    """The pool of an executor without processes."""
    with CondaEnvExecutor(max_workers=1) as executor:
        yield executor._pool


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


# --- a bare Task is a plain Future


def test_a_bare_task_has_a_futures_states() -> None:
    """Pending, running, finished, as ``Future`` does it."""
    task: Task[int] = Task()
    assert isinstance(task, Future)
    assert (task.done(), task.running(), task.cancelled(), task.status) == (
        False,
        False,
        False,
        TaskStatus.PENDING,
    )
    assert task.set_running_or_notify_cancel()
    assert (task.done(), task.running(), task.status) == (False, True, TaskStatus.RUNNING)
    task.set_result(7)
    assert (task.done(), task.running(), task.status) == (True, False, TaskStatus.COMPLETED)
    assert (task.result(), task.exception(), task.value) == (7, None, 7)


def test_a_bare_task_fails_as_a_future_does() -> None:
    """The same exception object, and no value."""
    task: Task[int] = Task()
    error = ValueError("no")
    task.set_exception(error)
    assert task.exception() is error
    assert task.status is TaskStatus.FAILED
    with pytest.raises(ValueError) as caught:
        task.result()
    assert caught.value is error
    with pytest.raises(InvalidStateError):
        _ = task.value


def test_the_outcome_is_set_once() -> None:
    """A second one is an error of the caller."""
    for first in (lambda task: task.set_result(1), lambda task: task.set_exception(ValueError())):
        task: Task[int] = Task()
        first(task)
        for again in (lambda: task.set_result(2), lambda: task.set_exception(KeyError())):
            with pytest.raises(InvalidStateError):
                again()


def test_cancel_of_a_pending_bare_task() -> None:
    """Cancelled, notified by the thread that would have run it; waiters raise."""
    task: Task[int] = Task()
    assert task.cancel()
    assert task.cancel()
    assert task.cancelled()
    assert task.done()
    assert task.status is TaskStatus.CANCELED is TaskStatus.CANCELLED
    assert not task.set_running_or_notify_cancel()
    with pytest.raises(CancelledError):
        task.result()
    with pytest.raises(CancelledError):
        task.exception()
    with pytest.raises(InvalidStateError):
        task.set_result(1)


def test_cancel_of_a_running_or_finished_bare_task_is_refused() -> None:
    """As the standard library says."""
    task: Task[int] = Task()
    task.set_running_or_notify_cancel()
    assert not task.cancel()
    task.set_result(1)
    assert not task.cancel()
    assert task.result() == 1


def test_set_running_twice_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """Logged and raised, as in the standard library."""
    task: Task[int] = Task()
    task.set_running_or_notify_cancel()
    with caplog.at_level(logging.CRITICAL), pytest.raises((RuntimeError, InvalidStateError)):
        task.set_running_or_notify_cancel()


def test_callbacks_run_once_in_their_order(caplog: pytest.LogCaptureFixture) -> None:
    """One that raises is logged and harms no other."""
    task: Task[int] = Task()
    calls: list[object] = []
    task.add_done_callback(lambda done: calls.append(("first", done)))
    task.add_done_callback(lambda _: 1 / 0)
    task.add_done_callback(lambda done: calls.append(("third", done)))
    with caplog.at_level(logging.ERROR, logger="concurrent.futures"):
        task.set_result(1)
    assert calls == [("first", task), ("third", task)]
    assert "exception calling callback" in caplog.text


def test_the_same_callback_added_twice_runs_twice() -> None:
    """As in the standard library."""
    task: Task[int] = Task()
    calls: list[object] = []
    task.add_done_callback(calls.append)
    task.add_done_callback(calls.append)
    task.set_result(1)
    assert calls == [task, task]


def test_callbacks_of_a_cancelled_task_run() -> None:
    """At once."""
    task: Task[int] = Task()
    calls: list[object] = []
    task.add_done_callback(calls.append)
    task.cancel()
    assert calls == [task]


@pytest.mark.parametrize("owned", [False, True])
def test_a_callback_that_comes_late_runs_in_its_caller(pool: Any, owned: bool) -> None:
    """Now, and in this thread, whether or not the task has a pool."""
    task: Task[int] = Task(pool) if owned else Task()
    settle(task, 1, None)
    threads: list[int] = []
    task.add_done_callback(lambda _: threads.append(threading.get_ident()))
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize("read", ["result", "exception", "wait_for"])
def test_time_limits(read: str) -> None:
    """TimeoutError after about the time; the task goes on. Zero and negative do not block."""
    task: Task[int] = Task()
    for timeout in (0.02, 0, -1):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            getattr(task, read)(timeout=timeout)
        assert timeout <= time.monotonic() - begin + 0.001 < DEADLINE
    assert not task.done()
    task.set_result(1)
    assert task.result(timeout=0) == 1


def test_an_endless_time_limit() -> None:
    """More seconds than a lock accepts."""
    task: Task[int] = Task()
    thread = threading.Timer(0.02, task.set_result, [1])
    thread.start()
    assert task.result(timeout=1e12) == 1
    thread.join()


def test_wait_for_returns_the_task_and_never_raises_its_failure() -> None:
    """Unlike ``result``."""
    task: Task[int] = Task()
    task.set_exception(ValueError())
    assert task.wait_for() is task
    cancelled: Task[int] = Task()
    cancelled.cancel()
    assert cancelled.wait_for(0) is cancelled


def test_wait_and_as_completed_on_bare_tasks() -> None:
    """Mixed with standard Futures."""
    tasks: list[Future[int]] = [Task(), Future(), Task()]
    tasks[0].set_result(0)
    done, pending = wait(tasks, timeout=0)
    assert (done, pending) == ({tasks[0]}, {tasks[1], tasks[2]})
    thread = in_thread(lambda: [task.set_result(1) for task in tasks[1:]])
    assert set(as_completed(tasks, timeout=DEADLINE)) == set(tasks)
    thread.join()


def test_wait_for_the_first() -> None:
    """Both conditions of ``wait``."""
    tasks: list[Task[int]] = [Task(), Task(), Task()]
    thread = in_thread(lambda: tasks[1].set_exception(ValueError()))
    done, _ = wait(tasks, timeout=DEADLINE, return_when=FIRST_EXCEPTION)
    assert done == {tasks[1]}
    thread.join()
    thread = in_thread(lambda: tasks[0].set_result(1))
    done, _ = wait(tasks[::2], timeout=DEADLINE, return_when=FIRST_COMPLETED)
    assert done == {tasks[0]}
    thread.join()


def test_repr_names_state_and_outcome(pool: Any) -> None:
    """Like a Future's."""
    task: Task[Any] = Task()
    assert "state=pending" in repr(task)
    task.set_running_or_notify_cancel()
    assert "state=running" in repr(task)
    task.set_result([1])
    assert "state=finished returned list" in repr(task)
    failed: Task[Any] = Task(pool)
    settle(failed, None, KeyError("x"))
    assert "state=finished raised KeyError" in repr(failed)
    cancelled: Task[Any] = Task(pool)
    settle_cancelled(cancelled)
    assert "state=cancelled" in repr(cancelled)


def test_status_words() -> None:
    """The enum's values and its alias are public."""
    assert [status.value for status in TaskStatus] == [
        "pending",
        "running",
        "completed",
        "failed",
        "canceled",
    ]
    assert [status for status in TaskStatus if status.is_finished()] == [
        TaskStatus.COMPLETED,
        TaskStatus.FAILED,
        TaskStatus.CANCELED,
    ]


def test_ids_are_unique() -> None:
    """Of living tasks."""
    tasks: list[Task[int]] = [Task() for _ in range(100)]
    assert len({task.id for task in tasks}) == 100
    assert all(isinstance(task.id, str) and task.id for task in tasks)


# --- settled by another thread


def test_a_task_is_settled_once(pool: Any) -> None:
    """What comes later is ignored: a result that raced with a crash."""
    task: Task[int] = Task(pool)
    settle(task, 1, None)
    settle(task, 2, None)
    settle(task, None, ValueError())
    settle_cancelled(task)
    assert task.result() == 1
    cancelled: Task[int] = Task(pool)
    settle_cancelled(cancelled)
    settle(cancelled, 1, None)
    assert cancelled.cancelled()


def _settle(task: Task[int], how: str) -> None:
    if how == "value":
        settle(task, 7, None)
    elif how == "error":
        settle(task, None, ValueError("expected"))
    else:
        settle_cancelled(task)


def _outcome(task: Task[int]) -> str:
    try:
        assert task.result(DEADLINE) == 7
    except CancelledError:
        return "cancelled"
    except ValueError:
        return "error"
    return "value"


def test_no_thread_sleeps_through_the_end(pool: Any, stress_rng: random.Random) -> None:
    """Readers of every kind, in threads, against a thread that settles at a random moment."""
    for _ in range(ROUNDS):
        tasks: list[Task[int]] = [Task(pool) for _ in range(3)]
        how = [stress_rng.choice(("value", "error", "cancelled")) for _ in tasks]
        start = threading.Barrier(6)
        seen: list[object] = []
        called: list[object] = []

        def reader(kind: int) -> None:
            start.wait(DEADLINE)
            if kind == 0:
                seen.append([_outcome(task) for task in tasks] == how)
            elif kind == 1:
                done, pending = wait(tasks, timeout=DEADLINE, return_when=ALL_COMPLETED)
                seen.append(len(done) == 3 and not pending)
            elif kind == 2:
                seen.append(set(as_completed(tasks, timeout=DEADLINE)) == set(tasks))
            elif kind == 3:
                for task in tasks:
                    task.add_done_callback(called.append)
                seen.append([task.wait_for(DEADLINE) for task in tasks] == tasks)
            else:
                for task in tasks:
                    try:
                        error = task.exception(DEADLINE)
                        seen.append(error is None or str(error) == "expected")
                    except CancelledError:
                        seen.append(task.cancelled())

        threads = [threading.Thread(target=reader, args=(kind,)) for kind in range(5)]
        for thread in threads:
            thread.start()
        start.wait(DEADLINE)
        for task, kind in zip(tasks, how):
            for _ in range(stress_rng.randrange(300)):
                pass
            _settle(task, kind)
        for thread in threads:
            thread.join()
        assert all(seen), seen
        assert len(seen) == 7
        drained = threading.Event()
        pool.callbacks.put(drained.set)
        assert drained.wait(DEADLINE)
        assert sorted(called, key=id) == sorted(tasks, key=id)


def test_two_threads_that_settle_the_same_task(pool: Any) -> None:
    """One outcome, seen by all threads; callbacks once."""
    for _ in range(ROUNDS):
        task: Task[int] = Task(pool)
        called: list[object] = []
        task.add_done_callback(called.append)
        start = threading.Barrier(2)

        def bring(value: int) -> None:
            start.wait(DEADLINE)
            settle(task, value, None)

        threads = [in_thread(lambda value=value: bring(value)) for value in (1, 2)]
        first = task.result(DEADLINE)
        for thread in threads:
            thread.join()
        drained = threading.Event()
        pool.callbacks.put(drained.set)
        assert drained.wait(DEADLINE)
        assert task.result() in (1, 2)
        assert first in (1, 2)
        assert called == [task]


def test_user_callbacks_run_on_the_callback_thread(pool: Any) -> None:
    """Not in the thread that settles: nothing that they do delays it."""
    task: Task[int] = Task(pool)
    names: list[str] = []
    release, done = threading.Event(), threading.Event()

    def callback(_task: object) -> None:
        release.wait(DEADLINE)
        names.append(threading.current_thread().name)
        done.set()

    task.add_done_callback(callback)
    settle(task, 1, None)
    assert task.result(0) == 1
    assert not names
    release.set()
    assert done.wait(DEADLINE)
    assert names == ["wetlands-callbacks"]


def test_an_await_is_not_delayed_by_a_blocking_callback(pool: Any) -> None:
    """``asyncio.wrap_future``, ``await task``, ``wait`` and ``result`` all pass by it."""
    task: Task[int] = Task(pool)
    release = threading.Event()
    task.add_done_callback(lambda _: release.wait(DEADLINE))

    async def main() -> tuple[int, int]:
        wrapped = asyncio.wrap_future(task)
        threading.Timer(0.01, settle, [task, 7, None]).start()
        return await asyncio.wait_for(wrapped, DEADLINE), await task

    try:
        assert asyncio.run(main()) == (7, 7)
        assert wait([task], timeout=0).done == {task}
        assert not release.is_set()
    finally:
        release.set()


def test_wrap_future_carries_errors_and_cancellation(pool: Any) -> None:
    """Into the loop."""

    async def main(task: Task[int]) -> object:
        wrapped = asyncio.wrap_future(task)
        threading.Timer(0.005, _settle, [task, kind]).start()
        return await asyncio.wait_for(wrapped, DEADLINE)

    for kind, expected in (("error", ValueError), ("cancelled", asyncio.CancelledError)):
        with pytest.raises(expected):
            asyncio.run(main(Task(pool)))


@pytest.mark.parametrize("how", ["value", "error", "cancelled"])
def test_a_condition_that_was_left_locked_blocks_nothing(pool: Any, how: str) -> None:
    """An interrupted standard library waiter can leave a Future's condition locked for ever (seen
    with alarms that raise).
    """
    task: Task[int] = Task(pool)
    waiter = _create_and_install_waiters([task], FIRST_COMPLETED)
    locker = in_thread(task._condition.acquire)
    locker.join()
    called: list[object] = []
    drained = threading.Event()
    task.add_done_callback(called.append)
    task.add_done_callback(lambda _: drained.set())
    begin = time.monotonic()
    _settle(task, how)
    assert time.monotonic() - begin < 0.1
    assert _outcome(task) == how
    assert drained.wait(DEADLINE)
    assert called == [task]
    assert waiter.event.wait(DEADLINE), "the waiter sleeps for ever"


def test_waiters_that_come_while_it_is_settled(pool: Any) -> None:
    """``wait`` holds the condition while it looks at the state and adds itself.

    Settling never takes part in that lock.
    """
    for _ in range(ROUNDS):
        task: Task[int] = Task(pool)
        start = threading.Barrier(2)

        def waiter() -> set[object]:
            start.wait(DEADLINE)
            return set(wait([task], timeout=DEADLINE).done)

        found: list[set[object]] = []
        thread = in_thread(lambda: found.append(waiter()))
        start.wait(DEADLINE)
        settle(task, 1, None)
        thread.join()
        assert found == [{task}]


def test_a_pending_task_is_small(pool: Any) -> None:
    """Less than 1.5 KB: a hundred thousand may be queued."""
    count = 500
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tasks = [Task(pool) for _ in range(count)]
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used / count < 1500
    for task in tasks:
        settle_cancelled(task)


def test_a_failed_task_keeps_no_cycle_with_its_traceback() -> None:
    """``result`` leaves no frame that refers to the task."""
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        task: Task[int] = Task()
        task.set_exception(ValueError("x"))
        gone = weakref.ref(task)
        try:
            task.result()
        except ValueError as error:
            del error
        del task
        assert gone() is None
    finally:
        gc.enable()
