"""One kind of executor under test, and what belongs to it for the time of a test."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import interpreters, leaks
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.support.sharing import CondaEnvExecutor
from wetlands_executor import InProcessExecutor

KINDS = ("thread", "process", "conda", "in-process")
ALL_KINDS = (*KINDS, "conda-other")


class ExecutorKind:
    """One kind of executor, and what a test has to know about it.

    Attributes:
        name: one of ``ALL_KINDS``.
        ours: whether it is a ``CondaEnvExecutor``.
        tasks: whether its futures are Tasks.
        remote: whether tasks run in other processes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ours = name.startswith("conda")
        self.tasks = self.ours or name == "in-process"
        self.remote = name not in ("thread", "in-process")
        self._executors: list[Executor] = []
        self._rendezvous: list[Rendezvous] = []
        self.type: Any = (
            CondaEnvExecutor
            if self.ours
            else ProcessPoolExecutor
            if self.remote
            else InProcessExecutor
            if self.tasks
            else ThreadPoolExecutor
        )
        self.env: str | None = None
        if name == "conda-other":
            other = interpreters.another_of_this_version()
            if other is None:
                pytest.skip("no second environment with this version of Python")
            self.env = str(other.path)

    def __repr__(self) -> str:
        return f"<ExecutorKind {self.name}>"

    def make(self, max_workers: int | None = 2, **kwargs: Any) -> Executor:
        """Return a new executor that ends with the test."""
        if self.ours:
            executor = self.type(self.env, max_workers, **kwargs)
        elif self.remote:
            kwargs.setdefault("mp_context", multiprocessing.get_context("spawn"))
            executor = self.type(max_workers, **kwargs)
        else:
            executor = self.type(max_workers, **kwargs)
        self._executors.append(executor)
        return executor

    def forget(self, executor: Executor) -> None:
        """Keep no reference to this executor any more."""
        self._executors = [other for other in self._executors if other is not executor]

    def rendezvous(self) -> Rendezvous:
        """Return a new rendezvous that ends with the test."""
        rendezvous = Rendezvous()
        self._rendezvous.append(rendezvous)
        return rendezvous

    def close(self) -> None:
        """Let every waiting task go on, then shut everything down."""
        for rendezvous in self._rendezvous:
            rendezvous.open()
        for executor in self._executors:
            executor.shutdown(wait=True, cancel_futures=True)


def assert_processes_end(pids: set[int]) -> None:
    """Wait, with a deadline, until none of these processes runs any more."""
    assert not leaks.wait_for_exit(pids, DEADLINE)
