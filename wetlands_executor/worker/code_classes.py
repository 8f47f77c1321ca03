"""Classes from another Python, the receiving half.

Classes whose parts are generated, or differ by version, are generated again here.

Ordinary classes are made as cloudpickle makes them: an empty class first, then its attributes, so
that methods may refer to it. What ``dataclasses``, ``collections``, ``enum`` and ``typing``
generate has no source and is not the same in two versions; it is not sent, and is generated here by
this Python's own modules. The sending half is ``code_sources.py``. Entered by any thread that
unpickles.

Invariant: a class is changed only in a process that received it. The one where it was written keeps
it as it is, whatever comes back.
"""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

#: Classes that were made here -> the names of the attributes that the host has set last.
_RECEIVED: Any = WeakKeyDictionary()
#: Class of those -> identities of its bases as the host had them when it was made, or changed. Not
#: the bases: one that lists its subclasses refers to the class, and both would be kept for ever.
_BASES: Any = WeakKeyDictionary()


def _known(tracker: str) -> Any:
    from .calls import cloudpickle_module

    return cloudpickle_module()._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)


def _received(cls: Any, tracker: str) -> Any:
    from .calls import cloudpickle_module

    _RECEIVED.setdefault(cls, ())
    return cloudpickle_module()._lookup_class_or_track(tracker, cls)


def make_class(
    meta: Any, name: str, bases: Tuple[Any, ...], namespace: Dict[str, Any], tracker: str
) -> Any:
    """Return the class of that number, made with few attributes if it is new here.

    Args:
        meta: its metaclass.
        name: its name.
        bases: as they were written, ``Generic[T]`` included.
        namespace: what has to be there from the beginning: module, qualified name, slots.
        tracker: cloudpickle's number of the class.
    """
    import types

    resolved = types.resolve_bases(bases)
    found = _known(tracker)
    if found is not None:
        identities = [*map(id, resolved)]
        if _BASES.get(found, identities) != identities:
            found.__bases__ = resolved
            _BASES[found] = identities
        return found
    keys = {sys.intern(key): value for key, value in namespace.items()}
    hooks = _hooks_of(resolved)
    quiet: Any = classmethod(_nothing)  # type: ignore[arg-type]
    try:
        for base, _hook in hooks:
            type.__setattr__(base, "__init_subclass__", quiet)
        if meta in _RECEIVED:
            made = _make_silently(meta, name, bases, resolved, keys)
        else:
            made = types.new_class(
                name, bases, {"metaclass": meta}, lambda space: space.update(keys)
            )
    finally:
        for base, hook in hooks:
            type.__setattr__(base, "__init_subclass__", hook)
    _BASES[made] = [*map(id, resolved)]
    return _received(made, tracker)


def _hooks_of(bases: Sequence[Any]) -> List[Tuple[Any, Any]]:
    """Return (class, ``__init_subclass__``) of the received classes among bases and theirs.

    The hook has run where the class was written, with arguments that are known there only; what it
    has set comes with the attributes.
    """
    lines = [base.__mro__ for base in bases if isinstance(base, type)]
    every = {
        base: None
        for line in lines
        for base in line
        if base in _RECEIVED and "__init_subclass__" in vars(base)
    }
    return [(base, vars(base)["__init_subclass__"]) for base in every]


def _make_silently(
    meta: Any, name: str, bases: Tuple[Any, ...], resolved: Tuple[Any, ...], keys: Dict[str, Any]
) -> Any:
    """Return a new class of a received metaclass; its ``__new__`` and ``__init__`` do not run here.

    They have run where the class was written.
    What they set comes with the attributes, and what they register (in a list, in a counter) comes
    with that object.
    """
    native = next(kind for kind in meta.__mro__ if kind not in _RECEIVED)
    space = dict(native.__prepare__(name, resolved))
    space.update(keys)
    if resolved is not bases:
        space["__orig_bases__"] = bases
    made = native.__new__(meta, name, resolved, space)
    native.__init__(made, name, resolved, space)
    return made


def _nothing(_cls: Any, **_given: Any) -> None:
    """Do nothing, in place of a hook that must not run."""


