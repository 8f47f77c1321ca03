"""Environments in which no worker comes up.

The error says what the interpreter said, and the next submit tries again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.faults import work
from tests.support.observe import DEADLINE, gone, lines, start_error
from tests.support.sharing import SHARED
from wetlands_executor import WetlandsExecutorError, WorkerStartError

PYENV = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
WORKING = f'exec "{sys.executable}" "$@"'


class Interpreter:
    """A ``python`` that is a shell script, and counts how often it is started."""

    def __init__(self, folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        self.path = folder / "bin" / "python"
        self.journal = folder / "journal"
        self.does("exit 1")

    def does(self, what: str) -> None:
        """Replace the script, at one moment."""
        new = self.path.with_name("new")
        new.write_text(f'#!/bin/sh\necho start >> "{self.journal}"\n{what}\n')
        new.chmod(0o755)
        new.rename(self.path)

    @property
    def starts(self) -> int:
        return len(lines(self.journal))


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    return Interpreter(tmp_path / "env")


def test_interpreter_that_says_why_and_exits(make, interpreter):
    interpreter.does("echo 'libfoo.so.3 is missing' >&2; exit 1")
    executor = make(env=str(interpreter.path), max_workers=2)
    began = time.monotonic()
    tasks = [executor.submit(pow, 2, 3) for _ in range(5)]
    for task in tasks:
        error = start_error(task)
        assert "libfoo.so.3 is missing" in str(error)
        assert "exit code 1" in str(error)
    assert time.monotonic() - began < 5
    assert 3 <= interpreter.starts <= 6, "three tries, with delays"
    assert len({id(task.exception()) for task in tasks}) == len(tasks), (
        "each task has an exception of its own"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_next_submit_tries_again(make, interpreter, workers):
    executor = make(env=str(interpreter.path), max_workers=workers)
    for _ in range(3):
        before = interpreter.starts
        start_error(executor.submit(pow, 2, 3))
        assert interpreter.starts > before
    for task in [executor.submit(pow, 2, 3) for _ in range(4)]:
        start_error(task)
    interpreter.does(WORKING)
    began = time.monotonic()
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
    assert time.monotonic() - began < 3, "at once, not after the delay of an earlier failure"
    assert executor.submit(pow, 2, 4).result(DEADLINE) == 16


def test_repaired_between_two_tries(make, interpreter):
    """A failure that goes away by itself is no error of a task."""
    interpreter.does(
        f'if [ "$(wc -l < "{interpreter.journal}")" -lt 3 ]; then echo try again '
        f">&2; exit 1; fi\n{WORKING}"
    )
    executor = make(env=str(interpreter.path), max_workers=1)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
    assert interpreter.starts == 3


def test_launch_says_why(make, interpreter):
    interpreter.does("echo no such luck >&2; exit 1")
    executor = make(env=str(interpreter.path), max_workers=2)
    for _ in range(2):
        with pytest.raises(WorkerStartError, match="no such luck"):
            executor.launch()
    interpreter.does(WORKING)
    began = time.monotonic()
    while True:
        try:
            executor.launch()
            break
        except WorkerStartError:  # the last word of a process that was started before the repair
            assert time.monotonic() - began < 3
    assert executor.worker_count == 2
    assert time.monotonic() - began < 3


def test_interpreter_that_breaks_while_others_work(make, interpreter, rendezvous):
    """The environment is removed under a running pool.

    What runs goes on, what has a worker is served.
    """
    interpreter.does(WORKING)
    executor = make(env=str(interpreter.path), max_workers=2)
    first = executor.submit(work.pid).result(DEADLINE)
    interpreter.does("echo gone >&2; exit 1")
    results = [executor.submit(pow, 2, number).result(DEADLINE) for number in range(20)]
    assert results == [2**number for number in range(20)]
    many = [executor.submit(pow, 2, number) for number in range(100)]
    assert [task.result(DEADLINE) for task in many] == [2**number for number in range(100)]
    assert executor.submit(work.pid).result(DEADLINE) == first


@pytest.mark.skipif(
    SHARED, reason="what forks the workers is there already, and needs no interpreter any more"
)
def test_last_worker_dies_and_cannot_be_replaced(make, interpreter):
    interpreter.does(WORKING)
    executor = make(env=str(interpreter.path), max_workers=1)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
    interpreter.does("echo gone >&2; exit 1")
    culprit = executor.submit(os._exit, 1)
    waiting = [executor.submit(pow, 2, number) for number in range(10)]
    assert culprit.exception(DEADLINE) is not None
    for task in waiting:
        assert "gone" in str(start_error(task))
    interpreter.does(WORKING)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


def test_silent_exit(make, interpreter):
    interpreter.does("exit 0")
    error = start_error(make(env=str(interpreter.path)).submit(pow, 2, 3))
    assert "exit code 0" in str(error)


def test_killed_by_a_signal(make, interpreter):
    interpreter.does("kill -9 $$")
    error = start_error(make(env=str(interpreter.path)).submit(pow, 2, 3))
    assert "SIGKILL" in str(error)


def test_not_an_executable(make, interpreter):
    interpreter.path.write_bytes(b"\x7fELF not quite")
    error = start_error(make(env=str(interpreter.path)).submit(pow, 2, 3))
    assert "Exec format error" in str(error)
    assert isinstance(error.__cause__, OSError)


def test_interpreter_disappears(make, interpreter):
    executor = make(env=str(interpreter.path))
    interpreter.path.unlink()
    error = start_error(executor.submit(pow, 2, 3))
    assert str(interpreter.path) in str(error)
    assert isinstance(error.__cause__, (FileNotFoundError, WetlandsExecutorError))
    interpreter.does(WORKING)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


def test_not_a_python_at_all(make, interpreter):
    """Something that reads nothing, says a lot, and then ends."""
    interpreter.does(
        "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo 'the end' >&2; exit 2"
    )
    error = start_error(make(env=str(interpreter.path), max_workers=1).submit(pow, 2, 3))
    assert "the end" in str(error)
    assert len(str(error)) < 100_000


@pytest.mark.parametrize("version", ["2.7.18", "3.6.15", "3.7.16"])
def test_python_that_is_too_old(make, version):
    python = PYENV / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no Python {version} on this machine")
    executor = make(env=str(python), max_workers=2)
    began = time.monotonic()
    error = start_error(executor.submit(pow, 2, 3))
    assert version in str(error)
    assert "3.8" in str(error)
    assert time.monotonic() - began < 5
    start_error(executor.submit(pow, 2, 3))


def test_preload_that_fails(make, tmp_path, monkeypatch):
    (tmp_path / "preload_trap.py").write_text("raise RuntimeError('the trap')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    executor = make(preload=["json", "preload_trap"], max_workers=1)
    error = start_error(executor.submit(pow, 2, 3))
    assert "preload_trap" in str(error)
    assert "the trap" in str(error)
    assert isinstance(error.__cause__, RuntimeError)
    (tmp_path / "preload_trap.py").write_text("")
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


@pytest.mark.parametrize(
    "end",
    [
        "raise SystemExit(0)",
        "raise KeyboardInterrupt",
        "import os; os._exit(3)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_preload_that_ends_the_worker(make, tmp_path, monkeypatch, end):
    (tmp_path / "preload_end.py").write_text(
        f"import sys\nsys.stderr.write('about to end')\nsys.stderr.flush()\n{end}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    error = start_error(make(preload=["preload_end"], max_workers=1).submit(pow, 2, 3))
    assert "about to end" in str(error)


def test_preload_that_hangs(make, tmp_path, monkeypatch):
    pid_file = tmp_path / "pid"
    (tmp_path / "preload_hang.py").write_text(
        f"import os, sys, time\nopen({str(pid_file)!r}, "
        f"'w').write(str(os.getpid()))\nprint('hanging', file=sys.stderr)\ntime.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    executor = make(preload=["preload_hang"], start_timeout=1.0, max_workers=1)
    error = start_error(executor.submit(pow, 2, 3))
    assert "start_timeout" in str(error)
    assert "hanging" in str(error)
    assert gone([int(pid_file.read_text())])
    (tmp_path / "preload_hang.py").write_text("")
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


def test_interpreter_that_hangs_at_once(make, interpreter):
    interpreter.does("echo 'waiting for a lock' >&2; exec sleep 60")
    executor = make(env=str(interpreter.path), start_timeout=0.5, max_workers=1)
    error = start_error(executor.submit(pow, 2, 3))
    assert "start_timeout" in str(error)
    assert "waiting for a lock" in str(error)


def test_sitecustomize_that_hangs(make, tmp_path, interpreter):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nsys.stderr.write('site hangs\\n')\ntime.sleep(60)\n"
    )
    interpreter.does(f'PYTHONPATH="{tmp_path}" {WORKING}')
    executor = make(env=str(interpreter.path), start_timeout=1.0, max_workers=1)
    error = start_error(executor.submit(pow, 2, 3))
    assert "site hangs" in str(error)
    interpreter.does(WORKING)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


def test_sitecustomize_that_prints_and_opens(make, tmp_path, interpreter, capfd):
    """Noise before the first line of ours harms nothing."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nprint('noise ' * 1000)\nkeep = [open('/dev/null') for _ in range(20)]\n"
    )
    interpreter.does(f'PYTHONPATH="{tmp_path}" {WORKING}')
    assert make(env=str(interpreter.path), max_workers=1).submit(pow, 2, 3).result(DEADLINE) == 8


