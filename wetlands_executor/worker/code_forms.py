"""What ``typing`` and ``functools`` make, in a form that every version of Python reads.

Their own pickles hold bytecode (``ForwardRef`` until Python 3.13), hold a name that leads nowhere
(``ParamSpec`` of a script), or differ between two versions (``partialmethod``). A ``reduce_...``
function is called by a pickler, a ``make_...`` function by the pickle stream, which names it: those
have to keep their names. Serves equal versions too. Entered by any thread that pickles; keeps no
state.
"""

from __future__ import annotations

import sys

from . import code_portable

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

#: Parameters of generic functions and classes.
_PARAMETERS = ("TypeVar", "ParamSpec", "TypeVarTuple")
#: Options of those, and the attributes that have them.
_OPTIONS = (
    ("bound", "__bound__"),
    ("covariant", "__covariant__"),
    ("contravariant", "__contravariant__"),
    ("infer_variance", "__infer_variance__"),
    ("default", "__default__"),
)


def reduce_form(obj: Any) -> Any:
    """Reduce an object of ``typing``, ``annotationlib`` or ``functools``; None for all others.

    Args:
        obj: an instance of a class of one of these modules.
    """
    name = type(obj).__name__
    if name == "ForwardRef":
        is_class = bool(getattr(obj, "__forward_is_class__", False))
        module = getattr(obj, "__forward_module__", None)
        return make_forward_ref, (
            obj.__forward_arg__,
            bool(obj.__forward_is_argument__),
            module,
            is_class,
        )
    if name in _PARAMETERS:
        return None if _is_importable(obj) else _reduce_parameter(obj)
    if name == "TypeAliasType":
        if _is_importable(obj):
            return None
        return make_type_alias, (obj.__name__, _unrolled(obj.__value__, obj), obj.__type_params__)
    if name == "partialmethod" and type(obj).__module__ == "functools":
        return make_partialmethod, (obj.func, _without_slots(obj.args), dict(obj.keywords))
    if name == "partial" and any(map(_is_slot, obj.args)):
        return make_partial, (obj.func, _without_slots(obj.args), dict(obj.keywords))
    return None


# --- typing


def _is_importable(obj: Any) -> bool:
    """Return True for what can be named: a parameter that a module holds, and not the script."""
    from .calls import cloudpickle_module

    cloudpickle = cloudpickle_module()
    found = cloudpickle._lookup_module_and_qualname(obj, name=obj.__name__)
    return found is not None and not cloudpickle._is_registered_pickle_by_value(found[0])


def _reduce_parameter(obj: Any) -> Any:
    from .calls import cloudpickle_module

    options: Dict[str, Any] = {}
    for option, attribute in _OPTIONS:
        try:
            value = getattr(obj, attribute, None)
        except Exception:  # noqa: BLE001
            # user code: a bound of ``def f[T: Later]`` is evaluated when it is asked for
            value = None
        if value is None or value is False or _is_no_default(value):
            continue
        options[option] = value
    constraints = tuple(getattr(obj, "__constraints__", ()) or ())
    tracker = cloudpickle_module()._get_or_create_tracker_id(obj)
    return make_parameter, (type(obj).__name__, obj.__name__, constraints, options, tracker)


def _unrolled(value: Any, alias: Any) -> Any:
    """Return the value of an alias with names in place of itself.

    ``type Json = str | list[Json]``.
    """
    import typing

    origin: Any = getattr(value, "__origin__", None)
    named: Any = value if type(value).__name__ == "TypeAliasType" else origin
    if type(named).__name__ == "TypeAliasType" and _reaches(named, alias, set()):
        return typing.ForwardRef(named.__name__)
    args = _args_of(value)
    parts = tuple(_unrolled(each, alias) for each in args)
    if all(new is old for new, old in zip(parts, args)):
        return value
    if hasattr(value, "copy_with"):
        return value.copy_with(parts)
    return (
        code_portable.make_union(parts)
        if origin is None or origin is typing.Union
        else code_portable.make_alias(origin, parts)
    )


def _args_of(value: Any) -> Tuple[Any, ...]:
    args = getattr(value, "__args__", ())
    return args if isinstance(args, tuple) else ()  # a class has the descriptor of its instances


def _reaches(value: Any, alias: Any, seen: Any) -> bool:
    """Return True if the value of an alias holds another one, or itself."""
    if value is alias:
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    inner = [getattr(value, "__origin__", None), *_args_of(value)]
    if type(value).__name__ == "TypeAliasType":
        inner.append(value.__value__)
    return any(_reaches(each, alias, seen) for each in inner if each is not None)


def _is_no_default(value: Any) -> bool:
    import typing

    return hasattr(typing, "NoDefault") and value is typing.NoDefault


def make_forward_ref(text: str, is_argument: bool, module: Any, is_class: bool) -> Any:
    """Return ``typing.ForwardRef(text)``, with as much of the rest as this Python knows.

    Args:
        text: the quoted annotation.
        is_argument: it is one of a generic type.
        module: where its names are looked up, if it was said.
        is_class: it stands in a class.
    """
    import typing

    rest: Dict[str, Any] = {"is_argument": is_argument}
    if module is not None:
        rest["module"] = module
    if is_class:
        rest["is_class"] = is_class
    make: Any = typing.ForwardRef
    try:
        return make(text, **rest)
    except TypeError:  # is_class since 3.9.8, module since 3.9.7
        return make(text, is_argument)


def make_union_type() -> Any:
    """Return ``typing.Union``, of which ``types.UnionType`` is another name since Python 3.14."""
    import typing

    return typing.Union


