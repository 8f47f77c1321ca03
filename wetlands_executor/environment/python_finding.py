"""Find an interpreter that fits ``requires-python``, and try it before believing in it.

Owns where interpreters can be (this one, PATH, pyenv, uv's, conda's, the py launcher) and the
choice among them. One on PATH may be a shim that answers with an error, or lack what creating a
virtual environment takes. Nothing is kept: a probe costs some hundredths of a second.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wetlands_executor.environment import frozen, libraries
from wetlands_executor.environment.places import Places
from wetlands_executor.errors import EnvironmentNotFoundError

#: The oldest Python that can be a worker.
OLDEST: Final = (3, 8)
#: Seconds that an interpreter may take to answer.
PROBE_SECONDS: Final = 20.0

# Parses on every Python.
_PROBE = """
import json, sys, sysconfig
found = []
for name in ("venv", "ensurepip", "ssl", "zlib"):
    try:
        __import__(name)
    except ImportError:
        found.append(name)
pip = packed = ""
try:
    import ensurepip
    packed = ensurepip.version()
except Exception:
    pass
try:
    import pip
    pip = pip.__version__
except Exception:
    pip = ""
print("\\n" + json.dumps([sys.implementation.name, list(sys.version_info[:3]),
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), found, pip, packed,
    getattr(sys, "_base_executable", None) or sys.executable]))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that answered.

    Attributes:
        executable: its path; never that of a virtual environment.
        version: for example ``(3, 11, 7)``.
        lacks: modules that creating a virtual environment takes and that it has not.
        pip: version of its own pip; empty if none.
        packed_pip: version of the pip that it puts into virtual environments; empty if none.
        usual: it is CPython with its lock, which packages have wheels for.
    """

    executable: str
    version: tuple[int, int, int]
    lacks: tuple[str, ...] = ()
    pip: str = ""
    packed_pip: str = ""
    usual: bool = True

    @property
    def text(self) -> str:
        """The version, ``3.11.7``."""
        return ".".join(map(str, self.version))

    def __str__(self) -> str:
        return f"Python {self.text} ({self.executable})"


class NoInterpreter(Exception):  # noqa: N818 - never leaves the sub-package
    """No interpreter fits; the message lists those that were found."""


def probe(executable: str) -> Interpreter | None:
    """Ask an interpreter what it is; None if it does not answer."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [executable, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            env=variables,
            stdin=subprocess.DEVNULL,
        )
        told = json.loads(done.stdout.strip().splitlines()[-1])
        name, version, free, lacks, pip, packed, base = told
        usual = name == "cpython" and not free
        return Interpreter(str(base), tuple(version), tuple(lacks), pip, packed or "", usual)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None


def fitting(requires: str | None, *, virtual: bool = True) -> Interpreter:
    """Return an interpreter of this machine that fits.

    This program's own is preferred, so that functions need not travel as source, then the newest.

    Args:
        requires: versions that fit, as PEP 440 writes them; None is any.
        virtual: it must be able to make virtual environments with pip.

    Raises:
        NoInterpreter: there is none; the message lists those that were found.
    """
    seen: dict[str, str] = {}
    for executable in candidates(requires):
        real = os.path.realpath(executable)
        if real in seen:
            continue
        found = probe(executable)
        if found is None:
            seen[real] = f"{executable} (does not answer)"
            continue
        seen[real] = str(found)
        if not found.usual or found.version[:2] < OLDEST or not fits(found.text, requires):
            continue
        if virtual and found.lacks:
            seen[real] += f" (has no {', '.join(found.lacks)})"
            continue
        return found
    raise NoInterpreter(
        f"no Python here fits {requires or 'at all'!r}; found: "
        + ("; ".join(seen.values()) or "none")
    )


def fits(version: str, requires: str | None) -> bool:
    """Return True if a version of Python is among those that fit."""
    if requires is None:
        return True
    specifiers = libraries.any_packaging("specifiers")
    if specifiers is None:
        raise NoInterpreter(
            "choosing a Python takes the package 'packaging' here; install it, or this library "
            f"with the extra {libraries.EXTRA!r}"
        )
    found: bool = specifiers.SpecifierSet(requires).contains(version, prereleases=True)
    return found


def candidates(requires: str | None) -> Iterator[str]:
    """Yield the interpreters to try, best first, without those that cannot fit by their place."""
    # In a program that is no interpreter, its own executable would start the program again.
    with suppress(EnvironmentNotFoundError):
        own = frozen.interpreter()
        if own != sys.executable or fits(".".join(map(str, sys.version_info[:3])), requires):
            yield own
    for minor in reversed(range(OLDEST[1], sys.version_info[1] + 8)):
        if _may_fit(minor, requires):
            yield from _of_minor(minor)
    for name in ("python3", "python"):
        found = shutil.which(name)
        if found:
            yield found


def _may_fit(minor: int, requires: str | None) -> bool:
    """Return False if no release of Python 3.minor can fit."""
    if requires is None:
        return True
    named = re.findall(r"\d+\.\d+\.(\d+)", requires)
    patches = {0, 99, *(int(patch) for patch in named), *(int(patch) + 1 for patch in named)}
    return any(fits(f"3.{minor}.{patch}", requires) for patch in patches)


def _of_minor(minor: int) -> Iterator[str]:
    """Yield the places of Python 3.minor, cheapest first."""
    name = f"python3.{minor}"
    on_path = shutil.which(name)
    # A shim of pyenv is slow and often answers with an error; its folder is read below.
    if on_path and "shims" not in Path(on_path).parts:
        yield on_path
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    shared = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or shared / "uv" / "python")
    for folder, pattern in (
        (pyenv / "versions", f"3.{minor}.*"),
        (uv, f"cpython-3.{minor}.*"),
    ):
        for prefix in sorted(_matching(folder, pattern), key=_numbers, reverse=True):
            for executable in (prefix / "bin" / name, prefix / "python.exe"):
                if os.path.isfile(executable):
                    yield str(executable)
    for place in (*Places().roots, *Places().common):
        executable = Path(place.folder, "bin", name)
        if os.path.isfile(executable):
            yield str(executable)
    if os.name == "nt":
        yield from _launcher(minor)


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Return what a folder has of a pattern; nothing of one that may not be read."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _launcher(minor: int) -> Iterator[str]:  # pragma: no cover - never run here
    """Ask the py launcher of Windows."""
    command: list[Any] = ["py", f"-3.{minor}", "-c", "import sys; print(sys.executable)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return
    if done.returncode == 0 and done.stdout.strip():
        yield done.stdout.strip()
