"""What depends on the platform, on the host's side; ``worker/system.py`` is the worker's.

Every branch of the core on the platform is here (``tests/house/test_platforms.py`` looks), as a
function with one body per platform or as a constant that names an ability. A call that a platform
lacks stands here as ``absent``: callers ask for the ability, or expect its OSError. So type
checkers see every branch on every platform.

What was run: Linux. The bodies for systems without its facilities (macOS) can be switched on there
by ``WETLANDS_EXECUTOR_PLAIN=1`` and are tested that way; those for Windows were written from its
documentation and never ran. Imports the standard library only. Any thread.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import subprocess
import sys
from array import array
from collections.abc import Callable, Sequence
from socket import socket
from typing import Any, Final

__all__ = [
    "AF_UNIX",
    "EFD_CLOEXEC",
    "EFD_NONBLOCK",
    "EPOLLET",
    "EPOLLIN",
    "EVENTFDS",
    "F_ADD_SEALS",
    "F_DUPFD_CLOEXEC",
    "F_SEAL_GROW",
    "F_SEAL_SEAL",
    "F_SEAL_SHRINK",
    "F_SEAL_WRITE",
    "GROUPS",
    "MFD_ALLOW_SEALING",
    "MFD_CLOEXEC",
    "O_CLOEXEC",
    "O_NONBLOCK",
    "POLLERR",
    "POLLIN",
    "POLLOUT",
    "PORTABLE_ONLY",
    "P_PID",
    "RWF_NOWAIT",
    "SHARED_MEMORY",
    "SIGCHLD",
    "SIGKILL",
    "THREADS",
    "WEXITED",
    "WNOWAIT",
    "above_standard",
    "absent",
    "epoll",
    "eventfd",
    "exit_code",
    "fcntl",
    "get_blocking",
    "getpgid",
    "killpg",
    "memfd_create",
    "pidfd_exit_code",
    "pidfd_open",
    "pidfd_send_signal",
    "poll",
    "pread",
    "preadv",
    "pwrite",
    "readv",
    "register_at_fork",
    "reserve",
    "send_descriptors",
    "set_blocking",
    "start_process",
    "unread",
    "usable_processors",
    "waitid",
]


def absent(*_args: object) -> Any:
    """Stand for a call that this platform, or this build of Python, lacks.

    Raises:
        OSError: ENOSYS, as the C library does it.
    """
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


#: Pipes cannot be polled: a thread reads each. Can be switched on elsewhere, for tests.
THREADS: Final = sys.platform == "win32" or os.environ.get("WETLANDS_EXECUTOR_THREADS") == "1"
#: Use only what every platform has. Read once: the two worlds do not mix in one process.
PORTABLE_ONLY: Final = (
    sys.platform != "linux" or os.environ.get("WETLANDS_EXECUTOR_PLAIN") == "1" or THREADS
)
#: Processes lead groups, which a signal can reach as a whole. On Windows a launcher's child is in
#: the job of its parent instead, and ends with it.
GROUPS: Final = sys.platform != "win32"
#: Files without a name can be mapped by several processes.
SHARED_MEMORY: Final = sys.platform != "win32"

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
        register_at_fork,
        set_blocking,
        waitpid,
        waitstatus_to_exitcode,
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

    def above_standard(fd: int) -> int:
        """Return the same open file under a number above 2.

        A host whose own standard streams are closed gets these numbers for the next files that are
        opened. What C code in it prints would go into the pipe of a worker, and a worker's own
        streams would replace it.
        """
        if fd > 2:
            return fd
        try:
            return fcntl(fd, F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(fd)

    def exit_code(process: subprocess.Popen[Any]) -> int:
        """Wait for the end of a child and collect it; return its exit code, negative for a signal.

        ``returncode`` is not set.

        Raises:
            ChildProcessError: its exit status is lost.
        """
        return waitstatus_to_exitcode(waitpid(process.pid, 0)[1])

    def start_process(
        argv: list[str],
        env: dict[str, str],
        cwd: str | None,
        passed: list[int],
        stdout: int,
        stderr: int,
    ) -> subprocess.Popen[bytes]:
        """Start a worker's process.

        Args:
            argv: the command. One more argument is appended: the numbers under which the process
                has ``passed``, separated by commas; -1 stays -1.
            env: its variables.
            cwd: its current folder; None is that of this process.
            passed: what it inherits besides its standard streams; -1 is none.
            stdout: its standard output.
            stderr: its standard error.
        """
        return subprocess.Popen(
            [*argv, ",".join(map(str, passed))],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            close_fds=True,
            pass_fds=[fd for fd in passed if fd >= 0],
            start_new_session=True,
        )

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
    unread: Callable[..., int] = absent
    F_DUPFD_CLOEXEC = O_CLOEXEC = O_NONBLOCK = AF_UNIX = SIGCHLD = 0
    POLLIN, POLLOUT, POLLERR = 1, 4, 8
    SIGKILL = signal.SIGTERM

    def set_blocking(_fd: int, _blocking: bool, /) -> None:
        """Do nothing: its pipes block, and threads read them."""

    def register_at_fork(**_hooks: Callable[[], object]) -> None:
        """Do nothing: there is no fork."""

    def above_standard(fd: int) -> int:
        """Return ``fd``: C code does not print to its numbers."""
        return fd

    def exit_code(process: subprocess.Popen[Any]) -> int:
        """Wait for the end of a child; return its exit code."""
        return process.wait()

    def start_process(
        argv: list[str],
        env: dict[str, str],
        cwd: str | None,
        passed: list[int],
        stdout: int,
        stderr: int,
    ) -> subprocess.Popen[bytes]:
        """Start a worker's process, which inherits handles instead of descriptors."""
        import msvcrt

        handles = [msvcrt.get_osfhandle(fd) if fd >= 0 else -1 for fd in passed]
        for handle in handles:
            if handle >= 0:
                os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO()
        startup.lpAttributeList = {"handle_list": [handle for handle in handles if handle >= 0]}
        process = subprocess.Popen(
            [*argv, ",".join(map(str, handles))],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            close_fds=True,
            startupinfo=startup,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW,
        )
        _tie_to_job(process)
        return process

    def _tie_to_job(process: subprocess.Popen[bytes]) -> None:
        """Put the process into a job object that ends with this process, children included.

        See JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE.
        """
        import ctypes

        kernel = ctypes.windll.kernel32

        class Limits(ctypes.Structure):
            """JOBOBJECT_EXTENDED_LIMIT_INFORMATION.

            Basic limits (64 bytes on 64-bit), I/O counters (48 bytes), four sizes.
            """

            _fields_ = (
                ("times", ctypes.c_int64 * 2),
                ("flags", ctypes.c_uint32),
                ("sizes", ctypes.c_size_t * 2),
                ("active", ctypes.c_uint32),
                ("affinity", ctypes.c_size_t),
                ("classes", ctypes.c_uint32 * 2),
                ("io", ctypes.c_uint64 * 6),
                ("memory", ctypes.c_size_t * 4),
            )

        job = kernel.CreateJobObjectW(None, None)
        limits = Limits(flags=0x2000)
        extended_limit_information = 9
        kernel.SetInformationJobObject(
            job, extended_limit_information, ctypes.byref(limits), ctypes.sizeof(limits)
        )
        handle = process._handle  # type: ignore[attr-defined]
        kernel.AssignProcessToJobObject(job, int(handle))
        # The handle stays open as long as the host lives.
        process._wetlands_job = job  # type: ignore[attr-defined]


