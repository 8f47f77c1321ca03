"""How the I/O thread of a pool registers the calls that were sent directly.

Registering, answers, abandoned waits.

I/O thread, but for ``ensure_tracked``, and ``take_abandoned`` when that thread has ended. See
``direct.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor.futures.settling import announce_late, settle_quietly
from wetlands_executor.pool.call import Call, CallPhase
from wetlands_executor.pool.direct_receive import AbandonedWaits, DirectReceive
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.polling import Poller
from wetlands_executor.pool.result_stream import RawFrame
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st

if TYPE_CHECKING:
    from wetlands_executor.pool.stats import TaskStats

#: Workers to which submitting threads may write at once. A thread that submits many short calls to
#: many idle workers would wake each of them for one call, and the I/O thread for each answer; from
#: the third call on they are handed out together. More make nothing faster: one thread submits at a
#: time.
MOST_OPEN = 2


class DirectCalls:
    """What passes the I/O thread of one pool.

    Args:
        loop: that thread.
        workers: the pool's processes.
        stats: counts tasks.
        feed: feeds the state; what was sent directly comes first (``registered``).
        contain: deals with what was raised while one call was looked at.

    Attributes:
        open_workers: idle workers to which a submitting thread may write; replaced whole.
        abandoned: see ``direct.py``.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        workers: Workers,
        stats: TaskStats,
        feed: Callable[[st.Event | None], None],
        contain: Callable[[Exception, Any], None],
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._stats = stats
        self._feed = feed
        self._take: Callable[[WorkerProcess, list[RawFrame]], None]
        self._contain = contain
        self.open_workers: tuple[WorkerProcess, ...] = ()
        self.abandoned = AbandonedWaits()

    def connect(self, take: Callable[[WorkerProcess, list[RawFrame]], None]) -> None:
        """Set what takes result frames of a worker, and what was printed before them; once."""
        self._take = take

    def begin(self, poller: Poller) -> None:
        """The I/O thread runs: waits that are given up wake it."""
        self.abandoned.serve(poller.urgent)
        poller.watch_abandoned_waits(self.take_abandoned)

    def open(self, processes: list[WorkerProcess]) -> None:
        """Let submitting threads write to these workers, which hold nothing, and to no others."""
        for process in processes:
            process.direct_send.reopen(self._loop.poller)
        self.open_workers = tuple(processes)

    def registered(self, process: WorkerProcess) -> list[st.Event]:
        """Note what submitting threads have written to a worker.

        Return the events for the state.
        """
        calls = process.register()
        for call in calls:
            self._stats.submitted(call.task)
        return [st.SentDirectly(process.worker, call) for call in calls]

    def ask_to_register(self, process: WorkerProcess) -> None:
        """Have the I/O thread register what was written to a worker that it gave calls as well.

        Any thread.
        """
        self._loop.post(partial(self.register, process))

    def register(self, process: WorkerProcess) -> None:
        """Feed the state what submitting threads have written to a worker."""
        if process.direct_send.sent:
            self._feed(None)

    def sync(self) -> None:
        """Register all that submitting threads have sent; take answers that no thread has read."""
        self.take_abandoned()
        self._feed(None)
        for process in self._workers:
            self.take_answer(process)

    def on_notified(self, process: WorkerProcess) -> None:
        """The worker has notified: an answer lies on its page, and no submitter waits for it."""
        back = process.direct_send.receive
        if back is not None:
            back.on_notified()
        self.take_answer(process)

    def take_answer(self, process: WorkerProcess) -> None:
        """Take the answer from the shared page, if there is one and its call is registered."""
        back = process.direct_send.receive
        if back is None or self._workers.processes.get(process.worker) is not process:
            return
        if process.direct_send.sent:
            self._feed(None)
        frame = back.take_answer(process.calls)
        if frame is not None:
            self._take(process, [frame])

    def take_abandoned(self) -> None:
        """Finish the waits that were given up. I/O thread; when that has ended, any thread."""
        for call in self.abandoned.take():
            try:
                self._finish_wait(call)
            except Exception as error:  # noqa: BLE001 - the others are taken all the same
                self._contain(error, partial(self._finish_wait, call))

    def _finish_wait(self, call: Call) -> None:
        process: WorkerProcess | None = call.process
        if process is None:
            return
        self.register(process)
        if call.phase is not CallPhase.DIRECT:
            self.take_answer(process)
        elif call.found is not None:
            # The submitter had taken the claim, and was interrupted before all was done.
            value, duration = call.found
            task = call.task
            if task._final is None:
                settle_quietly(task, value, time.time(), process.process.pid, duration)
            self._stats.returned_one(task)
            announce_late(task)

    def ensure_tracked(self, call: Call) -> None:
        """Let this thread settle a call that was sent unannounced.

        Another thread is to be notified of its end. Any thread.
        """
        process: WorkerProcess | None = call.process
        back: DirectReceive | None = process.direct_send.receive if process is not None else None
        if back is not None and process is not None:
            back.prearm_no_more()
            self._loop.post(partial(self.take_answer, process))
        # Order: last. If a thread is interrupted before this, the next accessor does it all again.
        call.unannounced = False

    def forget(self) -> None:
        """Let go of everything: it belongs to the parent of this process."""
        self.open_workers = ()
        self.abandoned.serve(-1)

    def end(self) -> None:
        """The I/O thread ends: what is left is finished by the threads that wait."""
        self.open_workers = ()
        self.abandoned.serve(-1)
        self.take_abandoned()
