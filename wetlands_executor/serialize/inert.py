"""Inert types: those whose objects are pickled and unpickled without code of the user's.

Builtin containers and numbers, arrays of numbers, dates, and instances of classes that say nothing
about their pickling, or leave it to the standard library (``inert_classes.py``). So a short call of
such arguments is pickled at once (``pickled``), and a short result is read by the thread that waits
for it (``read``), where anything else has to go to a thread on which user code may run.

Any thread enters. Owns no state but what is known of types, which is a cache.
"""

from __future__ import annotations

import copyreg
import datetime as dt
import decimal
import enum
import io
import pickle
import sys
import types
from abc import ABCMeta
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import cloudpickle

from wetlands_executor.serialize import kinds, references, restricted
from wetlands_executor.serialize.inert_classes import is_inert as _is_inert
from wetlands_executor.serialize.scalars import SCALARS
from wetlands_executor.sharedmem import share
from wetlands_executor.worker import imports

#: Bytes up to which a pickle is short. A longer one is left to ``CallPickler`` as soon as it is
#: longer: what has been pickled by then costs little beside the whole.
SHORT = 1 << 16


class NotInert(Exception):  # noqa: N818 - never leaves this module
    """An object is of another type, or the pickle is long."""


def _reduce_normally(_obj: Any) -> Any:
    return NotImplemented


def _check_named(obj: Any) -> Any:
    """Let what the reader finds by its name be named."""
    if obj in _NAMED:
        return NotImplemented
    reference = references.reference_to(obj)
    if (
        reference is None
        or references.is_rewritten(reference)
        or cloudpickle.list_registry_pickle_by_value()
    ):
        raise NotInert
    return NotImplemented if reference.file is None else (imports.fetch, tuple(reference))


_TYPES = (
    complex,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    dt.timezone,
    decimal.Decimal,
    deque,
    OrderedDict,
    range,
    slice,
)
#: Type -> how its objects are reduced: as usual, or NotInert if that depends on the object.
_REDUCERS: dict[Any, Callable[[Any], Any]] = {
    **dict.fromkeys(_TYPES, _reduce_normally),
    **dict.fromkeys((type, ABCMeta, enum.EnumMeta, types.FunctionType), _check_named),
}
#: What ``copyreg`` has for some of these types; a program may have put something else there.
_TABLE: dict[Any, Any] = {complex: copyreg.dispatch_table.get(complex)}
#: Classes and functions that the pickles of these types name.
_NAMED: set[Any] = {*_TYPES, imports.fetch}
#: (module, name) in a pickle -> what that is here.
_NAMES: dict[tuple[str, str], Any] = {
    (kind.__module__, kind.__qualname__): kind for kind in (*_TYPES, bytearray, set, frozenset)
}

# --- numpy

_NUMBERS = "?bBhHiIlLqQefdgFDG"
#: Packages of functions that pickles of arrays name, in numpy 2 and before.
_CORES = ("numpy._core", "numpy.core")
_ARRAY: Any = None


def _learn_numpy() -> None:
    """Learn the types of numpy's numbers and their arrays, if numpy has been imported."""
    global _ARRAY  # a fact about this process
    numpy: Any = sys.modules.get("numpy")
    core = _CORES[0] if hasattr(numpy, "_core") else _CORES[1]
    numeric: Any = sys.modules.get(core + ".numeric")
    multiarray: Any = sys.modules.get(core + ".multiarray")
    if numeric is None or multiarray is None or not hasattr(numpy, "random"):
        return  # it is not there, or being imported
    functions = {
        ("numeric", "_frombuffer"): numeric._frombuffer,
        ("multiarray", "_reconstruct"): multiarray._reconstruct,
        ("multiarray", "scalar"): multiarray.scalar,
    }
    if numeric._frombuffer.__code__.co_argcount < 5:
        # it does not read what newer versions send; see ``moved_names``
        del functions["numeric", "_frombuffer"]
    for (module, name), function in functions.items():
        _NAMES.update({(f"{package}.{module}", name): function for package in _CORES})
    classes = {numpy.ndarray, numpy.dtype}
    _NAMES.update({("numpy", kind.__name__): kind for kind in classes})
    dtypes = [numpy.dtype(code) for code in _NUMBERS]
    numbers = {dtype.type for dtype in dtypes}
    _NAMED.update(functions.values(), classes, numbers)
    _REDUCERS.update(dict.fromkeys(numbers, _reduce_normally))
    _REDUCERS.update(dict.fromkeys(map(type, dtypes), _check_dtype))
    for kind in {type(each) for each in (*functions.values(), *classes)} - {type}:
        _REDUCERS[kind] = _check_named
        _TABLE[kind] = copyreg.dispatch_table.get(kind)
    _REDUCERS[numpy.ndarray] = _check_array
    _ARRAY = numpy.ndarray


