"""What a callable of the host is called in another process.

By reference, by value, or as a file of source.

Owns the rule for project code: modules of an environment or of the standard library are named and
found in the worker's own environment; modules of the user's project are named together with their
file, so that the worker can refuse a namesake; what cannot be imported by name there travels by
value. Entered by any thread that submits; keeps no state but caches.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import types
import weakref
from typing import Any, NamedTuple

from wetlands_executor.environment import frozen
from wetlands_executor.serialize import project

#: ("reference", module, qualname, file or None) | ("file", path, digest, source, qualname); see
#: ``worker/imports.py``
DefinitionTuple = tuple[Any, ...]


class Reference(NamedTuple):
    """Where the other process finds an object by name.

    ``file`` is set for modules of the user's project.
    """

    module: str
    qualname: str
    file: str | None


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
    file = getattr(module, "__file__", None)
    known = _places.get(name)
    if known is None or known[0]() is not module or known[1] != file:
        place = _place_of(module, name, file)
        if type(module) is types.ModuleType and (file is None or os.path.isabs(file)):
            _places[name] = (weakref.ref(module), file, place)
    else:
        place = known[2]
    if place is None:
        return None
    path, root = place
    if root is not None and root not in sys.path and root not in project.extra_roots:
        project.note_root(root)
    return Reference(name, qualname, path)


#: Name of a module -> (the module, its file, its place; see ``_place_of``).
_places: dict[str, tuple[Any, Any, tuple[str | None, str | None] | None]] = {}


def _place_of(
    module: types.ModuleType, name: str, file: Any
) -> tuple[str | None, str | None] | None:
    """Return (file to name, folder that a worker needs on ``sys.path``) of what can be imported.

    Both are None for what an environment has. None if no other process can import the module.
    """
    if frozen.is_private(name):
        return None  # no other environment has a module of this frozen program
    if not isinstance(file, str) and name.partition(".")[0] not in sys.stdlib_module_names:
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if origin not in ("built-in", "frozen"):
            return None  # made by hand, not by an import: no other process can import it
    if not isinstance(file, str) or project.belongs_to_environment(os.path.abspath(file)):
        return None, None
    if name.partition(".")[0] in ("wetlands_executor", "cloudpickle"):
        # Ours: the worker has what was shipped under a private name, and perhaps an installed copy
        # at another place.
        return None, None
    root = project.project_root(module, file)
    return None if root is None else (os.path.abspath(file), root)


def is_importable(module: types.ModuleType) -> bool:
    """Return True if another process finds this module by its name, as far as this one can tell."""
    name = module.__name__
    if name in ("__main__", "__mp_main__") or sys.modules.get(name) is not module:
        return False
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        return name.partition(".")[0] in sys.stdlib_module_names or origin in ("built-in", "frozen")
    return (
        project.belongs_to_environment(os.path.abspath(file))
        or project.project_root(module, file) is not None
    )


def is_rewritten(reference: Reference) -> bool:
    """Return True for what stands in a test module whose asserts pytest has rewritten.

    Such a module hardly imports in another environment, which has no pytest; a Python of another
    version gets its functions as source.
    """
    return (
        reference.file is not None
        and type(vars(sys.modules[reference.module]).get("__loader__")).__name__
        == "AssertionRewritingHook"
    )


def target_of(fn: Any) -> str:
    """Return the text of a target: itself, or that of a path (``Path("model.py:predict")``).

    Raises:
        TypeError: it is neither, and nothing that can be called.
    """
    target = os.fspath(fn) if isinstance(fn, (str, os.PathLike)) else None
    if not isinstance(target, str):
        raise TypeError(f"{fn!r} is neither callable nor a target like 'package.module:function'")
    return target


def definition_of(fn: Any) -> DefinitionTuple:
    """Return the definition of a target, which may be a path. Raises as the two below and above."""
    return definition_of_target(target_of(fn))


def definition_of_target(target: str) -> DefinitionTuple:
    """Return the definition that ``"pkg.mod:qualname"`` or ``"path/to/file.py:qualname"`` names.

    Raises:
        ValueError: there is no colon, or nothing on one side of it.
        FileNotFoundError: the file does not exist.
    """
    where, colon, qualname = target.rpartition(":")
    if (
        not colon
        or not where
        or not qualname
        or not all(part.isidentifier() for part in qualname.split("."))
    ):
        raise ValueError(
            f'{target!r} is not a target: write "package.module:function" or '
            f'"path/to/file.py:function"'
        )
    return definition_of_module(where, qualname)


def definition_of_module(where: str, qualname: str = "") -> DefinitionTuple:
    """Return the definition of ``qualname`` in a module.

    ``where`` names the module (``pkg.mod``) or its file (``mod.py``).
    """
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
    project.note_target(where.partition(".")[0])
    return ("reference", where, qualname, None)


def is_file(where: str) -> bool:
    """Return True if a target names a file and not a module."""
    return where.endswith(".py") or "/" in where or os.sep in where


def display_name(fn: Any) -> str:
    """Return a name for messages.

    ``mod.func``, ``Class.method``, ``<lambda>``, or the target string.
    """
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
