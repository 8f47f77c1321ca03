"""Tasks that a running function submits: what is known of them here, and their way to the host.

Owns the numbers of these tasks, those of them that have not ended, and whether the running call
waits for some (the host gives its place to another worker meanwhile). Made with the first of them:
a worker whose calls submit nothing has none of this.

What the call says of them are frames of kind ``NESTED``, in the order in which things happened.
What the host answers are records of kind ``CHILD`` in the bulk pipe. They come at any time, so from
now on a thread of its own reads that pipe, and hands on what the main thread has to read.

Threads: any thread of a task submits, asks and waits; the reader settles; user code runs on
neither of our threads but on the one for callbacks.
"""

from __future__ import annotations

import itertools
from _thread import RLock, allocate_lock, start_new_thread

from . import running, threads, wire
from .calls import dumps, loads
from .channel import ChannelLost

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, Protocol, Set, Tuple

    class Child(Protocol):
        """A task that was submitted here."""

        detached: bool

        def settle(self, kind: int, data: Any) -> None:
            """Take the outcome."""
            ...

        def tell(self, kind: int, data: Any) -> None:
            """Take an event, outputs, or a question whether there is another try."""
            ...


#: What becomes of tasks when their call has ended.
ENDED = b"the function that has submitted it has ended; options(detach=True) would have kept it"


def _emptied(found: Dict[int, Any]) -> Iterator[Tuple[int, Any]]:
    """Take out one item after another. Race: another thread may take some at the same time."""
    while found:
        try:
            yield found.popitem()
        except KeyError:
            return


