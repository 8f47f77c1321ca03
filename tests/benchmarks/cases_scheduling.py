"""Long calls and short ones: who waits for whom."""

from __future__ import annotations

import random
import time
from typing import Any

from . import functions
from .model import Bound, Case

WORKERS = 2
SLEEP, SPIN = 0.05, 0.0002


def shorts_among(pool: Any, count: int) -> dict[str, float]:
    """One call of 600 ms, then ``count`` of 2 ms: seconds until the short ones are done."""
    start = time.perf_counter()
    long = pool.submit(functions.nap, 0.6)
    for handle in [pool.submit(functions.nap, 0.002) for _ in range(count)]:
        pool.get(handle)
    taken = time.perf_counter() - start
    pool.get(long)
    return {"time": taken}


def shorts_behind(pool: Any, count: int) -> dict[str, float]:
    """One call of 0.5 s, then ``count`` no-ops: seconds until these are done."""
    start = time.perf_counter()
    long = pool.submit(functions.nap, 0.5)
    for handle in [pool.submit(functions.nothing) for _ in range(count)]:
        pool.get(handle)
    taken = time.perf_counter() - start
    pool.get(long)
    return {"time": taken}


def makespan(pool: Any, count: int) -> dict[str, float]:
    """Calls of which 5% sleep for 50 ms, the others spin for 0.2 ms, in an order that is the same
    in all runs.
    """
    naps = max(1, count // 20)
    calls = [("nap", SLEEP)] * naps + [("spin", SPIN)] * (count - naps)
    random.Random(5).shuffle(calls)
    start = time.perf_counter()
    for handle in [pool.submit(functions.work, *call) for call in calls]:
        pool.get(handle)
    return {"time": time.perf_counter() - start}


def ideal(count: int) -> dict[str, float]:
    """The sum of all calls, divided by the number of workers."""
    naps = max(1, count // 20)
    return {"time": (naps * SLEEP + (count - naps) * SPIN) / WORKERS}


def _bound(text: str) -> Bound:
    return Bound(text, 1.0, of=("ppe-spawn", "ppe-fork"), stretch=0.5)


CASES = [
    Case(
        "head-of-line", "one call of 600 ms, then 400 of 2 ms, 4 workers: until the short ones "
                        "are done", shorts_among, 400, 8, workers=4, repeats=9,
        bounds=(_bound("shorts done no later than with ProcessPoolExecutor"),),
        note="The short ones sleep, so that four workers fit on two cores.",
    ),
    Case(
        "behind-long", "one call of 0.5 s, then 50 no-ops, 2 workers: until the no-ops are done",
        shorts_behind, 50, 8, workers=2, repeats=9,
        bounds=(_bound("no-ops done no later than with ProcessPoolExecutor"),),
    ),
    Case(
        "makespan", "2,000 calls, 5% sleep 50 ms, the others spin 0.2 ms, 2 workers", makespan,
        2000, 40, workers=WORKERS, repeats=9,
        others={"ideal": ideal},
        bounds=(
            Bound("at most 1.10x the ideal (sum / workers)", 1.10, of=("ideal",), stretch=1.03),
        ),
        note="The ideal is computed. A busy machine adds to every system alike: a call spins as "
             "long by the clock, but two of them need two cores.",
    ),
]  # fmt: skip
