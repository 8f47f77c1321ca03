"""The Python interpreters of this machine that a worker may run on.

Found once, each started once to see that it works.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Oldest version that a worker supports, and one beyond the newest that we look for.
FIRST_MINOR, END_MINOR = 8, 16
#: Every version that the tests ask for by name.
MINORS = tuple(f"3.{minor}" for minor in range(FIRST_MINOR, END_MINOR))

_PROBE = (
    "import sys; print('%d.%d.%d' % sys.version_info[:3], sys.implementation.name, sys.executable)"
)


class Interpreter(NamedTuple):
    """A working interpreter: its version as three numbers, and the file to execute."""

    version: tuple[int, int, int]
    path: Path

    @property
    def minor(self) -> str:
        """The version without the patch level, for example ``"3.8"``."""
        return f"{self.version[0]}.{self.version[1]}"


def probe(path: Path) -> Interpreter | None:
    """Start the interpreter once; None if it does not start, or is no CPython."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        version, implementation, executable = done.stdout.strip().split(" ", 2)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if implementation != "cpython":
        return None
    major, minor, micro = map(int, version.split("."))
    return Interpreter((major, minor, micro), Path(executable))


def _pyenv_candidates() -> Iterator[tuple[tuple[int, ...], Path]]:
    roots = [os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv")]
    for root in dict.fromkeys(filter(None, roots)):
        for folder in Path(root).glob("versions/3.*"):
            # pre-releases and free-threaded builds are their own world
            match = re.fullmatch(r"3\.(\d+)\.(\d+)", folder.name)
            if match and (folder / "bin" / "python").exists():
                yield (int(match[1]), int(match[2])), folder / "bin" / "python"


@functools.cache
def find() -> tuple[Interpreter, ...]:
    """Return the newest working interpreter of each minor version from 3.8 on, oldest first."""
    found: dict[int, Interpreter] = {}
    for (minor, _), path in sorted(_pyenv_candidates(), reverse=True):
        if FIRST_MINOR <= minor < END_MINOR and minor not in found and (interpreter := probe(path)):
            found[minor] = interpreter
    for minor in range(FIRST_MINOR, END_MINOR):
        if (
            minor not in found
            and (name := shutil.which(f"python3.{minor}"))
            and (interpreter := probe(Path(name)))
        ):
            found[minor] = interpreter
    found.setdefault(sys.version_info[1], Interpreter(sys.version_info[:3], Path(sys.executable)))
    return tuple(found[minor] for minor in sorted(found))


@functools.cache
def another_of_this_version() -> Interpreter | None:
    """Return an interpreter of this one's minor version that belongs to another environment.

    None if there is none.
    """
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    candidates = [
        Path(sys.base_prefix) / "bin" / name,
        *(i.path for i in find() if i.version[:2] == sys.version_info[:2]),
    ]
    candidates += [
        Path(folder) / name for folder in os.environ.get("PATH", "").split(os.pathsep) if folder
    ]
    for candidate in candidates:
        if candidate.exists() and (interpreter := probe(candidate)):
            prefix = subprocess.run(
                [interpreter.path, "-I", "-c", "import sys; print(sys.prefix)"],
                capture_output=True,
                text=True,
                check=True,
            )
            if (
                interpreter.version[:2] == sys.version_info[:2]
                and prefix.stdout.strip() != sys.prefix
            ):
                return interpreter
    return None
