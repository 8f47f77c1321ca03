"""The worker's half of shared memory: arguments that came in blocks, results that leave in them.

Imported with the first large buffer.

What comes in blocks belongs to this worker: views of it are given to the unpickler and are freed by
their finalizers. What leaves is copied into a block of the worker's own file, with one exception:
an argument that the task returns (the only buffer in its block, with no other view of it here)
is handed back in its block.

Where the files cannot be mapped (no ``ctypes``, a limit of the address space), arguments are read
from the file into memory, with the same meaning for the task, and results go through the pipe.

What goes from one worker to another lies in blocks of arguments both ways (``shm_lent.py``).

Runs on the main thread, outside user code, but for what tasks inside tasks send and receive: any
thread of a task, and the reader of ``nested.py``. Finalizers of views run anywhere.
"""

from __future__ import annotations

from _thread import RLock

from . import wire
from .calls import Unpickler, loads, loads_examined, loads_rich
from .channel import CLOSED, ChannelLost, StreamBroken, identity
from .shared_page import free_word
from .system import preadv

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Tuple

    from .calls import Pieces
    from .shm_arena import Blocks, Region, Root
    from .shm_lent import Lent


FREE, HOST = wire.FREE, wire.HOST


class SharedBuffers:
    """Both files of this worker, mapped when they are first needed.

    Args:
        fds: files of arguments and of results.
        identities: of these files at the start: a task may have closed them and opened others.
        me: owner word of this incarnation.
        limit: bytes that the results may take; None is what the system has.

    Attributes:
        quiet: the arguments that were read last came in one pickle, and may be let go of when the
            call has been answered; see ``calls.loads_examined``. What is in blocks of its own is
            let go of before: the host may want to use the memory for the next call.
    """

    def __init__(
        self, fds: List[int], identities: List[Any], me: int, limit: Optional[int]
    ) -> None:
        self.me = me
        self.limit = limit
        self._fds = fds
        self._identities = identities
        self._arguments: Optional[Region] = None
        self._results: Optional[Region] = None
        self._blocks: Optional[Blocks] = None
        self._tried = False
        # Guards the mapping of both; importing runs under it, but no code of the user's.
        self._mapping = RLock()
        self.quiet = False

    def arguments(self) -> Optional[Region]:
        """Return the mapped file of arguments; None if it cannot be mapped."""
        self._map()
        return self._arguments

    def results(self) -> Optional[Region]:
        """Return the mapped file of results; None if it cannot be mapped."""
        self._map()
        return self._results

    def _map(self) -> None:
        if self._tried:
            return
        with self._mapping:
            if not self._tried:
                self._map_locked()
                self._tried = True

    def _map_locked(self) -> None:
        try:
            from . import shm_arena

            if [identity(fd) for fd in self._fds] != self._identities:
                return
            arguments = shm_arena.Region(self._fds[0])
            results = shm_arena.Region(self._fds[1])
        except (ImportError, AttributeError, MemoryError, OSError):
            # no ctypes in this interpreter, or a limit of the address space: read and written
            # through descriptors
            return
        self._arguments = arguments
        self._results = results
        self._blocks = shm_arena.Blocks(results, shm_arena.WORKER, self.limit)

    # --- arguments

    def receive(self, payload: Any, flags: int) -> Tuple[Any, Callable[[Any], Any]]:
        """Take what a call's list of blocks says; return (pickle, function that unpickles it).

        Guarantee: from here on every block is freed when its last view is gone, whatever happens to
        the call.
        """
        self._verify()
        self.quiet = False
        if not flags & wire.IN_BULK:
            payload = self._tail(payload)
        count, first = wire.LIST.unpack_from(payload)
        views = self._open_all(payload, count, bool(flags & wire.KEPT))
        position = wire.LIST.size + count * wire.BLOCK.size
        data = views.pop(0) if first else memoryview(payload)[position:]
        plain = flags & wire.NO_REFERENCES
        if plain and len(data) < wire.UNFRAMED:
            return data, loads

        def load(data: Any) -> Any:
            buffers, views[:] = list(views), ()
            if not first:
                return loads_rich(data, buffers)
            from .shm_streams import load_here

            if plain:
                return load_here(memoryview(data), lambda file: Unpickler(file).load())
            found, quiet = load_here(memoryview(data), lambda file: loads_examined(file, buffers))
            self.quiet = quiet and not buffers
            return found

        return data, load

    def receive_lent(self, payload: Any) -> Tuple[Any, List[Any], bool]:
        """Take the blocks of the result of a task inside a task.

        Guarantee: as of ``receive``.

        Returns:
            The pickle, its buffers, and whether the pickle is in a block.

        Raises:
            MemoryError: a block cannot be looked at; all of them are free.
        """
        count, first = wire.LIST.unpack_from(payload)
        views = self._open_all(payload, count, False)
        position = wire.LIST.size + count * wire.BLOCK.size
        return views.pop(0) if first else memoryview(payload)[position:], views, bool(first)

    def _open_all(self, payload: Any, count: int, kept: bool) -> List[Any]:
        """Return what the blocks of a list hold; those that follow the pickle are copied."""
        entries = [
            wire.BLOCK.unpack_from(payload, wire.LIST.size + index * wire.BLOCK.size)
            for index in range(count)
        ]
        end = len(payload)
        end -= sum(length for _, place, _, _, _, length in entries if place == wire.FOLLOWING)
        views = []
        for index, (slot, place, offset, capacity, start, length) in enumerate(entries):
            try:
                if place == wire.FOLLOWING:
                    views.append(bytearray(payload[end : end + length]))
                    end += length
                else:
                    views.append(self._open(slot, offset, capacity, length, kept, start))
            except MemoryError:
                for entry in entries[index:]:  # this one, and those that will not be opened now
                    if not kept and entry[1] != wire.FOLLOWING:
                        self._give_back(entry[0])
                raise
        return views

    def _verify(self) -> None:
        """Raise StreamBroken if a task has closed the file of arguments before it was mapped.

        No block was taken.
        """
        if self.arguments() is None and identity(self._fds[0]) != self._identities[0]:
            raise StreamBroken(CLOSED)

    def _tail(self, place: bytes) -> Any:
        """Return the payload that lies behind the data of one of its blocks."""
        _slot, _place, offset, capacity, start, length = wire.BLOCK.unpack_from(place)
        region = self.arguments()
        if region is not None:
            from . import shm_arena

            try:
                return shm_arena.string_at(region.address(offset, capacity) + start, length)
            except MemoryError:
                pass  # the address space is limited: read it
        return self._read(offset + start, length)

    def receive_packed(self, payload: Any) -> Any:
        """Return what is in the only block of a call of many (see ``batch.py``).

        The same guarantee.
        """
        self._verify()
        slot, _place, offset, capacity, _start, length = wire.BLOCK.unpack_from(
            payload, wire.LIST.size
        )
        try:
            return self._open(slot, offset, capacity, length, False)
        except MemoryError:
            self._give_back(slot)
            raise

    def _open(
        self, slot: int, offset: int, capacity: int, length: int, kept: bool, start: int = 0
    ) -> Any:
        region = self.arguments()
        if region is not None:
            try:
                view = region.view(
                    slot, offset, capacity, start, length, _nothing if kept else self.free, not kept
                )
            except MemoryError:
                pass  # the address space is limited: read it
            else:
                return bytearray(view) if kept else view
        target = self._read(offset + start, length)
        if not kept:
            self._give_back(slot)
        return target

    def _give_back(self, slot: int) -> None:
        """Free a block that is not looked at through the mapping.

        The file is the one that ``_read`` has just looked at.
        """
        free_word(self._fds[0], slot)

    def _read(self, offset: int, length: int) -> bytearray:
        fd = self._fds[0]
        if identity(fd) != self._identities[0]:
            raise ChannelLost(CLOSED)
        target = bytearray(length)
        view = memoryview(target)
        done = 0
        while done < length:
            got = preadv(fd, [view[done : done + (1 << 30)]], offset + done)
            if not got:
                raise OSError("a block of shared memory ended early")
            done += got
        return target

    def free(self, slot: int) -> None:
        """Free a block of arguments if it is this worker's; in finalizers too."""
        region = self._arguments
        if region is None:
            self._give_back(slot)
        elif region.words[slot] == self.me:
            region.words[slot] = FREE

    def attach(self, place: Tuple[int, int, int, int, int], writable: bool) -> Any:
        """Return a view of a shared array's block, and take a lease of it.

        A copy where it cannot be mapped.

        Raises:
            MemoryError: it cannot be mapped, and a copy would not do.
        """
        slot, word, offset, capacity, length = place
        region, results = self.arguments(), self.results()
        if region is not None and results is not None:
            try:
                view = region.view(slot, offset, capacity, 0, length, self._end_lease, False)
            except MemoryError:
                pass
            else:
                results.leases[slot] = 1
                if region.words[slot] != word:
                    raise RuntimeError("the shared array does not exist any more")
                return view
        if writable:
            raise MemoryError(
                "shared memory cannot be mapped into this worker (a limit of its "
                "address space, or no ctypes)"
            )
        return memoryview(self._read(offset, length))

    def _end_lease(self, slot: int) -> None:
        region, results = self._arguments, self._results
        assert region is not None
        assert results is not None
        if not _looked_at(region, slot):
            results.leases[slot] = 0
            # Race: another call may have attached it in between; the host holds it as long as that
            # call runs.
            if _looked_at(region, slot):
                results.leases[slot] = 1

    # --- results

    def send(self, pieces: Pieces, raws: List[Any], lent: Optional[Lent] = None) -> Tuple[int, Any]:
        """Put a result into blocks; return (kind of result frame, payload).

        For what found no block, the payload is a list of pieces.

        Args:
            pieces: the pickle; they are let go of first.
            raws: its out-of-band buffers, contiguous; the list is emptied. *Order:* no other
                reference holds the result any more: a buffer that has views after this list has
                let go of it is copied.
            lent: where the copies go; None is blocks of the results.
        """
        region = self.arguments()
        target: Any = lent or ResultBlocks(self._blocks)
        back: List[Optional[Root]] = [None] * len(raws)
        following: List[Any] = []
        try:
            if region is not None and region.live:
                back = self._candidates(region, raws)
            sizes = [raw.nbytes for raw, root in zip(raws, back) if root is None]  # Python 3.8
            entries, data = _store_pickle(pieces, target, sizes)
            first = len(entries)
            if not raws and not first:
                return wire.VALUE, data
            places = [
                (_address(raw), raw.nbytes) if root is not None else (0, 0)
                for raw, root in zip(raws, back)  # Python 3.8
            ]
            for root in back:
                if root is not None:
                    root.disown()
            rest = [raw if root is None else None for raw, root in zip(raws, back)]  # Python 3.8
            raws.clear()
            raw: Any = None
            for index, root in enumerate(back):
                raw, rest[index] = rest[index], None
                if root is not None:
                    assert region is not None
                    alive = root()
                    if alive is None:  # no view of it is left: the block leaves as it is
                        region.live.pop(root.number, None)
                        entries.append(_entry_of(root, *places[index]))
                        continue
                    root.own_again()
                    back[index] = None
                    raw = _part_of(alive, root, *places[index])
                    del alive
                entries.append(_put(raw, target, following))
                raw = None
            payload: Any = b"".join([wire.LIST.pack(len(entries), first), *entries, data])
            if following:
                payload = [payload, *following]
            # What is handed back keeps this worker's word: the host takes it over when it reads the
            # frame, and frees it if this process dies before.
            target.hand_over()
            back = []
        finally:  # something is left if the memory was not enough for the payload
            target.release()
            self._keep(back)
        return wire.VALUE_IN_BLOCKS if lent is None else wire.VALUE_IN_LENT, payload

    def _keep(self, blocks: List[Optional[Root]]) -> None:
        """Keep blocks of arguments that are not handed back; free those without a view."""
        for root in blocks:
            if root is not None:
                root.own_again()
                if root() is None:
                    self.free(root.number)

    def _candidates(self, region: Region, raws: List[Any]) -> List[Optional[Root]]:
        """Return for each buffer the argument's block that might be handed back with it.

        It holds no other one, and at least half of it.
        """
        found: List[Optional[Root]] = [
            region.find(_address(raw)) if raw.nbytes else None for raw in raws
        ]
        return [
            root
            if root is not None
            and root.slot >= 0
            and found.count(root) == 1
            and 2 * raw.nbytes >= root.used
            and root.own
            else None
            for raw, root in zip(raws, found)
        ]

    def trim(self) -> None:
        """Give the memory of free blocks back; the host asks for it when it has been idle."""
        if self._blocks is not None:
            self._blocks.trim()


