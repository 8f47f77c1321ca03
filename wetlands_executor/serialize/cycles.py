"""Which objects a record alone keeps alive, although they refer to each other.

Python has no weak references to lists, dicts, tuples and cells. A record keeps those that functions
by value reach, and lets go of one when nothing else refers to it. That says nothing of one that
refers, by way of others, to itself: the cell of a function that calls itself, the ``__class__`` of
a method that uses ``super()``, a list of children that know their parent. Python's collector cannot
free such a cycle either, since the record refers to it from outside.

``unreachable`` finds them as the collector does: among the objects that can be reached from those
of the record, the references that they have of each other are subtracted from all references. What
has none left, and is not reached from one that has, is garbage but for the record.

It errs on the safe side: an object that it does not examine keeps what it refers to. *Race:*
another thread may move a reference meanwhile, so that an object which is in use is named. It gets
another number then, and is another object for workers.

Runs no code of the user's. Owns no state. Entered by any thread that submits.
"""

from __future__ import annotations

import builtins
import gc
import sys
import types
from collections import deque
from typing import Any

#: Elements of a container, and objects in all, that are examined at most.
MOST_ELEMENTS, MOST_OBJECTS = 10_000, 200_000
_SIZED = frozenset({list, dict, tuple, set, frozenset, deque})
#: Never a part of such a cycle, or too large to look into.
_LEAVES: frozenset[Any] = frozenset({types.ModuleType, types.CodeType, types.FrameType, type(None)})
_HEAP_TYPE = 1 << 9
_module_of = type.__dict__["__module__"].__get__


def unreachable(kept: list[Any]) -> set[int]:
    """Return the ids of the objects that nothing but the caller refers to, or only each other do.

    Args:
        kept: objects to each of which the caller has one reference beside this list, which is
            emptied.
    """
    asked = {id(obj) for obj in kept}
    found: dict[int, Any] = {}
    counts: dict[int, int] = dict.fromkeys(asked, 1)
    while kept:
        obj = kept.pop()
        found[id(obj)] = obj
    obj = None  # it would count
    parts = _look_around(found, counts)
    waiting = [key for key, count in _references(found) if count > counts[key]]
    alive = set(waiting)
    while waiting:
        for key in parts.get(waiting.pop(), ()):
            if key not in alive:
                alive.add(key)
                waiting.append(key)
    return asked - alive


def _look_around(found: dict[int, Any], counts: dict[int, int]) -> dict[int, list[int]]:
    """Add what can be reached, and the numbers of references among all of them.

    Return the ids of what each object refers to.
    """
    parts: dict[int, list[int]] = {}
    order = list(found)
    for key in order:
        if len(parts) >= MOST_OBJECTS:
            break
        following = _parts_of(found[key])
        parts[key] = [*map(id, following)]
        for each in following:
            other = id(each)
            counts[other] = counts.get(other, 0) + 1
            if other not in found:
                found[other] = each
                order.append(other)
    return parts


def _references(found: dict[int, Any]) -> list[tuple[int, int]]:
    """Return (key, number of references beside that of the dict) of each object."""
    return [(key, sys.getrefcount(found[key]) - _OWN) for key in found]


def _parts_of(obj: Any) -> list[Any]:
    """Return what an object refers to, as far as it may be a part of a cycle."""
    kind = type(obj)
    if kind in _LEAVES or (kind in _SIZED and len(obj) > MOST_ELEMENTS):
        return []
    if issubclass(kind, type) and _is_installed(obj):
        return []
    found = filter(gc.is_tracked, gc.get_referents(obj))
    if kind is types.FunctionType:
        # a namespace is there for good, and what it holds is in use
        spaces = (id(obj.__globals__), id(vars(builtins)))
        return [each for each in found if id(each) not in spaces]
    return list(found)


def _is_installed(cls: Any) -> bool:
    """Return True for a class that a module holds, and that is there for good."""
    flags = type.__dict__["__flags__"].__get__(cls)
    if not flags & _HEAP_TYPE:
        return True
    space = getattr(sys.modules.get(_module_of(cls)), "__dict__", {})
    return space.get(type.__dict__["__name__"].__get__(cls)) is cls


_OWN = 0
_OWN = _references({0: [[]]})[0][1]
