"""The only way from the outcome of a call to its settled Task.

``Settlement`` is the receiver of all calls that have a Task. It gives a value to the Task where no
code of the user's can run, else on a decoder thread, and has calls run again where that was asked
for. The thread that waits directly (``direct.py``) settles with the same reader and the same count.

*Settle, then feed:* a Task has its outcome before the state is fed that the item is finished, so
that a closed pool has no open task.

Threads: the I/O thread, the output thread behind lines, decoder threads; each method says which.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, Protocol

from wetlands_executor import threads
from wetlands_executor.errors import OF_STACKS, because
from wetlands_executor.futures.future import Task, call_text
from wetlands_executor.futures.reports import begin_again, reports_of
from wetlands_executor.futures.settling import note_run, settle, settle_cancelled
from wetlands_executor.pool.call import FAILED, Call, CallPhase, Kill, MakesError, Outcome
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.decoding import Decoding
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.retry import Failure, Next, next_step
from wetlands_executor.serialize.errors import decode_error
from wetlands_executor.serialize.restricted import trivial_value
from wetlands_executor.serialize.results import read_outcome, value_at_once
from wetlands_executor.serialize.unpickler import decode
from wetlands_executor.worker import wire
from wetlands_executor.worker.missing_names import reword

LOGGER = logging.getLogger("concurrent.futures")

#: For the stacks of calls that hang. It has a handler that does nothing: a program that has
#: configured no logging would else get them on its stderr (``logging.lastResort``).
STACKS_LOGGER = logging.getLogger("concurrent.futures.wetlands_executor")
STACKS_LOGGER.addHandler(logging.NullHandler())


class Backlog:
    """Frames of one call that wait to be unpickled, in order.

    No lock: on a decoder thread the collector may run a finalizer, which may wait for a task, and
    the I/O thread must not wait for that.

    Attributes:
        frames: (kind, data) of those that no decoder has taken.
        turn: holds one entry if no decoder works on this call.
    """

    __slots__ = ("frames", "turn")

    def __init__(self) -> None:
        self.frames: deque[tuple[int, Any]] = deque()
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


class Feed(Protocol):
    """Feeds the state."""

    def __call__(self, event: st.Event | None) -> None:
        """Do so. I/O thread."""


class Settlement:
    """Settles the tasks of a pool.

    Args:
        loop: its I/O thread.
        feed: feeds the state.
        workers: its processes.
        output: what their lines go through.
        decoding: its decoder threads.
        timers: the limits of calls.
        closing: why what has not run is cancelled.
        again: makes the call of a task's next try.
        stats: counts further tries.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        feed: Feed,
        workers: Workers,
        output: Output,
        decoding: Decoding,
        timers: CallTimers,
        closing: Closing,
        again: Callable[[Call], Call],
        stats: TaskStats,
    ) -> None:
        self._loop = loop
        self._feed = feed
        self._workers = workers
        self._output = output
        self._decoding = decoding
        self._timers = timers
        self._closing = closing
        self._again = again
        self._stats = stats

    # --- the receiver of calls that have a Task

    def on_outcome(self, call: Call, outcome: Outcome) -> None:
        """Settle a task. Any thread that holds its outcome."""
        kind, data, _place = outcome
        task = call.task
        if kind == FAILED:
            settle(task, None, data)
        elif call.phase is CallPhase.DECIDING or (call.backlog is not None and call.backlog.busy):
            self.decode(call, kind, data)
        elif kind == wire.CANCELLED:
            self.on_cancelled(call, self._closing.reason)
        elif (found := value_at_once(kind, data)) is not None:
            settle(task, found[0], None)  # a switch of threads would take longer
        else:
            self.decode(call, kind, data)

    def on_cancelled(self, call: Call, reason: str | None) -> None:
        """Cancel a task. Any thread that holds its outcome."""
        task = call.task
        settle_cancelled(task, call.cancel_reason or (None if task.cancel_requested else reason))

    def on_lost(self, call: Call, report: st.DeathReport) -> None:
        """Deal with a call whose worker has died. I/O thread."""
        task = call.task
        if call.phase is CallPhase.DECIDING:
            return  # its outcome is known; a decoder thread is dealing with it
        process = call.process
        if process is not None:
            since = process.given.running_since(call)
            note_run(task, process.process.pid, 0.0 if since is None else time.monotonic() - since)
        kill_reason = call.kill_reason
        error = (
            report.error
            if kill_reason is None or kill_reason is Kill.CANCELLED
            else self.explain(kill_reason, report.stacks)
        )
        if call.asks_whether_retried and self.asks_for_retry(call, Failure.LOST):
            call.move(CallPhase.DECIDING)
            self.find_out(call, error)
            return
        if call.asks_whether_retried:
            self._loop.post(partial(self._feed, st.Released()))
        call.move(CallPhase.ENDED)
        if kill_reason is Kill.CANCELLED:
            self._output.after_death(report.streams, partial(self.on_cancelled, call, None), call)
        else:
            self._output.after_death(report.streams, partial(settle, task, None, error), call)

    # --- what the state says of calls (I/O thread)

    def lost(self, action: st.Lost) -> st.Event | None:
        """Report to the receiver of a call that its worker has died."""
        call: Call = action.item  # type: ignore[assignment]
        report = _report(action)
        self._timers.stop(call)
        if call.batch is None:
            call.receiver.on_lost(call, report)
            return None
        # The state keeps a place until the rest waits again, before what is younger.
        self._loop.post(partial(self._feed, st.Released()))
        call.move(CallPhase.ENDED)
        kill_reason = call.kill_reason
        if kill_reason is not None:
            job = partial(call.receiver.on_cancelled, call, None)
            if kill_reason is not Kill.CANCELLED:
                job = partial(call.fail, self.explain(kill_reason, report.stacks))
            self._output.after_death(report.streams, job, call)
            return None
        process = call.process
        begun = process.given.begun(call) if process is not None else None
        if begun is None or begun > call.batch.received:
            failed = Outcome(FAILED, report.error, call.batch.advance())
            self._output.after_death(
                report.streams, partial(call.receiver.on_outcome, call, failed), call
            )
        rest = call.receiver.on_lost(call, report)
        return st.Submitted([rest], front=True) if rest is not None and rest.place is None else None

    def retried(self, action: st.Retried) -> None:
        """Begin a task anew: its call waits for another worker."""
        call: Call = action.item  # type: ignore[assignment]
        call.queue_again()
        call.number_tries()
        self._timers.stop(call)
        self._stats.begun_again()
        begin_again(call.task, None)

    def cancelled(self, action: st.Cancelled) -> None:
        """Cancel what will never run."""
        for item in action.items:
            call: Call = item  # type: ignore[assignment]
            if action.refused and not (call.task is not None and call.task.cancel_requested):
                # the call fails with what submit() would have raised
                call.receiver.on_outcome(call, Outcome(FAILED, self._closing.refusal()))
            else:
                call.receiver.on_cancelled(call, self._closing.reason)

    def failed(self, action: st.StartFailed | st.Broken) -> BaseException:
        """Fail what waited for a worker; return why."""
        error = _report(action).error
        for item in action.items:
            call: Call = item  # type: ignore[assignment]
            call.receiver.on_outcome(call, Outcome(FAILED, _copy_error(error)))
        return error

    # --- frames that are unpickled where user code may run

    def on_output(self, call: Call, kind: int, data: Any) -> None:
        """Take a named output that a running call has reported. I/O thread."""
        if call.parent is not None:
            call.parent.take_output(call, data)
        if call.backlog is None or not call.backlog.busy:
            found = trivial_value(data)
            if found is not None and type(found[0]) is dict:
                reports_of(call.task).add_outputs(call.task, found[0])
                return
        if call.parent is None:  # else the program needs none of the packages that it is of
            self.decode(call, kind, data)

    def decode(self, call: Call, kind: int, data: Any) -> None:
        """Unpickle on a decoder thread.

        Order: frames of one call one after another, those of different calls side by side.
        """
        backlog = call.backlog
        if backlog is None:
            backlog = Backlog()
            call.keep_backlog(backlog)
        backlog.frames.append((kind, data))
        if backlog.take_turn():
            self._decoding.run(partial(self._work_off, call, backlog))

    def _work_off(self, call: Call, backlog: Backlog) -> None:
        """Unpickle what waits. On a decoder thread, one at a time for each call."""
        threads.decide(call.task)
        while True:
            try:
                kind, data = backlog.frames.popleft()
            except IndexError:
                backlog.turn.append(None)
                # Race: one was added before the turn was given back
                if backlog.frames and backlog.take_turn():
                    continue
                return
            if kind == wire.OUTPUT:
                _decode_output(call, data)
            elif kind == wire.CANCELLED:
                self.on_cancelled(call, self._closing.reason)
            elif call.phase is CallPhase.DECIDING:
                self._decide(call, decode_error(data, foreign=call.foreign))
            else:
                _decode_and_settle(call, kind, data)

    # --- failures

    def explain(self, kill_reason: MakesError, stacks: str) -> BaseException:
        """Return the error of a call that hung, with its worker's stacks; log these as well."""
        error = kill_reason(stacks)
        if stacks:
            # Handlers take locks and are user code: not on this thread.
            self._output.thread.put(
                partial(
                    STACKS_LOGGER.warning,
                    "wetlands_executor: %s%s%s",
                    error.args[0],
                    OF_STACKS,
                    stacks,
                )
            )
            reword(error, f"{error.args[0]}{OF_STACKS}{stacks}")
        return error

    def fail_with_reason(self, call: Call, stacks: str) -> None:
        """Fail a call with its kill reason, or have it decided whether it is run again.

        I/O thread.
        """
        assert callable(call.kill_reason)
        error = self.explain(call.kill_reason, stacks)
        if self.asks_for_retry(call, Failure.CONDEMNED):
            call.move(CallPhase.DECIDING)
            call.give_up_tries()
            self.find_out(call, error)
        else:
            call.move(CallPhase.ENDED)
            call.fail(error)

    def decide_later(self, call: Call) -> None:
        """Postpone the outcome of a failed call until its error is unpickled.

        Its options may then say that it is run again. I/O thread.
        """
        call.move(CallPhase.DECIDING)
        call.give_up_tries()

    @staticmethod
    def asks_for_retry(call: Call, failure: Failure) -> bool:
        """Return True if ``_decide`` is to find out whether a failed task is run again."""
        task = call.task
        options = call.options
        if options is None:
            return False
        cancelled = task.cancel_requested or call.kill_reason is Kill.CANCELLED
        found: bool = options.retry.is_asked(failure, task.attempt, cancelled=cancelled)
        return found

    def find_out(self, call: Call, error: BaseException) -> None:
        """Find out whether a failed call is run again, and do what follows. Any thread.

        Not on this thread: ``retry_on`` may be user code, of a worker too.
        """
        parent = call.parent
        if parent is not None and parent.asks:
            asked = self._asked_for_place(call)
            post = self._loop.post
            parent.ask(error, lambda again: post(partial(self._decided, call, error, asked, again)))
        else:
            self._decoding.run(partial(self._decide, call, error))

    @staticmethod
    def _asked_for_place(call: Call) -> bool:
        """Return True if its worker died: the state has reserved a place."""
        return call.asks_whether_retried and call.place is None

    def _decided(self, call: Call, error: BaseException, asked: bool, again: bool) -> None:
        if again:
            self._run_again(call, error, asked)
        else:
            settle(call.task, None, error)
            self._finish_decided(call, asked)

    def _decide(self, call: Call, error: BaseException) -> None:
        """Find out whether a failed call is run again; ``retry_on`` may be user code.

        Runs on a decoder thread.
        """
        threads.decide(call.task)
        threads.holding.add(get_ident())
        again = False
        asked = self._asked_for_place(call)
        try:
            again = call.options is not None and call.options.run_again_after(error, call.task.name)
        finally:
            threads.holding.discard(get_ident())
            if again:
                self._loop.post(partial(self._run_again, call, error, asked))
            else:
                settle(call.task, None, error)
                self._loop.post(partial(self._finish_decided, call, asked))

    def _finish_decided(self, call: Call, asked: bool) -> None:
        call.move(CallPhase.ENDED)
        if asked:
            self._feed(st.Released())
        process = call.process
        self._timers.stop(call)
        if call.place is not None and process is not None and self._workers.has(process):
            self._feed(st.ItemsFinished(process.worker, [call]))

    def _run_again(self, call: Call, error: BaseException, asked: bool) -> None:
        task = call.task
        step = next_step(cancelled=task.cancel_requested, over=self._closing.over)
        if step is Next.CANCEL:
            self.on_cancelled(call, self._closing.reason)
        elif step is Next.FAIL:
            settle(task, None, error)
        else:
            # Order: the new try is submitted before the old one is finished, so that a draining
            # pool does not close in between.
            again = self._again(call)
            self._stats.begun_again()
            begin_again(task, again)
            again.number_tries()
            self._feed(st.Submitted([again]))
        self._finish_decided(call, asked)


