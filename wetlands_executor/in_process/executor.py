"""``InProcessExecutor``: the Tasks of ``CondaEnvExecutor`` without processes.

Owns no state of the calls. Entered by any thread.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, overload

from wetlands_executor import seconds as seconds_of
from wetlands_executor.ending import Ending
from wetlands_executor.environment.source import source_of
from wetlands_executor.futures.events import make_listener
from wetlands_executor.futures.future import Callback, Dispatch, Task
from wetlands_executor.futures.options import CallOptions, RetryOn
from wetlands_executor.in_process import report
from wetlands_executor.in_process.lifecycle import Lifecycle, check_wait
from wetlands_executor.in_process.pool import ThreadPool
from wetlands_executor.in_process.submission import ThreadSubmission
from wetlands_executor.remote import RemoteModule
from wetlands_executor.serialize import references
from wetlands_executor.submission import MapOptions
from wetlands_executor.views import OptionsView

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import ContextVar
    from types import TracebackType

    from typing_extensions import Self

    from wetlands_executor.environment import Environment
    from wetlands_executor.futures.overview import WorkerInfo

T = TypeVar("T")


class InProcessExecutor(Executor):
    """An ``Executor`` with the Tasks of ``CondaEnvExecutor`` that starts no process.

    For tests, debuggers (``breakpoint()``, coverage and profilers work), and hosts that may not
    start processes. Arguments and results are the objects themselves, never copies. What a thread
    cannot do: be killed. A task whose time is over, or that is killed, ends all the same; its
    function is asked to stop and interrupted, and its thread is left behind if it goes on.

    Args:
        max_workers: number of threads; 0: ``submit`` runs the call in the calling thread and
            returns when it has finished.
        initializer: called in every thread before its first task (with ``max_workers=0`` once): a
            callable, or ``"model.py:load"``. If it raises, nothing more is run.
        initargs: its arguments.
        task_timeout: seconds that one task may run, from its function's start; None is no limit.
        cancel_grace: seconds between the request to stop a running task, its interruption, and
            giving it up; None leaves it at the request.

    Raises:
        TypeError, ValueError: an argument that cannot be meant.
    """

    def __init__(
        self,
        max_workers: int = 1,
        initializer: Callable[..., object] | str | os.PathLike[str] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        task_timeout: float | None = None,
        cancel_grace: float | None = None,
    ) -> None:
        if isinstance(max_workers, bool) or not isinstance(max_workers, int):
            raise TypeError(f"max_workers must be an integer, not {max_workers!r}")
        if max_workers < 0:
            raise ValueError(
                f"max_workers must be 0 (the calling thread) or more, not {max_workers}"
            )
        self._max_workers = max_workers
        self._pool = pool = ThreadPool(
            max_workers,
            task_timeout=seconds_of.limit("task_timeout", task_timeout),
            cancel_grace=seconds_of.limit("cancel_grace", cancel_grace),
            initializer=_initializer(initializer),
            initargs=initargs,
            owner=weakref.ref(self),
        )
        self._failures = pool.stats.give_failures()
        self._lifecycle = lifecycle = Lifecycle(pool)
        self._submission = ThreadSubmission(pool)
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
        """Schedule ``fn(*args, **kwargs)`` in a thread; every keyword goes to the function.

        Args:
            fn: any callable, an ``async def`` function (run to its end),
                ``"package.module:function"`` or ``"path/to/file.py:function"``, imported in this
                process.
            *args: positional arguments.
            **kwargs: keyword arguments.

        Raises:
            RuntimeError: after shutdown.
            BrokenProcessPool: the initializer has failed.
            TypeError, ValueError, FileNotFoundError: ``fn`` is no callable and no target.
            KeyboardInterrupt: with ``max_workers=0``, if the call was interrupted by Ctrl-C.
        """
        return self._submission.submit(fn, args, kwargs)

    def refresh(self, fn: Callable[..., Any]) -> None:
        """Do nothing: functions are called as they are."""

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
        """As ``CondaEnvExecutor.map``; ``chunksize`` has no effect, as with threads."""
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
        """Refuse: a script needs a process of its own.

        Raises:
            NotImplementedError: always.
        """
        return self._submission.submit_script(path, args, run_name)

    def import_module(self, where: str | os.PathLike[str]) -> RemoteModule:
        """Return a stand-in for a module, as ``CondaEnvExecutor.import_module``."""
        where = os.fspath(where)
        references.definition_of_module(where)
        return RemoteModule(self, where)

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
        """Return an Executor over the same threads that applies options to calls.

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
        pool = self._pool

        def wait(seconds: float | None) -> bool:
            check_wait(pool, "all of its tasks", "wait for single tasks")
            return pool.stats.wait(seconds)

        return pool.stats.wait_all(timeout, raise_on_error=raise_on_error, wait=wait)

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

    def set_timeout(self, seconds: float | None) -> None:
        """Limit the whole run: what has not finished ``seconds`` from now fails; None lifts it."""
        self._lifecycle.limit_run(seconds_of.limit("seconds", seconds))

    def get_progress(self) -> dict[str, Any]:
        """Return counts, threads, tasks under way (at most 1000), last errors; ready for JSON."""
        return report.progress(self._pool)

    def get_task(self, identifier: str) -> Task[Any] | None:
        """Return a task by its ``id``; as ``CondaEnvExecutor.get_task``."""
        return report.find(self._pool, identifier)

    def is_responsive(self) -> bool:
        """Return True: there is nothing between this executor and its threads that could hang."""
        return True

    # --- threads

    @property
    def environment(self) -> Environment:
        """The environment of this process."""
        return source_of(None).get()

    @property
    def max_workers(self) -> int:
        """Number of threads at most; 0 is the calling thread."""
        return self._max_workers

    @property
    def worker_count(self) -> int:
        """Number of threads now, those that were left behind not counted."""
        return len(self._pool.workers.alive)

    @property
    def task_timeout(self) -> float | None:
        """Seconds that one task may run, from its function's start; None is no limit.

        Setting it concerns tasks that start from then on.
        """
        return self._pool.task_timeout

    @task_timeout.setter
    def task_timeout(self, seconds: float | None) -> None:
        self._pool.limit_tasks(seconds_of.limit("task_timeout", seconds))

    def launch(self, wait: bool = True, *, on_progress: object = None) -> Self:
        """Do nothing but check that calls are accepted: threads start at once when needed."""
        del wait, on_progress
        if self._pool.refusing:
            self._submission.refuse()
        return self

    async def launch_async(self, *, on_progress: object = None) -> Self:
        """As ``launch``."""
        return self.launch(on_progress=on_progress)

    def workers(self) -> list[WorkerInfo]:
        """Return what the threads do at this moment, by index; ``pid`` is this process."""
        return report.workers(self._pool)

    # --- the end

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None:
        """Accept nothing more; end the threads when what was submitted is done.

        Args:
            wait: return when they have ended and all callbacks have run. Threads that were left
                behind with a call that goes on are not waited for.
            cancel_futures: cancel what has not started.
            timeout: seconds after which what has not finished is ended as after a Ctrl-C; see
                ``CondaEnvExecutor.shutdown``.

        Raises:
            RuntimeError: a task of this executor would wait for itself.
            TypeError, ValueError: ``timeout`` is no number of seconds.
        """
        self._ending.shutdown(wait, cancel_futures, timeout)

    def kill_workers(self) -> None:
        """Give up all that runs: those tasks, and those that wait, are cancelled.

        Functions are asked to stop and interrupted; threads that go on are left behind.
        """
        self._lifecycle.terminate(kill=True, why="by kill_workers()")

    def terminate_workers(self) -> None:
        """Do the same as ``kill_workers``: threads can be given up in one way only."""
        self._lifecycle.terminate(kill=False, why="by terminate_workers()")

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

    def __repr__(self) -> str:
        count = f"{self.worker_count} of {self._max_workers} threads"
        return f"<{type(self).__name__}, {count if self._max_workers else 'the calling thread'}>"


def _initializer(given: Any) -> Callable[..., object] | None:
    """Return the initializer as a callable; a target is imported by the first call of it."""
    if given is None or callable(given):
        return given  # type: ignore[no-any-return]
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError("initializer must be a callable")
    from functools import partial

    from wetlands_executor.worker import scripts

    return partial(scripts.call_target, references.definition_of(given))
