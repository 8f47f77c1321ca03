"""The end of one ``CarriedExecutor``, and of all of them at interpreter exit.

Any thread enters.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

from wetlands_executor import threads
from wetlands_executor.pool.closing import Finish, finish_at_exit

if TYPE_CHECKING:
    from wetlands_executor.carried.pool import CarriedPool

#: Seconds that a running call has, when its executor is to end soon, until its worker is ended.
KILL_AFTER = 10.0


class Lifecycle:
    """How one executor ends. Has the methods that ``Ending`` uses."""

    def __init__(self, pool: CarriedPool) -> None:
        self._pool = pool
        self._finished = Finish()
        # One entry: the thread that takes it ends the serving threads.
        self._unended = [None]
        self._timers: list[threading.Timer] = []
        lifecycles.add(self)

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked."""
        return self._pool.forked

    def shutdown(
        self, *, cancel_pending: bool = False, reason: str = "the executor was shut down"
    ) -> None:
        """Accept nothing more and end when everything is done. Does not wait for that.

        Args:
            cancel_pending: cancel what has not started; waits for the carrier's answer.
            reason: why, for tasks that are cancelled.
        """
        pool = self._pool
        self._begin(cancel_pending, reason)
        if cancel_pending:
            pool.cancel_now([call for call in list(pool.calls) if not call.is_running()])
        pool.when_empty(self._end)

    def _begin(self, cancel_pending: bool, reason: str) -> None:
        """Accept nothing more; cancel what no carrier has."""
        pool = self._pool
        pool.closing.refuse()
        if cancel_pending:
            pool.closing.cancel_because(reason)
        pool.held.cancel(reason, dependents=cancel_pending)

    def wind_down(self, reason: str) -> None:
        """End soon: cancel, ask, and end the workers of what still runs after ``KILL_AFTER`` s."""
        self._begin(True, reason)
        self._pool.cancel_all(list(self._pool.calls))
        self._pool.when_empty(self._end)
        if self._pool.calls:
            self._later(KILL_AFTER, lambda: self.terminate(kill=True, why=f"because {reason}"))

    def wind_down_later(self, seconds: float, reason: str) -> None:
        """Call ``wind_down`` after ``seconds``, unless everything has ended by then."""
        if not self._pool.empty:
            self._later(max(seconds, 0.0), lambda: self.wind_down(reason))

    def _later(self, seconds: float, job: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, job)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def terminate(self, *, kill: bool, why: str) -> None:
        """End the workers of what runs, cancel what waits."""
        del kill
        self._begin(True, f"its executor was ended {why}")
        for call in list(self._pool.calls):
            self._pool.kill(call)
        self._pool.when_empty(self._end)

    def when_finished(self, job: Callable[[], object]) -> None:
        """Call ``job`` when everything was delivered; now if it has been."""
        self._finished.then(job)

    def _end(self) -> None:
        """Nothing runs or waits any more: end what serves."""
        try:
            self._unended.pop()
        except IndexError:
            return
        try:
            # A thread of its own: the one that settles the last task is one of those that end.
            threads.start(self._finish, (), "wetlands-ending", threads.CALLBACKS)
        except RuntimeError:
            self._finish()  # no thread can be had any more

    def _finish(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._pool.end_threads()
        self._finished.come()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended and was delivered; True if so."""
        if self._pool.forked or threading.get_ident() == self._pool.callbacks.ident:
            return True  # of the latter: delivery waits for this very thread
        return self._finished.wait(timeout)


#: Ends that may still be waited for.
lifecycles: WeakSet[Lifecycle] = WeakSet()

finish_at_exit(lambda: [lifecycle for lifecycle in lifecycles if not lifecycle.forked])
