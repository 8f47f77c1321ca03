"""What a display shows: bars, each with its counts, and the tasks that run.

The thread of the display looks at each bar now and then. No listener and no callback is registered
for a bar, and no step of a task is added. What it counts is written by the thread that iterates, or
read from the executor.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import compress, count
from operator import not_
from typing import Any, NamedTuple, Protocol

from wetlands_executor import Overview, RunningTask, Task, ends_of

#: Seconds over which a rate is taken, and between two samples of it.
WINDOW, SAMPLED = 30.0, 0.5
#: Tasks that are looked at together.
LOOKED_AT = 1000
#: How many times as long as a look at all tasks took passes before the next one, and how many
#: seconds for each of them a look may take, before one was measured.
SELDOM, LOOK_SECONDS = 99, 2e-7


class Pool(Protocol):
    """What can be looked at: a ``Watch``, or an executor that has ``get_progress``."""

    @property
    def label(self) -> str:
        """How messages call its environment."""
        ...

    def overview(self, *, exact: bool = False) -> Overview:
        """Return counts and what runs; ``exact``: all that has been seen to end is counted."""
        ...


class ForeignPool:
    """An executor that is not a pool of this process, as its ``get_progress()`` describes it.

    Args:
        executor: has ``get_progress``, which returns a dictionary as ``CondaEnvExecutor`` does.
    """

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    @property
    def label(self) -> str:
        """Name of its type."""
        return type(self._executor).__name__

    def overview(self, *, exact: bool = False) -> Overview:  # noqa: ARG002
        """Return counts and what runs, as far as the dictionary says it."""
        found: Mapping[str, Any] = self._executor.get_progress()
        running = [
            RunningTask(
                str(task.get("id", "")),
                str(task.get("name", "")),
                place,
                0,
                None
                if task.get("execution_duration_ms") is None
                else task["execution_duration_ms"] / 1000,
                progress=None if task.get("progress_pct") is None else task["progress_pct"] / 100,
            )
            for place, task in enumerate(found.get("tasks", ()))
            if task.get("state") == "running"
        ]
        total, completed, failed, cancelled = (
            int(found.get(key, 0)) for key in ("total", "completed", "failed", "canceled")
        )
        return Overview(total, completed, failed, cancelled, 0, tuple(running))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForeignPool) and self._executor is other._executor

    def __hash__(self) -> int:
        return hash(id(self._executor))


class LooseTasks:
    """Tasks that belong to no pool of this process: creations of environments, calls in threads.

    Args:
        tasks: they.
    """

    label = ""

    def __init__(self, tasks: Sequence[Task[Any]]) -> None:
        self._left = list(tasks)

    def overview(self, *, exact: bool = False) -> Overview:  # noqa: ARG002
        """Return which of them run; they are counted elsewhere."""
        self._left = [task for task in self._left if not task.done()]
        running = [
            RunningTask(
                task.id,
                task.name,
                0,
                0,
                None if task.started_at is None else max(time.time() - task.started_at, 0.0),
                task.message,
                task.current,
                task.maximum,
                task.progress,
                task.attempt,
            )
            for task in self._left[:LOOKED_AT]
            if task.running()
        ]
        return Overview(0, 0, 0, 0, 0, tuple(running))


class Counts(NamedTuple):
    """How far a bar is.

    Attributes:
        done: number of items that have ended, however.
        total: number of all; None if unknown.
        failed, cancelled, retried: number of those that have ended so, or were begun anew.
    """

    done: int = 0
    total: int | None = None
    failed: int = 0
    cancelled: int = 0
    retried: int = 0


@dataclass(frozen=True, slots=True)
class BarState:
    """A bar as it is shown.

    Attributes:
        label: what it is about; may be empty.
        counts: how far it is.
        elapsed: seconds since it began.
        rate: items per second lately; None if unknown.
        remaining: seconds that are left at this rate; None if unknown.
        running: tasks that run.
        over: it counts no more.
    """

    label: str
    counts: Counts
    elapsed: float
    rate: float | None
    remaining: float | None
    running: tuple[RunningTask, ...] = ()
    over: bool = False


class Meter:
    """Estimates the rate of a number that grows.

    Args:
        now: the time, in seconds on the monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def note(self, done: int, now: float) -> None:
        """Take a sample."""
        samples = self._samples
        if now - samples[-1][0] >= SAMPLED:
            samples.append((now, done))
        while len(samples) > 1 and now - samples[1][0] >= WINDOW:
            samples.popleft()

    def rate(self, done: int, now: float) -> float | None:
        """Return how much it grows per second lately; None if it has not grown at all."""
        then, before = self._samples[0]
        if done > before and now > then:
            return (done - before) / (now - then)
        return self.mean(done, now)

    def mean(self, done: int, now: float) -> float | None:
        """Return how much it has grown per second from the beginning."""
        return done / (now - self._began) if done and now > self._began else None

    def elapsed(self, now: float) -> float:
        """Return the seconds since the beginning."""
        return now - self._began


