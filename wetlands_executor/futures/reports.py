"""What a task reports, and its listeners: which events they get, and in which order.

Guarantee: STARTED comes before the first other event of a task that has run, for every listener,
even if it was added after the start.

Threads: the thread where something happens reports it: the I/O thread, a decoder thread for named
outputs, the thread that settles. Any thread reads, and adds and removes listeners.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from wetlands_executor.futures.events import Listener, TaskEventType

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import PendingCall, TaskPool

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


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


class Reports:
    """What one task has reported, and its listeners.

    Made when the task first reports something or gets a listener. It does not refer to the task,
    which is passed in, so that a task which is dropped is freed at once.

    Args:
        pool: the pool of the task; None if it has none.
        make_event: makes an event, of the arguments of ``TaskEvent``.

    Attributes:
        snapshot: what was reported last.
        outputs: the named outputs; grows, and is copied in one step.
        attempt: number of the try that runs or ran, from 1.
    """

    __slots__ = (
        "_listeners",
        "_make_event",
        "_pool",
        "_start_told",
        "attempt",
        "outputs",
        "snapshot",
    )

    def __init__(self, pool: TaskPool | None, make_event: Callable[..., Any]) -> None:
        self._pool = pool
        self._make_event = make_event
        self._listeners: list[Listener] = []
        # The listeners to all tasks have got STARTED of this one.
        self._start_told = False
        self.snapshot = Snapshot()
        self.outputs: dict[Any, Any] = {}
        self.attempt = 1

    def alike(self, pool: TaskPool | None) -> Reports:
        """Return empty ones that make the same events."""
        return Reports(pool, self._make_event)

    def __len__(self) -> int:
        """Return the number of listeners."""
        return len(self._listeners)

    # --- what is reported

    def update(
        self, task: Any, message: str | None, current: float | None, maximum: float | None
    ) -> None:
        """Take a report of the running call."""
        snapshot = Snapshot(message, current, maximum)
        if snapshot != self.snapshot:  # the last report of a call comes twice
            self.snapshot = snapshot
            self.emit(task, TaskEventType.UPDATE)

    def add_outputs(self, task: Any, new: dict[Any, Any]) -> None:
        """Take named outputs of the running call."""
        self.outputs.update(new)
        self.emit(task, TaskEventType.UPDATE, new)

    def restart(self) -> None:
        """Forget what was reported: the next try begins."""
        self.attempt += 1
        self.snapshot = Snapshot()
        self.outputs = {}

    # --- listeners

    def add(self, listener: Listener) -> None:
        """Add a listener. Order: the caller looks at the state of the task afterwards."""
        self._listeners.append(listener)

    def discard(self, listener: Listener) -> None:
        """Remove a listener if it is there."""
        try:
            self._listeners.remove(listener)
        except ValueError:
            pass  # another thread has removed it

    def discard_callback(self, callback: object) -> None:
        """Remove the listeners that call ``callback``, and drop what is on its way to them."""
        for listener in [entry for entry in self._listeners if entry.callback == callback]:
            listener.remove()
            self.discard(listener)

    def emit(
        self, task: Any, kind: TaskEventType, outputs: Mapping[Any, Any] | None = None
    ) -> None:
        """Deliver an event to all registered listeners. Return at once if there are none."""
        pool = self._pool
        everything = pool.listeners if pool is not None else ()
        if not self._listeners and not everything:
            return
        event = self.event(task, kind, time.time(), outputs)
        # A task that was cancelled before it ran has no start.
        ran = kind is not TaskEventType.CANCELATION or task.worker_pid is not None
        first = ran and not self._start_told
        if first:
            self._start_told = True
        # Order: bridges to event loops first. They are called here, and only post.
        for listener in sorted(self._listeners.copy(), key=_is_called_later):
            self.give(task, listener, event, ran=ran)
        thread = pool.callbacks if pool is not None else None
        for one in everything:
            if first:
                one.give(self._start_of(task, event), thread)
            if kind is not TaskEventType.STARTED:
                one.give(event, thread)

    def give(self, task: Any, listener: Listener, event: Any, *, ran: bool) -> None:
        """Give an event to one listener of this task; the start first if the task has run."""
        thread = self._pool.callbacks if self._pool is not None else None
        if event.type is TaskEventType.STARTED:
            if listener.started:
                return
        elif ran and not listener.started:
            listener.give(self._start_of(task, event), thread)
        listener.note_start()
        listener.give(event, thread)

    def event(
        self,
        task: Any,
        kind: TaskEventType,
        when: float,
        outputs: Mapping[Any, Any] | None = None,
    ) -> Any:
        """Return an event of the task, with what it has reported by now."""
        new = MappingProxyType(dict(outputs)) if outputs else _NOTHING
        return self._make_event(task, kind, when, *self.snapshot, new, self.attempt)

    def _start_of(self, task: Any, event: Any) -> Any:
        """Return the event of the start, of which ``event`` is the first sign."""
        if event.type is TaskEventType.STARTED:
            return event
        return self.event(task, TaskEventType.STARTED, task.started_at or event.timestamp)


def reports_of(task: Any) -> Reports:
    """Return what a task has reported and its listeners; made if need be."""
    fields = task.__dict__
    found: Reports | None = fields.get("_reports")
    if found is None:
        found = fields.setdefault("_reports", task._reports.alike(fields.get("_pool")))
    return found


def end_of(task: Any) -> TaskEventType:
    """Return the type of the event with which a task that has finished has ended."""
    if task.cancelled():
        return TaskEventType.CANCELATION
    failed = task.__dict__.get("_exception") is not None
    return TaskEventType.FAILURE if failed else TaskEventType.COMPLETION


def subscribe(task: Any, listener: Listener) -> Callable[[Listener], None]:
    """Add a listener to a task; return its remover.

    It gets the terminal event now if there is one.
    """
    fields, reports = task.__dict__, reports_of(task)
    reports.add(listener)
    if task.done():
        event = reports.event(task, end_of(task), fields.get("_finished_at") or time.time())
        reports.give(task, listener, event, ran=False)
    else:
        pool, call = fields.get("_pool"), fields.get("_call")
        if pool is not None and call is not None:
            pool.watch(call)
    return reports.discard


def begin_again(task: Any, call: PendingCall | None) -> None:
    """Begin anew after a failure: the status stays RUNNING, progress starts again. I/O thread.

    Args:
        task: the task.
        call: that of the next try, if it is another one.
    """
    fields = task.__dict__
    if call is not None:
        # Order: before the number changes, at which a program may wait for the next try.
        fields["_call"] = call
    fields["_seen_running"] = True
    reports_of(task).restart()


def _is_called_later(listener: Listener) -> bool:
    return not listener.inline
