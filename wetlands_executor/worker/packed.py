"""Calls and outcomes as opaque bytes, for programs between the caller and the worker.

A program on another machine passes them on (``carried/``): it needs neither the packages that the
arguments are of, nor this Python's version, nor the source of the function. ``pack`` and ``unpack``
run where the caller is, ``run`` in the worker. Runs user code; any thread. Owns no state.
"""

from __future__ import annotations

import importlib.util
import io
import sys

from . import calls

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Sequence, Tuple

#: First byte of an outcome.
VALUE, ERROR = b"v", b"e"


class Place:
    """Stands in the arguments of a call for the result of another one.

    Args:
        number: which of the outcomes that come with the call.
    """

    def __init__(self, number: int) -> None:
        self.number = number


def signature() -> Tuple[str, str, bytes]:
    """Return version, implementation and magic number of this interpreter."""
    return sys.version.split()[0], sys.implementation.name, importlib.util.MAGIC_NUMBER


def version_for(theirs: Sequence[Any]) -> str:
    """Return the version of an interpreter if code has to travel there as source; else "".

    Args:
        theirs: its ``signature``.
    """
    return "" if tuple(theirs[1:]) == signature()[1:] else str(theirs[0])


def pack(
    call: Tuple[Any, Any, Any], theirs: Sequence[Any], by_name: Callable[[Any], bool]
) -> bytes:
    """Pickle a call.

    Args:
        call: what is called, a callable or a definition (``imports.resolve``); positional and
            keyword arguments, a ``Place`` among them for the result of another call.
        theirs: ``signature`` of the interpreter that runs it.
        by_name: True of a function or class that can be imported there.
    """
    return calls.dumps((signature(), _dumped(call, version_for(theirs), by_name)), 5)


def _dumped(value: Any, theirs: str, by_name: Optional[Callable[[Any], bool]] = None) -> bytes:
    from .pickler import dump_by_value

    calls.learn_reducers()
    with io.BytesIO() as stream:
        dump_by_value(value, theirs, stream, by_name=by_name)
        return stream.getvalue()


def run(call: bytes, outcomes: Sequence[bytes] = ()) -> bytes:
    """Run a call in a worker; return its outcome.

    Args:
        call: of ``pack``.
        outcomes: of the calls that it depends on, each with a value.
    """
    caller, data = calls.loads(call)
    theirs = version_for(caller)
    try:
        value = _called(data, outcomes)
        return VALUE + _result(value, theirs)
    except (KeyboardInterrupt, SystemExit):
        raise  # the interrupt of a cancellation is the runner's business
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
        return ERROR + calls.dumps_error(error, not theirs)


def _called(data: bytes, outcomes: Sequence[bytes]) -> Any:
    """Call the function as a task would be called: with its handle, and to the end if async."""
    from . import current_task, imports, injection
    from .coroutines import COROUTINE, run_coroutine

    function, args, kwargs = calls.loads_rich(data)
    if isinstance(function, tuple):
        function = imports.resolve(function)

    def filled(value: Any) -> Any:
        return unpack(outcomes[value.number], "")[0] if type(value) is Place else value

    args = tuple(map(filled, args))
    kwargs = {name: filled(value) for name, value in kwargs.items()}
    position = injection.position_of_task(function)
    if position is not None:
        handle = current_task.current_task()
        args, kwargs = injection.with_handle(position, args, kwargs, handle)
    value = function(*args, **(kwargs or {}))
    return run_coroutine(value) if type(value) is COROUTINE else value


def _result(value: Any, theirs: str) -> bytes:
    if not theirs:
        return calls.dumps_result(value, by_value=True)
    return _dumped(value, theirs)


def each(function: Any, items: Sequence[Sequence[Any]], go_on: bool) -> Any:
    """Call a function with each of several lists of arguments; for ``map`` in chunks.

    Args:
        function: a callable or a definition.
        items: the arguments.
        go_on: after a call that has raised.

    Returns:
        (True, result) or (False, exception) of each call.
    """
    if isinstance(function, tuple):
        from . import imports

        function = imports.resolve(function)
    found = []
    for args in items:
        try:
            found.append((True, function(*args)))
        except Exception as error:  # noqa: BLE001 - it is raised where the map is iterated
            found.append((False, error))
            if not go_on:
                break
    return found


def has_failed(outcome: Any) -> bool:
    """Return True for the outcome of a call that has raised."""
    return bytes(outcome[:1]) == ERROR


def unpack(outcome: Any, name: str) -> Tuple[Any, Any]:
    """Return (value, None) or (None, exception).

    Args:
        outcome: of ``run``.
        name: of the task, for messages.
    """
    from . import remote_outcomes, wire

    kind = wire.ERROR if has_failed(outcome) else wire.VALUE
    return remote_outcomes.value_of(kind, memoryview(outcome)[1:], name)
