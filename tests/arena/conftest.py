"""Executors, and looking at whose the blocks are."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.meeting import Meeting
from tests.faults.observe import until
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.sharedmem import arena

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    """The place where tasks report and wait for the test."""
    with Meeting() as meeting:
        yield meeting


@pytest.fixture
def make(meeting: Meeting) -> Iterator[Callable[..., CondaEnvExecutor]]:
    """Make executors that end with the test."""
    made: list[CondaEnvExecutor] = []

    def make(max_workers: int = 1, **kwargs: Any) -> CondaEnvExecutor:
        made.append(CondaEnvExecutor(kwargs.pop("env", None), max_workers, **kwargs))
        return made[-1]

    yield make
    meeting.open()
    for executor in made:
        executor.shutdown(cancel_futures=True)


@pytest.fixture
def single(make: Callable[..., CondaEnvExecutor]) -> CondaEnvExecutor:
    """An executor with one worker."""
    return make()


class Memory:
    """The arena of this process, as a test looks at it."""

    def __init__(self) -> None:
        found = arena.current()
        assert found is not None
        self.arena = found
        # A test that has failed, whose frames the report keeps, may still hold some.
        self._before = found.in_use()

    @property
    def in_use(self) -> dict[int, int]:
        """Slot -> owner word of blocks that are not free."""
        return dict(self.arena.in_use().items() - self._before.items())

    @property
    def resident(self) -> int:
        """Bytes."""
        blocks = self.arena.blocks()
        assert blocks is not None
        return blocks.region.resident()

    def is_free(self) -> bool:
        """Wait until every block is free; what only the collector can free included."""
        gc.collect()
        return until(lambda: not self.in_use, 4)


@pytest.fixture
def memory() -> Iterator[Memory]:
    """The arena, which lives as long as the test."""
    memory = Memory()
    yield memory
    del memory.arena  # pytest itself keeps the object a little longer
