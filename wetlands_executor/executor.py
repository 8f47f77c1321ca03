"""``CondaEnvExecutor``: the public object.

Its parts: the options as checked (``settings.py``), what is submitted (``submission.py``), the pool
that runs it (``pool/``), and the end (``ending.py``). Owns no state of the calls. Entered by any
thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from wetlands_executor import seconds as seconds_of
from wetlands_executor.ending import Ending
from wetlands_executor.environment import Environment
from wetlands_executor.environment.source import source_of
from wetlands_executor.futures.aio import post_to_loop
from wetlands_executor.futures.events import make_listener
from wetlands_executor.futures.future import Callback, Dispatch, Task
from wetlands_executor.futures.options import CallOptions, RetryOn
from wetlands_executor.pool import report
from wetlands_executor.pool.launch import WorkerEnv
from wetlands_executor.pool.pool import Pool
from wetlands_executor.remote import RemoteModule
from wetlands_executor.serialize import references
from wetlands_executor.serialize.encoded import encode_at_once
from wetlands_executor.serialize.known_functions import encode_again
from wetlands_executor.settings import ExecutorSettings, start_settings
from wetlands_executor.submission import MapOptions, Submission
from wetlands_executor.views import OptionsView

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from contextvars import ContextVar
    from types import TracebackType

    from typing_extensions import Self

    from wetlands_executor.environment.creation_run import OnProgress
    from wetlands_executor.environment.spec import EnvironmentSpec
    from wetlands_executor.futures.overview import WorkerInfo

T = TypeVar("T")


class CondaEnvExecutor(Executor):
    """An ``Executor`` whose worker processes run in another Python environment.

    A drop-in for ``ProcessPoolExecutor``.

    Nothing has to be installed in that environment. Workers start on demand.

    Args:
        env: a name, a prefix, an interpreter, a project folder, an ``Environment``, or any object
            with ``.prefix`` or ``.path``; an ``EnvironmentSpec``, or a file that describes an
            environment (``"segment.py"`` with a metadata block, ``"./environment.yml"``), which is
            made before the first worker starts; None is this environment.
        max_workers: number of worker processes; None is the number of processors, as in the
            standard library.
        mp_context: accepted for compatibility and without meaning: workers are never forks of this
            process.
        initializer: called in every worker before its first task: a callable, or
            ``"model.py:load"``. If it raises, the pool is broken, as in the standard library.
        initargs: its arguments.
        max_tasks_per_child: tasks after which a worker is replaced; None is no limit.
        worker_env: variables for the workers, or a function of the worker's index that returns
            them; called once per index, now.
        cwd: working folder of the workers; None is this process's.
        preload: modules that every worker imports before its first task.
        share_preload: let one process of the environment import them, and make every worker a fork
            of it: they start at once and share that memory. Linux only; elsewhere a warning says
            that workers start separately. While the modules are imported, numerical libraries are
            limited to one thread, unless ``worker_env`` sets their variables.
        worker_timeout: seconds without any message from a busy worker after which it counts as hung
            and is replaced; None is no limit.
        task_timeout: seconds that one task may run, from its function's start; None is no limit.
        cancel_grace: seconds between the request to stop a running task, its interruption, and the
            end of its worker; None leaves it at the request.
        start_timeout: seconds that a worker may take to be ready, preload and initializer included;
            None is no limit.
        activate: False leaves the environment's activation out; a sequence gives shell lines to run
            after its scripts.
        debug: True: ``breakpoint()`` in a worker opens pdb on the terminal of this program.
            ``"debugpy"``: debuggers can attach to each worker, where ``workers()`` says; debugpy
            has to be in the environment, and listens on 127.0.0.1.

    Raises:
        EnvironmentNotFoundError: ``env`` names no environment, or several.
        TypeError, ValueError: an argument is invalid.
    """

    def __init__(
        self,
        env: str | os.PathLike[str] | Environment | EnvironmentSpec | None = None,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | str | os.PathLike[str] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        worker_env: WorkerEnv = None,
        cwd: str | os.PathLike[str] | None = None,
        preload: Sequence[str] = (),
        share_preload: bool = False,
        worker_timeout: float | None = None,
        task_timeout: float | None = None,
        start_timeout: float | None = 60.0,
        cancel_grace: float | None = None,
        activate: bool | Sequence[str] = True,
        debug: bool | Literal["debugpy"] = False,
    ) -> None:
        settings = ExecutorSettings(
            max_workers=max_workers,
            mp_context=mp_context,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
            worker_env=worker_env,
            cwd=cwd,
            preload=preload,
            share_preload=share_preload,
            worker_timeout=worker_timeout,
            task_timeout=task_timeout,
            start_timeout=start_timeout,
            cancel_grace=cancel_grace,
            activate=activate,
            debug=debug,
        )
        self._source = source = source_of(env)
        self._max_workers: int = settings.count_workers()
        starts = start_settings(settings, source, self._max_workers)
        self._pool = Pool(
            starts,
            self._max_workers,
            tasks_per_worker=settings.max_tasks_per_child,
            worker_timeout=settings.worker_timeout,
            task_timeout=settings.task_timeout,
            cancel_grace=settings.cancel_grace,
            label=source.label,
        )
        self._failures = self._pool.stats.give_failures()
        self._submission = Submission(self._pool)
        # Views and tasks that wait keep the submission: it is what has to be dropped.
        self._ending = Ending(self._pool.lifecycle, self._pool.closing, self._submission)

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
        """Schedule ``fn(*args, **kwargs)`` in a worker; every keyword goes to the function.

        Args:
            fn: any callable, an ``async def`` function (run to its end),
                ``"package.module:function"`` or ``"path/to/file.py:function"``.
            *args: positional arguments.
            **kwargs: keyword arguments.

        Returns:
            The Task, a ``concurrent.futures.Future``. What cannot be pickled fails the Task, not
            this call.

        Raises:
            RuntimeError: after shutdown.
            BrokenProcessPool: an initializer has failed.
            TypeError, ValueError, FileNotFoundError: ``fn`` is no callable and no target.
        """
        pool = self._pool
        if not kwargs and not pool.closing.refusing:
            encoded = encode_at_once(fn, args, None) or encode_again(fn, args, pool)
            # the way of most calls: nothing of the user's runs, nothing can fail
            if encoded is not None:
                task: Task[Any] = Task(pool, encoded.definition.name)
                pool.submit(encoded, task)
                return task
        return self._submission.submit(fn, args, kwargs)

    def refresh(self, fn: Callable[..., Any]) -> None:
        """Send a function or class by value, and all that it reaches, anew when it is used next.

        For changes that are not noticed by themselves: see "What counts as a change" in the
        documentation. What has not changed keeps what tasks have made of it. An importable
        function, which travels by its name, is left as it is.

        Args:
            fn: a function by value, a method or a ``functools.partial`` of one, or a class.
        """
        self._pool.settings.remote.refresh(fn)

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
        """Return an iterator of ``fn(*items)`` for the items of the iterables, zipped.

        Args:
            fn: as in ``submit``.
            *iterables: read at once, unless ``buffersize`` is given.
            timeout: seconds from this call until the last result; None is no limit.
            chunksize: items that travel as one task (an error concerns the whole task then, as in
                the standard library).
            buffersize: items submitted whose results have not been taken; the iterables are read as
                needed (Python 3.14's meaning).
            ordered: False yields the results as they come.
            return_exceptions: True yields the exception of a failed call in its place, as
                ``asyncio.gather`` does, and cancels nothing. Each item is a call of its own then,
                whatever ``chunksize`` says.

        Raises:
            TimeoutError: from the iterator, when the time is over.
            ValueError: ``chunksize`` or ``buffersize`` below 1.
        """
        how = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions)
        return self._submission.map(fn, iterables, how)

    def map_tasks(
        self, fn: Callable[..., T] | str | os.PathLike[str], *iterables: Iterable[Any]
    ) -> list[Task[T]]:
        """Submit ``fn(*items)`` for the items of the iterables, zipped.

        Return the tasks, named ``fn[0]``, ``fn[1]``, ...
        """
        return self._submission.map_tasks(fn, iterables)

    def submit_script(
        self, path: str | os.PathLike[str], args: Sequence[str] = (), run_name: str = "__main__"
    ) -> Task[None]:
        """Run a file in a worker as ``python path args...`` would.

        Args:
            path: the script.
            args: its arguments, for ``sys.argv``.
            run_name: its ``__name__``.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._submission.submit_script(path, args, run_name)

    def import_module(self, where: str | os.PathLike[str]) -> RemoteModule:
        """Return a stand-in for a module of the environment; this process never imports it.

        Args:
            where: ``"package.module"`` or ``"path/to/file.py"``.

        Returns:
            An object whose functions can be called (``proxy.segment(image)`` waits for the result),
            submitted (``proxy.segment.submit(image)``) and mapped (``proxy.segment.map(images)``);
            other attributes are fetched.
        """
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
        """Return an Executor over this pool that applies options to calls; see ``CallOptions``.

        Args:
            name: of the tasks; None derives it from the function.
            start: False makes tasks that wait for ``start()``.
            timeout: seconds that one run of the function may take, from its start.
            retries: how often a call is run again after a failure.
            retry_on: which failures: exception types, or a function of the exception; None is
                crash, hang and time-out.
            priority: higher runs first.
            cancel_grace: seconds between the request to stop, the interrupt, and the end of the
                worker.
            context: context variables that travel with the calls, or their names
                ``"module:variable"``; ``"traceparent"`` makes a span of OpenTelemetry per task.
        """
        options = CallOptions(
            name, start, timeout, retries, retry_on, priority, cancel_grace, context
        )
        return OptionsView(self._submission, self._max_workers, options)

    # --- watching

    def listen(self, callback: Callback, dispatch: Dispatch | None = None) -> Self:
        """Call ``callback`` with the events of all tasks of this executor from now on.

        See ``Task.listen``.
        """
        self._pool.add_listener(make_listener(callback, dispatch, once=False))
        return self

    def remove_listener(self, callback: Callback) -> None:
        """Forget a listener; an unknown one is ignored."""
        self._pool.remove_listener(callback)

    def wait_all(self, timeout: float | None = None, *, raise_on_error: bool = False) -> bool:
        """Wait until every task that was started has finished.

        Args:
            timeout: seconds to wait; None waits without limit.
            raise_on_error: raise if one has failed since the last ``clear_failed``.

        Returns:
            True; False if the time was over before.

        Raises:
            TasksFailed: some have failed; it lists their names.
            TypeError: ``timeout`` is True or False.
        """
        pool = self._pool
        return pool.stats.wait_all(timeout, raise_on_error=raise_on_error, wait=pool.wait_all)

    def get_failed(self) -> list[Task[Any]]:
        """Return the failed tasks since ``clear_failed``, oldest first, at most the last 1000."""
        return self._pool.stats.failures()

    def clear_failed(self) -> None:
        """Forget the failed tasks."""
        self._pool.stats.clear_failures()

    def set_error_callback(
        self, callback: Callable[[Task[Any], BaseException], object] | None
    ) -> None:
        """Call ``callback(task, exception)`` for every task that fails, on the callback thread.

        None ends that.
        """
        self._pool.stats.report_errors(callback)

    def set_timeout(self, seconds: float | None) -> None:
        """Limit the whole run.

        What has not finished ``seconds`` from now fails with ``TaskTimeoutError``; None lifts the
        limit.
        """
        self._pool.run_limit.set(seconds_of.limit("seconds", seconds))

    def get_progress(self) -> dict[str, Any]:
        """Return counts, workers, tasks under way (at most 1000), last errors; ready for JSON."""
        return report.progress(self._pool)

    def get_task(self, identifier: str) -> Task[Any] | None:
        """Return a task by its ``id``.

        One that is under way, or one of the last 1000 finished that is still referred to; else
        None.
        """
        return report.find(self._pool, identifier)

    def is_responsive(self) -> bool:
        """Return True if the I/O thread and the workers answer.

        False if a busy worker is past ``worker_timeout``, if a worker is stopped, or if an idle one
        takes nothing.
        """
        return report.is_responsive(self._pool)

    # --- workers

    @property
    def environment(self) -> Environment:
        """The environment in which the workers run.

        One that is not made yet is made now, and waited for.

        Raises:
            EnvironmentCreationError: it cannot be made.
        """
        if self._source.known is None:
            self._pool.wait_for_hello()
        return self._source.get()

    @property
    def max_workers(self) -> int:
        """Number of worker processes at most."""
        return self._max_workers

    @property
    def worker_count(self) -> int:
        """Number of worker processes that are alive now."""
        return len(self._pool.processes)

    @property
    def task_timeout(self) -> float | None:
        """Seconds that one task may run, from its function's start; None is no limit.

        Setting it concerns tasks submitted from then on.
        """
        return self._pool.deadlines.task_timeout

    @task_timeout.setter
    def task_timeout(self, seconds: float | None) -> None:
        self._pool.deadlines.limit_tasks(seconds_of.limit("task_timeout", seconds))

    def launch(self, wait: bool = True, *, on_progress: OnProgress | None = None) -> Self:
        """Start all workers now.

        Args:
            wait: return when all are ready.
            on_progress: called with a ``CreationProgress`` while the environment is made, if it has
                to be, on the thread that starts workers.

        Raises:
            EnvironmentCreationError: the environment could not be made.
            WorkerStartError: none can be started.
            BrokenProcessPool: an initializer failed.
        """
        if self._pool.closing.refusing:
            self._submission.refuse()
        if on_progress is not None:
            self._source.watch(on_progress)
        self._pool.readiness.launch(wait)
        return self

    async def launch_async(self, *, on_progress: OnProgress | None = None) -> Self:
        """As ``launch``, without blocking the event loop.

        Start all workers, and return when they are ready.

        Args:
            on_progress: as for ``launch``; it is called on another thread than the event loop's.
        """
        import asyncio

        if self._pool.closing.refusing:
            self._submission.refuse()
        if on_progress is not None:
            self._source.watch(on_progress)
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._pool.readiness.launch_then(partial(post_to_loop, loop, _answer, ready))
        await ready
        return self

    def workers(self) -> list[WorkerInfo]:
        """Return what the workers do at this moment, by index."""
        return report.workers(self._pool)

    # --- the end

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None:
        """Accept nothing more; end the workers when what was submitted is done.

        Args:
            wait: return when they are gone and all callbacks have run.
            cancel_futures: cancel what has not started.
            timeout: seconds after which what has not finished is ended as after a Ctrl-C: what has
                not started is cancelled, what runs is asked to stop, interrupted 5 s later, and
                killed after 5 s more. None lets everything finish. With ``wait=False`` it happens
                in the background.

        Raises:
            TypeError, ValueError: ``timeout`` is no number of seconds.
        """
        self._ending.shutdown(wait, cancel_futures, timeout)

    def terminate_workers(self) -> None:
        """End all workers now (SIGTERM, then SIGKILL).

        Running tasks fail with BrokenProcessPool, queued ones are cancelled.
        """
        self._pool.lifecycle.terminate(kill=False, why="by terminate_workers()")

    def kill_workers(self) -> None:
        """End all workers now (SIGKILL); otherwise as ``terminate_workers``."""
        self._pool.lifecycle.terminate(kill=True, why="by kill_workers()")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Shut down and wait.

        After Ctrl-C or SystemExit: cancel what is queued, and see that what runs comes to an end.
        """
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
        """As ``__exit__``, without blocking the event loop.

        The cancellation of the block counts as a Ctrl-C, a second one as a second.
        """
        await self._ending.leave_async(exc_type)

    def __reduce__(self) -> Any:
        """Pickle it as an argument of tasks: there it is a ``RemoteExecutor``."""
        return self._submission.reduced()

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from wetlands_executor import notebook

        return notebook.executor_html(self)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {self._source.label}, {self.worker_count} of "
            f"{self._max_workers} workers>"
        )


def _answer(ready: asyncio.Future[None], error: BaseException | None) -> None:
    if ready.done():
        return  # its awaiter was cancelled
    if error is None:
        ready.set_result(None)
    else:
        ready.set_exception(error)
