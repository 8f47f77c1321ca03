"""Call to bytes, bytes to result: the host's half of the payload layer (the worker's is ``worker/calls.py``).

Three ways for a call, cheapest first: an importable function is defined once per worker and named by a number; its arguments, if they are
of builtin scalar types, go through the C pickler; everything else goes through cloudpickle, with two differences: objects of the user's
project are named together with their file, and functions by value share one namespace per module (``worker/namespaces.py``). For a Python
of another magic number their code is reduced to source (``worker/reductions.py``).

``encode`` runs in the thread that submits, without a lock: pickling is user code. ``decode`` runs where user code may run (a decoder
thread), except for payloads in which ``is_trivial`` finds no name of a class or function.
"""

from __future__ import annotations

import builtins
import collections
import copyreg
import importlib
import io
import itertools
import logging
import pickle
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import _RemoteTraceback
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import cloudpickle
from cloudpickle import cloudpickle as _cp

from wetlands_executor import arguments, threads
from wetlands_executor.errors import ExecutionException, ScriptExit, describe, mark_made
from wetlands_executor.serialize import plain, references, versions
from wetlands_executor.serialize.interpreter import MAGIC as MAGIC
from wetlands_executor.serialize.interpreter import Peer
from wetlands_executor.serialize.plain import is_trivial as is_trivial
from wetlands_executor.sharedmem import arena, share
from wetlands_executor.worker import imports, namespaces, objects, raised, renames, wire

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Epoch, Piece, Record

LOGGER = logging.getLogger("concurrent.futures")

PROTOCOL = 5
#: A switch for tests: False lets bytecode travel as if there were one Python version only.
PORTABLE = True

SCALARS = frozenset({int, float, str, bytes, bool, type(None), complex})
_ids = itertools.count(1)


class Definition:
    """A function that workers know by number after they have read it once.

    Attributes:
        number: its name on the wire, unique in this process.
        data: the definition, pickled from builtin types.
        name: for messages.
        by_value: name of the function if its code travels, else None.
        bytecode: its code travels as it is, for workers of this very Python only.
        rewritten: it stands in a test module that pytest has changed; see ``references.is_rewritten``.
        keep: the function, so that its ``id`` stays its own; or the shared arrays in it.
        needs: large objects that it refers to, which a worker has to have before.
    """

    __slots__ = ("__weakref__", "bare", "by_value", "bytecode", "data", "keep", "name", "needs", "number", "rewritten")

    def __init__(
        self, data: bytes, name: str, by_value: str | None = None, keep: Any = None, *, bytecode: bool = False, needs: Sequence[Piece] = ()
    ) -> None:
        self.number = next(_ids)
        self.name = name
        self.data = data
        self.by_value = by_value
        self.bytecode = bytecode
        self.rewritten = False
        #: The call without arguments, once there was one.
        self.bare: DefinedCall | None = None
        self.keep = keep
        self.needs = needs


class Context:
    """The user's project folders and log levels at the time of a call; sent to a worker before the first call that needs them."""

    __slots__ = ("content", "data", "number", "seen")

    def __init__(self, seen: tuple[list[str], int], content: tuple[list[str], dict[str, int]]) -> None:
        self.number = next(_ids)
        self.content = content
        self.data = pickle.dumps(content, 4)
        self.seen = seen


class Encoded:
    """A call as bytes.

    Attributes:
        definition: the function, or None if the payload has it.
        flags: of the call frame.
        payload: pickled (args, kwargs), or (function, args, kwargs); empty for a call without arguments.
        by_value: name of what travels as code, or None.
        bytecode: that code travels as it is: only workers of this very Python may get this call.
        parcel: its blocks in shared memory, or None.
    """

    __slots__ = ("by_value", "bytecode", "definition", "flags", "parcel", "payload")
    #: Large objects that the payload refers to, which a worker has to have before.
    needs: Sequence[Piece] = ()
    #: What tells the arguments if the payload does not: a short pickle, or the text itself.
    summary: bytes | str | None = None

    def __init__(
        self,
        definition: Definition | None,
        flags: int,
        payload: bytes,
        by_value: str | None,
        bytecode: bool = False,
        parcel: arena.Parcel | None = None,
    ) -> None:
        self.definition = definition
        self.flags = flags
        self.payload = payload
        self.by_value = by_value
        self.bytecode = bytecode
        self.parcel = parcel