def set_class(cls: Any, state: Tuple[Any, ...]) -> None:
    """Give a class its attributes: (attributes, (parameters, fields) of a dataclass or None)."""
    if cls not in _RECEIVED:
        return
    from .calls import cloudpickle_module

    members, dataclass = state
    fields = {} if dataclass is None else dataclass[1]
    slots = {
        name: vars(cls)[name]
        for name in fields
        if type(vars(cls).get(name)).__name__ == "member_descriptor"
    }
    for name in _RECEIVED[cls]:
        # Deleted in the host, or bound to the very object that a base class has. What a task has
        # set here stays.
        if name not in members and name not in fields and name in vars(cls):
            type.__delattr__(cls, name)
    _RECEIVED[cls] = tuple(members)
    cloudpickle_module()._class_setstate(cls, (dict(members), {}))
    if dataclass is not None:
        _generate_dataclass(cls, dataclass[0], fields, slots)
    if vars(cls).get("_is_protocol"):
        _complete_protocol(cls)


def _complete_protocol(cls: Any) -> None:
    """Set what newer versions compute when a protocol is made: it had no members then."""
    import typing

    find = getattr(typing, "_get_protocol_attrs", None)
    if find is None or not hasattr(typing.Protocol, "__protocol_attrs__"):
        return
    cls.__protocol_attrs__ = find(cls)
    if vars(cls).get("_is_runtime_protocol"):
        cls.__non_callable_proto_members__ = {
            name for name in cls.__protocol_attrs__ if not callable(getattr(cls, name, None))
        }


# --- dataclasses


def _generate_dataclass(
    cls: Any, parameters: Dict[str, Any], fields: Dict[str, Any], slots: Dict[str, Any]
) -> None:
    import dataclasses
    import typing

    if "__dataclass_params__" in vars(cls):
        for name, (_kind, options) in fields.items():
            if "default" in options and name not in slots:
                setattr(cls, name, options["default"])
        return  # it came again, perhaps with other attributes; what was generated stands
    options_known = dataclasses.field.__kwdefaults__ or {}
    makers = dataclasses.dataclass.__kwdefaults__ or {}
    own = (
        cls.__annotations__ if sys.version_info >= (3, 14) else vars(cls).get("__annotations__", {})
    )
    # Kinds of fields are told by annotations, and strings among them by looking into a module that
    # may not be here.
    kinds = {"field": object, "class variable": typing.ClassVar, "init-only": dataclasses.InitVar}
    cls.__annotations__ = {name: kinds[kind] for name, (kind, _options) in fields.items()}
    for name, (_kind, options) in fields.items():
        setattr(
            cls,
            name,
            dataclasses.field(
                **{key: value for key, value in options.items() if key in options_known}
            ),
        )
    keywords = {name for name, (_kind, options) in fields.items() if options.get("kw_only") is True}
    late = bool(keywords) and "kw_only" not in options_known
    try:
        known = {
            key: value
            for key, value in parameters.items()
            if key in makers and key not in ("slots", "weakref_slot")
        }
        known["kw_only"] = False
        if late:
            known["init"] = False
        dataclasses.dataclass(**{key: value for key, value in known.items() if key in makers})(cls)
    finally:
        cls.__annotations__ = own
    for name, descriptor in slots.items():
        setattr(cls, name, descriptor)
    for name, field in cls.__dataclass_fields__.items():
        if name in fields:
            field.type = own.get(name, field.type)
    if late and parameters.get("init", True) and "__init__" not in vars(cls):
        cls.__init__ = _keyword_init(cls, keywords)
    if slots and parameters.get("frozen"):
        for name, function in (("__getstate__", _get_fields), ("__setstate__", _set_fields)):
            if name not in vars(cls):
                setattr(cls, name, function)


def _keyword_init(cls: Any, keywords: Any) -> Callable[..., None]:
    """Return an ``__init__`` with keyword-only fields for a Python whose dataclasses have none."""
    import dataclasses

    missing = dataclasses.MISSING
    initvar = dataclasses._FIELD_INITVAR  # type: ignore[attr-defined]
    classvar = dataclasses._FIELD_CLASSVAR  # type: ignore[attr-defined]
    every = [
        field for field in cls.__dataclass_fields__.values() if field._field_type is not classvar
    ]
    positional = [field for field in every if field.init and field.name not in keywords]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it is one
        if len(args) > len(positional):
            raise TypeError(
                "%s() takes %d positional arguments, %d were given"
                % (cls.__name__, len(positional), len(args))
            )
        # no strict before 3.10
        given = {field.name: value for field, value in zip(positional, args)}
        for name, value in kwargs.items():
            if name in given or not any(field.name == name and field.init for field in every):
                raise TypeError(
                    "%s() got an unexpected or repeated argument %r" % (cls.__name__, name)
                )
            given[name] = value
        later = []
        for field in every:
            if field.name in given:
                value = given[field.name]
            elif field.default is not missing:
                value = field.default
            elif field.default_factory is not missing:
                value = field.default_factory()
            elif field.init:
                raise TypeError("%s() lacks the argument %r" % (cls.__name__, field.name))
            else:
                continue
            if field._field_type is initvar:
                later.append(value)
            else:
                object.__setattr__(self, field.name, value)
        if hasattr(self, "__post_init__"):
            self.__post_init__(*later)

    __init__.__qualname__ = "%s.__init__" % cls.__qualname__
    return __init__


