"""What differs between platforms in the layout of environments: folders, file names, variables.

Chosen by ``WINDOWS``, so that a test can look at the other platform's answer. The answers for
Windows and macOS follow the documentation of conda and venv and have never been run: this was
written on Linux. Other differences stand where they are used: ``shell_programs`` (sh and cmd.exe),
``processes`` (process groups), ``file_locks``.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WINDOWS: bool = os.name == "nt"


def script_suffix() -> str:
    """Return the suffix of the activation scripts that this platform's shell can run."""
    return ".bat" if WINDOWS else ".sh"


def conda_path_dirs(prefix: str) -> list[str]:
    """Return what conda puts on PATH for a prefix (conda/activate.py, ``_get_path_dirs``)."""
    if not WINDOWS:
        return [os.path.join(prefix, "bin")]
    parts = [
        ("Library", "mingw-w64", "bin"),
        ("Library", "usr", "bin"),
        ("Library", "bin"),
        ("Scripts",),
        ("bin",),
    ]
    return [prefix, *(os.path.join(prefix, *part) for part in parts)]


def venv_path_dirs(prefix: str) -> list[str]:
    """Return what the ``activate`` script of a virtual environment puts on PATH."""
    return [os.path.join(prefix, "Scripts" if WINDOWS else "bin")]


def python_path_dirs(python: str) -> list[str]:
    """Return what belongs on PATH for a plain interpreter.

    Its folder, on Windows also the folder of installed commands.
    """
    folder = os.path.dirname(python)
    return [folder, os.path.join(folder, "Scripts")] if WINDOWS else [folder]


def interpreters(prefix: str) -> list[str]:
    """Return where the interpreter of a prefix can be, the usual place first."""
    if WINDOWS:  # conda and python.org: in the prefix; venv: in Scripts; msys2: in bin
        return [
            os.path.join(prefix, *part)
            for part in (("python.exe",), ("Scripts", "python.exe"), ("bin", "python.exe"))
        ]
    return [os.path.join(prefix, "bin", name) for name in ("python", "python3")]


def prefix_of_interpreter(python: str) -> str:
    """Return the prefix that an interpreter's place alone suggests.

    Above ``bin`` or ``Scripts``, else its own folder.
    """
    folder = os.path.dirname(python)
    return (
        os.path.dirname(folder)
        if os.path.basename(folder).lower() in ("bin", "scripts")
        else folder
    )


def is_executable(path: str) -> bool:
    """Return True if a file can be started as a program."""
    if WINDOWS:  # os.access knows no execute permission there; the suffix decides
        return os.path.isfile(path) and os.path.splitext(path)[1].lower() in (
            ".exe",
            ".bat",
            ".cmd",
        )
    return os.path.isfile(path) and os.access(path, os.X_OK)


def has_separator(text: str) -> bool:
    """Return True if a text is a path rather than a name.

    It has a separator, or on Windows a drive.
    """
    return bool(re.search(r"[\\/]|^[A-Za-z]:", text)) if WINDOWS else "/" in text


def normalized(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of variables in which a name has one spelling.

    Windows does not tell ``Path`` from ``PATH``.
    """
    return {name.upper(): value for name, value in environ.items()} if WINDOWS else dict(environ)


def common_roots() -> list[str]:
    """Return where the installers of conda and mamba put their root prefix by default."""
    names = ["miniconda3", "miniforge3", "mambaforge", "anaconda3"]
    roots = [os.path.join(os.path.expanduser("~"), name) for name in names]
    if WINDOWS:
        folders = (
            os.environ.get("LOCALAPPDATA", ""),
            os.environ.get("PROGRAMDATA", r"C:\ProgramData"),
        )
        return roots + [
            os.path.join(folder, name) for folder in folders if folder for name in names
        ]
    return [*roots, "/opt/conda"]


def user_envs_dirs() -> list[str]:
    """Return the environment folders that conda keeps for a user whose root prefix is read-only."""
    folders = [os.path.join(os.path.expanduser("~"), ".conda", "envs")]
    if WINDOWS and os.environ.get("LOCALAPPDATA"):
        folders.append(os.path.join(os.environ["LOCALAPPDATA"], "conda", "conda", "envs"))
    return folders


def system_condarcs() -> list[str]:
    """Return the folders of the machine's own conda settings, least important first."""
    return [r"C:\ProgramData\conda"] if WINDOWS else ["/etc/conda", "/var/lib/conda"]


def lost_in_shell(name: str) -> bool:
    """Return True if a variable that a shell did not give back was lost rather than unset.

    A shell drops names that are no identifiers (``BASH_FUNC_f%%``, ``ProgramFiles(x86)``); macOS
    removes ``DYLD_*`` whenever a program of the system, such as its shell, is started.
    """
    return not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or (
        sys.platform == "darwin" and name.startswith("DYLD_")
    )


@functools.cache  # each executor asks, and looking for what is not installed takes a while
def _user_cache_dir() -> Callable[..., str] | None:
    try:
        from platformdirs import user_cache_dir
    except ImportError:
        return None
    found: Callable[..., str] = user_cache_dir
    return found


def cache_folder() -> str:
    """Return where the library may keep what it can make again, by the custom of the platform.

    ``platformdirs`` knows it; where that is not installed, these are its rules.
    """
    user_cache_dir = _user_cache_dir()
    if user_cache_dir is not None:
        return user_cache_dir("wetlands-executor", appauthor=False)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
        return os.path.join(base, "wetlands-executor", "Cache")
    elif sys.platform == "darwin":  # noqa: RET505
        return os.path.expanduser("~/Library/Caches/wetlands-executor")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return os.path.join(base, "wetlands-executor")
