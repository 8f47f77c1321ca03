"""Virtual environments with given packages, made from the registry, one per set of packages and
interpreter, for one session.

Nothing is compiled and no dependency is resolved: what is installed is what is named. An
environment that cannot be made is a reason to skip.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

from tests.support import interpreters

#: What a host needs besides this project.
HOST = ("cloudpickle", "psutil", "typing_extensions")
#: Seconds that an installation may take.
LIMIT = 240


class CannotMake(Exception):
    """There is no interpreter or no package for it; the message says which."""


class Environments:
    """Makes environments in a folder, each once; any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[tuple[str, ...], tuple[str, ...]], Path | str] = {}
        # Guards `_locks`; each of those is held while its environment is made, so that two who want
        # the same one wait for it.
        self._lock = threading.Lock()
        self._locks: dict[tuple[tuple[str, ...], tuple[str, ...]], threading.Lock] = {}

    def python(self, minors: tuple[str, ...], packages: tuple[str, ...]) -> Path:
        """Return the interpreter of an environment with these packages.

        Args:
            minors: versions of Python that will do, the preferred one first.
            packages: requirements, as for pip.

        Raises:
            CannotMake: there is no such interpreter, or the packages cannot be had.
        """
        key = minors, packages
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                try:
                    self._made[key] = self._make(minors, packages)
                except CannotMake as reason:
                    self._made[key] = str(reason)
            made = self._made[key]
        if isinstance(made, str):
            raise CannotMake(made)
        return made

    def _make(self, minors: tuple[str, ...], packages: tuple[str, ...]) -> Path:
        found = {interpreter.minor: interpreter.path for interpreter in interpreters.find()}
        minor = next((minor for minor in minors if minor in found), None)
        if minor is None:
            raise CannotMake(f"no Python {' or '.join(minors)} on this machine")
        first = packages[0].partition("=")[0].partition("<")[0].strip(">")
        folder = self._folder / f"{len(self._made)}-{minor}-{first}"
        subprocess.run(
            [found[minor], "-I", "-m", "venv", "--without-pip", folder],
            check=True,
            capture_output=True,
            timeout=LIMIT,
        )
        target = next(folder.glob("lib/python3*/site-packages"), folder / "Lib" / "site-packages")
        install(target, minor, packages)
        return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(target: Path, minor: str, packages: tuple[str, ...]) -> None:
    """Install wheels for a version of Python into a folder, without their dependencies.

    Raises:
        CannotMake: there is no installer, or the registry cannot be reached, or it has no wheel.
    """
    options = [
        "--target",
        str(target),
        "--python-version",
        minor,
        "--only-binary",
        ":all:",
        "--no-deps",
    ]
    uv = shutil.which("uv")
    if uv is not None:
        command = [uv, "pip", "install", "--quiet", *options]
    else:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
            *options,
        ]
        command += ["--timeout", "30", "--retries", "1"]
    try:
        done = subprocess.run(
            [*command, *packages],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotMake(
            f"{' '.join(packages)} for Python {minor}: not installed within {LIMIT} seconds"
        ) from None
    if done.returncode != 0:
        reason = next(
            (line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given"
        )
        raise CannotMake(f"{' '.join(packages)} for Python {minor}: {reason.strip()}")
