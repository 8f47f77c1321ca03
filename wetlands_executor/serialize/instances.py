"""Short calls with objects of classes by value, and with such classes: pickled by C alone.

The classes are known to the workers. Most such calls have one object, and all that it holds are
scalars in its ``__dict__``: a copy of that travels, in a pickle of builtin types, and the worker
makes the object (``flat``). For all others the places of the classes in the memo of the pickler are
filled before it begins, so that each object refers to its class by a number and nothing is looked
up by name. Before the pickle stand the instructions that fill the same places for the reader. The
whole is a pickle as any other.

Entered by any thread that submits.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wetlands_executor.serialize.fast_checks import attributes_of_instance
from wetlands_executor.serialize.scalars import NUMBERS, TEXTS
from wetlands_executor.worker.code_templates import METHOD, OBJECTS

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece, Record
    from wetlands_executor.serialize.watched import Watched

#: PROTO 5: how each pickle begins.
_BEGIN = b"\x80\x05"
#: Objects in one call, and characters of a text. What has more is as fast with ``CallPickler``.
MOST, LONGEST = 100, 4096
#: Objects whose attributes travel beside them.
FEW = 4
_SEQUENCES = frozenset((list, tuple, set, frozenset))
_NAMES = frozenset((str,))


class _NeedsCallPickler(Exception):  # noqa: N818 - a signal within this module
    """Something can be pickled by ``CallPickler`` only."""


def flat(
    steps: tuple[Any, ...], args: tuple[Any, ...], record: Record
) -> tuple[bytes, tuple[Piece, ...], bool] | None:
    """Return the same as ``pickled`` for objects that hold scalars, among arguments that are such.

    None for every other call. Runs no code of the user's.

    Args:
        steps: none, or those to a method of such an object.
        args: the arguments.
        record: of the pool.
    """
    values = [steps[1] if steps else None, *args]
    found: list[tuple[Any, ...]] = []
    pieces: list[Piece] = []
    bytecode = False
    for place, value in enumerate(values):
        kind = type(value)
        if kind in NUMBERS or (kind in TEXTS and len(value) <= LONGEST):
            continue
        watched: Watched | None = record.functions.get(id(kind))
        if watched is None or not watched.flat or len(found) == FEW or not watched.is_same(kind):
            return None
        # Race: another thread may change the object, but not this copy.
        attributes = {**value.__dict__}
        if not attributes or not _NAMES.issuperset(map(type, attributes)):
            return None  # an object that holds nothing is known by its identity
        for each in attributes.values():
            kind = type(each)
            if kind not in NUMBERS and (kind not in TEXTS or len(each) > LONGEST):
                return None
        piece: Any = watched.piece
        found.append((place, piece.owner, piece.number, piece.name, attributes))
        pieces.append(piece)
        bytecode = bytecode or watched.bytecode
    if not found or (steps and found[0][0]):
        return None  # a method is bound to a number
    if len(found) > 1 and len({id(values[one[0]]) for one in found}) < len(found):
        return None  # what is one object here is one in the worker
    for one in found:
        values[one[0]] = None
    made = (OBJECTS, tuple(found), METHOD, None) if steps else (OBJECTS, tuple(found))
    return pickle.dumps((made, tuple(values[1:]), None), 5), tuple(pieces), bytecode


def pickled(
    value: tuple[Any, ...], parts: Iterable[Any], record: Record
) -> tuple[bytes, tuple[Piece, ...], bool] | None:
    """Return (payload of a call, what it refers to, whether that is bytecode).

    None if the call is not of this kind.

    Runs no code of the user's.

    Args:
        value: what is pickled.
        parts: what of it is not plain scalars for certain.
        record: of the pool.
    """
    found: dict[int, Watched] = {}
    try:
        _look(parts, record, found, MOST)
    except (_NeedsCallPickler, AttributeError, RuntimeError):
        return None  # or a slot is not set; another thread changes a container
    if not found:
        return None
    with io.BytesIO() as stream:
        pickler = pickle.Pickler(stream, 5)
        pickler.memo = {
            key: (place, watched.known.get()) for place, (key, watched) in enumerate(found.items())
        }
        pickler.dump(value)
        data = stream.getvalue()
    if len(found) == 1:
        (watched,) = found.values()
        piece: Any = watched.piece
        return b"".join((_BEGIN, piece.instructions, data[2:])), (piece,), watched.bytecode
    pieces = tuple([watched.piece for watched in found.values() if watched.piece is not None])
    payload = b"".join((_BEGIN, *[piece.instructions for piece in pieces], data[2:]))
    return payload, pieces, any(watched.bytecode for watched in found.values())


def _look(values: Iterable[Any], record: Record, found: dict[int, Watched], left: int) -> int:
    """Take the classes of objects, of those within them too; return how many more there may be.

    Raises:
        _NeedsCallPickler: something is pickled in another way.
    """
    for value in values:
        kind = type(value)
        if kind in NUMBERS:
            continue
        if kind in TEXTS:
            if len(value) > LONGEST:
                raise _NeedsCallPickler
            continue
        left -= 1
        if left < 0:
            raise _NeedsCallPickler
        if kind in _SEQUENCES:
            left = _look(value, record, found, left - len(value) // 8)
        elif kind is dict:
            left = _look(value, record, found, left - len(value) // 8)
            left = _look(value.values(), record, found, left)
        elif id(value) in record.functions:
            _take(value, record, found)
        else:
            watched = found.get(id(kind)) or _take(kind, record, found)
            parts = watched.parts
            if parts is attributes_of_instance:
                attributes = value.__dict__
                # an object that holds nothing is known by its identity
                if not attributes or not _NAMES.issuperset(map(type, attributes)):
                    raise _NeedsCallPickler
                if not NUMBERS.issuperset(map(type, attributes.values())):
                    left = _look(attributes.values(), record, found, left)
            elif parts is None:
                raise _NeedsCallPickler
            else:
                left = _look(parts(value), record, found, left)
    return left


def _take(value: Any, record: Record, found: dict[int, Watched]) -> Watched:
    """Take a class or function that workers know."""
    watched: Watched | None = record.functions.get(id(value))
    if watched is None or watched.piece is None or not watched.is_same(value):
        raise _NeedsCallPickler
    found[id(value)] = watched
    return watched
