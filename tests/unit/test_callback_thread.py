"""The thread that runs callbacks, and the end of its pool, which other threads come between."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from wetlands_executor import CondaEnvExecutor, Task, threads
from wetlands_executor.futures.settling import settle
from wetlands_executor.pool.delivery import SerialThread

if TYPE_CHECKING:
    import pytest

DEADLINE = 10.0


def serving(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_thread_that_is_started_while_the_pool_ends_comes_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end comes between the look at whether there was one and the start."""
    serial = SerialThread("started-late", threads.CALLBACKS)
    start, ran = threads.start, threading.Event()

    def start_late(*arguments: Any) -> None:
        serial.end()
        start(*arguments)

    monkeypatch.setattr(threads, "start", start_late)
    serial.put(ran.set)
    assert ran.wait(DEADLINE)
    assert serial._gone.wait(DEADLINE)
    for thread in serving("started-late"):
        thread.join(DEADLINE)
    assert not serving("started-late")


def test_a_callback_after_the_end_of_an_unused_pool_runs_where_its_task_is_settled() -> None:
    """No thread is started for it: no other one would end it."""
    before = serving("wetlands-callbacks")  # of executors that other tests keep
    with CondaEnvExecutor(max_workers=1) as executor:
        task: Task[int] = Task(executor._pool)
        ran_on: list[threading.Thread] = []
        task.add_done_callback(lambda _task: ran_on.append(threading.current_thread()))
    settle(task, 1, None)
    assert ran_on == [threading.current_thread()]
    assert set(serving("wetlands-callbacks")) <= set(before)
