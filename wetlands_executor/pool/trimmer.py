"""Gives memory of free blocks back some time after the last large buffer has travelled.

I/O thread, but for ``note_now``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.workers import Workers
from wetlands_executor.sharedmem import arena
from wetlands_executor.sharedmem.results import ResultMemory


class Trimmer:
    """Looks after the last buffer whether workers and the host hold memory that they do not use.

    Args:
        loop: what runs the timer.
        workers: the pool's processes.
        sync: registers what is under way past the I/O thread.
    """

    def __init__(self, loop: IOLoop, workers: Workers, sync: Callable[[], None]) -> None:
        self._loop = loop
        self._workers = workers
        self._sync = sync
        # When a large buffer travelled last, on the monotonic clock; whether the timer for the end
        # of that is set. The one is written by any thread.
        self._last = 0.0
        self._set = False

    def note(self, result_memory: ResultMemory) -> None:
        """Note that a large buffer has travelled.

        Some time after the last one the memory of free blocks goes back.
        """
        result_memory.note_looked_at()
        self._last = time.monotonic()
        if not self._set:
            self._set = True
            self._loop.set_timer(arena.IDLE, self._trim)

    def note_now(self) -> bool:
        """Note that a large buffer is about to travel past the I/O thread.

        False if that has to take it, in order to set the timer. Any thread.
        """
        self._last = time.monotonic()
        return self._set

    def _trim(self) -> None:
        # Order: before the look. A thread that has noted a buffer since, and saw the timer set, is
        # seen here.
        self._set = False
        left = self._last + arena.IDLE - time.monotonic()
        if left > 0:
            self._set = True
            self._loop.set_timer(left, self._trim)
            return
        self._sync()  # of what is under way past this thread it could not see the end
        in_use = 0
        for process in self._workers:
            memory = process.result_memory.arena
            if memory is not None and not in_use:
                in_use = memory.trim()
            if process.result_memory.rest():
                process.ask_to_trim()
        if in_use:
            # They are freed without a word to the host. It looks again after the next call; an idle
            # pool is not woken for it.
            for process in self._workers:
                process.result_memory.note_use()
