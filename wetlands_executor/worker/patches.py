"""Changes modules of the standard library, so that code of tasks reaches the worker through them.

Owns the method: a function is replaced by one that looks like it (``replace``), once; and a module
that is not imported yet is changed when a task imports it (``after_import``), because importing it
now would cost milliseconds of a start. What is changed, and why, is said by the callers.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List

#: Module -> the changes to make when it is imported.
_after: Dict[str, List[Callable[[Any], object]]] = {}


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> Any:
    """Replace a function with ``make(function)``, unless that was done before.

    Args:
        owner: its module or class.
        name: its name there.
        make: returns a function that calls the one that it is given.

    Returns:
        What stands there now; None if there is no such function.
    """
    original = getattr(owner, name, None)
    if original is None or _original_of(original) is not None:
        return original
    made = make(original)
    made.__name__, made.__qualname__ = original.__name__, original.__qualname__
    made.__doc__ = original.__doc__
    made._wetlands_original = original
    setattr(owner, name, made)
    return made


def replace_copy(owner: Any, name: str, made: Any) -> None:
    """Do the same where another module has taken the original over.

    Args:
        owner: that module; None if it is not imported.
        name: what it is called there.
        made: what ``replace`` has returned.
    """
    original = _original_of(made)
    if original is not None and getattr(owner, name, None) is original:
        setattr(owner, name, made)


def _original_of(function: Any) -> Any:
    return getattr(function, "_wetlands_original", None)


def after_import(name: str, add: Callable[[Any], object]) -> None:
    """Call ``add(module)`` now if a module is imported, and whenever it is imported later."""
    if not _after:
        sys.meta_path.insert(0, _Finder())
    _after.setdefault(name, []).append(add)
    module = sys.modules.get(name)
    if module is not None:
        add(module)


class _Finder:
    """Finds the modules that are changed when they are imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find the real module, and add to its execution."""
        if name not in _after:
            return None
        import _frozen_importlib_external as external

        spec = external.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                for add in _after[name]:
                    add(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def invalidate_caches(self) -> None:
        """Nothing is cached; importlib asks every finder."""
