"""Shared memory for large buffers.

A sparse file without a name, its blocks, and one word per block that says whose it is.

Both sides import this module, and only when the first large buffer travels (``ctypes`` costs a
worker 10 ms). It owns the mapping of such a file, views of blocks with finalizers, the choice of
free blocks, and the guard for forks. ``shm_buffers.py`` (worker) and ``sharedmem/arena.py`` (host)
decide when a block changes its owner.

There are two kinds of file. *Arguments*: one per host process, every worker has it; only the host
allocates. *Results*: one per worker; only that worker allocates. So no two processes ever compete
for a free block, and a plain store is enough to change an owner:

* the allocator takes a block whose word is ``FREE`` and fills it;
* before the message leaves, the word names the receiver, and the sender never looks at the block
  again;
* the receiver maps it, and may write to it, for no other process uses it. When its last view dies,
  the finalizer stores ``FREE``.

If a worker dies, the host frees the words that name it, after the process was reaped. *Invariant:*
a block has one owner, and only the owner writes its word (the allocator if it is free).

A forked child has the same mapping. It must not free what its parent uses, nor see what becomes of
it: its finalizers do nothing (the pid differs), and blocks that were in use at the fork become
private copies at the same addresses, while the parent waits.

Any thread enters here, and the garbage collector. There are no locks but that of forks, which hooks
in C take: an exception from a signal handler could leave one locked for ever.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from _thread import RLock
from _weakref import ref as weak_reference
from _weakrefset import WeakSet

from . import wire
from .available_memory import available_memory
from .shared_page import fence
from .shm_copy import copy as copy  # arena's users copy into its blocks
from .system import (
    MADVISE,
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    file_memory,
    register_at_fork,
    reserve_addresses,
)

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

#: Owner words of blocks: none (free), the host, the worker (in its results). Greater numbers are
#: incarnations, or arrays of ``share()``.
FREE, HOST, WORKER = 0, 1, 2
#: From this word on it is the number of a shared array.
SHARED = 1 << 31
#: Blocks of one file at most.
SLOTS = wire.ARENA_SLOTS
#: Bytes before the first block: a word per block; in a file of results also a word per block of the
#: arguments: 1 while this worker looks at a shared array there.
HEADER = wire.ARENA_HEADER
#: Bytes of the file. Only touched pages exist.
SIZE = 1 << 44
#: Blocks of up to half of this share a mapping of this size; greater ones have one of their own.
SEGMENT = 1 << 26
#: Bytes of the smallest block.
SMALLEST = 1 << 17
#: Free blocks that are looked at before a new one is made, if there is room.
_LOOK = 32

#: Bytes up to which a piece is copied without letting other threads run: to get the GIL back for
#: each would take longer.
_GIL_KEPT = 1 << 20
_HUGE = 1 << 21

_serial = itertools.count()

_pid = os.getpid
_c_library: Any = ctypes.CDLL(None, use_errno=True)
_mmap: Any = ctypes.CFUNCTYPE(
    ctypes.c_void_p,
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
    use_errno=True,
)(("mmap", _c_library))
_munmap: Any = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(
    ("munmap", _c_library)
)
_madvise: Any = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)(
    ("madvise", _c_library)
)
_FAILED = ctypes.c_void_p(-1).value
_READ_WRITE, _MAP_SHARED, _MAP_FIXED = 3, 1, 0x10
_REMOVE, _HUGEPAGE, _DONTDUMP = 9, 14, 16

memmove: Any = ctypes.memmove
string_at: Any = ctypes.string_at


class _Buffer(ctypes.Structure):
    """``Py_buffer``."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
        ("reserve", ctypes.c_void_p * 4),
    )  # fmt: skip


_get_buffer: Any = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int
)(("PyObject_GetBuffer", ctypes.pythonapi))
_release_buffer: Any = ctypes.PYFUNCTYPE(None, ctypes.POINTER(_Buffer))(
    ("PyBuffer_Release", ctypes.pythonapi)
)


