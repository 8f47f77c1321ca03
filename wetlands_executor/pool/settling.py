"""From an outcome to a settled task: after what it printed, unpickled where user code may run, run again where that was asked for."""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

from wetlands_executor import threads
from wetlands_executor.pool.core import PoolCore
from wetlands_executor.pool.delivery import run_entry
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.process import TOO_LARGE, Call, Frame, WorkerProcess
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.retry import Failure, Next, next_step
from wetlands_executor.serialize.errors import decode_error, undecodable
from wetlands_executor.serialize.plain import is_trivial
from wetlands_executor.serialize.unpickler import decode, decode_arrays
from wetlands_executor.task import Task, needed
from wetlands_executor.worker import wire

LOGGER = logging.getLogger("concurrent.futures")



_VALUES = frozenset((wire.VALUE, wire.VALUE_IN_BLOCKS))
#: Pieces of output under way at which reading from a worker's stream pauses, and goes on.
OUTPUT_HIGH, OUTPUT_LOW = 256, 64


class _Everything:
    """Contains all."""

    def __contains__(self, what: object) -> bool:
        return True


EVERYTHING = _Everything()


class Outcome:
    """A job behind lines, to be called once.

    Attributes:
        of: the task or the map that it tells of.
    """

    __slots__ = ("_job", "of")

    def __init__(self, job: Callable[[], object], of: object) -> None:
        self._job = job
        self.of = of

    def __call__(self) -> None:
        """Run the job."""
        self._job()


class Backlog:
    """Frames of one call that wait to be unpickled, in order.

    No lock: on a decoder thread the collector may run a finalizer, which may wait for a task, and the I/O thread must not wait for that.

    Attributes:
        frames: those that no decoder has taken.
        turn: holds one entry if no decoder works on this call.
    """

    __slots__ = ("frames", "turn")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.turn: deque[None] = deque((None,))

    @property
    def busy(self) -> bool:
        """True if frames wait or are being unpickled."""
        return bool(self.frames) or not self.turn

    def take_turn(self) -> bool:
        """Return True if the caller has to see that a decoder works on this call."""
        try:
            self.turn.pop()
        except IndexError:
            return False
        return True


