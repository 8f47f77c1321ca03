"""Takes exceptions apart, and makes exceptions of their parts.

For classes that pickle does not rebuild, or not as they were.

Pickle calls ``class(*args)``. That fails where ``__init__`` or ``__new__`` wants something else,
and makes another message where ``__init__`` composes it. Here no code of the class runs: its
instance is made, and filled, by the builtin class below it. Members of a group, and exceptions
among the arguments, are taken apart in the same way. Imported by both ends, when a call has failed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Tuple

#: What an entry of the arguments is: a value, the parts of an exception, or a list or tuple with
#: such in it.
_VALUE, _PARTS, _LIST, _TUPLE = range(4)
_FIELDS: Any = vars(BaseException)
_DEEPEST = 20
_DESCRIPTORS = (type(vars(OSError)["filename"]), type(vars(OSError)["characters_written"]))


def parts_of(error: BaseException, depth: int = 0) -> Tuple[Any, ...]:
    """Return (class, arguments, attributes, values of slots) of an exception.

    Whatever its class defines under such names is bypassed.
    """
    kind = type(error)
    args = tuple(_taken(arg, depth) for arg in _FIELDS["args"].__get__(error))
    slots: Dict[str, Any] = {}
    for base in kind.__mro__:
        if base is BaseException:
            break
        if base.__module__ == "builtins":
            slots.update(_own_fields(base, error))
            continue
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else tuple(names):
            if name not in ("__dict__", "__weakref__"):
                try:
                    slots[name] = BaseException.__getattribute__(error, _mangled(base, name))
                except AttributeError:
                    pass  # it was never set
    return kind, args, dict(_FIELDS["__dict__"].__get__(error) or {}), slots


def _own_fields(base: Any, error: BaseException) -> Dict[str, Any]:
    """Return what a builtin class keeps beside the arguments: the file name of an OSError, say."""
    found = {}
    for name, field in vars(base).items():
        if type(field) in _DESCRIPTORS:
            try:
                value = field.__get__(error)
            except AttributeError:
                continue  # it was never set
            if type(value) in (str, bytes, int):
                found[name] = value
    return found


def _taken(value: Any, depth: int) -> Tuple[Any, ...]:
    if depth < _DEEPEST:
        if isinstance(value, BaseException):
            return _PARTS, parts_of(value, depth + 1)
        if type(value) in (list, tuple) and any(
            isinstance(entry, BaseException) for entry in value
        ):
            return _LIST if type(value) is list else _TUPLE, [
                _taken(entry, depth + 1) for entry in value
            ]
    return _VALUE, value


def _mangled(base: Any, name: str) -> str:
    return (
        "_%s%s" % (base.__name__.lstrip("_"), name)
        if name.startswith("__") and not name.endswith("__")
        else name
    )


def made_of(parts: Tuple[Any, ...]) -> BaseException:
    """Return the exception that ``parts_of`` has taken apart. Runs no code of its class.

    Raises:
        TypeError: the class is none of an exception, or is another one here.
    """
    kind, entries, attributes, slots = parts
    args = tuple(_put(entry) for entry in entries)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TypeError("%r is no class of exceptions" % (kind,))
    builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        error = builtin.__new__(kind, *args)
    except TypeError:
        error = builtin.__new__(kind)
    try:
        # fills what has fields of its own, such as the number of an OSError
        builtin.__init__(error, *args)
    except TypeError:
        pass  # its arguments are not those of the builtin class
    _FIELDS["args"].__set__(error, args)
    if attributes:
        _FIELDS["__dict__"].__get__(error).update(attributes)
    for name, value in slots.items():
        _set(error, name, value)
    found: BaseException = error
    return found


def _set(error: Any, name: str, value: Any) -> None:
    for base in type(error).__mro__:
        field: Any = vars(base).get(_mangled(base, name))
        if hasattr(field, "__set__"):
            try:
                field.__set__(error, value)
            except (AttributeError, TypeError):
                pass  # it can only be read: the arguments have made it
            return


def _put(entry: Tuple[Any, ...]) -> Any:
    kind, value = entry
    if kind == _VALUE:
        return value
    if kind == _PARTS:
        return made_of(value)
    found = [_put(part) for part in value]
    return found if kind == _LIST else tuple(found)
