"""Bytes to a call, and an outcome to bytes: the worker's half of ``serialize/calls.py``.

Plain payloads hold builtin types only and go through the C unpickler. All others go through an
unpickler that serves the cloudpickle that the host has shipped (the environment's own copy, if any,
is never touched) and this package under its private name.

This module and those that ship code (``code_*``, ``pickler``, ``moved_names``, ``missing_names``)
import each other in a circle, always within functions on this side: an unpickler has to know the
names by which code, forms of ``typing`` and moved classes travel, and what makes those again has to
unpickle and to reach the shipped cloudpickle. A worker whose tasks take and return builtin types
loads none of them.
"""

from __future__ import annotations

import io
import sys

from . import wire

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    _Base = List[Any]
else:
    _Base = list

try:
    from _pickle import Pickler, PicklingError, Unpickler, dumps, loads
except ImportError:  # another implementation than CPython
    from pickle import Pickler, PicklingError, Unpickler, dumps, loads

__all__ = [
    "Pickler",
    "PicklingError",
    "Pieces",
    "Unpickler",
    "cloudpickle_module",
    "dumps",
    "dumps_error",
    "dumps_pieces",
    "dumps_result",
    "loads",
    "loads_rich",
]

#: What the host's pickles call this package, and what a worker's do.
_HOST_NAME = "wetlands_executor.worker."
_WORKER_NAME = "_wetlands_worker."
_HERE = __name__.rpartition(".")[0]


#: Version of the host's Python if its bytecode is not this interpreter's; set once, by the runner.
#: Code travels as source then.
_foreign = ""


def use_sources(version: str) -> None:
    """Exchange source with the host from now on, and refuse bytecode from it."""
    global _foreign  # a fact about this process
    _foreign = version


def cloudpickle_module() -> Any:
    """Return the shipped cloudpickle, imported on first use; in the host, its own."""
    import importlib

    return importlib.import_module(
        "cloudpickle.cloudpickle" if _HERE + "." == _HOST_NAME else _HERE + ".cloudpickle"
    )


_find: Any = None


def _load_find() -> Any:
    """Return ``moved_names.find``.

    A worker that only sees builtin types never compiles that module.
    """
    global _find  # a cache
    from . import moved_names

    _find = moved_names.find
    return _find


#: (module, name) of numpy, this package and the standard library -> what a pickle calls so. Each
#: array names three; to look them up, under the names of other versions too, takes longer than to
#: read a short one.
_found: Dict[Any, Any] = {}
_KEPT = ("numpy", _HOST_NAME)
_STANDARD = frozenset(
    ("collections", "datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid")
)
_MODULE = type(sys)


class RichUnpickler(Unpickler):
    """Maps the host's names of cloudpickle and of this package to the shipped modules."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that the stream names; an import error says where it was looked for."""
        if _foreign:
            from .code_portable import check_name

            check_name(module, name)
        called = module, name
        found = _found.get(called)
        if found is not None:
            return found
        kept = module in _STANDARD or module == wire.SHORT_MODULE or module.startswith(_KEPT)
        if module == wire.SHORT_MODULE:
            module, name = wire.DEFINED_MODULE, wire.DEFINED_NAME
        if module.startswith((_HOST_NAME, _WORKER_NAME)):
            _, _, rest = module.rpartition(".")
            if rest == "cloudpickle":
                return getattr(cloudpickle_module(), name)
            module = "%s.%s" % (_HERE, rest)
        if module == "cloudpickle.cloudpickle" or module == "cloudpickle":
            return getattr(cloudpickle_module(), name)
        self.modules.add(module)
        if not kept:
            here = sys.modules.get(module)
            found = here.__dict__.get(name) if type(here) is _MODULE else None
            if found is not None:
                return found
        try:
            found = (_find or _load_find())(module, name, super().find_class)
            if kept:
                _found[called] = found
            return found
        except (ImportError, AttributeError) as error:
            from . import missing_names

            raise missing_names.explain(error, module, name) from None

    def persistent_load(self, pid: Any) -> Any:
        """Return what stands for an object of a namespace.

        The stream has made it, or found it, already (see ``objects``).
        """
        return pid

    modules: Any = frozenset()


def loads_rich(data: Any, buffers: Any = None, file: Any = None) -> Any:
    """Unpickle what may hold functions, classes or instances of the user's.

    ``buffers`` came beside it (PEP 574); ``file`` is what is read instead of ``data``.
    """
    return _load(RichUnpickler(io.BytesIO(data) if file is None else file, buffers=buffers))


def _load(unpickler: RichUnpickler) -> Any:
    unpickler.modules = set()
    try:
        return unpickler.load()
    except Exception as error:
        from . import missing_names

        missing_names.add_versions(error, unpickler.modules)
        raise


