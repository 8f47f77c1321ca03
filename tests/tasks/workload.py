"""What the tests of tasks run in workers.

Standard library only, Python 3.8 or newer: workers of other environments import this file too.
"""

import functools
import logging
import os
import subprocess
import sys
import threading
import time

# tasks of the tests, under one roof
from tests.contract.workload import append, arrive, arrive_and_raise, die  # noqa: F401

#: Seconds after which a call that waits for the test gives up: the test is long dead then.
LONGEST_WAIT = 60.0


def add(left, right=0):
    return left + right


def note(path, line, result=None):
    """Leave a line in a file: the proof that this call ran."""
    append(str(path), str(line))
    return result


def fail(message="on purpose", kind=ValueError):
    raise kind(message)


def stop_iteration():
    raise StopIteration("no more")


class Holder:
    """Can be weakly referenced, and is large enough to be missed."""

    def __init__(self, size=0):
        self.data = bytes(size)


def hold(size=0):
    return Holder(size)


# ----------------------------------------------------------------------------------------- progress


def report(count, task):
    """Report ``count`` steps, then an output."""
    for step in range(1, count + 1):
        task.update(f"step {step}", current=step, maximum=count)
    task.set_output("steps", count)
    return count


def report_and_arrive(address, label, task, **fields):
    """Report once, then wait for the test."""
    message = fields.pop("message", None)
    task.update(message, **fields)
    return arrive(address, label)


def report_twice(address, task):
    """Report; wait for the test; report something else; wait for the test."""
    task.update("first", current=1, maximum=4)
    task.set_output("a", 1)
    arrive(address, "first")
    task.update("second", current=2)
    task.set_output({"b": [2], "c": {"three": 3}})
    arrive(address, "second")


def flood(count, task):
    """Report as fast as possible.

    Return the seconds per report, and those of an ``os.write`` of 64 bytes.
    """
    began = time.perf_counter()
    for step in range(1, count + 1):
        task.update("step", current=step, maximum=count)
    middle = time.perf_counter()
    fd, line = os.open(os.devnull, os.O_WRONLY), b"x" * 64
    read, write = os.pipe()
    os.set_blocking(read, False)
    writes = min(count, 20000)
    start = time.perf_counter()
    for index in range(writes):
        os.write(write, line)
        if index % 500 == 499:
            os.read(read, 65536)
    spent = time.perf_counter() - start
    for one in (fd, read, write):
        os.close(one)
    return (middle - began) / count, spent / writes


def send_outputs(count, task):
    for number in range(count):
        task.set_output(number, number * number)


# ------------------------------------------------------------------------------------- cancellation


def cooperate(address, label, task, acknowledge=True, result="in time"):
    """Wait for the test, then go on until asked to stop."""
    arrive(address, label)
    deadline = time.monotonic() + LONGEST_WAIT
    while not task.should_stop() and time.monotonic() < deadline:
        time.sleep(0.002)  # the flag is there to be looked at; nothing announces it
    assert task.cancel_requested
    if acknowledge:
        task.cancel()
    return result


def cooperate_by_update(task, acknowledge=True):
    """As ``cooperate``, without a rendezvous: for hosts that must not wait."""
    task.update("ready")
    deadline = time.monotonic() + LONGEST_WAIT
    while not task.should_stop() and time.monotonic() < deadline:
        time.sleep(0.002)
    if acknowledge:
        task.cancel()
    return "stopped"


def acknowledge_and_raise(address, label, task):
    cooperate(address, label, task)
    raise RuntimeError("while stopping")


def acknowledge_unasked(task):
    """Give up by itself."""
    task.cancel()
    return "ignored"


def sleep_on(address, label, path=None):
    """Never look at the request; note a KeyboardInterrupt and pass it on."""
    try:
        arrive(address, label)
        time.sleep(LONGEST_WAIT)
    except KeyboardInterrupt:
        if path is not None:
            append(str(path), "interrupted " + str(label))
        raise
    return "slept"


def swallow_one_interrupt(address, label):
    """Stop at an interrupt in the orderly way: return."""
    try:
        arrive(address, label)
        time.sleep(LONGEST_WAIT)
    except KeyboardInterrupt:
        return "cleaned up"
    return "slept"


