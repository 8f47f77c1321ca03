"""What comes from workers: results, printed lines, their end. The incoming half of ``Pool``; everything here runs on the I/O thread.

Order: a batch of events is served output first, then results, then exits (ranks in ``ports.py``), so that what a task printed is on its way
before its result is, and a result that was sent before a crash counts.
"""

from __future__ import annotations

import logging
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor.errors import TaskTimeoutError, WorkerCrashed, WorkerStartError, WorkerUnresponsive
from wetlands_executor.events import TaskEventType
from wetlands_executor.pool import payload, ports, spawn
from wetlands_executor.pool import state as st
from wetlands_executor.pool.delivery import Decoders, SerialThread
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.process import TOO_LARGE, BadFrame, Call, Frame, WorkerProcess
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.task import Task

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds that a worker may take to print its stacks before it is killed.
STACKS_GRACE = 0.2
#: Seconds that a worker with a closed results pipe may take to end by itself.
CLOSED_GRACE = 1.0
#: Seconds to wait for the rest of a dead worker's results where pipes are read by threads.
DRAIN_GRACE = 2.0
#: Pieces of output under way at which reading from that worker's stream pauses, and goes on.
OUTPUT_HIGH, OUTPUT_LOW = 256, 64

_OUTCOMES = (wire.VALUE, wire.NONE, wire.ERROR, wire.CANCELLED, TOO_LARGE)


