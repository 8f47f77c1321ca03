"""Environments from the registry, shared by all tests of a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.data.environments import Environments


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """A maker of virtual environments with given packages."""
    folder = tmp_path_factory.mktemp("environments")
    yield Environments(folder)
    shutil.rmtree(folder, ignore_errors=True)  # pytest keeps the folders of three sessions
