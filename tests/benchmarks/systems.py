"""The executors that are compared, each behind the same few methods.

Nothing is imported before a system is opened.

Each package appears with its defaults and, under a second name, at what its documentation says is
best for many small calls. None is tuned beyond that, ours included: it has no second name.

What a pool can do (``System.abilities``):

* ``call``: ``get(submit(fn, *args))`` makes one call and waits for its result;
* ``submit``: the same, and ``submit`` returns before the call has ended;
* ``many``: ``many(fn, calls)`` makes one call per tuple of arguments and waits for all; submits
  them one by one unless the package has its own way;
* ``map``: ``map(fn, items)`` returns all results, in the way that the package has for that;
* ``futures``: handles are ``concurrent.futures.Future``, and ``executor`` is an ``Executor``;
* ``start``: time from the constructor to the first result means something (no server that is
  already there).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


class Pool:
    """An open pool; see the module's text. This one is over a ``concurrent.futures.Executor``."""

    #: Further arguments of the package's ``map``.
    map_options: dict[str, Any] = {}

    def __init__(self, executor: Any, **map_options: Any) -> None:
        self.executor = executor
        self.submit = executor.submit
        self.map_options = map_options

    get = staticmethod(operator.methodcaller("result"))

    def many(self, fn: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        submit, get = self.submit, self.get
        return [get(handle) for handle in [submit(fn, *args) for args in calls]]

    def burst(self, calls: Iterable[tuple[Any, ...]]) -> float:
        """Make calls (function, *arguments), all submitted before the first result is asked for.

        Return the seconds that they took together.
        """
        submit, get = self.submit, self.get
        start = time.perf_counter()
        for handle in [submit(*call) for call in calls]:
            get(handle)
        return time.perf_counter() - start

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return list(self.executor.map(fn, items, **self.map_options))

    def close(self) -> None:
        self.executor.shutdown()


@dataclass(frozen=True)
class System:
    """A way to make calls.

    Attributes:
        name: for ``--systems``.
        title: for the report; says what is not a default.
        package: distribution that it needs; empty for the standard library and for ours.
        open: workers -> Pool.
        abilities: see the module's text.
        busy: its processes work while it is idle (more than 50 context switches a second in the
            case ``idle``): they are started for each run and ended after it, so that they do not
            disturb the others.
    """

    name: str
    title: str
    package: str
    open: Callable[[int], Any]
    abilities: frozenset[str]
    busy: bool = False

    def installed(self) -> bool:
        """Return True if its package can be used here."""
        if not self.package:
            return True
        try:
            importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return False
        return True

    def version(self) -> str:
        """Return its package's version; empty if it has none."""
        return importlib.metadata.version(self.package) if self.package else ""


# --- ours and the standard library


def _ours(workers: int) -> Pool:
    from wetlands_executor import CondaEnvExecutor

    return Pool(CondaEnvExecutor(max_workers=workers))


def _process_pool(method: str, **map_options: Any) -> Callable[[int], Pool]:
    def open_pool(workers: int) -> Pool:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        return Pool(
            ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method)),
            **map_options,
        )

    return open_pool


def _threads(workers: int) -> Pool:
    from concurrent.futures import ThreadPoolExecutor

    return Pool(ThreadPoolExecutor(workers))


class _MultiprocessingPool(Pool):
    """``multiprocessing.Pool``; its ``map`` makes chunks by default."""

    def __init__(self, workers: int, method: str) -> None:
        import multiprocessing

        self.executor = multiprocessing.get_context(method).Pool(workers)

    get = staticmethod(operator.methodcaller("get"))

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.executor.apply_async(fn, args)

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return self.executor.map(fn, items)

    def close(self) -> None:
        self.executor.close()
        self.executor.join()


# --- from the package index


def _loky(workers: int) -> Pool:
    import loky

    return Pool(loky.ProcessPoolExecutor(workers))


def _loky_reused(workers: int) -> Pool:
    import loky

    return Pool(loky.get_reusable_executor(max_workers=workers), chunksize=64)


