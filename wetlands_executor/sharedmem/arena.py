"""Large buffers on the host: the file of arguments, parcels on their way to workers, results that came in blocks.

``worker/arena.py`` explains blocks and owner words; here is who gives which block to whom, and when. The way of an argument:

1. ``Parcel.take`` copies it into a block in the thread that submits: the caller may change it at once.
2. ``Parcel.send`` names the worker's incarnation in the block's word, before the frame leaves; where a thread that submits writes the frame
   itself, ``offer`` does. ``take_back`` undoes it for a call that the worker had not started; a parcel that is dropped before it was sent frees
   its blocks.
3. The worker frees it, or hands it back with a result. After its death ``Arena.reclaim`` frees what it had.

A call with retries keeps its blocks (``kept``), and workers take copies: a second try sees what the first saw.

Any thread enters: submitting ones, the I/O thread, decoders, finalizers. What a worker says about blocks is checked before it is believed.
"""

from __future__ import annotations

import itertools
import os
import weakref
from typing import TYPE_CHECKING, Any

from wetlands_executor import descriptors, threads
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Iterable

    from wetlands_executor.worker.arena import Blocks, Region

#: Seconds without a large buffer after which the memory of free blocks goes back to the system.
IDLE = 10.0

#: Owner words of workers; unique in this process, below the numbers of shared arrays.
incarnations = itertools.count(16)

_FREE, _HOST = 0, 1
#: Where the second table of words is in a file (``worker/arena.py``, which is not imported before it is needed).
LEASES = 4 * 65536


def _limit() -> int | None:
    text = os.environ.get("WETLANDS_EXECUTOR_ARENA", "")
    return int(text) if text.isdigit() else None


#: Bytes that each file may take (variable WETLANDS_EXECUTOR_ARENA); None is what the system has; 0 switches blocks off.
LIMIT = _limit()


class BadBlock(ValueError):  # noqa: N818 - like BadFrame, it never leaves the pool
    """A worker's list of blocks cannot be true."""


