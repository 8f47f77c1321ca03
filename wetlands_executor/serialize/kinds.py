"""Kinds of objects that functions by value reach, and how each travels."""

from __future__ import annotations

import contextvars
import copyreg
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

#: Types of which each process makes its own object -> what makes it.
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


#: Classes that pickle themselves, and whose instances cannot be changed: module -> names.
_IMMUTABLE = {
    "datetime": ("date", "time", "datetime", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "ipaddress": ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "re": ("Pattern",),
    "uuid": ("UUID",),
    "zoneinfo": ("ZoneInfo",),
}


def is_immutable(kind: type) -> bool:
    """Return True for a class of the standard library or of numpy whose objects are values."""
    if kind.__module__ in ("numpy", "numpy.dtypes"):
        return any(
            base.__module__ == "numpy" and base.__name__ in ("generic", "dtype", "ufunc")
            for base in kind.__mro__
        )
    return kind.__name__ in _IMMUTABLE.get(kind.__module__, ())


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


#: Flag of classes that are not written in C, or at least made like those (Py_TPFLAGS_HEAPTYPE).
_OF_PYTHON = 1 << 9
_WITH_CONTENT = (dict, list, set, tuple, str, bytes, int, float, BaseException)


def may_be_stateless(kind: type) -> bool:
    """Return True if objects of a class have nothing but their ``__dict__`` to hold anything."""
    if issubclass(kind, _WITH_CONTENT):
        return False
    if not kind.__flags__ & _OF_PYTHON or not has_plain_state(kind):
        return False
    if hasattr(kind, "__setstate__") or getattr(kind, "__getstate__", None) is not getattr(
        object, "__getstate__", None
    ):
        # it says itself what it holds: BytesIO and StringIO, which are made like classes of Python
        # from 3.13 on
        return False
    return not any(vars(base).get("__slots__") for base in kind.__mro__)
