"""Out-of-band results: large buffers that workers send in blocks of files of their own.

Entered by the I/O thread; the views of a result free their blocks on any thread, in finalizers too.
What a worker says about blocks is checked before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wetlands_executor.sharedmem.arena import FREE, HOST, Arena, BadBlock, incarnations
from wetlands_executor.sharedmem.arguments import OutOfBandArguments
from wetlands_executor.system import pread, preadv, pwrite
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.worker.shm_arena import Region

#: Where the second table of words is in a file (``worker/shm_arena.py``, which is not imported
#: before it is needed): the leases.
LEASES = wire.ARENA_LEASES


class OutOfBandResult:
    """A result that came in blocks: the pickle, and views of its buffers that free them."""

    __slots__ = ("buffers", "data")

    def __init__(self, data: Any, buffers: list[Any]) -> None:
        self.data = data
        self.buffers = buffers

    def clear(self) -> None:
        """Let go of both: the views in a value that was read live as long as the value."""
        self.data = self.buffers = None  # type: ignore[assignment]


class LentResult:
    """A result in blocks of the arguments: it goes on to another worker as it is.

    The blocks are freed with this object unless they were sent.

    Attributes:
        payload: its list of blocks, checked, before what is in none of them.
        blocks: they.
    """

    __slots__ = ("blocks", "payload")

    def __init__(self, payload: bytes | bytearray, blocks: OutOfBandArguments) -> None:
        self.payload = payload
        self.blocks = blocks


class _ResultFile:
    """A worker's file of results as it is mapped here; kept by its views when the worker is gone.

    Attributes:
        places: (offset, capacity) of the blocks that were seen, by slot.
        idle: the worker was asked to give memory back, or is gone: what is freed now goes back at
            once.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self.places: dict[int, tuple[int, int]] = {}
        self.idle = False

    def view(self, slot: int, offset: int, capacity: int, length: int) -> memoryview:
        """Return the bytes of a block of the host; the last view frees it. Raises MemoryError."""
        self.idle = False
        return self.region.view(slot, offset, capacity, 0, length, self.free, True)

    def rest(self) -> None:
        """Give back at once what is freed from now on."""
        self.idle = True

    def free(self, slot: int) -> None:
        """Give a block back to the worker; in finalizers.

        Order: its memory first, before the worker may take the block again.
        """
        if self.idle:
            self.region.punch(*self.places[slot])
        self.region.words[slot] = FREE


