"""How an executor ends: by ``shutdown``, at the end of a ``with`` block, or because it was dropped.

Any thread, and event loops.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Protocol

from wetlands_executor import seconds as seconds_of
from wetlands_executor.futures.aio import post_to_loop, wake_waiter

if TYPE_CHECKING:
    from collections.abc import Callable


class Reason(Protocol):
    """Why an executor was ended."""

    @property
    def reason(self) -> str | None:
        """Why what has not started is cancelled; None if it is not."""
        ...


class Lifecycle(Protocol):
    """How what runs the calls ends; see ``pool/lifecycle.py``."""

    def shutdown(self, *, cancel_pending: bool = False) -> None:
        """Accept nothing more and end when everything is done. Does not wait."""
        ...

    def wind_down(self, reason: str) -> None:
        """End soon. Does not wait."""
        ...

    def wind_down_later(self, seconds: float, reason: str) -> None:
        """Call ``wind_down`` after ``seconds``, unless everything has ended by then."""
        ...

    def terminate(self, *, kill: bool, why: str) -> None:
        """End what runs now."""
        ...

    def when_finished(self, job: Callable[[], object]) -> None:
        """Call ``job`` when everything has ended."""
        ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended."""
        ...


class Ending:
    """The end of one executor.

    Invariant: the finalizer goes as soon as the end was asked for. The registry of finalizers keeps
    the pool, and with it failed tasks, their tracebacks and all that those look at.

    Args:
        lifecycle: how its pool ends.
        closing: why, once that was said.
        owner: when this object is dropped, what was submitted is finished, and the pool ends, as in
            the standard library.
    """

    def __init__(self, lifecycle: Lifecycle, closing: Reason, owner: object) -> None:
        self._lifecycle = lifecycle
        self._closing = closing
        self._finalizer = weakref.finalize(owner, lifecycle.shutdown)
        self._finalizer.atexit = False

    def shutdown(self, wait: bool, cancel_futures: bool, timeout: float | None) -> None:
        """Accept nothing more; see ``CondaEnvExecutor.shutdown``."""
        timeout = seconds_of.wait("timeout", timeout)
        self._lifecycle.shutdown(cancel_pending=cancel_futures)
        if timeout is not None:
            self._lifecycle.wind_down_later(
                timeout, f"the executor was shut down, and its timeout of {timeout:g} s was over"
            )
        self._finalizer.detach()
        if wait:
            self._lifecycle.join()

    def interrupt(self, why: type[BaseException]) -> None:
        """Ask what runs to stop, interrupt it after 5 s, kill it after 5 more; wait.

        A second Ctrl-C kills at once.
        """
        try:
            self._lifecycle.wind_down(f"the executor was shut down by {why.__name__}")
            self._finalizer.detach()
            self._lifecycle.join()
        except KeyboardInterrupt:
            self._lifecycle.terminate(kill=True, why="by a second KeyboardInterrupt")
            self._lifecycle.join()
            raise

    def leave(
        self, exc_type: type[BaseException] | None, shutdown: Callable[..., object]
    ) -> None:
        """Leave a ``with`` block, which has raised an exception of this type, or None.

        Args:
            exc_type: the type.
            shutdown: the method of the executor, which a subclass may have overridden.
        """
        if exc_type is not None and issubclass(exc_type, (KeyboardInterrupt, SystemExit)):
            self.interrupt(exc_type)
            return
        try:
            shutdown(wait=True)
        except (KeyboardInterrupt, SystemExit) as error:
            self.interrupt(type(error))
            raise

    async def leave_async(self, exc_type: type[BaseException] | None) -> None:
        """Leave an ``async with`` block, which has raised an exception of this type, or None.

        Raises:
            asyncio.CancelledError: the asyncio task was cancelled meanwhile.
        """
        import asyncio

        lifecycle = self._lifecycle
        if exc_type is not None and (
            issubclass(exc_type, (KeyboardInterrupt, SystemExit)) or _is_cancellation(exc_type)
        ):
            lifecycle.wind_down(f"the executor was shut down by {exc_type.__name__}")
        else:
            lifecycle.shutdown()
        self._finalizer.detach()
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        lifecycle.when_finished(partial(post_to_loop, loop, wake_waiter, ended))
        cancelled = 0
        while not ended.done():
            try:
                await asyncio.wait((ended,))
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 1 and self._closing.reason is None:
                    lifecycle.wind_down("the executor was shut down by CancelledError")
                else:
                    lifecycle.terminate(kill=True, why="by a second cancellation")
        if cancelled:
            raise asyncio.CancelledError


def _is_cancellation(kind: type[BaseException]) -> bool:
    """Return True if the running asyncio task was cancelled.

    An awaited Task that was cancelled raises the same exception.
    """
    import asyncio

    if not issubclass(kind, asyncio.CancelledError):
        return False
    current = asyncio.current_task()
    cancelling = getattr(current, "cancelling", None)  # Python 3.11
    return cancelling is None or cancelling() > 0
