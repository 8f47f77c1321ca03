"""The user's project.

Which folders and modules belong to no environment, and where a worker has to look for them.

Modules of an environment or of the standard library are found in the worker's own environment;
those of the project are named together with their file, so that the worker can refuse a namesake.
Entered by any thread that submits; keeps no state but caches.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import site
import sys
import sysconfig
import types

from wetlands_executor.environment import frozen


def _installation_paths() -> list[str]:
    """Return what ``sysconfig.get_paths`` returns.

    It does not read the configuration of the build, which takes a third of a first submit.
    """
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    values = {
        "base": sys.prefix,
        "installed_base": sys.base_prefix,
        "platbase": sys.exec_prefix,
        "installed_platbase": sys.base_exec_prefix,
        "platlibdir": getattr(sys, "platlibdir", "lib"),
        "py_version_short": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "implementation_lower": "python",
        "abi_thread": "t" if "t" in getattr(sys, "abiflags", "") else "",
    }
    try:
        paths = {
            key: path.format(**values)
            for key, path in sysconfig.get_paths(expand=False).items()
            if key in keys
        }
    except (KeyError, ValueError):  # a scheme of a distribution that needs more
        paths = sysconfig.get_paths()
    return [paths[key] for key in keys if key in paths]


@functools.cache
def _environment_folders() -> tuple[str, ...]:
    """Return the folders of the host's standard library and installed packages."""
    found = set(_installation_paths())
    found.update(getattr(site, "PREFIXES", ()) and site.getsitepackages())
    found.add(site.getusersitepackages())
    base = os.path.dirname(os.__file__)
    found.update((base, os.path.join(base, "lib-dynload")))
    return tuple(
        sorted(
            {os.path.realpath(path) for path in found} | {os.path.abspath(path) for path in found}
        )
    )


@functools.lru_cache(maxsize=4096)
def belongs_to_environment(path: str) -> bool:
    """Return True if a path is part of the host's interpreter or of its installed packages."""
    if frozen.in_bundle(path):
        return True
    if any(
        part in ("site-packages", "dist-packages") for part in path.replace("\\", "/").split("/")
    ):
        return True
    if path.endswith(".zip") and os.path.basename(path).startswith("python"):
        return True
    for candidate in {path, os.path.realpath(path)}:
        if any(
            candidate == folder or candidate.startswith(folder + os.sep)
            for folder in _environment_folders()
        ):
            return True
    return False


def project_paths() -> tuple[str, ...]:
    """Return the entries of ``sys.path`` that belong to no environment, absolute, in order.

    The user's own code.
    """
    entries = tuple(entry for entry in sys.path if isinstance(entry, str))
    try:
        folder = os.getcwd()
    except OSError:  # it was removed: what is named relative to it is not there either
        return _project_paths(tuple(filter(os.path.isabs, entries)), os.sep)
    return _project_paths(entries, folder)


@functools.lru_cache(maxsize=16)
def _project_paths(entries: tuple[str, ...], folder: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for entry in entries:
        path = os.path.abspath(os.path.join(folder, entry))
        if not belongs_to_environment(path) and os.path.exists(path):
            found[path] = None
    return tuple(found)


def project_root(module: types.ModuleType, file: str) -> str | None:
    """Return the folder that has to be on ``sys.path`` for ``import module`` to find ``file``.

    None if no folder does that.
    """
    parts = module.__name__.split(".")
    stem, extension = os.path.splitext(os.path.abspath(file))
    pieces = stem.split(os.sep)
    if pieces[-1] == "__init__":
        pieces.pop()
    elif hasattr(module, "__path__"):
        return None
    if extension not in (".py", ".pyc", ".so", ".pyd"):
        return None
    if extension in (".so", ".pyd"):
        pieces[-1] = pieces[-1].split(".")[0]
    if len(pieces) <= len(parts) or pieces[-len(parts) :] != parts:
        return None
    return os.sep.join(pieces[: -len(parts)]) or os.sep


#: Roots of project modules that are not on ``sys.path`` (import hooks of editable installs, test
#: runners); only ever grows.
extra_roots: dict[str, None] = {}


def note_editable_installs() -> None:
    """Note the folders that the import hooks of editable installs serve.

    A worker, which lacks these hooks, then finds them too.

    setuptools writes a module ``__editable___NAME_finder`` with the tables ``MAPPING`` and
    ``NAMESPACES``. What an install puts on ``sys.path`` through a ``.pth`` file needs nothing of
    this.
    """
    for finder in list(sys.meta_path):
        module = sys.modules.get(getattr(finder, "__module__", None) or "")
        if module is None or not module.__name__.startswith("__editable__"):
            continue
        mapping, namespaces = getattr(module, "MAPPING", None), getattr(module, "NAMESPACES", None)
        for name, path in mapping.items() if isinstance(mapping, dict) else ():
            _note_package(name, path)
        for name, paths in namespaces.items() if isinstance(namespaces, dict) else ():
            for path in paths:
                _note_package(name, path)


def _note_package(name: str, path: str) -> None:
    """Note the folder above a package, if importing its name from there finds it."""
    parts, pieces = name.split("."), os.path.abspath(path).split(os.sep)
    if pieces[-len(parts) :] == parts:
        _note_root(os.sep.join(pieces[: -len(parts)]) or os.sep)


def note_root(root: str) -> None:
    """Note a folder of the project that is not on ``sys.path``, which workers need there."""
    if root not in project_paths():
        extra_roots[root] = None


def _note_root(root: str) -> None:
    if root not in extra_roots and not belongs_to_environment(root):
        note_root(root)


@functools.lru_cache(maxsize=256)
def note_target(package: str) -> None:
    """Note the folder of a module that was named as text, if only an import hook here finds it.

    Nothing is imported.
    """
    module = sys.modules.get(package)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return  # it need not be here: the worker looks in its own environment
    for path in (spec.submodule_search_locations or ()) if spec is not None else ():
        _note_package(package, path)
    if (
        spec is not None
        and spec.origin
        and not spec.submodule_search_locations
        and spec.has_location
    ):
        _note_package(package, os.path.splitext(spec.origin)[0])
