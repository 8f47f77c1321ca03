"""``options(...)``: views that compose, and that are Executors for third parties."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import pytest

from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, Task, TaskStatus, TaskTimeoutError


def test_a_view_is_an_executor(executor: CondaEnvExecutor) -> None:
    view = executor.options(name="viewed")
    assert isinstance(view, Executor)
    task = view.submit(workload.add, 1, 2)
    assert isinstance(task, Task)
    assert task.result(DEADLINE) == 3
    assert task.name == "viewed"
    assert list(view.map(workload.add, [1, 2], [3, 4])) == [4, 6]
    assert [task.result(DEADLINE) for task in view.map_tasks(workload.add, [1, 2])] == [1, 2]
    assert all(task.name == "viewed" for task in view.map_tasks(workload.add, [1, 2]))


def test_the_executor_itself_is_not_changed_by_a_view(single: CondaEnvExecutor) -> None:
    single.options(name="viewed", start=False)
    task = single.submit(workload.add, 1)
    assert task.name != "viewed"
    assert task.result(DEADLINE) == 1


def test_views_compose(single: CondaEnvExecutor) -> None:
    view = single.options(name="outer", start=False).options(timeout=30)
    task = view.submit(workload.add, 1)
    assert task.name == "outer"
    assert task.status is TaskStatus.PENDING
    replaced = view.options(name="inner", start=True)
    inner = replaced.submit(workload.add, 2)
    assert inner.name == "inner"
    assert inner.result(DEADLINE) == 2
    assert view.submit(workload.add, 1).name == "outer", "the first view stays as it was"
    assert task.start().result(DEADLINE) == 1


def test_a_composed_view_can_take_an_option_back(single: CondaEnvExecutor) -> None:
    view = single.options(name="given", timeout=0.05).options(name=None, timeout=None)
    task = view.submit(workload.nap, 0.15)
    assert task.result(DEADLINE) == 0.15
    assert task.name.endswith("nap")


def test_options_of_composed_views_all_apply(single: CondaEnvExecutor, journal: Path) -> None:
    view = single.options(retries=3).options(retry_on=OSError).options(name="both")
    task = view.submit(workload.fail_until, journal, 3)
    assert task.result(DEADLINE) == 3
    assert (task.attempt, task.name) == (3, "both")


def test_a_view_keeps_the_pool_alive() -> None:
    view = CondaEnvExecutor(max_workers=1).options(name="viewed")
    gc.collect()
    assert view.submit(workload.add, 1, 2).result(DEADLINE) == 3


def test_what_third_parties_read(make: Callable[..., CondaEnvExecutor]) -> None:
    view = make(3).options(timeout=10).options(priority=1)
    assert view._max_workers == 3  # Dask, joblib


def test_run_in_executor_and_as_completed(executor: CondaEnvExecutor) -> None:
    view = executor.options(retries=1)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(view, workload.add, number, 1) for number in range(10))
        )

    assert asyncio.run(main()) == list(range(1, 11))
    tasks = [view.submit(workload.add, number) for number in range(10)]
    assert {
        task.result() for task in concurrent.futures.as_completed(tasks, timeout=DEADLINE)
    } == set(range(10))


def test_a_view_as_context_manager_ends_the_view_only(single: CondaEnvExecutor) -> None:
    with single.options(name="viewed") as view:
        task = view.submit(workload.add, 1, 2)
    assert task.done()
    with pytest.raises(RuntimeError, match="shutdown"):
        view.submit(workload.add, 1)
    assert single.submit(workload.add, 1).result(DEADLINE) == 1
    assert single.options(name="another").submit(workload.add, 2).result(DEADLINE) == 2


@pytest.mark.parametrize("ask", ["submit", "map", "map_tasks", "submit_script"])
def test_a_view_that_was_shut_down_refuses_everything(single: CondaEnvExecutor, ask: str) -> None:
    view = single.options()
    view.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        getattr(view, ask)(workload.add, [1]) if ask != "submit_script" else view.submit_script(
            __file__
        )


def test_a_view_of_an_executor_that_was_shut_down_refuses(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    executor = make()
    view = executor.options()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        view.submit(workload.add, 1)


def test_shutting_a_view_down_waits_for_its_own_tasks_only(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    view = executor.options(name="viewed")
    executor.submit(workload.arrive, rendezvous.address, "foreign")
    own = view.submit(workload.arrive, rendezvous.address, "own")
    arrivals = rendezvous.expect("foreign", "own")
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (view.shutdown(), ended.set()))
    thread.start()
    assert not ended.wait(0.05)
    arrivals["own"].release()
    assert ended.wait(DEADLINE), "the foreign task still runs, and must not be waited for"
    thread.join()
    assert own.done()


def test_shutting_a_view_down_without_waiting(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    view = single.options()
    task = view.submit(workload.arrive, rendezvous.address, "own")
    rendezvous.next()
    view.shutdown(wait=False)
    assert not task.done()


def test_cancelling_the_futures_of_a_view(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    view = single.options(name="viewed")
    running = view.submit(workload.arrive, rendezvous.address, "running")
    arrival = rendezvous.next()
    waiting = [view.submit(workload.add, number) for number in range(3)]
    foreign = single.submit(workload.add, 1)
    view.shutdown(wait=False, cancel_futures=True)
    assert all(task.cancelled() for task in waiting)
    assert not running.cancel_requested, "as in the standard library: what runs is left alone"
    arrival.release()
    assert running.result(DEADLINE) == "running"
    assert foreign.result(DEADLINE) == 1


def test_shutting_a_view_down_with_unstarted_tasks_does_not_hang(single: CondaEnvExecutor) -> None:
    view = single.options(start=False)
    started, unstarted = view.submit(workload.add, 1), view.submit(workload.add, 2)
    started.start()
    thread = threading.Thread(target=view.shutdown)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert started.done(), "a task that was started later is waited for as well"
    unstarted.cancel()


def test_map_with_start_false_is_an_error(single: CondaEnvExecutor) -> None:
    with pytest.raises(ValueError, match="start=False"):
        single.options(start=False).map(workload.add, [1])


def test_map_tasks_with_start_false(single: CondaEnvExecutor) -> None:
    tasks = single.options(start=False).map_tasks(workload.add, [1, 2])
    assert [task.status for task in tasks] == [TaskStatus.PENDING] * 2
    assert [task.start().result(DEADLINE) for task in tasks] == [1, 2]


def test_map_applies_the_options(single: CondaEnvExecutor, journal: Path) -> None:
    assert list(
        single.options(retries=2, retry_on=OSError).map(workload.fail_until, [journal], [3])
    ) == [3]
    with pytest.raises(TaskTimeoutError):
        list(single.options(timeout=0.05).map(workload.nap, [workload.LONGEST_WAIT]))


def test_submit_script_applies_the_options(single: CondaEnvExecutor, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys, pathlib\npathlib.Path(sys.argv[1]).write_text(__name__)\n")
    view = single.options(name="a script", start=False)
    task = view.submit_script(script, [str(tmp_path / "out")])
    assert task.name == "a script"
    assert not (tmp_path / "out").exists()
    assert task.start().result(DEADLINE) is None
    assert (tmp_path / "out").read_text() == "__main__"


def test_the_timeout_of_a_call_in_map_is_of_the_iterator(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    results = single.options(name="viewed").map(
        workload.arrive, [rendezvous.address], ["in"], timeout=0.05
    )
    with pytest.raises(TimeoutError) as caught:
        next(results)
    assert not isinstance(caught.value, TaskTimeoutError)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": 3}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"cancel_grace": -1}, ValueError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
        ({"retries": True}, TypeError),
        ({"priority": "high"}, TypeError),
        ({"retry_on": 5}, TypeError),
        ({"nonsense": 1}, TypeError),
    ],
    ids=str,
)
def test_wrong_options_are_refused_at_once(
    shared: CondaEnvExecutor, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        shared.options(**options)  # type: ignore[arg-type]
    with pytest.raises(error):
        shared.options().options(**options)  # type: ignore[arg-type]


def test_no_keyword_of_submit_is_an_option(single: CondaEnvExecutor) -> None:
    given = {
        "name": 1,
        "timeout": 2,
        "retries": 3,
        "priority": 4,
        "start": False,
        "cancel_grace": 0,
    }
    assert single.submit(dict, **given).result(DEADLINE) == given
    assert single.options(name="viewed").submit(dict, **given).result(DEADLINE) == given


def test_a_view_keeps_no_result_alive(single: CondaEnvExecutor) -> None:
    import weakref

    view = single.options(name="viewed")
    gone = weakref.ref(view.submit(workload.hold).result(DEADLINE))
    view.submit(workload.add, 1).result(DEADLINE)
    gc.collect()
    assert gone() is None
