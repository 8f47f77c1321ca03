"""Which classes are inert: their instances are pickled, made and hashed without code of the user's.

Some are so because C code does all of it. Enums, named tuples, dataclasses and a few classes of the
standard library have code of the standard library for it, which is recognised here: nothing of the
class itself runs.

Any thread enters. Owns no state but what is known of classes, which is a cache.
"""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import enum
import sys
import types
import weakref
from abc import ABCMeta
from functools import partial
from operator import attrgetter
from typing import Any

from wetlands_executor.serialize import kinds
from wetlands_executor.serialize.scalars import SCALARS

_OBJECT: Any = object
_TUPLE: Any = tuple
_ENUM: Any = enum.Enum
_METACLASSES = frozenset((type, ABCMeta, enum.EnumMeta))

#: What decides how instances are made, reduced and compared, of the names that every class has.
_ASKED = (
    "__new__", "__reduce_ex__", "__reduce__", "__getattribute__", "__setattr__", "__hash__",
    "__eq__",
)  # fmt: skip
_ask = attrgetter(*_ASKED)
_OBJECT_METHODS = _ask(_OBJECT)[:4]
#: And of those that few have: what an instance is asked for when it is reduced, or its state set.
_WITH_CODE = frozenset(
    (
        "__setstate__",
        "__getstate__",
        "__getattr__",
        "__getnewargs__",
        "__getnewargs_ex__",
        "__class__",
    )
)


class _Known:
    """What is known of a class, as long as that has not been changed.

    Attributes:
        kind: weak reference to the class.
        inert: what ``is_inert`` says of it.
    """

    __slots__ = ("_ask", "_methods", "_sizes", "inert", "kind")

    def __init__(self, kind: Any) -> None:
        self.kind = weakref.ref(kind, partial(_forget, id(kind)))
        # What is added to a class is seen by its size, what replaces a method by its identity.
        # Order: before the look, so that what changes meanwhile is seen the next time.
        self._sizes = _sizes_of(kind)
        names = [name for name in _ASKED if any(name in vars(base) for base in kind.__mro__[:-1])]
        self._ask: Any = attrgetter(*names) if names else None
        self._methods = self._ask and self._ask(kind)
        self.inert = _look(kind)

    def is_current(self, kind: Any) -> bool:
        """Return True for this class, if nothing of concern has been changed in it."""
        ask = self._ask
        return (
            self.kind() is kind
            and self._sizes == _sizes_of(kind)
            and (ask is None or ask(kind) == self._methods)
        )


_known: dict[int, _Known] = {}


def _sizes_of(kind: Any) -> list[int]:
    return list(map(len, map(vars, kind.__mro__[:-1])))


def is_inert(kind: Any) -> bool:
    """Return True for a class whose instances can be pickled and read by any thread at any time.

    Nor is any code of theirs run when they are put into a set, or into a dict as keys.
    """
    if type(kind) not in _METACLASSES or kind in copyreg.dispatch_table:
        return False
    known = _known.get(id(kind))
    if known is None or not known.is_current(kind):
        known = _known[id(kind)] = _Known(kind)
    return known.inert


def _forget(key: int, dead: Any) -> None:
    # Race: another class may have the number by now
    known = _known.get(key)
    if known is not None and known.kind is dead:
        _known.pop(key, None)


def _look(kind: Any) -> bool:
    if type(kind) is enum.EnumMeta:
        return _is_inert_enum(kind)
    if kind.__module__ != "numpy" and kinds.is_immutable(kind):
        module: Any = sys.modules.get(kind.__module__)
        return getattr(module, "__dict__", {}).get(kind.__name__) is kind
    if issubclass(kind, tuple):
        return _is_named_tuple(kind)
    return (
        _ask(kind)[:4] == _OBJECT_METHODS
        and _has_inert_hash(kind)
        and not any(map(_has_code, kind.__mro__[:-1]))
        and _has_inert_slots(kind)
    )


# --- instances


def _has_code(base: type) -> bool:
    space = vars(base)
    found = _WITH_CODE.intersection(space)
    if found and not all(space[name] in _OF_DATACLASSES for name in found):
        return True
    return type(space.get("__dict__")) is property


def _has_inert_slots(kind: Any) -> bool:
    """Return True if no attribute has a say when the slots of an instance are read or set.

    The state of slots is set by names, which may be those of any attribute.
    """
    if not any(vars(base).get("__slots__") for base in kind.__mro__):
        return True
    if getattr(kind, "__setstate__", None) in _OF_DATACLASSES:
        return True  # it knows the names of the fields
    return kind.__setattr__ is _OBJECT.__setattr__ and all(
        isinstance(value, _SLOTS) or not hasattr(type(value), "__set__")
        for base in kind.__mro__[:-1]
        for value in vars(base).values()
    )


