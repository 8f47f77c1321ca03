"""Calls to bytes (the worker's half is ``worker/calls.py``).

Three ways for a call, cheapest first: an importable function is defined once per worker and named
by a number; its arguments, if they are of builtin scalar types, go through the C pickler;
everything else goes through ``pickler.CallPickler``.

``encode`` runs in the thread that submits, without a lock: pickling is user code.
"""

from __future__ import annotations

import copyreg
import functools
import itertools
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from wetlands_executor import arguments
from wetlands_executor.serialize import interpreter, pickler, references
from wetlands_executor.serialize.pickler import PROTOCOL, CallPickler
from wetlands_executor.serialize.scalars import NUMBERS, SCALARS, TEXTS
from wetlands_executor.sharedmem import share
from wetlands_executor.sharedmem.arguments import OutOfBandArguments
from wetlands_executor.worker import wire
from wetlands_executor.worker.calls import Pieces

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Epoch, Piece, Record
    from wetlands_executor.serialize.interpreter import RemoteInterpreter
    from wetlands_executor.serialize.made import Made
    from wetlands_executor.serialize.watched import Watched

_numbers = itertools.count(1)
#: What is made anew each time of a function that may be known.
_MADE = frozenset((types.MethodType, functools.partial))


class Pool(Protocol):
    """What is asked of the pool that a call is for."""

    settings: Any
    forgetting: Any


class Definition:
    """A function that workers know by number after they have read it once.

    Attributes:
        number: its name on the wire, unique in this process.
        data: the definition, pickled from builtin types.
        name: for messages.
        by_value: name of the function if its code travels, else None.
        bytecode: its code travels as it is, for workers of this very Python only.
        rewritten: it stands in a test module that pytest has changed; see
            ``references.is_rewritten``.
        keep: the function, so that its ``id`` stays its own; or the shared arrays in it.
        needs: large objects that it refers to, which a worker has to have before.
    """

    __slots__ = (
        "__weakref__",
        "bare",
        "by_value",
        "bytecode",
        "data",
        "keep",
        "name",
        "needs",
        "number",
        "rewritten",
    )

    def __init__(
        self,
        data: bytes,
        name: str,
        by_value: str | None = None,
        keep: Any = None,
        *,
        bytecode: bool = False,
        needs: Sequence[Piece] = (),
    ) -> None:
        self.number = next(_numbers)
        self.name = name
        self.data = data
        self.by_value = by_value
        self.bytecode = bytecode
        self.rewritten = False
        #: The call without arguments, once there was one.
        self.bare: DefinedCall | None = None
        self.keep = keep
        self.needs = needs

    def end(self) -> None:
        """Let go of the call that refers to it: it will not be called again."""
        self.bare = None


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


class NeedyCall(EncodedCall):
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
    flags = wire.PLAIN
    by_value = None
    bytecode = False
    out_of_band = None

    def __init__(self, definition: Definition, payload: bytes) -> None:
        self.definition = definition
        self.payload = payload


KnownCall: TypeAlias = DefinedCall | PlainCall


def _by_value() -> pickler.ByValue:
    """Return what pickles functions and classes by value, imported for the first of them."""
    found: pickler.ByValue = pickler.late("wetlands_executor.serialize.by_value")
    return found


def _made() -> Any:
    """Return what knows callables that are made anew, imported when the first of them is met."""
    return pickler.late("wetlands_executor.serialize.made")


def _instances() -> Any:
    return pickler.late("wetlands_executor.serialize.instances")


def dumps(
    value: Any,
    out_of_band: OutOfBandArguments | None = None,
    keeps: list[Any] | None = None,
    *,
    remote: RemoteInterpreter | None = None,
) -> tuple[bytes, str | None, bool]:
    """Pickle as ``dump``.

    Return the bytes, the name of what travels as code, if anything does, and whether it does as
    bytecode.
    """
    data, made = dump(value, out_of_band, keeps, remote=remote)
    return data, made.by_value, made.bytecode


