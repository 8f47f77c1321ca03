"""Whether the workers of a pool would take a call now: asks those that run nothing, by a frame.

A worker that runs a function cannot answer, and need not: its silence is limited by
``worker_timeout``. Owns the probes under way. I/O thread, but for ``Probe.wait``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from wetlands_executor.futures.waiting import Latch
from wetlands_executor.pool.worker_process import WorkerPhase, WorkerProcess

if TYPE_CHECKING:
    from wetlands_executor.pool.workers import Workers


class Probe:
    """One question to all workers."""

    def __init__(self) -> None:
        # Each with the calls that it had finished before.
        self._pending: dict[WorkerProcess, int] = {}
        self._asked = False
        self._done = Latch()

    def ask(self, processes: Iterable[WorkerProcess]) -> None:
        """Ask these."""
        for process in processes:
            if _should_answer(process):
                self._pending[process] = process.finished
                process.ask_for_sign()
        self._asked = True
        self._look()

    def answer(self, process: WorkerProcess) -> None:
        """Take an answer."""
        self._pending.pop(process, None)
        self._look()

    @property
    def complete(self) -> bool:
        """True if all have answered."""
        return self._asked and not self._pending

    def _look(self) -> None:
        if self.complete:
            self._done.set()

    def wait(self, timeout: float) -> bool:
        """Wait until all have answered; return False if one has not that should have.

        Args:
            timeout: seconds to wait.
        """
        if self._done.wait(timeout):
            return True
        return self._asked and not any(
            # Race: it may have begun a call, or have ended, since it was asked.
            _should_answer(process) and process.finished == finished
            for process, finished in list(self._pending.items())
        )


def _should_answer(process: WorkerProcess) -> bool:
    """Return True if a worker waits for calls, or has not taken the one that it was given."""
    return process.phase is WorkerPhase.READY and not any(
        process.given.is_running(call) for call in process.given.current()
    )


class Probes:
    """The probes under way.

    Args:
        workers: the pool's processes.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._probes: list[Probe] = []

    def begin(self, probe: Probe) -> None:
        """Ask all workers."""
        self._probes = [each for each in self._probes if not each.complete]
        self._probes.append(probe)
        probe.ask(list(self._workers))

    def end(self, probe: Probe) -> None:
        """Forget a probe."""
        self._probes = [each for each in self._probes if each is not probe]

    def answer(self, process: WorkerProcess) -> None:
        """Take a worker's answer."""
        for probe in self._probes:
            probe.answer(process)
