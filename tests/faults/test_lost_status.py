"""A program that ignores SIGCHLD, or collects all children itself.

How a worker has ended is said truly, or said to be unknown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, signal, sys
from wetlands_executor import CondaEnvExecutor

def collect(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

signal.signal(signal.SIGCHLD, signal.SIG_IGN if sys.argv[1] == "ignored" else collect)
options = dict(share_preload=True, preload=["json"]) if sys.argv[2] == "shared" else {}
found = []
with CondaEnvExecutor(None, max_workers=1, **options) as executor:
    for command in ("os._exit(3)", "os.kill(os.getpid(), 9)"):
        error = executor.submit(exec, "import os; " + command).exception(20)
        found.append([type(error).__name__, error.exit_code, error.signal_name, str(error)])
    of_a_child = "__import__('subprocess').run(['false']).returncode"
    found.append(executor.submit(eval, of_a_child).result(20))
print(json.dumps(found))
"""


@pytest.mark.parametrize("how", ["ignored", "collected"])
@pytest.mark.parametrize("way", ["single", "shared", "plain"])
def test_what_is_said_is_true(tmp_path: Path, how: str, way: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    env = {**os.environ, "WETLANDS_EXECUTOR_PLAIN": "1"} if way == "plain" else None
    done = subprocess.run(
        [sys.executable, str(path), how, way], capture_output=True, text=True, timeout=120, env=env
    )
    assert done.returncode == 0, done.stderr
    exited, killed, code = json.loads(done.stdout.splitlines()[-1])
    assert exited[0] == killed[0] == "WorkerCrashed"
    assert exited[1:3] in ([3, None], [None, None])
    assert killed[1:3] in ([-9, "SIGKILL"], [None, None])
    for *_, status, _name, text in (exited, killed):
        assert "exit code 0" not in text
        assert ("in an unknown way (this program ignores SIGCHLD" in text) is (status is None)
    assert code == 1  # what a task starts has an exit status all the same