def stubborn(address, label, path=None):
    """Swallow every interrupt, with a child process that does the same."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(60)",
        ]
    )
    if path is not None:
        append(str(path), str(child.pid))
    deadline = time.monotonic() + LONGEST_WAIT
    met = False
    while time.monotonic() < deadline:
        try:
            if not met:
                arrive(address, label)
                met = True
            time.sleep(0.05)
        except KeyboardInterrupt:
            if path is not None:
                append(str(path), "interrupted")
    return "slept"


def spin_a_little(microseconds):
    """Keep the interpreter busy, in many small steps, for about this long.

    True if nothing disturbed it.
    """
    end = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < end:
        pass
    return True


# --------------------------------------------------------------------------------------------- time


def unmistakable_name_in_a_stack(seconds):
    time.sleep(seconds)


def hold_the_gil():
    """Keep every other thread of this process out, in C, for ever.

    No signal ends it (``read`` is restarted).
    """
    import ctypes

    read, _write = os.pipe()
    ctypes.PyDLL(None).read(read, ctypes.create_string_buffer(1), 1)  # PyDLL keeps the lock


def stop_for_a_debugger():
    """Stop."""
    breakpoint()  # noqa: T100 - it is what is tested


def hold_the_gil_later(address):
    """Return at once; a thread does ``hold_the_gil`` after it has reported and was released."""

    def wait():
        arrive(address, "in")
        hold_the_gil()

    threading.Thread(target=wait, daemon=True).start()
    return os.getpid()


def sleep_in_c(seconds):
    """Sleep in C, where any signal ends the sleep."""
    import ctypes

    ctypes.CDLL(None).usleep(int(seconds * 1e6))
    return "woken"


def talk(count, pause, how, task):
    """Be busy for ``count * pause`` seconds, saying something in between."""
    for step in range(count):
        time.sleep(pause)  # the subject of the test is time
        if how == "update":
            task.update(current=step)
        elif how == "print":
            print("still here", step)
        elif how == "output":
            task.set_output("step", step)
        elif how == "log":
            logging.getLogger("tests.tasks.talk").warning("still here %d", step)
    return count


def nap(seconds):
    """Keep the worker for this long; only for tests whose subject is time."""
    time.sleep(seconds)
    return seconds


# ------------------------------------------------------------------------------------------ retries


def count_line(path):
    """Add a line and return how many there are."""
    append(str(path), str(os.getpid()))
    with open(str(path)) as file:
        return len(file.readlines())


def fail_until(path, good, kind=OSError):
    """Raise until the ``good``-th try; return the number of the try."""
    count = count_line(path)
    if count < good:
        raise kind(f"try {count}")
    return count


def die_until(path, good, code=9):
    count = count_line(path)
    if count < good:
        os._exit(code)
    return count


def meet_and_fail_until(address, path, good, how):
    """Each try reports to the rendezvous and waits; all but the ``good``-th fail."""
    count = count_line(path)
    arrive(address, f"try {count}")
    if count < good:
        if how == "crash":
            os._exit(9)
        raise OSError(f"try {count}")
    return count


def hang_until(path, good):
    count = count_line(path)
    if count < good:
        time.sleep(LONGEST_WAIT)
    return count


def report_until(path, good, address, task):
    """Each try reports something of its own; all but the last fail."""
    count = count_line(path)
    if count == 1:
        task.update("first try", current=7, maximum=10)
        task.set_output("only first", True)
    else:
        task.set_output("only later", count)
    arrive(address, count)
    if count < good:
        raise OSError(f"try {count}")
    return count


# ------------------------------------------------------------------------------------------ logging


def log(level=logging.WARNING, text="hello %s", *args, name="tests.tasks.remote"):
    logging.getLogger(name).log(level, text, *(args or ("you",)))


def log_exception():
    try:
        raise LookupError("deep inside")
    except LookupError:
        logging.getLogger("tests.tasks.remote").exception("it went wrong")


def log_extra():
    logging.getLogger("tests.tasks.remote").warning(
        "with extra", extra={"patient": 7, "thing": Holder()}
    )


def log_and_die(count=3):
    for number in range(count):
        logging.getLogger("tests.tasks.remote").error("last words %d", number)
    os._exit(3)


def log_in_thread():
    thread = threading.Thread(target=log, kwargs={"text": "from a thread %s"})
    thread.start()
    thread.join()


def log_badly():
    logging.getLogger("tests.tasks.remote").warning("%d things", "no number")


def log_by_handle(message, level, task):
    task.log(message, level)


def is_enabled(level, name="tests.tasks.remote"):
    return logging.getLogger(name).isEnabledFor(level)


def say(text, stream="stdout", end="\n"):
    print(text, file=getattr(sys, stream), end=end)


# ---------------------------------------------------------------------------------------- injection


def wants(task):
    return type(task).__name__, task.id


def wants_optional(value, task=None):
    return value, type(task).__name__


def wants_other_default(task="theirs"):
    return task


def wants_falsy_default(task=0):
    return task


def wants_keyword_only(*, task):
    return type(task).__name__


def wants_by_kwargs(**kwargs):
    return sorted(kwargs)


def wants_var_positional(*task):
    return task


def wants_behind_args(*args, task):
    return args, type(task).__name__


def wants_first(task, value):
    return type(task).__name__, value


def wants_in_the_middle(before, task, after):
    return before, type(task).__name__, after


def wants_positional_only(value, task, /):
    return value, type(task).__name__


def decorate(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def decorate_without_wraps(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@decorate
def wants_decorated(value, task):
    return value, type(task).__name__


@decorate
@decorate
def wants_decorated_twice(value, task):
    return value, type(task).__name__


@decorate_without_wraps
def wants_hidden(value=None, task=None):
    return value, type(task).__name__


@functools.lru_cache(maxsize=None)  # noqa: UP033 - Python 3.8
def wants_cached(value, task):
    return value, type(task).__name__


async def wants_async(value, task):
    import asyncio

    await asyncio.sleep(0)
    task.update("async")
    return value, type(task).__name__


class Wanting:
    """Wants a handle in every way that a class can."""

    def __init__(self, value=0, task=None):
        self.value = value
        self.kind = type(task).__name__

    def method(self, value, task):
        return value, type(task).__name__

    @classmethod
    def of_class(cls, value, task):
        return cls.__name__, value, type(task).__name__

    @staticmethod
    def static(value, task):
        return value, type(task).__name__

    def __call__(self, value, task):
        return value, type(task).__name__


class WantingInNew:
    def __new__(cls, value, task):
        self = super().__new__(cls)
        self.kind = type(task).__name__
        return self

    def __reduce__(self):
        return str, (self.kind,)


# ------------------------------------------------------------------------------------------- handle


def current():
    from wetlands_executor import current_task

    return current_task()


def deep(levels=10):
    """Ask for the task many calls down."""
    if levels:
        return deep(levels - 1)
    handle = current()
    handle.update("deep", current=1, maximum=2)
    return handle.id


def in_thread():
    """Ask for the task in a thread that this call starts."""
    found = []

    def run():
        handle = current()
        handle.update("from a thread")
        handle.set_output("thread", True)
        found.append((handle.id, handle.cancel_requested))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def in_pool():
    from concurrent.futures import ThreadPoolExecutor

    def step(number):
        current().set_output(number, number)
        return current().id

    with ThreadPoolExecutor(3) as pool:
        return set(pool.map(step, range(20)))


KEPT = []


def keep_handle(task):
    """Leave the handle, and a thread that goes on reporting after the call has ended."""
    KEPT.append(task)
    return task.id


def use_kept_handle():
    """Use another call's handle: nothing may happen."""
    handle = KEPT[-1]
    handle.update("from the grave", current=5, maximum=5)
    handle.set_progress(0.5)
    handle.set_output("ghost", 1)
    handle.cancel()
    return handle.cancel_requested, handle.should_stop(), dict(handle.inputs), handle.name


