"""What only our tasks have: reports, tasks inside tasks; and the memory of a finished one."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

from . import functions
from .model import Case


def update(pool: Any, count: int) -> dict[str, float]:
    """Seconds of one progress report in the worker, beside an ``os.write`` of 64 bytes there."""
    submit = pool.submit
    return {
        "update": submit(functions.time_updates, count).result(),
        "heard": submit(functions.time_updates, count).listen(lambda event: None).result(),
        "write": submit(functions.time_writes, count).result(),
    }


def nested(pool: Any, count: int) -> dict[str, float]:
    """Seconds of a call that a running function submits, beside one that the program submits."""
    found = []
    for number in range(count):
        start = time.perf_counter()
        pool.get(pool.submit(functions.same, number))
        found.append(time.perf_counter() - start)
    submit = pool.submit
    return {
        "plain": sorted(found)[count // 2],
        "nested": submit(functions.time_nested, count).result(),
        "nested_array": submit(functions.time_nested_array, 10_000_000).result(),
    }


def finished(pool: Any, count: int) -> dict[str, float]:
    """Bytes of a finished task that is kept (``queued`` has those of a pending one)."""
    pool.get(pool.submit(functions.same, 1))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [pool.submit(functions.same, 1) for _ in range(count)]
    for handle in kept:
        pool.get(handle)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"finished": taken / count}


CASES = [
    Case(
        "update", "a progress report in the worker; with a listener; an os.write of 64 bytes "
                  "there", update, 50_000, 500,
        figures={"update": "s", "heard": "s", "write": "s"}, systems=("ours",), workers=1,
    ),
    Case(
        "nested", "a call that a running function submits, and waits for, beside one that the "
                  "program submits; one with an argument of 10 MB", nested, 2000, 200,
        figures={"plain": "s", "nested": "s", "nested_array": "s"}, systems=("ours",), workers=2,
    ),
    Case(
        "memory", "memory on the host of a finished call that is kept", finished, 10_000, 100,
        figures={"finished": "bytes"},
        systems=("ours", "ppe-spawn", "pool-spawn", "loky", "pebble"),
    ),
]  # fmt: skip
