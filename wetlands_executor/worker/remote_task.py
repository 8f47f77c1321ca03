"""A task that a running function has submitted, as that function sees it: ``RemoteTask``.

Threads: any thread of a task. It is settled by the reader of ``nested.py``, and its outcome is
unpickled (``remote_outcomes.py``) by the thread that asks for it.
"""

from __future__ import annotations

import time
from _thread import allocate_lock
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitTimeout
from functools import partial

from . import calls, wire
from .remote_events import Listener, Reports, TaskEvent, TaskEventType, TaskStatus, stream
from .remote_outcomes import value_of

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, AsyncIterator, Callable, Dict, List, Optional

_CANCELLED, _FINISHED = "CANCELLED_AND_NOTIFIED", "FINISHED"
#: Seconds that a lock can be waited for.
_LONGEST = 1e6


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

    Its public members are those of ``Task``, and are nearly all that it has.

    Attributes:
        name: what was called.
        detached: it goes on when the function that has submitted it has ended.
        nested: the way to the host.
        serial: of the call that has submitted it.
    """

    def __init__(
        self, nested: Any, name: str, detached: bool, kept: Any, retry_on: Any = None
    ) -> None:
        super().__init__()
        self.serial = nested.serial
        #: Where its executor keeps it until it has ended.
        self._kept = kept
        self.name = name
        self.detached = detached
        self.nested = nested
        self._waiters = _Waiters(nested, self.serial)
        #: What submits it, until it is started and its dependencies have ended.
        self._deferred: Any = None
        self._dependencies: List[RemoteTask] = []
        #: Kind and bytes of the outcome.
        self._raw: Any = None
        #: (value, exception), once a thread has unpickled the outcome.
        self._read: Dict[str, Any] = {}
        #: Locks of the threads that sleep until it has ended.
        self._locks: List[Any] = []
        self._reports = Reports()
        self._retry_on = retry_on
        #: Its number here and at the host.
        self.number: int = nested.enter(self)
        kept[self] = None

    # --- the state; no lock is taken, so that no interrupted thread can keep one

    @property
    def id(self) -> str:
        """A number of the task in this worker, as text."""
        return str(self.number)

    @property
    def unstarted(self) -> bool:
        """True if it was made with ``start=False``, or waits for others, and was not started."""
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
        if not self.nested.knows(self.number):
            return "pending", None, None, None, 1, None
        found = self.nested.ask(wire.STATE_OF, self.number)
        if found is None:  # it has ended, and its outcome was sent before
            return "running", *self._reports.told, None
        self._reports.note(found[1:5])
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
        current, maximum = self._reported(1), self._reports.told[2]
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
        return self._reports.told[place]

    @property
    def outputs(self) -> Dict[Any, Any]:
        """The named outputs that the function has set; a copy."""
        return self._reports.outputs()

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
        lock = allocate_lock()
        try:
            lock.acquire()
            self._locks.append(lock)
            # Order: the lock is in the list, then the state is looked at; ``settle`` does the
            # reverse.
            if not self.done():
                seconds = -1 if timeout is None else min(max(timeout, 0), _LONGEST)
                if not lock.acquire(True, seconds) and not self.done():
                    raise WaitTimeout
        finally:
            try:
                self._locks.remove(lock)
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
        """Submit a task that was made with ``start=False``; return it.

        Raises:
            RuntimeError: the function that has made it has ended.
        """
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            self.nested.item()
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
        if self.nested.forget(self.number):
            self._deferred = None
            self.settle(wire.CANCELLED, b"")
            return True
        return bool(self.nested.ask(wire.CANCEL_CHILD, self.number)) or self.cancelled()

    def ask_to_cancel(self) -> None:
        """Request the cancellation without waiting for the answer."""
        if not self.nested.knows(self.number):
            self.cancel()
        elif not self.done():
            self.nested.say(wire.CANCEL_CHILD, self.number)

    def kill(self) -> None:
        """Cancel the task by all means: if it runs, the process that runs it is ended."""
        if not self.nested.knows(self.number):
            self.cancel()
        elif not self.done():
            self.nested.say(wire.KILL_CHILD, self.number)

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
        self._subscribe(Listener(callback, partial(self.nested.run_later, serial=self.serial)))
        return self

    def remove_listener(self, callback: Callable[[TaskEvent], object]) -> None:
        """Forget a listener; an unknown one is ignored."""
        self._reports.discard(callback)

    def _subscribe(self, listener: Listener) -> None:
        # Order: it is added, then the state is looked at; ``settle`` does the reverse.
        self._reports.add(listener)
        if self.done():
            if self._reports.take(listener):
                listener.callback(self._end())
        else:
            self._ask_for_events()

    def _ask_for_events(self) -> None:
        """Ask the host for events, once; if it does not know the task yet, ``submit`` does."""
        if self.nested.knows(self.number) and self._reports.wants_events():
            self.nested.say(wire.LISTEN, self.number)

    def events(self) -> AsyncIterator[TaskEvent]:
        """Yield the events from now on, up to the terminal one; for ``async for``.

        A finished task yields its terminal event.
        """

        def subscribe(post: Callable[[TaskEvent], object]) -> Callable[[], object]:
            listener = Listener(post, lambda job: job())
            self._subscribe(listener)
            return partial(self._reports.take, listener)

        def waiting(begins: bool) -> None:
            (self.nested.begin_wait if begins else self.nested.end_wait)(self.serial)

        return stream(subscribe, waiting)

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

    def submit(self, submit: Callable[[], object]) -> None:
        """Submit it. What fails is its failure."""
        try:
            submit()
        except CancelledError:
            self.cancel()  # what it depends on was cancelled
        except Exception as error:  # noqa: BLE001 - pickling runs user code
            self.fail(error)
            return
        self._ask_for_events()

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
        if not self.nested.forget(self.number):
            self.ask_to_cancel()  # the host holds it: it was not started before
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
        while self._locks:
            try:
                lock = self._locks.pop()
            except IndexError:
                break  # who waited has given up
            lock.release()
        callbacks: List[Any] = self._done_callbacks
        self._done_callbacks: List[Any] = []
        for callback in callbacks:
            self.nested.run_later(_Callback(callback, self), self.serial)
        self._reports.end(self._end(failed))

    def tell(self, kind: int, data: Any) -> None:
        """Take what is no outcome: outputs, a question, or an event.

        The question is whether ``retry_on`` wants another try after an outcome. An event is (type,
        timestamp, message, current, maximum, attempt); without a type it says what the task has
        reported last, and its outcome comes next.
        """
        if kind == wire.OUTPUTS:
            attempt = int.from_bytes(data[:4], "little")
            self._reports.add_outputs(self, attempt, data[4:])
            return
        if kind == wire.RETRY:
            job = partial(_decide, self, self._retry_on, data[0], data[1:])
            self.nested.run_later(job, self.serial)
            return
        found = calls.loads(data)
        told = tuple(found[2:6])
        self._reports.note(told)
        if found[0] is not None:
            self._reports.emit(TaskEvent(self, TaskEventType(found[0]), found[1], told))

    def _end(self, failed: Optional[bool] = None) -> TaskEvent:
        kind = TaskEventType.CANCELATION
        if not self.cancelled():
            failed = self.exception() is not None if failed is None else failed
            kind = TaskEventType.FAILURE if failed else TaskEventType.COMPLETION
        return TaskEvent(self, kind, time.time(), self._reports.told)


def _decide(task: RemoteTask, wanted: Any, kind: int, data: Any) -> None:
    """Say whether ``retry_on`` wants another try of a task after an outcome."""
    again = False
    try:
        error = value_of(kind, data, task.name)[1]
        if isinstance(wanted, (type, tuple)):
            again = isinstance(error, wanted)
        else:
            again = bool(wanted(error))
    finally:
        if task.nested.knows(task.number):
            task.nested.say(wire.AGAIN, task.number, int(again))


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
