"""Every public exception of the library, and nothing else.

Owns the vocabulary of failure: what happened, who is at fault, what to do next. Imports only the
standard library, so that any module may raise these. Classes that the standard library's users
already catch keep that base: whatever breaks a worker is a ``BrokenProcessPool``, whatever is about
time is a ``TimeoutError``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import TimeoutError as _FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from typing import Any, TypeVar

__all__ = [
    "ActivationError",
    "DependencyFailed",
    "EnvironmentCreationError",
    "EnvironmentInUseError",
    "EnvironmentNotFoundError",
    "ExecutionException",
    "ScriptExit",
    "SpecError",
    "TaskTimeoutError",
    "TasksFailed",
    "WetlandsExecutorError",
    "WorkerCrashed",
    "WorkerStartError",
    "WorkerUnresponsive",
]


if issubclass(_FutureTimeoutError, TimeoutError):
    WaitTimeout = TimeoutError
else:  # Python 3.10: two classes, and users catch either
    # named like what it stands for
    class WaitTimeout(_FutureTimeoutError, TimeoutError):  # type: ignore[no-redef]  # noqa: N818
        """Waiting took too long."""


class WetlandsExecutorError(Exception):
    """Base of the exceptions that this library defines."""


class EnvironmentNotFoundError(WetlandsExecutorError, LookupError):
    """No environment, or more than one, answers to what was asked for.

    The message lists what was searched.
    """


class SpecError(WetlandsExecutorError, ValueError):
    """The description of an environment cannot be understood.

    Attributes:
        reason: what is wrong.
        remedy: what to do about it; empty if the reason says it.
        path: of the file that says so; None if none does.
        line: number of the line in it, from 1; None if it concerns no single line.
    """

    def __init__(
        self, reason: str, remedy: str = "", path: str | None = None, line: int | None = None
    ) -> None:
        place = f"{path}: " if line is None else f"{path or 'line'}:{line}: "
        end = "" if not remedy or reason.endswith((".", "?", "!", "\n")) else "."
        super().__init__(
            f"{place if path or line else ''}{reason}{end}{' ' if remedy else ''}{remedy}"
        )
        self.reason = reason
        self.remedy = remedy
        self.path = path
        self.line = line

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels on to another process."""
        return type(self), (self.reason, self.remedy, self.path, self.line)


class EnvironmentCreationError(WetlandsExecutorError, RuntimeError):
    """An environment could not be made.

    The message has the reason, the command, the package manager's own text, and where the log is.

    Attributes:
        command: the command that failed; empty if none has run.
        output: the last lines that it wrote.
        log: path of the file with all output; None if there is none.
        backend: who was to make it; None if that was not decided.
        phase: what was being done: ``"solving"``, ``"fetching"``, ``"installing"`` or
            ``"checking"``; None before.
    """

    def __init__(
        self,
        message: str,
        command: tuple[str, ...] = (),
        output: str = "",
        log: str | None = None,
        backend: str | None = None,
        phase: str | None = None,
    ) -> None:
        super().__init__(message)
        self.command = tuple(command)
        self.output = output
        self.log = log
        self.backend = backend
        self.phase = phase

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels on to another process."""
        return (
            type(self),
            (self.args[0], self.command, self.output, self.log, self.backend, self.phase),
        )


class EnvironmentInUseError(WetlandsExecutorError, RuntimeError):
    """An environment cannot be removed: a process or an executor uses it."""


class ActivationError(WetlandsExecutorError, RuntimeError):
    """The activation scripts of an environment failed.

    The message names the script's output and exit code.
    """


class WorkerStartError(WetlandsExecutorError, BrokenProcessPool):
    """A worker process of the environment could not be started.

    The message holds what it wrote to stderr.
    """


# the public name, see the API
class WorkerCrashed(WetlandsExecutorError, BrokenProcessPool):  # noqa: N818
    """The worker process that ran this task died.

    Attributes:
        exit_code: what the process returned, or minus the number of the signal that ended it (as in
            ``subprocess``); None if the status is lost, for example because this program ignores
            SIGCHLD. That of the wrapper, if the interpreter is one.
        signal_name: for example ``"SIGKILL"``; None if it was not ended by a signal.
        stderr: the last lines that the process wrote to its standard error (faulthandler's stack
            included), newest last.
    """

    def __init__(
        self,
        message: str,
        exit_code: int | None = None,
        signal_name: str | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal_name = signal_name
        self.stderr = stderr

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels on to another process."""
        return type(self), (self.args[0], self.exit_code, self.signal_name, self.stderr)


