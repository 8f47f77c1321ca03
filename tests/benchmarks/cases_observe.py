"""What a progress display costs: the same calls without one, and with one on a terminal."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from contextlib import nullcontext
from typing import Any

from wetlands_executor.observe import progress

from .model import Bound, Case


def _map(pool: Any, count: int, show: Callable[..., Any] | None) -> None:
    results = pool.map(abs, range(count))
    for _ in results if show is None else show(results):
        pass


def _submit(pool: Any, count: int, show: Callable[..., Any] | None) -> None:
    with nullcontext() if show is None else show(pool):
        for future in [pool.submit(abs, number) for number in range(count)]:
            future.result()


def _tasks(pool: Any, count: int, show: Callable[..., Any] | None) -> None:
    tasks = [pool.submit(abs, number) for number in range(count)]
    for _ in as_completed(tasks) if show is None else show(tasks):
        pass


def _read_all(descriptor: int) -> None:
    """Be the terminal's other end."""
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:
        pass  # EIO: nothing has it open any more


def _costs(way: Callable[..., None], executor: Any, count: int, show: Any) -> tuple[float, float]:
    """Return the seconds and the processor seconds of this process that a call takes."""
    began, used = time.perf_counter(), time.process_time()
    way(executor, count, show)
    return (time.perf_counter() - began) / count, (time.process_time() - used) / count


def observed(pool: Any, count: int) -> dict[str, float]:
    """Costs of ``count`` calls of ``abs``, without and with bars on a terminal, as one pair each.

    Which of the two comes first changes from run to run.
    """
    executor = pool.executor
    ours, theirs = os.openpty()
    reader = threading.Thread(target=_read_all, args=(ours,), daemon=True)
    reader.start()
    found = {}
    order = ("", " shown") if next(_RUNS) % 2 else (" shown", "")
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        with progress(executor, stream=terminal):  # imports what draws
            executor.submit(abs, 1).result()
        for name, way in WAYS.items():
            pair = {
                how: _costs(
                    way, executor, count,
                    (lambda what: progress(what, stream=terminal)) if how else None,
                )
                for how in order
            }  # fmt: skip
            for how, (seconds, _) in pair.items():
                found[name + how] = seconds
            for place, kind in enumerate(RATIOS):
                found[f"{name} {kind}"] = pair[" shown"][place] / pair[""][place]
    reader.join()
    os.close(ours)
    return found


WAYS = {"map": _map, "submit": _submit, "tasks": _tasks}
#: Of a pair with and without bars: what the first is divided by.
RATIOS = ("ratio", "ratio of processor time")
#: Numbers the runs of this process.
_RUNS = itertools.count()

CASES = [
    Case(
        "observe", "one of many calls of abs, by map, by submit, by as_completed; and with "
                   "a progress display on a terminal", observed, 100_000, 200,
        figures={
            **{name + how: "s" for name in WAYS for how in ("", " shown")},
            **{f"{name} {kind}": "count" for name in WAYS for kind in RATIOS},
        },
        systems=("ours",), repeats=20,
        bounds=tuple(
            Bound(f"100,000 short tasks by {name} slowed by less than 5%", 1.05, f"{name} ratio")
            for name in WAYS
        ),
        note="Ratios are of pairs: bars by none, one after the other in either order; the median "
             "counts. That of the processor time of this process, with the thread that draws, "
             "depends least on what else the machine does.",
    ),
]  # fmt: skip
