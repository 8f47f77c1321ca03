"""Call to bytes, bytes to result: the host's half of the payload layer (the worker's is ``worker/calls.py``).

Three ways for a call, cheapest first: an importable function is defined once per worker and named by a number; its arguments, if they are
of builtin scalar types, go through the C pickler; everything else goes through cloudpickle, with two differences: objects of the user's
project are named together with their file, and functions by value share one namespace per module (``worker/namespaces.py``).

``encode`` runs in the thread that submits, without a lock: pickling is user code. ``decode`` runs where user code may run (a decoder
thread), except for payloads in which ``is_trivial`` finds no name of a class or function.
"""

from __future__ import annotations

import builtins
import collections
import copyreg
import hashlib
import importlib.util
import io
import itertools
import logging
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures.process import _RemoteTraceback
from typing import Any, ClassVar

import cloudpickle
from cloudpickle import cloudpickle as _cp

from wetlands_executor.errors import ExecutionException
from wetlands_executor.pool import functions, versions
from wetlands_executor.worker import imports, namespaces, renames, wire

LOGGER = logging.getLogger("concurrent.futures")

PROTOCOL = 5
#: What has to be the same on both sides for code by value: implementation and magic number of the bytecode (PEP 3147).
MAGIC = f"{sys.implementation.name}-{importlib.util.MAGIC_NUMBER.hex()}"

_SCALARS = frozenset({int, float, str, bytes, bool, type(None), complex})
_ids = itertools.count(1)


class Definition:
    """A function that workers know by number after they have read it once.

    Attributes:
        number: its name on the wire, unique in this process.
        data: the definition, pickled from builtin types.
        name: for messages.
        by_value: name of the function if its code travels, else None.
        keep: the function, so that its ``id`` stays its own.
    """

    __slots__ = ("__weakref__", "by_value", "data", "keep", "name", "number")

    def __init__(self, data: bytes, name: str, by_value: str | None = None, keep: Any = None) -> None:
        self.number = next(_ids)
        self.name = name
        self.data = data
        self.by_value = by_value
        self.keep = keep


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
    """

    __slots__ = ("by_value", "definition", "flags", "payload")

    def __init__(self, definition: Definition | None, flags: int, payload: bytes, by_value: str | None) -> None:
        self.definition = definition
        self.flags = flags
        self.payload = payload
        self.by_value = by_value


class _Space:
    """Stands for a function's globals in the stream; becomes the namespace of its module in the worker."""

    __slots__ = ("base", "name")

    def __init__(self, name: str, base: dict[str, Any]) -> None:
        self.name = name
        self.base = base

    def __reduce__(self) -> tuple[Any, ...]:
        return namespaces.share, (self.name, self.base)


# Tokens of functions and classes: an object that was defined anew is another object. Guarded by the GIL (single operations).
_tokens: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_token_count = itertools.count(1)
_nested = threading.local()


# How a few classes are pickled, once their modules are loaded; for our own pickles, not for the program's.
_reducers: dict[Any, Any] = {}


class CallPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with references that name the project's files and one namespace per module."""

    dispatch_table: ClassVar[Any] = collections.ChainMap(_reducers, *cloudpickle.Pickler.dispatch_table.maps)

    def __init__(self, file: io.BytesIO) -> None:
        for name in renames.pending:
            if name in sys.modules:
                renames.learn_reducers(_reducers)
                break
        super().__init__(file, protocol=PROTOCOL)
        self.by_value: str | None = None
        self._spaces: dict[int, _Space] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Reduce functions and classes by our rules; leave the rest to cloudpickle."""
        if isinstance(obj, types.FunctionType):
            reference = functions.reference_to(obj)
            if reference is None or _cp._is_registered_pickle_by_value(sys.modules[reference.module]):
                return self._dynamic_function_reduce(obj)
            return self._by_reference(reference)
        if issubclass(type(obj), type):  # isinstance would take list[int] for a class on Python 3.10
            if obj.__module__ == "builtins" or obj in _cp._BUILTIN_TYPE_NAMES or obj in (type(None), type(...), type(NotImplemented)):
                return _cp._class_reduce(obj)
            reference = functions.reference_to(obj)
            if reference is None or _cp._is_registered_pickle_by_value(sys.modules[reference.module]):
                if self.by_value is None:
                    self.by_value = obj.__qualname__
                return _cp._dynamic_class_reduce(obj)
            return self._by_reference(reference)
        if isinstance(obj, types.MethodType):
            name = obj.__func__.__name__
            if getattr(obj.__self__, name, None) == obj:  # by name, as pickle does it: the function itself may have no name of its own
                return getattr, (obj.__self__, name)
        return super().reducer_override(obj)

    @staticmethod
    def _by_reference(reference: functions.Reference) -> Any:
        if reference.file is None:
            return NotImplemented
        return imports.fetch, tuple(reference)

    def _dynamic_function_reduce(self, func: Any) -> Any:
        """Reduce a function by value, with its globals as entries that the worker may or may not need."""
        if self.by_value is None:
            self.by_value = functions.display_name(func)
        code, base, *rest = self._function_getnewargs(func)
        attributes, slots = _cp._function_getstate(func)
        name = _space_name(func.__globals__)
        if name is not None:
            space = self._spaces.get(id(func.__globals__))
            if space is None:
                space = self._spaces[id(func.__globals__)] = _Space(name, dict(base))
            base = space
        entries = [(key, *_entry(value, name is not None)) for key, value in slots.pop("__globals__").items()]
        return _cp._make_function, (code, base, *rest), (attributes, slots, name, entries), None, None, namespaces.restore


def _space_name(space: Mapping[str, Any]) -> str | None:
    """Return the module's name if this is the dictionary of an imported module, which all its functions share."""
    name = space.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and module.__dict__ is space else None


