"""What the contract suite runs in workers: functions that are imported there by name.

Standard library only, Python 3.8 or newer: a worker of another environment imports this file too.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

#: Seconds after which a call that waits for the test gives up: the test is long dead then.
LONGEST_WAIT = 60.0

STATE = {"initialized": None}


def arrive(address, value=None):
    """Report to the test's rendezvous, wait until it says go on, and return ``value``.

    The test decides when: no sleep, no polling. A rendezvous that is over (or was opened) lets
    every task pass.
    """
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as line:
        line.settimeout(LONGEST_WAIT)
        try:
            line.connect(address)
            line.sendall(f"{os.getpid()}\n{value}\n".encode())
            line.recv(1)
        except ConnectionError:
            pass
        except FileNotFoundError:
            pass
    return value


def arrive_and_raise(address, value=None):
    """Report to the rendezvous, then fail."""
    arrive(address, value)
    raise ValueError(value)


def arrive_ignoring_interrupts(address, value=None):
    """Report to the rendezvous like ``arrive``; KeyboardInterrupt is swallowed."""
    while True:
        try:
            return arrive(address, value)
        except KeyboardInterrupt:
            continue


def identity(value):
    """Return the argument."""
    return value


def describe(*args, **kwargs):
    """Return the arguments as they arrived."""
    return args, kwargs


def multiply(x, y):
    return x * y


def pid(_=None):
    return os.getpid()


def thread_name():
    return threading.current_thread().name


def is_main_thread():
    return threading.current_thread() is threading.main_thread()


# ------------------------------------------------------------------------------------- initializers


def remember(value, journal=None):
    """Initializer: note the value in this process, and this process in a journal."""
    STATE["initialized"] = value
    if journal is not None:
        append(journal, f"{os.getpid()} {threading.get_ident()}")


def remembered(_=None):
    return STATE["initialized"]


def fail_to_initialize(message):
    raise OSError(message)


def append(path, line):
    """Append one line in a single write, so that lines of several processes do not mix."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, (line + "\n").encode())
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------------- errors


class Plain(Exception):
    """An exception as most are."""


class Root(BaseException):
    """An exception beside ``Exception``."""


class Reduced(Exception):
    """Has a signature of its own, and says how to rebuild it."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self):
        return type(self), (self.code, self.detail)


class Picky(Exception):
    """Has a signature of its own, and says nothing: unpickling it raises a TypeError."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


class Unpicklable(Exception):
    """Holds something that no pickle takes."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


def throw(exception):
    """Raise the given exception."""
    raise exception


def throw_new(cls, *args):
    """Raise an exception made here."""
    raise cls(*args)


def throw_from(message):
    """Raise an exception with a cause."""
    try:
        int(message)
    except ValueError as error:
        raise Plain(message) from error


def throw_noted(message, *notes):
    """Raise an exception with notes (Python 3.11)."""
    error = Plain(message)
    for note in notes:
        error.add_note(note)
    error.extra = {"answer": 42}
    raise error


def throw_group():
    """Raise a nested exception group (Python 3.11)."""
    inner = ExceptionGroup("inner", [KeyError("k"), Reduced(7, "seven")])  # noqa: F821
    raise ExceptionGroup("outer", [ValueError(1), inner])  # noqa: F821


def exit_with(code):
    sys.exit(code)


def die(code=7):
    """End the process without a word."""
    os._exit(code)


class PickleRaises:
    """Cannot be pickled: raises an error of its own."""

    def __reduce__(self):
        raise ZeroDivisionError("no pickle of me")


class UnpickleRaises:
    """Can be pickled; unpickling it raises an error."""

    def __reduce__(self):
        return throw_new, (ZeroDivisionError, "no object of me")


class UnpickleRaisesElsewhere:
    """Can be unpickled only in the process that pickled it."""

    def __init__(self, home=None):
        self.home = os.getpid() if home is None else home

    def __reduce__(self):
        return _only_at, (self.home,)


def _only_at(home):
    if os.getpid() != home:
        raise ZeroDivisionError("not at home")
    return UnpickleRaisesElsewhere(home)


def new(cls, *args):
    """Return a new instance of ``cls``."""
    return cls(*args)


def lock():
    """Return what cannot be pickled."""
    return threading.Lock()


class Thing:
    """An object that can be weakly referenced."""

    def __init__(self, value=None):
        self.value = value

    def method(self):
        return self.value

    def __eq__(self, other):
        return type(other) is Thing and other.value == self.value

    def __hash__(self):
        return hash(self.value)

    @classmethod
    def make(cls, value):
        return cls(value)

    @staticmethod
    def double(value):
        return 2 * value


class Partner:
    """A callable object."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value):
        return self.factor * value


# --------------------------------------------------------------------------------------------- data


def blob(size, fill):
    return bytes([fill]) * size


def checksum(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


def sort_out(data):
    """Return the data again, with its length."""
    return len(data), data


# ------------------------------------------------------------------------------------------- nested


def in_threads(count):
    """Use an executor of threads inside a task."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as executor:
        return sum(executor.map(abs, range(-count, 0)))


def in_processes(count):
    """Use an executor of processes inside a task."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return sum(executor.map(abs, range(-count, 0))), executor.submit(
            os.getpid
        ).result() != os.getpid()


def in_conda_workers(count):
    """Use our executor inside a task."""
    from wetlands_executor import CondaEnvExecutor

    with CondaEnvExecutor(max_workers=1) as executor:
        return sum(executor.map(abs, range(-count, 0))), executor.submit(
            os.getpid
        ).result() != os.getpid()


# ----------------------------------------------------------------------------------------- managers


def put(queue, value):
    queue.put(value)


def get(queue):
    return queue.get(timeout=LONGEST_WAIT)


def wait_for(event):
    return event.wait(LONGEST_WAIT)


# -------------------------------------------------------------------------------------------- async


async def async_multiply(x, y):
    """Suspend once, then return."""
    import asyncio

    await asyncio.sleep(0)
    return x * y


async def async_throw(message):
    raise Plain(message)


async def async_gather(count):
    """Run several coroutines of its own."""
    import asyncio

    return await asyncio.gather(*(async_multiply(i, i) for i in range(count)))


def spend(seconds):
    """Keep the worker for this long; only for tests whose subject is time."""
    time.sleep(seconds)
    return seconds
