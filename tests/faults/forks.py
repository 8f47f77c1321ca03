"""Programs whose process forks where it may: each child uses a new executor on all its threads.

Run as ``python -m tests.faults.forks NAME SEED [ARGUMENT]``; prints the exit codes of the children.
A child that is not well ends with 1 (it hangs, and has shown its threads), 3 or 4 (it has shown
why).
"""

from __future__ import annotations

import faulthandler
import gc
import io
import logging
import os
import random
import signal
import sys
import threading
import traceback
import warnings

from wetlands_executor import CondaEnvExecutor, threads

#: Seconds that a wait of a child may take; after more of them it shows its threads and ends.
DEADLINE = 20.0

children: list[int] = []


def use(fill: bool = False) -> bool:
    """Use a new executor on this thread and on others; True if all was right."""
    found: list[int] = []
    summand = 5
    if fill:
        threads.starting.add(None)  # as if a thread of a pool were starting all the time

    def submit() -> None:
        found.append(executor.submit(pow, 2, 3).result(DEADLINE))

    with CondaEnvExecutor(max_workers=1) as executor:
        submit()
        found.append(executor.submit(lambda: summand + 3).result(DEADLINE))
        users = [threading.Thread(target=submit) for _ in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
    return found == [8] * 6


def fork(fill: bool = False) -> None:
    """Fork a child that uses an executor."""
    pid = os.fork()
    if pid:
        children.append(pid)
        return
    try:
        faulthandler.dump_traceback_later(DEADLINE + 5, exit=True)
        os._exit(0 if use(fill) else 3)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(4)


# -------------------------------------------------------------------------------- where


def pool_thread(_rng: random.Random, place: str) -> None:
    """Fork on a thread of a pool: where the collector runs a finalizer, or a callback runs."""
    with CondaEnvExecutor(max_workers=1) as executor:
        executor.submit(pow, 2, 3).result(DEADLINE)
        pool, done = executor._pool, threading.Event()
        put = {
            "io": pool.post,
            "output": pool.output.thread.put,
            "start": pool.starter.thread.put,
            "callbacks": pool.callbacks.put,
        }[place]

        def act() -> None:
            fork()
            fork(fill=True)
            done.set()

        put(act)
        assert done.wait(DEADLINE)


def callback(_rng: random.Random) -> None:
    """Fork in callbacks of tasks."""
    with CondaEnvExecutor(max_workers=1) as executor:
        for exponent in range(3):
            executor.submit(pow, 2, exponent).add_done_callback(lambda _task: fork())


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        fork()


def handler(_rng: random.Random) -> None:
    """Fork in a handler of log records that come from a task."""
    logging.getLogger().addHandler(_Handler())
    with CondaEnvExecutor(max_workers=1) as executor:
        executor.submit(logging.warning, "one").result(DEADLINE)
        executor.submit(logging.warning, "two").result(DEADLINE)


class _Stream(io.StringIO):
    def write(self, text: str) -> int:
        fork()
        return len(text)


def stream(_rng: random.Random) -> None:
    """Fork in a stream to which lines of tasks are written."""
    stdout, sys.stdout = sys.stdout, _Stream()
    try:
        with CondaEnvExecutor(max_workers=1) as executor:
            executor.submit(print, "one").result(DEADLINE)
            executor.submit(print, "two").result(DEADLINE)
    finally:
        sys.stdout = stdout


class Forking:
    """Forks when it is unpickled in the process that has started the program."""

    def __setstate__(self, host: int) -> None:
        if os.getpid() == host:
            fork()

    def __reduce__(self) -> tuple[object, ...]:
        return Forking, (), os.getppid()


def decoder(_rng: random.Random) -> None:
    """Fork while results are unpickled."""
    with CondaEnvExecutor(max_workers=1) as executor:
        for _ in range(2):
            executor.submit(Forking).wait_for(DEADLINE)


class _Garbage:
    count = 0

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.me = self

    def __del__(self) -> None:
        _Garbage.count += 1
        if len(children) < 6 and self.rng.random() < 0.5:
            fork()
        if _Garbage.count < 30:
            _Garbage(self.rng)


def finalizer(rng: random.Random) -> None:
    """Fork in finalizers, wherever the collector runs them.

    Often where descriptors are made, under a lock.
    """

    def start() -> None:
        with CondaEnvExecutor(max_workers=1) as executor:
            executor.submit(lambda: 7).result(DEADLINE)
            executor.submit(print, "", end="").result(DEADLINE)

    # below a finalizer that runs inside an import, that module would stay half made in the child
    start()
    gc.set_threshold(40, 2, 2)
    _Garbage(rng)
    for _ in range(3):
        start()
    gc.set_threshold(700, 10, 10)


def handled_signal(rng: random.Random) -> None:
    """Fork in a signal handler, while the main thread starts a pool and submits code."""
    signal.signal(signal.SIGALRM, lambda *_: fork())
    for count in range(1, 5):
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0001, 0.06))
        with CondaEnvExecutor(max_workers=1) as executor:
            executor.submit(lambda: 7).result(DEADLINE)
            while len(children) < count:
                executor.submit(pow, 2, 3).result(DEADLINE)


def another_thread(rng: random.Random) -> None:
    """Fork on another thread while a pool starts and code is submitted for the first time."""
    timers = [threading.Timer(rng.uniform(0, 0.06), fork) for _ in range(4)]
    for timer in timers:
        timer.start()
    with CondaEnvExecutor(max_workers=1) as executor:
        executor.submit(lambda: 7).result(DEADLINE)
        executor.submit(print, "", end="").result(DEADLINE)
    for timer in timers:
        timer.join()


def half_made(_rng: random.Random, module: str) -> None:
    """Fork on another thread while a module is imported in the middle of a submit."""
    begun, seen = threading.Event(), []

    def act() -> None:
        begun.set()
        fork()

    def watch(event: str, args: tuple[object, ...]) -> None:
        if (
            event == "open"
            and not seen
            and f"{module}." in str(args[0])
            and "wetlands" in str(args[0])
        ):
            seen.append(threading.Thread(target=act))
            seen[0].start()
            begun.wait()

    sys.addaudithook(watch)
    with CondaEnvExecutor(max_workers=1) as executor:
        executor.submit(lambda: 7).result(DEADLINE)
        executor.submit(bytes, bytearray(1 << 21)).result(DEADLINE)
    seen[0].join()


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process that has threads
    globals()[sys.argv[1]](random.Random(int(sys.argv[2])), *sys.argv[3:])
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
