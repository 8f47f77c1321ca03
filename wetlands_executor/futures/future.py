"""``Task``: the Future of a call in another environment, as its user sees it.

A pending Task is small: what a standard Future makes at once is made when it is asked for
(``standard.py``); so are its waits (``waiting.py``), and its reports and listeners
(``reports.py``).

Threads: a Task is settled exactly once, by the thread that holds its outcome (``settle`` and the
other functions at the end). Any other thread reads, or adds itself to a list and then looks at the
state again; settling stores the state and then looks at the lists. At least one of the two threads
observes the other's store, so no thread sleeps through the end.

What a Task asks of its pool is ``TaskPool``; what the pool asks of a Task stands at the end of this
file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from wetlands_executor import arguments
from wetlands_executor.errors import CALLED, describe
from wetlands_executor.futures import aio, callbacks, requests, settling, standard, waiting
from wetlands_executor.futures.elsewhere import Elsewhere, bring
from wetlands_executor.futures.events import TaskEventType, make_listener
from wetlands_executor.futures.reports import Reports, end_of, subscribe

if TYPE_CHECKING:
    from typing_extensions import Self

    from wetlands_executor.futures.options import CallOptions
    from wetlands_executor.futures.protocols import PendingCall, StartGuard, TaskPool

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

    @classmethod
    def _missing_(cls, value: object) -> TaskStatus | None:
        return cls.CANCELED if value == "cancelled" else None

    def is_finished(self) -> bool:
        """Return True if the task will not change any more."""
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


#: What a Future calls the states for which a Task has words of its own.
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


#: Returns the next identifier of a task, and of its call on the wire; never 0.
next_number = itertools.count(1).__next__


class Task(Future[T]):
    """A call that runs, or will run, in a worker.

    A ``Future`` in every respect; a bare ``Task()`` is a plain one. RUNNING means that a worker has
    taken the call; while it waits, even in a worker's inbox, it is PENDING and can be cancelled.
    """

    #: The final state, stored at once with the outcome. ``_state``, at which the standard library's
    #: waiters look, follows under their lock: a waiter counts the futures that are not done and is
    #: then notified of each; a state that changed in between would be counted wrong.
    _final: str | None = None
    _state = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _pool: TaskPool | None = None
    _call: PendingCall | None = None
    _label = ""
    _number: int
    #: Among the pool's total; a task that was never started is not.
    _counted = False
    _seen_running = False
    _cancel_asked = False
    #: Why the task was cancelled, if not because its program asked for that.
    _cancel_reason: str | None = None
    _worker_pid: int | None = None
    _duration = 0.0
    _finished_at: float | None = None
    _options: CallOptions | None = None
    #: Its place among the tasks of one ``map_tasks``.
    _place: int | None
    #: Arguments that the library has put before the user's.
    _hidden = 0
    #: Where it has failed, of one that ran in this process.
    _trace: str | None = None
    #: The arguments, once the task has failed: their text, or a short pickle.
    _input: str | bytes | None = None
    #: Of a task that was made with ``start=False`` or that depends on others.
    _guard: StartGuard | None = None
    #: Of those that have reported nothing and have no listener. Each other task has its own.
    _reports = Reports(None, TaskEvent)

    def __init__(
        self,
        pool: TaskPool | None = None,
        label: str = "",
        options: CallOptions | None = None,
        place: int | None = None,
        hidden: int = 0,
        guard: StartGuard | None = None,
    ) -> None:
        # Not Future.__init__: it makes a Condition and two lists, which few tasks need and which
        # cost three quarters of a submit.
        self._pool = pool
        self._label = label
        self._number = next_number()
        self._created_at = time.time()
        self._place = place
        if options is not None:
            self._options = options
        if hidden:
            self._hidden = hidden
        if guard is not None:
            self._guard = guard

    # --- what was called

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
        options, place = self._options, self._place
        if options is not None and options.name is not None:
            return options.name
        label = self._label
        return label if place is None else f"{label}[{place}]"

    @property
    def arguments(self) -> str:
        """The arguments as a short text for messages, ``('scan_0003.tif', 4, channel=2)``.

        At most about 400 characters. Values of builtin types are shown, cut where they are long; of
        an array its shape and type, of anything else the name of its class. No ``__repr__`` of
        yours runs. Kept of a task that has failed; empty for one that has returned or was
        cancelled.
        """
        found = settling.input_of(self)
        return found if isinstance(found, str) else arguments.of_pickle(found, self._hidden)

    # --- the state

    @property
    def status(self) -> TaskStatus:
        """The state as one word."""
        if self.cancelled():
            return TaskStatus.CANCELED
        if self.done():
            return TaskStatus.COMPLETED if self._exception is None else TaskStatus.FAILED
        return TaskStatus.RUNNING if self.running() else TaskStatus.PENDING

    def done(self) -> bool:
        """Return True if the call was cancelled or has finished.

        Order: every accessor but ``result`` and its like calls this before it relies on being
        notified of the end. The result of an unannounced call may arrive without waking a thread.
        """
        if self._final is not None or self._state in _DONE:
            return True
        call, pool = self._call, self._pool
        if call is not None and call.unannounced and pool is not None:
            pool.ensure_tracked(call)
        return False

    def cancelled(self) -> bool:
        """Return True if the call was cancelled."""
        return (self._final or self._state) in _CANCELLED

    def running(self) -> bool:
        """Return True if a worker has taken the call and has not finished it."""
        if self.done():
            return False
        state, call = self._state, self._call
        if state == RUNNING:
            return True
        if state != PENDING or call is None:
            return False
        if not self._seen_running:
            if not call.is_running():
                return False
            self._seen_running = True
        return not self.done()

    # --- the outcome

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
                waiting.sleep(self, self._call, self._pool, timeout)
            if self._exception is not None:
                raise self._exception
            if (self._final or self._state) in _CANCELLED:
                raise cancelled_error(self)
            found: Any = self._result
            if type(found) is Elsewhere:
                found = bring(self, found, timeout)
            return found  # type: ignore[no-any-return]
        finally:
            # Break the reference cycle with the exception's traceback, as the standard library
            # does.
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned. Otherwise as ``result``."""
        if self._final is None and self._state not in _DONE:
            waiting.sleep(self, self._call, self._pool, timeout)
        if self.cancelled():
            raise cancelled_error(self)
        return self._exception

    def wait_for(self, timeout: float | None = None) -> Self:
        """Wait until the task has finished, however; return it. Arguments as in ``result``.

        Raises:
            TimeoutError: it has not finished in time (it goes on).
        """
        if self._final is None and self._state not in _DONE:
            waiting.sleep(self, self._call, self._pool, timeout)
        return self

    @property
    def value(self) -> T:
        """The result of a completed task; never blocks.

        Raises:
            InvalidStateError: the task is not COMPLETED.
        """
        if self.status is not TaskStatus.COMPLETED:
            raise InvalidStateError(f"task {self.name!r} is {self.status.value}, it has no value")
        return self.result()

    @property
    def future(self) -> Self:
        """The task itself, for code that expects a wrapper."""
        return self

    @property
    def error(self) -> str | None:
        """What went wrong, in one line, if the task has FAILED; else None.

        Of one that is CANCELED: why, if its program did not ask for that.
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
        text = cause.strip().strip('"').strip() if isinstance(cause, str) else None
        text = text or self._trace or describe(error)
        lines = text.splitlines()
        return lines[1:] if len(lines) > 1 and lines[0].startswith(CALLED) else lines

    # --- when, where, and how far

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
        self.done()
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
        return self._reports.attempt

    @property
    def message(self) -> str | None:
        """The last message that the function has reported."""
        return self._reports.snapshot.message

    @property
    def current(self) -> float | None:
        """How far it is, as it has reported."""
        return self._reports.snapshot.current

    @property
    def maximum(self) -> float | None:
        """What ``current`` grows to, as it has reported."""
        return self._reports.snapshot.maximum

    @property
    def progress(self) -> float | None:
        """``current / maximum`` within 0 to 1; None if one is unknown or the maximum is 0."""
        return self._reports.snapshot.fraction

    @property
    def outputs(self) -> dict[Any, Any]:
        """The named outputs that have arrived; a copy."""
        return dict(self._reports.outputs)

    # --- steering

    def start(self) -> Self:
        """Dispatch a task that was made with ``start=False``; return it.

        Does nothing if that has happened.

        Raises:
            RuntimeError: the executor was shut down.
        """
        guard, pool = self._guard, self._pool
        if guard is not None:
            if not self.done():
                guard.start(self)
            elif self.cancelled() and pool is not None and pool.refusing:
                raise RuntimeError("cannot start a task after shutdown")
        return self

    @property
    def cancel_requested(self) -> bool:
        """True once ``cancel`` or ``kill`` was called."""
        return self._cancel_asked

    def cancel(self) -> bool:
        """Cancel the call.

        Returns:
            True if it will not run (and never did). False if it has finished, or if a worker has
            taken it: then it is asked to stop, and goes on until it looks
            (``current_task().cancel_requested``).
        """
        pool = self._pool
        if pool is None:
            return super().cancel()
        if not self.done():
            call = requests.ask(self)
            if call is not None:
                return pool.cancel(call)
        return self.cancelled()

    def kill(self) -> None:
        """Cancel the task by all means. The task becomes CANCELED.

        If it runs, the process that runs it is ended (and replaced).
        """
        requests.kill(self, "its worker was killed by Task.kill()")

    # --- listeners and callbacks

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(task)`` when the task has finished, on the executor's callback thread.

        Here and now if it has finished already.
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
        """Call ``callback`` with each event of the task; return the task.

        Args:
            callback: gets a ``TaskEvent``, on the executor's callback thread. If the task has
                finished, it gets the terminal event now.
            dispatch: called as ``dispatch(callback, event)`` instead, to take the event to another
                thread (a GUI's, an event loop's).
        """
        subscribe(self, make_listener(callback, dispatch, once=True))
        return self

    def remove_listener(self, callback: Callback) -> None:
        """Forget a listener; an unknown one is ignored."""
        self._reports.discard_callback(callback)

    def events(self) -> AsyncIterator[TaskEvent]:
        """Yield what happens from now on, up to the terminal event; that alone if it is over."""
        return aio.events(self, partial(subscribe, self))

    def __await__(self) -> Generator[Any, None, T]:
        """Wait in an event loop; cancelling the awaiter asks the task to stop."""
        return aio.outcome(self, partial(requests.ask_to_cancel, self)).__await__()

    def __enter__(self) -> Self:
        """Start the task."""
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Cancel the task if it has not finished, and wait for its end. Raises no failure of it."""
        self.cancel()
        self.wait_for()

    async def __aenter__(self) -> Self:
        """Start the task."""
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: object
    ) -> None:
        """As ``__exit__``, without blocking the event loop."""
        requests.ask_to_cancel(self)
        await aio.settled(self)

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

    _condition = standard.ConditionOnDemand()
    _waiters = standard.WaitersOnDemand()
    _done_callbacks = standard.OnDemand(standard.make_callbacks)

    def _invoke_callbacks(self) -> None:
        """Run the callbacks; the standard library calls this when it settles a bare task."""
        bare = self._pool is None and self._state in _DONE
        settling.notify(self, self._pool, end_of(self) if bare else None)


def relabel(task: Task[Any], label: str) -> None:
    """Have a task named after what is called, which was not known when it was made."""
    task._label = label


def call_text(task: Task[Any]) -> str:
    """Return what was called and with what, for messages."""
    return task.name + task.arguments


def cancelled_error(task: Task[Any]) -> CancelledError:
    """Return what the result of a cancelled task raises; with the reason, if there is one."""
    reason = task.error
    return CancelledError() if reason is None else CancelledError(reason)
