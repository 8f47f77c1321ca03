"""An environment for hosts, which has a package that no worker has, and the interpreters of the
workers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support import interpreters

#: Seconds that a program may take.
LIMIT = 100


def make_host(folder: Path) -> Path:
    """Make a virtual environment with what this library needs, and a package of its own.

    Return its interpreter.
    """
    subprocess.run(
        [sys.executable, "-I", "-m", "venv", "--without-pip", folder], check=True, timeout=LIMIT
    )
    site = next(folder.glob("lib/python3*/site-packages"))
    for name in ("cloudpickle", "psutil", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        (site / source.name).symlink_to(source)
    (site / "only_on_the_host.py").write_text("def f():\n    return 'from the host'\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment for hosts; do not install anything into it."""
    return make_host(tmp_path_factory.mktemp("host") / "venv")


@pytest.fixture(scope="session")
def workers() -> tuple[interpreters.Interpreter, ...]:
    """The oldest and the newest Python, neither of which has the host's packages."""
    found = interpreters.find()
    plain = [each for each in found if each.path.resolve() != Path(sys.executable)]
    return (plain[0], plain[-1])


RunProgram = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run_program(workers: tuple[interpreters.Interpreter, ...]) -> RunProgram:
    """``run_program([python, "main.py"], cwd=..., PYTHONPATH=...)``.

    Start a program with the workers as arguments; return what it prints.
    """

    def run_program(command: list[str | Path], cwd: Path, **variables: str) -> list[dict[str, Any]]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        # This library itself is not installed there: it comes last, behind everything of the
        # project.
        path = os.pathsep.join(filter(None, (variables.pop("PYTHONPATH", ""), str(ROOT))))
        full = [*map(str, command), *(str(each.path) for each in workers)]
        environ = {**kept, **variables, "PYTHONPATH": path}
        done = subprocess.run(
            full, cwd=cwd, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        assert [each["python"] for each in found] == full[-len(workers) :]
        return found

    return run_program
