"""Scripts that end as scripts do.

An exit code of 0 completes the task, another is an error of it, and none ends this process.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.rendezvous import DEADLINE
from wetlands_executor import (
    CondaEnvExecutor,
    ExecutionException,
    ScriptExit,
    TaskStatus,
    WorkerCrashed,
)

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "script.py"
        path.write_text(text)
        return path

    return write


GOOD = {
    "0": "import sys; sys.exit(0)",
    "nothing": "import sys; sys.exit()",
    "None": "import sys; sys.exit(None)",
    "False": "import sys; sys.exit(False)",
    "raise": "raise SystemExit",
    "instance": "raise SystemExit(0)",
    "subclass": "class End(SystemExit): pass\nraise End",
    "main": "import sys\ndef main(): return 0\nif __name__ == '__main__': sys.exit(main())",
    "help": "import argparse; argparse.ArgumentParser().parse_args(['--help'])",
    "exit": "exit()",
    "quit": "quit()",
    "nested": "import runpy, sys\nsys.argv = sys.argv[:1]\nexec('raise SystemExit(0)')",
    "thread": "import sys, threading\nt = threading.Thread(target=sys.exit, "
    "args=(3,))\nt.start()\nt.join()",
    "caught": "import sys\ntry:\n    sys.exit(3)\nexcept SystemExit:\n    pass",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test(self): "
    "pass\nunittest.main(argv=['x'])",
}


@pytest.mark.parametrize("name", GOOD)
def test_success(single: CondaEnvExecutor, write: Write, name: str) -> None:
    task = single.submit_script(write(GOOD[name]))
    assert task.exception(DEADLINE) is None
    assert task.status is TaskStatus.COMPLETED
    assert task.result() is None


@pytest.mark.parametrize(
    ("text", "code", "last"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit(-1)", -1, ""),
        ("import sys; sys.exit(256)", 256, ""),
        ("import sys; sys.exit(2**100)", 2**100, ""),
        ("import sys; sys.exit(True)", 1, ""),
        ("import sys; sys.exit('no input')", 1, "no input"),
        ("import sys; sys.exit('')", 1, ""),
        ("import sys; sys.exit(1.5)", 1, "1.5"),
        ("import sys; sys.exit([])", 1, "[]"),
        ("class End(SystemExit): pass\nraise End(7)", 7, ""),
        ("import enum, sys\nclass Code(enum.IntEnum):\n    BAD = 9\nsys.exit(Code.BAD)", 9, ""),
        (
            "import argparse; argparse.ArgumentParser(prog='tool').parse_args(['--nope'])",
            2,
            "tool: error: unrecognized arguments: --nope",
        ),
        ("import sys\nprint('one\\ntwo', file=sys.stderr)\nsys.exit(5)", 5, "two"),
        ("exec('raise SystemExit(6)')", 6, ""),
    ],
)
def test_failure(single: CondaEnvExecutor, write: Write, text: str, code: int, last: str) -> None:
    path = write(text)
    task = single.submit_script(path)
    error = task.exception(DEADLINE)
    assert isinstance(error, ScriptExit)
    assert isinstance(error, ExecutionException)
    assert type(error.code) is int
    assert (error.code, error.stderr.rpartition("\n")[2]) == (code, last)
    assert str(path) in str(error)
    assert error.type_name == "SystemExit"
    assert any("script.py" in line for line in error.traceback)
    assert task.status is TaskStatus.FAILED
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again), again.code, again.stderr) == (
            ScriptExit,
            str(error),
            error.code,
            error.stderr,
        )


def test_only_the_last_lines_are_kept(
    single: CondaEnvExecutor, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    task = single.submit_script(
        write("import sys\nfor i in range(1000): print('line', i, file=sys.stderr)\nsys.exit(1)")
    )
    error = task.exception(DEADLINE)
    assert isinstance(error, ScriptExit)
    lines = error.stderr.splitlines()
    assert 10 <= len(lines) < 100
    assert lines[-1] == "line 999"
    assert capsys.readouterr().err.count("line") == 1000
    error = single.submit_script(write("import sys\nsys.exit(1)")).exception(DEADLINE)
    assert isinstance(error, ScriptExit)
    assert error.stderr == ""


def test_a_value_that_cannot_be_printed(single: CondaEnvExecutor, write: Write) -> None:
    text = (
        "class Bad:\n    def __str__(self): raise ValueError('unprintable')\nraise "
        "SystemExit(Bad())"
    )
    error = single.submit_script(write(text)).exception(DEADLINE)
    assert isinstance(error, ScriptExit)
    assert error.code == 1


def test_other_ends(single: CondaEnvExecutor, write: Write) -> None:
    with pytest.raises(KeyError):
        single.submit_script(write("{}['missing']")).result(DEADLINE)
    crash = single.submit_script(write("import os; os._exit(0)")).exception(DEADLINE)
    assert isinstance(crash, WorkerCrashed)
    assert crash.exit_code == 0
    single.submit_script(write("import atexit, sys; atexit.register(sys.exit, 3)")).result(DEADLINE)
    assert single.submit(pow, 2, 3).result(DEADLINE) == 8


def test_a_script_that_closes_the_standard_input(single: CondaEnvExecutor, write: Write) -> None:
    single.submit_script(write("exit()")).result(DEADLINE)
    with pytest.raises(EOFError):
        single.submit(input).result(DEADLINE)
    # the function's own end is its failure, as that of any other exception
    with pytest.raises(SystemExit):
        single.submit(eval, "exit(3)").result(DEADLINE)
    with pytest.raises(EOFError):
        single.submit(input).result(DEADLINE)


def test_retries_of_a_script(single: CondaEnvExecutor, write: Write, tmp_path: Path) -> None:
    path = write(
        "import sys\nwith open(sys.argv[1], 'a+') as f:\n    f.write('x')\n    n = "
        "f.tell()\nsys.exit(int(n < 3))"
    )
    task = single.options(retries=5, retry_on=ScriptExit).submit_script(
        path, [str(tmp_path / "count")]
    )
    assert task.result(DEADLINE) is None
    assert task.attempt == 3
