"""What a callable of the host is called in another process: by reference, by value, or as a file of source.

Owns the rule for project code: modules of an environment or of the standard library are named and found in the worker's own environment;
modules of the user's project are named together with their file, so that the worker can refuse a namesake; what cannot be imported by
name there travels by value. Entered by any thread that submits; keeps no state but caches.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import site
import sys
import sysconfig
import types
from typing import Any, NamedTuple

from wetlands_executor.environment import frozen

#: ("reference", module, qualname, file or None) | ("file", path, digest, source, qualname); see ``worker/imports.py``
DefinitionTuple = tuple[Any, ...]


class Reference(NamedTuple):
    """Where the other process finds an object by name. ``file`` is set for modules of the user's project."""

    module: str
    qualname: str
    file: str | None


def _installation_paths() -> list[str]:
    """Return what ``sysconfig.get_paths`` says, without its reading of the build's configuration, a third of the time of a first submit."""
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
        paths = {key: path.format(**values) for key, path in sysconfig.get_paths(expand=False).items() if key in keys}
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
    return tuple(sorted({os.path.realpath(path) for path in found} | {os.path.abspath(path) for path in found}))


@functools.lru_cache(maxsize=4096)
def belongs_to_environment(path: str) -> bool:
    """Return True if a file or folder is part of the host's interpreter or of its installed packages."""
    if frozen.in_bundle(path):
        return True
    if any(part in ("site-packages", "dist-packages") for part in path.replace("\\", "/").split("/")):
        return True
    if path.endswith(".zip") and os.path.basename(path).startswith("python"):
        return True
    for candidate in {path, os.path.realpath(path)}:
        if any(candidate == folder or candidate.startswith(folder + os.sep) for folder in _environment_folders()):
            return True
    return False


def project_paths() -> tuple[str, ...]:
    """Return the entries of ``sys.path`` that belong to no environment, absolute, in order: the user's own code."""
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


def _project_root(module: types.ModuleType, file: str) -> str | None:
    """Return the folder that has to be on ``sys.path`` for ``import module`` to find ``file``; None if no folder does that."""
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


#: Roots of project modules that are not on ``sys.path`` (import hooks of editable installs, test runners); only ever grows.
extra_roots: dict[str, None] = {}


