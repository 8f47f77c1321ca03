r"""The return lane: the thread that has submitted a call takes the answer from the worker itself, and no other thread wakes up.

The express lane (``pool.py``) spares a short call the way *to* the worker through the I/O thread; this is the way back. It is open for a call
that was sent through the express lane and of which the state has not heard, while its submitter waits in ``result()``::

    result()                                            worker
      words[AWAITED] = number                             runs the call
      sleeps on the bell  <--- bell --- answer on the board if AWAITED is its number and nothing went another way before it,
      takes the token, settles                             else a frame through the results pipe, to the I/O thread, as ever

1. *The token* is the entry of the call in ``WorkerProcess.sent_directly``. Who takes it (one step in C) settles the call, nobody else: the
   waiting thread when it has seen the answer, or the I/O thread, which takes it (``absorb``) whenever it has to tell the state anything.
2. If the I/O thread has the token, the state knows of the call, and the I/O thread settles it like any other. It then listens to the bell as
   well, because the worker may have put the answer on the board; and it rings the bell when the call is settled.
3. *Race:* an exception from a signal handler can end ``wait`` after every call that it makes. Whatever was done by then is undone or finished by
   the I/O thread: the exception handler leaves the call in a chain with plain stores, and wakes that thread with its first call (``LEFT``). What
   was read from the board is kept with the call. CPython looks for signals, and changes threads, after calls and at the start of functions and
   loops only, and collects garbage (which runs finalizers, and they may submit) when it makes containers; a few lines here rely on that there
   is none of these between them, each says so.
4. *Expectation:* on one core the worker answers before ``result()`` is even called. So if the submitter of the last call has waited here, the
   next one is awaited from the moment it is sent (``expect``). Then nobody is woken if nobody comes. That does no harm, because whoever wants to
   know anything of such a *quiet* call lets the I/O thread take it over first: every look at the task (``Task._is_done``, ``_condition``), at the
   pool (``catch_up``), and all news for the state. After such a look the lane expects nobody, until somebody comes again.
5. Nothing is told from here: listeners, waiters of the standard library and callbacks concern the I/O thread (``Returns._tell``).

Threads: ``wait`` is entered by any thread, by one at a time; everything else is the I/O thread's. Where there is no eventfd, or no shared board,
there is no return lane.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from os import read
from pickle import loads
from typing import TYPE_CHECKING, Any

from wetlands_executor.bells import WorkerBell
from wetlands_executor.errors import WaitTimeout
from wetlands_executor.seconds import LONGEST
from wetlands_executor.serialize.plain import is_trivial
from wetlands_executor.system import POLLIN, poll
from wetlands_executor.worker.board import WEAK, Board, fence
from wetlands_executor.worker.wire import ANSWER, ANSWERED, AWAITED

if TYPE_CHECKING:
    from wetlands_executor.pool.process import Call, WorkerProcess
    from wetlands_executor.pool.spawn import Process
    from wetlands_executor.task import Task

#: What is added to the counter of the port's own descriptor to say that somebody has left. Ordinary wake-ups add 1.
LEFT_COUNT = 1 << 32
LEFT = LEFT_COUNT.to_bytes(8, sys.byteorder)


def raised_elsewhere(error: BaseException) -> bool:
    """Return True if an exception comes out of Python code that was called: a signal handler, behind a function of C that raises the same type."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is not None


class Departures:
    """The calls of one pool whose submitters have left before they were settled; a chain through ``Call.after``.

    Attributes:
        first: the last one that was added; None if there is none.
        wake: descriptor that wakes the I/O thread; -1 when that has ended.
    """

    __slots__ = ("first", "wake")

    def __init__(self) -> None:
        self.first: Call | None = None
        self.wake = -1


