"""Names of test cases that are the same in each process: those that share a suite compare them."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def steady(value: object) -> str:
    """Return the representation of a value in ASCII, without addresses, sets in order."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({', '.join(sorted(map(steady, value)))})"
    return _ADDRESS.sub("", ascii(value))
