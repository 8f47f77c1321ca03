"""``Task``: the Future of a call in another environment.

Owns the state of one call as its user sees it. A pending Task is small: the lock, the lists of waiters and callbacks that a standard Future
makes at once are made when somebody asks for them.

Threads: a Task is settled exactly once, by the thread that holds its outcome (``_settle``, ``_settle_cancelled``). Everybody else only reads,
or adds itself to a list and then looks at the state again; settling stores the state and then looks at the lists. One of both sees the
other, so nobody sleeps through it.

*Race:* an exception from a signal handler can leave a standard library waiter (``wait``, ``as_completed``) with a Future's condition locked
for ever (seen with an alarm that raises). Settling therefore stores the state without that lock, and only tries to take it to notify.
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
    _AllCompletedWaiter,
    _AsCompletedWaiter,
    _FirstCompletedWaiter,
)
from dataclasses import replace
from enum import Enum
from functools import partial
from threading import get_ident
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from wetlands_executor import arguments, bells, seconds, threads
from wetlands_executor.errors import CALLED, WaitTimeout, describe, wants_call, with_call
from wetlands_executor.events import Callback, Dispatch, Listener, TaskEvent, TaskEventType, make_listener

if TYPE_CHECKING:
    import asyncio  # a tenth of the time of importing this package, and who awaits has it already
    from types import TracebackType

    from typing_extensions import Self

    from wetlands_executor.futures.home import Definition, Home, PendingCall
    from wetlands_executor.futures.options import CallOptions

LOGGER = logging.getLogger("concurrent.futures")

# The type of the locks that ``threading.RLock`` makes; written in C, and cheap to make.
_RLock: Any = type(threading.RLock())

T = TypeVar("T")

_DONE = frozenset((FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED))
_CANCELLED = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED))
#: What ``concurrent.futures.wait`` and ``as_completed`` leave with a Future. Their fields are the same from CPython 3.10 to 3.15.
_WAITERS = frozenset((_AllCompletedWaiter, _AsCompletedWaiter, _FirstCompletedWaiter))

#: How often a Future's condition that is locked by somebody is tried again (``PoolCore.notify_later``).
_NOTIFY_TRIES = 50


class TaskStatus(Enum):
    """What has become of a task."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELLED = "canceled"  # noqa: PIE796 - the alias is public

    def is_finished(self) -> bool:
        """Return True if the task will not change any more."""
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


class Snapshot(NamedTuple):
    """What a task has reported; replaced whole by the thread that reads its worker."""

    message: str | None = None
    current: float | None = None
    maximum: float | None = None


_NO_SNAPSHOT = Snapshot()

#: Stands in the place of the condition of a task that was settled before anybody asked for one.
_SETTLED = object()

# Identifiers of tasks, and of their calls on the wire; never 0.
_numbers = itertools.count(1)


class TaskCondition(_RLock):  # type: ignore[misc] # its type has no public name
    """The condition of a Future, of which ``wait`` and ``as_completed`` use nothing but the lock: the rest is made when somebody waits on it."""

    __slots__ = ("_full",)
    _full: threading.Condition

    def _whole(self) -> threading.Condition:
        with self:
            try:
                return self._full
            except AttributeError:
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


class _OnDemand:
    """An attribute that is made when it is first asked for; from then on it stands in the object and nothing here is called for it."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __get__(self, task: Any, owner: Any) -> Any:
        return self if task is None else self._make(task)


class Waiters(list[Any]):
    """The standard library's waiters of one Future: ``wait`` and ``as_completed`` add theirs before they sleep."""

    __slots__ = ()

    def append(self, waiter: Any) -> None:
        """Add one. Raises RuntimeError on a thread that must not wait."""
        if get_ident() in threads.serving or threads.starting:
            threads.check()
        list.append(self, waiter)


def _make_condition(task: Task[Any]) -> TaskCondition:
    fields = task.__dict__
    found = fields.get("_lazy_condition")
    if found is None:
        found = fields.setdefault("_lazy_condition", TaskCondition())  # one step: all get the same one, or all see that it is settled
    if found is not _SETTLED:
        task._attend()  # also if it was there: who has made it may have been interrupted here
    else:
        # Nobody had asked for the condition before the end: from now on the state is final for whoever holds it.
        task._state = task._final or task._state
        found = fields.setdefault("_late_condition", TaskCondition())
    fields["_condition"] = found
    return found  # type: ignore[no-any-return]


def _make_waiters(task: Task[Any]) -> list[Any]:
    if get_ident() in threads.serving or threads.starting:
        threads.check(task)
    return task.__dict__.setdefault("_waiters", Waiters())  # type: ignore[no-any-return]


def _make_callbacks(task: Task[Any]) -> deque[Any]:
    return task.__dict__.setdefault("_done_callbacks", deque())  # type: ignore[no-any-return]


