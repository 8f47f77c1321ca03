"""Which objects of the host's namespaces the workers of a pool know, by which number, and whether the host has changed them since.

A function by value brings what it reaches: globals, closures, defaults, attributes. Each of these objects gets a number for as long as it
lives, so that it is one object in a worker however many functions and calls bring it (``worker/objects.py``). Two sizes are told apart:

* A small value (``NODES`` objects and ``BYTES`` bytes at most) travels with each function that reaches it. The elements of each container
  in it make its *version*, so any change is noticed.
* The content of a large one travels once per worker, as a ``Piece``. Whether it has changed is judged by a *fingerprint*: its identity, its
  length, and a sample of what it holds, so that a submit costs nothing that grows with its size.

One ``Record`` belongs to each pool. Entered by any thread that submits, without a lock: tables change by single operations, and two threads
that meet an object for the first time at once agree on its number by ``setdefault``.
"""

from __future__ import annotations

import contextvars
import copyreg
import hashlib
import itertools
import marshal
import pickle
import queue
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from wetlands_executor.serialize.scalars import SCALARS
from wetlands_executor.worker import objects

#: Objects in, and bytes of, a value that is compared wholly at each submit. What is larger travels once and is compared by a sample.
NODES = 1000
BYTES = 1 << 16
#: Numbers of dropped objects that are kept back before workers are told.
DROPPED = 256

_numbers = itertools.count(1)
#: Builtin types without a ``__dict__`` whose objects cannot be referred to weakly, but have an identity that programs rely on.
CellType = types.CellType


class Piece:
    """The content of one large object, as workers read it once.

    Attributes:
        number: its name on the wire.
        owner: number of the object.
        data: the pickle.
        fingerprint: what the object looked like then.
        needs: further pieces that it refers to.
        by_value: name of what travels as code in it, or None.
        keeps: the shared arrays in it.
    """

    __slots__ = ("by_value", "data", "fingerprint", "keeps", "needs", "number", "owner")

    def __init__(
        self, owner: int, data: bytes, fingerprint: Any, needs: dict[int, Piece], by_value: str | None, keeps: list[Any] | None
    ) -> None:
        self.number = next(_numbers)
        self.owner = owner
        self.data = data
        self.fingerprint = fingerprint
        self.needs = needs
        self.by_value = by_value
        self.keeps = keeps


class _Weak(weakref.ref):  # type: ignore[type-arg]
    """A weak reference that takes its object out of the record."""

    __slots__ = ("key", "number", "record")
    key: int
    number: int
    record: weakref.ref[Record]


def _gone(found: _Weak) -> None:
    record = found.record()
    if record is not None:
        record.drop(found.key, found.number)


class Known:
    """One object that has a number.

    Attributes:
        key: its id.
        number: what workers call it.
        weak, strong: the object; strong only where Python has no weak references to its type.
        shape: what cannot change without making it another object: the code of a function, the pickle of an opaque object.
        piece: its content if it is large.
    """

    __slots__ = ("__weakref__", "key", "number", "piece", "shape", "strong", "weak")

    def __init__(self, obj: Any, key: int, record: Record) -> None:
        self.key = key
        self.number = next(_numbers)
        self.shape: Any = None
        self.piece: Piece | None = None
        self.strong: Any = None
        self.weak: _Weak | None = None
        try:
            self.weak = weak = _Weak(obj, _gone)
        except TypeError:
            self.strong = obj
        else:
            weak.key, weak.number, weak.record = key, self.number, record.itself

    def get(self) -> Any:
        """Return the object; None if it is gone."""
        return self.strong if self.weak is None else self.weak()


def _unused() -> int:
    """Return the count of references to an object that only a ``Known`` refers to."""
    known = Known(object(), 0, Record())
    return sys.getrefcount(known.strong)


class Epoch:
    """What was dropped in one span of time, until no call that may refer to it is on its way any more.

    Each call holds the epoch in which it was pickled, and each epoch the next one. So when one goes, all calls pickled before its end have gone.
    """

    __slots__ = ("dropped", "following", "ready")

    def __init__(self, ready: deque[int]) -> None:
        self.dropped: list[int] = []
        self.following: Epoch | None = None
        self.ready = ready

    def __del__(self) -> None:
        self.ready.extend(self.dropped)


