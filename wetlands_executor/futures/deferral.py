"""Deferred calls: tasks as arguments of tasks, and tasks that wait for ``start()``.

A task that is deferred has a ``Deferral``, and this has one *claim*: an entry with the arguments,
which is taken in one step. The thread that takes it decides what becomes of the task: ``start`` (or
the last dependency) enqueues the call, ``cancel`` and shutdown cancel the task. So both can never
happen.

Any thread enters; dependencies end on any thread, in finalizers too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from wetlands_executor import arguments, threads
from wetlands_executor.errors import DependencyFailed, because, describe
from wetlands_executor.futures import settling
from wetlands_executor.futures.callbacks import add_hook
from wetlands_executor.futures.future import Task

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import TaskPool

#: Characters of a failed task's message that its dependants quote.
QUOTED = 2000
#: Attribute of a DependencyFailed: name of the task that has failed first, and what is quoted of
#: it.
_ROOT = "_wetlands_root"

#: Pickles a call, of its arguments without tasks, and gives it to the pool.
Enqueue = Callable[[tuple[Any, ...], dict[str, Any]], object]
Claim = tuple[Enqueue, tuple[Any, ...], dict[str, Any]]


def among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return True if an argument is a task."""
    for value in args:
        if isinstance(value, Task):
            return True
    if kwargs:
        return any(isinstance(value, Task) for value in kwargs.values())
    return False