def _get_fields(self: Any) -> List[Any]:
    """Return the state of a frozen dataclass with slots, as dataclasses do from Python 3.10 on."""
    import dataclasses

    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _set_fields(self: Any, state: Sequence[Any]) -> None:
    import dataclasses

    for field, value in zip(dataclasses.fields(self), state):
        object.__setattr__(self, field.name, value)


# --- tuples, dictionaries, enumerations


def make_namedtuple(
    name: str, fields: Tuple[str, ...], defaults: Tuple[Any, ...], module: Any, tracker: str
) -> Any:
    """Return the class of that number: a namedtuple."""
    found = _known(tracker)
    if found is not None:
        return found
    import collections

    make: Any = collections.namedtuple  # noqa: PYI024 - its fields are data here
    return _received(make(name, fields, rename=True, defaults=defaults, module=module), tracker)


def set_attributes(cls: Any, members: Dict[str, Any]) -> None:
    """Give a generated class what its author has added."""
    if cls in _RECEIVED:
        for name, value in members.items():
            setattr(cls, name, value)


def make_typed_dict(name: str, total: bool, tracker: str) -> Any:
    """Return the class of that number: a TypedDict; its keys come with ``set_typed_dict``."""
    found = _known(tracker)
    if found is not None:
        return found
    from typing import TypedDict

    make: Any = TypedDict
    return _received(make(name, {}, total=total), tracker)


def set_typed_dict(cls: Any, members: Dict[str, Any]) -> None:
    """Give a TypedDict its keys and what its author has added."""
    if cls in _RECEIVED:
        for name, value in members.items():
            setattr(cls, name, frozenset(value) if name.endswith("_keys__") else value)


def make_enum(
    meta: Any,
    name: str,
    bases: Tuple[Any, ...],
    namespace: Dict[str, Any],
    members: Sequence[Tuple[str, Any]],
    boundary: Optional[str],
    tracker: str,
) -> Any:
    """Return the class of that number: an enumeration with its members, aliases too.

    Args:
        meta: its metaclass.
        name: its name.
        bases: its bases.
        namespace: module, qualified name and text.
        members: names and values in the order of their definition.
        boundary: of a Flag, by name.
        tracker: cloudpickle's number of the class.
    """
    found = _known(tracker)
    if found is not None:
        return found
    import enum

    options: Dict[str, Any] = {}
    if boundary is not None and sys.version_info >= (3, 11):
        options["boundary"] = enum.FlagBoundary[boundary]
    space = meta.__prepare__(name, bases, **options)
    for key, value in namespace.items():
        space[key] = value
    for key, value in members:
        space[key] = value
    return _received(meta(name, bases, space, **options), tracker)


def set_enum(cls: Any, state: Tuple[Dict[str, Any], Dict[str, Dict[str, Any]]]) -> None:
    """Give an enumeration its methods, and its members their further attributes."""
    if cls not in _RECEIVED:
        return
    members, attributes = state
    for name, value in members.items():
        type.__setattr__(cls, name, value)
    for name, found in attributes.items():
        vars(cls.__members__[name]).update(found)


def enum_base(name: str) -> Any:
    """Return a class of the module ``enum``, made here where this Python has none."""
    import enum

    found = getattr(enum, name, None)
    if found is None and name == "StrEnum":
        found = _LATE.get(name) or _LATE.setdefault(
            name, enum.EnumMeta("StrEnum", (str, enum.Enum), _str_enum_space())
        )
    if found is None and name == "ReprEnum":
        found = enum.Enum
    if found is None and name == "EnumType":
        found = enum.EnumMeta
    if found is None:
        raise AttributeError(
            "module 'enum' of Python %s has no %r" % (sys.version.split()[0], name)
        )
    return found


_LATE: Dict[str, Any] = {}


def _str_enum_space() -> Any:
    import enum

    space: Any = enum.EnumMeta.__prepare__("StrEnum", (str, enum.Enum))
    space["__str__"] = str.__str__
    space["__format__"] = str.__format__
    return space
