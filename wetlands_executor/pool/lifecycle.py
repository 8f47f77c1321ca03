"""How a pool begins and ends.

Shutdown, termination, interpreter exit, a fork of the host, a failure of its own thread.

Threads: what is asked for any; ``begin``, ``end`` and ``fail`` are the I/O thread's.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from wetlands_executor import threads
from wetlands_executor.errors import because, describe
from wetlands_executor.futures.settling import cancel_deferred
from wetlands_executor.pool import polling
from wetlands_executor.pool.announcing import Announcing
from wetlands_executor.pool.call import FAILED, Outcome
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.cancelling import Cancelling
from wetlands_executor.pool.closing import Closing, Finish
from wetlands_executor.pool.decoding import Decoding
from wetlands_executor.pool.delivery import Latch, SerialThread
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.readiness import Readiness
from wetlands_executor.pool.reaper import Reaper
from wetlands_executor.pool.shell import Shell
from wetlands_executor.pool.start import Starter, StartSettings
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task

LOGGER = logging.getLogger("concurrent.futures")

#: How often a submitting thread that is inside a direct send is waited for when the pool has
#: failed.
INSIDE_TRIES = 200
#: Seconds that a running call has, when its pool is to end soon: to see the request, then to end at
#: the interrupt.
INTERRUPT_AFTER = 5.0


@dataclass
class Held:
    """Tasks of a pool that were not submitted yet. Any thread.

    Attributes:
        unstarted: those that wait for ``start()``.
        dependents: those that wait for others.
    """

    unstarted: WeakSet[Task[Any]] = field(default_factory=WeakSet)
    dependents: set[Task[Any]] = field(default_factory=set)

    def cancel(self, reason: str, *, dependents: bool) -> None:
        """Cancel those that wait for ``start()``, and if asked to those that wait for others.

        Args:
            reason: why.
            dependents: the latter too.
        """
        for task in list(self.unstarted):
            cancel_deferred(task, f"{reason} before the task was started")
        for task in list(self.dependents) if dependents else ():
            cancel_deferred(task, reason)
            self.dependents.discard(task)


@dataclass(frozen=True)
class LifecycleParts:
    """What ``Lifecycle`` uses."""

    loop: IOLoop
    state: PoolState
    shell: Shell
    workers: Workers
    direct_calls: DirectCalls
    timers: CallTimers
    cancelling: Cancelling
    announcing: Announcing
    readiness: Readiness
    reaper: Reaper
    starter: Starter
    settings: StartSettings
    output: Output
    decoding: Decoding
    callbacks: SerialThread
    closing: Closing
    held: Held
    label: str
    pool: Any


class Lifecycle:
    """The end of one pool.

    Attributes:
        workers_gone: set when no worker is left.
        finished: set when everything was delivered, too.
    """

    def __init__(self, parts: LifecycleParts) -> None:
        self._parts = parts
        self._closing = parts.closing
        self._loop = parts.loop
        self.workers_gone = Latch()
        self.finished = Finish()

    # --- any thread

    def shutdown(
        self, *, cancel_pending: bool = False, reason: str = "the executor was shut down"
    ) -> None:
        """Accept nothing more and end when everything is done.

        Does not wait: a finalizer may call it.

        Args:
            cancel_pending: cancel what has not started.
            reason: why, for tasks that are cancelled.
        """
        self._closing.refuse()
        if cancel_pending:
            self._closing.cancel_because(reason)
        self._parts.held.cancel(reason, dependents=cancel_pending)
        if not self.end_unused():
            self._loop.post(partial(self._parts.shell.feed, st.ShutdownRequested(cancel_pending)))

    def end_unused(self) -> bool:
        """End a pool that was never used, without starting anything; False if it has been used.

        Threads that are started at interpreter exit only to end harm others: before CPython 3.12.3
        they make `threading` forget to wait for the program's own threads.
        """
        if not self._loop.close_unused(self._parts.callbacks.started):
            return False
        # Repeated on each call: an exception from a signal handler may have interrupted the call
        # before.
        self._parts.settings.release()
        # Race: another thread may be about to put the callbacks of a task that it has settled.
        self._parts.callbacks.end_unstarted()
        self._loop.reject_late()
        self.workers_gone.set()
        self.finished.come()
        return True

    def wind_down(self, reason: str) -> None:
        """End soon. Does not wait; any thread.

        What has not started is cancelled; what runs is asked to stop, interrupted after
        ``INTERRUPT_AFTER`` seconds, and its worker is ended after as many more.

        Args:
            reason: why, for tasks that are cancelled.
        """
        self.shutdown(cancel_pending=True, reason=reason)
        if self._loop.started and not self._loop.ended:
            self.ask_running(None)
            self._loop.later(INTERRUPT_AFTER, partial(self.ask_running, signal.SIGINT))
            self._loop.later(
                2 * INTERRUPT_AFTER, partial(self.terminate, kill=True, why=f"because {reason}")
            )

    def wind_down_later(self, seconds: float, reason: str) -> None:
        """Call ``wind_down`` after ``seconds``, unless the pool has ended by then. Any thread."""
        if self._loop.started and not self._loop.ended:
            self._loop.later(max(seconds, 0.0), partial(self.wind_down, reason))

    def when_finished(self, job: Callable[[], object]) -> None:
        """Call ``job`` when the pool has ended and everything was delivered; now if it has.

        ``job`` must neither block nor run user code.
        """
        self.finished.then(job, now=not self._loop.started or self._loop.forked)

    def terminate(self, *, kill: bool, why: str) -> None:
        """End all workers now: running calls are lost, the others cancelled.

        Args:
            kill: at once; else SIGTERM comes first.
            why: for the tasks that it costs; continues "its worker was killed".
        """
        closing, held = self._closing, self._parts.held
        closing.refuse()
        closing.kill_because(f"its worker was killed {why}")
        closing.cancel_because(f"the workers of its executor were killed {why}")
        for task in [*held.unstarted, *held.dependents]:
            cancel_deferred(task, closing.reason)
        if not self.end_unused():
            self._loop.post(partial(self._terminate, kill))

    def _terminate(self, kill: bool) -> None:
        if self._parts.settings.fork_server is not None:
            self._parts.settings.fork_server.kill()
        if not kill:
            for process in self._parts.workers:
                process.process.terminate()
        self._parts.shell.feed(st.TerminateRequested())

    def ask_running(self, signal_number: int | None) -> None:
        """Ask every running call to stop: by its flag, or by a signal to its worker."""

        def ask() -> None:
            self._parts.direct_calls.sync()
            for process in self._parts.workers:
                for call in process.given.running():
                    if signal_number is None:
                        process.request_cancel(call)
                    else:
                        process.interrupt(call, signal_number)

        self._loop.post(ask)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers are gone and everything was delivered; True if so.

        Not from a thread that delivers.
        """
        if not self._loop.started or self._loop.forked:
            return True
        kind = threads.kind_of_this()
        if kind is not None and not self.finished.is_set():
            threads.check(self._parts.pool)
            if threading.get_ident() in threads.holding:
                raise RuntimeError(
                    "the executor cannot end before this function (retry_on, or "
                    "the pickling of a call) has returned"
                )
            if kind == threads.DECODE or threading.get_ident() in (
                self._parts.callbacks.ident,
                self._parts.output.thread.ident,
            ):
                return self.workers_gone.wait(timeout)  # delivery waits for this very thread
        if not self.finished.wait(timeout):
            return False
        thread = self._loop.thread
        if isinstance(thread, threads.PoolThread) and thread is not threading.current_thread():
            thread.join()  # it has nothing left to do; an interrupt here does no harm
        return True

    # --- the I/O thread

    def begin(self, poller: polling.Poller) -> None:
        """Get ready: the thread runs."""
        self._parts.direct_calls.begin(poller)

    def end(self) -> None:
        """Deliver what is under way and let all threads go that wait.

        Runs last on the I/O thread.
        """
        parts, loop = self._parts, self._loop
        parts.direct_calls.open([])
        parts.settings.release()
        loop.stop_timers()
        parts.timers.clear()
        parts.readiness.end()
        # after a failure only: others are closed when they have ended
        for process in parts.workers:
            _try(parts.reaper.close, process)
        parts.workers.clear()
        parts.starter.end()
        loop.finish()
        parts.direct_calls.end()
        loop.reject_late()
        self.workers_gone.set()
        loop.close()
        parts.output.thread.end()
        parts.decoding.end()
        parts.callbacks.end()
        self.finished.come()

    def fail(self, error: BaseException) -> None:
        """After a bug of ours.

        Kill all workers and fail every task that is known, so that no thread waits for ever.
        """
        parts = self._parts
        failure = because(
            BrokenProcessPool(f"the pool of {parts.label} failed: {describe(error)}"), error
        )
        self._closing.break_with(failure)
        # Order: first. A thread that is inside a direct send is waited for below, and no other
        # begins one
        parts.direct_calls.open([])
        items: dict[Any, None] = {}
        if parts.settings.fork_server is not None:
            _try(parts.settings.fork_server.kill)
        for process in parts.workers:
            _try(process.kill)
            _wait_for_sender(process)
            _try(process.register)
            items.update(dict.fromkeys(process.calls.values()))
            _try(process.process.reap)
        _try(parts.direct_calls.take_abandoned)
        items.update(dict.fromkeys(parts.state.items()))
        items.update(dict.fromkeys(parts.announcing.calls))
        items.update(dict.fromkeys(parts.timers.timed))
        for item in items:
            _try(item.receiver.on_outcome, item, Outcome(FAILED, failure))
        for reply in parts.cancelling.refuse_all():
            _try(reply)
        parts.state.abandon()
        parts.shell.close()

    def after_fork_in_child(self) -> None:
        """Let go of everything.

        The pool belongs to the parent (``spawn`` closes the descriptors).
        """
        self._loop.after_fork_in_child()
        self._closing.refuse()
        self._parts.direct_calls.forget()
        self._parts.workers.forget()


def _wait_for_sender(process: WorkerProcess) -> None:
    for _ in range(INSIDE_TRIES):  # each waits a little; a thread inside writes one frame
        if process.direct_send.close():
            break


def _try(job: Callable[..., object], *args: Any) -> None:
    """Run one of several steps that must all be tried, whatever the others raise."""
    try:
        job(*args)
    except Exception:
        LOGGER.critical("wetlands_executor: %r failed as well", job, exc_info=True)
