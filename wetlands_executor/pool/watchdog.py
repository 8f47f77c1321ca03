"""The watchdog of a pool: finds workers whose tasks have read what was written to the worker.

A task has all descriptors of its process. One that reads from each of them, or a thread that it has
left, may read calls from the inbox, records from the bulk pipe, or the counter that wakes a waiting
submitter. The kernel reports none of that to the host.

1. The worker sees it where the next thing that it reads is not what is due: frames and records are
   numbered (``wire.marks``). It ends, with a message on stderr. No timer is needed for that.
2. Where nothing is left to be read, the worker waits for a frame that the host believes it has, and
   both would wait for ever. So as long as a worker holds calls, the I/O thread looks every
   ``INTERVAL`` seconds whether all that was written is in the pipe or has been taken. An idle pool
   has no timer.

A worker that was harmed gets nothing more. What has not begun goes back to the queue, in front; the
call that it runs is left alone until it ends; then the worker is replaced.

Threads: the I/O thread, but for ``armed``, which waiting submitters read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from wetlands_executor.errors import WorkerCrashed
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.losses import Losses, LossRecord
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st

if TYPE_CHECKING:
    from wetlands_executor.pool.call import Call
    from wetlands_executor.pool.worker_process import WorkerProcess

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds between two looks.
INTERVAL = 0.5
#: Looks that see the same after the first one, before it is believed.
CONFIRMATIONS = 2
#: Reads of a results pipe that take all that an answer before them can have left there.
READS = 20


class Watchdog:
    """The watchdog of one pool.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
        feed: feeds the state.
        read: reads once what a worker has sent.
        take_answer: takes what a worker has answered on the shared page.
        retire: lets a worker end after what it runs.
        output: the way to the program's log handlers.
        label: how messages call the environment.

    Attributes:
        armed: the next look is set. A submitter that is about to sleep, and sees False, posts
            ``start``.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        workers: Workers,
        feed: Callable[[st.Event | None], None],
        read: Callable[[WorkerProcess], None],
        take_answer: Callable[[WorkerProcess], None],
        retire: Callable[[WorkerProcess], None],
        output: Output,
        label: str,
    ) -> None:
        self.armed = False
        self._loop = loop
        self._workers = workers
        self._feed = feed
        self._read = read
        self._take_answer = take_answer
        self._retire = retire
        self._output = output
        self._label = label
        # Number of a worker -> what was seen of it.
        self._records: dict[int, LossRecord] = {}

    def start(self) -> None:
        """Set the next look, if it is not set."""
        if not self.armed:
            self.armed = True
            self._loop.set_timer(INTERVAL, self._look)

    def _look(self) -> None:
        # Race: a submitter makes itself the `caller` of its worker, then reads `armed`; this thread
        # clears `armed`, then looks for callers. At least one of the two observes the other's
        # store.
        self.armed = False
        before = self._records
        records = {each.worker: before.get(each.worker, LossRecord()) for each in self._workers}
        self._records = records
        if any(
            process.calls or process.has_waiter or records[process.worker].harmed
            for process in self._workers
        ):
            self.start()
        for process in self._workers:
            losses, times = records[process.worker].look(process)
            if losses is not None and (losses.answers or times >= CONFIRMATIONS):
                self._rescue(process, losses)

    def _rescue(self, process: WorkerProcess, losses: Losses) -> None:
        """Take from a harmed worker what has not begun, and let the worker end.

        A submitter whose wakeup was lost is woken.
        """
        if self._records[process.worker].note_harm():
            self._output.put_foreign(
                partial(LOGGER.warning, HARMED, process.process.pid, self._label)
            )
        # Order: the inbox is emptied, then the results are read. The worker has answered a call
        # before it reads the next frame. So if the call that it has taken is not among these
        # results, it has read no frame since.
        self._retire(process)
        for _ in range(READS):
            before = process.results.arrived
            self._read(process)
            if process.results.arrived == before:
                break
        self._take_answer(process)
        if not self._workers.has(process) or process.exited:
            return
        if process.direct_send.receive is not None:
            process.direct_send.receive.wake()
        if losses.answers:
            # Of the calls that are left it cannot be told which have run.
            process.kill_because(WorkerCrashed(ANSWERS_LOST % (process.process.pid, self._label)))
            return
        if losses.records:
            process.outbox.close_bulk()
        if process.given.taken() in process.calls:
            lost = process.reclaim_lost()
            if lost:
                self._feed(st.Reclaimed(process.worker, lost))
                cancel_again(lost, self._feed)
        elif not process.stopping:
            process.stop()


def cancel_again(calls: Iterable[Call], feed: Callable[[st.Event | None], None]) -> None:
    """Cancel calls that wait again, if that was asked for while they were believed to run."""
    for call in calls:
        if call.task is not None and call.task.cancel_requested and call.place is not None:
            feed(st.CancelRequested(call))


ANSWERS_LOST = (
    "The worker process %d of %s was ended, because what it sends does not arrive: a task has put "
    "something else in the place of a descriptor that it did not open"
)
HARMED = (
    "wetlands_executor: in the worker process %d of %s, something has read what was written to the "
    "worker, or what wakes the thread that waits for it; the worker is replaced, and calls that it "
    "had not begun run elsewhere"
)
