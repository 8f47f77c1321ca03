"""The files that ``map`` begins anew: what must not be lost by that."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from wetlands_executor.cli.errors import CommandError


def check_distinct(read: Iterable[tuple[str, str]], written: Iterable[tuple[str, str]]) -> None:
    """Refuse a file that is written and has a second use: one of them would destroy the other.

    Args:
        read: option and path of each file that is read.
        written: those of the files that are written.

    Raises:
        CommandError: two of them are one file.
    """
    uses = list(read)
    for option, path in written:
        for other, taken in uses:
            if _is_regular(path) and _is_same(path, taken):
                raise CommandError(
                    f"{option} {path} and {other} {taken} are the same file; give another to "
                    f"{option}"
                )
        uses.append((option, path))


def truncate(descriptor: int, size: int) -> None:
    """Cut a file; devices, pipes and terminals have nothing to cut."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.ftruncate(descriptor, size)


def _is_regular(path: str) -> bool:
    """Return True for a file, and for one that is to be made."""
    return os.path.isfile(path) or not os.path.exists(path)


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is to be made
        return os.path.realpath(path) == os.path.realpath(other)
