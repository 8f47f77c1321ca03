"""One call and its result."""

from __future__ import annotations

import statistics
import time
from typing import Any

from . import floors, functions
from .model import Bound, Case, faster


def round_trip(pool: Any, count: int) -> dict[str, float]:
    """Median seconds of a no-op."""
    submit, get, nothing = pool.submit, pool.get, functions.nothing
    times = []
    # who takes 10 ms for a call is known well enough after fewer of them
    end = time.perf_counter() + 5
    for _ in range(count):
        start = time.perf_counter()
        get(submit(nothing))
        done = time.perf_counter()
        times.append(done - start)
        if done > end:
            break
    return {"time": statistics.median(times)}


def _bounds(pinned: bool) -> tuple[Bound, ...]:
    if not pinned:
        return (
            faster(
                5,
                "ppe-spawn",
                text="5x faster than ProcessPoolExecutor(spawn), not pinned (for the record)",
            ),
        )
    return (
        Bound("at most 4.5x the raw pipe ping-pong", 4.5, of=("pipe",), stretch=3.0),
        faster(5, "ppe-spawn", text="5x faster than ProcessPoolExecutor(spawn)"),
        faster(1.5, "pool-fork", "pool-spawn", text="1.5x faster than multiprocessing.Pool"),
    )


CASES = [
    Case(
        "roundtrip-pinned", "round trip of a no-op, 1 worker, all processes on one core",
        round_trip, 2000, 20, ability="call", workers=1,
        others={"pipe": floors.ping_pong}, pinned=True, repeats=7, bounds=_bounds(True),
        note="The case by which latency is judged: on one core nothing depends on how long an "
             "idle core takes to wake up.",
    ),
    Case(
        "roundtrip", "round trip of a no-op, 1 worker, not pinned", round_trip, 2000, 20,
        ability="call", workers=1,
        others={"pipe": floors.ping_pong}, bounds=_bounds(False),
        note="The hand-over to an idle second core costs more than all the rest here, and the "
             "kernel changes its mind between two runs.",
    ),
]  # fmt: skip
