"""What a call looks like from its function: which functions get a handle, names of arguments.

Which functions get a handle as their parameter ``task`` is decided by signature, here in the
worker, once per function.

A parameter named ``task`` that the caller has not passed is filled if it has no default, the
default None, or the annotation ``RemoteTaskHandle``. ``**kwargs`` alone never is. ``inspect`` costs
10 ms, so a quick look at the code objects comes first.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple


_FUNCTION = type(lambda: None)
_METHOD = type(Exception().with_traceback)
_BOUND = type(type("_", (), {"f": lambda _self: None})().f)


def position_of_task(function: Any) -> Optional[Tuple[int, bool]]:
    """Return where the parameter ``task`` stands; None if it is not to be filled.

    (index among the positional parameters or -1, whether it is positional only).
    """
    try:
        if not _mentions_task(function, 0):
            return None
        import inspect

        parameters = list(inspect.signature(function).parameters.values())
    except Exception:  # noqa: BLE001
        # a C function, one that hides its signature, a callable whose attributes raise
        return None
    index = -1
    for number, parameter in enumerate(parameters):
        if parameter.name != "task":
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
        if parameter.kind is not parameter.KEYWORD_ONLY:
            index = number
        wanted = (
            parameter.default is parameter.empty
            or parameter.default is None
            or "RemoteTaskHandle" in _text(parameter.annotation)
        )
        return (index, parameter.kind is parameter.POSITIONAL_ONLY) if wanted else None
    return None


def with_handle(where: Tuple[int, bool], args: Any, kwargs: Any, handle: Any) -> Tuple[Any, Any]:
    """Return the arguments with ``handle`` as ``task``, unless the caller has passed one.

    Args:
        where: what ``position_of_task`` returned for the function.
        args: positional arguments.
        kwargs: keyword arguments, or None.
        handle: what the function gets.
    """
    index, positional_only = where
    if (kwargs and "task" in kwargs) or 0 <= index < len(args):
        return args, kwargs
    if positional_only:
        return (tuple(args) + (handle,), kwargs) if len(args) == index else (args, kwargs)
    return args, dict(kwargs or {}, task=handle)


def name_of(function: Any) -> str:
    """Return the name of what is called: ``mod.func``, ``Class.method``, ``<lambda>``."""
    name = str(getattr(function, "__qualname__", None) or type(function).__qualname__)
    if name.endswith("<lambda>"):
        return "<lambda>"
    name = name.rpartition("<locals>.")[2]
    module = getattr(function, "__module__", None)
    if "." in name or module in (None, "__main__", "builtins"):
        return name
    return "%s.%s" % (module, name)


def _without_partial(function: Any, args: Any, kwargs: Any) -> Tuple[Any, Any, Any]:
    """Return the call that a ``functools.partial`` object makes; any other call as it is."""
    import functools

    placeholder: Any = getattr(functools, "Placeholder", functools)
    while type(function) is functools.partial and not any(
        each is placeholder for each in function.args
    ):
        args = (*function.args, *(args or ()))
        kwargs = dict(function.keywords, **(kwargs or {}))
        function = function.func
    return function, args, kwargs


def named_arguments(function: Any, args: Any, kwargs: Any) -> Dict[str, Any]:
    """Return the arguments of a call by name; positional ones beyond the names by their number.

    Args:
        function: what is called.
        args: positional arguments, or None.
        kwargs: keyword arguments, or None.
    """
    function, args, kwargs = _without_partial(function, args, kwargs)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    if hasattr(function, "__func__"):
        names = names[1:]
    found = {
        names[i] if i < len(names) else str(i - len(names)): value
        for i, value in enumerate(args or ())
    }
    found.update(kwargs or {})
    return found


def inputs_of(function: Any, args: Any, kwargs: Any, defaults: bool) -> Dict[str, Any]:
    """Return the arguments of a call by name.

    Args:
        function: what is called.
        args: positional arguments, or None.
        kwargs: keyword arguments, or None.
        defaults: also those that were not given and have a default; but not the ``task`` that is
            filled by the library.
    """
    function, args, kwargs = _without_partial(function, args, kwargs)
    named = named_arguments(function, args, kwargs)
    if not defaults:
        return named
    import inspect

    try:
        bound = inspect.signature(function).bind_partial(*(args or ()), **(kwargs or {}))
    except (TypeError, ValueError):
        return named  # a C function, or arguments that do not fit
    given = set(bound.arguments)
    bound.apply_defaults()
    found: Dict[str, Any] = {}
    for parameter in bound.signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.update(bound.arguments[parameter.name])
        elif parameter.name in bound.arguments:
            found[parameter.name] = bound.arguments[parameter.name]
    if "task" not in given and position_of_task(function) is not None:
        found.pop("task", None)
    return found


def _text(annotation: Any) -> str:
    return (
        annotation
        if isinstance(annotation, str)
        else "%s %s" % (getattr(annotation, "__name__", ""), annotation)
    )


def _mentions_task(function: Any, depth: int) -> bool:
    """Return True if a function, or what it wraps, has a parameter or variable ``task``."""
    if depth > 20:
        return True
    code = getattr(function, "__code__", None)
    if code is not None:
        count = code.co_argcount + code.co_kwonlyargcount
        if "task" in code.co_varnames[:count]:
            return True
    if "task" in (getattr(function, "keywords", None) or ()):
        return False  # a partial in which the user has filled it
    for name in ("__wrapped__", "__func__", "func"):
        inner = getattr(function, name, None)
        if inner is not None and inner is not function and _mentions_task(inner, depth + 1):
            return True
    if type(function) in (_FUNCTION, _METHOD, _BOUND):
        return False
    if hasattr(function, "__signature__"):
        return True
    if isinstance(function, type):
        targets = [getattr(function, "__init__", None), getattr(function, "__new__", None)]
    else:
        targets = [getattr(type(function), "__call__", None)]
    return any(
        getattr(target, "__code__", None) is not None and _mentions_task(target, depth + 1)
        for target in targets
    )
