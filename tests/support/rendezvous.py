"""How a test knows that a task runs, and how it decides when the task ends.

Without a sleep and without polling.

A task calls ``workload.arrive(rendezvous.address, label)``, which connects and blocks. The test
takes one arrival after another with ``next()`` (bounded by a deadline) and lets each go on with
``release()``, or all, now and later, with ``open()``. A local socket, because it works between
threads, processes and interpreters of any version, and tells both sides when the other one has
gone.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from types import TracebackType

from typing_extensions import Self

#: Seconds that a test waits for a worker before it fails; far beyond what any start takes.
DEADLINE = 30.0


class Arrival:
    """One call of ``arrive`` that waits for us.

    Attributes:
        pid: process that runs it.
        label: the text form of the value that it was called with.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        line.settimeout(DEADLINE)
        with line.makefile("r", encoding="utf-8") as file:
            self.pid = int(file.readline())
            self.label = file.readline().rstrip("\n")

    def __repr__(self) -> str:
        return f"<Arrival {self.label} of process {self.pid}>"

    def release(self) -> None:
        """Let the call go on."""
        self._line.close()

    def wait_until_gone(self) -> None:
        """Block until the process at the other end has died or hung up."""
        self._line.settimeout(DEADLINE)
        try:
            assert self._line.recv(1) == b""
        except ConnectionError:
            pass


class Rendezvous:
    """The place where tasks report and wait."""

    def __init__(self) -> None:
        self._folder: str | None = None
        if hasattr(socket, "AF_UNIX"):
            self._folder = tempfile.mkdtemp(prefix="meet")
            self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._door.bind(os.path.join(self._folder, "s"))
        else:
            self._door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._door.bind(("127.0.0.1", 0))
        self._door.listen(512)
        self.address: str | tuple[str, int] = self._door.getsockname()
        self._arrivals: list[Arrival] = []

    def next(self, timeout: float = DEADLINE) -> Arrival:
        """Return the next call that reports; fail if none does in time."""
        self._door.settimeout(timeout)
        try:
            line, _ = self._door.accept()
        except TimeoutError:
            raise AssertionError(
                f"no task has reported within {timeout} s; so far: {self._arrivals}"
            ) from None
        arrival = Arrival(line)
        self._arrivals.append(arrival)
        return arrival

    def expect(self, *labels: object) -> dict[str, Arrival]:
        """Wait until exactly these calls have reported, in any order."""
        arrivals = {}
        for _ in labels:
            arrival = self.next()
            arrivals[arrival.label] = arrival
        assert sorted(arrivals) == sorted(map(str, labels))
        return arrivals

    def uninvited(self) -> list[str]:
        """Return the labels of calls that have reported and that were not asked for.

        Meant for the end of a test.
        """
        labels = []
        self._door.settimeout(0)
        while True:
            try:
                line, _ = self._door.accept()
            except BlockingIOError:
                return labels
            arrival = Arrival(line)
            self._arrivals.append(arrival)
            labels.append(arrival.label)

    def open(self) -> None:
        """Let each task go on that waits now or reports later."""
        self._door.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        for arrival in self._arrivals:
            arrival.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.open()


def elapsed(began: float) -> float:
    """Return the seconds since ``began`` (of ``time.monotonic``)."""
    return time.monotonic() - began