class PackedCall(Encoded):
    """An ``Encoded`` whose payload is long, or in shared memory."""

    __slots__ = ("summary",)


class NeedyCall(Encoded):
    """An ``Encoded`` whose payload refers to objects of the host's namespaces. ``epoch``: see ``identity.Epoch``."""

    __slots__ = ("epoch", "needs", "summary")
    epoch: Epoch


class DefinedCall(Encoded):
    """An ``Encoded`` whose definition is known."""

    __slots__ = ()
    definition: Definition


#: Types whose objects are made or pickled differently in other Python versions.
_VARYING = frozenset({types.CodeType, types.GenericAlias, types.UnionType, type(Callable[[], None])})


#: Modules that ``_import_late`` has imported.
_late: dict[str, Any] = {}


def _import_late(name: str) -> Any:
    """Import a module of ours in the middle of a call.

    Race: a signal handler or a finalizer that submits meanwhile would find the module half made, since a thread does not wait for an import of
    its own. So another thread imports it, which any re-entry of this one waits for.
    """
    known = sys.modules.get(name)
    if known is not None and not getattr(known.__spec__, "_initializing", False):
        return _late.setdefault(name, known)
    load = partial(importlib.import_module, name)
    try:
        found = threads.apart(load)
    except RuntimeError:  # no thread can be started
        found = load()
    return _late.setdefault(name, found)


def _spaces() -> Any:
    """Return what pickles functions and classes by value, imported when the first of them is met."""
    name = "wetlands_executor.serialize.by_value"
    return _late.get(name) or _import_late(name)


def _reductions() -> Any:
    """Return the rules for code and classes by value, imported when the first of them is met: many programs send none."""
    name = "wetlands_executor.worker.reductions"
    return _late.get(name) or _import_late(name)


class _Space:
    """Stands for a function's globals in the stream; becomes the namespace of its module in the worker."""

    __slots__ = ("base", "name")

    def __init__(self, name: str, base: dict[str, Any]) -> None:
        self.name = name
        self.base = base

    def __reduce__(self) -> tuple[Any, ...]:
        return namespaces.share, (self.name, self.base)


# How a few classes are pickled, once their modules are loaded; for our own pickles, not for the program's.
_reducers: dict[Any, Any] = {}


class CallPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with references that name the project's files and one namespace per module.

    Args:
        file: where the bytes go.
        parcel: takes large buffers, and shared arrays that are referred to.
        keeps: takes shared arrays, where there is no parcel.
        peer: the Python that reads them; None is one like this.
        by_name: raise ``reductions.ByValue`` instead of sending code.
    """

    dispatch_table: ClassVar[Any] = collections.ChainMap(_reducers, *cloudpickle.Pickler.dispatch_table.maps)

    def __init__(
        self,
        file: io.BytesIO,
        parcel: arena.Parcel | None = None,
        keeps: list[Any] | None = None,
        *,
        peer: Peer | None = None,
        by_name: bool = False,
    ) -> None:
        for name in renames.pending:
            if name in sys.modules:
                renames.learn_reducers(_reducers, _reducers)
                break
        super().__init__(file, protocol=PROTOCOL, buffer_callback=parcel.take if parcel is not None else None)
        #: number -> a large object that the stream refers to.
        self.needs: dict[int, Piece] = {}
        self._record: Record | None = None
        #: Takes shared arrays that are referred to; None: they are copied.
        self.keeps = keeps if parcel is None else parcel.keeps
        self.by_value: str | None = None
        self._spaces: dict[int, _Space] = {}
        self._peer = peer
        self._by_name = by_name
        # Who reads it, once something was met that depends on it; False is a Python like this one.
        self._names: Any = None if peer is not None else False

    @property
    def bytecode(self) -> bool:
        """True if what was pickled holds code as it is."""
        return self.by_value is not None and not self._names and PORTABLE

    def _foreign(self) -> Any:
        """Return who reads it if that is a Python of another magic number, else False. Asked only when code or its like is met."""
        if self._names is None:
            peer = self._peer
            assert peer is not None
            self._names = _reductions().Names(peer.version, self._dumps_by_name) if PORTABLE and peer.foreign else False
        return self._names

    def explain(self, error: TypeError | pickle.PicklingError, named: bool = False) -> None:
        """Raise a better error if what could not be pickled belongs to code that was on its way to another Python.

        Args:
            error: what pickling has raised.
            named: the caller says which value of which function it was.
        """
        if self._names and self._names.annotated:
            self._names.blame(error, lambda value: CallPickler(io.BytesIO(), peer=self._peer).dump(value))
        if not named and self._names and self.by_value is not None and str(error).startswith(("cannot pickle", "can't pickle")):
            raise pickle.PicklingError(
                f"{self.by_value} cannot be sent to a worker: what it needs, or an argument, cannot be pickled ({error}). Make that object "
                "inside the function, or once per worker with an initializer"
            ) from error

    def _dumps_by_name(self, obj: Any) -> bytes:
        with io.BytesIO() as stream:
            CallPickler(stream, peer=self._peer, by_name=True).dump(obj)
            return stream.getvalue()

    def _note(self, name: str) -> None:
        """Note that code travels."""
        if self._by_name:
            raise _reductions().ByValue
        if self.by_value is None:
            self.by_value = name

    def reducer_override(self, obj: Any) -> Any:
        """Reduce functions and classes by our rules; leave the rest to cloudpickle."""
        kind = type(obj)
        if isinstance(obj, types.FunctionType):
            reference = references.reference_to(obj)
            if reference is None or self._wants_value(reference):
                self._note(references.display_name(obj))
                return self._function_by_value(obj)
            return self._by_reference(reference)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if isinstance(obj, types.MethodType):
            name = obj.__func__.__name__
            if getattr(obj.__self__, name, None) == obj:  # by name, as pickle does it: the function itself may have no name of its own
                return getattr, (obj.__self__, name)
        if kind.__module__ in ("functools", "typing", "annotationlib") and references.reference_to(obj) is None:
            found = _reductions().reduce_decorated(obj)
            if found is not None:
                return found
        if kind in _VARYING and self._foreign():
            if kind is types.CodeType:
                self._note(obj.co_name)
            return _reductions().reduce_value(obj, self._names)
        if kind is types.CodeType:
            return _reductions().keep_file(obj)
        if self.keeps is not None and share.any_shared():
            found = share.reduce(obj)
            if found is not None:
                self.keeps.append(obj)
                return found
        if kind is object or getattr(obj, "__dict__", None) == {}:
            found = _spaces().reduce_sentinel(obj, self.record)
            if found is not None:
                return found
        return super().reducer_override(obj)

    def _reduce_class(self, obj: Any) -> Any:
        if obj in (type(None), type(...), type(NotImplemented)):
            return _cp._class_reduce(obj)
        if obj in _cp._BUILTIN_TYPE_NAMES:
            return _reductions().builtin_type(_cp._BUILTIN_TYPE_NAMES[obj]) if self._foreign() else _cp._class_reduce(obj)
        if obj.__module__ == "builtins":
            return _cp._class_reduce(obj)
        if obj.__module__ == "enum":
            found = _reductions().reduce_enum_base(obj)
            if found is not None and self._foreign():
                return found
        reference = references.reference_to(obj)
        if reference is None or self._wants_value(reference):
            self._note(obj.__qualname__)
            return self._class_by_value(obj)
        return self._by_reference(reference)

    def _wants_value(self, reference: references.Reference) -> bool:
        """Return True for what goes by value although it could be imported."""
        return _cp._is_registered_pickle_by_value(sys.modules[reference.module]) or (references.is_rewritten(reference) and bool(self._foreign()))

    @staticmethod
    def _by_reference(reference: references.Reference) -> Any:
        if reference.file is None:
            return NotImplemented
        return imports.fetch, tuple(reference)

    def _function_by_value(self, obj: Any) -> Any:
        """Reduce a function or class by value to a stream of its own, in which everything has its identity."""
        found = _spaces().current(obj, self.keeps, self._peer, self.record)
        for piece in found.needs:
            self.needs[piece.number] = piece
        self._foreign()
        return objects.load, (found.data,)

    _class_by_value = _function_by_value

    @property
    def record(self) -> Record:
        """The objects that the readers know by number."""
        found = self._record
        if found is None:
            found = self._record = _spaces().record_of(self._peer)
        return found


def _space_name(space: Mapping[str, Any]) -> str | None:
    """Return the module's name if this is the dictionary of an imported module, which all its functions share."""
    name = space.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and module.__dict__ is space else None


