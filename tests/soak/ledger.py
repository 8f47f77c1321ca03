"""What the soak knows of its tasks, and what it found wrong.

A task is known by a record that does not keep it alive. When all executors of a round have ended,
each record must say: one final state, seen once by the task's callback and once by its listener,
the same state that was seen first; and the task itself must be gone.
"""

from __future__ import annotations

import gc
import random
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wetlands_executor import Task, TaskEvent, TaskStatus

#: Seconds within which a task must reach its final state, on a busy machine.
LIMIT = 60.0


class Violation(Exception):
    """Something did not hold."""


@dataclass
class Record:
    """One task.

    Attributes:
        ingredient: what made it.
        task: a weak reference to it.
        calls: states that its callback has seen.
        ends: states that its listener has seen at terminal events.
    """

    ingredient: str
    name: str
    task: weakref.ref[Task[Any]]
    calls: list[TaskStatus] = field(default_factory=list)
    ends: list[TaskStatus] = field(default_factory=list)

    def callback(self, task: Any) -> None:
        """Be a callback of the task."""
        self.calls.append(task.status)

    def listener(self, event: TaskEvent) -> None:
        """Be a listener of the task."""
        if event.type.is_terminal:
            self.ends.append(event.task.status)


class Ledger:
    """All tasks of a round, and all complaints of a run; any thread."""

    def __init__(self) -> None:
        # Guards the fields below.
        self._lock = threading.Lock()
        self.records: list[Record] = []
        self.done: Counter[str] = Counter()
        self.tasks = 0
        self.violations: list[str] = []

    def complain(self, text: str) -> None:
        """Keep a complaint."""
        with self._lock:
            self.violations.append(text)

    def add(self, record: Record) -> None:
        """Keep a task's record until the end of the round."""
        with self._lock:
            self.records.append(record)
            self.tasks += 1

    def count(self, ingredient: str) -> None:
        """Count an ingredient that has come to its end."""
        with self._lock:
            self.done[ingredient] += 1

    def close_round(self) -> None:
        """Check the records after all executors have ended, and drop them."""
        gc.collect()
        with self._lock:
            records, self.records = self.records, []
        kept = Counter()
        for record in records:
            about = f"{record.ingredient}, task {record.name}"
            if len(record.calls) != 1 or len(record.ends) != 1:
                self.complain(
                    f"{about}: {len(record.calls)} callbacks and {len(record.ends)} "
                    f"terminal events instead of one each"
                )
            elif record.calls != record.ends or not record.calls[0].is_finished():
                self.complain(
                    f"{about}: its callback saw {record.calls}, its listener {record.ends}"
                )
            if record.task() is not None:
                kept[record.ingredient] += 1
        if kept:
            self.complain(f"tasks that nothing should keep any more are alive: {dict(kept)}")


class Kitchen:
    """What an ingredient works with.

    One driver's random numbers, the executors of the round, and the checks.
    """

    def __init__(
        self, ledger: Ledger, rng: random.Random, executors: dict[str, Any], folder: str
    ) -> None:
        self.ledger = ledger
        self.rng = rng
        self.executors = executors
        self.folder = folder
        self.ingredient = ""

    def executor(self, *names: str) -> Any:
        """Return one of the executors of the round: of these names, or any."""
        return self.executors[
            self.rng.choice(
                [name for name in names or sorted(self.executors) if name in self.executors]
            )
        ]

    def track(self, task: Task[Any]) -> Task[Any]:
        """Have the end of a task watched."""
        record = Record(self.ingredient, task.name, weakref.ref(task))
        task.listen(record.listener)
        task.add_done_callback(record.callback)
        self.ledger.add(record)
        return task

    def submit(self, executor: Any, function: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Submit a call and have its end watched."""
        return self.track(executor.submit(function, *args, **kwargs))

    def end(self, task: Task[Any]) -> Task[Any]:
        """Wait for a task's final state."""
        try:
            task.wait_for(LIMIT)
        except TimeoutError:
            raise Violation(f"{task} has not ended within {LIMIT} s") from None
        return task

    def same(self, found: object, expected: object, what: object) -> None:
        """Compare."""
        if type(found) is not type(expected) or found != expected:
            raise Violation(f"{what}: {found!r:.300} instead of {expected!r:.300}")

    def value(self, task: Task[Any], expected: object) -> None:
        """The task has completed with this value."""
        self.end(task)
        if task.status is not TaskStatus.COMPLETED:
            raise Violation(f"{task} should have the value {expected!r:.100}: {task.error}")
        self.same(task.value, expected, task)

    def fails(self, task: Task[Any], kind: type[BaseException], pattern: str = "") -> BaseException:
        """The task has failed with this exception; it is returned."""
        self.end(task)
        error = None if task.cancelled() else task.exception(0)
        if task.status is not TaskStatus.FAILED or not isinstance(error, kind):
            value = task.value if task.status is TaskStatus.COMPLETED else ""
            raise Violation(
                f"{task} should fail with {kind.__name__}, and has {task.status}: "
                f"{error!r:.1000} {value!r:.100}"
            )
        if not re.search(pattern, str(error), re.DOTALL):
            raise Violation(f"{task}: {pattern!r} is not in {error!s:.1000}")
        return error

    def cancelled(self, task: Task[Any]) -> None:
        """The task has been cancelled."""
        self.end(task)
        if task.status is not TaskStatus.CANCELED or not task.cancelled():
            raise Violation(f"{task} should be cancelled, and is {task.status}: {task.error}")

    def bystanders(self, executor: Any, count: int = 3) -> Callable[[], None]:
        """Submit calls that nothing may harm; the function returned checks them."""
        from tests.soak import work

        numbers = [self.rng.randrange(10**6) for _ in range(count)]
        tasks = [self.submit(executor, work.add, number, 1) for number in numbers]

        def check() -> None:
            for task, number in zip(tasks, numbers, strict=True):
                self.value(task, number + 1)
            tasks.clear()

        return check
