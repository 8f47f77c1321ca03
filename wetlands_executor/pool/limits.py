"""Time: limits of calls, silence of workers, what happens to a call that hangs. I/O thread only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from wetlands_executor.errors import TaskTimeoutError, WorkerUnresponsive
from wetlands_executor.events import TaskEventType
from wetlands_executor.pool.process import Call, WorkerProcess
from wetlands_executor.pool.settling import Settling
from wetlands_executor.scheduling import messages as st
from wetlands_executor.sharedmem import arena

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds that a worker may take to print its stacks before it is killed.
STACKS_GRACE = 0.2


class Limits(Settling):
    """Ends calls whose time is over. Deadlines are judged after the pipe has been read: a result that is on its way counts."""

    #: When a large buffer travelled last, on the monotonic clock; whether the timer for the end of that is set. The one is written by any thread.
    _blocks_at = 0.0
    _trim_set = False

    def _on_started(self, process: WorkerProcess, call: Call) -> None:
        task = call.task
        task._seen_running = True
        task._emit(TaskEventType.STARTED)
        options = task._options
        limit = options.timeout if options is not None and options.timeout is not None else self.task_timeout
        if limit is not None:
            since = process.running_since(call)
            spent = 0.0 if since is None else time.monotonic() - since
            self._set_call_timer(call, limit - spent, partial(self._check_time, call, limit))

    @staticmethod
    def _begin_untold(call: Call) -> None:
        """A worker has taken a call that it was not asked to announce. Order: who hears that it has started finds it running."""
        call.task._seen_running = True
        call.task._emit(TaskEventType.STARTED)

    def _watch_silence(self, process: WorkerProcess) -> None:
        """The worker gets something to do: from now on it must be heard."""
        process.last_heard = time.monotonic()
        if self.worker_timeout is not None and not process.silence_watched:
            process.silence_watched = True
            self._set_process_timer(process, self.worker_timeout, partial(self._check_silence, process))

    def _check_time(self, call: Call, limit: float) -> None:
        """The time of a call is over, unless its result is on the way."""
        process = call.process
        if process is None or self.processes.get(process.worker) is not process:
            return
        self._on_results(process)
        self.take_answer(process)
        if call.number in process.calls and process.is_running(call):
            what = f"The task {call.task.name!r} ran longer than its limit of {limit:g} s"
            self._end_hung(process, call, partial(TaskTimeoutError, what))

    def _check_silence(self, process: WorkerProcess) -> None:
        process.silence_watched = False
        limit = self.worker_timeout
        if limit is None or self.processes.get(process.worker) is not process:
            return
        self._on_results(process)
        self.take_answer(process)
        running = [call for call in process.calls.values() if process.is_running(call)]
        if not running and not process.calls:
            return
        left = process.last_heard + limit - time.monotonic()
        if left > 0 or not running:
            left = max(left, limit / 10)
            process.silence_watched = True
            self._set_process_timer(process, left, partial(self._check_silence, process))
            return
        call = running[0]
        what = f"The worker process {process.process.pid} of {self.what} gave no sign of life for {limit:g} s (worker_timeout) in {call.task.name!r}"
        self._end_hung(process, call, partial(WorkerUnresponsive, what))

    def _note_blocks(self, process: WorkerProcess) -> None:
        """A large buffer has travelled: some time after the last one the memory of free blocks goes back."""
        process.parcels.used = False
        self._blocks_at = time.monotonic()
        if not self._trim_set:
            self._trim_set = True
            self._set_timer(arena.IDLE, self._trim)

    def _note_block(self) -> bool:
        """Note that a large buffer is about to travel past the I/O thread; False if that has to take it, in order to set the timer. Any thread."""
        self._blocks_at = time.monotonic()
        return self._trim_set

    def _trim(self) -> None:
        self._trim_set = False  # Order: before the look. Who has noted a buffer since, and saw the timer set, is seen here.
        left = self._blocks_at + arena.IDLE - time.monotonic()
        if left > 0:
            self._trim_set = True
            self._set_timer(left, self._trim)
            return
        self.catch_up()  # of what is under way past this thread it could not see the end
        in_use = 0
        for process in self.processes.values():
            memory = process.parcels.arena
            if memory is not None and not in_use:
                in_use = memory.trim()
            if process.parcels.rest():
                process.ask_to_trim()
        if in_use:
            # They are freed without a word to the host. It looks again after the next call; an idle pool is not woken for it.
            for process in self.processes.values():
                process.parcels.used = True

    def _end_hung(self, process: WorkerProcess, call: Call, verdict: Callable[[str], BaseException]) -> None:
        """Let the worker print its stacks, then end it."""
        call.task._verdict = verdict
        delay = STACKS_GRACE if process.ask_for_stacks() else 0.0
        self._set_call_timer(call, delay, partial(self._kill_hung, process, call))

    def _kill_hung(self, process: WorkerProcess, call: Call) -> None:
        if self.processes.get(process.worker) is process and call.number in process.calls:
            self._feed(st.KillRequested(call, retry=True))
