"""Functions of this package that run as tasks: whole scripts, and what ``import_module`` asks of a module."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, List, Sequence, Tuple, Union


def run_script(path: str, run_name: str, *args: Any) -> None:
    """Run a file as ``python path args...`` would, inside this worker; ``sys.argv`` and ``sys.path[0]`` are set for its duration."""
    import os
    import runpy

    argv, main = sys.argv, sys.modules.get("__main__")
    sys.argv = [path] + [str(arg) for arg in args]
    folder = os.path.dirname(path)
    sys.path.insert(0, folder)
    try:
        runpy.run_path(path, run_name=run_name)
    finally:
        sys.argv = argv
        if main is not None:
            sys.modules["__main__"] = main
        if folder in sys.path:
            sys.path.remove(folder)


def process_chunk(function: Union[Callable[..., Any], Tuple[Any, ...]], chunk: Sequence[Tuple[Any, ...]]) -> List[Any]:
    """Return the results of ``function`` (or of the one that a definition names) for each tuple of arguments in ``chunk``."""
    if isinstance(function, tuple):
        from . import imports

        call = imports.resolve(function)
    else:
        call = function
    from . import context, injection

    where = injection.position_of_task(call)
    if where is None:
        return [call(*args) for args in chunk]
    handle = context.current_task()
    found = []
    for given in chunk:
        args, kwargs = injection.with_handle(where, given, None, handle)
        found.append(call(*args, **(kwargs or {})))
    return found


def describe(definition: Tuple[Any, ...]) -> Tuple[List[str], List[str]]:
    """Return (names, callables) of a module: ``dir()`` and those of them that can be called.

    Args:
        definition: a definition of the module's file or reference with an empty qualname (see ``imports``).
    """
    module = _module(definition)
    names = dir(module)
    return names, [name for name in names if callable(getattr(module, name, None))]


def get_attribute(definition: Tuple[Any, ...], name: str) -> Any:
    """Return a data attribute of a module."""
    return getattr(_module(definition), name)


def _module(definition: Tuple[Any, ...]) -> Any:
    from . import imports

    if definition[0] == "file":
        return imports.module_of_file(*definition[1:4])
    return imports.import_named(definition[1])
