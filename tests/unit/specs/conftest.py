"""What the tests of specs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.specs.files import Folder
from wetlands_executor.environment import subdir as platforms


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for the files of one test."""
    return Folder(tmp_path)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for the formats that name platforms, whatever this one is."""
    monkeypatch.setattr(platforms.platform, "system", lambda: "Linux")
    monkeypatch.setattr(platforms.platform, "machine", lambda: "x86_64")
