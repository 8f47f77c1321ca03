"""Attributes malformed data from a worker, or a failure in serving it, to one call.

Such a worker is distrusted: it gets no further calls, and stops after the call that it runs. The
call that most likely caused the fault fails. The frames of a worker arrive in order, so that is the
call whose outcome comes next: the frames after the malformed data are examined (``judge``), and if
none of them is an outcome, the running call is ended together with its worker. I/O thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from wetlands_executor.errors import WorkerCrashed, describe
from wetlands_executor.pool.call import OUTCOMES, Call, CallPhase
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.outbox import Outbox
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.result_stream import Garbage, RawFrame
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.serialize.restricted import BadFrame
from wetlands_executor.worker import wire

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds that a distrusted worker may take to finish the call that it runs.
GRACE = 1.0


@dataclass(slots=True)
class Suspicion:
    """Why a worker is distrusted.

    Attributes:
        message: of the error with which the call that is to blame fails.
        garbled: some of the data was no frame, and an outcome may have been lost with it.
    """

    message: str
    garbled: bool


class Blame:
    """Contains failures: each costs at most one worker and one call.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
        timers: of calls and workers.
        output: the way to the program's log handlers.
        label: how messages call the environment.
        feed: feeds the state.
        read: reads all that a worker has sent.
        read_all: the same, and its answer on the shared page.
        register: registers what was sent to a worker directly.
        fail_with_reason: fails a call that its worker no longer has with its kill reason.
        start_error: makes the error of a start: (reason, stderr, cause).
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        workers: Workers,
        timers: CallTimers,
        output: Output,
        label: str,
        feed: Callable[[st.Event | None], None],
        read: Callable[[WorkerProcess], None],
        read_all: Callable[[WorkerProcess], None],
        register: Callable[[WorkerProcess], None],
        fail_with_reason: Callable[[WorkerProcess, Call], None],
        start_error: Callable[[str, str, BaseException | None], BaseException],
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._timers = timers
        self._output = output
        self._label = label
        self._feed = feed
        self._read = read
        self._read_all = read_all
        self._register = register
        self._fail_with_reason = fail_with_reason
        self._start_error = start_error

    def contain(self, error: Exception, doing: Any) -> None:
        """Blame a failure on the worker that it concerns, and on the call which that runs.

        A failure that concerns no worker is only logged.

        Args:
            error: what was raised.
            doing: what was being done: a callback, a timer, a job, an action.
        """
        process = concerned(doing)
        if process is not None and self._workers.has(process):
            self.fault(process, error)
        else:
            self.log_bug(error, doing)

    def log_bug(self, error: BaseException, what: object) -> None:
        """Log a failure of this package.

        On the output thread: handlers are user code, and take locks.
        """
        self._output.put_foreign(
            partial(
                LOGGER.critical,
                "wetlands_executor: %r failed; this is a bug, please report it",
                what,
                exc_info=error,
            )
        )

    def fault(self, process: WorkerProcess, error: Exception) -> None:
        """Handle a failure to process what a worker has sent, or to serve it."""
        if isinstance(error, BadFrame):
            self._distrust(process, str(error), garbled=isinstance(error, Garbage))
        else:
            self.log_bug(
                error, f"the handling of what the worker process {process.process.pid} has sent"
            )
            self._distrust(process, describe(error), garbled=False)

    def fault_later(self, process: WorkerProcess, error: Exception) -> None:
        """Do the same as ``fault``, after the present event is handled."""
        self._loop.post(partial(self.fault, process, error))

    def _distrust(self, process: WorkerProcess, why: str, *, garbled: bool) -> None:
        """Retire a worker that has sent malformed data; find the call that is to blame."""
        if process.exited:
            return
        if not process.ready:
            reason = self._start_error(
                f"it sent what no worker sends ({why})", process.output.tail(), None
            )
            process.kill_with(reason)
            return
        before: Suspicion | None = process.suspicion
        if before is None:
            # Order: what the worker has sent since is examined first; see `judge`.
            self._loop.post(partial(self._blame, process))
        message = (
            f"The worker process {process.process.pid} of {self._label} was ended, because while "
            f"it ran this task something was sent to this "
            f"process, or could not be handled here, that no worker sends ({why})"
        )
        process.suspect(Suspicion(message, garbled or (before is not None and before.garbled)))

    def judge(self, process: WorkerProcess, frame: RawFrame) -> bool:
        """Examine a frame that came after malformed data; return True if it does not decide.

        The first outcome decides: its call is to blame, and fails whatever the outcome says.

        An outcome that no call awaits comes from a call whose end was reported before. Then no
        other call is to blame.
        """
        suspicion: Suspicion | None = process.suspicion
        if suspicion is None or (frame[0] != wire.SEVERAL and frame[0] not in OUTCOMES):
            return suspicion is not None
        call = process.calls.get(frame[1] & wire.NUMBER)
        oldest = process.given.oldest()
        if call is None and oldest is not None and frame[1] & wire.NUMBER > oldest.number:
            return True  # of a call that is younger than all that have ended
        if call is not None and oldest is not None:
            if oldest is not call and not (
                suspicion.garbled and process.given.has_taken(call.number)
            ):
                return True  # this one is not due
            if oldest.batch is None:
                oldest.set_kill_reason(partial(_crash, suspicion.message))
            if oldest is not call:
                self._end_blamed(process, oldest)  # its outcome was lost in the malformed data
        process.suspect(None)
        self._loop.post(partial(self.retire, process))
        return False

    def retire(self, process: WorkerProcess) -> None:
        """Let a worker stop after what it runs; it gets nothing more."""
        self._feed(st.RetireRequested(process.worker))
        if self._workers.has(process):
            self._timers.set_for(process, GRACE, partial(self._end_retired, process))

    def _end_retired(self, process: WorkerProcess) -> None:
        """Kill a retired worker that runs none of the calls that it holds.

        An outcome was lost in the malformed data, and will not come.
        """
        if not self._workers.has(process):
            return
        self._read_all(process)
        if not self._workers.has(process) or not process.calls:
            return
        if process.given.running():
            self._timers.set_for(process, GRACE, partial(self._end_retired, process))
        else:
            process.kill()

    def _blame(self, process: WorkerProcess) -> None:
        """Blame the running call: the pipe has been read, and no call has ended since.

        It is ended together with its worker.
        """
        if not self._workers.has(process):
            return
        self._read(process)
        self._register(process)
        suspicion: Suspicion | None = process.suspicion
        process.suspect(None)
        if suspicion is None or not self._workers.has(process) or process.exited:
            return
        call = process.given.oldest()
        running = process.given.taken()
        if (
            call is not None
            and call.batch is not None
            and (running is None or running == call.number)
        ):
            process.kill_with(WorkerCrashed(suspicion.message))
            return
        self.retire(process)
        if call is None or (running is not None and running not in process.calls):
            # The call that it runs had reported its end. The calls that it holds have not begun:
            # they are reclaimed.
            return
        call.set_kill_reason(partial(_crash, suspicion.message))
        if running is None or running == call.number:
            self._feed(st.KillRequested(call, retry=True))
            self._timers.set_for(process, GRACE, partial(self._end_blamed, process, call))
        else:
            self._end_blamed(process, call)

    def _end_blamed(self, process: WorkerProcess, call: Call) -> None:
        """End a call that was blamed and has no outcome yet.

        If the worker does not run it, its outcome was lost in the malformed data.
        """
        if not self._workers.has(process) or call.number not in process.calls:
            return
        if call.batch is not None or process.given.is_running(call):
            process.kill_because(
                WorkerCrashed(
                    f"The worker process {process.process.pid} of "
                    f"{self._label} was ended: outcomes of its were "
                    f"lost"
                )
            )
            return
        del process.calls[call.number]
        self._fail_with_reason(process, call)
        if call.phase is not CallPhase.DECIDING:
            self._feed(st.ItemsFinished(process.worker, [call]))


def concerned(doing: Any) -> WorkerProcess | None:
    """Return the worker that a callback concerns; None if it concerns none.

    A bound method concerns the worker that it belongs to, a ``partial`` the worker among its
    arguments or the worker of the call among them.
    """
    while isinstance(doing, partial):
        for value in doing.args:
            if isinstance(value, Call):
                value = value.process
            if isinstance(value, WorkerProcess):
                return value
            if isinstance(value, partial):
                found = concerned(value)
                if found is not None:
                    return found
        doing = doing.func
    owner = getattr(doing, "__self__", None)
    if isinstance(owner, Outbox):
        owner = owner.owner
    return owner if isinstance(owner, WorkerProcess) else None


# `Settlement.explain` adds the stacks.
def _crash(message: str, stacks: str) -> BaseException:  # noqa: ARG001
    return WorkerCrashed(message)
