"""Arguments and results of every shape, each there (`in`) and back (`back`), one at a time.

A figure is the median time of a call with such an argument, or with such a result, on a warm pool
of one worker. All shapes of a case are measured in one run, so that what disturbs the machine
disturbs them all. Shapes that need numpy are left out where it is not installed.

The large ones take a second or more with some systems. Each is called a few times only; the count
of a case is that number for a small shape.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import Any

from . import functions
from .model import Bound, Case, faster

SYSTEMS = ("ours", "ppe-spawn", "ppe-fork", "loky", "joblib")
_NUMPY = importlib.util.find_spec("numpy") is not None


def _median(pool: Any, function: Any, argument: Any, count: int) -> float:
    call = pool.submit
    get = pool.get
    get(call(function, argument))
    times = []
    end = time.perf_counter() + 2
    for _ in range(count):
        start = time.perf_counter()
        get(call(function, argument))
        done = time.perf_counter()
        times.append(done - start)
        if done > end:
            break
    return statistics.median(times)


def _measure(shapes: tuple[str, ...], share: int) -> Any:
    def measure(pool: Any, count: int) -> dict[str, float]:
        found = {}
        times = max(1, count // share)
        for shape in shapes:
            value = functions.payload(shape)
            found[f"{shape}, in"] = _median(pool, functions.take, value, times)
            found[f"{shape}, back"] = _median(pool, functions.payload, shape, times)
        return found

    return measure


def _figures(shapes: tuple[str, ...]) -> dict[str, str]:
    return {f"{shape}, {way}": "s" for shape in shapes for way in ("in", "back")}


def _bounds(shapes: tuple[str, ...], times: float) -> tuple[Bound, ...]:
    return tuple(
        faster(
            times,
            "ppe-spawn",
            text=f"{times:g}x faster than ProcessPoolExecutor(spawn): {figure}",
            figure=figure,
        )
        for figure in _figures(shapes)
    )


SMALL = tuple(
    shape
    for shape in functions.SHAPES
    if functions.SHAPES[shape][0] and (_NUMPY or "array" not in shape)
)
LARGE = tuple(
    shape
    for shape in functions.SHAPES
    if not functions.SHAPES[shape][0] and (_NUMPY or "array" not in shape)
)

CASES = [
    Case(
        "payloads-small", "calls with small arguments and results, 1 worker, all processes on one core", _measure(SMALL, 1), 400, 3,
        figures=_figures(SMALL), ability="call", workers=1, systems=SYSTEMS, pinned=True, limit=120, bounds=_bounds(SMALL, 3),
        note="On one core, as for the round trip of a no-op.",
    ),
    Case(
        "payloads", "calls with large arguments and results, 1 worker", _measure(LARGE, 50), 250, 1,
        figures=_figures(LARGE), ability="call", workers=1, systems=SYSTEMS, repeats=3, limit=300, bounds=_bounds(LARGE, 1),
        note="What the worker returns is made before and kept, so that only its way is measured.",
    ),
]  # fmt: skip