class Record:
    """The objects of one pool's namespaces.

    Attributes:
        known: id -> what has that id. An entry without a weak reference keeps its object until ``purge`` finds that nothing else does.
        epoch: takes the numbers of objects and pieces that the host drops.
        ready: such numbers of which workers may be told.
        urgent: the host has dropped a piece since: its memory is worth a message.
        functions: id of a function or class -> how it was pickled last (``changes.Watched``).
        retired: definitions that will not be called again.
        restless: something was pickled or dropped since the last look.
    """

    __slots__ = (
        "__weakref__", "_purge_in", "_strong", "epoch", "functions", "itself", "known", "ready", "restless", "retired", "urgent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        # Those of them that keep their object.
        self._strong: dict[int, Known] = {}
        self.ready: deque[int] = deque()
        self.epoch = Epoch(self.ready)
        self.urgent = False
        self.functions: dict[int, Any] = {}
        self.retired: deque[Any] = deque()
        self.restless = False
        self._purge_in = 0
        self.itself = weakref.ref(self)

    def of(self, obj: Any) -> Known:
        """Return the entry of an object, made if there is none."""
        key = id(obj)
        found = self.known.get(key)
        if found is not None:
            if found.get() is obj and (type(obj) is not types.FunctionType or found.shape is obj.__code__):
                return found
            self.drop(key, found.number)  # its object is gone, and this one has its address; or it has other code now
        made = Known(obj, key, self)
        if type(obj) is types.FunctionType:
            made.shape = obj.__code__
        found = self.known.setdefault(key, made)
        if found.weak is None:
            self._strong[key] = found
        return found

    def renew(self, obj: Any) -> Known:
        """Give an object another number: for workers it is another object."""
        found = self.of(obj)
        self.drop(id(obj), found.number)
        return self.of(obj)

    def drop(self, key: int, number: int) -> None:
        """Forget an object."""
        found = self.known.get(key)
        if found is None or found.number != number:
            return
        self.known.pop(key, None)
        self._strong.pop(key, None)
        self.retire(key)
        self.restless = True
        self.epoch.dropped.append(number)
        if found.piece is not None:
            self.drop_piece(found)

    def retire(self, key: int) -> None:
        """Forget how a function or class was pickled."""
        watched = self.functions.pop(key, None)
        if watched is not None and watched.definition is not None:
            self.retired.append(watched.definition)

    def drop_piece(self, known: Known) -> None:
        """Forget the content of a large object."""
        if known.piece is not None:
            self.epoch.dropped.append(known.piece.number)
            known.piece = None
            self.urgent = True

    def purge(self) -> None:
        """Drop the objects that this record alone keeps alive."""
        limit = _UNUSED
        for key, known in list(self._strong.items()):
            if sys.getrefcount(known.strong) <= limit:
                self.drop(key, known.number)

    def take_dropped(self) -> list[int]:
        """Return what workers should forget now, after a call was pickled; empty if it is not worth a message yet."""
        self.restless = False  # Order: before the look, so that what is dropped from now on is seen by the next one.
        self._purge_in -= 1
        if self._purge_in < 0:
            self._purge_in = len(self._strong) // DROPPED
            self.purge()
        epoch = self.epoch
        if self.urgent or len(epoch.dropped) >= DROPPED:
            self.urgent = False
            epoch.following = self.epoch = Epoch(self.ready)
            del epoch
        found: list[int] = []
        while self.ready:
            try:
                found.append(self.ready.popleft())
            except IndexError:  # another thread was faster
                break
        return found


_UNUSED = _unused()

# number -> the entry of a sentinel, so that one that a task returns is the object that it is here.
_sentinels: weakref.WeakValueDictionary[int, Known] = weakref.WeakValueDictionary()


def note_sentinel(known: Known) -> int:
    """Let a task return this object; return its number."""
    _sentinels[known.number] = known
    return known.number


def _find_sentinel(number: int) -> Any:
    known = _sentinels.get(number)
    return None if known is None else known.get()


objects.find_in_host = _find_sentinel


class Stand:
    """Stands for an object in a stream; its reduction names the object by its number.

    Attributes:
        obj: the object.
        reduction: as ``__reduce__`` returns it.
        number: of the object.
    """

    __slots__ = ("number", "obj", "reduction")

    def __init__(self, obj: Any, number: int, reduction: Any) -> None:
        self.obj = obj
        self.number = number
        self.reduction = reduction


class Mark:
    """The name of a global or attribute in a stream; tells the pickler what comes next, for messages."""

    __slots__ = ("function", "kind", "name")

    def __init__(self, name: str, kind: str, function: str) -> None:
        self.name = name
        self.kind = kind
        self.function = function


def digest(parts: Any) -> int:
    """Return a number for builtin values, equal for equal ones of equal types."""
    return int.from_bytes(hashlib.blake2b(marshal.dumps(parts, 2), digest_size=8).digest(), "little")


# --- what travels how

#: Made anew in each process: type -> how.
LOCK, RLOCK = type(threading.Lock()), type(threading.RLock())
SYNCHRONIZERS: dict[Any, Callable[[Any], tuple[Any, ...]]] = {
    threading.Event: lambda _obj: (),
    threading.Condition: lambda obj: (obj._lock,),
    threading.Semaphore: lambda obj: (obj._value,),
    threading.BoundedSemaphore: lambda obj: (obj._initial_value,),
    threading.Barrier: lambda obj: (obj._parties, obj._action, obj._timeout),
}
WEAK_DICTIONARIES = (weakref.WeakValueDictionary, weakref.WeakKeyDictionary)
QUEUES = (queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue)
PER_PROCESS = (LOCK, RLOCK, *SYNCHRONIZERS, *QUEUES, threading.local, contextvars.ContextVar, *WEAK_DICTIONARIES)


def default_of(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """Return the default of a context variable in a tuple, which is empty if it has none."""
    try:
        return (contextvars.Context().run(variable.get),)
    except LookupError:
        return ()


_REDUCE_EX, _REDUCE = object.__reduce_ex__, object.__reduce__


def has_plain_state(kind: type) -> bool:
    """Return True if objects of a class are reduced as ``object`` does it: the class, ``__dict__``, slots, items."""
    return (
        getattr(kind, "__reduce_ex__", None) is _REDUCE_EX
        and getattr(kind, "__reduce__", None) is _REDUCE
        and kind not in copyreg.dispatch_table
        and kind.__module__ not in ("numpy", "functools", "typing", "types")
    )


#: Flag of classes that are not written in C, or at least made like those (Py_TPFLAGS_HEAPTYPE).
_OF_PYTHON = 1 << 9


def is_stateless(obj: Any) -> bool:
    """Return True for what may be a sentinel: an instance that holds nothing, or only texts (its name)."""
    kind = type(obj)
    if kind is object:
        return True
    if not kind.__flags__ & _OF_PYTHON or not has_plain_state(kind):
        return False
    if hasattr(kind, "__setstate__") or getattr(kind, "__getstate__", None) is not getattr(object, "__getstate__", None):
        return False  # it says itself what it holds: BytesIO and StringIO, which are made like classes of Python from 3.13 on
    if isinstance(obj, (dict, list, set, tuple, str, bytes, int, float, BaseException)):
        return False
    if any(vars(base).get("__slots__") for base in kind.__mro__):
        return False
    return all(type(value) is str for value in getattr(obj, "__dict__", {}).values())


# id of a plain ``object()`` -> (module, name) of the globals that hold it, in the order in which the modules were imported.
_named: dict[int, list[tuple[str, str]]] = {}
_modules_seen = 0
#: Names under which a sentinel is looked for in a worker, at most: modules that import it from its own have it too.
_MOST_NAMES = 8


def names_of(obj: Any, importable: Callable[[types.ModuleType], bool]) -> tuple[tuple[str, str], ...]:
    """Return (module, name) of each global of a module which workers can import that holds a sentinel; the likeliest first.

    Args:
        obj: a stateless object.
        importable: says whether a worker can import a module.
    """
    global _modules_seen  # a cache; a race makes it twice
    if type(obj) is not object:
        module = sys.modules.get(type(obj).__module__)
        if not isinstance(module, types.ModuleType) or not importable(module):
            return ()
        return tuple((module.__name__, key) for key, value in list(vars(module).items()) if value is obj)[:1]
    if len(sys.modules) != _modules_seen:
        _modules_seen = len(sys.modules)
        _named.clear()
        for name, module in list(sys.modules.items()):
            for key, value in list(vars(module).items()) if isinstance(module, types.ModuleType) else ():
                if type(value) is object:
                    _named.setdefault(id(value), []).append((name, key))
    found = []
    # A module that imports it is imported before the one that makes it.
    for name, key in reversed(_named.get(id(obj), ())):
        module = sys.modules.get(name)
        if isinstance(module, types.ModuleType) and vars(module).get(key) is obj and importable(module):
            found.append((name, key))
    return tuple(found[:_MOST_NAMES])


# --- sizes and fingerprints


def measure(value: Any, record: Record) -> tuple[bool, Any]:
    """Return whether a value is large, and what it looks like. Costs at most so much, however large it is.

    Raises:
        RuntimeError: another thread changes it meanwhile.
    """
    parts: list[Any] = []
    seen: set[int] = {id(value)}
    left, size = NODES, 0
    large = False
    waiting: list[Any] = [value]
    for current in _drain(waiting):
        kind = type(current)
        left -= 1
        if kind in (str, bytes):
            size += len(current)
            parts.append(current if len(current) <= 256 else record.of(current).number)
            continue
        if kind in SCALARS:
            parts.append(current)
            continue
        if current is not value:  # which is the same object as before, or would have no piece
            parts.append(record.of(current).number)
            if id(current) in seen:
                continue
            seen.add(id(current))
        inner: list[Any] = []
        if isinstance(current, (list, tuple, dict, set, frozenset)):
            parts.append(len(current))
            large = large or len(current) > left
            inner = _sample(current, max(left, 0))
        elif not isinstance(current, _NAMED):
            count, sample = _buffer(current)
            size += count
            parts.append(sample)
        attributes = getattr(current, "__dict__", None)
        if type(attributes) is dict and not isinstance(current, _NAMED):
            large = large or len(attributes) > left
            inner += _sample(attributes, max(left, 0))
        kinds = set(map(type, inner))
        if kinds <= _NUMBERS:
            parts.append(tuple(inner))
            left -= len(inner)
        elif kinds <= SCALARS and (lengths := [len(each) for each in inner if type(each) in (str, bytes)]) and max(lengths) <= 256:
            size += sum(lengths)
            parts.append(tuple(inner))
            left -= len(inner)
        else:
            waiting.extend(inner)
    return large or size > BYTES or left < 0, digest(parts)


_NUMBERS = SCALARS - {str, bytes}
_NAMED = (type, types.FunctionType, types.ModuleType)


def _drain(waiting: list[Any]) -> Iterator[Any]:
    """Yield what waits, first in first out, no more than ``2 * NODES``."""
    position = 0
    while position < len(waiting) and position < 2 * NODES:
        yield waiting[position]
        position += 1


def _sample(container: Any, most: int) -> list[Any]:
    """Return at most ``most`` elements of a container: all, or the first and the last, or evenly spread ones."""
    count = len(container)
    if isinstance(container, dict):
        if count * 2 <= most:
            return list(itertools.chain.from_iterable(container.items()))
        half = most // 4
        keys = [*itertools.islice(container, half), *itertools.islice(reversed(container), half)]
        return [part for key in keys for part in (key, container[key])]
    if count <= most:
        return list(container)
    if isinstance(container, (list, tuple)):
        return [*container[:: count // max(most - 1, 1) + 1], container[-1]] if most else []
    return list(itertools.islice(container, most))


def _buffer(obj: Any) -> tuple[int, Any]:
    """Return how many bytes stand in an array or another object with a buffer, and a sample of them; (0, None) if it has none."""
    try:
        flat = pickle.PickleBuffer(obj).raw()
    except (TypeError, ValueError, BufferError):
        count = getattr(obj, "nbytes", 0)
        return (count if isinstance(count, int) else 0), None
    with flat:
        # A step of odd length meets each byte of an element in turn.
        step = max(flat.nbytes // 8192, 1) | 1
        layout = str(getattr(obj, "dtype", "")), str(getattr(obj, "shape", ""))
        return flat.nbytes, (flat.nbytes, *layout, bytes(flat[::step]), bytes(flat[-64:]))
