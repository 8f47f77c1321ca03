"""Who is told of the events of one task, and in which order.

Guarantee: STARTED comes before the first other event of a task that has run, for every listener,
even if it was added too late to be told of the start when it happened.

Threads: the thread where the event happens calls ``emit``: the I/O thread, or the one that settles.
Any thread adds and removes listeners.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from wetlands_executor.futures.events import Listener, TaskEventType

if TYPE_CHECKING:
    from wetlands_executor.futures.home import Listening, SerialQueue

#: Makes the event of the start, of the time of the event that is about to be given.
MakeStart = Callable[[float], Any]


class Observers:
    """The listeners of one task.

    Attributes:
        start_told: the listeners to all tasks have been told that this one has started.
    """

    __slots__ = ("_listeners", "start_told")

    def __init__(self) -> None:
        self._listeners: deque[Listener] = deque()
        self.start_told = False

    def __len__(self) -> int:
        return len(self._listeners)

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
        """Remove the listeners that call ``callback``.

        What is on its way to them is not delivered.
        """
        for listener in [entry for entry in self._listeners if entry.callback == callback]:
            listener.removed = True
            self.discard(listener)

    def emit(
        self,
        event: Any,
        make_start: MakeStart,
        thread: SerialQueue | None,
        everything: Iterable[Listening] = (),
        *,
        ran: bool,
    ) -> None:
        """Give an event to the listeners.

        Args:
            event: what has happened.
            make_start: makes the event of the start, for those that were not told of it.
            thread: the callback thread; None calls the listeners here.
            everything: listeners to all tasks.
            ran: the task has run: it was not cancelled before.
        """
        first = ran and not self.start_told
        if first:
            self.start_told = True
        # Order: bridges to event loops first. They are called here, and only post.
        for listener in sorted(self._listeners.copy(), key=_is_called_later):
            self.give(listener, event, make_start, thread, ran=ran)
        is_start = event.type is TaskEventType.STARTED
        started = None
        for one in everything:
            if first:
                if started is None:
                    started = event if is_start else make_start(event.timestamp)
                one.give(started, thread)
            if not is_start:
                one.give(event, thread)

    @staticmethod
    def give(
        listener: Listener,
        event: Any,
        make_start: MakeStart,
        thread: SerialQueue | None,
        *,
        ran: bool,
    ) -> None:
        """Give an event to one listener of this task.

        The start first. Arguments as for ``emit``.
        """
        if event.type is TaskEventType.STARTED:
            if listener.started:
                return
        elif ran and not listener.started:
            listener.give(make_start(event.timestamp), thread)
        listener.started = True
        listener.give(event, thread)


def _is_called_later(listener: Listener) -> bool:
    return not listener.inline
