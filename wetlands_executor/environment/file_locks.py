"""Locks on files that end with their process: ``flock`` on POSIX, a locked byte on Windows."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

#: Where Windows locks a file: behind all that it holds, so that it can be read meanwhile.
_LOCKED_BYTE: Final = 1 << 30
#: What a file system says that knows no locks.
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def lock_file(fd: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file until it is closed, or its process has ended.

    A file system that knows no locks counts as locked: what is locked here is safe without it.

    Args:
        fd: of the file.
        shared: others may lock it in the same way. Windows has no such lock: nothing is locked.
        wait: wait until it is free.

    Returns:
        False if another has it.
    """
    if sys.platform == "win32":
        import msvcrt

        if shared:
            return True
        while True:
            os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
            try:
                # tries for ten seconds
                msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    return False
            else:
                return True
    else:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _NO_LOCKS
        return True
