"""``map`` with numbers and with bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from . import functions
from .model import Bound, Case, faster


def numbers(pool: Any, count: int) -> dict[str, float]:
    """Seconds of a map over ``range(count)``; the results are compared."""
    start = time.perf_counter()
    found = pool.map(functions.same, range(count))
    taken = time.perf_counter() - start
    assert found == list(range(count))
    return {"time": taken}


def of_bytes(size: int) -> Callable[[Any, int], dict[str, float]]:
    """Return the measure for arguments of ``size`` bytes each."""

    def measure(pool: Any, count: int) -> dict[str, float]:
        # Each its own object with its own content: of equal ones a pickled chunk has only one.
        rest = os.urandom(size - 8)
        items = [number.to_bytes(8, "big") + rest for number in range(count)]
        start = time.perf_counter()
        found = pool.map(functions.length, items)
        taken = time.perf_counter() - start
        assert found == [size] * count
        return {"time": taken}

    return measure


CASES = [
    Case(
        "map", "map(f, range(20_000)), 2 workers", numbers, 20_000, 100, ability="map",
        bounds=(
            faster(10, "ppe-spawn", "ppe-fork", text="default arguments: 10x faster than "
                                                     "ProcessPoolExecutor's default"),
            Bound("default arguments: at least half as fast as ProcessPoolExecutor with "
                  "chunksize=64", 2.0, of=("ppe-spawn-64",), stretch=1.0),
        ),
    ),
    *(
        Case(
            f"map-{kilobytes}k",
            f"map over {count:,} bytes arguments of {kilobytes} KB, 2 workers",
            of_bytes(kilobytes * 1000), count, 32, ability="map",
            bounds=(
                faster(
                    5, "ppe-spawn", "ppe-fork",
                    text="default arguments: 5x faster than ProcessPoolExecutor's default",
                ),
            ),
        )
        for kilobytes, count in ((1, 20_000), (10, 10_000), (100, 2_000))
    ),
]  # fmt: skip
