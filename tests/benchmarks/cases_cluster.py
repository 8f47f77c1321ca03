"""The same tasks on the hosts of a Dask cluster, and as a backend of joblib."""

from __future__ import annotations

import time
from typing import Any

from . import functions
from .cases_latency import round_trip
from .cases_map import numbers
from .model import Bound, Case

_ON_DASK = ("ours", "ours-dask", "dask")
#: Bytes of the array of ``array`` and ``grid``.
SIZE = 8_000_000


def array(pool: Any, count: int) -> dict[str, float]:
    """Seconds of a call whose argument and result are an array of 8 MB."""
    import numpy as np

    sent = np.ones(SIZE // 8)
    start = time.perf_counter()
    for _ in range(count):
        assert len(pool.get(pool.submit(functions.same, sent))) == len(sent)
    return {"time": (time.perf_counter() - start) / count}


def grid(pool: Any, count: int) -> dict[str, float]:
    """Seconds of calls of 5 ms over one array of 8 MB, as a grid search makes them."""
    import numpy as np

    data = np.ones(SIZE // 8)
    start = time.perf_counter()
    pool.many(functions.fit, [(data, 0.005)] * count)
    return {"time": time.perf_counter() - start}


CASES = [
    Case(
        "cluster-noop", "round trip of a no-op, 2 hosts with one worker each", round_trip, 200, 5,
        systems=_ON_DASK,
        bounds=(
            Bound("at most 10% more than Client.submit", 1.1, of=("dask",), system="ours-dask"),
        ),
    ),
    Case(
        "cluster-map", "map(f, range(2000)), 2 hosts with one worker each", numbers, 2000, 50,
        systems=(*_ON_DASK, "dask-64"),
        bounds=(
            Bound(
                "10x faster than Client.map", 0.1, of=("dask",), system="ours-dask", speedup=True
            ),
        ),
    ),
    Case(
        "cluster-array", "a call with an array of 8 MB there and back, 2 hosts", array, 20, 2,
        systems=_ON_DASK,
    ),
    Case(
        "joblib-grid", "100 calls of 5 ms over one array of 8 MB, 2 workers", grid, 100, 4,
        systems=("joblib-ours", "joblib"),
        bounds=(
            Bound(
                "no slower than loky", 1.05, of=("joblib",), system="joblib-ours"
            ),
        ),
    ),
]  # fmt: skip
