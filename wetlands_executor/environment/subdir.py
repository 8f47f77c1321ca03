"""Which platform of conda this machine is: its *subdir* (``linux-64``), and what includes it.

The table is that of conda and rattler. Reads nothing but what ``platform`` says.
"""

from __future__ import annotations

import platform
import struct
from typing import Final

_SYSTEMS: Final = {"Linux": "linux", "Darwin": "osx", "Windows": "win", "FreeBSD": "freebsd"}
_MACHINES: Final = {
    ("linux", "x86_64"): "64",
    ("linux", "i386"): "32",
    ("linux", "i686"): "32",
    ("osx", "x86_64"): "64",
    ("osx", "arm64"): "arm64",
    ("win", "amd64"): "64",
    ("win", "x86"): "32",
    ("win", "arm64"): "arm64",
    ("freebsd", "amd64"): "64",
}


def subdir() -> str:
    """Return conda's name of this platform for this interpreter, for example ``"linux-64"``."""
    system = _SYSTEMS.get(platform.system(), platform.system().lower())
    machine = platform.machine().lower()
    if (system, machine) in (("linux", "x86_64"), ("win", "amd64")) and struct.calcsize("P") == 4:
        return f"{system}-32"
    return f"{system}-{_MACHINES.get((system, machine), machine)}"


def selectors(name: str) -> tuple[str, ...]:
    """Return the names that stand for a platform in manifests, the widest first.

    Args:
        name: of the platform, ``"linux-64"``.

    Returns:
        For example ``("unix", "linux", "linux-64")``.
    """
    system = name.partition("-")[0]
    family = ("unix",) if system in ("linux", "osx", "freebsd", "emscripten") else ()
    return (*family, system, name)
