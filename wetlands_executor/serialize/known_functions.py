"""Calls of functions by value that workers know already.

A function that was submitted before and has not changed, and what is made anew of one: a lambda in
a loop, a bound method, a ``functools.partial``.

Entered by any thread that submits, without a lock.
"""

from __future__ import annotations

import functools
import pickle
import types
from typing import TYPE_CHECKING, Any, Protocol, cast

from wetlands_executor.serialize import pickler, references
from wetlands_executor.serialize.definitions import (
    Definition,
    by_value,
    define,
    importable,
    wants_value,
)
from wetlands_executor.serialize.encoded import (
    DefinedCall,
    KnownCall,
    ObjectsCall,
    encode_at_once,
    encode_inert,
    encoded,
)
from wetlands_executor.serialize.pickler import PROTOCOL
from wetlands_executor.serialize.scalars import are_numbers
from wetlands_executor.worker import wire
from wetlands_executor.worker.calls import Pieces
from wetlands_executor.worker.code_templates import CLOSURE, METHOD, NUMBERED, PARTIAL

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Record
    from wetlands_executor.serialize.interpreter import RemoteInterpreter
    from wetlands_executor.serialize.templates import Code, Made
    from wetlands_executor.serialize.watched import Watched

_PLACEHOLDER = getattr(functools, "Placeholder", None)  # Python 3.14
_CONTAINERS = frozenset((list, tuple, dict))
#: What is made anew each time of a function that may be known.
_MADE = frozenset((types.MethodType, functools.partial))


class Pool(Protocol):
    """What is asked of the pool that a call is for."""

    settings: Any
    forgetting: Any


def _templates() -> Any:
    """Return what knows callables that are made anew, imported when the first of them is met."""
    return pickler.late("wetlands_executor.serialize.templates")


def _instances() -> Any:
    return pickler.late("wetlands_executor.serialize.instances")


def encode_again(fn: Any, args: tuple[Any, ...], pool: Pool) -> KnownCall | None:
    """As ``encode_at_once``, for a function by value that was submitted before and is unchanged.

    And for what is made anew of a function that workers know. None for every other call.
    """
    record: Record | None = pool.settings.remote.record
    if record is not None and record.dirty:
        pool.forgetting.tidy(record)
    kind = type(fn)
    if kind is functools.partial and not fn.keywords and is_joined(fn):
        args, fn = fn.args + args, fn.func
        at_once = encode_at_once(fn, args, None)
        if at_once is not None:
            return at_once
        kind = type(fn)
    steps: tuple[Any, ...] = ()
    found: Watched | None = None if record is None else record.functions.get(id(fn))
    if found is not None:
        definition = found.definition
        if definition is None or not found.is_same(fn):
            return None
    else:
        definition = importable.get(id(fn))
        if definition is not None:
            # its arguments are no scalars: ``encode_at_once`` has looked
            return None if definition.rewritten else _encode_values(definition, (), args, record)
        if kind is types.FunctionType:  # as in `find`: a lambda in a loop
            code: Code | None = None if record is None else record.codes.get(id(fn.__code__))
            template = None if code is None else code.template
            given = None if template is None or record is None else template.steps(fn, record)
            if template is None or given is None:
                return None
            definition, steps = template.definition, given
        elif kind in _MADE and record is not None and (known := _known_inner(fn, record)):
            definition, steps = known
        else:
            again = find(fn, record)
            if again is None:
                return None
            definition, steps = again
    return _encode(definition, steps, args, record)


