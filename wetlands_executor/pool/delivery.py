"""Threads on which user code may run: output, unpickling, callbacks.

The I/O thread runs none of it.

* ``SerialThread``: jobs one after another, in order; a thread that starts with the first job. Used
  for what workers print (writing to ``sys.stdout`` may block and may be the user's) and for Future
  callbacks.
* ``Decoders``: jobs in parallel as far as needed. Unpickling imports modules and runs
  ``__setstate__``; one result that blocks there must not hold up the others, so a second thread
  starts when the first has made no progress for ``STALLED_AFTER`` seconds.

Every thread is a daemon: the executor drains them at shutdown and at interpreter exit; a job that
never ends must not keep the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

from wetlands_executor import threads
from wetlands_executor.futures.waiting import Latch as Latch

LOGGER = logging.getLogger("concurrent.futures")

Job = Callable[[], object]

#: Seconds that unpickling may take before the next result gets a thread of its own.
STALLED_AFTER = 0.02
#: Threads that may be stuck in unpickling at the same time before results have to wait.
MOST_DECODERS = 32


class SerialThread:
    """Runs jobs one after another on a thread of its own.

    No locks: user threads enter, which signal handlers interrupt and where finalizers run. A job is
    put in one step; if several callers start the thread at the same time, one thread serves.

    Args:
        name: of the thread.
        kind: what it does, a constant of ``threads``.
    """

    def __init__(self, name: str, kind: str) -> None:
        self._name = name
        self._kind = kind
        # Each entry holds one job, which is taken by exactly one thread; None is the end.
        self._jobs: SimpleQueue[list[Job] | None] = SimpleQueue()
        # Not empty once a thread was started; noted in one step with the start.
        self._starts: list[object] = []
        # The thread that serves, under the key 0; written once, by `setdefault`.
        self._serving: dict[int, threading.Thread] = {}
        self._ended = False
        self._gone = Latch()

    def put(self, job: Job) -> list[Job]:
        """Run ``job`` after those that were put before.

        In the caller if no thread can be had any more (interpreter exit).

        Returns:
            Its entry, for ``run_entry``: another thread may run the job before its turn. The entry
            is empty when the job has been taken.
        """
        entry = [job]
        self._jobs.put(entry)
        started = False
        if not self._starts and not self._ended:
            try:
                threads.start(self._run, (), self._name, self._kind, self._starts.append)
                started = True
            except RuntimeError:
                # "can't start new thread": out of threads, or the interpreter is going down
                run_entry(entry)
        if self._ended:
            run_entry(entry)  # Race: the thread may have ended without seeing it
            if started:
                # Race: `end` may have run as a whole between the two looks at `_ended`, and has
                # taken what ends the thread out of the queue again.
                self._jobs.put(None)
        return entry

    def _run(self) -> None:
        mine = threading.current_thread()
        if self._serving.setdefault(0, mine) is not mine:
            return  # another one was started at the same time
        while (entry := self._jobs.get()) is not None:
            run_entry(entry)
            del entry  # it holds a task and its result
        drain(self._jobs)
        self._gone.set()

    def end(self) -> None:
        """Run what was put, then end the thread; waits, unless called from that thread.

        Later jobs run in their caller. I/O thread.
        """
        self.end_unstarted()
        if not self._starts:
            return
        if self._serving.get(0) is threading.current_thread():
            return
        self._gone.wait()
        _join(self._serving.get(0))

    def end_unstarted(self) -> None:
        """End without waiting, for an owner that has found no thread started.

        Later jobs run in their caller. Any thread, signal handler or finalizer; may be repeated.
        """
        self._ended = True
        self._jobs.put(None)
        if not self._starts:
            drain(self._jobs)

    @property
    def started(self) -> bool:
        """True if there is, or was, anything to run."""
        return bool(self._starts) or not self._jobs.empty()

    @property
    def ident(self) -> int | None:
        """The thread's identifier, None before it was started."""
        thread = self._serving.get(0)
        return thread.ident if thread is not None else None


