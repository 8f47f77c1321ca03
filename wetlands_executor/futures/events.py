"""What happens to a task, as objects, and the listeners that get them.

A ``Listener`` is called on the executor's callback thread, in order, or through a ``dispatch`` of
the user's (a Qt signal, ``call_soon_threadsafe``). Bridges of this library (streams of ``async
for``) are called in the thread where it happens; they only post to a loop.

Under a flood, updates that a listener has not seen yet are merged into one, so that nothing grows:
the newest values, all new output keys. With a ``dispatch``, which only puts an event into the queue
of another thread, an update counts as seen when the callback has returned there: per listener at
most one is under way. A terminal event does not wait for that; it carries the outputs of the update
that waits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from wetlands_executor.errors import describe

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import SerialQueue

LOGGER = logging.getLogger("concurrent.futures")


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


class EventTask(Protocol):
    """The task of an event, as its listener needs it: hashable, with a name for messages."""

    @property
    def name(self) -> str:
        """What was called."""
        ...


class Event(Protocol):
    """An event of a task: a frozen dataclass, ``TaskEvent``."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def task(self) -> EventTask:
        """The task."""
        ...

    @property
    def type(self) -> TaskEventType:
        """What happened."""
        ...

    @property
    def timestamp(self) -> float:
        """When, as ``time.time()``."""
        ...

    @property
    def outputs(self) -> Mapping[Any, Any]:
        """The named outputs that are new with it."""
        ...


#: Gets events.
Callback = Callable[[Any], object]
#: Called as ``dispatch(callback, event)``; takes the event to another thread.
Dispatch = Callable[[Callback, Any], object]

#: Updates of one task that wait: one, or a few for a moment.
_Waiting: TypeAlias = "deque[tuple[Event, dict[Any, Any]]]"


def _merged(
    first: tuple[Event, dict[Any, Any]], second: tuple[Event, dict[Any, Any]]
) -> tuple[Event, dict[Any, Any]]:
    """Return the newer event with the outputs of both."""
    return second[0], {**first[1], **second[1]}


class Listener:
    """A callback that wants events.

    Attributes:
        callback: gets a ``TaskEvent``.
        inline: it is called in the thread where it happens; for bridges of this library, which only
            post to a loop.
        terminal: holds one entry until the terminal event is delivered: the thread that pops it
        delivers the event.
    """

    def __init__(
        self, callback: Callback, dispatch: Dispatch | None, once: bool, *, inline: bool = False
    ) -> None:
        self.callback = callback
        self.inline = inline
        self.terminal: deque[None] | None = deque((None,)) if once else None
        #: For the listener of one task: STARTED was delivered.
        self.started = False
        #: Nothing more is delivered, not even what is on its way.
        self.removed = False
        self._dispatch = dispatch
        # Updates that wait for the callback thread. No lock: there the collector may run a
        # finalizer, which may wait for a task, and the I/O thread, which brings updates, must not
        # wait for that.
        self._updates: dict[EventTask, _Waiting] = {}
        #: Callback thread only: an update was dispatched and is not handled yet; the tasks whose
        #: updates wait for that.
        self._under_way = False
        self._held: dict[EventTask, None] = {}
        #: Callback thread only: the terminal event has been delivered, of a listener that gets one.
        self._over = False

    def remove(self) -> None:
        """Deliver nothing more, not even what is on its way."""
        self.removed = True

    def note_start(self) -> None:
        """Note that it has been told of the start."""
        self.started = True

    def give(self, event: Event, thread: SerialQueue | None) -> None:
        """Deliver an event; updates that were not seen yet are merged."""
        if self.removed:
            return
        if event.type.is_terminal and self.terminal is not None:
            try:
                self.terminal.pop()
            except IndexError:
                return
        if thread is None or self.inline:
            self._call(event)
        elif event.type is TaskEventType.UPDATE:
            self._add_update(event, thread)
        else:
            thread.put(partial(self._call_in_order, event))

    def _add_update(self, event: Event, thread: SerialQueue) -> None:
        """Merge an update with the one of its task that waits, if there is one.

        Each is in one place at a time, taken by one thread.
        """
        entry = event, dict(event.outputs)
        while True:
            mine: _Waiting = deque()
            waiting = self._updates.setdefault(event.task, mine)
            if waiting is mine:
                thread.put(partial(self._call_update, event.task, thread))
            else:
                try:
                    entry = _merged(waiting.pop(), entry)
                except IndexError:
                    pass  # just taken
            waiting.append(entry)
            if self._updates.get(event.task) is waiting:
                return
            # Race: the callback thread has taken all that waited; what was added too late for that
            # waits anew.
            try:
                entry = waiting.pop()
            except IndexError:
                return  # it was not too late

    def _call_update(self, task: EventTask, thread: SerialQueue) -> None:
        if self._under_way and not self.removed:
            self._held[task] = None
            return
        if self._over:
            return
        entry = self._take_update(task)
        if entry is not None:
            event = replace(entry[0], outputs=MappingProxyType(entry[1]))
            if self._dispatch is None:
                self._call(event)
            else:
                self._under_way = True
                self._call(event, partial(thread.put, partial(self._send_next, thread)))

    def _send_next(self, thread: SerialQueue) -> None:
        """Handle the end of the update that was under way: it was handled, or dropped.

        Send the one that has waited longest. Callback thread.
        """
        self._under_way = False
        task = next(iter(self._held), None)
        if task is not None:
            self._held.pop(task, None)
            self._call_update(task, thread)

    def _call_in_order(self, event: Event) -> None:
        """Deliver an event that is no update. Callback thread."""
        if self._over:
            # Race: a thread has added this listener while another one settled the task. The first
            # has given it the terminal event, and the second was about to give it the start.
            return
        if event.type.is_terminal and self.terminal is not None:
            self._over = True
        if event.type.is_terminal and event.task in self._held:
            self._held.pop(event.task, None)
            entry = self._take_update(event.task)
            if entry is not None:
                event = replace(event, outputs=MappingProxyType({**entry[1], **event.outputs}))
        self._call(event, _nothing if self._dispatch is not None else None)

    def _take_update(self, task: EventTask) -> tuple[Event, dict[Any, Any]] | None:
        """Return what waits of a task, as one."""
        waiting: _Waiting = self._updates.pop(task, deque())
        entry: tuple[Event, dict[Any, Any]] | None = None
        while waiting:
            try:
                found = waiting.popleft()
            except IndexError:
                break  # the thread that had added it has taken it back
            entry = found if entry is None else _merged(entry, found)
        return entry

    def _call(self, event: Event, handled: Callable[[], object] | None = None) -> None:
        if self.removed:
            return
        dispatched = _Dispatched(self, handled or _nothing) if self._dispatch is not None else None
        try:
            if self._dispatch is not None:
                self._dispatch(dispatched, event)  # type: ignore[arg-type]
            else:
                self.callback(event)
        except Exception as error:
            if dispatched is not None:
                dispatched.tell()
            if is_gone(error):
                self.give_up(error, event.task)
            else:
                LOGGER.exception(
                    "wetlands_executor: exception in a listener of task %r", event.task.name
                )

    def give_up(self, error: BaseException, task: EventTask) -> None:
        """Remove the listener, because its target no longer exists.

        Any thread; said once.
        """
        if self.removed:
            return
        self.removed = True
        LOGGER.warning(
            "wetlands_executor: a listener of task %r is removed, "
            "because what it tells is gone (%s)",
            task.name,
            describe(error, 200),
        )
        # The window that they hold need not wait for the end of the task.
        self.callback = self._dispatch = _nothing
        # Replaced, not changed: the callback thread may look at them.
        self._updates, self._held = {}, {}


