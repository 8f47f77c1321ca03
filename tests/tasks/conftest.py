"""What the tests of tasks have besides the shared fixtures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures import (  # noqa: F401
    default_workers,
    executor,
    host,
    host_programs,
    make,
    rendezvous,
    single,
)
from tests.support.in_process import InProcess
from tests.tasks import both, workload
from wetlands_executor import CondaEnvExecutor

#: Seconds that the first calls of the shared worker may take.
FIRST_CALLS = 10.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what concerns both over threads of this process too."""
    if both.FIXTURES & set(metafunc.fixturenames) and "kind" not in metafunc.fixturenames:
        file = metafunc.definition.path.stem
        if both.runs_in_process(file, metafunc.definition.name):
            metafunc.fixturenames.append("kind")
            metafunc.parametrize("kind", ["conda", "in-process"])


@pytest.fixture
def executor_class(request: pytest.FixtureRequest) -> type[CondaEnvExecutor]:
    """The class of the kind of executor that this run of a test is about."""
    callspec = getattr(request.node, "callspec", None)
    kind = callspec.params.get("kind") if callspec is not None else None
    return InProcess if kind == "in-process" else CondaEnvExecutor  # type: ignore[return-value]


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
