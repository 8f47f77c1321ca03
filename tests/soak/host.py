"""Hosts of their own.

Programs whose main thread is interrupted, and that are killed, while their executors work.

``python -m tests.soak.host SECONDS SEED`` is such a program: its main thread submits and waits
while SIGINT (from the soak) and an alarm (its own) raise in it at any moment. It prints the process
ids of its workers, one line each time they may have changed, and in the end "well" or what did not
hold.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.soak import work
from tests.soak.ledger import LIMIT, Kitchen, Violation
from tests.support import dispositions, leaks
from wetlands_executor import CondaEnvExecutor

ROOT = Path(__file__).resolve().parents[2]
#: Seconds within which the workers of a host that was killed must be gone: two by the guarantee,
#: and the time of a busy machine.
ORPHANS = 10.0


class Alarm(Exception):
    """Raised by the handler of the host's own alarm."""


def main(seconds: float, seed: int) -> int:
    """Work while being interrupted.

    Returns:
        The exit code.
    """
    rng = random.Random(seed)
    armed = False

    def ring(_number: int, _frame: object) -> None:
        if armed:
            raise Alarm

    def interrupt(_number: int, _frame: object) -> None:
        if armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, ring)
    signal.signal(signal.SIGINT, interrupt)
    deadline = time.monotonic() + seconds
    kept: list[tuple[Any, int]] = []
    with CondaEnvExecutor(max_workers=2) as executor:
        executor.launch()
        print(" ".join(str(worker.pid) for worker in executor.workers()), flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.0031)
        number = 0
        while time.monotonic() < deadline:
            try:
                armed = True
                for _ in range(rng.randrange(1, 20)):
                    number += 1
                    task = executor.submit(work.echo, number)
                    kept.append((task, number))
                    if rng.random() < 0.5 and task.result(LIMIT) != number:
                        print("a call has another one's value", flush=True)
                        return 1
                armed = False
            except (Alarm, KeyboardInterrupt):
                armed = False
            if len(kept) > 200:
                check(kept)
        signal.setitimer(signal.ITIMER_REAL, 0)
        check(kept)
        if executor.submit(work.add, 1, 1).result(LIMIT) != 2:
            print("the executor is of no use after the interrupts", flush=True)
            return 1
    # The interpreter gives signals back their default on its way out; the soak may still send some.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if left := leaks.descendants():
        leaks.wait_for_exit(left, LIMIT)
    names = [
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    ]
    print("well" if not names else f"threads are left: {names}", flush=True)
    return bool(names)


def check(kept: list[tuple[Any, int]]) -> None:
    """Every task that submit() has returned has its own value."""
    for task, number in kept:
        if task.result(LIMIT) != number:
            raise SystemExit(f"task {number} has the value {task.result()!r}")
    kept.clear()


def start(seconds: float, seed: int) -> subprocess.Popen[str]:
    """Start such a host."""
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "tests.soak.host",
        str(seconds),
        str(seed),
    ]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, text=True, start_new_session=True, **pipes
    )


def interrupted_host(kitchen: Kitchen) -> None:
    """A host whose main thread is interrupted all the time loses nothing."""
    process = start(1.5, kitchen.rng.randrange(2**32))
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        pause = threading.Event()
        for _ in range(20):
            pause.wait(kitchen.rng.random() * 0.1)  # the moment of the signal is the point
            process.send_signal(signal.SIGINT)
        try:
            text, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            text, _ = process.communicate(timeout=LIMIT)
            raise Violation(f"a host that was interrupted does not end:\n{line}{text}") from None
    finally:
        process.kill()
        process.communicate()
    if process.returncode != 0 or text.splitlines()[-1:] != ["well"]:
        raise Violation(
            f"a host that was interrupted ended with {process.returncode}:\n{line}{text}"
        )


def killed_host(kitchen: Kitchen) -> None:
    """The workers of a host that is killed end too."""
    process = start(LIMIT, kitchen.rng.randrange(2**32))
    try:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        threading.Event().wait(kitchen.rng.random() * 0.3)  # the moment of the kill is the point
    finally:
        process.kill()
        process.communicate()
    if not pids or (left := leaks.wait_for_exit(pids, ORPHANS)):
        raise Violation(
            f"workers of a host that was killed: {pids}, after {ORPHANS} s there are "
            f"{left if pids else pids}"
        )


INGREDIENTS = {function.__name__: function for function in (interrupted_host, killed_host)}

if __name__ == "__main__":
    dispositions.restore()
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