def _check_dtype(dtype: Any) -> Any:
    if dtype.isbuiltin == 1 and dtype.metadata is None:
        return NotImplemented
    raise NotInert


def _check_array(array: Any) -> Any:
    if is_of_numbers(array):
        return NotImplemented
    raise NotInert


def is_of_numbers(array: Any) -> bool:
    """Return True for an array of numpy whose pickle is the same in every version."""
    dtype = array.dtype
    return bool(dtype.kind in "biufc" and dtype.isbuiltin == 1 and dtype.metadata is None)


def are_arrays(values: tuple[Any, ...]) -> int:
    """Return the bytes of all arrays if the values are scalars and arrays of numbers; else -1."""
    if _ARRAY is None:
        if "numpy" not in sys.modules:
            return -1
        _learn_numpy()
        if _ARRAY is None:
            return -1
    if _ARRAY in copyreg.dispatch_table or share.any_shared():
        return -1
    size = 0
    for value in values:
        kind = type(value)
        if kind is _ARRAY:
            if not is_of_numbers(value):
                return -1
            size += value.nbytes
        elif kind not in SCALARS:
            return -1
    return size


# --- pickling


class _Short:
    """A file that takes one short piece of a pickle."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def write(self, piece: Any) -> None:
        """Take the piece."""
        if self.data or len(piece) > SHORT:
            raise NotInert
        self.data = piece


class _InertPickler(pickle.Pickler):
    """The C pickler, which asks about everything but builtin containers and numbers."""

    #: Something was named, for which other versions may have another name.
    named = False

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        reducer = _REDUCERS.get(kind)
        if reducer is None:
            if not _is_inert(kind) or (
                not getattr(obj, "__dict__", None)
                and (kind is object or kinds.may_be_stateless(kind))
            ):
                raise NotInert  # what holds nothing may be a sentinel
        elif copyreg.dispatch_table.get(kind) is not _TABLE.get(kind):
            raise NotInert
        self.named = True
        return NotImplemented if reducer is None else reducer(obj)


def pickled(value: Any) -> tuple[bytes, bool] | None:
    """Pickle what is inert and short; return the bytes, and whether they name anything.

    None for everything else. Runs no code of the user's.
    """
    if _ARRAY is None and "numpy" in sys.modules:
        _learn_numpy()
    if share.any_shared():
        return None  # an array may be a view of a shared one
    file = _Short()
    pickler = _InertPickler(file, 5)
    try:
        pickler.dump(value)
    except (NotInert, RecursionError, MemoryError):
        return None
    except Exception as error:
        if _is_own(error):
            return None  # the error is met again where it can be reported to the task
        raise
    return file.data, pickler.named


# --- unpickling


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _NAMES.get((module, name))
        if found is None:
            # not imported, which may have to wait
            space = getattr(sys.modules.get(module), "__dict__", None)
            found = space.get(name) if type(space) is dict else None
            if found is None and "." in name:
                found = _within(space, name)
            if not _is_inert(found):
                raise NotInert
        return found


def _within(space: Any, name: str) -> Any:
    """Return a class that stands in another one, by its dotted name; None for anything else."""
    first, *names = name.split(".")
    found = space.get(first) if type(space) is dict else None
    for each in names:
        found = vars(found).get(each) if isinstance(found, type) else None
    return found


def read(data: bytes) -> tuple[Any] | None:
    """Return what a pickle of inert objects holds, in a tuple; None if it holds anything else.

    Runs no code of the user's.

    Raises:
        Exception: of a signal handler, in a thread where there may be any.
    """
    if restricted.extensions:
        return None
    if _ARRAY is None and "numpy" in sys.modules:
        _learn_numpy()
    try:
        return (_InertUnpickler(io.BytesIO(data)).load(),)
    except NotInert:
        return None
    except Exception as error:
        if _is_own(error):
            return None
        raise


#: Modules whose code makes and reduces objects of inert classes.
_LIBRARY = frozenset(
    ("dataclasses", "enum", "fractions", "ipaddress", "pathlib", "pathlib._local", "uuid")
)


def _is_own(error: Exception) -> bool:
    """Return True if an exception is that of code which was called, and of no signal handler."""
    trace: Any = error.__traceback__
    if trace is None or trace.tb_next is None:
        return True  # of C code
    while trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "")
    return name in _LIBRARY or str(name).startswith("namedtuple_")
