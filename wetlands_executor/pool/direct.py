r"""Direct send and direct receive: a short call goes to its worker and back without the I/O thread.

Handing a call over to a second thread, and its result back, costs more than a short call itself. So
the I/O thread publishes workers that hold nothing; a submitting thread may write one frame to one
of them (``DirectSend``), and take the answer itself while it waits in ``result()``
(``DirectReceive`` in ``direct_receive.py``)::

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
3. *Race:* an exception from a signal handler can end ``wait`` after every call in it. Whatever was
   done by then is undone or finished by the I/O thread: the exception handler leaves the call in a
   chain with plain stores, and wakes that thread with its first call (``ABANDONED``). What was read
   from the page is kept with the call. CPython checks for signals, and switches threads, only after
   calls and at the start of functions and loops; it collects garbage (which runs finalizers, and
   they may submit) only when it allocates containers. A few lines here rely on that none of this
   happens between them; each says so.
4. *Prearming:* on one core the worker answers before ``result()`` is even called. So if the
   submitter of the last call has waited here, the next one is awaited from the moment it is sent.
   Then no thread is woken if none comes. Such a call is *unannounced* (``Call.unannounced``): every
   accessor of its Task but ``result()`` and its like (``TaskPool.ensure_tracked``), every look at
   the pool (``sync``) and every event for the state let the I/O thread register it first. After
   such a look the next call is not prearmed, until a thread waits here again.
5. These ways notify nothing else: listeners, waiters of the standard library and callbacks
   concern the I/O thread.

Of the host, only these two modules use the control words ``AWAITED``, ``ANSWERED`` and ``ANSWER``
of the shared page. These fields of a call belong to the direct ways:

- ``awaited``: the worker may have read that a thread waits for its answer on the page;
- ``unannounced``: as above;
- ``abandoned``, ``after``: it is in the chain of abandoned waits; the next one there;
- ``found``: what was read from the page: value, duration in seconds.

They are set in these two modules, in ``Call`` (``go_another_way``, ``come_back``) and by
``DirectCalls`` (``ensure_tracked``), which also finishes what an interrupted wait has left in
``found``. A Task reads ``unannounced`` (``Task.done``), and nothing else of them.

Threads: ``DirectSend.send`` is entered by any thread, ``DirectReceive.wait`` by any, one at a time;
everything else is the I/O thread's. Where there is no eventfd, or no shared page, there is no
direct receive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from os import write
from queue import Empty, SimpleQueue
from typing import Any

from wetlands_executor.futures.waiting import add_wakeup
from wetlands_executor.pool.call import Call, CallPhase
from wetlands_executor.pool.direct_receive import DirectReceive, raised_elsewhere
from wetlands_executor.pool.outbox import Outbox
from wetlands_executor.pool.polling import Poller
from wetlands_executor.worker.wire import ARGUMENTS_MOST, AWAITED, BLOCKS, IN_BULK, MANY, NAMED

#: Flags of calls whose payload is more than a pickle of its function and arguments.
_NOT_BY_PAGE = BLOCKS | MANY
#: Seconds that a submitting thread may be inside ``send`` before the I/O thread does something else
#: first. It writes one frame there.
INSIDE = 0.005
# What every call needs, without a look into the Enum each time. Set without `Call.move`, which
# would be one more function for each short call (`tests/tasks/test_function_counts.py`): the
# call is QUEUED, because `Pool.submit` has just made it.
_DIRECT = CallPhase.DIRECT


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
        encoded = call.encoded
        if encoded.flags & IN_BULK:
            steps = self._by_page(call)
        elif self._outbox.knows(call):
            steps = map(write, self._take_key, (call.frame(self._outbox.direct_mark),))
        else:
            return False
        sent, back = self.sent, self.receive
        out_of_band = encoded.out_of_band
        if steps is None or not self.open or sent:
            return False
        call.process = self._owner
        call.phase = _DIRECT
        given = None if out_of_band is None else out_of_band.offer(self._incarnation)
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
                zip((call,), self._empty, steps, self._give_key)  # noqa: B905
                if given is None
                else zip((call,), self._empty, steps, self._give_key, given)  # noqa: B905
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
            assert call.phase is _DIRECT  # the table's move, without a function as in `send`
            call.phase = CallPhase.GIVEN
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
