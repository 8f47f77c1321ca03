"""What ends a creation half-way leaves nothing that is used, and many makers make one environment.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.environments import packages
from tests.environments.conftest import Index, processes_in
from tests.support import interpreters
from wetlands_executor import (
    CondaEnvExecutor,
    CreationPhase,
    CreationProgress,
    Environment,
    EnvironmentCreationError,
    EnvironmentSpec,
    PyPIOptions,
    TaskStatus,
)
from wetlands_executor.environment.cancellation import Cancellation
from wetlands_executor.environment.locks import CreationLock
from wetlands_executor.environment.store import Store, key_of

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals, FIFOs and limits of POSIX"
)


def start_maker(
    spec: EnvironmentSpec, backend: str, what: str = "make", limit: int = 0, **options: Any
) -> subprocess.Popen[str]:
    """Start a program that makes an environment."""
    words = [what, backend, str(limit), json.dumps(spec.as_dict())]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.environments.makers", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=90)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def made_folders(store: Store) -> list[str]:
    folder = store.root / "made"
    return sorted(os.listdir(folder)) if folder.exists() else []


class Hold:
    """A build that begins, says so, and then waits for ever."""

    def __init__(self, folder: Path) -> None:
        self.project = packages.held_project(folder)
        self.line = folder / "held.fifo"
        os.mkfifo(self.line)
        os.mkfifo(f"{self.line}.go")

    def spec(self, index: Index) -> EnvironmentSpec:
        return index.spec(f"wl-held @ {self.project.as_uri()}")

    def await_begin(self) -> int:
        """Wait until the build runs; return its process."""
        with self.line.open() as stream:
            return int(stream.read())


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    found = Hold(tmp_path)
    monkeypatch.setenv("WL_HOLD", str(found.line))
    return found


class TestMany:
    def test_eight_processes_make_one(self, index: Index, backend: str, store: Store) -> None:
        spec = index.spec("wl-alpha", "wl-beta")
        makers = [start_maker(spec, backend, "wait") for _ in range(8)]
        for each in makers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in makers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        answers = [answer_of(each) for each in makers]
        assert {each["prefix"] for each in answers} == {answers[0]["prefix"]}
        assert len(made_folders(store)) == 1
        made = [each for each in answers if "checking" in each["seen"]]
        assert len(made) == 1
        assert all(set(each["seen"]) <= {"waiting"} for each in answers if each is not made[0])

    def test_threads_make_one(self, index: Index, quick: str, store: Store) -> None:
        tasks = [Environment.create_task(index.spec("wl-alpha"), backend=quick) for _ in range(4)]
        assert len({task.result(60) for task in tasks}) == 1
        assert len(made_folders(store)) == 1

    def test_those_who_wait_say_for_whom(self, index: Index, quick: str, hold: Hold) -> None:
        spec = hold.spec(index)
        with start_maker(spec, quick, "tell") as maker:
            hold.await_begin()
            seen: list[str] = []
            waits = threading.Event()

            def on_progress(progress: CreationProgress) -> None:
                seen.append(f"{progress.phase.value} {progress.message}")
                waits.set()
                progress.cancel()

            with pytest.raises(CancelledError):
                Environment.create(spec, backend=quick, on_progress=on_progress)
            assert waits.is_set()
            assert f"process {maker.pid}," in seen[0]
            maker.send_signal(signal.SIGINT)
        _await_lock_threads()

    def test_the_next_one_takes_over_after_a_kill(
        self, index: Index, backend: str, hold: Hold, store: Store
    ) -> None:
        """Also where the package manager goes on: it is ended, and its folder is swept."""
        spec = hold.spec(index)
        with start_maker(spec, backend) as maker:
            build = hold.await_begin()
            maker.kill()
        assert processes_in(store.root)
        before = made_folders(store)
        task = Environment.create_task(spec, backend=backend)
        second = hold.await_begin()
        assert second != build
        assert not set(before) & set(made_folders(store))
        task.cancel()
        task.wait_for(30)


def _await_lock_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "wetlands-environment-lock":
            thread.join(30)


class TestKills:
    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_at_any_moment(
        self, index: Index, quick: str, store: Store, stress_rng: random.Random
    ) -> None:
        spec = index.spec("wl-alpha", "wl-beta")
        started = time.monotonic()
        with start_maker(spec, quick) as maker:
            prefix = Path(answer_of(maker)["prefix"])
        duration = time.monotonic() - started
        Environment.find(prefix).remove()
        complete = 0
        for _ in range(20):
            with start_maker(spec, quick) as maker:
                try:
                    maker.wait(stress_rng.uniform(0.1, 1.0) * duration)
                except subprocess.TimeoutExpired:
                    pass
                maker.kill()
            found = store.cached(key_of(spec.digest()))
            if found is not None:
                complete += 1
                assert Environment.find(found.prefix).packages()["wl-alpha"] == "1.0"
                Environment.find(found.prefix).remove()
        made = Environment.create(spec, backend=quick)
        assert made.packages()["wl-beta"] == "1.0"
        assert made_folders(store) == [made.prefix.parent.name]
        assert complete < 20

    def test_at_each_phase(self, index: Index, backend: str, store: Store) -> None:
        spec = index.spec("wl-alpha")
        for phase in ("installing", "solving", "checking"):
            with start_maker(spec, backend, "tell") as maker:
                assert maker.stdout is not None
                while maker.stdout.readline().strip() != phase:
                    assert maker.poll() is None
                maker.kill()
            assert store.cached(key_of(spec.digest())) is None
        assert Environment.create(spec, backend=backend).packages()["wl-alpha"] == "2.0"
        assert len(made_folders(store)) == 1

    def test_ctrl_c(self, index: Index, backend: str, hold: Hold, store: Store) -> None:
        with start_maker(hold.spec(index), backend) as maker:
            hold.await_begin()
            maker.send_signal(signal.SIGINT)
            assert answer_of(maker)["error"] == "KeyboardInterrupt"
        assert made_folders(store) == []
        assert processes_in(store.root) == []


class TestCancelled:
    @pytest.mark.parametrize("phase", ["SOLVING", "INSTALLING", "CHECKING"])
    def test_in_each_phase(self, index: Index, backend: str, phase: str, store: Store) -> None:
        def on_progress(progress: CreationProgress) -> None:
            if progress.phase is CreationPhase[phase]:
                progress.cancel()

        with pytest.raises(CancelledError):
            Environment.create(index.spec("wl-alpha"), backend=backend, on_progress=on_progress)
        assert made_folders(store) == []

    def test_while_a_package_is_built(
        self, index: Index, backend: str, hold: Hold, store: Store
    ) -> None:
        task = Environment.create_task(hold.spec(index), backend=backend)
        hold.await_begin()
        assert task.running()
        assert task.cancel() is False
        task.wait_for(30)
        assert task.status is TaskStatus.CANCELED
        assert task.cancel() is True
        assert made_folders(store) == []

    def test_while_it_waits_for_another(self, index: Index, quick: str, store: Store) -> None:
        spec = index.spec("wl-alpha")
        store.prepare()
        lock = CreationLock(store.lock_of(key_of(spec.digest())))
        lock.acquire(Cancellation(), lambda _: None)
        try:
            task = Environment.create_task(spec, backend=quick)
            waits = threading.Event()
            task.listen(lambda event: waits.set() if event.message else None)
            if task.message is not None:  # told before there was a listener
                waits.set()
            assert waits.wait(30)
            task.cancel()
            task.wait_for(30)
            assert task.cancelled()
        finally:
            lock.release()
        _await_lock_threads()
        assert Environment.create(spec, backend=quick).packages()["wl-alpha"] == "2.0"

    def test_by_what_the_callback_raises(self, index: Index, quick: str, store: Store) -> None:
        def on_progress(progress: CreationProgress) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Environment.create(index.spec("wl-alpha"), backend=quick, on_progress=on_progress)
        assert made_folders(store) == []


class TestTask:
    def test_progress_and_result(self, index: Index, backend: str, store: Store) -> None:
        seen: list[Any] = []
        store.prepare()
        lock = CreationLock(store.lock_of("named-wl-cells"))
        lock.acquire(Cancellation(), lambda _: None)
        task = Environment.create_task(index.spec("wl-beta"), "wl-cells", backend=backend)
        over = threading.Event()

        def note(event: Any) -> None:
            seen.append(event)
            if event.type.is_terminal:
                over.set()

        task.listen(note)
        lock.release()  # what is told from here on has a listener
        assert task.result(90).name == "wl-cells"
        assert over.wait(30)
        assert task.name == "create wl-cells"
        kinds = [event.type.name for event in seen]
        assert "STARTED" not in kinds[1:]
        assert task.started_at is not None
        assert kinds[-1] == "COMPLETION"
        assert "UPDATE" in kinds
        assert task.outputs["phase"] == "checking"
        assert task.outputs["backend"] == backend

    def test_failure(self, index: Index, quick: str) -> None:
        task = Environment.create_task(index.spec("wl-nothing"), backend=quick)
        assert isinstance(task.exception(60), EnvironmentCreationError)
        assert task.status is TaskStatus.FAILED
        assert task.error is not None
        assert "wl-nothing" in task.error


class TestDisk:
    @pytest.mark.parametrize("limit", [100, 20_000, 1_000_000])
    def test_full(self, index: Index, backend: str, store: Store, limit: int) -> None:
        index.add("wl-large", size=3_000_000)
        spec = index.spec("wl-large")
        with start_maker(spec, backend, limit=limit) as maker:
            answer = answer_of(maker)
        assert answer["error"] == "EnvironmentCreationError"
        assert store.cached(key_of(spec.digest())) is None
        assert made_folders(store) == []
        assert Environment.create(spec, backend=backend).packages()["wl-large"] == "1.0"

    def test_a_place_that_cannot_be_written(
        self, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("WETLANDS_EXECUTOR_ENVIRONMENTS", str(tmp_path / "file" / "x"))
        with pytest.raises(EnvironmentCreationError, match="WETLANDS_EXECUTOR_ENVIRONMENTS"):
            Environment.create(index.spec("wl-alpha"))


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Serve a package index that answers every request with a status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestNetwork:
    def test_a_registry_that_answers_500(self, backend: str, store: Store) -> None:
        with answering(500) as url:
            spec = EnvironmentSpec(pypi=("wl-alpha",), options=PyPIOptions(index_url=url))
            with pytest.raises(EnvironmentCreationError, match="wl-alpha") as caught:
                Environment.create(spec, backend=backend)
        assert "500" in str(caught.value)
        assert made_folders(store) == []

    def test_a_package_that_no_registry_has(self, backend: str, store: Store) -> None:
        with answering(404) as url:
            spec = EnvironmentSpec(pypi=("wl-alpha",), options=PyPIOptions(index_url=url))
            with pytest.raises(EnvironmentCreationError, match="wl-alpha") as caught:
                Environment.create(spec, backend=backend)
        assert "index could be reached" not in str(caught.value)
        assert made_folders(store) == []

    def test_a_registry_that_is_gone(self, backend: str) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
            spec = EnvironmentSpec(pypi=("wl-alpha",), options=PyPIOptions(index_url=url))
            with pytest.raises(EnvironmentCreationError, match="index could be reached"):
                Environment.create(spec, backend=backend)

    def test_offline_asks_no_registry(self, backend: str) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            server.setblocking(False)
            host = f"http://127.0.0.1:{server.getsockname()[1]}"
            specs = [
                EnvironmentSpec(pypi=("x",), options=PyPIOptions(index_url=f"{host}/simple")),
                EnvironmentSpec(pypi=(f"x @ {host}/x-1.0-py3-none-any.whl",)),
                EnvironmentSpec(pypi=(f"x @ git+{host}/x.git",)),
            ]
            for spec in specs:
                with pytest.raises(EnvironmentCreationError, match="offline=True"):
                    Environment.create(spec, backend=backend, offline=True)
                with pytest.raises(BlockingIOError):
                    server.accept()

    def test_offline_with_what_is_here(self, index: Index, backend: str) -> None:
        made = Environment.create(index.spec("wl-alpha"), backend=backend, offline=True)
        assert made.packages()["wl-alpha"] == "2.0"


class TestExecutor:
    def test_a_file_that_carries_its_environment(
        self, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = "import wl_beta\n\n\ndef place(number):\n    return wl_beta.where(), number\n"
        index.script(tmp_path / "wl_segment.py", "wl-beta", body=body)
        monkeypatch.chdir(tmp_path)
        with CondaEnvExecutor("wl_segment.py", max_workers=2) as executor:
            where, number = executor.submit("wl_segment.py:place", 5).result()
            assert number == 5
            assert str(executor.environment.prefix) in where
        with CondaEnvExecutor(tmp_path / "wl_segment.py", max_workers=2) as executor:
            assert executor.submit("wl_segment.py:place", 6).result() == (where, 6)
        index.script(tmp_path / "wl_segment.py", "wl-beta", "wl-alpha==1.*", body=body)
        with CondaEnvExecutor("wl_segment.py", max_workers=2) as executor:
            assert executor.submit("wl_segment.py:place", 7).result()[0] != where

    def test_returns_at_once_and_the_first_submits_wait(
        self, index: Index, hold: Hold, quick: str
    ) -> None:
        spec = hold.spec(index)
        executor = CondaEnvExecutor(spec, max_workers=2)
        tasks = [executor.submit("os:getpid") for _ in range(3)]
        hold.await_begin()
        assert [task.status for task in tasks] == [TaskStatus.PENDING] * 3
        assert tasks[0].cancel() is True
        executor.shutdown(cancel_futures=True)
        assert [task.status for task in tasks] == [TaskStatus.CANCELED] * 3

    def test_a_function_by_value_waits_as_a_task(self, index: Index, hold: Hold) -> None:
        """Nothing lets the build go on: a `submit` that waited for it would wait for ever."""
        with CondaEnvExecutor(hold.spec(index), max_workers=1) as executor:
            tasks = [executor.submit(lambda x: x, 1)]
            tasks += executor.map_tasks(lambda x: x, range(3))
            results = executor.map(lambda x: x, range(3))
            hold.await_begin()
            assert {task.status for task in tasks} == {TaskStatus.PENDING}
            executor.kill_workers()
            assert all(task.wait_for(30).cancelled() for task in tasks)
            with pytest.raises(CancelledError):
                list(results)

    @pytest.mark.parametrize("same", [True, False], ids=["same version", "other version"])
    def test_what_is_pickled_before_the_python_is_known(self, index: Index, same: bool) -> None:
        """Arguments are those of the submit; code without a source goes to a Python like ours."""
        others = [each for each in interpreters.find() if each.version[:2] != sys.version_info[:2]]
        if not same and not others:
            pytest.skip("no second Python")
        version = sys.version_info[:2] if same else others[0].version[:2]
        spec = index.spec("wl-alpha", python=f"=={version[0]}.{version[1]}.*")
        space: dict[str, Any] = {"__name__": "wl_typed"}
        exec("def typed(x):\n    return x + 1\n", space)
        values = [1]
        with CondaEnvExecutor(spec, max_workers=1) as executor:
            task = executor.submit(lambda x: (x, __import__("sys").version_info[:2]), values)
            without = [executor.submit(space["typed"], 1), *executor.map_tasks(space["typed"], [1])]
            values.append(2)
            assert task.result(60) == ([1], version)
            for each in without:
                if same:
                    assert each.result(60) == 2
                else:
                    with pytest.raises(pickle.PicklingError, match="was not made yet"):
                        each.result(60)

    @pytest.mark.parametrize("how", ["kill_workers", "terminate_workers"])
    def test_killing_the_workers_ends_the_making(
        self, index: Index, hold: Hold, how: str, store: Store
    ) -> None:
        with CondaEnvExecutor(hold.spec(index), max_workers=2) as executor:
            task = executor.submit("os:getpid")
            hold.await_begin()
            getattr(executor, how)()
            assert task.wait_for(30).cancelled()
        assert made_folders(store) == []

    def test_a_failed_making_fails_what_waits_and_the_next_submit_tries_again(
        self, index: Index, store: Store
    ) -> None:
        with CondaEnvExecutor(index.spec("wl-late"), max_workers=4) as executor:
            tasks = [executor.submit("wl_late:where") for _ in range(6)]
            for task in tasks:
                assert isinstance(task.exception(60), EnvironmentCreationError)
            with pytest.raises(EnvironmentCreationError, match="wl-late"):
                executor.launch()
            with pytest.raises(EnvironmentCreationError, match="wl-late"):
                executor.submit(lambda: 1).result(60)
            index.add("wl-late")
            assert executor.submit("wl_late:where").result(60)
            assert executor.submit(lambda: __import__("wl_late").VERSION).result(60) == "1.0"
        log = Path(store.log_of(key_of(index.spec("wl-late").digest()))).read_text()
        assert "wl_late" in log or "wl-late" in log

    def test_functions_by_value_and_an_initializer(self, index: Index) -> None:
        def prepare(number: int) -> None:
            import builtins

            builtins.wl_prepared = number  # type: ignore[attr-defined]

        with CondaEnvExecutor(
            index.spec("wl-alpha"), max_workers=1, initializer=prepare, initargs=(7,)
        ) as executor:
            assert executor.submit(lambda: wl_prepared).result(60) == 7  # type: ignore[name-defined]  # noqa: F821

    def test_launch_tells_progress_and_errors(self, index: Index) -> None:
        seen: list[CreationProgress] = []
        with CondaEnvExecutor(index.spec("wl-alpha"), max_workers=1) as executor:
            executor.launch(on_progress=seen.append)
            assert executor.worker_count == 1
        assert CreationPhase.CHECKING in {progress.phase for progress in seen}

    def test_an_event_loop_goes_on_while_the_environment_is_made(
        self, index: Index, hold: Hold
    ) -> None:
        async def main() -> None:
            seen: list[CreationProgress] = []
            executor = CondaEnvExecutor(hold.spec(index), max_workers=1)
            launch = asyncio.ensure_future(executor.launch_async(on_progress=seen.append))
            task = executor.submit(lambda: 1)
            await asyncio.to_thread(hold.await_begin)  # the loop runs, and so does the creation
            assert not launch.done()
            assert seen
            assert task.status is TaskStatus.PENDING
            executor.kill_workers()
            await launch
            assert task.cancelled()

        asyncio.run(asyncio.wait_for(main(), 60))

    def test_repr_does_not_wait(self, index: Index) -> None:
        with CondaEnvExecutor(index.spec("wl-alpha"), max_workers=1) as executor:
            assert "the environment of its spec" in repr(executor)
