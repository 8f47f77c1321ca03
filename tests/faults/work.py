"""What the fault tests run in workers.

Standard library only, Python 3.8 or newer; the victims and the culprits live here.
"""

# ruff: noqa: UP031, FURB - the text of an old Python, on purpose

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time

from tests.contract.workload import append

#: Seconds after which something that waits for the test gives up: the test is long dead then.
LONGEST_WAIT = 60.0


# --------------------------------------------------------------------------------------- the faults


def fault(kind):
    """Do the worst: ``raise``, ``sys_exit``, ``os_exit`` or ``segfault``."""
    if kind == "raise":
        raise ZeroDivisionError("fault")
    if kind == "sys_exit":
        sys.exit(3)
    if kind == "os_exit":
        os._exit(5)
    if kind == "segfault":
        ctypes.string_at(0)
    raise AssertionError(kind)


class FaultWhenPickled:
    """A fault in whatever process pickles it."""

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return fault(self.kind)


class FaultWhenUnpickled:
    """A fault in whatever process unpickles it."""

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return fault, (self.kind,)


def make(cls, *args):
    """Return a new object; pickling it as the result is another matter."""
    return cls(*args)


def same(value):
    return value


def ignore(value):
    """Take an argument and return nothing."""


# ------------------------------------------------------------------------------ rendezvous the test


def announce(address, label=""):
    """Report to a rendezvous, and go on without waiting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(address)
        line.sendall(f"{os.getpid()}\n{label}\n".encode())


def journal(path, number):
    """Note that this call ran."""
    append(path, str(number))
    return number


def pid():
    return os.getpid()


# ------------------------------------------------------------------------------------------- memory


def limit_memory(size):
    """Let this process have at most ``size`` bytes of address space more than now."""
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + size, used + size))


def blob(size):
    return b"x" * size


def blob_and_die(size):
    """Return a large result through the pipe, and SIGKILL this process when a tenth of it has been
    written.
    """
    # as where there is no shared memory
    sys.modules["_wetlands_worker.running"].main_loop.carries = False

    def watch():
        start = written()
        while written() - start < size // 10:
            time.sleep(0.0005)  # looks at a counter of the kernel; nothing announces it
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return b"x" * size


def written():
    """Return the number of bytes that this process has written."""
    with open("/proc/self/io") as file:
        for line in file:
            if line.startswith("wchar:"):
                return int(line.split()[1])
    raise AssertionError


# ------------------------------------------------------------------------------------------- output


def say(*lines, end="\n", stream="stdout"):
    for line in lines:
        print(line, end=end, file=getattr(sys, stream))
    return len(lines)


def say_both(text):
    print(text)
    print(text, file=sys.stderr)
    return text


def write_bytes(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def flood(count, width=50, stream="stdout"):
    """Print ``count`` numbered lines."""
    out = getattr(sys, stream)
    for number in range(count):
        out.write("%d %s\n" % (number, "x" * width))
    return count


def say_arrive_and_flood(address, count):
    """Print a line, wait for the test, print ``count`` more."""
    from tests.contract.workload import arrive

    print("-1 before", flush=True)
    arrive(address)
    return flood(count)


def announce_and_flood(address):
    announce(address)
    flood(10**9)


def flood_and_segfault(count):
    flood(count, stream="stderr")
    ctypes.string_at(0)


def close_stream(name):
    getattr(sys, name).close()


def detach_stream(name):
    getattr(sys, name).detach()


def replace_stream(name, kind):
    """Put an object into ``sys.stdout`` whose every method raises ``kind``."""

    class Broken:
        closed = False

        def write(self, text):
            raise kind("write")

        def flush(self):
            raise kind("flush")

    setattr(sys, name, Broken())


def forget_stream(name):
    setattr(sys, name, None)


def open_and_write(path, text):
    """Return the number of the descriptor that a file gets, and write into it."""
    with open(path, "w") as file:
        file.write(text)
        return file.fileno()


def open_forever(path):
    """Leave a file open on whatever descriptor is free."""
    return os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)


def close_fd(number):
    os.close(number)


def subprocess_says(text):
    import subprocess

    subprocess.run([sys.executable, "-c", f"print({text!r})"], check=True)


def threads_say(count, lines):
    def run(number):
        for line in range(lines):
            print("thread %d line %d" % (number, line))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pieces_then_arrive(address, first, second, label):
    """Write half a line, wait for the test, write the other half."""
    from tests.contract.workload import arrive

    sys.stdout.write(first)
    sys.stdout.flush()
    arrive(address, label)
    sys.stdout.write(second + "\n")


# -------------------------------------------------------------------------- children, threads, exit


def fork_and_return():
    """Return twice, once in a child."""
    child = os.fork()
    return ("child" if child == 0 else "parent", os.getpid())


def fork_and_exit(code):
    child = os.fork()
    if child == 0:
        os._exit(code)
    return os.WEXITSTATUS(os.waitpid(child, 0)[1])


def fork_and_sys_exit():
    """The child leaves the task by SystemExit."""
    child = os.fork()
    if child == 0:
        sys.exit(9)
    return os.waitpid(child, 0)[1]


def fork_and_raise():
    child = os.fork()
    if child == 0:
        raise ValueError("of the child")
    return os.waitpid(child, 0)[1]


def fork_and_linger(address):
    """Leave a child behind that holds everything it inherited."""
    child = os.fork()
    if child == 0:
        announce(address, "lingering")
        while True:
            signal.pause()
    return child


def leave_subprocess():
    """Leave a command running; its standard streams are ours."""
    import subprocess

    return subprocess.Popen(["sleep", "600"]).pid


def leave_stubborn_subprocess(address):
    """Leave a command running that ignores what it can, then be busy for ever."""
    import subprocess

    code = (
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; "
        "time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    announce(address, str(child.pid))
    time.sleep(LONGEST_WAIT)


def _put(queue, value):
    queue.put(value)


def use_multiprocessing(method):
    import multiprocessing

    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=_put, args=(queue, "from below"))
    process.start()
    value = queue.get()
    process.join()
    return value, process.exitcode


def leave_thread():
    """Leave a non-daemon thread that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=False).start()


