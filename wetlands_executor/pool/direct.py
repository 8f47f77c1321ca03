r"""Direct send and direct receive: a short call goes to its worker and back without the I/O thread.

Handing a call over to a second thread, and its result back, costs more than a short call itself. So
the I/O thread publishes workers that hold nothing; a submitting thread may write one frame to one
of them (``DirectSend``), and take the answer itself while it waits in ``result()``
(``DirectReceive``)::

    submit, result()                              worker
      writes the frame, records it in `sent` ---> inbox
      words[AWAITED] = number                     runs the call
      sleeps on the eventfd <------ notify ------ answer on the shared page, if AWAITED is its
      takes the claim, settles                    number and nothing of the call went another way;
                                                  else a frame into the results pipe

1. *The claim* on a call is its entry in ``DirectSend.sent``. The thread that takes it (one step in
   C) settles the call: the waiting thread when it has seen the answer, or the I/O thread, which
   takes it (``register``) before it feeds the state any event. *Invariant:* the state is fed all
   calls that were sent directly (``SentDirectly``) before any other event.
2. If the I/O thread has the claim, the call is registered, and the I/O thread settles it like any
   other. It then listens to the eventfd as well, because the worker may have put the answer on
   the page; and it notifies when the call is settled.
3. *Race:* an exception from a signal handler can end ``wait`` after every call in it.
   Whatever was done by then is undone or finished by the I/O thread: the exception handler leaves
   the call in a chain with plain stores, and wakes that thread with its first call
   (``ABANDONED``). What was read from the page is kept with the call. CPython looks for signals,
   and changes threads, after calls and at the start of functions and loops only, and collects
   garbage (which runs finalizers, and they may submit) when it makes containers; a few lines here
   rely on that there is none of these between them, each says so.
4. *Prearming:* on one core the worker answers before ``result()`` is even called. So if the
   submitter of the last call has waited here, the next one is awaited from the moment it is sent.
   Then no thread is woken if none comes. Such a call is *unannounced* (``Call.unannounced``): every
   accessor of its Task but ``result()`` and its like (``Home.ensure_tracked``), every look at the
   pool (``sync``) and every event for the state let the I/O thread register it first. After such a
   look the next call is not prearmed, until a thread waits here again.
5. This module notifies nothing else: listeners, waiters of the standard library and callbacks
   concern the I/O thread.

Only this module uses the control words ``AWAITED``, ``ANSWERED`` and ``ANSWER`` of the shared page,
and these fields of a call: ``awaited`` (the worker may have read that a thread waits for its answer
on the page), ``unannounced`` (as above), ``abandoned`` and ``after`` (it is in the chain of
abandoned waits; the next one there), ``found`` (what was read from the page: value, duration in
seconds).

Threads: ``DirectSend.send`` is entered by any thread, ``DirectReceive.wait`` by any, one at a time;
everything else is the I/O thread's. Where there is no eventfd, or no shared page, there is no
direct receive.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from os import read, write
from pickle import loads
from queue import Empty, SimpleQueue
from typing import Any

from wetlands_executor.errors import WaitTimeout
from wetlands_executor.futures.settling import settle_quietly
from wetlands_executor.futures.waiting import add_wakeup
from wetlands_executor.pool.call import Call, CallPhase
from wetlands_executor.pool.outbox import Outbox
from wetlands_executor.pool.polling import ABANDONED, RESULTS, Poller
from wetlands_executor.pool.wakeup import Wakeup
from wetlands_executor.seconds import LONGEST
from wetlands_executor.serialize.inert import read as read_inert
from wetlands_executor.serialize.plain import names_nothing
from wetlands_executor.system import POLLIN, poll
from wetlands_executor.worker.shared_page import WEAK, SharedPage, fence
from wetlands_executor.worker.wire import (
    ANSWER,
    ANSWERED,
    ARGUMENTS_MOST,
    AWAITED,
    BLOCKS,
    IN_BULK,
    MANY,
    NAMED,
)

#: Flags of calls whose payload is more than a pickle of its function and arguments.
_NOT_BY_PAGE = BLOCKS | MANY
#: Seconds that a submitting thread may be inside ``send`` before the I/O thread does something else
#: first. It writes one frame there.
INSIDE = 0.005


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


class DirectSend:
    """The direct way to one worker process.

    Args:
        owner: the worker process.
        inbox: its pipe.
        outbox: what waits to go out to it, and what it has been sent.
        incarnation: its number, for blocks in shared memory.

    Attributes:
        open: the state has the worker idle, and a submitting thread may write to it.
        sent: (call, ..., bytes written, ...), one entry per frame that a submitting thread wrote
            itself: the claims.
        receive: the direct way back, or None.
    """

    def __init__(self, owner: Any, inbox: int, outbox: Outbox, incarnation: int) -> None:
        self.open = False
        self.sent: deque[tuple[Any, ...]] = deque()
        self.receive: DirectReceive | None = None
        self._owner = owner
        self._inbox = inbox
        self._outbox = outbox
        self._incarnation = incarnation
        # The key: the number of the inbox, in here unless a submitting thread is writing to it or
        # the I/O thread has closed the way. So that number is not closed during a write. No lock:
        # on CPython 3.14 an exception from a signal handler could leave it locked.
        self._key: SimpleQueue[int] = SimpleQueue()
        self._key.put(inbox)
        self._closed = False
        # What `send` is made of; each step raises, and changes nothing, if it must not go on.
        # `_empty`: ValueError if a call was sent that is not registered (an empty deque is equal to
        # an empty deque only). `_take_key`: Empty if the key is not there.
        self._empty = map([deque[Any]()].index, repeat(self.sent))
        self._take_key = iter(self._key.get_nowait, None)
        self._give_key = map(self._key.put, repeat(inbox))

    # --- submitting threads

    def send(self, call: Call) -> bool:
        """Write one frame from the submitting thread, to a worker that holds nothing.

        False if it cannot be done.

        Race: an exception from a signal handler may end this method between any two steps, and
        other threads may come in there. So this is one step in C (``extend`` over ``zip`` over
        ``map``): nothing else was sent, the key is taken, the frame written, the key given back,
        all of it recorded. Either the frame is in the pipe and recorded, or neither. The same step
        notes that its blocks are given. Only the write lets other threads run. In it no signal
        handler runs: writing to a pipe that does not block is not interrupted.
        """
        if call.encoded.flags & IN_BULK:
            steps = self._by_page(call)
        elif self._outbox.knows(call):
            steps = map(write, self._take_key, (call.frame(self._outbox.direct_mark),))
        else:
            return False
        sent, back = self.sent, self.receive
        out_of_band = call.encoded.out_of_band
        if steps is None or not self.open or sent:
            return False
        call.process = self._owner
        call.phase = CallPhase.DIRECT
        notes = () if out_of_band is None else (out_of_band.offer(self._incarnation),)
        if back is not None and back.expected and call.plain:
            try:
                back.words[AWAITED] = call.number
                call.awaited = call.unannounced = True
            except ValueError:
                pass  # the process is gone
            if sent or not self.open:
                # Race: another thread or a signal handler has sent a call meanwhile, whose answer
                # this one's would overwrite.
                return self._refuse(call)
        try:
            # not strict, which takes as long as the rest
            sent.extend(
                zip(  # noqa: B905
                    (call,),
                    self._empty,
                    steps,
                    self._give_key,
                    *notes,
                )
            )
        except OSError as error:
            trace = error.__traceback__
            if trace is not None and trace.tb_next is not None:
                raise  # a signal handler's, for example a TimeoutError, when the frame was out
            # Order: the first call of this block, before which no signal handler runs
            self._key.put(self._inbox)
            if call.awaited and back is not None:
                back.disarm(call)
            return self._refuse(call)
        except (ValueError, Empty) as error:
            if raised_elsewhere(error):
                raise  # as above
            return self._refuse(call)  # Race: another thread was faster
        return True

    def _by_page(self, call: Call) -> Iterator[object] | None:
        """Return the steps that send a call whose payload does not fit into its frame.

        They take the key, put the payload onto the shared page, and write the frame. None if the
        payload does not fit there either, or the worker needs more than that.

        Race: the key keeps other threads from writing to the page as well. The worker, which holds
        nothing, does not look at it.
        """
        encoded = call.encoded
        page = self._owner.process.page
        payload = encoded.payload
        if (
            page is None
            or encoded.flags & _NOT_BY_PAGE
            or len(payload) > ARGUMENTS_MOST
            or not self._outbox.knows(call, NAMED)
        ):
            return None
        frame = call.frame(self._outbox.direct_mark, on_page=True)
        return zip(  # noqa: B905 - as in ``send``
            self._take_key,
            map(page.arguments.__setitem__, (slice(0, len(payload)),), (payload,)),
            map(write, (self._inbox,), (frame,)),
        )

    @staticmethod
    def _refuse(call: Call) -> bool:
        """Undo what ``send`` has done for a call that it has not sent; return False."""
        call.go_another_way()
        call.move(CallPhase.QUEUED)
        if call.encoded.out_of_band is not None:
            call.encoded.out_of_band.reclaim()
        return False

    # --- the I/O thread

    def register(
        self, calls: dict[int, Call], poller: Poller, on_answer: Callable[[], None] | None
    ) -> list[Call]:
        """Take the claims on all calls that were sent.

        Return these calls, which are among ``calls`` now.

        Invariant: the way is open only while the state has the slot idle; it is opened by
        ``reopen``, for ``Shell.publish``, and nowhere else.
        """
        self.open = False
        found: list[Call] = []
        sent, back = self.sent, self.receive
        while sent:
            try:
                call: Call = sent.popleft()[0]
            except IndexError:  # its submitter has settled it in this very moment
                break
            call.phase = CallPhase.GIVEN  # it was DIRECT: `send` alone adds to `sent`
            calls[call.number] = call
            found.append(call)
            if back is not None and (call.awaited or back.caller is call):
                # Race: the worker may have looked already whether a thread waits, and put the
                # answer onto the page: both this thread and that one listen now.
                add_wakeup(call.task, back.wakeup)
                if on_answer is not None:
                    back.listen(poller, on_answer)
        return found

    def listen(self, receive: DirectReceive | None) -> None:
        """Open the direct way back, if there is one."""
        self.receive = receive

    def reopen(self, poller: Poller) -> None:
        """Open the way: submitting threads may write to the worker, which holds nothing."""
        back = self.receive
        if back is not None and back.listens:
            back.stop_listening(poller, left=not self.sent)
        if self._closed:
            self._closed = False
            self._key.put(self._inbox)
        self.open = True

    def suspend(self) -> None:
        """Let no other thread begin to send. One may be inside still; see ``close``."""
        self.open = False

    def shut(self, calls: Iterable[Call]) -> None:
        """Note that the worker is given calls in the usual way, before they are sent."""
        self.open = False
        back = self.receive
        if back is not None:
            back.forget_calls(calls, idle=not self.sent)

    def close(self) -> bool:
        """Close the way.

        False if another thread is inside right now and the descriptors must stay open a little
        longer.
        """
        self.open = False
        if not self._closed:
            try:
                self._key.get(timeout=INSIDE)
            except Empty:
                return False
            # From here on no thread writes: one that comes later finds no key.
            self._closed = True
        return True

    def wait_for_sender(self) -> bool:
        """Let a thread that is inside ``send`` finish the step that records what it has sent.

        False if it needs longer.
        """
        if not self._closed:
            try:
                key = self._key.get(timeout=INSIDE)
            except Empty:
                return False
            self._key.put(key)
        return True

    def detach(self, poller: Poller) -> None:
        """Let go of the direct way back: the process is gone."""
        back, self.receive = self.receive, None
        if back is not None:
            poller.remove(back.wakeup.fd)
            back.wake()  # a task of the worker may have taken the notification before


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
        number, sent, words, fd, output = (
            call.number,
            process.direct.sent,
            self.words,
            self.wakeup.fd,
            process.output,
        )
        pool: Any = task._pool
        end = None if timeout is None else time.monotonic() + timeout
        abandoned = self._abandoned
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
                        read(fd, 8)
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
                    if WEAK:
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
                    call.found = (value, (head >> 32) / 1e6)
                    try:
                        sent.remove(claim)  # not the first entry, whichever that may be by now
                    except ValueError as error:
                        if raised_elsewhere(error):
                            raise
                        handed_over = True  # the I/O thread was faster
                if handed_over:
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
                if settle_quietly(
                    task, value, time.time(), process.process.pid, (head >> 32) / 1e6
                ):
                    pool.post(partial(pool.tell, task))
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
        """Take note that the call was not sent after all; it goes another way."""
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
        if WEAK:
            fence()
        head = words[ANSWER]
        return head & 0xFF, number, self._answer[: head >> 8 & 0xFFFFFF].tobytes(), head >> 32


def direct_receive(process: Any, abandoned: AbandonedWaits) -> DirectReceive | None:
    """Return the direct way back of a new process; None if it cannot have one."""
    if process.wakeup is None or process.page is None or abandoned.wake < 0:
        return None
    return DirectReceive(process.page, process.wakeup, (process.stdout, process.stderr), abandoned)
