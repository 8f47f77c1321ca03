"""ONE worker process: its phase, the calls that it has, requests to it, its end.

What goes to it is its ``outbox``, what comes from it its ``results`` and its ``output``; the ways
past the I/O thread are its ``direct``.

Threads: the I/O thread's, but for ``direct.send``, and what is said to be for any thread.

The end: only ``reaper.py`` declares a process dead, when its ``exit`` descriptor says so.
Everything else (a bad frame, a broken pipe, a time limit, shutdown) only kills.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple, Protocol

from wetlands_executor.pool import spawn
from wetlands_executor.pool.call import Call, CallPhase
from wetlands_executor.pool.direct import DirectReceive, DirectSend
from wetlands_executor.pool.outbox import Outbox
from wetlands_executor.pool.polling import Poller
from wetlands_executor.pool.result_stream import ResultStream
from wetlands_executor.pool.timers import Timer
from wetlands_executor.pool.worker_output import WorkerOutput
from wetlands_executor.scheduling.phases import IllegalMove, moved
from wetlands_executor.sharedmem.results import ResultMemory
from wetlands_executor.system import unread
from wetlands_executor.worker import wire
from wetlands_executor.worker.system import stack_signal


class WorkerPhase(Enum):
    """What has become of a worker process."""

    STARTED = "started"  # it runs, and has said nothing
    GREETED = "greeted"  # it has said which Python it is
    ABANDONED = "abandoned"  # it is killed on purpose before it was ready
    READY = "ready"  # it has imported its preload and run its initializer
    STOPPING = "stopping"  # it was told to end, or is killed on purpose, and was ready
    FAILED = "failed"  # it has ended, and nothing has said that it was ready
    EXITED = "exited"  # it has ended, and was ready
    GONE = "gone"  # its death is declared, its descriptors are closed


WORKER_MOVES: Mapping[WorkerPhase, frozenset[WorkerPhase]] = {
    WorkerPhase.STARTED: frozenset(
        {WorkerPhase.GREETED, WorkerPhase.ABANDONED, WorkerPhase.FAILED, WorkerPhase.GONE}
    ),
    WorkerPhase.GREETED: frozenset(
        {WorkerPhase.READY, WorkerPhase.ABANDONED, WorkerPhase.FAILED, WorkerPhase.GONE}
    ),
    WorkerPhase.ABANDONED: frozenset({WorkerPhase.STOPPING, WorkerPhase.FAILED, WorkerPhase.GONE}),
    WorkerPhase.READY: frozenset({WorkerPhase.STOPPING, WorkerPhase.EXITED, WorkerPhase.GONE}),
    WorkerPhase.STOPPING: frozenset({WorkerPhase.EXITED, WorkerPhase.GONE}),
    # Its last frames are read after its exit was seen.
    WorkerPhase.FAILED: frozenset({WorkerPhase.EXITED, WorkerPhase.GONE}),
    WorkerPhase.EXITED: frozenset({WorkerPhase.GONE}),
    WorkerPhase.GONE: frozenset(),
}
#: What follows when a worker says that it is ready.
_WHEN_READY = {
    WorkerPhase.GREETED: WorkerPhase.READY,
    WorkerPhase.ABANDONED: WorkerPhase.STOPPING,
    WorkerPhase.FAILED: WorkerPhase.EXITED,
}
#: What follows when it is to end on purpose.
_WHEN_STOPPED = {
    WorkerPhase.STARTED: WorkerPhase.ABANDONED,
    WorkerPhase.GREETED: WorkerPhase.ABANDONED,
    WorkerPhase.READY: WorkerPhase.STOPPING,
}


class LossWatch(Protocol):
    """Looks for losses while a worker holds calls; see ``watchdog.py``.

    Attributes:
        armed: the next look is set.
    """

    armed: bool

    def start(self) -> None:
        """Set the next look, if it is not set."""


class Losses(NamedTuple):
    """What is missing of what went to a worker and came from it; see ``watchdog.py``.

    Attributes:
        frames: calls that are neither in the inbox nor were taken.
        records: bytes of the bulk pipe.
        answers: bytes of the results pipe.
        seen: where the worker stood when that was seen.
    """

    frames: int
    records: int
    answers: int
    seen: tuple[int, ...]


class WorkerProcess:
    """One incarnation.

    Args:
        worker: the incarnation's number in ``PoolState``.
        index: its slot.
        process: pipes and pid.
        poller: what reads and writes the pipes.
        nonce: what its frames have.
        result_memory: what goes and comes in shared memory.

    Attributes:
        calls: number -> call, of what was given to it and is not finished; always the same
            dictionary.
        hello: what it said about itself, None before.
        foreign: its bytecode is not ours.
        failure: why it cannot start (payload of START_FAILED), else None.
        reason: why it was killed, if not for the sake of one call: what its calls fail with, or
            those that wait for it to start.
        finished: number of calls that it has finished.
        proven: the state was fed a call that it has finished.
        crowded: it may have been given calls in another order than that of ``calls``, until those
            have ended.
        deferred: number of outcomes that came before their calls were registered, and are taken up
            again a little later. Those behind them come first.
        timers: those that concern it, stopped when it has ended.
        suspicion: see ``blame.py``.
        harmed: a task has read what was written to it, or takes its wakeups.
    """

    _watchdog: LossWatch | None = None
    _losses: Losses | None = None
    _times_seen = 0
    # The call that was sent directly last, if nothing was given to the worker at the same time.
    _sent_directly = 0
    harmed = False

    def __init__(
        self,
        worker: int,
        index: int,
        process: spawn.Process,
        poller: Poller,
        nonce: int,
        result_memory: ResultMemory | None = None,
    ) -> None:
        self.worker = worker
        self.index = index
        self.process = process
        self.poller = poller
        self.nonce = nonce
        self.result_memory = result_memory if result_memory is not None else ResultMemory(-1, None)
        self.phase = WorkerPhase.STARTED
        self.calls: dict[int, Call] = {}
        self.outbox = Outbox(self, poller, process, nonce)
        self.output = WorkerOutput(process.page, self.calls)
        self.results = ResultStream(
            poller,
            process.results,
            nonce,
            process.pid,
            self.result_memory,
            getattr(process, "forked", False),
        )
        self.direct = DirectSend(self, process.inbox, self.outbox, self.result_memory.incarnation)
        self.hello: dict[str, Any] | None = None
        self.foreign = False
        self.failure: bytes | bytearray | None = None
        self.reason: BaseException | None = None
        self.finished = 0
        self.proven = False
        self.crowded = False
        self.deferred = 0
        self.timers: list[Timer] = []
        self.suspicion: Any = None
        #: The direct way back, where Tasks look for it (``futures/home.py``): the same as
        #: ``direct.receive``.
        self.direct_receive: DirectReceive | None = None
        self._on_answer: Callable[[], None] | None = None
        self._last_heard = 0.0

    # --- phases

    def move(self, phase: WorkerPhase) -> None:
        """Go to another phase.

        Raises:
            IllegalMove: it cannot follow the present one.
        """
        self.phase = moved(WORKER_MOVES, self.phase, phase)

    @property
    def ready(self) -> bool:
        """True if it was ready once: what it was given, it may have run."""
        return self.phase in (WorkerPhase.READY, WorkerPhase.STOPPING, WorkerPhase.EXITED)

    @property
    def exited(self) -> bool:
        """True if the process has ended."""
        return self.phase in (WorkerPhase.EXITED, WorkerPhase.FAILED, WorkerPhase.GONE)

    @property
    def stopping(self) -> bool:
        """True if it was told to end, or is killed on purpose."""
        return self.phase in (WorkerPhase.STOPPING, WorkerPhase.ABANDONED)

    def greet(self, hello: dict[str, Any], foreign: bool) -> None:
        """Note its hello."""
        if self.phase is WorkerPhase.STARTED:
            self.move(WorkerPhase.GREETED)
        self.hello = hello
        self.foreign = foreign
        self.results.greet()
        self.outbox.expect_bytecode(foreign)

    def become_ready(self) -> None:
        """Note its message that it is ready. It may have ended since."""
        self.move(_WHEN_READY.get(self.phase, WorkerPhase.READY))

    def fail(self, failure: bytes | bytearray) -> None:
        """Note its message why it cannot start."""
        self.failure = failure

    def blame(self, reason: BaseException) -> None:
        """Take note of why nothing can run in it; it ends by itself."""
        self.reason = reason

    def note_exit(self) -> None:
        """Take note that the process has ended."""
        self.move(WorkerPhase.EXITED if self.ready else WorkerPhase.FAILED)

    def begin_stop(self) -> None:
        """Take note that it ends on purpose."""
        phase = _WHEN_STOPPED.get(self.phase)
        if phase is not None:
            self.move(phase)

    # --- calls

    def give(self, calls: Iterable[Call]) -> list[tuple[Call, Exception]]:
        """Send calls, with the records that they refer to.

        Return those that cannot be sent, and why.
        """
        direct, outbox, mine = self.direct, self.outbox, self.calls
        if direct.open or direct.receive is not None:
            direct.shut(calls)
        if self._watchdog is not None and not self._watchdog.armed:
            self._watchdog.start()
        frames = []
        failed = []
        mark = outbox.next_mark
        if self._sent_directly in mine and next(reversed(mine)) == self._sent_directly:
            # Order: before calls that are numbered. The one that was sent directly is not, and a
            # task may have read it.
            frames.append(outbox.frame(wire.AFTER, self._sent_directly, mark))
            mark = mark + wire.MARK_STEP & wire.MARK_BITS
        given, queued = CallPhase.GIVEN, CallPhase.QUEUED
        for call in calls:
            if call.phase is not queued:
                raise IllegalMove(
                    f"the call {call.number} is {call.phase.value}, and cannot be given to a worker"
                )
            call.process = self
            call.phase = given
            mine[call.number] = call
            try:
                if not outbox.knows(call):
                    outbox.tell(call)
                out_of_band = call.encoded.out_of_band
                if out_of_band is not None:
                    call.watched = call.watched & ~wire.KEPT | out_of_band.send(
                        self.result_memory.incarnation
                    )
                    self.result_memory.used = True
                frames.append(call.frame(mark))
                mark = mark + wire.MARK_STEP & wire.MARK_BITS
            except Exception as error:  # noqa: BLE001
                # one call; records of it that are on the way are skipped by the worker
                del mine[call.number]
                failed.append((call, error))
        if frames:
            outbox.frames(b"".join(frames), mark)
        else:
            outbox.flush()
        return failed

    def listen(self, receive: DirectReceive | None, on_answer: Callable[[], None]) -> None:
        """Open the direct way back, if there is one.

        Args:
            receive: it.
            on_answer: what the I/O thread does when an answer lies on the page for it.
        """
        self.direct.listen(receive)
        self.direct_receive = receive
        self._on_answer = on_answer

    def register(self) -> list[Call]:
        """Add the calls that submitting threads have written since the last time to ``calls``.

        Return them.
        """
        found = self.direct.register(self.calls, self.poller, self._on_answer)
        if found:
            self._start_watchdog()
            # Race: the other frames may have been written after these
            self.crowded = len(self.calls) > 1
            self._sent_directly = 0 if self.crowded else found[0].number
        return found

    def reclaim(self) -> list[Call]:
        """Return the calls that the worker has not started; they are no longer with it."""
        return self._take_back(self.outbox.reclaim())

    def _take_back(self, numbers: Iterable[int]) -> list[Call]:
        found = []
        for number in numbers:
            call = self.calls.pop(number, None)
            if call is not None:
                call.queue_again()
                if call.encoded.out_of_band is not None:
                    call.encoded.out_of_band.take_back()
                found.append(call)
        return found

    def reclaim_lost(self) -> list[Call]:
        """Return the calls that have not begun although their frames are gone.

        They are no longer with the worker. Order: the inbox was emptied before (``reclaim``), and
        after that all results that it has sent were read.

        Guarantee: nothing runs twice. A worker writes to the page which call it takes before
        anything of that runs, and answers it before it takes another one. So what was not answered
        is that call, or has not begun. Where an answer may have been lost on its way, nothing is
        returned.
        """
        taken = self.taken()
        if taken is None or self.reason is not None or self.suspicion is not None or self.deferred:
            return []
        return self._take_back(
            [
                number
                for number, call in self.calls.items()
                if number != taken and call.verdict is None
            ]
        )

    def current_calls(self) -> list[Call]:
        """Return what the worker was given and has not finished, oldest first. Any thread."""
        return list(self.calls.values()) + [
            entry[0] for entry in list(self.direct.sent) if entry[0].number not in self.calls
        ]

    def oldest(self) -> Call | None:
        """Return the call that it was given first and has not finished."""
        return next(iter(self.calls.values()), None)

    def defer(self, change: int) -> None:
        """Count outcomes that wait for their calls to be registered.

        One more (1), or one less (-1).
        """
        self.deferred += change

    def note_finished(self, count: int, proven: bool) -> None:
        """Count calls that it has finished; ``proven``: the state is fed one."""
        self.finished += count
        self.proven = self.proven or proven

    # --- what the worker has written to the shared page

    def is_running(self, call: Call) -> bool:
        """Return True if the worker has taken this call. Any thread."""
        page = self.process.page
        try:
            return (
                call in self.current_calls()
                if page is None
                else page.words[wire.TAKEN] & wire.NUMBER == call.number
            )
        except ValueError:  # released: the process is gone
            return False

    def running(self) -> list[Call]:
        """Return the calls that it has taken."""
        return [call for call in self.calls.values() if self.is_running(call)]

    def running_since(self, call: Call) -> float | None:
        """Return when the worker took the call that it runs, on the monotonic clock in seconds.

        None if unknown. Any thread.
        """
        page = self.process.page
        try:
            if page is None or page.words[wire.TAKEN] & wire.NUMBER != call.number:
                return None
            return page.words[wire.STARTED_NS] / 1e9
        except ValueError:
            return None

    def begun(self, call: Call) -> int | None:
        """Return how many calls of a batch the worker has begun; None if unknown."""
        page = self.process.page
        if page is None or not call.encoded.flags & wire.MANY:
            return None
        taken = page.words[wire.TAKEN]
        return taken >> wire.NUMBER_BITS if taken & wire.NUMBER == call.number else 0

    def taken(self) -> int | None:
        """Return the number of the call that the worker has taken last, as it says.

        None if unknown.
        """
        page = self.process.page
        try:
            return None if page is None else page.words[wire.TAKEN] & wire.NUMBER
        except ValueError:
            return None

    def is_due(self, number: int) -> bool:
        """Return True if the outcome of this call may come now, though there is an older call.

        Outcomes come in order, but for two ways.
        """
        if self.crowded or self.deferred:
            return True
        back = self.direct.receive
        return back is not None and back.answer()[1] == next(iter(self.calls)) != number

    def may_say(self, ended: bool, number: int) -> bool:
        """Return True if a frame may concern this call, which is not the worker's oldest.

        ``ended``: the frame says that the call has ended; else it reports something of it.
        """
        return self.is_due(number) if ended else self.has_taken(number)

    def has_taken(self, number: int) -> bool:
        """Return True if the worker may speak of this call, which is not the oldest that it has.

        It has taken it, or a later one.
        """
        taken = self.taken()
        if self.crowded or self.deferred or taken is None:
            return True
        for one in self.calls:
            if one == number:
                return taken in self.calls
            if one == taken:
                return False
        return True  # it is of no call that is known

    def suspect(self, suspicion: Any) -> None:
        """Hold something against the worker, or nothing any more (None); see ``blame.py``."""
        self.suspicion = suspicion

    # --- what has become of what was written

    def watch_losses(self, watchdog: LossWatch) -> None:
        """Set the watchdog that looks for losses while this worker holds calls."""
        self._watchdog = watchdog

    def _start_watchdog(self) -> None:
        if self._watchdog is not None and not self._watchdog.armed:
            self._watchdog.start()

    @property
    def has_waiter(self) -> bool:
        """True if a submitter sleeps until the worker notifies it."""
        return self.direct.receive is not None and self.direct.receive.caller is not None

    def mark_harmed(self) -> bool:
        """Take note that it is harmed; return True for the first time."""
        first, self.harmed = not self.harmed, True
        return first

    def look_for_losses(self) -> tuple[Losses | None, int]:
        """Return what is missing, or None; and how many looks in succession saw that before."""
        losses = self._find_losses()
        self._times_seen = (
            self._times_seen + 1 if losses is not None and losses == self._losses else 0
        )
        self._losses = losses
        return losses, self._times_seen

    def _find_losses(self) -> Losses | None:
        """Return what is missing of what went to the worker and came from it; None if nothing is.

        Race: what the worker has just read, and not noted on the page, is missing too. Equal
        answers, with a wait of the I/O thread in between, say that it stays so. Answers that are
        missing are missing for good.
        """
        page, calls = self.process.page, self.calls
        if page is None or not self.ready or self.exited or self.results.ended:
            return None
        words = page.words
        # Order: before the pipe is looked at. What the worker has sent is in the pipe by then, or
        # has been read.
        sent = words[wire.SENT]
        answers = max(0, sent - self.results.arrived - unread(self.process.results))
        taken, read = words[wire.TAKEN] & wire.NUMBER, words[wire.BULK_READ]
        held = {call.number for call in self.current_calls()}
        frames = records = 0
        if not self.stopping:
            there = self.outbox.in_pipes()
            frames = max(len(held) - (taken in held) - there.frames, 1 if there.cut else 0)
            records = max(0, there.records - read)
        back = self.direct.receive
        waiting, asleep = back.missed(calls) if back is not None else (0, False)
        if not (frames or records or answers or asleep):
            return None
        return Losses(
            frames,
            records,
            answers,
            (taken, read, sent, waiting, self.finished, self.results.arrived, len(held)),
        )

    # --- signs of life

    def hear(self) -> None:
        """Take note that something came from it."""
        self._last_heard = time.monotonic()

    @property
    def last_heard(self) -> float:
        """When that was, on the monotonic clock. Kept up to date only where silence is limited."""
        return self._last_heard

    # --- requests

    def request_cancel(self, call: Call) -> None:
        """Make ``cancel_requested`` true in the worker."""
        page = self.process.page
        if page is not None:
            page.words[wire.CANCEL_WORD] = call.number
        else:
            self.outbox.order(wire.CANCEL, call.number)

    def ask_to_trim(self) -> None:
        """Let the worker give the memory of its free blocks back, between two calls."""
        if self.phase is WorkerPhase.READY:
            self.outbox.order(wire.TRIM)

    def interrupt(self, call: Call, number: int) -> None:
        """Send a signal that is a KeyboardInterrupt in this call and nothing in any other."""
        page = self.process.page
        if page is not None:
            page.words[wire.INTERRUPT_WORD] = call.number
        self.process.send_signal(number)

    def ask_for_stacks(self) -> bool:
        """Let the process print its Python stacks to stderr; False if it cannot."""
        number = stack_signal()
        if number is None:
            return False
        self.output.expect_stacks()
        self.process.send_signal(number)
        return True

    def stop(self) -> None:
        """Let the process end: its inbox is at an end. What was sent is still served."""
        self.begin_stop()
        self.direct.suspend()
        self.poller.remove(self.process.inbox)
        if self.direct.receive is not None:
            self.direct.receive.relieve()
        if self.direct.close():
            self.process.close_fd(self.process.inbox)
        else:
            self.kill()

    def kill(self) -> None:
        """End the process and its children now. Its death is declared later, by its exit."""
        self.direct.suspend()
        self.process.kill_tree()

    def kill_with(self, reason: BaseException) -> None:
        """Kill it; what it runs, or what waits for its start, fails with ``reason``."""
        self.reason = reason
        self.kill()

    def kill_because(self, reason: BaseException) -> None:
        """Kill it; what it runs fails with ``reason``, unless there is one already."""
        if self.reason is None:
            self.reason = reason
        self.kill()

    def discard(self) -> None:
        """Close everything: its death is declared."""
        for fd in self.process.fds():
            self.poller.remove(fd)
        self.direct.detach(self.poller)
        self.result_memory.close()
        self.process.close()
        self._on_answer = self.direct_receive = None
        self.calls.clear()
        if self.phase is not WorkerPhase.GONE:
            self.move(WorkerPhase.GONE)
