"""Kinds of objects that functions by value reach, and how each travels."""

from __future__ import annotations

import contextvars
import copyreg
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

#: Made anew in each process: type -> how.
LOCK, RLOCK = type(threading.Lock()), type(threading.RLock())
SYNCHRONIZERS: dict[Any, Callable[[Any], tuple[Any, ...]]] = {
    threading.Event: lambda _obj: (),
    threading.Condition: lambda obj: (obj._lock,),
    threading.Semaphore: lambda obj: (obj._value,),
    threading.BoundedSemaphore: lambda obj: (obj._initial_value,),
    threading.Barrier: lambda obj: (obj._parties, obj._action, obj._timeout),
}
WEAK_DICTIONARIES = (weakref.WeakValueDictionary, weakref.WeakKeyDictionary)
QUEUES = (queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue)
PER_PROCESS = (
    LOCK,
    RLOCK,
    *SYNCHRONIZERS,
    *QUEUES,
    threading.local,
    contextvars.ContextVar,
    *WEAK_DICTIONARIES,
)


def default_of(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """Return the default of a context variable in a tuple, which is empty if it has none."""
    try:
        return (contextvars.Context().run(variable.get),)
    except LookupError:
        return ()


_REDUCE_EX, _REDUCE = object.__reduce_ex__, object.__reduce__


def has_plain_state(kind: type) -> bool:
    """Return True if objects of a class are reduced as ``object`` does it.

    The class, ``__dict__``, slots, items.
    """
    return (
        getattr(kind, "__reduce_ex__", None) is _REDUCE_EX
        and getattr(kind, "__reduce__", None) is _REDUCE
        and kind not in copyreg.dispatch_table
        and kind.__module__ not in ("numpy", "functools", "typing", "types")
    )
