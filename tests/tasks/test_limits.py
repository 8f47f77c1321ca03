"""Time and health.

Task time-outs, silent workers, their stacks in the error, replacements, priorities.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.observe import until
from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import (
    CondaEnvExecutor,
    TaskEventType,
    TaskStatus,
    TaskTimeoutError,
    WorkerCrashed,
    WorkerUnresponsive,
)

# ---------------------------------------------------------------------------------------- time-outs


@pytest.mark.parametrize("where", ["options", "executor"])
def test_a_task_that_runs_too_long_fails_with_its_stacks(
    make: Callable[..., CondaEnvExecutor], where: str
) -> None:
    executor = make(task_timeout=0.3) if where == "executor" else make()
    view = executor.options(timeout=0.3) if where == "options" else executor
    pid = executor.submit(os.getpid).result(DEADLINE)
    task = view.submit(workload.unmistakable_name_in_a_stack, 60)
    waiting = [executor.submit(workload.add, number) for number in range(5)]
    with pytest.raises(TaskTimeoutError, match="limit of 0.3 s") as caught:
        task.result(DEADLINE)
    assert isinstance(caught.value, TimeoutError)
    assert "unmistakable_name_in_a_stack" in str(caught.value)
    assert "unmistakable_name_in_a_stack" in caught.value.stacks
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.worker_pid == pid
    assert [one.result(DEADLINE) for one in waiting] == list(range(5))
    assert executor.submit(os.getpid).result(DEADLINE) != pid
    assert not leaks.wait_for_exit({pid}, DEADLINE)


def test_a_timeout_also_while_the_gil_is_held_in_c(single: CondaEnvExecutor) -> None:
    single.submit(workload.add, 1).result(DEADLINE)
    task = single.options(timeout=0.3).submit(workload.hold_the_gil)
    with pytest.raises(TaskTimeoutError) as caught:
        task.result(DEADLINE)
    assert "hold_the_gil" in caught.value.stacks
    assert single.submit(workload.add, 1).result(DEADLINE) == 1


def test_a_call_that_our_question_interrupts_has_timed_out_all_the_same(
    single: CondaEnvExecutor,
) -> None:
    """The signal that asks for the stacks ends a sleep in C; what the function returns then came
    too late.
    """
    single.submit(workload.add, 1).result(DEADLINE)
    with pytest.raises(TaskTimeoutError):
        single.options(timeout=0.3).submit(workload.sleep_in_c, 60).result(DEADLINE)
    assert single.submit(workload.add, 1).result(DEADLINE) == 1


def test_an_option_comes_before_the_executors_limit(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(task_timeout=0.2)
    assert executor.options(timeout=30).submit(workload.nap, 0.4).result(DEADLINE) == 0.4
    with pytest.raises(TaskTimeoutError):
        executor.submit(workload.nap, 60).result(DEADLINE)


def test_time_in_the_queue_does_not_count(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(task_timeout=0.6)
    tasks = [executor.submit(workload.nap, 0.2) for _ in range(5)]
    assert [task.result(DEADLINE) for task in tasks] == [0.2] * 5


def test_time_that_a_worker_takes_to_start_does_not_count(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    executor = make(initializer=workload.nap, initargs=(0.5,))
    assert executor.options(timeout=0.4).submit(workload.add, 1).result(DEADLINE) == 1


def test_who_is_in_time_is_not_harmed_by_the_deadline_later(single: CondaEnvExecutor) -> None:
    pid = single.submit(os.getpid).result(DEADLINE)
    for _ in range(20):
        assert single.options(timeout=0.2).submit(workload.add, 1).result(DEADLINE) == 1
    assert single.submit(workload.nap, 0.5).result(DEADLINE) == 0.5
    assert single.submit(os.getpid).result(DEADLINE) == pid


def test_a_time_out_leaves_the_neighbours_alone(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    good = executor.submit(workload.arrive, rendezvous.address, "good")
    arrival = rendezvous.next()
    bad = [executor.options(timeout=0.15).submit(workload.nap, 60) for _ in range(2)]
    for task in bad:
        assert isinstance(task.exception(DEADLINE), TaskTimeoutError)
    assert good.running()
    assert good.worker_pid == arrival.pid
    arrival.release()
    assert good.result(DEADLINE) == "good"


def test_a_time_out_takes_the_childrens_processes_along(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    task = single.options(timeout=1.0).submit(workload.stubborn, rendezvous.address, "in", journal)
    arrival = rendezvous.next()
    assert isinstance(task.exception(DEADLINE), TaskTimeoutError)
    assert not leaks.wait_for_exit({arrival.pid, int(journal.read_text().split()[0])}, DEADLINE)


def test_the_events_of_a_time_out(single: CondaEnvExecutor) -> None:
    recorder = Recorder()
    single.options(timeout=0.2, start=False).submit(workload.nap, 60).listen(recorder).start()
    recorder.wait_for_end()
    assert recorder.types == [TaskEventType.STARTED, TaskEventType.FAILURE]


def test_every_task_of_a_map_has_its_own_limit(executor: CondaEnvExecutor) -> None:
    assert list(executor.options(timeout=0.5).map(workload.nap, [0.2] * 6)) == [0.2] * 6


def test_a_limit_of_a_task_that_is_cancelled_is_forgotten(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.options(timeout=0.3).submit(workload.cooperate, rendezvous.address, "in")
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
    assert single.submit(workload.nap, 0.5).result(DEADLINE) == 0.5


def test_a_limit_for_a_task_sent_straight_to_an_idle_worker(single: CondaEnvExecutor) -> None:
    """The submitting thread writes to an idle worker itself; the limit holds there as well."""
    for _ in range(3):
        single.submit(workload.add, 1).result(DEADLINE)
    with pytest.raises(TaskTimeoutError):
        single.options(timeout=0.15).submit(workload.nap, 60).result(DEADLINE)


# ------------------------------------------------------------------------------------ the whole run


def test_set_timeout_ends_the_whole_run(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    running = single.submit(workload.arrive, rendezvous.address, "running")
    rendezvous.next()
    waiting = [single.submit(workload.add, number) for number in range(40)]
    dependent = single.submit(workload.add, running)
    single.set_timeout(0.2)
    for task in (running, *waiting, dependent):
        assert isinstance(task.exception(DEADLINE), TaskTimeoutError), task
    assert single.wait_all(DEADLINE) is True
    assert single.submit(workload.add, 1).result(DEADLINE) == 1, "the executor goes on"


def test_set_timeout_can_be_lifted_and_replaced(single: CondaEnvExecutor) -> None:
    single.set_timeout(0.1)
    single.set_timeout(None)
    assert single.submit(workload.nap, 0.4).result(DEADLINE) == 0.4
    single.set_timeout(0.05)
    single.set_timeout(60)
    assert single.submit(workload.nap, 0.3).result(DEADLINE) == 0.3


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_limit_has_to_be_positive(
    make: Callable[..., CondaEnvExecutor], single: CondaEnvExecutor, wrong: float
) -> None:
    with pytest.raises(ValueError, match="seconds"):
        single.set_timeout(wrong)
    for key in ("task_timeout", "worker_timeout", "cancel_grace", "start_timeout"):
        with pytest.raises(ValueError, match=key):
            CondaEnvExecutor(**{key: wrong})


# ----------------------------------------------------------------------------------- worker_timeout


def test_a_silent_worker_is_replaced(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(worker_timeout=0.4)
    pid = executor.submit(os.getpid).result(DEADLINE)
    task = executor.submit(workload.unmistakable_name_in_a_stack, 60)
    waiting = [executor.submit(workload.add, number) for number in range(5)]
    with pytest.raises(WorkerUnresponsive, match="worker_timeout") as caught:
        task.result(DEADLINE)
    assert isinstance(caught.value, BrokenProcessPool)
    assert "unmistakable_name_in_a_stack" in str(caught.value)
    assert "unmistakable_name_in_a_stack" in caught.value.stacks
    assert [one.result(DEADLINE) for one in waiting] == list(range(5))
    assert executor.submit(os.getpid).result(DEADLINE) != pid
    assert not leaks.wait_for_exit({pid}, DEADLINE)


def test_a_worker_that_is_silent_in_c_is_replaced(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(worker_timeout=0.4)
    with pytest.raises(WorkerUnresponsive) as caught:
        executor.submit(workload.hold_the_gil).result(DEADLINE)
    assert "hold_the_gil" in caught.value.stacks
    assert executor.submit(workload.add, 1).result(DEADLINE) == 1


@pytest.mark.parametrize("how", ["update", "print", "output", "log"])
def test_a_worker_that_says_something_is_alive(
    make: Callable[..., CondaEnvExecutor], how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = make(worker_timeout=0.6)
    assert executor.submit(workload.talk, 9, 0.1, how).result(DEADLINE) == 9
    assert executor.is_responsive()


def test_every_worker_is_watched_for_itself(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(2, worker_timeout=0.5)
    talking = executor.submit(workload.talk, 12, 0.1, "update")
    silent = executor.submit(workload.nap, 60)
    assert isinstance(silent.exception(DEADLINE), WorkerUnresponsive)
    assert talking.result(DEADLINE) == 12


def test_an_idle_worker_may_be_silent(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(worker_timeout=0.15)
    pid = executor.submit(os.getpid).result(DEADLINE)
    time.sleep(0.5)  # the subject: longer than worker_timeout
    assert executor.is_responsive()
    assert executor.submit(os.getpid).result(DEADLINE) == pid


def test_many_short_tasks_one_after_another_are_no_silence(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    executor = make(worker_timeout=0.4)
    pid = executor.submit(os.getpid).result(DEADLINE)
    tasks = [executor.submit(workload.nap, 0.15) for _ in range(5)]
    assert [task.result(DEADLINE) for task in tasks] == [0.15] * 5
    assert executor.submit(os.getpid).result(DEADLINE) == pid


def test_the_replacement_of_a_hung_worker_is_watched_too(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    executor = make(worker_timeout=0.25)
    for _ in range(2):
        assert isinstance(executor.submit(workload.nap, 60).exception(DEADLINE), WorkerUnresponsive)
    # A builtin function: on a busy machine an import may last longer than the limit.
    assert executor.submit(abs, -1).result(DEADLINE) == 1


def test_a_task_after_a_pause_gets_its_full_time(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(worker_timeout=0.5)
    executor.submit(workload.add, 1).result(DEADLINE)
    time.sleep(0.4)
    assert executor.submit(workload.nap, 0.3).result(DEADLINE) == 0.3


# ------------------------------------------------------------------------------------ is_responsive


def test_is_responsive_before_during_and_after(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make()
    assert executor.is_responsive()
    executor.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    assert executor.is_responsive()
    arrival.release()
    assert executor.wait_all(DEADLINE)
    assert executor.is_responsive()
    executor.shutdown()
    assert executor.is_responsive()


def test_is_responsive_is_false_while_a_worker_is_silent_too_long(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    """Between the deadline and the end of the worker it says no.

    We look at the moment of the kill reason.
    """
    executor = make(worker_timeout=0.3)
    answers: list[bool] = []
    task = executor.submit(workload.hold_the_gil)
    end = threading.Event()
    task.add_done_callback(lambda _task: end.set())
    while not end.is_set():
        answers.append(executor.is_responsive())
        end.wait(0.01)
    assert answers[0] is True
    assert False in answers
    assert executor.submit(workload.add, 1).result(DEADLINE) == 1
    assert executor.is_responsive()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal")
@pytest.mark.parametrize("busy", [True, False])
def test_is_responsive_is_false_while_a_worker_is_stopped(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous, busy: bool
) -> None:
    executor = make()
    pid = executor.submit(os.getpid).result(DEADLINE)
    task = executor.submit(workload.arrive, rendezvous.address, "in") if busy else None
    arrival = rendezvous.next() if busy else None
    assert executor.is_responsive()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert until(lambda: not executor.is_responsive())
    finally:
        os.kill(pid, signal.SIGCONT)
    assert until(executor.is_responsive)
    if arrival is not None and task is not None:
        arrival.release()
        task.result(DEADLINE)


def test_is_responsive_is_false_while_an_idle_worker_takes_nothing(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    """A thread that a task has left keeps its main thread from running; no call has noticed."""
    executor = make()
    pid = executor.submit(workload.hold_the_gil_later, rendezvous.address).result(DEADLINE)
    arrival = rendezvous.next()
    assert executor.is_responsive()
    arrival.release()
    assert until(lambda: not executor.is_responsive())
    os.kill(pid, signal.SIGKILL)
    assert until(executor.is_responsive)
    assert executor.submit(workload.add, 1).result(DEADLINE) == 1


# -------------------------------------------------------------------------------------- idle deaths


def test_an_idle_worker_that_dies_is_replaced_silently(single: CondaEnvExecutor) -> None:
    pid = single.submit(os.getpid).result(DEADLINE)
    os.kill(pid, 9)
    assert not leaks.wait_for_exit({pid}, DEADLINE)
    assert single.submit(workload.add, 1).result(DEADLINE) == 1
    assert single.get_failed() == []


def test_a_busy_death_costs_one_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    others = [single.submit(workload.add, number) for number in range(40)]
    os.kill(arrival.pid, 9)
    error = task.exception(DEADLINE)
    assert isinstance(error, WorkerCrashed)
    assert error.signal_name == "SIGKILL"
    assert [other.result(DEADLINE) for other in others] == list(range(40))


# ----------------------------------------------------------------------------------------- priority


def order_of(journal: Path) -> list[str]:
    return journal.read_text().split()


def test_higher_runs_first(single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    arrival = rendezvous.next()
    tasks = [
        single.options(priority=priority).submit(workload.note, journal, f"p{priority}")
        for priority in (0, -5, 3, 1, 10, 0)
    ]
    arrival.release()
    for task in tasks:
        task.result(DEADLINE)
    assert order_of(journal) == ["p10", "p3", "p1", "p0", "p0", "p-5"]


def test_equal_ones_run_in_order(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    arrival = rendezvous.next()
    for number in range(50):
        single.options(priority=2).submit(workload.note, journal, number)
    arrival.release()
    assert single.wait_all(DEADLINE)
    assert order_of(journal) == [str(number) for number in range(50)]


def test_an_urgent_task_overtakes_what_is_in_the_inbox_already(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    single.submit(workload.add, 1).result(DEADLINE)
    single.submit(workload.arrive, rendezvous.address, "first")
    ordinary = [single.submit(workload.note, journal, number) for number in range(100)]
    arrival = rendezvous.next()
    urgent = single.options(priority=1).submit(workload.note, journal, "urgent")
    assert single.is_responsive()  # the pool has seen it
    arrival.release()
    urgent.result(DEADLINE)
    for task in ordinary:
        task.result(DEADLINE)
    assert order_of(journal) == ["urgent", *(str(number) for number in range(100))]


def test_an_urgent_task_does_not_wait_for_a_second_long_one(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    for number in range(8):
        executor.submit(workload.arrive, rendezvous.address, f"long {number}")
    first, second = rendezvous.next(), rendezvous.next()
    urgent = executor.options(priority=5).submit(workload.arrive, rendezvous.address, "urgent")
    assert executor.is_responsive()  # the pool has seen it
    first.release()
    assert rendezvous.next().label == "urgent"
    assert not urgent.done()
    second.release()


def test_priorities_of_a_dependant_and_of_an_unstarted_task(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    arrival = rendezvous.next()
    low = [single.submit(workload.note, journal, "low") for _ in range(3)]
    unstarted = single.options(priority=7, start=False).submit(workload.note, journal, "unstarted")
    unstarted.start()
    arrival.release()
    for task in (*low, unstarted):
        task.result(DEADLINE)
    assert order_of(journal)[0] == "unstarted"