class Decoders:
    """Runs jobs on as many threads as it takes for none to wait long behind a stuck one.

    No locks, as above. ``put`` is for any thread; ``check`` and ``end`` are for the I/O thread,
    which alone starts threads.

    Args:
        name: of the threads.
        overtaken: called on a decoder thread if a job may wait behind one that has just begun:
            ``check`` should be called.
    """

    def __init__(self, name: str, overtaken: Callable[[], object]) -> None:
        self._name = name
        self._overtaken = overtaken
        self._jobs: SimpleQueue[list[Job] | None] = SimpleQueue()
        # One entry for each thread that waits for a job, at most one thread in the long run. A
        # thread that puts a job takes the entry.
        self._idle: deque[None] = deque()
        self._threads: set[_Decoder] = set()
        self._ended = False

    def put(self, job: Job) -> bool:
        """Run ``job`` on a thread; return True if ``check`` has to be called for that."""
        entry = [job]
        self._jobs.put(entry)
        if self._ended:
            run_entry(entry)  # Race: the threads may have ended without seeing it
            return False
        try:
            self._idle.pop()
        except IndexError:
            return True
        return False

    def check(self) -> float | None:
        """Start another thread if all are stuck.

        Return the seconds after which to look again, None if nothing waits.
        """
        if self._jobs.empty() or self._idle or self._ended:
            return None
        begun = [decoder.begun for decoder in self._threads.copy()]
        stalled = not begun or time.monotonic() - max(begun) >= STALLED_AFTER
        if stalled and len(begun) < MOST_DECODERS:
            decoder = _Decoder()
            self._threads.add(decoder)
            try:
                threads.start(self._run, (decoder,), self._name, threads.DECODE)
            except RuntimeError:
                self._threads.discard(decoder)
                if not self._threads:
                    drain(self._jobs)  # better here than never
                    return None
        return STALLED_AFTER

    def _run(self, mine: _Decoder) -> None:
        mine.enter()
        while (entry := self._next(mine)) is not None:
            mine.begin()
            run_entry(entry)
            threads.deciding.pop(threading.get_ident(), None)
            threads.holding.discard(threading.get_ident())
            del entry  # it holds a task and its result
        self._threads.discard(mine)
        mine.gone.set()

    def _next(self, mine: _Decoder) -> list[Job] | None:
        """Return the next job; None if this thread is to end."""
        try:
            return self._jobs.get_nowait()
        except Empty:
            if self._idle:
                return None  # one spare thread is enough; those that a stuck job called in go again
        mine.rest()
        self._idle.append(None)
        entry = self._jobs.get()
        try:
            self._idle.pop()
        except IndexError:
            pass  # the thread that has put a job took it
        if not self._jobs.empty():
            # Race: a thread that has put another job may take this one to be waiting still
            self._overtaken()
        return entry

    def end(self) -> None:
        """Run what was put, then end the threads; waits, unless called from one of them.

        Later jobs run in their caller. I/O thread.
        """
        self._ended = True
        decoders = self._threads.copy()
        for _ in decoders:
            self._jobs.put(None)
        for decoder in decoders:
            if decoder.thread is not threading.current_thread():
                decoder.gone.wait()
                _join(decoder.thread)
        drain(self._jobs)


class _Decoder:
    """One thread of ``Decoders``.

    Attributes:
        thread: it, once it runs.
        begun: when it was started or has begun its job, on the monotonic clock; 0 between two jobs.
        gone: set when it has nothing left to do.
    """

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.begun = time.monotonic()
        self.gone = Latch()

    def enter(self) -> None:
        """Run on the calling thread."""
        self.thread = threading.current_thread()

    def begin(self) -> None:
        """Note that a job begins."""
        self.begun = time.monotonic()

    def rest(self) -> None:
        """Note that it waits for a job."""
        self.begun = 0.0


def _join(thread: threading.Thread | None) -> None:
    """Wait until a thread that has nothing left to do is gone."""
    if isinstance(thread, threads.PoolThread):
        thread.join()


def drain(jobs: SimpleQueue[list[Job] | None]) -> None:
    """Run jobs of threads that put them before they could observe the end."""
    while True:
        try:
            entry = jobs.get_nowait()
        except Empty:
            return
        if entry is not None:
            run_entry(entry)


def run_entry(entry: list[Job]) -> None:
    """Run the job of an entry if no other thread has taken it."""
    try:
        job = entry.pop()
    except IndexError:
        return
    _run_job(job)


def _run_job(job: Job) -> None:
    try:
        job()
    except BaseException:  # noqa: BLE001
        # User code: SystemExit or KeyboardInterrupt in it must not end this thread, for which
        # others wait.
        try:
            LOGGER.exception("wetlands_executor: exception in %r", job)
        except BaseException:  # noqa: BLE001, S110
            # a log handler is user code too; there is no other way to tell
            pass
