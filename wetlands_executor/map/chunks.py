"""A chunk of a map job, and how large the next one should be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wetlands_executor.futures.future import next_number
from wetlands_executor.futures.reports import Snapshot
from wetlands_executor.pool.call import Call
from wetlands_executor.scheduling.messages import ANY
from wetlands_executor.serialize.encoded import EncodedCall

if TYPE_CHECKING:
    from wetlands_executor.map.protocols import Job

#: What one chunk is expected to take, in seconds: long against the 20 us that handing it over
#: costs, short against what a user notices.
CHUNK_SECONDS = 0.001
#: Calls in one chunk, and bytes of their arguments that go through the pipe, at most.
CHUNK_CALLS, CHUNK_BYTES = 64, 65536
#: Bytes of arguments that are copied for one worker ahead of time, unless two chunks have more; and
#: chunks, while no duration is known.
PREFETCH_BYTES, PREFETCH_FIRST = 4 << 20, 4
#: After each call those before it count for less by this factor in the mean duration (an
#: exponentially weighted moving average). It is of some tens of calls: fewer, and one that the
#: system has interrupted would make chunks small for no good reason; more, and they would be too
#: large for too long where calls become long.
DECAY = 0.97


class Chunk:
    """Some calls of a map job, as a worker gets them: the batch of one ``Call``.

    Attributes:
        job: where they come from.
        first, count: their places in it.
        received: calls of which the outcome is there; they come in order.
        call: the item.
    """

    __slots__ = ("_reported", "call", "count", "created_at", "first", "job", "received")

    def __init__(self, job: Job, first: int, count: int, encoded: EncodedCall) -> None:
        self.job = job
        self.first = first
        self.count = count
        self.received = 0
        self.created_at = time.time()
        # What a call has reported last, and how many were begun before it.
        self._reported = (-1, Snapshot())
        self.call = Call(next_number(), encoded, job.host_settings, None, job)
        self.call.stand_for(self)
        # if its worker dies, the rest is submitted again: the pool must not close in between
        self.call.decide_elsewhere()

    @property
    def name(self) -> str:
        """What is called."""
        return self.job.definition.name

    @property
    def left(self) -> int:
        """Number of calls of which the outcome is not there."""
        return self.count - self.received

    def report(
        self, begun: int, message: str | None, current: float | None, maximum: float | None
    ) -> None:
        """Take a report of the call that was begun as the ``begun``-th. I/O thread."""
        self._reported = (begun - 1, Snapshot(message, current, maximum))

    def running(self) -> tuple[str, Snapshot]:
        """Return name and last report of the call that runs, as far as is known. Any thread."""
        before, (place, snapshot) = self.received, self._reported
        return f"{self.name}[{self.first + before}]", snapshot if place == before else Snapshot()

    def advance(self, count: int = 1) -> int:
        """Return the place of the next outcome, which has arrived, or of the first of several."""
        place = self.first + self.received
        self.received += count
        if self.received == self.count:
            self.job.chunks.pop(self.call, None)
        return place

    def note_duration(self, duration: int, count: int = 1) -> None:
        """Learn from the mean duration of ``count`` calls, in microseconds."""
        self.job.sizing.note(duration, count)


class Sizing:
    """How many calls the next chunk should have, and how many chunks a worker may hold. I/O thread.

    Args:
        max_workers: number of workers at most.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        # Mean duration of a call lately, in microseconds; None if none has ended.
        self._duration: float | None = None
        # Bytes of the last chunk.
        self._weight = 0

    def note(self, duration: int, count: int) -> None:
        """Learn from the mean duration of ``count`` calls, in microseconds."""
        mean = self._duration
        self._duration = (
            float(duration) if mean is None else duration + (mean - duration) * DECAY**count
        )

    def weigh(self, size: int) -> None:
        """Learn how many bytes the last chunk has."""
        self._weight = size

    def calls(self, left: int) -> int:
        """Return how many of the calls that are left go into the next chunk.

        One as long as no duration is known.
        """
        if self._duration is None:
            return 1
        share = -(-left // (2 * self._max_workers))  # so that all workers come to the end together
        return max(1, min(CHUNK_CALLS, share, int(CHUNK_SECONDS * 1e6 / max(self._duration, 1.0))))

    def ahead(self) -> int:
        """Return how many chunks a worker may hold.

        Fewer if they are large: what waits with a worker is a copy.
        """
        if self._duration is None:
            return PREFETCH_FIRST
        if self._weight < CHUNK_BYTES:
            return ANY
        return max(2, min(CHUNK_CALLS, PREFETCH_BYTES // self._weight))
