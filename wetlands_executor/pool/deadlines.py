"""Time limits of calls, silence of workers, and the escalation of a cancellation.

Deadlines are judged after the worker's pipe has been read: a result that is on its way counts. I/O
thread only.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

from wetlands_executor.errors import TaskTimeoutError, WorkerUnresponsive
from wetlands_executor.futures.settling import tell_started
from wetlands_executor.pool.call import Call, Kill
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st

#: Seconds that a worker (its exit hooks, its threads that are no daemons) or a fork server may take
#: to end by itself before it is killed.
STOP_GRACE = 5.0
#: Seconds that a worker may take to print its stacks before it is killed.
STACKS_GRACE = 0.2


class Deadlines:
    """Ends calls whose time is over.

    Args:
        workers: the pool's processes.
        timers: the limits that are set.
        feed: feeds the state.
        read: reads all that a worker has sent, its direct answer too.
        label: how messages call the environment.
        worker_timeout, task_timeout, cancel_grace: see ``CondaEnvExecutor``; seconds, None is no
            limit.

    Attributes:
        reported: workers have to report when they begin a call, because something limits it.
    """

    def __init__(
        self,
        *,
        workers: Workers,
        timers: CallTimers,
        feed: Callable[[st.Event | None], None],
        read: Callable[[WorkerProcess], None],
        label: str,
        worker_timeout: float | None,
        task_timeout: float | None,
        cancel_grace: float | None,
    ) -> None:
        self._workers = workers
        self._timers = timers
        self._feed = feed
        self._read = read
        self._label = label
        self.worker_timeout = worker_timeout
        self.task_timeout = task_timeout
        self.cancel_grace = cancel_grace
        self.reported = task_timeout is not None or worker_timeout is not None
        # Workers whose silence is watched.
        self._watched: set[int] = set()

    @property
    def any(self) -> bool:
        """True if something is limited or escalated that concerns each single call."""
        return any(
            limit is not None
            for limit in (self.task_timeout, self.worker_timeout, self.cancel_grace)
        )

    def limit_tasks(self, seconds: float | None) -> None:
        """Limit tasks that are submitted from now on. Any thread."""
        self.task_timeout = seconds
        self.reported = seconds is not None or self.worker_timeout is not None

    # --- calls

    def on_started(self, process: WorkerProcess, call: Call) -> None:
        """Start the time limit of a call, which its worker reports as begun."""
        task = call.task
        tell_started(task)
        options = call.options
        limit = (
            options.timeout
            if options is not None and options.timeout is not None
            else self.task_timeout
        )
        if limit is not None:
            since = process.given.running_since(call)
            spent = 0.0 if since is None else time.monotonic() - since
            self._timers.set(call, limit - spent, partial(self._check_time, call, limit))

    def _check_time(self, call: Call, limit: float) -> None:
        """End a call whose time is over, unless its result is on the way."""
        process = self._workers.holder(call)
        if process is None:
            return
        self._read(process)
        if self._workers.holder(call) is process and process.given.is_running(call):
            what = f"The task {call.name!r} ran longer than its limit of {limit:g} s"
            self.end_hung(process, call, partial(TaskTimeoutError, what))

    def end_hung(
        self, process: WorkerProcess, call: Call, kill_reason: Callable[[str], BaseException]
    ) -> None:
        """Let the worker print its stacks, then end it."""
        call.set_kill_reason(kill_reason)
        delay = STACKS_GRACE if process.ask_for_stacks() else 0.0
        self._timers.set(call, delay, partial(self._kill_hung, process, call))

    def _kill_hung(self, process: WorkerProcess, call: Call) -> None:
        if self._workers.holder(call) is process:
            self._feed(st.KillRequested(call, retry=True))

    # --- silence

    def watch_silence(self, process: WorkerProcess) -> None:
        """Limit the silence of a worker that gets something to do."""
        process.note_activity()
        if self.worker_timeout is not None and process.worker not in self._watched:
            self._watched.add(process.worker)
            self._timers.set_for(
                process, self.worker_timeout, partial(self._check_silence, process)
            )

    def _check_silence(self, process: WorkerProcess) -> None:
        self._watched.discard(process.worker)
        limit = self.worker_timeout
        if limit is None or not self._workers.has(process):
            return
        self._read(process)
        running = process.given.running()
        if not running and not process.calls:
            return
        left = process.last_activity + limit - time.monotonic()
        if left > 0 or not running or process.waits:
            left = max(left, limit / 10)
            self._watched.add(process.worker)
            self._timers.set_for(process, left, partial(self._check_silence, process))
            return
        call = running[0]
        what = (
            f"The worker process {process.process.pid} of {self._label} gave no sign of life for "
            f"{limit:g} s (worker_timeout) in {call.name!r}"
        )
        self.end_hung(process, call, partial(WorkerUnresponsive, what))

    def kill_later(self, process: WorkerProcess, delay: float) -> None:
        """Kill a process after ``delay`` seconds, if it has not ended by then."""
        self._timers.set_for(process, delay, partial(self.kill_if_alive, process))

    def kill_if_alive(self, process: WorkerProcess) -> None:
        """Kill a process, if it has not ended."""
        if self._workers.has(process):
            process.kill()

    def forget(self, process: WorkerProcess) -> None:
        """Drop the timers of a process that has ended."""
        self._watched.discard(process.worker)
        self._timers.stop_for(process)

    # --- a cancellation that is not heeded

    def on_cancel_sent(self, call: Call) -> None:
        """Start the escalation for a running call that was asked to stop, if it has a limit."""
        options = call.options
        grace = (
            options.cancel_grace
            if options is not None and options.cancel_grace is not None
            else self.cancel_grace
        )
        if grace is not None and call.begin_escalation():
            self._timers.set(call, grace, partial(self._escalate, call, grace))

    def _escalate(self, call: Call, grace: float) -> None:
        """Interrupt a call that has not stopped at the request.

        If that does not help, its worker is ended.
        """
        process = self._workers.holder(call)
        if process is None:
            return
        call.interrupt(
            f"it did not stop within {grace:g} s of the request (cancel_grace): it was interrupted"
        )
        process.interrupt(call, signal.SIGINT)
        self._timers.set(call, grace, partial(self._end_escalation, call))

    def _end_escalation(self, call: Call) -> None:
        if self._workers.holder(call) is not None:
            call.set_kill_reason(
                Kill.CANCELLED,
                "it did not stop at the request nor at the interrupt "
                "(cancel_grace): its worker was ended",
            )
            self._feed(st.KillRequested(call))
