"""From a function and its arguments to a Task whose call is carried away: what is submitted.

As ``wetlands_executor/submission.py``, with calls as bytes that nothing on the way reads. Owns no
state of the calls; entered by any thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor import arguments
from wetlands_executor import seconds as seconds_of
from wetlands_executor.carried.call import CarriedCall
from wetlands_executor.forms import checked
from wetlands_executor.futures import deferral, results, settling
from wetlands_executor.futures.elsewhere import Elsewhere, place_of
from wetlands_executor.futures.future import Task
from wetlands_executor.serialize import references
from wetlands_executor.worker import packed, scripts

if TYPE_CHECKING:
    from wetlands_executor.carried.pool import CarriedPool
    from wetlands_executor.futures.options import CallOptions
    from wetlands_executor.submission import MapOptions

#: Parts of a ``map`` for each worker: few enough to cost little, enough that no worker waits long.
PARTS = 8
#: Calls in one part of a ``map`` at most.
LONGEST_PART = 1000


class CarriedSubmission:
    """Hands calls to one pool. Invariant: as of ``Submission``.

    Args:
        pool: where the calls go.
    """

    def __init__(self, pool: CarriedPool) -> None:
        self._pool = pool

    def reduced(self, options: CallOptions | None = None) -> Any:
        """Refuse to be pickled, whatever the options of a view."""
        del options
        raise TypeError(
            "this executor, or a view of it, cannot be an argument of a task: its connections "
            "belong to this process"
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
            RuntimeError: nothing is accepted.
            TypeError, ValueError, FileNotFoundError: ``fn`` is no callable and no target.
        """
        pool = self._pool
        if pool.refusing:
            self.refuse()
        what, name = checked(fn, args, kwargs, definition)
        hidden = 2 if fn is scripts.run_script else 0
        start = options is None or options.start
        task: Task[Any]
        if not start or deferral.among(args, kwargs):
            guard = deferral.Deferral(pool, hidden, self._value_of)
            task = Task(pool, name, options, place, hidden, guard)
            # The task keeps this object, and so its executor, alive until it is submitted.
            guard.hold(task, partial(self._enqueue, task, what, options), args, kwargs, start=start)
            return task
        task = Task(pool, name, options, place, hidden)
        pool.stats.submitted(task)
        self._enqueue(task, what, options, args, kwargs)
        return task

    def _value_of(self, task: Task[Any]) -> Any:
        """Return what stands for a finished task in a call: in the same pool, where it is."""
        place = place_of(task, self._pool)
        return task.result() if place is None else place

    def _enqueue(
        self,
        task: Task[Any],
        what: Any,
        options: CallOptions | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Pickle a call and give it to the pool. Whatever fails here is the task's failure."""
        found: list[Any] = []

        def placed(value: Any) -> Any:
            if not isinstance(value, Elsewhere):
                return value
            found.append(value.outcome)
            return packed.Place(len(found) - 1)

        args = tuple(map(placed, args))
        kwargs = {name: placed(value) for name, value in kwargs.items()}
        text = arguments.of_values(args, kwargs)
        try:
            theirs = self._pool.carrier.interpreter
            data = packed.pack((what, args, kwargs), theirs, _is_known_there)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # pickling is user code; by the contract its failure is the task's
            settling.keep_input(task, text)
            settling.settle(task, None, error)
            return
        except BaseException as error:
            settling.settle(task, None, error)
            raise
        self._pool.submit(CarriedCall(self._pool, task, data, found, options, text))

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

        With default arguments the items travel in parts, each one task. Arguments as of
        ``Submission.map``.
        """
        if self._pool.refusing:
            self.refuse()
        timeout = seconds_of.wait("timeout", how.timeout)
        end = None if timeout is None else timeout + time.monotonic()
        what = fn if callable(fn) else references.definition_of(fn)
        items: Iterable[Any] = zip(*iterables)  # noqa: B905 - as in the standard library
        eager = how.buffersize is None and how.ordered and options is None
        size = how.size
        if eager:
            items = list(items)
            parts = PARTS * max(self._pool.carrier.max_workers, 1)
            size = max(size, min(LONGEST_PART, -(-len(items) // parts)))
        tasks: Iterator[Task[Any]]
        if size == 1 or any(deferral.among(args, {}) for args in (items if eager else ())):
            definition = None if callable(fn) else what
            tasks = (self.submit(fn, args, {}, definition, options) for args in items)
            take = results.outcome_of if how.return_exceptions else results.result_of
            if keep is not None:
                tasks = (keep(task) for task in tasks)
            return results.iterate(tasks, end, how.buffersize, how.ordered, None, take)
        go_on = how.return_exceptions
        tasks = (
            self.submit(packed.each, (what, part, go_on), {}, None, options)
            for part in results.chunks(items, size)
        )
        if keep is not None:
            tasks = (keep(task) for task in tasks)
        found: Iterator[Any] = results.iterate(
            tasks, end, how.buffersize, how.ordered, None, results.result_of
        )
        return _each(results.flatten(found), go_on)

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
        """Run a file of the workers' machine in a worker as ``python path args...`` would."""
        return self.submit(
            scripts.run_script, (os.path.abspath(path), run_name, *args), {}, None, options
        )


def _each(found: Iterator[Any], go_on: bool) -> Iterator[Any]:
    """Yield the results of the calls of a ``map`` that have travelled in parts."""
    try:
        for succeeded, value in found:
            if not succeeded and not go_on:
                raise value
            yield value
    finally:
        found.close()  # type: ignore[attr-defined] # a generator: closing cancels the rest


def _is_known_there(obj: Any) -> bool:
    """Return True for what an environment has; what the user's project defines travels as code."""
    reference = references.reference_to(obj)
    return reference is not None and reference.file is None
