"""Descriptors and files without a name, of all pools of this process.

Owns the set of the host's descriptors that a forked child of it has to close. What the platform has
of them is decided in ``system.py``. Entered by any thread.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading

from wetlands_executor.system import (
    F_ADD_SEALS,
    F_SEAL_GROW,
    F_SEAL_SHRINK,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    O_CLOEXEC,
    PORTABLE_ONLY,
    above_standard,
    fcntl,
    memfd_create,
    reserve,
)


def _has_memfd() -> bool:
    try:
        os.close(memfd_create("wetlands-probe", MFD_CLOEXEC))
    except OSError:
        return False
    return True


#: Files in memory that have no name. They are missing in a Python that was built for an old C
#: library, and refused by some sandboxes; then unlinked temporary files take their place, and
#: arrays go through the pipe, as elsewhere.
MEMFD = not PORTABLE_ONLY and _has_memfd()

#: Bytes of a file for shared memory, of which only touched pages exist (``worker/shm_arena.py``).
FILE = 1 << 44
#: Bytes of the tables of words at its beginning; ``worker.wire.ARENA_HEADER``.
HEADER = 2 * 4 * 65536

# The host's descriptors of all pools, from their making to their closing. A forked child of the
# host must close every one of them: it would keep workers alive (life pipes), and hide ends of
# pipes. Guarded by the GIL (single operations).
_owned: set[int] = set()
# Held while descriptors are made and not yet noted, and by a thread that forks: the child sees all
# of them or none. RLock, because the child releases it in the thread that forked.
making = threading.RLock()


def own(*fds: int) -> None:
    """Note descriptors that a forked child has to close."""
    _owned.update(fds)


def disown(*fds: int) -> None:
    """Forget descriptors. Call it before they are closed: their numbers may be reused at once."""
    _owned.difference_update(fds)


def close_owned() -> None:
    """Close the descriptors of all pools; in a forked child."""
    for fd in list(_owned):
        close_quietly(fd)


def pipe() -> tuple[int, int]:
    """Make a pipe under numbers above 2; return its reading and its writing end."""
    read, write = os.pipe()
    if read > 2 and write > 2:
        return read, write
    try:
        read = above_standard(read)
    except OSError:
        os.close(write)
        raise
    try:
        return read, above_standard(write)
    except OSError:
        os.close(read)
        raise


def temporary_file() -> int:
    """Return a file on the disk without a name. Raises OSError."""
    fd, path = tempfile.mkstemp(prefix="wetlands-memory-")
    os.unlink(path)
    return above_standard(fd)


def memory(name: str) -> int:
    """Return a file in memory. Raises OSError."""
    return above_standard(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING))


def seal_size(fd: int) -> None:
    """Seal the size of a memory file.

    Another process could otherwise truncate it, and mappings of it would meet a SIGBUS.
    """
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)


def memory_file() -> int:
    """Return a sparse file of ``FILE`` bytes without a name; in memory where the system has that.

    Raises:
        OSError: it cannot be made.
    """
    with making:
        fd = memory("wetlands-arena") if MEMFD else temporary_file()
        own(fd)
        try:
            os.ftruncate(fd, FILE if MEMFD else FILE >> 4)
            if MEMFD:
                seal_size(fd)
            else:
                reserve(fd, 0, HEADER)
            os.lseek(fd, 0, os.SEEK_END)  # see `for_worker`
        except OSError:
            close_quietly(fd)
            raise
    return fd


def for_worker(fd: int) -> int:
    """Return another open of a memory file, for a worker to inherit.

    Guarantee: a task that writes to each descriptor that it finds does not reach the tables and
    blocks, which it shares with other workers. What is written goes to the end of the file (also by
    ``pwrite``, and after a ``lseek``), and the seal against growth refuses it there. The offset and
    the flags are this worker's alone. Where there is no /proc, it is the host's open of the file,
    whose offset is at the end.
    """
    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_APPEND | O_CLOEXEC)
    except OSError:
        return above_standard(os.dup(fd))
    mine = above_standard(opened)
    try:
        os.lseek(mine, 0, os.SEEK_END)
    except BaseException:
        os.close(mine)
        raise
    return mine


def close_quietly(fd: int) -> None:
    """Disown and close a descriptor; -1 is none."""
    if fd >= 0:
        disown(fd)
        with contextlib.suppress(OSError):
            os.close(fd)
