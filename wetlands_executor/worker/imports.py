"""Where functions come from.

Definitions that the host sends, the host's project folders, and ``wetlands_executor`` itself.

A definition is a tuple whose first element says how the function is named:

* ``("reference", module, qualname, file)``: import the module. ``file`` is given for modules of the
  host's project (not for those of an environment or the standard library): the worker must find the
  same file, or it would run another function under the same name.
* ``("file", path, digest, source, qualname)``: a source file of the host by content.
* ``("value", payload)``: a pickled function.
"""

from __future__ import annotations

import os
import sys

from . import patches
from .system import native

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Sequence, Tuple

#: (path, digest) -> module that was made of that content
_FILES: Dict[Tuple[str, str], Any] = {}
#: project folders of the host, as last received; behind everything of the environment in
#: ``sys.path``
_PROJECT: List[str] = []
#: (name, file of the host) -> module here that was found to be of the same file
_SAME: Dict[Tuple[str, str], Any] = {}
#: (name, dotted path, file of the host) -> (module, what it has there) as ``fetch`` found it last
_FETCHED: Dict[Tuple[str, str, Optional[str]], Tuple[Any, Any]] = {}


def use_project_paths(paths: Sequence[str]) -> None:
    """Append the host's project folders to ``sys.path``, behind the environment's own.

    They replace those that were received before.
    """
    paths = [native(path) for path in paths]
    new = [path for path in paths if path not in _PROJECT and path not in sys.path]
    for path in _PROJECT:
        if path not in paths and path in sys.path:
            sys.path.remove(path)
    _PROJECT[:] = [path for path in paths if path in _PROJECT] + new
    if new:
        sys.path.extend(new)
        _list_folders_anew()


def _list_folders_anew() -> None:
    """Have files found that are newer than the cached listings of their folders.

    As ``importlib.invalidate_caches``, but for the installed distributions: to forget them, Python
    3.12 imports ``importlib.metadata`` (70 ms), which has none to forget if it was not imported
    before.
    """
    for finder in sys.meta_path:
        if (
            getattr(finder, "__name__", "") == "PathFinder"
            and "importlib.metadata" not in sys.modules
        ):
            for path, entry in list(sys.path_importer_cache.items()):
                if entry is None or not os.path.isabs(path):
                    sys.path_importer_cache.pop(path, None)
                elif hasattr(entry, "invalidate_caches"):
                    entry.invalidate_caches()
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def resolve(definition: Sequence[Any]) -> Any:
    """Return the function that a definition names.

    Raises:
        ImportError: it cannot be found; the message names what, the environment and where it was
            looked for.
    """
    kind = definition[0]
    if kind == "reference":
        return fetch(*definition[1:])
    if kind == "file":
        path, digest, source, qualname = definition[1:]
        return _attribute(module_of_file(path, digest, source), qualname, path)
    from .calls import loads_rich

    return loads_rich(definition[1])


def fetch(module: str, qualname: str, file: Optional[str] = None) -> Any:
    """Import ``module`` and return its ``qualname``; called by definitions and by pickle streams.

    Args:
        module: dotted name.
        qualname: dotted path inside it.
        file: the host's file of that module if it belongs to the host's project, else None.
    """
    known = _FETCHED.get((module, qualname, file))
    if known is not None:
        where, found = known
        if sys.modules.get(module) is where and where.__dict__.get(qualname) is found:
            return found
    if module.startswith("wetlands_executor.worker."):
        # ours: the shipped copy
        module = __name__.rpartition(".")[0] + module[len("wetlands_executor.worker") :]
    if file is None and module.startswith("numpy"):
        from . import moved_names

        return moved_names.find(
            module, qualname, lambda where, what: _attribute(import_named(where), what, where)
        )
    try:
        found = import_named(module)
        if file is None:
            return _attribute(found, qualname, module)
    except (ImportError, AttributeError):
        from . import moved_names

        for other in moved_names.others(module, qualname) if file is None else ():
            try:
                return _attribute(import_named(other[0]), other[1], other[0])
            except (ImportError, AttributeError):
                continue  # the error of the name that was asked for says more
        raise
    if file is not None and _SAME.get((module, file)) is not found:
        here = getattr(found, "__file__", None)
        if here is None or _real(here) != _real(native(file)):
            raise ImportError(
                "module %r is %s on the host, but %s in the environment %s: refusing to run a "
                "different function. Rename the module, or "
                'name the file: submit("%s:%s", ...)'
                % (module, file, here or "built in", sys.prefix, file, qualname)
            )
        _SAME[module, file] = found
    result = _attribute(found, qualname, module)
    if file is not None and type(found) is type(sys):
        _FETCHED[module, qualname, file] = found, result
    return result


