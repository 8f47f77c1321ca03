"""The view of an executor that applies options to calls.

``executor.options(timeout=60, retries=2)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from wetlands_executor import seconds as seconds_of
from wetlands_executor.errors import WaitTimeout
from wetlands_executor.futures import callbacks, requests
from wetlands_executor.futures.deferral import is_unstarted
from wetlands_executor.futures.future import Task
from wetlands_executor.futures.options import CallOptions, RetryOn
from wetlands_executor.submission import MapOptions, Submits

if TYPE_CHECKING:
    import os
    from collections.abc import Coroutine, Iterable, Iterator, Sequence
    from contextvars import ContextVar

T = TypeVar("T")

#: Seconds that the running calls of a view have after their cancellation until they are killed.
KILL_AFTER = 10.0

#: Marks an option that was not given, so that views compose.
_KEEP: Any = object()


class OptionsView(Executor):
    """The same pool, with options applied to what is submitted through it.

    An Executor that can be handed to third parties.

    Args:
        submission: hands calls to the pool. As long as the view has it, the pool goes on, even if
            the executor was dropped.
        max_workers: number of worker processes at most; third parties read ``_max_workers``.
        options: what is asked of each call.
    """

    def __init__(self, submission: Submits, max_workers: int, options: CallOptions) -> None:
        self._submission = submission
        self._options = options
        self._max_workers = max_workers
        self._tasks: set[Task[Any]] = set()
        self._closed = False

    def options(
        self,
        *,
        name: str | None = _KEEP,
        start: bool = _KEEP,
        timeout: float | None = _KEEP,
        retries: int = _KEEP,
        retry_on: RetryOn = _KEEP,
        priority: int = _KEEP,
        cancel_grace: float | None = _KEEP,
        context: Sequence[str | ContextVar[Any]] | None = _KEEP,
    ) -> OptionsView:
        """Return a further view: what is given replaces what this view has."""
        given: dict[str, Any] = {
            "name": name,
            "start": start,
            "timeout": timeout,
            "retries": retries,
            "retry_on": retry_on,
            "priority": priority,
            "cancel_grace": cancel_grace,
            "context": context,
        }
        return OptionsView(
            self._submission,
            self._max_workers,
            replace(
                self._options, **{key: value for key, value in given.items() if value is not _KEEP}
            ),
        )

    @overload
    def submit(self, fn: str | os.PathLike[str], /, *args: Any, **kwargs: Any) -> Task[Any]: ...

    @overload
    def submit(
        self, fn: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> Task[T]: ...

    @overload
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Task[T]: ...

    def submit(
        self, fn: Callable[..., Any] | str | os.PathLike[str], /, *args: Any, **kwargs: Any
    ) -> Task[Any]:
        """As ``CondaEnvExecutor.submit``, with the options of this view."""
        self._refuse_if_closed()
        return self._keep(self._submission.submit(fn, args, kwargs, None, self._for_now()))

    def map(  # the standard library's signature differs by version
        self,
        fn: Callable[..., T] | str | os.PathLike[str],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[T]:
        """As ``CondaEnvExecutor.map``, with the options of this view.

        Raises:
            ValueError: the view makes tasks that wait for ``start()``; ``map`` returns no tasks.
        """
        self._refuse_if_closed()
        if not self._options.start:
            raise ValueError(
                "map with start=False would wait for tasks that cannot be started; use map_tasks"
            )
        how = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions)
        return self._submission.map(fn, iterables, how, self._for_now(), self._keep)

    def map_tasks(
        self, fn: Callable[..., T] | str | os.PathLike[str], *iterables: Iterable[Any]
    ) -> list[Task[T]]:
        """As ``CondaEnvExecutor.map_tasks``, with the options of this view."""
        self._refuse_if_closed()
        tasks = self._submission.map_tasks(fn, iterables, self._for_now())
        return [self._keep(task) for task in tasks]

    def submit_script(
        self, path: str | os.PathLike[str], args: Sequence[str] = (), run_name: str = "__main__"
    ) -> Task[None]:
        """As ``CondaEnvExecutor.submit_script``, with the options of this view."""
        self._refuse_if_closed()
        return self._keep(self._submission.submit_script(path, args, run_name, self._for_now()))

    def _for_now(self) -> CallOptions:
        """Return the options of calls that are submitted now."""
        return self._options.with_context()

    def __reduce__(self) -> Any:
        """Pickle it as an argument of tasks: there it is a ``RemoteExecutor``."""
        self._refuse_if_closed()
        return self._submission.reduced(self._options)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _keep(self, task: Task[Any]) -> Task[Any]:
        self._tasks.add(task)
        callbacks.add_hook(task, self._tasks.discard)
        return task

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None:
        """End this view, not the pool.

        Accept nothing more, and wait for what was submitted through it.

        Args:
            wait: return when all of it has finished.
            cancel_futures: cancel what has not started.
            timeout: seconds after which, of what was submitted through this view, the rest is
                cancelled or asked to stop, and killed after 10 s more; None lets it finish. Without
                ``wait`` it has no meaning.

        Raises:
            TypeError, ValueError: ``timeout`` is no number of seconds.
        """
        timeout = seconds_of.wait("timeout", timeout)
        self._closed = True
        tasks = [task for task in self._tasks if not is_unstarted(task)]
        if cancel_futures:
            for task in list(self._tasks):
                if not task.running():
                    task.cancel()
        if not wait:
            return
        steps: list[tuple[float | None, Callable[[Task[Any]], object] | None]] = [(None, None)]
        if timeout is not None:
            reason = (
                f"its view of the executor was shut down, and the timeout of {timeout:g} s was "
                f"over: its worker was killed"
            )
            steps = [
                (timeout, Task.cancel),
                (KILL_AFTER, partial(requests.kill, reason=reason)),
                (None, None),
            ]
        for seconds, act in steps:
            end = None if seconds is None else time.monotonic() + seconds
            tasks = [task for task in tasks if not _has_finished(task, end)]
            for task in tasks:
                if act is not None:
                    act(task)


def _has_finished(task: Task[Any], end: float | None) -> bool:
    """Wait for a task until ``end`` on the monotonic clock; None waits without limit."""
    try:
        task.wait_for(None if end is None else end - time.monotonic())
    except WaitTimeout:
        return False
    return True
