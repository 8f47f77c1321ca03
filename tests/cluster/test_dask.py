"""``DaskEnvExecutor`` on a cluster of two hosts on this machine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.contract.workload import arrive
from tests.support.interpreters import Interpreter
from tests.support.rendezvous import Rendezvous
from wetlands_executor import (
    CondaEnvExecutor,
    DependencyFailed,
    EnvironmentNotFoundError,
    Task,
    TaskEventType,
    TaskStatus,
    TaskTimeoutError,
    WorkerCrashed,
)

# Dask leaves sockets, and threads that serve all clients of a process.
pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None, reason="distributed is an extra"
    ),
    pytest.mark.leaks_ok("Dask's own threads, pipes and processes"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_call_returns_a_task(executor: Any) -> None:
    task = executor.submit(pow, 2, 10)
    assert isinstance(task, Task)
    assert task.result(30) == 1024
    assert (task.status, task.name, task.value) == (TaskStatus.COMPLETED, "pow", 1024)


def test_functions_by_value_and_targets(executor: Any, tmp_path: Path) -> None:
    """The environment has neither the source of the function nor the file."""
    offset = 5
    assert executor.submit(lambda n: n + offset, 2).result(30) == 7
    assert executor.submit("math:sqrt", 9).result(30) == 3
    (tmp_path / "model.py").write_text("def double(n):\n    return 2 * n\n")
    target = f"{tmp_path / 'model.py'}:double"
    task = executor.submit(target, 4)
    assert task.result(30) == 8

    async def later(n: int) -> int:
        await asyncio.sleep(0)
        return n

    assert executor.submit(later, 3).result(30) == 3


def test_an_error_keeps_its_type_and_its_traceback(executor: Any) -> None:
    class OwnError(Exception):
        pass

    def fail() -> None:
        raise OwnError("no")

    task = executor.submit(fail)
    with pytest.raises(OwnError, match="no"):
        task.result(30)
    assert task.status is TaskStatus.FAILED
    assert any("in fail" in line for line in task.traceback)


def test_what_cannot_be_pickled_fails_its_task(executor: Any) -> None:
    task = executor.submit(print, threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        task.result(30)


def test_progress_and_outputs_arrive(executor: Any) -> None:
    def work(task: Any) -> str:
        task.update("half", current=1, maximum=2)
        task.set_output("so far", [1, 2])
        return "done"

    events: list[Any] = []
    ended = threading.Event()
    task = executor.options(start=False).submit(work)
    task.listen(events.append)
    task.add_done_callback(lambda _: ended.set())
    assert task.start().result(30) == "done"
    assert ended.wait(30)
    assert (task.message, task.progress, task.outputs) == ("half", 0.5, {"so far": [1, 2]})
    kinds = [event.type for event in events]
    assert kinds[0] is TaskEventType.STARTED
    assert kinds[-1] is TaskEventType.COMPLETION
    assert TaskEventType.UPDATE in kinds


def test_a_result_stays_on_its_host_until_it_is_asked_for(executor: Any, client: Any) -> None:
    task = executor.submit(bytes, 1_000_000).wait_for(30)
    assert task.status is TaskStatus.COMPLETED
    assert "returned Elsewhere" in repr(task)
    assert len(task.result(30)) == 1_000_000
    assert "returned bytes" in repr(task)


def test_a_task_as_an_argument_goes_from_host_to_host(executor: Any) -> None:
    first = executor.submit(bytes, 1_000_000)
    second = executor.submit(len, first)
    assert second.result(30) == 1_000_000
    assert "returned Elsewhere" in repr(first), "it did not come here"
    failing = executor.submit(len, executor.submit(int, "x"))
    with pytest.raises(DependencyFailed):
        failing.result(30)


def test_a_task_of_another_executor_as_an_argument(executor: Any) -> None:
    with CondaEnvExecutor(max_workers=1) as local:
        there = executor.submit(pow, local.submit(pow, 2, 3), 2)
        assert there.result(30) == 64
        assert local.submit(pow, there, 1).result(30) == 64


def test_standard_waiters_and_await(executor: Any) -> None:
    tasks = executor.map_tasks(abs, [-1, -2, -3])
    assert sorted(task.result() for task in as_completed(tasks, 30)) == [1, 2, 3]
    assert [task.name for task in tasks] == ["abs[0]", "abs[1]", "abs[2]"]

    async def wait() -> list[int]:
        return await asyncio.gather(*executor.map_tasks(abs, [-4, -5]))

    assert asyncio.run(wait()) == [4, 5]


def test_map_keeps_the_order_and_raises_the_first_error(executor: Any) -> None:
    assert list(executor.map(lambda n: n * n, range(5000))) == [n * n for n in range(5000)]
    assert sorted(executor.map(abs, range(-5, 0), ordered=False)) == [1, 2, 3, 4, 5]
    found = executor.map(lambda n: 6 // n, [3, 2, 0, 1] * 50)
    assert (next(found), next(found)) == (2, 3)
    with pytest.raises(ZeroDivisionError):
        next(found)
    kept = list(executor.map(lambda n: 6 // n, [3, 0, 1], return_exceptions=True))
    assert kept[0::2] == [2, 6]
    assert isinstance(kept[1], ZeroDivisionError)


def test_a_queued_task_is_cancelled_and_never_runs(
    executor: Any, rendezvous: Rendezvous, tmp_path: Path
) -> None:
    busy = [executor.submit(arrive, rendezvous.address, n) for n in range(4)]
    for _ in busy:
        rendezvous.next()
    waiting = executor.submit((tmp_path / "ran").touch)
    assert waiting.cancel()
    assert waiting.status is TaskStatus.CANCELED
    rendezvous.open()
    concurrent.futures.wait(busy, 30)
    assert executor.submit(pow, 2, 2).result(30) == 4
    assert not (tmp_path / "ran").exists()


def test_a_running_task_is_asked_to_stop(executor: Any) -> None:
    def until_asked(task: Any) -> str:
        task.update("runs")
        while not task.cancel_requested:
            time.sleep(0.01)
        task.cancel()
        return "asked"

    task = executor.submit(until_asked)
    _until_started(task)
    assert not task.cancel()
    task.wait_for(30)
    assert task.status is TaskStatus.CANCELED


def _until_started(task: Any) -> None:
    started = threading.Event()
    task.listen(lambda event: started.set())
    assert started.wait(30)


def test_a_running_task_is_killed(executor: Any, rendezvous: Rendezvous) -> None:
    task = executor.submit(arrive, rendezvous.address)
    arrival = rendezvous.next()
    _until_started(task)
    assert task.worker_pid == arrival.pid
    task.kill()
    assert task.wait_for(30).status is TaskStatus.CANCELED
    arrival.wait_until_gone()
    assert executor.submit(pow, 2, 2).result(30) == 4


def test_a_worker_that_dies_fails_its_task_alone(executor: Any) -> None:
    tasks = executor.map_tasks(abs, range(-10, 0))
    crashed = executor.submit(os._exit, 3)
    with pytest.raises(WorkerCrashed, match=r"exit code 3.*the call was .*_exit\(3\)") as caught:
        crashed.result(30)
    assert isinstance(caught.value, BrokenProcessPool)
    assert str(caught.value).count("the call was") == 1
    assert [task.result(30) for task in tasks] == list(range(10, 0, -1))


def die_at_first(path: str) -> str:
    if not os.path.exists(path):
        Path(path).touch()
        os._exit(1)
    return "second"


def test_retries_are_counted(executor: Any, tmp_path: Path) -> None:
    task = executor.options(retries=1).submit(die_at_first, str(tmp_path / "mark"))
    assert task.result(30) == "second"
    assert task.attempt == 2


def test_a_time_limit(executor: Any) -> None:
    with pytest.raises(TaskTimeoutError):
        executor.options(timeout=0.2).submit(time.sleep, 30).result(30)


def interval() -> tuple[float, float]:
    """Return when it began and ended, on the clock that all processes share."""
    began = time.monotonic()
    time.sleep(0.05)
    return began, time.monotonic()


def one_after_another(intervals: Iterable[tuple[float, float]]) -> bool:
    found = sorted(intervals)
    return all(end <= begin for (_, end), (begin, _) in itertools.pairwise(found))


def test_max_workers_limits_what_is_under_way(make: Callable[..., Any]) -> None:
    executor = make(None, 1)
    assert executor.max_workers == executor._max_workers == 1
    tasks = [executor.submit(interval) for _ in range(4)]
    assert one_after_another(task.result(30) for task in tasks)
    assert not one_after_another([(0, 2), (1, 3)])


def test_counts_and_the_end(make: Callable[..., Any]) -> None:
    failed: list[str] = []
    with make() as executor:
        executor.set_error_callback(lambda task, error: failed.append(task.name))
        tasks = [executor.submit(abs, -1), executor.submit(int, "x")]
        assert executor.wait_all(30)
        progress = executor.get_progress()
        assert (progress["total"], progress["completed"], progress["failed"]) == (2, 1, 1)
        assert executor.get_failed() == [tasks[1]]
        assert executor.get_task(tasks[0].id) is tasks[0]
    assert failed == ["int"]
    assert tasks[0].result(30) == 1, "it is still on its host"
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_an_executor_cannot_be_sent(executor: Any) -> None:
    with pytest.raises(TypeError, match="its connections belong to this process"):
        executor.options(name="x").__reduce__()


def test_a_missing_environment_is_named_with_its_hosts(make: Callable[..., Any]) -> None:
    with pytest.raises(EnvironmentNotFoundError, match=r"2 of 2 hosts(.|\n)*tcp://") as caught:
        make("no-such-environment")
    assert str(caught.value).count("no-such-environment") >= 2


def test_options_of_workers_reach_them(make: Callable[..., Any]) -> None:
    executor = make(worker_env={"FROM_THE_CLIENT": "yes"})
    assert executor.submit(os.getenv, "FROM_THE_CLIENT").result(30) == "yes"


def test_another_python(make: Callable[..., Any], anypython: Interpreter) -> None:
    """Functions by value travel as source, there and back; Dask's Python reads nothing of them."""
    executor = make(anypython.path)

    def compute(n: int) -> Any:
        import sys

        return sys.version_info[:2], [k * k for k in range(n)], lambda x: x + n

    version, squares, add = executor.submit(compute, 3).result(60)
    assert (version, squares, add(4)) == (anypython.version[:2], [0, 1, 4], 7)