def _entry(value: Any, shared: bool) -> tuple[Any, Any, bytes | None]:
    """Return (token, value, pickled value or None) of one global of a function by value."""
    if not shared:
        return None, value, None
    if type(value) in _SCALARS and not (type(value) in (str, bytes) and len(value) > 256):
        return (type(value).__name__, repr(value)), value, None
    if isinstance(value, types.ModuleType):
        return ("module", value.__name__), value, None
    if isinstance(value, (types.FunctionType, type)):
        token = _tokens.get(value)
        if token is None:
            token = _tokens.setdefault(value, f"object-{next(_token_count)}")
        return token, value, None
    active = _nested.__dict__.setdefault("active", set())
    if id(value) in active:  # it refers to itself through a function: the stream's own memo has to close the circle
        return None, value, None
    active.add(id(value))
    try:
        data, _by_value = dumps(value)
    finally:
        active.discard(id(value))
    return hashlib.sha256(data).hexdigest(), None, data


def dumps(value: Any) -> tuple[bytes, str | None]:
    """Pickle for a worker; return the bytes and the name of what travels as code, if anything does."""
    with io.BytesIO() as stream:
        pickler = CallPickler(stream)
        pickler.dump(value)
        return stream.getvalue(), pickler.by_value


# Definitions of importable functions, by id; the Definition keeps the function, and so its id. Guarded by the GIL.
_definitions: dict[int, Definition] = {}
_targets: dict[tuple[Any, ...], Definition] = {}


def define(fn: Callable[..., Any] | str) -> Definition | None:
    """Return the definition of an importable function or a target string; None for everything that has to travel by value.

    Raises:
        ValueError, FileNotFoundError: a malformed target, or one that names no file.
    """
    if isinstance(fn, str):
        definition_tuple = functions.definition_of_target(fn)
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
    reference = functions.reference_to(fn)
    if reference is None:
        return None
    return _definitions.setdefault(id(fn), Definition(pickle.dumps(("reference", *reference), 4), functions.display_name(fn), keep=fn))


def define_by_value(fn: Callable[..., Any]) -> Definition:
    """Return a definition that carries the function itself; for callers that use it many times (``map``)."""
    data, by_value = dumps(fn)
    return Definition(pickle.dumps(("value", data), 4), functions.display_name(fn), by_value)


def encode(fn: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], definition: Definition | None = None) -> Encoded:
    """Pickle a call. Raises whatever the pickling of its parts raises."""
    if definition is None:
        definition = _definitions.get(id(fn)) or define(fn)
    if definition is None:
        payload, by_value = dumps((fn, args, kwargs))
        return Encoded(None, _bulk(payload), payload, by_value)
    if not args and not kwargs:
        return Encoded(definition, wire.PLAIN, b"", definition.by_value)
    for value in args:
        if type(value) not in _SCALARS:
            break
    else:
        if not kwargs:
            payload = pickle.dumps((args, None), PROTOCOL)
            return Encoded(definition, wire.PLAIN | _bulk(payload), payload, definition.by_value)
    payload, by_value = dumps((args, kwargs))
    return Encoded(definition, _bulk(payload), payload, definition.by_value or by_value)


