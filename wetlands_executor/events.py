"""What happens to a task, as objects, and who is told.

A ``Listener`` is called on the executor's callback thread, in order, or through a ``dispatch`` of the user's (a Qt signal, ``call_soon_threadsafe``).
Bridges of this library (streams of ``async for``) are called in the thread where it happens; they only post to a loop.

Under a flood, updates that a listener has not seen yet are merged into one, so that nothing grows: the newest values, all new output keys.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from wetlands_executor.pool.delivery import SerialThread
    from wetlands_executor.task import Task

LOGGER = logging.getLogger("concurrent.futures")

Callback = Callable[["TaskEvent"], object]
Dispatch = Callable[[Callback, "TaskEvent"], object]

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class TaskEventType(Enum):
    """What has happened."""

    STARTED = "started"
    UPDATE = "update"
    COMPLETION = "completion"
    FAILURE = "failure"
    CANCELATION = "cancelation"
    CANCELLATION = "cancelation"  # noqa: PIE796 - the alias is public

    @property
    def is_terminal(self) -> bool:
        """True if nothing follows."""
        return self not in (TaskEventType.STARTED, TaskEventType.UPDATE)


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
    outputs: Mapping[Any, Any] = field(default_factory=lambda: _NOTHING)
    attempt: int = 1


#: Updates of one task that wait: one, or a few for a moment.
_Waiting: TypeAlias = "deque[tuple[TaskEvent, dict[Any, Any]]]"


def _merged(first: tuple[TaskEvent, dict[Any, Any]], second: tuple[TaskEvent, dict[Any, Any]]) -> tuple[TaskEvent, dict[Any, Any]]:
    """Return the newer event with the outputs of both."""
    return second[0], {**first[1], **second[1]}


class Listener:
    """A callback that wants events.

    Attributes:
        callback: gets a ``TaskEvent``.
        terminal: holds one token until the terminal event has been given to it: who pops it delivers.
    """

    def __init__(self, callback: Callback, dispatch: Dispatch | None, once: bool) -> None:
        self.callback = callback
        self.terminal: deque[None] | None = deque((None,)) if once else None
        #: For the listener of one task: it has been told of the start.
        self.started = False
        #: Nothing is delivered any more, not even what is on its way.
        self.removed = False
        self._dispatch = dispatch
        # Updates that wait for the callback thread. No lock: there the collector may run a finalizer, which may wait for a task, and
        # the I/O thread, which brings updates, must not wait for that.
        self._updates: dict[Task[Any], _Waiting] = {}

    def give(self, event: TaskEvent, thread: SerialThread | None) -> None:
        """Deliver an event; updates that were not seen yet are merged."""
        if event.type.is_terminal and self.terminal is not None:
            try:
                self.terminal.pop()
            except IndexError:
                return
        if thread is None:
            self._call(event)
        elif event.type is TaskEventType.UPDATE:
            self._add_update(event, thread)
        else:
            thread.put(partial(self._call, event))

    def _add_update(self, event: TaskEvent, thread: SerialThread) -> None:
        """Merge an update with the one of its task that waits, if there is one. Each is in one place at a time, taken by one thread."""
        entry = event, dict(event.outputs)
        while True:
            mine: _Waiting = deque()
            waiting = self._updates.setdefault(event.task, mine)
            if waiting is mine:
                thread.put(partial(self._call_update, event.task))
            else:
                try:
                    entry = _merged(waiting.pop(), entry)
                except IndexError:
                    pass  # just taken
            waiting.append(entry)
            if self._updates.get(event.task) is waiting:
                return
            # Race: the callback thread has taken all that waited; what was added too late for that waits anew.
            try:
                entry = waiting.pop()
            except IndexError:
                return  # it was not too late

    def _call_update(self, task: Task[Any]) -> None:
        waiting = self._updates.pop(task)
        entry: tuple[TaskEvent, dict[Any, Any]] | None = None
        while waiting:
            try:
                found = waiting.popleft()
            except IndexError:
                break  # the thread that had added it has taken it back
            entry = found if entry is None else _merged(entry, found)
        if entry is not None:
            self._call(replace(entry[0], outputs=MappingProxyType(entry[1])))

    def _call(self, event: TaskEvent) -> None:
        if self.removed:
            return
        try:
            if self._dispatch is not None:
                self._dispatch(self.callback, event)
            else:
                self.callback(event)
        except Exception:
            LOGGER.exception("wetlands_executor: exception in a listener of task %r", event.task.name)


def make_listener(callback: Callback, dispatch: Dispatch | None, *, once: bool) -> Listener:
    """Check and make a listener.

    Args:
        callback: gets each event.
        dispatch: called as ``dispatch(callback, event)`` in place of the callback.
        once: the listener of one task, which has one terminal event.
    """
    if not callable(callback):
        raise TypeError(f"the callback must be callable, not {callback!r}")
    if dispatch is not None and not callable(dispatch):
        raise TypeError(f"dispatch must be callable as dispatch(callback, event), not {dispatch!r}")
    return Listener(callback, dispatch, once)
