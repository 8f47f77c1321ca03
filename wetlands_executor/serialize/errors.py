"""Failures in a worker, and failures to read what it has sent, as exceptions of this process."""

from __future__ import annotations

import builtins
import io
import logging
import pickle
from collections.abc import Callable
from concurrent.futures.process import _RemoteTraceback
from functools import partial
from typing import Any

from wetlands_executor.errors import ExecutionException, ScriptExit, describe, mark_made
from wetlands_executor.serialize import restricted, versions
from wetlands_executor.serialize.unpickler import decode
from wetlands_executor.worker import raised

LOGGER = logging.getLogger("concurrent.futures")


class _BuiltinErrors(pickle.Unpickler):
    """Knows the exceptions of ``builtins`` and nothing else: runs no user code."""

    def find_class(self, module: str, name: str) -> Any:
        found = getattr(builtins, name, None) if module == "builtins" else None
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is not looked up here")


def decode_error(
    payload: bytes | bytearray, *, trusted_only: bool = False, foreign: bool = False
) -> BaseException:
    """Rebuild a remote exception.

    The original type where the host can, else ``ExecutionException``. Raises nothing.

    Args:
        payload: what ``dumps_error`` of the worker made.
        trusted_only: rebuild builtin exceptions only, so that no user code runs (for the I/O
            thread).
        foreign: as for ``decode``.
    """
    try:
        name, message, lines, whole, parts = restricted.read(payload)
        described = type(name) is type(message) is type(lines) is str
    except (restricted.NotBuiltin, TypeError, ValueError) as failure:
        return mark_made(
            ExecutionException(
                f"the function raised an exception, and what the "
                f"worker has sent of it cannot be read ({failure})"
            )
        )
    if not described:
        return mark_made(
            ExecutionException(
                "the function raised an exception, and what the "
                "worker has sent of it is no description"
            )
        )
    added = ""
    error = _rebuild(
        message, whole, parts, _load_builtin if trusted_only else partial(decode, foreign=foreign)
    )
    if error is None:
        error = mark_made(
            ExecutionException(
                f"the function raised {name}: {message} (an exception that cannot be rebuilt in "
                f"this process: its traceback is in .traceback. "
                "To have it here, raise one whose class both sides can import, with arguments "
                "that can be pickled)",
                name,
                message,
                lines.splitlines(),
            )
        )
    if isinstance(error, ScriptExit):
        error.traceback = lines.splitlines()
    try:
        error, added = versions.explain_argument(error)
    except BaseException:  # its __str__ and its attributes are the user's code
        LOGGER.debug("wetlands_executor: nothing could be added to %s", name, exc_info=True)
    make_cause: Any = _RemoteTraceback
    _FIELDS["__cause__"].__set__(error, make_cause(f'\n"""\n{lines}{added}"""'))
    return error


def _load_builtin(data: bytes) -> Any:
    return _BuiltinErrors(io.BytesIO(data)).load()


#: The fields of every exception, past a ``__setattr__`` or a property of its class that refuses.
_FIELDS: Any = vars(BaseException)


def _rebuild(
    message: str, whole: Any, parts: Any, load: Callable[[bytes], Any]
) -> BaseException | None:
    """Return the exception.

    Of the two ways to it the one that keeps its message, if only one does.
    """
    first = None
    if whole is not None:
        try:
            error = load(whole)
            if isinstance(error, BaseException):
                if parts is None or _says(error, message):
                    return error
                first = error
        except BaseException:  # noqa: BLE001, S110
            # user code: an __init__ with another signature, a module that the host lacks
            pass
    if parts is not None:
        try:
            error = raised.made_of(load(parts))
        except BaseException:  # noqa: BLE001, S110 - as above
            pass
        else:
            if first is None or _says(error, message):
                return error
    return first


def _says(error: BaseException, message: str) -> bool:
    try:
        return str(error) == message
    except BaseException:  # noqa: BLE001 - its __str__ is the user's code
        return False


def undecodable(
    error: BaseException, what: str, prefix: str = "", python: str = ""
) -> BaseException:
    """Return the exception for a result that the host cannot unpickle. Raises nothing.

    Args:
        error: what unpickling raised.
        what: name of the task.
        prefix: of the environment that sent it, if it is known.
        python: version of that environment's Python, if it is known.
    """
    try:
        error = versions.explain_result(error, what, prefix, python)
    except BaseException:  # its __str__ and its attributes are the user's code
        LOGGER.debug(
            "wetlands_executor: nothing could be added to what unpickling has raised", exc_info=True
        )
    # that may be of this thread's user
    if _FIELDS["__cause__"].__get__(error) is None and not isinstance(error, KeyboardInterrupt):
        # The exception is the one of the user's class; what it is about stands in the traceback.
        make_cause: Any = _RemoteTraceback
        told = f"The result of {what} cannot be rebuilt in this process: {describe(error, 500)}"
        _FIELDS["__cause__"].__set__(
            error, make_cause(f'\n"""\n{told}. {versions.RESULT_REMEDY}\n"""')
        )
    return error
