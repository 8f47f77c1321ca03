"""What an executor of the host is inside a worker: ``RemoteExecutor``.

Its calls run in the host's pools; ``nested.py`` is the way there, ``remote_task.py`` what they are
here. Imported when an executor comes as an argument, or ``current_task().executor`` is asked for.

Threads: any thread of a task.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as WaitTimeout

from . import injection, remote_calls, running, scripts
from .channel import describe
from .remote_task import RemoteTask

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

#: Options that a call submitted here can have, and their defaults.
OPTIONS: Dict[str, Any] = {
    "name": None,
    "start": True,
    "timeout": None,
    "retries": 0,
    "retry_on": None,
    "priority": 0,
    "cancel_grace": None,
    "detach": False,
}


def remote_executor(pool: int, max_workers: int, version: str, options: Any) -> RemoteExecutor:
    """Return what an executor of the host is in this process; called by pickle streams."""
    if running.main_loop is None:
        raise RuntimeError(
            "an executor is of use only in tasks of its own program, and this process is none of "
            "its workers: give it to a task as an argument, and do not return it from one"
        )
    return RemoteExecutor(pool, max_workers, version, dict(OPTIONS, **options))


def executor_of(config: Any) -> RemoteExecutor:
    """Return the executor whose pool the worker with this configuration belongs to."""
    version = sys.version.split()[0]
    return RemoteExecutor(config["pool"], config["max_workers"], version, dict(OPTIONS))


class RemoteExecutor(Executor):
    """An executor of the host, inside a worker: what is submitted runs in the host's pool.

    Args:
        pool: number of the pool.
        max_workers: number of worker processes at most; third parties read ``_max_workers``.
        version: of the Python of its workers; empty if that is not known.
        options: what is asked of each call; see ``OPTIONS``.
    """

    def __init__(self, pool: int, max_workers: int, version: str, options: Any) -> None:
        self._pool = pool
        self._max_workers = max_workers
        self._version = version
        self._options = options
        self._tasks: Dict[RemoteTask, None] = {}
        self._closed = False

    @property
    def max_workers(self) -> int:
        """Number of worker processes at most, but for those that stand in for waiting ones."""
        return self._max_workers

    def options(self, **given: Any) -> RemoteExecutor:
        """Return the same executor with options; what is given replaces what this one has.

        Args:
            **given: ``name``, ``start``, ``timeout``, ``retries``, ``retry_on``, ``priority``,
                ``cancel_grace``, as in the host; ``detach=True`` lets the tasks go on when the
                function that has submitted them has ended, or was cancelled.

        Raises:
            TypeError: another option.
        """
        unknown = sorted(set(given) - set(OPTIONS))
        if unknown:
            raise TypeError(
                "options(%s=...) is not possible inside a task; what is possible: %s"
                % (unknown[0], ", ".join(OPTIONS))
            )
        _check(given)
        return RemoteExecutor(
            self._pool, self._max_workers, self._version, dict(self._options, **given)
        )

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> RemoteTask:
        """Schedule ``fn(*args, **kwargs)`` in the host's pool.

        Args:
            fn: a callable, or ``"package.module:function"`` or ``"path/to/file.py:function"``.
            *args: positional arguments; a task is replaced by its result.
            **kwargs: keyword arguments; as well.

        Returns:
            The task, a ``concurrent.futures.Future``. What cannot be pickled fails it, and so does
            a pool that accepts nothing.

        Raises:
            RuntimeError: the function that has this executor has ended.
            TypeError: ``fn`` is neither callable nor a target.
        """
        return self._submit(fn, args, kwargs, None)

    def _submit(self, fn: Any, args: Any, kwargs: Any, place: Optional[int]) -> RemoteTask:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        runner = running.main_loop
        if runner is None:
            raise RuntimeError("an executor of the host can be used inside its workers only")
        if not callable(fn):
            fn = _target(fn)
        options = self._options
        name = options["name"] or (fn if isinstance(fn, str) else injection.name_of(fn))
        if place is not None and not options["name"]:
            name = "%s[%d]" % (name, place)
        nested = runner.use_nested()
        task = RemoteTask(nested, name, options["detach"], self._tasks, options["retry_on"])
        dependencies = [
            value for value in (*args, *kwargs.values()) if isinstance(value, RemoteTask)
        ]
        if not dependencies and options["start"]:
            task.submit(lambda: self._send(task, fn, args, kwargs))
            return task

        def submit() -> None:
            task.submit(lambda: self._send(task, fn, *_resolved(args, kwargs)))

        task.defer(submit, dependencies)
        if options["start"]:
            task.start()
        else:
            nested.hold(task.number, self._head(task, "", 0, ""))
        return task

    def _head(self, task: RemoteTask, target: str, function: int, by_value: str) -> Any:
        """Return what the host reads of a call."""
        options = {
            key: self._options[key]
            for key in ("name", "timeout", "retries", "priority", "cancel_grace")
            if self._options[key] != OPTIONS[key]
        }
        if self._options["retry_on"] is not None:
            options["asks"] = True
        how = task.name, options, task.detached
        return (self._pool, target, function, *how, by_value)

    def _send(self, task: RemoteTask, fn: Any, args: Any, kwargs: Any) -> None:
        """Pickle a call and hand it to the host."""
        runner: Any = running.main_loop
        same = self._pool == runner.config["pool"]
        target, function = "", 0
        value: Tuple[Any, ...]
        if isinstance(fn, str):
            target, value = fn, (args, kwargs)
        else:
            running_function, number = runner.running_function() if same else (None, 0)
            # Its parent's function is known to the workers of this pool: the host names it.
            function = number if running_function is fn else 0
            value = (args, kwargs) if function else (fn, args, kwargs)
        theirs = ""
        if not same or not runner.channel.by_value:
            theirs = self._version or runner.config["version"]

        def submit(payload: Any, by_value: str, blocks: Any, hand_over: Any) -> None:
            head = self._head(task, target, function, "" if theirs else by_value)
            task.nested.submit(task.number, head, payload, blocks, hand_over)

        remote_calls.send(value, theirs, runner, submit)

    def map(
        self,
        fn: Any,
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Return an iterator of ``fn(*items)`` for the items of the iterables, zipped.

        Arguments as of the host's executor.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if not self._options["start"]:
            raise ValueError(
                "map with start=False would wait for tasks that cannot be started; use map_tasks"
            )
        end = None if timeout is None else timeout + time.monotonic()
        items = zip(*iterables)
        if chunksize > 1 and not return_exceptions and callable(fn):
            chunked = iter(lambda: tuple(itertools.islice(items, chunksize)), ())
            run = scripts.process_chunk
            tasks = (self._submit(run, (fn, chunk), {}, None) for chunk in chunked)
            results = _results(tasks, end, buffersize, ordered, False)
            return (value for chunk in results for value in chunk)
        tasks = (self._submit(fn, args, {}, None) for args in items)
        return _results(tasks, end, buffersize, ordered, return_exceptions)

    def map_tasks(self, fn: Any, *iterables: Iterable[Any]) -> List[RemoteTask]:
        """Submit ``fn(*items)`` for the items of the iterables, zipped; return the tasks."""
        return [self._submit(fn, args, {}, place) for place, args in enumerate(zip(*iterables))]

    def submit_script(
        self, path: Any, args: Sequence[str] = (), run_name: str = "__main__"
    ) -> RemoteTask:
        """Run a file in a worker as ``python path args...`` would."""
        full = os.path.abspath(os.path.expanduser(os.fspath(path)))
        if not os.path.isfile(full):
            raise FileNotFoundError("%r: there is no file %s" % (os.fspath(path), full))
        return self._submit(scripts.run_script, (full, run_name, *args), {}, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End this object, not the pool: accept nothing more, and wait for what it has submitted.

        Args:
            wait: return when all of it has finished.
            cancel_futures: cancel what has not started.
        """
        self._closed = True
        # Race: the reader takes out what has ended; ``list`` copies in one step.
        tasks = [task for task in list(self._tasks) if not task.done() and not task.unstarted]
        if cancel_futures:
            for task in tasks:
                task.cancel()
        if wait:
            for task in tasks:
                task.wait_for()

    def __reduce__(self) -> Any:
        changed = {key: value for key, value in self._options.items() if value != OPTIONS[key]}
        return remote_executor, (self._pool, self._max_workers, self._version, changed)

    def __repr__(self) -> str:
        return "<RemoteExecutor of pool %d of the host, %d workers>" % (
            self._pool,
            self._max_workers,
        )


