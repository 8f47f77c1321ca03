"""``CarriedExecutor`` with a carrier that takes its calls to workers of this machine only.

What Dask adds is tested in ``tests/cluster``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any

import pytest

from tests.contract.workload import arrive
from tests.support.interpreters import Interpreter
from tests.support.rendezvous import Rendezvous
from wetlands_executor import (
    CarriedCall,
    CarriedExecutor,
    CondaEnvExecutor,
    DependencyFailed,
    Task,
    TaskEventType,
    TaskStatus,
    WorkerCrashed,
    packed_has_failed,
    packed_interpreter,
    submit_packed,
)


class Kept:
    """The outcome of a call, which counts how often it is fetched."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fetched = 0

    def fetch(self, timeout: float | None = None) -> bytes:
        self.fetched += 1
        return self.data


class Near:
    """A carrier: hands the bytes of calls to a ``CondaEnvExecutor``."""

    def __init__(self, executor: CondaEnvExecutor) -> None:
        self._executor = executor
        self._tasks: dict[CarriedCall, Task[bytes]] = {}
        self.outcomes: list[Kept] = []
        self.max_workers = executor.max_workers
        self.interpreter = packed_interpreter(executor)
        self.closed = False

    def carry(self, call: CarriedCall) -> None:
        given: Sequence[Any] = call.outcomes
        task = submit_packed(self._executor, call.data, [each.data for each in given])
        self._tasks[call] = task
        task.listen(lambda event: self._say(call, event))
        task.add_done_callback(lambda task: self._end(call, task))

    def _say(self, call: CarriedCall, event: Any) -> None:
        if event.type is TaskEventType.STARTED:
            call.started(event.task.worker_pid)
        elif event.type is TaskEventType.UPDATE:
            call.reported(event.message, event.current, event.maximum)
            if event.outputs:
                call.put_out(event.outputs)

    def _end(self, call: CarriedCall, task: Task[bytes]) -> None:
        if task.cancelled():
            call.cancelled(task.error)
        elif task.exception() is not None:
            call.failed(task.exception())  # type: ignore[arg-type]
        elif packed_has_failed(task.result()):
            call.failed(task.result())
        else:
            self.outcomes.append(Kept(task.result()))
            call.returned(self.outcomes[-1])

    def withdraw(self, calls: Sequence[CarriedCall]) -> list[CarriedCall]:
        return [call for call in calls if self._tasks[call].cancel()]

    def ask_to_cancel(self, call: CarriedCall) -> None:
        self._tasks[call].cancel()

    def kill(self, call: CarriedCall) -> None:
        self._tasks[call].kill()

    def workers(self) -> list[Any]:
        return self._executor.workers()

    def close(self) -> None:
        self.closed = True
        self._executor.shutdown()


@pytest.fixture
def make_near(make: Callable[..., CondaEnvExecutor]) -> Callable[..., CarriedExecutor]:
    """Make executors: ``make_near(max_workers=..., env=None)``."""

    def make_near(max_workers: int = 2, **options: Any) -> CarriedExecutor:
        return CarriedExecutor(Near(make(max_workers, **options)))

    return make_near


@pytest.fixture
def near(make_near: Callable[..., CarriedExecutor]) -> Iterator[CarriedExecutor]:
    with make_near() as executor:
        yield executor


def carrier_of(executor: CarriedExecutor) -> Near:
    found: Any = executor._carrier
    return found  # type: ignore[no-any-return]


def test_results_errors_and_names(near: CarriedExecutor) -> None:
    tasks = near.map_tasks(pow, [2, 3], [2, 2])
    assert [task.result(30) for task in tasks] == [4, 9]
    assert [task.name for task in tasks] == ["pow[0]", "pow[1]"]
    offset = 2
    assert near.submit(lambda n: n + offset, 3).result(30) == 5
    failed = near.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result(30)
    assert failed.arguments == "('x')"
    assert near.get_failed() == [failed]
    progress = near.get_progress()
    assert (progress["completed"], progress["failed"], progress["running"]) == (3, 1, 0)


def test_a_result_is_brought_once_and_only_if_it_is_asked_for(near: CarriedExecutor) -> None:
    first = near.submit(bytes, 1000)
    second = near.submit(len, first)
    assert second.result(30) == 1000
    kept, _ = carrier_of(near).outcomes
    assert kept.fetched == 0
    assert (first.result(30), first.value, first.result(30)) == (bytes(1000),) * 3
    assert kept.fetched == 1

    async def wait() -> Any:
        return await near.submit(abs, -7)

    assert asyncio.run(wait()) == 7


def test_a_failed_or_cancelled_dependency(near: CarriedExecutor) -> None:
    with pytest.raises(DependencyFailed):
        near.submit(abs, near.submit(int, "x")).result(30)
    unstarted = near.options(start=False).submit(abs, 1)
    waiting = near.options(start=False).submit(abs, unstarted)
    assert unstarted.cancel()
    assert waiting.start().wait_for(30).status is TaskStatus.CANCELED


