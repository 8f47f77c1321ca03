"""What the tests of tasks have besides the shared fixtures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures import (  # noqa: F401
    default_workers,
    executor,
    executor_class,
    host,
    host_programs,
    make,
    rendezvous,
    single,
)
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor

#: Seconds that the first calls of the shared worker may take.
FIRST_CALLS = 10.0


@pytest.fixture(scope="module")
def shared() -> Iterator[CondaEnvExecutor]:
    """One executor with one worker for a whole module, for tests that leave no trace.

    All its threads run before the first test begins.
    """
    with CondaEnvExecutor(max_workers=1) as one:
        one.submit(workload.say, "", end="").result(FIRST_CALLS)
        called = threading.Event()
        one.submit(workload.hold).add_done_callback(lambda _task: called.set())
        assert called.wait(FIRST_CALLS)
        assert one.submit(workload.Holder).result(FIRST_CALLS)
        yield one


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A file to which calls append lines: the proof that they ran."""
    path = tmp_path / "journal"
    path.touch()
    return path
