"""Where facilities are missing or limited.

Other platforms' ways, no ctypes, limits of memory and address space; and the host's own death.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.arena import workload
from tests.arena.workload import Buffers
from tests.support.observe import ORPHAN_LIMIT, gone
from tests.support.programs import limit_address_space
from tests.support.rendezvous import DEADLINE
from wetlands_executor.worker.available_memory import available_memory

np = pytest.importorskip("numpy")

ROOT = Path(__file__).resolve().parent.parent.parent

WORLDS = {
    "plain": {"WETLANDS_EXECUTOR_PLAIN": "1"},
    "threads": {"WETLANDS_EXECUTOR_THREADS": "1"},
    "switched off": {"WETLANDS_EXECUTOR_ARENA": "0"},
}


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program of ``hosts``."""
    started: list[subprocess.Popen[str]] = []

    def run(*args: object, start: str = "", **env: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-W",
            "error",
            *(("-c", start) if start else ("-m", "tests.arena.hosts")),
            *map(str, args),
        ]
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONFAULTHANDLER": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **env,
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=variables, text=True, start_new_session=True, **pipes
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.split()[-1] == "well"


def test_blocks_carry_them(run):
    finish(run("everything", "blocks"))


@pytest.mark.parametrize("world", WORLDS)
def test_the_pipe_means_the_same(run, world):
    finish(run("everything", "pipe", **WORLDS[world]))


@pytest.mark.parametrize("world", ["plain", "threads", "switched off"])
def test_share_where_arguments_take_the_pipe(run, world):
    finish(run("sharing", "memory", **WORLDS[world]))


NO_MEMFD = {
    "absent": "del os.memfd_create",
    "refused": "def refuse(*_): raise PermissionError(1, 'not permitted')\nos.memfd_create = "
    "refuse",
}


@pytest.mark.parametrize("how", NO_MEMFD)
@pytest.mark.parametrize("program", ["everything pipe", "sharing memory"])
def test_without_files_in_memory(run, how, program):
    """A Python that was built for an old C library; a sandbox."""
    start = (
        f"import os, runpy, sys\n{NO_MEMFD[how]}\nsys.argv[1:] = "
        f"{program.split()}\nrunpy.run_module('tests.arena.hosts', run_name='__main__')"
    )
    finish(run(start=start))


def test_beyond_the_limit_the_pipe_is_used(run):
    finish(run("limited", WETLANDS_EXECUTOR_ARENA=str(8 << 20)))


def test_other_pickles_copy(run):
    finish(run("pickled_elsewhere"))


@pytest.mark.parametrize("mebibytes", [700, 900, 4000])
def test_a_limited_address_space(run, mebibytes):
    finish(run("memory_limited", mebibytes))


@pytest.mark.parametrize("extra", [1 << 24, 1 << 26])
def test_a_worker_whose_address_space_is_limited(make, memory, extra):
    """Arguments are read from the file, results go through the pipe."""
    executor = make()
    executor.submit(workload.total, np.ones(1000)).result(DEADLINE)
    executor.submit(limit_address_space, extra).result(DEADLINE)
    for _ in range(3):
        assert (executor.submit(workload.add_one, np.zeros(500_000)).result(DEADLINE) == 1).all()
        assert (executor.submit(workload.twice, np.ones(500_000)).result(DEADLINE) == 2).all()
    assert memory.is_free()


def test_a_result_is_not_copied_where_memory_is_short(make, memory):
    """There is room for the result and not for another one of its size."""
    executor = make()
    executor.submit(limit_address_space, 1 << 24).result(DEADLINE)
    for _ in range(3):
        (part,) = executor.submit(workload.make_buffers, 1, 6_000_000).result(DEADLINE).parts
        assert bytes(part) == bytes(6_000_000)
    (part,) = next(executor.map(workload.make_buffers, [1], [6_000_000], timeout=DEADLINE)).parts
    assert bytes(part) == bytes(6_000_000)
    assert memory.is_free()


