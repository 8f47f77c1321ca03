"""Large arrays.

Into a worker, out of it, and both, against a hot memcpy of the same size in the same run.

The floor of each case is what one process would need if the array only had to be copied:
``numpy.copyto`` between two warm buffers, then the same work on the copy. Ours is the time from
``submit`` to the result on a warm pool of one worker, so a ratio of 1 means that the pipe, the
pickling and the second process cost nothing. The count of a case is the size in megabytes; the
figure is the median of five calls.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from . import functions
from .model import Bound, Case, faster

MEGABYTE = 1 << 20
CALLS = 5

#: name -> (function of the worker, whether it gets the array, whether it returns one)
_KINDS: dict[str, tuple[Callable[..., Any], bool, bool]] = {
    "touch": (functions.touch, True, False),
    "sum": (functions.total, True, False),
    "write": (functions.write, True, False),
    "result": (functions.give, False, True),
    "back": (functions.back, True, True),
}


def _array(megabytes: int) -> Any:
    import numpy as np

    return np.arange(megabytes * MEGABYTE / 8)


def _median(work: Callable[[], object]) -> dict[str, float]:
    work()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return {"time": statistics.median(times)}


def _through(kind: str) -> Callable[[Any, int], dict[str, float]]:
    function, takes, returns = _KINDS[kind]

    def measure(pool: Any, megabytes: int) -> dict[str, float]:
        given = _array(megabytes) if takes else megabytes * MEGABYTE // 8

        def work() -> None:
            found = pool.get(pool.submit(function, given))
            if returns:
                functions.touch(found)

        return _median(work)

    return measure


def _floor(kind: str) -> Callable[[int], dict[str, float]]:
    function, takes, returns = _KINDS[kind]

    def measure(megabytes: int) -> dict[str, float]:
        import numpy as np

        array = _array(megabytes)
        first, second = np.empty_like(array), np.empty_like(array)

        def work() -> None:
            np.copyto(first, array)
            if takes:
                function(first)
            if takes and returns:
                np.copyto(second, first)
            if returns:
                functions.touch(second if takes else first)

        return _median(work)

    return measure


def _case(kind: str, title: str, megabytes: int, least: float, aim: float) -> Case:
    bounds = [Bound(f"at least {least:.0%} of memcpy", 1 / least, of=("memcpy",), stretch=1 / aim)]
    if megabytes == 100 and kind in ("touch", "result"):
        bounds.append(faster(20, "ppe-spawn", text="20x faster than ProcessPoolExecutor(spawn)"))
    return Case(
        f"array-{kind}-{megabytes}", f"{title}, {megabytes} MB of float64, 1 worker",
        _through(kind), megabytes, 1, ability="call", workers=1,
        others={"memcpy": _floor(kind)}, repeats=9, limit=60, bounds=tuple(bounds),
    )  # fmt: skip


CASES = [
    _case(kind, title, megabytes, least, aim)
    for megabytes, least, aim in ((10, 0.45, 0.65), (100, 0.65, 0.85))
    for kind, title in (
        ("touch", "argument, one element of each page read"),
        ("sum", "argument, added up"),
        ("write", "argument, written in full"),
        ("result", "result"),
        ("back", "argument written in full and returned"),
    )
]
