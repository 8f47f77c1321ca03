"""Reading what a worker has sent where no code of its may run.

Exact builtin types and nothing else.

A pickle is a program. What the I/O thread reads must therefore be looked at before it is loaded:
``is_builtin`` walks over its instructions and accepts those that make None, bools, numbers, text,
bytes and containers of them. No instruction that names a class, a function, an extension code, a
persistent object or a buffer is accepted, nor one that writes to a numbered place of the memo
(which allocates as much as its number says). Pickles that a worker makes of such values have none
of these.

Owns no state. Entered by any thread.
"""

from __future__ import annotations

import copyreg
import pickle
from typing import Any

__all__ = [
    "MOST_BYTES",
    "BadFrame",
    "NotBuiltin",
    "is_array",
    "is_builtin",
    "is_quick",
    "names_nothing",
    "read",
    "read_progress",
    "read_record",
    "read_shape",
    "trivial_value",
]

#: Bytes from which a result is not read by the I/O thread: it would take too long there.
MOST_BYTES = 65536
#: Bytes up to which one that holds a few long values is.
LONGEST = 1 << 18
#: Instructions of such a one.
FEW_STEPS = 40
#: Instructions of a result that are looked at before a decoder thread gets it.
MOST_STEPS = 400
#: The instruction of newer pickles that names a class or a function, as a number.
STACK_GLOBAL = pickle.STACK_GLOBAL[0]
_LINE_END = ord("\n")
_LONG_BINPUT = pickle.LONG_BINPUT[0]


class BadFrame(Exception):  # noqa: N818 - never leaves the pool
    """Malformed data came through the results pipe, or a frame that no worker sends.

    The stream is out of step, and the process must be ended.
    """


class NotBuiltin(BadFrame):
    """The data are no pickle of builtin types, or of other types than expected."""


# Classes that were given a number (copyreg.add_extension) are named without an instruction that
# could be seen.
extensions: dict[Any, Any] = getattr(copyreg, "_inverted_registry", {})


def _sizes() -> list[int]:
    """Return by instruction: how many bytes it has.

    Minus the bytes of a length that says how many follow; 0 if it is refused.
    """
    found = [0] * 256
    for code in b".N\x88\x89]})\x8f(t\x85\x86\x87aesu\x90\x91\x94\x30\x31":
        found[code] = 1
    for codes, size in (
        (b"\x80Kh", 2),
        (b"M", 3),
        (b"Jj", 5),
        (b"G\x95", 9),
        (b"\x8cC\x8a", -1),
        (b"XB\x8b", -4),
        (b"\x8d\x8e\x96", -8),
    ):
        for code in codes:
            found[code] = size
    return found


_SIZES = _sizes()
#: The same with what pickles of arrays need besides: names, calls, states, buffers that came beside
#: the pickle.
_ARRAY_SIZES = [1 if code in b"\x93Rb\x97\x98" else size for code, size in enumerate(_SIZES)]
_STOP = ord(".")
#: How protocol 5 begins; where its first value stands; SHORT_BINUNICODE and SHORT_BINBYTES.
_ONE_FRAME, _AT, _SHORT = b"\x80\x05\x95", 11, frozenset(b"\x8cC")


def is_builtin(
    data: bytes | bytearray | memoryview, steps: int | None = None, sizes: list[int] = _SIZES
) -> bool:
    """Return True if unpickling ``data`` makes builtin types only, and is bounded.

    It allocates at most a few times the length of ``data`` then.

    Args:
        data: the pickle.
        steps: instructions after which the answer is False; None is no limit.
        sizes: of the instructions that are accepted; see ``_sizes``.
    """
    position, end = 0, len(data)
    left = end if steps is None else steps
    while position < end and left:
        left -= 1
        code = data[position]
        size = sizes[code]
        if size > 0:
            position += size
            if code == _STOP:
                return position == end
        elif size:
            start = position + 1 - size
            position = start + int.from_bytes(data[position + 1 : start], "little")
        else:
            return False
    return False


