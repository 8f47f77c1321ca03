"""The shipped sources under every interpreter, without a pool."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wetlands_executor.worker
from tests.support.interpreters import Interpreter
from wetlands_executor.pool import bundle
from wetlands_executor.worker.stage0 import STAGE0

FOLDER = Path(wetlands_executor.worker.__file__).parent
SOURCES = sorted(FOLDER.glob("*.py"))
_COMPILE = (
    "import sys\nfor f in sys.argv[1:]:\n    with open(f, encoding='utf-8') as s: "
    "compile(s.read(), f, 'exec', dont_inherit=True)\n"
)


def _run(python: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_sources_compile_without_a_warning(python: Interpreter) -> None:
    """By the interpreter that will run them."""
    assert len(SOURCES) > 8
    done = _run(python.path, "-W", "error", "-c", _COMPILE, *map(str, SOURCES))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_shipped_cloudpickle_compiles(python: Interpreter) -> None:
    """It is another project's, and has to run there too."""
    from cloudpickle import cloudpickle

    assert cloudpickle.__file__ is not None
    assert _run(python.path, "-c", _COMPILE, cloudpickle.__file__).returncode == 0


def test_every_module_is_in_the_bundle_or_left_out_on_purpose() -> None:
    """A module that was forgotten is missed only by a worker."""
    data = bundle.source()
    length = int.from_bytes(data[:8], "little")
    parts = data[8 : 8 + length].decode().split("\0")
    names = set(parts[::2])
    assert {path.stem for path in SOURCES} - names == {"__init__", "stage0"}
    assert names - {path.stem for path in SOURCES} == {"cloudpickle"}
    assert data[8 + length :] == bytes(8), "no code for an interpreter that is not known"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_worker_imports_nothing_of_the_host(path: Path) -> None:
    """Standard library and its own package only."""
    standard = getattr(sys, "stdlib_module_names", frozenset())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            assert name.partition(".")[0] in standard | {"_wetlands_worker", "_winapi", "msvcrt"}, (
                f"{path.name} imports {name}"
            )


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_the_first_lines_refuse_an_old_python(version: str, tmp_path: Path) -> None:
    """In words, on every Python there is."""
    old = _old_python(version)
    done = _run(old, "-c", STAGE0, "0,0,0,-1,-1")
    assert done.returncode == 85
    assert "needs Python 3.8 or newer" in done.stderr
    assert version in done.stderr


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_old_python_is_refused_with_its_version(version: str) -> None:
    """Through the executor: at once, for every task, and the error says which version it is."""
    from wetlands_executor import CondaEnvExecutor, EnvironmentNotFoundError, WorkerStartError

    old = _old_python(version)
    with pytest.raises(
        (WorkerStartError, EnvironmentNotFoundError), match=version.replace(".", r"\.")
    ):
        with CondaEnvExecutor(str(old), max_workers=1) as executor:
            executor.submit(abs, -1).result(60)


def _old_python(version: str) -> Path:
    for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")):
        return path
    pytest.skip(f"no Python {version} on this machine")
