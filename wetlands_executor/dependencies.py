"""Tasks as arguments of tasks, and tasks that wait for ``start()``: what holds a call back before it reaches the pool.

A task that is held has a *gate*: a list with one function. Who pops it decides what becomes of the task: ``start`` (or the last dependency)
launches it, ``cancel`` and shutdown cancel it. So both can never happen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

from wetlands_executor import arguments, threads
from wetlands_executor.errors import DependencyFailed, describe
from wetlands_executor.task import Task

#: Characters of the message of a failed task that those quote which depend on it.
QUOTED = 2000
#: Attribute of a DependencyFailed: name of the task that has failed first, and what is quoted of its failure.
_ROOT = "_wetlands_root"

HandIn = Callable[[tuple[Any, ...], dict[str, Any]], None]


def among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return True if an argument is a task."""
    for value in args:
        if isinstance(value, Task):
            return True
    if kwargs:
        return any(isinstance(value, Task) for value in kwargs.values())
    return False


def hold(task: Task[Any], hand_in: HandIn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Hold a task until it is started and its dependencies are ready.

    Args:
        task: the dependant; its options say whether it waits for ``start()``.
        hand_in: pickles the call and gives it to the pool.
        args: positional arguments, tasks among them.
        kwargs: keyword arguments, tasks among them.
    """
    pool = task._pool
    assert pool is not None
    launch = partial(_begin, task, hand_in, args, kwargs)
    if task._options is not None and not task._options.start:
        task._gate = deque((launch,))
        pool.unstarted.add(task)
        return
    pool.ledger.submitted(task)
    _wait(task, hand_in, args, kwargs)


def _begin(task: Task[Any], hand_in: HandIn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Start a task that was made with ``start=False``."""
    pool = task._pool
    assert pool is not None
    pool.unstarted.discard(task)
    if pool.refusing:
        task._settle_cancelled()
        raise RuntimeError("cannot start a task after shutdown")
    pool.ledger.submitted(task)
    if among(args, kwargs):
        _wait(task, hand_in, args, kwargs)
    else:
        hand_in(args, kwargs)


def _wait(task: Task[Any], hand_in: HandIn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Launch ``task`` when all tasks among its arguments have finished."""
    pool = task._pool
    assert pool is not None
    wanted = {value: None for value in (*args, *kwargs.values()) if isinstance(value, Task)}
    task._gate = deque((partial(hand_in, args, kwargs),))
    pool.reserve(task)
    # Counts down the dependencies. One step for each, without a lock: they end on any thread, in finalizers too.
    left = list(range(len(wanted)))

    def ready(_dependency: Task[Any]) -> None:
        if left.pop() == 0:
            # Pickling is user code: not on the thread that has settled the dependency.
            pool.run_user_code(partial(_launch, task, hand_in, args, kwargs))

    for dependency in wanted:
        dependency._on_settled(ready)
        try:
            dependency.start()
        except RuntimeError:
            pass  # its executor was shut down: it is cancelled, and so is, through `ready`, what depends on it


def _launch(task: Task[Any], hand_in: HandIn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """All dependencies have finished: hand the call in, or pass on what went wrong. Runs on a decoder thread."""
    pool = task._pool
    gate = task._gate
    assert pool is not None
    assert gate is not None
    threads.decide(task)
    threads.holding.add(get_ident())
    try:
        try:
            gate.pop()
        except IndexError:
            return  # cancelled meanwhile
        task._input = arguments.of_values(args[task._hidden :], kwargs)  # for a failure; one that is handed in has it in its call
        for value in (*args, *kwargs.values()):
            if not isinstance(value, Task):
                continue
            if value.cancelled():
                words = (f"the task {value.name!r}, an argument, was cancelled", *value._cancel_words())
                task._settle_cancelled(": ".join(words))
                return
            error = value._exception
            if error is not None:
                task._settle(None, _failure(task, value, error))
                return
        task._input = None
        hand_in(tuple(_value(arg) for arg in args), {key: _value(arg) for key, arg in kwargs.items()})
    except BaseException as error:
        task._settle(None, error)  # unless it is settled: whatever goes wrong here, it does not stay open
        raise
    finally:
        threads.holding.discard(get_ident())
        threads.deciding.pop(get_ident(), None)
        pool.release(task)


def _failure(task: Task[Any], dependency: Task[Any], error: BaseException) -> DependencyFailed:
    """Return what a task fails with whose dependency has failed; its cause is the failure of that.

    In a chain of such tasks each names the one before it and the first one, and quotes a bounded part of what that has failed with, not
    the messages of all between: they would grow with the square of the chain's length.
    """
    said = f"the task {dependency.name!r}, an argument of {task._call_text()}, failed"
    root = vars(error).get(_ROOT) if type(error) is DependencyFailed else None
    if root is None:
        root = dependency._call_text(), describe(error, QUOTED)
        if dependency.arguments:
            said += f" (the call was {root[0]})"
    else:
        said += f" because {root[0]}, on which it depends, failed"
    failure = DependencyFailed(f"{said}: {root[1]}")
    vars(failure)[_ROOT] = root
    failure.__cause__ = error
    return failure


def _value(arg: Any) -> Any:
    return arg._result if isinstance(arg, Task) else arg
