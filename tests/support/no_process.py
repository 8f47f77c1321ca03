"""Fixtures for tests that start no process: what would start one is refused, and fails the test.

A folder's conftest imports both of them. The functions are replaced where the standard library
looks them up, and only while a test of such a folder runs. (An audit hook could not be removed, and
would slow down what other tests count.)
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
def all_starts() -> Iterator[list[str]]:
    """Refuse to start processes while the tests of a file run. The list has what was tried.

    Fails if they have left anything behind. A look after each of them, as elsewhere, would take a
    tenth of their time.
    """
    tried: list[str] = []

    def refuse(*arguments: object, **_options: object) -> None:
        tried.append(repr(arguments))
        raise RuntimeError(f"this test may start no process, and tried to: {arguments!r}")

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WAYS:
            if hasattr(owner, name):
                patch.setattr(owner, name, refuse)
        before = leaks.Snapshot.take(processes=False)
        yield tried
        found = leaks.since(before)
        assert not found, f"the tests of this file left behind:\n{found}"


@pytest.fixture(autouse=True)
def refused_starts(all_starts: list[str]) -> Iterator[list[str]]:
    """Fail a test that has tried to start processes; it leaves the list of them empty."""
    yield all_starts
    tried = all_starts.copy()
    all_starts.clear()
    assert not tried, f"tried to start processes: {tried}"
