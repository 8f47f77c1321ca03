"""The outcomes of a map job: stored by place, and taken in order by the thread that iterates.

Threads: the I/O thread stores, or the output thread what comes behind printed lines; one thread at
a time takes. The storing thread stores the outcome and then looks for a waiting thread; the waiting
thread stores for which outcome it waits and then looks once more. At least one of the two observes
the other's store.
"""

from __future__ import annotations

from typing import Any

from wetlands_executor.errors import WaitTimeout
from wetlands_executor.futures.waiting import Wakeups, remaining


class Outcomes:
    """The outcomes of the calls of one map job.

    Attributes:
        entries: by place (kind, data); None before the outcome is there and after it was taken.
    """

    __slots__ = ("_waiting", "_wanted", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[int, Any] | None] = []
        # The place of the outcome for which a thread waits, and its wakeup.
        self._wanted = 0
        self._waiting = Wakeups()

    def open(self, count: int) -> list[tuple[int, Any] | None]:
        """Make room for the outcomes of ``count`` calls; return ``entries``."""
        self.entries = [None] * count
        return self.entries

    def store(self, place: int, kind: int, data: Any) -> None:
        """Keep an outcome, and wake the thread that waits for it."""
        self.entries[place] = (kind, data)
        if self._waiting:
            self._look()

    def store_many(self, first: int, outcomes: list[tuple[int, Any]]) -> None:
        """Keep outcomes that came together, from place ``first`` on."""
        self.entries[first : first + len(outcomes)] = outcomes
        if self._waiting:
            self._look()

    def _look(self) -> None:
        """Wake the waiting thread if its outcome is there."""
        if self.entries[self._wanted] is not None:
            self._waiting.notify_all()

    def wait(self, place: int, end: float | None) -> None:
        """Wait until an outcome is there.

        Args:
            place: of the outcome.
            end: when the time is over, on the monotonic clock; None is never.

        Raises:
            WaitTimeout: the time is over.
        """
        self._wanted = place
        # Race: the thread that stored an earlier outcome may have read `_wanted` before it changed
        # here, and wakes this one for nothing. So it looks once more after each wakeup.
        while self.entries[place] is None:
            there = self._waiting.wait(lambda: self.entries[place] is not None, remaining(end))
            if not there:
                raise WaitTimeout
