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

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

    from wetlands_executor.pool.payload import Definition
    from wetlands_executor.pool.pool import Pool
    from wetlands_executor.pool.process import Call

LOGGER = logging.getLogger("concurrent.futures")

T = TypeVar("T")

_DONE = frozenset((FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED))
_CANCELLED = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED))

#: Seconds after which a Future's condition that is locked by somebody is tried again, and the number of tries.
_NOTIFY_DELAY, _NOTIFY_TRIES = 0.002, 50


class TaskStatus(Enum):
    """What has become of a task."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELLED = "canceled"

    def is_finished(self) -> bool:
        """Return True if the task will not change any more."""
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


class Task(Future[T]):
    """A call that runs, or will run, in a worker. A ``Future`` in every respect; a bare ``Task()`` is a plain one.

    RUNNING means that a worker has taken the call; while it waits, even in a worker's inbox, it is PENDING and can be cancelled.
    """

    _result: T | None = None
    _exception: BaseException | None = None
    _pool: Pool | None = None
    _call: Call | None = None
    _label: str | Definition = ""
    _seen_running = False

    def __init__(self) -> None:
        # Not Future.__init__: it makes a Condition and two lists, which few tasks need and which cost three quarters of a submit.
        self._state = PENDING

    # --- what the standard library's helpers reach for, made on demand (dict.setdefault is one step)

    @property
    def _condition(self) -> threading.Condition:
        found = self.__dict__.get("_lazy_condition")
        if found is None:
            found = self.__dict__.setdefault("_lazy_condition", threading.Condition())
        return found  # type: ignore[no-any-return]

    @property
    def _waiters(self) -> list[Any]:
        found = self.__dict__.get("_lazy_waiters")
        if found is None:
            found = self.__dict__.setdefault("_lazy_waiters", [])
        return found  # type: ignore[no-any-return]

    @property
    def _done_callbacks(self) -> deque[Callable[[Any], object]]:
        found = self.__dict__.get("_lazy_callbacks")
        if found is None:
            found = self.__dict__.setdefault("_lazy_callbacks", deque())
        return found  # type: ignore[no-any-return]

    # --- reading

    @property
    def id(self) -> str:
        """The task's number, unique in this process, as text."""
        return str(self.__dict__.get("_number", "")) or f"task-{id(self):x}"

    @property
    def name(self) -> str:
        """What was called: ``mod.func``, ``Class.method``, ``<lambda>``, or the target string."""
        label = self._label
        return label if isinstance(label, str) else label.name

    @property
    def status(self) -> TaskStatus:
        """The state as one word."""
        state = self._state
        if state == FINISHED:
            return TaskStatus.COMPLETED if self._exception is None else TaskStatus.FAILED
        if state in _CANCELLED:
            return TaskStatus.CANCELED
        return TaskStatus.RUNNING if self.running() else TaskStatus.PENDING

    def done(self) -> bool:
        """Return True if the call was cancelled or has finished."""
        return self._state in _DONE

    def cancelled(self) -> bool:
        """Return True if the call was cancelled."""
        return self._state in _CANCELLED

    def running(self) -> bool:
        """Return True if a worker has taken the call and has not finished it."""
        state = self._state
        if state == RUNNING:
            return True
        call = self._call
        if state != PENDING or call is None:
            return False
        if not self._seen_running:
            process = call.process
            if process is None or not process.is_running(call):
                return False
            self._seen_running = True
        return self._state not in _DONE

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
            if self._state not in _DONE:
                self._sleep(timeout)
            if self._state in _CANCELLED:
                raise CancelledError
            if self._exception is not None:
                raise self._exception
            return self._result  # type: ignore[return-value]
        finally:
            # Break the reference cycle with the exception's traceback, as the standard library does.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned; wait for it if need be. Arguments and errors as in ``result``."""
        if self._state not in _DONE:
            self._sleep(timeout)
        if self._state in _CANCELLED:
            raise CancelledError
        return self._exception

    def wait_for(self, timeout: float | None = None) -> Self:
        """Wait until the task has finished, however; return it.

        Args:
            timeout: seconds to wait; None waits without limit.

        Raises:
            TimeoutError: it has not finished in time (it goes on).
        """
        if self._state not in _DONE:
            self._sleep(timeout)
        return self

    def _sleep(self, timeout: float | None) -> None:
        """Sleep until the state is final. A lock of its own per sleeper: cheaper than a condition, and an interrupt leaves nothing locked."""
        if self._pool is not None and self._pool.forked:
            raise RuntimeError("this task belongs to the process that forked this one; only that process can wait for it")
        lock = threading.Lock()
        lock.acquire()
        sleepers: deque[Any] | None = self.__dict__.get("_sleepers")
        if sleepers is None:
            sleepers = self.__dict__.setdefault("_sleepers", deque())
        sleepers.append(lock)
        if self._state in _DONE:
            return
        if timeout is None:
            lock.acquire()
        elif not lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX)) and self._state not in _DONE:
            try:
                sleepers.remove(lock)
            except ValueError:
                pass  # settled in this very moment
            raise TimeoutError

    @property
    def value(self) -> T:
        """The result of a completed task; never blocks.

        Raises:
            InvalidStateError: the task is not COMPLETED.
        """
        if self.status is not TaskStatus.COMPLETED:
            raise InvalidStateError(f"task {self.name!r} is {self.status.value}, it has no value")
        return self._result  # type: ignore[return-value]

    # --- steering

    def cancel(self) -> bool:
        """Cancel the call.

        Returns:
            True if it will not run (and never did). False if it has finished, or if a worker has taken it: then it is asked to stop, and goes
            on until it looks (``current_task().cancel_requested``).
        """
        call = self._call
        if call is None or self._pool is None or self._state in _DONE:
            if self._pool is not None:
                return self._state in _CANCELLED
            return super().cancel()
        return self._pool.cancel(call)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(task)`` when the task has finished: on the executor's callback thread, or here and now if it has finished already."""
        entry = (fn,)
        callbacks = self._done_callbacks
        callbacks.append(entry)  # type: ignore[arg-type]
        if self._state in _DONE:
            try:
                callbacks.remove(entry)  # type: ignore[arg-type]
            except ValueError:
                return  # the settling thread has it
            self._call_back(fn)

    def _on_settled(self, hook: Callable[[Task[T]], object]) -> None:
        """Call ``hook(task)`` in the thread that settles, or now. For bridges of this library: it must not block nor run user code."""
        hooks = self.__dict__.get("_hooks")
        if hooks is None:
            hooks = self.__dict__.setdefault("_hooks", deque())
        hooks.append(hook)
        if self._state in _DONE:
            self._run_hooks(hooks)

    def _run_hooks(self, hooks: deque[Callable[[Task[T]], object]]) -> None:
        while hooks:
            try:
                hook = hooks.popleft()
            except IndexError:
                return  # the other of two threads has it
            hook(self)

    # --- settling

    @classmethod
    def _of(cls, pool: Pool) -> Task[Any]:
        task = cls.__new__(cls)
        task._state = PENDING
        task._pool = pool
        return task

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        """Store the outcome and wake everybody; once. Any thread that holds the outcome."""
        if self._state in _DONE:
            return
        if error is not None:
            self._exception = error
        else:
            self._result = value
        self._call = None
        self._state = FINISHED
        self._wake()

    def _settle_cancelled(self) -> None:
        """Make the task cancelled, as far as anybody can tell, at once."""
        if self._state in _DONE:
            return
        self._call = None
        self._state = CANCELLED_AND_NOTIFIED
        self._wake()

    def _wake(self) -> None:
        fields = self.__dict__
        sleepers = fields.get("_sleepers")
        if sleepers:
            _release(sleepers)
        if "_hooks" in fields:
            self._run_hooks(fields["_hooks"])
        if "_lazy_condition" in fields:
            self._notify(_NOTIFY_TRIES)
        if "_lazy_callbacks" in fields:
            self._invoke_callbacks()

    def _notify(self, tries: int) -> None:
        """Tell the standard library's waiters; never block on their condition."""
        condition = self._condition
        locked = condition.acquire(blocking=False)
        if not locked and tries and self._pool is not None:
            self._pool.later(_NOTIFY_DELAY, partial(self._notify, tries - 1))
            return
        try:
            for waiter in list(self._waiters):
                if self._state in _CANCELLED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            if locked:
                condition.notify_all()
        finally:
            if locked:
                condition.release()

    def _invoke_callbacks(self) -> None:
        """Run the callbacks: bridges to an event loop here, those of users on the callback thread. Called by the standard library too."""
        sleepers = self.__dict__.get("_sleepers")
        if sleepers:
            _release(sleepers)
        callbacks: deque[tuple[Callable[[Any], object]]] | None = self.__dict__.get("_lazy_callbacks")
        if not callbacks:
            return
        pool = self._pool
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

    def __repr__(self) -> str:
        state = {TaskStatus.COMPLETED: "finished", TaskStatus.FAILED: "finished", TaskStatus.CANCELED: "cancelled"}
        status = self.status
        words = f"<{type(self).__name__} at {id(self):#x} state={state.get(status, status.value)}"
        if status is TaskStatus.COMPLETED:
            words += f" returned {type(self._result).__name__}"
        elif status is TaskStatus.FAILED:
            words += f" raised {type(self._exception).__name__}"
        return words + ">"


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
        task._call_back(fn)


def _is_bridge(fn: Callable[[Any], object]) -> bool:
    """Return True for asyncio's own callback of ``wrap_future``: it only posts to a loop, and an await must not queue behind user code."""
    return getattr(fn, "__module__", None) == "asyncio.futures" and getattr(fn, "__name__", "") == "_call_set_state"


def remaining(end: float | None) -> float | None:
    """Return the seconds until ``end`` on the monotonic clock; None if there is no end."""
    return None if end is None else end - time.monotonic()