def _encode(
    definition: Definition, steps: tuple[Any, ...], args: tuple[Any, ...], record: Record | None
) -> KnownCall | None:
    """Pickle a call of what the steps make of a known function; None if that needs more than C."""
    if not steps:
        if not args and definition.without_arguments is not None:
            kept: DefinedCall = definition.without_arguments
            return kept
        call = encode_at_once(None, args, definition)
        if call is not None:
            return call
    elif steps[0] != METHOD:
        # a lambda in a loop, or a partial object with a number
        if len(steps) == 2 and not args and (steps[0] == CLOSURE or _are_numbers(steps)):
            payload = pickle.dumps((steps, args, None), PROTOCOL)
        else:
            payload = _templates().pickled(steps, args, None)
        if payload is not None:
            if NUMBERED in steps[::2]:
                return _encode_numbered(definition, payload, record)
            if len(payload) > wire.INLINE:
                return encode_made(definition, steps, args, None)
            name, bytecode = definition.by_value, definition.bytecode
            return DefinedCall(definition, wire.NO_REFERENCES | wire.MADE, payload, name, bytecode)
    if NUMBERED in steps[::2]:
        return None
    return _encode_values(definition, steps, args, record)


def _encode_values(
    definition: Definition, steps: tuple[Any, ...], args: tuple[Any, ...], record: Record | None
) -> KnownCall | None:
    """As ``_encode``, for what is no plain scalars."""
    if record is None or not _may_be_known((*steps[1:], *args) if steps else args, record):
        call = encode_inert(definition, steps or None, args)
        if call is not None or record is None:
            return call
    return _encode_objects(definition, steps, args, record)


def _are_numbers(steps: tuple[Any, ...]) -> bool:
    """Return True for the step of a partial object that has numbers only: see ``is_plain``."""
    return steps[0] == PARTIAL and are_numbers(*steps[1])


def _may_be_known(values: tuple[Any, ...], record: Record) -> bool:
    """Return True if a value is of a class by value, or the first one in a container is.

    A guess, of which way is tried first: the C pickler, which looks into everything and gives up
    at such an object; or ``instances``, which looks into everything in Python.
    """
    known = record.functions
    for value in values:
        kind = type(value)
        if kind in _CONTAINERS and value:
            try:
                kind = type(next(iter(value.values() if kind is dict else value)))
            except (StopIteration, RuntimeError):
                continue  # another thread changes it
        if id(kind) in known:
            return True
    return False


def _encode_numbered(
    definition: Definition, payload: bytes, record: Record | None
) -> ObjectsCall | None:
    """Return a call of scalars of which some have numbers; None if it is long."""
    if record is None or len(payload) > wire.CROSSOVER:
        return None
    flags = wire.NO_REFERENCES | wire.MADE | (wire.IN_BULK if len(payload) > wire.INLINE else 0)
    name, bytecode = definition.by_value, definition.bytecode
    return ObjectsCall(definition, flags, payload, name, bytecode, (), record.epoch)


def _known_inner(fn: Any, record: Record) -> Made | None:
    """Return how a method or partial object is made of a function that workers know by number.

    None if it is not known so, or has changed; or is more than that.
    """
    steps: tuple[Any, ...]
    if type(fn) is types.MethodType:
        inner, steps = fn.__func__, (METHOD, fn.__self__)
    elif not fn.__dict__:
        inner, steps = fn.func, (PARTIAL, (fn.args, fn.keywords))
    else:
        return None
    found: Watched | None = record.functions.get(id(inner))
    if found is None or found.definition is None or not found.is_same(inner):
        return None
    return found.definition, steps


def is_joined(fn: functools.partial[Any]) -> bool:
    """Return True if a call of a partial object is one of its function, with more arguments."""
    return type(fn) is functools.partial and not (
        fn.keywords
        or fn.__dict__
        or (_PLACEHOLDER is not None and any(each is _PLACEHOLDER for each in fn.args))
    )


def _encode_objects(
    definition: Definition, steps: tuple[Any, ...], args: tuple[Any, ...], record: Record
) -> ObjectsCall | None:
    """Pickle a short call with objects of known classes; None for every other call."""
    instances, found = _instances(), None
    flags = wire.OBJECTS
    if not steps or (len(steps) == 2 and steps[0] == METHOD):
        found = instances.flat(steps, args, record)
    if found is None:
        flags = wire.MADE if steps else 0
        value = (steps, args, None) if steps else (args, None)
        found = instances.pickled(value, (*steps[1:], *args) if steps else args, record)
        if found is None or len(found[0]) > wire.CROSSOVER:
            return None
    payload, needs, bytecode = found
    if len(payload) > wire.INLINE:
        flags |= wire.IN_BULK
    return ObjectsCall(
        definition,
        flags,
        payload,
        definition.by_value or needs[0].by_value,
        bytecode or definition.bytecode,
        needs,
        record.epoch,
    )