class Task(Future[T]):
    """A call that runs, or will run, in a worker. A ``Future`` in every respect; a bare ``Task()`` is a plain one.

    RUNNING means that a worker has taken the call; while it waits, even in a worker's inbox, it is PENDING and can be cancelled.
    """

    #: The final state, stored at once with the outcome. ``_state``, at which the standard library's waiters look, follows under their lock: they
    #: count the futures that are not done and are then told of each; a state that changed in between would be counted wrong.
    _final: str | None = None
    _state = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _pool: Home | None = None
    _call: PendingCall | None = None
    _label: str | Definition = ""
    _number: int
    #: Among the pool's total; a task that was never started is not.
    _counted = False
    _told = False
    _seen_running = False
    _started_told = False
    _escalating = False
    _interrupted = False
    _cancel_asked = False
    #: Why the task was cancelled, if not because its program asked for that.
    _cancel_reason: str | None = None
    _worker_pid: int | None = None
    _duration = 0.0
    _finished_at: float | None = None
    _attempt = 1
    _snapshot = _NO_SNAPSHOT
    _options: CallOptions | None = None
    #: Why the worker of this task was killed, if on its behalf: True for a cancellation, else what makes its error of the worker's stacks.
    _verdict: Callable[[str], BaseException] | bool | None = None
    #: Arguments that the library has put before the user's.
    _hidden = 0
    #: Its place among the tasks of one ``map_tasks``.
    _place: int | None = None
    #: What tells the arguments once the task has failed: their text, or a short pickle.
    _input: str | bytes | None = None
    #: Not started yet, or waiting for dependencies: holds one function; who pops it decides what becomes of the task.
    _gate: deque[Callable[[], object]] | None = None

    def __init__(self) -> None:
        # Not Future.__init__: it makes a Condition and two lists, which few tasks need and which cost three quarters of a submit.
        self._number = next(_numbers)
        self._created_at = time.time()

    # --- what the standard library's helpers reach for, made on demand

    _condition = _OnDemand(_make_condition)
    _waiters = _OnDemand(_make_waiters)
    _done_callbacks = _OnDemand(_make_callbacks)

    # --- reading

    @property
    def id(self) -> str:
        """An identifier, unique in this process, as text."""
        return str(self._number)

    @property
    def name(self) -> str:
        """What was called: ``mod.func``, ``Class.method``, ``<lambda>``, or the target string.

        Tasks of one ``map_tasks`` have their place behind it, ``mod.func[3]``, unless a name was given by ``options``.
        """
        if self._options is not None and self._options.name is not None:
            return self._options.name
        label = self._label
        name = label if isinstance(label, str) else label.name
        return name if self._place is None else f"{name}[{self._place}]"

    @property
    def arguments(self) -> str:
        """The arguments as a short text for messages, ``('scan_0003.tif', 4, channel=2)``: at most about 400 characters.

        Values of builtin types are shown, cut where they are long; of an array its shape and type, of anything else the name of its class.
        No ``__repr__`` of yours runs. Kept of a task that has failed; empty for one that has returned or was cancelled.
        """
        found = self._input
        if found is None:
            found = self._find_input()
        return found if isinstance(found, str) else arguments.of_pickle(found, self._hidden)

    def _find_input(self) -> str | bytes:
        """Return what tells the arguments: their text, or a pickle of at most ``arguments.KEPT`` bytes."""
        gate = self._gate
        if gate:
            try:
                *_, args, kwargs = gate[0].args  # type: ignore[attr-defined] # a partial, see ``dependencies``
                return arguments.of_values(args[self._hidden :], kwargs)
            except Exception:  # noqa: BLE001, S110 - taken by another thread at this moment
                pass
        call = self._call
        if call is None:
            return ""
        return call.input

    def _call_text(self) -> str:
        """Return what was called and with what, for messages."""
        return self.name + self.arguments

    @property
    def status(self) -> TaskStatus:
        """The state as one word."""
        if self._is_cancelled():
            return TaskStatus.CANCELED
        if self._is_done():
            return TaskStatus.COMPLETED if self._exception is None else TaskStatus.FAILED
        return TaskStatus.RUNNING if self.running() else TaskStatus.PENDING

    def _is_done(self) -> bool:
        if self._final is not None or self._state in _DONE:
            return True
        self._attend()
        return False

    def _attend(self) -> None:
        """Order: whoever looks at the state, or wants to be told of it, calls this. See ``pool/return_lane.py`` for why."""
        call, pool = self._call, self._pool
        if call is not None and call.quiet and pool is not None:
            pool.ensure_tracked(call)

    def _is_cancelled(self) -> bool:
        return (self._final or self._state) in _CANCELLED

    def done(self) -> bool:
        """Return True if the call was cancelled or has finished."""
        return self._is_done()

    def cancelled(self) -> bool:
        """Return True if the call was cancelled."""
        return self._is_cancelled()

    def running(self) -> bool:
        """Return True if a worker has taken the call and has not finished it."""
        if self._is_done():
            return False
        state = self._state
        if state == RUNNING:
            return True
        call = self._call
        if state != PENDING or call is None:
            return False
        if not self._seen_running:
            if not call.is_running():
                return False
            self._seen_running = True
        return not self._is_done()

    def result(self, timeout: float | None = None) -> T:
        """Return what the call returned; wait for it if need be.

        Args:
            timeout: seconds to wait; None waits without limit.

        Raises:
            CancelledError: the call was cancelled.
            TimeoutError: it has not finished in time (it goes on).
            BaseException: whatever the call raised.
        """
        try:
            if self._final is None and self._state not in _DONE:
                self._sleep(timeout)
            if self._exception is not None:
                raise self._exception
            if (self._final or self._state) in _CANCELLED:
                raise CancelledError(*self._cancel_words())
            return self._result  # type: ignore[return-value]
        finally:
            # Break the reference cycle with the exception's traceback, as the standard library does.
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned; wait for it if need be. Arguments and errors as in ``result``."""
        if self._final is None and self._state not in _DONE:
            self._sleep(timeout)
        if self._is_cancelled():
            raise CancelledError(*self._cancel_words())
        return self._exception

    def _cancel_words(self) -> tuple[str, ...]:
        return () if self._cancel_reason is None else (self._cancel_reason,)

    def wait_for(self, timeout: float | None = None) -> Self:
        """Wait until the task has finished, however; return it.

        Args:
            timeout: seconds to wait; None waits without limit.

        Raises:
            TimeoutError: it has not finished in time (it goes on).
        """
        if self._final is None and self._state not in _DONE:
            self._sleep(timeout)
        return self

    def _sleep(self, timeout: float | None) -> None:
        """Sleep until the state is final. A lock of its own per sleeper: cheaper than a condition, and an interrupt leaves nothing locked."""
        if get_ident() in threads.serving or threads.starting:
            threads.check(self)
        if timeout is not None:
            timeout = seconds.wait("timeout", timeout)
        call = self._call
        if call is not None:
            process = call.process
            if process is not None:
                lane = process.return_lane
                if lane is not None and lane.wait(process, call, self, timeout):
                    return None
        pool = self._pool
        if pool is not None and pool.forked:
            raise RuntimeError("this task belongs to the process that forked this one; only that process can wait for it")
        if pool is not None and pool.ended:
            pool.take_departures()
        if timeout is None:
            bell = bells.mine()
            if bell is not None:
                try:
                    return self._listen_to(bell)
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise  # a signal handler's: TimeoutError is one
                    bells.forget()  # somebody has closed its descriptor; a lock cannot be closed
                finally:
                    bell.busy = False
        lock = threading.Lock()
        lock.acquire()
        sleepers: deque[Any] | None = self.__dict__.get("_sleepers")
        if sleepers is None:
            sleepers = self.__dict__.setdefault("_sleepers", deque())
        sleepers.append(lock)
        if self._is_done():
            return None
        if timeout is None:
            lock.acquire()
        elif not lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX)) and not self._is_done():
            try:
                sleepers.remove(lock)
            except ValueError:
                pass  # settled in this very moment
            raise WaitTimeout
        return None

    def _add_sleeper(self, lock: Any) -> None:
        """Release ``lock`` when the task is settled; by whoever settles tasks."""
        self.__dict__.setdefault("_sleepers", deque()).append(lock)

    def _listen_to(self, bell: bells.Bell) -> None:
        sleepers: deque[Any] | None = self.__dict__.get("_sleepers")
        if sleepers is None:
            sleepers = self.__dict__.setdefault("_sleepers", deque())
        sleepers.append(bell)
        while not self._is_done():
            bell.wait()

    @property
    def value(self) -> T:
        """The result of a completed task; never blocks.

        Raises:
            InvalidStateError: the task is not COMPLETED.
        """
        if self.status is not TaskStatus.COMPLETED:
            raise InvalidStateError(f"task {self.name!r} is {self.status.value}, it has no value")
        return self._result  # type: ignore[return-value]

    @property
    def future(self) -> Self:
        """The task itself, for code that expects a wrapper."""
        return self

    @property
    def error(self) -> str | None:
        """What went wrong, in one line, if the task has FAILED; why it was CANCELED, if its program did not ask for that; else None."""
        if self._is_cancelled():
            return self._cancel_reason
        error = self._exception
        return None if error is None else describe(error)

    @property
    def traceback(self) -> list[str] | None:
        """The lines of the traceback in the worker; None unless FAILED."""
        error = self._exception
        if error is None:
            return None
        cause = getattr(error.__cause__, "tb", None)
        text = cause.strip().strip('"').strip() if isinstance(cause, str) else describe(error)
        lines = text.splitlines()
        return lines[1:] if len(lines) > 1 and lines[0].startswith(CALLED) else lines

    @property
    def created_at(self) -> float:
        """When the task was made, as ``time.time()``."""
        return self._created_at

    @property
    def started_at(self) -> float | None:
        """When a worker took the call, as ``time.time()``; None before."""
        if self._finished_at is not None:
            return self._finished_at - self._duration if self._worker_pid is not None else None
        call = self._call
        since = call.running_since() if call is not None else None
        return None if since is None else time.time() - (time.monotonic() - since)

    @property
    def finished_at(self) -> float | None:
        """When the task reached its final state, as ``time.time()``; None before."""
        self._attend()
        return self._finished_at

    @property
    def worker_pid(self) -> int | None:
        """Process that runs, or ran, the call."""
        call = self._call
        pid = call.worker_pid if call is not None and self.running() else None
        return self._worker_pid if pid is None else pid

    @property
    def attempt(self) -> int:
        """Number of the try that runs or ran, from 1."""
        return self._attempt

    @property
    def message(self) -> str | None:
        """The last message that the function has reported."""
        return self._snapshot.message

    @property
    def current(self) -> float | None:
        """How far it is, as it has reported."""
        return self._snapshot.current

    @property
    def maximum(self) -> float | None:
        """What ``current`` grows to, as it has reported."""
        return self._snapshot.maximum

    @property
    def progress(self) -> float | None:
        """``current / maximum`` within 0 to 1; None if one of them is unknown or the maximum is 0."""
        snapshot = self._snapshot
        if snapshot.current is None or not snapshot.maximum:
            return None
        try:
            fraction = snapshot.current / snapshot.maximum
        except OverflowError:  # integers beyond the range of floats
            fraction = 1.0 if (snapshot.current > 0) == (snapshot.maximum > 0) else 0.0
        return min(max(fraction, 0.0), 1.0)

    @property
    def outputs(self) -> dict[Any, Any]:
        """The named outputs that have arrived; a copy."""
        return dict(self.__dict__.get("_outputs", ()))

    @property
    def cancel_requested(self) -> bool:
        """True once ``cancel`` or ``kill`` was called."""
        return self._cancel_asked

    # --- steering

    def start(self) -> Self:
        """Dispatch a task that was made with ``start=False``; return it. Does nothing if that has happened.

        Raises:
            RuntimeError: the executor was shut down.
        """
        gate = self._gate
        if gate is not None and not self._is_done() and not self._counted:
            try:
                launch = gate.pop()
            except IndexError:
                return self
            launch()
        elif self._is_cancelled() and gate is not None and self._pool is not None and self._pool.refusing:
            raise RuntimeError("cannot start a task after shutdown")
        return self

    def kill(self) -> None:
        """Cancel the task by all means: if it runs, the process that runs it is ended (and replaced). The task becomes CANCELED."""
        self._kill("its worker was killed by Task.kill()")

    def _kill(self, reason: str) -> None:
        self._cancel_asked = True
        if not self._cancel_at_gate() and self._pool is not None and self._call is not None:
            self._cancel_reason = reason
            self._verdict = True
            self._pool.kill(self._call)

    def cancel(self) -> bool:
        """Cancel the call.

        Returns:
            True if it will not run (and never did). False if it has finished, or if a worker has taken it: then it is asked to stop, and goes
            on until it looks (``current_task().cancel_requested``).
        """
        if self._pool is None:
            return super().cancel()
        if self._is_done():
            return self._is_cancelled()
        self._cancel_asked = True
        if self._cancel_at_gate():
            return True
        call = self._call
        if call is None:
            return self._is_cancelled()
        return self._pool.cancel(call)

    def _ask_to_cancel(self) -> None:
        """Request the cancellation without waiting for the answer (for event loops)."""
        self._cancel_asked = True
        if not self._cancel_at_gate() and self._pool is not None and self._call is not None:
            self._pool.ask_to_cancel(self._call)

    def _cancel_at_gate(self, reason: str | None = None) -> bool:
        """Cancel a task that was never handed to the pool; False if it was."""
        gate = self._gate
        if gate is None:
            return False
        try:
            gate.pop()
        except IndexError:
            return False
        self._settle_cancelled(reason)
        return True

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(task)`` when the task has finished: on the executor's callback thread, or here and now if it has finished already."""
        entry = (fn,)
        callbacks = self._done_callbacks
        callbacks.append(entry)
        if self._is_done():
            try:
                callbacks.remove(entry)
            except ValueError:
                return  # the settling thread has it
            self._call_back(fn)

    def listen(self, callback: Callback, dispatch: Dispatch | None = None) -> Self:
        """Tell ``callback`` what happens to the task.

        Args:
            callback: gets a ``TaskEvent``, on the executor's callback thread. If the task has finished, it gets the terminal event now.
            dispatch: called as ``dispatch(callback, event)`` instead, to take the event to another thread (a GUI's, an event loop's).

        Returns:
            The task.
        """
        listener = make_listener(callback, dispatch, once=True)
        listeners: deque[Listener] = self.__dict__.setdefault("_listeners", deque())
        listeners.append(listener)
        if self._is_done():
            self._give(listener, self._event(self._terminal_type(), self._finished_at or time.time()), False)
        elif self._pool is not None and self._call is not None:
            self._pool.watch(self._call)
        return self

    def remove_listener(self, callback: Callback) -> None:
        """Forget a listener; an unknown one is ignored."""
        listeners: deque[Listener] = self.__dict__.get("_listeners", deque())
        for listener in [entry for entry in listeners if entry.callback == callback]:
            listener.removed = True
            try:
                listeners.remove(listener)
            except ValueError:
                pass  # removed by another thread at the same time

    async def events(self) -> AsyncIterator[TaskEvent]:
        """Yield what happens from now on, up to the terminal event; a finished task yields its terminal event."""
        import asyncio

        if not self._is_done():
            threads.check(self)
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[TaskEvent, dict[Any, Any]]] = deque()
        arrived = asyncio.Event()
        # Updates that the loop has not taken are merged, as for listeners.
        stream = Listener(lambda event: post_to_loop(loop, _arrive, waiting, arrived, event), None, once=True)
        streams: deque[Listener] = self.__dict__.setdefault("_streams", deque())
        streams.append(stream)
        try:
            if self._is_done():
                stream.give(self._event(self._terminal_type(), self._finished_at or time.time()), None)
            elif self._pool is not None and self._call is not None:
                self._pool.watch(self._call)
            while True:
                while waiting:
                    event, outputs = waiting.popleft()
                    yield replace(event, outputs=MappingProxyType(outputs))
                    if event.type.is_terminal:
                        return
                arrived.clear()
                await arrived.wait()
        finally:
            try:
                streams.remove(stream)
            except ValueError:
                pass  # the deque was replaced

    def __await__(self) -> Generator[Any, None, T]:
        """Wait in an event loop; cancelling the awaiter asks the task to stop."""
        return self._wait_in_loop().__await__()

    async def _wait_in_loop(self) -> T:
        import asyncio

        loop = asyncio.get_running_loop()
        if not self._is_done():
            threads.check(self)
            waiter = loop.create_future()
            self._on_settled(lambda _task: post_to_loop(loop, wake_waiter, waiter))
            try:
                await waiter
            except asyncio.CancelledError:
                if not self._is_done():
                    self._ask_to_cancel()
                raise
        if self._is_cancelled():
            raise asyncio.CancelledError(": ".join((f"task {self.name!r} was cancelled", *self._cancel_words())))
        if isinstance(self._exception, StopIteration):
            # An exception of this type cannot leave a coroutine; asyncio's own futures hang on it (python/cpython#112182).
            raise RuntimeError(f"the task raised {describe(self._exception)}") from self._exception
        return self.result(0)

    def __enter__(self) -> Self:
        """Start the task."""
        return self.start()

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Cancel the task if it has not finished, and wait for its end, without raising its failure."""
        self.cancel()
        self.wait_for()

    async def __aenter__(self) -> Self:
        """Start the task."""
        return self.start()

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """As ``__exit__``, without blocking the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._ask_to_cancel()
        if not self._is_done():
            threads.check(self)
        self._on_settled(lambda _task: post_to_loop(loop, wake_waiter, waiter))
        await waiter

    def __reduce__(self) -> Any:
        """Refuse to be pickled: a task is a promise of this process."""
        raise TypeError(
            f"the task {self.name!r} stands inside another argument: only a task that is an argument itself, positional or by keyword, "
            "is replaced by its result; pass it so, or pass its .result()"
        )

    # --- what the pool tells (on its I/O thread, except for the end)

    def _is_watched(self) -> bool:
        return "_listeners" in self.__dict__ or "_streams" in self.__dict__

    def _terminal_type(self) -> TaskEventType:
        if self._is_cancelled():
            return TaskEventType.CANCELATION
        return TaskEventType.COMPLETION if self._exception is None else TaskEventType.FAILURE

    def _event(self, kind: TaskEventType, when: float, outputs: Mapping[Any, Any] | None = None) -> TaskEvent:
        snapshot = self._snapshot
        new = MappingProxyType(dict(outputs)) if outputs else MappingProxyType({})
        return TaskEvent(self, kind, when, snapshot.message, snapshot.current, snapshot.maximum, new, self._attempt)

    def _emit(self, kind: TaskEventType, outputs: Mapping[Any, Any] | None = None) -> None:
        """Tell everybody who listens; nothing else if nobody does."""
        fields = self.__dict__
        pool = self._pool
        if "_listeners" not in fields and "_streams" not in fields and (pool is None or not pool.listeners):
            return
        now = time.time()
        ran = kind is not TaskEventType.CANCELATION or self._worker_pid is not None
        first = ran and not self._started_told
        if first:
            self._started_told = True
        event = self._event(kind, now, outputs)
        for listener in [*fields.get("_streams", ()), *fields.get("_listeners", ())]:
            self._give(listener, event, ran)
        if pool is not None and pool.listeners:
            started = event if kind is TaskEventType.STARTED else self._event(TaskEventType.STARTED, self.started_at or now)
            for listener in pool.listeners:
                if first:
                    listener.give(started, pool.callbacks)
                if kind is not TaskEventType.STARTED:
                    listener.give(event, pool.callbacks)

    def _give(self, listener: Listener, event: TaskEvent, ran: bool) -> None:
        """Give an event to a listener of this task. Order: STARTED comes before the first other event, even if nobody had asked for it in time."""
        streams = self.__dict__.get("_streams", ())
        thread = self._pool.callbacks if self._pool is not None and listener not in streams else None
        if event.type is TaskEventType.STARTED:
            if listener.started:
                return
        elif ran and not listener.started:
            listener.give(self._event(TaskEventType.STARTED, self.started_at or event.timestamp), thread)
        listener.started = True
        listener.give(event, thread)

    def _report(self, message: str | None, current: float | None, maximum: float | None) -> None:
        snapshot = Snapshot(message, current, maximum)
        if snapshot != self._snapshot:  # the last report of a call comes twice
            self._snapshot = snapshot
            self._emit(TaskEventType.UPDATE)

    def _report_outputs(self, new: dict[Any, Any]) -> None:
        # One dictionary that only grows; readers copy it in one step.
        self.__dict__.setdefault("_outputs", {}).update(new)
        self._emit(TaskEventType.UPDATE, new)

    def _next_attempt(self, call: PendingCall | None) -> None:
        """Begin anew after a failure: status stays RUNNING, progress starts again."""
        if call is not None:
            self._call = call  # Order: before the number changes, at which a program may wait for the next try
        self._seen_running = True
        self._attempt += 1
        self._verdict = None
        self._snapshot = _NO_SNAPSHOT
        self.__dict__.pop("_outputs", None)

    def _on_settled(self, hook: Callable[[Task[T]], object]) -> None:
        """Call ``hook(task)`` in the thread that settles, or now. For bridges of this library: it must not block nor run user code."""
        hooks = self.__dict__.get("_hooks")
        if hooks is None:
            hooks = self.__dict__.setdefault("_hooks", deque())
        hooks.append(hook)
        if self._is_done():
            self._run_hooks(hooks)

    def _run_hooks(self, hooks: deque[Callable[[Task[T]], object]]) -> None:
        while hooks:
            try:
                hook = hooks.popleft()
            except IndexError:
                return  # the other of two threads has it
            _try_to_tell(hook, self)

    # --- settling

    @classmethod
    def _of(cls, pool: Home) -> Task[Any]:
        task = cls.__new__(cls)
        task._pool = pool
        task._number = next(_numbers)
        task._created_at = time.time()
        return task

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        """Store the outcome and wake everybody; once. Any thread that holds the outcome."""
        if self._final is not None:
            return
        if error is not None:
            self._exception = self._explained(error)
        else:
            self._result = value
        self._finished_at = time.time()
        self._final = FINISHED
        self._call = None
        self._wake()

    def _explained(self, error: BaseException) -> BaseException:
        """Return the failure with the call in it, and keep what tells the arguments. Runs no code of the user's."""
        try:
            if self._input is None:
                self._input = self._find_input()
            # Thousands may fail with the same broken pool, in a moment: then no text is made until it is asked for.
            return with_call(error, self._call_text()) if wants_call(error) else error
        except Exception:
            LOGGER.debug("wetlands_executor: the call could not be added to its failure", exc_info=True)
            return error

    def _finish(self, value: Any, now: float, pid: int, duration: float) -> bool:
        """Settle with a result: what ``_settle`` does, in fewer steps, for the many short tasks. The caller tells the ledger.

        Args:
            value: the result.
            now: ``time.time()``.
            pid: process that ran the call.
            duration: seconds that it took.

        Returns:
            False if the task was settled before.
        """
        if self._final is not None:
            return False
        if self._settle_quietly(value, now, pid, duration):
            self._tell_late()
        return True

    def _settle_quietly(self, value: Any, now: float, pid: int, duration: float) -> bool:
        """Settle with a result, in the thread that waits for it, and tell nobody; for the return lane. Arguments as for ``_finish``.

        It may be interrupted after each call, and is done again then by another thread, with the same arguments.

        Returns:
            True if somebody has to be told (``_tell_late``).
        """
        fields = self.__dict__
        fields["_finished_at"] = now
        fields["_worker_pid"] = pid
        fields["_duration"] = duration
        fields["_result"] = value
        fields["_final"] = FINISHED
        fields["_call"] = None
        pool = self._pool
        condition = fields.setdefault("_lazy_condition", _SETTLED)
        if condition is not _SETTLED:
            return True
        fields["_state"] = FINISHED
        return (
            "_sleepers" in fields
            or "_done_callbacks" in fields
            or "_hooks" in fields
            or "_listeners" in fields
            or "_streams" in fields
            or (pool is not None and bool(pool.listeners))
        )

    def _tell_late(self) -> None:
        """Tell everybody who wants to know of an end that was settled quietly; once. On the I/O thread."""
        if self._told:
            return
        self._told = True
        fields = self.__dict__
        condition = fields.setdefault("_lazy_condition", _SETTLED)
        if condition is _SETTLED:
            fields["_state"] = FINISHED
        if "_sleepers" in fields:
            _release(fields["_sleepers"])
        self._tell(fields, condition)

    def _settle_cancelled(self, reason: str | None = None) -> None:
        """Make the task cancelled, as far as anybody can tell, at once.

        Args:
            reason: why, if its program did not ask for that; for ``error`` and the message of ``CancelledError``.
        """
        if self._final is not None:
            return
        if reason is not None:
            self._cancel_reason = reason
        self._finished_at = time.time()
        self._final = CANCELLED_AND_NOTIFIED
        self._call = None
        self._wake()

    def _wake(self) -> None:
        fields = self.__dict__
        # Order: the outcome and ``_final`` are stored; now either there is a condition, and ``_state`` changes under it, or there never was one.
        condition = fields.setdefault("_lazy_condition", _SETTLED)
        if condition is _SETTLED:
            self._state = self._final or self._state
        pool = self._pool
        try:
            if pool is not None:
                pool.ledger.finished(self)  # Order: before anybody wakes up, who finds it counted then
        finally:
            sleepers = fields.get("_sleepers")
            if sleepers:
                _release(sleepers)
            self._tell(fields, condition)

    def _tell(self, fields: dict[str, Any], condition: Any) -> None:
        """Tell everybody else who wants to know the end. Order: listeners, then bridges, the standard library's waiters, callbacks.

        Guarantee: what goes wrong on the way to one of them keeps nothing from the others, nor ends the thread that settles.
        """
        pool = self._pool
        if "_listeners" in fields or "_streams" in fields or (pool is not None and pool.listeners):
            _try_to_tell(self._emit, self._terminal_type())
        if "_hooks" in fields:
            self._run_hooks(fields["_hooks"])
        if condition is not _SETTLED:
            if get_ident() in threads.serving or pool is None or not pool.started or threads.kind_of_this() is not None:
                _try_to_tell(self._notify, condition, _NOTIFY_TRIES, [])
            else:
                # It takes locks, and an exception from a signal handler could leave them locked.
                pool.post(partial(_try_to_tell, self._notify, condition, _NOTIFY_TRIES, []))
        if "_done_callbacks" in fields:
            self._invoke_callbacks()

    def _notify(self, condition: TaskCondition, tries: int, told: list[Any]) -> bool:
        """Make the state final for the standard library's waiters, and tell them; never block on their locks.

        Race: an exception from a signal handler can leave the condition of a Future, or that of a waiter's event, locked for ever. Both are only
        tried; what is locked now is tried again a little later, and given up in the end: whoever waited there was interrupted.

        Args:
            condition: of this Future.
            tries: how often it may still be tried again.
            told: waiters that have been told.

        Returns:
            False if it is tried again.
        """
        pool = self._pool
        locked = condition.acquire(blocking=False)
        if not locked and tries and pool is not None:
            pool.notify_later(partial(self._notify, condition, tries - 1, told))
            return False
        left = False
        try:
            self._state = self._final or self._state
            for waiter in tuple(self.__dict__.get("_waiters", ())):
                if told and any(waiter is known for known in told):
                    continue
                if not self._tell_waiter(waiter):
                    left = True
                    continue
                told.append(waiter)
            if locked:
                condition.notify_all()
        finally:
            if locked:
                condition.release()
        if left and tries and pool is not None:
            pool.notify_later(partial(self._notify, condition, tries - 1, told))
            return False
        return True

    def _tell_waiter(self, waiter: Any) -> bool:
        """Tell a waiter of the standard library, as its ``add_result`` and the like would; False if one of its locks is locked.

        Race: those methods take two locks, and would wait for ever for one that an interrupted waiter has left locked.
        """
        kind = type(waiter)
        if kind is _AllCompletedWaiter and self._exception is None and waiter.num_pending_calls > 1:
            # Not the last one, as a rule: it wakes up no thread, so one lock is enough.
            if not waiter.lock.acquire(False):
                return False
            try:
                if waiter.num_pending_calls > 1:
                    waiter.finished_futures.append(self)
                    waiter.num_pending_calls -= 1
                    return True
            finally:
                waiter.lock.release()
        failed = self._exception is not None and self._state not in _CANCELLED
        if kind not in _WAITERS:  # of another library, which has its own locks, or none
            (waiter.add_exception if failed else waiter.add_cancelled if self._state in _CANCELLED else waiter.add_result)(self)
            return True
        event = waiter.event
        lock = getattr(waiter, "lock", None)
        if lock is not None and not lock.acquire(blocking=False):
            return False
        try:
            if not event._cond.acquire(blocking=False):
                return False
            try:
                waiter.finished_futures.append(self)
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

    def _invoke_callbacks(self) -> None:
        """Run the callbacks: bridges to an event loop here, those of users on the callback thread. Called by the standard library too."""
        sleepers = self.__dict__.get("_sleepers")
        if sleepers:
            _release(sleepers)
        pool = self._pool
        if pool is None and self._state in _DONE:
            # A bare task, settled through the standard library's methods.
            self._emit(self._terminal_type())
            self._run_hooks(self.__dict__.get("_hooks", deque()))
        callbacks: deque[tuple[Callable[[Any], object]]] | None = self.__dict__.get("_done_callbacks")
        if not callbacks:
            return
        if pool is None:
            _run_all(self, callbacks)
            return
        theirs: deque[tuple[Callable[[Any], object]]] = deque()
        while callbacks:
            try:
                entry = callbacks.popleft()
            except IndexError:
                break
            if _is_bridge(entry[0]):
                self._call_back(entry[0])
            else:
                theirs.append(entry)
        if theirs:
            pool.callbacks.put(partial(_run_all, self, theirs))

    def _call_back(self, fn: Callable[[Any], object]) -> None:
        try:
            fn(self)
        except Exception:
            LOGGER.exception("exception calling callback for %r", self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from wetlands_executor import notebook

        return notebook.task_html(self)

    def __repr__(self) -> str:
        state = {TaskStatus.COMPLETED: "finished", TaskStatus.FAILED: "finished", TaskStatus.CANCELED: "cancelled"}
        status = self.status
        words = f"<{type(self).__name__} at {id(self):#x} state={state.get(status, status.value)}"
        if status is TaskStatus.COMPLETED:
            words += f" returned {type(self._result).__name__}"
        elif status is TaskStatus.FAILED:
            words += f" raised {type(self._exception).__name__}"
        return words + ">"


def _try_to_tell(tell: Callable[..., object], *args: Any) -> None:
    try:
        tell(*args)
    except Exception:
        LOGGER.exception("wetlands_executor: the end of a task could not be told by %r", tell)


def _release(sleepers: deque[Any]) -> None:
    while sleepers:
        try:
            lock = sleepers.popleft()
        except IndexError:
            return
        lock.release()


def _run_all(task: Task[Any], callbacks: deque[tuple[Callable[[Any], object]]]) -> None:
    while callbacks:
        try:
            (fn,) = callbacks.popleft()
        except IndexError:
            return
        try:
            task._call_back(fn)
        except BaseException:  # user code: SystemExit in one callback must not skip the ones behind it
            LOGGER.exception("exception calling callback for %r", task)


def _is_bridge(fn: Callable[[Any], object]) -> bool:
    """Return True for asyncio's own callback of ``wrap_future``: it only posts to a loop, and an await must not queue behind user code."""
    return getattr(fn, "__module__", None) == "asyncio.futures" and getattr(fn, "__name__", "") == "_call_set_state"


def post_to_loop(loop: asyncio.AbstractEventLoop, fn: Callable[..., object], *args: Any) -> None:
    """Call ``fn(*args)`` in an event loop soon; from any thread. Nothing happens if the loop is closed."""
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:
        pass  # the loop is closed: nobody waits there any more


def wake_waiter(waiter: asyncio.Future[None]) -> None:
    """End the wait for a future of this loop; in the loop."""
    if not waiter.done():
        waiter.set_result(None)


def _arrive(waiting: deque[tuple[TaskEvent, dict[Any, Any]]], arrived: asyncio.Event, event: TaskEvent) -> None:
    """Add an event to a stream, in its loop; an update that was not taken yet is replaced, its outputs are kept."""
    outputs: dict[Any, Any] = {}
    if event.type is TaskEventType.UPDATE and waiting and waiting[-1][0].type is TaskEventType.UPDATE:
        outputs = waiting.pop()[1]
    outputs.update(event.outputs)
    waiting.append((event, outputs))
    arrived.set()


def remaining(end: float | None) -> float | None:
    """Return the seconds until ``end`` on the monotonic clock; None if there is no end."""
    return None if end is None else end - time.monotonic()


def needed(what: object) -> set[object]:
    """Return what must end before ``what`` can: it, and if it is a task that waits for others, those and what they wait for."""
    found = {what}
    left = [what]
    while left:
        gate = getattr(left.pop(), "_gate", None)
        try:
            *_, args, kwargs = gate[0].args  # type: ignore[index] # as `dependencies` holds them
        except (TypeError, IndexError):
            continue  # it waits for none, or for none any more
        new = {value for value in (*args, *kwargs.values()) if isinstance(value, Task)} - found
        found |= new
        left.extend(new)
    return found