def hang_at_exit():
    import atexit

    atexit.register(threading.Event().wait)


def note_at_exit(path):
    import atexit

    atexit.register(append, path, "exit")


def become_another_program():
    os.execvp("sleep", ["sleep", "600"])


def hold_gil(seconds, address, label=""):
    """Announce, then keep the interpreter lock in C code."""
    announce(address, label)
    ctypes.PyDLL(None).sleep(int(seconds))


def spin(address, label=""):
    """Announce, then be busy in Python."""
    announce(address, label)
    end = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < end:
        pass


# ----------------------------------------------------------------------------- signals, descriptors


def replace_signal_handlers():
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGALRM,
        signal.SIGCHLD,
        signal.SIGPIPE,
    ):
        signal.signal(number, signal.SIG_IGN)


def python_sigint():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def block_all_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))


def sleep_until_interrupted(address, label=""):
    """Announce, sleep, and say whether Ctrl-C came."""
    announce(address, label)
    try:
        time.sleep(LONGEST_WAIT)
    except KeyboardInterrupt:
        return "interrupted"
    return "slept"


def arrive_twice(address, label):
    """Report, get interrupted, report again."""
    from tests.contract.workload import arrive

    try:
        arrive(address, label)
    except KeyboardInterrupt:
        return arrive(address, "again")
    return "not interrupted"