def make_parameter(
    kind: str, name: str, constraints: Tuple[Any, ...], options: Dict[str, Any], tracker: str
) -> Any:
    """Return the type variable of that number.

    Older versions have fewer kinds and fewer options.
    """
    from .calls import cloudpickle_module

    cloudpickle = cloudpickle_module()
    found = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
    if found is not None:
        return found
    return cloudpickle._lookup_class_or_track(tracker, _parameter(kind, name, constraints, options))


def _parameter(kind: str, name: str, constraints: Tuple[Any, ...], options: Dict[str, Any]) -> Any:
    import typing

    make: Any = getattr(typing, kind, None)
    if make is None:  # it stands in annotations and among the bases of generic classes only
        make, options = typing.TypeVar, {}
    for dropped in ((), ("default",), ("default", "infer_variance"), tuple(options)):
        known = {key: value for key, value in options.items() if key not in dropped}
        try:
            return make(name, *constraints, **known)
        except TypeError:
            continue
    return typing.TypeVar(name)


def make_type_alias(name: str, value: Any, parameters: Tuple[Any, ...]) -> Any:
    """Return what ``type name = value`` makes; before Python 3.12 the value itself."""
    import typing

    make: Any = getattr(typing, "TypeAliasType", None)
    return value if make is None else make(name, value, type_params=parameters)


class AbsentForm:
    """Represents a special form that this Python does not know, such as ``typing.Self`` in 3.10."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, given: Any) -> Any:
        """Return the type that ``Annotated[X, ...]``, ``Required[X]`` and their like are about."""
        return given[0] if isinstance(given, tuple) else given

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse. It exists because ``typing`` takes only callables for types."""
        raise TypeError(
            "typing.%s does not exist in Python %s" % (self._name, sys.version.split()[0])
        )

    def __repr__(self) -> str:
        return "typing.%s" % self._name

    def __reduce__(self) -> Any:
        return absent_form, (self._name,)


def absent_form(name: str) -> Any:
    """Return ``typing.name``, of ``typing_extensions`` where that is installed, or a stand-in."""
    import typing

    found = getattr(typing, name, None)
    if found is None:
        try:
            import importlib

            found = getattr(importlib.import_module("typing_extensions"), name, None)
        except Exception:  # noqa: BLE001 - it is not there, or one that this Python cannot import
            found = None
    return AbsentForm(name) if found is None else found


# --- functools


class _Slot:
    """Represents ``functools.Placeholder`` in a stream."""

    def __reduce__(self) -> Any:
        return make_slot, ()


def make_slot() -> Any:
    """Return the object that represents an argument which a call still has to give."""
    return SLOT


SLOT = _Slot()


def _is_slot(value: Any) -> bool:
    if value is SLOT:
        return True
    placeholder = getattr(sys.modules.get("functools"), "Placeholder", None)
    return placeholder is not None and value is placeholder


def _without_slots(args: Tuple[Any, ...]) -> Tuple[Any, ...]:
    return tuple(SLOT if _is_slot(each) else each for each in args)


def make_partial(function: Any, args: Tuple[Any, ...], keywords: Dict[str, Any]) -> Any:
    """Return a ``functools.partial`` whose arguments may hold ``functools.Placeholder``."""
    import functools

    placeholder: Any = getattr(functools, "Placeholder", None)
    if placeholder is not None:
        given = (placeholder if each is SLOT else each for each in args)
        return functools.partial(function, *given, **keywords)
    if not any(each is SLOT for each in args):
        return functools.partial(function, *args, **keywords)
    return PlaceholderPartial(function, args, keywords)


def make_partialmethod(function: Any, args: Tuple[Any, ...], keywords: Dict[str, Any]) -> Any:
    """Return a ``functools.partialmethod``, also one with placeholders."""
    import functools

    placeholder: Any = getattr(functools, "Placeholder", None)
    if not any(each is SLOT for each in args):
        return functools.partialmethod(function, *args, **keywords)
    if placeholder is not None:
        given = (placeholder if each is SLOT else each for each in args)
        return functools.partialmethod(function, *given, **keywords)
    return functools.partialmethod(_PlaceholderMethod(function, args), **keywords)


def _filled(args: Tuple[Any, ...], given: Tuple[Any, ...]) -> List[Any]:
    """Return arguments whose placeholders are filled with the first of the given ones."""
    placeholders = sum(each is SLOT for each in args)
    if len(given) < placeholders:
        raise TypeError(
            "missing positional arguments in 'partial' call; expected at least %d, "
            "got %d" % (placeholders, len(given))
        )
    rest = iter(given)
    return [next(rest) if each is SLOT else each for each in args] + list(rest)


class _PlaceholderMethod:
    """The function of a ``partialmethod`` with placeholders: ``self`` comes before them."""

    def __init__(self, function: Any, args: Tuple[Any, ...]) -> None:
        self.function = function
        self.args = args

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        bound = self.function.__get__(obj, owner)
        if bound is self.function:  # asked of the class: ``self`` has to be given first
            return PlaceholderPartial(bound, (SLOT,) + self.args, {})
        return PlaceholderPartial(bound, self.args, {})


class PlaceholderPartial:
    """A ``functools.partial`` with placeholders, for a Python whose own has none.

    Not derived from that: some versions take a partial of a partial apart without asking.
    """

    def __init__(self, func: Any, args: Tuple[Any, ...], keywords: Dict[str, Any]) -> None:
        self.func = func
        self.args = args
        self.keywords = keywords

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; the first arguments fill the placeholders."""
        return self.func(*_filled(self.args, args), **{**self.keywords, **kwargs})

    def __reduce__(self) -> Any:
        return make_partial, (self.func, self.args, self.keywords)