class Settling(PoolCore):
    """Gives tasks their outcome. I/O thread, output thread, decoder threads; each method says which."""

    def _put_text(self, stream: OutputStream, text: str, task: Task[Any] | None = None) -> None:
        if text:
            stream.enqueued += 1
            self.put_foreign(partial(self._write_text, stream, text, task))

    def _write_text(self, stream: OutputStream, text: str, task: Task[Any] | None) -> None:
        """Runs on the output thread."""
        try:
            stream.write(text, task)
        finally:
            if stream.paused and stream.under_way < OUTPUT_LOW:
                self.post(partial(self._resume, stream))

    def _deliver(self, process: WorkerProcess, call: Call, frame: Frame) -> None:
        """Settle a task, after what it printed and where its result may be unpickled."""
        if process.printed:
            self._after_output(process, call, partial(self._settle, call, frame))
        else:
            self._settle(call, frame)

    def _after_output(self, process: WorkerProcess, call: Call, job: Callable[[], object]) -> None:
        """Run ``job`` when what the call has printed is written."""
        waits = process.records.under_way > 0
        for stream in process.streams:
            if stream.splitter.pending:
                self._put_text(stream, stream.splitter.finish(), call.task)
            waits = waits or stream.under_way > 0
        if waits:
            self._run_after_lines(job, call)
        else:
            job()

    def _run_after_lines(self, job: Callable[[], object], call: Call) -> None:
        """Run ``job``, which tells of ``call``, when all lines that have come are written. I/O thread."""
        outcome = Outcome(job, call.series if call.several else call.task)  # type: ignore[attr-defined]
        if outcome.of in self.awaited:
            job()
            return
        behind = self._behind_lines
        while behind and not behind[0]:
            behind.popleft()
        entry = self.output.put(outcome)
        behind.append(entry)
        if outcome.of in self.awaited:  # Race: the output thread may have looked before this entry was there. One of the two runs it
            run_entry(entry)

    def _pass_outcomes(self, what: Any) -> None:
        """Let outcomes overtake lines until the program's stream or log handler, which is about to wait for ``what``, has returned.

        What it waits for may be behind lines which only this thread can write: those of the task itself, or of one that it depends on. Its
        worker may also wait in a write of its own. Output thread.
        """
        before = self.awaited
        if what is None or what is self:
            self.awaited = EVERYTHING
        elif isinstance(before, frozenset):
            # Another pool may hold tasks that wait for some of this one.
            found = map(needed, what.dependents.copy()) if isinstance(what, PoolCore) else (needed(what),)
            self.awaited = before.union((threads.NO_TASK,), *found)
        if not before:
            self.post(self._resume_all)
        for entry in self._behind_lines.copy():
            try:
                due = entry[0].of in self.awaited  # type: ignore[attr-defined]
            except IndexError:
                continue  # it has been run
            if due:
                run_entry(entry)

    def _settle(self, call: Call, frame: Frame) -> None:
        kind, data = frame.kind, frame.payload
        if call.deciding or (call.backlog is not None and call.backlog.busy):
            self._decode(call, frame)
        elif kind == wire.NONE:
            call.task._settle(None, None)
        elif kind == wire.CANCELLED:
            call.task._settle_cancelled(self.reason_of_cancel(call.task))
        elif kind == wire.VALUE and is_trivial(data):
            try:
                value = pickle.loads(data)
            except Exception:  # noqa: BLE001 - it is met again where what is wrong with it can be looked into
                self._decode(call, frame)
            else:
                call.task._settle(value, None)
        elif kind in _VALUES and (found := decode_arrays(data)) is not None:
            call.task._settle(found[0], None)  # a change of threads would take longer
        elif kind == TOO_LARGE:
            call.task._settle(None, MemoryError(f"the result has {int(data):,} bytes, which do not fit into this process"))
        else:
            self._decode(call, frame)

    def _decode(self, call: Call, frame: Frame) -> None:
        """Unpickle on a decoder thread. Order: frames of one call one after another, those of different calls side by side."""
        backlog = call.backlog
        if backlog is None:
            backlog = call.backlog = Backlog()
        backlog.frames.append(frame)
        if backlog.take_turn():
            self.run_user_code(partial(self._work_off, call, backlog))

    def run_user_code(self, job: Callable[[], object]) -> None:
        """Run ``job`` on a decoder thread. Any thread."""
        if self.decoders.put(job):
            if self._thread is not None and self._thread.ident == get_ident():
                self._check_decoders(due=False)
            else:
                self._watch_decoders()

    def _watch_decoders(self) -> None:
        self.post(partial(self._check_decoders, due=False))

    def _check_decoders(self, *, due: bool) -> None:
        """Start a decoder if one is needed. I/O thread. ``due``: the timer of an earlier look has fired; there is one at a time."""
        if due:
            self._decoders_watched = False
        delay = self.decoders.check()
        if delay is not None and not self._decoders_watched:
            self._decoders_watched = True
            self._set_timer(delay, partial(self._check_decoders, due=True))

    def _work_off(self, call: Call, backlog: Backlog) -> None:
        """Runs on a decoder thread, on one at a time for each call."""
        threads.decide(call.task)
        while True:
            try:
                frame = backlog.frames.popleft()
            except IndexError:
                backlog.turn.append(None)
                if backlog.frames and backlog.take_turn():  # Race: one was added before the turn was given back
                    continue
                return
            if frame.kind == wire.OUTPUT:
                self._decode_output(call, frame)
            elif frame.kind == wire.NONE:
                call.task._settle(None, None)
            elif frame.kind == wire.CANCELLED:
                call.task._settle_cancelled(self.reason_of_cancel(call.task))
            elif call.deciding:
                self._decide(call, decode_error(frame.payload, foreign=_is_foreign(call)))
            else:
                _decode_and_settle(call, frame.kind, frame.payload)

    @staticmethod
    def _decode_output(call: Call, frame: Frame) -> None:
        try:
            new = decode(frame.payload, _is_foreign(call))
            if not isinstance(new, dict):
                raise TypeError(f"a {type(new).__name__} came instead of a dict of outputs")
            call.task._report_outputs(new)
        except BaseException:  # unpickling is user code: the outcome, which comes behind this, must be settled all the same
            LOGGER.exception(
                "wetlands_executor: an output of task %s cannot be rebuilt in this process, and is missing. "
                "Report builtin types or numpy arrays, or what both sides can import in the same version",
                call.task._call_text(),
            )

    @staticmethod
    def _asks_for_retry(task: Task[Any], failure: Failure) -> bool:
        """Return True if ``_decide`` is to find out whether a failed task is run again."""
        options = task._options
        cancelled = task._cancel_asked or task._verdict is True
        return options is not None and options.retry.is_asked(failure, task._attempt, cancelled=cancelled)

    def _decide(self, call: Call, error: BaseException) -> None:
        """Find out whether a failed call is run again; ``retry_on`` may be user code. Runs on a decoder thread."""
        threads.decide(call.task)
        threads.holding.add(get_ident())
        again = False
        asked = call.asks and call.place is None  # its worker died: the state has reserved a place
        try:
            again = call.task._options.retry.matches(error)
        except BaseException:  # user code, and no thread of its own: SystemExit there ends nothing either
            LOGGER.exception("wetlands_executor: exception in retry_on of task %r", call.task.name)
        finally:
            threads.holding.discard(get_ident())
            if again:
                self.post(partial(self._run_again, call, error, asked))
            else:
                call.task._settle(None, error)
                self.post(partial(self._finish_decided, call, asked))

    def _finish_decided(self, call: Call, asked: bool) -> None:
        if asked:
            self._feed(st.Released())
        process = call.process
        self._stop_call_timers(call)
        if call.place is not None and process is not None and process.worker in self.processes:
            self._feed(st.ItemsFinished(process.worker, [call]))

    def _run_again(self, call: Call, error: BaseException, asked: bool) -> None:
        task = call.task
        step = next_step(cancelled=task._cancel_asked, ending=self._state.ending)
        if step is Next.CANCEL:
            task._settle_cancelled(self.reason_of_cancel(task))
        elif step is Next.FAIL:
            task._settle(None, error)
        else:
            # Order: the new try is submitted before the old one is finished, so that a draining pool does not close in between.
            again = self.make_call(call.encoded, call.context, task)
            task._next_attempt(again)
            self._feed(st.Submitted([again]))
        self._finish_decided(call, asked)


def _is_foreign(call: Call) -> bool:
    return call.process is not None and call.process.foreign


def _decode_and_settle(call: Call, kind: int, data: bytes | bytearray) -> None:
    """Unpickle and settle; on a decoder thread, or wherever user code may run.

    Guarantee: whatever goes wrong is the failure of this task, which is settled in any case.
    """
    value: Any = None
    error: BaseException | None = None
    try:
        if kind == wire.ERROR:
            error = decode_error(data, foreign=_is_foreign(call))
        else:
            value = decode(data, _is_foreign(call))
    except BaseException as failure:  # noqa: BLE001 - unpickling is user code: SystemExit too is this task's failure and nobody else's
        error = failure
        error = undecodable(failure, call.task._call_text(), *call.sender)
    finally:
        call.task._settle(value, error)
