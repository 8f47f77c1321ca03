"""The main thread of ``map``: from items to calls, from outcomes to what is written.

It waits for nothing but its inbox, into which the reader's thread, the executor's callbacks, the
thread of the slices and signal handlers put what has happened. So Ctrl-C never interrupts it
between two steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from wetlands_executor import CondaEnvExecutor, Task
from wetlands_executor.cli import workers
from wetlands_executor.cli.mapping import outcome
from wetlands_executor.cli.mapping.bulk import SHORT, Bulk, SliceDone
from wetlands_executor.cli.mapping.halt import Halt
from wetlands_executor.cli.mapping.items import Item
from wetlands_executor.cli.mapping.outcome import Outcome
from wetlands_executor.cli.mapping.output import Output
from wetlands_executor.cli.mapping.reader import InputEnded, ItemsRead, Reader

#: Calls that are submitted ahead for each worker: of long ones, and of short ones.
AHEAD_LEAST, AHEAD_MOST = 2, 32
#: Outcomes that may wait for those of items before them.
HELD_MOST: Final = 10_000
#: Characters of a task's name.
LONGEST_NAME: Final = 200
#: What is retried: SystemExit is the function's own way to fail.
RETRIED: Final = (Exception, SystemExit)


class Stop(IntEnum):
    """How the run is ended before its input has."""

    NO = 0
    #: what runs is finished
    SOON = 1
    #: what runs is asked to stop, interrupted after 5 s, killed after 5 more
    ASK = 2
    #: what runs is killed
    KILL = 3


class CallDone(NamedTuple):
    """A call that was submitted alone has ended."""

    place: int
    item: Item
    task: Task[Any]


class Signalled(NamedTuple):
    """The process got SIGINT or SIGTERM, for the ``times``-th time."""

    times: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How items are called.

    Attributes:
        target: the text of the target, for the joblog.
        jobs: number of workers.
        timeout: seconds that a call may take; None is no limit.
        retries: how often a call that failed is made again.
        halt: when failures end the run; None is never.
        keep_order: outcomes are written in the order of the items.
    """

    target: str
    jobs: int
    timeout: float | None = None
    retries: int = 0
    halt: Halt | None = None
    keep_order: bool = False

    def command(self, item: Item) -> str:
        """Return the target and the item as words of a shell."""
        return f"{self.target} {item.words()}"


