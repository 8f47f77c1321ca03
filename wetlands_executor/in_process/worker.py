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
from typing import TYPE_CHECKING, Any, cast

from wetlands_executor import threads
from wetlands_executor.futures.deferral import needed
from wetlands_executor.futures.waiting import Wakeups, remaining

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
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
        #: It has ended in favour of one whose task does not wait any more.
        self.surplus = False
        self.thread: threading.Thread | None = None

    def enter(self, pauses: threads.Pauses) -> None:
        """Run on the calling thread.

        Args:
            pauses: notes when its task begins to wait for another one, and when it stops.
        """
        self.thread = threading.current_thread()
        threads.working[threading.get_ident()] = pauses

    def leave(self) -> None:
        """Run no more."""
        threads.working.pop(threading.get_ident(), None)

    def give_way(self) -> None:
        """Note that it has ended in favour of another one."""
        self.surplus = True

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


#: The task of each thread that waits for another one without a time limit: that other one. Of all
#: executors, because their tasks may wait for each other's.
_awaited: dict[Task[Any], Task[Any]] = {}


def _leads_to(task: Task[Any], end: Task[Any]) -> bool:
    """Return True if ``end`` is among what must end before ``task`` can."""
    seen: set[object] = set()
    left = [task]
    while left:
        for each in needed(left.pop()) - seen:
            if each is end:
                return True
            seen.add(each)
            further = _awaited.get(cast("Task[Any]", each))
            # One that was given up, whose thread goes on to wait, is waited for no more.
            if further is not None and not cast("Task[Any]", each).done():
                left.append(further)
    return False


class Waits:
    """The waits of one thread whose task waits for other ones: another thread takes its place.

    Invariant: it has lent its place if, and only if, it waits, seen between two of its own steps.
    Entered by its thread only, except ``give_back``.
    """

    def __init__(self, worker: WorkerThread, places: Places) -> None:
        self._worker = worker
        self._places = places
        self._keys: list[object] = []
        # One entry while the place is lent; the thread that takes it gives it back.
        self._lent: list[None] = []
        self._task: Task[Any] | None = None

    @property
    def waiting(self) -> bool:
        """True while its task waits."""
        return bool(self._lent)

    def begin(self, key: object, task: Task[Any] | None, *, limited: bool) -> None:
        """See ``threads.Pauses``."""
        run = self._worker.run
        if run is None or self._worker.abandoned:
            return
        if task is not None and run.call.task is task:
            raise RuntimeError(f"the task {task.name!r} cannot wait for itself")
        if task is not None and not limited:
            self._wait_for(run.call.task, task)
        self._keys.append(key)
        if not self._lent:
            self._lent.append(None)
            self._places.lend()

    def _wait_for(self, mine: Task[Any], task: Task[Any]) -> None:
        """Note what the task of this thread waits for; refuse it if that waits for this one.

        Race: two threads may begin to wait for each other's task. Order: each stores what it waits
        for and then looks. At least one of the two observes the other's store.
        """
        self._task = mine
        _awaited[mine] = task
        if _leads_to(task, mine):
            self.forget()
            raise RuntimeError(
                f"the task {mine.name!r} cannot wait for {task.name!r}, which waits for it: "
                f"neither would ever end"
            )

    def forget(self) -> None:
        """Note that it waits for no task any more."""
        mine, self._task = self._task, None
        if mine is not None:
            _awaited.pop(mine, None)

    def end(self, key: object) -> None:
        """See ``threads.Pauses``."""
        self.forget()
        for place, known in enumerate(self._keys):
            if known is key:
                del self._keys[place]
                break
        if not self._keys:
            self.give_back()

    def finish(self) -> None:
        """Note that its task has ended. Race: an interrupt may have skipped ``end``."""
        self.forget()
        self._keys.clear()
        self.give_back()

    def give_back(self) -> None:
        """Take the place back."""
        try:
            self._lent.pop()
        except IndexError:
            return
        self._places.give_back()