class ResultBlocks:
    """Blocks of the results for one message, as ``shm_lent.Lent`` is of those that the host lends.

    Args:
        blocks: the allocator; None where the file cannot be mapped.
    """

    def __init__(self, blocks: Optional[Blocks]) -> None:
        self._blocks = blocks
        self._claimed: List[int] = []

    def reserve(self, sizes: List[int]) -> None:
        """Do nothing: they are there."""

    def store(self, pieces: List[Any], size: int) -> Optional[bytes]:
        """Copy flat buffers into one block; return its entry, None if there is no room.

        ``size``: of all of them together.
        """
        blocks = self._blocks
        if blocks is None:
            return None
        slot = blocks.claim(size, self._claimed)
        if slot < 0:
            return None
        offset, capacity = blocks.table[slot]
        try:
            blocks.region.gather(offset, capacity, pieces)
        except MemoryError:
            self._claimed.remove(slot)
            blocks.free(slot)
            return None
        return wire.BLOCK.pack(slot, wire.RESULTS, offset, capacity, 0, size)

    def hand_over(self) -> None:
        """Leave the blocks to the host. Order: just before the message leaves."""
        blocks = self._blocks
        if blocks is not None:
            for slot in self._claimed:
                blocks.region.words[slot] = HOST
                blocks.claims.pop(slot, None)
        self._claimed = []

    def release(self) -> None:
        """Free what was not handed over."""
        if self._claimed and self._blocks is not None:
            self._blocks.release(self._claimed)