def address_of(view: Any) -> int:
    """Return where the bytes of a contiguous view are, for as long as the view is alive.

    Read-only ones too, which ctypes refuses.
    """
    buffer = _Buffer()
    _get_buffer(view, ctypes.byref(buffer), 0)
    address: int = buffer.buf or 0
    _release_buffer(ctypes.byref(buffer))
    return address


def advise_huge(address: int, length: int) -> None:
    """Let the system give huge pages for memory that is about to be written first.

    It has to clear each page before, and that takes a third of the time with pages of 2 MB.
    """
    if MADVISE:
        start = (address + _HUGE - 1) & -_HUGE
        if address + length > start + _HUGE:
            _madvise(start, (address + length - start) & -_HUGE, _HUGEPAGE)


class _Extent:
    """A mapped part of the file; unmapped with its last block.

    *Race:* the collector runs the finalizers of a circle of garbage in any order, and those of
    blocks, or of the user's objects that hold views, must still find the memory there. So no
    finalizer unmaps it: an ``mmap`` object has reserved the addresses, and gives them back when it
    is itself taken apart, which comes after all finalizers.
    """

    def __init__(self, fd: int, offset: int, length: int, huge: bool) -> None:
        self.offset = offset
        self.length = length
        try:
            self._owner = reserve_addresses(length)
        except OSError as error:
            raise MemoryError("mmap: %s" % error) from None
        self.address: int = ctypes.addressof(ctypes.c_char.from_buffer(self._owner))
        if (
            _mmap(self.address, length, _READ_WRITE, _MAP_SHARED | _MAP_FIXED, fd, offset)
            == _FAILED
        ):
            raise MemoryError("mmap: " + os.strerror(ctypes.get_errno()))
        if MADVISE:
            _madvise(self.address, length, _DONTDUMP)
            if huge:
                _madvise(self.address, length, _HUGEPAGE)

    def make_private(self, parts: List[Tuple[int, int]]) -> None:
        """Replace the mapping by private memory with a copy of these (address, length).

        In a forked child.
        """
        spare = _mmap(
            None, self.length, _READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
        )
        if spare == _FAILED:
            os._exit(70)  # it would write to its parent's memory
        for address, length in parts:
            memmove(spare + address - self.address, address, length)
        if (
            _mmap(
                self.address,
                self.length,
                _READ_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | _MAP_FIXED,
                -1,
                0,
            )
            == _FAILED
        ):
            os._exit(70)
        for address, length in parts:
            memmove(address, spare + address - self.address, length)
        _munmap(spare, self.length)


class Root(weak_reference):  # type: ignore[type-arg] # 3.8 has no subscript for it
    """Watches the object on which all views of a block depend; its death calls ``free(slot)``."""

    __slots__ = ("address", "extent", "free", "key", "number", "offset", "own", "slot", "used")

    if TYPE_CHECKING:
        number: int
        key: Any  # in ``Region.live``
        slot: int  # the same number; -1: its death frees nothing
        own: bool  # the block belongs to this process alone
        offset: int
        used: int
        address: int
        extent: _Extent
        free: Callable[[int], object]

    def watch(
        self,
        slot: int,
        key: Any,
        place: Tuple[_Extent, int],
        used: int,
        free: Callable[[int], object],
        own: bool,
    ) -> None:
        """Attach to a block; its extent and its offset in the file are ``place``."""
        extent, offset = place
        self.number = self.slot = slot
        self.key = key
        self.offset, self.used, self.free, self.own = offset, used, free, own
        self.address, self.extent = extent.address + offset - extent.offset, extent

    def disown(self) -> None:
        """Free nothing when the object dies: its block was handed on."""
        self.slot = -1

    def own_again(self) -> None:
        """Free the block again when the object dies."""
        self.slot = self.number


#: All regions of this process, for its forks.
_regions: WeakSet[Region] = WeakSet()


