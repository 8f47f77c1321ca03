"""System calls that some platform lacks, under one name each.

The host's part (the worker's is ``worker/system.py``).

Owns no decision: callers ask before they call (``hasattr``, or ``PORTABLE_ONLY`` in
``descriptors.py``), or expect an OSError. What a platform lacks stands here as ``absent``, so that
type checkers see every branch on every platform. Imports the standard library only. Any thread.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from array import array
from collections.abc import Callable, Sequence
from socket import socket
from typing import Any

__all__ = [
    "AF_UNIX",
    "EFD_CLOEXEC",
    "EFD_NONBLOCK",
    "EPOLLET",
    "EPOLLIN",
    "F_ADD_SEALS",
    "F_DUPFD_CLOEXEC",
    "F_SEAL_GROW",
    "F_SEAL_SEAL",
    "F_SEAL_SHRINK",
    "F_SEAL_WRITE",
    "MFD_ALLOW_SEALING",
    "MFD_CLOEXEC",
    "O_CLOEXEC",
    "O_NONBLOCK",
    "POLLERR",
    "POLLIN",
    "POLLOUT",
    "P_PID",
    "RWF_NOWAIT",
    "SIGCHLD",
    "SIGKILL",
    "WEXITED",
    "WNOWAIT",
    "absent",
    "eventfd",
    "fcntl",
    "get_blocking",
    "getpgid",
    "killpg",
    "memfd_create",
    "pidfd_open",
    "pidfd_send_signal",
    "poll",
    "pread",
    "preadv",
    "pwrite",
    "readv",
    "send_descriptors",
    "set_blocking",
    "unread",
    "waitid",
]


def absent(*_args: object) -> Any:
    """Stand for a call that this platform, or this build of Python, lacks.

    Raises:
        OSError: ENOSYS, as the C library does it.
    """
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


# POSIX: everywhere but on Windows.
if sys.platform != "win32":
    from fcntl import F_DUPFD_CLOEXEC, fcntl, ioctl
    from os import (
        O_CLOEXEC,
        O_NONBLOCK,
        get_blocking,
        getpgid,
        killpg,
        pread,
        pwrite,
        readv,
        set_blocking,
    )
    from select import POLLERR, POLLIN, POLLOUT, poll
    from signal import SIGCHLD, SIGKILL
    from socket import AF_UNIX, SCM_RIGHTS, SOL_SOCKET
    from termios import FIONREAD

    def send_descriptors(line: socket, data: memoryview, fds: Sequence[int]) -> int:
        """Send bytes with open files through a Unix socket; return how many bytes were taken."""
        return line.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, array("i", fds))])

    def unread(fd: int) -> int:
        """Return how many bytes a pipe holds. On Linux either end may be given."""
        return int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), sys.byteorder)

else:
    fcntl: Callable[..., int] = absent
    get_blocking: Callable[..., bool] = absent
    getpgid: Callable[..., int] = absent
    killpg: Callable[..., None] = absent
    poll: Callable[[], Any] = absent
    pread: Callable[..., bytes] = absent
    pwrite: Callable[..., int] = absent
    readv: Callable[..., int] = absent
    send_descriptors: Callable[..., int] = absent
    set_blocking: Callable[..., None] = absent
    unread: Callable[..., int] = absent
    F_DUPFD_CLOEXEC = O_CLOEXEC = O_NONBLOCK = AF_UNIX = SIGCHLD = 0
    POLLIN, POLLOUT, POLLERR = 1, 4, 8
    SIGKILL = signal.SIGTERM

# Linux. The C library or the kernel for which Python was built may lack each of them.
if sys.platform == "linux":
    from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE
    from select import EPOLLET, EPOLLIN
else:
    F_ADD_SEALS = F_SEAL_GROW = F_SEAL_SEAL = F_SEAL_SHRINK = F_SEAL_WRITE = 0
    EPOLLIN, EPOLLET = 1, 1 << 31

eventfd: Callable[[int, int], int] = getattr(os, "eventfd", absent)
memfd_create: Callable[[str, int], int] = getattr(os, "memfd_create", absent)
pidfd_open: Callable[[int], int] = getattr(os, "pidfd_open", absent)
pidfd_send_signal: Callable[..., None] = getattr(signal, "pidfd_send_signal", absent)
waitid: Callable[[int, int, int], Any] = getattr(os, "waitid", absent)

# macOS has it from version 11 on.
preadv: Callable[..., int] = getattr(os, "preadv", absent)

# Flags; 0 where the call is absent.
EFD_CLOEXEC: int = getattr(os, "EFD_CLOEXEC", 0)
EFD_NONBLOCK: int = getattr(os, "EFD_NONBLOCK", 0)
MFD_CLOEXEC: int = getattr(os, "MFD_CLOEXEC", 0)
MFD_ALLOW_SEALING: int = getattr(os, "MFD_ALLOW_SEALING", 0)
RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
P_PID: int = getattr(os, "P_PID", 0)
WEXITED: int = getattr(os, "WEXITED", 0)
WNOWAIT: int = getattr(os, "WNOWAIT", 0)
