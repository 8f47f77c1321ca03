"""The end of workers: from a process that has exited to ``WorkerExited`` with its ``DeathReport``.

I/O thread only.

The only place where a worker is declared dead. What it has sent before counts; what it has not
begun goes back to the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from wetlands_executor.errors import OF_STDERR, WorkerCrashed, describe
from wetlands_executor.pool import polling, spawn
from wetlands_executor.pool.blame import Blame
from wetlands_executor.pool.call import CallPhase
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.inbound import Inbound
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.nested import Nested
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.readiness import Readiness
from wetlands_executor.pool.result_stream import outcomes_of
from wetlands_executor.pool.watchdog import cancel_again
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.serialize.errors import decode_error
from wetlands_executor.serialize.restricted import BadFrame
from wetlands_executor.worker import wire

#: Seconds that a worker with a closed results pipe may take to end by itself.
CLOSED_GRACE = 1.0
#: Seconds that a fork server may take to report how a worker has ended.
STATUS_GRACE = 1.0
#: Seconds to wait for the rest of a dead worker's results where pipes are read by threads.
DRAIN_GRACE = 2.0
#: Seconds after which a submitting thread that is inside a direct send is looked for again.
INSIDE_GRACE = 0.005


class Reaper:
    """Declares the workers of a pool dead.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
        feed: feeds the state.
        closing: why all workers were ended at once, if they were.
        inbound, output, direct_calls: what takes the last that a worker has sent.
        deadlines: its timers.
        blame: handles failures.
        readiness: the threads that wait for a worker.
        nested: what functions in the workers have submitted.
        label: how messages call the environment.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        workers: Workers,
        feed: Callable[[st.Event | None], None],
        closing: Closing,
        inbound: Inbound,
        output: Output,
        direct_calls: DirectCalls,
        deadlines: Deadlines,
        blame: Blame,
        readiness: Readiness,
        nested: Nested,
        label: str,
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._feed = feed
        self._closing = closing
        self._inbound = inbound
        self._output = output
        self._direct_calls = direct_calls
        self._deadlines = deadlines
        self._blame = blame
        self._readiness = readiness
        self._nested = nested
        self._label = label

    def watch(self, process: WorkerProcess) -> None:
        """Watch a new process for its end."""
        self._loop.poller.add_reader(
            process.process.exit, polling.EXIT, partial(self._on_exit, process)
        )

    def watch_python(self, process: WorkerProcess) -> None:
        """Watch the Python for its end, if the process that was started is a wrapper of it."""
        inner = process.process.exit_of_python()
        if inner >= 0:
            self._loop.poller.add_reader(
                inner, polling.EXIT, partial(self._on_python_gone, process, inner)
            )

    def on_results_ended(self, process: WorkerProcess) -> None:
        """Handle the end of a results pipe: the worker has closed it, or is about to exit.

        If the worker goes on, nothing more can be read from it.
        """
        if process.exited:
            self._finalize(process)
        else:
            self._deadlines.kill_later(process, CLOSED_GRACE)

    def _on_python_gone(self, process: WorkerProcess, fd: int) -> None:
        """Handle the exit of the Python behind a wrapper.

        Its pipes say nothing of that: the wrapper has them too, and may go on for ever.
        """
        self._loop.poller.remove(fd)
        self._loop.set_timer(CLOSED_GRACE, partial(self._deadlines.kill_if_alive, process))

    def _on_exit(self, process: WorkerProcess, late: bool = False) -> None:
        """Handle the exit of a process: take what it still sent, then declare its death."""
        if not self._workers.has(process) or process.exited:
            return
        poller = self._loop.poller
        poller.remove(process.process.exit)
        if not late and not process.process.ended():
            # Its fork server is about to report how it ended. If the fork server is stopped, the
            # death is declared without.
            poller.remove(process.process.exit)
            poller.add_reader(process.process.exit, polling.EXIT, partial(self._on_exit, process))
            self._loop.set_timer(STATUS_GRACE, partial(self._on_exit, process, True))
            return
        process.note_exit()
        try:
            self._drain(process)
        except Exception as error:  # noqa: BLE001
            # what it has left cannot be read: it is dead all the same
            self._blame.log_bug(error, self._drain)
            self._finalize(process)

    def _drain(self, process: WorkerProcess) -> None:
        """Take what a process that has ended has sent, then declare its death."""
        process.process.kill_tree()  # children that hold its pipes open
        if not process.results.ended and isinstance(self._loop.poller, polling.ThreadPoller):
            self._loop.set_timer(DRAIN_GRACE, partial(self._finalize, process))
            return
        while not process.results.ended:
            before = process.results.arrived
            self._inbound.read(process)
            if process.results.arrived == before and not process.results.ended:
                # a surviving child holds the pipe; what the worker itself wrote has been read
                break
        self._finalize(process)

    def _finalize(self, process: WorkerProcess) -> None:
        """Reap, write the report, feed the state; once."""
        if not self._workers.has(process):
            return
        if not process.direct_send.close():
            # A submitting thread is inside; what it writes has to be seen before the end.
            self._loop.set_timer(INSIDE_GRACE, partial(self._finalize, process))
            return
        try:
            self._finalize_closed(process)
        except Exception as error:  # noqa: BLE001
            # a bug of ours: its calls must not wait for it all the same
            self._blame.log_bug(error, self._finalize)
            what = f"The worker process {process.process.pid} of {self._label}"
            reason = WorkerCrashed(
                f"{what} has ended, and that could not be dealt with ({describe(error)})"
            )
            self._end(process, st.WorkerExited(process.worker, (), False, st.DeathReport(reason)))

    def _finalize_closed(self, process: WorkerProcess) -> None:
        code = process.process.reap()
        # for submitters that wait directly: what is read now comes before what the process has
        # answered
        process.output.begin_reading()
        for last in (
            self._output.take_last,
            self._direct_calls.register,
            self._direct_calls.take_answer,
            self.take_unsent,
        ):
            # Order: what these make the state send to the dead process is reclaimed with the rest.
            try:
                last(process)
            except Exception as failure:  # noqa: BLE001
                # what it has left cannot be read: it is dead all the same
                if not isinstance(failure, BadFrame):
                    self._blame.log_bug(failure, last)
        back = process.reclaim()
        lost = process.reclaim_lost()
        error, final = self.exit_error(process, code)
        report = st.DeathReport(error, process.output.stacks(), process.output.counters)
        if process.result_memory.arena is not None:
            process.result_memory.arena.reclaim(process.result_memory.incarnation)
        self._end(process, st.WorkerExited(process.worker, lost + back, final, report))
        cancel_again(lost, self._feed)

    def _end(self, process: WorkerProcess, event: st.WorkerExited) -> None:
        self._workers.remove(process)
        self._nested.forget(process)
        self._feed(event)
        if process.hello is None:
            self._readiness.answer_hello()
        self.close(process)

    def close(self, process: WorkerProcess) -> None:
        """Close what belongs to a process that is gone."""
        process.discard()
        self._deadlines.forget(process)

    def take_unsent(self, process: WorkerProcess) -> None:
        """Take the outcomes that the dead process had put on the shared page but not yet sent."""
        page = process.process.page
        if page is None:
            return
        number, data = page.unsent()
        call = process.calls.get(number & wire.NUMBER)
        if data and call is not None and call.batch is not None:
            outcomes = outcomes_of(data)
            registered = call.batch.received - ((number >> wire.NUMBER_BITS) - 1)
            if 0 <= registered < len(outcomes):
                self._inbound.take_several(process, call, outcomes[registered:], 0)
                if call.batch.received == call.batch.count:
                    del process.calls[call.number]
                    call.move(CallPhase.ENDED)
                    self._feed(st.ItemsFinished(process.worker, [call]))

    def exit_error(self, process: WorkerProcess, code: int | None) -> tuple[BaseException, bool]:
        """Return the reason of this death, and True if another try to start would meet it again."""
        name = spawn.signal_name(code)
        how = spawn.describe_end(code, process.process.why_lost)
        tail = process.output.tail()
        said = f"{OF_STDERR}{tail}" if tail else ""
        if process.ready:
            if process.reason is not None:
                return process.reason, False
            why = f"{self._closing.kill_reason}. " if self._closing.kill_reason is not None else ""
            message = (
                f"{why}The worker process {process.process.pid} of {self._label} was ended {how} "
                f"while it ran this task{said}"
            )
            return WorkerCrashed(message, code, name, tail), False
        if process.reason is not None:
            return process.reason, True
        cause = (
            decode_error(process.failure, trusted_only=True)
            if process.failure is not None
            else None
        )
        error = self._readiness.start_error(
            f"its process ended {how} before it was ready", tail, cause
        )
        return error, code in (wire.EXIT_TOO_OLD, wire.EXIT_START_FAILED) or cause is not None
