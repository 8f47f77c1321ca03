"""Functions and classes for another Python.

What a pickler writes for them when its receiver has another magic number.

Code is reduced to source (``code_sources.py``); what ``dataclasses``, ``collections``, ``enum``,
``typing`` and ``functools`` generate is reduced to what it was generated from (``code_classes.py``
and ``code_portable.py`` make it again). Everything else stays with cloudpickle. Used by the host's
``CallPickler`` and by the worker's pickler (``pickler.py``). Entered by any thread that pickles;
keeps no state.
"""

from __future__ import annotations

import sys
from pickle import PicklingError

from . import calls, code_classes, code_forms, code_portable
from .code_sources import NoSource, locate

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Callable, Dict, List, Optional, Set, Tuple


class Cells:
    """The cells of closures within one stream.

    Functions that share a cell in the sender share one in the receiver.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: Dict[int, Tuple[Any, Any]] = {}

    def of(self, function: Any, fresh: Any) -> Any:
        """Return the empty cells that travel for the closure of ``function``.

        Args:
            function: the function.
            fresh: new empty cells, as cloudpickle makes them for each function.
        """
        if fresh is None:
            return None
        # The original is kept beside its substitute, so that its id is not reused.
        return tuple(
            self._known.setdefault(id(cell), (cell, empty))[1]
            for cell, empty in zip(function.__closure__, fresh)
        )


class Names:
    """The receiving Python and this one, for reductions and messages.

    Attributes:
        theirs: version of the Python that receives.
        dumps: pickles what names only importable things; raises ``ByValue`` for all else.
        annotated: (function or class, annotated name, annotation) of what goes by value, for
            messages.
        missing: code -> the global names of annotations in it that do not exist.
    """

    __slots__ = ("annotated", "dumps", "missing", "theirs")

    def __init__(self, theirs: str, dumps: Callable[[Any], bytes]) -> None:
        self.theirs = theirs
        self.dumps = dumps
        self.annotated: List[Tuple[str, str, Any]] = []
        self.missing: Dict[Any, Tuple[str, ...]] = {}

    def blame(self, error: Exception, trial: Callable[[Any], Any]) -> None:
        """Raise a better error if an annotation is what cannot be pickled.

        Args:
            error: what pickling has raised.
            trial: pickles one value as the whole was to be.
        """
        for what, name, value in self.annotated:
            try:
                trial(value)
            except Exception as found:  # noqa: BLE001 - whatever it is: the annotation is at fault
                where = "the annotation of %r in %s" % (name, what)
                if isinstance(found, PicklingError):
                    raise PicklingError("%s: %s" % (where, found)) from error
                remedy = "Leave that annotation out, or write it in quotes"
                raise refusal(where, self, "it cannot be pickled (%s)" % found, remedy) from error


class ByValue(Exception):  # noqa: N818 - a signal between two picklers
    """An object that was to be pickled by name only would need code."""


def refusal(what: str, names: Names, reason: str, remedy: str) -> PicklingError:
    """Return the error for code that cannot travel."""
    ours = sys.version.split()[0]
    return PicklingError(
        "%s cannot travel from Python %s to Python %s: bytecode is never sent to another version, "
        "and %s. %s, or put it into a module or file "
        'that the other Python can import (submit("file.py:function", ...)), or use an '
        "environment with Python %s"
        % (what, ours, names.theirs, reason, remedy, ".".join(ours.split(".")[:2]))
    )


def reduce_code(code: CodeType, names: Names) -> Any:
    """Reduce a code object to its source."""
    try:
        piece = locate(code)
    except NoSource as error:
        raise refusal(code.co_name, names, error.reason, error.remedy) from None
    arguments = piece.arguments + (sys.version.split()[0],)
    if piece.unit is None:
        return code_portable.stdlib_code, arguments
    missing = names.missing.get(code)
    return code_portable.rebuild_code, arguments + ((missing,) if missing else ())


def _missing_names(function: Any) -> Tuple[str, ...]:
    """Return the global names of annotations within a function that do not exist.

    Python 3.14 evaluates those late, or never.
    """
    import builtins

    found: Dict[str, None] = {}
    for code in code_portable.walk(function.__code__):
        if code.co_name == "__annotate__":
            for name in code.co_names:
                if name not in function.__globals__ and not hasattr(builtins, name):
                    found[name] = None
    return tuple(found)


class _Globals:
    """Represents the globals of a module of the standard library."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> Any:
        return code_portable.module_globals, (self.module,)


