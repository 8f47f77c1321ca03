"""What depends on the platform, on the worker's side.

The host's side is ``wetlands_executor/system.py``.

Every branch of the worker on the platform is here (``tests/house/test_platforms.py`` looks), as a
function with one body per platform or as a constant that names an ability. Two files cannot ask
this module: ``stage0.py`` runs before anything can be imported, and ``fork_server.py``, which runs
on Linux alone, says so to type checkers.

The bodies for Windows were written from its documentation and never ran. Any thread; some modules
of shared memory are used by the host too, and with them this one.
"""

from __future__ import annotations

import _signal
import os
import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    import mmap
    from typing import Any, Callable, Optional

__all__ = [
    "HIGH",
    "ITIMER_REAL",
    "MADVISE",
    "MAP_ANONYMOUS",
    "MAP_NORESERVE",
    "MAP_PRIVATE",
    "REORDERS_STORES",
    "TIMERS",
    "can_read",
    "cores",
    "expect_children",
    "file_memory",
    "move_life",
    "move_up",
    "native",
    "preadv",
    "print_stacks_when_asked",
    "readinto",
    "register_at_fork",
    "reserve_addresses",
    "set_blocking",
    "set_timer",
    "stack_signal",
    "tie_to_host",
]

#: Numbers of descriptors from here on are ours alone.
HIGH = 500
_MAX_IOV = 1 << 20  # bytes of one read; the pipe's capacity decides how much of it is filled

#: Missing on Windows and before macOS 11, where no block of shared memory is read.
preadv: Any = getattr(os, "preadv", None)

#: ``madvise`` has huge pages, and gives pages of a shared file back.
MADVISE = sys.platform == "linux"
MAP_PRIVATE = 2
MAP_ANONYMOUS = 0x20 if sys.platform == "linux" else 0x1000
MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0x40

#: ``setitimer`` and the numbers of its timers; Windows has none.
set_timer: Any = getattr(_signal, "setitimer", None)
ITIMER_REAL: int = getattr(_signal, "ITIMER_REAL", 0)
TIMERS = frozenset(getattr(_signal, name) for name in dir(_signal) if name.startswith("ITIMER_"))

if sys.platform != "win32":
    from os import register_at_fork, set_blocking

    #: The processor may reorder stores.
    REORDERS_STORES = os.uname().machine.lower() not in ("x86_64", "amd64", "i686", "i386")

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

    def expect_children() -> None:
        """Restore the default of SIGCHLD if the host ignores it.

        Commands that a task runs would have no exit status: a program inherits what is ignored.
        """
        if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)

    def print_stacks_when_asked() -> None:
        """Let the process print its Python stacks to stderr at ``stack_signal``."""
        import faulthandler

        number = stack_signal()
        assert number is not None
        faulthandler.register(number, 2)

    def native(text: str) -> str:
        """Return a path, argument or variable of the host as this interpreter itself would name it.

        The host has decoded its bytes as UTF-8. In a Python whose file system encoding is ASCII
        (``LC_ALL=C`` without UTF-8 mode) the same bytes are another str, and the host's could not
        be encoded.
        """
        if not text.isascii():
            try:
                return os.fsdecode(text.encode("utf-8", "surrogateescape"))
            except UnicodeError:
                pass  # no bytes could have been decoded to it
        return text

    def reserve_addresses(length: int) -> mmap.mmap:
        """Return private memory of which only touched pages exist. Raises OSError."""
        import mmap

        return mmap.mmap(-1, length, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

    def file_memory(fd: int) -> int:
        """Return the bytes of memory, or of the disk, that a sparse file takes."""
        return os.fstat(fd).st_blocks * 512

    def _end_group() -> None:
        os.killpg(os.getpgrp(), 9)

else:
    REORDERS_STORES = True

    def register_at_fork(**_hooks: Callable[[], object]) -> None:
        """Do nothing: there is no fork."""

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

    def expect_children() -> None:
        """Do nothing: there is no SIGCHLD."""

    def print_stacks_when_asked() -> None:
        """Do nothing: there is no signal for it."""

    def native(text: str) -> str:
        """Return ``text``: names are Unicode."""
        return text

    def reserve_addresses(length: int) -> mmap.mmap:
        """Return private memory. Nothing is shared there, so this is not used."""
        import mmap

        return mmap.mmap(-1, length)

    def file_memory(fd: int) -> int:  # noqa: ARG001 - one signature
        """Return 0: it is not known."""
        return 0

    def _end_group() -> None:
        """Do nothing: the job ends the others."""


def stack_signal() -> Optional[int]:
    """Return the signal at which a worker prints its Python stacks, for both ends.

    None on Windows.
    """
    last: Optional[int] = getattr(_signal, "SIGRTMAX", None)
    return getattr(_signal, "SIGUSR2", None) if last is None else last - 1


def cores() -> int:
    """Return how many processors the calling thread may run on."""
    if sys.platform == "linux":
        try:
            return len(os.sched_getaffinity(0))
        except OSError:
            pass  # a sandbox
    return os.cpu_count() or 1


def move_life(fd: int) -> int:
    """Return the life pipe under a high number, -1 if there is none.

    Where a thread reads it (``tie_to_host``), it keeps its number.
    """
    return move_up(fd) if fd >= 0 and sys.platform == "linux" else fd


def tie_to_host(life: int) -> None:
    """End this process, and what it started, when the host dies; whatever it is doing then.

    The host holds the only writing end of the life pipe and never writes. On Linux the kernel turns
    its closing into a SIGKILL for the whole process group, which also ends a worker that holds the
    GIL in C code. Elsewhere a thread waits for it.

    Args:
        life: the reading end; -1 is none.
    """
    if life < 0:
        return
    if sys.platform == "linux":
        try:
            import fcntl

            set_signal = fcntl.F_SETSIG if hasattr(fcntl, "F_SETSIG") else 10
            os.set_blocking(life, False)
            # The group is this worker's alone: the host starts each in a session of its own, of
            # which a wrapper may be the leader. In a container with processes of its own that
            # group may have no number (0).
            fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp() or os.getpid())
            fcntl.fcntl(life, set_signal, 9)
            fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
            # Race: the host may have died before the lines above; then nothing will signal any
            # more, but the pipe is at its end.
            try:
                if os.read(life, 1) == b"":
                    os._exit(87)
            except BlockingIOError:
                pass
            return
        except (ImportError, OSError):
            pass
    import _thread

    def wait_for_end() -> None:
        try:
            os.read(life, 1)
        finally:
            _end_group()
            os._exit(87)

    set_blocking(life, True)
    _thread.start_new_thread(wait_for_end, ())
