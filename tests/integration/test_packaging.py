"""The wheel: what is in it, and that it works where the source tree is not."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What pip says when it cannot reach the registry, and what it says of a registry that it does not
#: know.
OFFLINE = re.compile(
    r"No matching distribution|Could not "
    r"fetch|ConnectionError|NewConnectionError|Temporary "
    r"failure|ReadTimeout|ProxyError"
)

#: A program that uses the installed package in workers, and says where it came from.
SMOKE = """
import sys, wetlands_executor
from wetlands_executor import CondaEnvExecutor
if __name__ == "__main__":
    with CondaEnvExecutor(max_workers=1) as executor:
        prefix = executor.submit(lambda: __import__("sys").prefix).result()
        print(executor.submit(abs, -1).result(), prefix == sys.prefix)
    print(wetlands_executor.__file__)
"""


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=variables, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what the build needs."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not in a source tree")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT / "wetlands_executor",
        source / "wetlands_executor",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copytree(
        ROOT / "tests" / "unit",
        source / "tests" / "unit",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    (source / "wetlands_executor" / "__pycache__").mkdir()
    (source / "wetlands_executor" / "__pycache__" / "stale.cpython-310.pyc").write_bytes(b"")
    command: list[object] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        folder / "out",
        source,
    ]
    offline = importlib.util.find_spec("hatchling") is not None
    if offline:
        command.insert(4, "--no-build-isolation")
    done = run(*command, cwd=folder)
    if done.returncode and not offline and OFFLINE.search(done.stdout):
        pytest.skip("the build tool hatchling is neither installed nor to be had from the registry")
    assert done.returncode == 0, done.stdout
    (found,) = (folder / "out").glob("*.whl")
    return found


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_source_is_in_the_wheel(wheel: Path) -> None:
    """The worker's above all: they are read as data, so no import would miss them here."""
    sources = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "wetlands_executor").rglob("*.py")
    }
    assert {name for name in sources if name.startswith("wetlands_executor/worker/")}
    assert sources <= names(wheel)
    assert "wetlands_executor/py.typed" in names(wheel)


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    ours = re.compile(r"wetlands_executor/|wetlands_executor-[^/]+\.dist-info/")
    assert [name for name in names(wheel) if not ours.match(name)] == []
    assert not [name for name in names(wheel) if "__pycache__" in name or "test" in Path(name).name]


def test_the_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_string(archive.read(path).decode())
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert (
            "wetlands-executor = wetlands_executor.cli:main" in archive.read(entry_points).decode()
        )
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    core = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert sorted(re.match(r"[\w-]+", each)[0] for each in core) == [
        "cloudpickle",
        "psutil",
        "typing-extensions",
    ]
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"


def make_venv(folder: Path, *options: str) -> Path:
    done = run(sys.executable, "-m", "venv", *options, folder, cwd=folder.parent)
    if done.returncode and "ensurepip" in done.stdout:
        pytest.skip("this Python cannot make virtual environments with pip (Debian: python3-venv)")
    assert done.returncode == 0, done.stdout
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def assert_works(python: Path, folder: Path) -> None:
    program = folder / "smoke.py"
    program.write_text(SMOKE, encoding="utf-8")
    done = run(python, "-W", "error", program, cwd=folder)
    assert done.returncode == 0, done.stdout
    answer, where = done.stdout.splitlines()
    assert answer == "1 True"
    assert Path(where).resolve().is_relative_to(python.parent.parent.resolve())


def test_the_unpacked_wheel_works_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    """With this environment's copies of the dependencies: nothing is downloaded."""
    python = make_venv(tmp_path / "venv", "--without-pip")
    done = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    site = Path(done.stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in ("cloudpickle", "psutil", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        if spec.submodule_search_locations:
            shutil.copytree(next(iter(spec.submodule_search_locations)), site / name)
        else:
            assert spec.origin is not None
            shutil.copy(spec.origin, site)
    assert_works(python, tmp_path)


@pytest.mark.registry
def test_pip_installs_the_wheel_with_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    done = run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        wheel,
        cwd=tmp_path,
    )
    if done.returncode and OFFLINE.search(done.stdout):
        pytest.skip("the registry cannot be reached")
    assert done.returncode == 0, done.stdout
    assert_works(python, tmp_path)
    script = python.with_name("wetlands-executor" + python.suffix)
    done = run(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "usage" in done.stdout.lower()
