"""What the parts of a pool are given in unit tests.

A loop that the test turns, a feed that only records, pipes without a process.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

from wetlands_executor.pool.call import Call, Outcome
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.host_page import HostPage
from wetlands_executor.pool.timers import Timer
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling.messages import DeathReport, Event
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.settings import current_settings

NONCE = 7


class Poller:
    """A poller that only remembers.

    ``written`` by descriptor, ``readers`` by descriptor; what can be read is put into ``incoming``.
    """

    sleeping = False
    urgent = -1

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.written: dict[int, bytes] = {}
        self.incoming: dict[int, deque[bytes]] = {}

    def add_reader(self, fd: int, _rank: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def add_wakeup(self, fd: int, rank: int, callback: Callable[[], None]) -> None:
        self.add_reader(fd, rank, callback)

    def watch_abandoned_waits(self, callback: Callable[[], None]) -> None:
        pass

    def remove(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.written[fd] = self.written.get(fd, b"") + bytes(data)
        return len(data)

    def want_write(self, fd: int, callback: Callable[[], None] | None) -> None:
        pass

    def read(self, fd: int, _count: int) -> bytes | None:
        waiting = self.incoming.get(fd)
        return waiting.popleft() if waiting else None

    def printed(self) -> list[Callable[[], None]]:
        return []


class Loop:
    """An ``IOLoop`` without a thread: ``turn`` runs what was posted, ``fire`` the timers."""

    is_current = True
    ended = False
    forked = False
    started = True

    def __init__(self) -> None:
        self.poller: Any = Poller()
        self.posted: deque[Any] = deque()
        self.timers: list[tuple[float, Timer]] = []

    def post(self, job: Callable[[], object]) -> None:
        self.posted.append(job)

    def turn(self) -> None:
        while self.posted:
            self.posted.popleft()()

    def set_timer(self, delay: float, job: Callable[[], object]) -> Timer:
        timer = Timer(delay, len(self.timers), job)
        self.timers.append((delay, timer))
        return timer

    def stop_timer(self, timer: Timer) -> None:
        timer.job = None

    def fire(self) -> list[float]:
        """Run the jobs of all timers that are set; return their delays."""
        timers, self.timers = self.timers, []
        fired = []
        for delay, timer in timers:
            if timer.job is not None:
                fired.append(delay)
                timer.job()
        return fired


class Feed(list[Event | None]):
    """Records the events that it is told."""

    def __call__(self, event: Event | None, before: Any = ()) -> None:
        self.extend([*before, event])

    def take(self) -> list[Event | None]:
        told = list(self)
        self.clear()
        return told


class Receiver:
    """Records what becomes of calls."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, Any]] = []

    def on_outcome(self, call: Call, outcome: Outcome) -> None:
        self.told.append(("outcome", call.number, outcome))

    def on_lost(self, call: Call, report: DeathReport) -> None:
        self.told.append(("lost", call.number, report))

    def on_cancelled(self, call: Call, reason: str | None) -> None:
        self.told.append(("cancelled", call.number, reason))


class SharedPage(HostPage):
    """A shared page: the words that the worker has written."""

    def __init__(self) -> None:
        self.words: Any = [0] * 64


class Pipes:
    """A record of descriptors like ``spawn.Process``, none of them open."""

    inbox, bulk, results, stdout, stderr, exit, inbox_reader, memory, wakeup = (
        101,
        102,
        103,
        104,
        105,
        106,
        -1,
        -1,
        None,
    )
    forked = False
    why_lost = ""

    def __init__(self, page: SharedPage | None = None) -> None:
        self.pid = os.getpid()
        self.page = page
        self.done: list[Any] = []

    def kill_tree(self) -> None:
        self.done.append("killed")

    def send_signal(self, number: int) -> None:
        self.done.append(("signal", number))

    def reap(self) -> int:
        self.done.append("reaped")
        return 3

    def ended(self) -> bool:
        return True

    def fds(self) -> set[int]:
        return set()

    def close(self) -> None:
        self.done.append("closed")

    def close_fd(self, fd: int) -> None:
        self.done.append(("closed", fd))


class Crew:
    """A loop, a feed, timers, and workers that the test makes."""

    def __init__(self) -> None:
        self.loop: Any = Loop()
        self.feed = Feed()
        self.workers = Workers()
        self.timers = CallTimers(self.loop)
        self.receiver = Receiver()
        #: Parts with a thread that the test has started, to be ended after it.
        self.outputs: list[Any] = []
        self._numbers = iter(range(1, 1000))

    def process(self, *, ready: bool = True, page: SharedPage | None = None) -> WorkerProcess:
        """Return a process that is among the workers."""
        number = len(self.workers.processes) + 1
        pipes: Any = Pipes(page)
        process = WorkerProcess(number, number - 1, pipes, self.loop.poller, NONCE)
        if ready:
            process.greet({"magic": "", "version": "3", "prefix": "/p", "pid": pipes.pid}, False)
            process.become_ready()
        self.workers.add(process)
        return process

    def call(self, process: WorkerProcess | None = None, task: Any = None) -> Call:
        """Return a call of ``abs``; ``process`` has it."""
        call = Call(
            next(self._numbers), encode(abs, (-1,), {}), current_settings(), task, self.receiver
        )
        if process is not None:
            assert process.give([call]) == []
        return call
