"""The arguments of a call as a short text, for messages: ``('scan_0003.tif', 4, channel=2)``.

The text is made when it is asked for, or when a call has failed: from the values where this process
has them still, else from the pickle that is kept for the worker anyway. No code of the user's runs:
values of exact builtin types are shown, cut where they are long; of an array the shape and the type
of its elements; of everything else the name of its class. A pickle is walked through, not loaded:
what it names is never looked up. Raises nothing. Owns no state. Entered by any thread.
"""

from __future__ import annotations

import decimal
import fractions
import io
import itertools
import pathlib
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from struct import unpack
from typing import Any, ClassVar

from wetlands_executor.worker import code_templates, wire

__all__ = ["KEPT", "of_pickle", "of_values"]

#: Bytes of a pickle of arguments that are kept beside its blocks in shared memory, and walked
#: through.
KEPT = 4096
#: Characters of the whole text, and of one text or bytes in it.
MOST, LONGEST = 400, 120
#: Elements of one container, and containers in one another.
WIDEST, DEEPEST = 6, 4
#: Bits of an integer that is shown as it is.
BITS = 256
UNKNOWN = "(...)"


def of_values(args: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> str:
    """Return the text for arguments that are at hand."""
    try:
        parts: list[str] = []
        room = MOST
        for text in itertools.chain(
            map(_show, args), (f"{key}={_show(value)}" for key, value in (kwargs or {}).items())
        ):
            parts.append(text)
            room -= len(text) + 2
            if room < 0:
                return f"({_cut(', '.join(parts), MOST)})"
        return f"({', '.join(parts)})"
    except Exception:  # noqa: BLE001
        # a list that another thread changes; a message is not worth a failure
        return UNKNOWN


def of_pickle(data: bytes, skipped: int = 0) -> str:
    """Return the text for a pickled call.

    The pickle holds (arguments, keywords), or (function, arguments, keywords).

    Args:
        data: the pickle; empty for a call without arguments.
        skipped: number of arguments that the library has put before those of the user.
    """
    if not data:
        return "()"
    try:
        if any(code in data for code in _NAMING):
            *made, args, kwargs = _Walker(
                io.BytesIO(data), buffers=itertools.repeat(_BUFFER)
            ).load()
        else:
            # made by this process, of builtin types only: twenty times faster
            *made, args, kwargs = pickle.loads(data)
        if made and type(made[0]) is tuple and made[0][:1] == (code_templates.OBJECTS,):
            args = _with_objects(args, made[0][1])
        return of_values(args[skipped:], kwargs)
    except Exception:  # noqa: BLE001 - as above; the pickle may hold what this walker does not know
        return UNKNOWN


def _with_objects(args: Any, objects: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return the arguments with a placeholder for each instance that the worker makes."""
    found = [None, *args]
    for place, *of_class, _attributes in objects:
        found[place] = _Object(_Object(_DEFINED, tuple(of_class)), ())
    return found[1:]


# --- values


def _show(value: Any, depth: int = 0) -> str:
    kind = type(value)
    show = _SHOWN.get(kind)
    if show is not None:
        return show(value)
    if kind in _BRACKETS:
        return _show_container(kind, value, depth)
    if kind is _Object:
        return _show_object(value)
    if kind is _Name:
        return f"<{value.module}.{value.name}>"
    if _name(kind) == "Task" and _module(kind).startswith("wetlands_executor."):
        return f"<task {value.name}>"
    if kind in _FUNCTIONS:
        return f"<function {value.__qualname__}>"
    if kind is type:
        return f"<class {_module(value)}.{_name(value)}>"
    if kind in _PATHS:
        return f"{_name(kind)}({_show(str(value))})"
    if kind in _NUMBERS:
        return f"{_name(kind)}({_show(str(value))})"
    return _show_numpy(kind, value) or f"<{_module(kind)}.{_name(kind)} object>"


def _cut(text: str, most: int) -> str:
    """Return a text with its middle left out if it is long: names of files differ at their ends."""
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def _show_text(value: Any) -> str:
    if len(value) <= LONGEST:
        return _cut(repr(value), 2 * LONGEST)
    half = LONGEST // 2
    text = repr(value[:half] + value[-half:])  # of the whole it would take long
    first = repr(value[:half])
    cut = len(first) - (2 if type(value) is bytearray else 1)
    return f"{text[:cut]}...{text[cut:]}" if text.startswith(first[:cut]) else f"{first}..."


def _show_integer(value: int) -> str:
    return repr(value) if value.bit_length() <= BITS else f"<int of {value.bit_length():,} bits>"


def _show_container(kind: type, value: Any, depth: int) -> str:
    opening, closing = _BRACKETS[kind]
    if not value:
        return (
            "()"
            if kind is tuple
            else f"{kind.__name__}()"
            if kind in (set, frozenset)
            else opening + closing
        )
    if depth >= DEEPEST:
        return f"{opening}...{closing}"
    entries = list(itertools.islice(value.items() if kind is dict else value, WIDEST + 1))
    if kind is dict:
        parts = [
            f"{_show(key, depth + 1)}: {_show(entry, depth + 1)}" for key, entry in entries[:WIDEST]
        ]
    else:
        parts = [_show(entry, depth + 1) for entry in entries[:WIDEST]]
    if len(entries) > WIDEST:
        parts.append("...")
    comma = "," if kind is tuple and len(value) == 1 else ""
    return _cut(f"{opening}{', '.join(parts)}{comma}{closing}", MOST)


def _show_numpy(kind: type, value: Any) -> str:
    """Return the text for an array or a number of numpy, empty for anything else.

    Subclasses are the user's.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or _module(kind) != "numpy":
        return ""
    if kind is vars(numpy).get("ndarray"):
        return f"<numpy.ndarray {value.shape} {_name_of_dtype(value.dtype)}>"
    if kind is vars(numpy).get(_name(kind)) and issubclass(kind, numpy.number):
        return f"{_name(kind)}({_show(value.item())})"
    return ""


#: Code of a dtype of numpy -> its name, which numpy makes anew each time.
_dtype_names: dict[str, str] = {}


def _name_of_dtype(dtype: Any) -> str:
    if dtype.isbuiltin != 1:
        return str(dtype.kind)
    code = dtype.char
    found = _dtype_names.get(code)
    if found is None:
        found = _dtype_names[code] = str(dtype.name)
    return found


def _module(kind: type) -> str:
    found = type.__dict__["__module__"].__get__(kind)  # past a metaclass of the user's
    return found if type(found) is str else "?"


def _name(kind: type) -> str:
    return str(type.__dict__["__qualname__"].__get__(kind))


_SHOWN: dict[type, Callable[[Any], str]] = {
    str: _show_text,
    bytes: _show_text,
    bytearray: _show_text,
    int: _show_integer,
    **dict.fromkeys((float, complex, bool, type(None), type(...), type(NotImplemented)), repr),
}
_BRACKETS: dict[type, tuple[str, str]] = {
    tuple: ("(", ")"),
    list: ("[", "]"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}
_FUNCTIONS = frozenset((types.FunctionType, types.BuiltinFunctionType))
_PATHS = frozenset(
    (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath)
)
_NUMBERS = frozenset((decimal.Decimal, fractions.Fraction))


# --- pickles


class _Name:
    """What a pickle names: a class or a function."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name


class _Object:
    """What a pickle makes by calling something.

    Attributes:
        of: what is called; a ``_Name``, or another such object for a class that travels by value.
        args: its arguments.
        state: what the object is given then.
    """

    __slots__ = ("args", "of", "state")

    def __init__(self, of: Any, args: Any) -> None:
        self.of = of
        self.args = args
        self.state: Any = None

    def give(self, state: Any) -> None:
        """Give it its state."""
        self.state = state


_BUFFER = b""
_DEFINED = _Name(wire.SHORT_MODULE, "d")
#: The instructions by which a pickle of this process's pickler names something (STACK_GLOBAL, EXT1,
#: EXT2, EXT4), or takes a buffer.
_NAMING = (b"\x93", b"\x82", b"\x83", b"\x84", b"\x97", wire.DEFINED)


class _Walker(pickle._Unpickler):
    """Puts together what a pickle of builtin types says, and placeholders for the rest."""

    def find_class(self, module: str, name: str) -> Any:
        return _Name(module, name)

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002 - none is made by us
        return _Object(_Name("pickle", "persistent"), ())

    def get_extension(self, code: int) -> None:
        self.append(_Name("copyreg", f"extension {code}"))  # type: ignore[attr-defined]

    def _reduce(self) -> None:
        args = self.stack.pop()  # type: ignore[attr-defined]
        self.stack[-1] = _made(self.stack[-1], args)  # type: ignore[attr-defined]

    def _reduce_with_keywords(self) -> None:
        self.stack.pop()  # type: ignore[attr-defined]
        self._reduce()

    def _build(self) -> None:
        state = self.stack.pop()  # type: ignore[attr-defined]
        if type(self.stack[-1]) is _Object:  # type: ignore[attr-defined]
            self.stack[-1].give(state)  # type: ignore[attr-defined]

    def _fill(self) -> None:
        entries = self.pop_mark()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if type(target) is list:
            target.extend(entries)
        elif type(target) is set:
            target.update(entries)
        elif type(target) is dict:
            target.update(zip(entries[::2], entries[1::2], strict=True))

    def _append(self) -> None:
        value = self.stack.pop()  # type: ignore[attr-defined]
        if type(self.stack[-1]) is list:  # type: ignore[attr-defined]
            self.stack[-1].append(value)  # type: ignore[attr-defined]

    def _set(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        if type(self.stack[-1]) is dict:  # type: ignore[attr-defined]
            self.stack[-1][key] = value  # type: ignore[attr-defined]

    def _keep(self) -> None:
        """A buffer that can only be read: it stands here for itself."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _reduce_with_keywords,
        pickle.BUILD[0]: _build,
        pickle.APPENDS[0]: _fill,
        pickle.ADDITEMS[0]: _fill,
        pickle.SETITEMS[0]: _fill,
        pickle.APPEND[0]: _append,
        pickle.SETITEM[0]: _set,
        pickle.READONLY_BUFFER[0]: _keep,
    }


def _made(of: Any, args: Any) -> Any:
    """Return what a call in a pickle makes.

    Itself where that is of a builtin type, else a placeholder.
    """
    if type(of) is _Name and type(args) is tuple:
        if (of.module, of.name) == ("builtins", "bytearray") and all(
            type(arg) is bytes for arg in args
        ):
            return bytearray(*args)
        if of.name == "fetch" and of.module.endswith("worker.imports") and len(args) >= 2:
            return _Name(str(args[0]), str(args[1]))  # a class of the user's project
    return _Object(of, args)


def _show_object(value: _Object) -> str:
    of, args = value.of, value.args
    if type(of) is not _Name:
        name = _name_by_value(of)
        return f"<{name} object>" if name else "<object>"
    whole = f"{of.module}.{of.name}"
    if _is_defined(of) and len(args) == 3:
        return f"<{args[2]}>"
    if whole.endswith("worker.objects.load"):  # a function or class that travels by value
        return f"<{_name_by_value(value) or 'object'}>"
    if whole.endswith("worker.objects.sentinel") and len(args) == 3:
        return _show_object(_Object(args[1], args[2]))
    if whole.endswith("worker.objects.begin"):
        return "<builtins.object object>"
    if (
        of.module.partition(".")[0] == "pathlib"
        and args
        and all(type(part) is str for part in args)
    ):
        return f"{of.name}({_show_text('/'.join(args).replace('//', '/'))})"
    if whole == "decimal.Decimal" or whole == "fractions.Fraction":
        return f"{of.name}({', '.join(map(_show, args))})"
    if of.module.startswith("numpy"):
        return _show_numpy_object(of, args, value) or f"<{whole} object>"
    if (
        whole in ("copyreg._reconstructor", "copyreg.__newobj__")
        and args
        and type(args[0]) is _Name
    ):
        return f"<{args[0].module}.{args[0].name} object>"
    return f"<{whole} object>"


def _is_defined(of: Any) -> bool:
    """Return True for what names a function or class by value that the worker has already."""
    return type(of) is _Name and (
        of.module == wire.SHORT_MODULE
        or (of.name == "defined" and of.module.endswith("worker.objects"))
    )


def _name_by_value(of: Any) -> str:
    """Return the name of a class that travels by value, from the text of its own pickle.

    Empty if it is not found.
    """
    if type(of) is _Object and _is_defined(of.of):
        return str(of.args[-1])
    stream = of.args[0] if type(of) is _Object and type(of.args) is tuple and of.args else None
    if type(stream) is not bytes:
        return ""
    try:
        made = _Walker(io.BytesIO(stream)).load()
        return _class_in(made, 0)
    except Exception:  # noqa: BLE001 - it refers to what only a worker has
        return ""


def _class_in(made: Any, depth: int) -> str:
    """Return the name of the first class that is made within a placeholder."""
    if depth > DEEPEST or type(made) is not _Object or type(made.args) is not tuple:
        return ""
    for position, arg in enumerate(made.args):
        if type(arg) is str and position and arg.isidentifier():
            rest = next((each for each in made.args[position:] if type(each) is dict), {})
            module = rest.get("__module__")
            return f"{module}.{arg}" if type(module) is str else arg
        found = _class_in(arg, depth + 1)
        if found:
            return found
    return ""


def _show_numpy_object(of: _Name, args: Any, value: _Object) -> str:
    """Return the text for an array or a number of numpy in a pickle; empty for anything else."""
    if of.name == "_frombuffer" and len(args) >= 3:
        return f"<numpy.ndarray {args[2]} {_dtype(args[1])}>"
    if (
        of.name == "_reconstruct"
        and type(value.state) is tuple
        and len(value.state) >= 3
        and _plain_array(args)
    ):
        return f"<numpy.ndarray {value.state[1]} {_dtype(value.state[2])}>"
    if of.name == "scalar" and len(args) == 2 and type(args[1]) is bytes:
        code, order = _code(args[0]), _order(args[0])
        if code[:1] in ("i", "u"):
            number: Any = int.from_bytes(
                args[1], "big" if order == ">" else "little", signed=code[0] == "i"
            )
        elif code in _FLOATS:
            number = unpack(("> " if order == ">" else "<").strip() + _FLOATS[code], args[1])[0]
        else:
            return ""
        return f"{_dtype(args[0])}({number!r})"
    return ""


def _plain_array(args: Any) -> bool:
    return (
        type(args) is tuple and bool(args) and type(args[0]) is _Name and args[0].name == "ndarray"
    )


def _code(dtype: Any) -> str:
    args = getattr(dtype, "args", None)
    return args[0] if type(args) is tuple and args and type(args[0]) is str else "?"


def _order(dtype: Any) -> str:
    state = getattr(dtype, "state", None)
    return state[1] if type(state) is tuple and len(state) > 1 and type(state[1]) is str else "<"


def _dtype(dtype: Any) -> str:
    code = _code(dtype)
    kind = _KINDS.get(code[:1])
    return (
        f"{kind}{8 * int(code[1:])}"
        if kind and code[1:].isdigit()
        else "bool"
        if code == "b1"
        else code
    )


_FLOATS = {"f2": "e", "f4": "f", "f8": "d"}
_KINDS = {"i": "int", "u": "uint", "f": "float", "c": "complex"}
