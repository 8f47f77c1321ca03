"""Outcomes of tasks that a running function has submitted, as values and exceptions.

The bytes are those of the worker that has run the task, or the host's description of what has
failed there. Runs user code; any thread of a task. Owns no state.
"""

from __future__ import annotations

import struct
from concurrent.futures import CancelledError

from . import calls, wire
from .channel import describe

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Tuple


def value_of(kind: int, data: Any, name: str) -> Tuple[Any, Any]:
    """Return (value, None) or (None, exception). Runs user code."""
    try:
        if kind == wire.CANCELLED:
            text = str(bytes(data), "utf-8", "replace")
            return None, CancelledError(text) if text else CancelledError()
        if kind == wire.NONE:
            return None, None
        if kind == wire.ERROR:
            return None, _error_of(data)
        if kind == wire.FAILED:
            from .remote_errors import failure_of

            return None, failure_of(*calls.loads(data))
        if kind == wire.BUFFERS:
            return _with_buffers(data), None
        if kind == wire.VALUE_IN_LENT:
            return _with_blocks(*data), None
        return calls.loads_rich(data), None
    except Exception as error:  # noqa: BLE001 - unpickling is user code
        message = "the result of %s cannot be rebuilt in this worker: %s"
        failure = RuntimeError(message % (name, describe(error)))
        failure.__cause__ = error
        return None, failure


def _with_buffers(data: Any) -> Any:
    """Unpickle what came with large buffers behind it; they stay where they are."""
    (count,) = struct.unpack_from("<I", data)
    position = 4 + 8 * count
    parts = []
    for length in struct.unpack_from("<%dQ" % count, data, 4):
        parts.append(data[position : position + length])
        position += length
    return calls.loads_rich(parts[0], buffers=parts[1:])


def _with_blocks(data: Any, buffers: Any, in_block: bool) -> Any:
    """Unpickle what lies in blocks; its buffers stay there."""
    if not in_block:
        return calls.loads_rich(data, buffers)
    from .shm_streams import load

    return load(memoryview(data), lambda file: calls.loads_rich(None, buffers, file))


def _error_of(data: Any) -> BaseException:
    """Return the exception that the function has raised, or one that says what it was."""
    name, message, lines, whole, parts = calls.loads(data)
    error: Any = None
    for pickled, take in ((whole, None), (parts, _made_of)):
        if error is None and pickled is not None:
            try:
                found = calls.loads_rich(pickled)
                found = found if take is None else take(found)
                if isinstance(found, BaseException):
                    error = found
            except BaseException:  # noqa: BLE001
                continue  # user code; the text remains
    if error is None:
        error = RuntimeError("the function raised %s: %s" % (name, message))
    error.__cause__ = RemoteTraceback('\n"""\n%s"""' % lines)
    return error  # type: ignore[no-any-return]


def _made_of(parts: Any) -> BaseException:
    from . import raised

    return raised.made_of(parts)


class RemoteTraceback(Exception):  # noqa: N818 - as the standard library calls it
    """The traceback of a task in its worker, as the cause of its exception."""

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return self.tb

    def __reduce__(self) -> Any:
        return type(self), (self.tb,)