class _Dispatched:
    """What ``dispatch`` gets in the place of the callback.

    It notices when the callback has returned.

    If it goes without having been called, the event was dropped, which is as good. Equal to the
    callback, and has its attributes.
    """

    __slots__ = ("_callback", "_handled", "_listener")

    def __init__(self, listener: Listener, handled: Callable[[], object]) -> None:
        self._listener = listener
        self._callback = listener.callback
        # One entry; the thread that pops it reports. The garbage collector may run ``__del__`` on
        # any thread.
        self._handled = deque((handled,))

    def __call__(self, event: Event) -> None:
        try:
            if not self._listener.removed:
                self._callback(event)
        except Exception as error:
            if not is_gone(error):
                raise  # as without this wrapper: the toolkit reports it
            self._listener.give_up(error, event.task)
        finally:
            self.tell()

    def tell(self) -> None:
        """Say, once, that the event has been handled."""
        try:
            self._handled.pop()()
        except IndexError:
            pass  # it was called twice

    def __del__(self) -> None:
        self.tell()

    def __getattr__(self, name: str) -> Any:
        if name == "_callback":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._callback, name)

    def __eq__(self, other: object) -> bool:
        return self._callback == (other._callback if isinstance(other, _Dispatched) else other)

    def __hash__(self) -> int:
        return hash(self._callback)


def _nothing(*_args: object) -> None:
    """Do nothing."""


#: How toolkits say that a window, an application or an event loop does not exist any more.
_GONE = ("deleted", "destroyed", "is closed", "invalid command name")


def is_gone(error: BaseException) -> bool:
    """Return True if a listener has failed because its target does not exist any more.

    It will always fail then.

    That is any ReferenceError, and a RuntimeError or ``tkinter.TclError`` whose message says so:
    Qt's "wrapped C/C++ object of type QLabel has been deleted" and "Internal C++ object already
    deleted", Tk's "application has been destroyed" and "invalid command name", asyncio's "Event
    loop is closed"; and trio's ``RunFinishedError``.
    """
    if isinstance(error, ReferenceError):
        return True
    name = type(error).__name__
    if name == "RunFinishedError" and isinstance(error, RuntimeError):
        return True
    if not isinstance(error, RuntimeError) and (
        name != "TclError" or type(error).__module__ not in ("_tkinter", "tkinter")
    ):
        return False
    message = describe(error).lower()
    return any(words in message for words in _GONE)


def with_listener(listeners: Sequence[Listener], added: Listener) -> tuple[Listener, ...]:
    """Return listeners of all tasks and one more; those that were removed go (closed windows)."""
    return (*(each for each in listeners if not each.removed), added)


def without_callback(listeners: Sequence[Listener], callback: object) -> tuple[Listener, ...]:
    """Remove the listeners that call ``callback``, and what is on its way; return the others."""
    gone = [each for each in listeners if each.callback == callback]
    for listener in gone:
        listener.remove()
    return tuple(each for each in listeners if each not in gone)


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
