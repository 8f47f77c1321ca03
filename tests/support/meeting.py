"""How a test knows that a task runs, and how it decides when the task ends.

Without a sleep and without polling.

A task calls ``workload.attend(meeting.address, label)``, which connects and blocks. The test takes
one guest after another with ``next()`` (bounded by a deadline) and lets each go on with
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


class Guest:
    """One call of ``attend`` that waits for us.

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
        return f"<Guest {self.label} of process {self.pid}>"

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


class Meeting:
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
        self._guests: list[Guest] = []

    def next(self, timeout: float = DEADLINE) -> Guest:
        """Return the next call that reports; fail if none does in time."""
        self._door.settimeout(timeout)
        try:
            line, _ = self._door.accept()
        except TimeoutError:
            raise AssertionError(
                f"no task has reported within {timeout} s; so far: {self._guests}"
            ) from None
        guest = Guest(line)
        self._guests.append(guest)
        return guest

    def expect(self, *labels: object) -> dict[str, Guest]:
        """Wait until exactly these calls have reported, in any order."""
        guests = {}
        for _ in labels:
            guest = self.next()
            guests[guest.label] = guest
        assert sorted(guests) == sorted(map(str, labels))
        return guests

    def uninvited(self) -> list[str]:
        """Return the labels of calls that have reported and that nobody has asked for.

        Meant for the end of a test.
        """
        labels = []
        self._door.settimeout(0)
        while True:
            try:
                line, _ = self._door.accept()
            except BlockingIOError:
                return labels
            guest = Guest(line)
            self._guests.append(guest)
            labels.append(guest.label)

    def open(self) -> None:
        """Let everybody go on who waits now or reports later."""
        self._door.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        for guest in self._guests:
            guest.release()

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
