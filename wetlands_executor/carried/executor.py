"""``CarriedExecutor``: the Tasks of ``CondaEnvExecutor``, run by another system.

That system, a cluster's scheduler say, is a ``Carrier``: it takes calls as bytes, has workers of
this library run them on its machines (``submit_packed``), and says what becomes of them. Owns no
state of the calls. Entered by any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, overload

from wetlands_executor.carried.call import Carrier
from wetlands_executor.carried.lifecycle import Lifecycle
from wetlands_executor.carried.pool import CarriedPool
from wetlands_executor.carried.submission import CarriedSubmission
from wetlands_executor.ending import Ending
from wetlands_executor.futures.events import make_listener
from wetlands_executor.futures.future import Callback, Dispatch, Task
from wetlands_executor.futures.options import CallOptions, RetryOn
from wetlands_executor.futures.overview import LISTED, picture, task_entry
from wetlands_executor.submission import MapOptions
from wetlands_executor.views import OptionsView
from wetlands_executor.worker import packed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import ContextVar
    from types import TracebackType

    from typing_extensions import Self

    from wetlands_executor.futures.overview import WorkerInfo

T = TypeVar("T")


class CarriedExecutor(Executor):
    """An ``Executor`` with the Tasks of ``CondaEnvExecutor`` whose calls another system runs.

    Args:
        carrier: takes the calls there.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._max_workers = carrier.max_workers
        self._pool = pool = CarriedPool(carrier)
        self._failures = pool.stats.give_failures()
        self._submission = CarriedSubmission(pool)
        self._lifecycle = lifecycle = Lifecycle(pool)
        self._ending = Ending(lifecycle, pool.closing, self._submission)

    # --- submitting

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
        """Schedule ``fn(*args, **kwargs)``; as ``CondaEnvExecutor.submit``.

        The result stays where it was made until ``result()`` asks for it. A task of this executor
        as an argument is replaced by its result there, without a way through this process.

        Raises:
            RuntimeError: after shutdown.
            TypeError, ValueError, FileNotFoundError: ``fn`` is no callable and no target.
        """
        return self._submission.submit(fn, args, kwargs)

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
        """As ``CondaEnvExecutor.map``; with default arguments the items travel in parts.

        A worker that dies fails all items of the part that it had.
        """
        how = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions)
        return self._submission.map(fn, iterables, how)

    def map_tasks(
        self, fn: Callable[..., T] | str | os.PathLike[str], *iterables: Iterable[Any]
    ) -> list[Task[T]]:
        """Submit ``fn(*items)`` for the items of the iterables, zipped; return the tasks."""
        return self._submission.map_tasks(fn, iterables)

    def submit_script(
        self, path: str | os.PathLike[str], args: Sequence[str] = (), run_name: str = "__main__"
    ) -> Task[None]:
        """As ``CondaEnvExecutor.submit_script``; the file is one of the workers' machine."""
        return self._submission.submit_script(path, args, run_name)

    def options(
        self,
        *,
        name: str | None = None,
        start: bool = True,
        timeout: float | None = None,
        retries: int = 0,
        retry_on: RetryOn = None,
        priority: int = 0,
        cancel_grace: float | None = None,
        context: Sequence[str | ContextVar[Any]] | None = None,
    ) -> OptionsView:
        """Return an Executor over the same workers that applies options to calls.

        See ``CallOptions``.
        """
        options = CallOptions(
            name, start, timeout, retries, retry_on, priority, cancel_grace, context
        )
        return OptionsView(self._submission, self._max_workers, options)

    # --- watching

    def listen(self, callback: Callback, dispatch: Dispatch | None = None) -> Self:
        """Call ``callback`` with the events of all tasks from now on. See ``Task.listen``."""
        self._pool.add_listener(make_listener(callback, dispatch, once=False))
        return self

    def remove_listener(self, callback: Callback) -> None:
        """Forget a listener; an unknown one is ignored."""
        self._pool.remove_listener(callback)

    def wait_all(self, timeout: float | None = None, *, raise_on_error: bool = False) -> bool:
        """Wait until every task that was started has finished; as ``CondaEnvExecutor.wait_all``."""
        stats = self._pool.stats
        return stats.wait_all(timeout, raise_on_error=raise_on_error, wait=stats.wait)

    def get_failed(self) -> list[Task[Any]]:
        """Return the failed tasks since ``clear_failed``, oldest first, at most the last 1000."""
        return self._pool.stats.failures()

    def clear_failed(self) -> None:
        """Forget the failed tasks."""
        self._pool.stats.clear_failures()

    def set_error_callback(
        self, callback: Callable[[Task[Any], BaseException], object] | None
    ) -> None:
        """Call ``callback(task, exception)`` for every task that fails; None ends that."""
        self._pool.stats.report_errors(callback)

    def get_progress(self) -> dict[str, Any]:
        """Return counts, workers, tasks under way (at most 1000), last errors; ready for JSON."""
        calls = list(self._pool.calls)
        running = sum(call.is_running() for call in calls)
        listed = [task_entry(call.task) for call in calls[:LISTED]]
        return picture(self._pool.stats, running, self.workers(), listed)

    def get_task(self, identifier: str) -> Task[Any] | None:
        """Return a task by its ``id``; as ``CondaEnvExecutor.get_task``."""
        for call in list(self._pool.calls):
            if call.task.id == identifier:
                return call.task
        return self._pool.stats.find(identifier)

    @property
    def max_workers(self) -> int:
        """Number of calls that could run at the same time when this executor was made."""
        return self._max_workers

    @property
    def worker_count(self) -> int:
        """Number of worker processes now."""
        return len(self.workers())

    def workers(self) -> list[WorkerInfo]:
        """Return what the workers do, as far as is known."""
        return self._carrier.workers()

    # --- the end

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None:
        """Accept nothing more; end the workers when what was submitted is done.

        Args:
            wait: return when that is so and all callbacks have run.
            cancel_futures: cancel what has not started.
            timeout: seconds after which what has not finished is ended as after a Ctrl-C.

        Raises:
            TypeError, ValueError: ``timeout`` is no number of seconds.
        """
        self._ending.shutdown(wait, cancel_futures, timeout)

    def kill_workers(self) -> None:
        """End the workers of what runs; those tasks, and those that wait, are cancelled."""
        self._lifecycle.terminate(kill=True, why="by kill_workers()")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Shut down and wait. After Ctrl-C or SystemExit: see that what runs comes to an end."""
        self._ending.leave(exc_type, self.shutdown)

    async def __aenter__(self) -> Self:
        """Enter; nothing is started."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """As ``__exit__``, without blocking the event loop."""
        await self._ending.leave_async(exc_type)


def submit_packed(
    executor: Executor, call: bytes, outcomes: Sequence[bytes] = ()
) -> Task[bytes]:
    """Run a call that a ``Carrier`` has brought to this machine.

    Nothing of it is read in this process.

    Args:
        executor: a ``CondaEnvExecutor`` or a view of one.
        call: ``CarriedCall.data``.
        outcomes: results of the tasks for ``CarriedCall.outcomes``, in their order.

    Returns:
        A task whose result is the outcome of the call: what ``CarriedOutcome.fetch`` returns if
        ``packed_has_failed`` is False of it, and what ``CarriedCall.failed`` takes if it is True.
    """
    submit: Callable[..., Task[bytes]] = executor.submit  # type: ignore[assignment]
    return submit(packed.run, call, list(outcomes))


def packed_has_failed(outcome: bytes) -> bool:
    """Return True for the outcome of a call whose function has raised."""
    return packed.has_failed(outcome)


def packed_interpreter(executor: Executor) -> tuple[Any, ...]:
    """Return version, implementation and magic number of the interpreter of an executor's workers.

    Starts a worker if there is none.

    Raises:
        WorkerStartError: none can be started.
    """
    found: tuple[Any, ...] = executor.submit(packed.signature).result()
    return found
