"""The pickler of calls: cloudpickle with our rules for what the user's project defines.

Two differences: objects of the project are named together with their file, and functions by value
share one namespace per module (``worker/namespaces.py``). For a Python of another magic number
their code is reduced to source (``worker/code_reductions.py``). Functions and classes by value are
streams of their own in the stream of a call; what writes those (``by_value.py``) is built on this
module and is given to each pickler when it is made.

Entered by any thread that submits, without a lock: pickling is user code.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle
from cloudpickle import cloudpickle as _cp

from wetlands_executor import threads
from wetlands_executor.serialize import interpreter, kinds, references
from wetlands_executor.sharedmem import share
from wetlands_executor.worker import imports, moved_names, namespaces, objects
from wetlands_executor.worker.calls import Pieces

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece, Record
    from wetlands_executor.serialize.interpreter import RemoteInterpreter
    from wetlands_executor.serialize.watched import Watched
    from wetlands_executor.sharedmem.arguments import OutOfBandArguments

PROTOCOL = 5


#: Types whose objects are made or pickled differently in other Python versions.
VARYING = frozenset({types.CodeType, types.GenericAlias, types.UnionType, type(Callable[[], None])})


#: Modules that ``_import_late`` has imported.
_late: dict[str, Any] = {}


def _import_late(name: str) -> Any:
    """Import a module of ours in the middle of a call.

    Race: a signal handler or a finalizer that submits meanwhile would find the module half made,
    since a thread does not wait for an import of its own. So another thread imports it, which any
    re-entry of this one waits for.
    """
    known = sys.modules.get(name)
    if known is not None and not getattr(known.__spec__, "_initializing", False):
        return _late.setdefault(name, known)
    load = partial(threads.import_atomically, name)
    try:
        found = threads.run_uninterrupted(load)
    except RuntimeError:  # no thread can be started
        found = load()
    return _late.setdefault(name, found)


def late(name: str) -> Any:
    """Return a module of ours that is imported when it is needed first."""
    return _late.get(name) or _import_late(name)


def reductions() -> Any:
    """Return the rules for code and classes by value, imported when the first of them is met.

    Many programs send none.
    """
    return late("wetlands_executor.worker.code_reductions")


class ByValue(Protocol):
    """What writes functions and classes by value; see ``by_value.py``."""

    def current(
        self, obj: Any, keeps: list[Any] | None, remote: RemoteInterpreter | None, record: Record, /
    ) -> Watched:
        """Return a function or class as it is pickled."""

    def dump(
        self,
        obj: Any,
        keeps: list[Any] | None,
        remote: RemoteInterpreter | None,
        record: Record,
        left_out: frozenset[str] = ...,
        /,
    ) -> tuple[bytes, Any]:
        """Pickle a function or class by value; return the bytes and what has pickled it."""

    def dump_values(
        self,
        values: tuple[Any, ...],
        keeps: list[Any] | None,
        remote: RemoteInterpreter | None,
        record: Record,
        /,
    ) -> tuple[bytes, Any]:
        """Pickle values as those that a function by value reaches; as ``dump``."""

    def record_of(self, remote: RemoteInterpreter | None, /) -> Record:
        """Return the objects that the workers know by number."""

    def reduce_sentinel(self, obj: Any, record: Record, /) -> Any:
        """Return how an object is pickled that is nothing but its identity; None for all others."""


class Stream:
    """Stands for what a stream within the stream holds.

    Attributes:
        data: the stream.
        pickler: what has written it.
    """

    __slots__ = ("data", "pickler")

    def __init__(self, data: bytes, pickler: CallPickler) -> None:
        self.data = data
        self.pickler = pickler


class Space:
    """Represents a function's globals in the stream.

    Becomes the namespace of its module in the worker.
    """

    __slots__ = ("base", "name")

    def __init__(self, name: str, base: dict[str, Any]) -> None:
        self.name = name
        self.base = base

    def __reduce__(self) -> tuple[Any, ...]:
        return namespaces.share, (self.name, self.base)


# How a few classes are pickled, once their modules are loaded; for our own pickles, not for the
# program's.
_reducers: dict[Any, Any] = {}

#: How ``CallPickler`` handles the objects of a type: as ``pickle`` does; as ``pickle`` does unless
#: the object holds nothing; each by the rules.
UNCHANGED, UNLESS_EMPTY, BY_RULES = 1, 2, 3

#: Modules and types whose objects are pickled by our rules.
_RULE_MODULES = ("functools", "typing", "annotationlib")
_RULE_TYPES: frozenset[Any] = frozenset(
    {types.FunctionType, types.MethodType, types.CodeType, object, Stream, *VARYING}
)


def _all_reducers() -> dict[Any, Any]:
    """Return by type how objects are pickled otherwise than their classes say.

    In one dict, which C looks things up in: a look into cloudpickle's chain of them costs more than
    pickling the object. Made for each pickler, because the program may add to all of them.
    """
    for name in moved_names.pending:
        if name in sys.modules:
            moved_names.learn_reducers(_reducers, _reducers)
            break
    found: dict[Any, Any] = {}
    for reducers in reversed(cloudpickle.Pickler.dispatch_table.maps):
        found.update(reducers)
    found.update(_reducers)
    return found


def _by_reference(reference: references.Reference) -> Any:
    """Return how what another process can import is reduced."""
    return NotImplemented if reference.file is None else (imports.fetch, tuple(reference))


def _handling_of(kind: type) -> int:
    """Return how objects of a type are handled.

    For most types it is known once and for all that no rule of ours concerns their objects; asking
    the rules for each object would take several times as long as pickling it.
    """
    if kind in _RULE_TYPES or issubclass(kind, type) or kind.__module__ in _RULE_MODULES:
        return BY_RULES
    if share.any_shared() and share.may_be_view(kind):
        return BY_RULES
    return UNLESS_EMPTY if kinds.may_be_stateless(kind) else UNCHANGED


class CallPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with references that name the project's files and one namespace per module.

    Args:
        file: where the bytes go.
        out_of_band: takes large buffers, and shared arrays that are referred to.
        keeps: takes shared arrays, where there is no ``out_of_band``.
        remote: the Python that reads them; None is one like this.
        by_name: raise ``reductions.ByValue`` instead of sending code.
        by_value: returns what writes functions and classes by value; called when the first of them
            is met.
    """

    #: The functions and classes by value in the stream.
    nested: tuple[Watched, ...] = ()

    def __init__(
        self,
        file: io.BytesIO | Pieces,
        out_of_band: OutOfBandArguments | None = None,
        keeps: list[Any] | None = None,
        *,
        remote: RemoteInterpreter | None = None,
        by_name: bool = False,
        by_value: Callable[[], ByValue],
    ) -> None:
        self.dispatch_table = _all_reducers()
        super().__init__(
            file,
            protocol=PROTOCOL,
            buffer_callback=out_of_band.take if out_of_band is not None else None,
        )
        #: number -> a large object that the stream refers to.
        self.needs: dict[int, Piece] = {}
        self._record: Record | None = None
        #: Takes shared arrays that are referred to; None: they are copied.
        self.keeps = keeps if out_of_band is None else out_of_band.pins
        self.by_value: str | None = None
        self._spaces: dict[int, Space] = {}
        self._remote = remote
        self._by_name = by_name
        self._by_value = by_value
        # The Python that reads it, once something depends on it; False is one like this.
        self._names: Any = None if remote is not None else False
        #: How the types are handled that the C pickler does not do by itself; empty if there are
        #: none.
        self.handling: dict[type, int] = {}

    @property
    def bytecode(self) -> bool:
        """True if what was pickled holds code as it is."""
        return self.by_value is not None and not self._names and interpreter.PORTABLE

    def _foreign(self) -> Any:
        """Return the Python that reads it if that has another magic number, else False.

        Asked only when code or its like is met.
        """
        if self._names is None:
            remote = self._remote
            assert remote is not None
            self._names = (
                reductions().Names(remote.version, self._dumps_by_name)
                if interpreter.PORTABLE and remote.foreign
                else False
            )
        return self._names

    def explain(self, error: TypeError | pickle.PicklingError, named: bool = False) -> None:
        """Raise a clearer error if what cannot be pickled belongs to code for another Python.

        Args:
            error: what pickling has raised.
            named: the caller says which value of which function it was.
        """
        if self._names and self._names.annotated:
            self._names.blame(
                error,
                lambda value: CallPickler(
                    io.BytesIO(), remote=self._remote, by_value=self._by_value
                ).dump(value),
            )
        if (
            not named
            and self._names
            and self.by_value is not None
            and str(error).startswith(("cannot pickle", "can't pickle"))
        ):
            raise pickle.PicklingError(
                f"{self.by_value} cannot be sent to a worker: what it needs, or an argument, "
                f"cannot be pickled ({error}). Make that object "
                "inside the function, or once per worker with an initializer"
            ) from error

    def _dumps_by_name(self, obj: Any) -> bytes:
        with io.BytesIO() as stream:
            CallPickler(stream, remote=self._remote, by_name=True, by_value=self._by_value).dump(
                obj
            )
            return stream.getvalue()

    def _note(self, name: str) -> None:
        """Note that code travels."""
        if self._by_name:
            raise reductions().ByValue
        if self.by_value is None:
            self.by_value = name

    def reducer_override(self, obj: Any) -> Any:
        """Reduce functions and classes by our rules; leave the rest to ``pickle``."""
        kind = type(obj)
        handling = self.handling.get(kind)
        if handling is None:
            handling = self.handling[kind] = _handling_of(kind)
        if handling == UNCHANGED or (handling == UNLESS_EMPTY and getattr(obj, "__dict__", None)):
            return NotImplemented
        return self._reduce(obj, kind)

    def _reduce(self, obj: Any, kind: type) -> Any:
        """Reduce an object by the rules that may concern it."""
        if isinstance(obj, types.FunctionType):
            reference = references.reference_to(obj)
            if reference is None or self._wants_value(reference):
                self._note(references.display_name(obj))
                return self._function_by_value(obj)
            return _by_reference(reference)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is Stream:
            return self._reduce_stream(obj)
        if isinstance(obj, types.MethodType):
            name = obj.__func__.__name__
            # by name, as pickle does it: the function itself may have no name of its own
            if getattr(obj.__self__, name, None) == obj:
                return getattr, (obj.__self__, name)
        if kind.__module__ in _RULE_MODULES and references.reference_to(obj) is None:
            found = reductions().reduce_decorated(obj)
            if found is not None:
                return found
        if kind in VARYING and self._foreign():
            if kind is types.CodeType:
                self._note(obj.co_name)
            return reductions().reduce_value(obj, self._names)
        if kind is types.CodeType:
            return reductions().keep_file(obj)
        if self.keeps is not None and share.any_shared():
            found = share.reduce(obj)
            if found is not None:
                self.keeps.append(obj)
                return found
        if kind is object or getattr(obj, "__dict__", None) == {}:
            found = self._by_value().reduce_sentinel(obj, self.record)
            if found is not None:
                return found
        return super().reducer_override(obj)

    def _reduce_stream(self, stream: Stream) -> Any:
        inner = stream.pickler
        self._record = inner.record
        self.needs.update(inner.needs)
        self.nested += inner.nested
        if inner.by_value is not None:
            self._note(inner.by_value)
            self._foreign()
        return objects.load, (stream.data,)

    def _reduce_class(self, obj: Any) -> Any:
        if obj in (type(None), type(...), type(NotImplemented)):
            return _cp._class_reduce(obj)
        if obj in _cp._BUILTIN_TYPE_NAMES:
            return (
                reductions().builtin_type(_cp._BUILTIN_TYPE_NAMES[obj])
                if self._foreign()
                else _cp._class_reduce(obj)
            )
        if obj.__module__ == "builtins":
            return _cp._class_reduce(obj)
        if obj.__module__ == "enum":
            found = reductions().reduce_enum_base(obj)
            if found is not None and self._foreign():
                return found
        reference = references.reference_to(obj)
        if reference is None or self._wants_value(reference):
            self._note(obj.__qualname__)
            return self._class_by_value(obj)
        return _by_reference(reference)

    def _wants_value(self, reference: references.Reference) -> bool:
        """Return True for what goes by value although it could be imported."""
        return _cp._is_registered_pickle_by_value(sys.modules[reference.module]) or (
            references.is_rewritten(reference) and bool(self._foreign())
        )

    def _function_by_value(self, obj: Any) -> Any:
        """Reduce a function or class by value to a stream of its own, of numbered objects."""
        found = self._by_value().current(obj, self.keeps, self._remote, self.record)
        for piece in found.needs:
            self.needs[piece.number] = piece
        self.nested += (found,)
        self._foreign()
        # A class travels once per worker, as its instances may be many; a function that is an
        # argument does so when it is one again.
        own = found.piece_for(obj, self.record, again=not isinstance(obj, type))
        if own is not None:
            self.needs[own.number] = own
            return objects.defined, (own.owner, own.number, own.name)
        return objects.load, (found.data,)

    _class_by_value = _function_by_value

    @property
    def record(self) -> Record:
        """The objects that the readers know by number."""
        found = self._record
        if found is None:
            found = self._record = self._by_value().record_of(self._remote)
        return found


