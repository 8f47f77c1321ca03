"""Whether a function by value is unchanged, decided by identities alone.

``changes.holds`` compares what a function reaches by content: that is exact, and costs as much as
the content is long. As long as the host has bound nothing anew, the same is told by comparing the
identities of what stands in each namespace, closure and container with those of the last time. A
``FastCheck`` is a flat list of them, walked by a few loops in C; it enters two Python functions,
whatever it compares.

Invariant: if a fast check holds, so does the exact one. The converse is not needed: when it
fails, the exact one decides, and a new fast check is made.

An identity says nothing about an object that has died: another one may have its address. So the
check of a function is *void* as soon as the record drops one of the objects in it
(``Known.void_checks``). It holds no object but scalars, and keeps nothing alive.

Entered by any thread that submits, without a lock.
"""

from __future__ import annotations

import itertools
import marshal
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from wetlands_executor.serialize import changes, fingerprints
from wetlands_executor.serialize.kinds import has_plain_state, is_immutable
from wetlands_executor.serialize.scalars import NUMBERS, SCALARS, TEXTS

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Known, Record

#: Elements of a container of scalars up to which each is compared by identity. Of a longer one,
#: texts are compared by ``==``, which looks at identities first and is thirty times as fast, and
#: numbers by the bytes of ``marshal``, which tells 1 from True and 1.0, and 0.0 from -0.0.
EXACT = 64
#: Bytes of a text that a check may keep.
SHORT = 256
#: Elements of a large container of scalars that are looked at.
SAMPLE = 1000
#: Containers and instances in one check. What reaches more of them is compared exactly.
MOST = 256

#: Scalars that are equal to nothing but their like.
_TEXTS = frozenset((str, bytes, type(None)))

_NOTHING = object()
_absent = itertools.repeat(_NOTHING)
_call: Callable[[Any], Any] = weakref.ref.__call__
_attributes_of = attrgetter(
    "__code__", "__defaults__", "__kwdefaults__", "__doc__", "__name__", "__qualname__"
)
_dict_of = attrgetter("__dict__")
_content_of_cell = attrgetter("strong.cell_contents")
_strong = attrgetter("strong")
#: Python has no weak references to these.
_GROUPED = frozenset((list, dict))
_DESCRIPTORS = (*changes.DESCRIPTORS, type(vars(type)["__mro__"]))


class _NeedsExactCheck(Exception):  # noqa: N818 - a signal within this module
    """Something needs the exact check."""


