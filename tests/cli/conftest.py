"""A folder with files as a user has them, an environment called ``cells``, and the program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs import stage
from tests.environments.conftest import index

__all__ = ["index"]

Done = subprocess.CompletedProcess[str]
#: Seconds that a command may take.
LIMIT = 60
FUNCTIONS = '''\
import os
import sys
import time
from pathlib import Path

LOADED = []


def load():
    LOADED.append(os.environ.get("DEVICE"))


def loaded(item):
    return LOADED


def add(a, b=1):
    print("adding", flush=True)
    return a + b


def length(text):
    return len(text)


def nothing(item):
    return None


def some_fail(item):
    if "bad" in item:
        raise ValueError(f"cannot read {item}\\nsecond line")
    return item.upper()


def with_task(item, task=None):
    task.update("working")
    return task.name


def exits(code):
    sys.exit(int(code))


def dies(item):
    os.abort()


def note(item):
    """Leave a line that says that it ran."""
    with open("ran.txt", "a") as stream:
        stream.write(item + "\\n")
    return item


def note_slowly(item):
    time.sleep(0.01)
    return note(item)


def wait(item):
    """Say that it runs, and run until it is asked to stop."""
    from wetlands_executor import current_task

    Path(f"runs-{item}").touch()
    while not current_task().should_stop():
        time.sleep(0.01)
    return f"{item} was asked"


def wait_for_ever(item):
    Path(f"runs-{item}").touch()
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass


def odd(item):
    return {"path": Path("a"), "set": {1}, "nan": float("nan"), "object": type(item), "bytes": b"x"}


def bytes_of(item):
    return list(os.fsencode(item))
'''


@dataclass(frozen=True)
class Program:
    """The command line, run as a user does.

    Attributes:
        folder: where it runs.
        variables: with which it runs.
        python: an environment, by its interpreter.
    """

    folder: Path
    variables: Mapping[str, str]
    python: str = sys.executable

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "wetlands_executor", *map(str, words)]

    def __call__(self, *words: object, input: str | bytes | None = None, **variables: str) -> Done:
        """Run a command to its end; text is UTF-8, what is none comes as surrogates."""
        data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env={**self.variables, **variables},
            input=data, stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        text = (done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode())
        return subprocess.CompletedProcess(done.args, done.returncode, *text)

    def add_broken(self, name: str) -> None:
        """Make an environment whose Python ends at once."""
        folder = self.folder / name / "bin"
        folder.mkdir(parents=True)
        (folder / "python").write_text("#!/bin/sh\nexit 3\n")
        (folder / "python").chmod(0o755)
        (self.folder / name / "pyvenv.cfg").write_text("version = 3.12.1\n")

    def popen(self, *words: object, **options: object) -> subprocess.Popen[bytes]:
        """Start a command, with pipes for its streams."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            self.command(*words), cwd=self.folder, env=dict(self.variables),
            **{**pipes, "start_new_session": True, **options},
        )  # type: ignore[call-overload, no-any-return]  # fmt: skip


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The command line in a folder that holds ``functions.py``."""
    home, work = tmp_path / "home", tmp_path / "work"
    stage.make_environment(home / "miniforge3" / "envs" / "cells")
    work.mkdir()
    (work / "functions.py").write_text(FUNCTIONS)
    variables = stage.variables(home)
    variables.pop("PYTHONUNBUFFERED")
    variables["WETLANDS_EXECUTOR_ENVIRONMENTS"] = str(tmp_path / "environments")
    (tmp_path / "tmp").mkdir()
    variables["TMPDIR"] = str(tmp_path / "tmp")
    variables["PIP_CONFIG_FILE"] = os.devnull
    return Program(work, variables)
