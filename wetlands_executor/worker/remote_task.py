"""A task that a running function has submitted, as that function sees it: ``RemoteTask``.

Threads: any thread of a task. It is settled by the reader of ``nested.py``, and its outcome is
unpickled (``remote_outcomes.py``) by the thread that asks for it.
"""

from __future__ import annotations

import time
from _thread import allocate_lock
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from enum import Enum
from functools import partial

from . import wire
from .remote_outcomes import value_of

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

_CANCELLED, _FINISHED = "CANCELLED_AND_NOTIFIED", "FINISHED"
#: Seconds that a lock can be waited for.
_LONGEST = 1e6


class TaskStatus(Enum):
    """What has become of a task; as the host's."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELLED = "canceled"  # noqa: PIE796 - the alias is public

    def is_finished(self) -> bool:
        """Return True if the task will not change any more."""
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


class TaskEventType(Enum):
    """What happened to a task; as the host's."""

    STARTED = "started"
    UPDATE = "update"
    COMPLETION = "completion"
    FAILURE = "failure"
    CANCELATION = "cancelation"
    CANCELLATION = "cancelation"  # noqa: PIE796 - the alias is public


class TaskEvent:
    """Something that happened to a task.

    Attributes:
        task: the task.
        type: what happened.
        timestamp: when, ``time.time()`` of the host; of the terminal event that of this process.
        message, current, maximum: what the task had reported by then.
        attempt: number of the try that ran, from 1.
    """

    def __init__(
        self,
        task: RemoteTask,
        kind: TaskEventType,
        timestamp: float,
        reported: Tuple[Any, Any, Any, int],
    ) -> None:
        self.task = task
        self.type = kind
        self.timestamp = timestamp
        self.message, self.current, self.maximum, self.attempt = reported

    def __repr__(self) -> str:
        return "<TaskEvent %s of %r>" % (self.type.value, self.task.name)


class _Waiters(list):  # type: ignore[type-arg]
    """What the standard library's ``wait`` and ``as_completed`` add to a Future.

    As long as such a waiter is there, the call counts as one that waits. Does not refer to the
    task: a result that was not read must be let go of without the collector.
    """

    def __init__(self, nested: Any, serial: int) -> None:
        super().__init__()
        self._nested = nested
        self._serial = serial

    def append(self, waiter: Any) -> None:
        """Add a waiter. The lock of the task is held."""
        super().append(waiter)
        self._nested.begin_wait(self._serial)

    def remove(self, waiter: Any) -> None:
        """Remove one."""
        super().remove(waiter)
        self._nested.end_wait(self._serial)