class FastCheck:
    """The identities of what a function or class by value reaches.

    Args:
        checks: of the pickler.
        record: of the pool.
        root: a function that was made to be pickled, for others of its code. What is its own is not
            looked at, and its globals are those of the function that ``holds`` is asked for.

    Attributes:
        void: one of the objects has died, or is another one for workers now.
        looks: there is something to be compared; else it holds unless it is void.
    """

    __slots__ = (
        "_attributes",
        "_bound",
        "_brief",
        "_cells",
        "_classes",
        "_containers",
        "_contents",
        "_deep",
        "_functions",
        "_groups",
        "_kept",
        "_lengths",
        "_names",
        "_nested",
        "_no_attributes",
        "_objects",
        "_samples",
        "_spaces",
        "looks",
        "void",
    )

    def __init__(
        self,
        checks: list[tuple[Any, ...]],
        record: Record,
        root: FunctionType | None = None,
    ) -> None:
        self.void = False
        # Of ``root``, with the globals that it shares with others.
        self._names: tuple[str, ...] = ()
        self._bound: list[int] = []
        # The scalars among what is compared, which keep their addresses by that.
        self._kept: list[Any] = []
        self._objects: dict[int, Known] = {}
        self._functions: tuple[Any, ...] = ()
        self._attributes: list[int] = []
        # Those of them that have no attributes of their own.
        self._no_attributes: tuple[Any, ...] = ()
        self._cells: tuple[Known, ...] = ()
        self._contents: list[int] = []
        # (reference to a function, names of globals, identities of what they are bound to)
        self._spaces: list[tuple[Any, tuple[str, ...], list[int]]] = []
        # (reference to a class, names of its attributes, identities of their values and its bases)
        self._classes: list[tuple[Any, list[str], list[int]]] = []
        # (entries of lists or of dictionaries, which of both, lengths, identities)
        self._groups: list[tuple[tuple[Known, ...], bool, list[int], list[int]]] = []
        # (entries of containers in large ones, of which only the length is looked at, lengths)
        self._lengths: tuple[list[Known], list[int]] = ([], [])
        # (entry, what lists what another object holds, identities)
        self._containers: list[tuple[Any, Callable[[Any], Any], list[int]]] = []
        # (entry, what returns a sample of a large object, the sample)
        self._samples: list[tuple[Known, Callable[[Any], Any], Any]] = []
        # (entry, how it was pickled) of functions and classes with checks of their own
        self._nested: list[tuple[Known, Any]] = []
        self._collect(checks, record, root)
        self._deep = bool(self._groups or self._containers or self._samples or self._nested)
        # Only ``_names`` has to be compared.
        self._brief = not (
            self._spaces or self._functions or self._cells or self._classes or self._deep
        )
        self.looks = bool(self._names) or not self._brief
        for known in self._objects.values():
            known.add_check(self)
        # Race: another thread may have dropped one before it was told of this check.
        if any(record.known.get(known.key) is not known for known in self._objects.values()):
            self.void = True

    def holds(self, function: Any = None) -> bool:
        """Return True if everything that the check covers is the same.

        Args:
            function: one with the code of ``root``, if there is one.
        """
        try:
            if self._names:
                found = map(function.__globals__.get, self._names, _absent)
                if [*map(id, found)] != self._bound:
                    return False
            if self._brief:
                return not self.void
            for user, names, bound in self._spaces:
                if [*map(id, map(user().__globals__.get, names, _absent))] != bound:
                    return False
            functions = self._functions
            if len(functions) == 1:
                one = functions[0]()
                if [*map(id, _attributes_of(one))] != self._attributes:
                    return False
                if self._no_attributes and one.__dict__:
                    return False
            elif functions:
                found = map(_attributes_of, map(_call, functions))
                if [*map(id, itertools.chain.from_iterable(found))] != self._attributes:
                    return False
                if any(map(_dict_of, map(_call, self._no_attributes))):
                    return False
            if self._cells and [*map(id, map(_content_of_cell, self._cells))] != self._contents:
                return False
            for cls, listed, expected in self._classes:
                one = cls()
                space = one.__dict__
                if [*space] != listed:
                    return False
                held = itertools.chain(space.values(), one.__bases__, (one.__class__,))
                if [*map(id, held)] != expected:
                    return False
            if self._deep and not self._contents_hold():
                return False
        except Exception:  # noqa: BLE001
            # An object has died, a cell is empty, another thread changes a container, or what
            # stands in the place of a scalar cannot be compared: the exact check decides.
            return False
        return not self.void

    def _contents_hold(self) -> bool:
        """Return True if containers, instances, large objects and what has checks are the same."""
        for entries, are_dicts, lengths, expected in self._groups:
            containers = [*map(_strong, entries)]
            if [*map(len, containers)] != lengths:
                return False
            held = itertools.chain.from_iterable(containers)
            if are_dicts:
                values = map(dict.values, containers)
                held = itertools.chain(held, itertools.chain.from_iterable(values))
            if [*map(id, held)] != expected:
                return False
        counted, counts = self._lengths
        if counted and [*map(len, map(_strong, counted))] != counts:
            return False
        for known, parts, expected in self._containers:
            if [*map(id, parts(known.get()))] != expected:
                return False
        for known, sample, seen in self._samples:
            if sample(known.get()) != seen:
                return False
        return all(watched.is_same(known.get()) for known, watched in self._nested)

    def changed_names(self, space: dict[str, Any]) -> list[str]:
        """Return the globals of ``root`` that are bound to something else in this namespace."""
        found = zip(self._names, self._bound, strict=True)
        return [name for name, bound in found if id(space.get(name, _NOTHING)) != bound]

    def reached(self) -> list[Known]:
        """Return the objects that it goes by."""
        return list(self._objects.values())

    def end(self) -> None:
        """Let go of all that it refers to."""
        self.void = True
        for known in self._objects.values():
            known.remove_check(self)
        self._objects = {}
        self._spaces, self._containers, self._samples, self._nested = [], [], [], []
        self._classes, self._groups, self._lengths = [], [], ([], [])
        self._functions, self._no_attributes, self._cells, self._kept = (), (), (), []

    # --- how it is made

    def guard(self, values: list[Any], record: Record) -> None:
        """Become void when one of these values dies, too."""
        for value in values:
            if not are_short_scalars((value,)):
                known = record.of(value)
                self._objects[known.number] = known
                known.add_check(self)

    def _collect(
        self,
        checks: list[tuple[Any, ...]],
        record: Record,
        root: FunctionType | None,
    ) -> None:
        functions: list[Known] = []
        cells: list[Known] = []
        spaces: dict[int, tuple[Known, list[str]]] = {}
        groups: dict[bool, list[Known]] = {}
        for kind, known, *more in checks:
            obj = known.get()
            if obj is None:
                raise _NeedsExactCheck
            if obj is root and kind == changes.FUNCTION:
                continue
            if obj is not root:
                self._objects[known.number] = known
            if kind in (changes.GLOBAL, changes.ABSENT):
                spaces.setdefault(id(obj.__globals__), (known, []))[1].append(more[0])
            elif kind == changes.FUNCTION:
                functions.append(known)
                if obj.__dict__:
                    self._add(known, _attributes_of_function, obj, record)
                if obj.__kwdefaults__ is not None:
                    self._add(known, _keyword_defaults, obj, record)
            elif kind == changes.CLASS:
                self._add_class(known, obj, record)
            elif kind == changes.NESTED:
                self._nested.append((known, more[0]))
            elif kind in (changes.PIECE, changes.ARRAY):
                self._add_large(known, obj, groups, record)
            elif type(obj) is CellType:
                cells.append(known)
            elif type(obj) in _GROUPED and (len(obj) <= EXACT or not are_short_scalars(obj)):
                groups.setdefault(type(obj) is dict, []).append(known)
            else:
                self._add_content(known, obj, record)
        for are_dicts, entries in groups.items():
            self._add_group(entries, are_dicts, record)
        for known, found in spaces.values():
            space = known.get().__globals__
            names = tuple(dict.fromkeys(found))
            bound = [*map(self._identity, map(space.get, names, _absent), _all(record))]
            if root is not None and space is root.__globals__:
                self._names, self._bound = names, bound
            else:
                self._spaces.append((known.weak, names, bound))
        self._functions = tuple(known.weak for known in functions)
        self._no_attributes = tuple(known.weak for known in functions if not known.get().__dict__)
        attributes = itertools.chain.from_iterable(
            _attributes_of(known.get()) for known in functions
        )
        self._attributes = [*map(self._identity, attributes, _all(record))]
        self._cells = tuple(cells)
        self._contents = [*map(self._identity, map(_content_of_cell, cells), _all(record))]

    def _identity(self, value: Any, record: Record) -> int:
        """Return the identity of a value, which stays its own as long as the check is not void."""
        kind = type(value)
        if value is _NOTHING or kind in _DESCRIPTORS:
            pass  # a descriptor goes with its class; see ``changes.descriptor``
        elif are_short_scalars(value if kind is tuple else (value,)):
            self._kept.append(value)
        else:
            known = record.of(value)
            self._objects[known.number] = known
        return id(value)

    def _add(self, known: Known, parts: Callable[[Any], Any], obj: Any, record: Record) -> None:
        if len(self._containers) >= MOST:
            raise _NeedsExactCheck
        found = [*map(self._identity, parts(obj), _all(record))]
        self._containers.append((known, parts, found))

    def _add_group(self, entries: list[Known], are_dicts: bool, record: Record) -> None:
        containers = [*map(_strong, entries)]
        held = itertools.chain.from_iterable(containers)
        if are_dicts:
            held = itertools.chain(
                held, itertools.chain.from_iterable(map(dict.values, containers))
            )
        lengths = [*map(len, containers)]
        found = [*map(self._identity, held, _all(record))]
        self._groups.append((tuple(entries), are_dicts, lengths, found))

    def _add_class(self, known: Known, cls: Any, record: Record) -> None:
        entries = cls.__dict__
        names = [*entries]
        held = [*map(id, itertools.chain(entries.values(), cls.__bases__, (cls.__class__,)))]
        for value in (*cls.__bases__, cls.__class__):
            if not changes.is_static_type(value):
                self._identity(value, record)
        for name, value in entries.items():
            if name not in changes.NOT_STATE:
                self._identity(value, record)
        self._classes.append((known.weak, names, held))

    def _add_large(
        self, known: Known, obj: Any, groups: dict[bool, list[Known]], record: Record
    ) -> None:
        """Add what the exact check looks at of a large object, and of the containers in it."""
        sampler = sampler_of_large(obj)
        if sampler is not None:
            self._add_sample(known, sampler, obj)
            return
        trace: list[tuple[Any, int]] = []
        fingerprints.measure(obj, record, trace)
        for container, most in trace:
            kind, count = type(container), len(container) if most >= 0 else 0
            if most < 0:
                raise _NeedsExactCheck
            if kind not in _GROUPED:
                continue  # a tuple or frozenset: the identity of the object is enough
            known = record.of(container)
            self._objects[known.number] = known
            if count * (2 if kind is dict else 1) <= most:
                groups.setdefault(kind is dict, []).append(known)
            elif most:
                parts = partial(fingerprints.sample, most=most)
                found = [*map(self._identity, parts(container), _all(record))]
                self._samples.append((known, _identities(parts), [count, *found]))
            else:
                self._lengths[0].append(known)
                self._lengths[1].append(count)

    def _add_sample(self, known: Known, sample: Callable[[Any], Any], obj: Any) -> None:
        if sample is not _nothing:
            seen = sample(obj)
            self._samples.append((known, sample, obj.copy() if seen is obj else seen))

    def _add_content(self, known: Known, obj: Any, record: Record) -> None:
        """Add a container or an instance that travels with each function that reaches it."""
        kind = type(obj)
        if kind is bytearray:
            self._add_sample(known, _itself, obj)
            return
        if kind in (list, dict, set):
            if len(obj) > EXACT and are_short_scalars(obj):
                self._add_sample(known, _all_elements(obj, kind), obj)
            else:
                self._add(known, iter, obj, record)
            return
        if is_immutable(kind):
            return
        parts = parts_of_instance(kind)
        if parts is None:
            raise _NeedsExactCheck
        self._add(known, parts, obj, record)


