"""Find Python interpreters of a given version on this machine, and check that they work.

An interpreter on PATH may be a shim that answers with an error, or lack what making an environment
takes (``ensurepip``, ``ssl``). Nothing is cached: one probe costs some hundredths of a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROBE = (
    "import sys, sysconfig, venv, ensurepip, ssl, zlib, ctypes;"
    "print(sys.implementation.name, *sys.version_info[:3], "
    "int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))))"
)
_PROBE_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that answered and can make virtual environments.

    Attributes:
        executable: its path.
        version: for example ``(3, 11, 7)``.
    """

    executable: str
    version: tuple[int, int, int]

    @property
    def minor(self) -> int:
        """The 11 of 3.11."""
        return self.version[1]

    def __str__(self) -> str:
        """Name it as a person would."""
        return "Python {}.{}.{}".format(*self.version)


def probe(command: list[str]) -> Interpreter | None:
    """Run an interpreter and ask what it is.

    Returns:
        None if it does not answer, is not CPython with a GIL, or cannot make environments.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [*command, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            env=variables,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.split()
    if done.returncode or len(words) != 5 or words[0] != "cpython" or words[4] != "0":
        return None
    return Interpreter(command[0], (int(words[1]), int(words[2]), int(words[3])))


def find(minor: int) -> Interpreter | None:
    """Find a usable Python 3.``minor``.

    This one, one on PATH, or one of pyenv, uv or (Windows) the py launcher.
    """
    for executable in _candidates(minor):
        found = probe([executable])
        if found is not None and found.version[:2] == (3, minor):
            return found
    return None


def _candidates(minor: int) -> Iterator[str]:
    """List the places to try, cheapest first."""
    if sys.version_info[:2] == (3, minor):
        yield sys.executable
    name = f"python3.{minor}"
    on_path = shutil.which(name)
    # a shim of pyenv is slow and often answers with an error; its folder is read below
    if on_path and "shims" not in Path(on_path).parts:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    shared = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    for folder, pattern in (
        (pyenv / "versions", f"3.{minor}.*"),
        (shared / "uv" / "python", f"cpython-3.{minor}.*"),
    ):
        for prefix in sorted(folder.glob(pattern), reverse=True):
            executable = prefix / "bin" / name
            if executable.is_file():
                yield str(executable)
    if sys.platform == "win32":
        yield from _launcher(minor)


def _launcher(minor: int) -> Iterator[str]:
    """Ask the py launcher of Windows."""
    try:
        done = subprocess.run(
            ["py", f"-3.{minor}", "-c", "import sys; print(sys.executable)"],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return
    if done.returncode == 0 and done.stdout.strip():
        yield done.stdout.strip()
