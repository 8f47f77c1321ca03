"""Calls whose arguments are objects of classes by value, and hold scalars: pickled by C alone.

The classes are known to the workers. Their places in the memo of the pickler are filled before it
begins, so that each object refers to its class by a number and nothing is looked up by name. Before
the pickle stand the instructions that fill the same places for the reader. The whole is a pickle as
any other.

Entered by any thread that submits.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

from wetlands_executor.serialize import fast_checks
from wetlands_executor.serialize.scalars import SCALARS
from wetlands_executor.worker import code_made

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece, Record
    from wetlands_executor.serialize.watched import Watched

#: PROTO 5: how each pickle begins.
_BEGIN = b"\x80\x05"


def pickled(
    steps: tuple[Any, ...] | None, args: tuple[Any, ...], record: Record
) -> tuple[bytes, tuple[Piece, ...], bool] | None:
    """Return (payload of a call, what it refers to, whether that is bytecode).

    None if the call is not of this kind.

    Runs no code of the user's.

    Args:
        steps: of a callable that is made for the call (see ``made.py``), or None.
        args: its arguments.
        record: of the pool.
    """
    found: dict[int, Watched] = {}
    for value in args:
        if type(value) not in SCALARS and not _add(value, record, found):
            return None
    if steps is not None:
        if len(steps) != 2 or steps[0] != code_made.METHOD or not _add(steps[1], record, found):
            return None
    elif not found:
        return None
    with io.BytesIO() as stream:
        pickler = pickle.Pickler(stream, 5)
        pickler.memo = {
            key: (place, watched.known.get()) for place, (key, watched) in enumerate(found.items())
        }
        pickler.dump((args, None) if steps is None else (steps, args, None))
        data = stream.getvalue()
    pieces = tuple([watched.piece for watched in found.values() if watched.piece is not None])
    payload = b"".join((_BEGIN, *[piece.instructions for piece in pieces], data[2:]))
    return payload, pieces, any(watched.bytecode for watched in found.values())


def _add(value: Any, record: Record, found: dict[int, Watched]) -> bool:
    """Take the class of an object; False if the object cannot be pickled this way."""
    kind = type(value)
    if id(kind) not in found:
        watched = record.functions.get(id(kind))
        if watched is None or not watched.simple or not watched.is_same(kind):
            return False
        found[id(kind)] = watched
    attributes = value.__dict__
    return bool(attributes) and fast_checks.are_short_scalars(attributes)
