"""A program that PyInstaller has made, with workers in real environments.

``pytest -m frozen tests/integration``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.interpreters import Interpreter

pytestmark = [pytest.mark.frozen, pytest.mark.registry, pytest.mark.timeout(600)]

#: Seconds that one start of the program may take.
LIMIT = 100

_HELPER = """
from dataclasses import dataclass

def triple(x):
    return x * 3

@dataclass
class Point:
    x: int = 1

    def double(self):
        return Point(self.x * 2)
"""

_APP = """
import json, multiprocessing, os, sys
with open(os.environ["STARTS"], "a") as file:
    file.write("started\\n")
if open(os.environ["STARTS"]).read().count("started") > 3:
    os._exit(9)
multiprocessing.freeze_support()
import helper
from wetlands_executor import CondaEnvExecutor, EnvironmentNotFoundError

BUNDLE = sys._MEIPASS

def work(x):
    return x + 1

def look():
    import os, ssl, sys
    with open("/proc/self/maps") as file:
        mapped = sorted({line.split()[-1] for line in file if BUNDLE in line})
    variables = {
        name: value for name, value in os.environ.items()
        if BUNDLE in value or name.startswith(("_PYI", "_MEI", "LD_"))
    }
    return {"mapped": mapped, "variables": variables, "path": [p for p in sys.path if BUNDLE in p]}

if __name__ == "__main__":
    env, executable = sys.argv[1:]
    if executable:
        multiprocessing.set_executable(executable)
    try:
        executor = CondaEnvExecutor(env or None, max_workers=1)
    except EnvironmentNotFoundError as error:
        print(json.dumps({"refused": str(error)}))
        sys.exit()
    found = {}
    with executor:
        tasks = {"builtin": executor.submit(pow, 2, 5), "module": executor.submit(helper.triple, 5),
                 "class": executor.submit(helper.Point.double, helper.Point(4)),
                 "main": executor.submit(work, 1),
                 "look": executor.submit(look)}
        for name, task in tasks.items():
            error = task.exception()
            found[name] = f"{type(error).__name__}: {error}" if error else task.result()
    found["class"] = getattr(found["class"], "x", found["class"])
    print(json.dumps(found))
"""

_SPEC = """
a = Analysis(["app.py"], pathex=["."], module_collection_mode={"helper": "pyz+py"})
exe = EXE(PYZ(a.pure), a.scripts, [], exclude_binaries=True, name="app")
COLLECT(exe, a.binaries, a.datas, name="app")
one = EXE(PYZ(a.pure), a.scripts, a.binaries, a.datas, [], name="one")
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The program as a folder and as one file."""
    folder = tmp_path_factory.mktemp("frozen")
    for name, text in (("app.py", _APP), ("helper.py", _HELPER), ("app.spec", _SPEC)):
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "pyinstaller",
            str(ROOT),
        ],
        check=True,
    )
    command = [python, "-m", "PyInstaller", "-y", "--log-level", "ERROR", "app.spec"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return {"folder": folder / "dist" / "app" / "app", "file": folder / "dist" / "one"}


def run(program: Path, tmp_path: Path, env: str = "", executable: str = "") -> dict[str, object]:
    """Start the program in a folder without its sources.

    Return what it found, and how often it was started.
    """
    starts = tmp_path / "starts"
    variables = {**os.environ, "STARTS": str(starts), "LD_LIBRARY_PATH": "/opt/original"}
    process = subprocess.Popen(
        [program, env, executable], cwd=tmp_path, env=variables, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, err
    found: dict[str, object] = json.loads(out.splitlines()[-1])
    found["starts"] = starts.read_text().count("started")
    return found


@pytest.fixture(params=["folder", "file"])
def program(request: pytest.FixtureRequest, programs: dict[str, Path]) -> Path:
    return programs[request.param]


@pytest.fixture
def otherpython(interpreters: tuple[Interpreter, ...]) -> Interpreter:
    """An interpreter of another version than this one."""
    for each in interpreters:
        if each.version[:2] != sys.version_info[:2]:
            return each
    pytest.skip("no other version of Python on this machine")


def check(found: dict[str, object]) -> None:
    assert (found["builtin"], found["module"], found["class"], found["starts"]) == (32, 15, 8, 1)


def test_an_environment_of_the_same_version(program: Path, tmp_path: Path) -> None:
    """Code travels as bytecode; the bundle's libraries and variables do not reach the worker."""
    found = run(program, tmp_path, env=sys.executable)
    check(found)
    assert found["main"] == 2
    assert found["look"] == {
        "mapped": [],
        "variables": {"LD_LIBRARY_PATH": "/opt/original"},
        "path": [],
    }


def test_an_environment_of_another_version(
    program: Path, tmp_path: Path, otherpython: Interpreter
) -> None:
    """The module's source was collected.

    That of the main script cannot be, and the error says so.
    """
    found = run(program, tmp_path, env=str(otherpython.path))
    check(found)
    assert "PicklingError" in str(found["main"])
    assert "main script" in str(found["main"])


def test_no_environment_is_refused(program: Path, tmp_path: Path) -> None:
    found = run(program, tmp_path)
    assert found["starts"] == 1
    assert "only start again" in str(found["refused"])


def test_the_interpreter_that_multiprocessing_was_given(program: Path, tmp_path: Path) -> None:
    found = run(program, tmp_path, executable=sys.executable)
    check(found)