class _Annotations:
    """Represents the annotations of a function or class."""

    def __init__(self, entries: List[Tuple[str, Any, Optional[bytes]]]) -> None:
        self.entries = entries

    def __reduce__(self) -> Any:
        return code_portable.rebuild_annotations, (self.entries,)


_PLAIN_TYPES = (
    int,
    str,
    float,
    bool,
    bytes,
    complex,
    list,
    tuple,
    dict,
    set,
    frozenset,
    object,
    type(None),
)


def keep_file(code: CodeType) -> Any:
    """Reduce code that travels as it is, with the name of its file.

    Cloudpickle leaves that out from 3.1.3 on, and tracebacks would have no lines.
    """
    kind, args = calls.cloudpickle_module()._code_reduce(code)
    return kind, tuple(
        code.co_filename if type(value) is str and value == "<dynamic-code>" else value
        for value in args
    )


def pack_annotations(found: Any, names: Optional[Names], what: str) -> Any:
    """Return what travels for annotations.

    Those that the other side may be unable to make go with a text to fall back on.

    Args:
        found: the annotations by name.
        names: where they go; None is a Python like this one.
        what: the function or class, for messages.
    """
    if not found or names is None:
        return found or {}
    entries: List[Tuple[str, Any, Optional[bytes]]] = []
    for name, value in dict(found).items():
        if value is None or type(value) is str or value in _PLAIN_TYPES:
            entries.append((name, value, None))
            continue
        try:
            entries.append((name, _text(value), names.dumps(value)))
        except ByValue:
            names.annotated.append((what, name, value))
            entries.append((name, value, None))
        except Exception:  # noqa: BLE001
            # user code, or nothing that can be pickled: the text remains
            entries.append((name, _text(value), None))
    return _Annotations(entries)


def _text(value: Any) -> str:
    return value.__qualname__ if type(value) is type else str(value)


def reduce_function(
    function: Any, names: Names, newargs: Tuple[Any, ...], state: Tuple[Any, Any], what: str
) -> Tuple[Any, Any, Any]:
    """Return (arguments for cloudpickle's ``_make_function``, attributes, slots) of a function.

    Args:
        function: the function.
        names: whose it is and where it goes.
        newargs: what cloudpickle's ``_function_getnewargs`` gives.
        state: what its ``_function_getstate`` gives.
        what: how messages call it.
    """
    try:
        piece = locate(function.__code__, function.__globals__)
    except NoSource as error:
        raise refusal(what, names, error.reason, error.remedy) from None
    if sys.version_info >= (3, 14):
        missing = _missing_names(function)
        if missing:
            names.missing[function.__code__] = missing
    attributes, slots = state
    slots["__annotations__"] = pack_annotations(slots.get("__annotations__"), names, what)
    code, base, *rest = newargs
    if piece.unit is None:
        slots["__globals__"] = {}
        slots["_cloudpickle_submodules"] = []
        base = _Globals(function.__globals__["__name__"])
    elif piece.plain is not code:
        used = {
            *calls.cloudpickle_module()._extract_code_globals(piece.plain),
            *names_of_classes(piece.plain),
        }
        slots["__globals__"] = {
            name: value for name, value in slots["__globals__"].items() if name in used
        }
    return (code, base, *rest), attributes, slots


