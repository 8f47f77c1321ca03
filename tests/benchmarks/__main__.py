"""Our executor beside ``ProcessPoolExecutor(spawn)``, in one run, interleaved; medians and ratios.

Latency is worth reading only pinned to one core (``taskset -c 0 python -m tests.benchmarks --cases latency``): the hand-over to an idle second
core costs more than all the rest, and the kernel changes its mind.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from wetlands_executor import CondaEnvExecutor, Task
from wetlands_executor.pool import payload

from . import functions

Run = Callable[[], float]


def ours(workers: int) -> CondaEnvExecutor:
    return CondaEnvExecutor(max_workers=workers)


def spawn(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def interleaved(runs: dict[str, Run], repeats: int) -> dict[str, list[float]]:
    """Run each in turn, ``repeats`` times, after one run that does not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            gc.collect()
            value = run()
            if number:
                found[name].append(value)
    return found


def latency(executor: Executor) -> Run:
    """Median seconds of a no-op's round trip."""

    def run() -> float:
        times = []
        for _ in range(500):
            start = time.perf_counter()
            executor.submit(functions.nothing).result()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return run


def throughput(executor: Executor, count: int) -> Run:
    """Seconds for ``count`` no-ops, submitted at once."""

    def run() -> float:
        start = time.perf_counter()
        for future in [executor.submit(functions.nothing) for _ in range(count)]:
            future.result()
        return time.perf_counter() - start

    return run


def mapping(executor: Executor, count: int) -> Run:
    """Seconds for a ``map`` over ``count`` numbers with default arguments."""

    def run() -> float:
        start = time.perf_counter()
        assert list(executor.map(functions.same, range(count))) == list(range(count))
        return time.perf_counter() - start

    return run


def first_result(make: Callable[[int], Executor]) -> Run:
    """Seconds from the constructor to the first result."""

    def run() -> float:
        start = time.perf_counter()
        executor = make(1)
        executor.submit(functions.nothing).result()
        taken = time.perf_counter() - start
        executor.shutdown()
        return taken

    return run


def compare(title: str, runs: dict[str, Run], repeats: int) -> dict[str, object]:
    found = interleaved(runs, repeats)
    medians = {name: statistics.median(values) for name, values in found.items()}
    base = medians["ours"]
    print(title)
    for name, value in medians.items():
        spread = f"{min(found[name]) * 1e3:.3f} to {max(found[name]) * 1e3:.3f}"
        print(f"  {name:28s}{value * 1e3:12.3f} ms   {value / base:6.2f}x ours   [{spread}]", flush=True)
    return {"title": title, "seconds": found, "ratio_to_ours": {name: value / base for name, value in medians.items()}}


def update_cost(executor: CondaEnvExecutor) -> dict[str, object]:
    """Cost of one progress report in the worker, against an ``os.write`` of 64 bytes there."""
    count = 200_000
    write = executor.submit(functions.time_writes, count).result()
    silent = executor.submit(functions.time_updates, count).result()
    heard = executor.submit(functions.time_updates, count).listen(lambda event: None).result()
    print("progress report in the worker")
    print(f"  os.write of 64 bytes {write * 1e6:.2f} us, update {silent * 1e6:.2f} us, with a listener {heard * 1e6:.2f} us")
    return {"title": "update", "write": write, "update": silent, "update_with_listener": heard}


def memory(executor: CondaEnvExecutor) -> dict[str, object]:
    """Bytes of a pending and of a finished task on the host."""
    count = 20_000
    gate = executor.submit(functions.nothing)
    gate.result()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    encoded = payload.encode(functions.same, (1,), {})
    tasks = []
    for _ in range(count):
        task = Task._of(executor._pool)
        task._call = executor._pool.make_call(encoded, payload.current_context(), task)
        tasks.append(task)
    pending = (tracemalloc.get_traced_memory()[0] - before) / count
    tasks.clear()
    before = tracemalloc.get_traced_memory()[0]
    done = [executor.submit(functions.same, 1) for _ in range(count)]
    executor.wait_all()
    gc.collect()
    finished = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    del done
    print(f"memory of a task on the host\n  pending {pending:.0f} bytes, finished and held {finished:.0f} bytes")
    return {"title": "memory", "pending": pending, "finished": finished}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    cases = ("latency", "throughput", "map", "start", "update", "memory", "array-in", "array-out", "array-roundtrip")
    parser.add_argument("--cases", nargs="*", choices=cases, default=cases)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write all figures to this file")
    arguments = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores")
    found = []
    with ours(2) as executor, spawn(2) as processes, ThreadPoolExecutor(1) as threads, ours(1) as one, spawn(1) as one_process:
        executor.launch()
        if "latency" in arguments.cases:
            runs = {"ours": latency(one), "ProcessPoolExecutor(spawn)": latency(one_process), "ThreadPoolExecutor": latency(threads)}
            found.append(compare("round trip of a no-op, 1 worker", runs, arguments.repeats))
        if "throughput" in arguments.cases:
            runs = {"ours": throughput(executor, 10_000), "ProcessPoolExecutor(spawn)": throughput(processes, 10_000)}
            found.append(compare("10,000 no-ops, 2 workers", runs, arguments.repeats))
        if "map" in arguments.cases:
            runs = {"ours": mapping(executor, 10_000), "ProcessPoolExecutor(spawn)": mapping(processes, 10_000)}
            found.append(compare("map over 10,000 numbers, 2 workers", runs, arguments.repeats))
        if "update" in arguments.cases:
            found.append(update_cost(executor))
        if "memory" in arguments.cases:
            found.append(memory(executor))
        if arrays := tuple(case for case in arguments.cases if case.startswith("array-")):
            found += importlib.import_module("tests.benchmarks.arrays").measure(one, one_process, arrays, max(arguments.repeats, 9))  # needs numpy
    if "start" in arguments.cases:
        runs = {"ours": first_result(ours), "ProcessPoolExecutor(spawn)": first_result(spawn)}
        found.append(compare("constructor to first result", runs, arguments.repeats))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as stream:
            json.dump(found, stream, indent=1)


if __name__ == "__main__":
    main()