def dumps(
    value: Any, parcel: arena.Parcel | None = None, keeps: list[Any] | None = None, *, peer: Peer | None = None
) -> tuple[bytes, str | None, bool]:
    """Pickle for a worker; return the bytes, the name of what travels as code, if anything does, and whether it does as bytecode.

    Args:
        value: what is sent.
        parcel: takes large buffers, and shared arrays that are referred to.
        keeps: takes shared arrays, where there is no parcel; has to live as long as the bytes are used.
        peer: the Python of the workers; None is one like this.
    """
    data, pickler = dump(value, parcel, keeps, peer=peer)
    return data, pickler.by_value, pickler.bytecode


def dump(
    value: Any, parcel: arena.Parcel | None = None, keeps: list[Any] | None = None, *, peer: Peer | None = None, record: Record | None = None
) -> tuple[bytes, CallPickler]:
    """Pickle as ``dumps``; return the bytes and what the pickler has found out. ``record``: the one to use if there is no peer."""
    with io.BytesIO() as stream:
        pickler = CallPickler(stream, parcel, keeps, peer=peer)
        pickler._record = record
        try:
            pickler.dump(value)
        except (TypeError, pickle.PicklingError) as error:
            pickler.explain(error)
            raise
        return stream.getvalue(), pickler


# Definitions of importable functions, by id; the Definition keeps the function, and so its id. Guarded by the GIL.
_definitions: dict[int, Definition] = {}
_targets: dict[tuple[Any, ...], Definition] = {}


def define(fn: Callable[..., Any] | str) -> Definition | None:
    """Return the definition of an importable function or a target string; None for everything that has to travel by value.

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
    made = Definition(pickle.dumps(("reference", *reference), 4), references.display_name(fn), keep=fn)
    made.rewritten = references.is_rewritten(reference)
    return _definitions.setdefault(id(fn), made)


def wants_value(definition: Definition, peer: Peer | None) -> bool:
    """Return True for a function that can be imported here, but whose code over there would be another: a test module's rewritten one."""
    return definition.rewritten and PORTABLE and peer is not None and peer.foreign


def define_by_value(fn: Callable[..., Any], peer: Peer | None = None) -> Definition:
    """Return a definition that carries the function itself; for callers that use it many times (``map``)."""
    keeps: list[Any] = []
    data, pickler = dump(fn, None, keeps, peer=peer)
    name, needs = references.display_name(fn), tuple(pickler.needs.values())
    keeps.append(pickler.record.epoch)
    return Definition(pickle.dumps(("value", data), 4), name, pickler.by_value, keeps, bytecode=pickler.bytecode, needs=needs)


def encode(
    fn: Callable[..., Any] | str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    definition: Definition | None = None,
    peer: Peer | None = None,
) -> Encoded:
    """Pickle a call for workers of ``peer``. Raises whatever the pickling of its parts raises."""
    if definition is None:
        definition = _definitions.get(id(fn))
        if definition is None and peer is not None and peer.record is not None:
            definition = _spaces().definition_of(fn, peer)
        definition = definition or define(fn)
    if definition is not None and definition.rewritten and wants_value(definition, peer):
        definition = None
    if definition is None:
        return _encode_call(None, (fn, args, kwargs), peer)
    if not args and not kwargs:
        return Encoded(definition, wire.PLAIN, b"", definition.by_value, definition.bytecode)
    return encode_defined(definition, args, kwargs, peer)


def encode_at_once(fn: Any, args: tuple[Any, ...], definition: Definition | None) -> DefinedCall | None:
    """Pickle a call of a known function with a few scalars; None if it is not as simple as that."""
    if definition is None:
        definition = _definitions.get(id(fn))
        if definition is None or definition.rewritten:
            return None
    if not args:
        bare = definition.bare
        if bare is None:
            bare = definition.bare = DefinedCall(definition, wire.PLAIN, b"", definition.by_value, definition.bytecode)
        return bare
    for value in args:
        if type(value) not in SCALARS:
            return None
    payload = pickle.dumps((args, None), PROTOCOL)
    if len(payload) > wire.INLINE:
        return None
    return DefinedCall(definition, wire.PLAIN, payload, definition.by_value, definition.bytecode)


