"""What happens to a task that a running function has submitted, and who is told of it.

Statuses and events as the host's, the listeners of one task, and its stream of events. The outputs
that the task has set are unpickled here, and only by a thread that wants them: that runs code of
the user's.

Threads: the reader of ``nested.py`` brings what happens; any thread of a task adds listeners and
reads outputs; the thread for callbacks tells the listeners.
"""

from __future__ import annotations

import time
from _thread import allocate_lock
from collections import deque
from enum import Enum
from functools import partial

from . import calls

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, AsyncIterator, Callable, Deque, Dict, List, Tuple

    Reported = Tuple[Any, Any, Any, int]


class TaskStatus(Enum):
    """What has become of a task; as the host's."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELLED = "canceled"  # noqa: PIE796 - the alias is public

    def is_finished(self) -> bool:
        """Return True if the task will not change any more."""
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


class TaskEventType(Enum):
    """What happened to a task; as the host's."""

    STARTED = "started"
    UPDATE = "update"
    COMPLETION = "completion"
    FAILURE = "failure"
    CANCELATION = "cancelation"
    CANCELLATION = "cancelation"  # noqa: PIE796 - the alias is public

    @property
    def is_terminal(self) -> bool:
        """True of the last event of a task."""
        return self not in (TaskEventType.STARTED, TaskEventType.UPDATE)


class TaskEvent:
    """Something that happened to a task.

    Attributes:
        task: the task.
        type: what happened.
        timestamp: when, ``time.time()`` of the host; of the terminal event that of this process.
        message, current, maximum: what the task had reported by then.
        attempt: number of the try that ran, from 1.
    """

    def __init__(
        self,
        task: Any,
        kind: TaskEventType,
        timestamp: float,
        reported: Reported,
        outputs: Any = None,
    ) -> None:
        self.task = task
        self.type = kind
        self.timestamp = timestamp
        self.message, self.current, self.maximum, self.attempt = reported
        # Pickled, until they are wanted.
        self._pickled = outputs
        self._outputs: Dict[Any, Any] = {}

    @property
    def outputs(self) -> Dict[Any, Any]:
        """The named outputs that are new with it. Unpickles them, which is user code."""
        data = self._pickled
        if data is not None:
            self._outputs = {**calls.loads_rich(data), **self._outputs}
            self._pickled = None
        return self._outputs

    def merge(self, earlier: TaskEvent) -> None:
        """Take the outputs of an earlier event, which is not delivered."""
        self._outputs = {**earlier.outputs, **self.outputs}

    def __repr__(self) -> str:
        return "<TaskEvent %s of %r>" % (self.type.value, self.task.name)


class Listener:
    """A callback of one task. Each event is given to it once, STARTED before all others.

    Args:
        callback: gets a ``TaskEvent``.
        run: runs a job of the user's, in order: on the thread for callbacks, or at once for a
            callback of our own that only posts to an event loop.
    """

    def __init__(
        self, callback: Callable[[TaskEvent], object], run: Callable[[Callable[[], object]], object]
    ) -> None:
        self.callback = callback
        self._run = run
        self._started = False
        #: Nothing more is delivered, not even what is on its way.
        self.removed = False

    def remove(self) -> None:
        """Deliver nothing more."""
        self.removed = True

    def give(self, event: TaskEvent, ran: bool) -> None:
        """Deliver an event; the start before it if the task has run. One thread at a time."""
        if event.type is TaskEventType.STARTED:
            if self._started:
                return
        elif ran and not self._started:
            told = event.message, event.current, event.maximum, event.attempt
            start = TaskEvent(event.task, TaskEventType.STARTED, event.timestamp, told)
            self._run(partial(self._call, start))
        self._started = True
        self._run(partial(self._call, event))

    def _call(self, event: TaskEvent) -> None:
        if not self.removed:
            self.callback(event)


class Reports:
    """What one task has reported, and its listeners.

    Attributes:
        told: message, current, maximum and attempt, as last heard of.
    """

    def __init__(self) -> None:
        self.told: Reported = (None, None, None, 1)
        self._listeners: List[Listener] = []
        # One entry until the host is asked for events.
        self._unasked: List[None] = [None]
        self._outputs: Dict[Any, Any] = {}
        # (attempt, pickled outputs) that no thread has wanted yet.
        self._unread: Deque[Tuple[int, Any]] = deque()
        self._attempt = 1
        # Guards the reading of outputs, which is user code: only threads that want them wait.
        self._reading = allocate_lock()

    def note(self, told: Reported) -> None:
        """Note what the host says."""
        self.told = told

    # --- listeners

    def add(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    def wants_events(self) -> bool:
        """Return True, once, if there are listeners and the host was not asked for events."""
        if not self._listeners:
            return False
        try:
            self._unasked.pop()
        except IndexError:
            return False
        return True

    def discard(self, callback: object) -> None:
        """Remove the listeners with this callback, and what is on its way to them."""
        for listener in [each for each in self._listeners if each.callback == callback]:
            listener.remove()
            self.take(listener)

    def take(self, listener: Listener) -> bool:
        """Remove a listener; return False if another thread has done that."""
        try:
            self._listeners.remove(listener)
        except ValueError:
            return False
        return True

    def emit(self, event: TaskEvent) -> None:
        """Tell all listeners of something that is not the end."""
        for listener in list(self._listeners):
            listener.give(event, True)

    def end(self, event: TaskEvent) -> None:
        """Tell all listeners of the end, each once."""
        ran = event.type is not TaskEventType.CANCELATION
        while self._listeners:
            try:
                listener = self._listeners.pop(0)
            except IndexError:
                return  # Race: another thread has removed the last one
            listener.give(event, ran)

    # --- outputs

    def add_outputs(self, task: Any, attempt: int, data: Any) -> None:
        """Take named outputs, pickled."""
        self._unread.append((attempt, data))
        reported = (*self.told[:3], attempt)
        self.emit(TaskEvent(task, TaskEventType.UPDATE, time.time(), reported, data))

    def outputs(self) -> Dict[Any, Any]:
        """Return the named outputs of the last attempt; a copy. Unpickles, which is user code."""
        with self._reading:
            while self._unread:
                attempt, data = self._unread.popleft()
                if attempt != self._attempt:
                    self._attempt = attempt
                    self._outputs = {}
                self._outputs.update(calls.loads_rich(data))
            if self.told[3] > self._attempt:
                return {}
            return dict(self._outputs)


async def stream(
    subscribe: Callable[[Callable[[TaskEvent], object]], Callable[[], object]],
    waiting: Callable[[bool], object],
) -> AsyncIterator[TaskEvent]:
    """Yield the events of a task from now on, up to the terminal one.

    An update that the loop has not taken is replaced by the next one; its outputs are kept.

    Args:
        subscribe: adds a callback, called at once by any thread; returns what removes it.
        waiting: notes that the function waits for the task (True), or does so no more.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    events: Deque[TaskEvent] = deque()
    arrived = asyncio.Event()

    def arrive(event: TaskEvent) -> None:
        update = TaskEventType.UPDATE
        if event.type is update and events and events[-1].type is update:
            event.merge(events.pop())
        events.append(event)
        arrived.set()

    def post(event: TaskEvent) -> None:
        try:
            loop.call_soon_threadsafe(arrive, event)
        except RuntimeError:
            pass  # the loop is closed: nothing waits there any more

    unsubscribe = subscribe(post)
    try:
        while True:
            while events:
                event = events.popleft()
                yield event
                if event.type.is_terminal:
                    return
            arrived.clear()
            waiting(True)
            try:
                await arrived.wait()
            finally:
                waiting(False)
    finally:
        unsubscribe()
