"""Every member of ``Task``, in every state that it can be in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.recorder import Latch, Recorder
from tests.support.rendezvous import DEADLINE, Arrival, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, Task, TaskEventType, TaskStatus

# -------------------------------------------------------------------------------------------- words


def test_the_words_of_a_status() -> None:
    assert {status.name: status.value for status in TaskStatus} == {
        "PENDING": "pending",
        "RUNNING": "running",
        "COMPLETED": "completed",
        "FAILED": "failed",
        "CANCELED": "canceled",
    }
    assert TaskStatus.CANCELLED is TaskStatus.CANCELED is TaskStatus("cancelled")
    assert [status for status in TaskStatus if not status.is_finished()] == [
        TaskStatus.PENDING,
        TaskStatus.RUNNING,
    ]


def test_the_words_of_an_event() -> None:
    assert {kind.name: kind.value for kind in TaskEventType} == {
        "STARTED": "started",
        "UPDATE": "update",
        "COMPLETION": "completion",
        "FAILURE": "failure",
        "CANCELATION": "cancelation",
    }
    assert TaskEventType.CANCELLATION is TaskEventType.CANCELATION
    assert [kind for kind in TaskEventType if not kind.is_terminal] == [
        TaskEventType.STARTED,
        TaskEventType.UPDATE,
    ]


def test_a_bare_task_is_a_plain_future() -> None:
    task: Task[int] = Task()
    assert task.status is TaskStatus.PENDING
    assert not task.done()
    called: list[object] = []
    task.add_done_callback(called.append)
    assert task.set_running_or_notify_cancel()
    assert task.running()
    assert task.status is TaskStatus.RUNNING
    task.set_result(5)
    assert task.result(0) == task.value == 5
    assert called == [task]
    assert task.status is TaskStatus.COMPLETED
    with pytest.raises(concurrent.futures.InvalidStateError):
        task.set_result(6)


def test_a_bare_task_can_be_cancelled_and_fail() -> None:
    cancelled: Task[int] = Task()
    assert cancelled.cancel()
    assert cancelled.status is TaskStatus.CANCELED
    assert not cancelled.set_running_or_notify_cancel()
    failed: Task[int] = Task()
    failed.set_exception(ValueError("no"))
    assert failed.status is TaskStatus.FAILED
    assert isinstance(failed.exception(0), ValueError)
    assert failed.error
    assert "no" in failed.error
    done, not_done = concurrent.futures.wait([cancelled, failed], timeout=DEADLINE)
    assert (len(done), not_done) == (2, set())


def test_a_bare_task_can_be_awaited_and_listened_to() -> None:
    async def main() -> None:
        task: Task[int] = Task()
        recorder = Recorder()
        task.listen(recorder)
        setter = threading.Timer(0.02, task.set_result, (5,))
        setter.start()
        assert await asyncio.wait_for(task, 5) == 5
        setter.join()
        recorder.wait_for_end()
        assert recorder.types in (
            [TaskEventType.COMPLETION],
            [TaskEventType.STARTED, TaskEventType.COMPLETION],
        )

    asyncio.run(main())


# ------------------------------------------------------------------------------ by state: the table


def test_a_waiting_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    before = time.time()
    single.submit(workload.arrive, rendezvous.address, "first")
    rendezvous.next()
    task = single.submit(workload.add, 1, 2)
    assert task.status is TaskStatus.PENDING
    assert (task.done(), task.running(), task.cancelled()) == (False, False, False)
    assert before <= task.created_at <= time.time()
    assert task.started_at is task.finished_at is task.worker_pid is None
    assert (
        task.error
        is task.traceback
        is task.message
        is task.current
        is task.maximum
        is task.progress
        is None
    )
    assert task.outputs == {}
    assert task.attempt == 1
    assert not task.cancel_requested
    with pytest.raises(concurrent.futures.InvalidStateError):
        _ = task.value
    for ask in (task.result, task.exception, task.wait_for):
        with pytest.raises(TimeoutError):
            ask(timeout=0)
    assert task.status is TaskStatus.PENDING
    assert "pending" in repr(task)


def test_a_running_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "result")
    arrival = rendezvous.next()
    assert task.status is TaskStatus.RUNNING
    assert (task.done(), task.running(), task.cancelled()) == (False, True, False)
    assert task.worker_pid == arrival.pid
    assert task.started_at is not None
    assert task.created_at - 0.05 <= task.started_at <= time.time() + 0.05
    assert task.finished_at is None
    with pytest.raises(concurrent.futures.InvalidStateError):
        _ = task.value
    with pytest.raises(TimeoutError):
        task.wait_for(0.01)
    assert task.status is TaskStatus.RUNNING, "a time-out does not cancel"
    assert not task.cancel_requested
    assert "running" in repr(task)
    arrival.release()
    assert task.wait_for(DEADLINE) is task
    assert task.value == "result"


def test_a_completed_task(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.report, 3)
    assert task.wait_for(DEADLINE) is task
    assert task.status is TaskStatus.COMPLETED
    assert (task.done(), task.running(), task.cancelled()) == (True, False, False)
    assert task.result() == task.result(0) == task.value == 3
    assert task.exception() is None
    assert task.error is task.traceback is None
    assert (task.message, task.current, task.maximum, task.progress, task.outputs) == (
        "step 3",
        3,
        3,
        1.0,
        {"steps": 3},
    )
    assert task.started_at is not None
    assert task.finished_at is not None
    assert task.created_at - 0.05 <= task.started_at <= task.finished_at <= time.time()
    assert task.worker_pid is not None
    assert task.cancel() is False
    assert task.status is TaskStatus.COMPLETED
    assert not task.cancelled()
    assert "finished returned int" in repr(task)


def test_a_failed_task(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.fail, "in vain")
    assert task.wait_for(DEADLINE) is task
    assert task.status is TaskStatus.FAILED
    assert (task.done(), task.running(), task.cancelled()) == (True, False, False)
    error = task.exception(0)
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match="in vain"):
        task.result(0)
    with pytest.raises(concurrent.futures.InvalidStateError):
        _ = task.value
    assert task.error is not None
    assert "in vain" in task.error
    assert task.traceback is not None
    assert all(isinstance(line, str) for line in task.traceback)
    assert any("workload.py" in line for line in task.traceback), "the lines are the remote ones"
    assert any("in fail" in line for line in task.traceback)
    assert task.cancel() is False
    assert "finished raised ValueError" in repr(task)


def test_a_cancelled_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    rendezvous.next()
    task = single.submit(workload.add, 1)
    assert task.cancel() is True
    assert task.cancel() is True, "again"
    assert task.status is TaskStatus.CANCELED
    assert (task.done(), task.running(), task.cancelled()) == (True, False, True)
    assert task.wait_for(0) is task
    for ask in (task.result, task.exception):
        with pytest.raises(concurrent.futures.CancelledError):
            ask(timeout=0)
    with pytest.raises(concurrent.futures.InvalidStateError):
        _ = task.value
    assert task.error is task.traceback is task.started_at is task.worker_pid is None
    assert task.finished_at is not None
    assert task.cancel_requested
    assert "cancelled" in repr(task)


def test_value_does_not_raise_the_failure_but_says_that_there_is_none(
    single: CondaEnvExecutor,
) -> None:
    with pytest.raises(concurrent.futures.InvalidStateError):
        _ = single.submit(workload.fail).wait_for(DEADLINE).value


def test_started_at_is_when_the_worker_took_it(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    first = single.submit(workload.arrive, rendezvous.address, "first")
    arrival = rendezvous.next()
    second = single.submit(workload.add, 1)
    assert second.started_at is None
    reached = time.time()
    arrival.release()
    second.wait_for(DEADLINE)
    assert first.started_at is not None
    assert second.started_at is not None
    assert first.started_at < reached - 1e-9 or first.started_at <= reached
    assert second.started_at >= reached - 0.05
    assert second.created_at < second.started_at + 0.05


def test_ids_are_unique_texts_and_stay(single: CondaEnvExecutor) -> None:
    tasks = [single.submit(workload.add, number) for number in range(50)]
    ids = [task.id for task in tasks]
    assert all(isinstance(one, str) for one in ids)
    assert len(set(ids)) == 50
    single.wait_all(DEADLINE)
    assert [task.id for task in tasks] == ids


def test_ids_of_tasks_that_have_not_been_started_stay_too(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    holding = single.submit(workload.arrive, rendezvous.address, "first")
    waiting = single.submit(workload.add, holding)
    unstarted = single.options(start=False).submit(workload.add, 1)
    ids = [waiting.id, unstarted.id]
    assert len({*ids, holding.id}) == 3
    rendezvous.next().release()
    unstarted.start()
    assert [waiting.wait_for(DEADLINE).id, unstarted.wait_for(DEADLINE).id] == ids


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (workload.add, "add"),
        (workload.Wanting.of_class, "Wanting.of_class"),
        (workload.Wanting.static, "Wanting.static"),
        (workload.Wanting(1).method, "Wanting.method"),
        (workload.Wanting, "Wanting"),
        (lambda *args: args, "<lambda>"),
        ("tests.tasks.workload:add", "tests.tasks.workload:add"),
        (len, "len"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_are_derived(
    single: CondaEnvExecutor, call: Callable[..., object], name: str
) -> None:
    task = single.options(start=False).submit(call, "value")
    running = single.submit(call, "value")
    assert task.name == running.name
    assert name in task.name
    assert "Task" not in task.name
    running.wait_for(DEADLINE)


def test_a_name_says_the_module_too(single: CondaEnvExecutor) -> None:
    assert single.submit(workload.add, 1).name == "tests.tasks.workload.add"


def test_a_given_name(single: CondaEnvExecutor) -> None:
    task = single.options(name="the sum").submit(workload.add, 1)
    assert task.name == "the sum"
    assert task.wait_for(DEADLINE).name == "the sum"


def test_future_is_the_task_itself(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.add, 1)
    assert task.future is task


def test_a_task_cannot_be_pickled(single: CondaEnvExecutor) -> None:
    with pytest.raises(TypeError, match="result"):
        pickle.dumps(single.submit(workload.add, 1))


def test_outputs_are_a_copy(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.report, 1).wait_for(DEADLINE)
    task.outputs["intruder"] = True
    assert task.outputs == {"steps": 1}


@pytest.mark.parametrize(
    ("current", "maximum", "progress"),
    [
        (None, None, None),
        (3, None, None),
        (None, 4, None),
        (1, 4, 0.25),
        (5, 4, 1.0),
        (-1, 4, 0.0),
        (1, 0, None),
        (0, 4, 0.0),
        (2.5, 5.0, 0.5),
    ],
)
def test_progress_is_clamped(
    single: CondaEnvExecutor,
    rendezvous: Rendezvous,
    current: float | None,
    maximum: float | None,
    progress: float | None,
) -> None:
    rendezvous.open()
    task = single.submit(
        workload.report_and_arrive, rendezvous.address, 0, current=current, maximum=maximum
    ).wait_for(DEADLINE)
    assert (task.current, task.maximum, task.progress) == (current, maximum, progress)
    assert task.progress is None or isinstance(task.progress, float)


# ----------------------------------------------------------------------------------------- starting


def test_an_unstarted_task_waits(single: CondaEnvExecutor, journal: Path) -> None:
    task = single.options(start=False).submit(workload.note, journal, "ran", "result")
    assert task.status is TaskStatus.PENDING
    assert single.submit(workload.add, 1).result(DEADLINE) == 1, "it holds up no other task"
    assert journal.read_text() == ""
    assert task.start() is task
    assert task.start() is task, "idempotent"
    assert task.result(DEADLINE) == "result"
    assert task.start() is task, "also when it has finished"
    assert journal.read_text() == "ran\n"


def test_starting_from_many_threads_runs_once(single: CondaEnvExecutor, journal: Path) -> None:
    for number in range(10):
        task = single.options(start=False).submit(workload.note, journal, number)
        barrier = threading.Barrier(4)

        def start(task: Task[object] = task, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(DEADLINE)
            task.start()

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        task.result(DEADLINE)
    assert journal.read_text().split() == [str(number) for number in range(10)]


def test_an_unstarted_task_can_be_cancelled_and_not_started_then(
    single: CondaEnvExecutor, journal: Path
) -> None:
    task = single.options(start=False).submit(workload.note, journal, "ran")
    assert task.cancel() is True
    assert task.cancelled()
    task.start()
    single.submit(workload.add, 1).result(DEADLINE)
    assert journal.read_text() == ""


def test_an_unstarted_task_can_be_killed(single: CondaEnvExecutor) -> None:
    task = single.options(start=False).submit(workload.add, 1)
    task.kill()
    assert task.status is TaskStatus.CANCELED


def test_starting_a_started_task_does_nothing(single: CondaEnvExecutor, journal: Path) -> None:
    task = single.submit(workload.note, journal, "ran")
    assert task.start() is task
    task.result(DEADLINE)
    assert journal.read_text() == "ran\n"


def test_starting_after_shutdown_is_an_error(make: Callable[..., CondaEnvExecutor]) -> None:
    with make() as executor:
        executor.submit(workload.add, 1).result(DEADLINE)
        task = executor.options(start=False).submit(workload.add, 1)
    assert task.status is TaskStatus.CANCELED, (
        "tasks that were never started are cancelled at shutdown"
    )
    with pytest.raises(RuntimeError, match="shutdown"):
        task.start()


def test_starting_after_a_shutdown_without_waiting_is_an_error_as_well(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    executor = make()
    task = executor.options(start=False).submit(workload.add, 1)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="shutdown"):
        task.start()
    assert task.status is TaskStatus.CANCELED


def test_starting_after_kill_workers_is_an_error(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make()
    task = executor.options(start=False).submit(workload.add, 1)
    executor.kill_workers()
    with pytest.raises(RuntimeError, match="shutdown"):
        task.start()
    assert task.status is TaskStatus.CANCELED


def test_unstarted_tasks_do_not_count_in_wait_all(single: CondaEnvExecutor) -> None:
    task = single.options(start=False).submit(workload.add, 1)
    single.submit(workload.add, 2)
    assert single.wait_all(DEADLINE) is True
    assert single.get_progress()["total"] == 1
    task.start()
    assert single.wait_all(DEADLINE) is True
    assert task.done()
    assert single.get_progress()["total"] == 2


def test_an_unstarted_task_that_is_dropped_is_no_leak(single: CondaEnvExecutor) -> None:
    gone = weakref.ref(single.options(start=False).submit(workload.add, 1))
    gc.collect()
    assert gone() is None


def test_listeners_of_an_unstarted_task_hear_everything(single: CondaEnvExecutor) -> None:
    recorder = Recorder()
    task = single.options(start=False).submit(workload.report, 2).listen(recorder)
    assert recorder.types == []
    task.start()
    recorder.wait_for_end()
    assert recorder.types[0] is TaskEventType.STARTED
    assert recorder.types[-1] is TaskEventType.COMPLETION


def test_a_live_task_keeps_its_pool_alive(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = CondaEnvExecutor(max_workers=1)
    unstarted_view = executor.options(start=False)
    task = executor.submit(workload.arrive, rendezvous.address, "result")
    arrival = rendezvous.next()
    waiting = executor.submit(workload.add, 20, 22)
    alive = weakref.ref(executor)
    del executor, unstarted_view
    gc.collect()
    assert alive() is None
    arrival.release()
    assert task.result(DEADLINE) == "result"
    assert waiting.result(DEADLINE) == 42


def test_an_unstarted_task_keeps_its_pool_alive(make: Callable[..., CondaEnvExecutor]) -> None:
    task = CondaEnvExecutor(max_workers=1).options(start=False).submit(workload.add, 20, 22)
    gc.collect()
    assert task.start().result(DEADLINE) == 42


# --------------------------------------------------------------------------------------------- with


def test_with_starts_and_waits(single: CondaEnvExecutor) -> None:
    with single.options(start=False).submit(workload.add, 1, 2) as task:
        assert isinstance(task, Task)
        assert task.result(DEADLINE) == 3
    assert task.status is TaskStatus.COMPLETED


def test_leaving_with_cancels_and_waits_without_raising(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    with single.submit(workload.cooperate, rendezvous.address, "in") as task:
        rendezvous.next().release()
    assert task.done()
    assert task.status is TaskStatus.CANCELED
    with single.submit(workload.fail) as failed:
        pass
    assert failed.status is TaskStatus.FAILED or failed.status is TaskStatus.CANCELED


def test_leaving_with_cancels_a_waiting_task(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    rendezvous.next()
    with single.submit(workload.arrive, rendezvous.address, "second") as task:
        pass
    assert task.status is TaskStatus.CANCELED
    assert rendezvous.uninvited() == []


def test_an_error_in_the_body_of_with_comes_through(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        single.submit(workload.cooperate, rendezvous.address, "in") as task,
    ):
        rendezvous.next().release()
        raise ZeroDivisionError
    assert task.status is TaskStatus.CANCELED


def test_async_with(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    async def main() -> None:
        async with single.options(start=False).submit(workload.add, 1, 2) as task:
            assert await task == 3
        async with single.submit(workload.cooperate, rendezvous.address, "in") as task:
            (await asyncio.to_thread(rendezvous.next)).release()
        assert task.status is TaskStatus.CANCELED
        async with single.submit(workload.fail) as failed:
            failed.wait_for(DEADLINE)
        assert failed.status is TaskStatus.FAILED

    asyncio.run(main())


def test_leaving_async_with_does_not_block_the_loop(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        async def leave() -> None:
            async with single.submit(workload.arrive, rendezvous.address, "in"):
                arrivals.append(await asyncio.to_thread(rendezvous.next))
                inside.set()

        arrivals: list[Arrival] = []
        inside = asyncio.Event()
        leaving = asyncio.ensure_future(leave())
        await inside.wait()
        assert not leaving.done()
        arrivals[0].release()  # the loop is free to get here while `leave` waits
        await asyncio.wait_for(leaving, DEADLINE)

    asyncio.run(main())


# ------------------------------------------------------------------- the standard library's helpers


def test_wait_and_as_completed_take_tasks(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    slow = executor.submit(workload.arrive, rendezvous.address, "slow")
    arrival = rendezvous.next()
    quick = executor.submit(workload.add, 1)
    failing = executor.submit(workload.fail)
    done, not_done = concurrent.futures.wait(
        [slow, quick, failing], timeout=DEADLINE, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert failing in done
    assert slow in not_done
    ended = concurrent.futures.as_completed([slow, quick, failing], timeout=DEADLINE)
    assert {next(ended), next(ended)} == {quick, failing}
    arrival.release()
    assert next(ended) is slow


def test_a_task_that_is_cancelled_wakes_wait_and_as_completed(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    rendezvous.next()
    waiting = [single.submit(workload.add, number) for number in range(3)]
    woken: list[object] = []
    ready = threading.Barrier(2)

    def sleep() -> None:
        iterator = concurrent.futures.as_completed(waiting[:1], timeout=DEADLINE)
        ready.wait(DEADLINE)
        woken.append(next(iterator))
        woken.append(concurrent.futures.wait(waiting[1:2], timeout=DEADLINE).done)

    thread = threading.Thread(target=sleep)
    thread.start()
    ready.wait(DEADLINE)
    assert waiting[0].cancel()
    assert waiting[1].cancel()
    thread.join(DEADLINE)
    assert woken == [waiting[0], {waiting[1]}]


def test_wrap_future(single: CondaEnvExecutor) -> None:
    async def main() -> None:
        assert await asyncio.wrap_future(single.submit(workload.add, 1, 2)) == 3
        with pytest.raises(ValueError, match="on purpose"):
            await asyncio.wrap_future(single.submit(workload.fail))

    asyncio.run(main())


def test_done_callbacks_of_a_finished_task_run_at_once_in_the_caller(
    single: CondaEnvExecutor,
) -> None:
    task = single.submit(workload.add, 1).wait_for(DEADLINE)
    threads: list[int] = []
    task.add_done_callback(lambda _task: threads.append(threading.get_ident()))
    assert threads == [threading.get_ident()]


def test_done_callbacks_get_the_task_in_order_each_once(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    got: list[tuple[int, object]] = []
    last = threading.Event()
    for number in range(5):
        task.add_done_callback(lambda future, number=number: got.append((number, future)))
    task.add_done_callback(lambda _future: last.set())
    arrival.release()
    assert last.wait(DEADLINE)
    assert got == [(number, task) for number in range(5)]


def test_a_callback_that_raises_is_logged_and_harms_nothing(
    single: CondaEnvExecutor, rendezvous: Rendezvous, caplog: pytest.LogCaptureFixture
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    second = threading.Event()

    def complain(_task: object) -> None:
        raise ZeroDivisionError("from a callback")

    task.add_done_callback(complain)
    task.add_done_callback(lambda _task: second.set())
    arrival.release()
    assert second.wait(DEADLINE)
    assert "from a callback" in caplog.text
    assert single.submit(workload.add, 1).result(DEADLINE) == 1


def test_shutdown_drains_the_callbacks(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make()
    latch, later = Latch(), []
    first = executor.submit(workload.add, 1)
    first.add_done_callback(latch)
    tasks = [executor.submit(workload.add, number) for number in range(20)]
    for task in tasks:
        task.add_done_callback(later.append)
    concurrent.futures.wait(tasks)
    opener = threading.Timer(0.05, latch.open.set)
    opener.start()
    executor.shutdown(wait=True)
    opener.join()
    assert set(later) == set(tasks)
    assert len(later) == len(tasks)


def test_a_waiting_thread_is_interrupted_by_nothing_but_its_timeout(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    with pytest.raises(TimeoutError):
        task.result(0.01)
    with pytest.raises(TimeoutError):
        task.exception(-1)
    arrival.release()
    assert task.result(DEADLINE) == "in"
