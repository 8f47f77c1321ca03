"""What has become of a pool's tasks, in numbers, and the last failures. Bounded, and keeps no result alive. Entered by any thread."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wetlands_executor.pool.delivery import SerialThread
    from wetlands_executor.task import Task

#: Failures and finished tasks that are remembered.
REMEMBERED = 1000

ErrorCallback = Callable[["Task[Any]", BaseException], object]


class Ledger:
    """Counts of tasks by what became of them."""

    def __init__(self, callbacks: SerialThread) -> None:
        self._callbacks = callbacks
        # Guards all fields; nothing is called while it is held. RLock: a finalizer may settle a task from within.
        self._lock = threading.RLock()
        self.total = self.completed = self.failed = self.cancelled = 0
        self._failures: deque[Task[Any]] = deque(maxlen=REMEMBERED)
        self._recent: deque[weakref.ref[Task[Any]]] = deque(maxlen=REMEMBERED)
        self._sleepers: list[threading.Lock] = []
        self.error_callback: ErrorCallback | None = None

    def submitted(self, task: Task[Any]) -> None:
        """Count a task that was handed in."""
        task._counted = True
        with self._lock:
            self.total += 1

    def finished(self, task: Task[Any]) -> None:
        """Count a task that has reached its final state, unless it was never started."""
        if not task._counted:
            return
        error = task._exception
        with self._lock:
            if error is not None:
                self.failed += 1
                self._failures.append(task)
            elif task.cancelled():
                self.cancelled += 1
            else:
                self.completed += 1
            self._recent.append(weakref.ref(task))
            sleepers = self._sleepers if self._sleepers and self.active == 0 else []
            if sleepers:
                self._sleepers = []
        for lock in sleepers:
            lock.release()
        callback = self.error_callback
        if error is not None and callback is not None:
            self._callbacks.put(partial(callback, task, error))

    def expect(self, count: int) -> None:
        """Count calls that were handed in together."""
        with self._lock:
            self.total += count

    def returned(self, tasks: Sequence[Task[Any]]) -> None:
        """Count tasks that have returned normally."""
        with self._lock:
            self._recent.extend(map(weakref.ref, tasks))
            self.completed += len(tasks)
            sleepers, self._sleepers = (self._sleepers, []) if self._sleepers and self.active == 0 else ([], self._sleepers)
        for lock in sleepers:
            lock.release()

    def returned_one(self, task: Task[Any]) -> None:
        """Count a task that has returned normally, once: whoever was interrupted may have come thus far or not."""
        with self._lock:
            if task._counted:
                # No call stands between these lines: both are done, or neither.
                task._counted = False
                self.completed += 1
                self._recent.append(weakref.ref(task))
            sleepers, self._sleepers = (self._sleepers, []) if self._sleepers and self.active == 0 else ([], self._sleepers)
        for lock in sleepers:
            lock.release()

    def count(self, completed: int, cancelled: int) -> None:
        """Count calls that have returned normally, or were cancelled."""
        with self._lock:
            self.completed += completed
            self.cancelled += cancelled
            sleepers, self._sleepers = (self._sleepers, []) if self._sleepers and self.active == 0 else ([], self._sleepers)
        for lock in sleepers:
            lock.release()

    @property
    def active(self) -> int:
        """Number of tasks that were handed in and have not finished."""
        return self.total - self.completed - self.failed - self.cancelled

    def wait(self, timeout: float | None) -> bool:
        """Wait until no task is active; False if ``timeout`` seconds were over before."""
        lock = threading.Lock()
        lock.acquire()
        with self._lock:
            if self.active == 0:
                return True
            self._sleepers.append(lock)
        if timeout is None:
            lock.acquire()
            return True
        return lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))

    def failures(self) -> list[Task[Any]]:
        """Return the last failed tasks, oldest first."""
        with self._lock:
            return list(self._failures)

    def clear_failures(self) -> None:
        """Forget the failed tasks."""
        with self._lock:
            self._failures.clear()

    def find(self, identifier: str) -> Task[Any] | None:
        """Return one of the last finished tasks, if somebody still holds it."""
        with self._lock:
            recent = list(self._recent) + [weakref.ref(task) for task in self._failures]
        for reference in recent:
            task = reference()
            if task is not None and task.id == identifier:
                return task
        return None
