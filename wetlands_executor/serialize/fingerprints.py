"""How large a value is, and its fingerprint, at a bounded cost however large it is."""

from __future__ import annotations

import itertools
import pickle
import types
from collections.abc import Iterator
from typing import Any

from wetlands_executor.serialize.identity import Record, digest
from wetlands_executor.serialize.scalars import SCALARS

#: Objects in, and bytes of, a value that is compared wholly at each submit. What is larger travels
#: once and is compared by a sample.
NODES = 1000
BYTES = 1 << 16
#: Objects that are looked at.
_LOOKS = 2 * NODES


def measure(
    value: Any, record: Record, trace: list[tuple[Any, int]] | None = None
) -> tuple[bool, Any]:
    """Return whether a value is large, and its fingerprint, at a bounded cost.

    Args:
        value: anything.
        record: gives numbers to the objects in it.
        trace: takes (object, argument ``most`` of ``sample``) of each container that was looked at,
            and (object, -1) of everything else that may change.

    Raises:
        RuntimeError: another thread changes it meanwhile.
    """
    parts: list[Any] = []
    seen: set[int] = {id(value)}
    left, size, large = NODES, 0, False
    waiting: list[Any] = [value]
    inner: list[Any]
    for current in _drain(waiting):
        kind = type(current)
        left -= 1
        if kind in (str, bytes):
            size += len(current)
            parts.append(current if len(current) <= 256 else record.of(current).number)
            continue
        if kind in SCALARS:
            parts.append(current)
            continue
        if current is not value:  # which is the same object as before, or would have no piece
            parts.append(record.of(current).number)
            if id(current) in seen:
                continue
            seen.add(id(current))
        inner, most = [], -1
        if isinstance(current, (list, tuple, dict, set, frozenset)):
            parts.append(len(current))
            large = large or len(current) > left
            # All entries of a table of ``NODES``: keys and values are objects.
            most = max(left, 0) + (NODES + 1 if current is value else 0)
            inner = sample(current, most)
        elif not isinstance(current, _NAMED):
            parts.append((found := _buffer(current))[1])
            size += found[0]
        attributes = getattr(current, "__dict__", None)
        if type(attributes) is dict and not isinstance(current, _NAMED):
            large = large or len(attributes) > left
            inner += sample(attributes, max(left, 0))
        length = _length_of_scalars(inner)
        if length is not None:
            size += length
            parts.append(tuple(inner))
            left -= len(inner)
        elif len(waiting) < _LOOKS:
            waiting.extend(inner)
        else:
            most = min(most, 0)  # none of them will be looked at
        if trace is not None:
            trace.append((current, most if type(current) in _PLAIN else -1))
    return large or size > BYTES or left < 0, digest(parts)


def _length_of_scalars(values: list[Any]) -> int | None:
    """Return the length of all texts among short scalars; None if there is anything else."""
    kinds = set(map(type, values))
    if kinds <= _NUMBERS:
        return 0
    if not kinds <= SCALARS:
        return None
    lengths = [len(each) for each in values if type(each) in (str, bytes)]
    return sum(lengths) if max(lengths) <= 256 else None


_NUMBERS = SCALARS - {str, bytes}
_PLAIN = frozenset((list, tuple, dict, frozenset))
_NAMED = (type, types.FunctionType, types.ModuleType)


def _drain(waiting: list[Any]) -> Iterator[Any]:
    """Yield what waits, first in first out, no more than ``_LOOKS``."""
    position = 0
    while position < len(waiting) and position < _LOOKS:
        yield waiting[position]
        position += 1


def sample(container: Any, most: int) -> list[Any]:
    """Return at most ``most`` elements of a container.

    All, or the first and the last, or evenly spread ones.
    """
    count = len(container)
    if isinstance(container, dict):
        if count * 2 <= most:
            return list(itertools.chain.from_iterable(container.items()))
        half = most // 4
        keys = [*itertools.islice(container, half), *itertools.islice(reversed(container), half)]
        return [part for key in keys for part in (key, container[key])]
    if count <= most:
        return list(container)
    if isinstance(container, (list, tuple)):
        return [*container[:: count // max(most - 1, 1) + 1], container[-1]] if most else []
    return list(itertools.islice(container, most))


def _buffer(obj: Any) -> tuple[int, Any]:
    """Return (number of bytes, a sample of them) of an object with a buffer, such as an array.

    (0, None) if it has no buffer.
    """
    try:
        flat = pickle.PickleBuffer(obj).raw()
    except (TypeError, ValueError, BufferError):
        count = getattr(obj, "nbytes", 0)
        return (count if isinstance(count, int) else 0), None
    with flat:
        # A step of odd length meets each byte of an element in turn.
        step = max(flat.nbytes // 8192, 1) | 1
        layout = str(getattr(obj, "dtype", "")), str(getattr(obj, "shape", ""))
        return flat.nbytes, (flat.nbytes, *layout, bytes(flat[::step]), bytes(flat[-64:]))


def is_array(obj: Any) -> bool:
    """Return True for an array of numpy or of the module ``array``, and not of a class on top."""
    return type(obj).__module__ in ("numpy", "array") and not hasattr(obj, "__dict__")


def sample_of_array(obj: Any) -> Any:
    """Return the fingerprint of an array: all bytes of a small one.

    Raises:
        BufferError, ValueError, TypeError: it has no contiguous buffer of plain numbers.
    """
    with pickle.PickleBuffer(obj).raw() as flat:
        layout = getattr(obj, "dtype", None), getattr(obj, "shape", None)
        if flat.nbytes <= BYTES:
            return layout, bytes(flat)
        # A step of odd length meets each byte of an element in turn.
        step = max(flat.nbytes // 8192, 1) | 1
        return layout, flat.nbytes, bytes(flat[::step]), bytes(flat[-64:])
