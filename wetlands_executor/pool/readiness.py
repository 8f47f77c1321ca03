"""Threads and event loops that wait for workers to be ready, or for their hello.

Threads: ``start_error``, ``launch``, ``launch_then`` and ``wait_for_hello`` any; the rest the I/O
thread's.
"""

from __future__ import annotations

from collections.abc import Callable

from wetlands_executor import threads
from wetlands_executor.errors import WorkerStartError, because
from wetlands_executor.futures.waiting import Latch
from wetlands_executor.pool.closing import foreign
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.phases import Status
from wetlands_executor.scheduling.state import PoolState

Answer = Callable[[BaseException | None], object]


class Readiness:
    """The threads and event loops that wait for workers.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
        state: its decisions; asked whether all workers are ready.
        feed: feeds the state.
        label: how messages call the environment.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        workers: Workers,
        state: PoolState,
        feed: Callable[[st.Event | None], None],
        label: str,
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._state = state
        self._feed = feed
        self._label = label
        self._launches: list[Answer] = []
        # Threads that pickle code and wait for a worker's hello.
        self._hellos: list[Latch] = []

    def start_error(
        self, reason: str, tail: str, cause: BaseException | None = None
    ) -> BaseException:
        """Return the error of a start that has failed.

        Args:
            reason: why.
            tail: the last lines of its stderr.
            cause: what was raised.
        """
        said = f"; its stderr:\n{tail}" if tail else ""
        error = WorkerStartError(f"A worker of {self._label} cannot be started: {reason}{said}")
        return because(error, cause)

    # --- any thread

    def launch(self, wait: bool) -> None:
        """Start all workers; raise why if none can be started."""
        answered = Latch()
        errors: list[BaseException] = []

        def answer(error: BaseException | None) -> None:
            if error is not None:
                errors.append(error)
            answered.set()

        if wait:
            threads.check(threads.NO_TASK)
        self.launch_then(answer)
        if wait:
            answered.wait()
            if errors:
                raise errors[0]

    def launch_then(self, answer: Answer) -> None:
        """Start all workers. Does not wait; any thread.

        Args:
            answer: called on the I/O thread when all are ready, or with the reason why none can be
                started; must neither block nor run user code.
        """
        if self._loop.forked:
            raise foreign()

        def begin() -> None:
            if self._state.status is not Status.OPEN:
                answer(None)
                return
            self._launches.append(answer)
            self._feed(st.LaunchRequested())
            self.check_launched()

        self._loop.post(begin)

    def wait_for_hello(self, timeout: float | None) -> None:
        """Wait until a worker has said hello or has failed to start; start one if there is none.

        Any thread that may pickle.
        """
        said = Latch()

        def begin() -> None:
            if self._loop.ended:
                said.set()
                return
            self._hellos.append(said)
            self._feed(st.LaunchRequested(1))
            if not self._workers.starting and all(
                process.hello is not None for process in self._workers
            ):
                # none is being started: it was given up lately, or the pool ends
                self.answer_hello()

        self._loop.post(begin)
        said.wait(timeout)

    # --- the I/O thread

    def check_launched(self) -> None:
        """Answer those that wait for all workers, if these are ready."""
        state = self._state
        if state.slots.ready >= state.max_workers or state.status is not Status.OPEN:
            self.answer_launch(None)

    def answer_launch(self, error: BaseException | None) -> None:
        """Answer those that wait for all workers."""
        waiters, self._launches = self._launches, []
        for answer in waiters:
            answer(error)

    def answer_hello(self) -> None:
        """Wake the threads that wait for a hello: it has come, or will not."""
        waiters, self._hellos = self._hellos, []
        for latch in waiters:
            latch.set()

    def end(self) -> None:
        """Let all go."""
        self.answer_launch(None)
        self.answer_hello()