def _bulk(payload: bytes) -> int:
    return wire.IN_BULK if len(payload) > wire.INLINE else 0


_context: Context | None = None


def current_context() -> Context:
    """Return the surroundings as they are now; the same object as long as nothing changed."""
    global _context  # a cache of one entry; replaced whole, so a race costs a second equal object
    context = _context
    if context is None or context.seen[0] != sys.path or context.seen[1] != len(functions.extra_roots) or _levels_may_differ():
        functions.note_editable_installs()
        seen = (list(sys.path), len(functions.extra_roots))
        paths = list(functions.project_paths())
        paths += [root for root in functions.extra_roots if root not in paths]
        content = (paths, _log_levels())
        if context is not None and context.content == content:
            context.seen = seen
        else:
            context = Context(seen, content)
        _context = context
    return context


_MARK = "wetlands_executor"


def _levels_may_differ() -> bool:
    """Return True if a log level was set since they were last read.

    ``Logger.setLevel`` clears the caches of all loggers (so that ``isEnabledFor`` asks anew); a mark in the root's cache goes with it.
    """
    return _MARK not in getattr(logging.root, "_cache", ())


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
            module = "wetlands_executor.worker" + module[len("_wetlands_worker") :]
        self.modules.add(module)
        try:
            return renames.find(module, name, super().find_class)
        except (ImportError, AttributeError) as error:
            versions.note_name(error, module, name)
            raise

    modules: Any = frozenset()


# Classes that were given a number (copyreg.add_extension) are named without that opcode; hardly anybody has any.
_extensions: dict[Any, Any] = getattr(copyreg, "_inverted_registry", {})


def is_trivial(payload: bytes | bytearray) -> bool:
    """Return True if unpickling cannot run user code: the stream is small and names no class or function (no STACK_GLOBAL opcode)."""
    return len(payload) < 65536 and b"\x93" not in payload and not _extensions


def decode(payload: bytes | bytearray) -> Any:
    """Unpickle a result. Raises whatever that raises."""
    if is_trivial(payload):
        return pickle.loads(payload)
    unpickler = _ResultUnpickler(io.BytesIO(payload))
    unpickler.modules = set()
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


def decode_error(payload: bytes | bytearray, *, trusted_only: bool = False) -> BaseException:
    """Rebuild a remote exception: the original type where the host can, else ``ExecutionException``. Raises nothing of its own.

    Args:
        payload: what ``dumps_error`` of the worker made.
        trusted_only: rebuild builtin exceptions only, so that no user code runs (for the I/O thread).
    """
    name, message, lines, whole, parts = pickle.loads(payload)
    error = _rebuild(whole, parts, (lambda data: _BuiltinErrors(io.BytesIO(data)).load()) if trusted_only else decode)
    if error is None:
        error = ExecutionException(
            f"the function raised {name}: {message} (an exception that cannot be rebuilt in this process; "
            "its lines are in .traceback)",
            name,
            message,
            lines.splitlines(),
        )
    try:
        error, added = versions.explain_argument(error)
        lines += added
    except Exception:  # its __str__ is the user's code
        LOGGER.debug("wetlands_executor: nothing could be added to %s", name, exc_info=True)
    make_cause: Any = _RemoteTraceback
    error.__cause__ = make_cause(f'\n"""\n{lines}"""')
    return error


def _rebuild(whole: bytes | None, parts: bytes | None, load: Callable[[bytes], Any]) -> BaseException | None:
    if whole is not None:
        try:
            error = load(whole)
            if isinstance(error, BaseException):
                return error
        except BaseException:  # noqa: BLE001, S110 - user code: an __init__ with another signature, a module that the host lacks
            pass
    if parts is not None:
        try:
            kind, args, attributes = load(parts)
            error = kind.__new__(kind, *args)
            if isinstance(error, BaseException):
                error.args = args
                error.__dict__.update(attributes)
                return error
        except BaseException:  # noqa: BLE001, S110 - as above
            pass
    return None


def undecodable(error: BaseException, what: str, prefix: str = "", python: str = "") -> BaseException:
    """Return the exception for a result that the host cannot unpickle.

    Args:
        error: what unpickling raised.
        what: name of the task.
        prefix: of the environment that sent it, if it is known.
        python: version of that environment's Python, if it is known.
    """
    return versions.explain_result(error, what, prefix, python)
