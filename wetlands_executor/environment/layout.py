"""What a folder or an interpreter is.

Conda prefix, virtual environment, pixi project or plain Python. Reads files only.

Owns the rules by which a path becomes (name, prefix, python, kind), and the errors for a path that
is none of these. Knows nothing of names and search paths (``places``, ``locate``). Symbolic links
are never resolved on the way to the interpreter: the link ``venv/bin/python`` *is* the virtual
environment, its target is not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, Protocol

from wetlands_executor.environment import _platform
from wetlands_executor.errors import EnvironmentNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["current", "conda", "venv", "pixi", "python"]

_PIXI_TABLE = re.compile(
    r"^[ \t]*\[[ \t]*tool[ \t]*\.[ \t]*[\"']?pixi[\"']?[ \t]*[.\]]", re.MULTILINE
)


class Layout(NamedTuple):
    """The four facts of an environment, in the order of ``Environment``'s fields."""

    name: str | None
    prefix: Path
    python: Path
    kind: Kind


class Located(Protocol):
    """What activation, launches and commands need of an ``Environment``.

    ``Environment`` stands above the modules that do these things, so they know it by this.
    """

    @property
    def name(self) -> str | None:
        """What it is called; None where it has no name."""
        ...

    @property
    def prefix(self) -> Path:
        """Absolute path of its folder."""
        ...

    @property
    def python(self) -> Path:
        """Absolute path of its interpreter."""
        ...

    @property
    def kind(self) -> Kind:
        """What it is."""
        ...

    @property
    def label(self) -> str:
        """How it is called in messages."""
        ...


def is_conda_prefix(folder: str) -> bool:
    """Return True if a folder is a conda environment.

    For conda itself ``conda-meta/history`` decides. Pixi, and what else uses its library, does not
    always write that file: it has a record of each installed package in ``conda-meta``, or
    ``conda-meta/pixi``.
    """
    meta = os.path.join(folder, "conda-meta")
    if os.path.isfile(os.path.join(meta, "history")):
        return True
    try:
        return any(name == "pixi" or name.endswith(".json") for name in os.listdir(meta))
    except OSError:  # no such folder, or not ours to read
        return False


def is_environment(folder: str) -> bool:
    """Return True if a folder can have a name in a folder of environments.

    A conda environment, or a virtual one that lies there.
    """
    return is_conda_prefix(folder) or is_venv(folder)


def is_venv(folder: str) -> bool:
    """Return True if a folder is a virtual environment (PEP 405)."""
    return os.path.isfile(os.path.join(folder, "pyvenv.cfg"))


def is_pixi_project(folder: str) -> bool:
    """Return True if a folder holds a pixi manifest, of its own or in ``pyproject.toml``."""
    if os.path.isfile(os.path.join(folder, "pixi.toml")):
        return True
    try:
        with open(
            os.path.join(folder, "pyproject.toml"), encoding="utf-8", errors="replace"
        ) as file:
            return _PIXI_TABLE.search(file.read()) is not None
    except OSError:
        return False


def pixi_global_folder() -> str:
    """Return the folder of the environments of ``pixi global``.

    ``$PIXI_HOME/envs``, else ``~/.pixi/envs``.
    """
    home = os.environ.get("PIXI_HOME", "") or os.path.join("~", ".pixi")
    return os.path.join(os.path.abspath(os.path.expanduser(os.path.expandvars(home))), "envs")


def is_pixi_global(folder: str) -> bool:
    """Return True if a folder holds the environments of ``pixi global``.

    The home folder may be a project as well, which has them then.
    """
    if os.path.normcase(os.path.realpath(folder)) != os.path.normcase(
        os.path.realpath(pixi_global_folder())
    ):
        return False
    return os.path.basename(os.path.dirname(folder)) != ".pixi" or not is_pixi_project(
        os.path.dirname(os.path.dirname(folder))
    )


def interpreter_of(prefix: str) -> str | None:
    """Return the interpreter of a prefix, or None if it has none that can be started."""
    return next(
        (path for path in _platform.interpreters(prefix) if _platform.is_executable(path)), None
    )


def looks_like_root(prefix: str) -> bool:
    """Return True if a conda prefix is the root of an installation, by what only a root has."""
    # conda may be installed in an ordinary environment as well
    if os.path.basename(os.path.dirname(prefix)) == "envs":
        return False
    return is_conda_prefix(prefix) and any(
        os.path.isdir(os.path.join(prefix, name)) for name in ("condabin", "envs")
    )


def conda_name(prefix: str, is_root: Callable[[str], bool]) -> tuple[str, Kind]:
    """Return the name of a conda prefix, and whether conda or pixi made it.

    Pixi's are called as pixi itself calls them: ``project`` for its default environment,
    ``project:name`` for another, and ``name`` for those of ``pixi global``.
    """
    folder, name = os.path.split(prefix)
    envs, dot_pixi = os.path.basename(folder), os.path.dirname(folder)
    if is_pixi_global(folder):
        return name, "pixi"
    if envs == "envs" and os.path.basename(dot_pixi) == ".pixi":
        project = os.path.basename(os.path.dirname(dot_pixi))
        return (project if name == "default" else f"{project}:{name}"), "pixi"
    return ("base" if is_root(prefix) else name), "conda"