class Loop:
    """Calls the function with every item.

    Args:
        executor: where it runs.
        rules: how.
        reader: reads the items.
        output: writes the outcomes.
        inbox: gets what has happened.
        tell: prints a line for people.

    Attributes:
        unfinished: items whose calls were stopped.
        fatal: why no worker can be started any more, or why items cannot be read.
        stopped: how the run was ended before its input.
        interrupted: True if that was because of a signal.
    """

    def __init__(
        self,
        executor: CondaEnvExecutor,
        rules: Rules,
        reader: Reader,
        output: Output,
        inbox: SimpleQueue[Any],
        tell: Callable[[str], object],
    ) -> None:
        self._executor = executor
        self._rules = rules
        self._reader = reader
        self._output = output
        self._inbox = inbox
        self._tell = tell
        self._bulk = Bulk(executor, inbox)
        self._pending: deque[ItemsRead] = deque()
        self._used = 0  # items of the first of them that were taken
        self._again: deque[tuple[int, Item, int]] = deque()
        self._places = 0
        self._in_flight = 0
        self._ended = False
        self._average = 1.0
        self.unfinished = 0
        self.fatal: BaseException | None = None
        self.stopped = Stop.NO
        self.interrupted = False

    def run(self) -> None:
        """Call all items; return when every call has ended."""
        self._reader.start()
        try:
            while not self._is_done():
                self._take(self._inbox.get())
                self._submit_more()
        except BaseException:
            self._executor.kill_workers()
            raise
        finally:
            self._bulk.close()

    def _is_done(self) -> bool:
        if self._in_flight:
            return False
        return bool(self.stopped) or (self._ended and not self._pending and not self._again)

    # --- what has happened

    def _take(self, event: Any) -> None:
        if isinstance(event, CallDone):
            self._take_call(event)
        elif isinstance(event, SliceDone):
            self._take_slice(event)
        elif isinstance(event, ItemsRead):
            if not self.stopped:
                self._pending.append(event)
        elif isinstance(event, InputEnded):
            self._ended = True
            if event.error is not None:
                self.fatal = self.fatal or event.error
                self._stop(Stop.SOON)
        elif isinstance(event, Signalled):
            self._take_signal(event.times)
        else:
            raise TypeError(event)

    def _take_signal(self, count: int) -> None:
        self.interrupted = True
        if count == 1:
            self._tell(
                "interrupted: no further items; what runs is asked to stop (once more: it is "
                "killed)"
            )
        self._stop(Stop.ASK if count == 1 else Stop.KILL)

    def _take_call(self, done: CallDone) -> None:
        self._in_flight -= 1
        task = done.task
        error = CancelledError() if task.cancelled() else task.exception()
        found: Outcome | None
        if error is None:
            value = task.result()
            self._note(value[1])
            found = outcome.returned(done.item, self._rules.command(done.item), value)
        else:
            found = self._outcome_of(error, done.item, task.started_at or time.time())
            self.unfinished += found is None
        self._output.put([(done.place, found)])
        self._halt_if_due()

    def _take_slice(self, done: SliceDone) -> None:
        self._in_flight -= len(done.items)
        self._bulk.taken()
        written: list[tuple[int, Outcome | None]] = []
        for (place, item), value in zip(done.items, done.outcomes, strict=True):
            if not isinstance(value, BaseException):
                self._note(value[1])
                written.append((place, outcome.returned(item, self._rules.command(item), value)))
            elif self._rules.retries and isinstance(value, RETRIED) and not self.stopped:
                self._again.append((place, item, self._rules.retries - 1))
            else:
                found = self._outcome_of(value, item, done.submitted)
                self.unfinished += found is None
                written.append((place, found))
        self._output.put(written)
        self._halt_if_due()

    def _outcome_of(self, error: BaseException, item: Item, start: float) -> Outcome | None:
        """Return the outcome of a call that did not return; None if it is not finished."""
        if outcome.is_fatal(error) and not self.stopped:
            self.fatal = error
            self._stop(Stop.KILL)
        if self.stopped and outcome.is_unfinished(error, killed=self.stopped is Stop.KILL):
            return None
        return outcome.failed(item, self._rules.command(item), error, start)

    def _note(self, runtime: float) -> None:
        self._bulk.note(runtime)
        self._average += 0.05 * (runtime - self._average)

    def _halt_if_due(self) -> None:
        halt = self._rules.halt
        if halt is None or self.stopped:
            return
        if halt.is_due(self._output.failed, self._output.written):
            self._tell(f"halted: {self._output.failed} of {self._output.written} items have failed")
            self._stop(Stop.KILL if halt.now else Stop.SOON)

    def _stop(self, how: Stop) -> None:
        """Submit nothing more, and end what runs."""
        if how <= self.stopped:
            return
        self.stopped = how
        self._pending.clear()
        self._again.clear()
        if how is Stop.ASK:
            self._executor.shutdown(wait=False, cancel_futures=True, timeout=0)
            return
        self._executor.shutdown(wait=False, cancel_futures=True)
        if how is Stop.KILL:
            self._executor.kill_workers()

    # --- submitting

    def _submit_more(self) -> None:
        while not self.stopped:
            if self._again:
                if not self._has_room():
                    return
                self._submit(*self._again.popleft())
                continue
            if not self._pending or not self._may_go_on():
                return
            size = self._slice_size()
            if size:
                self._submit_slice(size)
            elif self._has_room():
                self._submit_next()
            else:
                return

    def _has_room(self) -> bool:
        jobs = self._rules.jobs
        ahead = AHEAD_MOST if self._average < SHORT else AHEAD_LEAST
        return self._in_flight < ahead * jobs

    def _may_go_on(self) -> bool:
        """Return True unless too many outcomes wait for those of items before them."""
        if not self._rules.keep_order:
            return True
        return self._places < self._output.next_place + HELD_MOST

    def _slice_size(self) -> int:
        """Return how many items are to travel together; 0 if the next one travels alone."""
        if self._rules.timeout is not None or self._rules.halt is not None:
            return 0  # a limit belongs to one call, and a halt comes after one
        waiting = sum(len(each.items) for each in self._pending) - self._used
        # what comes slowly is not kept back until there is more
        return min(self._bulk.room(self._rules.jobs), waiting) if waiting > AHEAD_MOST else 0

    def _next_item(self) -> Item:
        items = self._pending[0].items
        item = items[self._used]
        self._used += 1
        if self._used == len(items):
            self._used = 0
            self._pending.popleft()
            self._reader.taken()
        return item

    def _submit_next(self) -> None:
        item = self._next_item()
        place = self._place()
        if item.problem is not None:
            self._refuse(place, item)
        else:
            self._submit(place, item, self._rules.retries)

    def _submit_slice(self, size: int) -> None:
        items = []
        for _ in range(size):
            item = self._next_item()
            place = self._place()
            if item.problem is not None:
                self._refuse(place, item)
            else:
                items.append((place, item))
        if items and not self.stopped:
            self._in_flight += len(items)
            self._bulk.submit(items)

    def _place(self) -> int:
        self._places += 1
        return self._places - 1

    def _refuse(self, place: int, item: Item) -> None:
        self._output.put([(place, outcome.refused(item, self._rules.command(item)))])
        self._halt_if_due()

    def _submit(self, place: int, item: Item, retries: int) -> None:
        if self.stopped:
            return
        name = item.text[:LONGEST_NAME]
        view = self._executor.options(
            name=name, timeout=self._rules.timeout, retries=retries, retry_on=RETRIED
        )
        task = view.submit(workers.RUN, item.args, item.kwargs)
        self._in_flight += 1
        task.add_done_callback(partial(self._put_done, place, item))

    def _put_done(self, place: int, item: Item, task: Any) -> None:
        self._inbox.put(CallDone(place, item, task))
