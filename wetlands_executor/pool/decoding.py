"""The decoder threads of a pool, watched by its I/O thread: user code that unpickles runs there.

Any thread may enter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from wetlands_executor.pool.delivery import Decoders
from wetlands_executor.pool.io_loop import IOLoop


class Decoding:
    """Runs jobs on decoder threads, and starts one more when one is stuck.

    Args:
        loop: the pool's I/O thread, which alone starts decoder threads.
    """

    def __init__(self, loop: IOLoop) -> None:
        self._loop = loop
        self._decoders = Decoders("wetlands-decode", self._check_later)
        # The timer of the next look is set.
        self._watched = False

    def run(self, job: Callable[[], object]) -> None:
        """Run ``job`` on a decoder thread. Any thread."""
        if self._decoders.put(job):
            if self._loop.is_current:
                self._check(due=False)
            else:
                self._check_later()

    def end(self) -> None:
        """Run what was put, then end the threads; waits. I/O thread."""
        self._decoders.end()

    def _check_later(self) -> None:
        self._loop.post(partial(self._check, due=False))

    def _check(self, *, due: bool) -> None:
        """Start a decoder if one is needed. I/O thread.

        ``due``: the timer of an earlier look has fired; there is one at a time.
        """
        if due:
            self._watched = False
        delay = self._decoders.check()
        if delay is not None and not self._watched:
            self._watched = True
            self._loop.set_timer(delay, partial(self._check, due=True))
