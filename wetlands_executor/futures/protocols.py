"""What a Task asks of the pool that runs it: ``TaskPool``; and of its call there: ``PendingCall``.

Owns nothing. A Task uses its pool through these protocols alone, so nothing in this folder imports
the pool. Any thread may call every method, a signal handler on the main thread and a finalizer too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class DirectReceive(Protocol):
    """The way on which a waiting thread takes the result from the worker itself."""

    def wait(self, process: Any, call: Any, task: Any, timeout: float | None) -> bool:
        """Sleep until the task is settled, and settle it if that is left to this thread.

        Args:
            process: the worker that has the call.
            call: what the worker answers.
            task: the Task of the call.
            timeout: seconds to wait; None waits without limit.

        Returns:
            True if the task is settled; False if this call has no direct way: the caller waits in
            another way then.

        Raises:
            WaitTimeout: the time is over.
        """
        ...


class DirectWay(Protocol):
    """The direct way to a worker process."""

    @property
    def receive(self) -> DirectReceive | None:
        """The direct way back; None if there is none."""
        ...


class Incarnation(Protocol):
    """The worker process that has a call."""

    @property
    def direct_send(self) -> DirectWay:
        """The direct way to it."""
        ...


class PendingCall(Protocol):
    """A call that the pool has, until it is settled."""

    @property
    def unannounced(self) -> bool:
        """True while its result may arrive without any thread being woken for it.

        See ``TaskPool.ensure_tracked``.
        """
        ...

    @property
    def process(self) -> Incarnation | None:
        """The worker that it was sent to; None while it waits."""
        ...

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker that it was sent to; None while it waits."""
        ...

    @property
    def input(self) -> str | bytes:
        """Its arguments: their text, or a pickle of at most ``arguments.KEPT`` bytes."""
        ...

    def is_running(self) -> bool:
        """Return True if a worker has taken it."""
        ...

    def running_since(self) -> float | None:
        """Return when the worker took it, on the monotonic clock in seconds; None if unknown."""
        ...


class StartGuard(Protocol):
    """Holds a task back that was made with ``start=False``, or that depends on others."""

    def start(self, task: Any) -> None:
        """Start the task, unless that has happened.

        Raises:
            RuntimeError: its pool accepts no calls any more.
        """
        ...

    def withdraw(self) -> bool:
        """Take the task back; False if it was handed to the pool, or was taken back before."""
        ...

    def input(self) -> str:
        """Return the arguments as text, for messages; empty once the pool has the call."""
        ...


class SerialQueue(Protocol):
    """A thread that runs jobs one after another."""

    def put(self, job: Callable[[], object]) -> object:
        """Run ``job`` after those that were put before."""
        ...


class Listening(Protocol):
    """A listener to all tasks of a pool."""

    def give(self, event: Any, thread: Any) -> None:
        """Deliver an event on ``thread``."""
        ...


class TaskStats(Protocol):
    """Counts of tasks by what became of them."""

    def submitted(self, task: Any) -> None:
        """Count a task that was submitted, once."""
        ...

    def finished(self, task: Any) -> None:
        """Count a task that has reached its final state."""
        ...


class Unstarted(Protocol):
    """The tasks of a pool that were made with ``start=False`` and were not started; a set."""

    def add(self, task: Any) -> None:
        """Add one."""
        ...

    def discard(self, task: Any) -> None:
        """Remove one if it is there."""
        ...

    def __contains__(self, task: object) -> bool:
        """Return True if it is there."""
        ...


class TaskPool(Protocol):
    """The pool of a Task, as the Task sees it."""

    # --- what has become of the pool

    @property
    def started(self) -> bool:
        """True once the I/O thread runs, or is being started."""
        ...

    @property
    def refusing(self) -> bool:
        """True if no new call is accepted."""
        ...

    @property
    def ended(self) -> bool:
        """True once the I/O thread has done its last work."""
        ...

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked: the pool belongs to the parent."""
        ...

    # --- waiting for a call, and asking something of it

    def ensure_tracked(self, call: Any) -> None:
        """Let the I/O thread settle a call that was sent unannounced.

        Order: every accessor of a Task but ``result`` and its like calls this before it relies on
        being notified of the end.
        """
        ...

    def take_abandoned_waits(self) -> None:
        """Finish what interrupted waits have left, after the pool has ended."""
        ...

    def cancel(self, call: Any) -> bool:
        """Take the call out of the queue, or ask it to stop; return True if it will not run.

        Waits for the I/O thread.
        """
        ...

    def ask_to_cancel(self, call: Any) -> None:
        """Do the same without waiting."""
        ...

    def cancel_all(self, calls: Any) -> None:
        """Do the same for several calls; waits a bounded time."""
        ...

    def kill(self, call: Any) -> None:
        """End the worker that runs the call; cancel the call if it waits."""
        ...

    def watch(self, call: Any) -> None:
        """Have the worker report when the call begins."""
        ...

    # --- listeners, callbacks and jobs

    @property
    def stats(self) -> TaskStats:
        """Counts of tasks."""
        ...

    @property
    def listeners(self) -> tuple[Listening, ...]:
        """Listeners to all tasks; replaced whole."""
        ...

    @property
    def callbacks(self) -> SerialQueue:
        """The callback thread, on which user code runs."""
        ...

    def post(self, job: Callable[[], object]) -> None:
        """Run ``job`` on the I/O thread; on this one if that has ended."""
        ...

    def notify_later(self, job: Callable[[], bool]) -> None:
        """Run ``job`` on the I/O thread a little later.

        It returns False if it was too early, and has asked for another try.
        """
        ...

    # --- tasks that are not submitted yet

    @property
    def unstarted(self) -> Unstarted:
        """Tasks that were not started."""
        ...

    def reserve(self, task: Any) -> None:
        """Keep the pool open for a task whose dependencies are not ready."""
        ...

    def release(self, task: Any) -> None:
        """Note that a reserved task was submitted, or never will be."""
        ...

    def run_user_code(self, job: Callable[[], object]) -> None:
        """Run ``job`` on a decoder thread."""
        ...
