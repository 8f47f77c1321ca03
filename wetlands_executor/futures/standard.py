"""What the standard library's ``wait`` and ``as_completed`` find in a Task, made on demand.

A standard Future makes a condition and two lists at once, which cost three quarters of a submit and
which few tasks need. A Task makes each when it is first asked for. From then on it stands in the
Task like any other attribute.

The names in the Task's dictionary:

* ``_lazy_condition``: the condition that was asked for before the end, or ``SETTLED`` if the task
  was settled first. Written once, with ``dict.setdefault`` (one step in C code): the thread that
  settles and the threads that ask for the condition agree on which of the two it is.
* ``_late_condition``: what those get that ask after the end. The state is final by then.
* ``_condition``, ``_waiters``, ``_done_callbacks``: what the standard library reads.

Race: an exception from a signal handler can leave the condition of a Future, or that of a waiter's
event, locked for ever (seen with an alarm that raises). Settling stores the state without these
locks and only tries to take them; see ``Notification``.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures._base import (
    FINISHED,
    _AllCompletedWaiter,
    _AsCompletedWaiter,
    _FirstCompletedWaiter,
)
from threading import get_ident
from typing import Any

from wetlands_executor import threads
from wetlands_executor.threads import serving, starting, working

LOGGER = logging.getLogger("concurrent.futures")

# The type of the locks that ``threading.RLock`` makes; written in C, and cheap to make.
_RLock: Any = type(threading.RLock())

#: What ``wait`` and ``as_completed`` leave with a Future. Their fields are the same from CPython
#: 3.10 to 3.15.
_WAITERS = frozenset((_AllCompletedWaiter, _AsCompletedWaiter, _FirstCompletedWaiter))

#: Stands in the place of the condition of a task that was settled before one was asked for.
SETTLED = object()

# The rest of a ``TaskCondition`` was made: hardly ever, and asking one takes an exception in C.
_waited = False

#: How often a Future's condition that another thread has locked is tried again.
TRIES = 50


class TaskCondition(_RLock):  # type: ignore[misc] # its type has no public name
    """The condition of a Task.

    ``wait`` and ``as_completed`` use nothing but the lock; the rest is made by the first real wait.
    """

    __slots__ = ("_full",)
    _full: threading.Condition

    def _whole(self) -> threading.Condition:
        global _waited  # it only ever becomes True
        with self:
            try:
                return self._full
            except AttributeError:
                _waited = True  # Order: before the rest is there, which the settling thread uses
                self._full = threading.Condition(self)
            return self._full

    def wait(self, timeout: float | None = None) -> bool:
        """As ``threading.Condition.wait``."""
        return self._whole().wait(timeout)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """As ``threading.Condition.wait_for``."""
        return self._whole().wait_for(predicate, timeout)

    def notify(self, n: int = 1) -> None:
        """As ``threading.Condition.notify``."""
        if hasattr(self, "_full"):
            self._full.notify(n)

    def notify_all(self) -> None:
        """As ``threading.Condition.notify_all``."""
        if hasattr(self, "_full"):
            self._full.notify_all()


class OnDemand:
    """An attribute that is made when it is first asked for.

    From then on it stands in the object.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __get__(self, task: Any, owner: Any) -> Any:
        return self if task is None else self._make(task)


class ConditionOnDemand:
    """The ``_condition`` of a Task. As ``OnDemand``, in one function: each ``wait`` makes many."""

    def __get__(self, task: Any, owner: Any) -> Any:
        if task is None:
            return self
        fields = task.__dict__
        # One step: all threads get the same one, or all see that the task is settled.
        found = fields.get("_lazy_condition")
        if found is None:
            found = fields.setdefault("_lazy_condition", TaskCondition())
        if found is not SETTLED:
            # Also if it was there: the thread that has made it may have been interrupted here.
            # Order: as every accessor, it has an unannounced call registered.
            task.done()
        else:
            # No thread had it before the end. From now on the state is final for each that has it.
            fields["_state"] = fields["_final"]
            found = fields.setdefault("_late_condition", TaskCondition())
        fields["_condition"] = found
        return found


class WaitersOnDemand:
    """The ``_waiters`` of a Task: a list, to which ``wait`` and ``as_completed`` add theirs.

    It is looked at each time (hence ``__set__``), because a thread of a pool gets it guarded. The
    list itself has no methods of ours: most threads may wait, for many tasks.
    """

    def __get__(self, task: Any, owner: Any) -> Any:
        if task is None:
            return self
        fields = task.__dict__
        found = fields.get("_waiters") or fields.setdefault("_waiters", [])
        if get_ident() in serving or starting or working:
            return GuardedWaiters(task, found)
        return found

    def __set__(self, task: Any, waiters: Any) -> None:
        task.__dict__["_waiters"] = waiters


class GuardedWaiters:
    """The waiters of a Task, for threads of which some must not wait, and others say that they do.

    Args:
        task: the task.
        waiters: its list.
    """

    __slots__ = ("_task", "_waiters")

    def __init__(self, task: Any, waiters: list[Any]) -> None:
        self._task = task
        self._waiters = waiters

    def __iter__(self) -> Iterator[Any]:
        return iter(self._waiters)

    def __len__(self) -> int:
        return len(self._waiters)

    def append(self, waiter: Any) -> None:
        """Add one. Raises RuntimeError on a thread that must not wait for the task."""
        if get_ident() in serving or starting:
            threads.check(self._task)
            threads.check()
            pauses = working.get(get_ident())
            if pauses is not None:
                pauses.begin(waiter, None, limited=False)
        self._waiters.append(waiter)

    def remove(self, waiter: Any) -> None:
        """Remove one: its wait is over."""
        self._waiters.remove(waiter)
        pauses = working.get(get_ident())
        if pauses is not None:
            pauses.end(waiter)