class Look(Protocol):
    """Counts for a bar."""

    def __call__(self, overviews: Sequence[Overview], *, over: bool = False) -> Counts:
        """Count; ``over``: for the last time, so exactly."""
        ...


class Bar:
    """One bar.

    Args:
        label: what it is about.
        pools: whose tasks are shown below it.
        look: counts; called with an overview of each pool.
        leave: its last state stays when it is over; None leaves that to the display.
        only: shows only those of the running tasks for which this is true.
    """

    def __init__(
        self,
        label: str,
        pools: Sequence[Pool],
        look: Look,
        *,
        leave: bool | None = None,
        only: Callable[[RunningTask], bool] | None = None,
    ) -> None:
        self.label = label
        self.pools = tuple(pools)
        self.leave = leave
        self._look = look
        self._only = only
        self._meter = Meter(time.monotonic())

    def stay(self, stays: bool) -> None:
        """Decide whether its last state stays, unless that was said when it was made."""
        if self.leave is None:
            self.leave = stays

    def state(
        self, overviews: Mapping[Pool, Overview], shown: Iterable[Pool], *, over: bool = False
    ) -> BarState:
        """Return what is shown.

        Args:
            overviews: of its pools.
            shown: the pools whose tasks are to be shown below this bar.
            over: it counts no more.
        """
        now = time.monotonic()
        counts = self._look([overviews[pool] for pool in self.pools], over=over)
        self._meter.note(counts.done, now)
        rate = (self._meter.mean if over else self._meter.rate)(counts.done, now)
        left = None if counts.total is None else max(counts.total - counts.done, 0)
        running = tuple(
            task
            for pool in shown
            for task in overviews[pool].running
            if self._only is None or self._only(task)
        )
        return BarState(
            self.label,
            counts,
            self._meter.elapsed(now),
            rate,
            None if left is None or not rate else left / rate,
            () if over else running,
            over,
        )


def ended(overview: Overview) -> int:
    """Return the number of tasks that have ended."""
    return overview.completed + overview.failed + overview.cancelled


class PoolCounts:
    """Counts the tasks of executors from now on, those included that are under way now.

    Args:
        pools: the executors.
        total: number of all tasks, if that is known before they are submitted.
    """

    def __init__(self, pools: Sequence[Pool], total: int | None = None) -> None:
        self._before = [pool.overview(exact=True) for pool in pools]
        self._total = total

    def __call__(self, overviews: Sequence[Overview], *, over: bool = False) -> Counts:  # noqa: ARG002
        """Count."""
        pairs = list(zip(overviews, self._before, strict=True))
        total = sum(now.total - ended(then) for now, then in pairs)
        return Counts(
            sum(ended(now) - ended(then) for now, then in pairs),
            total if self._total is None else max(total, self._total),
            sum(now.failed - then.failed for now, then in pairs),
            sum(now.cancelled - then.cancelled for now, then in pairs),
            sum(now.retried - then.retried for now, then in pairs),
        )


