"""Many calls at once: how fast they go through, and what one that waits costs."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

from . import floors, functions
from .held import Held
from .model import Bound, Case, faster


def no_ops(pool: Any, count: int) -> dict[str, float]:
    """Seconds for ``count`` calls, submitted at once and waited for."""
    start = time.perf_counter()
    pool.many(functions.nothing, [()] * count)
    return {"time": time.perf_counter() - start}


def worker_counts(system: Any, count: int) -> dict[str, float]:
    """Seconds for ``count`` calls with 2, 8 and 32 workers that have all started."""
    found = {}
    # A quick run takes fewer workers under the same names: it is there to fill the table.
    for named, workers in (
        {2: 2, 8: 8, 32: 32}.items() if count > 1000 else {2: 1, 8: 2, 32: 3}.items()
    ):
        pool = system.open(workers)
        try:
            pool.many(functions.nap, [(0.01,)] * (4 * workers))
            pool.many(functions.nothing, [()] * (count // 10))
            start = time.perf_counter()
            pool.many(functions.nothing, [()] * count)
            found[f"workers_{named}"] = time.perf_counter() - start
        finally:
            pool.close()
    return found


def queued(pool: Any, count: int) -> dict[str, float]:
    """Submit ``count`` calls while all workers are held: seconds and bytes of one.

    Then let them run: seconds of all.
    """
    submit, get, nothing = pool.submit, pool.get, functions.nothing
    held = Held(pool, 2)
    before = floors.resident()
    start = time.perf_counter()
    handles = [submit(nothing) for _ in range(count)]
    submitted = time.perf_counter() - start
    rss = (floors.resident() - before) / count
    start = time.perf_counter()
    held.release()
    for handle in handles:
        get(handle)
    drained = time.perf_counter() - start
    handles.clear()
    gc.collect()
    few = max(1, count // 20)
    held = Held(pool, 2)
    tracemalloc.start()
    traced = tracemalloc.get_traced_memory()[0]
    handles = [submit(nothing) for _ in range(few)]
    traced = tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    held.release()
    for handle in handles:
        get(handle)
    return {
        "time": submitted + drained,
        "submit": submitted / count,
        "drain": drained,
        "traced": traced / few,
        "rss": rss,
    }


CASES = [
    Case(
        "no-ops", "10,000 no-op submits, wait for all, 2 workers", no_ops, 10_000, 50,
        ability="many",
        bounds=(
            faster(10, "ppe-spawn", "ppe-fork", text="10x faster than ProcessPoolExecutor"),
            Bound("stretch: 100,000 tasks a second (10,000 in 0.1 s)", 0.1),
        ),
    ),
    Case(
        "queued", "100,000 calls queued behind held workers, then run", queued, 100_000, 100,
        figures={"time": "s", "submit": "s", "drain": "s", "traced": "bytes", "rss": "bytes"},
        systems=("ours", "ppe-spawn", "ppe-fork", "pool-spawn", "loky", "pebble"),
        others={"Future()": floors.futures, "Future(), dropped": floors.dropped_futures},
        fresh=True, repeats=3, limit=120,
        bounds=(
            faster(10, "ppe-spawn", "ppe-fork", text="submit and run: 10x faster than "
                                                     "ProcessPoolExecutor"),
            Bound(
                "a submit costs at most 2x creating a stdlib Future(), both kept", 2.0, "submit",
                ("Future()",),
            ),
            Bound(
                "a submit costs at most 2x creating a stdlib Future() that is dropped at once", 2.0,
                "submit", ("Future(), dropped",),
            ),
            Bound("a pending task takes at most 1 KB (tracemalloc)", 1024, "traced", stretch=600),
            Bound("a pending task takes at most 1 KB (resident memory)", 1024, "rss", stretch=600),
        ),
        note="A pool that keeps calls outside this process (a pipe, a server) shows less memory "
             "here than it uses.",
    ),
    Case(
        "workers", "10,000 no-op submits with 2, 8 and 32 workers", worker_counts, 10_000, 50,
        figures={"workers_2": "s", "workers_8": "s", "workers_32": "s"}, workers=0, ability="many",
        repeats=5, limit=120,
        systems=("ours", "ppe-spawn", "ppe-fork", "pool-spawn", "loky", "pebble"),
        bounds=(
            Bound(
                "throughput with 8 workers not more than 25% below that with 2", 1 / 0.75,
                "workers_8", ("ours",), "workers_2", stretch=1.0,
            ),
            Bound(
                "throughput with 32 workers not more than 25% below that with 2", 1 / 0.75,
                "workers_32", ("ours",), "workers_2", stretch=1.0,
            ),
        ),
    ),
]  # fmt: skip
