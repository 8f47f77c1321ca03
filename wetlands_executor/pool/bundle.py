"""The sources that are shipped to a worker: this package's ``worker`` modules and cloudpickle, read once per process."""

from __future__ import annotations

import functools
import inspect
from importlib import resources

from cloudpickle import cloudpickle

_MODULES = (
    "board",
    "bootstrap",
    "calls",
    "channel",
    "context",
    "imports",
    "injection",
    "lacking",
    "namespaces",
    "progress",
    "records",
    "renames",
    "runner",
    "scripts",
    "stdio",
    "wire",
)


@functools.cache
def source() -> bytes:
    """Return the bundle: its length (8 bytes, little endian), then names and sources in turn, separated by NUL (see ``worker/stage0.py``)."""
    folder = resources.files("wetlands_executor.worker")
    parts: list[str] = []
    for name in _MODULES:
        parts += [name, (folder / f"{name}.py").read_text(encoding="utf-8")]
    parts += ["cloudpickle", inspect.getsource(cloudpickle)]
    data = "\0".join(parts).encode()
    return len(data).to_bytes(8, "little") + data
