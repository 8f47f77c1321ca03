"""Executors, meetings and hosts for the fault tests.

Teardown goes in the only order that cannot hang: everybody who waits may go on, then the executors are shut down.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.meeting import Meeting
from tests.sharing import CondaEnvExecutor

ROOT = Path(__file__).resolve().parent.parent.parent

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]  # signals, /proc and pidfds of Linux


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    """The place where tasks report and wait for the test."""
    with Meeting() as meeting:
        yield meeting


@pytest.fixture
def make(meeting: Meeting) -> Iterator[Callable[..., CondaEnvExecutor]]:
    """Make executors that end with the test."""
    made: list[CondaEnvExecutor] = []

    def make(max_workers: int = 2, **kwargs: Any) -> CondaEnvExecutor:
        made.append(CondaEnvExecutor(kwargs.pop("env", None), max_workers, **kwargs))
        return made[-1]

    yield make
    meeting.open()
    for executor in made:
        executor.shutdown(cancel_futures=True)


@pytest.fixture
def executor(make: Callable[..., CondaEnvExecutor]) -> CondaEnvExecutor:
    """An executor with two workers."""
    return make()


@pytest.fixture
def single(make: Callable[..., CondaEnvExecutor]) -> CondaEnvExecutor:
    """An executor with one worker: what follows a fault meets the same process, or its replacement."""
    return make(max_workers=1)


class Host:
    """A program of ``hosts.py`` in a process of its own: a host that may be interrupted, forked and killed."""

    def __init__(self, name: str, *args: object, **env: str) -> None:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.faults.hosts", name, *map(str, args)],
            cwd=ROOT,
            env=variables,
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

    def tell(self, text: str = "go") -> None:
        """Give the host a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def finish(self, timeout: float = 30.0) -> tuple[int, str, str]:
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
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was not read by the host
        self.process.wait(10)


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    """Start hosts: ``host("name", args...)`` runs ``hosts.name(args...)``; keywords are environment variables."""
    hosts: list[Host] = []

    def start(name: str, *args: object, **env: str) -> Host:
        hosts.append(Host(name, *args, **env))
        return hosts[-1]

    yield start
    for one in hosts:
        one.close()