def make(
    checks: list[tuple[Any, ...]],
    record: Record,
    root: FunctionType | None = None,
) -> FastCheck | None:
    """Return a fast check; None if what is to be checked needs the exact one."""
    try:
        return FastCheck(checks, record, root)
    except (_NeedsExactCheck, AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        # something cannot be compared this way, has died, is an empty cell, or changes meanwhile
        return None


def _all(record: Record) -> Any:
    return itertools.repeat(record)


def _entries_of(obj: Any) -> Any:
    return itertools.chain(dict.keys(obj), dict.values(obj))


def _attributes_of_function(function: FunctionType) -> Any:
    return _entries_of(function.__dict__)


def _keyword_defaults(function: Any) -> Any:
    return _entries_of(function.__kwdefaults__)


def attributes_of_instance(obj: Any) -> Any:
    """List what an instance is and holds that has nothing but a ``__dict__``."""
    attributes = obj.__dict__
    return itertools.chain((obj.__class__,), attributes, attributes.values())


def _entries_and_attributes(obj: Any) -> Any:
    attributes = _entries_of(getattr(obj, "__dict__", _EMPTY))
    return itertools.chain((obj.__class__,), _entries_of(obj), attributes)


def _elements_and_attributes(obj: Any) -> Any:
    attributes = _entries_of(getattr(obj, "__dict__", _EMPTY))
    return itertools.chain((obj.__class__,), list.__iter__(obj), attributes)


def _default_factory(obj: Any) -> Any:
    return itertools.chain((obj.default_factory,), _entries_of(obj))


_EMPTY: dict[Any, Any] = {}
_GETTERS = (object.__getattribute__, dict.__getattribute__, list.__getattribute__)
_OF_LIBRARY: dict[Any, Callable[[Any], Any]] = {
    OrderedDict: _entries_and_attributes,
    Counter: _entries_and_attributes,
    defaultdict: _default_factory,
    deque: iter,
}


def parts_of_instance(kind: Any) -> Callable[[Any], Any] | None:
    """Return what lists all that an instance of a class holds; None if only the class knows."""
    found = _OF_LIBRARY.get(kind)
    if found is not None:
        return found
    if (
        not has_plain_state(kind)
        or hasattr(kind, "__setstate__")
        or getattr(kind, "__getstate__", None) is not getattr(object, "__getstate__", None)
        or kind.__getattribute__ not in _GETTERS
    ):
        return None
    slots = [name for base in kind.__mro__ for name in _slots_of(base)]
    if slots:
        return None if issubclass(kind, (list, dict)) else _of_slots(slots)
    if issubclass(kind, dict):
        return _entries_and_attributes
    if issubclass(kind, list):
        return _elements_and_attributes
    return attributes_of_instance


def parts_of_simple(kind: type) -> Callable[[Any], Any] | None:
    """Return what lists all that an object of a class holds.

    None if the object is not pickled as its class, its slots and its ``__dict__``.
    """
    if (
        issubclass(kind, (list, dict, tuple, set, frozenset, str, bytes, int, float, complex))
        or hasattr(kind, "__getnewargs__")
        or hasattr(kind, "__getnewargs_ex__")
        or hasattr(kind, "__getattr__")  # asked by ``pickle``
    ):
        return None
    return parts_of_instance(kind)


def _slots_of(base: type) -> list[str]:
    return [name for name, value in vars(base).items() if type(value) is changes.DESCRIPTORS[0]]


def _of_slots(slots: list[str]) -> Callable[[Any], Any]:
    get = attrgetter(*slots, "__class__")

    def parts(obj: Any) -> Any:
        return itertools.chain(get(obj), _entries_of(getattr(obj, "__dict__", _EMPTY)))

    return parts


# --- large objects


def are_short_scalars(obj: Any) -> bool:
    """Return True if all elements are scalars, and short."""
    if isinstance(obj, dict):
        return _are_short(obj.values()) and _are_short(obj)
    return _are_short(obj)


def _are_short(values: Any) -> bool:
    if NUMBERS.issuperset(map(type, values)):
        return True
    if not SCALARS.issuperset(map(type, values)):
        return False
    return max([len(each) for each in values if type(each) in TEXTS], default=0) <= SHORT


def _identities(parts: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what lists the identities of a part of a container, and its length."""
    return lambda obj: [len(obj), *map(id, parts(obj))]


def _nothing(_obj: Any) -> None:
    """Compare nothing: the identity of the object is enough."""


def _itself(obj: Any) -> Any:
    """Look at all elements: what is kept for the comparison is a copy."""
    return obj


def _in_order(obj: Any) -> Any:
    return [*obj], [*obj.values()]


def _exactly(values: list[Any]) -> bytes:
    """Return bytes that are equal for equal scalars of equal types only.

    Raises:
        ValueError: there is something else.
    """
    return marshal.dumps(values, 2)


def _exactly_in_order(obj: Any) -> Any:
    return [*obj], _exactly([*obj.values()])


def _are_texts(values: Any) -> bool:
    """Return True if ``==`` tells these scalars from all others."""
    return _TEXTS.issuperset(map(type, values))


def _all_elements(obj: Any, kind: Any) -> Callable[[Any], Any]:
    """Return what lists the elements of a container of scalars as they are to be compared."""
    if kind is dict:
        return _in_order if _are_texts(obj.values()) else _exactly_in_order
    return _exactly if kind is list and not _are_texts(obj) else _itself


def _sample_of_list(obj: Any) -> Any:
    count = len(obj)
    return count, obj[:: count // SAMPLE + 1], obj[-1:]


def _sample_of_numbers(obj: Any) -> Any:
    count = len(obj)
    return count, _exactly(obj[:: count // SAMPLE + 1]), _exactly(obj[-1:])


def _sample_of_dict(obj: Any) -> Any:
    count = len(obj)
    if count <= SAMPLE:
        return _in_order(obj)
    half = SAMPLE // 4
    keys = [*itertools.islice(obj, half), *itertools.islice(reversed(obj), half)]
    return count, keys, [*map(obj.__getitem__, keys)]


def _sample_of_dict_of_numbers(obj: Any) -> Any:
    *keys, values = _sample_of_dict(obj)
    return *keys, _exactly(values)


def _sample_of_set(obj: Any) -> Any:
    return len(obj), [*itertools.islice(obj, SAMPLE)]


def sampler_of_large(obj: Any) -> Callable[[Any], Any] | None:
    """Return what takes a sample of a large object; None if its elements have to be looked into."""
    kind = type(obj)
    if kind in (str, bytes):
        return _nothing
    if kind is bytearray:
        return _sample_of_list
    if kind is list:
        sample = obj[:: len(obj) // SAMPLE + 1] + obj[-1:]
        if not are_short_scalars(sample):
            return None
        return _sample_of_list if _are_texts(sample) else _sample_of_numbers
    if kind in (tuple, frozenset):
        return _nothing if SCALARS.issuperset(map(type, obj)) else None
    if kind is set:
        return _sample_of_set if are_short_scalars([*itertools.islice(obj, SAMPLE)]) else None
    if kind is dict:
        keys = [*itertools.islice(obj, SAMPLE), *itertools.islice(reversed(obj), SAMPLE)]
        values = [*map(obj.__getitem__, keys)]
        if are_short_scalars(keys) and are_short_scalars(values):
            return _sample_of_dict if _are_texts(values) else _sample_of_dict_of_numbers
    return fingerprints.sample_of_array if fingerprints.is_array(obj) else None
