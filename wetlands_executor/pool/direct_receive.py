"""The direct way back: the thread that waits in ``result()`` takes the answer and settles the call.

``direct.py`` says how it works together with the direct way out, with the invariants of both.

``wait`` is one long function on purpose: each call of another Python function lengthens a short
call by as much as several lines (17 of the host's are entered by one, which
``tests/tasks/test_function_counts.py`` guards), and is one more place where a signal handler may
run (*Race* 3 there).

Threads: ``DirectReceive.wait`` is entered by any thread, one at a time; ``AbandonedWaits.add`` by
any; the rest is the I/O thread's, unless said otherwise. Where there is no eventfd, or no shared
page, there is no direct receive.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from os import read
from pickle import loads
from typing import Any

from wetlands_executor.errors import WaitTimeout
from wetlands_executor.futures.settling import settle_quietly
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.polling import ABANDONED, RESULTS, Poller
from wetlands_executor.pool.wakeup import Wakeup
from wetlands_executor.seconds import LONGEST
from wetlands_executor.serialize.inert import read as read_inert
from wetlands_executor.serialize.restricted import names_nothing
from wetlands_executor.system import POLLIN, poll
from wetlands_executor.worker.shared_page import SharedPage, fence
from wetlands_executor.worker.system import REORDERS_STORES
from wetlands_executor.worker.wire import ANSWER, ANSWERED, AWAITED


def raised_elsewhere(error: BaseException) -> bool:
    """Return True if an exception comes out of Python code that was called.

    A signal handler, behind a function of C that raises the same type.
    """
    return error.__traceback__ is not None and error.__traceback__.tb_next is not None


class AbandonedWaits:
    """The calls of one pool whose submitters have left before they were settled.

    A chain through ``Call.after``.

    Attributes:
        first: the last one that was added; None if there is none.
        wake: descriptor that wakes the I/O thread; -1 when that has ended.
    """

    __slots__ = ("first", "wake")

    def __init__(self) -> None:
        self.first: Call | None = None
        self.wake = -1

    def serve(self, wake: int) -> None:
        """Say what wakes the I/O thread; -1 if it has ended."""
        self.wake = wake

    def add(self, call: Call) -> None:
        """Add a call, if it is not in the chain. Any thread."""
        if not call.abandoned:
            # Race: no call stands between these stores, so no signal handler runs between them.
            call.abandoned = True
            call.after = self.first
            self.first = call

    def take(self) -> list[Call]:
        """Return the calls of the chain, which is empty then.

        One may be in it again before this returns.
        """
        # no thread comes in between: what is added meanwhile stays
        call, self.first = self.first, None
        found = []
        while call is not None:
            # Order: before the caller looks. A thread that comes back meanwhile and leaves again
            # adds it anew
            following = call.come_back()
            found.append(call)
            call = following
        return found


class DirectReceive:
    """The direct way back from one worker process.

    Args:
        page: the shared page.
        wakeup: what the worker notifies.
        outputs: descriptors from which the I/O thread reads what tasks print.
        abandoned: where a wait that is given up is recorded.

    Attributes:
        words: the control words of the page.
        caller: the call whose submitter waits here; None if there is none.
        expected: the submitter of the last call has waited here: the next one is prearmed.
        listens: the I/O thread wakes up when the worker notifies.
        notify_abandoned: there may be a notification that no thread has read. It does no harm, but
            a task that writes to the counter, or the worker behind it, may have to wait until a
            thread of the host reads.
    """

    __slots__ = (
        "_abandoned",
        "_answer",
        "_outputs",
        "_wakeup_ready",
        "caller",
        "expected",
        "listens",
        "notify_abandoned",
        "wakeup",
        "words",
    )

    def __init__(
        self,
        page: SharedPage,
        wakeup: Wakeup,
        outputs: tuple[int, ...],
        abandoned: AbandonedWaits,
    ) -> None:
        self.words = page.words
        self._answer = page.answer
        self.wakeup = wakeup
        self._wakeup_ready = poll()
        self._wakeup_ready.register(wakeup.fd, POLLIN)
        self._outputs = poll()
        for fd in outputs:
            self._outputs.register(fd, POLLIN)
        self._abandoned = abandoned
        self.caller: Call | None = None
        self.expected = False
        self.listens = False
        self.notify_abandoned = False

    # --- the thread that waits

    def wait(self, process: Any, call: Call, task: Any, timeout: float | None) -> bool:
        """Sleep until the call is settled, and settle it if that is left to this thread.

        Args:
            process: the worker that has the call.
            call: what the worker answers.
            task: its task.
            timeout: seconds to wait; None waits without limit.

        Returns:
            True if the task is settled; False if this call has no direct way back: then the caller
            has to wait in another way.

        Raises:
            WaitTimeout: the time is over.
            BaseException: whatever a signal handler raises.
        """
        if not call.plain or not process.proven:
            return False
        number, sent, words = call.number, process.direct_send.sent, self.words
        pool: Any = task._pool
        end = None if timeout is None else time.monotonic() + timeout
        handed_over = settled_here = False
        try:
            # Invariant: one thread at a time. No call stands between the look and the store, so no
            # thread comes in between.
            if self.caller is not None:
                return False
            self.caller = call
            try:
                # Order: this thread stores `caller`, then reads the claim; the I/O thread takes the
                # claim, then reads `caller`. At least one observes the other's step.
                claim = sent[0]
                if mine := claim[0] is call:
                    words[AWAITED] = number
                    # Quiet: a signal handler on this thread may look at the task, and must not wait
                    # for what only this thread could take.
                    call.awaited = call.unannounced = True
                    answered = words[ANSWERED] == number
            except (ValueError, IndexError):  # the process is gone, or the claim
                mine = False
            if not mine:
                self.caller = None
                return False
            self.expected = True
            while task._final is None:
                if answered:
                    # It lies there already. Its notification is left alone, which saves two system
                    # calls: the next thread that sleeps here wakes up once for nothing.
                    answered = False
                    self.notify_abandoned = True
                else:
                    if not pool.watchdog.armed:  # a task may take the frame, or the wakeup
                        pool.post(pool.watchdog.start)
                    if end is not None:
                        left = end - time.monotonic()
                        if not self._wakeup_ready.poll(min(max(left, 0.0), LONGEST) * 1000):
                            if left <= LONGEST:
                                raise WaitTimeout
                            continue
                    try:
                        read(self.wakeup.fd, 8)
                    except BlockingIOError as error:
                        if raised_elsewhere(error):
                            raise
                        # a task has changed the descriptor, which it has as well
                        self.wakeup.make_blocking()
                        continue
                    if handed_over:
                        continue
                data: Any = b""
                try:
                    if words[ANSWERED] != number:
                        continue  # notified for another reason
                    if REORDERS_STORES:
                        fence()
                    head = words[ANSWER]
                    if size := head >> 8 & 0xFFFFFF:
                        data = self._answer[:size].tobytes()
                except ValueError:
                    if not self._is_released():
                        raise  # a signal handler has raised it
                    head = 0  # the process is gone, and the I/O thread has the claim
                # What the call has printed must be out before it is settled. Order: the pipes
                # first. If they are empty, the I/O thread has taken what was in them, and has set
                # `reading` before, and `printed` after.
                output = process.output
                if (
                    not head
                    or self._outputs.poll(0)
                    or output.reading
                    or output.printed
                    or (data and not names_nothing(data) and not (data := read_inert(data)))
                ):
                    handed_over = True
                else:
                    value = data[0] if type(data) is tuple else loads(data) if data else None
                    duration = (head >> 32) / 1e6
                    call.found = (value, duration)
                    try:
                        sent.remove(claim)  # not the first entry, whichever that may be by now
                    except ValueError as error:
                        if raised_elsewhere(error):
                            raise
                        handed_over = True  # the I/O thread was faster
                if handed_over:
                    abandoned = self._abandoned
                    abandoned.add(call)
                    try:
                        os.write(abandoned.wake, ABANDONED)
                    except OSError as error:
                        if raised_elsewhere(error):
                            raise
                        # the pool has ended, and its thread would not look at the chain again
                        pool.post(pool.take_abandoned_waits)
                    continue
                # From here on other threads may use the worker: nothing below looks at it, and the
                # outcome is in `call.found`.
                settled_here = True
                process.finished += 1
                if settle_quietly(task, value, time.time(), process.process.pid, duration):
                    pool.post(partial(pool.notify_settled, task))
                pool.stats.returned_one(task)
            self.caller = None
            if not settled_here:
                self.notify_abandoned = True
                # Race: it may have been for the next thread that waits here, and that may not be
                # here yet
                self.wakeup.release()
            return True
        except BaseException:
            # Order: into the chain, with stores that nothing can interrupt; then the first call of
            # this block, which wakes the I/O thread.
            abandoned = self._abandoned
            if not call.abandoned:
                call.abandoned = True
                call.after = abandoned.first
                abandoned.first = call
            self.caller = None
            self.notify_abandoned = True
            try:
                os.write(abandoned.wake, ABANDONED)
            except OSError:  # the pool has ended
                pool.post(pool.take_abandoned_waits)
            self.wakeup.release()  # as above
            raise

    def _is_released(self) -> bool:
        try:
            return self.words.nbytes < 0  # released first
        except ValueError:
            return True

    def prearm_no_more(self) -> None:
        """Let the next call not be awaited from the beginning.

        A thread has looked at one without waiting here. Any thread.
        """
        self.expected = False

    # --- the I/O thread; `disarm` the submitting one too

    def disarm(self, call: Call) -> None:
        """Note that the call was not sent after all; it goes another way."""
        call.go_another_way()
        try:
            self.words[AWAITED] = 0
        except ValueError:
            pass  # the process is gone

    def listen(self, poller: Poller, on_answer: Callable[[], None]) -> None:
        """Call ``on_answer`` when the worker notifies."""
        if not self.listens:
            self.listens = True
            poller.add_wakeup(self.wakeup.fd, RESULTS, on_answer)

    def stop_listening(self, poller: Poller, left: bool) -> None:
        """End that.

        ``left``: nothing is under way, and a notification that lies there concerns no call.
        """
        self.listens = False
        poller.remove(self.wakeup.fd)
        if left:
            # Race: an answer may have been taken in another way, before its notification
            self.take_notifications()

    def forget_calls(self, calls: Iterable[Call], idle: bool) -> None:
        """Wait for none of these calls here: they go another way.

        ``idle``: no call is under way here.
        """
        awaited = self.words[AWAITED]
        # Race: the notification of an answer that nothing has looked at yet stays: the I/O thread
        # would not wake up for it.
        if self.notify_abandoned and not self.listens and idle:
            self.take_notifications()
        if awaited:
            for call in calls:
                if call.number == awaited:
                    # it was here before, in another try, and no thread listens now
                    self.disarm(call)

    def on_notified(self) -> None:
        """Take the notification, unless a thread waits that must not miss one."""
        if self.caller is None:
            self.take_notifications()
        else:
            self.wakeup.unblock_worker()

    def unblock_worker(self) -> None:
        """Let a worker go on that is stuck in a counter which a task has filled."""
        self.wakeup.unblock_worker()

    def wake(self) -> None:
        """Notify the submitter that waits here, if one does."""
        if self.caller is not None:
            self.wakeup.release()

    def missed(self, calls: dict[int, Call]) -> tuple[int, bool]:
        """Return (number of the call whose submitter waits here, whether a wakeup seems lost).

        The number is 0 if no submitter waits.

        Args:
            calls: those that are registered.
        """
        caller, answered = self.caller, self.words[ANSWERED]
        asleep = caller is not None and (
            caller.number == answered or caller.task._final is not None
        )
        return (0 if caller is None else caller.number), asleep or answered in calls

    def take_notifications(self) -> None:
        """Empty the counter; notify again for a submitter that may sleep.

        I/O thread. Order: it looks at the answer afterwards, or there is no call that may have one.
        """
        self.notify_abandoned = False
        self.wakeup.empty()
        if self.caller is not None:
            self.wakeup.release()

    def take_answer(self, calls: dict[int, Call]) -> tuple[int, int, bytes, int] | None:
        """Return the answer on the page, if it belongs to one of these calls; else None.

        It has the form of a result frame: (kind, number, payload, duration).
        """
        if self.words[ANSWERED] not in calls:
            return None
        frame = self.answer()
        self.words[ANSWERED] = 0  # a call that is run again has the same number
        return frame

    def answer(self) -> tuple[int, int, bytes, int]:
        """Return what lies on the page, as a result frame."""
        words = self.words
        number = words[ANSWERED]
        if REORDERS_STORES:
            fence()
        head = words[ANSWER]
        return head & 0xFF, number, self._answer[: head >> 8 & 0xFFFFFF].tobytes(), head >> 32


def direct_receive(process: Any, abandoned: AbandonedWaits) -> DirectReceive | None:
    """Return the direct way back of a new process; None if it cannot have one."""
    if process.wakeup is None or process.page is None or abandoned.wake < 0:
        return None
    return DirectReceive(process.page, process.wakeup, (process.stdout, process.stderr), abandoned)