def describe(path: str, is_root: Callable[[str], bool]) -> Layout:
    """Return what a path is.

    Args:
        path: absolute path of a folder or an interpreter.
        is_root: tells whether a conda prefix is a root prefix, whose name is ``base``.

    Raises:
        EnvironmentNotFoundError: there is nothing, or nothing with an interpreter in it.
    """
    if os.path.isdir(path):
        return _folder(path, is_root)
    if os.path.isfile(path):
        if os.path.basename(path) in ("pixi.toml", "pyproject.toml"):
            return _folder(os.path.dirname(path), is_root)
        return _interpreter(path, is_root)
    if os.path.islink(path):
        raise EnvironmentNotFoundError(
            f"{path!r} is a link to {os.readlink(path)!r}, which does not exist; make the "
            f"environment anew"
        )
    raise EnvironmentNotFoundError(
        f"{path!r} does not exist; give the folder of an environment or the path of an interpreter"
    )


def _folder(folder: str, is_root: Callable[[str], bool]) -> Layout:
    if is_conda_prefix(folder):
        name, kind = conda_name(folder, is_root)
        return Layout(
            name,
            Path(folder),
            Path(interpreter_of(folder) or _no_python(folder, "conda environment")),
            kind,
        )
    if is_venv(folder):
        python = interpreter_of(folder) or _no_python(folder, "virtual environment")
        return Layout(os.path.basename(folder), Path(folder), Path(python), "venv")
    if is_pixi_project(folder):
        return _folder(_pixi_prefix(folder), is_root)
    python_found = interpreter_of(folder)
    if python_found is not None:
        return Layout(None, Path(folder), Path(python_found), "python")
    inner = [
        os.path.join(folder, name)
        for name in (".venv", "venv")
        if is_venv(os.path.join(folder, name))
    ]
    hint = f"; did you mean {inner[0]!r}?" if inner else ""
    expected = "conda-meta/history, pyvenv.cfg, pixi.toml or bin/python"
    raise EnvironmentNotFoundError(
        f"{folder!r} is a folder but no Python environment: there is no {expected} in it{hint}"
    )


def _no_python(folder: str, what: str) -> NoReturn:
    """Raise the error for an environment without an interpreter.

    Say so if it is there but broken.
    """
    for path in _platform.interpreters(folder):
        if os.path.islink(path) and not os.path.exists(path):
            gone = os.path.realpath(path)
            raise EnvironmentNotFoundError(
                f"the {what} {folder!r} is broken: its interpreter {gone!r} is gone; make it anew"
            )
        if os.path.isfile(path):
            raise EnvironmentNotFoundError(
                f"the interpreter {path!r} of the {what} is not executable; correct its permissions"
            )
    remedy = (
        f"install it, for example with `conda install -p {folder} python`"
        if "conda" in what
        else "make it anew"
    )
    raise EnvironmentNotFoundError(f"the {what} {folder!r} has no Python in it; {remedy}")


def _pixi_prefix(project: str) -> str:
    """Return the environment of a pixi project: ``default``, or the only one there is."""
    envs = os.path.join(project, ".pixi", "envs")
    try:
        names = sorted(
            name for name in os.listdir(envs) if is_conda_prefix(os.path.join(envs, name))
        )
    except OSError:
        names = []
    if not names:
        raise EnvironmentNotFoundError(
            f"the pixi project {project!r} has no environment in {envs!r}; run `pixi install` there"
        )
    if "default" not in names and len(names) > 1:
        choices = " or ".join(repr(os.path.join(envs, name)) for name in names)
        raise EnvironmentNotFoundError(
            f"none of the environments of the pixi project {project!r} is called default; give "
            f"{choices}"
        )
    return os.path.join(envs, "default" if "default" in names else names[0])


def _interpreter(python: str, is_root: Callable[[str], bool]) -> Layout:
    if not _platform.is_executable(python):
        raise EnvironmentNotFoundError(
            f"{python!r} is a file that cannot be executed; give the folder of an environment or "
            f"the path of its interpreter"
        )
    beside = os.path.dirname(python)
    near = [beside, os.path.dirname(beside)]
    # PEP 405: beside the interpreter or one folder above, before any link is followed
    for folder in near:
        if is_venv(folder):
            return Layout(os.path.basename(folder), Path(folder), Path(python), "venv")
    # A link from elsewhere into a conda environment: CPython finds its prefix behind the link, and
    # so do the activation scripts.
    behind = os.path.dirname(os.path.realpath(python))
    for folder in [*near, behind, os.path.dirname(behind)]:
        if is_conda_prefix(folder):
            name, kind = conda_name(folder, is_root)
            return Layout(name, Path(folder), Path(python), kind)
    return Layout(None, Path(_platform.prefix_of_interpreter(python)), Path(python), "python")