class ExecutionException(WetlandsExecutorError):  # noqa: N818 - the public name, see the API
    """The function raised an exception that cannot be rebuilt in this process.

    Attributes:
        type_name: qualified name of the original exception's class, for example
            ``"cellpose.io.ModelError"``.
        exception: the original message.
        traceback: the remote traceback, one line each.
    """

    def __init__(
        self,
        message: str,
        type_name: str = "",
        exception: str = "",
        traceback: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.exception = exception
        self.traceback = list(traceback or ())

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels on to another process."""
        return type(self), (self.args[0], self.type_name, self.exception, self.traceback)


class ScriptExit(ExecutionException):
    """A script ended with an exit code other than 0; 0 and None complete its task.

    Attributes:
        code: the exit code; 1 if the script called ``sys.exit`` with a text, which is the last line
            of ``stderr`` then.
        stderr: the last lines that the script wrote to ``sys.stderr``, newest last.
    """

    def __init__(
        self, message: str, code: int = 1, stderr: str = "", traceback: list[str] | None = None
    ) -> None:
        super().__init__(message, "SystemExit", str(code), traceback)
        self.code = code
        self.stderr = stderr

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels on to another process."""
        return type(self), (self.args[0], self.code, self.stderr, self.traceback)


# the public name, see the API
class WorkerUnresponsive(WetlandsExecutorError, BrokenProcessPool):  # noqa: N818
    """A busy worker gave no sign of life for ``worker_timeout`` seconds and was ended.

    Attributes:
        stacks: the Python stacks of the worker at that moment, as faulthandler prints them; empty
            if it could not print them.
    """

    def __init__(self, message: str, stacks: str = "") -> None:
        super().__init__(message)
        self.stacks = stacks

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels on to another process."""
        return type(self), (self.args[0], self.stacks)


class TaskTimeoutError(WetlandsExecutorError, TimeoutError):
    """The function ran longer than its time limit, and its worker was ended.

    Attributes:
        stacks: the Python stacks of the worker at that moment, as faulthandler prints them; empty
            if it could not print them.
    """

    def __init__(self, message: str, stacks: str = "") -> None:
        super().__init__(message)
        self.stacks = stacks

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when the error travels on to another process."""
        return type(self), (self.args[0], self.stacks)


# the public name, see the API
class DependencyFailed(WetlandsExecutorError, RuntimeError):  # noqa: N818
    """A task that was an argument of this one failed; its exception is the cause."""


class TasksFailed(WetlandsExecutorError, RuntimeError):  # noqa: N818 - the public name, see the API
    """Some tasks have failed; the message lists their names.

    Attributes:
        names: of the failed tasks.
    """

    def __init__(self, message: str, names: list[str] | None = None) -> None:
        super().__init__(message)
        self.names = list(names or ())

    @classmethod
    def of(cls, failed: Sequence[Any]) -> TasksFailed:
        """Return the error about these tasks; its cause is what the first one has failed with."""
        names = [task.name for task in failed]
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        what = f"{len(names)} task{'s' if len(names) > 1 else ''} failed: {shown}"
        return because(cls(what, names), failed[0].exception())


def describe(error: BaseException, most: int | None = None) -> str:
    """Return the type and the message of an exception; at most ``most`` characters of the message.

    Raises nothing but a KeyboardInterrupt on the main thread, which is the user's.

    The message is what the exception's own class makes of it: user code, which may raise or return
    a text of a class of its own.
    """
    try:
        text = str.__str__(str(error))
    except (
        BaseException
    ) as failure:  # __str__ is the user's code, and SystemExit in it ends nothing
        if (
            isinstance(failure, KeyboardInterrupt)
            and threading.current_thread() is threading.main_thread()
        ):
            raise
        text = f"<its __str__ raised {type(failure).__name__}>"
    if most is not None and len(text) > most:
        text = f"{text[:most]}... ({len(text):,} characters)"
    return f"{type(error).__name__}: {text}"


#: What stands in messages before what the worker has printed.
OF_STDERR = "; the last lines of its stderr:\n"
OF_STACKS = "; its Python stacks at that moment:\n"
#: Attribute of an exception that this library has made in the place of the function's own.
_MADE = "_wetlands_made"


def mark_made(error: ExecutionException) -> ExecutionException:
    """Mark an exception as one to whose message the call may be added, and return it."""
    vars(error)[_MADE] = True
    return error


def wants_call(error: BaseException) -> bool:
    """Return True for a failure of one call, whose text is to name it."""
    cause = _CAUSE.__get__(error)
    return (
        type(error) in _OURS
        or type(cause) is _RemoteTraceback
        or (type(error) is MemoryError and cause is None)
    )


def with_call(error: BaseException, what: str) -> BaseException:
    """Return the exception of a failed task, which says what was called with which arguments.

    An exception that the function has raised keeps its type and its message: there the text is the
    first line of the traceback in the worker, which is its cause. One that this library has made is
    copied with a longer message, because several tasks may fail with the same one.

    Args:
        error: what the task has failed with.
        what: name and arguments, ``measure('scan_0003.tif', 4)``.
    """
    kind = type(error)
    cause = _CAUSE.__get__(error)
    if (
        # With such a cause it is that of a task inside the function, which has let it through.
        (kind in _OURS and type(cause) is not _RemoteTraceback)
        or (kind is MemoryError and cause is None)
        or (isinstance(error, ExecutionException) and vars(error).get(_MADE))
    ):
        reduced: Any = error.__reduce__()
        make, arguments = reduced
        message = str(arguments[0]) if arguments else "there is not enough memory"
        at = min(
            (found for mark in (OF_STDERR, OF_STACKS) if (found := message.find(mark)) >= 0),
            default=len(message),
        )
        copy: BaseException = make(
            f"{message[:at]}; the call was {what}{message[at:]}", *arguments[1:]
        )
        _CAUSE.__set__(copy, cause)
        error = copy
    if type(cause) is _RemoteTraceback and cause.tb.startswith(_OPENING) and CALLED not in cause.tb:
        cause.tb = f"{_OPENING}{CALLED}{what}\n{cause.tb[len(_OPENING) :]}"
    return error


Error = TypeVar("Error", bound=BaseException)


def because(error: Error, cause: BaseException | None) -> Error:
    """Return an error with what it comes from, as ``raise error from cause`` would leave it."""
    error.__cause__ = cause
    return error


_OURS = (WorkerCrashed, WorkerUnresponsive, TaskTimeoutError)
_CAUSE: Any = vars(BaseException)["__cause__"]
_OPENING = '\n"""\n'
#: How the line begins that names the call in a traceback.
CALLED = "The call was "
