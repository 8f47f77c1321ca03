"""The sources that are shipped to a worker.

This package's ``worker`` modules and cloudpickle, read once per process.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import marshal
import os
import sys
from importlib import resources

from wetlands_executor import threads
from wetlands_executor.environment import frozen

_MODULES = (
    "alarms",
    "answers",
    "available_memory",
    "batch",
    "bootstrap",
    "calls",
    "channel",
    "code_annotations",
    "code_classes",
    "code_forms",
    "code_templates",
    "code_portable",
    "code_reductions",
    "code_sources",
    "code_texts",
    "code_variants",
    "config",
    "contexts",
    "coroutines",
    "current_task",
    "debugger",
    "definitions",
    "imports",
    "injection",
    "mainmodule",
    "missing_names",
    "moved_names",
    "namespaces",
    "nested",
    "fork_server",
    "objects",
    "packed",
    "patches",
    "pickler",
    "progress",
    "raised",
    "records",
    "remote_calls",
    "remote_errors",
    "remote_events",
    "remote_executor",
    "remote_outcomes",
    "remote_task",
    "runner",
    "running",
    "scripts",
    "shared_page",
    "shm_arena",
    "shm_buffers",
    "shm_copy",
    "shm_lent",
    "shm_share",
    "shm_streams",
    "startup",
    "stdio",
    "system",
    "task_controller",
    "tensors",
    "threads",
    "warm_up",
    "wire",
)


#: What every worker imports before its first result.
_FIRST = (
    "bootstrap", "runner", "wire", "shared_page", "calls", "stdio", "system", "channel",
    "current_task", "progress", "imports", "records", "injection", "threads", "alarms",
    "mainmodule", "patches", "running", "startup", "definitions", "answers", "coroutines",
)  # fmt: skip


@functools.cache
def source(compiled: bool = False) -> bytes:
    """Return the bundle (see ``worker/stage0.py``).

    It has two sections, each behind its length (8 bytes, little endian).

    The first has names and sources in turn, separated by NUL. The second is empty, or has code
    objects: implementation and magic number, a NUL, "name:length" of each, separated by spaces, a
    NUL, and each marshalled by itself, so that a worker reads only what it imports.

    Args:
        compiled: add the code objects, which save the worker half of its start. Only for an
            interpreter that is known to be like this one: bytecode is never sent to another. It
            checks that once more, and then compiles the sources itself.
    """
    data = _sources()
    code = _code() if compiled else b""
    return len(data).to_bytes(8, "little") + data + len(code).to_bytes(8, "little") + code


@functools.cache
def _sources() -> bytes:
    # `resources.files` would import it, and a fork could find it half made
    threads.import_atomically("importlib.readers")
    parts: list[str] = []
    for name in _MODULES:
        parts += [name, _source("wetlands_executor.worker", name)]
    parts += ["cloudpickle", _source("cloudpickle", "cloudpickle")]
    return "\0".join(parts).encode()


def _source(package: str, name: str) -> str:
    """Return the source of a module, which lies beside it as package data in a frozen program too.

    Raises:
        FileNotFoundError: the program was frozen without it.
    """
    try:
        return (resources.files(package) / f"{name}.py").read_text(encoding="utf-8")
    except FileNotFoundError:
        if not frozen.is_frozen():
            raise
        raise FileNotFoundError(
            f"this program was frozen without {package}/{name}.py, which workers need as source. "
            f"PyInstaller "
            "collects it by the hook of wetlands_executor, if that is installed (and not only on "
            "PYTHONPATH) where the "
            "program is made; for other tools, add the .py files of wetlands_executor.worker and "
            "cloudpickle as package data"
        ) from None


def _code() -> bytes:
    """Return what Python's own cache of compiled modules has for the bundle.

    What it has not, because it is switched off and empty, is compiled here if every worker needs
    it: once, and while the interpreter of the first worker starts, so that it is ready sooner than
    if the worker did it.
    """
    found = {}
    for name in (*_MODULES, "cloudpickle"):
        module = (
            "cloudpickle.cloudpickle"
            if name == "cloudpickle"
            else f"wetlands_executor.worker.{name}"
        )
        code = _cached(module)
        if code is None and name in _FIRST:
            text = _source("wetlands_executor.worker", name)
            code = marshal.dumps(
                compile(text, f"<wetlands_executor>/{name}.py", "exec", dont_inherit=True)
            )
        if code is not None:
            found[name] = code
    magic = f"{sys.implementation.name}-{importlib.util.MAGIC_NUMBER.hex()}"
    index = " ".join(f"{name}:{len(code)}" for name, code in found.items())
    return b"\0".join((magic.encode(), index.encode(), b"".join(found.values())))


def _cached(name: str) -> bytes | None:
    """Return a module's marshalled code.

    The first time in the life of an installation it is compiled for that, and kept by Python.
    """
    spec = importlib.util.find_spec(name)
    if (
        spec is None
        or not isinstance(spec.loader, importlib.machinery.SourceFileLoader)
        or spec.cached is None
    ):
        return None
    found = _read(spec.cached, str(spec.origin))
    if found is not None or sys.dont_write_bytecode:
        return found
    try:
        return marshal.dumps(spec.loader.get_code(name))
    except (ImportError, OSError, SyntaxError):
        return None


def _read(cached: str, path: str) -> bytes | None:
    """Return the code in a file of Python's cache (PEP 552), still marshalled.

    Decoding it would take ten times as long. None if the file has to be looked at more closely: it
    must belong to the source as it is now, by time, size and path.
    """
    try:
        with open(cached, "rb") as stream:
            data = stream.read()
        status = os.stat(path)
    except OSError:
        return None
    head = importlib.util.MAGIC_NUMBER + bytes(4)
    head += (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (
        status.st_size & 0xFFFFFFFF
    ).to_bytes(4, "little")
    return data[16:] if data.startswith(head) and os.fsencode(path) in data else None
