"""A test run in the background, under ``nohup`` or with blocked signals starts hosts that get their
signals all the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    shutil.which("sh") is None or sys.platform == "win32", reason="needs a POSIX shell"
)

#: Prints what a child process ignores and has blocked, and sends this process what it was told to
#: ignore.
PROGRAM = """
import os, signal, subprocess, sys
from tests.support import dispositions
dispositions.restore()
for name in sys.argv[1:]:
    if name != "CHLD":
        os.kill(os.getpid(), signal.Signals["SIG" + name])
child = '''
import signal
python = {"SIGPIPE", "SIGXFSZ", "SIGXFZ"}
ignored = {s.name for s in signal.Signals if signal.getsignal(s) is signal.SIG_IGN}
print(sorted(ignored - python), end=" ")
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
'''
done = subprocess.run([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
print(done.returncode, done.stdout, end="")
"""


def run(trap: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that ignores the signals whose names are given."""
    line = f"trap '' {trap}; exec \"$@\""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    variables["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        ["sh", "-c", line, "sh", *command],
        cwd=ROOT,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize(
    "trap", ["INT", "INT QUIT", "HUP", "INT QUIT HUP TERM USR1 USR2 ALRM CHLD"]
)
def test_what_is_ignored_here_is_not_ignored_by_children(trap: str) -> None:
    """And this process ignores it still."""
    done = run(trap, sys.executable, "-c", PROGRAM, *trap.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 [] []\n", "")


def test_what_is_blocked_here_is_not_blocked_in_children() -> None:
    blocked = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, "
        "signal.SIGUSR1})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked + PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 [] []\n", "")


def test_a_host_of_a_test_run_in_the_background_gets_its_interrupt(tmp_path: Path) -> None:
    """The whole way: shell, pytest, host."""
    name = "tests/faults/test_signals.py::test_ctrl_c_inside_with"
    options = [
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'inner'}",
    ]
    done = run("INT QUIT HUP", sys.executable, "-m", "pytest", *options, name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_this_run_has_nothing_to_hand_down() -> None:
    """conftest.py has seen to it."""
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
