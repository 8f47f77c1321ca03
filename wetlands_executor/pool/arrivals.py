"""What comes from workers: results, printed lines, their end. The incoming half of ``Pool``; everything here runs on the I/O thread.

Order: a batch of events is served output first, then results, then exits (ranks in ``ports.py``), and output is looked at once more after
results were read, so that what a task printed is on its way before its result is; a result that was sent before a crash counts.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor.errors import OF_STACKS, OF_STDERR, WorkerCrashed, describe
from wetlands_executor.pool import ports, spawn
from wetlands_executor.pool.bulk import outcomes_of
from wetlands_executor.pool.limits import Limits
from wetlands_executor.pool.lines import OutputStream, without_stacks
from wetlands_executor.pool.process import GARBAGE, TOO_LARGE, Call, Frame, RawFrame, WorkerProcess
from wetlands_executor.pool.settling import OUTPUT_HIGH, OUTPUT_LOW
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.phases import Status
from wetlands_executor.scheduling.retry import Failure
from wetlands_executor.serialize import interpreter, plain
from wetlands_executor.serialize.errors import decode_error
from wetlands_executor.serialize.plain import BadFrame, NotPlain, is_trivial
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.pool.bulk import Part
    from wetlands_executor.task import Task

LOGGER = logging.getLogger("concurrent.futures")

#: For the stacks of calls that hang. It has a handler that does nothing: a program that has configured
#: no logging would else get them on its stderr (``logging.lastResort``).
STACKS_LOGGER = logging.getLogger("concurrent.futures.wetlands_executor")
STACKS_LOGGER.addHandler(logging.NullHandler())

#: Seconds that a worker with a closed results pipe may take to end by itself.
CLOSED_GRACE = 1.0
#: Seconds after which a worker that was asked for its stacks, and has gone on, has printed them.
STACKS_PRINTED = 1.0
#: Seconds that a nursery may take to tell how a worker has ended.
STATUS_GRACE = 1.0
#: Seconds to wait for the rest of a dead worker's results where pipes are read by threads.
DRAIN_GRACE = 2.0

#: Reads of 64 KB that empty a pipe of any size that Linux gives to an ordinary user. A child that has survived could fill it for ever.
PIPE_READS = 17

_HELLO: dict[str, tuple[type, ...]] = {"magic": (str,), "version": (str,), "prefix": (str,), "pid": (int,)}
_OF_STARTS = frozenset((wire.HELLO, wire.READY, wire.START_FAILED, wire.INITIALIZER_FAILED))
_REPORTS = frozenset((wire.STARTED, wire.UPDATE, wire.OUTPUT))
_OUTCOMES = frozenset((wire.VALUE, wire.NONE, wire.ERROR, wire.CANCELLED, wire.VALUE_IN_BLOCKS, TOO_LARGE))
_PLAIN_OUTCOMES = frozenset((wire.VALUE, wire.NONE))


class Arrivals(Limits):
    """The handlers of a pool's incoming events."""

    def _on_output(self, process: WorkerProcess, fd: int, stream: OutputStream) -> None:
        assert self._port is not None
        process.reading = True  # Order: before the bytes are gone from the pipe, where a submitter on the return lane looks for them
        data = self._port.read(fd, 65536)
        if data is not None:
            process.note_printed()
        process.reading = False
        if data is None:
            return
        if not data:
            self._port.remove(fd)
            self._put_text(stream, stream.splitter.finish())
            return
        if process.stacks_from is None:  # what it prints because it was asked is no sign of life
            process.last_heard = time.monotonic()
        if stream.name == "stderr":
            process.keep_tail(data)
            if not process.ready:
                # What is said before the worker is ready is part of the error if it fails to start, and is not said twice.
                process.held_back += data
                return
        self._put_text(stream, _said(process, stream, stream.splitter.feed(data)), self._printed_by(process))
        if stream.under_way > OUTPUT_HIGH and not stream.paused and not self.awaited:
            # The host's stream is slower than the worker prints. Not reading any more makes the worker's own write wait, as in a terminal.
            stream.paused = True
            self._port.remove(fd)
            # Race: the output thread may have written all of it since, and seen nothing paused. It counts, then looks; here it is the other way
            # round, so that one of both sees the other.
            if stream.under_way < OUTPUT_LOW:
                self._resume(stream)

    def _read_output(self, process: WorkerProcess, frames: list[RawFrame]) -> None:
        """Read what was printed before these frames were sent.

        Race: since `wait` has looked at the output, the worker may have printed more and sent the results that have just been read. (Even if
        `wait` has named both: it looks at one descriptor after the other, and the worker goes on meanwhile.)
        """
        assert self._port is not None
        for callback in self._port.printed():
            callback()
        if any(frame[0] == wire.SEVERAL or frame[0] in _OUTCOMES for frame in frames):
            self._read_paused(process)

    def _read_paused(self, process: WorkerProcess) -> None:
        """Read what waits in the pipes of streams that are paused. Order: what a task has printed is on its way before its outcome is.

        The worker's last lines fit into the pipe, and its outcome overtakes them there. It prints no faster for it: this is one reading, which
        takes what a pipe holds, for each outcome.
        """
        for fd, stream in zip((process.process.stdout, process.process.stderr), process.streams, strict=True):
            if stream.paused:
                self._on_output(process, fd, stream)

    def _printed_by(self, process: WorkerProcess) -> Task[Any] | None:
        """Return the task whose output has just been read, if it can be only one.

        What earlier tasks printed was read before their results were. So if the oldest unfinished call runs now, all of it is that call's.
        """
        oldest = next(iter(process.calls.values()), None)
        return oldest.task if oldest is not None and process.is_running(oldest) else None

    def _release_output(self, process: WorkerProcess) -> None:
        if process.held_back:
            data, process.held_back = process.held_back, b""
            stream = process.streams[1]
            self._put_text(stream, stream.splitter.feed(data))

    def _resume(self, stream: OutputStream) -> None:
        for process in self.processes.values():
            for fd, mine in zip((process.process.stdout, process.process.stderr), process.streams, strict=True):
                if mine is stream and stream.paused:
                    stream.paused = False
                    assert self._port is not None
                    self._port.add_reader(fd, ports.OUTPUT, partial(self._on_output, process, fd, stream))

    def _resume_all(self) -> None:
        """Read on although the host's streams take less: the output thread waits for a task, whose worker may wait in its own write."""
        for process in list(self.processes.values()):
            for stream in process.streams:
                if stream.paused:
                    self._resume(stream)

    def _on_results(self, process: WorkerProcess) -> None:
        frames, ended = process.read_results()
        if frames:
            self._read_output(process, frames)
            self._take(process, frames)
            frames = []
        if ended:
            self._close_results(process)
            if process.exited:
                self._bury(process)
            else:
                # It has closed its pipes, or is about to end. If it lives on, nothing can be heard from it any more.
                self._set_process_timer(process, CLOSED_GRACE, partial(self._kill_if_alive, process))

    def _kill_if_alive(self, process: WorkerProcess) -> None:
        if self.processes.get(process.worker) is process:
            process.kill()

    def _close_results(self, process: WorkerProcess) -> None:
        assert self._port is not None
        process.results_ended = True
        self._port.remove(process.process.results)

    def _take(self, process: WorkerProcess, frames: list[RawFrame]) -> None:
        """Settle what finished, then tell the state, in one event."""
        if len(frames) == 1 and self._take_round_trip(process, frames[0]):
            return
        # What submitting threads have sent: the calls are known at once, the state hears of them together with what has finished.
        sent: list[st.Event] = []
        if process.sent_directly:
            sent = self._absorbed(process)
            if len(frames) > 1 or frames[0][0] not in _OUTCOMES:
                self._feed(None, sent)  # more may happen in between than one outcome
                sent = []
        finished: list[st.Item] = []
        settled: list[Task[Any]] = []
        if self.worker_timeout is not None:
            process.last_heard = time.monotonic()
        several = [0]
        rest = iter(frames)
        while True:
            try:
                self._take_each(process, rest, finished, settled, several)
                break
            except Exception as error:  # noqa: BLE001 - one frame: those behind it are taken all the same
                self._fault(process, error)
        if settled:
            self.ledger.returned(settled)
        if several[0]:
            self.ledger.count(several[0], 0)
        process.finished += len(finished) + several[0]
        process.proven = process.proven or bool(finished)
        if self._timed:
            for item in finished:
                self._stop_call_timers(item)  # type: ignore[arg-type]
        if process.parcels.used:
            self._note_blocks(process)
        if finished or sent:
            self._feed(st.ItemsFinished(process.worker, finished) if finished else None, sent)

    def _take_each(
        self, process: WorkerProcess, frames: Iterator[RawFrame], finished: list[st.Item], settled: list[Task[Any]], several: list[int]
    ) -> None:
        """Take frames; add to the lists what has finished, which tasks have been settled with a result, and how many calls of parts."""
        calls = process.calls
        pid = process.process.pid
        now = time.time()
        suspected = bool(process.suspicion)
        due = iter(list(calls.values()))  # what is expected next, as a rule: the oldest
        expected = next(due, None)
        for frame in frames:
            if suspected:
                suspected = self._judge(process, frame)
            kind, number, data, duration = frame
            if number > wire.NUMBER and (kind == wire.SEVERAL or kind in _OUTCOMES):
                part = calls.get(number & wire.NUMBER)
                if part is not None and part.several:
                    several[0] += self._take_of_part(process, part, frame)  # type: ignore[arg-type]
                    if part.complete:  # type: ignore[attr-defined]
                        del calls[part.number]
                        finished.append(part)
                continue
            call = calls.get(number)
            if call is not None:
                if call is expected:
                    expected = next(due, None)
                elif call is not next(iter(calls.values())) and not process.may_say(kind in _OUTCOMES, number):
                    raise BadFrame(f"kind {kind} of a call that is not due")
            if kind in _PLAIN_OUTCOMES and call is not None and not process.printed:
                # The short way: nothing to wait for, nothing to ask, no user code.
                task = call.task
                if (
                    task._options is None
                    and task._verdict is None
                    and call.backlog is None
                    and not call.deciding
                    and not call.several
                    and (kind == wire.NONE or is_trivial(data))
                ):
                    try:
                        value = None if kind == wire.NONE else pickle.loads(data)
                    except Exception:  # noqa: BLE001, S110 - the long way meets it again, where what is wrong with it can be looked into
                        pass
                    else:
                        del calls[number]
                        finished.append(call)
                        if task._finish(value, now, pid, duration / 1e6):
                            settled.append(task)
                        continue
            if kind in _OUTCOMES:
                outcome = Frame(kind, number, data, duration)
                if number not in calls and not self._has_recorded(process, outcome):
                    continue  # Order: `printed` stays. What the call has printed is dealt with when its outcome is looked at again.
                ended = self._end_call(process, outcome)
                if process.printed and process.has_printed_all(number):
                    process.printed = False
                if ended is not None:
                    finished.append(ended)
            elif number:
                self._on_report(process, Frame(kind, number & wire.NUMBER, data, duration))
            else:
                self._on_message(process, kind, data)

    def _take_round_trip(self, process: WorkerProcess, frame: RawFrame) -> bool:
        """Settle the only call of a worker that was idle before it; False if it is not as simple as that.

        The submitting thread has written that call itself, and the state has not heard of it: for the state the worker was idle all the time, and
        is. So nothing has to be decided, and the lane stays open. Most of what a short call costs lies in these decisions.
        """
        kind, number, data, duration = frame
        sent = process.sent_directly
        if len(sent) != 1 or process.calls or process.printed or not process.lane_open or kind not in _PLAIN_OUTCOMES:
            return False
        try:
            token = sent[0]
        except IndexError:  # as below
            return False
        call = token[0]
        task = call.task
        if call.number != number or not process.proven or task._options is not None or task._verdict is not None or self.worker_timeout is not None:
            return False
        if task._counted:
            return False  # it waited for others, and was counted then: its end is to be counted alone
        if self._state.status is not Status.OPEN or self._state.waiting_count or not (kind == wire.NONE or is_trivial(data)):
            return False
        try:
            value = None if kind == wire.NONE else pickle.loads(data)
        except Exception:  # noqa: BLE001 - the long way will meet it again, and settle the task with it
            return False
        # Race: from here on a thread may write the next call to the worker. Nothing below looks at the worker any more.
        try:
            sent.remove(token)
        except ValueError:  # the answer came on the board as well, and its submitter has taken it
            return True
        call.known = True
        process.finished += 1
        if task._finish(value, time.time(), process.process.pid, duration / 1e6):
            self.ledger.returned_one(task)
        lane = process.return_lane
        if lane is not None and lane.caller is call:
            lane.bell.release()
        call.process = None
        return True

    def _on_bell(self, process: WorkerProcess) -> None:
        """The worker has rung while no submitter waits for it."""
        lane = process.return_lane
        if lane is not None:
            if lane.caller is None:
                lane.take_rings()
            else:
                lane.bell.relieve()  # that thread takes them, and must not miss one
        self.take_answer(process)

    def take_answer(self, process: WorkerProcess) -> None:
        """Take an answer from the board whose call the state knows, if there is one; see ``return_lane.py``."""
        lane = process.return_lane
        if lane is None or self.processes.get(process.worker) is not process:
            return
        self._absorb(process)
        frame = lane.answer()
        if frame[1] in process.calls:
            lane.forget_answer()  # a call that is run again has the same number
            self._read_output(process, [frame])
            self._take(process, [frame])

    def catch_up(self) -> None:
        """Learn of all that submitting threads have sent, and of the answers that nobody has looked at."""
        self.take_departures()
        self._feed(None)
        for process in list(self.processes.values()):
            self.take_answer(process)

    def take_departures(self) -> None:
        """Finish what submitters have left on the return lanes. I/O thread; when that has ended, anybody's."""
        departures = self.departures
        call, departures.first = departures.first, None  # nothing comes in between: what is added meanwhile stays
        while call is not None:
            following, call.after = call.after, None
            call.departed = False  # Order: before we look. Whoever comes back meanwhile and leaves again adds it anew
            try:
                self._take_departed(call)
            except Exception as error:  # noqa: BLE001 - the others of the chain are taken all the same
                self._contain(error, partial(self._take_departed, call))
            call = following

    def _take_departed(self, call: Call) -> None:
        process = call.process
        if process is not None:
            self._absorb(process)
            if call.known:
                self.take_answer(process)
            elif call.found is not None:
                # The submitter had taken the token, and was interrupted before all was done.
                value, duration = call.found
                if call.task._final is None:
                    call.task._settle_quietly(value, time.time(), process.process.pid, duration)
                self.ledger.returned_one(call.task)
                self.tell(call.task)

    def _fault(self, process: WorkerProcess, error: Exception) -> None:
        """Note that something that came from a worker, or was done for it, has failed."""
        if isinstance(error, BadFrame):
            self._distrust(process, str(error))
        else:
            self._log_bug(error, f"the handling of what the worker process {process.process.pid} has sent")
            self._distrust(process, describe(error))

    def _distrust(self, process: WorkerProcess, why: str) -> None:
        """Let a worker go that has sent what no worker sends, and find out which call has most likely done it."""
        if process.exited:
            return
        if not process.ready:
            process.reason = self._start_error(f"it sent what no worker sends ({why})", process.stderr_tail())
            process.kill()
            return
        if not process.suspicion:
            # Order: what the worker has sent since is looked at first; see `_judge`.
            self.post(partial(self._blame, process))
        process.suspicion = (
            f"The worker process {process.process.pid} of {self.what} was ended, because while it ran this task something was sent to this "
            f"process, or could not be handled here, that no worker sends ({why})"
        )

    def _judge(self, process: WorkerProcess, frame: RawFrame) -> bool:
        """Return True if the first frame since may be of the call that is to blame: an outcome is. The call fails, whatever the outcome.

        An outcome that is not awaited comes from a call that had said before that it had ended: then no other is to blame.
        """
        if frame[0] != wire.SEVERAL and frame[0] not in _OUTCOMES:
            return True
        call = process.calls.get(frame[1] & wire.NUMBER)
        oldest = next(iter(process.calls.values()), None)
        if call is None and oldest is not None and frame[1] & wire.NUMBER > oldest.number:
            return True  # of a call that is younger than all that have ended
        if call is not None and oldest is not None:
            if oldest is not call and not (process.garbled and process.has_taken(call.number)):
                return True  # this one is not due
            if not oldest.several:
                oldest.task._verdict = partial(_crash, process.suspicion)
            if oldest is not call:
                self._end_blamed(process, oldest)  # its outcome was lost in what was no frame
        process.suspicion = ""
        process.garbled = False
        self.post(partial(self._retire, process))
        return False

    def _retire(self, process: WorkerProcess) -> None:
        """Let a worker stop after what it runs; it gets nothing more."""
        self._feed(st.RetireRequested(process.worker))
        if self.processes.get(process.worker) is process:
            self._set_process_timer(process, CLOSED_GRACE, partial(self._end_retired, process))

    def _end_retired(self, process: WorkerProcess) -> None:
        """End a worker that was to stop and runs nothing of what it holds: an outcome was lost in what was no frame, and will not come."""
        if self.processes.get(process.worker) is not process:
            return
        self._on_results(process)
        self.take_answer(process)
        if self.processes.get(process.worker) is not process or not process.calls:
            return
        if any(process.is_running(call) for call in process.calls.values()):
            self._set_process_timer(process, CLOSED_GRACE, partial(self._end_retired, process))
        else:
            process.kill()

    def _blame(self, process: WorkerProcess) -> None:
        """The pipe has been read, and no call has ended since: the one that runs is to blame, and ends with its worker."""
        if self.processes.get(process.worker) is not process:
            return
        self._on_results(process)
        self._absorb(process)
        message, process.suspicion, process.garbled = process.suspicion, "", False
        if not message or self.processes.get(process.worker) is not process or process.exited:
            return
        call = next(iter(process.calls.values()), None)
        running = process.taken()
        if call is not None and call.several and (running is None or running == call.number):
            process.reason = WorkerCrashed(message)
            process.kill()
            return
        self._retire(process)
        if call is None or (running is not None and running not in process.calls):
            return  # what it runs had said that it had ended; what it holds is not begun, and is taken back
        call.task._verdict = partial(_crash, message)
        if running is None or running == call.number:
            self._feed(st.KillRequested(call, retry=True))
            self._set_process_timer(process, CLOSED_GRACE, partial(self._end_blamed, process, call))
        else:
            self._end_blamed(process, call)

    def _end_blamed(self, process: WorkerProcess, call: Call) -> None:
        """The call that was blamed has no outcome yet. If the worker does not run it (any more), that was lost in what was no frame."""
        if self.processes.get(process.worker) is not process or call.number not in process.calls:
            return
        if call.several or process.is_running(call):
            if process.reason is None:
                process.reason = WorkerCrashed(f"The worker process {process.process.pid} of {self.what} was ended: outcomes of its were lost")
            process.kill()
            return
        del process.calls[call.number]
        self._convict(process, call)
        if not call.deciding:
            self._feed(st.ItemsFinished(process.worker, [call]))

    @staticmethod
    def tell(task: Task[Any]) -> None:
        """Tell everybody of the end of a task that its submitter has settled."""
        task._tell_late()

    def _take_of_part(self, process: WorkerProcess, part: Part, frame: RawFrame) -> int:
        """Take one outcome of several calls, or several; return how many have returned normally."""
        kind, number, data, duration = frame
        before = part.received
        if (number >> wire.NUMBER_BITS) - 1 != before or part.complete:
            raise BadFrame(f"the outcome of call {number >> wire.NUMBER_BITS} of {part.count}, where that of call {before + 1} is due")
        if part is not next(iter(process.calls.values())) and not process.is_due(part.number):
            raise BadFrame(f"kind {kind} of calls that are not due")
        if kind == wire.SEVERAL:
            count = self._take_several(process, part, outcomes_of(data), duration)
        else:
            count = self._take_one(process, part, kind, data, duration)
        if process.printed and process.has_printed_all(number, part.received - before):
            process.printed = False
        return count

    def _take_several(self, process: WorkerProcess, part: Part, outcomes: list[tuple[int, Any]], duration: int) -> int:
        """Take outcomes that came together, all of calls that have returned normally; return their number."""
        series = part.series
        series.foreign, series.sender = process.foreign, part.sender
        count = len(outcomes)
        if not 0 < count <= part.count - part.received:
            raise BadFrame(f"{count} outcomes of {part.count - part.received} calls")
        if duration:  # else nobody knows: they lay on the board of a worker that has died
            series.note(duration, count)
        first = part.advance(count)
        if process.printed:
            self._after_output(process, part, partial(series.store_many, first, outcomes))
        else:
            series.store_many(first, outcomes)
        return count

    def _take_one(self, process: WorkerProcess, part: Part, kind: int, data: Any, duration: int) -> int:
        """Take the outcome of one of several calls; return 1 if it has returned normally."""
        series = part.series
        series.foreign, series.sender = process.foreign, part.sender
        series.note(duration)
        place = part.advance()
        if kind == wire.ERROR:
            series.failed_remotely(place, data)
            return 0
        if process.printed:
            self._after_output(process, part, partial(series.store, place, kind, data))
        else:
            series.store(place, kind, data)
        if kind == wire.CANCELLED:
            self.ledger.count(0, 1)
            return 0
        return 1

    def _end_call(self, process: WorkerProcess, frame: Frame) -> Call | None:
        """Deal with the outcome of a call; return it if it is finished, None if that is still to be found out."""
        call = process.calls.get(frame.number)
        if call is None:
            return None
        if call.several and frame.kind != wire.CANCELLED and call.count - call.received != 1:  # type: ignore[attr-defined]
            raise BadFrame(f"kind {frame.kind} of several calls")
        del process.calls[frame.number]
        task = call.task
        task._worker_pid = process.process.pid
        task._duration = frame.duration / 1e6
        if frame.kind == wire.ERROR and task._interrupted and _is_interrupt(frame.payload):
            frame = frame._replace(kind=wire.CANCELLED)
        if callable(task._verdict):
            # Race: its time was over, and our question for its stacks may have interrupted it. The verdict stands.
            self._convict(process, call)
            return None if call.deciding else call
        if frame.kind == wire.ERROR and self._asks_for_retry(task, Failure.RAISED):
            call.deciding = True
            call.asks = False
            self._deliver(process, call, frame)
            return None
        self._deliver(process, call, frame)
        return call

    def _with_stacks(self, verdict: Any, stacks: str) -> BaseException:
        error: BaseException = verdict(stacks)
        if stacks:
            # Handlers take locks and are user code: not on this thread.
            self.output.put(partial(STACKS_LOGGER.warning, "wetlands_executor: %s%s%s", error.args[0], OF_STACKS, stacks))
            error.args = (f"{error.args[0]}{OF_STACKS}{stacks}", *error.args[1:])
        return error

    def _convict(self, process: WorkerProcess, call: Call) -> None:
        """Give a call the verdict on it, or let it be decided whether it is run again."""
        task = call.task
        error = self._with_stacks(task._verdict, process.stacks())
        # It has ended by itself, so the worker goes on: what it prints from some time on is not what it was asked for.
        self._set_process_timer(process, STACKS_PRINTED, partial(self._forget_stacks, process))
        if self._asks_for_retry(task, Failure.CONDEMNED):
            call.deciding = True
            call.tries = 0
            call.asks = False
            self.run_user_code(partial(self._decide, call, error))
        else:
            task._settle(None, error)

    def _forget_stacks(self, process: WorkerProcess) -> None:
        if self.processes.get(process.worker) is process and not process.exited:
            process.stacks_from = None

    def _has_recorded(self, process: WorkerProcess, frame: Frame) -> bool:
        """Let the thread inside the lane finish the step that records what it has sent: its result came before. False: it needs longer.

        Race: the collector may run finalizers within that step, and they may wait for this very thread. The frame is then taken up again later.
        """
        if process.wait_for_lane():
            self._absorb(process)
            return True
        process.deferred += 1  # Race: outcomes of calls that are sent meanwhile may be read before this one is taken up again
        self._set_timer(0.001, partial(self._take_later, process, frame))
        return False

    def _take_later(self, process: WorkerProcess, frame: Frame) -> None:
        process.deferred -= 1
        if self.processes.get(process.worker) is process:
            self._take(process, [tuple(frame)])

    def _on_message(self, process: WorkerProcess, kind: int, data: Any) -> None:
        if kind == wire.LOG:
            self._on_log(process, None, data)
        elif kind == wire.PRINTED:
            self._on_printed(process, None, data)
        elif kind == GARBAGE:
            process.garbled = True
            raise BadFrame(data)
        elif process.ready or kind not in _OF_STARTS or (kind == wire.HELLO) is not (process.hello is None):
            raise BadFrame(f"kind {kind}, which is not due")
        elif kind == wire.HELLO:
            process.hello = hello = plain.read_shape(data, _HELLO)
            process.process.meet(process.sender)
            inner = process.process.exit_of_python()
            if inner >= 0:
                assert self._port is not None
                self._port.add_reader(inner, ports.EXIT, partial(self._on_python_gone, process, inner))
            process.foreign = hello["magic"] != interpreter.MAGIC
            self.peer.learn(hello)
            self._answer_hello()
        elif kind == wire.READY:
            process.ready = True
            self._stop_process_timers(process)  # the time that it had to become ready
            self._release_output(process)
            self._feed(st.WorkerReady(process.worker))
            self._check_launched()
        elif kind == wire.START_FAILED:
            process.failure = data
        else:
            self._on_initializer_failed(process, data)

    def _on_initializer_failed(self, process: WorkerProcess, data: bytes | bytearray) -> None:
        cause = decode_error(data, trusted_only=True)
        error = BrokenProcessPool(f"The initializer raised {describe(cause)}; the pool of {self.what} is not usable any more")
        error.__cause__ = cause
        process.reason = error
        self._release_output(process)
        self._feed(st.InitializerFailed(process.worker, st.DeathReport(error)))

    def _on_report(self, process: WorkerProcess, frame: Frame) -> None:
        """Take what a running call says of itself."""
        if frame.number not in process.calls and not self._has_recorded(process, frame):
            return
        call = process.calls.get(frame.number)
        if frame.kind == wire.LOG:
            self._on_log(process, call, frame.payload)
        elif frame.kind == wire.PRINTED:
            self._on_printed(process, call, frame.payload)
        elif frame.kind not in _REPORTS:
            raise BadFrame(f"kind {frame.kind}")
        if call is None:
            return
        if frame.kind == wire.STARTED:
            self._on_started(process, call)
        elif frame.kind == wire.UPDATE:
            self._on_progress(process, call, frame.payload)
        elif frame.kind == wire.OUTPUT:
            self._on_outputs(call, frame)

    def _on_outputs(self, call: Call, frame: Frame) -> None:
        if (call.backlog is None or not call.backlog.busy) and is_trivial(frame.payload):
            try:
                new = pickle.loads(frame.payload)
            except Exception:  # noqa: BLE001 - it is met again where what is wrong with it can be looked into
                new = None
            if type(new) is dict:
                call.task._report_outputs(new)
                return
        self._decode(call, frame)

    @staticmethod
    def _on_progress(process: WorkerProcess, call: Call, data: bytes | bytearray) -> None:
        """Take a report: from the frame, or from the board if the frame is only the bell."""
        board = process.process.board
        if not data and board is not None:
            data = board.read()
        if data:
            number, message, current, maximum = plain.read_progress(data)
            if number == call.number:
                call.task._report(message, current, maximum)

    def _on_printed(self, process: WorkerProcess, call: Call | None, data: bytes | bytearray) -> None:
        if not data or data[0] not in (1, 2):
            raise BadFrame("output of no stream")
        stream = process.streams[data[0] - 1]
        process.note_printed(call.number if call is not None else 0)
        if stream.name == "stderr":
            process.keep_tail(bytes(data[1:]))
        self._put_text(stream, stream.splitter.feed(bytes(data[1:])), call.task if call is not None else None)

    def _on_log(self, process: WorkerProcess, call: Call | None, data: bytes | bytearray) -> None:
        process.note_printed(call.number if call is not None else 0)
        self._log(process.records, plain.read_record(data), process.index, process.process.pid, call)

    def _log(self, stream: OutputStream, fields: dict[str, Any], index: int, pid: int, call: Call | None) -> None:
        fields.update(
            environment=self.what,
            worker_index=index,
            worker_pid=pid,
            task_id=call.task.id if call is not None else "",
            task_name=call.task.name if call is not None else "",
        )
        stream.enqueued += 1
        self.put_foreign(partial(_handle_record, stream, fields))

    def _on_python_gone(self, process: WorkerProcess, fd: int) -> None:
        """The Python behind a wrapper has ended. Its pipes say nothing of that: the wrapper has them too, and may go on for ever."""
        assert self._port is not None
        self._port.remove(fd)
        self._set_timer(CLOSED_GRACE, partial(self._kill_if_alive, process))

    def _on_exit(self, process: WorkerProcess, late: bool = False) -> None:
        """The process has ended: take what it still sent, then bury it."""
        assert self._port is not None
        if self.processes.get(process.worker) is not process or process.exited:
            return
        self._port.remove(process.process.exit)
        if not late and not process.process.ended():
            # Its nursery is about to tell how it ended. If that is stopped, the death is certified without.
            self._port.remove(process.process.exit)
            self._port.add_reader(process.process.exit, ports.EXIT, partial(self._on_exit, process))
            self._set_timer(STATUS_GRACE, partial(self._on_exit, process, True))
            return
        process.exited = True
        try:
            self._drain(process)
        except Exception as error:  # noqa: BLE001 - what it has left cannot be read: it is dead all the same
            self._log_bug(error, self._drain)
            self._bury(process)

    def _drain(self, process: WorkerProcess) -> None:
        """Take what a process that has ended has sent, then bury it."""
        process.process.kill_tree()  # children that hold its pipes open
        if not process.results_ended and isinstance(self._port, ports.ThreadPort):
            self._set_timer(DRAIN_GRACE, partial(self._bury_late, process))
            return
        while not process.results_ended:
            before = process.arrived
            self._on_results(process)
            if process.arrived == before and not process.results_ended:
                break  # a surviving child holds the pipe; what the worker itself wrote has been read
        if self.processes.get(process.worker) is process:
            self._bury(process)

    def _bury_late(self, process: WorkerProcess) -> None:
        if self.processes.get(process.worker) is process:
            self._bury(process)

    def _bury(self, process: WorkerProcess) -> None:
        """Reap, write the death certificate, tell the state. The only place where a worker is declared dead."""
        port = self._port
        assert port is not None
        if not process.close_lane():
            # A submitting thread is inside; what it writes has to be seen before the end.
            self._set_timer(0.005, partial(self._bury_late, process))
            return
        try:
            self._bury_closed(process)
        except Exception as error:  # noqa: BLE001
            self._bury_anyway(process, error)

    def _bury_closed(self, process: WorkerProcess) -> None:
        code = process.process.reap()
        process.reading = True  # for submitters on the return lane: what is read now comes before what the process has answered
        for last in (self._take_last_output, self._absorb, self.take_answer, self._take_survivors):
            # Order: what these make the state send to the dead process is taken back with the rest.
            try:
                last(process)
            except Exception as failure:  # noqa: BLE001 - what it has left cannot be read: it is dead all the same
                if not isinstance(failure, BadFrame):
                    self._log_bug(failure, last)
        unstarted = process.take_back()
        error, final = self._certify(process, code)
        report = st.DeathReport(error, process.stacks(), (*process.streams, process.records))
        if process.parcels.arena is not None:
            process.parcels.arena.reclaim(process.parcels.incarnation)
        del self.processes[process.worker]
        self._feed(st.WorkerExited(process.worker, unstarted, final, report))
        if process.hello is None:
            self._answer_hello()
        self._close_process(process)

    def _bury_anyway(self, process: WorkerProcess, error: Exception) -> None:
        """Its burial has failed, which is a bug: its calls must not wait for it all the same."""
        self._log_bug(error, self._bury)
        self.processes.pop(process.worker, None)
        what = f"The worker process {process.process.pid} of {self.what}"
        reason = WorkerCrashed(f"{what} has ended, and that could not be dealt with ({describe(error)})")
        self._feed(st.WorkerExited(process.worker, (), False, st.DeathReport(reason)))
        if process.hello is None:
            self._answer_hello()
        self._close_process(process)

    def _take_last_output(self, process: WorkerProcess) -> None:
        port = self._port
        assert port is not None
        for fd, stream in zip((process.process.stdout, process.process.stderr), process.streams, strict=True):
            # Also if reading had paused: what is left in the pipe is little, and is read by nothing else.
            for _ in range(PIPE_READS):
                data = port.read(fd, 65536)
                if not data:
                    break
                if stream.name == "stderr":
                    process.keep_tail(data)
                    if not process.ready:
                        continue
                self._put_text(stream, _said(process, stream, stream.splitter.feed(data)))
            self._put_text(stream, _said(process, stream, stream.splitter.finish()))

    def _take_survivors(self, process: WorkerProcess) -> None:
        """Take the outcomes that the dead process had put onto the board, and not yet sent."""
        board = process.process.board
        if board is None:
            return
        number, data = board.unsent()
        part = process.calls.get(number & wire.NUMBER)
        if data and part is not None and part.several:
            outcomes = outcomes_of(data)
            known = part.received - ((number >> wire.NUMBER_BITS) - 1)  # type: ignore[attr-defined]
            if 0 <= known < len(outcomes):
                count = self._take_several(process, part, outcomes[known:], 0)  # type: ignore[arg-type]
                self.ledger.count(count, 0)
                if part.complete:  # type: ignore[attr-defined]
                    del process.calls[part.number]
                    self._feed(st.ItemsFinished(process.worker, [part]))

    def _close_process(self, process: WorkerProcess) -> None:
        assert self._port is not None
        for fd in process.process.fds():
            self._port.remove(fd)
        if process.return_lane is not None:
            self._port.remove(process.return_lane.bell.fd)
        process.parcels.close()
        process.process.close()
        process.return_lane = process.on_answer = None
        process.calls.clear()
        self._stop_process_timers(process)

    def _certify(self, process: WorkerProcess, code: int | None) -> tuple[BaseException, bool]:
        """Return the reason of this death, and True if another try to start would meet it again."""
        name = spawn.signal_name(code)
        how = spawn.describe_end(code, process.process.why_lost)
        tail = process.stderr_tail()
        said = f"{OF_STDERR}{tail}" if tail else ""
        if process.ready:
            if process.reason is not None:
                return process.reason, False
            why = f"{self.kill_reason}. " if self.kill_reason is not None else ""
            message = f"{why}The worker process {process.process.pid} of {self.what} was ended {how} while it ran this task{said}"
            return WorkerCrashed(message, code, name, tail), False
        if process.reason is not None:
            return process.reason, True
        cause = decode_error(process.failure, trusted_only=True) if process.failure is not None else None
        error = self._start_error(f"its process ended {how} before it was ready", tail, cause)
        return error, code in (wire.EXIT_TOO_OLD, wire.EXIT_START_FAILED) or cause is not None


def _said(process: WorkerProcess, stream: OutputStream, text: str) -> str:
    """Return what the worker itself has said: the stacks that it was asked for are part of an exception, and not said twice."""
    return without_stacks(text) if text and process.stacks_from is not None and stream.name == "stderr" else text


def _crash(message: str, stacks: str) -> BaseException:  # noqa: ARG001 - they are added by `_with_stacks`
    return WorkerCrashed(message)


def _is_interrupt(data: bytes | bytearray) -> bool:
    """Return True if a failure is the KeyboardInterrupt that the host has sent (a worker without a board cannot tell that itself)."""
    try:
        found = plain.read(data)
    except NotPlain:
        return False
    return type(found) is tuple and found[:1] == ("KeyboardInterrupt",)


def _handle_record(records: OutputStream, fields: dict[str, Any]) -> None:
    """Handle a worker's log record as if it had been made here. Runs on the output thread: handlers are user code."""
    try:
        record = logging.makeLogRecord(fields)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    finally:
        records.written += 1
