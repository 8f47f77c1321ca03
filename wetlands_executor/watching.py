"""What a display asks about the pool behind an executor, a view, a task, or an iterator of ``map``.

Owns the record of which iterator belongs to which pool, for as long as the iterator lives. Keeps
nothing alive. Any thread.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED
from itertools import compress
from operator import attrgetter, length_hint
from typing import Any, cast

from wetlands_executor.futures.future import Task
from wetlands_executor.futures.overview import Overview, RunningTask
from wetlands_executor.map.job import Failures
from wetlands_executor.pool import report
from wetlands_executor.pool.pool import Pool

#: Iterators of ``map`` -> their pool, the number of their calls, the places that are left of these,
#: and how many have failed. No value may refer to its key, not even through other objects, or both
#: are kept for ever. The pool would: it keeps failed tasks, and with their exceptions the frames in
#: which these were raised; the iterator may be a variable of one.
_maps: weakref.WeakKeyDictionary[
    Iterator[Any],
    tuple[weakref.ref[Pool], int | None, Iterator[int] | None, Failures | None],
] = weakref.WeakKeyDictionary()


class Watch:
    """A look at one pool, from outside and as often as one likes.

    Two are equal if they look at the same pool. It keeps the pool, but no executor alive.

    Args:
        pool: the pool.
        total: number of the calls that the watched object stands for.
        places: those of them that the iterator of a ``map`` was not asked for yet.
        failures: of them, each counted before the iterator yields it.

    Attributes:
        total: that number; None if unknown, or if it stands for all calls of the pool.
    """

    __slots__ = ("_failures", "_places", "_pool", "total")

    def __init__(
        self,
        pool: Pool,
        total: int | None = None,
        places: Iterator[int] | None = None,
        failures: Failures | None = None,
    ) -> None:
        self._pool = pool
        self._places = places
        self._failures = failures
        self.total = total

    def overview(self, *, exact: bool = False) -> Overview:
        """Return counts and what runs, at this moment.

        Args:
            exact: count every task whose result the caller has seen; waits for the I/O thread.
        """
        return report.overview(self._pool, exact=exact)

    def asked_for(self) -> int | None:
        """Return how many results the iterator of a ``map`` was asked for; None if unknown.

        Costs the loop over it nothing.
        """
        if self._places is None or self.total is None:
            return None
        return self.total - length_hint(self._places)

    def failed(self) -> int | None:
        """Return how many calls of a ``map`` have failed; None if unknown.

        Each is counted before its outcome is there.
        """
        return None if self._failures is None else self._failures.count

    def one_of(self, tasks: Iterable[object]) -> Callable[[RunningTask], bool]:
        """Return a function that returns True for a running task that is one of these.

        Args:
            tasks: any futures. They are kept until it is called first; made for many.
        """
        given: list[Iterable[object]] = [tasks]
        numbers: set[int] = set()

        def is_one(task: RunningTask) -> bool:
            while given:  # numbers: a set of 100,000 ids as texts takes several times as long
                numbers.update(_attributes(given.pop(), "_number"))
            return task.id.isdecimal() and int(task.id) in numbers

        return is_one

    @property
    def label(self) -> str:
        """How messages call the environment of the pool."""
        return self._pool.label

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watch) and self._pool is other._pool

    def __hash__(self) -> int:
        return hash(id(self._pool))


def watch(what: object) -> Watch | None:
    """Return a look at the pool to which something belongs.

    Args:
        what: an executor, a view of one (``executor.options(...)``), a task, or an iterator that
            ``map`` has returned.

    Returns:
        None if it belongs to none of this process's pools.
    """
    pool = getattr(what, "_pool", None)  # of an executor, and of a task
    if pool is None:
        pool = getattr(getattr(what, "_submission", None), "pool", None)  # of a view
    if isinstance(pool, Pool):
        return Watch(pool)
    if isinstance(what, Iterator):
        try:
            reference, total, places, failures = _maps[what]
        except (KeyError, TypeError):  # TypeError: no weak reference, or no hash
            return None
        found = reference()
        return None if found is None else Watch(found, total, places, failures)
    return None


def watch_tasks(tasks: Iterable[object]) -> list[Watch]:
    """Return a look at each of the pools to which some tasks belong; made for many tasks."""
    pools = dict.fromkeys(_attributes(tasks, "_pool"))
    return [Watch(pool) for pool in pools if isinstance(pool, Pool)]


def ends_of(futures: Sequence[Future[Any]]) -> tuple[list[bool], int, int]:
    """Return which of some futures have ended, and how many have failed and were cancelled.

    Of Tasks that have all ended the fields are read: to call methods of 100,000 takes a large part
    of what such short tasks cost.
    """
    tasks = cast("Sequence[Task[Any]]", futures)
    try:
        finals = [task._final for task in tasks]
        if None not in finals:
            failed = len(tasks) - [task._exception for task in tasks].count(None)
            cancelled = finals.count(CANCELLED) + finals.count(CANCELLED_AND_NOTIFIED)
            return [True] * len(tasks), failed, cancelled
    except AttributeError:
        pass  # some are no Tasks
    done = [each.done() for each in futures]
    if not all(done):
        _, failed, cancelled = ends_of(list(compress(futures, done)))
        return done, failed, cancelled
    errors = [each.exception() for each in futures if not each.cancelled()]
    return done, len(errors) - errors.count(None), len(futures) - len(errors)


def _attributes(tasks: Iterable[object], name: str) -> list[Any]:
    """Return an attribute of each of some futures that are Tasks; in C if all are."""
    futures = list(tasks)
    try:
        return list(map(attrgetter(name), futures))
    except AttributeError:
        return [getattr(each, name) for each in futures if isinstance(each, Task)]


def note(
    results: Iterator[Any],
    pool: Pool,
    total: int | None,
    places: Iterator[int] | None = None,
    failures: Failures | None = None,
) -> Iterator[Any]:
    """Note to which pool an iterator of ``map`` belongs; return it.

    Args:
        results: the iterator.
        pool: where the calls run.
        total: how many calls there are.
        places: of those that it was not asked for yet.
        failures: of them.
    """
    _maps[results] = (weakref.ref(pool), total, places, failures)
    return results