class ResultMemory:
    """The host's side of one worker's file of results.

    Attributes:
        incarnation: owner word of the worker in the file of arguments.
        used: a large buffer went one way or the other since it was last looked at. Set by the I/O
            thread.
    """

    def __init__(self, fd: int, arena: Arena | None) -> None:
        self.fd = fd
        self.arena = arena
        self.incarnation = next(incarnations)
        self.used = False
        self._file: _ResultFile | None = None
        if arena is not None and fd >= 0:
            arena.workers[self.incarnation] = self

    def note_use(self) -> None:
        """Note that a large buffer goes one way or the other. I/O thread."""
        self.used = True

    def note_looked_at(self) -> None:
        """Note that the I/O thread has looked."""
        self.used = False

    def has_lease(self, slot: int) -> bool:
        """Return True if the worker looks at a shared array.

        Any thread: by descriptor, which may be closed meanwhile: then it is dead.
        """
        try:
            return self.fd >= 0 and any(pread(self.fd, 4, LEASES + 4 * slot))
        except OSError:
            return False

    def adopt(self, payload: bytes | bytearray) -> OutOfBandResult:
        """Take over the blocks of a result. I/O thread.

        Raises:
            BadBlock: the list is invalid.
        """
        self.used = True
        first, found, position = _read_list(payload)
        rest = wire.LIST.size + len(found) * wire.BLOCK.size
        view = memoryview(payload)
        data: Any = view[rest:position]
        buffers: list[Any] = []
        for slot, place, offset, capacity, start, length in found:
            if place == wire.FOLLOWING:
                buffers.append(bytearray(view[position : position + length]))
                position += length
            elif place == wire.RESULTS:
                buffers.append(self._take(slot, offset, capacity, length))
            elif place == wire.ARGUMENTS and self.arena is not None:
                buffers.append(self.arena.take(slot, self.incarnation, start, length))
            else:
                raise BadBlock(f"place {place}")
        if first:
            data = buffers.pop(0)
        return OutOfBandResult(data, buffers)

    def lend(self, sizes: list[int]) -> list[tuple[int, int, int]] | None:
        """Give blocks to the worker, as ``Arena.lend``. I/O thread."""
        self.used = True
        return None if self.arena is None else self.arena.lend(sizes, self.incarnation)

    def take_over(self, entries: bytes) -> OutOfBandArguments:
        """Take blocks over that this worker has filled for another one. I/O thread.

        Args:
            entries: ``wire.BLOCK`` of each; of a worker's word, place and bytes are believed
                nothing but what the arena has as well.

        Raises:
            BadBlock: one is not the worker's.
        """
        self.used = True
        if self.arena is None or len(entries) % wire.BLOCK.size:
            raise BadBlock(f"blocks in {len(entries)} bytes")
        found = [(slot, length) for slot, _, _, _, _, length in wire.BLOCK.iter_unpack(entries)]
        return OutOfBandArguments.of_worker(self.arena, self.incarnation, found)

    def pass_on(self, payload: bytes | bytearray) -> LentResult:
        """Take over the blocks of a result that goes on to another worker. I/O thread.

        Raises:
            BadBlock: the list is invalid.
        """
        self.used = True
        first, found, _position = _read_list(payload)
        used = [
            (slot, start + length)
            for slot, place, _, _, start, length in found
            if place == wire.ARGUMENTS
        ]
        others = sum(place == wire.FOLLOWING for _, place, *_ in found)
        if self.arena is None or len(used) + others != len(found):
            raise BadBlock("a block of a result for another worker is not in the arguments")
        blocks = OutOfBandArguments.of_worker(self.arena, self.incarnation, used)
        entries = [
            wire.BLOCK.pack(
                slot, place, *(blocks.place(slot) if place == wire.ARGUMENTS else (0, 0)), *rest
            )
            for slot, place, _, _, *rest in found
        ]
        rest = memoryview(payload)[wire.LIST.size + len(found) * wire.BLOCK.size :]
        return LentResult(b"".join((wire.LIST.pack(len(found), first), *entries, rest)), blocks)

    def _take(self, slot: int, offset: int, capacity: int, length: int) -> Any:
        from wetlands_executor.worker import shm_arena

        if (
            self.fd < 0
            or slot >= shm_arena.SLOTS
            or not shm_arena.is_place(offset, capacity)
            or not 0 < length <= capacity
        ):
            raise BadBlock(f"result block {slot}: {length} of {capacity} bytes at {offset}")
        try:
            file = self._file
            if file is None:
                file = self._file = _ResultFile(shm_arena.Region(self.fd))
            region = file.region
            if file.places.setdefault(slot, (offset, capacity)) != (offset, capacity):
                raise BadBlock(f"result block {slot} has moved")
            if region.words[slot] != HOST or slot in region.live:
                raise BadBlock(f"result block {slot} is not the host's")
            return file.view(slot, offset, capacity, length)
        except MemoryError:  # the address space is limited: read it
            target = bytearray(length)
            done = 0
            while done < length:
                got = preadv(self.fd, [memoryview(target)[done : done + (1 << 30)]], offset + done)
                if not got:
                    raise BadBlock("the file of results ended early") from None
                done += got
            pwrite(self.fd, b"\0\0\0\0", 4 * slot)
            return target

    def refuse(self, payload: bytes | bytearray) -> int:
        """Let go of the blocks of a result that does not fit into this process.

        Return its size in bytes.
        """
        count, _first = wire.LIST.unpack_from(payload)
        total = 0
        for index in range(count):
            slot, place, _offset, _capacity, _start, length = wire.BLOCK.unpack_from(
                payload, wire.LIST.size + index * wire.BLOCK.size
            )
            total += length
            if (
                place == wire.RESULTS
                and self.fd >= 0
                and (self._file is None or slot not in self._file.region.live)
            ):
                pwrite(self.fd, b"\0\0\0\0", 4 * slot)
            elif place == wire.ARGUMENTS and self.arena is not None:
                self.arena.refuse(slot, self.incarnation)
        return total

    def rest(self) -> bool:
        """Give memory back, because nothing has travelled for a while.

        Return True if the worker should give memory back too.
        """
        if self._file is None:
            return False
        self._file.rest()
        return True

    def close(self) -> None:
        """Close the file of a worker that is gone; a block in use goes with its last view."""
        if self._file is not None:
            self._file.rest()
        self._file = None
        self.fd = -1
        arena, self.arena = self.arena, None
        if arena is not None:
            arena.workers.pop(self.incarnation, None)
            if not arena.workers:
                arena.trim()  # no pool is left that would do it later


def _read_list(
    payload: bytes | bytearray,
) -> tuple[int, list[tuple[int, int, int, int, int, int]], int]:
    """Return what the list of blocks before a result says.

    Returns:
        Whether the first block holds the pickle; the entries; where the bytes begin that follow the
        pickle.

    Raises:
        BadBlock: it is not as long as it says.
    """
    size = len(payload)
    if size < wire.LIST.size:
        raise BadBlock("no list")
    count, first = wire.LIST.unpack_from(payload)
    rest = wire.LIST.size + count * wire.BLOCK.size
    if not count or rest > size:
        raise BadBlock(f"{count} blocks in {size} bytes")
    entries = memoryview(payload)[wire.LIST.size : rest]
    found: list[Any] = list(wire.BLOCK.iter_unpack(entries))
    following = sum(length for _, place, _, _, _, length in found if place == wire.FOLLOWING)
    if rest + following > size:
        raise BadBlock(f"{following} bytes behind {count} blocks in {size} bytes")
    return first, found, size - following
