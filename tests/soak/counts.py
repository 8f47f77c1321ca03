"""Counts of what a process holds, before and after."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.support import leaks

#: Megabytes by which a round may leave the process larger than an earlier one: allocators keep
#: some.
MEMORY = 32
#: Of ``mallopt``, as the header of the C library of GNU has them.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def keep_memory_comparable() -> None:
    """Have the C library give large blocks back when they are freed, and keep one heap for all
    threads.

    Else it keeps a heap per thread, and blocks of up to 32 MB in each: this process would grow for
    minutes without holding anything.
    """
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except AttributeError:
            return  # not the C library of GNU
        mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        mallopt(_M_ARENA_MAX, 1)


@dataclass(frozen=True)
class Counts:
    """What this process holds.

    Attributes:
        threads: of Python and of others.
        descriptors: open ones.
        processes: below this one, zombies included.
        mappings: lines of its memory map.
        memory: its own resident memory in megabytes, shared memory included.
        objects: tracked by the collector.
    """

    threads: int
    descriptors: int
    processes: int
    mappings: int
    memory: int
    objects: int

    @classmethod
    def take(cls) -> Counts:
        """Count, after collecting garbage and giving free memory back to the system."""
        gc.collect()
        if sys.platform == "linux":
            try:
                ctypes.CDLL(None).malloc_trim(0)
            except AttributeError:
                pass  # not the C library of GNU
        process = psutil.Process()
        maps = Path("/proc/self/maps")
        return cls(
            threads=max(threading.active_count(), process.num_threads()),
            descriptors=len(os.listdir("/proc/self/fd")) if maps.exists() else process.num_fds(),
            processes=len(leaks.descendants()),
            mappings=len(maps.read_text().splitlines()) if maps.exists() else 0,
            memory=process.memory_info().rss // 2**20,
            objects=len(gc.get_objects()),
        )

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


def growth(before: Counts, after: Counts) -> list[str]:
    """Compare the counts after a round with those after an earlier one.

    Return what has grown too much.

    Threads, descriptors and processes may not grow at all. Mappings, memory and objects may by what
    an allocator or a cache keeps.
    """
    slack = {
        "threads": 0,
        "descriptors": 0,
        "processes": 0,
        "mappings": 150,
        "memory": MEMORY,
        "objects": 20_000,
    }
    found = []
    for name, old in asdict(before).items():
        new = asdict(after)[name]
        if new > old + slack[name]:
            found.append(f"{name} have grown from {old} to {new}")
    return found
