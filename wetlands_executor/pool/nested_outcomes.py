"""What becomes of tasks inside tasks: from the frame of one worker to the record for another.

Nothing of a value or an exception is unpickled in the host: the pool settles the Task of a child
with the bytes (``Passed``, ``PassedError``), and these go on to the worker of its parent. What is
large lies in blocks of the arguments, which go on as they are.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Any

from wetlands_executor import errors
from wetlands_executor.errors import ExecutionException, WetlandsExecutorError
from wetlands_executor.futures.future import Task
from wetlands_executor.futures.settling import settle
from wetlands_executor.pool.call import FAILED, Call, CallPhase, Outcome
from wetlands_executor.pool.settlement import Settlement
from wetlands_executor.scheduling import messages as st
from wetlands_executor.serialize import restricted
from wetlands_executor.serialize.results import TOO_LARGE
from wetlands_executor.sharedmem.results import LentResult, OutOfBandResult
from wetlands_executor.worker import wire


@dataclass(frozen=True, slots=True)
class Passed:
    """The result of a child, as its worker has pickled it: for its parent alone.

    Attributes:
        kind: of the result frame.
        data: the pickle, a ``LentResult``, or an ``OutOfBandResult`` where there was no room for
            blocks of the arguments.
    """

    kind: int
    data: Any


class PassedError(ExecutionException):
    """What a child has raised, as its worker has pickled it.

    Attributes:
        payload: for its parent.
    """

    payload: bytes | bytearray = b""


class ChildReceiver:
    """Takes what becomes of the calls of children. Threads: as ``Settlement``.

    Args:
        settlement: that of the pool that runs them.
    """

    __slots__ = ("_settlement",)

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement

    def on_outcome(self, call: Call, outcome: Outcome) -> None:
        """Settle a task with what its worker has sent, unread."""
        kind, data, _place = outcome
        if kind in (FAILED, wire.CANCELLED):
            self._settlement.on_outcome(call, outcome)
        elif kind == TOO_LARGE:
            size = f"the result of {call.name} has {int(data):,} bytes"
            settle(call.task, None, MemoryError(f"{size}, which do not fit into this process"))
        elif kind == wire.ERROR and call.phase is CallPhase.DECIDING:
            self._settlement.find_out(call, _error_of(data))
        elif kind == wire.ERROR:
            settle(call.task, None, _error_of(data))
        else:
            settle(call.task, Passed(kind, data), None)

    def on_lost(self, call: Call, report: st.DeathReport) -> None:
        """Fail a task whose worker has died."""
        self._settlement.on_lost(call, report)

    def on_cancelled(self, call: Call, reason: str | None) -> None:
        """Cancel a task."""
        self._settlement.on_cancelled(call, reason)


def _error_of(data: bytes | bytearray) -> PassedError:
    """Return an exception that says what a child has raised, and has it for its parent."""
    try:
        name, message, lines, *_ = restricted.read(data)
        text = f"{name}: {message}"
        error = PassedError(text, name, message, lines.splitlines())
    except (restricted.NotBuiltin, TypeError, ValueError, AttributeError):
        error = PassedError("the function raised an exception that is no description")
    error.payload = data
    return error


def error_of(error: BaseException) -> tuple[int, bytes | bytearray]:
    """Return the kind and the data with which a failure goes on to a worker."""
    if isinstance(error, PassedError):
        return wire.ERROR, error.payload
    return wire.FAILED, failure(error)


def failure(error: BaseException) -> bytes:
    """Return an exception for a worker: the names of its classes, its text, and its arguments.

    The arguments only of exceptions of this library, which it makes of builtin values.
    """
    names = tuple(kind.__name__ for kind in type(error).__mro__)
    args: Any = None
    if isinstance(error, WetlandsExecutorError) and type(error).__module__ == errors.__name__:
        reduced: Any = error.__reduce__()
        args = reduced[1]
    return pickle.dumps((names, str(error), args), 4)


def outcome_of(task: Task[Any], incarnation: int) -> tuple[Any, ...]:
    """Return the parts of the record that says what has become of a task. I/O thread.

    ``incarnation``: owner word of the worker that gets it, and the blocks.
    """
    if task.cancelled():
        return (bytes((wire.CANCELLED,)) + (task.error or "").encode("utf-8", "replace"),)
    error = task.exception(0)
    if error is not None:
        kind, data = error_of(error)
        return bytes((kind,)), data
    passed = task.result(0)
    if isinstance(passed.data, LentResult):
        # Order: the words name the worker before the record leaves.
        passed.data.blocks.send(incarnation)
        return bytes((wire.VALUE_IN_LENT,)), passed.data.payload
    if isinstance(passed.data, OutOfBandResult):
        parts = [passed.data.data, *passed.data.buffers]
        views = [memoryview(part).cast("B") for part in parts]
        head = struct.pack(f"<BI{len(views)}Q", wire.BUFFERS, len(views), *map(len, views))
        return head, *views
    return bytes((passed.kind,)), passed.data or b""
