"""From a function and its arguments to a Task in this process: what is submitted.

As ``wetlands_executor/submission.py``, without bytes: arguments and results are the objects
themselves. Owns no state of the calls; entered by any thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor import seconds as seconds_of
from wetlands_executor.forms import checked
from wetlands_executor.futures import deferral, results
from wetlands_executor.futures.future import Task
from wetlands_executor.in_process.call import ThreadCall
from wetlands_executor.serialize import references

if TYPE_CHECKING:
    from wetlands_executor.futures.options import CallOptions
    from wetlands_executor.in_process.pool import ThreadPool
    from wetlands_executor.submission import MapOptions


class ThreadSubmission:
    """Hands calls to one pool. Invariant: as of ``Submission``.

    Args:
        pool: where the calls run.
    """

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool

    def reduced(self, options: CallOptions | None = None) -> Any:
        """Refuse to be pickled, whatever the options of a view."""
        del options
        raise TypeError(
            "an InProcessExecutor, or a view of one, cannot be an argument of a task in another "
            "process: it runs calls in the threads of this one"
        )

    def submit(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        definition: Any = None,
        options: CallOptions | None = None,
        place: int | None = None,
    ) -> Task[Any]:
        """Schedule ``fn(*args, **kwargs)``.

        Args:
            fn: a callable or a target.
            args: positional arguments.
            kwargs: keyword arguments.
            definition: of the target, if that is known.
            options: what is asked of this call; None asks nothing.
            place: among the tasks of one ``map_tasks``.

        Raises:
            RuntimeError, BrokenProcessPool: nothing is accepted.
            TypeError, ValueError, FileNotFoundError: ``fn`` is no callable and no target.
        """
        pool = self._pool
        if pool.refusing:
            self.refuse()
        what, name = checked(fn, args, kwargs, definition)
        start = options is None or options.start
        task: Task[Any]
        if not start or deferral.among(args, kwargs):
            guard = deferral.Deferral(pool, 0)
            task = Task(pool, name, options, place, 0, guard)
            # The task keeps this object, and so its executor, alive until it is submitted.
            guard.hold(task, partial(self._enqueue, task, what, options), args, kwargs, start=start)
            return task
        task = Task(pool, name, options, place)
        pool.stats.submitted(task)
        self._enqueue(task, what, options, args, kwargs)
        return task

    def _enqueue(
        self,
        task: Task[Any],
        what: Any,
        options: CallOptions | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._pool.submit(ThreadCall(task, what, args, kwargs, options))

    def refuse(self) -> None:
        """Raise why nothing is accepted."""
        self._pool.closing.refuse_call(forked=self._pool.forked)

    def map(
        self,
        fn: Any,
        iterables: tuple[Iterable[Any], ...],
        how: MapOptions,
        options: CallOptions | None = None,
        keep: Callable[[Task[Any]], Task[Any]] | None = None,
    ) -> Iterator[Any]:
        """Return an iterator of ``fn(*items)`` for the items of the iterables, zipped.

        Each item is a task, whatever ``chunksize`` says. Arguments as of ``Submission.map``.
        """
        if self._pool.refusing:
            self.refuse()
        timeout = seconds_of.wait("timeout", how.timeout)
        end = None if timeout is None else timeout + time.monotonic()
        definition = None if callable(fn) else references.definition_of(fn)
        items = zip(*iterables)  # noqa: B905 - the shortest ends it, as in the standard library
        tasks = (self.submit(fn, args, {}, definition, options) for args in items)
        if keep is not None:
            tasks = (keep(task) for task in tasks)
        take = results.outcome_of if how.return_exceptions else results.result_of
        return results.iterate(tasks, end, how.buffersize, how.ordered, None, take)

    def map_tasks(
        self, fn: Any, iterables: tuple[Iterable[Any], ...], options: CallOptions | None = None
    ) -> list[Task[Any]]:
        """Submit ``fn(*items)`` for the items of the iterables, zipped; return the tasks."""
        if self._pool.refusing:
            self.refuse()
        definition = None if callable(fn) else references.definition_of(fn)
        calls = enumerate(zip(*iterables))  # noqa: B905 - as in map
        return [self.submit(fn, args, {}, definition, options, place) for place, args in calls]

    def submit_script(
        self,
        path: str | os.PathLike[str],
        args: Sequence[str],
        run_name: str,
        options: CallOptions | None = None,
    ) -> Task[None]:
        """Refuse: a script would be this program's ``__main__``.

        Raises:
            NotImplementedError: always.
        """
        del args, run_name, options
        if self._pool.refusing:
            self.refuse()
        raise NotImplementedError(
            f"submit_script({os.fspath(path)!r}): a script needs a process, whose __main__ and "
            f"sys.argv it can be; use CondaEnvExecutor(), or put the work into a function"
        )