class RemoteTask(Future):  # type: ignore[type-arg]
    """A task that a running function has submitted: a Future, in this process.

    Attributes:
        name: what was called.
        detached: it goes on when the function that has submitted it has ended.
        nested: the way to the host.
        serial: of the call that has submitted it.
    """

    def __init__(self, nested: Any, name: str, detached: bool, kept: Any) -> None:
        super().__init__()
        self.serial = nested.serial
        #: Where its executor keeps it until it has ended.
        self._kept = kept
        kept[self] = None
        self.name = name
        self.detached = detached
        self.nested = nested
        self._waiters = _Waiters(nested, self.serial)
        #: Its number at the host; 0 before it is submitted.
        self._number = 0
        #: What submits it, until it is started and its dependencies have ended.
        self._deferred: Any = None
        self._dependencies: List[RemoteTask] = []
        #: Kind and bytes of the outcome.
        self._raw: Any = None
        #: (value, exception), once a thread has unpickled the outcome.
        self._read: Dict[str, Any] = {}
        #: Locks of the threads that sleep until it has ended.
        self._gates: List[Any] = []
        self._listeners: List[Any] = []
        self._told: Any = (None, None, None, 1)

    # --- the state; no lock is taken, so that no interrupted thread can keep one

    @property
    def id(self) -> str:
        """A number of the task in this worker, as text; empty before it is submitted."""
        return str(self._number) if self._number else ""

    @property
    def unstarted(self) -> bool:
        """True if it was made with ``start=False`` and was not started yet."""
        return self._deferred is not None

    def done(self) -> bool:
        """Return True if the call was cancelled or has finished."""
        return self._state in (_CANCELLED, _FINISHED)

    def cancelled(self) -> bool:
        """Return True if the call was cancelled."""
        return self._state == _CANCELLED

    def running(self) -> bool:
        """Return True if a worker has taken the call and has not finished it. Asks the host."""
        return self.status is TaskStatus.RUNNING

    @property
    def status(self) -> TaskStatus:
        """The state. Asks the host as long as the task has not ended."""
        if self.done():
            if self.cancelled():
                return TaskStatus.CANCELED
            return TaskStatus.COMPLETED if self.exception() is None else TaskStatus.FAILED
        return TaskStatus(self._ask()[0])

    def _ask(self) -> Any:
        """Return (status, message, current, maximum, attempt, pid) as the host has them now."""
        if not self._number:
            return "pending", None, None, None, 1, None
        found = self.nested.ask(wire.STATE_OF, self._number)
        if found is None:  # it has ended, and its outcome was sent before
            return "running", *self._told, None
        self._told = found[1:5]
        return found

    @property
    def message(self) -> Optional[str]:
        """The last message that the function has reported. Asks the host."""
        found: Optional[str] = self._reported(0)
        return found

    @property
    def current(self) -> Any:
        """How far it is, as it has reported. Asks the host."""
        return self._reported(1)

    @property
    def maximum(self) -> Any:
        """What ``current`` grows to, as it has reported. Asks the host."""
        return self._reported(2)

    @property
    def progress(self) -> Optional[float]:
        """``current / maximum`` within 0 to 1; None if one is unknown or the maximum is 0."""
        current, maximum = self._reported(1), self._told[2]
        if current is None or not maximum:
            return None
        return float(min(1.0, max(0.0, current / maximum)))

    @property
    def attempt(self) -> int:
        """Number of the try that runs or ran, from 1. Asks the host."""
        return int(self._reported(3))

    def _reported(self, place: int) -> Any:
        if not self.done():
            self._ask()
        return self._told[place]

    # --- the outcome

    def result(self, timeout: Optional[float] = None) -> Any:
        """Return what the call returned; wait for it if need be. As of any Future."""
        self._sleep(timeout)
        value, error = self._outcome()
        try:
            if error is not None:
                raise error
            return value
        finally:
            error = self = None  # type: ignore[assignment] # a cycle with the traceback

    def exception(self, timeout: Optional[float] = None) -> Any:
        """Return what the call raised, None if it returned. As of any Future."""
        self._sleep(timeout)
        error = self._outcome()[1]
        if self.cancelled():
            raise error
        return error

    def wait_for(self, timeout: Optional[float] = None) -> RemoteTask:
        """Wait until the task has finished, however; return it.

        Raises:
            TimeoutError: it has not finished in time (it goes on).
        """
        self._sleep(timeout)
        return self

    def _sleep(self, timeout: Optional[float]) -> None:
        if self.done():
            return
        self.nested.begin_wait(self.serial)
        gate = allocate_lock()
        try:
            gate.acquire()
            self._gates.append(gate)
            # Order: the lock is in the list, then the state is looked at; ``settle`` does the
            # reverse.
            if not self.done():
                seconds = -1 if timeout is None else min(max(timeout, 0), _LONGEST)
                if not gate.acquire(True, seconds) and not self.done():
                    raise WaitTimeout
        finally:
            try:
                self._gates.remove(gate)
            except ValueError:
                pass  # it has ended
            self.nested.end_wait(self.serial)

    def _get_snapshot(self) -> Any:
        """Return (done, cancelled, result, exception): what asyncio asks for from 3.15 on."""
        if not self.done():
            return False, False, None, None
        value, error = self._outcome()
        return (True, True, None, None) if self.cancelled() else (True, False, value, error)

    def _outcome(self) -> Any:
        raw = self._raw
        if raw is not None:
            # Two threads may do this at the same time: the value of one counts.
            self._read.setdefault("outcome", value_of(*raw))
            self._raw = None
        return self._read["outcome"]

    # --- steering

    def start(self) -> RemoteTask:
        """Submit a task that was made with ``start=False``; return it."""
        deferred, self._deferred = self._deferred, None
        if deferred is not None and not self.done():
            deferred()
        return self

    def cancel(self) -> bool:
        """Cancel the call.

        Returns:
            True if it will not run. False if it has finished, or runs: then it is asked to stop.
        """
        if self.done():
            return self.cancelled()
        if not self._number:
            self._deferred = None
            self.settle(wire.CANCELLED, b"")
            return True
        return bool(self.nested.ask(wire.CANCEL_CHILD, self._number)) or self.cancelled()

    def ask_to_cancel(self) -> None:
        """Request the cancellation without waiting for the answer."""
        if self._number and not self.done():
            self.nested.say(wire.CANCEL_CHILD, self._number)
        else:
            self.cancel()

    def kill(self) -> None:
        """Cancel the task by all means: if it runs, the process that runs it is ended."""
        if self._number and not self.done():
            self.nested.say(wire.KILL_CHILD, self._number)
        elif not self.done():
            self.cancel()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call ``fn(task)`` when the task has finished, on a thread for callbacks.

        Here and now if it has finished already. Until then the function counts as one that waits.
        """
        if not self.done():
            self.nested.begin_wait(self.serial)
            with self._condition:
                if not self.done():
                    self._done_callbacks.append(fn)
                    return
            self.nested.end_wait(self.serial)
        fn(self)

    def listen(self, callback: Callable[[TaskEvent], object]) -> RemoteTask:
        """Call ``callback`` with each event of the task, on a thread for callbacks; return it.

        If the task has finished, it gets the terminal event now.
        """
        self._listeners.append(callback)
        if self.done():
            if callback in self._listeners:
                self._listeners.remove(callback)
                callback(self._end())
        elif self._number:
            self.nested.say(wire.LISTEN, self._number)
        return self

    def remove_listener(self, callback: Callable[[TaskEvent], object]) -> None:
        """Forget a listener; an unknown one is ignored."""
        if callback in self._listeners:
            self._listeners.remove(callback)

    def __await__(self) -> Any:
        """Wait in an event loop; cancelling the awaiter asks the task to stop."""
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def __enter__(self) -> RemoteTask:  # noqa: PYI034 - Python 3.8 has no Self
        return self.start()

    def __exit__(self, *_of_block: object) -> None:
        self.cancel()
        self.wait_for()

    def __reduce__(self) -> Any:
        """Refuse to be pickled."""
        raise TypeError(
            "the task %r belongs to the function that has submitted it: return its .result(); as "
            "an argument it is replaced by its result only if it is one itself, not part of one"
            % self.name
        )

    def __repr__(self) -> str:
        return "<RemoteTask %r %s>" % (self.name, self._state.lower())

    # --- what happens to it (the reader's thread, or the one that ends it)

    def submit(self, submit: Callable[[], int]) -> None:
        """Submit it; ``submit`` returns its number. What fails is its failure."""
        try:
            self._number = submit()
        except Exception as error:  # noqa: BLE001 - pickling runs user code
            self.fail(error)
            return
        if self._listeners:
            self.nested.say(wire.LISTEN, self._number)

    def defer(self, submit: Callable[[], None], dependencies: List[RemoteTask]) -> None:
        """Submit it when it is started and the others have ended."""
        if not dependencies:
            self._deferred = submit
            return
        # One entry for each that has not ended, and one for this method; who takes the last one
        # goes on.
        left = [None] * len(dependencies) + [None]

        def one_less(_task: Any = None) -> None:
            left.pop()
            if not left and not self.done():
                submit()

        def start() -> None:
            for task in dependencies:
                task.start()
                task.add_done_callback(one_less)
            one_less()

        self._deferred = start

    def fail(self, error: BaseException) -> None:
        """End it with an exception of this process."""
        self._read["outcome"] = (None, error)
        self.settle(wire.ERROR, b"")

    def settle(self, kind: int, data: Any) -> None:
        """Take the outcome; wake the threads that wait for it."""
        if not self._read:
            self._raw = (kind, data, self.name)
        failed = kind in (wire.ERROR, wire.FAILED)
        with self._condition:
            if self.done():
                return
            self._state = _CANCELLED if kind == wire.CANCELLED else _FINISHED
            for waiter in self._waiters:
                if kind == wire.CANCELLED:
                    waiter.add_cancelled(self)
                elif failed:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()
        self._kept.pop(self, None)
        while self._gates:
            try:
                gate = self._gates.pop()
            except IndexError:
                break  # who waited has given up
            gate.release()
        callbacks: List[Any] = self._done_callbacks
        self._done_callbacks: List[Any] = []
        for callback in callbacks:
            self.nested.run_later(_Callback(callback, self), self.serial)
        if self._listeners:
            listeners, self._listeners = self._listeners, []
            end = self._end(failed)
            for listener in listeners:
                self.nested.run_later(partial(listener, end), self.serial)

    def tell(self, event: Any) -> None:
        """Take an event: (type, timestamp, message, current, maximum, attempt)."""
        kind, timestamp, self._told = event[0], event[1], tuple(event[2:6])
        found = TaskEvent(self, TaskEventType(kind), timestamp, self._told)
        for listener in list(self._listeners):
            self.nested.run_later(partial(listener, found), self.serial)

    def _end(self, failed: Optional[bool] = None) -> TaskEvent:
        kind = TaskEventType.CANCELATION
        if not self.cancelled():
            failed = self.exception() is not None if failed is None else failed
            kind = TaskEventType.FAILURE if failed else TaskEventType.COMPLETION
        return TaskEvent(self, kind, time.time(), self._told)


class _Callback:
    """Calls a callback of a task that has ended; then the call waits for it no more."""

    def __init__(self, callback: Callable[[Any], object], task: RemoteTask) -> None:
        self._callback = callback
        self._task = task

    def __call__(self) -> None:
        try:
            self._callback(self._task)
        finally:
            self._task.nested.end_wait(self._task.serial)
