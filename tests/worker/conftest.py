"""Interpreters, and one warm executor for each of them.

The executors live as long as the session: what a test leaves behind in a worker is what the next
task of a real pool finds there too. A test that kills, counts or configures workers makes its own.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import interpreters
from tests.support.fixtures import manager  # noqa: F401
from tests.support.interpreters import Interpreter
from tests.worker import workload
from wetlands_executor import CondaEnvExecutor

#: Seconds after which a task of these tests has failed.
DEADLINE = 60


@pytest.fixture(scope="session", params=interpreters.MINORS)
def python(request: pytest.FixtureRequest) -> Interpreter:
    """Each Python from 3.8 on; those that this machine does not have are skipped."""
    for interpreter in interpreters.find():
        if interpreter.minor == request.param:
            return interpreter
    pytest.skip(f"no working Python {request.param} on this machine")


def warm_up(executor: CondaEnvExecutor) -> None:
    """Start whatever the executor starts on demand, so that it does not look like a leak of the
    first test that needs it.
    """
    executor.launch()
    called = threading.Event()
    executor.submit(print, end="").result(DEADLINE)
    executor.submit(print, "tests.worker: warm").result(DEADLINE)
    executor.submit(workload.shout, "", "").result(DEADLINE)
    executor.submit(workload.thing).result(DEADLINE)
    executor.submit(workload.log, "tests.worker", "warm").result(DEADLINE)
    task = executor.submit(abs, -1)
    task.add_done_callback(lambda _: called.set())
    wait([task], timeout=DEADLINE)
    assert called.wait(DEADLINE)


def run(executor: CondaEnvExecutor, function: Callable[..., object], *args: object) -> Any:
    """Return the result of one call."""
    return executor.submit(function, *args).result(DEADLINE)


def define(module: types.ModuleType, source: str) -> None:
    """Execute source in a module, as a notebook does with a cell: no file has it."""
    exec(compile(source, "<cell>", "exec"), module.__dict__)


@contextmanager
def script_with(name: str, source: str) -> Iterator[Any]:
    """Give a module of that name with that source, which a worker cannot import."""
    sys.modules[name] = module = types.ModuleType(name)
    try:
        define(module, source)
        yield module
    finally:
        del sys.modules[name]


@pytest.fixture(scope="session")
def executor(python: Interpreter) -> Iterator[CondaEnvExecutor]:
    """One worker of that Python."""
    with CondaEnvExecutor(str(python.path), max_workers=1) as executor:
        warm_up(executor)
        yield executor


@pytest.fixture(scope="session")
def same() -> Iterator[CondaEnvExecutor]:
    """One worker of this very Python: code by value may travel."""
    with CondaEnvExecutor(sys.executable, max_workers=1) as executor:
        warm_up(executor)
        yield executor


@pytest.fixture
def fresh() -> Iterator[CondaEnvExecutor]:
    """As ``same``, with a worker that was not used."""
    with CondaEnvExecutor(sys.executable, max_workers=1) as executor:
        yield executor


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Write a source file: ``write("name.py", text)`` returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
