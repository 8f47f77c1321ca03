"""Functions of a notebook's cells, in a real kernel, with workers of another Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.portable.notebooks import shapes
from tests.support.interpreters import Interpreter

SHAPES = shapes()
HERE = Path(__file__).parent
#: Seconds for all shapes.
DEADLINE = 110


@pytest.fixture(scope="session")
def report(other: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run all shapes in one kernel; return what each gave."""
    for name in ("ipykernel", "jupyter_client"):
        if not _is_installed(name):
            pytest.skip(f"{name} is not installed")
    path = tmp_path_factory.mktemp("notebooks") / "report"
    command = [sys.executable, str(HERE / "notebooks.py"), str(path), str(other.path)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert path.exists(), done.stderr[-3000:]
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _is_installed(name: str) -> bool:
    # An import of jupyter_client starts nothing, but warns in some versions.
    return (
        subprocess.run(
            [sys.executable, "-c", f"import {name}"], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_of_cells(shape: str, report: dict[str, str]) -> None:
    _cells, wanted = SHAPES[shape]
    assert report[shape] == wanted
