"""Definitions: the numbers by which workers know functions, after they have read each once.

Entered by any thread that submits, without a lock: pickling is user code.
"""

from __future__ import annotations

import itertools
import pickle
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wetlands_executor.serialize import interpreter, pickler, references
from wetlands_executor.serialize.pickler import CallPickler

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece
    from wetlands_executor.serialize.interpreter import RemoteInterpreter
    from wetlands_executor.sharedmem.arguments import OutOfBandArguments

_numbers = itertools.count(1)


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
        "by_value",
        "bytecode",
        "data",
        "keep",
        "name",
        "needs",
        "number",
        "rewritten",
        "without_arguments",
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
        #: The call without arguments (``encoded.DefinedCall``), once there was one.
        self.without_arguments: Any = None
        self.keep = keep
        self.needs = needs

    def end(self) -> None:
        """Let go of the call that refers to it: it will not be called again."""
        self.without_arguments = None


def by_value() -> pickler.ByValue:
    """Return what pickles functions and classes by value, imported for the first of them."""
    found: pickler.ByValue = pickler.late("wetlands_executor.serialize.by_value")
    return found


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
    return pickler.dump(value, out_of_band, keeps, remote=remote, by_value=by_value)


#: Definitions of importable functions, by id; the Definition keeps the function, and so its id.
# Guarded by the GIL.
importable: dict[int, Definition] = {}
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
    found = importable.get(id(fn))
    if found is not None:
        return found
    reference = references.reference_to(fn)
    if reference is None:
        return None
    made = Definition(
        pickle.dumps(("reference", *reference), 4), references.display_name(fn), keep=fn
    )
    made.rewritten = references.is_rewritten(reference)
    return importable.setdefault(id(fn), made)


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
