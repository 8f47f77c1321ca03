"""Unit tests start no process: whatever would start one is refused, and fails the test.

The functions are replaced where the standard library looks them up, and only while a unit test
runs. (An audit hook could not be removed, and would slow down what other tests count.)
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import leaks

try:
    import _posixsubprocess
except ImportError:  # Windows
    _posixsubprocess = None

#: Owner and name of every way to a new process that the standard library has: ``subprocess``,
#: ``os.popen`` and asyncio end in the first one, ``multiprocessing`` in one of the others.
WAYS = [
    (subprocess.Popen, "_execute_child"),
    (_posixsubprocess, "fork_exec"),
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (os, "spawnv"),
    (os, "spawnve"),
    (os, "startfile"),
    (os, "system"),
]


@pytest.fixture(scope="module", autouse=True)
def no_mappings_left() -> Iterator[None]:
    """Fail if the tests of a file have left shared memory mapped."""
    before = leaks.Snapshot.take(processes=False)
    yield
    found = leaks.since(before)
    assert not found.memfds, f"the tests of this file left behind:\n{found}"


@pytest.fixture(autouse=True)
def refused_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse to start processes. The list has what was tried; a test leaves it empty."""
    tried: list[str] = []

    def refuse(*arguments: object, **_options: object) -> None:
        tried.append(repr(arguments))
        raise RuntimeError(f"a unit test starts no process, and this one tried to: {arguments!r}")

    for owner, name in WAYS:
        if hasattr(owner, name):
            monkeypatch.setattr(owner, name, refuse)
    yield tried
    monkeypatch.undo()
    assert not tried, f"tried to start processes: {tried}"
