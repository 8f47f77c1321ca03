"""What a map job asks of its pool, and a chunk of its job: protocols alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from wetlands_executor.futures.protocols import TaskPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wetlands_executor.pool.start import StartSettings
    from wetlands_executor.pool.stats import TaskStats
    from wetlands_executor.scheduling.messages import Item
    from wetlands_executor.serialize.definitions import Definition
    from wetlands_executor.serialize.settings import HostSettings


class MapPool(TaskPool, Protocol):
    """The pool of a map job, as the job sees it; more than its tasks do."""

    @property
    def max_workers(self) -> int:
        """Number of workers at most."""
        ...

    @property
    def settings(self) -> StartSettings:
        """How workers are started."""
        ...

    @property
    def stats(self) -> TaskStats:
        """Counts."""
        ...

    @property
    def end_reason(self) -> str | None:
        """Why what has not started is cancelled, once the pool is ended that way."""
        ...

    def submit_item(self, item: Item) -> None:
        """Take an item that is no single call.

        The caller has checked that the pool still accepts.
        """
        ...

    def cancel_found(self, find: Callable[[], Iterable[Item]]) -> None:
        """Cancel what ``find`` returns on the I/O thread: dequeue it, or ask it to stop."""
        ...


class Sizes(Protocol):
    """Learns from durations."""

    def note(self, duration: int, count: int) -> None:
        """Learn from the mean duration of ``count`` calls, in microseconds."""
        ...


class Job(Protocol):
    """A map job, as its chunks see it.

    Attributes:
        pool: where it runs.
        definition: the function.
        host_settings: the host settings that it needs.
        chunks: what workers have and have not answered in full.
    """

    pool: MapPool
    definition: Definition
    host_settings: HostSettings
    chunks: dict[Any, None]

    @property
    def sizing(self) -> Sizes:
        """How large chunks are."""
        ...
