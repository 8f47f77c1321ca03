"""Cancellation.

At once while a task waits, by request while it runs, and by force where that was asked for.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.host import Host
from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, TaskEventType, TaskStatus

CANCELED, COMPLETED = TaskStatus.CANCELED, TaskStatus.COMPLETED

# ------------------------------------------------------------------------------------------ waiting


def test_a_waiting_task_is_cancelled_at_once(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    blocking = single.submit(workload.arrive, rendezvous.address, "first")
    arrival = rendezvous.next()
    tasks = [single.submit(workload.note, journal, number) for number in range(200)]
    for task in tasks:
        assert task.cancel() is True
        assert task.status is CANCELED
    assert not blocking.done()
    arrival.release()
    assert single.submit(workload.add, 1).result(DEADLINE) == 1
    assert journal.read_text() == ""


def test_a_task_in_the_inbox_of_a_worker_is_cancelled_and_never_runs(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    """The first ones after a long task have been handed to its worker already.

    They are taken back.
    """
    single.submit(workload.add, 1).result(DEADLINE)
    first = single.submit(workload.arrive, rendezvous.address, "first")
    tasks = [single.submit(workload.note, journal, number) for number in range(30)]
    arrival = rendezvous.next()
    for task in tasks[::2]:
        assert task.cancel() is True
    arrival.release()
    concurrent.futures.wait(tasks, timeout=DEADLINE)
    assert first.result(DEADLINE) == "first"
    assert [task.status for task in tasks[::2]] == [CANCELED] * 15
    assert [task.status for task in tasks[1::2]] == [COMPLETED] * 15
    assert journal.read_text().split() == [str(number) for number in range(1, 30, 2)]


def test_cancelling_races_with_the_start_and_says_the_truth(
    executor: CondaEnvExecutor, journal: Path, stress_rng: random.Random
) -> None:
    """True means: it did not run and never will."""
    answers = {}
    for number in range(600):
        task = executor.submit(workload.note, journal, number)
        for _ in range(stress_rng.randrange(40)):
            pass
        if stress_rng.random() < 0.5:
            answers[number] = task.cancel()
    assert executor.wait_all(DEADLINE)
    ran = set(map(int, journal.read_text().split()))
    for number, answer in answers.items():
        assert (number in ran) is not answer, number
    assert ran | {number for number, answer in answers.items() if answer} == set(range(600))


def test_cancelling_from_many_threads(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    rendezvous.next()
    task = single.submit(workload.add, 1)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(task.cancel())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert answers == [True] * 8


# ------------------------------------------------------------------------------------ cooperatively


def test_the_request_to_a_running_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.submit(workload.cooperate, rendezvous.address, "in")
    arrival = rendezvous.next()
    assert task.cancel() is False
    assert task.cancel_requested
    assert task.status is TaskStatus.RUNNING
    assert not task.done()
    arrival.release()
    assert task.wait_for(DEADLINE).status is CANCELED
    assert task.cancel() is True
    with pytest.raises(concurrent.futures.CancelledError):
        task.result(0)
    assert task._state == "CANCELLED_AND_NOTIFIED"


def test_a_function_that_returns_after_the_request_has_completed(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.cooperate, rendezvous.address, "in", acknowledge=False)
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    assert task.result(DEADLINE) == "in time"
    assert task.status is COMPLETED
    assert task.cancel_requested


def test_a_function_that_never_looks_completes(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "result")
    arrival = rendezvous.next()
    assert task.cancel() is False
    arrival.release()
    assert task.result(DEADLINE) == "result"


def test_raising_after_the_acknowledgement_is_cancelled_as_well(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.acknowledge_and_raise, rendezvous.address, "in")
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    assert task.wait_for(DEADLINE).status is CANCELED


def test_a_task_may_give_up_unasked(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.acknowledge_unasked)
    assert task.wait_for(DEADLINE).status is CANCELED
    assert task.cancelled()
    assert single.submit(workload.add, 1).result(DEADLINE) == 1


def test_the_request_concerns_one_task_only(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    one = executor.submit(workload.cooperate, rendezvous.address, "one")
    two = executor.submit(workload.cooperate, rendezvous.address, "two")
    arrivals = rendezvous.expect("one", "two")
    one.cancel()
    arrivals["one"].release()
    arrivals["two"].release()
    assert one.wait_for(DEADLINE).status is CANCELED
    following = executor.submit(workload.cooperate, rendezvous.address, "three")
    rendezvous.next().release()
    with pytest.raises(TimeoutError):
        following.wait_for(0.05)
    assert not two.done()
    two.cancel()
    following.cancel()
    assert two.wait_for(DEADLINE).status is following.wait_for(DEADLINE).status is CANCELED


def test_an_acknowledged_cancellation_wakes_each_thread(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.cooperate, rendezvous.address, "in")
    arrival = rendezvous.next()
    woken: dict[str, object] = {}
    ready = threading.Barrier(4)

    def wait() -> None:
        ready.wait(DEADLINE)
        woken["wait"] = concurrent.futures.wait([task], timeout=DEADLINE).done

    def as_completed() -> None:
        ready.wait(DEADLINE)
        woken["as_completed"] = list(concurrent.futures.as_completed([task], timeout=DEADLINE))

    def result() -> None:
        ready.wait(DEADLINE)
        try:
            task.result(DEADLINE)
        except concurrent.futures.CancelledError:
            woken["result"] = "cancelled"

    called = threading.Event()
    task.add_done_callback(lambda _task: called.set())
    threads = [threading.Thread(target=target) for target in (wait, as_completed, result)]
    for thread in threads:
        thread.start()
    ready.wait(DEADLINE)
    task.cancel()
    arrival.release()
    for thread in threads:
        thread.join(DEADLINE)
    assert woken == {"wait": {task}, "as_completed": [task], "result": "cancelled"}
    assert called.wait(DEADLINE)


def test_the_events_of_an_acknowledged_cancellation(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    recorder = Recorder()
    task = single.submit(workload.cooperate, rendezvous.address, "in").listen(recorder)
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    recorder.wait_for_end()
    assert recorder.types == [TaskEventType.STARTED, TaskEventType.CANCELATION]


def test_the_worker_goes_on_after_a_cooperative_cancellation(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.cooperate, rendezvous.address, "in")
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    task.wait_for(DEADLINE)
    assert single.submit(os.getpid).result(DEADLINE) == arrival.pid


# --------------------------------------------------------------------------------------- escalation


def test_without_grace_the_request_is_all(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    task.cancel()
    with pytest.raises(TimeoutError):
        task.wait_for(0.2)
    arrival.release()
    assert task.result(DEADLINE) == "in"


@pytest.mark.parametrize("where", ["options", "executor"])
def test_grace_interrupts_the_call(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous, journal: Path, where: str
) -> None:
    executor = make(cancel_grace=0.1) if where == "executor" else make()
    view = executor.options(cancel_grace=0.1) if where == "options" else executor
    task = view.submit(workload.sleep_on, rendezvous.address, "in", journal)
    arrival = rendezvous.next()
    began = time.monotonic()
    assert task.cancel() is False
    assert task.wait_for(DEADLINE).status is CANCELED
    assert 0.09 < time.monotonic() - began < 5
    assert journal.read_text() == "interrupted in\n"
    assert executor.submit(os.getpid).result(DEADLINE) == arrival.pid, "the worker lives on"


def test_an_option_comes_before_the_executors_grace(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make(cancel_grace=30)
    task = executor.options(cancel_grace=0.05).submit(workload.sleep_on, rendezvous.address, "in")
    rendezvous.next()
    task.cancel()
    assert task.wait_for(5).status is CANCELED


def test_a_function_that_returns_at_the_interrupt_has_completed(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.options(cancel_grace=0.05).submit(
        workload.swallow_one_interrupt, rendezvous.address, "in"
    )
    rendezvous.next()
    task.cancel()
    assert task.result(DEADLINE) == "cleaned up"


def test_who_cooperates_within_the_grace_is_not_interrupted(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.options(cancel_grace=30).submit(workload.cooperate, rendezvous.address, "in")
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    assert task.wait_for(DEADLINE).status is CANCELED
    assert single.submit(os.getpid).result(DEADLINE) == arrival.pid


def test_who_ignores_the_interrupt_loses_the_worker_with_its_children(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous, journal: Path
) -> None:
    executor = make(cancel_grace=0.15)
    task = executor.submit(workload.stubborn, rendezvous.address, "in", journal)
    arrival = rendezvous.next()
    waiting = executor.submit(workload.add, 1, 2)
    task.cancel()
    assert task.wait_for(DEADLINE).status is CANCELED
    child, *rest = journal.read_text().split()
    assert rest == ["interrupted"]
    assert not leaks.wait_for_exit({arrival.pid, int(child)}, DEADLINE)
    assert waiting.result(DEADLINE) == 3, "a task behind it runs on the replacement"
    assert executor.submit(os.getpid).result(DEADLINE) != arrival.pid


def test_cancelling_twice_does_not_escalate_twice(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous, journal: Path
) -> None:
    executor = make(cancel_grace=0.2)
    task = executor.submit(workload.sleep_on, rendezvous.address, "in", journal)
    arrival = rendezvous.next()
    for _ in range(5):
        task.cancel()
    assert task.wait_for(DEADLINE).status is CANCELED
    assert journal.read_text() == "interrupted in\n"
    assert executor.submit(os.getpid).result(DEADLINE) == arrival.pid


def test_the_escalation_of_a_task_that_has_ended_does_not_hit_the_next(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous, journal: Path
) -> None:
    executor = make(cancel_grace=0.05)
    task = executor.submit(workload.cooperate, rendezvous.address, "in", acknowledge=False)
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    assert task.result(DEADLINE) == "in time"
    assert executor.submit(workload.nap, 0.3).result(DEADLINE) == 0.3
    assert executor.submit(os.getpid).result(DEADLINE) == arrival.pid


def test_a_late_interrupt_never_hits_another_task(
    make: Callable[..., CondaEnvExecutor], stress_rng: random.Random
) -> None:
    """Tasks as long as the grace, all cancelled: the interrupt arrives around their end.

    No neighbour may notice.
    """
    executor = make(cancel_grace=0.001)
    interrupted = 0
    for _ in range(150):
        task = executor.submit(workload.spin_a_little, stress_rng.uniform(800, 1600))
        neighbours = [executor.submit(workload.spin_a_little, 300) for _ in range(3)]
        while not task.running() and not task.done():
            pass  # a few microseconds; the aim is to be early
        task.cancel()
        for neighbour in neighbours:
            assert neighbour.result(DEADLINE) is True
        assert task.wait_for(DEADLINE).status in (CANCELED, COMPLETED)
        interrupted += task.cancelled()
    print(f"{interrupted} of 150 were interrupted")
    assert interrupted > 0


def test_a_foreign_sigint_to_the_worker_is_an_ordinary_failure(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    """The task was not cancelled: KeyboardInterrupt is what the function raised."""
    task = single.submit(workload.sleep_on, rendezvous.address, "in")
    arrival = rendezvous.next()
    os.kill(arrival.pid, signal.SIGINT)
    assert isinstance(task.exception(DEADLINE), KeyboardInterrupt)
    assert single.submit(os.getpid).result(DEADLINE) == arrival.pid


def test_an_idle_worker_survives_sigint(single: CondaEnvExecutor) -> None:
    pid = single.submit(os.getpid).result(DEADLINE)
    os.kill(pid, signal.SIGINT)
    assert single.submit(os.getpid).result(DEADLINE) == pid


# --------------------------------------------------------------------------------------------- kill


def test_kill_ends_the_worker_and_the_task_is_cancelled(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    recorder = Recorder()
    task = single.submit(workload.stubborn, rendezvous.address, "in", journal).listen(recorder)
    arrival = rendezvous.next()
    waiting = [single.submit(workload.add, number) for number in range(10)]
    task.kill()
    assert task.wait_for(DEADLINE).status is CANCELED
    assert task.cancel_requested
    recorder.wait_for_end()
    assert recorder.types == [TaskEventType.STARTED, TaskEventType.CANCELATION]
    assert not leaks.wait_for_exit({arrival.pid, int(journal.read_text().split()[0])}, DEADLINE)
    assert [one.result(DEADLINE) for one in waiting] == list(range(10)), (
        "items in its inbox go back to the queue"
    )


def test_kill_leaves_the_neighbour_alone(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    one = executor.submit(workload.arrive, rendezvous.address, "one")
    two = executor.submit(workload.arrive, rendezvous.address, "two")
    arrivals = rendezvous.expect("one", "two")
    one.kill()
    assert one.wait_for(DEADLINE).status is CANCELED
    assert not two.done()
    arrivals["two"].release()
    assert two.result(DEADLINE) == "two"


def test_killing_a_waiting_task_cancels_it_and_kills_no_worker(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    running = single.submit(workload.arrive, rendezvous.address, "running")
    arrival = rendezvous.next()
    tasks = [single.submit(workload.note, journal, number) for number in range(20)]
    for task in tasks:
        task.kill()
    for task in tasks:
        assert task.wait_for(DEADLINE).status is CANCELED
    arrival.release()
    assert running.result(DEADLINE) == "running"
    assert single.submit(os.getpid).result(DEADLINE) == arrival.pid
    assert journal.read_text() == ""


def test_killing_a_finished_task_does_nothing(single: CondaEnvExecutor) -> None:
    pid = single.submit(os.getpid).result(DEADLINE)
    task = single.submit(workload.add, 1).wait_for(DEADLINE)
    task.kill()
    assert task.result(0) == 1
    assert task.status is COMPLETED
    assert single.submit(os.getpid).result(DEADLINE) == pid


def test_a_killed_task_is_not_retried(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.options(retries=5).submit(workload.arrive, rendezvous.address, "in")
    rendezvous.next()
    task.kill()
    assert task.wait_for(DEADLINE).status is CANCELED
    single.submit(workload.add, 1).result(DEADLINE)
    assert rendezvous.uninvited() == []


def test_killing_races_with_the_end_and_harms_no_neighbour(
    executor: CondaEnvExecutor, stress_rng: random.Random
) -> None:
    for _ in range(40):
        tasks = [
            executor.submit(workload.spin_a_little, stress_rng.uniform(0, 400)) for _ in range(12)
        ]
        victim = stress_rng.choice(tasks)
        for _ in range(stress_rng.randrange(3000)):
            pass
        victim.kill()
        for task in tasks:
            task.wait_for(DEADLINE)
            assert task.status is COMPLETED or task is victim, f"{task} was harmed: {task.error}"
        assert victim.status in (COMPLETED, CANCELED)


# ----------------------------------------------------------------------------------------- shutdown


def test_cancel_futures_cancels_what_waits_and_finishes_what_runs(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make()
    running = executor.submit(workload.arrive, rendezvous.address, "running")
    arrival = rendezvous.next()
    waiting = [executor.submit(workload.add, number) for number in range(30)]
    executor.shutdown(wait=False, cancel_futures=True)
    concurrent.futures.wait(waiting, timeout=DEADLINE)
    assert all(task.status is CANCELED for task in waiting)
    assert running.status is TaskStatus.RUNNING
    assert not running.cancel_requested
    arrival.release()
    assert running.result(DEADLINE) == "running"


def test_cancelling_after_shutdown(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make()
    running = executor.submit(workload.cooperate, rendezvous.address, "running")
    arrival = rendezvous.next()
    waiting = executor.submit(workload.add, 1)
    executor.shutdown(wait=False)
    assert waiting.cancel() is True
    assert running.cancel() is False
    arrival.release()
    assert running.wait_for(DEADLINE).status is CANCELED


# ------------------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_in_with_stops_a_cooperative_task(host: Callable[..., Host], journal: Path) -> None:
    process = host("interrupted", "cooperative", journal, 5.0)
    assert process.line() == "ready"
    began = time.monotonic()
    process.interrupt()
    assert process.line() == "left canceled canceled"
    assert time.monotonic() - began < 4, "no thread waits for the escalation"
    assert process.finish()[0] == 0
    assert journal.read_text() == ""


def test_ctrl_c_in_with_interrupts_what_does_not_look(
    host: Callable[..., Host], journal: Path
) -> None:
    process = host("interrupted", "sleeping", journal, 0.3)
    assert process.line() == "ready"
    process.interrupt()
    state = process.line()
    assert state in ("left canceled canceled", "left failed canceled")
    assert process.finish()[0] == 0
    assert journal.read_text() == "interrupted running\n"


@pytest.mark.slow
def test_ctrl_c_in_with_takes_five_seconds_and_five_more(
    host: Callable[..., Host], journal: Path
) -> None:
    process = host("interrupted", "stubborn", journal, 5.0)
    assert process.line() == "ready"
    began = time.monotonic()
    process.interrupt()
    assert process.line().startswith("left ")
    assert 9 < time.monotonic() - began < 20
    assert process.finish()[0] == 0
    child = int(journal.read_text().split()[0])
    assert not leaks.wait_for_exit({child}, DEADLINE)


def test_ctrl_c_kills_what_ignores_the_interrupt(host: Callable[..., Host], journal: Path) -> None:
    process = host("interrupted", "stubborn", journal, 0.3)
    assert process.line() == "ready"
    process.interrupt()
    assert process.line().startswith("left ")
    assert process.finish()[0] == 0
    child, *rest = journal.read_text().split()
    assert rest == ["interrupted"]
    assert not leaks.wait_for_exit({int(child)}, DEADLINE)


def test_a_second_ctrl_c_kills_at_once(host: Callable[..., Host], journal: Path) -> None:
    process = host("interrupted", "stubborn", journal, 30.0)
    assert process.line() == "ready"
    began = time.monotonic()
    process.interrupt()
    # Nothing announces that the host has begun to wait for its workers; a second one that comes too
    # early is an ordinary first one.
    time.sleep(0.5)
    process.interrupt()
    process.finish()
    assert time.monotonic() - began < 15
    child = int(journal.read_text().split()[0])
    assert not leaks.wait_for_exit({child}, DEADLINE)


def test_system_exit_in_with_does_the_same(host: Callable[..., Host], journal: Path) -> None:
    code, out, err = host("exiting", journal).finish()
    assert code == 7, err
    assert sorted(out.split("\n")[:2]) == ["ended canceled", "queued canceled"]
    assert journal.read_text() == ""
