"""Each layout of a project, from end to end, with workers of the oldest and the newest Python."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.data.environments import CannotMake, install
from tests.modules import layouts
from tests.modules.conftest import LIMIT, RunProgram, make_host
from tests.support.interpreters import Interpreter


def check(found: list[dict[str, Any]], workers: tuple[Interpreter, ...], file: Path) -> None:
    """All of the project is there, from its own file; nothing of the host's environment is."""
    for each, worker in zip(found, workers, strict=True):
        expected = [os.path.realpath(file), list(worker.version[:2])]
        assert each["target"] == expected
        assert each["function"] == expected
        assert each["animal"] == ["animals.work", True, "CAT"]
        assert each["late"] == "late"
        assert each["failure"] == "Failure: ('it', 2)"
        for outcome in (each["only on the host"], each["only on the host, by name"]):
            assert outcome.startswith(
                "ModuleNotFoundError: No module named 'only_on_the_host' in the environment "
            ), outcome
            prefix = str(worker.path.parent.parent)
            assert prefix in outcome
            assert "looked in: " in outcome
            assert f"{prefix}/lib/python{worker.minor}" in outcome
        foreign = [
            entry
            for entry in each["path"]
            if "site-packages" in entry and not entry.startswith(str(worker.path.parent.parent))
        ]
        assert not foreign, f"site-packages of the host: {foreign}"


