"""What the benchmarks call. Imported by every executor's workers alike."""

from __future__ import annotations

import os
import time


def nothing() -> None:
    pass


def same(value):
    return value


def time_writes(count: int) -> float:
    """Return the seconds of one ``os.write`` (or ``os.read``) of 64 bytes on a pipe."""
    read, write = os.pipe()
    data = b"x" * 64
    start = time.perf_counter()
    for _ in range(count):
        os.write(write, data)
        os.read(read, 64)
    taken = time.perf_counter() - start
    os.close(read)
    os.close(write)
    return taken / count / 2


def time_updates(count: int, task=None) -> float:
    start = time.perf_counter()
    for number in range(count):
        task.update("busy", current=number, maximum=count)
    return (time.perf_counter() - start) / count