def encode_defined(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, peer: Peer | None = None) -> Encoded:
    """Pickle the arguments of a call whose function has a definition."""
    for value in args:
        if type(value) not in SCALARS:
            break
    else:
        if not kwargs:
            payload = pickle.dumps((args, None), PROTOCOL)
            if len(payload) <= wire.INLINE:
                return Encoded(definition, wire.PLAIN, payload, definition.by_value, definition.bytecode)
            return _encoded(definition, wire.PLAIN, payload, definition.by_value, definition.bytecode, None, (args, None))
    if not kwargs and _are_arrays(args):
        payload, parcel = _dumps_arrays((args, None))
        return _encoded(definition, 0, payload, definition.by_value, definition.bytecode, parcel, (args, None))
    return _encode_call(definition, (args, kwargs or {}), peer)


def _are_arrays(args: tuple[Any, ...]) -> bool:
    """Return True for scalars and numpy's arrays of numbers, of which ``pickle`` makes the same bytes as ``CallPickler``, in a fifth of the time."""
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


def _dumps_arrays(value: Any) -> tuple[bytes, arena.Parcel]:
    parcel = arena.Parcel()
    try:
        return pickle.dumps(value, PROTOCOL, buffer_callback=parcel.take), parcel
    except BaseException:
        parcel.discard()  # as below
        raise


def _encode_call(definition: Definition | None, value: Any, peer: Peer | None) -> Encoded:
    parcel = arena.Parcel()
    try:
        payload, pickler = dump(value, parcel, peer=peer)
    except BaseException:
        parcel.discard()  # its task may keep the exception, and the traceback this frame
        raise
    by_value, bytecode = pickler.by_value, pickler.bytecode
    if definition is not None:
        by_value, bytecode = definition.by_value or by_value, definition.bytecode or bytecode
    encoded = _encoded(definition, 0, payload, by_value, bytecode, parcel, value)
    if pickler._record is None:
        return encoded
    needy = NeedyCall(definition, encoded.flags, encoded.payload, by_value, bytecode, encoded.parcel)
    needy.needs = tuple(pickler.needs.values())
    needy.summary = encoded.summary
    needy.epoch = pickler.record.epoch
    return needy


def _encoded(
    definition: Definition | None,
    flags: int,
    payload: bytes,
    by_value: str | None,
    bytecode: bool,
    parcel: arena.Parcel | None,
    value: tuple[Any, ...],
) -> Encoded:
    """Return the call with this payload, the pickle of ``value``."""
    packed = len(payload) > wire.CROSSOVER or (parcel is not None and not parcel.empty)
    if not packed and len(payload) <= arguments.KEPT:
        return Encoded(definition, flags if len(payload) <= wire.INLINE else flags | wire.IN_BULK, payload, by_value, bytecode)
    # Its text is made now only if it is cheaper than to keep what tells it.
    summary = payload if len(payload) <= arguments.KEPT else arguments.of_values(value[-2], value[-1])
    more = wire.IN_BULK
    if packed:
        parcel = parcel or arena.Parcel()
        payload, more = parcel.pack(payload)
    found = PackedCall(definition, flags | more, payload, by_value, bytecode, None if parcel is None or parcel.empty else parcel)
    found.summary = summary
    return found


_context: Context | None = None


def current_context() -> Context:
    """Return the surroundings as they are now; the same object as long as nothing changed."""
    global _context  # a cache of one entry; replaced whole, so a race costs a second equal object
    context = _context
    if context is None or context.seen != (sys.path, len(references.extra_roots)) or _MARK not in getattr(logging.root, "_cache", ()):
        references.note_editable_installs()
        seen = (list(sys.path), len(references.extra_roots))
        paths = list(references.project_paths())
        paths += [root for root in references.extra_roots if root not in paths]
        content = (paths, _log_levels())
        if context is not None and context.content == content:
            context.seen = seen
        else:
            context = Context(seen, content)
        _context = context
    return context


#: ``Logger.setLevel`` clears the caches of all loggers (so that ``isEnabledFor`` asks anew); this mark in the root's cache goes with it.
_MARK = "wetlands_executor"