def reduce_value(obj: Any, names: Names) -> Any:
    """Reduce what exists, or is pickled, differently in other versions.

    None for everything else.
    """
    kind = type(obj)
    # both ways to write one, since Python 3.14
    if kind.__module__ == "typing" and kind.__name__ == "Union":
        return code_portable.make_union, (obj.__args__,)
    if kind.__module__ == "types" or kind.__name__ == "_CallableGenericAlias":
        if kind.__name__ == "UnionType":
            return code_portable.make_union, (obj.__args__,)
        if kind.__name__ in ("GenericAlias", "_CallableGenericAlias"):
            return code_portable.make_alias, (obj.__origin__, obj.__args__)
    if kind.__name__ == "code" and kind is type(code_portable.walk.__code__):
        return reduce_code(obj, names)
    return None


def reduce_decorated(obj: Any) -> Any:
    """Reduce what ``functools`` and ``typing`` make and no name leads to; None for everything else.

    Serves equal versions too.
    """
    kind = type(obj)
    found = code_forms.reduce_form(obj)
    if found is not None:
        return found
    if kind.__module__ == "typing" and kind.__name__ == "NewType":
        return code_portable.make_newtype, (obj.__name__, obj.__supertype__, obj.__module__)
    if kind.__module__ != "functools":
        return None
    if kind.__name__ == "singledispatchmethod":
        return code_portable.make_singledispatchmethod, (obj.func, obj.dispatcher)
    if kind.__name__ == "_lru_cache_wrapper":
        parameters = getattr(obj, "cache_parameters", None)
        options = (
            parameters()
            if parameters is not None
            else {"maxsize": obj.cache_info().maxsize, "typed": False}
        )
        return code_portable.make_lru_cache, (obj.__wrapped__, options["maxsize"], options["typed"])
    if kind.__name__ == "cached_property":
        return code_portable.make_cached_property, (obj.func, obj.attrname)
    return None


def reduce_dispatcher(function: Any) -> Any:
    """Reduce functions by value that the standard library has made of a user's.

    A dispatching one, an early ``NewType``; else None.
    """
    if "__supertype__" in vars(function) and function.__globals__.get("__name__") == "typing":
        return code_portable.make_newtype, (
            function.__name__,
            function.__supertype__,
            function.__module__,
        )
    if (
        function.__globals__.get("__name__") != "functools"
        or "dispatch" not in vars(function)
        or "registry" not in vars(function)
    ):
        return None
    original = getattr(function, "__wrapped__", None) or function.registry[object]
    state = (original, list(function.registry.items()))
    return (
        code_portable.make_singledispatch,
        (),
        state,
        None,
        None,
        code_portable.set_singledispatch,
    )


# --- classes by value


#: Entries of a class that other versions do not have, or that each makes by itself.
_OWN_OF_A_VERSION = (
    "__static_attributes__", "__firstlineno__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__conditional_annotations__", "__classdictcell__", "__type_params__",
    "__protocol_attrs__", "__non_callable_proto_members__", "__weakref__", "__dict__",
)  # fmt: skip


def builtin_type(name: str) -> Any:
    """Reduce a type of the module ``types``."""
    # typing.Union is this very class, and has arguments elsewhere
    if name == "UnionType" and sys.version_info >= (3, 14):
        return code_forms.make_union_type, ()
    return code_portable.builtin_type, (name,)


