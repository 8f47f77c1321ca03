"""What the tests of specs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.specs.files import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for the files of one test."""
    return Folder(tmp_path)