class Arena:
    """The file of arguments of this process. Lives as long as a worker, a parcel or a view needs it.

    Attributes:
        fd: the file; workers inherit it.
        carries: False where the file serves ``share()`` only, and arguments go through the pipe.
        idle: the memory of free blocks has gone back, and nothing was sent since.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.pid = os.getpid()
        self.fd = descriptors.memory_file()
        # Race: not by `__del__`. While that runs, a thread that starts a worker may still get the arena from its weak
        # reference, and would pass on a descriptor that is closed, or is another file by then. A finalizer of weakref
        # runs when no weak reference leads here any more.
        weakref.finalize(self, _close_file, self.fd, self.pid).atexit = False
        self.carries = descriptors.MEMFD and LIMIT != 0
        self.idle = False
        # The allocator, under the key 0, or None where the file cannot be mapped; written once, by `setdefault`.
        self._mapped: dict[int, Blocks | None] = {}
        self._token: list[int] = []
        #: Living workers by incarnation, for their leases.
        self.workers: weakref.WeakValueDictionary[int, Results] = weakref.WeakValueDictionary()
        #: Slot -> address of shared arrays; slots of those that only workers look at.
        self.shares: dict[int, int] = {}
        self._lingering: set[int] = set()

    def blocks(self) -> Blocks | None:
        """Return the allocator; None where the file cannot be mapped."""
        try:
            return self._mapped[0]
        except KeyError:
            pass
        try:
            # Apart, because the first import of a module is under a lock that a pool's threads need as well.
            made = threads.apart(self._map)
        except RuntimeError:  # no thread can be started any more
            made = self._map()
        return self._mapped.setdefault(0, made)  # if another thread was faster, what was made here is unmapped again

    def _map(self) -> Blocks | None:
        try:
            from wetlands_executor.worker import arena
        except (ImportError, AttributeError):
            return None  # an interpreter without ctypes, or a C library without these calls
        try:
            region = arena.Region(self.fd)
        except MemoryError:
            return None  # the address space is limited
        reserve = None if descriptors.MEMFD else descriptors.reserve
        return arena.Blocks(region, arena.HOST, LIMIT or None, reserve)

    @property
    def _blocks(self) -> Blocks | None:
        """The allocator if it has been needed."""
        return self._mapped.get(0)

    def store(self, raw: memoryview, token: list[int], more: int) -> int:
        """Copy bytes into a block that has room for ``more`` behind them; return its slot, -1 if there is no room."""

        def fill(region: Region, offset: int, capacity: int) -> None:
            from wetlands_executor.worker import arena

            arena.copy(region.address(offset, capacity), arena.address_of(raw), raw.nbytes)

        return self._fill(raw.nbytes + more, token, fill)

    def store_all(self, pieces: list[bytes], size: int, token: list[int]) -> int:
        """Copy pieces into one block, one behind the other; return its slot, -1 if there is no room.

        Args:
            pieces: bytes.
            size: of all of them together.
            token: as for ``Blocks.claim``.
        """
        return self._fill(size, token, lambda region, offset, capacity: region.gather(offset, capacity, pieces, size))

    def _fill(self, size: int, token: list[int], fill: Callable[[Region, int, int], None]) -> int:
        """Claim a block of ``size`` bytes and let ``fill(region, offset, capacity)`` write to it; return its slot, -1 if there is no room."""
        blocks = self.blocks()
        if blocks is None:
            return -1
        self.idle = False
        if self._lingering:
            self.free_lingering()
        slot = blocks.claim(size, token)
        if slot >= 0:
            try:
                fill(blocks.region, *blocks.table[slot])
            except MemoryError:
                blocks.free(slot)
                return -1
        return slot

    def reclaim(self, incarnation: int) -> int:
        """Free what a dead worker had; return how many blocks that were. Order: after it was reaped and its results were read."""
        self.workers.pop(incarnation, None)
        blocks = self._blocks
        if blocks is None:
            return 0
        self.free_lingering()
        words = blocks.region.words
        found = 0
        for slot in range(len(blocks.table)):
            if words[slot] == incarnation:
                words[slot] = _FREE
                found += 1
        return found

    def take(self, slot: int, incarnation: int, start: int, length: int) -> memoryview:
        """Return a view of a block that a worker hands back. Raises BadBlock."""
        blocks = self._blocks
        if blocks is None or slot >= len(blocks.table):
            raise BadBlock(f"argument block {slot} does not exist")
        offset, capacity = blocks.table[slot]
        words = blocks.region.words
        # The worker says that it is the host's now; that it was this worker's before is seen by its having no claim here.
        if words[slot] not in (_HOST, incarnation) or start + length > capacity:
            raise BadBlock(f"argument block {slot} of worker {words[slot]}, bytes {start} to {start + length} of {capacity}")
        if blocks.claims.setdefault(slot, self._token) is not self._token or slot in blocks.region.live:
            raise BadBlock(f"argument block {slot} is not the worker's")
        words[slot] = _HOST
        return blocks.region.view(slot, offset, capacity, start, length, self.free, True)

    def refuse(self, slot: int, incarnation: int) -> None:
        """Free a block that a worker hands back and nobody here takes."""
        blocks = self._blocks
        if blocks is not None and slot < len(blocks.table) and slot not in blocks.region.live and blocks.region.words[slot] in (_HOST, incarnation):
            blocks.region.words[slot] = _HOST
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
        self.free_lingering()
        self.idle = True
        return self._blocks.trim() if self._blocks is not None else 0

    def free_shared(self, slot: int) -> None:
        """The last view of a shared array on this host is gone; in a finalizer."""
        forget_shared(self.shares.pop(slot))
        self._lingering.add(slot)
        self.free_lingering()

    def free_lingering(self) -> None:
        """Free the shared arrays that nobody looks at any more. Any thread; each is freed once."""
        for slot in list(self._lingering):
            if not any(results.leases(slot) for results in list(self.workers.values())):
                try:
                    self._lingering.remove(slot)
                except KeyError:
                    continue  # another thread, or a finalizer within this loop
                self.free(slot)

    def in_use(self) -> dict[int, int]:
        """Return slot -> owner word of the blocks that are not free."""
        blocks = self._blocks
        if blocks is None:
            return {}
        return {slot: blocks.region.words[slot] for slot in range(len(blocks.table)) if blocks.region.words[slot] != _FREE}


def _close_file(fd: int, pid: int) -> None:
    if pid == os.getpid():
        descriptors.close_quietly(fd)


def _forget_nothing(_address: int) -> None:
    pass


#: Takes the address of a shared array that nobody here looks at any more; ``shared`` puts its own function here.
forget_shared: Callable[[int], None] = _forget_nothing


#: Number -> arena of this process, while anything holds it; the one with the highest number counts. Each is added in one step.
_arenas: dict[int, weakref.ref[Arena]] = {}


def current() -> Arena | None:
    """Return the arena of this process, made if there is none; None where no file without a name can be made."""
    made: Arena | None = None
    while True:
        last = max(_arenas, default=-1)
        reference = _arenas.get(last)
        arena = reference() if reference is not None else None
        if arena is not None and arena.pid == os.getpid():
            return arena
        if descriptors.WINDOWS:
            return None
        if made is None:
            try:
                # Apart, because a lock is held meanwhile, for which threads wait that start workers or fork the host.
                made = threads.apart(Arena)
            except (OSError, RuntimeError):  # RuntimeError: no thread can be started any more
                return None
        mine = weakref.ref(made)
        if _arenas.setdefault(last + 1, mine) is mine:  # else another thread was faster
            _arenas.pop(last, None)
            return made


class Parcel:
    """The blocks of one call, from its pickling to its dispatch.

    Attributes:
        kept: the call may be run again: the blocks stay the host's until it is over.
        keeps: shared arrays that the call refers to.
    """

    __slots__ = ("__weakref__", "_arena", "_given", "_offered", "_slots", "_token", "keeps", "kept")

    def __init__(self) -> None:
        self._arena: Arena | None = None
        self._slots: list[tuple[int, int]] = []
        self._token: list[int] = []
        # The worker that has the blocks, or was offered them; the first is a list so that it changes in one step with the write of a frame.
        self._given: list[int] = []
        self._offered = 0
        self.kept = False
        self.keeps: list[Any] = []

    @property
    def empty(self) -> bool:
        """True if nothing has to be said or kept."""
        return not self._slots and not self.keeps

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Be a ``buffer_callback``: copy a large buffer into a block. True leaves it in the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: pickle says so itself
            return True
        return raw.nbytes < wire.CROSSOVER or not self._store(raw)

    def _store(self, raw: memoryview) -> bool:
        arena = self._arena
        if arena is None:
            arena = self._arena = current()
        if arena is None or not arena.carries:
            return False
        slot = arena.store(raw, self._token, 0 if self._slots else wire.TAIL)
        if slot < 0:
            return False
        self._slots.append((slot, raw.nbytes))
        return True

    def put_all(self, pieces: list[bytes], size: int) -> bytes:
        """Copy pieces into one block; return its list, which goes before the payload; empty if there is no room."""
        arena = self._arena = current()
        slot = arena.store_all(pieces, size, self._token) if arena is not None and arena.carries else -1
        if slot < 0:
            return b""
        self._slots.append((slot, size))
        return wire.LIST.pack(1, 0) + self._entries(self._blocks())[0]

    def pack(self, data: bytes) -> tuple[bytes, int]:
        """Return (payload, flags) of the call: its list of blocks before the pickle, which may be in a block itself."""
        first = len(data) > wire.CROSSOVER and self._store(memoryview(data))
        if not self._slots:
            return data, wire.IN_BULK
        if first:
            self._slots.insert(0, self._slots.pop())
            data = b""
        blocks = self._blocks()
        entries = self._entries(blocks)
        whole = b"".join((wire.LIST.pack(len(entries), first), *entries, data))
        place = self._append(whole, blocks) if len(whole) <= wire.TAIL else None
        return (whole, wire.BLOCKS | wire.IN_BULK) if place is None else (place, wire.BLOCKS)

    def _entries(self, blocks: Blocks) -> list[bytes]:
        return [wire.BLOCK.pack(slot, wire.ARGUMENTS, *blocks.table[slot], 0, length) for slot, length in self._slots]

    def _append(self, whole: bytes, blocks: Blocks) -> bytes | None:
        """Put the payload of the call behind the data of one of its blocks; return where it is, None if there is no room.

        So that a frame is all that has to be sent. Nowhere else could it lie without being overwritten by another call.
        """
        from wetlands_executor.worker import arena

        for slot, length in self._slots:
            offset, capacity = blocks.table[slot]
            if capacity - length >= len(whole):
                arena.memmove(blocks.region.address(offset, capacity) + length, whole, len(whole))
                return wire.BLOCK.pack(slot, wire.ARGUMENTS, offset, capacity, length, len(whole))
        return None

    def send(self, incarnation: int) -> int:
        """Give the blocks to a worker; return further flags of the frame. I/O thread. Order: before the frame leaves."""
        if self.kept:
            return wire.KEPT
        if not self._given:
            self._name(incarnation)
            self._given.append(incarnation)
        return 0

    def offer(self, incarnation: int) -> Iterable[object]:
        """Give the blocks to a worker, in a thread that submits; return what notes, in one step in C behind the write, that the frame has left.

        *Race:* an exception from a signal handler may come before that. Then the parcel is dropped, and takes back what the worker never saw.
        """
        self._offered = incarnation
        self._name(incarnation)
        return map(self._given.append, (incarnation,))

    def _name(self, incarnation: int) -> None:
        for slot, _length in self._slots:
            blocks = self._blocks()
            blocks.region.words[slot] = incarnation
            blocks.claims.pop(slot, None)

    def take_back(self) -> None:
        """Take the blocks back from a worker that has not seen them. I/O thread, or the one that has offered them. Order: before its death."""
        if not self.kept:
            for slot, _length in self._slots:
                blocks = self._blocks()
                blocks.claims[slot] = self._token
                blocks.region.words[slot] = _HOST
            self._given.clear()

    def _blocks(self) -> Blocks:
        assert self._arena is not None
        blocks = self._arena.blocks()
        assert blocks is not None
        return blocks

    def __del__(self) -> None:
        self.discard()

    def discard(self) -> None:
        """Free the blocks that were not sent."""
        arena = self._arena
        if arena is not None and not self._given and arena.pid == os.getpid():
            blocks = arena.blocks()
            if blocks is not None:
                self._free(arena, blocks)
        self._arena = None
        self._slots = []

    def _free(self, arena: Arena, blocks: Blocks) -> None:
        claims, words, token = blocks.claims, blocks.region.words, self._token
        for slot, _length in self._slots if self._offered else ():
            # Offered, and not sent. Race: if the worker has died since, the block is free, or somebody else's.
            if slot in claims or words[slot] != self._offered:
                continue
            if claims.setdefault(slot, token) is token and words[slot] != self._offered:
                del claims[slot]
        for slot in token:
            if claims.get(slot) is token:
                arena.free(slot)


class Delivery:
    """A result that came in blocks: the pickle, and views of its buffers that free them."""

    __slots__ = ("buffers", "data")

    def __init__(self, data: Any, buffers: list[Any]) -> None:
        self.data = data
        self.buffers = buffers


class _ResultFile:
    """A worker's file of results as it is mapped here; kept by its views when the worker is gone.

    Attributes:
        places: (offset, capacity) of the blocks that were seen, by slot.
        idle: the worker was asked to give memory back, or is gone: what is freed now goes back at once.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self.places: dict[int, tuple[int, int]] = {}
        self.idle = False

    def free(self, slot: int) -> None:
        """Give a block back to the worker; in finalizers. Order: its memory first, before the worker may take the block again."""
        if self.idle:
            self.region.punch(*self.places[slot])
        self.region.words[slot] = _FREE


