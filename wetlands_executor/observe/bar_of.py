"""Which bars stand for what a program has given to ``progress``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, cast

from wetlands_executor import Task, Watch, watch, watch_tasks
from wetlands_executor.observe.bars import (
    Bar,
    ForeignPool,
    ItemCounts,
    LooseTasks,
    Pool,
    PoolCounts,
    TaskCounts,
)


def pool_of(what: Any) -> Pool | None:
    """Return the pool behind an executor, a task or an iterator of ``map``; None if there is none.

    Args:
        what: anything.
    """
    found = watch(what)
    if found is not None:
        return found
    return ForeignPool(what) if callable(getattr(what, "get_progress", None)) else None


def label_of(pool: Pool) -> str:
    """Return a short name of an executor: that of its environment."""
    label = pool.label.removeprefix("the environment ").strip("'\"")
    return os.path.basename(label.rstrip("/\\")) or label if os.sep in label else label


def is_executor(what: object) -> bool:
    """Return True if it is an executor rather than something to iterate over."""
    return isinstance(what, Executor) or callable(getattr(what, "get_progress", None))


def bar_of_executor(
    executor: Any, total: int | None, description: str | None, leave: bool | None
) -> Bar:
    """Return the bar of an executor: all its tasks.

    Raises:
        TypeError: it does not say what it does.
    """
    pool = pool_of(executor)
    if pool is None:
        raise TypeError(
            f"progress({executor!r}): a {type(executor).__name__} does not say what it does. Give "
            "progress() the futures, or the iterator of its map()"
        )
    label = label_of(pool) if description is None else description
    return Bar(label, [pool], PoolCounts([pool], total), leave=leave)


def bar_of_tasks(
    tasks: Collection[Future[Any]], description: str | None, leave: bool | None
) -> Bar:
    """Return the bar of given futures."""
    futures = list(tasks)
    watched = watch_tasks(futures)
    pools: list[Pool] = list(watched)
    if not pools:
        pools.append(LooseTasks([each for each in futures if isinstance(each, Task)]))
    only = watched[0].one_of(futures) if watched else None
    return Bar(description or "", pools, TaskCounts(pools, futures), leave=leave, only=only)


def bar_of_items(
    items: Iterable[Any], total: int | None, description: str | None, leave: bool | None
) -> tuple[Bar, ItemCounts]:
    """Return the bar of a loop over something, and what counts its steps."""
    pool = pool_of(items) if isinstance(items, Iterator) else None
    pools = [] if pool is None else [pool]
    if total is None:
        total = getattr(pool, "total", None)
    if total is None:
        total = length_of(items)
    asked_for = failed = None
    if isinstance(pool, Watch) and pool.asked_for() is not None:
        asked_for = cast("Callable[[], int]", pool.asked_for)
        failed = cast("Callable[[], int]", pool.failed)
    counts = ItemCounts(pools, total, asked_for=asked_for, failed=failed)
    return Bar(description or "", pools, counts, leave=leave), counts


def length_of(items: Iterable[Any]) -> int | None:
    """Return how many items there are, None if they do not say it."""
    try:
        return len(items)  # type: ignore[arg-type] # not each has a length: TypeError
    except TypeError:
        return None


def are_futures(what: object) -> bool:
    """Return True if it is a collection of futures, of which there is at least one."""
    return (
        isinstance(what, Collection)
        and not isinstance(what, (str, bytes))
        and bool(what)
        and all(isinstance(each, Future) for each in what)
    )