def _log_levels() -> dict[str, int]:
    """Return the levels of all loggers that have one of their own; "" is the root."""
    cache: dict[Any, Any] | None = getattr(logging.root, "_cache", None)
    if cache is not None:
        cache[_MARK] = True
    disabled = logging.root.manager.disable
    found = {"": max(logging.root.level, disabled + 1 if disabled else 0)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = max(logger.level, disabled + 1 if disabled else 0)
    return found


# --- results


class _ResultUnpickler(pickle.Unpickler):
    """Maps the worker's private names back to the host's."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("_wetlands_worker"):
            if module == "_wetlands_worker.cloudpickle":
                return getattr(_cp, name)
            if (module, name) == ("_wetlands_worker.scripts", "ScriptExit"):
                return ScriptExit
            module = "wetlands_executor.worker" + module[len("_wetlands_worker") :]
        self.modules.add(module)
        try:
            return renames.find(module, name, super().find_class)
        except (ImportError, AttributeError) as error:
            versions.note_name(error, module, name)
            raise

    #: Modules that the stream has named, for the message if it cannot be read.
    modules: set[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = set()


class _ForeignUnpickler(_ResultUnpickler):
    """Unpickler for a worker of another magic number: bytecode is refused."""

    def find_class(self, module: str, name: str) -> Any:
        from wetlands_executor.worker import portable

        portable.check_name(module, name)
        return super().find_class(module, name)


#: What numpy's own pickles of arrays, numbers and dtypes name. None of it runs user code, and it is there at once if numpy is.
_ARRAY_NAMES = frozenset(
    [
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("_core", "core")),
        *((f"numpy.{core}.multiarray", name) for core in ("_core", "core") for name in ("_reconstruct", "scalar")),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
    ]
)


class _ArrayUnpickler(pickle.Unpickler):
    """Knows what arrays of numbers need and nothing else: runs no user code."""

    def find_class(self, module: str, name: str) -> Any:
        # Not imported, which may have to wait, and not by attribute, which warns where numpy has renamed it.
        found = vars(sys.modules[module]).get(name) if (module, name) in _ARRAY_NAMES and module in sys.modules else None
        if found is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not looked up here")
        return found


def decode_arrays(payload: bytes | bytearray | arena.Delivery) -> tuple[Any] | None:
    """Unpickle a result of numpy's arrays, and plain containers and numbers beside them, in a tuple; None if it is anything else.

    Runs no user code. Asked for every result that is not trivial, so what names nothing of numpy is not even tried.
    """
    data: Any = payload
    buffers = None
    if isinstance(payload, arena.Delivery):
        data, buffers = payload.data, payload.buffers
    if len(data) >= plain.MOST_BYTES or b"numpy" not in data or not plain.is_array(data):
        return None
    try:
        found = (_ArrayUnpickler(io.BytesIO(data), buffers=buffers).load(),)
    except Exception:  # noqa: BLE001 - whatever it is: where user code may run, it is unpickled once more
        return None
    if isinstance(payload, arena.Delivery):
        payload.data = payload.buffers = None  # type: ignore[assignment] # views live as long as the value
    return found


def decode(payload: bytes | bytearray | arena.Delivery, foreign: bool = False) -> Any:
    """Unpickle a result. Raises whatever that raises.

    Args:
        payload: what the worker has sent.
        foreign: its bytecode is not ours, and is refused.
    """
    if type(payload) is bytes and b"\x93" not in payload and len(payload) < 65536 and not plain.extensions:
        return pickle.loads(payload)  # it names nothing (STACK_GLOBAL), so nothing of the versions concerns it
    unpickler = _ForeignUnpickler if foreign and PORTABLE else _ResultUnpickler
    if isinstance(payload, arena.Delivery):
        data, buffers = payload.data, payload.buffers
        payload.data = payload.buffers = None  # type: ignore[assignment] # views live as long as the value
        try:
            return _load(unpickler(io.BytesIO(data), buffers=buffers))
        except BaseException as error:
            # The exception may be kept for long; what the frames of its traceback look at must not be.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            data = buffers = None  # type: ignore[assignment] # nor as long as the traceback of a failure
    return _load(unpickler(io.BytesIO(payload)))


def _load(unpickler: _ResultUnpickler) -> Any:
    try:
        return unpickler.load()
    except Exception as error:
        versions.note_packages(error, unpickler.modules)
        raise


class _BuiltinErrors(pickle.Unpickler):
    """Knows the exceptions of ``builtins`` and nothing else: runs no user code."""

    def find_class(self, module: str, name: str) -> Any:
        found = getattr(builtins, name, None) if module == "builtins" else None
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is not looked up here")


def decode_error(payload: bytes | bytearray, *, trusted_only: bool = False, foreign: bool = False) -> BaseException:
    """Rebuild a remote exception: the original type where the host can, else ``ExecutionException``. Raises nothing.

    Args:
        payload: what ``dumps_error`` of the worker made.
        trusted_only: rebuild builtin exceptions only, so that no user code runs (for the I/O thread).
        foreign: as for ``decode``.
    """
    try:
        name, message, lines, whole, parts = plain.read(payload)
        described = type(name) is type(message) is type(lines) is str
    except (plain.NotPlain, TypeError, ValueError) as failure:
        return mark_made(ExecutionException(f"the function raised an exception, and what the worker has sent of it cannot be read ({failure})"))
    if not described:
        return mark_made(ExecutionException("the function raised an exception, and what the worker has sent of it is no description"))
    added = ""
    error = _rebuild(message, whole, parts, _load_builtin if trusted_only else partial(decode, foreign=foreign))
    if error is None:
        error = mark_made(
            ExecutionException(
                f"the function raised {name}: {message} (an exception that cannot be rebuilt in this process: its traceback is in .traceback. "
                "To have it here, raise one whose class both sides can import, with arguments that can be pickled)",
                name,
                message,
                lines.splitlines(),
            )
        )
    if isinstance(error, ScriptExit):
        error.traceback = lines.splitlines()
    try:
        error, added = versions.explain_argument(error)
    except BaseException:  # its __str__ and its attributes are the user's code
        LOGGER.debug("wetlands_executor: nothing could be added to %s", name, exc_info=True)
    make_cause: Any = _RemoteTraceback
    _FIELDS["__cause__"].__set__(error, make_cause(f'\n"""\n{lines}{added}"""'))
    return error


def _load_builtin(data: bytes) -> Any:
    return _BuiltinErrors(io.BytesIO(data)).load()


#: The fields of every exception, past a ``__setattr__`` or a property of its class that refuses.
_FIELDS: Any = vars(BaseException)


def _rebuild(message: str, whole: Any, parts: Any, load: Callable[[bytes], Any]) -> BaseException | None:
    """Return the exception; of the two ways to it the one that keeps its message, if only one does."""
    first = None
    if whole is not None:
        try:
            error = load(whole)
            if isinstance(error, BaseException):
                if parts is None or _says(error, message):
                    return error
                first = error
        except BaseException:  # noqa: BLE001, S110 - user code: an __init__ with another signature, a module that the host lacks
            pass
    if parts is not None:
        try:
            error = raised.made_of(load(parts))
        except BaseException:  # noqa: BLE001, S110 - as above
            pass
        else:
            if first is None or _says(error, message):
                return error
    return first


def _says(error: BaseException, message: str) -> bool:
    try:
        return str(error) == message
    except BaseException:  # noqa: BLE001 - its __str__ is the user's code
        return False


def undecodable(error: BaseException, what: str, prefix: str = "", python: str = "") -> BaseException:
    """Return the exception for a result that the host cannot unpickle. Raises nothing.

    Args:
        error: what unpickling raised.
        what: name of the task.
        prefix: of the environment that sent it, if it is known.
        python: version of that environment's Python, if it is known.
    """
    try:
        error = versions.explain_result(error, what, prefix, python)
    except BaseException:  # its __str__ and its attributes are the user's code
        LOGGER.debug("wetlands_executor: nothing could be added to what unpickling has raised", exc_info=True)
    if _FIELDS["__cause__"].__get__(error) is None and not isinstance(error, KeyboardInterrupt):  # that may be of this thread's user
        # The exception is the one of the user's class; what it is about stands in the traceback.
        make_cause: Any = _RemoteTraceback
        told = f"The result of {what} cannot be rebuilt in this process: {describe(error, 500)}"
        _FIELDS["__cause__"].__set__(error, make_cause(f'\n"""\n{told}. {versions.RESULT_REMEDY}\n"""'))
    return error