def find(fn: Any, record: Record | None, remote: RemoteInterpreter | None = None) -> Made | None:
    """Return how a callable is made of a function that workers know.

    None if it is not known, or has changed.

    Args:
        fn: what is submitted.
        record: of the pool, if there is one yet.
        remote: pickle the function for it if workers do not know it yet; None pickles nothing, and
            runs no code of the user's.
    """
    kind = type(fn)
    if kind is types.FunctionType:
        return None if record is None else _of_code(fn, record, remote)
    apart = _templates().take_apart(fn, record) if kind in _MADE else None
    if apart is None:
        return None
    inner, steps = apart
    definition = importable.get(id(inner)) if remote is None else define(inner)
    if definition is None:
        found = _of_inner(inner, record, remote)
        if found is None:
            return None
        definition, steps = found[0], (*found[1], *steps)
    if definition.rewritten and (remote is None or wants_value(definition, remote)):
        return None
    return definition, steps


def _of_code(fn: Any, record: Record, remote: RemoteInterpreter | None) -> Made | None:
    """As ``find``, of a function whose code others have, too."""
    found: Made | None
    if remote is None:
        found = _templates().again(fn, record) if record.codes else None
        return found
    write, write_values = by_value().dump, by_value().dump_values
    found = _templates().of_function(
        fn,
        record,
        lambda like, names: write(like, [], remote, record, names),
        lambda values: write_values(values, [], remote, record),
    )
    return found


def _of_inner(inner: Any, record: Record | None, remote: RemoteInterpreter | None) -> Made | None:
    """As ``find``, of the function by value of a method or a partial object."""
    if type(inner) is not types.FunctionType:
        return None
    if remote is not None:
        record = by_value().record_of(remote)
    if record is None:
        return None
    watched: Watched | None = record.functions.get(id(inner))
    if watched is None:
        found = _of_code(inner, record, remote)
        if found is not None or remote is None:
            return found
    elif remote is None:
        known = watched.definition if watched.is_same(inner) else None
        return None if known is None else (known, ())
    current = by_value().current(inner, [], remote, record)
    if record.functions.get(id(inner)) is not current:
        return None  # it is not the same twice, or refers to shared arrays
    return _definition_of(current, inner, record), ()


def encode_made(
    definition: Definition,
    steps: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> DefinedCall | None:
    """Pickle a call of which all parts are scalars; None for every other call."""
    payload = _templates().pickled(steps, args, kwargs)
    if payload is None:
        return None
    name, bytecode = definition.by_value, definition.bytecode
    flags = wire.NO_REFERENCES | wire.MADE
    if len(payload) <= wire.INLINE:
        return DefinedCall(definition, flags, payload, name, bytecode)
    return cast(
        "DefinedCall",
        encoded(
            definition,
            flags,
            Pieces((payload,)),
            name,
            bytecode,
            None,
            (steps, args, kwargs),
        ),
    )


def definition_by_value(fn: Any, remote: RemoteInterpreter) -> Definition | None:
    """Return the number of a function by value that is submitted again as it was.

    None for everything else.
    """
    record = remote.record
    found: Watched | None = record.functions.get(id(fn))
    if found is None or not found.is_current(fn, record):
        return None
    return _definition_of(found, fn, record)


def _definition_of(watched: Watched, fn: Any, record: Record) -> Definition:
    """Return the definition of a function by value, made when it is used first."""
    made: Definition | None = watched.definition
    if made is None:
        data = pickle.dumps(("value", watched.data), 4)
        made = Definition(
            data,
            references.display_name(fn),
            watched.by_value,
            bytecode=watched.bytecode,
            needs=watched.needs,
        )
        watched.define(made)
        record.follow(made)
    return made
