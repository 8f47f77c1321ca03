"""One worker process: its phase, the calls that it has, requests to it, its end.

What goes to it is its ``outbox``, what comes from it its ``results`` and its ``output``; the ways
past the I/O thread are its ``direct_send``.

Threads: the I/O thread's, but for ``direct_send.send``, and what is said to be for any thread.

The end: only ``reaper.py`` declares a process dead, when its ``exit`` descriptor says so.
Everything else (a bad frame, a broken pipe, a time limit, shutdown) only kills.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Protocol

from wetlands_executor.pool import spawn
from wetlands_executor.pool.call import Call, CallPhase
from wetlands_executor.pool.direct import DirectSend
from wetlands_executor.pool.direct_receive import DirectReceive
from wetlands_executor.pool.given_calls import GivenCalls
from wetlands_executor.pool.outbox import Outbox
from wetlands_executor.pool.polling import Poller
from wetlands_executor.pool.result_stream import ResultStream
from wetlands_executor.pool.timers import Timer
from wetlands_executor.pool.worker_output import WorkerOutput
from wetlands_executor.scheduling.phases import IllegalMove, moved
from wetlands_executor.sharedmem.results import ResultMemory
from wetlands_executor.worker import wire
from wetlands_executor.worker.system import stack_signal
from wetlands_executor.worker.wire import MARK_BITS, MARK_STEP


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
        debugger: where debugpy listens in it; None: nowhere.
        finished: number of calls that it has finished.
        proven: the state was fed a call that it has finished.
        timers: those that concern it, stopped when it has ended.
        suspicion: see ``blame.py``.
        waits: its function waits for tasks inside it.
        given: which of its calls it has taken, and which calls its frames may concern.
    """

    _watchdog: LossWatch | None = None
    # Number of the call that was sent directly, if nothing was written to the worker after it, not
    # even the ``wire.AFTER`` that names it; else 0.
    _sent_directly = 0

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
        self.direct_send = DirectSend(
            self, process.inbox, self.outbox, self.result_memory.incarnation
        )
        self.given = GivenCalls(self.calls, process.page, self.direct_send)
        self.hello: dict[str, Any] | None = None
        self.foreign = False
        self.failure: bytes | bytearray | None = None
        self.reason: BaseException | None = None
        self.debugger: str | None = None
        self.finished = 0
        self.proven = False
        self.timers: list[Timer] = []
        self.suspicion: Any = None
        self._on_answer: Callable[[], None] | None = None
        self.waits = False
        self._last_activity = 0.0

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

    def become_ready(self, debugger: str = "") -> None:
        """Note that the worker says that it is ready. It may have exited since.

        Args:
            debugger: where a debugger can attach; empty: nowhere.
        """
        self.debugger = debugger or None
        self.move(_WHEN_READY.get(self.phase, WorkerPhase.READY))

    def fail(self, failure: bytes | bytearray) -> None:
        """Note why the worker cannot start, as it says."""
        self.failure = failure

    def blame(self, reason: BaseException) -> None:
        """Note why nothing can run in this worker, which ends by itself."""
        self.reason = reason

    def note_exit(self) -> None:
        """Note that the process has ended."""
        self.move(WorkerPhase.EXITED if self.ready else WorkerPhase.FAILED)

    def begin_stop(self) -> None:
        """Note that the worker is ended on purpose."""
        phase = _WHEN_STOPPED.get(self.phase)
        if phase is not None:
            self.move(phase)

    # --- calls

    def give(self, calls: Iterable[Call]) -> list[tuple[Call, Exception]]:
        """Send calls, with the records that they refer to.

        Return those that cannot be sent, and why.
        """
        direct_send, outbox, mine = self.direct_send, self.outbox, self.calls
        if direct_send.open or direct_send.receive is not None:
            direct_send.shut(calls)
        if self._watchdog is not None and not self._watchdog.armed:
            self._watchdog.start()
        frames = []
        failed = []
        mark = outbox.next_mark
        if self._sent_directly:
            # Order: before calls that are numbered. The one that was sent directly is not, and a
            # task may have read it.
            if next(reversed(mine), 0) == self._sent_directly:
                frames.append(outbox.control_frame(wire.AFTER, self._sent_directly, mark))
                mark = mark + MARK_STEP & MARK_BITS
            self._sent_directly = 0
        # The table's move, checked here: `Call.move` would be one more function for each call.
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
                    outbox.queue_records(call)
                out_of_band = call.encoded.out_of_band
                if out_of_band is not None:
                    call.note_blocks(out_of_band.send(self.result_memory.incarnation))
                    self.result_memory.note_use()
                frames.append(call.frame(mark))
                mark = mark + MARK_STEP & MARK_BITS
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
        """Open the direct way back.

        Args:
            receive: it.
            on_answer: what the I/O thread does when an answer lies on the page for it.
        """
        self.direct_send.listen(receive)
        self._on_answer = on_answer

    def register(self) -> list[Call]:
        """Add the calls that submitting threads have written since the last time to ``calls``.

        Return them.
        """
        found = self.direct_send.register(self.calls, self.poller, self._on_answer)
        if found:
            self._start_watchdog()
            self._sent_directly = found[0].number if self.given.note_registered() else 0
        return found

    def reclaim(self) -> list[Call]:
        """Return the calls that the worker has not started; they are no longer with it."""
        numbers, after = self.outbox.reclaim()
        self._sent_directly = after or self._sent_directly
        return self._requeue(numbers)

    def _requeue(self, numbers: Iterable[int]) -> list[Call]:
        found = []
        for number in numbers:
            call = self.calls.pop(number, None)
            if call is not None:
                call.queue_again()
                if call.encoded.out_of_band is not None:
                    call.encoded.out_of_band.reclaim()
                found.append(call)
        return found

    def reclaim_lost(self) -> list[Call]:
        """Return the calls that have not begun although their frames are gone.

        They are no longer with the worker. See ``GivenCalls.not_begun``.
        """
        if self.reason is not None or self.suspicion is not None:
            return []
        return self._requeue(self.given.not_begun())

    def note_finished(self, count: int, proven: bool) -> None:
        """Count calls that it has finished; ``proven``: the state is fed one."""
        self.finished += count
        self.proven = self.proven or proven

    def suspect(self, suspicion: Any) -> None:
        """Distrust the worker, or stop doing so (None); see ``blame.py``."""
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
        return self.direct_send.receive is not None and self.direct_send.receive.caller is not None

    # --- signs of life

    def note_waiting(self, waits: bool) -> None:
        """Take note whether its function waits for tasks inside it: it may be silent then."""
        self.waits = waits
        self.note_activity()

    def note_activity(self) -> None:
        """Note that something came from the worker."""
        self._last_activity = time.monotonic()

    @property
    def last_activity(self) -> float:
        """When that was, on the monotonic clock. Kept up to date only where silence is limited."""
        return self._last_activity

    # --- requests

    def request_cancel(self, call: Call) -> None:
        """Make ``cancel_requested`` true in the worker."""
        page = self.process.page
        if page is not None:
            page.request_cancel(call.number)
        else:
            self.outbox.send_control(wire.CANCEL, call.number)

    def ask_to_trim(self) -> None:
        """Let the worker give the memory of its free blocks back, between two calls."""
        if self.phase is WorkerPhase.READY:
            self.outbox.send_control(wire.TRIM)

    def ask_for_sign(self) -> None:
        """Let the worker answer when it takes its next frame."""
        self.outbox.send_control(wire.PING)

    def interrupt(self, call: Call, number: int) -> None:
        """Send a signal that is a KeyboardInterrupt in this call and nothing in any other."""
        page = self.process.page
        if page is not None:
            page.request_interrupt(call.number)
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
        self.direct_send.suspend()
        self.poller.remove(self.process.inbox)
        if self.direct_send.receive is not None:
            self.direct_send.receive.unblock_worker()
        if self.direct_send.close():
            self.process.close_fd(self.process.inbox)
        else:
            self.kill()

    def kill(self) -> None:
        """End the process and its children now. Its death is declared later, by its exit."""
        self.direct_send.suspend()
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
        self.direct_send.detach(self.poller)
        self.result_memory.close()
        self.process.close()
        self._on_answer = None
        self.calls.clear()
        if self.phase is not WorkerPhase.GONE:
            self.move(WorkerPhase.GONE)
