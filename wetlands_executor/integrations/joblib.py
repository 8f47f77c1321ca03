"""joblib: a backend whose calls run in the workers of a ``CondaEnvExecutor`` (extra ``joblib``).

``register()`` once, and then ``with joblib.parallel_config(backend="wetlands", env=...)``: what
scikit-learn and others do with joblib inside of it runs in that environment.

A batch of joblib becomes one task. Its functions and arguments are sent, not joblib's own object,
so that the environment need not have joblib; ``shipped/joblib_batch.py`` runs them there. An array
that comes again and again is put into shared memory once (``SharedInputs``).

Threads: joblib calls ``submit`` on the thread of the user and, for the next batch, on the callback
thread of the executor, under a lock of its own.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wetlands_executor import CondaEnvExecutor, share

try:
    import joblib
    from joblib.parallel import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
    )
except ImportError as error:
    raise ImportError(
        "wetlands_executor.integrations.joblib needs joblib 1.5 or newer (the extra 'joblib'): "
        f"python -m pip install 'wetlands-executor[joblib]' ({error})",
        name="joblib",
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor, Future

#: The function that runs a batch, in a file that is sent to the workers.
_RUN_BATCH: Final = f"{Path(__file__).with_name('shipped') / 'joblib_batch.py'}:run_batch"
#: Seconds between the steps that end what runs when a ``Parallel`` is aborted: the request to stop,
#: the interrupt, and the end of the worker.
ABORT_GRACE: Final = 0.5
#: What ``Parallel`` hands to each backend and what has no meaning here.
_IGNORED: Final = ("context", "prefer", "require", "temp_folder", "verbose")
#: Under which the backend was registered.
_names: list[str] = []


def register(name: str = "wetlands", *, make_default: bool = False) -> None:
    """Register the backend with joblib.

    Args:
        name: for ``parallel_config(backend=name)`` and ``Parallel(backend=name)``.
        make_default: use it wherever no backend is named.
    """
    _names.append(name)
    joblib.register_parallel_backend(name, WetlandsBackend, make_default=make_default)


def shutdown() -> None:
    """End the workers that were kept for the next call; what was submitted is finished."""
    _reusable.shutdown()


class WetlandsBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the calls of ``joblib.Parallel`` in worker processes of an environment.

    The workers stay for the next call that wants as many of the same environment; see ``shutdown``.

    Args:
        env: as of ``CondaEnvExecutor``; None is this environment.
        executor: an executor to use, which the caller ends, instead of one that is made; also a
            view of one.
        nesting_level, inner_max_num_threads: see joblib; the latter limits the threads of numerical
            libraries in each worker.
        **options: of ``CondaEnvExecutor``, such as ``preload``, ``initializer``, ``worker_env`` or
            ``task_timeout``. ``max_workers`` is joblib's ``n_jobs``.

    Raises:
        TypeError: ``executor`` together with an environment or options, or ``max_workers``.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    def __init__(
        self,
        env: Any = None,
        *,
        executor: Executor | None = None,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if executor is not None and (env is not None or options):
            given = ", ".join([*(["env"] if env is not None else []), *options])
            raise TypeError(f"an executor has its environment and options: leave out {given}")
        if executor is not None and not callable(getattr(executor, "options", None)):
            raise TypeError(
                f"{executor!r} is no executor of this library: give a CondaEnvExecutor, an "
                f"InProcessExecutor or a view of one"
            )
        if "max_workers" in options:
            raise TypeError("max_workers is n_jobs of joblib: parallel_config(..., n_jobs=4)")
        self._given = executor
        # Of a `Parallel` that says no number, as scikit-learn's: in this environment one job, as
        # joblib has it, needs no worker; in another one there is nothing to be saved.
        self.default_n_jobs = 1 if executor is None and env is None else -1
        self._options = {"env": env, **options}
        self._executor: Executor | None = executor
        self._inputs: SharedInputs | None = None
        self._batches: set[_Batch] = set()
        self._parallel: weakref.ref[Any] | None = None

    @property
    def parallel(self) -> Any:
        """The ``Parallel`` that uses this backend now; None if it was dropped."""
        return None if self._parallel is None else self._parallel()

    # --- what joblib asks

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of workers for a number of jobs, which may be negative.

        Raises:
            ValueError: it is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        most: int | None = getattr(self._given, "_max_workers", None)
        if n_jobs is None:
            return 1
        if n_jobs < 0:
            count: int = most or joblib.cpu_count()
            return max(count + 1 + n_jobs, 1)
        return n_jobs if most is None else min(n_jobs, most)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        max_nbytes: int | None = None,
        mmap_mode: str | None = None,
        **given: Any,
    ) -> int:
        """Prepare for a ``Parallel``; workers start with its first calls.

        Args:
            n_jobs: as in ``Parallel``.
            parallel: the ``Parallel``.
            max_nbytes: size of an array, in bytes, from which on it is shared; None shares none.
            mmap_mode: how; see ``SharedInputs``.
            **given: further options of ``Parallel``; those of ``CondaEnvExecutor`` replace those of
                this backend.

        Returns:
            The number of workers.

        Raises:
            FallbackToBackend: one job, in this environment: joblib runs it without any worker.
        """
        options = {**self._options, **{k: v for k, v in given.items() if k not in _IGNORED}}
        count = self.effective_n_jobs(n_jobs)
        if count == 1 and self._given is None and options["env"] is None:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self._parallel = None if parallel is None else weakref.ref(parallel)
        self._inputs = SharedInputs(max_nbytes, mmap_mode)
        if self._given is None:
            names = self.MAX_NUM_THREADS_VARS
            limits = thread_limits(count, self.inner_max_num_threads, names)
            self._executor = _reusable.get(count, options, limits)
        # With 1, joblib would call the functions in this process.
        return max(count, 2)

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Future[Any]:
        """Send a batch to the workers.

        Args:
            func: a ``BatchedCalls`` of joblib.
            callback: is called with the task when it has finished.
        """
        executor: Any = self._executor
        assert executor is not None, "joblib calls configure() first"
        calls = func.items
        if self._inputs is not None:
            calls = self._inputs.replace(calls)
        level = (self.nesting_level or 0) + 1
        batch = _Batch(callback)
        self._batches.add(batch)
        try:
            task: Future[Any] = executor.submit(_RUN_BATCH, calls, level, _names)
        except BaseException as error:
            self._batches.discard(batch)
            if isinstance(error, BrokenProcessPool):
                _reusable.forget(executor)  # an initializer has failed: the next call tries again
            raise
        batch.begin(task)
        task.add_done_callback(partial(self._report, batch))
        return task

    def _report(self, batch: _Batch, task: Future[Any]) -> None:
        """Tell joblib that a batch has finished, unless its call was aborted."""
        batch.report(task)
        self._batches.discard(batch)

    def apply_async(
        self, func: Any, callback: Callable[[Any], object] | None = None
    ) -> Future[Any]:
        """As ``submit``, whose name it was before joblib 1.5."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch.

        Raises:
            RuntimeError: it was cancelled, because its executor was ended.
            BaseException: what one of its calls has raised.
        """
        try:
            return out.result()
        except CancelledError as error:
            raise RuntimeError(
                f"a batch of this Parallel was cancelled: {error or 'its executor was shut down'}"
            ) from error

    def terminate(self) -> None:
        """Let go of what belongs to one call of ``Parallel``; the workers stay."""
        self._inputs = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what waits; ask what runs to stop, interrupt it, and end its worker.

        Other calls of ``Parallel`` that use this backend go on.

        Args:
            ensure_ready: has no meaning; the workers can be used at once.
        """
        del ensure_ready
        aborted = [batch for batch in self._batches.copy() if batch.is_aborting]
        for batch in aborted:
            batch.drop()
        # A report dispatches the next batch, which would join the next call of this `Parallel`.
        for batch in aborted:
            batch.wait_for_report()
        for batch in aborted:
            self._batches.discard(batch)
            batch.cancel()