class Region:
    """One mapped file.

    Attributes:
        fd: the file; the owner of the region closes it.
        size: its bytes.
        words: owner words by slot.
        leases: second table of words, see ``HEADER``.
        live: slot -> root of the views in this process; where others look at the block too, (slot,
            serial number) -> root.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self.pid = os.getpid()
        self.cut_off = False
        self._header = _Extent(fd, 0, HEADER, False)
        words = ctypes.c_uint32 * SLOTS
        self.words: Any = words.from_address(self._header.address)
        self.leases: Any = words.from_address(self._header.address + wire.ARENA_LEASES)
        self.live: Dict[Any, Root] = {}
        self._extents: Dict[int, _Extent] = {}
        self._types: Dict[int, Any] = {}
        _regions.add(self)

    def extent(self, offset: int, capacity: int) -> _Extent:
        """Return the mapping that a block is in; made when it is first asked for.

        Raises MemoryError.
        """
        alone = capacity > SEGMENT // 2
        start, length = (offset, capacity) if alone else (offset & -SEGMENT, SEGMENT)
        found = self._extents.get(start)
        if found is None:
            found = self._extents.setdefault(start, _Extent(self.fd, start, length, alone))
        return found

    def address(self, offset: int, capacity: int) -> int:
        """Return where a block is in this process. Raises MemoryError if it cannot be mapped."""
        extent = self.extent(offset, capacity)
        return extent.address + offset - extent.offset

    def view(
        self,
        slot: int,
        offset: int,
        capacity: int,
        start: int,
        count: int,
        free: Callable[[int], object],
        own: bool,
    ) -> memoryview:
        """Return a writable view of ``count`` bytes of a block from ``start`` on.

        Args:
            slot: its number.
            offset: where it begins in the file.
            capacity: its bytes.
            start: first byte that is wanted.
            count: bytes that are wanted.
            free: called with the slot when the last view is gone; in any thread, from the garbage
                collector.
            own: False if others look at the block too.

        Raises:
            MemoryError: it cannot be mapped (a limit of the address space).
        """
        extent = self.extent(offset, capacity)
        root = self._type(capacity).from_address(extent.address + offset - extent.offset)
        root.extent = extent
        watch = Root(root, self._dead)
        key = slot if own else (slot, next(_serial))
        watch.watch(slot, key, (extent, offset), start + count, free, own)
        self.live[key] = watch
        return memoryview(root).cast("B")[start : start + count]

    def _dead(self, root: Root, pid: Callable[[], int] = _pid) -> None:
        slot = root.slot
        if slot >= 0 and pid() == self.pid:
            self.live.pop(root.key, None)
            fence()
            root.free(slot)

    def gather(self, offset: int, capacity: int, pieces: List[Any]) -> None:
        """Copy flat buffers into a block that this process holds, one behind the other.

        Raises MemoryError.
        """
        target = self.address(offset, capacity)
        view = memoryview(self._type(capacity).from_address(target)).cast("B")
        end = 0
        for piece in pieces:
            start, end = end, end + len(piece)
            if end - start > _GIL_KEPT:
                copy(target + start, address_of(piece), end - start)
            else:
                view[start:end] = piece

    def _type(self, capacity: int) -> Any:
        return self._types.get(capacity) or self._types.setdefault(
            capacity, ctypes.c_char * capacity
        )

    def find(self, address: int) -> Optional[Root]:
        """Return the root of the block in use that an address is in."""
        for root in list(self.live.values()):
            if root.address <= address < root.address + root.used:
                return root
        return None

    def punch(self, offset: int, capacity: int) -> None:
        """Give the pages of a free block back to the system."""
        if MADVISE:
            _madvise(self.address(offset, capacity), capacity, _REMOVE)

    def resident(self) -> int:
        """Return the bytes of memory that the file takes."""
        return file_memory(self.fd)

    def make_private(self) -> None:
        """Cut the blocks in use off from the file.

        In a forked child; once, a child of that child is cut off already.
        """
        if self.cut_off:
            return
        self.cut_off = True
        parts: Dict[int, Tuple[_Extent, List[Tuple[int, int]]]] = {}
        for root in list(self.live.values()):
            parts.setdefault(root.extent.address, (root.extent, []))[1].append(
                (root.address, root.used)
            )
        for extent, inside in parts.values():
            extent.make_private(inside)


def is_place(offset: int, capacity: int) -> bool:
    """Return True if an allocator could have put a block there."""
    if (
        offset < SEGMENT
        or capacity < SMALLEST
        or (offset | capacity) % 4096
        or offset + capacity > SIZE
    ):
        return False
    return capacity > SEGMENT // 2 or offset % SEGMENT + capacity <= SEGMENT


def size_class(count: int) -> int:
    """Return the capacity of a block for ``count`` bytes: four classes per octave.

    What is not touched costs no memory.
    """
    size = SMALLEST
    while size < count:
        size *= 2
    for quarter in (5, 6, 7):
        if size > SMALLEST and count <= size // 8 * quarter:
            return size // 8 * quarter
    return size


class Blocks:
    """The allocator of a region; in the one process that allocates there.

    *Race:* threads may ask at the same time, a signal handler may raise or ask again between any
    two steps, and finalizers free blocks. So a claim is one step in C (``setdefault`` of the slot),
    and what it claimed is looked at once more afterwards.

    Attributes:
        claims: slot -> token (a list, compared by identity) of the holder of the block here. A slot
        in it is not free, whatever its word says.
        table: (offset, capacity) by slot.
        limit: bytes that the file may take; None leaves it to ``available_memory()``.
        reserve: takes the space of a block (fd, offset, bytes) from the file system, or raises
            OSError; None where the file is in memory.
    """

    def __init__(
        self,
        region: Region,
        mine: int,
        limit: Optional[int],
        reserve: Optional[Callable[[int, int, int], None]] = None,
    ) -> None:
        self.region = region
        self.mine = mine
        self.limit = limit
        self.reserve = reserve
        self.claims: Dict[int, Any] = {}
        self.table: Dict[int, Tuple[int, int]] = {}
        self.touched: Dict[int, int] = {}
        self._by_class: Dict[int, List[int]] = {}
        self._cursor = 0
        # By slot: (offset, capacity), and then the end of the last extent, the next place in the
        # segment that is being filled, the end of that segment. The next slot belongs to the thread
        # that adds its entry first, in one step (`setdefault`).
        self._growth: Dict[int, Tuple[Tuple[int, int], Tuple[int, int, int]]] = {}
        self._allowance = 0

    def claim(self, count: int, token: List[int]) -> int:
        """Return the slot of a block for ``count`` bytes, now this process's; -1 if there is none.

        Args:
            count: bytes.
            token: of the claim; the slot is appended. It may hold slots that were not claimed after
                all (an exception came from a signal handler): ``release`` knows.
        """
        slot = self._claim(count, token)
        if slot >= 0 and self.reserve is not None:
            try:
                self.reserve(self.region.fd, self.table[slot][0], count)
            except OSError:  # a full disk, a quota
                self.touched.pop(slot, None)
                self.region.punch(*self.table[slot])
                self.free(slot)
                return -1
        return slot

    def _claim(self, count: int, token: List[int]) -> int:
        size = size_class(count)
        slots = self._by_class.get(size)
        if slots:
            found = self._first_free(slots[: -_LOOK - 1 : -1], count, token)
            if found < 0 and len(slots) > _LOOK:
                self._cursor = cursor = (self._cursor + _LOOK) % len(slots)
                found = self._first_free(slots[cursor : cursor + _LOOK], count, token)
            if found >= 0:
                return found
        found = self._grow(size, count, token)
        if found < 0 and slots and len(slots) > 2 * _LOOK:
            found = self._first_free(list(slots), count, token)
        return found

    def _first_free(self, slots: List[int], count: int, token: Any) -> int:
        words, claims = self.region.words, self.claims
        for slot in slots:
            if words[slot] != FREE or slot in claims:
                continue
            token.append(slot)
            if claims.setdefault(slot, token) is token:
                if words[slot] == FREE and self._afford(count - self.touched.get(slot, 0)):
                    words[slot] = self.mine
                    self.touched[slot] = max(count, self.touched.get(slot, 0))
                    return slot
                del claims[slot]
            token.pop()
        return -1

    def _grow(self, size: int, count: int, token: Any) -> int:
        if not self._afford(count):
            return -1
        growth = self._growth
        while len(growth) < SLOTS:
            slot = len(growth)
            end, place, filled = (SEGMENT, SEGMENT, SEGMENT)
            if slot:
                last, (end, place, filled) = growth[slot - 1]
                # its maker may have been interrupted; the table has no gaps
                self.table.setdefault(slot - 1, last)
            if size > SEGMENT // 2:
                place, ends = end, ((end + size + _HUGE - 1) & -_HUGE, place, filled)
            elif place + size <= filled:
                ends = (end, place + size, filled)
            else:
                place = (end + SEGMENT - 1) & -SEGMENT
                ends = (place + SEGMENT, place + size, place + SEGMENT)
            if ends[0] > self.region.size:
                return -1
            entry = ((place, size), ends)
            token.append(slot)
            if growth.setdefault(slot, entry) is entry:
                self.claims[slot] = token
                self.region.words[slot] = self.mine
                self.touched[slot] = count
                self.table.setdefault(slot, entry[0])
                self._by_class.setdefault(size, []).append(slot)
                return slot
            token.pop()  # another thread, or a signal handler, was faster
        return -1

    def _afford(self, growth: int) -> bool:
        """Return True if the file may take that many bytes more."""
        if growth <= 0:
            return True
        if growth > self._allowance:
            left = available_memory()
            if self.limit is not None:
                left = min(left, self.limit - self.region.resident())
            # Not asked again for every block: other processes take memory too, so at most a
            # sixteenth is granted at once.
            self._allowance = left if left < growth else max(growth, left // 16)
            if growth > left:
                return False
        self._allowance -= growth
        return True

    def free(self, slot: int) -> None:
        """Make a block that this process holds free.

        Order: the word first; the claim still keeps others away.
        """
        self.region.words[slot] = FREE
        self.claims.pop(slot, None)

    def release(self, token: List[int]) -> None:
        """Free all that was claimed under a token and is still held here."""
        for slot in token:
            if self.claims.get(slot) is token:
                self.free(slot)

    def trim(self) -> int:
        """Give the memory of free blocks back; return how many blocks are still in use."""
        token: List[int] = []
        words, claims = self.region.words, self.claims
        busy = 0
        self._allowance = 0
        for slot in list(self.touched):
            if words[slot] != FREE or slot in claims or claims.setdefault(slot, token) is not token:
                busy += 1
                continue
            try:
                if words[slot] == FREE:
                    self.touched.pop(slot, None)
                    self.region.punch(*self.table[slot])
                else:
                    busy += 1
            finally:
                del claims[slot]
        return busy


# --- forks

# Held from the first hook of a fork to the last one: a child that gets the pipe of another thread's
# fork would keep that thread waiting. RLock, because the child releases it in the thread that
# forked.
_forking = RLock()
# The pipe of each fork that is under way, or None; more than one if a signal handler forks as well.
_saved: List[Optional[Tuple[int, int]]] = []


def _before_fork() -> None:
    found = None
    if any(region.live and region.pid == os.getpid() for region in list(_regions)):
        try:
            found = os.pipe()
        except OSError:
            pass  # no descriptor left: the child copies without its parent waiting
    _saved.append(found)


def _after_fork_in_parent() -> None:
    found = _saved.pop() if _saved else None
    if found is not None:
        read, write = found
        os.close(write)
        os.read(read, 1)  # also at an end if the child dies
        os.close(read)


def _after_fork_in_child() -> None:
    for region in list(_regions):
        region.make_private()
    found = _saved.pop() if _saved else None
    if found is not None:
        read, write = found
        os.close(read)
        os.close(write)


def _end_fork() -> None:
    try:
        _forking.release()
    except RuntimeError:
        pass  # another thread has imported this module in the middle of the fork


def _end_fork_in_child() -> None:
    try:
        while True:  # more than once if a signal handler has forked in the middle of a fork
            _forking.release()
    except RuntimeError:
        pass  # it is free


register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
# Order: `before` runs the last one first, the others run the first one first.
register_at_fork(
    before=_forking.acquire, after_in_parent=_end_fork, after_in_child=_end_fork_in_child
)
