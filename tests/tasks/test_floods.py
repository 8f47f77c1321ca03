"""A flood of updates for a slow receiver behind ``dispatch``, and receivers that are gone."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, TaskEvent, TaskEventType

UPDATE, COMPLETION = TaskEventType.UPDATE, TaskEventType.COMPLETION


class Window:
    """The event queue of a GUI: it takes events at once, and handles one when the test says so."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[Callable[[TaskEvent], object], TaskEvent]] = (
            queue.SimpleQueue()
        )

    def dispatch(self, callback: Callable[[TaskEvent], object], event: TaskEvent) -> None:
        self.queue.put((callback, event))

    def handle(self) -> TaskEvent:
        """Handle the next event and return it."""
        callback, event = self.queue.get(timeout=DEADLINE)
        callback(event)
        return event


def drain_callbacks(executor: CondaEnvExecutor) -> None:
    """Return when the callback thread has dealt with all that was put before."""
    done = threading.Event()
    executor._pool.callbacks.put(done.set)
    assert done.wait(DEADLINE)


def flood(address: Any, count: int, task: Any) -> int:
    for number in range(count):
        task.update(f"step {number}", current=number, maximum=count)
        task.set_output(f"key {number % 7}", number)
    workload.arrive(address, "flooded")
    return count


def test_one_update_is_under_way_and_the_end_comes_next(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    window, seen = Window(), Recorder()
    task = single.submit(flood, rendezvous.address, 2000)
    ends = Recorder()
    task.listen(seen, dispatch=window.dispatch).listen(ends)
    arrival = rendezvous.next()  # all of them have been sent
    arrival.release()
    ends.wait_for_end()
    assert window.queue.qsize() <= 3, "STARTED, one UPDATE, the end"
    events = [window.handle()]
    while not events[-1].type.is_terminal:
        events.append(window.handle())
    assert [event.type for event in events].count(UPDATE) <= 1
    outputs: dict[Any, Any] = {}
    for event in events:
        outputs.update(event.outputs)
    assert outputs == task.outputs, "the end carries the outputs of updates that were not sent"
    assert events[-1].type is COMPLETION
    assert events[-1].current == 1999
    assert seen.types == [event.type for event in events]


def test_the_next_update_comes_when_one_was_handled(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    window = Window()
    task = single.submit(workload.report_twice, rendezvous.address).listen(
        Recorder(), dispatch=window.dispatch
    )
    arrival = rendezvous.next()
    assert window.handle().type is TaskEventType.STARTED
    first = window.handle()
    assert first.type is UPDATE
    arrival.release()
    arrival = rendezvous.next()
    keys = set(first.outputs)
    while not {"a", "b", "c"} <= keys:
        event = window.handle()  # sent because the one before was handled
        assert event.type is UPDATE
        keys |= set(event.outputs)
    arrival.release()
    assert task.wait_for(DEADLINE).done()


@pytest.mark.parametrize("keeps", [False, True], ids=["dropped", "kept for ever"])
def test_a_dispatch_that_never_calls_back_gets_the_end_all_the_same(
    single: CondaEnvExecutor, rendezvous: Rendezvous, keeps: bool
) -> None:
    got: list[TaskEventType] = []
    kept: list[Any] = []

    def dispatch(callback: Callable[[TaskEvent], object], event: TaskEvent) -> None:
        got.append(event.type)
        if keeps:
            kept.append(callback)

    task = single.submit(flood, rendezvous.address, 500)
    ends = Recorder()
    task.listen(Recorder(), dispatch=dispatch).listen(ends)
    rendezvous.next().release()
    ends.wait_for_end()
    assert got[-1] is COMPLETION
    assert got.count(COMPLETION) == 1
    if keeps:
        assert got.count(UPDATE) == 1
    listener = task._reports._listeners[0]
    assert not listener._updates
    assert not listener._held, "nothing waits"


def test_updates_of_all_tasks_take_turns(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make(2)
    window, seen = Window(), Recorder()
    ends = Recorder()
    executor.listen(seen, dispatch=window.dispatch)
    executor.listen(ends)
    tasks = [executor.submit(flood, rendezvous.address, 300) for _ in range(2)]
    for _ in tasks:
        rendezvous.next().release()
    for task in tasks:
        ends.wait(lambda event, task=task: event.task is task and event.type.is_terminal)  # type: ignore[misc]
    assert window.queue.qsize() <= 5, "two beginnings, two ends, one UPDATE"
    ended = 0
    while ended < 2:
        ended += window.handle().type.is_terminal
    executor.remove_listener(seen)
    executor.remove_listener(ends)
    assert not executor._pool.listeners, "the callback given to listen is the one to remove"


def test_the_callback_in_dispatch_is_equal_to_the_one_that_was_given(
    single: CondaEnvExecutor,
) -> None:
    got: list[Any] = []
    recorder = Recorder()
    task = single.submit(workload.add, 1)
    task.listen(recorder, dispatch=lambda callback, event: got.append(callback) or callback(event))  # type: ignore[func-returns-value]
    recorder.wait_for_end()
    assert all(
        callback == recorder and recorder == callback and hash(callback) == hash(recorder)
        for callback in got
    )


class TclError(Exception):
    pass


TclError.__module__ = "_tkinter"

GONE = [
    RuntimeError("wrapped C/C++ object of type QLabel has been deleted"),
    RuntimeError("Internal C++ object (PySide6.QtWidgets.QLabel) already deleted."),
    RuntimeError("Event loop is closed"),
    TclError('can\'t invoke "event" command: application has been destroyed'),
    TclError('invalid command name ".!label"'),
    ReferenceError("weakly-referenced object no longer exists"),
]


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("callback", GONE[0]),
        *(("dispatch", error) for error in GONE[1:3]),
        *(("callback behind dispatch", error) for error in GONE[3:]),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_listener_whose_window_is_gone_is_logged_once(
    single: CondaEnvExecutor,
    rendezvous: Rendezvous,
    caplog: pytest.LogCaptureFixture,
    where: str,
    error: Exception,
) -> None:
    calls: list[TaskEventType] = []

    def fail(*args: Any) -> None:
        calls.append(args[-1].type)
        raise error

    task = single.submit(flood, rendezvous.address, 50)
    if where == "dispatch":
        task.listen(Recorder(), dispatch=fail)
    elif where == "callback":
        task.listen(fail)
    else:
        task.listen(fail, dispatch=lambda callback, event: callback(event))
    other = Recorder()
    task.listen(other)
    with caplog.at_level(logging.WARNING, "concurrent.futures"):
        rendezvous.next().release()
        other.wait_for_end()
    assert len(calls) == 1
    assert len([record for record in caplog.records if "gone" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    "error",
    [RuntimeError("main thread is not in main loop"), ValueError("deleted"), TypeError("closed")],
)
def test_other_errors_are_logged_each_time(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    calls: list[TaskEventType] = []

    def fail(event: TaskEvent) -> None:
        calls.append(event.type)
        raise error

    other = Recorder()
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        single.submit(workload.report, 5).listen(fail).listen(other)
        other.wait_for_end()
        drain_callbacks(single)
    assert calls[-1] is COMPLETION
    assert len(calls) == len(
        [record for record in caplog.records if "exception in a listener" in record.getMessage()]
    )


def test_events_can_be_hashed(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    recorder = Recorder()
    task = single.submit(workload.report_twice, rendezvous.address).listen(recorder)
    for _ in range(2):
        rendezvous.next().release()
    recorder.wait_for_end()
    assert len(set(recorder.events)) == len(recorder.events)
    assert {recorder.events[-1]: task}[recorder.events[-1]] is task