class _Batch:
    """One batch under way, and the report of its end to joblib.

    Race: the reporting thread stores that it reports and then looks whether the batch was dropped;
    a thread that aborts drops it and then looks for a report. So either joblib is told nothing, or
    the thread that aborts waits until it was told. A lock around the report would be taken after
    joblib's own by one thread and before it by another.

    Args:
        callback: of joblib, with the ``Parallel`` that waits for it.
    """

    def __init__(self, callback: Callable[[Any], object] | None) -> None:
        self._callback = callback
        self._task: Future[Any] | None = None
        self._reporter: int | None = None
        # Locked until it was reported. No ``Event``: Ctrl-C in its ``wait`` could leave it so that
        # the thread that reports would wait in its ``set`` (CPython 3.14).
        self._reported = threading.Lock()
        self._reported.acquire()

    @property
    def is_aborting(self) -> bool:
        """True if its ``Parallel`` has begun to abort; joblib notes that before it says so."""
        return bool(getattr(getattr(self._callback, "parallel", None), "_aborting", True))

    def begin(self, task: Future[Any]) -> None:
        """Note the task that runs it."""
        self._task = task

    def report(self, task: Future[Any]) -> None:
        """Tell joblib of its end."""
        self._reporter = threading.get_ident()
        try:
            callback = self._callback
            if callback is not None:
                callback(task)
        finally:
            self._reported.release()

    def drop(self) -> None:
        """Tell joblib nothing any more."""
        self._callback = None

    def wait_for_report(self) -> None:
        """Wait until a report that another thread has begun is over."""
        if self._reporter not in (None, threading.get_ident()):
            self._reported.acquire()
            self._reported.release()

    def cancel(self) -> None:
        """Cancel its task, or ask it to stop."""
        if self._task is not None:
            self._task.cancel()