def import_named(module: str) -> Any:
    """Import a module by its dotted name; an error says which environment looked where."""
    if module.startswith("numpy"):
        from .moved_names import module_here

        module = module_here(module)
    try:
        __import__(module)  # importlib costs 1 ms of a start
        return sys.modules[module]
    except ModuleNotFoundError as error:
        from .missing_names import name_places

        name_places(error)
        raise


def _real(path: str) -> str:
    path = os.path.realpath(path)
    return path[:-1] if path.endswith(".pyc") else path


def _attribute(module: Any, qualname: str, where: str) -> Any:
    found: Any = module
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = ", ".join(sorted(n for n in dir(module) if not n.startswith("_"))[:20])
            raise AttributeError(
                "%s has no %r in the worker; it has: %s" % (where, qualname, near)
            ) from None
    return found


def module_of_file(path: str, digest: str, source: bytes) -> Any:
    """Return the module of a file; an edited file makes a new one.

    Guarantee: one file is one module here, by whichever name or path it is reached, and it never
    takes the place of another module.
    """
    path = native(path)
    module = _FILES.get((path, digest))
    if module is not None:
        return module
    real = _real(path)
    module = _FILES.get((real, digest))
    if module is None:
        module = _loaded(real) or _make_module(path, real, source)
        for key in [key for key in _FILES if _real(key[0]) == real]:
            # an older content of the same file: nothing will ask for it under its digest again
            del _FILES[key]
        _FILES[real, digest] = module
    _FILES[path, digest] = module
    return module


