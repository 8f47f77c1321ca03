"""What the benchmarks call.

The same functions for every system, imported by its workers under this name.

Nothing heavy is imported here: workers that import this module when they start would pay for it.
"""

from __future__ import annotations

import os
import time


def nothing() -> None:
    """Return at once."""


def same(value):
    return value


def length(data: bytes) -> int:
    return len(data)


def nap(seconds: float) -> None:
    """Hold a worker without a processor."""
    time.sleep(seconds)


def spin(seconds: float) -> None:
    """Hold a worker and a processor, for a time and not for a number of steps.

    It is the same on a slow machine.
    """
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def fit(data: object, seconds: float) -> int:
    """Use data and a processor."""
    spin(seconds)
    return len(data)  # type: ignore[arg-type]


def work(kind: str, seconds: float) -> None:
    """Nap or spin."""
    (nap if kind == "nap" else spin)(seconds)


def hold(path: str) -> None:
    """Hold a worker until this named pipe was opened for writing and closed."""
    with open(path, "rb") as stream:
        stream.read()


def await_death(path: str) -> None:
    """Tell the pid through a named pipe, then wait to be killed.

    Who is run again after that dies at once: the cause persists.
    """
    if os.path.exists(path + ".again"):
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
    with open(path, "w") as stream:
        stream.write(str(os.getpid()))
    time.sleep(600)


def clock() -> int:
    """Return when the function ran, in nanoseconds on the clock that all processes share."""
    return time.monotonic_ns()


def import_numeric() -> None:
    """Import what ``preload`` imports; for systems that have an initializer instead."""
    import numpy as np  # noqa: F401
    import scipy.ndimage  # noqa: F401


def use_numeric(path: str) -> None:
    """Use both packages, so that what they load lazily is loaded, then hold the worker."""
    import numpy as np
    import scipy.ndimage

    scipy.ndimage.gaussian_filter(np.ones((8, 8)), 1)
    hold(path)


class Thing:
    """What a module defines: compare ``script.Thing``."""

    def __init__(self, value):
        self.value = value

    def method(self):
        return None


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
    """Return the seconds of one progress report."""
    start = time.perf_counter()
    for number in range(count):
        task.update("busy", current=number, maximum=count)
    return (time.perf_counter() - start) / count


def time_nested(count: int, task=None) -> float:
    """Return the median seconds of a call that is submitted here and waited for."""
    submit = task.executor.submit
    found = []
    for number in range(count + 20):  # the first ones start a worker
        start = time.perf_counter()
        submit(same, number).result()
        found.append(time.perf_counter() - start)
    return sorted(found[20:])[count // 2]


def time_nested_array(size: int, task=None) -> float:
    """Return the median seconds of a call that is given an array of so many bytes here."""
    import numpy as np

    array = np.ones(size // 8)
    found = []
    for _ in range(7):
        start = time.perf_counter()
        task.executor.submit(touch, array).result()
        found.append(time.perf_counter() - start)
    return sorted(found)[3]


def touch(array):
    """Read one element of each page."""
    return float(array[:: 4096 // array.itemsize].sum())


def total(array):
    return float(array.sum())


def write(array):
    """Write all, in place."""
    array += 1


_given = {}


def give(count):
    """Return an array that was there before."""
    import numpy as np

    if count not in _given:
        _given[count] = np.arange(float(count))
    return _given[count]


def back(array):
    """Return the argument, written in full."""
    array += 1
    return array


def take(value) -> None:
    """Take an argument and do nothing with it."""