def dump(
    value: Any,
    out_of_band: OutOfBandArguments | None = None,
    keeps: list[Any] | None = None,
    *,
    remote: RemoteInterpreter | None = None,
) -> tuple[bytes, CallPickler]:
    """Pickle for a worker; return the bytes and what the pickler has found out.

    See ``pickler.dump``.
    """
    return pickler.dump(value, out_of_band, keeps, remote=remote, by_value=_by_value)


# Definitions of importable functions, by id; the Definition keeps the function, and so its id.
# Guarded by the GIL.
_definitions: dict[int, Definition] = {}
_targets: dict[tuple[Any, ...], Definition] = {}


def define(fn: Callable[..., Any] | str) -> Definition | None:
    """Return the definition of an importable function or a target string.

    None for everything that has to travel by value.

    Raises:
        ValueError, FileNotFoundError: a malformed target, or one that names no file.
    """
    if isinstance(fn, str):
        definition_tuple = references.definition_of_target(fn)
        key = definition_tuple[:3] + definition_tuple[-1:]
        found = _targets.get(key)
        if found is None:
            found = _targets.setdefault(key, Definition(pickle.dumps(definition_tuple, 4), fn))
        return found
    if not isinstance(fn, (types.FunctionType, types.BuiltinFunctionType, type)):
        return None
    found = _definitions.get(id(fn))
    if found is not None:
        return found
    reference = references.reference_to(fn)
    if reference is None:
        return None
    made = Definition(
        pickle.dumps(("reference", *reference), 4), references.display_name(fn), keep=fn
    )
    made.rewritten = references.is_rewritten(reference)
    return _definitions.setdefault(id(fn), made)


def wants_value(definition: Definition, remote: RemoteInterpreter | None) -> bool:
    """Return True for an importable function that the worker's import would compile differently.

    Such are the functions of a test module that pytest has rewritten.
    """
    return definition.rewritten and interpreter.PORTABLE and remote is not None and remote.foreign


