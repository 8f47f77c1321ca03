"""What a pool has not finished, for threads that look or wait. Any thread."""

from __future__ import annotations

import time
from typing import Any

from wetlands_executor.futures.waiting import Latch
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState

#: How often a queue is copied that another thread changes meanwhile.
TRIES = 10


class UnderWay:
    """The calls of one pool that have not finished.

    Args:
        loop: the pool's I/O thread.
        state: its decisions; only its queues are read here.
        direct_calls: what passes the I/O thread.
        stats: counts tasks.
    """

    def __init__(
        self, *, loop: IOLoop, state: PoolState, direct_calls: DirectCalls, stats: TaskStats
    ) -> None:
        self._loop = loop
        self._state = state
        self._direct_calls = direct_calls
        self._stats = stats

    def waiting(self) -> list[Any]:
        """Return the items that no worker holds, as far as they can be seen from another thread."""
        found: list[Any] = []
        for queue in list(self._state.waiting.queues.values()):
            for _ in range(TRIES):
                try:
                    found.extend(item for item in list(queue) if item.place is st.WAITING)
                    break
                except RuntimeError:  # it changed while it was copied
                    continue
        return found + [entry for entry in list(self._loop.posted) if not callable(entry)]

    def wait_all(self, timeout: float | None) -> bool:
        """Wait until every task that was submitted has finished.

        Args:
            timeout: seconds to wait; None waits without limit.

        Returns:
            False if the time was over before.
        """
        end = None if timeout is None else time.monotonic() + timeout
        if self._loop.started and not self._loop.ended and not self._loop.forked:
            # What was submitted is counted by the I/O thread. When that comes to this, it has
            # counted all of it.
            counted = Latch()

            def count() -> None:
                try:
                    self._direct_calls.sync()
                finally:
                    counted.set()

            self._loop.post(count)
            if not counted.wait(timeout):
                return False
        return self._stats.wait(None if end is None else end - time.monotonic())
