"""Calls that must report their start, although that was not asked for when they were submitted.

A listener came later. If the call has not begun it is reclaimed, and sent again with the request.
Threads: ``watch`` any; else the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from wetlands_executor.futures.settling import tell_started
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.scheduling import messages as st

#: Seconds after which a call that could not be reclaimed is looked at again.
WATCH_AGAIN = 0.005


class Announcing:
    """Calls whose workers have not been asked to announce them.

    Args:
        loop: the pool's I/O thread.
        feed: feeds the state.
        can_reclaim: False where a worker has one call at a time.
        latest: returns the call of a task's present try, and whether it has not finished.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        feed: Callable[[st.Event | None], None],
        can_reclaim: bool,
        latest: Callable[[Call], tuple[Call, bool]],
    ) -> None:
        self._loop = loop
        self._feed = feed
        self._can_reclaim = can_reclaim
        self._latest = latest
        # Calls that are being reclaimed, to be sent again with the request.
        self._unannounced: set[Call] = set()

    def watch(self, call: Call) -> None:
        """Have the worker report when this call begins. Any thread."""
        self._loop.post(partial(self._watch, call))

    def _watch(self, call: Call) -> None:
        call, pending = self._latest(call)
        call.watch()
        process = call.process
        if process is None or not pending:
            return
        if not self._can_reclaim or process.given.is_running(call):
            _begin(call)  # what such a worker has is what it runs
            return
        self._unannounced.add(call)
        self._feed(st.ReclaimRequested(call))
        if call in self._unannounced:
            # Race: a submitting thread was inside a direct send, and nothing was reclaimed.
            self._unannounced.discard(call)
            self._loop.set_timer(WATCH_AGAIN, partial(self._watch, call))

    def on_reclaimed(self, process: WorkerProcess, back: Sequence[Call]) -> None:
        """Handle the calls that a worker has given back because it had not started them."""
        for call in [call for call in self._unannounced if call.process is process or call in back]:
            self._unannounced.discard(call)
            if call.process is process:
                # Race: the worker was faster, even if it has not written to the page yet. Its frame
                # does not ask for a report.
                _begin(call)

    @property
    def calls(self) -> set[Call]:
        """The calls that are being reclaimed."""
        return self._unannounced


def _begin(call: Call) -> None:
    """Deliver STARTED of a call whose worker was not asked to report it.

    Order: a listener that gets STARTED observes the task RUNNING.
    """
    tell_started(call.task)