class _Pebble(Pool):
    def __init__(self, workers: int, **map_options: Any) -> None:
        import pebble

        self.executor = pebble.ProcessPool(max_workers=workers)
        self.map_options = map_options

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.executor.schedule(fn, args=list(args))

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return list(self.executor.map(fn, items, **self.map_options).result())

    def close(self) -> None:
        self.executor.close()
        self.executor.join()


class _Joblib(Pool):
    """One ``Parallel`` per call, which is its default, or one for all (``with Parallel(...)``),
    which its documentation recommends for many.

    With one worker it would make the calls in this process: it gets two then.
    """

    def __init__(self, workers: int, reuse: bool) -> None:
        import joblib

        self.delayed = joblib.delayed
        self.make = lambda: joblib.Parallel(n_jobs=max(2, workers))
        self.shared = self.make().__enter__() if reuse else None

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return (self.shared or self.make())([self.delayed(fn)(*args)])[0]

    get = staticmethod(lambda value: value)

    def many(self, fn: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        return (self.shared or self.make())(self.delayed(fn)(*args) for args in calls)

    def burst(self, calls: Iterable[tuple[Any, ...]]) -> float:
        start = time.perf_counter()
        (self.shared or self.make())(self.delayed(fn)(*args) for fn, *args in calls)
        return time.perf_counter() - start

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return (self.shared or self.make())(self.delayed(fn)(item) for item in items)

    def close(self) -> None:
        if self.shared is not None:
            self.shared.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()


class _Mpire(Pool):
    """Its ``map`` makes chunks by default.

    ``keep_alive`` is what its documentation recommends for repeated maps.
    """

    def __init__(self, workers: int, keep_alive: bool) -> None:
        import mpire

        self.executor = mpire.WorkerPool(n_jobs=workers, keep_alive=keep_alive)

    get = staticmethod(operator.methodcaller("get"))

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.executor.apply_async(fn, args)

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return self.executor.map(fn, items)

    def close(self) -> None:
        self.executor.stop_and_join()


def _executorlib(block_allocation: bool) -> Callable[[int], Pool]:
    def open_pool(workers: int) -> Pool:
        import executorlib

        return Pool(
            executorlib.SingleNodeExecutor(max_workers=workers, block_allocation=block_allocation)
        )

    return open_pool


class _Dask(Pool):
    """Processes with one thread each; ``pure=False``, or equal calls would be made once."""

    def __init__(self, workers: int, **map_options: Any) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self.executor = Client(self.cluster)
        self.map_options = map_options

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.executor.submit(fn, *args, pure=False)

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return self.executor.gather(
            self.executor.map(fn, list(items), pure=False, **self.map_options)
        )

    def close(self) -> None:
        self.executor.close()
        self.cluster.close()


class _DaskOurs(_Dask):
    """Our executor on the same cluster, with one worker below each of its processes."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        from wetlands_executor.integrations.dask import DaskEnvExecutor

        self.client, self.executor = self.executor, DaskEnvExecutor(self.executor)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.executor.submit(fn, *args)

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return list(self.executor.map(fn, items))

    def close(self) -> None:
        self.executor.shutdown()
        self.client.close()
        self.cluster.close()


class _JoblibOurs(_Joblib):
    """Our backend, with one ``Parallel`` per call; its workers stay, as loky's do."""

    def __init__(self, workers: int) -> None:
        import joblib

        from wetlands_executor.integrations.joblib import register

        register()
        super().__init__(workers, False)
        self.make = lambda: joblib.Parallel(n_jobs=max(2, workers), backend="wetlands")

    def close(self) -> None:
        from wetlands_executor.integrations.joblib import shutdown

        shutdown()


class _Ray(Pool):
    """Remote functions, which is how its documentation begins, or actors, which it recommends for
    many small calls.
    """

    def __init__(self, workers: int, actors: bool) -> None:
        import ray

        self.ray = ray
        ray.init(
            num_cpus=workers, include_dashboard=False, configure_logging=False, log_to_driver=False
        )
        self.get = ray.get
        self.remotes: dict[Any, Any] = {}
        self.actors: Any = None
        if actors:
            self.actors = itertools.cycle([ray.remote(_Actor).remote() for _ in range(workers)])

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        if self.actors is not None:
            return next(self.actors).call.remote(fn, *args)
        remote = self.remotes.get(fn)
        if remote is None:
            remote = self.remotes[fn] = self.ray.remote(fn)
        return remote.remote(*args)

    def many(self, fn: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        return self.get([self.submit(fn, *args) for args in calls])

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return self.get([self.submit(fn, item) for item in items])

    def close(self) -> None:
        self.ray.shutdown()


class _Actor:
    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        return fn(*args)


_ALL = frozenset(("call", "submit", "many", "map", "futures", "start"))
_HANDLES = _ALL - {"futures"}
_MAP = frozenset(("map",))
_SERVER = _HANDLES - {"start"}

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("ours", "CondaEnvExecutor", "", _ours, _ALL),
        System("ppe-spawn", "ProcessPoolExecutor (spawn)", "", _process_pool("spawn"), _ALL),
        System("ppe-fork", "ProcessPoolExecutor (fork)", "", _process_pool("fork"), _ALL),
        System(
            "ppe-spawn-64",
            "ProcessPoolExecutor (spawn), chunksize=64",
            "",
            _process_pool("spawn", chunksize=64),
            _MAP,
        ),
        System(
            "pool-spawn",
            "multiprocessing.Pool (spawn)",
            "",
            lambda workers: _MultiprocessingPool(workers, "spawn"),
            _HANDLES,
        ),
        System(
            "pool-fork",
            "multiprocessing.Pool (fork)",
            "",
            lambda workers: _MultiprocessingPool(workers, "fork"),
            _HANDLES,
        ),
        System("loky", "loky", "loky", _loky, _ALL),
        System("loky-64", "loky, reused executor, chunksize=64", "loky", _loky_reused, _MAP),
        System("pebble", "pebble", "pebble", lambda workers: _Pebble(workers), _HANDLES),
        System(
            "pebble-64",
            "pebble, chunksize=64",
            "pebble",
            lambda workers: _Pebble(workers, chunksize=64),
            _MAP,
        ),
        System(
            "joblib",
            "joblib",
            "joblib",
            lambda workers: _Joblib(workers, False),
            frozenset(("call", "many", "map")),
        ),
        System(
            "joblib-reused",
            "joblib, with Parallel()",
            "joblib",
            lambda workers: _Joblib(workers, True),
            frozenset(("call", "many", "map")),
        ),
        System(
            "mpire", "mpire", "mpire", lambda workers: _Mpire(workers, False), _HANDLES, busy=True
        ),
        System(
            "mpire-alive",
            "mpire, keep_alive",
            "mpire",
            lambda workers: _Mpire(workers, True),
            _MAP,
            busy=True,
        ),
        System("executorlib", "executorlib", "executorlib", _executorlib(False), _ALL, busy=True),
        System(
            "executorlib-block",
            "executorlib, block_allocation",
            "executorlib",
            _executorlib(True),
            _ALL,
            busy=True,
        ),
        System(
            "dask",
            "dask.distributed, one thread a process",
            "distributed",
            lambda workers: _Dask(workers),
            _HANDLES,
            busy=True,
        ),
        System(
            "dask-64",
            "dask.distributed, batch_size=64",
            "distributed",
            lambda workers: _Dask(workers, batch_size=64),
            _MAP,
            busy=True,
        ),
        System(
            "ray",
            "ray, remote functions",
            "ray",
            lambda workers: _Ray(workers, False),
            _HANDLES,
            busy=True,
        ),
        System(
            "ray-actors",
            "ray, actors",
            "ray",
            lambda workers: _Ray(workers, True),
            _SERVER,
            busy=True,
        ),
        System(
            "ours-dask",
            "DaskEnvExecutor, one thread of Dask and one worker a process",
            "distributed",
            _DaskOurs,
            frozenset(("cluster",)),
            busy=True,
        ),
        System(
            "joblib-ours",
            "joblib, backend wetlands",
            "joblib",
            _JoblibOurs,
            frozenset(("grid",)),
        ),
        System(
            "threads", "ThreadPoolExecutor (no processes)", "", _threads, frozenset(("threads",))
        ),
    )
}
