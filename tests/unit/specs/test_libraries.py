"""The libraries that read files: where they come from, and what is said where there are none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.specs.files import Folder
from wetlands_executor.environment import libraries
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import SpecError

BLOCK = '# /// script\n# requires-python = ">=3.9"\n# dependencies = ["numpy<2"]\n# ///\n'


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make modules as good as not installed."""
    real = importlib.import_module

    def hide(*names: str) -> None:
        def import_module(name: str, package: str | None = None) -> Any:
            if name.startswith(names):
                raise ImportError(name)
            return real(name, package)

        monkeypatch.setattr(libraries.importlib, "import_module", import_module)

    return hide


def test_a_block_is_read_with_the_dependencies_of_the_library_alone(
    folder: Folder, without: Callable[..., None]
) -> None:
    """On Python 3.10 the reader of TOML is pip's, here or as ``ensurepip`` would install it."""
    wanted = EnvironmentSpec(python=">=3.9", pypi=("numpy<2",))
    for hidden in (
        ("yaml", "tomli", "packaging"),
        ("yaml", "tomli", "packaging", "tomllib"),
        ("yaml", "tomli", "packaging", "tomllib", "pip"),
    ):
        without(*hidden)
        assert folder.read("x.py", BLOCK) == wanted


def test_what_no_library_can_check_is_left_to_the_installer(without: Callable[..., None]) -> None:
    without("packaging", "pip")
    assert EnvironmentSpec(pypi=("numpy<<2",)).pypi == ("numpy<<2",)
    with pytest.raises(SpecError, match="does not begin with a name"):
        EnvironmentSpec(pypi=("<2",))


def test_there_is_no_reader_of_toml(folder: Folder, without: Callable[..., None]) -> None:
    without("tomli", "tomllib", "pip", "ensurepip")
    sys.modules.pop("_wetlands_bundled.tomli", None)
    error = folder.fault("x.py", BLOCK)
    assert "'tomli'" in error.reason
    assert "extra 'create'" in error.remedy


def test_there_is_no_reader_of_yaml(folder: Folder, without: Callable[..., None]) -> None:
    without("yaml")
    error = folder.fault("environment.yml", "dependencies: [a]\n")
    assert "'PyYAML'" in error.reason
    assert "extra 'create'" in error.remedy


def test_toml_that_only_newer_readers_read(folder: Folder, without: Callable[..., None]) -> None:
    text = (
        '[workspace]\nchannels = ["a"]\nplatforms = []\n[dependencies]\n'
        'gdal = {\n  version = ">=3",\n}\n'
    )
    assert folder.read("pixi.toml", text).conda == ("gdal >=3",)
    if sys.version_info < (3, 15):
        without("tomli", "pip")  # pip's copy reads TOML 1.1 since pip 26
        error = folder.fault("pixi.toml", text)
        assert error.line in (5, 6)
        assert "TOML 1.1" in error.remedy


def test_a_marker_needs_packaging(folder: Folder, without: Callable[..., None]) -> None:
    without("packaging", "pip")
    error = folder.fault("requirements.txt", "-e . ; sys_platform == 'linux'\n")
    assert "'packaging'" in error.reason
    assert "extra 'create'" in error.remedy


def test_nothing_is_imported_before_a_file_needs_it() -> None:
    before = set(sys.modules)
    EnvironmentSpec(python="3.11", variables={"A": "1"})
    assert not {"yaml", "tomli"} & (set(sys.modules) - before)
