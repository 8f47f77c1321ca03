"""Functions that the tests of the worker submit.

Python 3.8, standard library only: they run in every environment.
"""

import logging
import os
import sys


class Thing:
    """A class that both sides can import."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is type(self) and other.value == self.value

    def __hash__(self):
        return hash(self.value)


class Unfit(Exception):
    """An error whose init wants other arguments than it has."""

    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def version():
    return sys.version_info[:3]


def pid():
    return os.getpid()


def echo(*args, **kwargs):
    return args, kwargs


def thing(value=1):
    return Thing(value)


def fail(message):
    raise ValueError(message)


def fail_unfit(code, detail):
    raise Unfit(code, detail=detail)


def shout(out, err):
    sys.stdout.write(out)
    sys.stderr.write(err)


def log(name, message):
    logging.getLogger(name).warning(message)


async def coroutine(value):
    import asyncio

    await asyncio.sleep(0)
    return value


def square(x):
    return x * x


def pooled(values):
    """Use a multiprocessing pool inside the task."""
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(square, values)


def spawned(values):
    """As ``pooled``, with children that import everything anew."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(square, values)


def put(queue, value):
    queue.put(value)
    return os.getpid()


def wait_for(path_of_fifo, path_of_answer):
    """Say that it runs, then wait until the other side opens the second pipe."""
    with open(path_of_fifo, "w") as stream:
        stream.write(str(os.getpid()))
    with open(path_of_answer) as stream:
        return stream.read()


def loaded():
    return sorted(
        name
        for name in sys.modules
        if name.partition(".")[0] in ("cloudpickle", "wetlands_executor", "psutil")
    )


def standard_input():
    return input()


def descriptors_are_closed_on_exec():
    """Return the descriptors above 2 that a command of the task would inherit."""
    folder = "/proc/self/fd"
    return [
        fd
        for fd in map(int, os.listdir(folder))
        if fd > 2 and os.path.exists(f"{folder}/{fd}") and os.get_inheritable(fd)
    ]
