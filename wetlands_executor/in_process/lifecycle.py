"""The end of one ``InProcessExecutor``, and of all of them at interpreter exit.

Any thread enters. Callbacks, timers and tasks may ask for the end too; where one of them would wait
for itself, it gets an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

from wetlands_executor import threads
from wetlands_executor.errors import TaskTimeoutError
from wetlands_executor.futures.settling import settle, settle_cancelled, withdraw
from wetlands_executor.futures.waiting import remaining
from wetlands_executor.pool.closing import Finish, finish_at_exit

if TYPE_CHECKING:
    from wetlands_executor.in_process.clock import Alarm
    from wetlands_executor.in_process.pool import ThreadPool

#: Seconds that a running call has when its executor is to end soon: to see the request, then to end
#: at the interrupt.
INTERRUPT_AFTER = 5.0


class Lifecycle:
    """How one executor ends. Has the methods of ``pool/lifecycle.py`` that ``Ending`` uses."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._finished = Finish()
        # One entry: the thread that takes it ends the serving threads.
        self._unended = [None]
        self._run_limit: Alarm | None = None
        self._finisher: threading.Thread | None = None
        lifecycles.add(self)

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked."""
        return self._pool.forked

    def shutdown(
        self, *, cancel_pending: bool = False, reason: str = "the executor was shut down"
    ) -> None:
        """Accept nothing more and end when everything is done. Does not wait.

        Args:
            cancel_pending: cancel what has not started.
            reason: why, for tasks that are cancelled.
        """
        pool = self._pool
        pool.closing.refuse()
        if cancel_pending:
            pool.closing.cancel_because(reason)
        pool.held.cancel(reason, dependents=cancel_pending)
        if cancel_pending:
            while (call := pool.queue.pop()) is not None:
                if call.take():
                    settle_cancelled(call.task, reason)
        pool.workers.look()
        pool.when_empty(self._end)

    def wind_down(self, reason: str) -> None:
        """End soon: cancel, ask, interrupt after ``INTERRUPT_AFTER`` s, give up after as many."""
        self.shutdown(cancel_pending=True, reason=reason)
        pool = self._pool
        for run in list(pool.runs):
            pool.ask_to_cancel(run.call)
        if pool.runs:
            for run in list(pool.runs):
                job = partial(run.interrupt, reason)
                run.alarms.append(pool.clock.set(INTERRUPT_AFTER, job))
            job = partial(self.terminate, kill=True, why=f"because {reason}")
            pool.clock.set(2 * INTERRUPT_AFTER, job)

    def wind_down_later(self, seconds: float, reason: str) -> None:
        """Call ``wind_down`` after ``seconds``, unless everything has ended by then."""
        if not self._pool.empty:
            self._pool.clock.set(max(seconds, 0.0), partial(self.wind_down, reason))

    def terminate(self, *, kill: bool, why: str) -> None:
        """Give up what runs, cancel what waits. Threads cannot be killed: ``kill`` says nothing."""
        del kill
        self.shutdown(cancel_pending=True, reason=f"its executor was ended {why}")
        for run in list(self._pool.runs):
            self._pool.give_up(run, f"its thread was left behind {why}")

    def limit_run(self, seconds: float | None) -> None:
        """Let what has not finished ``seconds`` from now fail; None lifts the limit."""
        clock = self._pool.clock
        if self._run_limit is not None:
            clock.stop(self._run_limit)
        self._run_limit = (
            None if seconds is None else clock.set(seconds, partial(self._end_run, seconds))
        )

    def _end_run(self, seconds: float) -> None:
        pool, why = self._pool, f"the run was limited to {seconds:g} s (set_timeout)"
        for task in list(pool.held.dependents):
            if withdraw(task):
                settle(task, None, TaskTimeoutError(why))
                pool.release(task)
        while (call := pool.queue.pop()) is not None:
            if call.take():
                settle(call.task, None, TaskTimeoutError(why))
        for run in list(pool.runs):
            pool.end_with(run, f"The task {run.call.task.name!r} was ended: {why}")

    def when_finished(self, job: Callable[[], object]) -> None:
        """Call ``job`` when everything was delivered; now if it has been."""
        self._finished.then(job)

    def _end(self) -> None:
        """Nothing runs or waits any more: end what serves."""
        try:
            self._unended.pop()
        except IndexError:
            return
        kind = threads.kind_of_this()
        if kind is None and not self._pool.callbacks.started:
            self._finish()
        else:
            # On a thread of its own: a thread that cancels or submits must not wait for callbacks
            # here, and a callback or a timer would wait for itself.
            try:
                threads.start(self._finish, (), "wetlands-ending", threads.CALLBACKS)
            except RuntimeError:
                self._finish()  # no thread can be started any more

    def _finish(self) -> None:
        self._finisher = threading.current_thread()
        self._pool.end_threads()
        self._finished.come()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended and was delivered; True if so.

        Raises:
            RuntimeError: this is a thread that runs a task of this executor.
        """
        pool = self._pool
        if pool.forked:
            return True
        ident = threading.get_ident()
        check_wait(pool, "the executor's end", "use shutdown(wait=False)")
        end = None if timeout is None else time.monotonic() + timeout
        workers = [worker.thread for worker in pool.workers.alive.copy()]
        if not pool.workers.join(lambda: pool.empty, timeout):
            return False
        if ident in (pool.callbacks.ident, pool.clock.ident):
            return True  # delivery waits for this very thread
        if not self._finished.wait(remaining(end)):
            return False
        for thread in (*workers, self._finisher):
            if isinstance(thread, threads.PoolThread) and thread.ident != ident:
                thread.join(remaining(end))
        return True


def check_wait(pool: ThreadPool, what: str, remedy: str) -> None:
    """Refuse to wait on a thread whose task would wait for itself.

    Args:
        pool: whose tasks are waited for, all of them.
        what: is waited for.
        remedy: what to do instead.

    Raises:
        RuntimeError: it would.
    """
    ident = threading.get_ident()
    if any(run.runs_on(ident) for run in list(pool.runs)):
        raise RuntimeError(
            f"a task of this executor cannot wait for {what}: it would wait for itself; {remedy}"
        )


#: Ends that may still be waited for.
lifecycles: WeakSet[Lifecycle] = WeakSet()

finish_at_exit(lambda: [lifecycle for lifecycle in lifecycles if not lifecycle.forked])