class Places:
    """Numbers of threads: those that may run at once, and as many more as tasks wait for others.

    Each method is a few steps of C code that any thread may enter.

    Args:
        count: how many may run tasks that do not wait.
        changed: called when there is one more, or one too many.
    """

    def __init__(self, count: int, changed: Callable[[], object]) -> None:
        self._free = deque(range(count))
        # Numbers that may be used only while a task waits.
        self._spare: deque[int] = deque()
        self._next = itertools.count(count).__next__
        # One entry for each thread that is too many.
        self._surplus: deque[None] = deque()
        self._changed = changed

    def take(self) -> int | None:
        """Return the number of a thread that may be started; None if all are there."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def put(self, number: int) -> None:
        """Let the place of a thread that has ended be taken."""
        self._free.append(number)

    def lend(self) -> None:
        """Allow one more, while a task waits."""
        try:
            self._surplus.pop()
        except IndexError:
            try:
                number = self._spare.popleft()
            except IndexError:
                number = self._next()
            self._free.append(number)
        self._changed()

    def give_back(self) -> None:
        """Allow one less."""
        try:
            self._spare.append(self._free.pop())
        except IndexError:
            self._surplus.append(None)
            self._changed()

    @property
    def crowded(self) -> bool:
        """True if there is a thread too many."""
        return bool(self._surplus)

    def leave(self, number: int) -> bool:
        """Return True to a thread that is to end because there are too many."""
        try:
            self._surplus.pop()
        except IndexError:
            return False
        self._spare.append(number)
        return True


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
        self._places = Places(count, self._look_at_places)
        self._waits: dict[WorkerThread, Waits] = {}
        self.alive: set[WorkerThread] = set()
        # Order: a thread enters here and then looks at the queue; a submitting thread adds a call
        # and then looks here. At least one of the two observes the other's store.
        self._idle: set[WorkerThread] = set()
        self._wakeups = Wakeups()
        self._ends = Wakeups()

    def call_in(self) -> None:
        """Let waiting calls be run.

        Raises:
            RuntimeError: no thread can be started, and there is none that could run them.
        """
        if len(self._queue) > len(self._idle) and (place := self._places.take()) is not None:
            self._start(place)
        self._wakeups.notify_all()

    def _look_at_places(self) -> None:
        if self._places.crowded:
            self._wakeups.notify_all()
        else:
            self.call_in()

    def look(self) -> None:
        """Wake idle threads, which end if they may."""
        self._wakeups.notify_all()
        self._ends.notify_all()

    def _start(self, place: int) -> None:
        worker = WorkerThread(place)
        self.alive.add(worker)
        try:
            threads.start(self._run, (worker,), f"wetlands-in-process-{place}", TASKS)
        except RuntimeError:
            self.alive.discard(worker)
            self._places.put(place)
            waits = [self._waits.get(each) for each in self.alive.copy()]
            if all(each is not None and each.waiting for each in waits):
                raise

    def _run(self, worker: WorkerThread) -> None:
        waits = self._waits[worker] = Waits(worker, self._places)
        worker.enter(waits)
        try:
            if not self._prepare():
                return
            while True:
                if self._places.crowded and self._places.leave(worker.index):
                    worker.give_way()
                    return
                call = self._queue.pop()
                if call is None:
                    if self._may_end():
                        return
                    self._sleep(worker)
                elif not self._serve(call, worker):
                    worker.abandon()
                    return
                else:
                    waits.finish()
                call = None  # it keeps its arguments
        finally:
            worker.leave()
            self._waits.pop(worker, None)
            waits.forget()
            if not worker.abandoned:
                if not worker.surplus:
                    self._places.put(worker.index)
                self.alive.discard(worker)
                self._wakeups.notify_all()
                self._ends.notify_all()
                self._ended()

    def _sleep(self, worker: WorkerThread) -> None:
        self._idle.add(worker)
        try:
            self._wakeups.wait(self._is_wanted)
        finally:
            self._idle.discard(worker)

    def _is_wanted(self) -> bool:
        return len(self._queue) > 0 or self._may_end() or self._places.crowded

    def replace(self, worker: WorkerThread) -> None:
        """Leave a thread behind, and give its place to another one."""
        worker.abandon()
        waits = self._waits.get(worker)
        if waits is not None:
            waits.give_back()
        self.alive.discard(worker)
        self._places.put(worker.index)
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
