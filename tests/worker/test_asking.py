"""How the host learns which Python an environment has, before a worker has said so.

Wrappers, banners, interpreters that do not answer.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import interpreters
from tests.support.observe import DEADLINE
from tests.support.sharing import CondaEnvExecutor
from wetlands_executor.serialize.interpreter import MAGIC, RemoteInterpreter

OTHERS = [python for python in interpreters.find() if python.version[:2] != sys.version_info[:2]]
fcntl = pytest.importorskip("fcntl")
pytestmark = [
    pytest.mark.skipif(not OTHERS, reason="no second Python"),
    pytest.mark.skipif(os.name == "nt", reason="shell scripts"),
]

#: What tells the question from the start of a worker.
ASKED = 'case "$*" in *wetlands-*sys.version.split*wetlands-*) asked=1;; *) asked=;; esac\n'
KINDS = {
    "banner": 'printf "Loading \\377 modules ..."\nexec "{python}" "$@"\n',
    "banner at the end": '"{python}" "$@"\ncode=$?\necho "Have a nice day"\nexit $code\n',
    "banner on stderr": 'echo Loading >&2\nexec "{python}" "$@"\n',
    "fails when asked": ASKED + '[ -n "$asked" ] && exit 3\nexec "{python}" "$@"\n',
    "silent when asked": ASKED + '[ -n "$asked" ] && exec "{python}" "$@" >/dev/null\nexec '
    '"{python}" "$@"\n',
    "hangs when asked": ASKED + '[ -n "$asked" ] && sleep 600\nexec "{python}" "$@"\n',
    "goes on when it has answered": '"{python}" "$@"\ncode=$?\n' + ASKED + '[ -n "$asked" ] && '
    "sleep 600\nexit "
    "$code\n",
    "needs a variable": '[ -n "$LICENCE" ] || exit 3\nexec "{python}" "$@"\n',
}


def wrapper(folder: Path, text: str, python: Path) -> str:
    path = folder / "bin" / "python"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name("new")
    new.write_text("#!/bin/sh\n" + text.format(python=python))
    new.chmod(0o755)
    new.rename(path)
    return str(path)


def add_one(x: int) -> int:
    return x + 1


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("same", [False, True], ids=["other version", "same version"])
def test_functions_by_value(tmp_path: Path, kind: str, same: bool) -> None:
    python = Path(sys.executable) if same else OTHERS[0].path
    env = wrapper(tmp_path, KINDS[kind], python)
    with CondaEnvExecutor(
        env, max_workers=2, initializer=lambda: None, activate=["export LICENCE=1"]
    ) as executor:
        tasks = [
            executor.submit(lambda x: (x + 1, __import__("sys").version_info[:2]), number)
            for number in range(20)
        ]
        expected = tuple(sys.version_info[:2]) if same else OTHERS[0].version[:2]
        assert [task.result(DEADLINE) for task in tasks] == [
            (number + 1, expected) for number in range(20)
        ]
        assert sum(executor.map(lambda x: x + 1, range(50))) == 1275


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock")
def test_a_submit_waits_for_no_activation(tmp_path: Path) -> None:
    """Its script does not end before the submit has returned."""
    env = wrapper(tmp_path, KINDS["needs a variable"], OTHERS[0].path)
    lines = [f"flock {tmp_path / 'held'} true", "export LICENCE=1"]
    with (tmp_path / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        executor = CondaEnvExecutor(env, max_workers=1, activate=lines)
        tasks = [executor.submit(lambda x: x + 1, 1), executor.submit(lambda x: x, 3)]
        assert not any(task.done() for task in tasks)
    with executor:
        assert [task.result(DEADLINE) for task in tasks] == [2, 3]


@pytest.mark.parametrize("kind", ["fails when asked"])
def test_an_interpreter_that_does_not_answer_is_started_once(tmp_path: Path, kind: str) -> None:
    with CondaEnvExecutor(
        wrapper(tmp_path, KINDS[kind], OTHERS[0].path), max_workers=4
    ) as executor:
        assert executor.submit(lambda: 1).result(DEADLINE) == 1
        assert executor.worker_count == 1


def test_an_interpreter_that_does_not_work_at_all_says_so(tmp_path: Path) -> None:
    with CondaEnvExecutor(
        wrapper(tmp_path, "echo 'libfoo is missing' >&2; exit 4\n", OTHERS[0].path),
        max_workers=1,
        start_timeout=5,
    ) as executor:
        error = executor.submit(lambda: 1).exception(DEADLINE)
        assert "libfoo is missing" in str(error)


def test_the_variables_of_the_first_worker_are_there(tmp_path: Path) -> None:
    env = wrapper(tmp_path, KINDS["needs a variable"], OTHERS[0].path)
    with CondaEnvExecutor(env, max_workers=1, worker_env={"LICENCE": "1"}) as executor:
        assert executor.submit(lambda x: x + 1, 1).result(DEADLINE) == 2


def test_python_is_replaced_under_a_live_pool(tmp_path: Path) -> None:
    env = wrapper(tmp_path, 'exec "{python}" "$@"\n', Path(sys.executable))
    with CondaEnvExecutor(env, max_workers=1) as executor:
        assert (
            executor.submit(lambda: sys.version_info[:2]).result(DEADLINE) == sys.version_info[:2]
        )
        wrapper(tmp_path, 'exec "{python}" "$@"\n', OTHERS[0].path)
        # Both are pickled before the worker of the new Python has said hello.
        last = executor.submit(lambda: __import__("os")._exit(3))
        early = executor.submit(lambda: 1)
        last.exception(DEADLINE)
        error = early.exception(DEADLINE)
        assert isinstance(error, pickle.PicklingError)
        assert "has been replaced" in str(error)
        assert "did not tell" not in str(error)
        version = OTHERS[0].version[:2]
        assert (
            executor.submit(lambda: __import__("sys").version_info[:2]).result(DEADLINE) == version
        )


def test_what_a_hello_corrects(tmp_path: Path) -> None:
    remote = RemoteInterpreter(OTHERS[0].path)
    assert remote.foreign
    version = remote.version
    assert version.startswith(OTHERS[0].minor)
    remote.learn({"magic": MAGIC, "version": "9.9.9"})
    assert not remote.foreign
    assert (remote.version, remote.replaced) == ("9.9.9", version)


def test_without_an_answer_and_without_a_pool(tmp_path: Path) -> None:
    remote = RemoteInterpreter(wrapper(tmp_path, "exit 1\n", OTHERS[0].path))
    assert remote.foreign
    assert remote.silent
    assert not remote.surely_same
    assert RemoteInterpreter(tmp_path / "nothing").foreign
