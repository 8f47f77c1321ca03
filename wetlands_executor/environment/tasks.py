"""Makings as tasks: what ``Environment.create_task`` returns, seen from below.

A Task belongs to a layer above this one. That layer says once how a Task of a creation is started
(``provide``); here it is known by a Protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

    from wetlands_executor.environment.create_request import CreateRequest
    from wetlands_executor.environment.store import Record

T_co = TypeVar("T_co", covariant=True)

_start: Callable[[CreateRequest, Callable[[Record], Any]], Any] | None = None


class CreationTask(Protocol[T_co]):
    """The Task of a creation: a ``wetlands_executor.Task``, whose documentation holds.

    ``message``, ``current`` and ``maximum`` are those of ``CreationProgress``; the output
    ``"phase"`` is its phase. ``cancel`` stops what is under way.
    """

    @property
    def id(self) -> str:
        """An identifier, unique in this process."""
        ...

    @property
    def name(self) -> str:
        """What is made."""
        ...

    @property
    def status(self) -> Any:
        """The state, a ``TaskStatus``."""
        ...

    @property
    def error(self) -> str | None:
        """What went wrong."""
        ...

    @property
    def message(self) -> str | None:
        """What is being done."""
        ...

    @property
    def current(self) -> float | None:
        """How far that is."""
        ...

    @property
    def maximum(self) -> float | None:
        """What ``current`` grows to."""
        ...

    @property
    def progress(self) -> float | None:
        """``current / maximum``."""
        ...

    @property
    def outputs(self) -> dict[Any, Any]:
        """``{"phase": ..., "backend": ...}``."""
        ...

    @property
    def cancel_requested(self) -> bool:
        """True once ``cancel`` was called."""
        ...

    def result(self, timeout: float | None = None) -> T_co:
        """Return the environment; wait for it if need be."""
        ...

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return why it could not be made; wait for the end if need be."""
        ...

    def done(self) -> bool:
        """Return True if it has ended."""
        ...

    def running(self) -> bool:
        """Return True if it is being made."""
        ...

    def cancelled(self) -> bool:
        """Return True if it was cancelled."""
        ...

    def cancel(self) -> bool:
        """Stop the creation."""
        ...

    def wait_for(self, timeout: float | None = None) -> Self:
        """Wait until it has ended, however."""
        ...

    def listen(self, callback: Callable[[Any], object], dispatch: Any = None) -> Self:
        """Tell ``callback`` what happens."""
        ...

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call ``fn`` at the end."""
        ...

    def events(self) -> AsyncIterator[Any]:
        """Yield what happens."""
        ...

    def __await__(self) -> Generator[Any, None, T_co]:
        """Wait in an event loop."""
        ...


def provide(start: Callable[[CreateRequest, Callable[[Record], Any]], Any]) -> None:
    """Say how the Task of a creation is started."""
    global _start
    _start = start


def start_task(request: CreateRequest, of_record: Callable[[Record], Any]) -> Any:
    """Start the creation of an environment as a Task.

    Args:
        request: what is wanted.
        of_record: turns its record into the result of the Task.
    """
    assert _start is not None
    return _start(request, of_record)
