"""Looking at workers and tasks from outside: the operating system's view, with deadlines."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tests.support import leaks
from wetlands_executor import CondaEnvExecutor, Task, WorkerCrashed, WorkerStartError

#: Seconds for everything that should be quick.
DEADLINE = 20.0
#: Seconds that workers may survive their host (guarantee 4).
ORPHAN_LIMIT = 2.0


def pids(executor: CondaEnvExecutor) -> set[int]:
    """Return the pids of the workers."""
    return {info.pid for info in executor.workers()}


def gone(processes: Iterable[int], timeout: float = DEADLINE) -> bool:
    """Wait until none of these processes runs; True if so."""
    return not leaks.wait_for_exit(processes, timeout)


def kill_first(executor: CondaEnvExecutor) -> bool:
    """Kill the first worker; False if there is none, or it has just ended."""
    for info in executor.workers()[:1]:
        try:
            os.kill(info.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True
    return False


def shared_areas(pid: int) -> set[str]:
    """Return the inodes of the shared memory without a name that a process maps or has open."""
    folder = Path(f"/proc/{pid}")
    found = set()
    try:
        for line in (folder / "maps").read_text(errors="replace").splitlines():
            if "/memfd:" in line:
                found.add(line.split()[4])
        for entry in (folder / "fd").iterdir():
            if os.readlink(entry).startswith("/memfd:"):
                found.add(str(entry.stat().st_ino))
    except OSError:  # it has ended meanwhile, or is another user's
        return found
    return found


def until(condition: Callable[[], object], timeout: float = DEADLINE) -> bool:
    """Look, with growing intervals, until something is so that nothing announces.

    True if it became so in time.
    """
    end = time.monotonic() + timeout
    pause = 0.001
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return True


def start_error(task: Task[Any]) -> WorkerStartError:
    """Return the WorkerStartError that a task fails with."""
    error = task.exception(DEADLINE)
    assert isinstance(error, WorkerStartError), repr(error)
    return error


def awaited(task: Task[Any]) -> Any:
    """Return a task's result, awaited in an event loop of this thread."""

    async def result() -> Any:
        return await task

    return asyncio.run(result())


def group_of(pid: int) -> set[int]:
    """Return the processes of a process group (not the zombies)."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == pid and fields[0] != "Z":
                found.add(int(entry.name))
    return found


def grace_owner() -> Any:
    """Return the module of the pool that holds ``STOP_GRACE``, the seconds that a worker may take
    to end by itself.
    """
    (owner,) = (
        module
        for name, module in sys.modules.items()
        if name.startswith("wetlands_executor.pool.") and "STOP_GRACE" in vars(module)
    )
    return owner


def crash_of(task: Task[Any]) -> WorkerCrashed:
    """Return the WorkerCrashed that a task ended with."""
    error = task.exception(DEADLINE)
    assert isinstance(error, WorkerCrashed), repr(error)
    assert isinstance(error, BrokenProcessPool)
    return error


def lines(path: Path) -> list[str]:
    """Return the lines of a journal."""
    return path.read_text().splitlines() if path.exists() else []
