"""The workers of a pool by their numbers: those that are being started, and those that live.

Threads: the I/O thread alone changes it. Others may read ``processes`` in one step (``list(...)``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wetlands_executor.pool.call import Call
    from wetlands_executor.pool.worker_process import WorkerProcess


class Workers:
    """Number of an incarnation -> its process.

    Attributes:
        processes: those whose death has not been declared; always the same dictionary.
        starting: number -> slot index of those that are being started.
    """

    def __init__(self) -> None:
        self.processes: dict[int, WorkerProcess] = {}
        self.starting: dict[int, int] = {}
        # To be ended as soon as they are started. The start thread looks here.
        self._unwanted: set[int] = set()

    def begin(self, worker: int, index: int) -> None:
        """Note that a process is being started."""
        self.starting[worker] = index

    def started(self, worker: int) -> None:
        """Note that the attempt is over, however it went."""
        self.starting.pop(worker, None)

    def add(self, process: WorkerProcess) -> None:
        """Note a process that lives."""
        self.processes[process.worker] = process

    def remove(self, process: WorkerProcess) -> None:
        """Forget a process whose death is declared."""
        self.processes.pop(process.worker, None)

    def clear(self) -> None:
        """Forget all."""
        self.processes.clear()

    def forget(self) -> None:
        """Forget all, in a child that the host has forked.

        The parent's dictionary may be half-way through a change.
        """
        self.processes = {}

    def has(self, process: WorkerProcess) -> bool:
        """Return True until the death of this process is declared."""
        return self.processes.get(process.worker) is process

    def holder(self, call: Call) -> WorkerProcess | None:
        """Return the process that was given this call and has not ended it.

        None if there is none.
        """
        process: WorkerProcess | None = call.process
        if (
            process is None
            or self.processes.get(process.worker) is not process
            or call.number not in process.calls
        ):
            return None
        return process

    def __iter__(self) -> Iterator[WorkerProcess]:
        """Iterate over a copy: what is done for one process may remove it, or another."""
        return iter(list(self.processes.values()))

    # --- processes that are not wanted any more before they run

    def give_up(self, worker: int) -> bool:
        """End a process as soon as it is started.

        Return True if that is so for all that are being started.
        """
        self._unwanted.add(worker)
        return self._unwanted.issuperset(self.starting)

    def is_wanted(self, worker: int) -> bool:
        """Return False for a process that is to be ended as soon as it is started. Any thread."""
        return worker not in self._unwanted

    def take_unwanted(self, worker: int) -> bool:
        """Return True if this process, which has been started, is to be ended; once."""
        found = worker in self._unwanted
        self._unwanted.discard(worker)
        return found
