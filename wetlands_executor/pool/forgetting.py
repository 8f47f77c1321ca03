"""What workers were told and need not keep: functions, and objects of the host's namespaces.

Threads: any thread asks, the I/O thread tells the workers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.workers import Workers
from wetlands_executor.serialize.definitions import Definition

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Record, Retired


class Forgetting:
    """Lets the workers of a pool drop what will not be used again.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
    """

    def __init__(self, loop: IOLoop, workers: Workers) -> None:
        self._loop = loop
        self._workers = workers

    def forget(self, definition: Definition | Retired) -> None:
        """Let all workers drop a function that will not be called again. Any thread."""
        if self._loop.started:
            self._loop.post(partial(self._forget, definition))

    def _forget(self, definition: Definition | Retired) -> None:
        for process in self._workers:
            process.outbox.forget(definition)

    def tidy(self, record: Record) -> None:
        """Have all workers drop what the host has dropped, once that is worth a message.

        Any thread.
        """
        if not record.dirty:
            return
        numbers = record.take_dropped()
        if numbers:
            self._loop.post(partial(self._forget_objects, numbers))
        while record.retired:
            try:
                self.forget(record.retired.popleft())
            except IndexError:  # another thread was faster
                break

    def _forget_objects(self, numbers: list[int]) -> None:
        for process in self._workers:
            if process.ready:
                process.outbox.forget_objects(numbers)
