"""Payloads of every shape, imported by the workers of every system under this name.

Packages are imported when a payload is made of them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Entry:
    """An object of a class that can be imported."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"entry {number}"
        self.parent = None


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: float


class Color(enum.Enum):
    """An enum."""

    RED = 1


@dataclasses.dataclass(frozen=True)
class Setting:
    """A dataclass whose instances cannot be changed."""

    name: str
    value: float


def _arrays(count: int, size: int) -> Any:
    import numpy as np

    made = [np.arange(size / 8) + number for number in range(count)]
    return made if count > 1 else made[0]


def _records(count: int) -> Any:
    return [
        {"id": n, "name": f"name {n}", "tags": ["a", "b"], "value": n * 1.5, "sub": {"x": n}}
        for n in range(count)
    ]


def _columns() -> dict[str, Any]:
    import numpy as np

    return {f"column {n}": np.arange(1_250_000.0) + n for n in range(10)}


def _pandas() -> Any:
    import pandas as pd

    return pd.DataFrame(_columns())


def _polars() -> Any:
    import polars as pl

    return pl.DataFrame(_columns())


def _arrow() -> Any:
    import pyarrow as pa

    return pa.table(_columns())


def _things(count: int) -> Any:
    kind = sys.modules["__main__"].Thing
    return [kind(n) for n in range(count)] if count > 1 else kind(1)


class Shape(NamedTuple):
    """How a payload is made.

    Attributes:
        small: it has some KB at most.
        make: makes it.
        package: what it needs.
        script: it is made of a class of the script.
    """

    small: bool
    make: Callable[[], Any]
    package: str = ""
    script: bool = False


_SHAPES = {
    "nothing": Shape(True, lambda: None),
    "a dict of 3": Shape(True, lambda: {"a": 1, "b": [1, 2, 3], "c": "text"}),
    "a datetime": Shape(True, lambda: dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc)),
    "a path": Shape(True, lambda: pathlib.Path("/data/plate 1/scan_0001.tif")),
    "a named tuple": Shape(True, lambda: Point(1, 2.5)),
    "a member of an enum": Shape(True, lambda: Color.RED),
    "a frozen dataclass": Shape(True, lambda: Setting("threshold", 0.5)),
    "an object": Shape(True, lambda: Entry(1)),
    "an object of the script": Shape(True, lambda: _things(1), script=True),
    "JSON-like, 20 records": Shape(True, lambda: _records(20)),
    "bytes of 1 KB": Shape(True, lambda: bytes(1000)),
    "bytes of 10 KB": Shape(True, lambda: bytes(10_000)),
    "text of 1 KB": Shape(True, lambda: "x" * 1000),
    "a number of numpy": Shape(True, lambda: _arrays(1, 8)[0], "numpy"),
    "array of 1 KB": Shape(True, lambda: _arrays(1, 1000), "numpy"),
    "array of 10 KB": Shape(True, lambda: _arrays(1, 10_000), "numpy"),
    "bytes of 100 KB": Shape(False, lambda: bytes(100_000)),
    "array of 100 KB": Shape(False, lambda: _arrays(1, 100_000), "numpy"),
    "10,000 arrays of 1 KB": Shape(False, lambda: _arrays(10_000, 1000), "numpy"),
    "100,000 objects": Shape(False, lambda: [Entry(n) for n in range(100_000)]),
    "100,000 objects of the script": Shape(False, lambda: _things(100_000), script=True),
    "JSON-like, 50,000 records": Shape(False, lambda: _records(50_000)),
    "2 million floats": Shape(False, lambda: [n * 1.5 for n in range(2_000_000)]),
    "dict of 500,000": Shape(False, lambda: {n: str(n) for n in range(500_000)}),
    "200 bytes of 70 KB": Shape(False, lambda: [bytes(70_000) for _ in range(200)]),
    "bytes of 100 MB": Shape(False, lambda: bytes(100 << 20)),
    "text of 100 MB": Shape(False, lambda: "x" * (100 << 20)),
    "array of 100 MB": Shape(False, lambda: _arrays(1, 100_000_000), "numpy"),
    "pandas, 100 MB": Shape(False, _pandas, "pandas"),
    "polars, 100 MB": Shape(False, _polars, "polars"),
    "arrow, 100 MB": Shape(False, _arrow, "pyarrow"),
}
#: Those whose package is installed here.
SHAPES: dict[str, Shape] = {
    name: shape
    for name, shape in _SHAPES.items()
    if not shape.package or importlib.util.find_spec(shape.package) is not None
}
_kept: dict[str, Any] = {}


def payload(shape: str) -> Any:
    """Return a payload of this shape, made once."""
    if shape not in _kept:
        _kept.clear()
        _kept[shape] = SHAPES[shape].make()
    return _kept[shape]


def take(value: Any) -> None:
    """Take an argument and do nothing with it."""


def same(value: Any) -> Any:
    """Return the argument."""
    return value