def space_name(space: Mapping[str, Any]) -> str | None:
    """Return the module's name if this is the dictionary of an imported module; else None.

    All functions of a module share its dictionary.
    """
    name = space.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and module.__dict__ is space else None


def dump(
    value: Any,
    out_of_band: OutOfBandArguments | None = None,
    keeps: list[Any] | None = None,
    *,
    remote: RemoteInterpreter | None = None,
    record: Record | None = None,
    by_value: Callable[[], ByValue],
) -> tuple[bytes, CallPickler]:
    """Pickle for a worker; return the bytes and what the pickler has found out.

    Args:
        value: what is sent.
        out_of_band: takes large buffers, and shared arrays that are referred to.
        keeps: takes shared arrays, where there is no ``out_of_band``; has to live as long as the
            bytes are used.
        remote: the Python of the workers; None is one like this.
        record: the objects that the workers know by number, if there is no remote.
        by_value: returns what writes functions and classes by value.
    """
    pieces, pickler = dump_pieces(
        value, out_of_band, keeps, remote=remote, record=record, by_value=by_value
    )
    return pieces.whole(), pickler


def dump_pieces(
    value: Any,
    out_of_band: OutOfBandArguments | None = None,
    keeps: list[Any] | None = None,
    *,
    remote: RemoteInterpreter | None = None,
    record: Record | None = None,
    by_value: Callable[[], ByValue],
) -> tuple[Pieces, CallPickler]:
    """Pickle as ``dump``; return the pieces of the pickle, which the caller has to let go of."""
    pieces = Pieces()
    pickler = CallPickler(pieces, out_of_band, keeps, remote=remote, by_value=by_value)
    pickler._record = record
    try:
        pickler.dump(value)
    except (TypeError, pickle.PicklingError) as error:
        pickler.explain(error)
        raise
    pieces.keep(pickler)
    return pieces, pickler
