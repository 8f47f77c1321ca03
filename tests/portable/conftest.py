"""Interpreters of other versions for these tests, and modules that can be imported here only."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import interpreters
from wetlands_executor import CondaEnvExecutor

ROOT = Path(__file__).parent.parent.parent
#: Seconds that one host may take with all its workers, and that one task may take.
DEADLINE = 90

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Load = Callable[..., types.ModuleType]


def python_of(minor: str) -> Path:
    """Return the interpreter of a version; skip if there is none."""
    for interpreter in interpreters.find():
        if interpreter.minor == minor:
            return interpreter.path
    pytest.skip(f"no working Python {minor} on this machine")


@pytest.fixture(scope="session")
def run_host(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a script in another Python, with this project and copies of its dependencies (pure
    Python, or of the stable ABI) on the path.
    """
    folder = tmp_path_factory.mktemp("dependencies")
    for name in ("cloudpickle", "psutil", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        if spec.submodule_search_locations:
            shutil.copytree(
                Path(spec.origin).parent,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__", "tests"),
            )
        else:
            shutil.copy(spec.origin, folder)

    def run(
        minor: str, *arguments: str, text: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join((str(ROOT), str(folder)))
        env = {**os.environ, **variables, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(python_of(minor)), *arguments]
        return subprocess.run(
            command,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            env=env,
        )

    return run


def _other() -> interpreters.Interpreter:
    others = [i for i in interpreters.find() if i.version[:2] != sys.version_info[:2]]
    if not others:
        pytest.skip("only one Python version on this machine")
    return others[0]


@pytest.fixture(scope="session")
def other() -> interpreters.Interpreter:
    """The oldest Python of another version."""
    return _other()


@pytest.fixture(scope="session")
def there() -> Iterator[CondaEnvExecutor]:
    """One warm worker of that Python."""
    with CondaEnvExecutor(str(_other().path), max_workers=1) as executor:
        executor.launch()
        executor.submit(print, "tests.portable: warm").result(DEADLINE)
        executor.submit(len, executor.submit(lambda: {1, 2}).result(DEADLINE)).result(DEADLINE)
        executor.submit(lambda: lambda: 1).result(DEADLINE)
        yield executor


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Make a module of a source that no other process can import by its name.

    ``load(source, loader=..., name=...)``.
    """
    made: list[str] = []

    def load(source: str, loader: object = None, name: str = "only_here") -> types.ModuleType:
        path = tmp_path / f"file_of_{name}.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)  # type: ignore[arg-type]
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        made.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in made:
        sys.modules.pop(name, None)
