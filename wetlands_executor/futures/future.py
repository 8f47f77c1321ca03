"""``Task``: the Future of a call in another environment, as its user sees it.

A pending Task is small: what a standard Future makes at once is made when it is asked for
(``standard.py``); so are its waits (``waiting.py``) and its listeners (``observers.py``).

Threads: a Task is settled exactly once, by the thread that holds its outcome (``_settle``,
``_settle_cancelled``). Any other thread reads, or adds itself to a list and then looks at the state
again; settling stores the state and then looks at the lists. At least one of the two threads
observes the other's store, so no thread sleeps through the end.

What the pool asks of a Task stands at the end of this file; what a Task asks of its pool is
``Home``.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from threading import get_ident
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from wetlands_executor import arguments, seconds, threads
from wetlands_executor.errors import CALLED, WaitTimeout, describe, wants_call, with_call
from wetlands_executor.futures import aio, callbacks, standard
from wetlands_executor.futures.events import Listener, TaskEventType, make_listener
from wetlands_executor.futures.observers import Observers
from wetlands_executor.futures.waiting import Wakeups

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from wetlands_executor.futures.home import Definition, Home, PendingCall, StartGuard
    from wetlands_executor.futures.options import CallOptions

LOGGER = logging.getLogger("concurrent.futures")

T = TypeVar("T")

_DONE = frozenset((FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED))
_CANCELLED = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED))


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


_TERMINAL = {
    TaskStatus.COMPLETED: TaskEventType.COMPLETION,
    TaskStatus.FAILED: TaskEventType.FAILURE,
    TaskStatus.CANCELED: TaskEventType.CANCELATION,
}
#: What a Future calls the states of which a Task has words of its own, for ``repr``.
_STATES = {
    TaskStatus.COMPLETED: "finished",
    TaskStatus.FAILED: "finished",
    TaskStatus.CANCELED: "cancelled",
}

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something that happened to a task.

    Attributes:
        task: the task.
        type: what happened.
        timestamp: when, ``time.time()`` of this process.
        message, current, maximum: what the task had reported by then.
        outputs: the named outputs that are new with this event.
        attempt: number of the try that ran, from 1.
    """

    task: Task[Any]
    type: TaskEventType
    timestamp: float
    message: str | None = None
    current: float | None = None
    maximum: float | None = None
    # A mapping has no hash.
    outputs: Mapping[Any, Any] = field(default_factory=lambda: _NOTHING, hash=False)
    attempt: int = 1


#: What a listener is, and what may take its events to another thread.
Callback = Callable[[TaskEvent], object]
Dispatch = Callable[[Callback, TaskEvent], object]


class Snapshot(NamedTuple):
    """What a task has reported; replaced whole by the thread that reads its worker."""

    message: str | None = None
    current: float | None = None
    maximum: float | None = None

    @property
    def fraction(self) -> float | None:
        """``current / maximum`` within 0 to 1.

        None if one of them is unknown or the maximum is 0.
        """
        current, maximum = self.current, self.maximum
        if current is None or not maximum:
            return None
        try:
            fraction = current / maximum
        except OverflowError:  # integers beyond the range of floats
            fraction = 1.0 if (current > 0) == (maximum > 0) else 0.0
        return min(max(fraction, 0.0), 1.0)


_NO_SNAPSHOT = Snapshot()

# Identifiers of tasks, and of their calls on the wire; never 0.
_numbers = itertools.count(1)