def _store_pickle(pieces: Pieces, target: Any, sizes: List[int]) -> Tuple[List[bytes], bytes]:
    """Copy a large pickle into a block; return (its entry in a list, b"").

    If it is small or finds no block: (an empty list, the pickle).

    Args:
        pieces: the pickle; they are let go of.
        target: where blocks are.
        sizes: of the buffers that will be put there as well, in bytes.
    """
    size = pieces.size
    large = size > wire.CROSSOVER
    target.reserve([size, *sizes] if large else sizes)
    entry: Optional[bytes] = target.store(pieces, size) if large else None
    if entry is None:
        return [], pieces.whole()
    pieces.release()
    return [entry], b""


def _put(raw: Any, target: Any, following: List[Any]) -> bytes:
    """Copy a buffer into a block; return its entry.

    If memory is too short for a block, the buffer follows the payload: neither copied nor joined
    with it.
    """
    entry: Optional[bytes] = target.store([raw], raw.nbytes)
    if entry is None:
        entry = wire.BLOCK.pack(0, wire.FOLLOWING, 0, 0, 0, raw.nbytes)
        following.append(raw)
    return entry


def _address(raw: Any) -> int:
    from . import shm_arena

    return shm_arena.address_of(raw)


def _entry_of(root: Root, address: int, length: int) -> bytes:
    """Return the entry of a buffer whose block, of the arguments, is handed back with it."""
    return wire.BLOCK.pack(
        root.number, wire.ARGUMENTS, root.offset, 0, address - root.address, length
    )


def _part_of(alive: Any, root: Root, address: int, length: int) -> memoryview:
    """Return a buffer in a block, by the object that all views of the block depend on."""
    start = address - root.address
    return memoryview(alive).cast("B")[start : start + length]


def _looked_at(region: Region, slot: int) -> bool:
    return any(root.number == slot for root in list(region.live.values()))


def _nothing(_slot: int) -> None:
    """Free nothing: the block stays the host's."""
