"""Retries: which failures are tried again, how often, and what the Task shows meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from tests.contract.workload import Unpicklable, throw_new
from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE, Arrival, Rendezvous
from tests.tasks import workload
from wetlands_executor import (
    CondaEnvExecutor,
    ExecutionException,
    Task,
    TaskEventType,
    TaskStatus,
    TaskTimeoutError,
    WorkerCrashed,
    WorkerStartError,
    WorkerUnresponsive,
)


def tries(journal: Path) -> int:
    return len(journal.read_text().splitlines())


# ------------------------------------------------------------------------------ what is tried again


def test_nothing_is_tried_again_by_default(single: CondaEnvExecutor, journal: Path) -> None:
    assert isinstance(
        single.submit(workload.die_until, journal, 9).exception(DEADLINE), WorkerCrashed
    )
    assert tries(journal) == 1


def test_a_crash_is_tried_again(single: CondaEnvExecutor, journal: Path) -> None:
    task = single.options(retries=3).submit(workload.die_until, journal, 3)
    assert task.result(DEADLINE) == 3
    assert task.attempt == 3
    assert len(set(journal.read_text().split())) == 3, "each in a new process"


def test_a_crash_is_tried_as_often_as_was_said(single: CondaEnvExecutor, journal: Path) -> None:
    task = single.options(retries=2).submit(workload.die_until, journal, 99)
    error = task.exception(DEADLINE)
    assert isinstance(error, WorkerCrashed)
    assert error.exit_code == 9
    assert task.attempt == tries(journal) == 3


def test_a_timeout_is_tried_again(single: CondaEnvExecutor, journal: Path) -> None:
    task = single.options(retries=1, timeout=0.5).submit(workload.hang_until, journal, 2)
    assert task.result(DEADLINE) == 2
    assert task.attempt == 2


def test_each_try_has_its_own_time(single: CondaEnvExecutor, journal: Path) -> None:
    task = single.options(retries=2, timeout=0.5).submit(workload.hang_until, journal, 99)
    assert isinstance(task.exception(DEADLINE), TaskTimeoutError)
    assert task.attempt == tries(journal) == 3


def test_a_hang_is_tried_again(make: Callable[..., CondaEnvExecutor], journal: Path) -> None:
    executor = make(worker_timeout=0.4)
    task = executor.options(retries=1).submit(workload.hang_until, journal, 2)
    assert task.result(DEADLINE) == 2
    assert task.attempt == 2


def test_an_exception_is_not_tried_again_by_default(
    single: CondaEnvExecutor, journal: Path
) -> None:
    task = single.options(retries=5).submit(workload.fail_until, journal, 2)
    assert isinstance(task.exception(DEADLINE), OSError)
    assert task.attempt == tries(journal) == 1


@pytest.mark.parametrize(
    "retry_on",
    [OSError, (ValueError, OSError), Exception, lambda error: "try" in str(error)],
    ids=["type", "types", "base", "function"],
)
def test_retry_on(single: CondaEnvExecutor, journal: Path, retry_on: object) -> None:
    task = single.options(retries=5, retry_on=retry_on).submit(workload.fail_until, journal, 4)  # type: ignore[arg-type]
    assert task.result(DEADLINE) == 4
    assert task.attempt == tries(journal) == 4


@pytest.mark.parametrize(
    "retry_on",
    [KeyError, (KeyError, ValueError), lambda error: False],
    ids=["type", "types", "function"],
)
def test_retry_on_something_else(single: CondaEnvExecutor, journal: Path, retry_on: object) -> None:
    task = single.options(retries=5, retry_on=retry_on).submit(workload.fail_until, journal, 4)  # type: ignore[arg-type]
    assert isinstance(task.exception(DEADLINE), OSError)
    assert task.attempt == tries(journal) == 1


def test_retry_on_an_exception_does_not_mean_a_crash(
    single: CondaEnvExecutor, journal: Path
) -> None:
    task = single.options(retries=5, retry_on=KeyError).submit(workload.die_until, journal, 9)
    assert isinstance(task.exception(DEADLINE), WorkerCrashed)
    assert tries(journal) == 1


@pytest.mark.parametrize(
    "retry_on", [WorkerCrashed, BrokenProcessPool, Exception], ids=lambda kind: kind.__name__
)
def test_retry_on_may_name_the_crash(
    single: CondaEnvExecutor, journal: Path, retry_on: type[BaseException]
) -> None:
    assert (
        single.options(retries=5, retry_on=retry_on)
        .submit(workload.die_until, journal, 3)
        .result(DEADLINE)
        == 3
    )


def test_a_function_decides_about_crashes_too(single: CondaEnvExecutor, journal: Path) -> None:
    seen: list[BaseException] = []

    def never(error: BaseException) -> bool:
        seen.append(error)
        return False

    task = single.options(retries=5, retry_on=never).submit(workload.die_until, journal, 9)
    assert isinstance(task.exception(DEADLINE), WorkerCrashed)
    assert tries(journal) == 1
    assert [type(error) for error in seen] == [WorkerCrashed]


def test_retry_on_time_out_only(single: CondaEnvExecutor, journal: Path) -> None:
    view = single.options(retries=5, retry_on=TaskTimeoutError, timeout=0.5)
    assert view.submit(workload.hang_until, journal, 2).result(DEADLINE) == 2
    assert isinstance(
        view.submit(workload.die_until, journal, 9).exception(DEADLINE), WorkerCrashed
    )
    assert tries(journal) == 3


def test_retry_on_hang_only(make: Callable[..., CondaEnvExecutor], journal: Path) -> None:
    executor = make(worker_timeout=0.5)
    task = executor.options(retries=5, retry_on=WorkerUnresponsive, timeout=60).submit(
        workload.hang_until, journal, 2
    )
    # On a busy machine the second try may be silent for too long as well, in its import.
    assert 2 <= task.result(DEADLINE) == tries(journal) <= task.attempt


def test_a_function_that_raises_is_logged_and_means_no(
    single: CondaEnvExecutor, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(error: BaseException) -> bool:
        raise ZeroDivisionError("in retry_on")

    task = single.options(retries=5, retry_on=broken).submit(workload.fail_until, journal, 4)
    assert isinstance(task.exception(DEADLINE), OSError)
    assert tries(journal) == 1
    assert "in retry_on" in caplog.text


def test_a_function_that_blocks_holds_up_no_other_task(
    executor: CondaEnvExecutor, journal: Path
) -> None:
    import threading

    go_on = threading.Event()
    task = executor.options(retries=1, retry_on=lambda error: go_on.wait(DEADLINE)).submit(
        workload.fail_until, journal, 2
    )
    assert [executor.submit(workload.add, number).result(DEADLINE) for number in range(20)] == list(
        range(20)
    )
    assert executor.submit(workload.hold).result(DEADLINE).data == b"", (
        "another result that has to be unpickled"
    )
    assert not task.done()
    go_on.set()
    assert task.result(DEADLINE) == 2


def test_an_error_that_cannot_be_rebuilt_is_judged_by_what_it_became(
    single: CondaEnvExecutor,
) -> None:
    task = single.options(retries=2, retry_on=ExecutionException).submit(
        throw_new, Unpicklable, "no"
    )
    assert isinstance(task.exception(DEADLINE), ExecutionException)
    assert task.attempt == 3


def test_a_worker_that_cannot_start_is_never_tried_again(
    make: Callable[..., CondaEnvExecutor], journal: Path
) -> None:
    executor = make(preload=["there_is_no_such_module"])
    began = time.monotonic()
    view = executor.options(retries=1000, retry_on=lambda error: True)
    task = view.submit(workload.add, 1)
    assert isinstance(task.exception(DEADLINE), WorkerStartError)
    assert task.attempt == 1
    assert time.monotonic() - began < DEADLINE


def test_a_cancelled_call_is_not_tried_again(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.options(retries=5, retry_on=Exception).submit(
        workload.acknowledge_and_raise, rendezvous.address, "in"
    )
    arrival = rendezvous.next()
    task.cancel()
    arrival.release()
    assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
    assert task.attempt == 1


def test_a_crash_after_a_request_to_cancel_is_not_tried_again(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.options(retries=5).submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    task.cancel()
    os.kill(arrival.pid, 9)
    task.wait_for(DEADLINE)
    assert task.status in (TaskStatus.CANCELED, TaskStatus.FAILED)
    assert task.attempt == 1
    single.submit(workload.add, 1).result(DEADLINE)
    assert rendezvous.uninvited() == []


# ------------------------------------------------------------------------------ what the Task shows


def test_between_two_tries_the_task_runs(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path
) -> None:
    recorder = Recorder()
    task = (
        single.options(retries=1, retry_on=OSError)
        .submit(workload.report_until, journal, 2, rendezvous.address)
        .listen(recorder)
    )
    first = rendezvous.next()
    recorder.wait(lambda event: "only first" in event.outputs)
    assert (task.message, task.current, task.maximum, task.outputs, task.attempt) == (
        "first try",
        7,
        10,
        {"only first": True},
        1,
    )
    first.release()
    second = rendezvous.next()
    recorder.wait(lambda event: "only later" in event.outputs)
    assert task.status is TaskStatus.RUNNING
    assert not task.done()
    assert task.attempt == 2
    assert (task.message, task.current, task.maximum, task.progress) == (None, None, None, None), (
        "progress starts anew"
    )
    assert task.outputs == {"only later": 2}, "outputs start anew"
    second.release()
    assert task.result(DEADLINE) == 2
    assert task.error is None
    recorder.wait_for_end()
    types = recorder.types
    assert types[0] is TaskEventType.STARTED
    assert types[-1] is TaskEventType.COMPLETION
    assert TaskEventType.FAILURE not in types
    assert sum(kind.is_terminal for kind in types) == 1
    assert {event.attempt for event in recorder.events} == {1, 2}
    attempts = [event.attempt for event in recorder.events]
    assert attempts == sorted(attempts)


def between_two_tries(
    executor: CondaEnvExecutor,
    rendezvous: Rendezvous,
    journal: Path,
    how: str,
    good: int = 99,
    at_first: Callable[[Task[int]], object] = lambda _task: None,
) -> tuple[Task[int], Arrival, Task[object]]:
    """Return a task whose first try has failed, and the call that has the only worker meanwhile.

    ``at_first`` is called during the first try.
    """
    view = executor.options(retries=5, priority=-1, retry_on=(OSError, WorkerCrashed))
    task = view.submit(workload.meet_and_fail_until, rendezvous.address, journal, good, how)
    first = rendezvous.next()
    at_first(task)
    blocking = executor.submit(workload.arrive, rendezvous.address, "between")
    first.release()
    arrival = rendezvous.next()
    assert arrival.label == "between"
    assert executor.is_responsive()
    deadline = time.monotonic() + DEADLINE
    while task.attempt == 1 and time.monotonic() < deadline:
        # an exception is judged on another thread; nothing announces the next attempt
        time.sleep(0.001)
    return task, arrival, blocking


@pytest.mark.parametrize("how", ["crash", "exception"])
def test_a_task_that_waits_for_its_second_try_is_running(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path, how: str
) -> None:
    """One worker, taken by another task in between: by the contract the status stays RUNNING."""
    task, arrival, blocking = between_two_tries(single, rendezvous, journal, how, good=2)
    assert tries(journal) == 1
    assert task.status is TaskStatus.RUNNING
    assert task.running()
    assert task.attempt == 2
    assert not task.done()
    with pytest.raises(TimeoutError):
        task.result(0)
    arrival.release()
    rendezvous.next().release()
    assert task.result(DEADLINE) == 2
    assert blocking.done()


@pytest.mark.parametrize("how", ["crash", "exception"])
def test_cancelling_between_two_tries(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path, how: str
) -> None:
    recorder = Recorder()
    task, arrival, _blocking = between_two_tries(single, rendezvous, journal, how)
    task.listen(recorder)
    assert task.cancel() is True
    assert task.status is TaskStatus.CANCELED
    arrival.release()
    assert single.submit(workload.add, 1).result(DEADLINE) == 1
    assert tries(journal) == 1
    recorder.wait_for_end()
    assert recorder.types[-1] is TaskEventType.CANCELATION


@pytest.mark.parametrize("how", ["crash", "exception"])
def test_a_cancellation_that_has_read_the_first_try_reaches_the_second(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path, how: str
) -> None:
    """The race of ``Task.cancel`` with the new try, laid out in time.

    What it has read from the task belongs to the try before.
    """
    read: list[Any] = []
    task, arrival, _blocking = between_two_tries(
        single, rendezvous, journal, how, at_first=lambda task: read.append(task._call)
    )
    assert read[0] is not None
    assert read[0] is not task._call
    assert single._pool.cancel(read[0]) is True
    assert task.status is TaskStatus.CANCELED
    arrival.release()
    assert tries(journal) == 1


@pytest.mark.parametrize("how", ["crash", "exception"])
def test_a_kill_that_has_read_the_first_try_ends_the_second(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path, how: str
) -> None:
    """As above, and the second try runs."""
    read: list[Any] = []
    task, arrival, blocking = between_two_tries(
        single, rendezvous, journal, how, at_first=lambda task: read.append(task._call)
    )
    arrival.release()
    assert blocking.result(DEADLINE) == "between"
    rendezvous.next()
    single._pool.kill(read[0])
    assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
    assert tries(journal) == 2


@pytest.mark.parametrize("how", ["crash", "exception"])
def test_killing_between_two_tries(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path, how: str
) -> None:
    task, arrival, blocking = between_two_tries(single, rendezvous, journal, how)
    task.kill()
    assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
    arrival.release()
    assert blocking.result(DEADLINE) == "between", "the innocent worker lives"
    assert single.submit(os.getpid).result(DEADLINE) == arrival.pid
    assert tries(journal) == 1


def test_shutdown_finishes_the_retries(
    make: Callable[..., CondaEnvExecutor], journal: Path
) -> None:
    with make() as executor:
        crashing = executor.options(retries=5).submit(workload.die_until, journal, 3)
        failing = executor.options(retries=5, retry_on=OSError).submit(
            workload.fail_until, journal.with_name("second"), 3
        )
    assert crashing.result(0) == failing.result(0) == 3


@pytest.mark.parametrize("how", ["crash", "exception"])
def test_shutdown_with_cancel_futures_between_two_tries_ends(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path, how: str
) -> None:
    task, arrival, blocking = between_two_tries(single, rendezvous, journal, how)
    single.shutdown(wait=False, cancel_futures=True)
    assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
    arrival.release()
    assert blocking.result(DEADLINE) == "between"
    assert tries(journal) == 1


@pytest.mark.parametrize("how", ["crash", "exception"])
@pytest.mark.parametrize("select", [False, True], ids=["default", "selected"])
def test_what_runs_at_a_shutdown_with_cancel_futures_is_not_tried_again(
    single: CondaEnvExecutor, rendezvous: Rendezvous, journal: Path, how: str, select: bool
) -> None:
    view = single.options(retries=5, retry_on=(OSError, WorkerCrashed) if select else None)
    task = view.submit(workload.meet_and_fail_until, rendezvous.address, journal, 99, how)
    arrival = rendezvous.next()
    single.shutdown(wait=False, cancel_futures=True)
    arrival.release()
    assert isinstance(task.exception(DEADLINE), WorkerCrashed if how == "crash" else OSError)
    assert task.attempt == tries(journal) == 1


def test_kill_workers_ends_the_retries(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make()
    task = executor.options(retries=50).submit(workload.arrive, rendezvous.address, "in")
    rendezvous.next()
    executor.kill_workers()
    assert isinstance(task.exception(DEADLINE), BrokenProcessPool)
    assert task.attempt == 1


def test_a_retried_task_counts_once(single: CondaEnvExecutor, journal: Path) -> None:
    single.options(retries=3, retry_on=OSError).submit(workload.fail_until, journal, 3).result(
        DEADLINE
    )
    assert single.wait_all(DEADLINE)
    progress = single.get_progress()
    assert (progress["total"], progress["completed"], progress["failed"]) == (1, 1, 0)
    assert single.get_failed() == []


def test_the_id_stays_the_same(single: CondaEnvExecutor, journal: Path) -> None:
    task = single.options(retries=3, retry_on=OSError).submit(workload.fail_until, journal, 3)
    before = task.id
    task.result(DEADLINE)
    assert task.id == before


def test_the_handle_has_the_same_id_in_every_try(single: CondaEnvExecutor, journal: Path) -> None:
    def attempt(task: object) -> object:
        if workload.count_line(str(journal)) < 3:
            raise OSError("again")
        task.update("worked", current=1)  # type: ignore[attr-defined]
        return task.id  # type: ignore[attr-defined]

    task = single.options(retries=3, retry_on=OSError).submit(attempt)
    assert task.result(DEADLINE) == task.id
    assert (task.message, task.current) == ("worked", 1)


def test_large_arguments_are_sent_again(single: CondaEnvExecutor, journal: Path) -> None:
    def measure(data: bytes) -> int:
        if workload.count_line(str(journal)) < 2:
            os._exit(1)
        return len(data)

    assert single.options(retries=1).submit(measure, b"x" * 5_000_000).result(DEADLINE) == 5_000_000


def test_many_at_once(executor: CondaEnvExecutor, tmp_path: Path) -> None:
    view = executor.options(retries=3, retry_on=OSError)
    tasks = [
        view.submit(workload.fail_until, tmp_path / str(number), 1 + number % 4)
        for number in range(100)
    ]
    assert [task.result(DEADLINE) for task in tasks] == [1 + number % 4 for number in range(100)]
    assert [task.attempt for task in tasks] == [1 + number % 4 for number in range(100)]
