"""Timers that concern one call or one worker, and end with it. I/O thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from wetlands_executor.pool.io_loop import IOLoop

if TYPE_CHECKING:
    from wetlands_executor.pool.call import Call
    from wetlands_executor.pool.timers import Timer
    from wetlands_executor.pool.worker_process import WorkerProcess


class CallTimers:
    """The limits of calls and of workers that have not been reached.

    Args:
        loop: what runs them.
    """

    def __init__(self, loop: IOLoop) -> None:
        self._loop = loop
        #: Calls with timers of their own, and these.
        self.timed: dict[Call, list[Timer]] = {}

    def set(self, call: Call, delay: float, job: Callable[[], object]) -> None:
        """Run ``job`` after ``delay`` seconds, unless the call has ended by then.

        A limit keeps nothing alive.
        """
        self.timed.setdefault(call, []).append(self._loop.set_timer(delay, job))

    def stop(self, call: Call) -> None:
        """Stop the timers of a call that has ended or has left its worker."""
        for timer in self.timed.pop(call, ()):
            self._loop.stop_timer(timer)

    def stop_all(self, calls: Iterable[Call]) -> None:
        """Stop the timers of several calls."""
        if self.timed:
            for call in calls:
                self.stop(call)

    def clear(self) -> None:
        """Forget all calls; the loop has dropped their timers."""
        self.timed.clear()

    def set_for(self, process: WorkerProcess, delay: float, job: Callable[[], object]) -> None:
        """Run ``job`` after ``delay`` seconds, unless the process has ended by then."""
        process.timers[:] = [timer for timer in process.timers if timer.job is not None]
        process.timers.append(self._loop.set_timer(delay, job))

    def stop_for(self, process: WorkerProcess) -> None:
        """Stop the timer of a process that has ended or is ready."""
        for timer in process.timers:
            self._loop.stop_timer(timer)
        process.timers.clear()