def names_nothing(payload: bytes | bytearray) -> bool:
    """Return True if a pickle is seen at once to make builtin types only.

    Most results name nothing (STACK_GLOBAL) and have neither a line's end, without which the older
    instructions that name something cannot be complete, nor the code of LONG_BINPUT: then it is
    known without a look at each instruction.
    """
    # As numbers: a search for bytes of length 1 raises, and catches, an exception in CPython first.
    return (
        STACK_GLOBAL not in payload
        and _LINE_END not in payload
        and _LONG_BINPUT not in payload
        and not extensions
        and len(payload) < MOST_BYTES
    )


def trivial_value(payload: bytes | bytearray) -> tuple[Any] | None:
    """Return what a pickle makes, in a tuple, if that is quick and makes builtin types only.

    Else None; it runs no user code. None too if it cannot be unpickled: it is read once more where
    the error can be reported.
    """
    if names_nothing(payload) or is_quick(payload):
        try:
            return (pickle.loads(payload),)
        except Exception:  # noqa: BLE001
            return None
    return None


def is_quick(payload: bytes | bytearray) -> bool:
    """Return True if ``pickle.loads`` is quick, and makes builtin types only.

    For what ``names_nothing`` does not know to be so.
    """
    if extensions:
        return False
    if len(payload) >= MOST_BYTES or STACK_GLOBAL in payload:
        # It may be one long value, with anything in it: there are few instructions then.
        return len(payload) <= LONGEST and is_builtin(payload, FEW_STEPS)
    if (
        payload.startswith(_ONE_FRAME)
        and len(payload) > _AT + 1
        and payload[_AT] in _SHORT
        and payload[_AT + 1] + _AT + 4 == len(payload)
    ):
        return True  # one short text, and two bytes behind it
    return is_builtin(payload, MOST_STEPS)


def is_array(data: bytes | bytearray | memoryview) -> bool:
    """Return True for a short pickle whose instructions are those of arrays.

    The names in it are left to the reader.
    """
    return is_builtin(data, MOST_STEPS, _ARRAY_SIZES)


def read(data: bytes | bytearray | memoryview) -> Any:
    """Unpickle exact builtin types.

    Raises:
        NotBuiltin: the data are anything else, or no pickle.
    """
    if not is_builtin(data):
        raise NotBuiltin("it names what is not of a builtin type, or is no pickle")
    try:
        return pickle.loads(data)
    except Exception as error:
        raise NotBuiltin(f"{type(error).__name__}: {error}") from error


def read_shape(data: bytes | bytearray, shape: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    """Unpickle a dict with text as keys.

    Args:
        data: the pickle.
        shape: keys that must be there, and the types that their values may have.

    Raises:
        NotBuiltin: it is none.
    """
    found = read(data)
    if type(found) is not dict or not all(type(key) is str for key in found):
        raise NotBuiltin("it is no dict of names")
    for key, types in shape.items():
        if type(found.get(key)) not in types:
            raise NotBuiltin(f"its {key!r} is a {type(found.get(key)).__name__}")
    return found


_RECORD: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "msg": (str,),
    "levelno": (int,),
    "levelname": (str,),
    "created": (float, int),
}
_VALUES = frozenset((str, int, float, bool, type(None)))


def read_record(data: bytes | bytearray) -> dict[str, Any]:
    """Return the fields of a log record.

    Raises:
        NotBuiltin: they are no such.
    """
    fields = read_shape(data, _RECORD)
    if not all(type(value) in _VALUES for value in fields.values()):
        raise NotBuiltin("a value of the log record is neither text nor a number")
    return fields


def read_progress(data: bytes | bytearray) -> tuple[int, str | None, float | None, float | None]:
    """Return (item, message, current, maximum) of a report.

    Raises:
        NotBuiltin: it is none.
    """
    found = read(data)
    if type(found) is not tuple or len(found) != 4:
        raise NotBuiltin("it is no report of progress")
    number, message, current, maximum = found
    numbers = (int, float, type(None))
    if (
        type(number) is not int
        or type(message) not in (str, type(None))
        or type(current) not in numbers
        or type(maximum) not in numbers
    ):
        raise NotBuiltin("its parts are no report of progress")
    return found
