"""The files that a command writes: that it can, and what must not be lost by it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from wetlands_executor.cli.errors import CommandError


def check_files(read: Iterable[tuple[str, str]], written: Iterable[tuple[str, str]]) -> None:
    """Refuse what cannot be written before anything is computed for it, and what must not be.

    That is a file with a second use: one of them would destroy the other.

    Args:
        read: for each file that is read, what it is to the command, and its path. There may be
            many, and words among them that are no file.
        written: option and path of each file that is written.

    Raises:
        CommandError: two of them are one file, or one cannot be written.
    """
    uses: dict[tuple[int, int] | str, tuple[str, str]] = {}
    for option, path in written:
        _check_writable(option, path)
        key = _identity(path)
        if key is None:
            continue
        if key in uses:
            raise _same((option, path), uses[key])
        uses[key] = (option, path)
    if uses:
        for what, path in read:
            key = _identity(path)
            if key in uses:
                raise _same(uses[key], (what, path))


def _check_writable(option: str, path: str) -> None:
    """Refuse a file that cannot be written, without opening it: opening has effects on a pipe."""
    folder = os.path.dirname(path) or os.curdir
    if os.path.isdir(path):
        code = errno.EISDIR
    elif not os.path.isdir(folder):
        code = errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        code = errno.EACCES
    else:
        return
    raise CommandError(f"{option} {path}: {os.strerror(code)}")


def _identity(path: str) -> tuple[int, int] | str | None:
    """Return what two paths of one file have in common; None for devices, pipes and the like."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # it is to be made; or a NUL byte: no path
        return None if "\0" in path else os.path.realpath(path)
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino)


def _same(written: tuple[str, str], other: tuple[str, str]) -> CommandError:
    option, path = written
    return CommandError(
        f"{option} {path} and {other[0]} {other[1]} are the same file; give another to {option}"
    )


def truncate(descriptor: int, size: int) -> None:
    """Cut a file; devices, pipes and terminals have nothing to cut."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.ftruncate(descriptor, size)
