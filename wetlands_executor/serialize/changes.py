"""Whether a function by value, and all that it reaches, is unchanged since it was pickled last.

A walk over what the pickler has met: bindings are compared by identity, contents of small
containers by their versions, large objects by their fingerprints. This is the exact check;
``fast_checks`` gives the same answer by identities alone as long as nothing was rebound.
"""

from __future__ import annotations

import itertools
import threading
import types
from collections import Counter
from collections.abc import Iterable
from typing import Any

from wetlands_executor.serialize import fingerprints, identity
from wetlands_executor.serialize.identity import Known, Record
from wetlands_executor.serialize.scalars import SCALARS

#: Kinds of checks: (kind, ...) each.
GLOBAL, ABSENT, FUNCTION, CONTENT, CLASS, PIECE, ARRAY, NESTED, END = range(9)
_NOTHING = object()
_active = threading.local()
_EMPTY: dict[str, Any] = {}
#: Attributes of a class that are no state of its own.
NOT_STATE = (
    "__dict__",
    "__weakref__",
    "__slotnames__",  # what ``copyreg`` has found out
    "_abc_impl",
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
)


def holds(check: tuple[Any, ...], record: Record) -> bool:
    """Return True if what one check of a pickler names is unchanged."""
    kind = check[0]
    if kind == GLOBAL:
        _, user, key, expected = check
        space = getattr(user.get(), "__globals__", _EMPTY)
        return _is_bound(space.get(key, _NOTHING), expected, record)
    if kind == ABSENT:
        return check[2] not in getattr(check[1].get(), "__globals__", ())
    if kind == END:
        return False
    known: Known = check[1]
    version: Any = check[2]
    obj = known.get()
    if obj is None or record.known.get(known.key) is not known:
        return False
    if kind == PIECE:
        return (
            known.piece is version
            and version is not None
            and fingerprints.measure(obj, record) == (True, version.fingerprint)
        )
    if kind == NESTED:
        return _is_current(version, obj, record)
    if kind == ARRAY:
        return bool(fingerprints.sample_of_array(obj) == version)
    if kind == FUNCTION:
        code, plain = check[3:]
        if obj.__code__ is not code:
            return False
        if obj.__defaults__ is None and not obj.__kwdefaults__ and not obj.__dict__:
            return bool(plain)
        found = version_of_function(obj, record)
    elif kind == CLASS:
        found = version_of_class(obj, record)
    else:
        found = version_of(obj, record)
    return bool(found == version)


def _is_current(watched: Any, obj: Any, record: Record) -> bool:
    """Return True if something with checks of its own is unchanged; it may refer to itself."""
    active = _active.__dict__.setdefault("watched", set())
    if id(watched) in active:
        return True
    active.add(id(watched))
    try:
        return bool(watched.is_current(obj, record))
    finally:
        active.discard(id(watched))


def binding(value: Any, record: Record) -> Any:
    """Return what a name is bound to, for ``GLOBAL``.

    A scalar itself, the number of everything else.
    """
    if type(value) in SCALARS and not (type(value) in (str, bytes) and len(value) > 256):
        return (value,)
    return record.of(value).number


def _is_bound(value: Any, expected: Any, record: Record) -> bool:
    if type(expected) is tuple:
        kept = expected[0]
        return value is kept or (
            type(value) is type(kept)
            and value == kept
            and (type(kept) not in (float, complex) or repr(value) == repr(kept))
        )
    known = record.known.get(id(value))
    return known is not None and known.number == expected and known.get() is value


def part(value: Any, record: Record) -> Any:
    """Return what stands for one element in the version of its container."""
    kind = type(value)
    if kind in (str, bytes):
        return value if len(value) < fingerprints.BYTES else record.of(value).number
    if kind in SCALARS:
        return value
    if kind is tuple:
        return ("t", *(part(each, record) for each in value))
    if kind in DESCRIPTORS:
        return descriptor(value, record)
    return ("o", record.of(value).number)


#: What stands in a class for its slots, its ``__dict__`` and its ``__weakref__``.
DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def descriptor(value: Any, record: Record) -> Any:
    """Return what stands for a descriptor of a class: the class and the name.

    It gets no number of its own. The record would keep the descriptor, which has no weak
    references, the descriptor its class, and the class the descriptor: none of them would ever go.
    """
    return ("d", record.of(value.__objclass__).number, value.__name__)