class Arrivals:
    """The handlers of a pool's incoming events. ``Pool`` supplies the rest."""

    _port: ports.Port | None
    processes: dict[int, WorkerProcess]
    output: SerialThread
    decoders: Decoders
    _reasons: dict[int, BaseException]
    what: str
    _feed: Callable[[st.Event], None]
    _set_timer: Callable[[float, Callable[[], object]], None]
    _absorb: Callable[[WorkerProcess], None]
    post: Callable[[Callable[[], object]], None]
    make_call: Callable[[payload.Encoded, payload.Context, Any], Call]
    _state: st.PoolState
    _backlog_lock: threading.Lock
    worker_timeout: float | None
    task_timeout: float | None
    _check_launched: Callable[[], None]

    # --- output

    def _on_output(self, process: WorkerProcess, fd: int, stream: OutputStream) -> None:
        assert self._port is not None
        data = self._port.read(fd, 65536)
        if data is None:
            return
        if not data:
            self._port.remove(fd)
            self._put_text(stream, stream.splitter.finish())
            return
        process.last_heard = time.monotonic()
        if stream.name == "stderr":
            process.keep_tail(data)
            if not process.ready:
                # What is said before the worker is ready is part of the error if it fails to start, and is not said twice.
                process.held_back += data
                return
        self._put_text(stream, stream.splitter.feed(data), self._printed_by(process))
        if stream.under_way > OUTPUT_HIGH and not stream.paused:
            # The host's stream is slower than the worker prints. Not reading any more makes the worker's own write wait, as in a terminal.
            stream.paused = True
            self._port.remove(fd)

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

    def _put_text(self, stream: OutputStream, text: str, task: Task[Any] | None = None) -> None:
        if text:
            stream.enqueued += 1
            self.output.put(partial(self._write_text, stream, text, task))

    def _write_text(self, stream: OutputStream, text: str, task: Task[Any] | None) -> None:
        """Runs on the output thread."""
        try:
            stream.write(text, task)
        finally:
            if stream.paused and stream.under_way < OUTPUT_LOW:
                self.post(partial(self._resume, stream))

    def _resume(self, stream: OutputStream) -> None:
        for process in self.processes.values():
            for fd, mine in zip((process.process.stdout, process.process.stderr), process.streams, strict=True):
                if mine is stream and stream.paused:
                    stream.paused = False
                    assert self._port is not None
                    self._port.add_reader(fd, ports.OUTPUT, partial(self._on_output, process, fd, stream))

    # --- results

    def _on_results(self, process: WorkerProcess) -> None:
        try:
            frames, ended = process.read_results()
        except BadFrame as error:
            process.keep_tail(b"wetlands_executor: the worker sent what is no frame (%s)\n" % str(error).encode())
            self._close_results(process)
            process.kill()
            return
        if frames:
            self._take(process, frames)
        if ended:
            self._close_results(process)
            if process.exited:
                self._bury(process)
            else:
                # It has closed its pipes, or is about to end. If it lives on, nothing can be heard from it any more.
                self._set_timer(CLOSED_GRACE, partial(self._kill_if_alive, process))

    def _kill_if_alive(self, process: WorkerProcess) -> None:
        if self.processes.get(process.worker) is process:
            process.kill()

    def _close_results(self, process: WorkerProcess) -> None:
        assert self._port is not None
        process.results_ended = True
        self._port.remove(process.process.results)

    def _take(self, process: WorkerProcess, frames: list[Frame]) -> None:
        """Settle what finished, then tell the state, in one event."""
        if process.sent_directly:
            self._absorb(process)
        finished: list[st.Item] = []
        calls = process.calls
        pid = process.process.pid
        if self.worker_timeout is not None:
            process.last_heard = time.monotonic()
        for frame in frames:
            if frame.kind in _OUTCOMES:
                call = calls.pop(frame.number, None) or self._find_unrecorded(process, frame.number)
                if call is None:
                    continue
                task = call.task
                task._worker_pid = pid
                task._duration = frame.duration / 1e6
                if frame.kind == wire.ERROR and task._interrupted and _is_interrupt(frame.payload):
                    frame = frame._replace(kind=wire.CANCELLED)
                if frame.kind == wire.ERROR and self._may_run_again(task):
                    call.deciding = True
                    call.tries = 0
                    self._deliver(process, call, frame)
                else:
                    finished.append(call)
                    self._deliver(process, call, frame)
            elif frame.number:
                self._on_report(process, frame)
            else:
                self._on_message(process, frame.kind, frame.payload)
        if finished:
            process.finished += len(finished)
            self._feed(st.ItemsFinished(process.worker, finished))

    def _find_unrecorded(self, process: WorkerProcess, number: int, take: bool = True) -> Call | None:
        """Return (and take out) a call whose result came before the submitting thread, inside the lane, could finish the step that records it."""
        for _ in range(1000):
            if process.lane.acquire(timeout=0.001):
                process.lane.release()
                self._absorb(process)
                break
        return process.calls.pop(number, None) if take else process.calls.get(number)

    def _on_message(self, process: WorkerProcess, kind: int, data: bytes | bytearray) -> None:
        if kind == wire.LOG:
            self._on_log(process, None, data)
        elif kind == wire.HELLO:
            process.hello = hello = pickle.loads(data)
            process.foreign = hello["magic"] != payload.MAGIC
        elif kind == wire.READY:
            process.ready = True
            self._release_output(process)
            self._feed(st.WorkerReady(process.worker))
            self._check_launched()
        elif kind == wire.START_FAILED:
            process.failure = data
        elif kind == wire.INITIALIZER_FAILED:
            cause = payload.decode_error(data, trusted_only=True)
            error = BrokenProcessPool(
                f"The initializer raised {type(cause).__name__}: {cause}; the pool of {self.what} is not usable any more"
            )
            error.__cause__ = cause
            self._reasons[process.worker] = error
            self._release_output(process)
            self._feed(st.InitializerFailed(process.worker))

    def _on_report(self, process: WorkerProcess, frame: Frame) -> None:
        """Take what a running call says of itself."""
        if frame.number not in process.calls:
            self._find_unrecorded(process, frame.number, take=False)
        call = process.calls.get(frame.number)
        if frame.kind == wire.LOG:
            self._on_log(process, call, frame.payload)
        if call is None:
            return
        if frame.kind == wire.STARTED:
            self._on_started(process, call)
        elif frame.kind == wire.UPDATE:
            board = process.process.board
            data = frame.payload or (board.read() if board is not None else b"")
            if data:
                number, message, current, maximum = pickle.loads(data)
                if number == call.number:
                    call.task._report(message, current, maximum)
        elif frame.kind == wire.OUTPUT:
            if call.backlog is None and payload.is_trivial(frame.payload):
                call.task._report_outputs(pickle.loads(frame.payload))
            else:
                self._decode(call, frame)

    def _on_started(self, process: WorkerProcess, call: Call) -> None:
        task = call.task
        task._seen_running = True
        task._emit(TaskEventType.STARTED)
        options = task._options
        limit = options.timeout if options is not None and options.timeout is not None else self.task_timeout
        if limit is not None:
            since = process.running_since(call)
            spent = 0.0 if since is None else time.monotonic() - since
            self._set_timer(limit - spent, partial(self._check_time, call, limit))

    def _watch_silence(self, process: WorkerProcess) -> None:
        """The worker gets something to do: from now on it must be heard."""
        process.last_heard = time.monotonic()
        if self.worker_timeout is not None and not process.silence_watched:
            process.silence_watched = True
            self._set_timer(self.worker_timeout, partial(self._check_silence, process))

    def _on_log(self, process: WorkerProcess, call: Call | None, data: bytes | bytearray) -> None:
        fields = pickle.loads(data)
        fields.update(
            environment=self.what,
            worker_index=process.index,
            worker_pid=process.process.pid,
            task_id=call.task.id if call is not None else "",
            task_name=call.task.name if call is not None else "",
        )
        process.records.enqueued += 1
        self.output.put(partial(_handle_record, process.records, fields))

    def _deliver(self, process: WorkerProcess, call: Call, frame: Frame) -> None:
        """Settle a task, after what it printed and where its result may be unpickled."""
        printed = process.records.written_to()
        for stream in process.streams:
            if stream.splitter.pending:
                self._put_text(stream, stream.splitter.finish(), call.task)
            printed = stream.written_to() or printed
        if printed:
            self.output.put(partial(self._settle, call, frame))
        else:
            self._settle(call, frame)

    def _settle(self, call: Call, frame: Frame) -> None:
        kind, data = frame.kind, frame.payload
        if call.backlog is not None or call.deciding:
            self._decode(call, frame)
        elif kind == wire.NONE:
            call.task._settle(None, None)
        elif kind == wire.CANCELLED:
            call.task._settle_cancelled()
        elif kind == wire.VALUE and payload.is_trivial(data):
            try:
                value = pickle.loads(data)
            except Exception as error:  # noqa: BLE001 - only its own task is harmed
                call.task._settle(None, error)
            else:
                call.task._settle(value, None)
        elif kind == TOO_LARGE:
            call.task._settle(None, MemoryError(f"the result has {int(data):,} bytes, which do not fit into this process"))
        else:
            self._decode(call, frame)

    def _decode(self, call: Call, frame: Frame) -> None:
        """Unpickle on a decoder thread. Order: frames of one call one after another, those of different calls side by side."""
        with self._backlog_lock:
            if call.backlog is not None:
                call.backlog.append(frame)
                return
            call.backlog = deque((frame,))
        self.run_user_code(partial(self._work_off, call))

    def run_user_code(self, job: Callable[[], object]) -> None:
        """Run ``job`` on a decoder thread. Any thread."""
        delay = self.decoders.put(job)
        if delay is not None:
            self.post(partial(self._set_timer, delay, self._check_decoders))

    def _work_off(self, call: Call) -> None:
        """Runs on a decoder thread."""
        while True:
            with self._backlog_lock:
                if not call.backlog:
                    call.backlog = None
                    return
                frame = call.backlog.popleft()
            if frame.kind == wire.OUTPUT:
                try:
                    new = payload.decode(frame.payload)
                except BaseException:
                    LOGGER.exception("wetlands_executor: an output of task %r cannot be unpickled here", call.task.name)
                else:
                    call.task._report_outputs(new)
            elif frame.kind == wire.NONE:
                call.task._settle(None, None)
            elif frame.kind == wire.CANCELLED:
                call.task._settle_cancelled()
            elif call.deciding:
                self._decide(call, payload.decode_error(frame.payload))
            else:
                _decode_and_settle(call, frame.kind, frame.payload)

    def _may_run_again(self, task: Task[Any]) -> bool:
        options = task._options
        return options is not None and options.retry_on is not None and task._attempt <= options.retries and not task._cancel_asked

    def _decide(self, call: Call, error: BaseException) -> None:
        """Find out whether a failed call is run again; ``retry_on`` may be user code. Runs on a decoder thread."""
        again = False
        try:
            again = call.task._options.retries_error(error)
        except Exception:
            LOGGER.exception("wetlands_executor: exception in retry_on of task %r", call.task.name)
        if again:
            self.post(partial(self._run_again, call, error))
        else:
            call.task._settle(None, error)
            self.post(partial(self._finish_decided, call))

    def _finish_decided(self, call: Call) -> None:
        process = call.process
        if call.place is not None and process is not None and process.worker in self.processes:
            self._feed(st.ItemsFinished(process.worker, [call]))

    def _run_again(self, call: Call, error: BaseException) -> None:
        task = call.task
        if task._cancel_asked:
            task._settle_cancelled()
        elif self._state.status is st.Status.CLOSED or self._state.terminated or self._state.broken:
            task._settle(None, error)
        else:
            # Order: the new try is submitted before the old one is finished, so that a draining pool does not close in between.
            again = self.make_call(call.encoded, call.context, task)
            task._next_attempt(again)
            self._feed(st.Submitted([again]))
        self._finish_decided(call)

    # --- time

    def _check_time(self, call: Call, limit: float) -> None:
        """The time of a call is over, unless its result is on the way."""
        process = call.process
        if process is None or self.processes.get(process.worker) is not process:
            return
        self._on_results(process)
        if call.number in process.calls and process.is_running(call):
            what = f"The task {call.task.name!r} ran longer than its limit of {limit:g} s"
            self._end_hung(process, call, partial(TaskTimeoutError, what))

    def _check_silence(self, process: WorkerProcess) -> None:
        process.silence_watched = False
        limit = self.worker_timeout
        if limit is None or self.processes.get(process.worker) is not process:
            return
        self._on_results(process)
        running = [call for call in process.calls.values() if process.is_running(call)]
        if not running and not process.calls:
            return
        left = process.last_heard + limit - time.monotonic()
        if left > 0 or not running:
            left = max(left, limit / 10)
            process.silence_watched = True
            self._set_timer(left, partial(self._check_silence, process))
            return
        call = running[0]
        what = f"The worker process {process.process.pid} of {self.what} gave no sign of life for {limit:g} s (worker_timeout) in {call.task.name!r}"
        self._end_hung(process, call, partial(WorkerUnresponsive, what))

    def _end_hung(self, process: WorkerProcess, call: Call, verdict: Callable[[str], BaseException]) -> None:
        """Let the worker print its stacks, then end it."""
        options = call.task._options
        if options is not None and isinstance(options.retry_on, (type, tuple)) and not options.retries_error(verdict("")):
            call.tries = 0
        call.task._verdict = verdict
        delay = STACKS_GRACE if process.ask_for_stacks() else 0.0
        self._set_timer(delay, partial(self._kill_hung, process, call))

    def _kill_hung(self, process: WorkerProcess, call: Call) -> None:
        if self.processes.get(process.worker) is process and call.number in process.calls:
            self._feed(st.KillRequested(call, retry=True))

    def _check_decoders(self) -> None:
        delay = self.decoders.check()
        if delay is not None:
            self._set_timer(delay, self._check_decoders)

    # --- the end of a process

    def _on_exit(self, process: WorkerProcess) -> None:
        """The process has ended: take what it still sent, then bury it."""
        assert self._port is not None
        process.exited = True
        self._port.remove(process.process.exit)
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
        code = process.process.reap()
        for fd, stream in zip((process.process.stdout, process.process.stderr), process.streams, strict=True):
            if not stream.paused:
                while data := port.read(fd, 65536):
                    if stream.name == "stderr":
                        process.keep_tail(data)
                        if not process.ready:
                            continue
                    self._put_text(stream, stream.splitter.feed(data))
            self._put_text(stream, stream.splitter.finish())
        self._absorb(process)
        unstarted = process.take_back()
        final = self._certify(process, code)
        self._last_streams = (*process.streams, process.records)
        del self.processes[process.worker]
        self._feed(st.WorkerExited(process.worker, unstarted, final))
        self._reasons.pop(process.worker, None)
        self._close_process(process)

    def _close_process(self, process: WorkerProcess) -> None:
        assert self._port is not None
        for fd in process.process.fds():
            self._port.remove(fd)
        process.process.close()

    def _certify(self, process: WorkerProcess, code: int) -> bool:
        """Keep the reason of this death for the tasks that it concerns; return True if another try to start would meet it again."""
        name = spawn.signal_name(code)
        how = f"by {name}" if name else f"with exit code {code}"
        tail = process.stderr_tail()
        said = f"; the last lines of its stderr:\n{tail}" if tail else ""
        self._stacks = process.stacks()
        if process.ready:
            if process.worker not in self._reasons:
                message = f"The worker process {process.process.pid} of {self.what} was ended {how} while it ran this task{said}"
                self._reasons[process.worker] = WorkerCrashed(message, code, name, tail)
            return False
        final = code in (wire.EXIT_TOO_OLD, wire.EXIT_START_FAILED) or process.failure is not None
        if process.worker not in self._reasons:
            cause = payload.decode_error(process.failure, trusted_only=True) if process.failure is not None else None
            self._reasons[process.worker] = self._start_error(f"its process ended {how} before it was ready", tail, cause)
        else:
            final = True
        return final

    def _start_error(self, reason: str, tail: str, cause: BaseException | None = None) -> BaseException:
        said = f"; its stderr:\n{tail}" if tail else ""
        error = WorkerStartError(f"A worker of {self.what} cannot be started: {reason}{said}")
        error.__cause__ = cause
        return error

    def _hand_over(self, job: Callable[[], object]) -> None:
        """Run ``job`` after the lines of the process that has just died."""
        if any(stream.under_way for stream in self._last_streams):
            self.output.put(job)
        else:
            job()

    _last_streams: tuple[OutputStream, ...] = ()
    _stacks = ""


def _is_interrupt(data: bytes | bytearray) -> bool:
    """Return True if a failure is the KeyboardInterrupt that the host has sent (a worker without a board cannot tell that itself)."""
    return bool(pickle.loads(data)[0] == "KeyboardInterrupt")


def _handle_record(records: OutputStream, fields: dict[str, Any]) -> None:
    """Handle a worker's log record as if it had been made here. Runs on the output thread: handlers are user code."""
    try:
        record = logging.makeLogRecord(fields)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    finally:
        records.written += 1


def _decode_and_settle(call: Call, kind: int, data: bytes | bytearray) -> None:
    """Unpickle and settle; on a decoder thread, or wherever user code may run."""
    try:
        if kind == wire.ERROR:
            value, error = None, payload.decode_error(data)
        else:
            value, error = payload.decode(data), None
    except BaseException as failure:  # noqa: BLE001 - unpickling is user code: SystemExit too is this task's failure and nobody else's
        value, error = None, payload.undecodable(failure, str(call.task.name))
    call.task._settle(value, error)


def python_version() -> str:
    """Return the host's Python version for messages."""
    return sys.version.split()[0]