def _check(options: Any) -> None:
    """Raise what the host would, for values that cannot be meant."""
    for key in ("timeout", "cancel_grace"):
        value = options.get(key)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0
        ):
            raise ValueError("%s must be a positive number of seconds, not %r" % (key, value))
    for key in ("retries", "priority"):
        value = options.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError("%s must be an integer, not %r" % (key, value))
    if options.get("retries", 0) < 0:
        raise ValueError("retries must be 0 or more, not %r" % options["retries"])
    wanted = options.get("retry_on")
    if wanted is not None and not callable(wanted) and not isinstance(wanted, tuple):
        raise TypeError(
            "retry_on must be exception types or a function of the exception, not %r" % (wanted,)
        )
    if options.get("name") is not None and not isinstance(options["name"], str):
        raise TypeError("name must be a string, not %r" % (options["name"],))


def _target(fn: Any) -> str:
    """Return a target; a path as this process sees it."""
    target = os.fspath(fn) if isinstance(fn, (str, os.PathLike)) else None
    if not isinstance(target, str):
        raise TypeError(
            "%r is neither callable nor a target like 'package.module:function'" % (fn,)
        )
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise ValueError(
            '%r is not a target: write "package.module:function" or "path/to/file.py:function"'
            % target
        )
    if where.endswith(".py") or "/" in where or os.sep in where:
        where = os.path.abspath(os.path.expanduser(where))
    return "%s:%s" % (where, name)


