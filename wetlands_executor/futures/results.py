"""Iterating over the results of many tasks: the second half of ``map``."""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from wetlands_executor import threads
from wetlands_executor.errors import WaitTimeout
from wetlands_executor.futures.callbacks import add_hook
from wetlands_executor.futures.future import Task, cancelled_error
from wetlands_executor.futures.waiting import remaining

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import PendingCall

T = TypeVar("T")


def chunks(items: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Cut an iterable into lists of ``size`` items; the last may be shorter."""
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def flatten(lists: Iterator[Any]) -> Iterator[Any]:
    """Yield the elements of lists, letting go of each list's elements as they are taken."""
    try:
        for found in lists:
            found.reverse()
            while found:
                yield found.pop()
    finally:
        lists.close()  # type: ignore[attr-defined] # a generator: closing cancels the rest


def iterate(
    tasks: Iterator[Task[T]],
    end: float | None,
    buffersize: int | None,
    ordered: bool,
    done: Callable[[], object] | None,
    take: Callable[[Task[T], float | None], T],
) -> Iterator[T]:
    """Submit now (all, or ``buffersize``), and return an iterator of the results.

    Args:
        tasks: submits when it is advanced.
        end: when the time is over, on the monotonic clock; None is never.
        buffersize: tasks under way at most; None reads all of them now.
        ordered: False yields results as they come.
        done: called when no task will be submitted or waited for any more.
        take: ``result_of`` or ``outcome_of``.
    """
    first = deque(tasks if buffersize is None else itertools.islice(tasks, buffersize))
    return (_in_order if ordered else _as_they_come)(first, tasks, end, done, take)


def _in_order(
    pending: deque[Task[T]],
    more: Iterator[Task[T]],
    end: float | None,
    done: Callable[[], object] | None,
    take: Callable[[Task[T], float | None], T],
) -> Iterator[T]:
    try:
        while pending:
            taken = [take(pending.popleft(), end)]
            pending.extend(itertools.islice(more, 1))
            yield taken.pop()  # no reference stays here while the caller uses it
    finally:
        _drop(pending)
        if done is not None:
            done()


def _as_they_come(
    pending: deque[Task[T]],
    more: Iterator[Task[T]],
    end: float | None,
    done: Callable[[], object] | None,
    take: Callable[[Task[T], float | None], T],
) -> Iterator[T]:
    finished: queue.SimpleQueue[Task[T]] = queue.SimpleQueue()
    waiting: dict[Task[T], None] = {}

    def add(task: Task[T]) -> None:
        waiting[task] = None
        add_hook(task, finished.put)

    for task in pending:
        add(task)
    try:
        while waiting:
            if threads.kind_of_this() is not None:
                for task in tuple(waiting):
                    threads.check(task)
            try:
                left = remaining(end)
                with threads.pause():
                    task = finished.get(timeout=None if left is None else max(left, 0.0))
            except queue.Empty:
                raise WaitTimeout from None
            del waiting[task]
            for another in itertools.islice(more, 1):
                add(another)
            yield take(task, end)
            del task
    finally:
        _drop(waiting)
        if done is not None:
            done()


def outcome_of(task: Task[Any], end: float | None) -> Any:
    """Return a result, or the exception of a task that has failed or was cancelled.

    A task whose time is over is cancelled.
    """
    try:
        task.wait_for(remaining(end))
        if task.cancelled():
            return cancelled_error(task)
        error = task.exception()
        return task.result() if error is None else error
    except BaseException:
        _drop([task])
        raise
    finally:
        del task


def result_of(task: Task[T], end: float | None) -> T:
    """Return a result; a task whose time is over is cancelled, as in the standard library."""
    try:
        return task.result(remaining(end))
    except BaseException:
        _drop([task])
        raise
    finally:
        del task


def _drop(tasks: Iterable[Task[Any]]) -> None:
    by_pool: dict[Any, list[PendingCall]] = {}
    for task in tasks:
        call, pool = task._call, task._pool
        if call is not None and pool is not None:
            by_pool.setdefault(pool, []).append(call)
    for pool, calls in by_pool.items():
        pool.cancel_all(calls)
