"""Starting, idling, dying."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from . import functions
from .held import Held
from .model import Bound, Case
from .systems import Pool

PRELOAD = ("numpy", "scipy.ndimage")


# --- starting


def first_result(system: Any, count: int) -> dict[str, float]:
    """Seconds from the constructor to the first result."""
    start = time.perf_counter()
    pool = system.open(1)
    pool.get(pool.submit(functions.nothing))
    taken = time.perf_counter() - start
    pool.close()
    return {"time": taken}


def _ours_preloaded(workers: int) -> Pool:
    from wetlands_executor import CondaEnvExecutor

    return Pool(CondaEnvExecutor(max_workers=workers, preload=PRELOAD))


def _ours_sharing(workers: int) -> Pool:
    import inspect

    from wetlands_executor import CondaEnvExecutor

    if "share_preload" not in inspect.signature(CondaEnvExecutor).parameters:
        raise NotImplementedError("CondaEnvExecutor has no parameter share_preload")
    options: dict[str, Any] = {"share_preload": True}
    return Pool(CondaEnvExecutor(max_workers=workers, preload=PRELOAD, **options))


def _spawned(workers: int) -> Pool:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return Pool(
        ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=functions.import_numeric,
        )
    )


class _ForkServerPool(Pool):
    """The server belongs to the process.

    It is ended with the pool, or only the first pool would pay for its start.
    """

    def __init__(self, workers: int) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOAD))
        super().__init__(ProcessPoolExecutor(workers, mp_context=context))

    def close(self) -> None:
        from multiprocessing import forkserver

        super().close()
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


_WAYS: dict[str, Callable[[int], Pool]] = {
    "ours": _ours_preloaded,
    "ours-shared": _ours_sharing,
    "ppe-spawn": _spawned,
    "ppe-forkserver": _ForkServerPool,
}


def preloaded(way: str) -> Callable[[int], dict[str, float]]:
    """Return the measure: seconds until all workers have started and used numpy and scipy.

    Memory of all processes that were started.
    """

    def measure(workers: int) -> dict[str, float]:
        start = time.perf_counter()
        pool = _WAYS[way](workers)
        try:
            held = Held(pool, workers, functions.use_numeric)
            taken = time.perf_counter() - start
            pss, uss, rss = _memory(psutil.Process().children(recursive=True))
            held.finish()
        finally:
            pool.close()
        return {"time": taken, "pss": pss, "uss": uss, "rss": rss}

    return measure


def _memory(processes: Iterable[psutil.Process]) -> tuple[float, float, float]:
    pss = uss = rss = 0
    for process in processes:
        try:
            found = process.memory_full_info()
        except psutil.NoSuchProcess:
            # a package that ends its processes when they have nothing to do
            continue
        pss, uss, rss = pss + getattr(found, "pss", 0), uss + found.uss, rss + found.rss
    return float(pss), float(uss), float(rss)


# --- dying


def killed(system: Any, count: int) -> dict[str, float]:
    """Seconds from the SIGKILL of a worker to the exception of the task that it ran."""
    pool = system.open(2)
    with tempfile.TemporaryDirectory(prefix="wetlands-benchmark-") as folder:
        path = os.path.join(folder, "pid")
        os.mkfifo(path)
        for handle in [pool.submit(functions.nap, 0.05) for _ in range(4)]:
            pool.get(handle)
        victim = pool.submit(functions.await_death, path)
        with open(path, encoding="ascii") as stream:
            pid = int(stream.read())
        open(path + ".again", "w").close()
        start = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        try:
            pool.get(victim)
        except Exception:
            taken = time.perf_counter() - start
        else:
            raise AssertionError("a call whose worker was killed has a result")
    try:
        pool.close()
    except Exception as error:
        print("closing after the kill:", type(error).__name__, error, file=sys.stderr)
    return {"time": taken}


# --- idling


def idle(pool: Any, count: int) -> dict[str, float]:
    """Context switches of all threads of an idle pool, here and in its processes, and memory of a
    worker that has imported nothing.
    """
    for handle in [pool.submit(functions.nap, 0.05) for _ in range(4)]:
        pool.get(handle)
    del handle
    gc.collect()
    children = psutil.Process().children(recursive=True)
    pids = [os.getpid(), *(child.pid for child in children)]
    time.sleep(min(1.0, count / 10))  # what is still on its way to sleep is not idle yet
    before = _switches(pids)
    time.sleep(count)
    after = _switches(pids)
    return {
        "switches": sum(after.values())
        - sum(before[thread] for thread in after if thread in before),
        "uss": _memory(children)[1] / 2,
    }


def _switches(pids: Iterable[int]) -> dict[tuple[int, int], int]:
    """Return the context switches of each thread but this one, which has to wake up to count them.
    """
    found: dict[tuple[int, int], int] = {}
    me = (os.getpid(), threading.get_native_id())
    for path in (path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/status")):
        thread = (int(path.parts[2]), int(path.parts[4]))
        if thread != me:
            with contextlib.suppress(OSError):  # it has ended
                found[thread] = sum(
                    int(line.split()[1])
                    for line in path.read_text(encoding="ascii").splitlines()
                    if "ctxt_switches" in line
                )
    return found


_MEGABYTE = 1_000_000

CASES = [
    Case(
        "start", "first result, from the constructor, 1 worker", first_result, 1, 1, workers=0,
        ability="start", repeats=9,
        bounds=(
            Bound("at most 0.5x ProcessPoolExecutor(spawn)", 0.5, of=("ppe-spawn",)),
            Bound("stretch: 15 ms", 0.015),
        ),
        note="Forking (ppe-fork, pool-fork) starts no interpreter. It cannot reach another "
             "environment, and is unsafe where threads run.",
    ),
    Case(
        "preload", "16 workers with numpy and scipy imported and used once", lambda pool, count: {},
        16, 2,
        figures={"time": "s", "pss": "bytes", "uss": "bytes", "rss": "bytes"}, systems=(),
        others={way: preloaded(way) for way in _WAYS}, repeats=3, limit=120,
        bounds=(
            Bound(
                "shared preload: at most 20% of the memory (PSS) of separate starts", 0.2, "pss",
                ("ours",), system="ours-shared",
            ),
            Bound(
                "shared preload: at most 10% of the time of separate starts", 0.1, "time",
                ("ours",), system="ours-shared",
            ),
        ),
        note="Memory of all processes that were started, a fork server included; PSS counts "
             "shared pages in parts, USS not at all. Sixteen "
        "imports on n cores last at least 16/n of one, so that one alone takes n/16 of their "
        "time: 12.5% on two cores, 6.3% on one.",
    ),
    Case(
        "preload-pinned", "the same with all processes on one core", lambda pool, count: {}, 16, 2,
        figures={"time": "s"}, systems=(), others={way: preloaded(way) for way in _WAYS},
        pinned=True, repeats=3, limit=120,
        bounds=(
            Bound(
                "shared preload: at most 10% of the time of separate starts", 0.1, "time",
                ("ours",), system="ours-shared",
            ),
        ),
    ),
    Case(
        "killed", "SIGKILL of a worker until its task's exception, 2 workers", killed, 1, 1,
        workers=0, repeats=9, limit=10,
        bounds=(
            Bound(
                "no later than ProcessPoolExecutor's", 1.0, of=("ppe-spawn", "ppe-fork"),
                stretch=0.5,
            ),
        ),
        note="Systems that run the call again are measured until they give up. "
             "ProcessPoolExecutor and loky lose all other calls as well.",
    ),
    Case(
        "idle", "an idle pool for 10 s, 2 workers", idle, 10, 1,
        figures={"switches": "count", "uss": "bytes"}, repeats=1, limit=60,
        bounds=(
            Bound("no context switch of any thread or worker", 0, "switches"),
            Bound(
                "a bare worker takes at most 8 MB (USS)", 8 * _MEGABYTE, "uss",
                stretch=5 * _MEGABYTE,
            ),
        ),
        note="Memory of all processes that were started, divided by the number of workers.",
    ),
]  # fmt: skip
