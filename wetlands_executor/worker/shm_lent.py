"""Blocks of the file of arguments that the host lends to this worker.

In that file only the host allocates, and every worker has it. So what one worker hands to another,
through the host, lies in a block there: the arguments of a task inside a task, and its result. The
worker asks for blocks, fills them, and names them in its message. *Order:* until the host has read
that message, the words of the blocks name this worker. So the host frees them if it dies before,
and owns them from then on.

Imported with the first large buffer of such a task. Threads: each object belongs to one; it is
used outside user code, but for interrupts of the running call.
"""

from __future__ import annotations

from . import wire
from .calls import dumps, loads

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Tuple

    Place = Tuple[int, int, int]

#: Sizes of one request at most.
MOST = 1024


class Lent:
    """Blocks for one message.

    Args:
        buffers: the files of this worker.
        ask: asks the host for blocks of these sizes in bytes; returns (slot, offset, capacity) of
            each, or None if there is no room.
    """

    def __init__(
        self, buffers: Any, ask: Callable[[List[int]], Optional[List[Tuple[int, int, int]]]]
    ) -> None:
        self._buffers = buffers
        self._ask = ask
        self._empty: List[Place] = []
        self._filled: List[int] = []

    def reserve(self, sizes: List[int]) -> None:
        """Ask for blocks of these sizes."""
        if self._buffers.arguments() is not None:
            for start in range(0, len(sizes), MOST):
                self._empty += self._ask(sizes[start : start + MOST]) or ()

    def store(self, pieces: List[Any], size: int) -> Optional[bytes]:
        """Copy flat buffers into one block; return its entry, None if there is no room.

        ``size``: of all of them together.
        """
        if not self._fits(size):
            self.reserve([size])
        place = self._fits(size)
        if place is None:
            return None
        slot, offset, capacity = place
        try:
            self._buffers.arguments().gather(offset, capacity, pieces)
        except MemoryError:  # it cannot be mapped: a limit of the address space
            return None
        self._filled.append(slot)
        self._empty.remove(place)
        return wire.BLOCK.pack(slot, wire.ARGUMENTS, offset, capacity, 0, size)

    def _fits(self, size: int) -> Optional[Place]:
        fitting = [place for place in self._empty if place[2] >= size]
        return min(fitting, key=lambda place: place[2]) if fitting else None

    def hand_over(self) -> None:
        """Leave what was filled to the host. Order: just before the message leaves."""
        self._filled.clear()

    def release(self) -> None:
        """Free what was not handed over."""
        while self._empty or self._filled:
            slot = self._empty[-1][0] if self._empty else self._filled[-1]
            self._buffers.free(slot)
            (self._empty or self._filled).pop()


def for_result(runner: Any) -> Lent:
    """Return blocks for the result of the call that runs. At its end, on the main thread.

    Guarantee: what is raised while the answer is read ends this worker, so that none is left
    unread.
    """

    def ask(sizes: List[int]) -> Any:
        item = runner.item
        runner.channel.send(wire.NESTED, item, dumps((wire.LEND, 0, sizes), 4))
        return loads(runner.definitions.read_until(wire.LENT, item))

    return Lent(runner.use_buffers(), ask)