def make_callbacks(task: Any) -> deque[Any]:
    """Return the ``_done_callbacks`` of a task."""
    found: deque[Any] = task.__dict__.setdefault("_done_callbacks", deque())
    return found


#: Seconds until a notification is tried again whose lock another thread has.
NOTIFY_DELAY = 0.005


def run_a_little_later(job: Callable[[], object]) -> None:
    """Run a job after ``NOTIFY_DELAY``, where no thread of a pool has timers."""
    timer = threading.Timer(NOTIFY_DELAY, job)
    timer.daemon = True
    timer.start()


class Notification:
    """Publishes the final state of one Task under its condition, and notifies the waiters there.

    Race: an exception from a signal handler can leave the condition, or that of a waiter's event,
    locked for ever. So this never blocks on either: each is tried, and what is locked is tried
    again a little later. After ``TRIES`` it is given up: the thread that waited there was
    interrupted.

    Args:
        task: the Task.
        condition: its condition.
        state: its final state, ``FINISHED`` or ``CANCELLED_AND_NOTIFIED``.
        failed: it has ended with an exception.
        later: calls this object again a little later, on the I/O thread; None: there is one try.
    """

    __slots__ = ("_condition", "_failed", "_later", "_state", "_task", "_told", "_tries")

    def __init__(
        self,
        task: Any,
        condition: TaskCondition,
        state: str,
        failed: bool,
        later: Callable[[Callable[[], bool]], object] | None,
    ) -> None:
        self._task = task
        self._condition = condition
        self._state = state
        self._failed = failed
        self._later = later
        self._tries = TRIES
        #: Waiters that have been notified.
        self._told: list[Any] = []

    def __call__(self) -> bool:
        """Try; return False if it is tried again."""
        condition = self._condition
        locked = condition.acquire(blocking=False)
        if not locked and self._again():
            return False
        left = False
        try:
            self._task._state = self._state
            for waiter in tuple(self._task.__dict__.get("_waiters", ())):
                if self._told and any(waiter is known for known in self._told):
                    continue
                if tell_waiter(waiter, self._task, self._state, failed=self._failed):
                    self._told.append(waiter)
                else:
                    left = True
            whole = getattr(condition, "_full", None)
            if locked and whole is not None:
                whole.notify_all()
        except Exception:  # a waiter of another library; what settles goes on
            LOGGER.exception("wetlands_executor: the end of a task could not be told by %r", self)
        finally:
            if locked:
                condition.release()
        return not (left and self._again())

    def _again(self) -> bool:
        """Have it tried again; return False if that is given up."""
        if not self._tries or self._later is None:
            return False
        self._tries -= 1
        self._later(self)
        return True


def notify_only_waiter(task: Any, condition: TaskCondition, state: str) -> bool:
    """Do what a ``Notification`` of a result does, where one standard waiter at most is there.

    For the many short tasks of one ``wait`` or ``as_completed``. I/O thread.

    Returns:
        False if a ``Notification`` has to do it. No waiter was notified then.
    """
    if not condition.acquire(blocking=False):
        return False
    try:
        waiters = task.__dict__.get("_waiters", ())
        if len(waiters) > 1 or (_waited and hasattr(condition, "_full")):
            return False
        task.__dict__["_state"] = state
        if not waiters:
            return True
        return type(waiters[0]) in _WAITERS and tell_waiter(waiters[0], task, state, failed=False)
    finally:
        condition.release()


def tell_waiter(waiter: Any, task: Any, state: str, *, failed: bool) -> bool:
    """Notify a waiter that a task has finished, as its ``add_result`` and the like would.

    Race: those methods take two locks, and would wait for ever for one that an interrupted waiter
    has left locked.

    Returns:
        False if one of its locks is locked: it was not notified.
    """
    kind = type(waiter)
    if kind is _AllCompletedWaiter and not failed and waiter.num_pending_calls > 1:
        # As a rule it is not the last one: it wakes up no thread, so one lock is enough.
        if not waiter.lock.acquire(False):
            return False
        try:
            if waiter.num_pending_calls > 1:
                waiter.finished_futures.append(task)
                waiter.num_pending_calls -= 1
                return True
        finally:
            waiter.lock.release()
    if kind not in _WAITERS:  # of another library, which has its own locks, or none
        add = waiter.add_exception if failed else waiter.add_result
        (add if state == FINISHED else waiter.add_cancelled)(task)
        return True
    event = waiter.event
    lock = getattr(waiter, "lock", None)
    if lock is not None and not lock.acquire(blocking=False):
        return False
    try:
        if not event._cond.acquire(blocking=False):
            return False
        try:
            waiter.finished_futures.append(task)
            wakes = True
            if kind is _AllCompletedWaiter and not (failed and waiter.stop_on_exception):
                waiter.num_pending_calls -= 1
                wakes = not waiter.num_pending_calls
            if wakes:
                event._flag = True
                event._cond.notify_all()
        finally:
            event._cond.release()
    finally:
        if lock is not None:
            lock.release()
    return True
