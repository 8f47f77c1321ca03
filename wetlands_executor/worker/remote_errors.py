"""The library's public exceptions, in a worker: what tasks inside tasks fail with.

They have the names, bases and attributes of those in ``wetlands_executor.errors``, and become those
in the host, and wherever that module is in use. A worker whose environment does not have the
library finds them under ``wetlands_executor`` (``imports.LastResort``). Owns no state.

Imported with the first failure: ``concurrent.futures.process`` takes as long as half of a start.
"""

from __future__ import annotations

import sys
from concurrent.futures.process import BrokenProcessPool

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, ClassVar, Dict, Sequence, Tuple


def made(name: str, args: Tuple[Any, ...]) -> BaseException:
    """Return the exception of this name, of the host's class where that is in use.

    Pickle streams call it.
    """
    theirs = sys.modules.get("wetlands_executor.errors")
    kind = getattr(theirs, name, None) or BY_NAME[name]
    error: BaseException = kind(*args)
    return error


class WetlandsExecutorError(Exception):
    """Base of the exceptions that this library defines.

    Attributes:
        fields: names of what its arguments behind the message are kept as, with their defaults.
    """

    fields: ClassVar[Tuple[Tuple[str, Any], ...]] = ()

    def __init__(self, message: str = "", *values: Any) -> None:
        super().__init__(message)
        given = (*values, *(default for _, default in self.fields[len(values) :]))
        for (name, _), value in zip(self.fields, given):
            setattr(self, name, value)

    def __reduce__(self) -> Any:
        values = [getattr(self, name) for name, _ in self.fields]
        return made, (type(self).__name__, (str(self), *values))


class WorkerStartError(WetlandsExecutorError, BrokenProcessPool):
    """A worker process could not be started."""


class WorkerCrashed(WetlandsExecutorError, BrokenProcessPool):  # noqa: N818 - the public name
    """The worker process that ran a task died."""

    fields = (("exit_code", None), ("signal_name", None), ("stderr", ""))


class WorkerUnresponsive(WetlandsExecutorError, BrokenProcessPool):  # noqa: N818
    """A worker gave no sign of life."""

    fields = (("stacks", ""),)


class TaskTimeoutError(WetlandsExecutorError, TimeoutError):
    """The function of a task ran longer than its time limit."""

    fields = (("stacks", ""),)


class DependencyFailed(WetlandsExecutorError, RuntimeError):  # noqa: N818 - the public name
    """A task that was an argument of another one failed; its exception is the cause."""


class ExecutionException(WetlandsExecutorError):  # noqa: N818 - the public name
    """The function raised an exception that cannot be rebuilt."""

    fields = (("type_name", ""), ("exception", ""), ("traceback", ()))


#: Those that a task can fail with, by name.
BY_NAME: Dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        WetlandsExecutorError,
        WorkerStartError,
        WorkerCrashed,
        WorkerUnresponsive,
        TaskTimeoutError,
        DependencyFailed,
        ExecutionException,
    )
}


def failure_of(names: Sequence[str], message: str, args: Any = None) -> BaseException:
    """Return an exception for what has failed in the host.

    Args:
        names: of its class and the bases of that.
        message: its text.
        args: what it is made of, if it is one of the library's.
    """
    import builtins

    for name in names:
        if name in BY_NAME:
            return made(name, (message,) if args is None or name != names[0] else args)
        if name == "BrokenProcessPool":
            return BrokenProcessPool(message)
        found = getattr(builtins, name, None)
        if isinstance(found, type) and issubclass(found, Exception) and found is not OSError:
            try:
                return found(message)
            except TypeError:
                continue  # such as UnicodeDecodeError, which wants more
    return RuntimeError(message)
