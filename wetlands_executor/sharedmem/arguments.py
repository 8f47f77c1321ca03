"""Out-of-band arguments: the large buffers of one call, in blocks of the arena.

The way of an argument:

1. ``OutOfBandArguments.take`` copies it into a block in the thread that submits: the caller may
   change it at once.
2. ``send`` names the worker's incarnation in the block's word, before the frame leaves; where a
   thread that submits writes the frame itself, ``offer`` does. ``reclaim`` undoes it for a call
   that the worker had not started; arguments that are dropped before they were sent free their
   blocks.
3. The worker frees the block, or hands it back with a result. After its death ``Arena.reclaim``
   frees what it had.

A call with retries keeps its blocks (``kept``), and workers take copies: a second try sees what the
first saw.

Any thread enters: submitting ones, the I/O thread, finalizers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wetlands_executor.sharedmem.arena import HOST, Arena, current
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    import pickle
    from collections.abc import Iterable

    from wetlands_executor.worker.calls import Pieces
    from wetlands_executor.worker.shm_arena import Blocks


class OutOfBandArguments:
    """The blocks of one call, from its pickling to its dispatch.

    Attributes:
        kept: the call may be run again: the blocks stay the host's until it is over.
        pins: shared arrays that the call refers to.
    """

    __slots__ = ("__weakref__", "_arena", "_given", "_offered", "_slots", "_token", "kept", "pins")

    def __init__(self) -> None:
        self._arena: Arena | None = None
        self._slots: list[tuple[int, int]] = []
        self._token: list[int] = []
        # The worker that has the blocks, or was offered them; the first is a list so that it
        # changes in one step with the write of a frame.
        self._given: list[int] = []
        self._offered = 0
        self.kept = False
        self.pins: list[Any] = []

    @classmethod
    def of_worker(
        cls, arena: Arena, incarnation: int, blocks: Iterable[tuple[int, int]]
    ) -> OutOfBandArguments:
        """Take blocks over that a worker has filled. I/O thread.

        Args:
            arena: where they are.
            incarnation: of the worker.
            blocks: slot and last used byte of each.

        Raises:
            BadBlock: one of them is not the worker's; the others are freed.
        """
        found = cls()
        found._arena = arena
        for slot, end in blocks:
            arena.take_over(slot, incarnation, end, found._token)
            found._slots.append((slot, end))
        return found

    def place(self, slot: int) -> tuple[int, int]:
        """Return where one of the blocks begins in the file, and its bytes."""
        return self._blocks().table[slot]

    def keep(self) -> None:
        """Keep the blocks after the first worker has read them: there may be another try."""
        self.kept = True

    @property
    def empty(self) -> bool:
        """True if nothing has to be said or kept."""
        return not self._slots and not self.pins

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Copy a large buffer into a block; a ``buffer_callback``.

        True leaves it in the pickle.
        """
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

    def _store_pieces(self, pieces: list[Any], size: int) -> bool:
        """Copy pieces into one block; False if there is no room."""
        arena = self._arena
        if arena is None:
            arena = self._arena = current()
        if arena is None or not arena.carries:
            return False
        slot = arena.store_all(pieces, size + (0 if self._slots else wire.TAIL), self._token)
        if slot < 0:
            return False
        self._slots.append((slot, size))
        return True

    def put_all(self, pieces: list[bytes], size: int) -> bytes:
        """Copy pieces into one block; return its list, which goes before the payload.

        Empty if there is no room.
        """
        arena = self._arena = current()
        slot = (
            arena.store_all(pieces, size, self._token)
            if arena is not None and arena.carries
            else -1
        )
        if slot < 0:
            return b""
        self._slots.append((slot, size))
        return wire.LIST.pack(1, 0) + self._entries(self._blocks())[0]

    def pack(self, pieces: Pieces) -> tuple[bytes, int]:
        """Return (payload, flags) of the call.

        Its list of blocks before the pickle, which may be in a block itself. The pieces of the
        pickle are let go of.
        """
        size = pieces.size
        first = size > wire.CROSSOVER and self._store_pieces(pieces, size)
        if first:
            self._slots.insert(0, self._slots.pop())
            data = b""
            pieces.release()
        else:
            data = pieces.whole()
        return self.describe(data, first)

    def describe(self, data: bytes, first: bool) -> tuple[bytes, int]:
        """Return (payload, flags) of the call: its list of blocks before what is in none.

        Args:
            data: the pickle; empty if it is in a block.
            first: it is in the first one.
        """
        if not self._slots:
            return data, wire.IN_BULK
        blocks = self._blocks()
        entries = self._entries(blocks)
        whole = b"".join((wire.LIST.pack(len(entries), first), *entries, data))
        place = self._append(whole, blocks) if len(whole) <= wire.TAIL else None
        return (whole, wire.BLOCKS | wire.IN_BULK) if place is None else (place, wire.BLOCKS)

    def _entries(self, blocks: Blocks) -> list[bytes]:
        return [
            wire.BLOCK.pack(slot, wire.ARGUMENTS, *blocks.table[slot], 0, length)
            for slot, length in self._slots
        ]

    def _append(self, whole: bytes, blocks: Blocks) -> bytes | None:
        """Put the payload of the call behind the data of one of its blocks.

        Return where it is, None if there is no room.

        So that a frame is all that has to be sent. Nowhere else could it lie without being
        overwritten by another call.
        """
        from wetlands_executor.worker import shm_arena

        for slot, length in self._slots:
            offset, capacity = blocks.table[slot]
            if capacity - length >= len(whole):
                shm_arena.memmove(
                    blocks.region.address(offset, capacity) + length, whole, len(whole)
                )
                return wire.BLOCK.pack(slot, wire.ARGUMENTS, offset, capacity, length, len(whole))
        return None

    def send(self, incarnation: int) -> int:
        """Give the blocks to a worker; return further flags of the frame. I/O thread.

        Order: before the frame leaves.
        """
        if self.kept:
            return wire.KEPT
        if not self._given:
            self._name(incarnation)
            self._given.append(incarnation)
        return 0

    def offer(self, incarnation: int) -> Iterable[object]:
        """Give the blocks to a worker, in a thread that submits.

        Return what notes, in one step in C behind the write, that the frame has left.

        *Race:* an exception from a signal handler may come before that. Then these arguments are
        dropped, and take back what the worker never saw.
        """
        self._offered = incarnation
        self._name(incarnation)
        return map(self._given.append, (incarnation,))

    def _name(self, incarnation: int) -> None:
        for slot, _length in self._slots:
            blocks = self._blocks()
            blocks.region.words[slot] = incarnation
            blocks.claims.pop(slot, None)

    def reclaim(self) -> None:
        """Take the blocks back from a worker that has not seen them.

        I/O thread, or the one that has offered them. Order: before its death.
        """
        if not self.kept:
            for slot, _length in self._slots:
                blocks = self._blocks()
                blocks.claims[slot] = self._token
                blocks.region.words[slot] = HOST
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
            # Offered, and not sent. Race: if the worker has died since, the block is free, or
            # has another owner.
            if slot in claims or words[slot] != self._offered:
                continue
            if claims.setdefault(slot, token) is token and words[slot] != self._offered:
                del claims[slot]
        for slot in token:
            if claims.get(slot) is token:
                arena.free(slot)
