"""Which variables of the host another environment does not inherit, and why: one table.

Owns ``TABLE``, which ``docs/environments.md`` repeats (a test compares the two), and its
application. Reads the files in which the host's active conda environment declares variables; starts
no process. Any thread may enter; nothing is kept between two calls.
"""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from wetlands_executor.environment import _platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Removal(NamedTuple):
    """One row of the table.

    Attributes:
        names: names of variables; ``*`` stands for any characters.
        when: in which case they are removed; empty is always. See ``_NO_BACKEND`` and its like.
        why: what would go wrong otherwise.
    """

    names: tuple[str, ...]
    when: str
    why: str


_NO_BACKEND = "the value is no backend that matplotlib itself has for a script"
_IN_HOST = "the value, or an entry of it, points into the host's active environment"
_DECLARED = "the host's active conda environment declares it, with this value"

#: What is removed. The first row that names a variable, and whose case holds, decides.
TABLE: Final = (
    Removal(
        ("PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__"),
        "",
        "they say where the host's Python has its libraries; another one would load those, or none",
    ),
    Removal(
        ("PYTHONUSERBASE",),
        "",
        "packages that were installed for the user of the host's Python would be imported",
    ),
    Removal(
        (
            "_PYTHON_SYSCONFIGDATA_NAME",
            "_CONDA_PYTHON_SYSCONFIGDATA_NAME",
            "_PYTHON_HOST_PLATFORM",
            "_PYTHON_PROJECT_BASE",
        ),
        "",
        "compilers of the host's environment set them; `sysconfig` of another Python does not "
        "find that module",
    ),
    Removal(("PYTHON_GIL",), "", "a Python that was built with the lock refuses to start with 0"),
    Removal(
        ("PYTHONINSPECT", "PYTHONSTARTUP"),
        "",
        "they are meant for the interactive session of the host, whose modules they may import",
    ),
    Removal(
        ("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "_OLD_VIRTUAL_*"),
        "",
        "they say that a virtual environment of the host is active",
    ),
    Removal(
        (
            "CONDA_PREFIX",
            "CONDA_PREFIX_*",
            "CONDA_DEFAULT_ENV",
            "CONDA_PROMPT_MODIFIER",
            "CONDA_SHLVL",
            "CONDA_STACKED_*",
            "__CONDA_SHLVL_*",
        ),
        "",
        "they say that a conda environment of the host is active",
    ),
    Removal(
        (
            "PIXI_PROJECT_*",
            "PIXI_WORKSPACE_*",
            "PIXI_ENVIRONMENT_*",
            "PIXI_IN_SHELL",
            "PIXI_PROMPT",
        ),
        "",
        "they say that a pixi project of the host is active",
    ),
    Removal(
        ("MPLBACKEND",),
        _NO_BACKEND,
        "a notebook's kernel or an IDE sets it to a module of its own (`module://...`), without "
        "which pyplot cannot be imported",
    ),
    Removal(
        ("*",),
        _DECLARED,
        "`conda env config vars` and packages set it for that environment; "
        "deactivation takes it back",
    ),
    Removal(
        ("*",),
        _IN_HOST,
        "activation scripts and libraries of the host set it for their own data, certificates, "
        "plugins and headers; other entries of a "
        "list stay",
    ),
)

#: Never judged by their values: they say where managers, homes and temporary files are. ``PATH``
#: has rules of its own.
KEPT: Final = (
    "PATH", "HOME", "PWD", "OLDPWD", "SHELL", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "_",
    "CONDA_EXE", "CONDA_PYTHON_EXE", "CONDA_BAT", "CONDA_ROOT", "_CONDA_EXE", "_CONDA_ROOT",
    "_CE_CONDA", "_CE_M", "CONDARC", "CONDA_ENVS_DIRS", "CONDA_ENVS_PATH", "CONDA_PKGS_DIRS",
    "MAMBA_EXE", "MAMBA_ROOT_PREFIX", "MAMBARC",
    "PIXI_HOME", "PIXI_EXE", "PIXI_CACHE_DIR",
)  # fmt: skip

# Backends of matplotlib that need no notebook (matplotlib.backends.backend_registry); names are
# compared in lower case.
_BACKENDS: Final = frozenset(
    [
        "agg", "cairo", "gtk3agg", "gtk3cairo", "gtk4agg", "gtk4cairo", "macosx", "pdf", "pgf",
        "ps", "qt5agg", "qt5cairo", "qtagg", "qtcairo", "svg", "template", "tkagg", "tkcairo",
        "webagg", "wx", "wxagg", "wxcairo",
    ]
)  # fmt: skip
# What a virtual environment consists of. Its folder may be that of the project, whose data are not
# part of it.
_VENV_PARTS: Final = ("bin", "etc", "include", "lib", "lib64", "share", "Include", "Lib", "Scripts")
# Within a root prefix lie the other environments and the manager's cache.
_NOT_OF_A_ROOT: Final = ("envs", "pkgs")
_SEPARATORS: Final = re.escape("".join({"/", os.sep}))
# What ends a path within a value.
_ENDS: Final = r"\s:;=,'\")\]}|"


def without_leaks(environ: Mapping[str, str], prefix: str = "") -> dict[str, str]:
    """Return variables without what belongs to the host's interpreter or its active environment.

    PATH is not touched.

    Args:
        environ: the host's variables.
        prefix: of the environment that gets them; what points into that one stays.
    """
    folders = _Folders(environ, prefix)
    declared = _declared(environ, prefix)
    result: dict[str, str] = {}
    for name, value in environ.items():
        kept = _judged(name, value, folders, declared)
        if kept is not None:
            result[name] = kept
    return result


def _judged(
    name: str, value: str, folders: _Folders, declared: Mapping[str, tuple[str, str | None]]
) -> str | None:
    """Return what is left of a variable, None if it is removed."""
    for names, when, _ in TABLE:
        if not any(fnmatchcase(name, pattern) for pattern in names):
            continue
        if not when:
            return None
        if (
            when == _NO_BACKEND
            and value.lower().removeprefix("module://matplotlib.backends.backend_") not in _BACKENDS
        ):
            return None
        if when == _DECLARED and name in declared and declared[name][0] == value:
            previous = declared[name][1]
            return None if previous is None else folders.cleared(previous, name)
        if when == _IN_HOST and name not in KEPT:
            return folders.cleared(value, name)
    return value


class _Folders:
    """The folders of the host's active environments, to find them in values.

    Args:
        environ: the host's variables.
        prefix: of the environment that is being activated; its folder is none of the host's.
    """

    def __init__(self, environ: Mapping[str, str], prefix: str) -> None:
        self._own = _normal(prefix) if prefix else ""
        found: dict[str, bool] = {}  # folder -> whether it is a whole conda prefix
        for name, value in environ.items():
            if value and (name == "CONDA_PREFIX" or _is_stacked(name, environ)):
                found[_normal(value)] = True
        places = [environ.get("VIRTUAL_ENV", "")]
        if sys.prefix != sys.base_prefix:
            places.append(sys.prefix)
        elif os.path.isdir(os.path.join(sys.prefix, "conda-meta")):
            found[_normal(sys.prefix)] = True
        for place in filter(None, places):
            found.update((_normal(os.path.join(place, part)), False) for part in _VENV_PARTS)
        # For a Python that belongs to no environment.
        libraries = [
            sysconfig.get_path("purelib"),
            sysconfig.get_path("platlib"),
            getattr(sys.modules.get("site"), "USER_SITE", None),
        ]
        found.update((_normal(folder), False) for folder in libraries if folder)
        for folder in list(found):
            real = _normal(os.path.realpath(folder))
            found.setdefault(real, found[folder])
        own = {self._own, _normal(os.path.realpath(self._own))} if self._own else set()
        self._folders = {
            folder: whole
            for folder, whole in found.items()
            if folder not in own and len(folder) > 1
        }
        within = "|".join(
            re.escape(folder) for folder in sorted(self._folders, key=len, reverse=True)
        )
        flags = re.IGNORECASE if _platform.WINDOWS else 0
        # At the beginning of a word, behind an option (`-I/prefix/include`), `=` or a scheme
        # (`file:///prefix`); not in `/data/prefix`.
        start = r"(?:^|(?<=[\s:;=,'\"(\[{|@!])|(?<=://)|(?<!\S)-[A-Za-z]{1,12})"
        self._mentions = (
            re.compile(rf"{start}({within})(?=$|[{_SEPARATORS}{_ENDS}])([^{_ENDS}]*)", flags)
            if within
            else None
        )

    def cleared(self, value: str, name: str) -> str | None:
        """Return a value without the entries that point into these folders.

        None if nothing sensible is left.
        """
        if not self._points(value):
            return value
        separator = r"[\s:]" if name == "LD_PRELOAD" else re.escape(os.pathsep)
        entries = re.split(separator, value)
        left = [entry for entry in entries if not self._points(entry)]
        # Words with options or without a list (`-O2 -isystem /prefix/include`) have no entries that
        # could stand alone.
        if (
            not any(left)
            or any(not os.path.isabs(entry) for entry in entries if entry)
            or len(entries) == 1
        ):
            return None
        return os.pathsep.join(left)

    def _points(self, value: str) -> bool:
        return self._mentions is not None and any(
            self._is_host(match[1], match[2]) for match in self._mentions.finditer(value)
        )

    def _is_host(self, folder: str, rest: str) -> bool:
        path = _normal(folder + rest)
        if self._own and (path == self._own or path.startswith(self._own + os.sep)):
            return False
        inner = re.split(f"[{_SEPARATORS}]", rest.lstrip("/" + os.sep), maxsplit=1)[0]
        return not (self._folders[_normal(folder)] and inner in _NOT_OF_A_ROOT)


def _is_stacked(name: str, environ: Mapping[str, str]) -> bool:
    """Return True if a ``CONDA_PREFIX_n`` is still active (``conda activate --stack``)."""
    match = re.fullmatch(r"CONDA_PREFIX_(\d+)", name)
    return match is not None and bool(environ.get(f"CONDA_STACKED_{int(match[1]) + 1}"))


def _normal(folder: str) -> str:
    return os.path.normcase(os.path.normpath(folder)) if folder else ""


def _declared(environ: Mapping[str, str], prefix: str) -> dict[str, tuple[str, str | None]]:
    """Return the variables that the host's active conda environment declares.

    Value, and what conda has kept of the time before.

    Conda keeps a variable's previous value as ``__CONDA_SHLVL_<level before>_NAME``
    (conda/activate.py).
    """
    active = environ.get("CONDA_PREFIX", "")
    if not active or os.path.realpath(active) == os.path.realpath(prefix or os.curdir):
        return {}
    files = []
    folder = os.path.join(active, "etc", "conda", "env_vars.d")
    try:
        files += [
            (os.path.join(folder, name), None)
            for name in sorted(os.listdir(folder))
            if name.endswith(".json")
        ]
    except OSError:  # nothing is declared there, or it is not ours to read
        pass
    found: dict[str, str] = {}
    for file, member in [*files, (os.path.join(active, "conda-meta", "state"), "env_vars")]:
        found.update(_texts(file, member))
    level = environ.get("CONDA_SHLVL", "")
    before = f"__CONDA_SHLVL_{int(level) - 1}_" if level.isdecimal() else ""
    result: dict[str, tuple[str, str | None]] = {}
    for name, value in found.items():
        for spelled in {name, name.upper()}:
            result[spelled] = (value, environ.get(before + spelled) if before else None)
    return result


def _texts(file: str, member: str | None) -> Iterable[tuple[str, str]]:
    """Yield the names and values of one JSON file.

    One that cannot be read declares nothing: it is the host's, not the one in use.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            content = json.load(stream)
        if member is not None:
            content = content.get(member) or {}
        return [
            (_platform_name(name), str(value))
            for name, value in content.items()
            if value is not None
        ]
    except (OSError, ValueError, AttributeError):
        return []


def _platform_name(name: str) -> str:
    return name.upper() if _platform.WINDOWS else name
