"""The threads of an executor, which take calls from its queue.

They start when they are needed and none is idle. A thread that is left behind, because its call was
given up and goes on all the same, loses its place to a new one. Any thread enters.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from wetlands_executor import threads
from wetlands_executor.futures.waiting import Wakeups, remaining

if TYPE_CHECKING:
    from wetlands_executor.in_process.call import Run, ThreadCall

#: What these threads do, as messages name it; see ``threads``. They may wait for any task.
TASKS = "runs tasks"


class CallQueue:
    """Calls that wait, by priority. Each method is one step of C code, safe in signal handlers."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, ThreadCall]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, call: ThreadCall) -> None:
        """Add a call behind those of its priority."""
        heapq.heappush(self._heap, (-call.priority, next(self._order), call))

    def pop(self) -> ThreadCall | None:
        """Return the next call, which may have been cancelled; None if none waits."""
        try:
            return heapq.heappop(self._heap)[2]
        except IndexError:
            return None

    def calls(self) -> list[ThreadCall]:
        """Return those that wait, the next one first."""
        return [call for _, _, call in sorted(self._heap.copy()) if call.waits]


class WorkerThread:
    """One thread.

    Attributes:
        index: number of its place.
        run: what it runs; None if it is idle.
        finished: calls that it has finished.
        started_at: when it was started, as ``time.time()``.
        abandoned: it was left behind with the call that it runs.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.run: Run | None = None
        self.finished = 0
        self.started_at = time.time()
        self.abandoned = False
        self.thread: threading.Thread | None = None

    def enter(self) -> None:
        """Run on the calling thread."""
        self.thread = threading.current_thread()

    def begin(self, run: Run) -> None:
        """Note what it runs."""
        self.run = run

    def end(self) -> None:
        """Note that it has finished that."""
        self.run = None
        self.finished += 1

    def abandon(self) -> None:
        """Note that it was left behind."""
        self.abandoned = True


class WorkerThreads:
    """Starts threads, and knows when they have ended.

    Args:
        count: how many at most.
        queue: where calls come from.
        prepare: runs once on each thread; False ends it.
        serve: runs a call; False: the thread was left behind with it.
        may_end: returns True if nothing will ever wait again.
        ended: called when one has ended.
    """

    def __init__(
        self,
        count: int,
        queue: CallQueue,
        *,
        prepare: Callable[[], bool],
        serve: Callable[[ThreadCall, WorkerThread], bool],
        may_end: Callable[[], bool],
        ended: Callable[[], object],
    ) -> None:
        self._queue = queue
        self._prepare = prepare
        self._serve = serve
        self._may_end = may_end
        self._ended = ended
        # A thread needs one of these numbers.
        self._places = deque(range(count))
        self.alive: set[WorkerThread] = set()
        # Order: a thread enters here and then looks at the queue; a submitting thread adds a call
        # and then looks here. At least one of the two observes the other's store.
        self._idle: set[WorkerThread] = set()
        self._wakeups = Wakeups()
        self._ends = Wakeups()

    def call_in(self) -> None:
        """Let waiting calls be run.

        Raises:
            RuntimeError: no thread can be started, and there is none.
        """
        if len(self._queue) > len(self._idle):
            try:
                place = self._places.popleft()
            except IndexError:
                pass  # all are there
            else:
                self._start(place)
        self._wakeups.notify_all()

    def look(self) -> None:
        """Let idle threads find out that they may end."""
        self._wakeups.notify_all()
        self._ends.notify_all()

    def _start(self, place: int) -> None:
        worker = WorkerThread(place)
        self.alive.add(worker)
        try:
            threads.start(self._run, (worker,), f"wetlands-in-process-{place}", TASKS)
        except RuntimeError:
            self.alive.discard(worker)
            self._places.append(place)
            if not self.alive:
                raise

    def _run(self, worker: WorkerThread) -> None:
        worker.enter()
        try:
            if not self._prepare():
                return
            while True:
                call = self._queue.pop()
                if call is None:
                    if self._may_end():
                        return
                    self._sleep(worker)
                elif not self._serve(call, worker):
                    worker.abandon()
                    return
                call = None  # it keeps its arguments
        finally:
            if not worker.abandoned:
                self._places.append(worker.index)
                self.alive.discard(worker)
                self._wakeups.notify_all()
                self._ends.notify_all()
                self._ended()

    def _sleep(self, worker: WorkerThread) -> None:
        self._idle.add(worker)
        try:
            self._wakeups.wait(lambda: len(self._queue) > 0 or self._may_end())
        finally:
            self._idle.discard(worker)

    def replace(self, worker: WorkerThread) -> None:
        """Leave a thread behind, and give its place to another one."""
        worker.abandon()
        self.alive.discard(worker)
        self._places.append(worker.index)
        self.call_in()
        self._ends.notify_all()
        self._ended()

    def join(self, gone: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``gone()`` is true, which changes with the end of a thread.

        Args:
            gone: looks.
            timeout: seconds to wait; None waits without limit.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not gone():
            if not self._ends.wait(gone, remaining(end)):
                return False
        return True
