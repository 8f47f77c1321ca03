"""Context variables and functions that look at them, in a module that workers import.

Standard library only, Python 3.8 or newer; OpenTelemetry where a function imports it.
"""

import asyncio
import contextvars

REQUEST = contextvars.ContextVar("request", default="none")
USER = contextvars.ContextVar("user")


def look(fail=False):
    """Return what the variables hold."""
    if fail:
        raise LookupError("on purpose")
    return REQUEST.get(), USER.get(None)


async def look_later():
    """Do the same in a coroutine."""
    await asyncio.sleep(0)
    return look()


def change():
    """Change one; the next call must not see it."""
    REQUEST.set("changed")
    return look()


def look_with_handle(task=None):
    """Do the same with a handle."""
    return (*look(), task.name)


def keep_spans():
    """Have this process keep its spans."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    global _exporter  # of this process
    _exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(provider)


def spans():
    """Return what the spans of this process say, and forget them."""
    found = [
        (
            span.name,
            format(span.context.trace_id, "032x"),
            format(span.parent.span_id, "016x") if span.parent else "",
            dict(span.attributes or {}),
            span.status.status_code.name,
        )
        for span in _exporter.get_finished_spans()
    ]
    _exporter.clear()
    return found
