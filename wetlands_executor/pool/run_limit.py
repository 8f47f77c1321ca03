"""The limit of a whole run (``set_timeout``). I/O thread, but for ``set``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor.errors import TaskTimeoutError
from wetlands_executor.futures.settling import settle, withdraw
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
    from wetlands_executor.pool.timers import Timer


class RunLimit:
    """Ends all tasks of a pool when its time is over.

    Args:
        loop: the pool's I/O thread.
        feed: feeds the state.
        workers: its processes.
        deadlines: ends calls that run.
        sync: registers what is under way past the I/O thread.
        waiting: returns the items that no worker has.
        dependents: tasks that wait for others; always the same set.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        feed: Callable[[st.Event | None], None],
        workers: Workers,
        deadlines: Deadlines,
        sync: Callable[[], None],
        waiting: Callable[[], list[Any]],
        dependents: set[Task[Any]],
    ) -> None:
        self._loop = loop
        self._feed = feed
        self._workers = workers
        self._deadlines = deadlines
        self._sync = sync
        self._waiting = waiting
        self._dependents = dependents
        self._timer: Timer | None = None

    def set(self, seconds: float | None) -> None:
        """End all tasks that have not finished ``seconds`` from now; None lifts the limit.

        Any thread.
        """
        if self._loop.started or seconds is not None:
            self._loop.post(partial(self._set, seconds))

    def _set(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._loop.stop_timer(self._timer)
        self._timer = (
            None
            if seconds is None
            else self._loop.set_timer(seconds, partial(self._end_run, seconds))
        )

    def _end_run(self, seconds: float) -> None:
        self._sync()
        why = f"the run was limited to {seconds:g} s (set_timeout)"
        for task in list(self._dependents):
            if withdraw(task):
                settle(task, None, TaskTimeoutError(why))
        for item in self._waiting():
            if item.place is st.WAITING:
                item.fail(TaskTimeoutError(why))
                self._feed(st.CancelRequested(item))
        for process in self._workers:
            for call in list(process.calls.values()):
                if process.given.is_running(call):
                    call.give_up_tries()
                    self._deadlines.end_hung(
                        process,
                        call,
                        partial(TaskTimeoutError, f"The task {call.name!r} was ended: {why}"),
                    )
                else:
                    call.fail(TaskTimeoutError(why))
                    self._feed(st.CancelRequested(call))
