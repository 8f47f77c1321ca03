"""Environments from the registry, shared by all tests of a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.data.environments import Environments


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the large packages out unless they are asked for."""
    if "heavy" not in (config.getoption("-m") or ""):
        skip = pytest.mark.skip(reason="large packages: pytest -m heavy tests/data")
        for item in items:
            if item.get_closest_marker("heavy"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """A maker of virtual environments with given packages."""
    folder = tmp_path_factory.mktemp("environments")
    yield Environments(folder)
    shutil.rmtree(folder, ignore_errors=True)  # pytest keeps the folders of three sessions
