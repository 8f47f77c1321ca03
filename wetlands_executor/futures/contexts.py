"""Which of the caller's context variables travel with a call, and its trace; see ``options``.

Owns no state; entered by the threads that submit. The other end is ``worker/contexts.py``.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from wetlands_executor.errors import describe
from wetlands_executor.worker.contexts import find

#: Stands for the trace of OpenTelemetry.
TRACE = "traceparent"
#: A name that travels: of a variable, ``module:name``, or ``TRACE``.
Names = tuple[str, ...]
#: Of a variable that has no value.
_NOTHING = object()


def names_of(context: Iterable[str | ContextVar[Any]]) -> Names:
    """Return the names of what is to travel.

    Args:
        context: context variables, or their names ``"module:name"``; or ``"traceparent"``.

    Raises:
        TypeError, ValueError: something that no other process can find.
        ImportError: tracing was asked for, and OpenTelemetry is missing.
    """
    if isinstance(context, (str, ContextVar)):
        raise TypeError(f"context must be a list: write context=[{context!r}]")
    return tuple(_name_of(each) for each in context)


def _name_of(given: str | ContextVar[Any]) -> str:
    if isinstance(given, ContextVar):
        return _place_of(given)
    if not isinstance(given, str):
        raise TypeError(f"context holds {given!r}, which is neither a context variable nor a name")
    if given == TRACE:
        _opentelemetry()
        return given
    module, colon, name = given.partition(":")
    if not colon or not name.isidentifier() or not module:
        raise ValueError(
            f"context holds {given!r}: write 'module:variable' or {TRACE!r} (OpenTelemetry's trace)"
        )
    return given


def _place_of(variable: ContextVar[Any]) -> str:
    """Return the name of a variable: of the module that has it."""
    for module_name, module in list(sys.modules.items()):
        if module_name in ("__main__", "__mp_main__"):
            continue
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return f"{module_name}:{name}"
    raise ValueError(
        f"the context variable {variable.name!r} stands in no module that a worker can import: "
        f"define it in a module, not in the script or a function"
    )


def _opentelemetry() -> Any:
    try:
        import opentelemetry.propagate
    except ImportError:
        raise ImportError(
            f"context={[TRACE]!r} needs OpenTelemetry: "
            f"python -m pip install 'wetlands-executor[otel]'"
        ) from None
    return opentelemetry.propagate


def carried(names: Iterable[str]) -> bytes:
    """Return what travels now, in the context of the calling code.

    Raises:
        LookupError: a variable is missing.
        TypeError: a value cannot be pickled.
    """
    values = []
    carrier: dict[str, str] | None = None
    for each in names:
        if each == TRACE:
            carrier = {}
            _opentelemetry().inject(carrier)
            continue
        module, _, name = each.partition(":")
        value = find(module, name).get(_NOTHING)
        if value is not _NOTHING:
            values.append((module, name, value))
    try:
        return pickle.dumps((values, carrier, time.time()), 4)
    except Exception as error:
        raise TypeError(
            f"the values of the context variables {list(names)} cannot be sent: {describe(error)}"
        ) from error
