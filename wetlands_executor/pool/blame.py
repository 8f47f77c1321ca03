"""Which call is to blame for bytes that no worker sends, or for a failure in serving its worker.

Such a worker is not trusted any more: it is given nothing, and ends after what it runs. The call
that has most likely done it fails. The frames of a worker come in order, so that is the call whose
outcome comes next: the first frames after the bad one are looked at (``judge``), and if no outcome
is among them, the call that runs is ended with its worker. I/O thread only.
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
from wetlands_executor.serialize.plain import BadFrame
from wetlands_executor.worker import wire

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds that a worker which is not trusted any more may take over what it does.
GRACE = 1.0


@dataclass(slots=True)
class Suspicion:
    """What is held against a worker.

    Attributes:
        message: what the call fails with that is to blame.
        garbled: among that were bytes that are no frame, with which an outcome may have been lost.
    """

    message: str
    garbled: bool


class Blame:
    """Contains failures: each costs one worker and one call, or nothing but what was to be done.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
        timers: of calls and workers.
        output: the way to the program's log handlers.
        label: how messages call the environment.
        feed: feeds the state.
        read: reads all that a worker has sent.
        read_all: the same, its direct answer too.
        register: registers what was sent to a worker directly.
        fail_with_reason: gives a call that its worker has no more the kill reason on it.
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
        """Let what has failed cost the worker that it was done for, and its running call.

        Or nothing but what was to be done.

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
        """Note that something that came from a worker, or was done for it, has failed."""
        if isinstance(error, BadFrame):
            self._distrust(process, str(error), garbled=isinstance(error, Garbage))
        else:
            self.log_bug(
                error, f"the handling of what the worker process {process.process.pid} has sent"
            )
            self._distrust(process, describe(error), garbled=False)

    def fault_later(self, process: WorkerProcess, error: Exception) -> None:
        """The same when the state has come to rest."""
        self._loop.post(partial(self.fault, process, error))

    def _distrust(self, process: WorkerProcess, why: str, *, garbled: bool) -> None:
        """Retire a worker that has sent what no worker sends; find the call that is to blame."""
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
            # Order: what the worker has sent since is looked at first; see `judge`.
            self._loop.post(partial(self._blame, process))
        message = (
            f"The worker process {process.process.pid} of {self._label} was ended, because while "
            f"it ran this task something was sent to this "
            f"process, or could not be handled here, that no worker sends ({why})"
        )
        process.suspect(Suspicion(message, garbled or (before is not None and before.garbled)))

    def judge(self, process: WorkerProcess, frame: RawFrame) -> bool:
        """Return True if the first frame since may be of the call that is to blame: an outcome is.

        The call fails, whatever the outcome.

        An outcome that is not awaited comes from a call that had said before that it had ended:
        then no other is to blame.
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
                self._end_blamed(process, oldest)  # its outcome was lost in what was no frame
        process.suspect(None)
        self._loop.post(partial(self.retire, process))
        return False

    def retire(self, process: WorkerProcess) -> None:
        """Let a worker stop after what it runs; it gets nothing more."""
        self._feed(st.RetireRequested(process.worker))
        if self._workers.has(process):
            self._timers.set_for(process, GRACE, partial(self._end_retired, process))

    def _end_retired(self, process: WorkerProcess) -> None:
        """End a worker that was to stop and runs nothing of what it holds.

        An outcome was lost in what was no frame, and will not come.
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
        """The pipe has been read, and no call has ended since.

        The one that runs is to blame, and ends with its worker.
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
            # What it runs had sent that it had ended. What it holds has not begun: it is reclaimed.
            return
        call.set_kill_reason(partial(_crash, suspicion.message))
        if running is None or running == call.number:
            self._feed(st.KillRequested(call, retry=True))
            self._timers.set_for(process, GRACE, partial(self._end_blamed, process, call))
        else:
            self._end_blamed(process, call)

    def _end_blamed(self, process: WorkerProcess, call: Call) -> None:
        """The call that was blamed has no outcome yet.

        If the worker does not run it (any more), that was lost in what was no frame.
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
    """Return the worker for which something is done.

    The one that a bound method or a ``partial`` has, or that has the call that it has.
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


# they are added by `Settlement.explain`
def _crash(message: str, stacks: str) -> BaseException:  # noqa: ARG001
    return WorkerCrashed(message)
