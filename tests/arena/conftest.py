"""Executors, and looking at whose the blocks are."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from tests.support.fixtures import (  # noqa: F401
    default_workers,
    executor,
    executor_class,
    make,
    rendezvous,
    single,
)
from tests.support.observe import until
from wetlands_executor.sharedmem import arena

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]


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
