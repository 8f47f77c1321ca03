"""From a function and its arguments to a Task in a pool: what an executor and its views submit.

Owns no state of the calls; that is in ``pool/``. Entered by any thread. Pickling runs on the thread
that submits, or on a decoder thread for calls that have waited for others.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from wetlands_executor import arguments, watching
from wetlands_executor import seconds as seconds_of
from wetlands_executor.forms import LOOKED_AT, check_options, no_target
from wetlands_executor.futures import deferral, results, settling
from wetlands_executor.futures.future import Task, relabel
from wetlands_executor.futures.options import CallOptions
from wetlands_executor.map.job import collect
from wetlands_executor.pool.pool import Pool
from wetlands_executor.serialize import references
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.definitions import (
    Definition,
    define,
    define_by_value,
    wants_value,
)
from wetlands_executor.serialize.encoded import encode_at_once
from wetlands_executor.serialize.known_functions import encode_again
from wetlands_executor.worker import scripts


@dataclass(frozen=True, slots=True)
class MapOptions:
    """How a ``map`` goes. See ``CondaEnvExecutor.map`` for the attributes.

    Raises:
        TypeError: ``buffersize`` is no integer.
        ValueError: ``chunksize`` or ``buffersize`` below 1.
    """

    timeout: float | None = None
    chunksize: int = 1
    buffersize: int | None = None
    ordered: bool = True
    return_exceptions: bool = False

    def __post_init__(self) -> None:
        if self.chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if self.buffersize is not None and not isinstance(self.buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if self.buffersize is not None and self.buffersize < 1:
            raise ValueError("buffersize must be None or > 0")

    @property
    def size(self) -> int:
        """Items that travel as one task: each alone, if its exception is to stand in its place."""
        return 1 if self.return_exceptions else self.chunksize

    @property
    def eager(self) -> bool:
        """True if all items are read at once, and their results come in order, one for each."""
        return self.size == 1 and self.buffersize is None and self.ordered


class Submits(Protocol):
    """What hands calls to the threads or processes that run them, as a view knows it."""

    def submit(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        definition: Any = None,
        options: CallOptions | None = None,
        place: int | None = None,
    ) -> Task[Any]:
        """See ``Submission``."""
        ...

    def map(
        self,
        fn: Any,
        iterables: tuple[Iterable[Any], ...],
        how: MapOptions,
        options: CallOptions | None = None,
        keep: Callable[[Task[Any]], Task[Any]] | None = None,
    ) -> Iterator[Any]:
        """See ``Submission``."""
        ...

    def map_tasks(
        self, fn: Any, iterables: tuple[Iterable[Any], ...], options: CallOptions | None = None
    ) -> list[Task[Any]]:
        """See ``Submission``."""
        ...

    def submit_script(
        self,
        path: str | os.PathLike[str],
        args: Sequence[str],
        run_name: str,
        options: CallOptions | None = None,
    ) -> Task[None]:
        """See ``Submission``."""
        ...

    def reduced(self, options: CallOptions | None = None) -> Any:
        """See ``Submission``."""
        ...


class Submission:
    """Hands calls to one pool.

    Invariant: whatever may still submit refers to this object: the executor, its views, a task that
    waits for ``start()`` or for others. When nothing does, the executor was dropped; see
    ``ending.py``.

    Args:
        pool: where the calls run.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """Where the calls run."""
        return self._pool

    def reduced(self, options: CallOptions | None = None) -> Any:
        """Return how an executor, or a view of it, is pickled: as what it is in a worker.

        See ``worker/remote_executor.py``.
        """
        from wetlands_executor.worker import remote_executor as remote

        pool, given = self._pool, {}
        if options is not None:
            given = {key: getattr(options, key, default) for key, default in remote.OPTIONS.items()}
        changed = {key: value for key, value in given.items() if value != remote.OPTIONS[key]}
        version = pool.settings.remote.known_version
        return remote.remote_executor, (pool.number, pool.max_workers, version, changed)

    # --- one call

    def submit(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        definition: Definition | None = None,
        options: CallOptions | None = None,
        place: int | None = None,
    ) -> Task[Any]:
        """Schedule ``fn(*args, **kwargs)``.

        Args:
            fn: a callable or a target.
            args: positional arguments.
            kwargs: keyword arguments.
            definition: of the function, if that is known.
            options: what is asked of this call; None asks nothing.
            place: among the tasks of one ``map_tasks``.

        Raises:
            RuntimeError, BrokenProcessPool: the pool accepts nothing.
            TypeError: ``fn`` is neither callable nor a target.
        """
        pool = self._pool
        if pool.closing.refusing:
            self.refuse()
        if not callable(fn) and definition is None and type(fn) is not str:
            fn = references.target_of(fn)
        if kwargs and not LOOKED_AT.isdisjoint(kwargs):
            check_options(fn, args, kwargs)
        hidden = 2 if fn is scripts.run_script else 0
        task: Task[Any]
        if options is None and not kwargs:
            encoded = encode_at_once(fn, args, definition)
            if encoded is None and definition is None:
                encoded = encode_again(fn, args, pool)
            if encoded is not None:  # as in `CondaEnvExecutor.submit`, for calls of a `map`
                task = Task(pool, encoded.definition.name, None, place, hidden)
                pool.submit(encoded, task)
                return task
        if definition is None and type(fn) is str:
            if ":" not in fn:
                raise no_target(fn, args, kwargs)
            definition = define(fn)
        if (options is not None and not options.start) or deferral.among(args, kwargs):
            if not callable(fn) and definition is None:
                raise _no_function(fn)
            guard = deferral.Deferral(pool, hidden)
            task = Task(pool, references.display_name(fn), options, place, hidden, guard)
            # The task keeps this object alive until it is handed to the pool.
            enqueue = partial(self._enqueue, task, hidden, fn, definition)
            guard.hold(task, enqueue, args, kwargs, start=options is None or options.start)
            return task
        task = Task(pool, "", options, place, hidden)
        self._enqueue(task, hidden, fn, definition, args, kwargs)
        return task

    def _enqueue(
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
                raise _no_function(fn) from None
            relabel(task, references.display_name(fn))
            settling.keep_input(task, arguments.of_values(args[hidden:], kwargs))
            pool.stats.refused(task, error)
            return
        except BaseException as error:
            # Its user may hold it already: Ctrl-C while it is started ends it too.
            settling.settle(task, None, error)
            raise
        known = encoded.definition
        relabel(task, references.display_name(fn) if known is None else known.name)
        pool.submit(encoded, task)
        if encoded.by_value is not None and pool.settings.remote.record is not None:
            pool.forgetting.tidy(pool.settings.remote.record)

    def refuse(self) -> None:
        """Raise why the pool accepts nothing."""
        self._pool.closing.refuse_call(forked=self._pool.forked)

    # --- many

    def map(
        self,
        fn: Any,
        iterables: tuple[Iterable[Any], ...],
        how: MapOptions,
        options: CallOptions | None = None,
        keep: Callable[[Task[Any]], Task[Any]] | None = None,
    ) -> Iterator[Any]:
        """Return an iterator of ``fn(*items)`` for the items of the iterables, zipped.

        Args:
            fn: a callable or a target.
            iterables: where the items come from.
            how: how it goes.
            options: what is asked of each call; None asks nothing.
            keep: is given each task that is made, and returns it.
        """
        pool = self._pool
        if pool.closing.refusing:
            self.refuse()
        timeout = seconds_of.wait("timeout", how.timeout)
        end = None if timeout is None else timeout + time.monotonic()
        definition = self._definition_for_many(fn)
        # the shortest ends it, as in the standard library
        items: Iterator[tuple[Any, ...]] = zip(*iterables)  # noqa: B905
        forget = (
            partial(pool.forgetting.forget, definition)
            if definition is not None and definition.by_value is not None
            else None
        )
        nothing_asked = options is None and keep is None and not pool.sees_calls_alone
        if definition is not None and how.eager and nothing_asked:
            job, calls = collect(pool, definition, items, deferral.among)
            if job is not None:
                job.submit()
                places = iter(range(job.size))
                found = job.results(places, end, forget, how.return_exceptions)
                return watching.note(found, pool, job.size, places, job.failures)
            items = iter(calls)
        tasks = self._tasks(fn, items, how.size, definition, options)
        if keep is not None:
            tasks = (keep(task) for task in tasks)
        take = results.outcome_of if how.return_exceptions else results.result_of
        found = results.iterate(tasks, end, how.buffersize, how.ordered, forget, take)
        return watching.note(
            found if how.size == 1 else results.flatten(found), pool, _length_of(iterables)
        )

    def _tasks(
        self,
        fn: Any,
        items: Iterator[tuple[Any, ...]],
        size: int,
        definition: Definition | None,
        options: CallOptions | None,
    ) -> Iterator[Task[Any]]:
        """Yield tasks, each submitted when it is asked for: of one item, or of ``size`` items."""
        if size == 1:
            return (self.submit(fn, args, {}, definition, options) for args in items)
        what = fn if callable(fn) else references.definition_of(fn)
        return (
            self.submit(scripts.process_chunk, (what, chunk), {}, None, options)
            for chunk in results.chunks(items, size)
        )

    def _definition_for_many(self, fn: Any) -> Definition | None:
        """Pickle a function that travels by value once for a whole ``map``.

        None if it goes with each call.
        """
        fn = fn if callable(fn) else references.target_of(fn)
        if callable(fn) or isinstance(fn, str):
            remote = self._pool.settings.remote
            found = define(fn)
            if found is None or wants_value(found, remote):
                found = None
                # its pickling error belongs to the tasks, where it will be met again
                with contextlib.suppress(Exception):
                    found = define_by_value(fn, remote)
            return found
        raise _no_function(fn)

    def map_tasks(
        self, fn: Any, iterables: tuple[Iterable[Any], ...], options: CallOptions | None = None
    ) -> list[Task[Any]]:
        """Submit ``fn(*items)`` for the items of the iterables, zipped; return the tasks.

        Args:
            fn: a callable or a target.
            iterables: where the items come from.
            options: what is asked of each call; None asks nothing.
        """
        if self._pool.closing.refusing:
            self.refuse()
        definition = self._definition_for_many(fn)
        calls = enumerate(zip(*iterables))  # noqa: B905 - as in map
        return [self.submit(fn, args, {}, definition, options, place) for place, args in calls]

    # --- a script

    def submit_script(
        self,
        path: str | os.PathLike[str],
        args: Sequence[str],
        run_name: str,
        options: CallOptions | None = None,
    ) -> Task[None]:
        """Run a file as ``python path args...`` would.

        Args:
            path: the script.
            args: its arguments, for ``sys.argv``.
            run_name: its ``__name__``.
            options: what is asked of this call; None asks nothing.

        Raises:
            FileNotFoundError: there is no such file.
            TypeError: ``args`` is a string.
        """
        full = os.path.abspath(os.path.expanduser(os.fspath(path)))
        if not os.path.isfile(full):
            raise FileNotFoundError(f"{os.fspath(path)!r}: there is no file {full}")
        if isinstance(args, str):
            raise TypeError(f"args is a string ({args!r}): give a list of arguments")
        given = [arg if isinstance(arg, Task) else str(arg) for arg in args]
        task: Task[None] = self.submit(
            scripts.run_script, (full, run_name, *given), {}, None, options
        )
        relabel(task, os.fspath(path))
        return task


def _length_of(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return the number of calls of a map, None if the iterables do not say it."""
    if not all(isinstance(each, Sized) for each in iterables):
        return None
    return min(map(len, iterables), default=0)  # type: ignore[arg-type] # they are Sized


def _no_function(fn: Any) -> TypeError:
    return TypeError(f"{fn!r} is neither callable nor a target like 'package.module:function'")
