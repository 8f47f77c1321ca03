"""Find the line of a TOML text that a value stands in, for messages.

The reader of TOML (``tomllib``) says no lines. This looks at headers and keys, not at the grammar:
it is used only after the text was read without a fault, and a wrong guess costs a wrong number in a
message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Keys = tuple["str | int", ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*((?:[^\[\]\"']|\"[^\"]*\"|'[^']*')+)\]")
_KEY = re.compile(
    r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([\w-]+)")


def line_of(text: str, keys: Keys, value: object = None) -> int | None:
    """Return the number of the line, from 1, in which a key or one of its values stands.

    Args:
        text: the TOML text.
        keys: path of the key; a number is the place in an array of tables.
        value: a text that stands at or after that key, if it is one of several.

    Returns:
        The line of the longest part of the path that is found; None if nothing of it is.
    """
    best, at = 0, None
    for number, found in _places(text):
        length = _common(found, keys)
        if length > best:
            best, at = length, number
    if at is None or not isinstance(value, str):
        return at
    lines = text.split("\n")
    for number in range(at, len(lines) + 1):
        if number > at and _HEADER.match(lines[number - 1]):
            break
        if f'"{value}"' in lines[number - 1] or f"'{value}'" in lines[number - 1]:
            return number
    return at


def _places(text: str) -> Iterator[tuple[int, Keys]]:
    """List each line that has a header or a key, with the full path of it."""
    above: Keys = ()
    counts: dict[Keys, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        header = _HEADER.match(line)
        if header:
            above = _keys(header[2])
            if header[1] == "[[":
                counts[above] = counts.get(above, -1) + 1
                above = (*above, counts[above])
            else:
                # [a.b] below [[a]] belongs to the last table of the array
                for end in range(len(above), 0, -1):
                    if above[:end] in counts:
                        above = (*above[:end], counts[above[:end]], *above[end:])
                        break
            yield number, above
            continue
        key = _KEY.match(line)
        if key:
            yield number, (*above, *_keys(key[1]))


def _keys(text: str) -> Keys:
    return tuple(found[1] or found[2] or found[3] or "" for found in _PART.finditer(text))


def _common(found: Keys, keys: Keys) -> int:
    """Return how much of ``keys`` a place tells; 0 if it is the place of something else."""
    if found == keys[: len(found)]:
        return len(found)
    return len(keys) if found[: len(keys)] == keys else 0