def reduce_class(cls: Any, names: Optional[Names]) -> Any:
    """Reduce a class that travels by value.

    ``names`` is None if the receiver is of this very version.
    """
    import enum

    cloudpickle = calls.cloudpickle_module()
    tracker = cloudpickle._get_or_create_tracker_id(cls)
    space = vars(cls)
    if issubclass(cls, enum.Enum):
        return _reduce_enum(cls, tracker)
    if cls.__bases__ == (tuple,) and isinstance(space.get("_fields"), tuple) and "_make" in space:
        return _reduce_namedtuple(cls, tracker, names)
    if type(cls).__name__ == "_TypedDictMeta":
        return _reduce_typed_dict(cls, tracker, names)
    members, _ = cloudpickle._class_getstate(cls)
    first = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if "__slots__" in space:
        first["__slots__"] = _slots(cls)
        members.pop("__slots__", None)
    if isinstance(space.get("__dict__"), property):
        first["__dict__"] = space["__dict__"]
    members = {
        name: value
        for name, value in members.items()
        if name not in _OWN_OF_A_VERSION and not _is_slot(value, cls)
    }
    if names is None and "__firstlineno__" in space:
        members["__firstlineno__"] = space["__firstlineno__"]  # ``inspect.getsource`` goes by it
    if "_is_protocol" in space:
        members = {
            name: value
            for name, value in members.items()
            if not _made_by(value, ("typing", "typing_extensions"))
        }
    members["__annotations__"] = pack_annotations(_annotations_of(cls), names, cls.__qualname__)
    if not _annotations_of(cls):
        del members["__annotations__"]
    dataclass = _dataclass(cls, members) if "__dataclass_params__" in space else None
    bases = cloudpickle._get_bases(cls)
    return (
        code_classes.make_class,
        (type(cls), cls.__name__, bases, first, tracker),
        (members, dataclass),
        None,
        None,
        code_classes.set_class,
    )


def _annotations_of(cls: Any) -> Any:
    if sys.version_info >= (3, 14):
        return evaluated_annotations(cls)
    return vars(cls).get("__annotations__")


def evaluated_annotations(obj: Any) -> Dict[str, Any]:
    """Return the annotations of a function or class of Python 3.14 and newer.

    They are evaluated only now (PEP 649).

    A name that does not exist, or not yet, becomes a ``ForwardRef``: so does what stands below ``if
    TYPE_CHECKING``.
    """
    import importlib

    library = importlib.import_module("annotationlib")
    for form in (library.Format.VALUE, library.Format.FORWARDREF):
        try:
            return dict(library.get_annotations(obj, format=form))
        except Exception:  # noqa: BLE001 - evaluating is user code
            continue
    return dict(library.get_annotations(obj, format=library.Format.STRING))


def function_state(function: Any) -> Tuple[Any, Any]:
    """Return what cloudpickle's ``_function_getstate`` does, even if an annotation raises."""
    cloudpickle = calls.cloudpickle_module()
    if sys.version_info >= (3, 14):
        try:
            function.__annotations__  # noqa: B018 - evaluates them
        except Exception:  # noqa: BLE001 - user code
            unannotated = type(function)(
                function.__code__,
                function.__globals__,
                function.__name__,
                None,
                function.__closure__,
            )
            attributes, slots = cloudpickle._function_getstate(unannotated)
            for name in ("__qualname__", "__kwdefaults__", "__defaults__", "__module__", "__doc__"):
                slots[name] = getattr(function, name)
            slots["__annotations__"] = evaluated_annotations(function)
            return _with_names_of_classes(function, ({**attributes, **vars(function)}, slots))
    return _with_names_of_classes(function, cloudpickle._function_getstate(function))


def _with_names_of_classes(function: Any, state: Tuple[Any, Any]) -> Tuple[Any, Any]:
    """Add the globals that only the bodies of classes within a function use.

    Cloudpickle does not look for those.
    """
    space = function.__globals__
    for name in names_of_classes(function.__code__):
        if name in space:
            state[1]["__globals__"].setdefault(name, space[name])
    return state


def names_of_classes(code: CodeType) -> Set[str]:
    """Return the names that the bodies of classes within a code object look up."""
    found: Set[str] = set()
    for each in code.co_consts:
        if isinstance(each, type(code)):
            found |= names_of_classes(each)
            # The body of a class has no fast locals (inspect.CO_OPTIMIZED); its annotations are
            # functions since Python 3.14.
            if (
                not each.co_flags & 1
                or each.co_name == "__annotate__"
                or each.co_name.startswith("<generic")
            ):
                import dis

                found.update(
                    step.argval
                    for step in dis.get_instructions(each)
                    if step.opname in ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
                )
    return found