#: What ``dataclass(slots=True)`` gives a class for its state.
_OF_DATACLASSES = tuple(
    getattr(dataclasses, name)
    for name in ("_dataclass_getstate", "_dataclass_setstate")
    if hasattr(dataclasses, name)
)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _has_inert_hash(kind: Any) -> bool:
    hashes = kind.__hash__
    return (
        hashes is None
        or (hashes is _OBJECT.__hash__ and kind.__eq__ is _OBJECT.__eq__)
        or _is_of_dataclass(kind)
    )


def _is_of_dataclass(kind: Any) -> bool:
    """Return True if ``dataclasses`` has made the hash and the comparison of a class.

    It writes their code from the names of the fields: they are those of another class with the same
    fields.
    """
    params, fields = (
        kind.__dict__.get(name) for name in ("__dataclass_params__", "__dataclass_fields__")
    )
    if params is None or type(fields) is not dict:
        return False
    own = [
        (each.name, object, dataclasses.field(compare=each.compare, hash=each.hash))
        for each in dataclasses.fields(kind)
    ]
    like: Any = dataclasses.make_dataclass(
        "Like", own, eq=params.eq, frozen=params.frozen, unsafe_hash=params.unsafe_hash
    )
    return _is_same_code(kind.__hash__, like.__hash__) and _is_same_code(kind.__eq__, like.__eq__)


def _is_same_code(function: Any, other: Any) -> bool:
    if type(function) is not types.FunctionType or type(other) is not types.FunctionType:
        return function is other
    mine, its = function.__code__, other.__code__
    return (
        (mine.co_code, mine.co_names, mine.co_consts) == (its.co_code, its.co_names, its.co_consts)
        and function.__closure__ is None
        and "hash" not in function.__globals__
    )


# --- named tuples


_Sample = collections.namedtuple("_Sample", "value")  # noqa: PYI024 - what is meant
_sample: Any = _Sample


def _is_named_tuple(kind: Any) -> bool:
    """Return True for what ``namedtuple`` has made, and subclasses that add nothing of concern."""
    new, arguments = kind.__new__, getattr(kind, "__getnewargs__", None)
    if type(new) is not types.FunctionType or type(arguments) is not types.FunctionType:
        return False
    space = new.__globals__
    return (
        # its constructor knows nothing but the one of ``tuple``
        space.get("_tuple_new") == _sample.__new__.__globals__["_tuple_new"]
        and space.get("__builtins__") == {}
        and new.__code__.co_names == ("_tuple_new",)
        and arguments.__code__ is _sample.__getnewargs__.__code__
        and _ask(kind)[1:3] == _OBJECT_METHODS[1:3]
        and kind.__getattribute__ is _TUPLE.__getattribute__
        and kind.__iter__ is _TUPLE.__iter__
        and kind.__len__ is _TUPLE.__len__
        and kind.__hash__ is _TUPLE.__hash__
        and kind.__eq__ is _TUPLE.__eq__
        and all(
            _WITH_CODE.isdisjoint(vars(base).keys() - {"__getnewargs__"})
            and not vars(base).get("__slots__")
            and type(vars(base).get("__dict__")) is not property
            for base in kind.__mro__
            if base not in (tuple, object)
        )
    )


# --- enums


_MIXED = (_OBJECT, int, str, float)


def _is_inert_enum(kind: Any) -> bool:
    """Return True for an enum whose members are found by their value, and by nothing else."""
    if issubclass(kind, enum.Flag) or kind.__module__ == "enum" or not kind.__members__:
        return False
    missing: Any = getattr(kind, "_missing_", None)
    return (
        kind.__new__ is _ENUM.__new__
        and getattr(missing, "__func__", None) is _ENUM._missing_.__func__
        and kind.__reduce_ex__ is _ENUM.__reduce_ex__
        and kind.__getattribute__ in [base.__getattribute__ for base in _MIXED]
        and kind.__hash__ in [_ENUM.__hash__, *(base.__hash__ for base in _MIXED[1:])]
        and kind.__eq__ in [base.__eq__ for base in _MIXED]
        and all(_is_value(member._value_) for member in kind.__members__.values())
        and not any(
            "__getattr__" in vars(base) or "__class__" in vars(base) for base in kind.__mro__[:-1]
        )
    )


def _is_value(value: Any) -> bool:
    return type(value) in SCALARS or (type(value) is tuple and SCALARS.issuperset(map(type, value)))
