"""System calls that some platform lacks.

The worker's part (the host's is ``wetlands_executor/system.py``).

What only the fork server uses is not here: that runs on Linux. Any thread.
"""

from __future__ import annotations

import _signal
import os
import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Optional

__all__ = ["HIGH", "can_read", "move_up", "preadv", "readinto", "set_blocking", "stack_signal"]

#: Numbers of descriptors from here on are ours alone.
HIGH = 500
_MAX_IOV = 1 << 20  # bytes of one read; the pipe's capacity decides how much of it is filled

#: Missing on Windows and before macOS 11, where no block of shared memory is read.
preadv: Any = getattr(os, "preadv", None)

if sys.platform != "win32":
    from os import set_blocking

    def readinto(fd: int, view: memoryview) -> int:
        """Read into a writable view; return the number of bytes."""
        return os.readv(fd, [view[:_MAX_IOV]])

    def can_read(fd: int) -> bool:
        """Return True if a pipe can be read without waiting."""
        import select

        return bool(select.select([fd], [], [], 0)[0])

    def move_up(fd: int, lowest: int = HIGH) -> int:
        """Return the same pipe under a number from ``lowest`` on; ``fd`` itself if that fails."""
        try:
            import fcntl

            # As far up as select() can follow.
            try:
                top = max(lowest, min(os.sysconf("SC_OPEN_MAX"), 1024) - 24)
                moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, top)
            except (OSError, ValueError):
                moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
        except (ImportError, OSError, AttributeError):
            return fd
        os.close(fd)
        return moved

else:

    def set_blocking(fd: int, blocking: bool) -> None:
        """Do nothing: its pipes block."""

    def readinto(fd: int, view: memoryview) -> int:
        """Read into a writable view; return the number of bytes."""
        data = os.read(fd, min(len(view), _MAX_IOV))
        view[: len(data)] = data
        return len(data)

    def can_read(fd: int) -> bool:
        """Return True if a pipe can be read without waiting."""
        import _winapi
        import msvcrt

        return bool(_winapi.PeekNamedPipe(msvcrt.get_osfhandle(fd), 0)[0])

    def move_up(fd: int, lowest: int = HIGH) -> int:  # noqa: ARG001 - one signature
        """Return ``fd``: its numbers end at 8,192, and no task closes ranges of them."""
        return fd


def stack_signal() -> Optional[int]:
    """Return the signal at which a worker prints its Python stacks, for both ends.

    None on Windows.
    """
    last: Optional[int] = getattr(_signal, "SIGRTMAX", None)
    return getattr(_signal, "SIGUSR2", None) if last is None else last - 1