class _ExaminingUnpickler(RichUnpickler):
    """Notes whether what it makes may run code of the user's when it is let go of.

    Attributes:
        quiet: all classes that it has met say nothing about how their objects are made and end.
    """

    quiet = True

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        ours = module == wire.SHORT_MODULE or module.startswith(_HOST_NAME)
        if ours and not isinstance(found, type):  # it may be what looks a class up
            return lambda *args: self._examined(found(*args))
        return found if module.startswith(_QUIET) else self._examined(found)

    def _examined(self, found: Any) -> Any:
        self.quiet = self.quiet and isinstance(found, type) and _is_quiet(found)
        return found


#: Modules of functions that make arrays, and plain objects.
_QUIET = ("numpy.", "copyreg")
_NOISY = frozenset(
    (
        "__del__",
        "__new__",
        "__setstate__",
        "__reduce__",
        "__reduce_ex__",
        "__setattr__",
        "__setitem__",
        "append",
        "extend",
    )
)


def _is_quiet(kind: type) -> bool:
    """Return True for a class in C, and for one in Python that defines none of the above."""
    return all(
        not base.__flags__ & _HEAP_TYPE or _NOISY.isdisjoint(vars(base)) for base in kind.__mro__
    )


#: Flag of classes that are made while the program runs (Py_TPFLAGS_HEAPTYPE).
_HEAP_TYPE = 1 << 9


def loads_examined(file: Any, buffers: Any) -> Tuple[Any, bool]:
    """Unpickle as ``loads_rich``; return the value, and whether it is quiet.

    That is, whether to let go of it later than the call's end does no harm: none of it prints then,
    or reports progress. A function may of course have given it a finalizer meanwhile.
    """
    unpickler = _ExaminingUnpickler(file, buffers=buffers)
    return _load(unpickler), unpickler.quiet


_modules_seen = 0

#: Reductions by class for results only, not for what tasks pickle themselves.
own_reducers: Dict[Any, Any] = {}


def learn_reducers() -> None:
    """Learn the reductions of modules that were imported since the last result.

    A few of their classes are pickled in a form that every version reads.
    """
    global _modules_seen  # twice does no harm
    if len(sys.modules) == _modules_seen:
        return
    _modules_seen = len(sys.modules)
    if "numpy" in sys.modules or "statistics" in sys.modules or "torch" in sys.modules:
        import copyreg

        from . import moved_names

        moved_names.learn_reducers(copyreg.dispatch_table, own_reducers)


class Pieces(_Base):
    """A file for the pickler that keeps the pieces of a pickle, each a flat buffer.

    The C pickler writes each frame of 64 KB when it is full, and each ``bytes`` and ``str`` of that
    size and more outside of any frame, as it is. So a large pickle can be copied into shared memory
    piece by piece, and a large value is copied once.

    Attributes:
        pickler: what has written them, whose memo keeps the values. *Invariant:* ``release`` lets
            go of it, because it refers to this object as well.
    """

    __slots__ = ("pickler",)

    if TYPE_CHECKING:
        pickler: Any

    def write(self, piece: Any) -> None:
        """Keep a piece. What can change its size meanwhile is copied."""
        kind = type(piece)
        if kind is bytes or kind is memoryview:
            self.append(piece)
        elif kind is bytearray:
            self.append(bytes(piece))
        else:
            self.append(piece.raw())  # a PickleBuffer that stays in the pickle

    def keep(self, pickler: Any) -> None:
        """Hold the pickler, and so the values, until the pieces are let go of."""
        self.pickler = pickler

    @property
    def size(self) -> int:
        """Bytes of all pieces together."""
        return sum(map(len, self))

    def whole(self) -> bytes:
        """Return the pickle in one piece, and let go of the pieces."""
        first = self[0]
        found: bytes = first if len(self) == 1 and type(first) is bytes else b"".join(self)
        self.release()
        return found

    def release(self) -> None:
        """Let go of the pieces, and of the values."""
        self.pickler = None
        self.clear()


#: Types whose pickles hold no buffer that could travel by itself.
_SCALARS = frozenset((int, float, bool, str, bytes))
#: Those of them that may be long.
_LONG = frozenset((str, bytes))


def dumps_result(value: Any, by_value: bool) -> bytes:
    """Pickle a value of a task in one piece; see ``dumps_pieces``."""
    return dumps_pieces(value, by_value, None).whole()


