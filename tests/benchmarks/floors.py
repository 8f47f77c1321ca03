"""What no executor can go below.

Measured in turn with the systems, in a process of its own, pinned like them.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
import tracemalloc
from concurrent.futures import Future
from typing import Any


def ping_pong(count: int) -> dict[str, float]:
    """Median seconds of 100 bytes to another process and back.

    Two processes, two pipes, nothing else.
    """
    there, here = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            for end in (there[1], here[0]):
                os.close(end)
            while data := os.read(there[0], 100):
                os.write(here[1], data)
        finally:
            os._exit(0)
    os.close(there[0])
    os.close(here[1])
    data = b"x" * 100
    times = []
    for _ in range(count):
        start = time.perf_counter()
        os.write(there[1], data)
        os.read(here[0], 100)
        times.append(time.perf_counter() - start)
    os.close(there[1])
    os.waitpid(child, 0)
    os.close(here[0])
    return {"time": statistics.median(times)}


def futures(count: int) -> dict[str, float]:
    """Seconds and bytes of one ``concurrent.futures.Future()`` of ``count`` that are kept."""
    before = resident()
    start = time.perf_counter()
    kept: list[Any] = [Future() for _ in range(count)]
    submit = (time.perf_counter() - start) / count
    rss = (resident() - before) / count
    kept.clear()
    gc.collect()
    few = max(1, count // 20)
    tracemalloc.start()
    traced = tracemalloc.get_traced_memory()[0]
    kept = [Future() for _ in range(few)]
    traced = tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    return {"submit": submit, "rss": rss, "traced": traced / few}


def dropped_futures(count: int) -> dict[str, float]:
    """Seconds of one ``concurrent.futures.Future()`` that is dropped at once, best of ten batches.

    No work for the garbage collector.
    """
    batch = max(1, count // 10)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        for _future in range(batch):
            Future()
        times.append(time.perf_counter() - start)
    return {"submit": min(times) / batch}


def copy(size: int, repeats: int = 5) -> float:
    """Return the seconds of one copy of ``size`` bytes into memory that has been written before (a
    hot ``memcpy``).
    """
    source, target = memoryview(bytearray(b"x" * size)), memoryview(bytearray(size))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        target[:] = source
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
