"""Objects that functions by value reach and that travel by rules of their own.

Sentinels, which are nothing but their identity; what each process has for itself; what belongs to
the host's process and is refused. And the words for what cannot be sent.

Called by ``by_value.ByValuePickler``, on the thread that submits.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import enum
import logging
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from cloudpickle import cloudpickle as _cp

from wetlands_executor.serialize import (
    changes,
    fingerprints,
    identity,
    kinds,
    references,
    sentinels,
)
from wetlands_executor.serialize.identity import Mark
from wetlands_executor.serialize.pickler import VARYING
from wetlands_executor.worker import objects

#: What belongs to this process.
PROCESS_BOUND_TYPES = (
    concurrent.futures.Future,
    concurrent.futures.Executor,
    threading.Thread,
    subprocess.Popen,
)


def has_remote_form(obj: Any) -> bool:
    """Return True for an executor that says what it is in a worker: one of ours."""
    return isinstance(obj, concurrent.futures.Executor) and (
        type(obj).__reduce__ is not object.__reduce__
    )


class BoundToProcessError(pickle.PicklingError, TypeError):
    """A Task, a thread or the like stands in a closure or a global.

    Pickling one elsewhere is a TypeError, as here.
    """


def refuse_process_bound(obj: Any, kind: type) -> None:
    """Raise for what has no meaning in another process; for libraries of ``ctypes`` too."""
    library = getattr(sys.modules.get("ctypes"), "CDLL", ())
    if isinstance(obj, (PROCESS_BOUND_TYPES, library)):
        raise BoundToProcessError(f"a {kind.__qualname__} belongs to this process")


def explain(error: BaseException, at: Mark, explain_code: Callable[..., None]) -> None:
    """Raise an error that says which global it was.

    Args:
        error: what pickling has raised.
        at: the global, or the attribute of a class.
        explain_code: raises a better error if code on its way to another Python was at fault.
    """
    if getattr(error, "explained", False) or type(error).__module__ not in (
        "builtins",
        "_pickle",
        "pickle",
        __name__,
    ):
        return
    reason = str(error)
    try:
        if isinstance(error, (TypeError, pickle.PicklingError)):
            explain_code(error, named=True)
    except pickle.PicklingError as other:
        reason = str(other)
    found = (
        BoundToProcessError if isinstance(error, BoundToProcessError) else pickle.PicklingError
    )(
        f"the {at.kind} {at.name!r}, which {at.function} uses, cannot be sent to a worker: "
        f"{reason}. Make it inside the function, or "
        f"once per worker with an initializer that sets it, or put {at.function} into a "
        f"module that the worker can import"
    )
    found.explained = True  # type: ignore[attr-defined]
    raise found from error


def reduce_anew(obj: Any, kind: Any, number: int) -> Any:
    """Reduce what each process has for itself: a lock, an event, a queue and their like."""
    if kind is kinds.LOCK:
        return objects.make, (number, objects.lock, ())
    if kind is kinds.RLOCK:
        return objects.make, (number, objects.rlock, ())
    if kind in kinds.SYNCHRONIZERS:
        return objects.make, (
            number,
            objects.synchronizer,
            (kind.__name__, kinds.SYNCHRONIZERS[kind](obj)),
        )
    if kind in kinds.QUEUES:
        return objects.make, (
            number,
            objects.queue,
            (kind.__name__, (obj.maxsize,) if hasattr(obj, "maxsize") else ()),
        )
    if isinstance(obj, threading.local):
        return objects.make, (number, objects.local, (kind,))
    if kind in kinds.WEAK_DICTIONARIES:
        return objects.make, (number, objects.weak_dictionary, (kind.__name__,))
    return objects.make, (number, objects.context_variable, (obj.name, kinds.default_of(obj)))


def reduce_sentinel(obj: Any, record: identity.Record) -> Any:
    """Reduce an argument that holds nothing, and so is nothing but its identity.

    None for everything else.
    """
    if not sentinels.is_stateless(obj):
        return None
    number = sentinels.note_sentinel(record.of(obj))
    names = sentinels.names_of(obj, _is_importable)
    if names:
        return objects.named, (number, names)
    if type(obj) is object:
        return objects.begin, (number, objects.OBJECT)
    if getattr(obj, "__dict__", None):
        return None
    function, args, *_ = obj.__reduce_ex__(4)
    return objects.sentinel, (number, function, args)


def _is_importable(module: types.ModuleType) -> bool:
    """Return True for a module that a worker imports; functions of others travel by value."""
    return references.is_importable(module) and not _cp._is_registered_pickle_by_value(module)


def refuse_locks(kind: Any, state: Any) -> None:
    """Refuse an object of an installed library that holds a lock.

    It would hardly be what it was with a new one.
    """
    if not isinstance(state, dict) or kind.__module__ in ("queue", "threading"):
        return
    for value in state.values():
        if isinstance(value, kinds.PER_PROCESS):
            reference = references.reference_to(kind)
            if reference is not None and reference.file is None:
                raise pickle.PicklingError(
                    f"cannot pickle {type(value).__qualname__!r} object, "
                    f"which a {kind.__qualname__} holds"
                )
            return


def visit_parts(found: Any, visit: Callable[[Any], Any], depth: int = 0) -> None:
    """Visit the containers that the reduction of a class is made of.

    What an attribute holds is not among them.
    """
    if type(found) in (list, dict):
        visit(found)
        if depth > 0 and type(found) is dict:
            return
        depth += 1
    if type(found) in (tuple, list):
        for part in found:
            visit_parts(part, visit, depth)


def has_rules_of_its_own(obj: Any, kind: Any) -> bool:
    """Return True for what travels as in calls, and gets no number."""
    return (
        kind.__module__ in _RULE_MODULES
        or kind in VARYING
        or kind.__name__ in ("singledispatchmethod", "cached_property")
        # a member is the only one of its kind in its class, which travels with it
        or isinstance(obj, (types.GenericAlias, logging.Logger, enum.Enum))
    )


_RULE_MODULES = (
    "typing",
    "types",
    "enum",
    "wetlands_executor.worker.code_reductions",
    "annotationlib",
)


def check_of_opaque(obj: Any, kind: Any, known: identity.Known) -> tuple[Any, ...] | None:
    """Return the check that tells whether an object that pickles itself has changed.

    Empty if its identity says all; None if nothing can tell.
    """
    if kinds.is_immutable(kind) or references.reference_to(obj) is not None:
        return ()
    if fingerprints.is_array(obj):
        with contextlib.suppress(BufferError, TypeError, ValueError):
            return (changes.ARRAY, known, fingerprints.sample_of_array(obj))
    return None
