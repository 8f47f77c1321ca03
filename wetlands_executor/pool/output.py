"""What workers print, on its way to the host's streams and log handlers.

And outcomes that wait behind it.

Order: what a task printed is written before its outcome is delivered. A job that delivers an
outcome waits behind lines of its worker on the output thread, unless the program's own stream, into
which that thread has called, waits for that very outcome.

Threads: the I/O thread, but for what runs on the output thread, which says so.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Container
from functools import partial
from typing import Any

from wetlands_executor import threads
from wetlands_executor.futures.deferral import needed
from wetlands_executor.pool import polling
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.delivery import SerialThread, run_entry
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.worker_process import WorkerPhase, WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.serialize.restricted import BadFrame

#: Pieces of output under way at which reading from a worker's stream pauses, and goes on.
OUTPUT_HIGH, OUTPUT_LOW = 256, 64
#: Reads of 64 KB that empty a pipe of any size that Linux gives to an ordinary user. A child that
#: has survived could fill it for ever.
PIPE_READS = 17
#: Most bytes that one read takes from a pipe in packet mode (``O_DIRECT``, which a task may set for
#: what it prints to), and how many such reads empty a pipe of the usual size.
PACKET, PACKETS = 4096, 16


class _Everything:
    """Contains all."""

    def __contains__(self, what: object) -> bool:
        return True


EVERYTHING = _Everything()


class BehindLines:
    """A job behind lines, to be called once.

    Attributes:
        of: the task, or the receiver of a batch, whose outcome it delivers.
    """

    __slots__ = ("_job", "of")

    def __init__(self, job: Callable[[], object], of: object) -> None:
        self._job = job
        self.of = of

    def __call__(self) -> None:
        """Run the job."""
        self._job()


class Output:
    """The output thread of a pool, and what waits for it.

    Args:
        loop: the pool's I/O thread.
        workers: the pool's processes.
        label: how messages call the environment.
        pool: the object that a thread of the program names when it waits for the end of this pool.
    """

    def __init__(self, loop: IOLoop, workers: Workers, label: str, pool: Any) -> None:
        self._loop = loop
        self._workers = workers
        self._label = label
        self._pool = pool
        self.thread = SerialThread("wetlands-output", threads.OUTPUT)
        # What the program's stream or log handler, into which the output thread has called, has
        # waited for. That thread replaces it whole.
        self._awaited: Container[object] = frozenset()
        # Jobs of outcomes that wait on the output thread behind lines. The I/O thread takes out
        # those that have been run.
        self._behind: deque[list[Callable[[], object]]] = deque()

    # --- the output thread

    def put_foreign(self, job: Callable[[], object]) -> None:
        """Run ``job`` on the output thread.

        It enters a stream or log handlers of the program, which may wait for tasks.
        """
        self.thread.put(partial(self._run_foreign, job))

    def _run_foreign(self, job: Callable[[], object]) -> None:
        ident = threading.get_ident()
        if ident in threads.writing:
            # At the end of the pool: put by the stream or handler that this thread has called.
            job()
            return
        threads.writing[ident] = self._pass_outcomes
        try:
            job()
        finally:
            threads.writing.pop(ident, None)
            self._awaited = frozenset()

    def _pass_outcomes(self, what: Any) -> None:
        """Let outcomes overtake lines until the program's stream or log handler has returned.

        The stream or handler is about to wait for ``what``. That may be behind lines which only
        this thread can write: those of the task itself, or of one that it depends on. Its worker
        may also wait in a write of its own. Output thread.
        """
        before = self._awaited
        if what is None or what is self._pool:
            self._awaited = EVERYTHING
        elif isinstance(before, frozenset):
            # Another pool may hold tasks that wait for some of this one.
            dependants = getattr(what, "dependents", None)
            found = map(needed, dependants.copy()) if dependants is not None else (needed(what),)
            self._awaited = before.union((threads.NO_TASK,), *found)
        if not before:
            self._loop.post(self._resume_all)
        for entry in self._behind.copy():
            try:
                due = entry[0].of in self._awaited  # type: ignore[attr-defined]
            except IndexError:
                continue  # it has been run
            if due:
                run_entry(entry)

    def put(self, stream: OutputStream, text: str, task: Any = None) -> None:
        """Write text to the host's stream; nothing if it is empty."""
        if text:
            stream.enqueue()
            self.put_foreign(partial(self._write, stream, text, task))

    def _write(self, stream: OutputStream, text: str, task: Any) -> None:
        """Write on the output thread."""
        try:
            stream.write(text, task)
        finally:
            if stream.paused and stream.under_way < OUTPUT_LOW:
                self._loop.post(partial(self._resume, stream))

    # --- outcomes behind lines

    def deliver(self, process: WorkerProcess, call: Call, job: Callable[[], object]) -> None:
        """Run ``job``, which delivers an outcome of ``call``, once its lines are written."""
        if not process.output.printed:
            job()
            return
        waits = process.output.records.under_way > 0
        for stream in process.output.streams:
            if stream.splitter.pending:
                self.put(stream, stream.splitter.finish(), call.task)
            waits = waits or stream.under_way > 0
        if waits:
            self.run_behind(job, call)
        else:
            job()

    def run_behind(self, job: Callable[[], object], call: Call) -> None:
        """Run ``job``, which concerns ``call``, when all lines that have come are written."""
        outcome = BehindLines(job, call.task if call.batch is None else call.receiver)
        if outcome.of in self._awaited:
            job()
            return
        behind = self._behind
        while behind and not behind[0]:
            behind.popleft()
        entry = self.thread.put(outcome)
        behind.append(entry)
        # Race: the output thread may have looked before this entry was there. One of the two
        # threads runs it.
        if outcome.of in self._awaited:
            run_entry(entry)

    def after_death(
        self, streams: tuple[OutputStream, ...], job: Callable[[], object], call: Call
    ) -> None:
        """Run ``job``, which concerns ``call``, after the lines of the process that has died."""
        if any(stream.under_way for stream in streams):
            self.run_behind(job, call)
        else:
            job()

    # --- the pipes

    def watch(self, process: WorkerProcess) -> None:
        """Read what a new process prints."""
        for fd, stream in _pipes(process):
            self._loop.poller.add_reader(
                fd, polling.OUTPUT, partial(self._on_output, process, fd, stream)
            )

    def _on_output(self, process: WorkerProcess, fd: int, stream: OutputStream) -> int:
        """Read once; return how many bytes came."""
        if process.phase is WorkerPhase.GONE:
            return 0  # a job that was posted has found its end
        poller, output = self._loop.poller, process.output
        # Order: before the bytes are gone from the pipe, where a submitter that waits directly
        # looks for them
        output.begin_reading()
        data = poller.read(fd, 65536)
        if data is not None:
            output.note()
        output.end_reading()
        if data is None:
            return 0
        if not data:
            poller.remove(fd)
            self.put(stream, stream.splitter.finish())
            return 0
        if not output.asked:  # stacks that were asked for are no sign of life
            process.note_activity()
        if stream is output.stderr:
            output.keep(data)
            if not process.ready:
                output.hold_back(data)
                return len(data)
        self.put(stream, output.said(stream, stream.splitter.feed(data)), self._printed_by(process))
        if stream.under_way > OUTPUT_HIGH and not stream.paused and not self._awaited:
            # The host's stream is slower than the worker prints. Not reading any more makes the
            # worker's own write wait, as in a terminal.
            stream.pause()
            poller.remove(fd)
            # Race: the output thread updates `under_way` and then reads `paused`; this thread has
            # set `paused` and reads `under_way` now. At least one of the two observes the other's
            # store and resumes the stream.
            if stream.under_way < OUTPUT_LOW:
                self._resume(stream)
        return len(data)

    def read_before(self, process: WorkerProcess, outcomes: bool) -> None:
        """Read what was printed before frames that have just been read.

        ``outcomes``: some of these are outcomes.

        Race: since `wait` has looked at the output, the worker may have printed more and sent the
        results that have just been read. (Even if `wait` has named both: it looks at one descriptor
        after the other, and the worker goes on meanwhile.)
        """
        for callback in self._loop.poller.printed():
            callback()
        # Order: what a task has printed is on its way before its outcome is. The worker's last
        # lines fit into a pipe whose reading is paused, and its outcome overtakes them there. It
        # prints no faster for it: this is one reading, which takes what a pipe holds, for each
        # outcome. From a pipe in packet mode one reading takes no more than one write has written,
        # so more readings follow.
        for fd, stream in _pipes(process) if outcomes else ():
            if stream.paused or process.output.printed:
                for _ in range(PACKETS):
                    if not 0 < self._on_output(process, fd, stream) <= PACKET:
                        break

    def take_last(self, process: WorkerProcess) -> None:
        """Take what a dead process has printed."""
        poller, output = self._loop.poller, process.output
        for fd, stream in _pipes(process):
            # Also if reading had paused: what is left in the pipe is little, and is read by nothing
            # else.
            for _ in range(PIPE_READS):
                data = poller.read(fd, 65536)
                if not data:
                    break
                if stream is output.stderr:
                    output.keep(data)
                    if not process.ready:
                        continue
                self.put(stream, output.said(stream, stream.splitter.feed(data)))
            self.put(stream, output.said(stream, stream.splitter.finish()))

    def release(self, process: WorkerProcess) -> None:
        """Write what was said before the worker was ready."""
        self.put(process.output.stderr, process.output.release())

    @staticmethod
    def _printed_by(process: WorkerProcess) -> Any:
        """Return the task whose output has just been read, if it can be only one.

        What earlier tasks printed was read before their results were. So if the oldest unfinished
        call runs now, all of it is that call's.
        """
        oldest = process.given.oldest()
        return oldest.task if oldest is not None and process.given.is_running(oldest) else None

    def _resume(self, stream: OutputStream) -> None:
        for process in self._workers:
            for fd, mine in _pipes(process):
                if mine is stream and stream.paused:
                    stream.resume()
                    self._loop.poller.add_reader(
                        fd, polling.OUTPUT, partial(self._on_output, process, fd, stream)
                    )

    def _resume_all(self) -> None:
        """Read on although the host's streams take less.

        The output thread waits for a task, whose worker may wait in its own write.
        """
        for process in self._workers:
            for stream in process.output.streams:
                if stream.paused:
                    self._resume(stream)

    # --- frames

    def on_printed(
        self, process: WorkerProcess, call: Call | None, data: bytes | bytearray
    ) -> None:
        """Take what was printed where no pipe says in which order."""
        if not data or data[0] not in (1, 2):
            raise BadFrame("output of no stream")
        stream = process.output.streams[data[0] - 1]
        process.output.note(call.number if call is not None else 0)
        if stream is process.output.stderr:
            process.output.keep(bytes(data[1:]))
        self.put(
            stream, stream.splitter.feed(bytes(data[1:])), call.task if call is not None else None
        )

    def on_log(self, process: WorkerProcess, call: Call | None, fields: dict[str, Any]) -> None:
        """Take a log record of a worker."""
        process.output.note(call.number if call is not None else 0)
        self.log(process.output.records, fields, process.index, process.process.pid, call)

    def log(
        self, stream: OutputStream, fields: dict[str, Any], index: int, pid: int, call: Call | None
    ) -> None:
        """Let the host's logging handle a record, as if it had been made here."""
        fields.update(
            environment=self._label,
            worker_index=index,
            worker_pid=pid,
            task_id=str(call.number) if call is not None else "",
            task_name=call.name if call is not None else "",
        )
        stream.enqueue()
        self.put_foreign(partial(_handle_record, stream, fields))


def _pipes(process: WorkerProcess) -> tuple[tuple[int, OutputStream], tuple[int, OutputStream]]:
    return (process.process.stdout, process.output.stdout), (
        process.process.stderr,
        process.output.stderr,
    )


def _handle_record(records: OutputStream, fields: dict[str, Any]) -> None:
    """Handle a worker's log record. Runs on the output thread: handlers are user code."""
    try:
        record = logging.makeLogRecord(fields)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    finally:
        records.count_written()