class ReturnLane:
    """The return lane of one worker process.

    Args:
        board: what is shared with the worker.
        bell: what the worker rings.
        outputs: descriptors from which the I/O thread reads what tasks print.
        departures: where a wait that is given up is recorded.

    Attributes:
        caller: the call whose submitter waits here; None if nobody does.
        expected: the submitter of the last call has waited here.
        watched: the I/O thread listens to the bell.
        ring_left: there may be a ring that no thread has read. It does no harm, but a task that writes to
            the counter, or the worker behind it, may have to wait until a thread of the host reads.
    """

    __slots__ = (
        "_answer",
        "_bell_ready",
        "_departures",
        "_outputs",
        "_words",
        "bell",
        "caller",
        "expected",
        "ring_left",
        "watched",
    )

    def __init__(self, board: Board, bell: WorkerBell, outputs: tuple[int, ...], departures: Departures) -> None:
        self._words = board.words
        self._answer = board.answer
        self.bell = bell
        self._bell_ready = poll()
        self._bell_ready.register(bell.fd, POLLIN)
        self._outputs = poll()
        for fd in outputs:
            self._outputs.register(fd, POLLIN)
        self._departures = departures
        self.caller: Call | None = None
        self.expected = False
        self.watched = False
        self.ring_left = False

    def expect(self, call: Call) -> None:
        """Let the worker put the answer to this call, which is about to be sent, onto the board."""
        try:
            self._words[AWAITED] = call.number
        except ValueError:
            return  # the process is gone
        call.awaited = call.quiet = True

    def expect_no_more(self, call: Call) -> None:
        """The call was not sent after all; it goes another way."""
        call.awaited = call.quiet = False
        try:
            self._words[AWAITED] = 0
        except ValueError:
            pass  # the process is gone

    def wait(self, process: WorkerProcess, call: Call, task: Task[Any], timeout: float | None) -> bool:
        """Sleep until the call is settled, and settle it if that is left to this thread.

        Args:
            process: the worker that has the call.
            call: what the worker answers.
            task: its task.
            timeout: seconds to wait; None waits without limit.

        Returns:
            True if the task is settled; False if this is no call for the return lane: then the caller has to wait in another way.

        Raises:
            WaitTimeout: the time is over.
            BaseException: whatever a signal handler raises.
        """
        if call.watched or not process.proven or task._options is not None or task._counted:
            return False
        number, sent, words, fd = call.number, process.sent_directly, self._words, self.bell.fd
        pool: Any = task._pool
        end = None if timeout is None else time.monotonic() + timeout
        departures = self._departures
        handed_over = settled_here = False
        try:
            # Invariant: one thread at a time. No call stands between the look and the store, so nobody comes in between.
            if self.caller is not None:
                return False
            self.caller = call
            try:
                # Order: we are seen in `caller`, then look at the token; the I/O thread takes the token, then looks at `caller`.
                token = sent[0]
                mine = token[0] is call
                if mine:
                    words[AWAITED] = number
                    # Quiet: a signal handler of this thread may look at the task, and must not wait for what only this thread could take.
                    call.awaited = call.quiet = True
                    rung = words[ANSWERED] == number
            except (ValueError, IndexError):  # the process is gone, or the token
                mine = False
            if not mine:
                self.caller = None
                return False
            self.expected = True
            while task._final is None:
                if rung:
                    # It lies there already. Its ring is left alone, which saves two system calls: whoever sleeps here next wakes up once for nothing.
                    rung = False
                    self.ring_left = True
                else:
                    if end is not None:
                        left = end - time.monotonic()
                        if not self._bell_ready.poll(min(max(left, 0.0), LONGEST) * 1000):
                            if left <= LONGEST:
                                raise WaitTimeout
                            continue
                    try:
                        read(fd, 8)
                    except BlockingIOError as error:
                        if raised_elsewhere(error):
                            raise
                        self.bell.make_blocking()  # a task has changed the descriptor, which it has as well
                        continue
                    if handed_over:
                        continue
                data: Any = b""
                try:
                    if words[ANSWERED] != number:
                        continue  # rung for another reason
                    if WEAK:
                        fence()
                    head = words[ANSWER]
                    size = head >> 8 & 0xFFFFFF
                    if size:
                        data = self._answer[:size].tobytes()
                except ValueError:
                    if not self._is_released():
                        raise  # a signal handler has raised it
                    head = 0  # the process is gone, and the I/O thread has the token
                # What the call has printed must be out before it is settled. Order: the pipes first. If they are empty, the I/O thread has taken what
                # was in them, and has set `reading` before, and `printed` after.
                if not head or self._outputs.poll(0) or process.reading or process.printed or (data and not is_trivial(data)):
                    handed_over = True
                else:
                    value = loads(data) if data else None
                    call.found = (value, (head >> 32) / 1e6)
                    try:
                        sent.remove(token)  # not the first entry, whichever that may be by now
                    except ValueError as error:
                        if raised_elsewhere(error):
                            raise
                        handed_over = True  # the I/O thread was faster
                if handed_over:
                    if not call.departed:
                        call.departed = True
                        call.after = departures.first
                        departures.first = call
                    try:
                        os.write(departures.wake, LEFT)
                    except OSError as error:
                        if raised_elsewhere(error):
                            raise
                        pool.post(pool.take_departures)  # the pool has ended, and nobody would look at the chain again
                    continue
                # From here on other threads may use the worker: nothing below looks at it, and the outcome is in `call.found`.
                settled_here = True
                process.finished += 1
                if task._settle_quietly(value, time.time(), process.process.pid, (head >> 32) / 1e6):
                    pool.post(partial(pool.tell, task))
                pool.ledger.returned_one(task)
            self.caller = None
            if not settled_here:
                self.ring_left = True
                self.bell.release()  # Race: the ring may have been for the next one who waits here, and it may not be here yet
            return True
        except BaseException:
            # Order: into the chain, with stores that nothing can interrupt; then the first call of this block, which wakes the I/O thread.
            if not call.departed:
                call.departed = True
                call.after = departures.first
                departures.first = call
            self.caller = None
            self.ring_left = True
            try:
                os.write(departures.wake, LEFT)
            except OSError:  # the pool has ended
                pool.post(pool.take_departures)
            self.bell.release()  # as above
            raise

    def take_rings(self) -> None:
        """Empty the counter; ring again for a submitter that may sleep.

        I/O thread. Order: it looks at the answer afterwards, or there is no call that may have one.
        """
        self.ring_left = False
        self.bell.empty()
        if self.caller is not None:
            self.bell.release()

    def _is_released(self) -> bool:
        try:
            return self._words.nbytes < 0  # released first
        except ValueError:
            return True

    @property
    def awaited(self) -> int:
        """Number of the call whose answer the worker would put onto the board."""
        return self._words[AWAITED]

    def forget_answer(self) -> None:
        """The answer on the board was taken by the I/O thread."""
        self._words[ANSWERED] = 0

    def answer(self) -> tuple[int, int, bytes, int]:
        """Return what lies on the board, as a result frame: (kind, number, payload, duration)."""
        words = self._words
        number = words[ANSWERED]
        if WEAK:
            fence()
        head = words[ANSWER]
        return head & 0xFF, number, self._answer[: head >> 8 & 0xFFFFFF].tobytes(), head >> 32


def lane_of(process: Process, departures: Departures) -> ReturnLane | None:
    """Return the return lane of a new process; None if it cannot have one."""
    if process.bell is None or process.board is None or departures.wake < 0:
        return None
    return ReturnLane(process.board, process.bell, (process.stdout, process.stderr), departures)
