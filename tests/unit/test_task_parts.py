"""What is asked of a Task's call, and who is told of a Task: with a pool that only records."""

from __future__ import annotations

from typing import Any

import pytest

from wetlands_executor.futures import requests
from wetlands_executor.futures.events import Listener, TaskEventType
from wetlands_executor.futures.future import Task, TaskStatus
from wetlands_executor.futures.reports import end_of, subscribe
from wetlands_executor.futures.settling import input_of, keep_input, settle, settle_cancelled


class FakePool:
    """Records what a task asks of it."""

    listeners: tuple[Any, ...] = ()
    callbacks = None
    started = False
    refusing = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.stats = self

    def finished(self, task: Any) -> None:
        pass

    def ask_to_cancel(self, call: Any) -> None:
        self.asked.append(("cancel", call))

    def kill(self, call: Any) -> None:
        self.asked.append(("kill", call))

    def watch(self, call: Any) -> None:
        self.asked.append(("watch", call))


class PendingCall:
    """A call that waits."""

    unannounced = False
    process = None
    worker_pid = None
    input = "(1, 2)"


class Guard:
    """Holds a task back until it is withdrawn."""

    held = True

    def withdraw(self) -> bool:
        held, self.held = self.held, False
        return held

    def input(self) -> str:
        return "(3,)" if self.held else ""


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


def task_of(pool: Any, call: Any = None, guard: Any = None) -> Task[Any]:
    task: Task[Any] = Task(pool, "f", guard=guard)
    task._call = call
    return task


def test_a_call_that_the_pool_has_is_asked_there(pool: FakePool) -> None:
    call = PendingCall()
    task = task_of(pool, call)
    requests.ask_to_cancel(task)
    requests.kill(task, "because")
    assert pool.asked == [("cancel", call), ("kill", call)]
    assert task.cancel_requested
    settle_cancelled(task)
    assert task.error == "because"


def test_a_task_that_the_pool_does_not_have_is_cancelled_at_once(pool: FakePool) -> None:
    task = task_of(pool, guard=Guard())
    requests.kill(task, "because")
    assert (pool.asked, task.status, task.error) == ([], TaskStatus.CANCELED, None)


def test_nothing_is_asked_of_a_task_that_has_finished(pool: FakePool) -> None:
    task = task_of(pool, PendingCall())
    settle(task, 3, None)
    requests.ask_to_cancel(task)
    assert (pool.asked, task.status) == ([], TaskStatus.COMPLETED)


def test_where_the_arguments_are(pool: FakePool) -> None:
    guarded = task_of(pool, guard=Guard())
    assert input_of(guarded) == "(3,)"
    pending = task_of(pool, PendingCall())
    assert input_of(pending) == "(1, 2)"
    keep_input(pending, "(4,)")
    assert input_of(pending) == "(4,)"
    assert input_of(task_of(pool)) == ""


def listener(heard: list[TaskEventType]) -> Listener:
    return Listener(lambda event: heard.append(event.type), None, once=True, inline=True)


def test_a_listener_to_a_task_that_waits_lets_its_worker_say_when_it_begins(pool: FakePool) -> None:
    call = PendingCall()
    heard: list[TaskEventType] = []
    subscribe(task_of(pool, call), listener(heard))
    assert (pool.asked, heard) == ([("watch", call)], [])


def test_a_late_listener_gets_the_end(pool: FakePool) -> None:
    task = task_of(pool)
    settle(task, None, ValueError("wrong"))
    heard: list[TaskEventType] = []
    subscribe(task, listener(heard))
    assert heard == [TaskEventType.FAILURE]


def test_a_listener_can_be_removed(pool: FakePool) -> None:
    task = task_of(pool)
    heard: list[TaskEventType] = []
    one = listener(heard)
    subscribe(task, one)(one)
    settle(task, 3, None)
    assert heard == []


def test_how_a_task_has_ended(pool: FakePool) -> None:
    tasks = [task_of(pool) for _ in range(3)]
    settle(tasks[0], 3, None)
    settle(tasks[1], None, ValueError())
    settle_cancelled(tasks[2])
    assert [end_of(task) for task in tasks] == [
        TaskEventType.COMPLETION,
        TaskEventType.FAILURE,
        TaskEventType.CANCELATION,
    ]
