"""What the tests of the joblib backend call in workers; other environments import this file."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any


class Refused(Exception):
    """What ``refuse`` raises."""


def power(base: int, exponent: int = 2) -> int:
    return base**exponent


def pid(_: object = None) -> int:
    return os.getpid()


def where(_: object = None) -> tuple[str, bool]:
    return sys.prefix, importlib.util.find_spec("joblib") is not None


def refuse(n: int) -> int:
    if n == 3:
        raise Refused(n)
    return n


def fail() -> None:
    raise Refused("to start")


def kind_of_nested(depth: int) -> list[Any]:
    """Return for each level the backend of ``Parallel`` there, and its process."""
    import joblib

    backend = type(joblib.parallel.get_active_backend()[0]).__name__
    if not depth:
        return [(backend, os.getpid())]
    inner = joblib.Parallel(n_jobs=2)(joblib.delayed(kind_of_nested)(depth - 1) for _ in range(2))
    return [(backend, os.getpid()), *inner[0]]


def call_nested(**options: Any) -> list[int]:
    """Call ``Parallel`` with the backend's own name."""
    import joblib

    with joblib.parallel_config(backend="wetlands", **options):
        return list(joblib.Parallel(n_jobs=2)(joblib.delayed(power)(n) for n in (2, 3)))


def describe(array: Any) -> tuple[str, bool, float]:
    return type(array).__name__, bool(array.flags.writeable), float(array.sum())


def place(array: Any) -> int:
    """Return where the memory of an array begins in its file, if it is a block of shared memory."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return int(line.split()[2], 16) + address - begin
    raise AssertionError("the address is not mapped")


def mark(arrays: Any, number: int) -> int:
    arrays["written"][number] += 1
    return int(arrays["written"].sum())
