"""Which format a file has, and files that have none."""

from __future__ import annotations

import pytest

from tests.support.cases import cases
from tests.unit.specs.files import Folder
from wetlands_executor.environment.formats import detect
from wetlands_executor.environment.formats.source import Source
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import SpecError


@cases(
    ("name", "text", "module"),
    [
        ("environment.yml", "", "environment_yml"),
        ("env-gpu.yaml", "name: x\ndependencies:\n", "environment_yml"),
        ("pixi.toml", "", "pixi_toml"),
        ("other.toml", "[workspace]\n", "pixi_toml"),
        ("pyproject.toml", "", "pyproject"),
        ("other.toml", "[project]\nname = 'a'\n", "pyproject"),
        ("requirements.txt", "", "requirements"),
        ("requirements-dev.in", "numpy", "requirements"),
        ("spec.txt", "# x\n@EXPLICIT\n", "explicit"),
        ("pylock.toml", "", "pylock"),
        ("pylock.gpu.toml", "", "pylock"),
        ("other.toml", "lock-version = '1.0'\n", "pylock"),
        ("uv.lock", "", "uv_lock"),
        ("x.py.lock", "version = 1\n\n[[package]]\n", "uv_lock"),
        ("pixi.lock", "", "pixi_lock"),
        ("x.py.pixi.lock", "", "pixi_lock"),
        ("renamed.yml", "version: 6\nenvironments:\n", "pixi_lock"),
        ("segment.py", "", "script"),
        ("no-extension", "#!/usr/bin/env python\n# /// script\n# ///\n", "script"),
        ("setup.py", "# /// script\n# ///\n", "script"),
        # a lock, whatever it was called
        ("l.toml", "# Python 3.11.7, locked by wetlands-executor\n", "requirements"),
        ("pylock.toml", "# Python 3.11.7, locked by wetlands-executor\na==1\n", "requirements"),
        ("environment.yml", "# Python 3.15.0a2, locked by wetlands-executor\n", "requirements"),
        ("pylock.toml", "# x\n\n@EXPLICIT\nhttps://x/a.conda\n", "explicit"),
        ("environment.yml", 'lock-version = "1.0"\n', "pylock"),
        ("pylock.toml", "version: 6\nenvironments:\n", "pixi_lock"),
        # and what is none
        ("pyproject.toml", "[project]\ndescription = '''\nlock-version = 1\n'''", "pyproject"),
        ("pyproject.toml", "# 1\n# Python 3.11.7, locked by wetlands-executor\n", "pyproject"),
    ],
)
def test_formats(name: str, text: str, module: str) -> None:
    assert detect.format_of(Source(f"/some/{name}", "/some", text)) == module


@cases(
    ("name", "remedy"),
    [
        ("Pipfile", "pipenv"), ("poetry.lock", "poetry export"), ("conda-lock.yml", "render"),
        ("setup.py", "pyproject.toml"), ("meta.yaml", "environment.yml"),
    ],
)  # fmt: skip
def test_files_that_are_not_read(folder: Folder, name: str, remedy: str) -> None:
    file = folder.write(name, "x = 1\n")
    with pytest.raises(SpecError) as caught:
        EnvironmentSpec.from_file(file)
    assert remedy in caught.value.remedy


def test_anything_else_names_the_formats(folder: Folder) -> None:
    file = folder.write("image.png", "PNG")
    with pytest.raises(SpecError, match="no known format") as caught:
        EnvironmentSpec.from_file(file)
    for known in (*detect.NAMES, "requirements.txt"):
        if not known.endswith(".yaml"):
            assert known in caught.value.remedy


def test_a_folder_names_what_is_in_it(folder: Folder) -> None:
    folder.write("pixi.toml", "")
    folder.write("requirements.txt", "")
    with pytest.raises(SpecError, match="a folder") as caught:
        EnvironmentSpec.from_file(folder.path)
    assert "'pixi.toml' or 'requirements.txt'" in caught.value.remedy


def test_a_file_that_is_not_there(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError):
        EnvironmentSpec.from_file(folder.path / "none.yml")


def test_names_that_may_describe_an_environment() -> None:
    for name in ("a/environment.yml", "x.py", "uv.lock", "r.txt", "pixi.toml", "X.PY"):
        assert detect.may_describe(name)
    for name in ("envs/cellpose", "bin/python3.11", ".venv", "python.exe", "x.pyc"):
        assert not detect.may_describe(name)


def test_a_path_that_is_relative_or_of_the_home_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("requirements.txt", "numpy\n")
    monkeypatch.chdir(folder.path)
    assert EnvironmentSpec.from_file("requirements.txt").pypi == ("numpy",)
    monkeypatch.setenv("HOME", str(folder.path))
    monkeypatch.setenv("USERPROFILE", str(folder.path))
    assert EnvironmentSpec.from_file("~/requirements.txt").pypi == ("numpy",)
