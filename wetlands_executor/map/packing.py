"""The arguments of several calls of a ``map`` in one block of shared memory.

The worker's half is ``Packed`` in ``worker/batch.py``.

Large bytes and strings are copied as they are: a pickle of them would be one copy more here, and
one more through the pipe. What is small goes beside them, in a pickle. I/O thread only.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wetlands_executor.serialize.pickler import PROTOCOL
from wetlands_executor.sharedmem import arena
from wetlands_executor.sharedmem.arguments import OutOfBandArguments
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece

#: Bytes from which a value is large.
LARGE = 2048
#: Bytes of large values in one block, but for a single value: enough to make what a chunk costs
#: small, little enough to stay in the processor's cache between the copy here and the copy there.
BLOCK_BYTES = 1 << 20
#: Bytes of large values from which a block is faster than the pipe.
CROSSOVER = 1 << 15

_KINDS: dict[Any, int] = {bytes: wire.BYTES, str: wire.TEXT}


def possible() -> bool:
    """Return True if there are blocks."""
    found = arena.current()
    return found is not None and found.carries and found.blocks() is not None


def fitting(entries: list[Any], piped: int) -> tuple[int, int]:
    """Return (number of calls, bytes): how many calls can travel together, from the first on.

    They are of one kind, and not too large; it is at least one call. The bytes are those of their
    large values, for a block. Where there are no blocks nothing is large.

    Args:
        entries: as for ``pack``.
        piped: bytes that may go through the pipe.
    """
    raw = isinstance(entries[0], tuple)
    blocks: bool | None = None
    small = large = count = 0
    owners: dict[int, int] = {}
    for entry in entries:
        size = in_block = 0
        if isinstance(entry, tuple):
            for value in entry:
                if type(value) in _KINDS:
                    size += len(value)
                    if len(value) >= LARGE:
                        in_block += len(value)
        elif entry.out_of_band is not None or not _add_needs(entry.needs, owners):
            size = piped + 1  # it has more than bytes, and goes alone
        else:
            size = len(entry.payload)
            in_block = size if size >= LARGE else 0
        if in_block:
            if blocks is None:
                blocks = possible()
            if not blocks:
                in_block = 0
        small += size - in_block
        large += in_block
        if count and (isinstance(entry, tuple) is not raw or small > piped or large > BLOCK_BYTES):
            return count, large - in_block
        count += 1
    return count, large


def _add_needs(needs: Iterable[Piece], owners: dict[int, int]) -> bool:
    """Note what calls refer to; False if two of them refer to different states of one object."""
    return all(owners.setdefault(piece.owner, piece.number) == piece.number for piece in needs)


def pack(entries: list[Any]) -> tuple[bytes, OutOfBandArguments] | None:
    """Return the payload of a frame with these calls, and its block; None if there is no room.

    Args:
        entries: per call the tuple of its arguments, of builtin scalar types; or its encoded
            arguments.
    """
    pieces: list[bytes] = []
    position = 0
    table: list[Any] = []
    for entry in entries:
        values = entry if isinstance(entry, tuple) else (entry.payload,)
        found: list[Any] | None = None
        for index, value in enumerate(values):
            if type(value) not in _KINDS or len(value) < LARGE:
                continue
            piece = value if type(value) is not str else value.encode("utf-8", "surrogatepass")
            pieces.append(piece)
            found = found or list(values)
            found[index] = (
                position,
                position + len(piece),
                _KINDS[type(value)] if values is entry else wire.PICKLE,
            )
            position += len(piece)
        table.append(found or (entry if values is entry else entry.payload))
    out_of_band = OutOfBandArguments()
    head = out_of_band.put_all(pieces, position)
    return (head + pickle.dumps(table, PROTOCOL), out_of_band) if head else None
