"""Executors, meetings and host programs for the tests of tasks.

Teardown goes in the only order that cannot hang: everybody who waits may go on, then the executors are shut down; a call that goes on all
the same (a test has failed) loses its worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.meeting import Meeting
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds that a test's calls may still take at its end.
PATIENCE = 10.0


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    """The place where calls report and wait for the test."""
    with Meeting() as meeting:
        yield meeting


@pytest.fixture
def make(meeting: Meeting) -> Iterator[Callable[..., CondaEnvExecutor]]:
    """Make executors that end with the test: ``make(max_workers=1, env=None, ...)``."""
    made: list[CondaEnvExecutor] = []

    def make(max_workers: int = 1, **kwargs: Any) -> CondaEnvExecutor:
        made.append(CondaEnvExecutor(kwargs.pop("env", None), max_workers, **kwargs))
        return made[-1]

    yield make
    meeting.open()
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True)
        last_resort = threading.Timer(PATIENCE, executor.kill_workers)
        last_resort.start()
        executor.shutdown()
        last_resort.cancel()
        last_resort.join()


@pytest.fixture
def single(make: Callable[..., CondaEnvExecutor]) -> CondaEnvExecutor:
    """An executor with one worker: whatever else is submitted waits."""
    return make()


@pytest.fixture
def executor(make: Callable[..., CondaEnvExecutor]) -> CondaEnvExecutor:
    """An executor with two workers."""
    return make(2)


@pytest.fixture(scope="module")
def shared() -> Iterator[CondaEnvExecutor]:
    """One executor with one worker for a whole module, for tests that leave no trace. All its threads run before the first test begins."""
    with CondaEnvExecutor(max_workers=1) as executor:
        executor.submit(workload.say, "", end="").result(PATIENCE)
        called = threading.Event()
        executor.submit(workload.hold).add_done_callback(lambda _task: called.set())
        assert called.wait(PATIENCE)
        assert executor.submit(workload.Holder).result(PATIENCE)
        yield executor


class Host:
    """A program of ``hosts.py`` in a process of its own: a host that gets signals, or whose memory is measured."""

    def __init__(self, name: str, *args: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.tasks.hosts", name, *map(str, args)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """Return the next line that the host prints; fail with its stderr if it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the host ended: {self.process.communicate(timeout=20)}"
        return line.rstrip("\n")

    def interrupt(self) -> None:
        """Be a Ctrl-C on its terminal: SIGINT to its process group (workers live in sessions of their own)."""
        os.killpg(self.process.pid, 2)

    def finish(self, timeout: float = 60.0) -> tuple[int, str, str]:
        """Wait for the end; return (exit code, stdout, stderr)."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(6)  # faulthandler shows where it hangs
            out, err = self.process.communicate(timeout=10)
            pytest.fail(f"the host hangs:\n{out}\n{err}", pytrace=False)
        return self.process.returncode, out, err

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait(10)


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    """Start hosts: ``host("name", args...)`` runs ``hosts.name(args...)``."""
    hosts: list[Host] = []

    def start(name: str, *args: object) -> Host:
        hosts.append(Host(name, *args))
        return hosts[-1]

    yield start
    for one in hosts:
        one.close()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A file to which calls append lines: the proof that they ran."""
    path = tmp_path / "journal"
    path.touch()
    return path
