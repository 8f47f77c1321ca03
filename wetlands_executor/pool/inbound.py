"""What comes from workers, frame by frame.

Outcomes, progress, outputs, logs, and what a worker says before it is ready. I/O thread only.

Order: a batch of events is served output first, then results, then exits (ranks in ``polling.py``),
and output is looked at once more after results were read, so that what a task printed is on its way
before its result is; a result that was sent before a crash counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from wetlands_executor.futures.reports import reports_of
from wetlands_executor.futures.settling import note_run, settle_in_batch
from wetlands_executor.pool.call import GARBAGE, OUTCOMES, Call, CallPhase, Outcome
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.nested import Nested
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.probing import Probes
from wetlands_executor.pool.result_stream import Frame, Garbage, RawFrame, outcomes_of
from wetlands_executor.pool.settlement import Settlement
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.trimmer import Trimmer
from wetlands_executor.pool.worker_process import WorkerPhase, WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.retry import Failure
from wetlands_executor.serialize import restricted
from wetlands_executor.serialize.restricted import BadFrame, NotBuiltin, trivial_value
from wetlands_executor.worker import wire
from wetlands_executor.worker.wire import NONE, NUMBER

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task

#: Seconds after which a worker that was asked for its stacks, and has gone on, has printed them.
STACKS_PRINTED = 1.0
#: Seconds after which an outcome whose call is not registered yet is taken up again.
TAKE_AGAIN = 0.001

_OF_STARTS = frozenset((wire.HELLO, wire.READY, wire.START_FAILED, wire.INITIALIZER_FAILED))
_REPORTS = frozenset((wire.STARTED, wire.UPDATE, wire.OUTPUT))
_PLAIN_OUTCOMES = frozenset((wire.VALUE, wire.NONE))
_NOTHING = (None,)
# What every call needs, without a look into the Enum each time.
_GIVEN, _ENDED = CallPhase.GIVEN, CallPhase.ENDED


class Suspects(Protocol):
    """Finds the call that is to blame for malformed data; see ``blame.py``."""

    def fault(self, process: WorkerProcess, error: Exception) -> None:
        """Handle a failure to process what a worker has sent, or to serve it."""

    def judge(self, process: WorkerProcess, frame: RawFrame) -> bool:
        """Examine a frame that came after malformed data; return True if it does not decide."""


@dataclass(frozen=True)
class InboundParts:
    """What ``Inbound`` uses.

    Attributes:
        starting: takes what a worker says before it is ready: (process, kind, data).
        ended: called when a results pipe is at its end.
    """

    loop: IOLoop
    workers: Workers
    stats: TaskStats
    output: Output
    settlement: Settlement
    deadlines: Deadlines
    timers: CallTimers
    trimmer: Trimmer
    probes: Probes
    direct_calls: DirectCalls
    suspects: Suspects
    nested: Nested
    feed: Callable[..., None]
    starting: Callable[[WorkerProcess, int, Any], None]
    ended: Callable[[WorkerProcess], None]


class Inbound:
    """Takes the frames of a pool's workers."""

    def __init__(self, parts: InboundParts) -> None:
        self._parts = parts
        self._feed = parts.feed
        self._settlement = parts.settlement

    # --- reading

    def read(self, process: WorkerProcess) -> None:
        """Read what a worker has sent, and take it."""
        if process.phase is WorkerPhase.GONE:
            return  # a job that was posted has found its end
        frames, ended = process.results.read()
        if frames:
            self.take_printed(process, frames)
            frames = []
        if ended:
            process.results.close()
            self._parts.loop.poller.remove(process.process.results)
            self._parts.ended(process)

    def read_all(self, process: WorkerProcess) -> None:
        """Read what a worker has sent, on the direct way too."""
        self.read(process)
        self._parts.direct_calls.take_answer(process)

    def take_printed(self, process: WorkerProcess, frames: list[RawFrame]) -> None:
        """Take what was printed before these frames were sent, then these."""
        outcomes = False
        for frame in frames:
            if frame[0] == wire.SEVERAL or frame[0] in OUTCOMES:
                outcomes = True
                break
        self._parts.output.read_before(process, outcomes)
        self._take(process, frames)

    def _take(self, process: WorkerProcess, frames: list[RawFrame]) -> None:
        """Settle what finished, then feed the state one event."""
        parts = self._parts
        # What submitting threads have sent: the calls are registered at once, the state is fed
        # their events together with what has finished.
        sent: list[st.Event] = []
        if process.direct_send.sent:
            sent = parts.direct_calls.registered(process)
            if len(frames) > 1 or frames[0][0] not in OUTCOMES:
                self._feed(None, sent)  # more may happen in between than one outcome
                sent = []
        finished: list[Call] = []
        settled: list[Task[Any]] = []
        entries: list[int] = []
        if parts.deadlines.worker_timeout is not None:
            process.note_activity()
        rest = iter(frames)
        while True:
            try:
                self._take_each(process, rest, finished, settled, entries)
                break
            except Exception as error:  # noqa: BLE001
                # it costs one frame; the frames behind it are taken
                parts.suspects.fault(process, error)
        if settled:
            parts.stats.returned(settled)
        if finished or entries:
            single = sum(call.batch is None for call in finished) if entries else len(finished)
            process.note_finished(single + sum(entries), bool(finished))
            if parts.timers.timed:
                parts.timers.stop_all(finished)
        if process.result_memory.used:
            parts.trimmer.note(process.result_memory)
        if finished or sent:
            self._feed(st.ItemsFinished(process.worker, finished) if finished else None, sent)

    def _take_each(
        self,
        process: WorkerProcess,
        frames: Iterator[RawFrame],
        finished: list[Call],
        settled: list[Task[Any]],
        entries: list[int],
    ) -> None:
        """Take frames.

        Add what has ended, the tasks that were settled at once, and the counts of batches.
        """
        calls, output, given = process.calls, process.output, process.given
        pid, now = process.process.pid, time.time()
        suspected = process.suspicion is not None
        due = iter(list(calls.values()))  # what comes next is as a rule the oldest
        expected = next(due, None)
        for frame in frames:
            if suspected:
                suspected = self._parts.suspects.judge(process, frame)
            kind, number, data, duration = frame
            if given.late and given.is_late(number):
                # Order: what a call has logged, reported or set comes before its outcome, although
                # the call may have been registered meanwhile.
                self._defer(process, frame)
                continue
            if number > NUMBER and (kind == wire.SEVERAL or kind in OUTCOMES):
                self._take_of_batch(process, frame, finished, entries)
                continue
            call = calls.get(number)
            if call is not None:
                if call is expected:
                    expected = next(due, None)
                elif call is not next(iter(calls.values())) and not given.may_say(
                    kind in OUTCOMES, number
                ):
                    raise BadFrame(f"kind {kind} of a call that is not due")
                if (
                    call.plain
                    and kind in _PLAIN_OUTCOMES
                    and not output.printed
                    and (found := _NOTHING if kind == NONE else trivial_value(data))
                ):
                    # The short way: no output to wait for, no option to check, no user code. Not
                    # through `Call.move`, one function for each of many short results.
                    assert call.phase is _GIVEN
                    del calls[number]
                    call.phase = _ENDED
                    finished.append(call)
                    if settle_in_batch(call.task, found[0], now, pid, duration / 1e6):
                        settled.append(call.task)
                    continue
            if kind in OUTCOMES:
                ended = self._take_outcome(process, Frame(kind, number, data, duration))
                if ended is not None:
                    finished.append(ended)
            elif number:
                self._on_report(process, Frame(kind, number & wire.NUMBER, data, duration))
            else:
                self._on_message(process, kind, data)

    # --- outcomes

    def _take_outcome(self, process: WorkerProcess, frame: Frame) -> Call | None:
        """Take the outcome of a call, or of a batch of one.

        Return the call if it is finished, None if that is still to be found out.
        """
        calls, number = process.calls, frame.number
        if number not in calls and not self._has_registered(process, frame):
            # Order: `printed` stays. What the call has printed is dealt with when its outcome is
            # looked at again.
            return None
        call = calls.get(number)
        ended = None if call is None else self._end_call(process, call, frame)
        process.output.note_end(number)
        return ended

    def _end_call(self, process: WorkerProcess, call: Call, frame: Frame) -> Call | None:
        if frame.kind == wire.VALUE_IN_LENT and not call.depth:
            raise BadFrame("the result of a nested task, of a call that is none")
        if call.batch is not None:
            return self._end_batch(process, call, frame)
        del process.calls[frame.number]
        kind, task = frame.kind, call.task
        note_run(task, process.process.pid, frame.duration / 1e6)
        if kind == wire.ERROR and call.interrupted and _is_interrupt(frame.payload):
            kind = wire.CANCELLED
        if callable(call.kill_reason):
            # Race: its time was over, and our question for its stacks may have interrupted it. The
            # kill reason stands.
            self.fail_with_reason(process, call)
            return None if call.phase is CallPhase.DECIDING else call
        again = kind == wire.ERROR and self._settlement.asks_for_retry(call, Failure.RAISED)
        if again:
            self._settlement.decide_later(call)
        else:
            call.move(CallPhase.ENDED)
        self._parts.output.deliver(
            process, call, partial(call.receiver.on_outcome, call, Outcome(kind, frame.payload))
        )
        return None if again else call

    def fail_with_reason(self, process: WorkerProcess, call: Call) -> None:
        """Give a call that its worker has no more the kill reason on it."""
        # It has ended by itself, so the worker goes on: what it prints from some time on is not
        # what it was asked for.
        self._parts.timers.set_for(process, STACKS_PRINTED, partial(self._forget_stacks, process))
        self._settlement.fail_with_reason(call, process.output.stacks())

    def _forget_stacks(self, process: WorkerProcess) -> None:
        if not process.exited:
            process.output.forget_stacks()

    def _end_batch(self, process: WorkerProcess, call: Call, frame: Frame) -> Call:
        """Deal with the outcome of a batch of one, or the end of one whose rest was left out."""
        batch = call.batch
        assert batch is not None
        if frame.kind != wire.CANCELLED and batch.count - batch.received != 1:
            raise BadFrame(f"kind {frame.kind} of several calls")
        del process.calls[frame.number]
        call.move(CallPhase.ENDED)
        if callable(call.kill_reason):
            self.fail_with_reason(process, call)
        elif frame.kind == wire.CANCELLED:
            self._parts.output.deliver(
                process, call, partial(call.receiver.on_cancelled, call, None)
            )
        else:
            batch.note_duration(frame.duration)
            outcome = Outcome(frame.kind, frame.payload, batch.advance())
            self._parts.output.deliver(
                process, call, partial(call.receiver.on_outcome, call, outcome)
            )
        return call

    def _take_of_batch(
        self,
        process: WorkerProcess,
        frame: RawFrame,
        finished: list[Call],
        entries: list[int],
    ) -> None:
        """Take one outcome of a batch, or several.

        Add to the lists of how many calls, and the batch if these were its last.
        """
        kind, number, data, duration = frame
        call = process.calls.get(number & wire.NUMBER)
        batch = None if call is None else call.batch
        if call is None or batch is None:
            return
        before = batch.received
        if (number >> wire.NUMBER_BITS) - 1 != before or before == batch.count:
            raise BadFrame(
                f"the outcome of call {number >> wire.NUMBER_BITS} of {batch.count}, "
                f"where that of call {before + 1} is due"
            )
        if call is not process.given.oldest() and not process.given.is_due(call.number):
            raise BadFrame(f"kind {kind} of calls that are not due")
        if kind == wire.VALUE_IN_LENT:
            raise BadFrame("the result of a nested task, of one of several calls")
        if kind == wire.SEVERAL:
            count = self.take_several(process, call, outcomes_of(data), duration)
        else:
            count = 1
            batch.note_duration(duration)
            outcome = Outcome(kind, data, batch.advance())
            self._parts.output.deliver(
                process, call, partial(call.receiver.on_outcome, call, outcome)
            )
        process.output.note_end(number, batch.received - before)
        entries.append(count)
        if batch.received == batch.count:
            del process.calls[call.number]
            call.move(CallPhase.ENDED)
            finished.append(call)

    def take_several(
        self, process: WorkerProcess, call: Call, outcomes: list[tuple[int, Any]], duration: int
    ) -> int:
        """Take outcomes of a batch that came together, all of calls that have returned normally.

        Return their number.
        """
        batch = call.batch
        assert batch is not None
        count = len(outcomes)
        if not 0 < count <= batch.count - batch.received:
            raise BadFrame(f"{count} outcomes of {batch.count - batch.received} calls")
        if duration:  # else it is unknown: they lay on the page of a worker that has died
            batch.note_duration(duration, count)
        outcome = Outcome(wire.SEVERAL, outcomes, batch.advance(count))
        self._parts.output.deliver(process, call, partial(call.receiver.on_outcome, call, outcome))
        return count

    def _has_registered(self, process: WorkerProcess, frame: Frame) -> bool:
        """Let the thread that sends directly finish the step that records what it has sent.

        Its result came before. False: it needs longer.

        Race: the collector may run finalizers within that step, and they may wait for this very
        thread. The frame is then taken up again later.
        """
        if process.direct_send.wait_for_sender():
            self._parts.direct_calls.register(process)
            return True
        self._defer(process, tuple(frame))
        return False

    def _defer(self, process: WorkerProcess, frame: RawFrame) -> None:
        # Race: outcomes of calls that are sent meanwhile may be read before this one is taken up
        # again
        if process.given.defer(frame):
            self._parts.loop.set_timer(TAKE_AGAIN, partial(self._take_late, process))

    def _take_late(self, process: WorkerProcess) -> None:
        frames = process.given.take_late()
        if frames and self._parts.workers.has(process):
            self._take(process, frames)

    # --- reports of a running call

    def _on_report(self, process: WorkerProcess, frame: Frame) -> None:
        if frame.number not in process.calls and not self._has_registered(process, frame):
            return
        call = process.calls.get(frame.number)
        if frame.kind == wire.LOG:
            self.on_log(process, call, frame.payload)
        elif frame.kind == wire.PRINTED:
            self.on_printed(process, call, frame.payload)
        elif frame.kind == wire.NESTED:
            if call is not None:
                self._parts.nested.take(process, call, frame.payload)
            return
        elif frame.kind not in _REPORTS:
            raise BadFrame(f"kind {frame.kind}")
        if call is None:
            return
        if call.batch is not None:
            if frame.kind == wire.UPDATE:
                self.on_progress(process, call, frame.payload)
            return
        if call.task is None:
            return
        if frame.kind == wire.STARTED:
            self._parts.deadlines.on_started(process, call)
        elif frame.kind == wire.UPDATE:
            self.on_progress(process, call, frame.payload)
        elif frame.kind == wire.OUTPUT:
            self._settlement.on_output(call, frame.kind, frame.payload)

    @staticmethod
    def on_progress(process: WorkerProcess, call: Call, data: bytes | bytearray) -> None:
        """Take a report.

        From the frame, or from the shared page if the frame only says that one is there.
        """
        page = process.process.page
        if not data and page is not None:
            data = page.read()
        if data:
            number, message, current, maximum = restricted.read_progress(data)
            if number & wire.NUMBER != call.number:
                return
            if call.batch is not None:
                call.batch.report(number >> wire.NUMBER_BITS, message, current, maximum)
            elif number == call.number:
                reports_of(call.task).update(call.task, message, current, maximum)

    def on_printed(
        self, process: WorkerProcess, call: Call | None, data: bytes | bytearray
    ) -> None:
        """Take what was printed where threads read the pipes."""
        self._parts.output.on_printed(process, call, data)

    def on_log(self, process: WorkerProcess, call: Call | None, data: bytes | bytearray) -> None:
        """Take a log record."""
        self._parts.output.on_log(process, call, restricted.read_record(data))

    # --- messages of a worker

    def _on_message(self, process: WorkerProcess, kind: int, data: Any) -> None:
        if kind == wire.LOG:
            self.on_log(process, None, data)
        elif kind == wire.PRINTED:
            self.on_printed(process, None, data)
        elif kind == wire.PONG and process.ready:
            self._parts.probes.answer(process)
        elif kind == GARBAGE:
            raise Garbage(data)
        elif (
            process.ready
            or kind not in _OF_STARTS
            or (kind == wire.HELLO) is not (process.hello is None)
        ):
            raise BadFrame(f"kind {kind}, which is not due")
        else:
            self._parts.starting(process, kind, data)


def _is_interrupt(data: bytes | bytearray) -> bool:
    """Return True if a failure is the KeyboardInterrupt that the host has sent.

    A worker without a shared page cannot distinguish it from another one.
    """
    try:
        found = restricted.read(data)
    except NotBuiltin:
        return False
    return type(found) is tuple and found[:1] == ("KeyboardInterrupt",)