def define_by_value(fn: Callable[..., Any], remote: RemoteInterpreter | None = None) -> Definition:
    """Return a definition that carries the function itself.

    For callers that use it many times (``map``).
    """
    keeps: list[Any] = []
    try:
        data, made = dump(fn, None, keeps, remote=remote)
    except pickle.PicklingError:
        if remote is None or not remote.is_undecided:
            raise
        return define_by_value(fn)  # as in `encode`
    name, needs = references.display_name(fn), tuple(made.needs.values())
    keeps.append(made.record.epoch)
    return Definition(
        pickle.dumps(("value", data), 4),
        name,
        made.by_value,
        keeps,
        bytecode=made.bytecode,
        needs=needs,
    )


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
        definition = _definitions.get(id(fn))
        if definition is None and remote is not None and remote.record is not None:
            definition = _definition_by_value(fn, remote)
        definition = definition or define(fn)
    if definition is not None and definition.rewritten and wants_value(definition, remote):
        definition = None
    if definition is None:
        found = _find_made(fn, remote) if remote is not None else None
        if found is None:
            return _encode_call(None, (fn, args, kwargs), remote)
        definition, steps = found
        if steps:
            return _encode_made(definition, steps, args, kwargs) or _encode_call(
                definition, (steps, args, kwargs), remote, wire.MADE
            )
    if not args and not kwargs:
        return EncodedCall(definition, wire.PLAIN, b"", definition.by_value, definition.bytecode)
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
        entries: their encoded arguments, or tuples of scalars.
        definition: the function.
        flags: of the call frame.
        payload: see ``worker/batch.py``.
        out_of_band: its block, or None.
    """
    needy = [each for each in entries if isinstance(each, NeedyCall)]
    by_value, bytecode = definition.by_value, definition.bytecode
    if not needy:
        return EncodedCall(definition, flags, payload, by_value, bytecode, out_of_band)
    for each in needy:
        by_value, bytecode = by_value or each.by_value, bytecode or each.bytecode
    call = EncodedCall(definition, flags, payload, by_value, bytecode, out_of_band)
    needs = {piece.number: piece for each in needy for piece in each.needs}
    return NeedyCall(call, tuple(needs.values()), [each.epoch for each in needy])


def encode_at_once(
    fn: Any, args: tuple[Any, ...], definition: Definition | None
) -> KnownCall | None:
    """Pickle a call of a known function whose arguments are plain scalars.

    None for every other call. Runs no code of the user's.
    """
    if definition is None:
        definition = _definitions.get(id(fn))
        if definition is None or definition.rewritten:
            return None
    if not args:
        bare = definition.bare
        if bare is None:
            bare = definition.bare = DefinedCall(
                definition, wire.PLAIN, b"", definition.by_value, definition.bytecode
            )
        return bare
    long = False
    for value in args:  # for the one or two arguments of most calls faster than ``are_scalars``
        kind = type(value)
        if kind in NUMBERS:
            continue
        if kind not in TEXTS:
            return None
        long = long or len(value) >= wire.UNFRAMED
    payload = b"" if long else pickle.dumps((args, None), PROTOCOL)
    if long or len(payload) > wire.INLINE:
        return cast(
            "DefinedCall",
            _encoded(
                definition,
                wire.PLAIN,
                _pieces_of((args, None)) if long else Pieces((payload,)),
                definition.by_value,
                definition.bytecode,
                None,
                (args, None),
            ),
        )
    if definition.by_value is None and not definition.bytecode:
        return PlainCall(definition, payload)
    return DefinedCall(definition, wire.PLAIN, payload, definition.by_value, definition.bytecode)


def encode_again(fn: Any, args: tuple[Any, ...], pool: Pool) -> KnownCall | None:
    """As ``encode_at_once``, for a function by value that was submitted before and is unchanged.

    And for what is made anew of a function that workers know. None for every other call.
    """
    record = pool.settings.remote.record
    if record is not None and record.restless:
        pool.forgetting.tidy(record)
    found: Watched | None = None if record is None else record.functions.get(id(fn))
    if found is not None:
        if found.definition is None or not found.is_same(fn):
            return None
        return encode_at_once(None, args, found.definition) or _encode_instances(
            found.definition, None, args, record
        )
    known = _definitions.get(id(fn))
    if known is not None:
        return None if known.rewritten else _encode_instances(known, None, args, record)
    again = _find_again(fn, record)
    if again is None:
        return None
    definition, steps = again
    if not steps:
        return encode_at_once(None, args, definition)
    return _encode_made(definition, steps, args, None) or _encode_instances(
        definition, steps, args, record
    )


def _encode_instances(
    definition: Definition, steps: tuple[Any, ...] | None, args: tuple[Any, ...], record: Any
) -> DefinedCall | None:
    """Pickle a call whose arguments are objects of known classes; None for every other call."""
    found = None if record is None else _instances().pickled(steps, args, record)
    if found is None or len(found[0]) > wire.CROSSOVER:
        return None
    payload, needs, bytecode = found
    call = EncodedCall(
        definition,
        (0 if steps is None else wire.MADE) | (wire.IN_BULK if len(payload) > wire.INLINE else 0),
        payload,
        definition.by_value or needs[0].by_value,
        definition.bytecode or bytecode,
    )
    return cast("DefinedCall", NeedyCall(call, needs, record.epoch))


def _find_again(fn: Any, record: Record | None) -> Made | None:
    """Return how a callable is made of a function that workers know. Runs no code of the user's.

    None if the function was not submitted before, or has changed.
    """
    kind = type(fn)
    if kind is types.FunctionType:
        found: Made | None = (
            _made().again(fn, record) if record is not None and record.codes else None
        )
        return found
    if kind not in _MADE:
        return None
    apart = _made().take_apart(fn)
    if apart is None:
        return None
    inner, steps = apart
    definition = _definitions.get(id(inner))
    if definition is None:
        watched = None if record is None else record.functions.get(id(inner))
        if watched is not None:
            definition = watched.definition if watched.is_same(inner) else None
        elif record is not None and type(inner) is types.FunctionType and record.codes:
            once_more = _made().again(inner, record)
            if once_more is not None:
                definition, steps = once_more[0], (*once_more[1], *steps)
    if definition is None or definition.rewritten:
        return None
    return definition, steps


def _find_made(fn: Any, remote: RemoteInterpreter) -> Made | None:
    """As ``_find_again``, of a function that workers may not know yet; pickles it then."""
    kind = type(fn)
    record = remote.record
    if kind is types.FunctionType:
        if record is None:
            return None
        write = _by_value().dump
        found: Made | None = _made().of_function(
            fn, record, lambda like: write(like, [], remote, record)
        )
        return found
    apart = _made().take_apart(fn) if kind in _MADE else None
    if apart is None:
        return None
    inner, steps = apart
    definition = define(inner)
    if definition is None:
        if type(inner) is not types.FunctionType:
            return None
        record = _by_value().record_of(remote)
        again = _find_made(inner, remote) if id(inner) not in record.functions else None
        if again is not None:
            return again[0], (*again[1], *steps)
        keeps: list[Any] = []
        watched = _by_value().current(inner, keeps, remote, record)
        if record.functions.get(id(inner)) is not watched:
            return None  # it is not the same twice, or refers to shared arrays
        definition = _definition_of(watched, inner, record)
    if wants_value(definition, remote):
        return None
    return definition, steps


def _encode_made(
    definition: Definition,
    steps: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> DefinedCall | None:
    """Pickle a call of which all parts are scalars; None for every other call."""
    payload = _made().pickled(steps, args, kwargs)
    if payload is None:
        return None
    by_value, bytecode = definition.by_value, definition.bytecode
    flags = wire.PLAIN | wire.MADE
    if len(payload) <= wire.INLINE:
        return DefinedCall(definition, flags, payload, by_value, bytecode)
    return cast(
        "DefinedCall",
        _encoded(
            definition,
            flags,
            Pieces((payload,)),
            by_value,
            bytecode,
            None,
            (steps, args, kwargs),
        ),
    )


def encode_defined(
    definition: Definition,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    remote: RemoteInterpreter | None = None,
) -> EncodedCall:
    """Pickle the arguments of a call whose function has a definition."""
    if not kwargs:
        found = encode_at_once(None, args, definition)
        if found is not None:
            return found
        if _are_arrays(args):
            pieces, out_of_band = _dumps_arrays((args, None))
            return _encoded(
                definition,
                0,
                pieces,
                definition.by_value,
                definition.bytecode,
                out_of_band,
                (args, None),
            )
    return _encode_call(definition, (args, kwargs or {}), remote)


def _are_arrays(args: tuple[Any, ...]) -> bool:
    """Return True for scalars and numpy's arrays of numbers.

    ``pickle`` makes the same bytes of them as ``CallPickler``, in a fifth of the time.
    """
    numpy: Any = sys.modules.get("numpy")
    array = getattr(numpy, "ndarray", None)
    if array is None or array in copyreg.dispatch_table or share.any_shared():
        return False
    for value in args:
        if type(value) is array:
            dtype = value.dtype
            if dtype.kind not in "biufc" or dtype.isbuiltin != 1 or dtype.metadata is not None:
                return False
        elif type(value) not in SCALARS:
            return False
    return True


def _pieces_of(value: Any) -> Pieces:
    """Pickle plain scalars of which one is long."""
    pieces = Pieces()
    writer = pickle.Pickler(pieces, PROTOCOL)
    writer.dump(value)
    pieces.keep(writer)
    return pieces


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
        pieces, made = pickler.dump_pieces(value, out_of_band, remote=remote, by_value=_by_value)
    except BaseException:
        out_of_band.discard()  # its task may keep the exception, and the traceback this frame
        raise
    by_value, bytecode = made.by_value, made.bytecode
    if definition is not None:
        by_value, bytecode = definition.by_value or by_value, definition.bytecode or bytecode
    encoded = _encoded(definition, flags, pieces, by_value, bytecode, out_of_band, value)
    if made._record is None:
        return encoded
    return NeedyCall(encoded, tuple(made.needs.values()), made.record.epoch)


def _encoded(
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
            flags if size <= wire.INLINE else flags | wire.IN_BULK,
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


def _definition_by_value(fn: Any, remote: RemoteInterpreter) -> Definition | None:
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
