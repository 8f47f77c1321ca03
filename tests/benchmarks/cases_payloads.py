"""Arguments and results of every shape, one at a time, there (`in`), back (`back`), or both.

A figure is the median time of a call with such an argument, with such a result, or that returns its
argument, on a warm pool of one worker. All shapes of a case are measured in one run, so that what
disturbs the machine disturbs them all. Shapes that need a package are left out where it is not
installed.

The large ones take half a second or more with some systems, and are called a few times only: once,
if the first call has taken ``SLOW`` seconds.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import payloads
from .model import Bound, Case, faster

SYSTEMS = ("ours", "ppe-spawn", "loky", "joblib")
WAYS = ("in", "back", "both")
#: Seconds of a first call, which also makes what a worker returns, from which on no second one is
#: made: with some systems the large shapes would take a quarter of an hour.
SLOW = 1.0


def _median(pool: Any, function: Any, argument: Any, count: int, seconds: float) -> float:
    call = pool.submit
    get = pool.get
    start = time.perf_counter()
    get(call(function, argument))
    first = time.perf_counter() - start
    if first >= SLOW:
        return first
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < count:
        start = time.perf_counter()
        get(call(function, argument))
        done = time.perf_counter()
        times.append(done - start)
        if done > end:
            break
    return statistics.median(times)


def _measure(shapes: Sequence[str], seconds: float) -> Callable[[Any, int], dict[str, float]]:
    def measure(pool: Any, count: int) -> dict[str, float]:
        found = {}
        for shape in shapes:
            value = payloads.payload(shape)
            # functions of a module for all but what is of the script itself
            where: Any = sys.modules["__main__"] if payloads.SHAPES[shape].script else payloads
            give = where.things if payloads.SHAPES[shape].script else payloads.payload
            calls = {"in": (where.take, value), "back": (give, shape), "both": (where.same, value)}
            for way, (function, argument) in calls.items():
                try:
                    found[f"{shape}, {way}"] = _median(pool, function, argument, count, seconds)
                except AttributeError:  # workers of loky and joblib have no such script
                    if not payloads.SHAPES[shape].script:
                        raise
            del value, calls, argument
            gc.collect()
        return found

    return measure


def _figures(shapes: Sequence[str]) -> dict[str, str]:
    return {f"{shape}, {way}": "s" for shape in shapes for way in WAYS}


def _bounds(shapes: Sequence[str], times: float) -> tuple[Bound, ...]:
    """Return the bounds of each figure; what goes both ways has to be no slower."""
    found = []
    for figure in _figures(shapes):
        wanted = 1 if figure.endswith("both") else times
        text = f"{wanted:g}x faster than ProcessPoolExecutor(spawn): {figure}"
        found.append(faster(wanted, "ppe-spawn", text=text, figure=figure))
    return tuple(found)


SMALL = tuple(shape for shape in payloads.SHAPES if payloads.SHAPES[shape].small)
LARGE = tuple(shape for shape in payloads.SHAPES if not payloads.SHAPES[shape].small)

CASES = [
    Case(
        "payloads-small",
        "calls with small arguments and results, 1 worker, all processes on one core",
        _measure(SMALL, 0.15), 1000, 3,
        figures=_figures(SMALL), ability="call", workers=1, systems=SYSTEMS, pinned=True, repeats=3,
        limit=120, bounds=_bounds(SMALL, 3),
        note="On one core, as for the round trip of a no-op.",
    ),
    Case(
        "payloads", "calls with large arguments and results, 1 worker", _measure(LARGE, 0.4), 100,
        1,
        figures=_figures(LARGE), ability="call", workers=1, systems=SYSTEMS, repeats=1, limit=300,
        bounds=_bounds(LARGE, 1),
        note="What the worker returns is made before and kept, so that only its way is measured.",
    ),
]  # fmt: skip
