"""What a progress display costs: the same calls without one, and with one on a terminal."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from contextlib import nullcontext
from typing import Any

from wetlands_executor.observe import progress

from .model import Case


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


def observed(pool: Any, count: int) -> dict[str, float]:
    """Seconds of ``count`` calls of ``abs``, without and with bars on a terminal."""
    executor = pool.executor
    ours, theirs = os.openpty()
    reader = threading.Thread(target=_read_all, args=(ours,), daemon=True)
    reader.start()
    found = {}
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        with progress(executor, stream=terminal):  # imports what draws
            executor.submit(abs, 1).result()
        for name, way in (("map", _map), ("submit", _submit), ("tasks", _tasks)):
            for how in ("", " shown"):
                show = (lambda what: progress(what, stream=terminal)) if how else None
                began = time.perf_counter()
                way(executor, count, show)
                found[name + how] = (time.perf_counter() - began) / count
    reader.join()
    os.close(ours)
    return found


CASES = [
    Case(
        "observe", "one of many calls of abs, by map, by submit, by as_completed; and with "
                   "a progress display on a terminal", observed, 100_000, 200,
        figures=dict.fromkeys(
            ("map", "map shown", "submit", "submit shown", "tasks", "tasks shown"), "s"
        ),
        systems=("ours",),
    ),
]  # fmt: skip