class Reusable:
    """The executor of the last call, kept for the next one, as loky's is.

    Programs make a new ``Parallel`` for each loop, and a start costs more than most loops. Any
    thread. Two that ask at the same moment may both make one; the first ends with its user.
    """

    def __init__(self) -> None:
        self._kept: tuple[int, tuple[Any, ...], CondaEnvExecutor] | None = None

    def get(
        self, count: int, options: Mapping[str, Any], limits: Mapping[str, str]
    ) -> CondaEnvExecutor:
        """Return an executor.

        Args:
            count: number of its workers.
            options: of ``CondaEnvExecutor``.
            limits: variables for its workers, as far as the options do not set them.
        """
        key = (count, limits, dict(options))
        kept = self._kept  # of another process after a fork, where it is of no use
        if kept is not None and kept[:2] == (os.getpid(), key):
            return kept[2]
        chosen = {
            "cancel_grace": ABORT_GRACE,
            **options,
            "worker_env": with_limits(options.get("worker_env"), limits),
        }
        made = CondaEnvExecutor(max_workers=count, **chosen)
        # The one before ends when what was submitted to it is done: nothing refers to it any more.
        self._kept = (os.getpid(), key, made)
        return made

    def forget(self, executor: object) -> None:
        """Do not use an executor again."""
        kept = self._kept
        if kept is not None and kept[2] is executor:
            self._kept = None

    def shutdown(self) -> None:
        """End what is kept."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == os.getpid():
            kept[2].shutdown()


_reusable = Reusable()


class SharedInputs:
    """The large arrays among the arguments of one call of ``Parallel``.

    joblib maps them from files; here an array goes into shared memory (``share``) when it comes for
    the second time, until the call ends. An array that comes once travels as any argument.

    Args:
        limit: size in bytes from which on an array is shared; None shares none.
        mode: ``"r"``: workers cannot write to it; ``"r+"`` or ``"w+"``: they write to memory that
            they share, not to the caller's array; ``"c"`` or None: each gets its own copy.
    """

    def __init__(self, limit: int | None, mode: str | None) -> None:
        self._limit = None if mode in (None, "c") else limit
        self._writable = mode in ("r+", "w+")
        # By id: an array (which so keeps its id), and the shared one as soon as there is one.
        self._known: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def replace(self, calls: Sequence[Any]) -> Sequence[Any]:
        """Return calls whose arrays are shared, as far as they are arguments or stand in one.

        Args:
            calls: functions, each with a tuple of positional and a mapping of keyword arguments.
        """
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return calls
        return [
            (
                function,
                [self._replaced(numpy, value) for value in args],
                {name: self._replaced(numpy, value) for name, value in kwargs.items()},
            )
            for function, args, kwargs in calls
        ]

    def _replaced(self, numpy: Any, value: Any) -> Any:
        kind = type(value)
        if kind is numpy.ndarray:
            return self._shared(value)
        if kind is numpy.memmap:
            return _Mapped.of(value) or value
        if (kind is list or kind is tuple) and len(value) <= 100:
            found = [self._replaced_within(numpy, each) for each in value]
            same = all(new is old for new, old in zip(found, value, strict=True))
            return value if same else kind(found)
        if kind is dict and len(value) <= 100:
            return {key: self._replaced_within(numpy, each) for key, each in value.items()}
        return value

    def _replaced_within(self, numpy: Any, value: Any) -> Any:
        """Look at what stands in a container, and not into further ones."""
        arrays = (numpy.ndarray, numpy.memmap)
        return self._replaced(numpy, value) if type(value) in arrays else value

    def _shared(self, array: Any) -> Any:
        if self._limit is None or array.nbytes < self._limit or array.dtype.hasobject:
            return array
        reference, shared = self._known.get(id(array), (None, None))
        if reference is None or reference() is not array:
            number = id(array)
            known = weakref.ref(array, lambda _: self._known.pop(number, None))
            shared = share(array, writable=True) if self._writable else None
            self._known[number] = (known, shared)
            if shared is None:
                view = array.view()
                view.flags.writeable = False
                return view
        elif shared is None:
            assert reference is not None
            shared = share(array)
            self._known[id(array)] = (reference, shared)
        return shared


class _Mapped:
    """A file that the caller has mapped: the worker maps it too, instead of getting a copy."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._arguments = arguments

    @classmethod
    def of(cls, array: Any) -> _Mapped | None:
        """Return what stands for a ``memmap``; None if the file alone cannot tell its content.

        That is so for every second row, for what was computed from one, and for a mapping that the
        caller's own writes do not reach the file of.
        """
        mapping = array
        while mapping is not None and not isinstance(mapping, mmap.mmap):
            mapping = getattr(mapping, "base", None)
        if mapping is None or array.filename is None or array.mode == "c":
            return None
        if not (array.flags.forc and array.nbytes):
            return None
        numpy = sys.modules["numpy"]
        start = numpy.frombuffer(mapping, numpy.uint8).__array_interface__["data"][0]
        within = array.__array_interface__["data"][0] - start
        offset = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + within
        mode = "r+" if array.mode == "w+" else array.mode  # "w+" would empty the file
        order = "C" if array.flags.c_contiguous else "F"
        path = os.path.abspath(array.filename)
        return cls((path, array.dtype, mode, offset, array.shape, order))

    def __reduce__(self) -> Any:
        return sys.modules["numpy"].memmap, self._arguments


def thread_limits(count: int, inner: int | None, names: Sequence[str]) -> dict[str, str]:
    """Return the variables that limit the threads of numerical libraries in each worker.

    Args:
        count: number of workers.
        inner: threads of each; None: what the processors allow, unless this process's variables
            say so.
        names: of the variables.
    """
    if inner is not None:
        return dict.fromkeys(names, str(inner))
    each = str(max(joblib.cpu_count() // count, 1))
    return {name: os.environ.get(name, each) for name in names}


def with_limits(given: Any, limits: Mapping[str, str]) -> Any:
    """Return ``worker_env`` with limits that it does not set itself."""
    if callable(given):
        return lambda index: {**limits, **given(index)}
    return {**limits, **(given or {})}
