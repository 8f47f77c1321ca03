"""Meetings, executors, managers and host programs: the fixtures that several folders share.

A ``conftest.py`` imports those that its tests use; what differs between folders is a fixture that
it overrides: ``default_workers``, ``executor_class``, ``host_programs``.

Teardown goes in the only order that cannot hang: first all calls that wait may go on, then the
executors are shut down; a call that goes on all the same loses its worker, and fails the test.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import types
from collections.abc import Callable, Iterator
from multiprocessing.managers import SyncManager
from typing import Any

import pytest

from tests.support.host import Host
from tests.support.rendezvous import Rendezvous
from wetlands_executor import CondaEnvExecutor

#: Seconds that a test's calls may still take at its end. Then the workers are killed, so that the
#: tests that follow have the machine, and the test fails.
LAST_CALLS = 30.0


@pytest.fixture
def default_workers() -> int:
    """How many workers ``make()`` gives."""
    return 1


@pytest.fixture
def executor_class() -> type[CondaEnvExecutor]:
    """What ``make()`` makes."""
    return CondaEnvExecutor


@pytest.fixture
def host_programs(request: pytest.FixtureRequest) -> str:
    """The module of the programs that ``host()`` runs: ``hosts`` in the folder of the test."""
    return f"tests.{request.path.parent.name}.hosts"


@pytest.fixture
def rendezvous() -> Iterator[Rendezvous]:
    """The place where calls report and wait for the test."""
    with Rendezvous() as rendezvous:
        yield rendezvous


@pytest.fixture
def make(
    rendezvous: Rendezvous, default_workers: int, executor_class: type[CondaEnvExecutor]
) -> Iterator[Callable[..., CondaEnvExecutor]]:
    """Make executors that end with the test: ``make(max_workers=..., env=None, ...)``."""
    made: list[CondaEnvExecutor] = []

    def make(max_workers: int = default_workers, **kwargs: Any) -> CondaEnvExecutor:
        made.append(executor_class(kwargs.pop("env", None), max_workers, **kwargs))
        return made[-1]

    yield make
    rendezvous.open()
    hanging = []
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True)
        last_resort = threading.Timer(LAST_CALLS, executor.kill_workers)
        last_resort.start()
        executor.shutdown()
        if last_resort.finished.is_set():
            hanging.append(executor)
        last_resort.cancel()
        last_resort.join()
    assert not hanging, f"not shut down within {LAST_CALLS:g} s of the end of the test"


@pytest.fixture
def single(make: Callable[..., CondaEnvExecutor]) -> CondaEnvExecutor:
    """An executor with one worker: whatever else is submitted waits, and what follows a fault
    meets the same process, or its replacement.
    """
    return make(max_workers=1)


@pytest.fixture
def executor(make: Callable[..., CondaEnvExecutor]) -> CondaEnvExecutor:
    """An executor with two workers."""
    return make(max_workers=2)


@pytest.fixture
def host(host_programs: str) -> Iterator[Callable[..., Host]]:
    """Start hosts: ``host("name", args...)`` runs the program of that name; keywords are variables
    of its environment.
    """
    hosts: list[Host] = []

    def start(name: str, *args: object, **env: str) -> Host:
        hosts.append(Host(host_programs, name, *args, **env))
        return hosts[-1]

    yield start
    for one in hosts:
        one.close()


@pytest.fixture(scope="module")
def manager() -> Iterator[SyncManager]:
    """A running ``multiprocessing.Manager``; its process belongs to the test module.

    That process must not import pytest, which is the main module here.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        manager = multiprocessing.get_context("spawn").Manager()
    finally:
        sys.modules["__main__"] = main
    with manager:
        yield manager
