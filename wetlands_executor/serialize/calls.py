"""Calls to bytes (the worker's half is ``worker/calls.py``).

Three ways for a call, cheapest first: an importable function is defined once per worker and named
by a number; its arguments, if they are of builtin scalar types, go through the C pickler;
everything else goes through ``pickler.CallPickler``.

``encode`` runs in the thread that submits, without a lock: pickling is user code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor.serialize import inert, known_functions, pickler
from wetlands_executor.serialize.definitions import (
    Definition,
    by_value,
    define,
    importable,
    wants_value,
)
from wetlands_executor.serialize.encoded import (
    EncodedCall,
    ObjectsCall,
    PiecesCall,
    encode_at_once,
    encode_inert,
    encoded,
)
from wetlands_executor.serialize.pickler import PROTOCOL
from wetlands_executor.sharedmem.arguments import OutOfBandArguments
from wetlands_executor.worker import wire
from wetlands_executor.worker.calls import Pieces
from wetlands_executor.worker.code_templates import NUMBERED

if TYPE_CHECKING:
    from wetlands_executor.serialize.interpreter import RemoteInterpreter


def encode(
    fn: Callable[..., Any] | str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    definition: Definition | None = None,
    remote: RemoteInterpreter | None = None,
) -> EncodedCall:
    """Pickle a call for workers of ``remote``. Raises whatever the pickling of its parts raises."""
    try:
        return _encode(fn, args, kwargs, definition, remote)
    except pickle.PicklingError:
        if remote is None or not remote.is_undecided:
            raise
    # It has no source, which would be right for any Python. As bytecode it is right for one like
    # this; the pool refuses to send it to another one. Of no record: nothing that workers know by
    # number may depend on it.
    return _encode(fn, args, kwargs, definition, None)


def _encode(
    fn: Callable[..., Any] | str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    definition: Definition | None,
    remote: RemoteInterpreter | None,
) -> EncodedCall:
    if definition is None:
        given: Any = fn
        if isinstance(given, partial) and known_functions.is_joined(given):
            fn, args = given.func, given.args + args
        definition = importable.get(id(fn))
        if definition is None and remote is not None and remote.record is not None:
            definition = known_functions.definition_by_value(fn, remote)
        definition = definition or define(fn)
    if definition is not None and definition.rewritten and wants_value(definition, remote):
        definition = None
    if definition is None:
        found = known_functions.find(fn, remote.record, remote) if remote is not None else None
        if found is None:
            return _encode_call(None, (fn, args, kwargs), remote)
        definition, steps = found
        if steps:
            call = known_functions.encode_made(definition, steps, args, kwargs) or _encode_call(
                definition, (steps, args, kwargs), remote, wire.MADE
            )
            if NUMBERED in steps[::2] and not isinstance(call, PiecesCall) and remote is not None:
                assert remote.record is not None
                return PiecesCall(call, (), remote.record.epoch)
            return call
    if not args and not kwargs:
        return EncodedCall(
            definition, wire.NO_REFERENCES, b"", definition.by_value, definition.bytecode
        )
    return encode_defined(definition, args, kwargs, remote)


def join(
    entries: Sequence[Any],
    definition: Definition,
    flags: int,
    payload: bytes,
    out_of_band: OutOfBandArguments | None,
) -> EncodedCall:
    """Return one call for many, of which ``payload`` has the arguments.

    Args:
        entries: their encoded arguments, or tuples of scalars: all of one kind.
        definition: the function.
        flags: of the call frame.
        payload: see ``worker/batch.py``.
        out_of_band: its block, or None.
    """
    name, bytecode = definition.by_value, definition.bytecode
    with_pieces = (
        []
        if isinstance(entries[0], tuple)
        else [each for each in entries if isinstance(each, (PiecesCall, ObjectsCall))]
    )
    if not with_pieces:
        return EncodedCall(definition, flags, payload, name, bytecode, out_of_band)
    for each in with_pieces:
        name, bytecode = name or each.by_value, bytecode or each.bytecode
    call = EncodedCall(definition, flags, payload, name, bytecode, out_of_band)
    needs = {piece.number: piece for each in with_pieces for piece in each.needs}
    return PiecesCall(call, tuple(needs.values()), [each.epoch for each in with_pieces])


def encode_defined(
    definition: Definition,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    remote: RemoteInterpreter | None = None,
) -> EncodedCall:
    """Pickle the arguments of a call whose function has a definition."""
    if not kwargs:
        found = encode_at_once(None, args, definition) or encode_inert(definition, None, args)
        if found is not None:
            return found
        if inert.are_arrays(args) >= 0:
            pieces, out_of_band = _dumps_arrays((args, None))
            return encoded(
                definition,
                0,
                pieces,
                definition.by_value,
                definition.bytecode,
                out_of_band,
                (args, None),
            )
    return _encode_call(definition, (args, kwargs or {}), remote)


def _dumps_arrays(value: Any) -> tuple[Pieces, OutOfBandArguments]:
    out_of_band = OutOfBandArguments()
    try:
        # in one piece: what is large is in a block
        data = pickle.dumps(value, PROTOCOL, buffer_callback=out_of_band.take)
        return Pieces((data,)), out_of_band
    except BaseException:
        out_of_band.discard()  # as below
        raise


def _encode_call(
    definition: Definition | None, value: Any, remote: RemoteInterpreter | None, flags: int = 0
) -> EncodedCall:
    out_of_band = OutOfBandArguments()
    try:
        pieces, made = pickler.dump_pieces(value, out_of_band, remote=remote, by_value=by_value)
    except BaseException:
        out_of_band.discard()  # its task may keep the exception, and the traceback this frame
        raise
    name, bytecode = made.by_value, made.bytecode
    if definition is not None:
        name, bytecode = definition.by_value or name, definition.bytecode or bytecode
        if not made.handling and out_of_band.empty and not value[-1]:
            flags |= wire.NO_REFERENCES  # the worker's short way reads positional arguments only
    call = encoded(definition, flags, pieces, name, bytecode, out_of_band, value)
    if made._record is None:
        return call
    return PiecesCall(call, tuple(made.needs.values()), made.record.epoch)
