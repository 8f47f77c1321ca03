"""The arena: this process's file of shared memory for arguments and shared arrays.

``worker/shm_arena.py`` explains blocks and owner words. ``arguments.py`` (out-of-band arguments),
``results.py`` (out-of-band results) and ``share.py`` (shared arrays) say which blocks change their
owner, and when.

Any thread enters: submitting ones, the I/O thread, decoders, finalizers. What a worker says about
blocks is checked before it is used.
"""

from __future__ import annotations

import itertools
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from wetlands_executor import descriptors, threads
from wetlands_executor.system import SHARED_MEMORY, reserve
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from wetlands_executor.worker.shm_arena import Blocks, Region

#: Seconds without a large buffer after which the memory of free blocks goes back to the system.
IDLE = 10.0

#: Owner words of workers; unique in this process, below the numbers of shared arrays.
incarnations = itertools.count(16)

#: Owner words: of a free block, of one of the host's.
FREE, HOST = wire.FREE, wire.HOST


def _limit() -> int | None:
    text = os.environ.get("WETLANDS_EXECUTOR_ARENA", "")
    return int(text) if text.isdigit() else None


#: Bytes that each file may take (variable WETLANDS_EXECUTOR_ARENA); None is what the system has; 0
#: switches blocks off.
LIMIT = _limit()


class BadBlock(ValueError):  # noqa: N818 - like BadFrame, it never leaves the pool
    """A worker's list of blocks is invalid."""


class Reader(Protocol):
    """A worker that may look at shared arrays."""

    def has_lease(self, slot: int) -> bool:
        """Return True if the worker looks at the shared array in a block. Any thread."""


