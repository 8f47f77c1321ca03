"""The executor_kinds: each contract test runs once per kind of executor.

``executor_kind`` makes executors and rendezvous and cleans both up in the only order that cannot
hang: first every waiting task may go on, then the executors are shut down. A test of some kinds
only says ``@pytest.mark.executor_kinds("process", "conda")``; ``"conda-other"`` runs the workers in
another environment (same version of Python, nothing installed).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from concurrent.futures import Executor

import pytest

from tests.contract.executor_kinds import ALL_KINDS, KINDS, ExecutorKind
from tests.support.fixtures import manager  # noqa: F401
from tests.support.rendezvous import Rendezvous


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """ExecutorKind every test that uses an executor."""
    if "executor_kind" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("executor_kinds")
        names = marker.args if marker else KINDS
        assert set(names) <= set(ALL_KINDS), names
        metafunc.parametrize("executor_kind", names, indirect=True)


@pytest.fixture
def executor_kind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ExecutorKind]:
    """The kind of executor that this run of the test is about."""
    executor_kind = ExecutorKind(request.param)
    # Children of a spawn context import the main module again: pytest, 200 ms. They find an empty
    # one instead.
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    yield executor_kind
    executor_kind.close()


@pytest.fixture
def executor(executor_kind: ExecutorKind) -> Executor:
    """An executor with two workers."""
    return executor_kind.make(max_workers=2)


@pytest.fixture
def single(executor_kind: ExecutorKind) -> Executor:
    """An executor with one worker: whatever else is submitted waits."""
    return executor_kind.make(max_workers=1)


@pytest.fixture
def rendezvous(executor_kind: ExecutorKind) -> Rendezvous:
    """The place where tasks report and wait for the test."""
    return executor_kind.rendezvous()