# Linux. The C library or the kernel for which Python was built may lack each of them.
if sys.platform == "linux":
    from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE
    from select import EPOLLET, EPOLLIN

    # PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info) of linux/pidfd.h: mask, cgroup, eleven
    # ids, exit status.
    _INFO: Final = struct.Struct("<QQ11Ii")
    _GET_INFO: Final = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
    _INFO_EXIT: Final = 1 << 3

    def pidfd_exit_code(pidfd: int) -> int | None:
        """Return how the collected process of a pidfd has ended; None if that is not known.

        Linux 6.15 and newer know it.
        """
        data = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
        try:
            ioctl(pidfd, _GET_INFO, data)
        except OSError:  # an older kernel
            return None
        found = _INFO.unpack(data)
        return waitstatus_to_exitcode(found[-1]) if found[0] & _INFO_EXIT else None
else:
    F_ADD_SEALS = F_SEAL_GROW = F_SEAL_SEAL = F_SEAL_SHRINK = F_SEAL_WRITE = 0
    EPOLLIN, EPOLLET = 1, 1 << 31

    def pidfd_exit_code(pidfd: int) -> int | None:  # noqa: ARG001 - one signature
        """Return None: there are no pidfds."""
        return None


#: A poller whose cost does not depend on the number of descriptors; None is none.
epoll: Any = None if PORTABLE_ONLY else getattr(select, "epoll", None)
#: Whether there are eventfds, and they may be used.
EVENTFDS: Final = not PORTABLE_ONLY and hasattr(os, "eventfd")
eventfd: Callable[[int, int], int] = getattr(os, "eventfd", absent)
memfd_create: Callable[[str, int], int] = getattr(os, "memfd_create", absent)
pidfd_send_signal: Callable[..., None] = getattr(signal, "pidfd_send_signal", absent)
#: Absent also where a pidfd could not be signalled.
pidfd_open: Callable[[int], int] = (
    absent if pidfd_send_signal is absent else getattr(os, "pidfd_open", absent)
)
waitid: Callable[[int, int, int], Any] = getattr(os, "waitid", absent)
_posix_fallocate: Callable[[int, int, int], None] = getattr(os, "posix_fallocate", absent)

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


def reserve(fd: int, offset: int, count: int) -> None:
    """Let the file system take these bytes of a file now. Raises OSError.

    A full disk is an error here; in a mapping it is a SIGBUS, which ends the process.
    """
    if _posix_fallocate is not absent:
        _posix_fallocate(fd, offset, count)
        return
    zeros = memoryview(bytes(min(count, 1 << 20)))  # macOS
    while count > 0:
        done = pwrite(fd, zeros[:count], offset)
        offset, count = offset + done, count - done


def usable_processors() -> int:
    """Return how many workers a pool has unless it is told.

    As many as this process may use processors. Windows can wait for 61 processes at most.
    """
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return min(61, count) if sys.platform == "win32" else count