def _slots(cls: Any) -> Any:
    slots = vars(cls)["__slots__"]
    if isinstance(slots, (str, tuple, list, dict)):
        return slots
    # an iterator that is used up
    return tuple(name for name, value in vars(cls).items() if _is_slot(value, cls))


def _is_slot(value: Any, cls: Any) -> bool:
    return (
        type(value).__name__ in ("member_descriptor", "getset_descriptor")
        and getattr(value, "__objclass__", None) is cls
    )


def _made_by(value: Any, modules: Tuple[str, ...]) -> bool:
    """Return True for a function whose code stands in one of these modules."""
    function = getattr(value, "__func__", value)
    return getattr(function, "__globals__", {}).get("__name__") in modules


_GENERATED = (
    "__init__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__",
    "__setattr__", "__delattr__", "__replace__", "__getstate__", "__setstate__",
)  # fmt: skip
_PARAMETERS = (
    "init",
    "repr",
    "eq",
    "order",
    "unsafe_hash",
    "frozen",
    "match_args",
    "kw_only",
    "slots",
)
_OPTIONS = ("default", "default_factory", "init", "repr", "hash", "compare", "kw_only", "doc")


def _dataclass(cls: Any, members: Dict[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return (parameters, {field: (kind, options)}) of a dataclass.

    What the decorator has made is removed from ``members``.
    """
    import dataclasses

    parameters = {
        name: getattr(cls.__dataclass_params__, name)
        for name in _PARAMETERS
        if hasattr(cls.__dataclass_params__, name)
    }
    kinds = {"_FIELD": "field", "_FIELD_CLASSVAR": "class variable", "_FIELD_INITVAR": "init-only"}
    own = _annotations_of(cls) or {}
    fields: Dict[str, Any] = {}
    for name, field in cls.__dataclass_fields__.items():
        if name not in own:
            continue  # of a base
        kind = kinds[field._field_type.name]
        options = {
            key: getattr(field, key)
            for key in _OPTIONS
            if getattr(field, key, dataclasses.MISSING) is not dataclasses.MISSING
        }
        if kind == "class variable":
            continue  # its value is an attribute like any other
        options["metadata"] = dict(field.metadata)
        if kind == "init-only":
            options.pop("kw_only", None) if not options.get("kw_only") else None
        fields[name] = (
            kind,
            {key: value for key, value in options.items() if not (key == "doc" and value is None)},
        )
        members.pop(name, None)
    for name in ("__dataclass_params__", "__dataclass_fields__", "__match_args__"):
        members.pop(name, None)
    # Python 3.15 makes the text when it is asked for
    if type(members.get("__doc__")).__name__ == "_AutoDocstring":
        del members["__doc__"]
    for name in _GENERATED:
        if name in members and (
            cls.__dataclass_params__.eq if members[name] is None else _is_generated(members[name])
        ):
            del members[name]
    return parameters, fields


def _is_generated(value: Any) -> bool:
    import linecache

    if _made_by(value, ("dataclasses", "reprlib")):
        return True
    value = getattr(value, "__wrapped__", value)
    code = getattr(value, "__code__", None)
    return (
        code is not None
        and code.co_filename == "<string>"
        and (value.__globals__ is not None)
        and not _is_written(code, linecache)
    )


def _is_written(code: Any, linecache: Any) -> bool:
    try:
        return bool(linecache.getlines(code.co_filename)) and bool(locate(code))
    except NoSource:
        return False


def _reduce_namedtuple(cls: Any, tracker: str, names: Optional[Names]) -> Any:
    made = (
        "__slots__", "__module__", "__qualname__", "_fields", "_field_defaults", "_fields_defaults",
        "__new__", "_make", "_replace", "__replace__", "__repr__", "_asdict", "__getnewargs__",
        "__match_args__", "__annotations__", "__orig_bases__", "_field_types",
    )  # fmt: skip
    members = {
        name: value
        for name, value in vars(cls).items()
        if name not in cls._fields
        and name not in _OWN_OF_A_VERSION
        and (name not in made or not _is_tuple_part(name, value))
    }
    members["__qualname__"] = cls.__qualname__
    found = _annotations_of(cls)
    if found:
        members["__annotations__"] = pack_annotations(found, names, cls.__qualname__)
    defaults = tuple(cls._field_defaults.values())
    arguments = (cls.__name__, cls._fields, defaults, cls.__module__, tracker)
    return code_classes.make_namedtuple, arguments, members, None, None, code_classes.set_attributes


def _is_tuple_part(name: str, value: Any) -> bool:
    """Return True for what ``collections.namedtuple`` makes.

    An author may have replaced its methods.
    """
    function = getattr(value, "__func__", value)
    code = getattr(function, "__code__", None)
    if code is None:
        return True
    return (
        _made_by(function, ("collections", "typing"))
        or code.co_filename.startswith("<")
        or name == "__new__"
    )


def _reduce_typed_dict(cls: Any, tracker: str, names: Optional[Names]) -> Any:
    keys = ("__required_keys__", "__optional_keys__", "__readonly_keys__", "__mutable_keys__")
    members: Dict[str, Any] = {name: sorted(vars(cls)[name]) for name in keys if name in vars(cls)}
    members.update(
        {
            name: vars(cls)[name]
            for name in ("__module__", "__doc__", "__total__")
            if name in vars(cls)
        }
    )
    members["__qualname__"] = cls.__qualname__
    members["__annotations__"] = pack_annotations(_annotations_of(cls), names, cls.__qualname__)
    return (
        code_classes.make_typed_dict,
        (cls.__name__, bool(cls.__total__), tracker),
        members,
        None,
        None,
        code_classes.set_typed_dict,
    )


def _reduce_enum(cls: Any, tracker: str) -> Any:
    members, _ = calls.cloudpickle_module()._class_getstate(cls)
    listed = [(name, member._value_) for name, member in cls.__members__.items()]
    names_of_members = dict(listed)
    kept = {}
    for name, value in members.items():
        sunder = name.startswith("_") and name.endswith("_") and not name.startswith("__")
        if (
            name in names_of_members
            or name in _OWN_OF_A_VERSION
            or (sunder and name != "_missing_")
        ):
            continue
        if name in (
            "__new__",
            "__new_member__",
            "__doc__",
            "__module__",
            "__qualname__",
            "__annotations__",
        ) or _made_by(value, ("enum",)):
            continue
        if any(name in vars(base) and vars(base)[name] is value for base in cls.__mro__[1:]):
            continue
        kept[name] = value
    attributes = {}
    for name, member in cls.__members__.items():
        found = {
            key: value
            for key, value in vars(member).items()
            if not (key.startswith("_") and key.endswith("_"))
        }
        if found and member._name_ == name:
            attributes[name] = found
    boundary = getattr(vars(cls).get("_boundary_"), "name", None)
    first = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    arguments = (type(cls), cls.__name__, cls.__bases__, first, listed, boundary, tracker)
    return code_classes.make_enum, arguments, (kept, attributes), None, None, code_classes.set_enum


def reduce_enum_base(cls: Any) -> Any:
    """Reduce a class of the module ``enum`` that not every version has.

    None for everything else.
    """
    if getattr(cls, "__module__", None) == "enum" and cls.__name__ in (
        "StrEnum",
        "ReprEnum",
        "EnumType",
    ):
        return code_classes.enum_base, (cls.__name__,)
    return None
