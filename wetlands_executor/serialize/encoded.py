"""Calls as bytes: what the pool is given, and how calls of scalars become that.

Entered by any thread that submits; runs no code of the user's.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from wetlands_executor import arguments
from wetlands_executor.serialize import inert
from wetlands_executor.serialize.definitions import Definition, importable
from wetlands_executor.serialize.pickler import PROTOCOL
from wetlands_executor.serialize.scalars import NUMBERS, TEXTS
from wetlands_executor.sharedmem.arguments import OutOfBandArguments
from wetlands_executor.worker import wire
from wetlands_executor.worker.calls import Pieces
from wetlands_executor.worker.wire import INLINE, NO_REFERENCES

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Epoch, Piece


class EncodedCall:
    """A call as bytes.

    Attributes:
        definition: the function, or None if the payload has it.
        flags: of the call frame.
        payload: pickled (args, kwargs), or (function, args, kwargs); empty for a call without
            arguments.
        by_value: name of what travels as code, or None.
        bytecode: that code travels as it is: only workers of this very Python may get this call.
        out_of_band: its blocks in shared memory, or None.
    """

    __slots__ = ("by_value", "bytecode", "definition", "flags", "out_of_band", "payload")
    #: Large objects that the payload refers to, which a worker has to have before.
    needs: Sequence[Piece] = ()
    #: The arguments for messages, if the payload does not have them: a short pickle, or the text.
    summary: bytes | str | None = None

    def __init__(
        self,
        definition: Definition | None,
        flags: int,
        payload: bytes,
        by_value: str | None,
        bytecode: bool = False,
        out_of_band: OutOfBandArguments | None = None,
    ) -> None:
        self.definition = definition
        self.flags = flags
        self.payload = payload
        self.by_value = by_value
        self.bytecode = bytecode
        self.out_of_band = out_of_band


class PackedCall(EncodedCall):
    """An ``EncodedCall`` whose payload is long, or in shared memory."""

    __slots__ = ("summary",)


class PiecesCall(EncodedCall):
    """An ``EncodedCall`` whose payload refers to objects of the host's namespaces.

    ``epoch``: see ``identity.Epoch``.
    """

    __slots__ = ("epoch", "needs", "summary")

    def __init__(self, call: EncodedCall, needs: Sequence[Piece], epoch: Epoch | list[Any]) -> None:
        super().__init__(
            call.definition,
            call.flags,
            call.payload,
            call.by_value,
            call.bytecode,
            call.out_of_band,
        )
        self.needs = needs
        self.summary = call.summary
        self.epoch = epoch


class DefinedCall(EncodedCall):
    """An ``EncodedCall`` whose definition is known."""

    __slots__ = ()
    definition: Definition


class PlainCall(EncodedCall):
    """A call of a known function by reference, whose arguments are plain scalars: most calls."""

    __slots__ = ()
    definition: Definition
    by_value = None
    bytecode = False

    def __init__(self, definition: Definition, payload: bytes) -> None:
        self.definition = definition
        self.payload = payload
        # Not the class's: they are read several times, and a slot is read in a fifth of the time.
        self.flags = NO_REFERENCES
        self.out_of_band = None


class ObjectsCall(EncodedCall):
    """A short call of a known function, with objects of classes by value: see ``PiecesCall``."""

    __slots__ = ("epoch", "needs")
    definition: Definition
    out_of_band = None
    summary = None

    def __init__(
        self,
        definition: Definition,
        flags: int,
        payload: bytes,
        by_value: str | None,
        bytecode: bool,
        needs: Sequence[Piece],
        epoch: Epoch,
    ) -> None:
        self.definition = definition
        self.flags = flags
        self.payload = payload
        self.by_value = by_value
        self.bytecode = bytecode
        self.needs = needs
        self.epoch = epoch


KnownCall: TypeAlias = DefinedCall | PlainCall | ObjectsCall


def pieces_of(value: Any) -> Pieces:
    """Pickle plain scalars of which one is long."""
    pieces = Pieces()
    writer = pickle.Pickler(pieces, PROTOCOL)
    writer.dump(value)
    pieces.keep(writer)
    return pieces


def encoded(
    definition: Definition | None,
    flags: int,
    pieces: Pieces,
    by_value: str | None,
    bytecode: bool,
    out_of_band: OutOfBandArguments | None,
    value: tuple[Any, ...],
) -> EncodedCall:
    """Return the call with this payload, the pickle of ``value``, whose pieces are let go of."""
    size = pieces.size
    packed = size > wire.CROSSOVER or (out_of_band is not None and not out_of_band.empty)
    if not packed and size <= arguments.KEPT:
        return EncodedCall(
            definition,
            flags if size <= INLINE else flags | wire.IN_BULK,
            pieces.whole(),
            by_value,
            bytecode,
        )
    # The text is made now only if that is cheaper than to keep the pickle.
    summary = pieces[0] if size <= arguments.KEPT else arguments.of_values(value[-2], value[-1])
    more = wire.IN_BULK
    if packed:
        out_of_band = out_of_band or OutOfBandArguments()
        payload, more = out_of_band.pack(pieces)
    else:
        payload = pieces.whole()
    found = PackedCall(
        definition,
        flags | more,
        payload,
        by_value,
        bytecode,
        None if out_of_band is None or out_of_band.empty else out_of_band,
    )
    found.summary = summary
    return found


def encode_at_once(
    fn: Any, args: tuple[Any, ...], definition: Definition | None
) -> KnownCall | None:
    """Pickle a call of a known function whose arguments are plain scalars.

    None for every other call. Runs no code of the user's.
    """
    if definition is None:
        definition = importable.get(id(fn))
        if definition is None or definition.rewritten:
            return None
    if not args:
        call: DefinedCall | None = definition.without_arguments
        if call is None:
            call = definition.without_arguments = DefinedCall(
                definition, NO_REFERENCES, b"", definition.by_value, definition.bytecode
            )
        return call
    long = False
    for value in args:  # for the one or two arguments of most calls faster than ``are_scalars``
        kind = type(value)
        if kind in NUMBERS:
            continue
        if kind not in TEXTS:
            return None
        long = long or len(value) >= wire.UNFRAMED
    payload = b"" if long else pickle.dumps((args, None), PROTOCOL)
    if long or len(payload) > INLINE:
        return cast(
            "DefinedCall",
            encoded(
                definition,
                NO_REFERENCES,
                pieces_of((args, None)) if long else Pieces((payload,)),
                definition.by_value,
                definition.bytecode,
                None,
                (args, None),
            ),
        )
    if definition.by_value is None and not definition.bytecode:
        return PlainCall(definition, payload)
    return DefinedCall(
        definition, NO_REFERENCES, payload, definition.by_value, definition.bytecode
    )


def encode_inert(
    definition: Definition, steps: tuple[Any, ...] | None, args: tuple[Any, ...]
) -> KnownCall | None:
    """Pickle a short call of a known function whose arguments are inert.

    None for every other call. Runs no code of the user's.

    Args:
        definition: the function.
        steps: of a callable that is made of it for the call (see ``templates.py``), or None.
        args: its arguments.
    """
    value = (args, None) if steps is None else (steps, args, None)
    if steps is None and 0 <= inert.are_arrays(args) < inert.SHORT:
        payload, named = pickle.dumps(value, PROTOCOL), True  # nothing has to be asked
    else:
        found = inert.pickled(value)
        if found is None:
            return None
        payload, named = found
    flags = (0 if named else NO_REFERENCES) | (0 if steps is None else wire.MADE)
    by_value, bytecode = definition.by_value, definition.bytecode
    if len(payload) <= arguments.KEPT:  # as in ``encoded``
        flags |= wire.IN_BULK if len(payload) > INLINE else 0
        return DefinedCall(definition, flags, payload, by_value, bytecode)
    return cast(
        "DefinedCall",
        encoded(definition, flags, Pieces((payload,)), by_value, bytecode, None, value),
    )
