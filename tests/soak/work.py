"""What the soak runs in workers.

Imported there by name, so standard library only, Python 3.8 or newer (numpy only inside functions).
"""

from __future__ import annotations

import enum
import hashlib
import logging
import os
import signal
import socket
import sys
import threading
import time

from wetlands_executor import current_task

#: Seconds after which a call that waits for the soak gives up: the soak is dead then.
LONGEST_WAIT = 120.0


class Complaint(Exception):
    """An exception with attributes of its own."""

    def __init__(self, number, text="as raised"):
        super().__init__(number, text)
        self.number = number


class OddText(str):
    """A subclass of str, which a reader of plain types must not take for one."""

    __slots__ = ()


class OddError(Exception):
    """Its text is no plain str."""

    def __str__(self):
        return OddText("odd text")


class Level(enum.IntEnum):
    """Integers that are no plain int."""

    LOW = 3
    HIGH = 40


class Token:
    """An object that is compared by its content."""

    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        return type(other) is Token and other.content == self.content

    def __hash__(self):
        return hash(self.content)


class Sour:
    """Raises when it is unpickled.

    Where, is for `place` to say ("here" is the process that has pickled it).
    """

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return _unpickle_sour, (self.place, os.getpid())


def _unpickle_sour(place, pid):
    if (pid == os.getpid()) is (place == "here"):
        raise ValueError("sour")
    return Sour(place)


class Lock:
    """Cannot be pickled."""

    def __init__(self):
        self.lock = threading.Lock()


def add(left, right=0):
    return left + right


def echo(value):
    return value


def complain(number):
    raise Complaint(number)


def complain_oddly():
    raise OddError(7)


def give_lock():
    return Lock()


def give_sour():
    return Sour("elsewhere")


def hold(address, value=None):
    """Report the process to the soak and wait until it says go on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(LONGEST_WAIT)
        try:
            line.connect(address)
            line.sendall(f"{os.getpid()}\n{str(value)[:10]!r}\n".encode())
            line.recv(1)
        except (ConnectionError, FileNotFoundError):
            pass
    return value


def hold_politely(address, task):
    """Wait until asked to stop, and say so."""
    hold(address, "polite")
    began = time.monotonic()
    while not task.cancel_requested:
        if time.monotonic() - began > LONGEST_WAIT:
            return "never asked"
        time.sleep(0.002)
    task.cancel()
    return "asked"


def hold_deafly(address):
    """Swallow one interrupt and finish."""
    try:
        hold(address, "deaf")
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        return "interrupted"


def die(way):
    """End this process in one of several ways."""
    if way == "exit":
        os._exit(3)
    if way == "zero":
        os._exit(0)
    if way == "abort":
        os.abort()
    os.kill(os.getpid(), getattr(signal, way))
    time.sleep(LONGEST_WAIT)


def die_until(path, attempts, value):
    """Crash in the first attempts, counted by the size of a file."""
    with open(path, "ab") as file:
        file.write(b".")
    if os.path.getsize(path) < attempts:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(LONGEST_WAIT)
    return value


def die_with_child():
    """Leave a grandchild, then die."""
    pid = os.fork()
    if pid == 0:
        time.sleep(LONGEST_WAIT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def fork_and_reap(value):
    """Fork, let the child exit, return."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    return value, os.WEXITSTATUS(status)


def in_threads(numbers):
    """Work in threads, which report progress."""
    results = {}

    def work(number):
        current_task().update(f"thread {number}")
        results[number] = number * number

    threads = [threading.Thread(target=work, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results.items())


def report(steps, task):
    """Report progress in odd types, and odd outputs."""
    for step in range(1, steps + 1):
        task.update(OddText(f"step {step}"), current=Level(3) if step == 3 else step, maximum=steps)
    task.set_output("token", Token(("a", steps)))
    task.set_output("name", os.fsdecode(b"\xff.tif"))
    task.set_output("level", Level.HIGH)
    return steps


def log(name, text):
    """Log records with values of classes that another environment may lack."""
    import decimal

    logger = logging.getLogger(name)
    extra = {
        "level_of": Level.HIGH,
        "odd": OddText("odd"),
        "token": Token(1),
        "money": decimal.Decimal("1.5"),
        "surrogate": "\udcff",
    }
    try:
        import numpy as np

        extra.update(number=np.float64(1.5), array=np.arange(3))
    except ImportError:
        pass

    class Local:
        def __str__(self):
            return "local"

    extra["local"] = Local()
    logger.warning("%s %s", text, Level.LOW, extra=extra)
    try:
        raise OddError(3)
    except OddError:
        logger.exception("%s failed", text, extra={"cause": OddError(1)})
    return text


def say(text, lines):
    """Print lines, on both streams, with characters that not every stream knows."""
    for number in range(lines):
        print(f"{text} {number} \u00e9\u4e2d\U0001f40d")
    print(f"{text} err", file=sys.stderr)
    return lines


def digest(data):
    return hashlib.sha256(data).hexdigest()


def scale(array, factor):
    """Change an array in place and return it: the caller's is its own."""
    array *= factor
    return array


def summarize(array):
    return type(array).__name__, str(array.dtype), array.shape, float(array.sum())


def make_array(shape, dtype, value):
    import numpy as np

    return np.full(shape, value, dtype)


def zeros_into_inherited():
    """Write zeros into every descriptor that this process has not opened itself, as stray code may.
    """
    for number in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("/memfd:"):
                os.write(number, bytes(4096))
        except OSError:
            continue
    return "written"


def unblock_inherited():
    """Make every inherited descriptor non-blocking.

    The flag is shared with the processes that have inherited it too.
    """
    for number in range(3, 64):
        try:
            os.set_blocking(number, False)
        except OSError:
            continue
    return "unblocked"


def leave_alarm():
    """Leave a timer behind whose handler raises."""

    def ring(_number, _frame):
        raise TimeoutError("an alarm of a finished task")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    return "left"


def leave_thread(seconds):
    """Leave a thread behind that reports for whatever runs then."""
    task = current_task()

    def later():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            current_task().update("from a thread that was left behind")
            task.update("from a thread that was left behind")
            current_task().set_output("stray", 1)
            time.sleep(0.005)

    threading.Thread(target=later, daemon=True).start()
    return "left"


def quiet_progress(steps, task):
    """Report what nothing else reports; return it."""
    for step in range(steps):
        task.update(f"own {step}", current=step + 1, maximum=steps)
        time.sleep(0.002)
    return steps


def census():
    """Count threads, descriptors and mappings of this worker, beside those of the first census of
    it.
    """
    found = {
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mappings": len(open("/proc/self/maps").readlines()),
    }
    return os.getpid(), _first_census.setdefault("it", found), found


_first_census = {}
