"""Runs in the environment that is examined: standard library only, Python 3.8.

Sent there by content; the host never calls it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in the worker's own modules
if TYPE_CHECKING:
    from typing import Any, Dict


def look() -> Dict[str, Any]:
    """Return what only a process of the environment can tell, of builtin types."""
    import site

    packages = {
        name: _package(name, name == "numpy") for name in ("numpy", "pandas", "wetlands_executor")
    }
    found: Dict[str, Any] = {
        "packages": packages,
        "user_site": bool(site.ENABLE_USER_SITE and site.getusersitepackages() in sys.path),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "open_files": None,
        "cwd": os.getcwd(),
    }
    if sys.platform != "win32":
        try:
            import resource

            found["open_files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        except (ImportError, OSError):
            pass  # a Python without this module, or a sandbox
    return found


def _package(name: str, load: bool) -> Dict[str, Any]:
    """Return version and state of a package: {"version": str or None, "error": str or None}."""
    from importlib import metadata

    try:
        version = metadata.version("wetlands-executor" if name == "wetlands_executor" else name)
    except metadata.PackageNotFoundError:
        return {"version": None, "error": None}
    if load:
        try:
            __import__(name)
        except Exception as error:  # noqa: BLE001
            # whatever a broken package raises is what has to be reported
            return {"version": version, "error": "%s: %s" % (type(error).__name__, error)}
    return {"version": version, "error": None}