class Nested:
    """The tasks that the running call has submitted.

    Args:
        runner: the worker's main loop.
    """

    def __init__(self, runner: Any) -> None:
        from _queue import SimpleQueue

        self._runner = runner
        self._channel = runner.channel
        self._next_number = itertools.count(1).__next__
        #: number -> task; the thread that takes one out settles it.
        self._children: Dict[int, Child] = {}
        #: Numbers of those that the host knows, and of those of them that were not started.
        self._sent: Set[int] = set()
        self._held: Set[int] = set()
        #: number of a question -> what takes the answer.
        self._questions: Dict[int, Callable[[Any], object]] = {}
        # Guards ``_waits`` and ``_ended``, and the order of the frames: nothing of a call is said
        # behind its end. Re-entrant, because the collector may run finalizers that cancel tasks.
        self._lock = RLock()
        self._waits = 0
        # Serial of the call that these are of.
        self._serial = 0
        # Serial of the call that has ended last.
        self._ended = 0
        #: Records for the main thread, or the error that ended the pipe.
        self._records: Any = SimpleQueue()
        self._jobs: Any = None
        self._lost: Any = None

    def start(self) -> None:
        """Read the bulk pipe from now on."""
        self._channel.share_records(self._next_record)
        start_new_thread(self._read, ())

    # --- the running call (any of its threads)

    def item(self) -> int:
        """Return the running call, if the calling code works for it.

        Raises:
            RuntimeError: it does not: the call has ended.
        """
        item = threads.item_here(self._runner)
        if not item or self._ended == self._runner.serial:
            raise RuntimeError(
                "an executor can be used inside a worker only by the function of a task that is "
                "running, and by the threads that it has started; this task has ended"
            )
        return item

    def enter(self, child: Child) -> int:
        """Return a number for a new task; it is cancelled when the call ends."""
        number = self._next_number()
        with self._lock:
            self.item()
            if self._lost is not None:
                raise ChannelLost(str(self._lost))
            self._children[number] = child
        return number

    def forget(self, number: int) -> bool:
        """Let go of a task that the host does not know; return False if it does, or has ended."""
        with self._lock:
            return number not in self._sent and self._children.pop(number, None) is not None

    def hold(self, number: int, head: Any) -> None:
        """Let the host know a task that is not to start yet; ``head`` as of ``submit``."""
        self._refuse_in_fork()
        with self._lock:
            item = self.item()
            if number in self._children:
                self._sent.add(number)
                self._held.add(number)
                self._say(item, (wire.HOLD, number, head))

    def submit(
        self,
        number: int,
        head: Any,
        payload: bytes,
        blocks: Any = (),
        hand_over: Callable[[], object] = tuple,
    ) -> None:
        """Submit the call of a task, unless that has ended meanwhile.

        Args:
            number: of the task.
            head: what the host reads of it, of builtin types.
            payload: what it does not.
            blocks: entries of the lent blocks that belong to it, ``wire.BLOCK`` each; if the
                payload is empty, the first holds the pickle.
            hand_over: called just before the blocks are the host's.
        """
        self._refuse_in_fork()
        with self._lock:
            item = self.item()
            if number not in self._children:
                return
            if self._lost is not None:
                raise ChannelLost(str(self._lost))
            hand_over()
            self._sent.add(number)
            self._held.discard(number)
            self._say(item, (wire.SUBMIT, number, head, payload, b"".join(blocks)))

    def _refuse_in_fork(self) -> None:
        # Order: before the lock is taken, which another thread may have held in the fork.
        if self._runner.forked:
            raise RuntimeError(running.IN_FORK)

    def knows(self, number: int) -> bool:
        """Return True if the host knows a task that has not ended."""
        return number in self._sent

    def say(self, what: int, number: int, more: int = 0) -> None:
        """Say something of a task that needs no answer."""
        self._refuse_in_fork()
        with self._lock:
            self._say(self.item(), (what, number, more))

    def ask(self, what: int, number: int) -> Any:
        """Ask something of a task; return the answer."""
        return self._ask(lambda question: (what, number, question))

    def borrow(self, sizes: Any) -> Any:
        """Ask the host for blocks of these sizes in bytes; see ``shm_lent``.

        Returns:
            (slot, offset, capacity) of each; None if there is no room.
        """
        return self._ask(lambda question: (wire.LEND, question, sizes), self._free)

    def _free(self, places: Any) -> None:
        """Free blocks that were lent to a thread which does not want them any more."""
        for slot, _offset, _capacity in places or ():
            self._runner.use_buffers().free(slot)

    def _ask(self, message: Callable[[int], Any], unwanted: Any = None) -> Any:
        """Ask the host something; return the answer.

        Args:
            message: makes it, with the number of the question.
            unwanted: takes an answer that comes when an exception, of an interrupt of the running
                call, has ended the wait.
        """
        self._refuse_in_fork()
        question = self._next_number()
        box: Any = []
        lock = allocate_lock()
        lock.acquire()

        def answer(found: Any) -> None:
            box.append(found)
            lock.release()

        with self._lock:
            item = self.item()
            self._questions[question] = answer
            self._say(item, message(question))
        try:
            if self._lost is None:
                lock.acquire()
        except BaseException:
            if unwanted is not None and self._questions.pop(question, None) is None:
                lock.acquire()  # Race: the reader has the answer in its hands
                unwanted(box[0])
            raise
        self._questions.pop(question, None)
        if self._lost is not None and (not box or box[0] is None):
            raise ChannelLost(str(self._lost))
        return box[0]

    def _say(self, item: int, message: Any) -> None:
        self._channel.send(wire.NESTED, item, dumps(message, 4))

    @property
    def serial(self) -> int:
        """Of the running call, or of the last one; see ``threads``."""
        serial: int = self._runner.serial
        return serial

    def begin_wait(self, serial: int) -> None:
        """Let the host know that the call waits, if it did not wait before.

        Args:
            serial: of the call that has submitted what is waited for.
        """
        self._refuse_in_fork()
        with self._lock:
            item = self._runner.item
            if not item or serial != self._runner.serial or serial == self._ended:
                return  # it has ended
            if serial != self._serial:
                self._serial = serial
                self._waits = 0
            self._waits += 1
            if self._waits == 1:
                self._say(item, (wire.WAIT, 1))

    def end_wait(self, serial: int) -> None:
        """Let the host know that the call goes on, unless another thread of it still waits."""
        with self._lock:
            item = self._runner.item
            if not item or serial != self._serial or self._waits <= 0:
                return
            self._waits -= 1
            if not self._waits:
                self._say(item, (wire.WAIT, 0))

    def run_later(self, job: Callable[[], object], serial: int) -> None:
        """Run user code that a task has called for, on the thread for callbacks, in order.

        Args:
            job: what is run.
            serial: of the call for which it works.
        """
        if self._jobs is None:
            from _queue import SimpleQueue

            self._jobs = SimpleQueue()
            start_new_thread(self._work_off, (self._jobs,))
        self._jobs.put(threads.Inheriting(job, serial, thread=False))

    # --- the main thread

    def end_call(self, item: int) -> None:
        """End what the call has submitted and not waited for. Order: before its outcome is sent."""
        with self._lock:
            self._serial = 0
            self._ended = self._runner.serial
            if not self._children and not self._questions:
                return
            left = dict(_emptied(self._children))
            ended = [
                number
                for number, child in left.items()
                if number in self._sent and (not child.detached or number in self._held)
            ]
            self._sent.clear()
            self._held.clear()
            self._say(item, (wire.LEAVE, ended))
        for child in left.values():
            child.settle(wire.CANCELLED, ENDED)
        for _number, answer in _emptied(self._questions):
            answer(None)

    def _next_record(self) -> Any:
        found = self._records.get()
        if isinstance(found, BaseException):
            self._records.put(found)
            raise found
        return found

    # --- the reader

    def _read(self) -> None:
        threads.work_for_none()
        channel = self._channel
        try:
            while True:
                kind, number, data = record = channel.read_from_pipe()
                if kind == wire.CHILD:
                    self._take(number, data)
                else:
                    self._records.put(record)
        except BaseException as error:  # noqa: BLE001
            # The pipe is at its end. Threads that wait for something from it have to know.
            self._lost = error
            self._records.put(error)
            for _number, child in _emptied(self._children):
                child.settle(wire.CANCELLED, b"the way to the host is lost")
            for _number, answer in _emptied(self._questions):
                answer(None)

    def _take(self, number: int, data: Any) -> None:
        kind = data[0]
        rest = memoryview(data)[1:]
        if kind == wire.REPLY:
            answer = self._questions.pop(number, None)
            if answer is not None:
                answer(loads(rest))
        elif kind == wire.GRANT:
            places = loads(rest)
            (self._questions.pop(number, None) or self._free)(places)
        elif kind in (wire.EVENT, wire.OUTPUTS, wire.RETRY):
            child = self._children.get(number)
            if child is not None:
                child.tell(kind, rest)
        else:
            if kind == wire.VALUE_IN_LENT:
                # Order: whatever becomes of the task, its blocks are freed with their last view.
                kind, rest = self._open(rest)
            child = self._children.pop(number, None)
            self._sent.discard(number)
            self._held.discard(number)
            if child is not None:
                child.settle(kind, rest)

    def _open(self, data: Any) -> Tuple[int, Any]:
        try:
            return wire.VALUE_IN_LENT, self._runner.use_buffers().receive_lent(data)
        except MemoryError:
            text = "the result does not fit into the address space of this worker"
            return wire.FAILED, dumps((("MemoryError",), text), 4)

    # --- the thread for callbacks

    @staticmethod
    def _work_off(jobs: Any) -> None:
        threads.work_for_none()
        while True:
            job = jobs.get()
            try:
                job()
            except BaseException:
                # user code: SystemExit in one callback must not keep the others from running
                import logging

                logging.getLogger("concurrent.futures").exception("exception calling callback")
            job = None
