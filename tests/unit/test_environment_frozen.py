"""Which interpreter a program that is none stands for, and what its bundle keeps for itself."""

from __future__ import annotations

import multiprocessing.spawn
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wetlands_executor import Environment, EnvironmentNotFoundError
from wetlands_executor.environment import frozen
from wetlands_executor.serialize import project, references

#: The file of the interpreter that runs the tests, before a test gives this process another
#: executable.
INTERPRETER = os.path.realpath(sys.executable)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget what is cached for the life of a process, before and after.

    Restore multiprocessing's executable.
    """
    executable = multiprocessing.spawn.get_executable()
    caches = (
        frozen.is_frozen,
        frozen._is_installed,
        frozen._names_of_build,
        project.belongs_to_environment,
    )
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()
    multiprocessing.set_executable(os.fsdecode(executable))


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process as PyInstaller's boot loader leaves it.

    Its program is ``app``, in the folder that is returned.
    """
    folder = tmp_path / "bundle"
    folder.mkdir()
    program = folder / "app"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", str(folder), raising=False)
    frozen.is_frozen.cache_clear()
    run_as(monkeypatch, program)
    return folder


def run_as(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    """Make ``program`` the executable of this process, which ``multiprocessing`` notes when it is
    imported.
    """
    monkeypatch.setattr(sys, "executable", str(program))
    multiprocessing.set_executable(str(program))


def test_an_ordinary_program_is_its_own_interpreter() -> None:
    assert not frozen.is_frozen()
    assert frozen.interpreter() == sys.executable
    assert Environment.find(None).kind == "current"


@pytest.mark.parametrize(
    "name",
    [
        "python",
        "python3",
        "python3.13t",
        "pythonw.exe",
        "python_d",
        ".python3-wrapped",
        "pypy3.10",
        "python3.12-intel64",
    ],
)
def test_names_of_interpreters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.touch()
    run_as(monkeypatch, program)
    assert frozen.interpreter() == str(program)


@pytest.mark.parametrize(
    "name", ["app", "blender", "qgis-bin", "happy", "mypython-viewer", "napari"]
)
def test_an_embedding_program_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    program = tmp_path / name
    program.touch()
    run_as(monkeypatch, program)
    with pytest.raises(EnvironmentNotFoundError, match=r"embeds Python.*set_executable"):
        Environment.find(None)


def test_no_executable_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    multiprocessing.set_executable("")
    with pytest.raises(EnvironmentNotFoundError, match="is empty"):
        Environment.find(None)


def test_an_executable_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nuitka's programs name an interpreter that they do not ship."""
    run_as(monkeypatch, tmp_path / "python")
    with pytest.raises(EnvironmentNotFoundError):
        Environment.find(None)


def test_a_frozen_program_is_refused(bundle: Path) -> None:
    with pytest.raises(EnvironmentNotFoundError, match=r"frozen.*only start again.*set_executable"):
        Environment.find(None)


def test_a_frozen_program_named_like_an_interpreter(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = bundle / "python"
    program.touch(mode=0o755)
    run_as(monkeypatch, program)
    with pytest.raises(EnvironmentNotFoundError, match="frozen"):
        Environment.find(None)


def test_multiprocessing_names_the_interpreter(bundle: Path) -> None:
    multiprocessing.set_executable(INTERPRETER)
    assert Environment.find(None).python == Path(INTERPRETER)


def test_multiprocessing_names_the_program_by_another_path(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle / "app")
    multiprocessing.set_executable(str(link))
    with pytest.raises(EnvironmentNotFoundError, match="only start again"):
        Environment.find(None)


def test_multiprocessing_names_what_is_not_there(bundle: Path, tmp_path: Path) -> None:
    multiprocessing.set_executable(str(tmp_path / "nothing"))
    with pytest.raises(EnvironmentNotFoundError, match="no such file"):
        Environment.find(None)


# --- variables


def test_variables_of_an_ordinary_program_stay() -> None:
    given = {"LD_LIBRARY_PATH": "/opt/lib", "LD_LIBRARY_PATH_ORIG": "/x", "_PYI_ARCHIVE_FILE": "a"}
    assert frozen.without_bundle(given) == given


def test_variables_of_the_boot_loader_are_removed(bundle: Path) -> None:
    given = {
        "_PYI_ARCHIVE_FILE": "a",
        "_PYI_PARENT_PROCESS_LEVEL": "1",
        "_MEIPASS2": str(bundle),
        "_MEIPASS": "x",
        "HOME": "/home/a",
    }
    assert frozen.without_bundle(given) == {"HOME": "/home/a"}


@pytest.mark.parametrize("name", frozen.LIBRARY_PATHS)
def test_library_paths_are_restored(bundle: Path, name: str) -> None:
    changed = os.pathsep.join((str(bundle), "/opt/lib"))
    assert frozen.without_bundle({name: changed, f"{name}_ORIG": "/opt/lib"}) == {name: "/opt/lib"}
    assert frozen.without_bundle({name: str(bundle), f"{name}_ORIG": "/opt/lib"}) == {
        name: "/opt/lib"
    }
    assert frozen.without_bundle({f"{name}_ORIG": "/opt/lib"}) == {name: "/opt/lib"}
    assert frozen.without_bundle({name: str(bundle)}) == {}
    added = os.pathsep.join(("/added", str(bundle / "lib"), "/opt/lib"))
    assert frozen.without_bundle({name: added, f"{name}_ORIG": "/opt/lib"}) == {
        name: os.pathsep.join(("/added", "/opt/lib"))
    }


def test_values_that_point_into_the_bundle_are_removed(bundle: Path) -> None:
    path = os.pathsep.join((str(bundle / "bin"), "/usr/bin", str(bundle)))
    given = {
        "PATH": path,
        "GDAL_DATA": str(bundle / "gdal"),
        "EMPTY": "",
        "NEAR": f"{bundle}-other",
        "TEXT": f"see {bundle}",
    }
    assert frozen.without_bundle(given) == {
        "PATH": "/usr/bin",
        "EMPTY": "",
        "NEAR": f"{bundle}-other",
        "TEXT": f"see {bundle}",
    }


# --- modules


def test_modules_of_the_bundle_travel_and_installed_ones_are_named(bundle: Path) -> None:
    assert not frozen.is_private("json.decoder")
    assert not frozen.is_private("pytest")
    assert not frozen.is_private("wetlands_executor.worker.wire")
    assert frozen.is_private("tests.unit.test_environment_frozen")
    assert (
        references.reference_to(test_modules_of_the_bundle_travel_and_installed_ones_are_named)
        is None
    )


def test_nothing_of_the_bundle_is_on_the_path_of_a_worker(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = bundle.parent / "mine"
    mine.mkdir()
    monkeypatch.setattr(sys, "path", [str(bundle), str(bundle / "lib"), str(mine)])
    assert str(mine) in project.project_paths()
    assert not [path for path in project.project_paths() if path.startswith(str(bundle))]


def test_the_hook_writes_the_names_where_they_are_looked_for() -> None:
    from wetlands_executor.integrations import pyinstaller

    (hooks,) = pyinstaller.get_hook_dirs()
    assert f'INSTALLED = "{frozen.INSTALLED}"' in Path(
        hooks, "hook-wetlands_executor.py"
    ).read_text(encoding="utf-8")