def test_a_package_beside_the_script(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """The script is started from its own folder."""
    layouts.write(tmp_path, {**layouts.PACKAGE, "main.py": layouts.PROGRAM})
    check(run_program([host, "main.py"], tmp_path), workers, tmp_path / "animals" / "work.py")


def test_a_script_from_another_folder(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """The script's folder counts, not the current one."""
    layouts.write(tmp_path, {**layouts.PACKAGE, "main.py": layouts.PROGRAM}, "project with a space")
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "project with a space"
    check(
        run_program([host, os.path.join("..", folder.name, "main.py")], tmp_path / "elsewhere"),
        workers,
        folder / "animals" / "work.py",
    )


def test_a_module_run_with_m(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """``python -m animals``: the current folder counts."""
    layouts.write(tmp_path, {**layouts.PACKAGE, "animals/__main__.py": layouts.PROGRAM})
    check(run_program([host, "-m", "animals"], tmp_path), workers, tmp_path / "animals" / "work.py")


def test_the_current_folder(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """``python -c``, as in an interactive session."""
    layouts.write(tmp_path, layouts.PACKAGE)
    check(
        run_program([host, "-c", layouts.PROGRAM], tmp_path),
        workers,
        tmp_path / "animals" / "work.py",
    )


def test_a_link_to_the_project(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """Two names of one file are no conflict."""
    layouts.write(tmp_path, {**layouts.PACKAGE, "main.py": layouts.PROGRAM}, "real")
    (tmp_path / "link").symlink_to("real")
    check(
        run_program([host, "link/main.py"], tmp_path),
        workers,
        tmp_path / "real" / "animals" / "work.py",
    )


def test_pythonpath(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """Its folders count, the variable itself does not reach the worker."""
    layouts.write(tmp_path, layouts.PACKAGE, "lib of the project")
    layouts.write(tmp_path, {"main.py": layouts.PROGRAM}, "app")
    found = run_program(
        [host, "app/main.py"], tmp_path, PYTHONPATH=str(tmp_path / "lib of the project")
    )
    check(found, workers, tmp_path / "lib of the project" / "animals" / "work.py")


def test_src_added_by_the_script(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """``sys.path`` as it is when a call is made."""
    layouts.write(tmp_path, layouts.PACKAGE, "src")
    layouts.write(
        tmp_path,
        {"main.py": "import sys\nsys.path.insert(0, sys.path[0] + '/src')\n" + layouts.PROGRAM},
    )
    check(
        run_program([host, "main.py"], tmp_path), workers, tmp_path / "src" / "animals" / "work.py"
    )


def test_a_namespace_package(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """No ``__init__.py``, in two folders of the path."""
    deep = {name: text for name, text in layouts.NAMESPACE.items() if "deep" in name}
    rest = {name: text for name, text in layouts.NAMESPACE.items() if "deep" not in name}
    layouts.write(tmp_path, deep, "second")
    layouts.write(tmp_path, {**rest, "main.py": layouts.PROGRAM}, "first")
    found = run_program([host, "first/main.py"], tmp_path, PYTHONPATH=str(tmp_path / "second"))
    check(found, workers, tmp_path / "first" / "animals" / "work.py")


def test_a_zipped_application(
    host: Path, workers: tuple[Interpreter, ...], run_program: RunProgram, tmp_path: Path
) -> None:
    """``python app.pyz``: workers import from the archive."""
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        for name, text in {**layouts.PACKAGE, "__main__.py": layouts.PROGRAM}.items():
            archive.writestr(name, text)
    check(
        run_program([host, "app.pyz"], tmp_path),
        workers,
        tmp_path / "app.pyz" / "animals" / "work.py",
    )


# --- editable installs


@pytest.fixture(scope="module")
def build_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder called ``site-packages`` with what builds the projects, from the registry."""
    folder = tmp_path_factory.mktemp("tools") / "site-packages"
    tools = (
        "setuptools",
        "wheel",
        "hatchling",
        "editables",
        "packaging",
        "pathspec",
        "pluggy",
        "trove-classifiers",
        "tomli",
    )
    try:
        install(folder, f"{sys.version_info[0]}.{sys.version_info[1]}", tools)
    except CannotMake as reason:
        pytest.skip(f"projects cannot be built here: {reason}")
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed here")
    return folder


def install_editable(python: Path, project: Path, tools: Path, *options: str) -> None:
    """Run ``pip install -e``."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
    ]
    command += ["--no-build-isolation", *options, "-e", project]
    environ = {**os.environ, "PYTHONPATH": str(tools)}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr


FLAT = layouts.SETUPTOOLS.format(where=".", namespaces="false")
FLAT_NAMESPACE = layouts.SETUPTOOLS.format(where=".", namespaces="true")
SRC = layouts.SETUPTOOLS.format(where="src", namespaces="false")
HOOK = "__editable___animals_1_0_finder.py"
#: name -> (files, pyproject.toml, folder of the package, options of pip, what is to be seen in the
#: host's site-packages)
EDITABLE = {
    "setuptools, flat: a hook": (layouts.PACKAGE, FLAT, ".", (), HOOK),
    "setuptools, namespace: a hook": (layouts.NAMESPACE, FLAT_NAMESPACE, ".", (), HOOK),
    "setuptools, src: a .pth file": (
        layouts.PACKAGE,
        SRC,
        "src",
        (),
        "__editable__.animals-1.0.pth",
    ),
    "setuptools, strict: links": (
        layouts.PACKAGE,
        SRC,
        "src",
        ("--config-settings", "editable_mode=strict"),
        "__editable__.*.pth",
    ),
    "hatchling, src: a .pth file": (layouts.PACKAGE, layouts.HATCHLING, "src", (), "*animals*.pth"),
}


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", EDITABLE)
def test_an_editable_install(
    name: str,
    build_tools: Path,
    workers: tuple[Interpreter, ...],
    run_program: RunProgram,
    tmp_path: Path,
) -> None:
    """The project's own folder counts, by whatever way the host finds it.

    The host's site-packages do not come along.
    """
    files, pyproject, where, options, expected = EDITABLE[name]
    host = make_host(tmp_path / "venv")
    project = tmp_path / "project"
    layouts.write(project, {"pyproject.toml": pyproject})
    layouts.write(project, files, where)
    install_editable(host, project, build_tools, *options)
    site = next((tmp_path / "venv").glob("lib/python3*/site-packages"))
    assert list(site.glob(expected)), sorted(path.name for path in site.iterdir())
    layouts.write(tmp_path, {"main.py": layouts.PROGRAM}, "app")
    file = project / where / "animals" / "work.py"
    if "strict" in name:
        file = next(project.glob("build/__editable__.*/animals/work.py"))
    check(run_program([host, "main.py"], tmp_path / "app"), workers, file)
