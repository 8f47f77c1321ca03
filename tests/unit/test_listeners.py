"""Who is told what of one task, with threads that come between each other's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wetlands_executor import TaskEvent, TaskEventType
from wetlands_executor.futures.events import make_listener
from wetlands_executor.futures.reports import Reports

COMPLETION = TaskEventType.COMPLETION


class FakePool:
    """A pool whose callback thread is the test, which runs the jobs."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []
        self.listeners: tuple[Any, ...] = ()

    @property
    def callbacks(self) -> FakePool:
        return self

    def put(self, job: Callable[[], object]) -> None:
        self.jobs.append(job)


class FakeTask:
    """A task that has run. ``between`` is called when its start is looked up."""

    name = "task"
    worker_pid = 1

    def __init__(self) -> None:
        self.between: Callable[[], object] = lambda: None

    @property
    def started_at(self) -> float:
        self.between()
        return 1.0


def test_a_listener_that_comes_while_the_task_is_settled_hears_nothing_after_the_end() -> None:
    """The settling thread finds it in the list, and is about to give it the start and the end.

    Meanwhile the thread that has added it sees that the task is done, and gives it the end.
    """
    pool, task = FakePool(), FakeTask()
    reports = Reports(pool, TaskEvent)  # type: ignore[arg-type]
    seen: list[TaskEventType] = []
    listener = make_listener(lambda event: seen.append(event.type), None, once=True)
    reports.add(listener)
    ended = reports.event(task, COMPLETION, 2.0)
    task.between = lambda: reports.give(task, listener, ended, ran=False)
    reports.emit(task, COMPLETION)
    assert len(pool.jobs) == 2
    for job in pool.jobs:
        job()
    assert seen == [COMPLETION]


def test_a_listener_to_all_tasks_hears_of_the_next_one_after_an_end() -> None:
    pool = FakePool()
    seen: list[TaskEventType] = []
    pool.listeners = (make_listener(lambda event: seen.append(event.type), None, once=False),)
    for _ in range(2):
        Reports(pool, TaskEvent).emit(FakeTask(), COMPLETION)  # type: ignore[arg-type]
    for job in pool.jobs:
        job()
    assert seen == 2 * [TaskEventType.STARTED, COMPLETION]
