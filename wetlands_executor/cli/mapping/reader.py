"""The thread that reads items: it may wait for a pipe as long as that takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from wetlands_executor.cli.mapping.items import Item, Reading

#: Items that are handed over together at most, and how often that is done ahead.
BATCH: Final = 512
AHEAD: Final = 8


class ItemsRead(NamedTuple):
    """Some items were read."""

    items: list[Item]


class InputEnded(NamedTuple):
    """There are no more items, or they cannot be read.

    Attributes:
        error: why they cannot; None at their end.
    """

    error: BaseException | None


class Reader:
    """Reads items ahead of the thread that takes them, by a bounded number.

    Args:
        reading: where they come from.
        inbox: gets ``ItemsRead`` and ``InputEnded``.
        wanted: returns False for an item that need not be called.
    """

    def __init__(
        self, reading: Reading, inbox: SimpleQueue[Any], wanted: Callable[[Item], bool]
    ) -> None:
        self._reading = reading
        self._inbox = inbox
        self._wanted = wanted
        self._batch: list[Item] = []
        self._room = threading.Semaphore(AHEAD)
        #: Items that were read and need not be called.
        self.skipped = 0
        # a daemon: at the end it may be inside of a read that never returns
        self._thread = threading.Thread(target=self._run, name="wetlands-items", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def taken(self) -> None:
        """Note that the items of one ``ItemsRead`` were taken."""
        self._room.release()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._reading.items(self._hand_over):
                if self._wanted(item):
                    self._batch.append(item)
                    if len(self._batch) >= BATCH:
                        self._hand_over()
                else:
                    self.skipped += 1
        except BaseException as failure:  # noqa: BLE001 - the main thread reports it
            error = failure
        self._hand_over()
        self._inbox.put(InputEnded(error))

    def _hand_over(self) -> None:
        """Give what was read to the main thread: before a read that may take any time."""
        if self._batch:
            self._room.acquire()
            batch, self._batch = self._batch, []
            self._inbox.put(ItemsRead(batch))
