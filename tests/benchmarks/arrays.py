"""Large arrays: into a worker, out of it, and both, against a hot memcpy of the same size in the same run.

What is compared. The floor of each case is what one process would need if the array only had to be copied: ``numpy.copyto`` between two
warm buffers, then the same work on the copy (``touch`` reads one element per page, ``sum`` adds all up, ``write`` adds 1 to each in
place). Ours is the time from ``submit`` to the result, on a warm pool with one worker. The percentage is floor / ours, so 100% means that
the pipe, the pickling and the second process cost nothing. Runs of all systems alternate; medians, with the quartiles as spread.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np

MEGABYTE = 1 << 20
#: Share of the floor that each size has to reach, and the aim.
BOUNDS = {100: (0.65, 0.85), 10: (0.45, 0.65)}

_kept: dict[int, Any] = {}


def touch(array: Any) -> float:
    """Read one element of each page."""
    return float(array[:: 4096 // array.itemsize].sum())


def total(array: Any) -> float:
    """Read all."""
    return float(array.sum())


def write(array: Any) -> None:
    """Write all, in place."""
    array += 1


def give(count: int) -> Any:
    """Return an array that was there before."""
    if count not in _kept:
        _kept[count] = np.arange(float(count))
    return _kept[count]


def back(array: Any) -> Any:
    """Return the argument, written in full."""
    array += 1
    return array


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _through(executor: Executor, name: str, array: Any) -> Callable[[], object]:
    """Return one round of a case through an executor. The result is touched, as its user would."""
    if name == "out":
        return lambda: touch(executor.submit(give, array.size).result())
    if name == "roundtrip":
        return lambda: touch(executor.submit(back, array).result())
    function = {"touch": touch, "sum": total, "write": write}[name]
    return lambda: executor.submit(function, array).result()


def _floor(name: str, array: Any) -> Callable[[], object]:
    """Return one round of a case as a copy within this process (two for a round trip), between warm buffers."""
    first, second = np.empty_like(array), np.empty_like(array)

    def run() -> None:
        np.copyto(first, array)
        if name == "roundtrip":
            back(first)
            np.copyto(second, first)
            touch(second)
        elif name == "out":
            touch(first)
        else:
            {"touch": touch, "sum": total, "write": write}[name](first)

    run()
    return run


def _ray(array: Any) -> dict[str, Callable[[], object]]:
    try:
        import ray
    except ImportError:
        return {}
    if not ray.is_initialized():
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", object_store_memory=2 << 30)
    functions = {name: ray.remote(function) for name, function in (("touch", touch), ("sum", total), ("out", give))}
    return {
        "touch": lambda: ray.get(functions["touch"].remote(array)),
        "sum": lambda: ray.get(functions["sum"].remote(array)),
        "out": lambda: touch(ray.get(functions["out"].remote(array.size))),
    }


def measure(ours: Executor, processes: Executor | None, cases: tuple[str, ...], repeats: int) -> list[dict[str, Any]]:
    """Measure the cases in 10 and 100 MB, print them, and return the figures.

    Args:
        ours: with one worker.
        processes: ``ProcessPoolExecutor`` with a spawn context and one worker, or None.
        cases: of "array-in", "array-out", "array-roundtrip".
        repeats: rounds of each.
    """
    names = [name for case in cases for name in {"array-in": ("touch", "sum", "write"), "array-out": ("out",), "array-roundtrip": ("roundtrip",)}[case]]
    found = []
    for megabytes in (10, 100):
        array = np.arange(megabytes * MEGABYTE / 8)
        peers = _ray(array) if "WETLANDS_BENCHMARK_RAY" in os.environ else {}
        for name in names:
            runs = {"floor": _floor(name, array), "ours": _through(ours, name, array)}
            if processes is not None:
                runs["ProcessPoolExecutor(spawn)"] = _through(processes, name, array)
            if name in peers:
                runs["ray"] = peers[name]
            for work in runs.values():
                work()
                work()
            seconds: dict[str, list[float]] = {key: [] for key in runs}
            for _ in range(repeats):
                for key, work in runs.items():
                    seconds[key].append(_seconds(work))
            found.append(_report(megabytes, name, seconds))
    return found


def _report(megabytes: int, name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    share = medians["floor"] / medians["ours"]
    bound, aim = BOUNDS[megabytes]
    print(f"{megabytes} MB float64, {name}: {share:.0%} of memcpy (at least {bound:.0%}, aim {aim:.0%})")
    for key, values in seconds.items():
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        print(f"  {key:28s}{medians[key] * 1e3:10.2f} ms   {medians[key] / medians['ours']:7.2f}x ours   [{low * 1e3:.2f} .. {high * 1e3:.2f}]", flush=True)
    return {"title": f"{name}, {megabytes} MB", "seconds": seconds, "share_of_memcpy": share}
