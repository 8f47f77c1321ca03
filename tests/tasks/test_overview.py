"""The pool's view: counts, workers, failures, waiting for all.

Bounded, and keeping no result alive.
"""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.support.host import Host
from tests.support.recorder import Latch
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import (
    CondaEnvExecutor,
    DependencyFailed,
    Task,
    TasksFailed,
    WorkerCrashed,
    WorkerInfo,
)
from wetlands_executor.pool.stats import TaskStats

# ----------------------------------------------------------------------------------------- wait_all


def test_wait_all(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    assert single.wait_all() is True, "nothing to wait for"
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    assert single.wait_all(0) is False
    assert single.wait_all(timeout=0.05) is False
    threading.Timer(0.05, arrival.release).start()
    assert single.wait_all(DEADLINE) is True
    assert task.done()


def test_wait_all_wakes_several_waiters(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda: answers.append(single.wait_all(DEADLINE))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    arrival.release()
    for thread in threads:
        thread.join(DEADLINE)
    assert answers == [True] * 4


def test_wait_all_with_failures_cancellations_and_crashes(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    cancelled = single.submit(workload.add, 1)
    tasks = [
        single.submit(workload.fail),
        single.submit(workload.die),
        single.submit(workload.add, 1),
    ]
    cancelled.cancel()
    single.submit(workload.add, tasks[0])
    arrival.release()
    assert single.wait_all(DEADLINE) is True
    assert all(task.done() for task in tasks)


def test_wait_all_raises_on_error(single: CondaEnvExecutor) -> None:
    single.options(name="good").submit(workload.add, 1)
    first = single.options(name="bad one").submit(workload.fail)
    single.options(name="bad two").submit(workload.fail)
    with pytest.raises(TasksFailed) as caught:
        single.wait_all(DEADLINE, raise_on_error=True)
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.names == ["bad one", "bad two"]
    assert "bad one" in str(caught.value)
    assert "bad two" in str(caught.value)
    assert "good" not in str(caught.value)
    assert caught.value.__cause__ is first.exception()
    single.clear_failed()
    assert single.wait_all(DEADLINE, raise_on_error=True) is True


def test_wait_all_counts_what_failed_before_pickling(single: CondaEnvExecutor) -> None:
    single.submit(workload.add, threading.Lock())
    assert single.wait_all(DEADLINE) is True
    assert len(single.get_failed()) == 1


# ----------------------------------------------------------------------------------------- failures


def test_get_failed_and_clear_failed(single: CondaEnvExecutor) -> None:
    assert single.get_failed() == []
    failed = [single.submit(workload.fail, str(number)) for number in range(3)]
    single.submit(workload.add, 1)
    assert single.wait_all(DEADLINE)
    crashed = single.submit(workload.die)
    assert single.wait_all(DEADLINE)
    assert single.get_failed() == [*failed, crashed]
    single.get_failed().clear()
    assert len(single.get_failed()) == 4, "a copy"
    single.clear_failed()
    assert single.get_failed() == []
    again = single.submit(workload.fail)
    again.wait_for(DEADLINE)
    assert single.get_failed() == [again]


def test_a_cancelled_task_has_not_failed(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    single.submit(workload.add, 1).cancel()
    arrival.release()
    assert single.wait_all(DEADLINE, raise_on_error=True)


def test_get_failed_is_bounded(single: CondaEnvExecutor) -> None:
    # Race: a decoder thread may settle its task long after those that were made after it, and that
    # one is then among the last failures. So these end before the others are made.
    single.map_tasks(workload.fail, map(str, range(500)))
    assert single.wait_all(DEADLINE)
    tasks = single.map_tasks(workload.fail, map(str, range(1000)))
    assert single.wait_all(DEADLINE)
    assert single.get_failed() == tasks
    assert single.get_progress()["failed"] == 1500
    with pytest.raises(TasksFailed) as caught:
        single.wait_all(DEADLINE, raise_on_error=True)
    assert len(str(caught.value)) < 5000


def test_the_last_failures_are_those_that_were_made_last() -> None:
    """Whichever thread settles them first.

    But a task that was made long before, and fails last, is among them.
    """
    stats = TaskStats(cast("Any", None))
    tasks: list[Task[Any]] = [Task() for _ in range(1500)]
    early, *others = tasks
    for start in range(0, len(others), 8):
        for task in reversed(others[start : start + 8]):
            stats.refused(task, ValueError())
    assert stats.failures() == tasks[-1000:]
    stats.refused(early, ValueError())
    assert stats.failures() == [early, *tasks[-999:]]


def test_the_error_callback(single: CondaEnvExecutor) -> None:
    told: list[tuple[Task[Any], BaseException]] = []
    ready = threading.Semaphore(0)

    def tell(task: Task[Any], error: BaseException) -> None:
        told.append((task, error))
        ready.release()

    single.set_error_callback(tell)
    good, failed, crashed = (
        single.submit(workload.add, 1),
        single.submit(workload.fail),
        single.submit(workload.die),
    )
    dependant = single.submit(workload.add, failed)
    for _ in range(3):
        assert ready.acquire(timeout=DEADLINE)
    assert good.result(DEADLINE) == 1
    assert {task for task, _ in told} == {failed, crashed, dependant}
    assert {type(error) for _, error in told} == {ValueError, WorkerCrashed, DependencyFailed}
    assert all(task.exception() is error for task, error in told)
    single.set_error_callback(None)
    single.submit(workload.fail).wait_for(DEADLINE)
    assert not ready.acquire(timeout=0.02)
    with pytest.raises(TypeError):
        single.set_error_callback(5)  # type: ignore[arg-type]


def test_an_error_callback_that_raises_or_blocks_harms_nothing(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    latch = Latch()

    def bad(task: Task[Any], error: BaseException) -> None:
        latch()
        raise ZeroDivisionError("in the error callback")

    single.set_error_callback(bad)
    single.submit(workload.fail)
    assert latch.entered.wait(DEADLINE)
    assert single.submit(workload.add, 1).result(DEADLINE) == 1
    latch.open.set()
    single.shutdown()
    assert "in the error callback" in caplog.text


# ----------------------------------------------------------------------------------------- progress

TOTALS = {
    "total",
    "completed",
    "running",
    "queued",
    "failed",
    "canceled",
    "workers",
    "tasks",
    "errors",
}
OF_A_TASK = {
    "id", "name", "parent", "state", "queued_duration_ms", "execution_duration_ms", "progress_pct",
}  # fmt: skip


def test_get_progress_before_anything(single: CondaEnvExecutor) -> None:
    progress = single.get_progress()
    assert set(progress) == TOTALS
    assert progress == {**dict.fromkeys(TOTALS, 0), "workers": [], "tasks": [], "errors": []}


def test_get_progress(make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous) -> None:
    executor = make(2)
    executor.options(name="failed").submit(workload.fail, "the reason").wait_for(DEADLINE)
    executor.submit(workload.add, 1).result(DEADLINE)
    running = executor.options(name="running").submit(
        workload.report_and_arrive, rendezvous.address, 7, current=1, maximum=4
    )
    other = executor.submit(workload.arrive, rendezvous.address, "other")
    arrivals = rendezvous.expect(7, "other")
    waiting = [
        executor.options(name="waiting").submit(workload.add, number) for number in range(20)
    ]
    waiting[0].cancel()
    dependant = executor.submit(workload.add, running)
    unstarted = executor.options(start=False).submit(workload.add, 1)
    progress = executor.get_progress()
    assert json.loads(json.dumps(progress)) == progress
    assert set(progress) == TOTALS
    assert {
        key: progress[key]
        for key in ("total", "completed", "running", "queued", "failed", "canceled")
    } == {
        "total": 25,
        "completed": 1,
        "running": 2,
        "queued": 20,
        "failed": 1,
        "canceled": 1,
    }
    assert [set(worker) for worker in progress["workers"]] == [
        {"id", "idle", "task", "queue_depth"}
    ] * 2
    assert [worker["id"] for worker in progress["workers"]] == [0, 1]
    assert {worker["idle"] for worker in progress["workers"]} == {False}
    assert {worker["task"] for worker in progress["workers"]} == {"running", other.name}
    listed = {task["id"]: task for task in progress["tasks"]}
    ended = [task for task in progress["tasks"] if task["state"] not in ("pending", "running")]
    assert [(task["name"], task["state"]) for task in ended] == [
        ("failed", "failed"),
        ("tests.tasks.workload.add", "completed"),
        ("waiting", "canceled"),
    ]
    assert ended[0]["execution_duration_ms"] >= 0
    assert ended[2]["execution_duration_ms"] is None
    assert len(listed) == len(progress["tasks"])
    tasks = {key: task for key, task in listed.items() if task not in ended}
    assert set(tasks) == {
        running.id,
        other.id,
        *(task.id for task in waiting[1:]),
        dependant.id,
        unstarted.id,
    }
    assert all(set(task) == OF_A_TASK for task in tasks.values())
    mine = tasks[running.id]
    assert (mine["name"], mine["state"], mine["progress_pct"]) == ("running", "running", 25.0)
    assert mine["queued_duration_ms"] >= 0
    assert mine["execution_duration_ms"] >= 0
    assert tasks[waiting[1].id]["state"] == "pending"
    assert tasks[waiting[1].id]["execution_duration_ms"] is None
    assert tasks[waiting[1].id]["progress_pct"] is None
    (error,) = progress["errors"]
    assert error["name"] == "failed"
    assert "the reason" in error["error"]
    for arrival in arrivals.values():
        arrival.release()
    assert executor.wait_all(DEADLINE)
    progress = executor.get_progress()
    assert (progress["completed"], progress["running"], progress["queued"]) == (23, 0, 0)
    pending = [task["id"] for task in progress["tasks"] if task["state"] == "pending"]
    assert pending == [unstarted.id]
    mine = next(task for task in progress["tasks"] if task["id"] == running.id)
    assert (mine["state"], mine["progress_pct"]) == ("completed", 25.0)
    assert {(worker["idle"], worker["task"]) for worker in progress["workers"]} == {(True, "")}


def test_get_progress_lists_the_last_thousand_that_have_finished(single: CondaEnvExecutor) -> None:
    """Also those that the program has dropped; none keeps its result alive."""
    single.submit(workload.add, 0).result(DEADLINE)
    for task in single.map_tasks(workload.add, range(1500)):
        task.result(DEADLINE)
    kept = single.submit(workload.Holder)
    value = weakref.ref(kept.result(DEADLINE))
    del kept, task
    gc.collect()
    assert value() is None
    assert single.wait_all(DEADLINE)
    tasks = single.get_progress()["tasks"]
    assert len(tasks) == 1000
    assert {task["state"] for task in tasks} == {"completed"}
    assert tasks[-1]["name"] == "tests.tasks.workload.Holder"
    assert tasks[0]["name"] == "tests.tasks.workload.add[501]"
    assert all(task["execution_duration_ms"] >= 0 for task in tasks)
    assert all(task["queued_duration_ms"] >= 0 for task in tasks)


def test_get_progress_lists_at_most_a_thousand_waiting(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    single.map_tasks(workload.add, range(3000))
    progress = single.get_progress()
    assert progress["queued"] == 3000
    assert 1000 <= len(progress["tasks"]) <= 1001
    arrival.release()
    assert single.wait_all(DEADLINE)


def test_get_progress_all_the_time(executor: CondaEnvExecutor) -> None:
    """Looked at from another thread under full load.

    No error, and the counts never go backwards.
    """
    end = threading.Event()
    errors: list[BaseException] = []
    seen: list[int] = []

    def look() -> None:
        try:
            while not end.is_set():
                progress = executor.get_progress()
                json.dumps(progress)
                executor.workers()
                executor.get_failed()
                executor.get_task("5")
                seen.append(progress["completed"])
                assert (
                    progress["completed"] + progress["failed"] + progress["canceled"]
                    <= progress["total"]
                )
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(10):
        tasks = [executor.submit(workload.report, 2) for _ in range(200)]
        for task in tasks:
            task.result(DEADLINE)
    end.set()
    thread.join()
    assert errors == []
    assert seen == sorted(seen)
    assert executor.get_progress()["completed"] == 2000


def test_get_progress_after_shutdown(make: Callable[..., CondaEnvExecutor]) -> None:
    with make() as executor:
        executor.submit(workload.add, 1)
    progress = executor.get_progress()
    assert (progress["total"], progress["completed"], progress["workers"]) == (1, 1, [])
    assert [task["state"] for task in progress["tasks"]] == ["completed"]


def test_get_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    done = single.submit(workload.add, 1).wait_for(DEADLINE)
    running = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    waiting = [single.submit(workload.add, number) for number in range(30)]
    dependant = single.submit(workload.add, running)
    unstarted = single.options(start=False).submit(workload.add, 1)
    for task in (done, running, *waiting, dependant, unstarted):
        assert single.get_task(task.id) is task
    assert single.get_task("no such id") is None
    arrival.release()
    assert single.wait_all(DEADLINE)
    assert single.get_task(running.id) is running
    failed = single.submit(workload.fail).wait_for(DEADLINE)
    assert single.get_task(failed.id) is failed


def test_get_task_keeps_nothing_alive(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.add, 1).wait_for(DEADLINE)
    identifier, gone = task.id, weakref.ref(task)
    del task
    single.submit(workload.add, 1).result(DEADLINE)
    gc.collect()
    assert gone() is None
    assert single.get_task(identifier) is None


# ------------------------------------------------------------------------------------------ workers


def test_workers(make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous) -> None:
    executor = make(2)
    assert executor.workers() == []
    assert executor.worker_count == 0
    executor.launch()
    assert executor.worker_count == 2
    idle = executor.workers()
    assert [info.index for info in idle] == [0, 1]
    assert [info.state for info in idle] == ["idle", "idle"]
    assert all(
        info.task is None and info.tasks_done == 0 and info.queue_depth == 0 for info in idle
    )
    for info in idle:
        assert isinstance(info, WorkerInfo)
        assert info.rss is not None
        assert 1e6 < info.rss < 1e9
        assert info.cpu_percent is not None
        assert info.cpu_percent >= 0
        assert info.started_at is not None
        assert abs(time.time() - info.started_at) < 60
    task = executor.options(name="busy one").submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    (busy,) = [info for info in executor.workers() if info.state == "busy"]
    assert (busy.pid, busy.task, busy.index) == (
        arrival.pid,
        "busy one",
        next(info.index for info in idle if info.pid == arrival.pid),
    )
    arrival.release()
    task.result(DEADLINE)
    assert executor.wait_all(DEADLINE)
    assert executor.is_responsive()
    assert sum(info.tasks_done for info in executor.workers()) == 1
    assert [info.state for info in executor.workers()] == ["idle", "idle"]


def test_the_queue_depth_of_a_worker(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    single.submit(workload.add, 1).result(DEADLINE)
    single.submit(workload.arrive, rendezvous.address, "in")
    for number in range(5):
        single.submit(workload.add, number)
    arrival = rendezvous.next()
    assert single.is_responsive()
    (info,) = single.workers()
    assert info.state == "busy"
    assert 0 <= info.queue_depth <= 5
    arrival.release()
    assert single.wait_all(DEADLINE)
    assert single.workers()[0].queue_depth == 0


def test_busy_processors_show(single: CondaEnvExecutor) -> None:
    single.submit(workload.spin_a_little, 600_000).result(DEADLINE)
    cpu = single.workers()[0].cpu_percent
    assert cpu is not None
    assert 5 < cpu < 400


# -------------------------------------------------------------------------------------- bookkeeping


def test_no_result_is_kept_alive(executor: CondaEnvExecutor) -> None:
    recorder: list[str] = []
    executor.listen(lambda event: recorder.append(event.type.value))
    gone = []
    for _ in range(50):
        task = executor.submit(workload.hold, 1000)
        gone.append(weakref.ref(task.result(DEADLINE)))
        del task
    failed = executor.submit(workload.fail)
    failed.wait_for(DEADLINE)
    executor.get_progress()
    executor.submit(workload.add, 1).result(DEADLINE)
    executor.shutdown()
    gc.collect()
    assert [ref for ref in gone if ref() is not None] == []


def test_no_argument_is_kept_alive(single: CondaEnvExecutor) -> None:
    holder = workload.Holder(1000)
    gone = weakref.ref(holder)
    task = single.submit(id, holder)
    task.result(DEADLINE)
    del holder
    gc.collect()
    assert gone() is None


def test_no_argument_of_a_dependant_is_kept_alive(single: CondaEnvExecutor) -> None:
    holder = workload.Holder(1000)
    gone = weakref.ref(holder)
    root = single.submit(workload.add, 1)
    task = single.submit(isinstance, holder, root)
    task.wait_for(DEADLINE)
    unstarted = single.options(start=False).submit(id, holder)
    unstarted.start().result(DEADLINE)
    del holder
    single.submit(lambda: None).result(DEADLINE)
    gc.collect()
    assert gone() is None, "the finished tasks are still held, their arguments must not be"


def test_a_finished_task_that_is_dropped_goes_without_the_collector(
    single: CondaEnvExecutor,
) -> None:
    """No reference cycles: a million tasks must not wait for the garbage collector."""
    single.submit(workload.add, 1).result(DEADLINE)
    gc.collect()
    gc.disable()
    try:
        gone = []
        for number in range(20):
            task = single.submit(workload.add, number)
            task.result(DEADLINE)
            gone.append(weakref.ref(task))
        del task
        single.submit(workload.add, 1).result(DEADLINE)
        assert single.is_responsive()
        assert sum(ref() is not None for ref in gone) <= 2
    finally:
        gc.enable()


def test_memory_is_flat_after_many_short_tasks(host: Callable[..., Host]) -> None:
    code, out, err = host("many", 200_000).finish(120)
    assert code == 0, err
    grown, seen, completed, listed = map(int, out.split())
    assert seen == completed == 200_000
    assert listed == 1000, "the last ones that have finished"
    assert grown < 4_000_000, f"the host has grown by {grown / 1e6:.1f} MB"
