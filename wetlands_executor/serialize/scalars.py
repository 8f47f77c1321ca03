"""The rule by which arguments are plain scalars.

All of exact builtin types that are immutable and hold no other object.

The C pickler writes them fast, on any thread, at any time: no code of the user's runs, and they
cannot change meanwhile.
"""

from __future__ import annotations

from typing import Any

SCALARS: frozenset[type] = frozenset({int, float, str, bytes, bool, type(None), complex})
#: Those of them that may be long.
TEXTS: frozenset[type] = frozenset({str, bytes})
#: The others, which are short.
NUMBERS: frozenset[type] = SCALARS - TEXTS

#: ``are_scalars(map(type, values))`` is True if all values are plain scalars. A method in C: it
#: enters no Python function.
are_scalars = SCALARS.issuperset

_NAMES = frozenset((str,))


def are_numbers(args: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Return True for arguments that need no further look: most of them."""
    return (
        NUMBERS.issuperset(map(type, args))
        and NUMBERS.issuperset(map(type, keywords.values()))
        and _NAMES.issuperset(map(type, keywords))
    )
