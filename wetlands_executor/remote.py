"""Stand-ins for modules of the environment: what ``CondaEnvExecutor.import_module`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from wetlands_executor.serialize import references
from wetlands_executor.worker import scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wetlands_executor.futures.future import Task


class Submitter(Protocol):
    """The executor whose workers have the module."""

    @property
    def environment(self) -> Any:
        """The environment in which the workers run."""
        ...

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Schedule a call in a worker."""
        ...

    @property
    def map(self) -> Callable[..., Iterator[Any]]:
        """Schedules a call for each of the items of iterables."""
        ...


class RemoteModule:
    """A module of the environment, seen from here; nothing of it is imported in this process."""

    def __init__(self, executor: Submitter, where: str) -> None:
        self.__dict__.update(_executor=executor, _where=where, _known=None)

    def _describe(self) -> tuple[list[str], set[str]]:
        # A file may have been edited since it was looked at.
        definition = references.definition_of_module(self._where)
        known = self._known
        if known is None or known[0] != definition[:3]:
            names, callables = self._executor.submit(scripts.describe, definition).result()
            known = self.__dict__["_known"] = (definition[:3], names, set(callables))
        return known[1], known[2]

    def __dir__(self) -> list[str]:
        return self._describe()[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        names, callables = self._describe()
        if name not in names:
            raise AttributeError(
                f"module {self._where!r} has no attribute {name!r} in "
                f"{self._executor.environment.prefix}"
            )
        if name in callables:
            return RemoteFunction(self._executor, self._where, name)
        return self._executor.submit(
            scripts.get_attribute, references.definition_of_module(self._where), name
        ).result()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"cannot set {name!r}: the module lives in the workers, of which there may be several"
        )

    def __repr__(self) -> str:
        return f"<remote module {self._where!r} in {self._executor.environment.prefix}>"


class RemoteFunction:
    """A function (or class) of a remote module: call it, submit it, map it."""

    def __init__(self, executor: Submitter, where: str, name: str) -> None:
        self._executor = executor
        self._target = f"{where}:{name}"
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it in a worker and wait for the result."""
        return self.submit(*args, **kwargs).result()

    def submit(self, *args: Any, **kwargs: Any) -> Task[Any]:
        """Schedule it; see ``CondaEnvExecutor.submit``."""
        return self._executor.submit(self._target, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], **options: Any) -> Iterator[Any]:
        """Map it; see ``CondaEnvExecutor.map``."""
        return self._executor.map(self._target, *iterables, **options)

    def __repr__(self) -> str:
        return f"<remote function {self._target!r} in {self._executor.environment.prefix}>"