def exhaust_descriptors(limit):
    import resource

    resource.setrlimit(
        resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    found = []
    try:
        while True:
            found.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        number = error.errno
    return number, len(found)


def close_range(first, last):
    os.closerange(first, last)


def close_range_and_open(first, last, path):
    """Close all, then open files, which get the numbers of what was closed; then wait."""
    os.closerange(first, last)
    for number in range(first, last):
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if number > 20:
            break


# --------------------------------------------------------------------------------------- exceptions


class BadStr(Exception):
    def __str__(self):
        raise RuntimeError("no str")


class BadRepr(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class BadReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("no reduce")


class ExitingReduce(Exception):
    def __reduce__(self):
        raise SystemExit("no reduce")


class ExitsWhenUnpickled(Exception):
    def __reduce__(self):
        return sys.exit, ("no object",)


class InterruptsWhenUnpickled(Exception):
    def __reduce__(self):
        return interrupt, ()


def interrupt():
    raise KeyboardInterrupt("while unpickling")


class Unpicklable(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class TwoArguments(Exception):
    """Its ``__init__`` does not accept its own ``args``."""

    def __init__(self, code, detail):
        super().__init__("%s: %s" % (code, detail))
        self.code = code
        self.detail = detail


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__()
        self.code = code


class BadAttributes(Exception):
    """Looking at an unknown attribute raises an exception."""

    def __getattribute__(self, name):
        if name in ("args", "__dict__", "__notes__"):
            raise RuntimeError("no %s" % name)
        return super().__getattribute__(name)


def throw(cls, *args, **kwargs):
    raise cls(*args, **kwargs)


def throw_local(message):
    """Raise an exception of a class that exists only here."""

    class Local(Exception):
        pass

    raise Local(message)


def throw_of_made_module(message):
    """Raise an exception of a module that only this worker has."""
    import types

    module = sys.modules["only_here"] = types.ModuleType("only_here")
    exec("class OnlyHere(Exception): pass", module.__dict__)
    raise module.OnlyHere(message)


def throw_group():
    from tests.contract.workload import Reduced

    inner = ExceptionGroup("inner", [KeyError("k"), Reduced(7, "seven")])  # noqa: F821
    raise ExceptionGroup("outer", [ValueError(1), inner])  # noqa: F821


def throw_picky_group():
    raise ExceptionGroup("outer", [TwoArguments(7, "seven")])  # noqa: F821


def throw_noted(*notes):
    error = ValueError("noted")
    for note in notes:
        error.add_note(note)
    raise error


def throw_huge(size):
    raise ValueError("x" * size)


def throw_circular():
    error = ValueError("circle")
    error.itself = error
    error.__cause__ = KeyError("cause")
    raise error


def nest(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


def recurse():
    return recurse()


class Deep:
    """A linked object: its pickling recurses."""

    def __init__(self, depth):
        self.next = Deep(depth - 1) if depth else None


def deep(depth):
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 20 * depth))
    return Deep(depth)


def fail_to_initialize(cls, *args):
    raise cls(*args)


def die_soon(path):
    """Initializer: note this start; end the process as soon as the worker is ready and idle."""
    append(path, str(os.getpid()))

    def watch():
        # The runner blocks in read() on its inbox when it is ready; /proc tells the call.
        me = "/proc/self/task/%d/wchan" % os.getpid()
        end = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < end:
            with open(me) as file:
                if "pipe" in file.read():
                    break
            time.sleep(0.001)
        os._exit(4)

    threading.Thread(target=watch, daemon=True).start()


# --------------------------------------------------------------------------------- a shared preload


def environment(seconds):
    """Return (pid, variables) after a while in which other workers take other calls."""
    time.sleep(seconds)
    return os.getpid(), dict(os.environ)


def draw():
    """Return numbers of the generators that a fork copies."""
    import random

    import numpy as np

    return random.random(), float(np.random.rand()), float(np.random.default_rng().random())


def log_and_print(number):
    import logging

    logging.getLogger("work").warning("logged %d", number)
    print("printed %d" % number)


class Thing:
    """Something to finalize."""


_kept = []


def register_hooks(path):
    """Register what has to happen when this process ends; return its pid."""
    import atexit
    import weakref

    atexit.register(append, path, "task hook %d" % os.getpid())
    _kept.append(Thing())
    weakref.finalize(_kept[-1], append, path, "task finalizer %d" % os.getpid())
    return os.getpid()


def sleep_deep(seconds):
    time.sleep(seconds)


# ------------------------------------------------------------------------------------------- alarms


class Alarm(Exception):
    """Raised by the handlers below."""


def raise_alarm(_number, _frame):
    raise Alarm("of another task")


_SIGNALS = {"ITIMER_REAL": "SIGALRM", "ITIMER_VIRTUAL": "SIGVTALRM", "ITIMER_PROF": "SIGPROF"}


def leave_timer(name, interval):
    signal.signal(getattr(signal, _SIGNALS[name]), raise_alarm)
    signal.setitimer(getattr(signal, name), interval, interval)


def burn(seconds):
    """Use the processor, so that timers of its time go on as well."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "burnt"


def leave_alarm(raises):
    if raises:
        signal.signal(signal.SIGALRM, raise_alarm)
    signal.alarm(1)


def leave_watchdog(seconds):
    import faulthandler

    faulthandler.dump_traceback_later(seconds, exit=True)


def leave_alarm_or_burn(seconds):
    if not seconds:
        return burn(0.15)
    signal.signal(signal.SIGALRM, raise_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return "left"


def be_interrupted_by_alarm():
    signal.signal(signal.SIGALRM, raise_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    return burn(60)


_ticks = []


def count_ticks():
    signal.signal(signal.SIGALRM, lambda _number, _frame: _ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)


def ticks():
    return len(_ticks)


_thread_errors = []
_go = threading.Event()


def leave_thread_that_sets_alarm():
    def late():
        _go.wait(30)
        try:
            signal.alarm(1)
        except RuntimeError as error:
            _thread_errors.append(str(error))

    _thread_errors.append(threading.Thread(target=late))
    _thread_errors[0].start()


def error_of_that_thread():
    _go.set()
    _thread_errors.pop(0).join()
    return _thread_errors.pop()


def leave_thread_that_raises(way):
    import ctypes

    main = threading.main_thread().ident
    signal.signal(signal.SIGUSR1, raise_alarm)

    def late():
        for _ in range(100):
            time.sleep(0.002)
            if way == "signals":
                signal.pthread_kill(main, signal.SIGUSR1)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(main), ctypes.py_object(Alarm)
                )

    threading.Thread(target=late).start()


def install_handler(name):
    signal.signal(getattr(signal, name), raise_alarm)


def has_handler(name):
    return signal.getsignal(getattr(signal, name)) is raise_alarm


# --------------------------------------------------------------------------------- beside a culprit


def arrive_quietly(address):
    from tests.contract.workload import arrive

    arrive(address)


def arrive_and_journal(address, path, number):
    """Wait for the test, then note that this call ran."""
    from tests.contract.workload import arrive

    arrive(address)
    return journal(path, number)
