"""Many short calls at once: a ``map`` of the executor, whose items travel in batches.

There each item is a call of its own as far as failures, crashes and cancellation are concerned. The
outcomes of one slice come together: so slices are as long as a few hundredths of a second, by what
the calls before took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from wetlands_executor import CondaEnvExecutor
from wetlands_executor.cli import workers
from wetlands_executor.cli.mapping.items import Item

#: Seconds of a call up to which several travel together.
SHORT: Final = 0.002
#: Seconds that a slice may take, and how many items it may have.
SLICE_SECONDS: Final = 0.03
SLICE_LEAST, SLICE_MOST = 32, 2000
#: Slices under way, so that workers find the next one when they have done one.
SLICES: Final = 3


#: An item and its place among all that are called.
Placed = tuple[int, Item]


class SliceDone(NamedTuple):
    """The outcomes of a slice.

    Attributes:
        items: its items, each with its place.
        outcomes: of each what ``in_worker.run`` returned, or an exception.
        submitted: when it was submitted, as ``time.time()``.
    """

    items: Sequence[Placed]
    outcomes: Sequence[Any]
    submitted: float


class Bulk:
    """Submits slices, and has a thread that waits for them.

    Args:
        executor: where they run.
        inbox: gets ``SliceDone``.

    Attributes:
        under_way: slices that were submitted and are not done.
    """

    def __init__(self, executor: CondaEnvExecutor, inbox: SimpleQueue[Any]) -> None:
        self._executor = executor
        self._inbox = inbox
        self._slices: SimpleQueue[tuple[Sequence[Placed], Iterator[Any], float] | None]
        self._slices = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._average: float | None = None
        self.under_way = 0

    def note(self, runtime: float) -> None:
        """Note how long a call took, in seconds."""
        known = self._average
        # a long call counts at once, so that the next ones travel alone again
        if known is None or runtime > 10 * SHORT:
            self._average = runtime
        else:
            self._average = 0.95 * known + 0.05 * runtime

    def room(self, jobs: int) -> int:
        """Return how many items the next slice may have; 0 if calls are to travel alone."""
        average = self._average
        if average is None or average > SHORT or self.under_way >= SLICES:
            return 0
        size = int(SLICE_SECONDS * jobs / max(average, 1e-6))
        return max(SLICE_LEAST, min(size, SLICE_MOST))

    def submit(self, items: Sequence[Placed]) -> None:
        """Submit a slice."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait, name="wetlands-slices", daemon=True)
            self._thread.start()
        results: Iterator[Any]
        if all(len(item.args) == 1 and not item.kwargs for _, item in items):
            # a text travels without a pickler of ours, a tuple does not
            args = [item.args[0] for _, item in items]
            results = self._executor.map(workers.RUN_ONE, args, return_exceptions=True)
        else:
            results = self._executor.map(
                workers.RUN,
                [item.args for _, item in items],
                [item.kwargs for _, item in items],
                return_exceptions=True,
            )
        self.under_way += 1
        self._slices.put((items, results, time.time()))

    def taken(self) -> None:
        """Note that a ``SliceDone`` was taken."""
        self.under_way -= 1

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._slices.put(None)
            self._thread.join()

    def _wait(self) -> None:
        while (found := self._slices.get()) is not None:
            items, results, submitted = found
            outcomes: list[Any] = []
            try:
                outcomes.extend(results)
            except BaseException as error:  # noqa: BLE001 - the pool has ended: of all the rest
                outcomes.extend([error] * (len(items) - len(outcomes)))
            self._inbox.put(SliceDone(items, outcomes, submitted))
