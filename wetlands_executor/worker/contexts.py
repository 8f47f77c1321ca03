"""What a call takes along of its caller's context: context variables, and the trace that it is of.

The host sends a pickle of (variables, trace, time): (module, name, value) of each variable; the
carrier of OpenTelemetry, None if tracing was not asked for; when it was submitted. Runs in workers,
and in threads of the host. Owns no state.
"""

from __future__ import annotations

import time

from .calls import loads_rich
from .coroutines import COROUTINE, run_coroutine

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

#: Attributes of a task's span; the times are in seconds.
TASK_ID, QUEUE_TIME, RUN_TIME = (
    "wetlands_executor.task.id",
    "wetlands_executor.queue_time",
    "wetlands_executor.run_time",
)


def within(carried: bytes, function: Any, name: str, task_id: str) -> Callable[..., Any]:
    """Return a function that does the same in the context of its caller.

    Args:
        carried: what the host has sent.
        function: what is called.
        name: of the task.
        task_id: of the task.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        variables, carrier, submitted = loads_rich(carried)
        tokens = []
        try:
            for module, attribute, value in variables:
                variable = find(module, attribute)
                tokens.append((variable, variable.set(value)))
            if carrier is None:
                return _completed(function, args, kwargs)
            return _traced(function, args, kwargs, carrier, submitted, name, task_id)
        finally:
            for variable, token in reversed(tokens):
                variable.reset(token)

    return call


def find(module: str, attribute: str) -> Any:
    """Return a context variable.

    Raises:
        LookupError: it is not there.
    """
    import importlib
    from contextvars import ContextVar

    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise LookupError(
            "the context variable %s:%s cannot be found here: %s" % (module, attribute, error)
        ) from error
    if not isinstance(found, ContextVar):
        raise LookupError("%s:%s is no context variable, but %r" % (module, attribute, found))
    return found


def _completed(function: Any, args: Any, kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    # Here, as long as the context is there.
    return run_coroutine(value) if type(value) is COROUTINE else value


def _traced(
    function: Any,
    args: Any,
    kwargs: Dict[str, Any],
    carrier: Dict[str, str],
    submitted: float,
    name: str,
    task_id: str,
) -> Any:
    """Call a function in a span that is a child of the caller's.

    Where OpenTelemetry is missing, just call it.
    """
    import importlib

    try:
        propagate: Any = importlib.import_module("opentelemetry.propagate")
        trace: Any = importlib.import_module("opentelemetry.trace")
    except ImportError:
        return _completed(function, args, kwargs)
    began = time.monotonic()
    attributes: Dict[str, Any] = {TASK_ID: task_id, QUEUE_TIME: max(time.time() - submitted, 0.0)}
    tracer = trace.get_tracer("wetlands_executor")
    with tracer.start_as_current_span(
        name, context=propagate.extract(carrier), attributes=attributes
    ) as span:
        try:
            return _completed(function, args, kwargs)
        finally:
            span.set_attribute(RUN_TIME, time.monotonic() - began)
