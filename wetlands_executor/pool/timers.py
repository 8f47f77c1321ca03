"""Timers of a pool: one heap. I/O thread only.

A timer that is stopped lets go of its job at once. Its place in the heap, a few words, goes when
its time comes, or when more than half of the places are of stopped timers: so a limit of an hour on
each of a million short calls keeps neither calls nor memory.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

from wetlands_executor.seconds import LONGEST

Job = Callable[[], object]

#: Stopped timers that may stay in the heap, however few the others are.
FEW = 64


class Timer:
    """When, on the monotonic clock; and what, None once it has fired or was stopped."""

    __slots__ = ("job", "number", "when")

    def __init__(self, when: float, number: int, job: Job) -> None:
        self.when = when
        self.number = number
        self.job: Job | None = job

    def take(self) -> Job | None:
        """Return the job, which the timer lets go of; None if it has fired or was stopped."""
        job, self.job = self.job, None
        return job

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self.number) < (other.when, other.number)


class Timers:
    """The timers that are set."""

    def __init__(self) -> None:
        #: Empty if there is nothing to wait for; always the same list.
        self.heap: list[Timer] = []
        self._numbers = itertools.count()
        # Invariant: how many in the heap have no job.
        self._stopped = 0

    def __len__(self) -> int:
        return len(self.heap) - self._stopped

    def set(self, delay: float, job: Job) -> Timer:
        """Let ``job`` be due ``delay`` seconds from now."""
        timer = Timer(time.monotonic() + delay, next(self._numbers), job)
        heapq.heappush(self.heap, timer)
        return timer

    def stop(self, timer: Timer) -> None:
        """Forget a timer, if it has not fired."""
        if timer.take() is None:
            return
        self._stopped += 1
        if self._stopped > FEW and 2 * self._stopped > len(self.heap):
            self.heap[:] = [one for one in self.heap if one.job is not None]
            heapq.heapify(self.heap)
            self._stopped = 0

    def until_next(self) -> float | None:
        """Return the seconds until the next timer is due, at most what one wait can last.

        None if there is none.
        """
        heap = self.heap
        while heap and heap[0].job is None:
            heapq.heappop(heap)
            self._stopped -= 1
        return min(max(0.0, heap[0].when - time.monotonic()), LONGEST) if heap else None

    def take_due(self, now: float) -> Job | None:
        """Return the job of the next timer that is due at ``now``, which has fired with that.

        None if there is none.
        """
        heap = self.heap
        while heap and heap[0].when <= now:
            job = heapq.heappop(heap).take()
            if job is not None:
                return job
            self._stopped -= 1
        return None

    def clear(self) -> None:
        """Forget all."""
        self.heap.clear()
        self._stopped = 0