def leave_thread_reporting(task):
    """Return while a thread goes on reporting, until the worker ends."""

    def run():
        step = 0
        while True:
            step += 1
            task.update("from the first call", current=step)
            task.set_output("late", step)
            time.sleep(0.0005)

    threading.Thread(target=run, daemon=True).start()
    return task.id


def describe_handle(first, second=2, *rest, task, **more):
    return task.id, task.name, task.inputs


def report_odd_numbers(task):
    import decimal
    import fractions

    task.update(current=fractions.Fraction(1, 4), maximum=decimal.Decimal("0.5"))


def report_numpy(task):
    import numpy as np

    task.update("numpy", current=np.int64(3), maximum=np.float32(4))
    task.set_progress(np.float64(0.5))
    task.update(current=np.uint8(2), maximum=np.int32(8))


def report_wrongly(task):
    errors = []
    for value in ("3", 2j, [1], object()):
        try:
            task.update(current=value)
        except TypeError as error:
            errors.append(str(error))
    return errors


def report_message(size, task):
    task.update("x" * size, current=1)


def report_object(task):
    task.update(12.5)


def set_unpicklable(task):
    try:
        task.set_output("lock", threading.Lock())
    except TypeError:
        task.set_output("after", "fine")
        return "raised here"
    return "did not raise"


def fraction(values, task):
    for value in values:
        task.set_progress(value)


def consecutive(number, task):
    """Report only what belongs to this number."""
    task.update(f"of {number}", current=number)
    task.set_output("number", number)
    return number


def maybe_report(number, task):
    """Every other call says nothing."""
    if number % 2:
        task.update(f"of {number}", current=number)


def origin_of_package():
    import wetlands_executor

    return getattr(wetlands_executor.__spec__, "origin", None)


# ------------------------------------------------------------------------------------------- stress


def chance(kind, address_or_pause, task):
    """One of many things that a call can do."""
    if kind == "quick":
        return kind
    if kind == "fail":
        raise ValueError(kind)
    if kind == "report":
        for step in range(1, 21):
            task.update("step", current=step, maximum=20)
        task.set_output("done", True)
        return kind
    if kind == "print":
        print("stress")
        return kind
    if kind == "log":
        task.log("stress", logging.DEBUG)
        return kind
    if kind == "die":
        os._exit(5)
    if kind == "nap":
        time.sleep(address_or_pause)
        return kind
    if kind == "cooperate":
        deadline = time.monotonic() + address_or_pause
        while time.monotonic() < deadline:
            if task.should_stop():
                task.cancel()
                return "stopped"
            time.sleep(0.001)
        return kind
    raise AssertionError(kind)
