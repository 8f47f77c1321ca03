"""``__main__`` of a worker.

It stands for that of the host's program, for what ``pickle``, ``inspect`` and ``multiprocessing``
ask of it.

Functions and classes of the host's script travel by value and are rebuilt one by one; the script
itself does not run here. What is asked of ``__main__`` by name is looked up among them. Processes
that a task starts with ``multiprocessing`` (spawn, forkserver) run the script as ``__mp_main__``,
as those of a ``ProcessPoolExecutor`` do, if it can be imported: if it has the guard ``if __name__
== "__main__":`` (another one would do the host's work once more), and if this environment has what
it imports.
"""

from __future__ import annotations

import sys

from . import patches
from .system import native

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from .config import ProcessConfig

#: Functions of the host's ``__main__`` that were rebuilt here, by name.
_functions: Dict[str, Any] = {}


class HostProgram:
    """What the host has said of its program.

    Attributes:
        main: this worker's ``__main__``.
    """

    def __init__(self, prefix: str, file: Optional[str], main: Any) -> None:
        self.main = main
        self._prefix = prefix  # of the host's Python
        self._file = file  # of its script, None if there is none (a notebook, ``python -c``)
        self._importable: Optional[bool] = None

    def is_importable(self) -> bool:
        """Return True if other processes of this environment can run it as ``__mp_main__``."""
        if self._importable is None:
            self._importable = self._file is not None and _examine(self._file, self._prefix)
        return self._importable


#: Of this process's host.
_program = HostProgram("", None, None)


def install(config: ProcessConfig) -> None:
    """Make ``__main__`` stand for the host's.

    ``config`` has "main": (prefix, file or None, name or None for ``python -m``).
    """
    global _program  # a fact about this process
    prefix, file, name = config["main"]
    if file is not None:
        file = native(file)
    main = sys.modules["__main__"]
    _program = HostProgram(prefix, file, main)
    space = main.__dict__
    if file is not None:
        space["__file__"] = file
        if name is not None:
            make_spec: Any = type(sys.__spec__)
            space["__spec__"] = make_spec(name, None, origin=file)
    space["__getattr__"] = _look_up


def remember(function: Any) -> None:
    """Let a function that was rebuilt here be found in ``__main__``, if it comes from there."""
    if function.__module__ == "__main__" and "." not in function.__qualname__:
        _functions[function.__qualname__] = function


def _look_up(name: str) -> Any:
    """Return a function or class of the host's ``__main__`` that no global here refers to."""
    found = _functions.get(name)
    if found is None and not name.startswith("__"):
        cloudpickle = sys.modules.get(__name__.rpartition(".")[0] + ".cloudpickle")
        # The latest definition is the last.
        for kind in (
            list(cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.values())
            if cloudpickle is not None
            else ()
        ):
            if kind.__module__ == "__main__" and kind.__qualname__ == name:
                found = kind
    if found is None:
        raise AttributeError("module '__main__' of a worker has no attribute %r" % name)
    return found


def adjust_spawn(spawn: Any) -> None:
    """Let ``multiprocessing`` run the host's script in new processes only if they can import it."""
    patches.replace(spawn, "get_preparation_data", _preparing)


def _preparing(prepare: Any) -> Any:
    def get_preparation_data(name: str) -> Any:
        data = prepare(name)
        if sys.modules.get("__main__") is _program.main and not _program.is_importable():
            data.pop("init_main_from_path", None)
            data.pop("init_main_from_name", None)
        return data

    return get_preparation_data


def _examine(file: str, prefix: str) -> bool:
    """Return True if the script has its guard, and this environment has what it imports."""
    import ast

    try:
        with open(file, "rb") as stream:
            tree = ast.parse(stream.read(), file)
    except (OSError, SyntaxError, ValueError):
        return False
    guarded = False
    names = []
    for statement in tree.body:
        if isinstance(statement, ast.If) and any(
            isinstance(each, ast.Name) and each.id == "__name__"
            for each in ast.walk(statement.test)
        ):
            guarded = True
        elif isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            names.append(statement.module)
    return guarded and (sys.prefix == prefix or all(_has(name.partition(".")[0]) for name in names))


def _has(name: str) -> bool:
    """Return True if a new process of this environment finds a module.

    It lacks the stand-ins of this one.
    """
    import _frozen_importlib_external as external

    return (
        name in sys.builtin_module_names
        or name == "__future__"
        or external.PathFinder.find_spec(name) is not None
    )
