"""Session fixtures: one real conda prefix for all, and a factory for more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conda import CannotMake, CondaPrefixFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


#: What runs only if it is asked for, and why.
_ASKED_FOR = {"frozen": "builds programs with PyInstaller", "heavy": "installs large packages"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for."""
    for marker, reason in _ASKED_FOR.items():
        if marker not in (config.getoption("-m") or ""):
            skip = pytest.mark.skip(reason=f"{reason}: pytest -m {marker} tests/integration")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)


@pytest.fixture(scope="session")
def conda_prefix_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """``make_conda_prefix(dst, *, python=None, activate_scripts=None, env_vars=None, state=None) ->
    Path``.

    The first prefix of an interpreter takes about two seconds, each further one less than one.
    Skips where none can be made.
    """
    folder = tmp_path_factory.mktemp("conda")
    factory = CondaPrefixFactory(folder)
    made: list[Path] = []

    def make_conda_prefix(dst: str | Path, **options: object) -> Path:
        made.append(Path(dst))
        try:
            return factory(dst, **options)  # type: ignore[arg-type]
        except CannotMake as reason:
            pytest.skip(f"no conda prefix can be made here: {reason}")

    yield make_conda_prefix
    for path in [*made, folder]:  # 60 MB each, and pytest keeps the folders of three sessions
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def conda_prefix(
    conda_prefix_factory: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A real conda prefix called ``wex`` in a folder called ``envs``.

    Do not change anything in it.
    """
    return conda_prefix_factory(tmp_path_factory.mktemp("root") / "envs" / "wex")