class Task(Future[T]):
    """A call that runs, or will run, in a worker.

    A ``Future`` in every respect; a bare ``Task()`` is a plain one.

    RUNNING means that a worker has taken the call; while it waits, even in a worker's inbox, it is
    PENDING and can be cancelled.
    """

    #: The final state, stored at once with the outcome. ``_state``, at which the standard library's
    #: waiters look, follows under their lock: they count the futures that are not done and are then
    #: told of each; a state that changed in between would be counted wrong.
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
    #: Why the worker of this task was killed, if on its behalf: True for a cancellation, else what
    #: makes its error of the worker's stacks.
    _verdict: Callable[[str], BaseException] | bool | None = None
    #: Arguments that the library has put before the user's.
    _hidden = 0
    #: Its place among the tasks of one ``map_tasks``.
    _place: int | None = None
    #: What tells the arguments once the task has failed: their text, or a short pickle.
    _input: str | bytes | None = None
    #: Of a task that was made with ``start=False`` or that depends on others.
    _gate: StartGuard | None = None

    def __init__(self) -> None:
        # Not Future.__init__: it makes a Condition and two lists, which few tasks need and which
        # cost three quarters of a submit.
        self._number = next(_numbers)
        self._created_at = time.time()

    # --- reading

    @property
    def id(self) -> str:
        """An identifier, unique in this process, as text."""
        return str(self._number)

    @property
    def name(self) -> str:
        """What was called: ``mod.func``, ``Class.method``, ``<lambda>``, or the target string.

        Tasks of one ``map_tasks`` have their place behind it, ``mod.func[3]``, unless a name was
        given by ``options``.
        """
        if self._options is not None and self._options.name is not None:
            return self._options.name
        label = self._label
        name = label if isinstance(label, str) else label.name
        return name if self._place is None else f"{name}[{self._place}]"

    @property
    def arguments(self) -> str:
        """The arguments as a short text for messages, ``('scan_0003.tif', 4, channel=2)``.

        At most about 400 characters.

        Values of builtin types are shown, cut where they are long; of an array its shape and type,
        of anything else the name of its class. No ``__repr__`` of yours runs. Kept of a task that
        has failed; empty for one that has returned or was cancelled.
        """
        found = self._input
        if found is None:
            found = self._find_input()
        return found if isinstance(found, str) else arguments.of_pickle(found, self._hidden)

    def _find_input(self) -> str | bytes:
        """Return what tells the arguments.

        Their text, or a pickle of at most ``arguments.KEPT`` bytes.
        """
        guard, call = self._gate, self._call
        if guard is not None and (found := guard.input()):
            return found
        return "" if call is None else call.input

    @property
    def status(self) -> TaskStatus:
        """The state as one word."""
        if self.cancelled():
            return TaskStatus.CANCELED
        if self.done():
            return TaskStatus.COMPLETED if self._exception is None else TaskStatus.FAILED
        return TaskStatus.RUNNING if self.running() else TaskStatus.PENDING

    def _attend(self) -> None:
        """Have the end of an unannounced call made known, which may arrive without waking a thread.

        Order: every accessor but ``result`` and its like calls this before it looks at the state, or
        waits to be told of it.
        """
        call, home = self._call, self._pool
        if call is not None and call.quiet and home is not None:
            home.ensure_tracked(call)

    def done(self) -> bool:
        """Return True if the call was cancelled or has finished."""
        if self._final is not None or self._state in _DONE:
            return True
        self._attend()
        return False

    def cancelled(self) -> bool:
        """Return True if the call was cancelled."""
        return (self._final or self._state) in _CANCELLED

    def running(self) -> bool:
        """Return True if a worker has taken the call and has not finished it."""
        if self.done():
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
        return not self.done()

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
                self._wait(timeout)
            if self._exception is not None:
                raise self._exception
            if (self._final or self._state) in _CANCELLED:
                raise cancelled_error(self)
            return self._result  # type: ignore[return-value]
        finally:
            # Break the reference cycle with the exception's traceback, as the standard library
            # does.
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned.

        Wait for it if need be. Arguments and errors as in ``result``.
        """
        if self._final is None and self._state not in _DONE:
            self._wait(timeout)
        if self.cancelled():
            raise cancelled_error(self)
        return self._exception

    def wait_for(self, timeout: float | None = None) -> Self:
        """Wait until the task has finished, however; return it.

        Args:
            timeout: seconds to wait; None waits without limit.

        Raises:
            TimeoutError: it has not finished in time (it goes on).
        """
        if self._final is None and self._state not in _DONE:
            self._wait(timeout)
        return self

    def _wait(self, timeout: float | None) -> None:
        """Sleep until the state is final.

        On the direct way back if the call has one, else until a thread that settles wakes this one.
        """
        if get_ident() in threads.serving or threads.starting:
            threads.check(self)
        if timeout is not None:
            timeout = seconds.wait("timeout", timeout)
        call, home = self._call, self._pool
        if call is not None:
            process = call.process
            if process is not None:
                direct = process.return_lane
                if direct is not None and direct.wait(process, call, self, timeout):
                    return
        if home is not None and home.forked:
            raise RuntimeError(
                "this task belongs to the process that forked this one; "
                "only that process can wait for it"
            )
        if home is not None and home.ended:
            home.take_departures()
        wakeups = self.__dict__.get("_wakeups")
        if wakeups is None:
            wakeups = self.__dict__.setdefault("_wakeups", Wakeups())
        if timeout is None and wakeups.wait_on_descriptor(self.done):
            return
        if not wakeups.wait(self.done, timeout):
            raise WaitTimeout

    def _add_sleeper(self, wakeup: Any) -> None:
        """Have ``wakeup.release()`` called when the task is settled, by the thread that settles."""
        self.__dict__.setdefault("_wakeups", Wakeups()).append(wakeup)

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
        """What went wrong, in one line, if the task has FAILED.

        Why it was CANCELED, if its program did not ask for that; else None.
        """
        if self.cancelled():
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
        """``current / maximum`` within 0 to 1.

        None if one of them is unknown or the maximum is 0.
        """
        return self._snapshot.fraction

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
        """Dispatch a task that was made with ``start=False``.

        Return it. Does nothing if that has happened.

        Raises:
            RuntimeError: the executor was shut down.
        """
        guard = self._gate
        if guard is not None and not self.done():
            guard.start(self)
        elif (
            guard is not None
            and self.cancelled()
            and self._pool is not None
            and self._pool.refusing
        ):
            raise RuntimeError("cannot start a task after shutdown")
        return self

    def kill(self) -> None:
        """Cancel the task by all means.

        If it runs, the process that runs it is ended (and replaced). The task becomes CANCELED.
        """
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
            True if it will not run (and never did). False if it has finished, or if a worker has
            taken it: then it is asked to stop, and goes on until it looks
            (``current_task().cancel_requested``).
        """
        if self._pool is None:
            return super().cancel()
        if self.done():
            return self.cancelled()
        self._cancel_asked = True
        if self._cancel_at_gate():
            return True
        call = self._call
        if call is None:
            return self.cancelled()
        return self._pool.cancel(call)

    def _ask_to_cancel(self) -> None:
        """Request the cancellation without waiting for the answer (for event loops)."""
        self._cancel_asked = True
        if not self._cancel_at_gate() and self._pool is not None and self._call is not None:
            self._pool.ask_to_cancel(self._call)

    def _cancel_at_gate(self, reason: str | None = None) -> bool:
        """Cancel a task that was never handed to the pool; False if it was."""
        guard = self._gate
        if guard is None or not guard.withdraw():
            return False
        self._settle_cancelled(reason)
        return True

    # --- being told

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(task)`` when the task has finished.

        On the executor's callback thread, or here and now if it has finished already.
        """
        entry = (fn,)
        added = self._done_callbacks
        added.append(entry)
        if self.done():
            try:
                added.remove(entry)
            except ValueError:
                return  # the settling thread has it
            callbacks.call_back(fn, self)

    def listen(self, callback: Callback, dispatch: Dispatch | None = None) -> Self:
        """Tell ``callback`` what happens to the task.

        Args:
            callback: gets a ``TaskEvent``, on the executor's callback thread. If the task has
                finished, it gets the terminal event now.
            dispatch: called as ``dispatch(callback, event)`` instead, to take the event to another
                thread (a GUI's, an event loop's).

        Returns:
            The task.
        """
        self._add_listener(make_listener(callback, dispatch, once=True))
        return self

    def remove_listener(self, callback: Callback) -> None:
        """Forget a listener; an unknown one is ignored."""
        observers: Observers | None = self.__dict__.get("_observers")
        if observers is not None:
            observers.discard_callback(callback)

    def events(self) -> AsyncIterator[TaskEvent]:
        """Yield what happens from now on, up to the terminal event.

        A finished task yields its terminal event.
        """
        return aio.events(self, self._add_listener)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait in an event loop; cancelling the awaiter asks the task to stop."""
        return aio.outcome(self, self._on_settled, self._ask_to_cancel).__await__()

    def __enter__(self) -> Self:
        """Start the task."""
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Cancel the task if it has not finished, and wait for its end. Raises no failure of it."""
        self.cancel()
        self.wait_for()

    async def __aenter__(self) -> Self:
        """Start the task."""
        return self.start()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """As ``__exit__``, without blocking the event loop."""
        self._ask_to_cancel()
        await aio.settled(self, self._on_settled)

    def __reduce__(self) -> Any:
        """Refuse to be pickled: a task is a promise of this process."""
        raise TypeError(
            f"the task {self.name!r} stands inside another argument: "
            "only a task that is an argument itself, positional or by keyword, "
            "is replaced by its result; pass it so, or pass its .result()"
        )

    def __repr__(self) -> str:
        status = self.status
        words = f"<{type(self).__name__} at {id(self):#x} state={_STATES.get(status, status.value)}"
        if status is TaskStatus.COMPLETED:
            words += f" returned {type(self._result).__name__}"
        elif status is TaskStatus.FAILED:
            words += f" raised {type(self._exception).__name__}"
        return words + ">"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from wetlands_executor import notebook

        return notebook.task_html(self)

    # --- what the standard library's helpers reach for, made on demand

    def _make_condition(self) -> standard.TaskCondition:
        fields = self.__dict__
        condition = standard.lazy_condition(fields)
        if condition is not None:
            # Also if it was there: the thread that has made it may have been interrupted here.
            self._attend()
        else:
            # No thread had asked for it before the end: from now on the state is final for every
            # thread that holds it.
            self._state = self._final or self._state
            condition = standard.late_condition(fields)
        fields["_condition"] = condition
        return condition

    _condition = standard.OnDemand(_make_condition)
    _waiters = standard.OnDemand(standard.make_waiters)
    _done_callbacks = standard.OnDemand(standard.make_callbacks)

    def _invoke_callbacks(self) -> None:
        """Run the callbacks.

        The standard library calls this as well, when a bare task is settled.
        """
        fields = self.__dict__
        if "_wakeups" in fields:
            fields["_wakeups"].notify_all()
        home = self._pool
        if home is None and self._state in _DONE:
            # A bare task, settled through the standard library's methods.
            self._emit(_TERMINAL[self.status])
            if "_hooks" in fields:
                fields["_hooks"].run(self)
        added = fields.get("_done_callbacks")
        if not added:
            return
        if home is None:
            callbacks.run_callbacks(self, added)
        else:
            callbacks.run_callbacks_on(home.callbacks, self, added)

    # --- listeners and hooks

    def _event(
        self, kind: TaskEventType, when: float, outputs: Mapping[Any, Any] | None = None
    ) -> TaskEvent:
        snapshot = self._snapshot
        new = MappingProxyType(dict(outputs)) if outputs else _NOTHING
        return TaskEvent(
            self,
            kind,
            when,
            snapshot.message,
            snapshot.current,
            snapshot.maximum,
            new,
            self._attempt,
        )

    def _start_event(self, latest: float) -> TaskEvent:
        """Return the event of the start, which was not after ``latest``."""
        return self._event(TaskEventType.STARTED, self.started_at or latest)

    def _emit(self, kind: TaskEventType, outputs: Mapping[Any, Any] | None = None) -> None:
        """Deliver the event to all registered listeners. Return at once if there are none."""
        fields, home = self.__dict__, self._pool
        observers: Observers | None = fields.get("_observers")
        everything = home.listeners if home is not None else ()
        if observers is None:
            if not everything:
                return
            observers = fields.setdefault("_observers", Observers())
        thread = home.callbacks if home is not None else None
        ran = kind is not TaskEventType.CANCELATION or self._worker_pid is not None
        observers.emit(
            self._event(kind, time.time(), outputs), self._start_event, thread, everything, ran=ran
        )

    def _add_listener(self, listener: Listener) -> Callable[[Listener], None]:
        """Add a listener, which is given the terminal event now if the task has finished.

        Return what removes it.
        """
        observers: Observers = self.__dict__.setdefault("_observers", Observers())
        observers.add(listener)
        home = self._pool
        if self.done():
            thread = home.callbacks if home is not None else None
            event = self._event(_TERMINAL[self.status], self._finished_at or time.time())
            observers.give(listener, event, self._start_event, thread, ran=False)
        elif home is not None and self._call is not None:
            home.watch(self._call)
        return observers.discard

    def _on_settled(self, hook: Callable[[Task[T]], object]) -> None:
        """Call ``hook(task)`` in the thread that settles, or now.

        For bridges of this library: it must not block nor run user code.
        """
        hooks = self.__dict__.get("_hooks")
        if hooks is None:
            hooks = self.__dict__.setdefault("_hooks", callbacks.Hooks())
        hooks.append(hook)
        if self.done():
            hooks.run(self)

    def _is_watched(self) -> bool:
        return "_observers" in self.__dict__

    # --- what the pool reports (on its I/O thread, except for the end)

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
            # Order: before the number changes, at which a program may wait for the next try.
            self._call = call
        self._seen_running = True
        self._attempt += 1
        self._verdict = None
        self._snapshot = _NO_SNAPSHOT
        self.__dict__.pop("_outputs", None)

    def _call_text(self) -> str:
        """Return what was called and with what, for messages."""
        return self.name + self.arguments

    def _cancel_words(self) -> tuple[str, ...]:
        return () if self._cancel_reason is None else (self._cancel_reason,)

    # --- settling

    @classmethod
    def _of(cls, pool: Home) -> Task[Any]:
        task = cls.__new__(cls)
        task._pool = pool
        task._number = next(_numbers)
        task._created_at = time.time()
        return task

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        """Store the outcome and wake all threads that wait for it.

        Once. Any thread that holds the outcome.
        """
        if self._final is not None:
            return
        if error is not None:
            self._exception = self._explained(error)
        else:
            self._result = value
        self._finished_at = time.time()
        self._final = FINISHED
        self._call = None
        self._announce()

    def _settle_cancelled(self, reason: str | None = None) -> None:
        """Make the task cancelled, at once for every thread that looks.

        Args:
            reason: why, if its program did not ask for that; for ``error`` and the message of
                ``CancelledError``.
        """
        if self._final is not None:
            return
        if reason is not None:
            self._cancel_reason = reason
        self._finished_at = time.time()
        self._final = CANCELLED_AND_NOTIFIED
        self._call = None
        self._announce()

    def _explained(self, error: BaseException) -> BaseException:
        """Return the failure with the call in it, and keep what tells the arguments.

        Runs no code of the user's.
        """
        try:
            if self._input is None:
                self._input = self._find_input()
            # Thousands may fail with the same broken pool, in a moment: then no text is made until
            # it is asked for.
            return with_call(error, self._call_text()) if wants_call(error) else error
        except Exception:
            LOGGER.debug(
                "wetlands_executor: the call could not be added to its failure", exc_info=True
            )
            return error

    def _finish(self, value: Any, now: float, pid: int, duration: float) -> bool:
        """Settle with a result: what ``_settle`` does, in fewer steps, for the many short tasks.

        The caller counts it.

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
        """Settle with a result, in the thread that waits for it, and tell no other thread.

        For the direct way back. It may be interrupted after each call, and is done again then by
        another thread, with the same arguments. Arguments as for ``_finish``.

        Returns:
            True if there is something to tell (``_tell_late``).
        """
        fields = self.__dict__
        fields["_finished_at"] = now
        fields["_worker_pid"] = pid
        fields["_duration"] = duration
        fields["_result"] = value
        fields["_final"] = FINISHED
        fields["_call"] = None
        home = self._pool
        if fields.setdefault("_lazy_condition", standard.SETTLED) is not standard.SETTLED:
            return True
        fields["_state"] = FINISHED
        return (
            "_wakeups" in fields
            or "_done_callbacks" in fields
            or "_hooks" in fields
            or "_observers" in fields
            or (home is not None and bool(home.listeners))
        )

    def _tell_late(self) -> None:
        """Tell of an end that was settled quietly; once. On the I/O thread."""
        if not self._told:
            self._told = True
            self._announce(count=False)

    def _announce(self, *, count: bool = True) -> None:
        """Count the end, wake the threads that wait for it, and tell all others that want to know.

        Order: listeners, then hooks, the standard library's waiters, callbacks.

        Guarantee: what goes wrong on the way to one of them keeps nothing from the others, nor ends
        the thread that settles.
        """
        fields, home = self.__dict__, self._pool
        # Order: the outcome and `_final` are stored. Now either there is a condition, and `_state`
        # changes under it, or there never was one.
        condition = fields.setdefault("_lazy_condition", standard.SETTLED)
        if condition is standard.SETTLED:
            self._state = self._final or self._state
        try:
            if home is not None and count:
                # Order: before a thread wakes up, which finds it counted then.
                home.ledger.finished(self)
        finally:
            if "_wakeups" in fields:
                fields["_wakeups"].notify_all()
            if "_observers" in fields or (home is not None and home.listeners):
                callbacks.attempt(self._emit, _TERMINAL[self.status])
            if "_hooks" in fields:
                fields["_hooks"].run(self)
            if condition is not standard.SETTLED:
                self._notify(condition)
            if "_done_callbacks" in fields:
                self._invoke_callbacks()

    def _notify(self, condition: standard.TaskCondition) -> None:
        """Tell the standard library's waiters.

        It takes locks, which an exception from a signal handler could leave locked.
        """
        home = self._pool
        later = home.notify_later if home is not None else None
        failed = self._exception is not None
        notification = standard.Notification(
            self, condition, self._final or FINISHED, failed, later
        )
        if (
            get_ident() in threads.serving
            or home is None
            or not home.started
            or threads.kind_of_this() is not None
        ):
            callbacks.attempt(notification)
        else:
            home.post(partial(callbacks.attempt, notification))


def cancelled_error(task: Task[Any]) -> CancelledError:
    """Return what the result of a cancelled task raises.

    It says why, if its program did not ask for that.
    """
    reason = task.error
    return CancelledError() if reason is None else CancelledError(reason)
