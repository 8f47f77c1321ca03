"""A worker process of which everything is real but the process.

Pipes, the shared page in anonymous memory, the wakeup. The test holds the worker's ends.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

from tests.unit.parts import NONCE, Crew
from wetlands_executor.pool.host_page import HostPage
from wetlands_executor.pool.wakeup import Wakeup
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.worker import wire


class WiredPipes:
    """The host's ends of a worker's pipes like ``spawn.Process``, and the worker's (``its_*``)."""

    forked = False
    why_lost = ""
    exit = -1

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.killed = 0
        self.its_inbox, self.inbox = os.pipe()
        self.its_bulk, self.bulk = os.pipe()
        self.results, self.its_results = os.pipe()
        self.stdout, self.its_stdout = os.pipe()
        self.stderr, self.its_stderr = os.pipe()
        self.inbox_reader = os.dup(self.its_inbox)
        for fd in (self.inbox, self.bulk, self.results, self.inbox_reader):
            os.set_blocking(fd, False)
        self.page = HostPage(memoryview(mmap.mmap(-1, wire.PAGE)), True)
        self.wakeup = Wakeup()

    def fds(self) -> set[int]:
        return {
            value
            for name, value in vars(self).items()
            if isinstance(value, int) and name not in ("pid", "killed") and value >= 0
        }

    def kill_tree(self) -> None:
        self.killed += 1

    def close_fd(self, fd: int) -> None:
        for name, value in list(vars(self).items()):
            if value == fd and name not in ("pid", "killed"):
                setattr(self, name, -1)
        os.close(fd)

    def close(self) -> None:
        for fd in self.fds():
            self.close_fd(fd)
        self.wakeup.close()


class WiredCrew(Crew):
    """A crew whose workers have real pipes; ``close`` closes them."""

    def __init__(self) -> None:
        super().__init__()
        self._wired: list[WiredPipes] = []

    def wired(self) -> tuple[WorkerProcess, WiredPipes]:
        """Return a ready process that has finished a call, and its pipes."""
        number = len(self.workers.processes) + 1
        pipes = WiredPipes()
        self._wired.append(pipes)
        any_pipes: Any = pipes
        process = WorkerProcess(number, number - 1, any_pipes, self.loop.poller, NONCE)
        process.greet({"magic": "", "version": "3", "prefix": "/p", "pid": pipes.pid}, False)
        process.become_ready()
        process.note_finished(0, True)
        self.workers.add(process)
        return process, pipes

    def close(self) -> None:
        for pipes in self._wired:
            pipes.close()


def frames_in(fd: int) -> list[tuple[int, ...]]:
    """Read what a pipe of frames holds: (kind, number, mark) of each."""
    found = []
    os.set_blocking(fd, False)
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return []
    assert len(data) % wire.FRAME == 0
    for offset in range(0, len(data), wire.FRAME):
        kind, *_, number, mark = wire.CALL.unpack_from(data, offset)
        found.append((kind, number, mark))
    return found