def test_events_and_reports(near: CarriedExecutor) -> None:
    def work(task: Any) -> int:
        task.update("half", current=1, maximum=2)
        task.set_output("part", 5)
        return 1

    events: list[TaskEventType] = []
    ended = threading.Event()
    task = near.options(start=False).submit(work)
    task.listen(lambda event: events.append(event.type))
    task.add_done_callback(lambda _: ended.set())
    task.start()
    assert ended.wait(30)
    assert (task.progress, task.outputs, task.worker_pid) == (0.5, {"part": 5}, task.worker_pid)
    assert events[0] is TaskEventType.STARTED
    assert events[-1] is TaskEventType.COMPLETION


def test_cancelling(
    make_near: Callable[..., CarriedExecutor], rendezvous: Rendezvous
) -> None:
    with make_near(1) as executor:
        running = executor.submit(arrive, rendezvous.address)
        arrival = rendezvous.next()
        started = threading.Event()
        running.listen(lambda _: started.set())
        assert started.wait(30)
        waiting = executor.submit(abs, 1)
        assert waiting.cancel()
        assert not running.cancel()
        assert running.cancel_requested
        running.kill()
        assert running.wait_for(30).status is TaskStatus.CANCELED
        arrival.wait_until_gone()
        assert executor.submit(abs, -2).result(30) == 2


def test_a_crash_and_a_retry(near: CarriedExecutor, tmp_path: Any) -> None:
    with pytest.raises(WorkerCrashed, match="exit code 3"):
        near.submit(os._exit, 3).result(30)
    mark = str(tmp_path / "mark")

    def once(path: str) -> str:
        import os

        if not os.path.exists(path):
            open(path, "x").close()
            os._exit(1)
        return "second"

    task = near.options(retries=1).submit(once, mark)
    assert (task.result(30), task.attempt) == ("second", 2)


def test_what_other_executors_refuse_is_refused(near: CarriedExecutor) -> None:
    with pytest.raises(TypeError, match=r"wait_all\(raise_on_error=True\)"):
        near.wait_all(True)
    with pytest.raises(TypeError, match=r"arguments stand one by one"):
        near.submit(divmod_of, args=(7, 2))
    with pytest.raises(TypeError, match="callable or None"):
        near.set_error_callback(1)  # type: ignore[arg-type]


def divmod_of(number: int, by: int) -> tuple[int, int]:
    return divmod(number, by)


def test_map_in_parts(near: CarriedExecutor) -> None:
    assert list(near.map(lambda n: n * n, range(1000))) == [n * n for n in range(1000)]
    assert len(carrier_of(near).outcomes) == 16, "8 for each worker"
    assert list(near.map(pow, [2, 3], [3, 2], chunksize=2)) == [8, 9]
    found = list(near.map(lambda n: 6 // n, [1, 0] * 20, return_exceptions=True))
    assert found[0] == 6
    assert isinstance(found[1], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        list(near.map(lambda n: 6 // n, [1, 0] * 20))
    assert sorted(near.map(abs, [-1, -2], ordered=False)) == [1, 2]
    assert list(near.map(abs, iter([-1, -2]), buffersize=1)) == [1, 2]
    assert list(near.map(abs, [])) == []


def test_the_end(make_near: Callable[..., CarriedExecutor], rendezvous: Rendezvous) -> None:
    executor = make_near(1)
    running = executor.submit(arrive, rendezvous.address, 1)
    rendezvous.next()
    waiting = executor.submit(abs, 1)
    unstarted = executor.options(start=False).submit(abs, 1)
    executor.shutdown(wait=False, cancel_futures=True)
    assert unstarted.cancelled()
    rendezvous.open()
    executor.shutdown()
    assert running.result(30) == 1
    assert waiting.cancelled()
    assert carrier_of(executor).closed
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_a_dropped_executor_finishes_and_closes(
    make_near: Callable[..., CarriedExecutor],
) -> None:
    executor = make_near()
    carrier = carrier_of(executor)
    tasks = executor.map_tasks(abs, [-1, -2, -3])
    del executor
    assert [task.result(30) for task in as_completed(tasks, 30)]
    del tasks
    carrier._executor.shutdown()


def test_what_comes_after_the_end_of_a_call_is_ignored(near: CarriedExecutor) -> None:
    calls: list[CarriedCall] = []
    carrier = carrier_of(near)
    carry = carrier.carry

    def keep(call: CarriedCall) -> None:
        calls.append(call)
        carry(call)

    carrier.carry = keep  # type: ignore[method-assign]
    task = near.submit(abs, -1)
    assert task.result(30) == 1
    (call,) = calls
    call.started(5)
    call.reported("late", None, None)
    call.failed(ValueError("late"))
    call.cancelled()
    assert (task.status, task.message, task.result()) == (TaskStatus.COMPLETED, None, 1)


def test_another_python(
    make_near: Callable[..., CarriedExecutor], anypython: Interpreter
) -> None:
    with make_near(1, env=anypython.path) as executor:

        def compute(n: int) -> Any:
            import sys

            return sys.version_info[:2], lambda x: x + n

        version, add = executor.submit(compute, 3).result(60)
        assert (version, add(4)) == (anypython.version[:2], 7)