def _report(action: st.Lost | st.StartFailed | st.Broken) -> st.DeathReport:
    assert action.report is not None  # every death that the state is fed has one
    return action.report


def _copy_error(error: BaseException) -> BaseException:
    """Return an equal exception.

    Each task raises its own, because raising one writes its traceback.
    """
    try:
        # As pickle would: with the attributes that the message is made of.
        reduced: Any = error.__reduce__()
        copy: BaseException = reduced[0](*reduced[1])
    except Exception:  # noqa: BLE001 - an __init__ with another signature: then the tasks share it
        return error
    return because(copy, error.__cause__)


def _decode_output(call: Call, data: Any) -> None:
    try:
        new = decode(data, call.foreign)
        if not isinstance(new, dict):
            raise TypeError(f"a {type(new).__name__} came instead of a dict of outputs")
        reports_of(call.task).add_outputs(call.task, new)
    except BaseException:
        # Unpickling is user code. The outcome of the call, which follows, must be settled all the
        # same.
        LOGGER.exception(
            "wetlands_executor: an output of task %s cannot be rebuilt in this process, and is "
            "missing. "
            "Report builtin types or numpy arrays, or what both sides can import in the same "
            "version",
            call_text(call.task),
        )


def _decode_and_settle(call: Call, kind: int, data: Any) -> None:
    """Unpickle and settle; on a decoder thread, or wherever user code may run.

    Guarantee: whatever goes wrong is the failure of this task, which is settled in any case.
    """
    task: Task[Any] = call.task
    settle(task, *read_outcome(kind, data, call.foreign, call.sender, partial(call_text, task)))