def version(content: Iterable[Any], record: Record) -> int:
    """Return the version of a content: equal for equal elements."""
    if type(content) is bytes:
        return identity.digest(content)
    return identity.digest(tuple([part(each, record) for each in content]))


def content_of(obj: Any) -> Any:
    """Return the elements of a builtin container, or of a cell."""
    kind = type(obj)
    if kind is dict:
        return tuple(itertools.chain.from_iterable(list(obj.items())))
    if kind is types.CellType:
        try:
            return (obj.cell_contents,)
        except ValueError:
            return ()
    return bytes(obj) if kind is bytearray else tuple(obj)


def state_of(obj: Any) -> tuple[Any, ...]:
    """Return the reduction of an instance in seven parts; see ``objects.set_state``.

    (function, arguments, attributes, slots, other state, list items, dict items).
    """
    kind = type(obj)
    if kind is Counter:
        function, args, state, listitems, dictitems = (
            Counter,
            (),
            vars(obj) or None,
            None,
            iter(obj.items()),
        )
    else:
        function, args, state, listitems, dictitems = (*obj.__reduce_ex__(4), None, None, None)[:5]
    attributes = slots = other = None
    if state is not None and hasattr(kind, "__setstate__"):
        other = (state,)
    elif state is not None:
        named, slotted = state if type(state) is tuple and len(state) == 2 else (state, None)
        attributes = (
            None if named is None else tuple(itertools.chain.from_iterable(list(named.items())))
        )
        slots = (
            None if slotted is None else tuple(itertools.chain.from_iterable(list(slotted.items())))
        )
    elements = None if listitems is None else tuple(listitems)
    entries = None if dictitems is None else tuple(itertools.chain.from_iterable(list(dictitems)))
    return function, args, attributes, slots, other, elements, entries


def version_of_state(state: tuple[Any, ...], record: Record) -> int:
    """Return the version of what ``state_of`` gives."""
    _function, args, attributes, slots, other, elements, entries = state
    inner: Any = None
    kind = args[0] if args and isinstance(args[0], type) else None
    if other is not None:
        inner = itertools.chain.from_iterable(other[0].items()) if type(other[0]) is dict else other
    return identity.digest(
        tuple(
            [
                None if found is None else tuple([part(each, record) for each in found])
                for found in (inner, attributes, slots, elements, entries)
            ]
            + [None if kind is None else class_part(kind, record)]
        )
    )


def version_of(obj: Any, record: Record) -> int:
    """Return the version of a container or instance as it is now."""
    if type(obj) in BUILTINS:
        return version(content_of(obj), record)
    return version_of_state(state_of(obj), record)


BUILTINS = (list, dict, set, bytearray, types.CellType)


def version_of_function(func: Any, record: Record) -> int:
    """Return the version of a function's defaults and attributes."""
    kwdefaults = func.__kwdefaults__ or {}
    parts = (
        func.__defaults__,
        *itertools.chain.from_iterable(kwdefaults.items()),
        "",
        *itertools.chain.from_iterable(func.__dict__.items()),
    )
    return version((*parts, func.__doc__, func.__name__, func.__qualname__), record)


def version_of_class(cls: Any, record: Record) -> int:
    """Return the version of a class's attributes."""
    members = itertools.chain.from_iterable(
        (name, value) for name, value in list(vars(cls).items()) if name not in NOT_STATE
    )
    kinds = [class_part(kind, record) for kind in (*cls.__bases__, cls.__class__)]
    return version((*members, tuple(kinds)), record)


#: Flag of classes that are made while the program runs (Py_TPFLAGS_HEAPTYPE).
_HEAPTYPE = 1 << 9


def is_static_type(cls: type) -> bool:
    """Return True for a static type of the interpreter, whose identity stays its own."""
    return not cls.__flags__ & _HEAPTYPE


def class_part(cls: type, record: Record) -> int:
    """Return what stands for a class that an object or another class is of."""
    return id(cls) if is_static_type(cls) else record.of(cls).number
