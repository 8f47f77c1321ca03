"""What a function that runs in this process gets as its ``task``, and from ``current_task()``.

Owns the context variable that says which call the code of a context works for. Entered by any
thread of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from wetlands_executor.worker import running
from wetlands_executor.worker.current_task import RemoteTaskHandle

if TYPE_CHECKING:

    class Run(Protocol):
        """One run of a call, as its handle sees it."""

        @property
        def live(self) -> bool:
            """True until its outcome is decided."""
            ...

        @property
        def wants_stop(self) -> bool:
            """True if the function is to stop; also after its task was given up."""
            ...

        def on_stop(self, callback: Callable[[], object]) -> None:
            """Call ``callback`` when the function is to stop."""
            ...


class _Ended:
    """A run that is over."""

    live = wants_stop = False

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Never call it."""


class CallHandle(RemoteTaskHandle):
    """The handle of a call that runs in this process.

    Unlike that of a worker it can call a function when the task is cancelled: a thread that
    blocks cannot look at ``cancel_requested``, and cannot be killed.
    """

    def __init__(self, number: int, run: Run) -> None:
        super().__init__(number, number)
        self._run = run

    def end(self) -> None:
        """Be inert from now on, and let go of the call."""
        self._run = _Ended()

    def _live(self) -> Any:
        return self._run if self._run.live else None

    @property
    def cancel_requested(self) -> bool:
        """True once the task was asked to stop, or was ended while its function goes on."""
        return self._run.wants_stop

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` once when the task is cancelled, or its time is over.

        At once if that has happened. It runs on the thread that cancels, and should wake the
        function: close a socket, end a process.
        """
        self._run.on_stop(callback)


#: The handle of the call that the code of this context works for.
CURRENT: ContextVar[CallHandle | None] = ContextVar("wetlands_executor_call", default=None)

running.serve_here(CURRENT.get)
