"""Child processes as the operating system sees them.

How one has ended, and the Python behind a wrapper.

Owns no process: the pool starts, kills and declares dead; this module inspects and signals. Any
thread may enter. Linux has pidfds, which cannot come to mean another process; elsewhere psutil
compares the times at which processes were started before it signals one.
"""

from __future__ import annotations

import functools
import os
import subprocess
from typing import TYPE_CHECKING, Any, Final

from wetlands_executor.system import (
    POLLIN,
    SIGKILL,
    exit_code,
    getpgid,
    killpg,
    pidfd_exit_code,
    pidfd_open,
    pidfd_send_signal,
    poll,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: ``Popen.returncode`` of a child whose exit status is lost; no process can return it.
LOST: Final = 1 << 16
#: Why the exit status of a child can be lost.
WHY_LOST: Final = "this program ignores SIGCHLD or collects all its children itself"

#: ``pidfd_send_signal``: to the process group that the process leads, or has led (Linux 6.9).
TO_GROUP: Final = 4


def collect(process: subprocess.Popen[Any], pidfd: int = -1) -> int | None:
    """Wait for the end of a child and collect it.

    ``Popen.wait`` says 0 where the status is lost. It is if the program ignores SIGCHLD (the kernel
    then collects its children), or if a handler of the program has collected all there were. Linux
    6.15 and newer report it all the same.

    Args:
        process: the child; ``returncode`` is set.
        pidfd: of the child, made while it lived, -1 for none.

    Returns:
        Its exit code, negative for a signal; None if the status is lost.
    """
    if process.returncode is None:
        code: int | None
        try:
            code = exit_code(process)
        except ChildProcessError:
            code = pidfd_exit_code(pidfd) if pidfd >= 0 else None
        note_status(process, LOST if code is None else code)
    return None if process.returncode == LOST else process.returncode


def note_status(process: subprocess.Popen[Any], code: int) -> None:
    """Tell a ``Popen`` how its child has ended, which it does not find out by itself.

    Args:
        process: the child.
        code: its exit code, negative for a signal; ``LOST``. A child that belongs to another
            process is said to have ended as well: else a finalizer would warn that it still runs.
    """
    process.returncode = code


def is_over(pidfd: int) -> bool:
    """Return True if the process of a pidfd has ended."""
    ready = poll()
    ready.register(pidfd, POLLIN)
    return bool(ready.poll(0))


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on; an ended process has none."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop()):
            if child not in found and child != pid:
                found.append(child)
                waiting.append(child)
    return found


def _children(pid: int) -> Iterator[int]:
    tasks = f"/proc/{pid}/task"
    if not _lists_children():
        import psutil  # takes longer to import than the rest of this module

        try:
            yield from (child.pid for child in psutil.Process(pid).children())
        except psutil.Error:
            pass  # it has ended
        return
    try:
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/children", encoding="ascii") as file:
                yield from map(int, file.read().split())
    except OSError:
        pass  # it, or one of its threads, has ended meanwhile


@functools.cache
def _lists_children() -> bool:
    """Return True if the system lists the children of a process.

    Linux, unless the kernel was built without it.
    """
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def find_wrapped(claimed: int, started: int) -> WrappedPython | None:
    """Return the Python that a wrapper has started.

    Args:
        claimed: the process number that it says it has. In a container that number may mean another
            process out here.
        started: the process that the pool has started, which has not been collected.

    Returns:
        None if no process below ``started`` can be the one: it is not seen from here, or has ended.
    """
    below = descendants(started)
    candidates = (
        [claimed] if claimed in below else [pid for pid in below if _number_inside(pid) == claimed]
    )
    for pid in candidates:
        found = WrappedPython.of(pid, started)
        if found is not None:
            return found
    return None


def in_other_groups(started: int) -> list[WrappedPython]:
    """Return the processes below ``started`` that a signal to its process group does not reach."""
    found = []
    for pid in descendants(started):
        if _group(pid) not in (None, started):
            process = WrappedPython.of(pid, started)
            if process is not None:
                found.append(process)
    return found


def _number_inside(pid: int) -> int | None:
    """Return the number that a process has in its own PID namespace."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            numbers = [line.split()[1:] for line in file if line.startswith("NSpid:")]
    except OSError:
        return None
    return int(numbers[0][-1]) if numbers and numbers[0] else None


def _group(pid: int) -> int | None:
    try:
        return getpgid(pid)
    except OSError:
        return None  # it has ended, or there are no groups


class WrappedPython:
    """A process that is not our child: signals go to it only while it is surely the one.

    Attributes:
        pid: its number.
        fd: its pidfd, -1 where there are none. The caller of ``of`` owns it and closes it.
    """

    __slots__ = ("_group", "_process", "fd", "pid")

    def __init__(self, pid: int, fd: int, process: Any, group: int | None) -> None:
        self.pid = pid
        self.fd = fd
        self._process = process
        self._group = group

    @classmethod
    def of(cls, pid: int, started: int) -> WrappedPython | None:
        """Take hold of a process below ``started``; None if it is not there any more."""
        fd, process = -1, None
        try:
            fd = pidfd_open(pid)
        except ProcessLookupError:
            return None
        except OSError:
            pass  # there are none, a sandbox, no descriptor left: the other way serves
        if fd < 0:
            import psutil

            try:
                process = psutil.Process(pid)
            except psutil.Error:
                return None
        # Race: the number may have come to mean another process before the lines above, and cannot
        # any more since.
        if pid not in descendants(started):
            if fd >= 0:
                os.close(fd)
            return None
        group = _group(pid)
        return cls(
            pid, fd, process, None if group == started or group == _group(os.getpid()) else group
        )

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it is still there."""
        if self.fd >= 0:
            try:
                pidfd_send_signal(self.fd, number)
            except OSError:
                pass  # it has ended
        elif self._process is not None:
            import psutil

            try:
                self._process.send_signal(number)
            except (psutil.Error, ValueError):
                pass  # it has ended; Windows knows no such signal

    def kill(self) -> None:
        """End the process.

        Its process group too, if that is not the one of the process that the pool has started.
        """
        ended = self.has_ended()
        self.send_signal(SIGKILL)
        if self._group is None:
            return
        try:
            if self._group == self.pid and self.fd >= 0:
                pidfd_send_signal(self.fd, SIGKILL, None, TO_GROUP)
                return
        except ProcessLookupError:
            return
        except OSError:
            pass  # an older kernel: by number, which is the group's own while the process lives
        if not ended:
            try:
                killpg(self._group, SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # it is empty

    def has_ended(self) -> bool:
        """Return True if the process has ended; False where that cannot be seen."""
        return self.fd >= 0 and is_over(self.fd)