def _resolved(args: Any, kwargs: Any) -> Tuple[Any, Any]:
    """Return arguments with the results of the tasks among them.

    Raises:
        DependencyFailed: one of them has failed.
        CancelledError: one was cancelled.
    """

    def value_of(value: Any) -> Any:
        if not isinstance(value, RemoteTask):
            return value
        error = None if value.cancelled() else value.exception()
        if error is not None:
            from .remote_errors import failure_of

            said = "the task %r, an argument, failed: %s" % (value.name, describe(error))
            raise failure_of(("DependencyFailed",), said) from error
        return value.result()

    return tuple(map(value_of, args)), {key: value_of(value) for key, value in kwargs.items()}


def _results(
    tasks: Iterator[RemoteTask],
    end: Optional[float],
    buffersize: Optional[int],
    ordered: bool,
    return_exceptions: bool,
) -> Iterator[Any]:
    """Submit, at once but for the buffer; return an iterator of the results."""
    waiting = list(tasks if buffersize is None else itertools.islice(tasks, buffersize))
    return _yield_results(tasks, waiting, end, ordered, return_exceptions)


def _yield_results(
    more: Iterator[RemoteTask],
    waiting: List[RemoteTask],
    end: Optional[float],
    ordered: bool,
    return_exceptions: bool,
) -> Iterator[Any]:
    from concurrent.futures import FIRST_COMPLETED, wait

    waiting.reverse()
    try:
        while waiting:
            left = None if end is None else end - time.monotonic()
            if not ordered and not waiting[-1].done():
                done: Any = wait(waiting, left, FIRST_COMPLETED).done
                if not done:
                    raise WaitTimeout
                # Those that have finished come next, in the order in which they were submitted.
                waiting.sort(key=done.__contains__)
            task = waiting[-1]
            error = task.exception(left) if not task.cancelled() else None
            waiting.pop()
            waiting[:0] = itertools.islice(more, 1)
            if error is not None and return_exceptions:
                yield error
            else:
                yield task.result()
    finally:
        for task in waiting:
            task.ask_to_cancel()