def note_editable_installs() -> None:
    """Make the folders known that the import hooks of editable installs serve, so that a worker, which lacks the hooks, finds them too.

    setuptools writes a module ``__editable___NAME_finder`` with the tables ``MAPPING`` and ``NAMESPACES``. What an install puts on ``sys.path``
    through a ``.pth`` file needs nothing of this.
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


def _note_root(root: str) -> None:
    if root not in extra_roots and root not in project_paths() and not belongs_to_environment(root):
        extra_roots[root] = None


@functools.lru_cache(maxsize=256)
def _note_target(package: str) -> None:
    """Make the folder of a module known that was named as text, if only an import hook of this process finds it. Nothing is imported."""
    module = sys.modules.get(package)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return  # it need not be here: the worker looks in its own environment
    for path in (spec.submodule_search_locations or ()) if spec is not None else ():
        _note_package(package, path)
    if spec is not None and spec.origin and not spec.submodule_search_locations and spec.has_location:
        _note_package(package, os.path.splitext(spec.origin)[0])


def reference_to(obj: Any) -> Reference | None:
    """Return how another process can import ``obj``, or None if it has to travel by value.

    Args:
        obj: a function, builtin function or class.
    """
    qualname = getattr(obj, "__qualname__", None)
    name = getattr(obj, "__module__", None)
    if not isinstance(qualname, str) or "<" in qualname:
        return None
    if name is None and isinstance(obj, types.BuiltinFunctionType):
        name = "builtins" if obj.__self__ is None else None
    if not isinstance(name, str) or name in ("__main__", "__mp_main__"):
        return None
    module = sys.modules.get(name)
    if module is None:
        return None
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not obj:
        return None
    if frozen.is_private(name):
        return None  # no other environment has a module of this frozen program
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) and name.partition(".")[0] not in sys.stdlib_module_names:
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if origin not in ("built-in", "frozen"):
            return None  # made by hand, not by an import: nobody else can import it
    if not isinstance(file, str) or belongs_to_environment(os.path.abspath(file)):
        return Reference(name, qualname, None)
    if name.partition(".")[0] in ("wetlands_executor", "cloudpickle"):
        # Ours: the worker has what was shipped under a private name, and perhaps an installed copy at another place.
        return Reference(name, qualname, None)
    root = _project_root(module, file)
    if root is None:
        return None
    if root not in project_paths():
        extra_roots[root] = None
    return Reference(name, qualname, os.path.abspath(file))


def is_importable(module: types.ModuleType) -> bool:
    """Return True if another process finds this module by its name, as far as that is known here."""
    name = module.__name__
    if name in ("__main__", "__mp_main__") or sys.modules.get(name) is not module:
        return False
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        return name.partition(".")[0] in sys.stdlib_module_names or origin in ("built-in", "frozen")
    return belongs_to_environment(os.path.abspath(file)) or _project_root(module, file) is not None


def is_rewritten(reference: Reference) -> bool:
    """Return True for what stands in a test module whose asserts pytest has rewritten.

    Such a module hardly imports in another environment, which has no pytest; a Python of another version gets its functions as source.
    """
    return reference.file is not None and type(vars(sys.modules[reference.module]).get("__loader__")).__name__ == "AssertionRewritingHook"


def target_of(fn: Any) -> str:
    """Return the text of a target that was given as text or as a path (``Path("model.py:predict")``).

    Raises:
        TypeError: it is neither, and nothing that can be called.
    """
    target = os.fspath(fn) if isinstance(fn, (str, os.PathLike)) else None
    if not isinstance(target, str):
        raise TypeError(f"{fn!r} is neither callable nor a target like 'package.module:function'")
    return target


def definition_of_target(target: str) -> DefinitionTuple:
    """Return the definition that ``"pkg.mod:qualname"`` or ``"path/to/file.py:qualname"`` names.

    Raises:
        ValueError: there is no colon, or nothing on one side of it.
        FileNotFoundError: the file does not exist.
    """
    where, colon, qualname = target.rpartition(":")
    if not colon or not where or not qualname or not all(part.isidentifier() for part in qualname.split(".")):
        raise ValueError(f'{target!r} is not a target: write "package.module:function" or "path/to/file.py:function"')
    return definition_of_module(where, qualname)


def definition_of_module(where: str, qualname: str = "") -> DefinitionTuple:
    """Return the definition of ``qualname`` in a module, which is named (``pkg.mod``) or given as a file (``mod.py``)."""
    if is_file(where):
        path = os.path.abspath(os.path.expanduser(where))
        try:
            with open(path, "rb") as stream:
                source = stream.read()
        except FileNotFoundError:
            raise FileNotFoundError(f"{where!r}: there is no file {path}") from None
        return ("file", path, hashlib.sha256(source).hexdigest(), source, qualname)
    if not all(part.isidentifier() for part in where.split(".")):
        raise ValueError(f"{where!r} is neither a dotted module name nor a file that ends in .py")
    _note_target(where.partition(".")[0])
    return ("reference", where, qualname, None)


def is_file(where: str) -> bool:
    """Return True if a target names a file and not a module."""
    return where.endswith(".py") or "/" in where or os.sep in where


def display_name(fn: Any) -> str:
    """Return a name for messages: ``mod.func``, ``Class.method``, ``<lambda>``, or the target string."""
    if isinstance(fn, str):
        return fn
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    if not isinstance(name, str):
        return type(fn).__qualname__
    if name.endswith("<lambda>"):
        return "<lambda>"
    name = name.rpartition("<locals>.")[2]
    module = getattr(fn, "__module__", None)
    if "." in name or module in (None, "__main__", "builtins"):
        return name
    return f"{module}.{name}"
