"""The files that a command begins anew: what must not be lost by that."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from wetlands_executor.cli.errors import CommandError


def check_distinct(read: Iterable[tuple[str, str]], written: Iterable[tuple[str, str]]) -> None:
    """Refuse a file that is written and has a second use: one of them would destroy the other.

    Args:
        read: for each file that is read, what it is to the command, and its path. There may be
            many, and words among them that are no file.
        written: option and path of each file that is written.

    Raises:
        CommandError: two of them are one file.
    """
    uses: dict[tuple[int, int] | str, tuple[str, str]] = {}
    for option, path in written:
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