class Arena:
    """The file of arguments of this process.

    Lives as long as a worker, an out-of-band argument or a view needs it.

    Attributes:
        fd: the file; workers inherit it.
        carries: False where the file serves ``share()`` only, and arguments go through the pipe.
        idle: the memory of free blocks has gone back, and nothing was sent since.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.pid = os.getpid()
        self.fd = descriptors.memory_file()
        # Race: not by `__del__`. While that runs, a thread that starts a worker may still get the
        # arena from its weak reference, and would pass on a descriptor that is closed, or is
        # another file by then. A finalizer of weakref runs when no weak reference leads here any
        # more.
        weakref.finalize(self, _close_file, self.fd, self.pid).atexit = False
        self.carries = descriptors.MEMFD and LIMIT != 0
        self.idle = False
        # The allocator, under the key 0, or None where the file cannot be mapped; written once, by
        # `setdefault`.
        self._mapped: dict[int, Blocks | None] = {}
        self._token: list[int] = []
        #: Living workers by incarnation, for their leases.
        self.workers: weakref.WeakValueDictionary[int, Reader] = weakref.WeakValueDictionary()
        # Pending free: slots of shared arrays that no view of this process looks at any more, but
        # perhaps a worker.
        self._pending_free: set[int] = set()

    def blocks(self) -> Blocks | None:
        """Return the allocator; None where the file cannot be mapped."""
        try:
            return self._mapped[0]
        except KeyError:
            pass
        try:
            # On another thread, because the first import of a module holds a lock that a pool's
            # threads need as well.
            made = threads.run_uninterrupted(self._map)
        except RuntimeError:  # no thread can be started any more
            made = self._map()
        # if another thread was faster, what was made here is unmapped again
        return self._mapped.setdefault(0, made)

    def _map(self) -> Blocks | None:
        try:
            shm_arena = threads.import_atomically("wetlands_executor.worker.shm_arena")
        except (ImportError, AttributeError):
            return None  # an interpreter without ctypes, or a C library without these calls
        try:
            region = shm_arena.Region(self.fd)
        except MemoryError:
            return None  # the address space is limited
        on_disk = None if descriptors.MEMFD else reserve
        made: Blocks = shm_arena.Blocks(region, shm_arena.HOST, LIMIT or None, on_disk)
        return made

    @property
    def _blocks(self) -> Blocks | None:
        """The allocator if it has been needed."""
        return self._mapped.get(0)

    def store(self, raw: memoryview, token: list[int], more: int) -> int:
        """Copy bytes into a block that has room for ``more`` behind them.

        Return its slot, -1 if there is no room.
        """

        def fill(region: Region, offset: int, capacity: int) -> None:
            from wetlands_executor.worker import shm_arena

            shm_arena.copy(region.address(offset, capacity), shm_arena.address_of(raw), raw.nbytes)

        return self._fill(raw.nbytes + more, token, fill)

    def store_all(self, pieces: list[Any], size: int, token: list[int]) -> int:
        """Copy pieces into one block, one behind the other.

        Return its slot, -1 if there is no room.

        Args:
            pieces: flat buffers.
            size: of the block: at least that of all of them together.
            token: as for ``Blocks.claim``.
        """
        return self._fill(
            size,
            token,
            lambda region, offset, capacity: region.gather(offset, capacity, pieces),
        )

    def _fill(self, size: int, token: list[int], fill: Callable[[Region, int, int], None]) -> int:
        """Claim a block of ``size`` bytes and let ``fill(region, offset, capacity)`` write to it.

        Return its slot, -1 if there is no room.
        """
        blocks = self.blocks()
        if blocks is None:
            return -1
        self.idle = False
        if self._pending_free:
            self.free_pending()
        slot = blocks.claim(size, token)
        if slot >= 0:
            try:
                fill(blocks.region, *blocks.table[slot])
            except MemoryError:
                blocks.free(slot)
                return -1
        return slot

    def reclaim(self, incarnation: int) -> int:
        """Free what a dead worker had; return how many blocks that were.

        Order: after it was reaped and its results were read.
        """
        self.workers.pop(incarnation, None)
        blocks = self._blocks
        if blocks is None:
            return 0
        self.free_pending()
        words = blocks.region.words
        found = 0
        for slot in range(len(blocks.table)):
            if words[slot] == incarnation:
                words[slot] = FREE
                found += 1
        return found

    def take(self, slot: int, incarnation: int, start: int, length: int) -> memoryview:
        """Return a view of a block that a worker hands back. Raises BadBlock."""
        blocks = self._blocks
        if blocks is None or slot >= len(blocks.table):
            raise BadBlock(f"argument block {slot} does not exist")
        offset, capacity = blocks.table[slot]
        self._take_over(blocks, slot, incarnation, start + length, self._token)
        return blocks.region.view(slot, offset, capacity, start, length, self.free, True)

    def _take_over(
        self, blocks: Blocks, slot: int, incarnation: int, end: int, token: list[int]
    ) -> None:
        """Make a worker's block the host's, under a token. Raises BadBlock."""
        words, capacity = blocks.region.words, blocks.table[slot][1]
        if words[slot] != incarnation or end > capacity:
            raise BadBlock(
                f"argument block {slot} of worker {words[slot]}, up to byte {end} of {capacity}"
            )
        if blocks.claims.setdefault(slot, token) is not token or slot in blocks.region.live:
            raise BadBlock(f"argument block {slot} is not the worker's")
        words[slot] = HOST

    def lend(self, sizes: list[int], incarnation: int) -> list[tuple[int, int, int]] | None:
        """Give free blocks of these sizes to a worker, which fills them and hands them back.

        Returns:
            (slot, offset, capacity) of each; None if there is no room for all.
        """
        blocks = self.blocks() if self.carries else None
        if blocks is None:
            return None
        self.idle = False
        self.free_pending()
        token: list[int] = []
        if any(blocks.claim(size + wire.TAIL, token) < 0 for size in sizes):
            blocks.release(token)
            return None
        for slot in token:
            blocks.region.words[slot] = incarnation
            blocks.claims.pop(slot, None)
        return [(slot, *blocks.table[slot]) for slot in token]

    def take_over(self, slot: int, incarnation: int, end: int, token: list[int]) -> None:
        """Take a block over that a worker has filled up to ``end``, under a token.

        Raises:
            BadBlock: it is not the worker's.
        """
        blocks = self._blocks
        if blocks is None or slot not in blocks.table:
            raise BadBlock(f"argument block {slot} does not exist")
        self._take_over(blocks, slot, incarnation, end, token)
        token.append(slot)

    def refuse(self, slot: int, incarnation: int) -> None:
        """Free a block that a worker hands back with a result that this process does not take."""
        blocks = self._blocks
        if (
            blocks is not None
            and slot < len(blocks.table)
            and slot not in blocks.region.live
            and blocks.region.words[slot] == incarnation
        ):
            blocks.region.words[slot] = HOST
            self.free(slot)

    def free(self, slot: int) -> None:
        """Free a block of the host; in finalizers too."""
        blocks = self._blocks
        assert blocks is not None
        if self.idle:
            blocks.region.punch(*blocks.table[slot])
            blocks.touched.pop(slot, None)
        blocks.free(slot)

    def trim(self) -> int:
        """Give the memory of free blocks back; return how many blocks are in use."""
        self.free_pending()
        self.idle = True
        return self._blocks.trim() if self._blocks is not None else 0

    def claim_shared(
        self, count: int, number: int, on_last_view: Callable[[int, int], object]
    ) -> tuple[int, int, memoryview] | None:
        """Take a block that is given to no worker, for a shared array.

        Args:
            count: its bytes, at least 1.
            number: of the shared array; unique among those of this process.
            on_last_view: called with the address and the slot when no view of this process is left;
                in a finalizer.

        Returns:
            Its slot, its address, and a view of it; None if there is no room, or the file cannot be
            mapped.
        """
        blocks = self.blocks()
        if blocks is None:
            return None
        from wetlands_executor.worker.shm_arena import SHARED

        self.free_pending()
        self.idle = False
        token: list[int] = []
        slot = blocks.claim(count, token)
        if slot < 0:
            return None
        try:
            offset, capacity = blocks.table[slot]
            address = blocks.region.address(offset, capacity)
            view = blocks.region.view(
                slot, offset, capacity, 0, count, partial(on_last_view, address), False
            )
        except BaseException:
            blocks.release(token)
            raise
        blocks.region.words[slot] = SHARED | (number & (SHARED - 1))
        return slot, address, view

    def free_when_unread(self, slot: int) -> None:
        """Free a shared array when no worker has a lease on it. In finalizers too."""
        self._pending_free.add(slot)
        self.free_pending()

    def free_pending(self) -> None:
        """Free the shared arrays whose last reader is gone. Any thread; each is freed once."""
        for slot in list(self._pending_free):
            if not any(reader.has_lease(slot) for reader in list(self.workers.values())):
                try:
                    self._pending_free.remove(slot)
                except KeyError:
                    continue  # another thread, or a finalizer within this loop
                self.free(slot)

    def in_use(self) -> dict[int, int]:
        """Return slot -> owner word of the blocks that are not free."""
        blocks = self._blocks
        if blocks is None:
            return {}
        return {
            slot: blocks.region.words[slot]
            for slot in range(len(blocks.table))
            if blocks.region.words[slot] != FREE
        }


def _close_file(fd: int, pid: int) -> None:
    if pid == os.getpid():
        descriptors.close_quietly(fd)


#: Number -> arena of this process, while anything holds it; the one with the highest number counts.
#: Each is added in one step.
_arenas: dict[int, weakref.ref[Arena]] = {}


def current() -> Arena | None:
    """Return the arena of this process, made if there is none.

    None where no file without a name can be made.
    """
    made: Arena | None = None
    while True:
        last = max(_arenas, default=-1)
        reference = _arenas.get(last)
        arena = reference() if reference is not None else None
        if arena is not None and arena.pid == os.getpid():
            return arena
        if not SHARED_MEMORY:
            return None
        if made is None:
            try:
                # On another thread, because a lock is held meanwhile, for which threads wait that
                # start workers or fork the host.
                made = threads.run_uninterrupted(Arena)
            except (OSError, RuntimeError):  # RuntimeError: no thread can be started any more
                return None
        mine = weakref.ref(made)
        if _arenas.setdefault(last + 1, mine) is mine:  # else another thread was faster
            _arenas.pop(last, None)
            return made
