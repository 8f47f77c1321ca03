"""What only our tasks have: progress reports; and the memory of a finished one that is kept."""

from __future__ import annotations

import gc
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
        "memory", "memory on the host of a finished call that is kept", finished, 10_000, 100,
        figures={"finished": "bytes"},
        systems=("ours", "ppe-spawn", "pool-spawn", "loky", "pebble"),
    ),
]  # fmt: skip