def dumps_pieces(value: Any, by_value: bool, raws: Any) -> Pieces:
    """Pickle a result; what plain pickle cannot do, cloudpickle tries.

    Args:
        value: what the function returned.
        by_value: True if code may travel back as it is, that is, if both interpreters have the same
            magic number; else as source.
        raws: a list that takes the large buffers (PEP 574) as contiguous views of bytes; None
            leaves them in the pickle.

    Raises:
        Exception: whatever the value's own reduction raises.
    """
    if len(sys.modules) != _modules_seen:
        learn_reducers()  # modules have been imported since the last result
    pieces = Pieces()
    take = None
    if type(value) not in _SCALARS:
        take = None if raws is None else taker(raws)
    elif type(value) not in _LONG or len(value) < wire.UNFRAMED:
        pieces.append(dumps(value, 5))
        return pieces
    try:
        pickler = Pickler(pieces, 5, buffer_callback=take)
        if own_reducers:
            import copyreg

            pickler.dispatch_table = {**copyreg.dispatch_table, **own_reducers}
        pickler.dump(value)
    except (PicklingError, AttributeError, TypeError) as error:
        if raws:
            raws.clear()
        pieces.clear()
        try:
            from .pickler import dump_by_value

            pickler = dump_by_value(value, "" if by_value else _foreign, pieces, take)
        except (PicklingError, AttributeError, TypeError) as second:
            if not by_value and isinstance(second, PicklingError):
                raise  # it says why the code of a function cannot travel
            raise error from None
    pieces.keep(pickler)
    return pieces


def taker(raws: Any) -> Any:
    """Return a ``buffer_callback`` that puts large buffers into ``raws``."""

    def take(buffer: Any) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: pickle says so itself
            return True
        if raw.nbytes < wire.CROSSOVER:
            return True
        raws.append(raw)
        return False

    return take


def text_of(value: Any) -> str:
    """Return ``str(value)`` as an exact ``str``.

    A subclass could not be read by the host, which does not have the class.
    """
    try:
        return str.__str__(str(value))
    except Exception as error:  # noqa: BLE001 - __str__ is the user's code
        return "<its __str__ raised %s>" % type(error).__name__


def repr_of(value: Any) -> str:
    """Return ``repr(value)`` as an exact ``str``."""
    try:
        return str.__str__(repr(value))
    except Exception as error:  # noqa: BLE001 - __repr__ is the user's code
        return "<%s object, its __repr__ raised %s>" % (type(value).__name__, type(error).__name__)


def dumps_error(error: BaseException, by_value: bool) -> bytes:
    """Pickle an exception so that the host can rebuild it, or at least say what it was.

    Never raises an ordinary exception.

    Returns bytes of a tuple: (qualified type name, message, formatted traceback, pickled exception
    or None, pickled parts or None); the parts (see ``raised``) serve exceptions that pickle does
    not rebuild, or not as they were.
    """
    kind = type(error)
    name = vars(type)["__name__"].__get__(kind)
    try:
        if isinstance(error, ModuleNotFoundError):
            from . import missing_names

            missing_names.name_places(error)
        name = str.__str__(
            kind.__qualname__
            if kind.__module__ in (None, "builtins")
            else "%s.%s" % (kind.__module__, kind.__qualname__)
        )
    except Exception:  # noqa: BLE001 - its class may hide its attributes
        pass
    try:
        message = text_of(error)
    except BaseException as second:  # noqa: BLE001
        # SystemExit, or an alarm that has come in between
        message = "<its __str__ raised %s>" % type(second).__name__
    try:
        import traceback  # only when something failed: it costs 4 ms of a start

        lines = "".join(traceback.format_exception(kind, error, trim(error.__traceback__)))
    except BaseException as second:  # noqa: BLE001
        # so is __repr__; a recursion limit may be near, or no descriptor left to import with
        lines = "%s: %s\n(the traceback could not be formatted: %s)\n" % (
            name,
            message,
            type(second).__name__,
        )
    whole = parts = None
    try:
        whole = dumps_result(error, by_value)
    except BaseException:  # noqa: BLE001
        # the user's __reduce__; the parts below and the text remain
        pass
    try:
        if whole is None or not _is_plain(error):
            from . import raised

            parts = dumps_result(raised.parts_of(error), by_value)
    except BaseException:  # noqa: BLE001 - as above
        pass
    return dumps((name, message, lines, whole, parts), 5)


def _is_plain(error: BaseException) -> bool:
    """Return True if pickle rebuilds an exception as it was.

    Its class makes, fills and reduces its instances as a builtin one does.
    """
    kind = type(error)
    for base in kind.__mro__:
        names = vars(base)
        if base.__module__ == "builtins":
            return not hasattr(error, "exceptions")
        if not _OWN_WAYS.isdisjoint(names):
            return False
    return False


_OWN_WAYS = frozenset(
    (
        "__init__",
        "__new__",
        "__setattr__",
        "__getattribute__",
        "__reduce__",
        "__reduce_ex__",
        "__getstate__",
        "__setstate__",
        "__slots__",
        "args",
    )
)


def trim(tb: Any) -> Any:
    """Leave out the frames of this package, with which a user can do nothing."""
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith(_HERE):
        tb = tb.tb_next
    return tb