class Deferral:
    """What holds one task back until it is started and its dependencies have finished.

    Args:
        pool: the pool of the task.
        hidden: number of arguments that the library has put before the user's.
        take: returns what stands for a finished task in the call; None: its result.
    """

    __slots__ = ("_claim", "_hidden", "_pool", "_started", "_take", "_text")

    def __init__(
        self, pool: TaskPool, hidden: int, take: Callable[[Task[Any]], Any] | None = None
    ) -> None:
        self._pool = pool
        self._hidden = hidden
        self._take: Callable[[Task[Any]], Any] = _result_of if take is None else take
        # One entry. It alone keeps the arguments: they go with it.
        self._claim: list[Claim] = []
        self._started = False
        # The arguments as text, from the end of the dependencies until the pool has the call.
        self._text = ""

    def hold(
        self,
        task: Task[Any],
        enqueue: Enqueue,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        start: bool,
    ) -> None:
        """Hold a task back. Called once, before any other thread has a reference to the task.

        Args:
            task: the task, which has this.
            enqueue: pickles the call and gives it to the pool.
            args: positional arguments, tasks among them.
            kwargs: keyword arguments, tasks among them.
            start: False waits for ``start()``.
        """
        if start:
            self._pool.stats.submitted(task)
            self._wait(task, enqueue, args, kwargs)
        else:
            self._claim = [(enqueue, args, kwargs)]
            self._pool.unstarted.add(task)

    def start(self, task: Task[Any]) -> None:
        """Start the task, unless that has happened.

        Raises:
            RuntimeError: its pool accepts no calls any more.
        """
        # Race: another thread may start the task at the same time. Order: `_wait` stores that the
        # task was started before it makes a new claim. So this thread has either the old claim,
        # which is empty, or observes that store.
        claim = self._claim
        if self._started:
            return
        try:
            enqueue, args, kwargs = claim.pop()
        except IndexError:
            return
        pool = self._pool
        pool.unstarted.discard(task)
        if pool.refusing:
            settling.settle_cancelled(task)
            raise RuntimeError("cannot start a task after shutdown")
        pool.stats.submitted(task)
        if among(args, kwargs):
            self._wait(task, enqueue, args, kwargs)
        else:
            enqueue(args, kwargs)

    def withdraw(self) -> bool:
        """Take the task back; False if it was handed to the pool, or was taken back before."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def input(self) -> str:
        """Return the arguments as text, for messages; empty once the pool has the call."""
        try:
            _, args, kwargs = self._claim[0]
        except IndexError:
            return self._text
        return arguments.of_values(args[self._hidden :], kwargs)

    def needs(self) -> set[object]:
        """Return the tasks for which this one waits; empty if it waits for none any more."""
        try:
            _, args, kwargs = self._claim[0]
        except IndexError:
            return set()
        return {value for value in (*args, *kwargs.values()) if isinstance(value, Task)}

    def _wait(
        self,
        task: Task[Any],
        enqueue: Enqueue,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        pool = self._pool
        values = (*args, *kwargs.values())
        wanted = {value: None for value in values if isinstance(value, Task)}
        self._started = True
        self._claim = [(enqueue, args, kwargs)]
        pool.reserve(task)
        # Counts down the dependencies. One step for each, without a lock: they end on any thread,
        # in finalizers too.
        left = list(range(len(wanted)))

        def ready(_dependency: Task[Any]) -> None:
            if left.pop() == 0:
                # Pickling is user code: not on the thread that has settled the dependency.
                pool.run_user_code(partial(self._launch, task))

        for dependency in wanted:
            add_hook(dependency, ready)
            try:
                dependency.start()
            except RuntimeError:
                # Its executor was shut down: it is cancelled, and so is, through `ready`, what
                # depends on it.
                pass

    def _launch(self, task: Task[Any]) -> None:
        """All dependencies have finished: enqueue the call, or pass on what went wrong.

        Runs on a decoder thread.
        """
        threads.decide(task)
        threads.holding.add(get_ident())
        try:
            try:
                enqueue, args, kwargs = self._claim.pop()
            except IndexError:
                return  # cancelled meanwhile
            self._text = arguments.of_values(args[self._hidden :], kwargs)
            for value in (*args, *kwargs.values()):
                if not isinstance(value, Task):
                    continue
                if value.cancelled():
                    reason = f"the task {value.name!r}, an argument, was cancelled"
                    why = value.error
                    settling.settle_cancelled(task, reason if why is None else f"{reason}: {why}")
                    return
                error = value.exception()
                if error is not None:
                    settling.settle(task, None, _failure(task, value, error))
                    return
            self._text = ""  # from here on the call has it
            enqueue(
                tuple(self._value(arg) for arg in args),
                {key: self._value(arg) for key, arg in kwargs.items()},
            )
        except BaseException as error:
            # Unless it is settled: whatever goes wrong here, it does not stay open.
            settling.settle(task, None, error)
            raise
        finally:
            threads.holding.discard(get_ident())
            threads.deciding.pop(get_ident(), None)
            self._pool.release(task)

    def _value(self, arg: Any) -> Any:
        return self._take(arg) if isinstance(arg, Task) else arg


def is_unstarted(task: Task[Any]) -> bool:
    """Return True if a task waits for ``start()``."""
    pool = task._pool
    return pool is not None and task in pool.unstarted


def needed(what: object) -> set[object]:
    """Return what must end before ``what`` can.

    Returns:
        ``what``, and if it is a task that waits for others, those and what they wait for.
    """
    found = {what}
    left = [what]
    while left:
        deferral = getattr(left.pop(), "_guard", None)
        if isinstance(deferral, Deferral):
            new = deferral.needs() - found
            found |= new
            left.extend(new)
    return found


def _failure(task: Task[Any], dependency: Task[Any], error: BaseException) -> DependencyFailed:
    """Return what a task fails with whose dependency has failed; its cause is the failure of that.

    In a chain of such tasks each names the one before it and the first one, and quotes a bounded
    part of what that has failed with, not the messages of all between: they would grow with the
    square of the chain's length.
    """
    call = task.name + task.arguments
    said = f"the task {dependency.name!r}, an argument of {call}, failed"
    root = vars(error).get(_ROOT) if type(error) is DependencyFailed else None
    if root is None:
        root = dependency.name + dependency.arguments, describe(error, QUOTED)
        if dependency.arguments:
            said += f" (the call was {root[0]})"
    else:
        said += f" because {root[0]}, on which it depends, failed"
    failure = DependencyFailed(f"{said}: {root[1]}")
    vars(failure)[_ROOT] = root
    return because(failure, error)


def _result_of(task: Task[Any]) -> Any:
    return task.result()
