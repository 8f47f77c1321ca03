"""A store of its own for each test, and a folder of wheels in the place of a package index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.environments import packages
from wetlands_executor import EnvironmentSpec, PyPIOptions
from wetlands_executor.environment.backends import uv
from wetlands_executor.environment.store import VARIABLE, Store


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Keep environments in the test's own folder; nothing of a creation may be left running."""
    root = tmp_path / "environments"
    monkeypatch.setenv(VARIABLE, str(root))
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    yield Store()
    assert processes_in(root) == []


def processes_in(folder: Path) -> list[list[str]]:
    """Return the commands that name something in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(words)
    return found


@dataclass(frozen=True)
class Index:
    """A folder of wheels that stands for a package index."""

    folder: Path

    def add(self, name: str, version: str = "1.0", *requires: str, size: int = 0) -> None:
        packages.wheel(self.folder, name, version, requires=requires, size=size)

    @property
    def options(self) -> PyPIOptions:
        return PyPIOptions(find_links=(str(self.folder),), no_index=True)

    def spec(self, *pypi: str, **fields: object) -> EnvironmentSpec:
        """Return a spec whose packages come from here."""
        return EnvironmentSpec(pypi=pypi, options=self.options, **fields)  # type: ignore[arg-type]

    def script(self, path: Path, *pypi: str, body: str = "") -> Path:
        """Write a Python file that carries its environment."""
        wanted = ", ".join(f'"{each}"' for each in pypi)
        path.write_text(
            "# /// script\n"
            f"# dependencies = [{wanted}]\n"
            "#\n"
            "# [tool.uv]\n"
            "# no-index = true\n"
            f'# find-links = ["{self.folder}"]\n'
            f"# ///\n{body}"
        )
        return path


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Give an index with ``wl-alpha`` 1.0 and 2.0, and ``wl-beta``, which needs alpha below 2."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    found = Index(folder)
    found.add("wl-alpha", "1.0")
    found.add("wl-alpha", "2.0")
    found.add("wl-beta", "1.0", "wl-alpha<2")
    return found


@pytest.fixture(params=["uv", "pip"])
def backend(request: pytest.FixtureRequest) -> str:
    """Give the backends that make environments of PyPI packages."""
    if request.param == "uv":
        needs_uv()
    return str(request.param)


def needs_uv() -> None:
    if uv.program() is None:
        pytest.skip("uv is neither installed nor on PATH")


@pytest.fixture
def quick() -> str:
    """Give the backend that is there and is quick."""
    return "uv" if uv.program() is not None else "pip"
