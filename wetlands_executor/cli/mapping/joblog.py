"""The joblog, in the columns of GNU parallel, and what a resumed run need not do again.

A line is written by one ``write`` of an ``O_APPEND`` descriptor. A process that is killed may leave
half a line at the end: it is cut off by the next one, and its item runs again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Final, NamedTuple

from wetlands_executor.cli.errors import CommandError
from wetlands_executor.cli.files import truncate

HEADER: Final = b"Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
#: What GNU parallel calls this machine.
HOST: Final = ":"


class Entry(NamedTuple):
    """One line of the joblog.

    Attributes:
        seq: number of the item.
        start: when the function began, as ``time.time()``.
        runtime: seconds that it took.
        receive: bytes of its result.
        exitval: 0 if it returned, -1 after a time-out, else the exit code, or 1.
        signal: number of the signal that ended the worker; 0 if none did.
        command: the target and the item.
    """

    seq: int
    start: float
    runtime: float
    receive: int
    exitval: int
    signal: int
    command: str

    def line(self) -> bytes:
        """Return the line of the file."""
        text = (
            f"{self.seq}\t{HOST}\t{self.start:.3f}\t{self.runtime:10.3f}\t0\t{self.receive}\t"
            f"{self.exitval}\t{self.signal}\t{self.command}\n"
        )
        return text.encode("utf-8", "surrogateescape")


def _digest(*parts: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(b"\t".join(parts), digest_size=8).digest(), "little")


class Finished:
    """The items that need not run again.

    An item is known by its command, not by its number alone: items may have been added, or come in
    another order. One that comes twice in the input has to be finished twice.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        #: Numbers of all items in the joblog.
        self.seqs: set[int] = set()

    def add(self, command: bytes) -> None:
        """Note that an item has finished."""
        key = _digest(command)
        self._counts[key] = self._counts.get(key, 0) + 1

    def take(self, command: str) -> bool:
        """Return True if an item with this command has finished, once for each that has."""
        key = _digest(command.encode("utf-8", "surrogateescape"))
        left = self._counts.get(key, 0)
        if left:
            self._counts[key] = left - 1
        return left > 0


class JobLog:
    """A joblog that is written.

    Args:
        path: of the file.
        resume: what it holds stays; else it begins anew.
        failed_again: items that have failed are not finished.

    Attributes:
        finished: the items that need not run again.

    Raises:
        CommandError: it cannot be read or written, is no joblog, or another process writes to it.
    """

    def __init__(self, path: str, *, resume: bool, failed_again: bool) -> None:
        self.path = path
        self.finished = Finished()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise CommandError(f"--joblog {path}: {error.strerror or error}") from error
        try:
            self._lock()
            if resume:
                truncate(self._descriptor, self._load(failed_again))
            else:
                truncate(self._descriptor, 0)
            if os.fstat(self._descriptor).st_size == 0:
                self.write(HEADER)
        except OSError as error:
            self.close()
            raise CommandError(f"--joblog {path}: {error.strerror or error}") from error
        except CommandError:
            self.close()
            raise

    def write(self, lines: bytes) -> None:
        """Append whole lines."""
        write_all(self._descriptor, lines)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _lock(self) -> None:
        """Let no other process write to it meanwhile, where there are locks of files."""
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(
                    f"--joblog {self.path}: another map writes to it; wait for its end, or give "
                    f"another file"
                ) from None

    def _load(self, failed_again: bool) -> int:
        """Read what has finished; return where the whole lines end."""
        states: dict[int, tuple[bytes, bool]] = {}
        end = 0
        with open(self.path, "rb") as stream:
            header = stream.readline(len(HEADER))
            if header != HEADER:
                if HEADER.startswith(header):
                    return 0  # empty, or killed in the first write
                raise CommandError(
                    f"--joblog {self.path} is no joblog: it begins with {header[:40]!r} instead of "
                    f"the columns Seq, Host, Starttime, ...; give another file"
                )
            end = len(header)
            for number, line in enumerate(stream, 2):
                if not line.endswith(b"\n"):
                    break
                seq, command, fine = self._parsed(number, line)
                self.finished.seqs.add(seq)
                # an item that was run again has several lines, of which the last counts
                states[_digest(b"%d" % seq, command)] = (command, fine)
                end += len(line)
        for command, fine in states.values():
            if fine or not failed_again:
                self.finished.add(command)
        return end

    def _parsed(self, number: int, line: bytes) -> tuple[int, bytes, bool]:
        fields = line[:-1].split(b"\t", 8)
        try:
            if len(fields) == 9:
                return int(fields[0]), fields[8], not (int(fields[6]) or int(fields[7]))
        except ValueError:
            pass  # reported below
        raise CommandError(
            f"--joblog {self.path}:{number} is no line of a joblog: {line[:60]!r}; remove it, and "
            f"its item runs again"
        )


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes with as few calls as the system allows: one, unless a pipe or disk is full."""
    while data:
        data = data[os.write(descriptor, data) :]
