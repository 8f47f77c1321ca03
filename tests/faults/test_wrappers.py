"""Interpreters that are wrappers: the Python is their child, perhaps in another session.

Signals reach the Python, a kill both.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import work
from tests.support import interpreters
from tests.support.observe import DEADLINE, ORPHAN_LIMIT, crash_of, gone, until
from wetlands_executor import TaskStatus, TaskTimeoutError, WorkerStartError, children

KINDS = {
    "child": '"{python}" "$@"\nexit $?\n',
    "trap": 'trap "" INT TERM\n"{python}" "$@"\ncode=$?\nexit $code\n',
    "session": '{setsid} -w "{python}" "$@"\nexit $?\n',
    "group": 'set -m\n"{python}" "$@" &\nwait $!\nexit $?\n',
    "deep": 'sh -c \'"{python}" "$@"; exit $?\' sh "$@"\nexit $?\n',
    "slow end": '"{python}" "$@"\ncode=$?\nsleep 0.2\nexit $code\n',
}


def wrapper(folder: Path, kind: str, python: str = sys.executable) -> str:
    setsid = shutil.which("setsid")
    if "setsid" in KINDS[kind] and setsid is None:
        pytest.skip("no setsid")
    path = folder / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/bash\n" + KINDS[kind].format(python=python, setsid=setsid))
    path.chmod(0o755)
    return str(path)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(
    params=[
        "single",
        pytest.param(
            "shared", marks=pytest.mark.skipif(sys.platform != "linux", reason="no forks")
        ),
    ]
)
def options(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"share_preload": True, "preload": ["json"]} if request.param == "shared" else {}


def test_a_worker_behind_a_wrapper_is_like_any_other(make, tmp_path, kind, options):
    executor = make(env=wrapper(tmp_path, kind), max_workers=1, **options)
    task = executor.submit("os:getpid")
    pid = task.result(DEADLINE)
    assert pid == task.worker_pid == executor.workers()[0].pid
    assert executor.workers()[0].rss > 4_000_000
    assert executor.submit(lambda x: x + 1, 1).result(DEADLINE) == 2
    assert list(executor.map(abs, range(-100, 0))) == list(range(100, 0, -1))
    assert len(executor.submit(bytes, 3_000_000).result(DEADLINE)) == 3_000_000

    slow = executor.options(cancel_grace=0.2).submit(time.sleep, 60)
    assert until(lambda: slow.status is TaskStatus.RUNNING)
    slow.cancel()
    slow.wait_for(DEADLINE)
    assert slow.cancelled()
    # the interrupt went to the Python, which lives
    assert executor.submit("os:getpid").result(DEADLINE) == pid

    limited = executor.options(timeout=0.5).submit(time.sleep, 60)
    error = limited.exception(DEADLINE)
    assert isinstance(error, TaskTimeoutError)
    assert "most recent call first" in error.stacks
    assert gone([pid])

    assert crash_of(executor.submit(os._exit, 3)).exit_code == 3
    crash = crash_of(executor.submit(eval, "__import__('os').kill(__import__('os').getpid(), 9)"))
    assert "SIGKILL" in str(crash)  # the wrapper's own end, or its exit code of 128 + 9
    pid = executor.submit("os:getpid").result(DEADLINE)
    executor.shutdown()
    assert gone([pid])


def test_killing_reaches_wrapper_and_python(make, tmp_path, kind):
    executor = make(env=wrapper(tmp_path, kind), max_workers=1)
    pid = executor.submit("os:getpid").result(DEADLINE)
    (process,) = executor._pool.processes.values()
    outer = process.process._popen.pid
    assert pid in children.descendants(outer)
    executor.submit(time.sleep, 60)
    executor.kill_workers()
    assert gone([pid, outer, *children.descendants(outer)])


def test_python_dies_and_the_wrapper_goes_on(make, tmp_path):
    path = Path(wrapper(tmp_path, "child"))
    path.write_text(path.read_text().replace("exit $?", "sleep 600"))
    executor = make(env=str(path), max_workers=1)
    crash_of(executor.submit(os._exit, 3))
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


def test_the_wrapper_dies_and_python_goes_with_it(make, tmp_path, kind):
    executor = make(env=wrapper(tmp_path, kind), max_workers=1)
    pid = executor.submit("os:getpid").result(DEADLINE)
    (process,) = executor._pool.processes.values()
    task = executor.submit(time.sleep, 60)
    assert until(lambda: task.status is TaskStatus.RUNNING)
    os.kill(process.process._popen.pid, signal.SIGKILL)
    assert crash_of(task).exit_code == -9
    assert gone([pid])
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


@pytest.mark.parametrize("kind", ["child", "session"])
def test_a_python_that_never_says_hello_is_killed_all_the_same(make, tmp_path, kind):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, "
        f"'a').write('%d\\n' % os.getpid())\ntime.sleep(600)\n"
    )
    executor = make(
        env=wrapper(tmp_path, kind),
        max_workers=1,
        start_timeout=2,
        worker_env={"PYTHONPATH": str(site)},
    )
    assert isinstance(executor.submit(pow, 2, 3).exception(DEADLINE), WorkerStartError)
    found = [int(line) for line in (tmp_path / "pid").read_text().split()]
    assert found
    assert gone(found)


@pytest.mark.parametrize("kind", ["child", "session"])
def test_a_forked_child_is_not_believed(make, tmp_path, kind):
    executor = make(env=wrapper(tmp_path, kind), max_workers=1)
    assert executor.submit(work.fork_and_return).result(DEADLINE)[0] == "parent"
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


@pytest.mark.parametrize("kind", ["child", "session"])
def test_the_host_is_killed(tmp_path, kind):
    program = (
        "import sys, time\nfrom wetlands_executor import CondaEnvExecutor\n"
        "executor = CondaEnvExecutor(sys.argv[1], "
        "max_workers=1)\nprint(executor.submit('os:getpid').result(20), flush=True)\n"
        "executor.submit(time.sleep, 600)\ntime.sleep(600)\n"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", program, wrapper(tmp_path, kind)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    host.kill()
    host.communicate()
    assert gone([pid], ORPHAN_LIMIT)


def test_another_version_behind_a_wrapper(make, tmp_path):
    others = [
        python for python in interpreters.find() if python.version[:2] != sys.version_info[:2]
    ]
    if not others:
        pytest.skip("no other Python")
    executor = make(env=wrapper(tmp_path, "child", str(others[0].path)), max_workers=1)
    assert executor.submit(lambda x: x + 1, 1).result(DEADLINE) == 2


def test_processes_below(tmp_path):
    shell = subprocess.Popen(
        ["sh", "-c", "sleep 600 & sh -c 'sleep 600; true'; true"], start_new_session=True
    )
    try:
        assert until(lambda: len(children.descendants(shell.pid)) == 3)
        found = children.find_wrapped(children.descendants(shell.pid)[-1], shell.pid)
        assert found is not None
        found.kill()
        assert until(found.has_ended)
        found.send_signal(signal.SIGTERM)
        os.close(found.fd)
        assert children.find_wrapped(os.getpid(), shell.pid) is None
        assert children.WrappedPython.of(os.getpid(), shell.pid) is None
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert children.descendants(shell.pid) == []
