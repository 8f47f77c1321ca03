"""Threads on which user code may run: output, unpickling, callbacks. The I/O thread runs none of it.

* ``SerialThread``: jobs one after another, in order; a thread that starts with the first job. Used for what workers print (writing to
  ``sys.stdout`` may block and may be the user's) and for Future callbacks.
* ``Decoders``: jobs in parallel as far as needed. Unpickling imports modules and runs ``__setstate__``; one result that blocks there must
  not hold up the others, so a second thread starts when the first has made no progress for ``PATIENCE`` seconds.

Every thread is a daemon: the executor drains them at shutdown and at interpreter exit; a job that never ends must not keep the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

LOGGER = logging.getLogger("concurrent.futures")

Job = Callable[[], object]

#: Seconds that unpickling may take before the next result gets a thread of its own.
PATIENCE = 0.02
#: Threads that may be stuck in unpickling at the same time before results have to wait.
MOST_DECODERS = 32


class Latch:
    """An event that is set once.

    Unlike with ``threading.Event`` an interrupted waiter leaves nothing locked, and unlike with ``Thread.join`` (before Python 3.13) an
    interrupted wait does not count as the end.
    """

    def __init__(self) -> None:
        self._set = False
        self._sleepers: deque[threading.Lock] = deque()

    def set(self) -> None:
        """Let everybody go."""
        self._set = True
        while self._sleepers:
            try:
                lock = self._sleepers.popleft()
            except IndexError:
                return
            lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False if ``timeout`` seconds were over before."""
        lock = threading.Lock()
        lock.acquire()
        self._sleepers.append(lock)
        if self._set:
            return True
        return lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)) or self._set

    def is_set(self) -> bool:
        """Return True once it was set."""
        return self._set


class SerialThread:
    """Runs jobs one after another on a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Job] = deque()
        # Guards `_thread` and `_ended`; no job runs while it is held. RLock: a finalizer may post from within.
        self._lock = threading.RLock()
        self._work = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._ended = False

    def put(self, job: Job) -> None:
        """Run ``job`` after those that were put before; in the caller if no thread can be had any more (interpreter exit)."""
        with self._lock:
            if not self._ended:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    try:
                        thread.start()
                    except RuntimeError:  # "can't start new thread": out of threads, or the interpreter is going down
                        _run_job(job)
                        return
                    self._thread = thread
                self._jobs.append(job)
                self._work.release()
                return
        _run_job(job)

    def _run(self) -> None:
        while True:
            self._work.acquire()
            if not self._jobs:
                return
            _run_job(self._jobs.popleft())

    def end(self) -> None:
        """Run what was put, then end the thread; waits, unless called from that thread. Later jobs run in their caller."""
        with self._lock:
            first = not self._ended
            self._ended = True
            thread = self._thread
        if thread is not None:
            if first:
                self._work.release()
            if thread is not threading.current_thread():
                thread.join()

    @property
    def ident(self) -> int | None:
        """The thread's identifier, None before it was started."""
        return self._thread.ident if self._thread is not None else None


class Decoders:
    """Runs jobs on as many threads as it takes for none to wait long behind a stuck one."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Guards all fields below; no job runs while it is held.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()
        self._threads = 0
        self._waiting = 0
        self._running: dict[int, float] = {}
        self._ended = False

    def put(self, job: Job) -> float | None:
        """Run ``job`` on a thread; return the seconds after which ``check`` should be called, None if it need not be."""
        with self._lock:
            if not self._ended:
                self._jobs.append(job)
                if self._waiting >= len(self._jobs):
                    self._changed.notify()
                    return None
                if self._threads == 0:
                    if self._start_locked():
                        return None
                    self._jobs.pop()
                else:
                    return PATIENCE
        _run_job(job)
        return None

    def check(self) -> float | None:
        """Start another thread if all are stuck; return when to look again, None if nothing waits."""
        with self._lock:
            if not self._jobs or self._waiting:
                return None
            newest = max(self._running.values(), default=0.0)
            if time.monotonic() - newest >= PATIENCE and self._threads < MOST_DECODERS:
                self._start_locked()
            return PATIENCE

    def _start_locked(self) -> bool:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._threads += 1
        return True

    def _run(self) -> None:
        ident = threading.get_ident()
        while True:
            with self._lock:
                self._running.pop(ident, None)
                while not self._jobs:
                    if self._ended or self._waiting:
                        # One spare thread is enough; those that a stuck job called in go again.
                        self._threads -= 1
                        self._changed.notify_all()
                        return
                    self._waiting += 1
                    self._changed.wait()
                    self._waiting -= 1
                job = self._jobs.popleft()
                self._running[ident] = time.monotonic()
            _run_job(job)
            del job  # it holds a task and its result

    def end(self) -> None:
        """Run what was put, then end the threads; waits, unless called from one of them."""
        with self._lock:
            self._ended = True
            self._changed.notify_all()
            own = 1 if threading.get_ident() in self._running else 0
            while self._threads > own:
                self._changed.wait()


def _run_job(job: Job) -> None:
    try:
        job()
    except BaseException:  # noqa: BLE001 - user code: SystemExit or KeyboardInterrupt there must not end the thread that others wait for
        try:
            LOGGER.exception("wetlands_executor: exception in %r", job)
        except BaseException:  # noqa: BLE001, S110 - a log handler is user code too; there is no other way to tell
            pass
