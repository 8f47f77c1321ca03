"""Priorities of calls: compared with each other, and not with 0."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.support.rendezvous import Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, Task

DEADLINE = 60


def watch(tasks: list[Task[object]]) -> tuple[list[str], threading.Event]:
    """Return the list to which the names of tasks are added as they end, and what is set after the
    last.
    """
    order: list[str] = []
    finished = threading.Event()

    def note(task: Task[object]) -> None:
        order.append(task.name)
        if len(order) == len(tasks):
            finished.set()

    for task in tasks:
        task.add_done_callback(note)  # type: ignore[arg-type]
    return order, finished


def wait_for_recalls(extra: list[Task[object]]) -> None:
    """Return when workers have given back what they held ahead, in whose midst these tasks were.

    They are cancelled.
    """
    for task in extra:
        assert task.cancel()


@pytest.mark.parametrize(
    ("low", "high"), [(-1, 0), (0, 1), (-2, -1), (-5, 3), (-(10**30), 10**30)], ids=str
)
def test_a_higher_call_overtakes_what_was_given_out(
    single: CondaEnvExecutor, rendezvous: Rendezvous, low: int, high: int
) -> None:
    """It waits for what runs; of the lower calls none starts before it."""
    background = single.options(priority=low)
    first = background.submit(workload.arrive, rendezvous.address, "first")
    arrival = rendezvous.next()
    tasks: list[Task[object]] = [
        background.options(name="low").submit(workload.add, number) for number in range(40)
    ]
    extra = [background.submit(workload.add, 0)]
    tasks.append(single.options(priority=high, name="high").submit(workload.add, 1))
    order, finished = watch(tasks)
    wait_for_recalls(extra)
    arrival.release()
    first.result(DEADLINE)
    assert finished.wait(DEADLINE)
    assert order == ["high"] + ["low"] * 40


def test_background_work_does_not_delay_ordinary_calls(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    """One of two workers runs background work and has more of it.

    The other runs every ordinary call before it takes any.
    """
    executor = make(2)
    executor.launch()
    background = executor.options(priority=-1, name="low")
    running = [
        background.submit(workload.arrive, rendezvous.address, number) for number in range(2)
    ]
    arrivals = [rendezvous.next(), rendezvous.next()]
    tasks: list[Task[object]] = [background.submit(workload.add, number) for number in range(40)]
    extra: list[Task[object]] = [background.submit(workload.add, number) for number in range(8)]
    tasks += [
        executor.options(name="ordinary").submit(workload.add, number) for number in range(20)
    ]
    order, finished = watch(tasks)
    wait_for_recalls(extra)
    arrivals[0].release()
    assert finished.wait(DEADLINE)
    assert order == ["ordinary"] * 20 + ["low"] * 40
    arrivals[1].release()
    for task in running:
        task.result(DEADLINE)
