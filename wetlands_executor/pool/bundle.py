"""The sources that are shipped to a worker: this package's ``worker`` modules and cloudpickle, read once per process."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import inspect
import marshal
import os
import sys
from importlib import resources
from types import CodeType

from cloudpickle import cloudpickle

_MODULES = (
    "arena",
    "board",
    "bootstrap",
    "calls",
    "channel",
    "classes",
    "context",
    "copying",
    "imports",
    "injection",
    "lacking",
    "many",
    "namespaces",
    "nursery",
    "parcels",
    "pickler",
    "portable",
    "progress",
    "records",
    "reductions",
    "renames",
    "room",
    "runner",
    "scripts",
    "sharing",
    "sources",
    "stdio",
    "tensors",
    "wire",
)


@functools.cache
def source(compiled: bool = False) -> bytes:
    """Return the bundle (see ``worker/stage0.py``), in two sections, each behind its length (8 bytes, little endian).

    The first has names and sources in turn, separated by NUL. The second is empty, or has code objects: implementation and magic number, a
    NUL, a marshalled dict.

    Args:
        compiled: add the code objects, which save the worker half of its start. Only for an interpreter that is known to be like this one:
            bytecode is never sent to another. It checks that once more, and then compiles the sources itself.
    """
    data = _sources()
    code = _code() if compiled else b""
    return len(data).to_bytes(8, "little") + data + len(code).to_bytes(8, "little") + code


@functools.cache
def _sources() -> bytes:
    folder = resources.files("wetlands_executor.worker")
    parts: list[str] = []
    for name in _MODULES:
        parts += [name, (folder / f"{name}.py").read_text(encoding="utf-8")]
    parts += ["cloudpickle", inspect.getsource(cloudpickle)]
    return "\0".join(parts).encode()


def _code() -> bytes:
    """Return what Python's own cache of compiled modules has for the bundle; b"" if it is switched off and empty.

    Without the cache nothing is gained: compiling here takes as long as in the worker.
    """
    found = {}
    for name in _MODULES:
        code = _cached(f"wetlands_executor.worker.{name}")
        if code is None:
            return b""
        found[name] = code
    code = _cached("cloudpickle.cloudpickle")
    if code is not None:
        found["cloudpickle"] = code
    magic = f"{sys.implementation.name}-{importlib.util.MAGIC_NUMBER.hex()}"
    return magic.encode() + b"\0" + marshal.dumps(found)


def _cached(name: str) -> CodeType | None:
    """Return a module's code object; the first time in the life of an installation it is compiled for that, and kept by Python."""
    spec = importlib.util.find_spec(name)
    if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader) or spec.cached is None:
        return None
    if sys.dont_write_bytecode and not os.path.exists(spec.cached):
        return None
    try:
        return spec.loader.get_code(name)
    except (ImportError, OSError, SyntaxError):
        return None
