"""From an outcome to its value or its exception.

The one place that distinguishes the kinds of result frames.

``value_at_once`` may be called on any thread; ``read_outcome`` runs user code (imports,
``__setstate__``) and is for threads on which that may run. Owns no state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wetlands_executor.serialize.errors import decode_error, undecodable
from wetlands_executor.serialize.restricted import trivial_value
from wetlands_executor.serialize.unpickler import decode, decode_arrays
from wetlands_executor.worker import wire

#: Not on the wire, which has no kind below 0: a result that does not fit into this process. Its
#: data are the size in bytes, as digits.
TOO_LARGE = -1

_NOTHING = (None,)


def value_at_once(kind: int, data: Any) -> tuple[Any] | None:
    """Return the value of an outcome, in a tuple, if it can be read here; else None.

    Reading must be quick and run no user code. The one rule for that. ``Inbound._take_each`` asks
    ``trivial_value`` itself. Two places where each call may pass have the first lines of that in
    place, because a function would be entered for each: ``DirectReceive.wait`` and
    ``MapJob.results``. What they cannot read there comes here, or to ``read_outcome``.

    Args:
        kind: of the result frame.
        data: its payload: bytes, or an ``OutOfBandResult``.
    """
    if kind == wire.NONE:
        return _NOTHING
    if kind == wire.VALUE:
        if (found := trivial_value(data)) is not None:
            return found
    elif kind != wire.VALUE_IN_BLOCKS:
        return None
    return decode_arrays(data)


def read_outcome(
    kind: int, data: Any, foreign: bool, sender: tuple[str, str], what: Callable[..., str], *of: Any
) -> tuple[Any, BaseException | None]:
    """Return (value, None), or (None, exception). Runs user code; raises nothing.

    Args:
        kind: of the result frame, or ``TOO_LARGE``; not ``CANCELLED``.
        data: its payload.
        foreign: the worker's bytecode is not ours, and is refused.
        sender: prefix of the worker's environment and version of its Python; empty if they are not
            known.
        what: ``what(*of)`` is the name of the call; asked for in messages only.
        *of: its arguments.
    """
    try:
        if kind == wire.NONE:
            return None, None
        if kind == wire.ERROR:
            return None, decode_error(data, foreign=foreign)
        if kind == TOO_LARGE:
            return None, MemoryError(
                f"the result of {what(*of)} has {int(data):,} bytes, which "
                f"do not fit into this process"
            )
        return decode(data, foreign), None
    except BaseException as failure:  # noqa: BLE001
        # unpickling is user code: SystemExit too is the failure of this call alone
        return None, undecodable(failure, what(*of), *sender)