def test_shutdown_during_a_start_that_hangs(make, interpreter):
    interpreter.does("exec sleep 60")
    executor = make(env=str(interpreter.path), max_workers=2)
    tasks = [executor.submit(pow, 2, 3) for _ in range(3)]
    began = time.monotonic()
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - began < 5
    assert all(task.cancelled() for task in tasks)


def test_broken_activation_script(make, tmp_path):
    prefix = tmp_path / "prefix"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta" / "history").touch()
    Interpreter(prefix).does(WORKING)
    (prefix / "etc" / "conda" / "activate.d").mkdir(parents=True)
    script = prefix / "etc" / "conda" / "activate.d" / "broken.sh"
    script.write_text("echo 'licence server unreachable' >&2\nexit 7\n")
    executor = make(env=str(prefix), max_workers=1)
    for _ in range(2):
        error = start_error(executor.submit(pow, 2, 3))
        assert "licence server unreachable" in str(error)
        assert "broken.sh" in str(error)
    script.write_text("export ACTIVATED=yes\n")
    assert executor.submit(os.getenv, "ACTIVATED").result(DEADLINE) == "yes"


@pytest.mark.parametrize(
    "cls",
    [ValueError, SystemExit, KeyboardInterrupt, work.BadStr, work.Unpicklable, work.BadReduce],
)
def test_initializer_that_fails(make, cls, caplog):
    executor = make(max_workers=2, initializer=work.fail_to_initialize, initargs=(cls, "no GPU"))
    task = executor.submit(pow, 2, 3)
    error = task.exception(DEADLINE)
    assert "nitializer" in str(error)
    assert cls.__name__ in str(error) + repr(error.__cause__)
    with pytest.raises(type(error).__mro__[0]):
        executor.submit(pow, 2, 3)
    assert "this is a bug" not in caplog.text


@pytest.mark.parametrize("cls", [work.ExitsWhenUnpickled, work.InterruptsWhenUnpickled])
def test_initializer_whose_error_bites_the_host(make, cls, caplog):
    """Unpickling is user code; it may not reach the thread that runs the pool."""
    executor = make(max_workers=2, initializer=work.fail_to_initialize, initargs=(cls, "no GPU"))
    error = executor.submit(pow, 2, 3).exception(DEADLINE)
    assert cls.__name__ in str(error) + repr(error.__cause__)
    executor.shutdown()
    assert "this is a bug" not in caplog.text