class Results:
    """The host's side of one worker's file of results.

    Attributes:
        incarnation: owner word of the worker in the file of arguments.
        used: a large buffer went one way or the other since it was last looked at. Set by the I/O thread.
    """

    def __init__(self, fd: int, arena: Arena | None) -> None:
        self.fd = fd
        self.arena = arena
        self.incarnation = next(incarnations)
        self.used = False
        self._file: _ResultFile | None = None
        if arena is not None and fd >= 0:
            arena.workers[self.incarnation] = self

    def leases(self, slot: int) -> bool:
        """Return True if the worker looks at a shared array. Any thread: by descriptor, which may be closed meanwhile: then it is dead."""
        try:
            return self.fd >= 0 and any(os.pread(self.fd, 4, LEASES + 4 * slot))
        except OSError:
            return False

    def adopt(self, payload: bytes | bytearray) -> Delivery:
        """Take over the blocks of a result. I/O thread.

        Raises:
            BadBlock: what the list says cannot be true.
        """
        self.used = True
        size = len(payload)
        if size < wire.LIST.size:
            raise BadBlock("no list")
        count, first = wire.LIST.unpack_from(payload)
        entries = [wire.LIST.size + index * wire.BLOCK.size for index in range(min(count, size))]
        rest = wire.LIST.size + count * wire.BLOCK.size
        found = [wire.BLOCK.unpack_from(payload, entry) for entry in entries] if rest <= size else []
        following = sum(length for _, place, _, _, _, length in found if place == wire.FOLLOWING)
        if not found or rest + following > size:
            raise BadBlock(f"{count} blocks in {size} bytes")
        position = size - following
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
        return Delivery(data, buffers)

    def _take(self, slot: int, offset: int, capacity: int, length: int) -> Any:
        from wetlands_executor.worker import arena

        if self.fd < 0 or slot >= arena.SLOTS or not arena.is_place(offset, capacity) or not 0 < length <= capacity:
            raise BadBlock(f"result block {slot}: {length} of {capacity} bytes at {offset}")
        try:
            file = self._file
            if file is None:
                file = self._file = _ResultFile(arena.Region(self.fd))
            region = file.region
            if file.places.setdefault(slot, (offset, capacity)) != (offset, capacity):
                raise BadBlock(f"result block {slot} has moved")
            if region.words[slot] != _HOST or slot in region.live:
                raise BadBlock(f"result block {slot} is not the host's")
            file.idle = False
            return region.view(slot, offset, capacity, 0, length, file.free, True)
        except MemoryError:  # the address space is limited: read it
            target = bytearray(length)
            done = 0
            while done < length:
                got = os.preadv(self.fd, [memoryview(target)[done : done + (1 << 30)]], offset + done)
                if not got:
                    raise BadBlock("the file of results ended early") from None
                done += got
            os.pwrite(self.fd, b"\0\0\0\0", 4 * slot)
            return target

    def refuse(self, payload: bytes | bytearray) -> int:
        """Let go of the blocks of a result that does not fit into this process; return its size in bytes."""
        count, _first = wire.LIST.unpack_from(payload)
        total = 0
        for index in range(count):
            slot, place, _offset, _capacity, _start, length = wire.BLOCK.unpack_from(payload, wire.LIST.size + index * wire.BLOCK.size)
            total += length
            if place == wire.RESULTS and self.fd >= 0 and (self._file is None or slot not in self._file.region.live):
                os.pwrite(self.fd, b"\0\0\0\0", 4 * slot)
            elif place == wire.ARGUMENTS and self.arena is not None:
                self.arena.refuse(slot, self.incarnation)
        return total

    def rest(self) -> bool:
        """Nothing has travelled for a while. Return True if the worker should give memory back too."""
        if self._file is None:
            return False
        self._file.idle = True
        return True

    def close(self) -> None:
        """The worker is gone: what is still looked at goes with its last view."""
        if self._file is not None:
            self._file.idle = True
        self._file = None
        self.fd = -1
        arena, self.arena = self.arena, None
        if arena is not None:
            arena.workers.pop(self.incarnation, None)
            if not arena.workers:
                arena.trim()  # no pool is left that would do it later
