"""Objects that are nothing but their identity: ``MISSING = object()`` and its like.

A worker finds one by the name of a global that holds it, if it can import that module; and one that
a task returns is the object that it is in this process. Entered by any thread.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

from wetlands_executor.serialize.identity import Known
from wetlands_executor.serialize.kinds import may_be_stateless
from wetlands_executor.worker import objects

# number -> the entry of a sentinel, so that one that a task returns is the object that it is here.
_sentinels: weakref.WeakValueDictionary[int, Known] = weakref.WeakValueDictionary()


def note_sentinel(known: Known) -> int:
    """Let a task return this object; return its number."""
    _sentinels[known.number] = known
    return known.number


def _find_sentinel(number: int) -> Any:
    known = _sentinels.get(number)
    return None if known is None else known.get()


objects.use_host(_find_sentinel)


def is_stateless(obj: Any) -> bool:
    """Return True for what may be a sentinel.

    An instance that holds nothing, or only texts (its name).
    """
    kind = type(obj)
    if kind is object:
        return True
    return may_be_stateless(kind) and all(
        type(value) is str for value in getattr(obj, "__dict__", {}).values()
    )


# id of a plain ``object()`` -> (module, name) of the globals that hold it, in the order in which
# the modules were imported.
_named: dict[int, list[tuple[str, str]]] = {}
_modules_seen = 0
#: Names under which a sentinel is looked for in a worker, at most: modules that import it from its
#: own have it too.
_MOST_NAMES = 8


def names_of(
    obj: Any, importable: Callable[[types.ModuleType], bool]
) -> tuple[tuple[str, str], ...]:
    """Return (module, name) of the globals that hold a sentinel, the likeliest first.

    Only those of modules that workers can import.

    Args:
        obj: a stateless object.
        importable: says whether a worker can import a module.
    """
    global _modules_seen  # a cache; a race makes it twice
    if type(obj) is not object:
        module = sys.modules.get(type(obj).__module__)
        if not isinstance(module, types.ModuleType) or not importable(module):
            return ()
        return tuple(
            (module.__name__, key) for key, value in list(vars(module).items()) if value is obj
        )[:1]
    if len(sys.modules) != _modules_seen:
        _modules_seen = len(sys.modules)
        _named.clear()
        for name, module in list(sys.modules.items()):
            for key, value in (
                list(vars(module).items()) if isinstance(module, types.ModuleType) else ()
            ):
                if type(value) is object:
                    _named.setdefault(id(value), []).append((name, key))
    found = []
    # A module that imports it is imported before the one that makes it.
    for name, key in reversed(_named.get(id(obj), ())):
        module = sys.modules.get(name)
        if (
            isinstance(module, types.ModuleType)
            and vars(module).get(key) is obj
            and importable(module)
        ):
            found.append((name, key))
    return tuple(found[:_MOST_NAMES])