class ItemCounts:
    """Counts items that a loop has dealt with; failures and retries are those of the executors.

    Args:
        pools: the executors that the items come from.
        total: number of all items; None if unknown.
        own: failures are only those that the program has counted, and nothing is cancelled: items
            are not the executors' tasks.
        asked_for: returns how many items a loop has asked for, if that is known without counting.
        failed: returns how many of the items are failures, if that is known. Those of the executors
            do not count what failed before the loop began, and count some a moment after the loop
            has them.

    Attributes:
        done: number of items that the program has counted by ``advance``.
        failed: number of failures among them.
    """

    def __init__(
        self,
        pools: Sequence[Pool] = (),
        total: int | None = None,
        *,
        own: bool = False,
        asked_for: Callable[[], int] | None = None,
        failed: Callable[[], int] | None = None,
    ) -> None:
        self._pools = PoolCounts(pools)
        self._failed = failed
        self._own = own
        self._asked_for = asked_for
        self._total = total
        # Number of items that a loop has taken, and of those of them that it has in hand.
        self._taken = count(1)
        self._in_hand = 0
        self.done = 0
        self.failed = 0

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Return an iterator of the items; each is counted when the next one is asked for.

        It holds none of them, and takes no step in Python for an item. ``finish`` is called when
        there are no more.
        """
        self._in_hand = 1
        if self._asked_for is not None:
            return iter(items)
        self._taken = count(1)
        # Each number is true, and is taken when the item has come.
        return compress(items, self._taken)

    def finish(self) -> None:
        """Count the last item as well."""
        self._in_hand = 0

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Count items, and how many of them have failed."""
        self.failed += failed
        self.done += done

    def expect(self, total: int | None) -> None:
        """Set the number of all items."""
        self._total = total

    def __call__(self, overviews: Sequence[Overview], *, over: bool = False) -> Counts:  # noqa: ARG002
        """Count."""
        theirs = self._pools(overviews)
        if self._asked_for is not None:
            taken = self._asked_for()
        else:
            # "count(7)": any other way to read the number advances it
            taken = int(repr(self._taken)[6:-1]) - 1
        failed = theirs.failed if self._failed is None else max(theirs.failed, self._failed())
        return Counts(
            self.done + max(taken - self._in_hand, 0),
            self._total,
            self.failed if self._own else failed,
            0 if self._own else theirs.cancelled,
            theirs.retried,
        )


class TaskCounts:
    """Counts given tasks, without a step of theirs.

    A look at each of 100,000 tasks takes a large part of what such short tasks cost. So all are
    looked at seldom. In between the count goes on from the front as far as tasks have ended, which
    is the order in which most of them do.

    Args:
        pools: the executors that they belong to.
        tasks: any futures.
    """

    def __init__(self, pools: Sequence[Pool], tasks: Sequence[Future[Any]]) -> None:
        self._pools = PoolCounts(pools)
        self._total = len(tasks)
        # Those before the front were looked at; of these the passed ones had not ended.
        self._tasks = list(tasks)
        self._front = 0
        self._passed: list[Future[Any]] = []
        self._failed = self._cancelled = self._done = 0
        self._next = time.monotonic() + SELDOM * LOOK_SECONDS * len(tasks)

    def __call__(self, overviews: Sequence[Overview], *, over: bool = False) -> Counts:
        """Count. What has ended is looked at once."""
        began = time.monotonic()
        if over or began >= self._next:
            self._tasks = self._still([*self._passed, *self._tasks[self._front :]])
            self._passed, self._front = [], 0
            now = time.monotonic()
            self._next = now + SELDOM * (now - began)
        else:
            self._go_on()
        return Counts(
            self._done,
            self._total,
            self._failed,
            self._cancelled,
            self._pools(overviews).retried,
        )

    def _go_on(self) -> None:
        """Look at those that were passed, and at further ones until none of many has ended."""
        self._passed = self._still(self._passed)
        while len(self._passed) < LOOKED_AT:
            part = self._tasks[self._front : self._front + LOOKED_AT]
            left = self._still(part)
            if len(left) == len(part):
                return
            self._passed += left
            self._front += len(part)

    def _still(self, tasks: list[Future[Any]]) -> list[Future[Any]]:
        """Return those that have not ended; count the others."""
        done, failed, cancelled = ends_of(tasks)
        self._done += done.count(True)
        self._failed += failed
        self._cancelled += cancelled
        return list(compress(tasks, map(not_, done)))