def test_a_worker_without_ctypes(make, memory):
    executor = make(initializer=workload.forget_ctypes)
    parts = (
        executor.submit(workload.same, Buffers(bytearray(b"ab" * 200_000))).result(DEADLINE).parts
    )
    assert bytes(parts[0]) == b"ab" * 200_000
    assert executor.submit(workload.describe_parts, Buffers(bytearray(400_000))).result(
        DEADLINE
    ) == [(workload.digest(bytes(400_000)), True)]
    assert executor.submit(workload.same, b"x" * 500_000).result(DEADLINE) == b"x" * 500_000
    assert memory.is_free()


def test_a_task_that_closes_the_files(make, memory, capsys):
    """Other files have taken their numbers.

    They are not mapped. The next call has not begun and runs elsewhere; the worker says why it
    ends.
    """
    executor = make()
    executor.submit(workload.close_descriptors).result(DEADLINE)
    assert executor.submit(workload.total, np.ones(1_000_000)).result(DEADLINE) == 1_000_000
    assert "closed descriptors" in capsys.readouterr().err
    assert executor.submit(workload.total, np.ones(1_000_000)).result(DEADLINE) == 1_000_000
    assert memory.is_free()


@pytest.mark.parametrize("world", [{}, {"WETLANDS_EXECUTOR_PLAIN": "1"}], ids=["blocks", "plain"])
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_a_killed_host_leaves_nothing(run, tmp_path, world, delay):
    before = set(os.listdir("/dev/shm"))
    process = run("under_load", delay, TMPDIR=str(tmp_path), **world)
    workers = set(map(int, process.stdout.readline().split()))
    assert len(workers) == 2
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert gone(workers, ORPHAN_LIMIT)
    ours = {name for name in set(os.listdir("/dev/shm")) - before if "wetlands" in name}
    assert not ours
    assert os.listdir(tmp_path) == []


def test_the_room_in_control_groups(tmp_path):
    """Both versions of control groups, and a container in which the host's path is not there."""
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(
        "MemTotal:  16777216 kB\nMemFree: 1 kB\nMemAvailable:   8388608 kB\n"
    )
    (proc / "self" / "cgroup").write_text("")
    gigabyte = 1 << 30
    assert available_memory(str(proc), str(groups)) == 7 * gigabyte
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    (groups / "a" / "b").mkdir(parents=True)
    (groups / "a" / "memory.max").write_text(f"{2 * gigabyte}\n")
    (groups / "a" / "memory.current").write_text(f"{gigabyte}\n")
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "b" / "memory.current").write_text("5\n")
    assert available_memory(str(proc), str(groups)) == gigabyte - 2 * gigabyte // 16
    (groups / "a" / "memory.stat").write_text(f"anon 5\ninactive_file {gigabyte // 2}\n")
    assert available_memory(str(proc), str(groups)) == gigabyte + gigabyte // 2 - 2 * gigabyte // 16
    (proc / "self" / "cgroup").write_text("7:cpu,memory:/not/here\n0::/\n")
    (groups / "memory").mkdir()
    (groups / "memory" / "memory.limit_in_bytes").write_text(f"{gigabyte}\n")
    (groups / "memory" / "memory.usage_in_bytes").write_text(f"{gigabyte // 2}\n")
    assert available_memory(str(proc), str(groups)) == gigabyte // 2 - (64 << 20)
    (groups / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert available_memory(str(proc), str(groups)) == 7 * gigabyte
    assert available_memory(str(tmp_path / "nothing"), str(groups)) > 0


def test_nothing_is_kept_after_the_last_pool():
    """In a process of its own: the executors that other tests share keep the file of this one."""
    program = """
import numpy as np
from tests.arena import workload
from tests.support.leaks import _memfds
from wetlands_executor import CondaEnvExecutor

with CondaEnvExecutor(max_workers=1) as executor:
    executor.submit(workload.add_one, np.ones(1_000_000)).result()
    assert [area for area in _memfds() if "wetlands-arena" in area]
left = [area for area in _memfds() if "wetlands-arena" in area]
assert not left, left
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
