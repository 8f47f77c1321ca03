"""Waiting until something is true, and waking the threads that wait for it.

The one implementation: for tasks, for the counts of a pool (``wait_all``), for the results of a
``map`` and for latches. Owns nothing but the list of threads that wait. Any thread waits and any
thread notifies.

Order: the waiting thread appends its wakeup and then looks at what it waits for; the notifying
thread makes that true and then takes the wakeups. At least one of the two observes the other's
store.

Race: an exception from a signal handler may end a wait between any two steps. No lock guards the
list, each step on it is one call of C code, and every wait has a wakeup of its own: what an
interrupted wait leaves behind is a wakeup that wakes no thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from wetlands_executor import seconds, threads
from wetlands_executor.errors import WaitTimeout
from wetlands_executor.threads import serving, starting

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import PendingCall, TaskPool


class Wakeups(deque[Any]):
    """The wakeups of the threads that wait for one thing: locks, or whatever has a ``release``."""

    __slots__ = ()

    def wait(self, is_true: Callable[[], bool], timeout: float | None = None) -> bool:
        """Sleep until ``notify_all`` is called, unless ``is_true()`` is true before.

        Args:
            is_true: looks at what is waited for. Not called again after ``notify_all``: a thread
                for which that may be too early has to look, and to wait again.
            timeout: seconds to wait; None waits without limit.

        Returns:
            False if the time was over before.
        """
        wakeup = threading.Lock()
        wakeup.acquire()
        self.append(wakeup)
        if is_true():
            return True
        if timeout is None:
            return wakeup.acquire()
        if wakeup.acquire(timeout=seconds.for_lock(timeout)) or is_true():
            return True
        try:
            self.remove(wakeup)
        except ValueError:
            pass  # the notifying thread has taken it in this very moment
        return False

    def notify_all(self) -> None:
        """Wake all threads that wait. Several threads may call this at the same time."""
        while self:
            try:
                wakeup = self.popleft()
            except IndexError:
                return  # another thread has taken the last one
            wakeup.release()


class Latch:
    """An event that is set once.

    Unlike with ``threading.Event`` an interrupted waiter leaves nothing locked, and unlike with
    ``Thread.join`` (before Python 3.13) an interrupted wait does not count as the end.
    """

    __slots__ = ("_set", "_wakeups")

    def __init__(self) -> None:
        self._set = False
        self._wakeups = Wakeups()

    def set(self) -> None:
        """Set it, and wake all threads that wait for it."""
        self._set = True
        self._wakeups.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False if ``timeout`` seconds were over before."""
        return self._wakeups.wait(self.is_set, timeout)

    def is_set(self) -> bool:
        """Return True once it was set."""
        return self._set


def sleep(
    task: Any, call: PendingCall | None, pool: TaskPool | None, timeout: float | None
) -> None:
    """Sleep until a task has finished.

    If its call has a direct way back, this thread takes the answer itself; else the thread that
    settles the task wakes this one.

    Args:
        task: the task.
        call: its call, if its pool has it.
        pool: its pool.
        timeout: seconds to wait; None waits without limit.

    Raises:
        WaitTimeout: the time is over.
        RuntimeError: this thread must not wait for it, or never could.
    """
    if timeout is not None:
        timeout = seconds.wait("timeout", timeout)
    pauses = None
    if get_ident() in serving or starting:
        threads.check(task)
        pauses = threads.working.get(get_ident())
    try:
        if pauses is not None:
            pauses.begin(task, task, limited=timeout is not None)
        if call is not None:
            process = call.process
            if process is not None:
                direct = process.direct_send.receive
                if direct is not None and direct.wait(process, call, task, timeout):
                    return
        if pool is not None:
            if pool.forked:
                raise RuntimeError(
                    "this task belongs to the process that forked this one; "
                    "only that process can wait for it"
                )
            if pool.ended:
                pool.take_abandoned_waits()
        wakeups = task.__dict__.get("_wakeups")
        if wakeups is None:
            wakeups = task.__dict__.setdefault("_wakeups", Wakeups())
        if not wakeups.wait(task.done, timeout):
            raise WaitTimeout
    finally:
        if pauses is not None:
            pauses.end(task)


def add_wakeup(task: Any, wakeup: Any) -> None:
    """Have ``wakeup.release()`` called by the thread that settles a task. I/O thread."""
    task.__dict__.setdefault("_wakeups", Wakeups()).append(wakeup)


def remaining(end: float | None) -> float | None:
    """Return the seconds until ``end`` on the monotonic clock; None if there is no end."""
    return None if end is None else end - time.monotonic()
