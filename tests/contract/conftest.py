"""The stamps: each contract test runs once per kind of executor.

``stamp`` makes executors and rendezvous and cleans both up in the only order that cannot hang:
first every waiting task may go on, then the executors are shut down. A test of some kinds only
says ``@pytest.mark.stamps("process", "conda")``; ``"conda-other"`` runs the workers in another
environment (same version of Python, nothing installed).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from concurrent.futures import Executor

import pytest

from tests.contract.stamps import ALL_STAMPS, STAMPS, Stamp
from tests.support.fixtures import manager  # noqa: F401
from tests.support.rendezvous import Rendezvous


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Stamp every test that uses an executor."""
    if "stamp" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("stamps")
        names = marker.args if marker else STAMPS
        assert set(names) <= set(ALL_STAMPS), names
        metafunc.parametrize("stamp", names, indirect=True)


@pytest.fixture
def stamp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stamp]:
    """The kind of executor that this run of the test is about."""
    stamp = Stamp(request.param)
    # Children of a spawn context import the main module again: pytest, 200 ms. They find an empty
    # one instead.
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    yield stamp
    stamp.close()


@pytest.fixture
def executor(stamp: Stamp) -> Executor:
    """An executor with two workers."""
    return stamp.make(max_workers=2)


@pytest.fixture
def single(stamp: Stamp) -> Executor:
    """An executor with one worker: whatever else is submitted waits."""
    return stamp.make(max_workers=1)


@pytest.fixture
def rendezvous(stamp: Stamp) -> Rendezvous:
    """The place where tasks report and wait for the test."""
    return stamp.rendezvous()
