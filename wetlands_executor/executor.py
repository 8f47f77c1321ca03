"""``CondaEnvExecutor``: the public object. Checks arguments, makes Tasks, hands calls to its pool.

Owns no state of the calls; that is in ``pool/``. Entered by any thread.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from wetlands_executor import arguments
from wetlands_executor import seconds as seconds_of
from wetlands_executor.environment import Environment
from wetlands_executor.errors import TasksFailed
from wetlands_executor.futures import deferral, results, settling
from wetlands_executor.futures.aio import post_to_loop, wake_waiter
from wetlands_executor.futures.events import make_listener
from wetlands_executor.futures.future import Callback, Dispatch, Task, relabel
from wetlands_executor.futures.options import CallOptions, RetryOn
from wetlands_executor.map.job import collect
from wetlands_executor.pool import report, spawn
from wetlands_executor.pool.fork_server import ForkServer
from wetlands_executor.pool.launch import Launcher, WorkerEnv, pickled_initializer, variables_of
from wetlands_executor.pool.pool import Pool
from wetlands_executor.pool.start import StartSettings
from wetlands_executor.remote import RemoteModule
from wetlands_executor.serialize import references
from wetlands_executor.serialize.calls import (
    Definition,
    define,
    define_by_value,
    encode,
    encode_at_once,
    wants_value,
)
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.views import OptionsView
from wetlands_executor.worker import scripts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from wetlands_executor.pool.report import WorkerInfo

T = TypeVar("T")


class CondaEnvExecutor(Executor):
    """An ``Executor`` whose worker processes run in another Python environment.

    A drop-in for ``ProcessPoolExecutor``.

    Nothing has to be installed in that environment. Workers start on demand.

    Args:
        env: a name, a prefix, an interpreter, a project folder, an ``Environment``, or any object
            with ``.prefix`` or ``.path``; None is this environment.
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

    Raises:
        EnvironmentNotFoundError: ``env`` names no environment, or several.
        TypeError, ValueError: an argument that cannot be meant.
    """

    def __init__(
        self,
        env: str | os.PathLike[str] | Environment | None = None,
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
    ) -> None:
        _check_arguments(max_workers, initializer, max_tasks_per_child, preload)
        if share_preload and not preload:
            raise ValueError(
                "share_preload=True needs preload: name the modules that the workers "
                "are to share, preload=['numpy', ...]"
            )
        worker_timeout = seconds_of.limit("worker_timeout", worker_timeout)
        task_timeout = seconds_of.limit("task_timeout", task_timeout)
        cancel_grace = seconds_of.limit("cancel_grace", cancel_grace)
        start_timeout = seconds_of.limit("start_timeout", start_timeout)
        if (
            mp_context is not None
            and getattr(mp_context, "get_start_method", lambda: "")() == "fork"
        ):
            warnings.warn(
                "mp_context has no meaning for CondaEnvExecutor: its workers are new processes of "
                "another interpreter, never forks",
                stacklevel=2,
            )
        self._environment = Environment.find(env)
        self._max_workers: int = max_workers if max_workers is not None else _processors()
        variables = [variables_of(worker_env, index) for index in range(self._max_workers)]
        folder = os.fspath(cwd) if cwd is not None else None
        launcher = Launcher(self._environment, activate, folder, variables)
        remote = RemoteInterpreter(self._environment.python, launcher.first)
        fork_server = None
        if share_preload and spawn.can_fork_workers():
            fork_server = ForkServer(launcher.fork_server, preload, start_timeout)
        elif share_preload:
            warnings.warn(
                "share_preload=True works on Linux only: each worker imports its "
                "preload for itself here",
                stacklevel=2,
            )
        keeps: list[Any] = []
        if initializer is not None and not callable(initializer):
            initializer = partial(
                scripts.call_target,
                references.definition_of_target(references.target_of(initializer)),
            )
        first: tuple[bytes, str | None, bool] | None = None
        needs: tuple[Any, ...] = ()
        if initializer:
            data, pickler = pickled_initializer((initializer, tuple(initargs)), keeps, remote)
            first, needs = (data, pickler.by_value, pickler.bytecode), tuple(pickler.needs.values())
        settings = StartSettings(
            launcher.worker, remote, list(preload), first, start_timeout, fork_server, keeps, needs
        )
        self._pool = Pool(
            settings,
            self._max_workers,
            tasks_per_worker=max_tasks_per_child,
            worker_timeout=worker_timeout,
            task_timeout=task_timeout,
            cancel_grace=cancel_grace,
            what=_describe(self._environment),
        )
        remote.await_hello = weakref.WeakMethod(self._pool.hear_hello)
        # An executor that is simply dropped finishes its work and ends, as in the standard library.
        self._finalizer = weakref.finalize(self, self._pool.life.shutdown)
        self._finalizer.atexit = False

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
            encoded = encode_at_once(fn, args, None)
            # the way of most calls: nothing of the user's runs, nothing can fail
            if encoded is not None:
                task: Task[Any] = Task(pool, encoded.definition)
                pool.submit(encoded, task)
                return task
        return self._submit(fn, args, kwargs, None, None)

    def _submit(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        definition: Definition | None,
        options: CallOptions | None,
        place: int | None = None,
    ) -> Task[Any]:
        pool = self._pool
        if pool.closing.refusing:
            self._refuse()
        if not callable(fn) and definition is None and type(fn) is not str:
            fn = references.target_of(fn)
        hidden = 2 if fn is scripts.run_script else 0
        task: Task[Any]
        if options is None and not kwargs:
            encoded = encode_at_once(fn, args, definition)
            if encoded is not None:  # as in `submit`, for calls of a `map`
                task = Task(pool, encoded.definition, None, place, hidden)
                pool.submit(encoded, task)
                return task
        if definition is None and type(fn) is str:
            definition = define(fn)
        if (options is not None and not options.start) or deferral.among(args, kwargs):
            if not callable(fn) and definition is None:
                raise TypeError(
                    f"{fn!r} is neither callable nor a target like 'package.module:function'"
                )
            guard = deferral.Deferral(pool, hidden)
            task = Task(pool, references.display_name(fn), options, place, hidden, guard)
            # The task keeps the executor alive until it is handed to the pool.
            enqueue = partial(self._hand_in, task, hidden, fn, definition)
            guard.hold(task, enqueue, args, kwargs, start=options is None or options.start)
            return task
        task = Task(pool, "", options, place, hidden)
        self._hand_in(task, hidden, fn, definition, args, kwargs)
        return task

    def _hand_in(
        self,
        task: Task[Any],
        hidden: int,
        fn: Any,
        definition: Definition | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Pickle a call and give it to the pool. Whatever fails here is the task's failure."""
        pool = self._pool
        try:
            encoded = encode(fn, args, kwargs, definition, pool.settings.remote)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # pickling is user code; by the contract its failure is the task's
            if not callable(fn) and not isinstance(fn, str):
                raise TypeError(
                    f"{fn!r} is neither callable nor a target like 'package.module:function'"
                ) from None
            relabel(task, references.display_name(fn))
            settling.keep_input(task, arguments.of_values(args[hidden:], kwargs))
            pool.ledger.refused(task, error)
            return
        except BaseException as error:
            # Its user may hold it already: Ctrl-C while it is started ends it too.
            settling.settle(task, None, error)
            raise
        relabel(task, encoded.definition or references.display_name(fn))
        pool.submit(encoded, task)
        if encoded.by_value is not None and pool.settings.remote.record is not None:
            pool.tidy(pool.settings.remote.record)

    def _refuse(self) -> None:
        pool = self._pool
        if pool.forked:
            raise RuntimeError(
                "this executor belongs to the process that forked this one: make a new one here"
            )
        if pool.broken is not None:
            raise BrokenProcessPool(str(pool.broken)) from pool.broken
        raise pool.closing.refusal()

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
        arguments: dict[str, Any] = {
            "timeout": timeout,
            "chunksize": chunksize,
            "buffersize": buffersize,
            "ordered": ordered,
        }
        return self._map(
            fn, iterables, None, None, return_exceptions=return_exceptions, **arguments
        )

    def _map(
        self,
        fn: Any,
        iterables: tuple[Iterable[Any], ...],
        options: CallOptions | None,
        keep: Callable[[Task[Any]], Task[Any]] | None,
        *,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if return_exceptions:
            chunksize = 1
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if self._pool.closing.refusing:
            self._refuse()
        timeout = seconds_of.wait("timeout", timeout)
        end = None if timeout is None else timeout + time.monotonic()
        definition = self._definition_for_many(fn)
        # the shortest ends it, as in the standard library
        items: Iterator[tuple[Any, ...]] = zip(*iterables)  # noqa: B905
        forget = (
            partial(self._pool.forget, definition)
            if definition is not None and definition.by_value is not None
            else None
        )
        if (
            definition is not None
            and chunksize == 1
            and buffersize is None
            and ordered
            and options is None
            and keep is None
            and not self._pool.sees_calls_alone
        ):
            job, calls = collect(self._pool, definition, items, deferral.among)
            if job is not None:
                job.submit()
                return job.results(end, forget, return_exceptions)
            items = iter(calls)
        if chunksize == 1:
            tasks = (self._submit(fn, args, {}, definition, options) for args in items)
        else:
            what = fn if callable(fn) else references.definition_of_target(references.target_of(fn))
            tasks = (
                self._submit(scripts.process_chunk, (what, chunk), {}, None, options)
                for chunk in results.chunks(items, chunksize)
            )
        if keep is not None:
            tasks = (keep(task) for task in tasks)
        take = results.outcome_of if return_exceptions else results.result_of
        found = results.iterate(tasks, end, buffersize, ordered, forget, take)
        return found if chunksize == 1 else results.flatten(found)

    def _definition_for_many(self, fn: Any) -> Definition | None:
        """Pickle a function that travels by value once for a whole ``map``.

        None if it goes with each call.
        """
        fn = fn if callable(fn) else references.target_of(fn)
        if callable(fn) or isinstance(fn, str):
            found = define(fn)
            if found is None or wants_value(found, self._pool.settings.remote):
                found = None
                # its pickling error belongs to the tasks, where it will be met again
                with contextlib.suppress(Exception):
                    found = define_by_value(fn, self._pool.settings.remote)
            return found
        raise TypeError(f"{fn!r} is neither callable nor a target like 'package.module:function'")

    def map_tasks(
        self, fn: Callable[..., T] | str | os.PathLike[str], *iterables: Iterable[Any]
    ) -> list[Task[T]]:
        """Submit ``fn(*items)`` for the items of the iterables, zipped.

        Return the tasks, named ``fn[0]``, ``fn[1]``, ...
        """
        return self._map_tasks(fn, iterables, None)

    def _map_tasks(
        self, fn: Any, iterables: tuple[Iterable[Any], ...], options: CallOptions | None
    ) -> list[Task[Any]]:
        if self._pool.closing.refusing:
            self._refuse()
        definition = self._definition_for_many(fn)
        calls = enumerate(zip(*iterables))  # noqa: B905 - as in map
        return [self._submit(fn, args, {}, definition, options, place) for place, args in calls]

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
        return self._submit_script(path, args, run_name, None)

    def _submit_script(
        self,
        path: str | os.PathLike[str],
        args: Sequence[str],
        run_name: str,
        options: CallOptions | None,
    ) -> Task[None]:
        full = os.path.abspath(os.path.expanduser(os.fspath(path)))
        if not os.path.isfile(full):
            raise FileNotFoundError(f"{os.fspath(path)!r}: there is no file {full}")
        if isinstance(args, str):
            raise TypeError(f"args is a string ({args!r}): give a list of arguments")
        given = [arg if isinstance(arg, Task) else str(arg) for arg in args]
        task: Task[None] = self._submit(
            scripts.run_script, (full, run_name, *given), {}, None, options
        )
        relabel(task, os.fspath(path))
        return task

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
        """
        return OptionsView(
            self, CallOptions(name, start, timeout, retries, retry_on, priority, cancel_grace)
        )

    # --- watching

    def listen(self, callback: Callback, dispatch: Dispatch | None = None) -> Self:
        """Call ``callback`` with the events of all tasks of this executor from now on.

        See ``Task.listen``.
        """
        pool = self._pool
        # those of windows that are gone
        kept = (listener for listener in pool.listeners if not listener.removed)
        pool.listeners = (*kept, make_listener(callback, dispatch, once=False))
        if pool.started:
            pool.post(pool.direct.sync)  # it gets the events of what is under way as well
        return self

    def remove_listener(self, callback: Callback) -> None:
        """Forget a listener; an unknown one is ignored."""
        kept = []
        for listener in self._pool.listeners:
            if listener.callback == callback:
                listener.removed = True
            else:
                kept.append(listener)
        self._pool.listeners = tuple(kept)

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
        if isinstance(timeout, bool):
            raise TypeError(
                f"wait_all({timeout}): timeout is a number of seconds; write "
                f"wait_all(raise_on_error={timeout})"
            )
        done = self._pool.wait_all(seconds_of.wait("timeout", timeout))
        failed = self.get_failed() if raise_on_error else []
        if failed:
            names = [task.name for task in failed]
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise TasksFailed(
                f"{len(names)} task{'s' if len(names) > 1 else ''} failed: {shown}", names
            ) from failed[0]._exception
        return done

    def get_failed(self) -> list[Task[Any]]:
        """Return the failed tasks since ``clear_failed``, oldest first, at most the last 1000."""
        return self._pool.ledger.failures()

    def clear_failed(self) -> None:
        """Forget the failed tasks."""
        self._pool.ledger.clear_failures()

    def set_error_callback(
        self, callback: Callable[[Task[Any], BaseException], object] | None
    ) -> None:
        """Call ``callback(task, exception)`` for every task that fails, on the callback thread.

        None ends that.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"the callback must be callable or None, not {callback!r}")
        self._pool.ledger.error_callback = callback

    def set_timeout(self, seconds: float | None) -> None:
        """Limit the whole run.

        What has not finished ``seconds`` from now fails with ``TaskTimeoutError``; None lifts the
        limit.
        """
        self._pool.limit_run(seconds_of.limit("seconds", seconds))

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
        """Return True if the I/O thread answers and no busy worker is past ``worker_timeout``."""
        return report.is_responsive(self._pool)

    # --- workers

    @property
    def environment(self) -> Environment:
        """The environment in which the workers run."""
        return self._environment

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

    def launch(self, wait: bool = True) -> Self:
        """Start all workers now.

        Args:
            wait: return when all are ready.

        Raises:
            WorkerStartError: none can be started.
            BrokenProcessPool: an initializer failed.
        """
        if self._pool.closing.refusing:
            self._refuse()
        self._pool.readiness.launch(wait)
        return self

    async def launch_async(self) -> Self:
        """As ``launch``, without blocking the event loop.

        Start all workers, and return when they are ready.
        """
        import asyncio

        if self._pool.closing.refusing:
            self._refuse()
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
        timeout = seconds_of.wait("timeout", timeout)
        pool = self._pool
        pool.life.shutdown(cancel_pending=cancel_futures)
        if timeout is not None:
            pool.life.wind_down_later(
                timeout, f"the executor was shut down, and its timeout of {timeout:g} s was over"
            )
        # Its registry keeps the pool, and with it failed tasks, their tracebacks and all that those
        # look at, as long as the executor lives.
        self._finalizer.detach()
        if wait:
            pool.life.join()

    def terminate_workers(self) -> None:
        """End all workers now (SIGTERM, then SIGKILL).

        Running tasks fail with BrokenProcessPool, queued ones are cancelled.
        """
        self._pool.life.terminate(kill=False, why="by terminate_workers()")

    def kill_workers(self) -> None:
        """End all workers now (SIGKILL).

        Running tasks fail with BrokenProcessPool, queued ones are cancelled.
        """
        self._pool.life.terminate(kill=True, why="by kill_workers()")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Shut down and wait.

        After Ctrl-C or SystemExit: cancel what is queued, and see that what runs comes to an end.
        """
        if exc_type is not None and issubclass(exc_type, (KeyboardInterrupt, SystemExit)):
            self._interrupt(exc_type)
            return
        try:
            self.shutdown(wait=True)
        except (KeyboardInterrupt, SystemExit) as error:
            self._interrupt(type(error))
            raise

    def _interrupt(self, why: type[BaseException]) -> None:
        """Ask, interrupt after 5 s, kill after 5 more; a second Ctrl-C kills at once."""
        pool = self._pool
        try:
            pool.life.wind_down(f"the executor was shut down by {why.__name__}")
            self._finalizer.detach()
            pool.life.join()
        except KeyboardInterrupt:
            pool.life.terminate(kill=True, why="by a second KeyboardInterrupt")
            pool.life.join()
            raise

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
        import asyncio

        pool = self._pool
        if exc_type is not None and (
            issubclass(exc_type, (KeyboardInterrupt, SystemExit)) or _is_cancellation(exc_type)
        ):
            pool.life.wind_down(f"the executor was shut down by {exc_type.__name__}")
        else:
            pool.life.shutdown()
        self._finalizer.detach()
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        pool.life.when_finished(partial(post_to_loop, loop, wake_waiter, ended))
        cancelled = 0
        while not ended.done():
            try:
                await asyncio.wait((ended,))
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 1 and pool.closing.reason is None:
                    pool.life.wind_down("the executor was shut down by CancelledError")
                else:
                    pool.life.terminate(kill=True, why="by a second cancellation")
        if cancelled:
            raise asyncio.CancelledError

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from wetlands_executor import notebook

        return notebook.executor_html(self)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {_describe(self._environment)}, {self.worker_count} of "
            f"{self._max_workers} workers>"
        )


def _answer(ready: asyncio.Future[None], error: BaseException | None) -> None:
    if ready.done():
        return  # its awaiter was cancelled
    if error is None:
        ready.set_result(None)
    else:
        ready.set_exception(error)


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


def _check_arguments(
    max_workers: Any, initializer: Any, max_tasks_per_child: Any, preload: Sequence[str]
) -> None:
    if max_workers is not None:
        if isinstance(max_workers, bool) or not isinstance(max_workers, int):
            raise TypeError(f"max_workers must be an integer or None, not {max_workers!r}")
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
    if (
        initializer is not None
        and not callable(initializer)
        and not isinstance(initializer, (str, os.PathLike))
    ):
        raise TypeError("initializer must be a callable")
    if max_tasks_per_child is not None:
        if not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
    if isinstance(preload, str):
        raise TypeError(
            f"preload must be a sequence of module names, not the string {preload!r}: "
            f"write preload=[{preload!r}]"
        )


def _processors() -> int:
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return min(61, count) if os.name == "nt" else count


def _describe(environment: Environment) -> str:
    return f"the environment {environment.name or environment.prefix}"