# --------------------------------------------------------------------------------------- lost hosts


@pytest.fixture
def fresh() -> Any:
    """A cluster of its own, of which hosts are killed."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def note_and_arrive(folder: str, address: Any, number: int) -> int:
    """Note that it has begun, in a file of its own; wait for the test."""
    with open(os.path.join(folder, f"{number}-{os.getpid()}"), "x"):
        pass
    return int(arrive(address, number))


def _host_of(client: Any, pid: int) -> int:
    """Return the process of Dask whose worker has this pid."""
    import psutil

    hosts = set(client.run(os.getpid).values())
    (found,) = {parent.pid for parent in psutil.Process(pid).parents()} & hosts
    return int(found)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_lost_host_never_runs_a_call_again_by_itself(
    fresh: Any, rendezvous: Rendezvous, tmp_path: Path, retries: int
) -> None:
    from wetlands_executor.integrations.dask import DaskEnvExecutor

    with DaskEnvExecutor(fresh) as executor:
        view = executor.options(retries=retries)
        tasks = [
            view.submit(note_and_arrive, str(tmp_path), rendezvous.address, n) for n in range(6)
        ]
        first, second = rendezvous.next(), rendezvous.next()  # two run, four wait
        lost = int(first.label)
        os.kill(_host_of(fresh, first.pid), 9)
        rendezvous.open()
        second.release()
        found = [task.exception(60) for task in tasks]
        begun = [int(path.name.partition("-")[0]) for path in tmp_path.iterdir()]
        if retries:
            assert found == [None] * 6
            assert tasks[lost].attempt == 2
            assert sorted(begun) == sorted([*range(6), lost])
        else:
            assert isinstance(found[lost], WorkerCrashed)
            assert [each for each in found if each is not None] == [found[lost]]
            assert sorted(begun) == list(range(6)), "none twice, and none was left out"


def test_a_result_that_is_lost_with_its_host_is_not_computed_anew(
    fresh: Any, tmp_path: Path
) -> None:
    from wetlands_executor.integrations.dask import DaskEnvExecutor

    def touch(folder: str) -> int:
        Path(folder, str(os.getpid())).touch()
        return os.getpid()

    with DaskEnvExecutor(fresh) as executor:
        task = executor.submit(touch, str(tmp_path)).wait_for(30)
        (made,) = tmp_path.iterdir()
        os.kill(_host_of(fresh, int(made.name)), 9)
        with pytest.raises(WorkerCrashed, match="lost"):
            task.result(60)
        assert executor.submit(pow, 2, 2).result(60) == 4
        assert len(list(tmp_path.iterdir())) == 1


def test_a_host_that_joins_is_prepared_before_it_gets_work(fresh: Any) -> None:
    from wetlands_executor.integrations.dask import DaskEnvExecutor

    with DaskEnvExecutor(fresh, worker_env={"PREPARED": "yes"}) as executor:
        before = set(fresh.scheduler_info(n_workers=-1)["workers"])
        fresh.cluster.scale(4)
        fresh.wait_for_workers(4, timeout=60)
        found = executor.map_tasks(_variable_and_parent, ["PREPARED"] * 40)
        assert {task.result(60)[0] for task in found} == {"yes"}
        assert len({task.result()[1] for task in found}) > 2, "the new ones take part"
        assert len(before) == 2


def _variable_and_parent(name: str) -> tuple[str | None, int]:
    time.sleep(0.05)
    return os.getenv(name), os.getppid()


@pytest.mark.timeout(180)
def test_ten_thousand_tasks_none_lost_and_none_twice(make: Callable[..., Any]) -> None:
    from tests.cluster import work

    executor = make()
    expected = sorted(range(10_000))
    assert sorted(executor.map(work.same, range(10_000), ordered=False)) == expected
    tasks = executor.map_tasks(work.same, range(1000))
    assert [task.result(60) for task in tasks] == list(range(1000))
    assert executor.get_progress()["failed"] == 0


# ---------------------------------------------------------------------------- addresses and extras


def test_by_address_and_by_the_default_executor(cluster: Any) -> None:
    """The same program, by a variable, on the cluster and here."""
    program = (
        "from wetlands_executor import get_default_executor\n"
        "executor = get_default_executor()\n"
        "print(type(executor).__name__, executor.submit(pow, 2, 5).result())\n"
    )
    for engine, name in ((f"dask:{cluster.scheduler_address}", "DaskEnvExecutor"),
                         ("local", "CondaEnvExecutor")):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "WETLANDS_EXECUTOR_ENGINE": engine},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.split() == [name, "32"], done.stderr


def test_a_cluster_without_hosts() -> None:
    from distributed import Client, LocalCluster

    from wetlands_executor.integrations.dask import DaskEnvExecutor

    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(RuntimeError, match="no host: wait for the first one"),
    ):
        DaskEnvExecutor(client)


def test_a_scheduler_that_is_killed(tmp_path: Path) -> None:
    """Tasks fail at once, and the end of the executor does not wait for ever."""
    from distributed import Client

    from wetlands_executor.integrations.dask import DaskEnvExecutor

    file = str(tmp_path / "scheduler.json")
    dask = (sys.executable, "-m", "dask")
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = ("--no-dashboard", "--scheduler-file", file)
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *options], **quiet
    )
    worker = subprocess.Popen(
        [*dask, "worker", *options, "--nworkers", "2", "--nthreads", "1",
         "--death-timeout", "3", "--local-directory", str(tmp_path)],
        **quiet,
    )  # fmt: skip
    try:
        with Client(scheduler_file=file, timeout="30s") as client:
            client.wait_for_workers(2, timeout=40)
            executor = DaskEnvExecutor(client)
            done = executor.submit(pow, 2, 4).wait_for(30)
            tasks = executor.map_tasks(time.sleep, [60] * 4)
            _until_started(tasks[0])
            scheduler.kill()
            for task in tasks:
                assert isinstance(task.exception(30), WorkerCrashed)
                assert "the connection to the scheduler was lost" in str(task.exception())
            with pytest.raises(WorkerCrashed, match="the result was lost"):
                done.result(30)
            executor.shutdown()
        worker.wait(60)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


def test_resources_of_dask_limit_what_runs_at_a_time() -> None:
    """Two threads, but one GPU: the calls run one after another; the variable names the device."""
    from distributed import Client, LocalCluster

    from wetlands_executor.integrations.dask import DaskEnvExecutor

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, resources={"GPU": 1}, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
        DaskEnvExecutor(
            client,
            resources={"GPU": 1},
            worker_env=lambda index: {"CUDA_VISIBLE_DEVICES": str(index)},
        ) as executor,
    ):
        tasks = [executor.submit(interval) for _ in range(4)]
        assert one_after_another(task.result(30) for task in tasks)
        assert executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result(30) in ("0", "1")
