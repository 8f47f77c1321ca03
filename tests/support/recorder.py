"""Listeners that remember, and that a test can wait for.

Entered by the callback thread of an executor and by the test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.support.rendezvous import DEADLINE
from wetlands_executor import Task, TaskEvent, TaskEventType

Wanted = Callable[[TaskEvent], bool]


class Recorder:
    """A listener that keeps its events; ``fail`` makes it raise afterwards."""

    def __init__(self, fail: type[BaseException] | None = None) -> None:
        # Guards `events`; waiters sleep on it.
        self._changed = threading.Condition()
        self.events: list[TaskEvent] = []
        self.threads: set[int] = set()
        self._fail = fail

    def __call__(self, event: TaskEvent) -> None:
        with self._changed:
            self.events.append(event)
            self.threads.add(threading.get_ident())
            self._changed.notify_all()
        if self._fail is not None:
            raise self._fail(f"from a listener, at {event.type.value}")

    @property
    def types(self) -> list[TaskEventType]:
        """The types of all events so far, in order."""
        with self._changed:
            return [event.type for event in self.events]

    def of(self, kind: TaskEventType) -> list[TaskEvent]:
        """Return the events of one type."""
        with self._changed:
            return [event for event in self.events if event.type is kind]

    def wait(self, wanted: TaskEventType | Wanted, timeout: float = DEADLINE) -> TaskEvent:
        """Wait for the first event of a type, or that a function accepts; past ones count."""
        accepts: Wanted = (
            wanted if not isinstance(wanted, TaskEventType) else lambda event: event.type is wanted
        )
        found: list[TaskEvent] = []

        def look() -> bool:
            found[:] = [event for event in self.events if accepts(event)][:1]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(look, timeout), (
                f"{wanted} has not come within {timeout} s; so far: {self.events}"
            )
        return found[0]

    def wait_for_count(self, count: int, timeout: float = DEADLINE) -> list[TaskEvent]:
        """Wait until there are ``count`` events; return them all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.events) >= count, timeout), (
                f"only {len(self.events)} of {count}"
            )
            return list(self.events)

    def wait_for_ends(self, count: int, timeout: float = DEADLINE) -> None:
        """Wait for ``count`` terminal events.

        A thread that wakes up because tasks have ended may do so before their listeners are told.
        """

        def ended() -> int:
            return sum(event.type.is_terminal for event in self.events)

        with self._changed:
            assert self._changed.wait_for(lambda: ended() >= count, timeout), (
                f"only {ended()} of {count} terminal events within {timeout} s"
            )

    def wait_for_end(self, timeout: float = DEADLINE) -> TaskEvent:
        """Wait for a terminal event."""
        return self.wait(lambda event: event.type.is_terminal, timeout)


def wait_until_running(task: Task[object]) -> None:
    """Return when a worker has taken the task; not when it has finished before."""
    recorder = Recorder()
    task.listen(recorder)
    recorder.wait(TaskEventType.STARTED)
    task.remove_listener(recorder)


class Latch:
    """A callback that blocks until the test lets it go on.

    Attributes:
        entered: set when it was called.
        open: lets it return.
    """

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.calls = 0

    def __call__(self, *_args: object) -> None:
        self.calls += 1
        self.entered.set()
        assert self.open.wait(DEADLINE)