def _make_module(path: str, real: str, source: bytes) -> Any:
    folder, base = os.path.split(path)
    name = _name_for(real, os.path.splitext(base)[0])
    if folder not in sys.path:
        # Its neighbours can be imported, as those of a script. But they stand behind the standard
        # library, and behind everything if this very file has the name of another module.
        sys.path.insert(len(sys.path) if name.startswith(_PRIVATE) else _behind_stdlib(), folder)
    if not any(isinstance(finder, FileFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, FileFinder())
    module = type(sys)(name)
    space = module.__dict__
    space["__file__"], space["__cached__"] = path, None
    if b"from ." in source and _imports_relatively(source):
        package = _package_of(os.path.dirname(real))
        if package is not None:
            known = sys.modules.get(
                package if base == "__init__.py" else "%s.%s" % (package, os.path.splitext(base)[0])
            )
            if known is not None and _real(getattr(known, "__file__", None) or "") == real:
                return known  # the package imports it
            space["__package__"] = package
    previous = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look the module up while it runs
    try:
        code = compile(source, path, "exec", dont_inherit=True)
        exec(code, space)
    except BaseException:
        if previous is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = previous
        raise
    import linecache

    linecache.checkcache(path)
    return module


def _imports_relatively(source: bytes) -> bool:
    import re

    return re.search(rb"^\s*from \.", source, re.MULTILINE) is not None


def _package_of(folder: str) -> Optional[str]:
    """Import the package that a folder is; return its dotted name, None if it is none.

    For the relative imports of a file in it.
    Its root is looked for behind everything else; a package of that name that lies elsewhere is
    never taken for it.
    """
    names: List[str] = []
    root = folder
    while (
        os.path.isfile(os.path.join(root, "__init__.py")) and os.path.basename(root).isidentifier()
    ):
        root, name = os.path.split(root)
        names.insert(0, name)
    if not names:
        return None
    if root not in sys.path:
        sys.path.append(root)
        _list_folders_anew()
    try:
        package = import_named(".".join(names))
    except ImportError:
        # it lacks something, or another module has the name; the relative import says the rest
        return None
    file = getattr(package, "__file__", None)
    return (
        package.__name__
        if file and _real(file) == _real(os.path.join(folder, "__init__.py"))
        else None
    )


def _loaded(real: str) -> Any:
    """Return the module that an import has made of this file, if the file has not changed since."""
    if any(_real(path) == real for path, _digest in _FILES):
        return None  # known with another content
    stem = os.path.splitext(os.path.basename(real))[0]
    for name, module in list(sys.modules.items()):
        if name.rpartition(".")[2] not in (
            stem,
            os.path.basename(os.path.dirname(real)),
        ) or name in ("__main__", "__mp_main__"):
            continue
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and _real(file) == real and not _has_changed(module, real):
            return module
    return None


def _has_changed(module: Any, real: str) -> bool:
    """Return True if the compiled file of an imported module belongs to another source."""
    try:
        with open(module.__cached__, "rb") as stream:
            head = stream.read(16)
        status = os.stat(real)
    except (AttributeError, TypeError, OSError):
        return False  # there is none, and nothing else tells
    if len(head) < 16 or head[4:8] != bytes(4):
        return False  # it goes by a hash
    made = int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little")
    return made != (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)


_PRIVATE = "_wetlands_file_"


def _name_for(real: str, stem: str) -> str:
    """Return the stem if ``import stem`` would mean this very file, or nothing.

    Else a private name.
    """
    import hashlib
    import importlib.util

    private = "%s%s_%s" % (_PRIVATE, stem, hashlib.sha256(os.fsencode(real)).hexdigest()[:8])
    loaded = sys.modules.get(stem)
    if loaded is not None:
        same = getattr(loaded, "__file__", None)
        return stem if same and _real(same) == real else private
    try:
        spec = importlib.util.find_spec(stem) if stem.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or (spec.origin and _real(spec.origin) == real):
        return stem
    return private


def _behind_stdlib() -> int:
    """Return the place in ``sys.path`` behind the standard library."""
    base = os.path.dirname(os.__file__)
    found = [
        i
        for i, path in enumerate(sys.path)
        if (path + os.sep).startswith(base + os.sep) and "-packages" not in path
    ]
    return found[-1] + 1 if found else 0


class FileFinder:
    """Finds the module of a file that was a target when it is imported by another name.

    For example by ``import package.model``.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find the module if the import means the same file."""
        stem = name.rpartition(".")[2]
        for file, _digest in list(_FILES):
            if os.path.basename(file) == stem + ".py":
                import _frozen_importlib_external as external

                spec = external.PathFinder.find_spec(name, path)
                if spec is None or not spec.origin:
                    return None
                for (known, _digest), module in list(_FILES.items()):
                    if known == _real(spec.origin):
                        loader: Any = FileLoader(module)
                        spec.loader = loader
                        return spec
                return None
        return None

    def invalidate_caches(self) -> None:
        """Nothing is cached; importlib asks every finder."""


class FileLoader:
    """Loads a module that exists."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def create_module(self, spec: Any) -> Any:
        """Return it."""
        return self.module

    def exec_module(self, module: Any) -> None:
        """It has been executed."""


#: Names of ``task_controller`` that the stand-in has, in ``wetlands_executor`` and in ``_TASKS``.
_OF_CONTROLLER = frozenset(("TaskController", "get_task_controller", "get_task_inputs"))
_TASKS = "wetlands_executor.tasks"
#: Where it has the exceptions of tasks inside tasks.
_WITH_ERRORS = ("wetlands_executor", "wetlands_executor.errors")


class LastResort:
    """Provides ``wetlands_executor`` where it is not installed.

    ``current_task`` works, other names exist until they are used.

    Stands first among the finders, because the host's own copy may be found through the host's
    project folders although this environment lacks what it needs (its dependencies, a Python of its
    age); a copy that belongs to the environment is always preferred.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find our names when no usable package answers to them."""
        package = name.partition(".")[0]
        if package == "wetlands_executor" and (
            self.serving if name != package else self._must_serve()
        ):
            make_spec: Any = type(sys.__spec__)
            return make_spec(name, self, origin="wetlands_executor (stand-in)", is_package=True)
        return None

    serving = False

    def _must_serve(self) -> bool:
        self.serving = False
        for finder in sys.meta_path:
            spec = finder.find_spec("wetlands_executor", None) if finder is not self else None
            if spec is not None:
                if not any(
                    (spec.origin or "").startswith(os.path.join(folder, "")) for folder in _PROJECT
                ):
                    return False
                import importlib.util

                needed = ("cloudpickle", "psutil", "typing_extensions")
                self.serving = sys.version_info < (3, 10) or any(
                    importlib.util.find_spec(need) is None for need in needed
                )
                return self.serving
        self.serving = True
        return True

    def create_module(self, spec: Any) -> None:
        """Let the import system make the module."""

    def exec_module(self, module: Any) -> None:
        """Fill the stand-in."""
        from . import current_task

        name, space = module.__name__, module.__dict__
        if name == "wetlands_executor":
            space["current_task"] = current_task.current_task
            space["RemoteTaskHandle"] = current_task.RemoteTaskHandle

        def lacking(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            if attribute in _OF_CONTROLLER or (attribute, name) == ("task", _TASKS):
                from . import task_controller

                return getattr(task_controller, attribute)
            from . import remote_errors

            if name in _WITH_ERRORS and attribute in remote_errors.BY_NAME:
                return remote_errors.BY_NAME[attribute]
            return _placeholder(name, attribute)

        space["__getattr__"] = lacking

    def invalidate_caches(self) -> None:
        """Nothing is cached; importlib asks every finder."""


def _placeholder(module: str, name: str) -> Any:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise ImportError(
            "%s.%s was used inside a worker whose environment (%s) does not have "
            "wetlands_executor: install it there, or use it on the "
            "host only" % (module, name, sys.prefix)
        )

    return type(
        name, (), {"__init__": fail, "__module__": module, "__doc__": "Stand-in; fails when used."}
    )


def use_authkey(key: bytes) -> None:
    """Make ``key`` the authentication key of ``multiprocessing``: Manager proxies connect with it.

    To import that for it would cost 10 ms of a start. Once per process.
    """

    def give(process: Any) -> None:
        process.current_process().authkey = key

    patches.after_import("multiprocessing.process", give)
