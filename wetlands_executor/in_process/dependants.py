"""What has to be done for dependants, on the thread that has settled their dependency.

One job at a time on each thread: a job that runs a task here would else stand on the stack of the
one before it, along a whole chain of dependants. Any thread enters; each has its own list of jobs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from wetlands_executor import threads
from wetlands_executor.in_process.worker import WorkerThreads
from wetlands_executor.pool.delivery import SerialThread

Job = Callable[[], object]


class _Local(threading.local):
    """Of one thread: jobs that it has to do; None if it does none."""

    jobs: deque[Job] | None = None


class Dependants:
    """Runs the jobs of dependants.

    Args:
        workers: the threads of the pool, which may run a dependant.
    """

    def __init__(self, workers: WorkerThreads) -> None:
        self._workers = workers
        self._local = _Local()
        # For jobs that a thread of another pool brings, which must not run them.
        self._aside = SerialThread("wetlands-dependants", threads.CALLBACKS)

    def run(self, job: Job) -> None:
        """Do a job once no other one is under way on this thread."""
        if threads.kind_of_this() is not None and not self._is_own(threading.current_thread()):
            self._aside.put(partial(self._work_off, job))
        else:
            self._work_off(job)

    def _is_own(self, thread: threading.Thread) -> bool:
        return thread in [worker.thread for worker in self._workers.alive.copy()]

    def _work_off(self, job: Job) -> None:
        local = self._local
        if local.jobs is not None:
            local.jobs.append(job)
            return
        local.jobs = jobs = deque((job,))
        try:
            while jobs:
                jobs.popleft()()
        finally:
            local.jobs = None

    def begin_call(self) -> deque[Job] | None:
        """Note that this thread runs a call: what that settles is done within it.

        Return what ``end_call`` gets.
        """
        jobs, self._local.jobs = self._local.jobs, None
        return jobs

    def end_call(self, jobs: deque[Job] | None) -> None:
        """Go on with the jobs that this thread had before the call."""
        self._local.jobs = jobs

    def end(self) -> None:
        """End the thread that does jobs of other pools, when those are done."""
        self._aside.end()
