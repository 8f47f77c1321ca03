"""From an event loop."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import Any

from . import functions
from .model import Case, faster

_EXECUTORS = ("ours", "ppe-spawn", "ppe-fork", "loky", "threads")


def in_executor(pool: Any, count: int) -> dict[str, float]:
    """Seconds for a ``gather`` of ``count`` no-ops through ``run_in_executor``."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        await asyncio.gather(
            *(loop.run_in_executor(pool.executor, functions.nothing) for _ in range(count))
        )
        return time.perf_counter() - start

    return {"time": asyncio.run(main())}


def awaited(pool: Any, count: int) -> dict[str, float]:
    """Seconds for a ``gather`` of ``count`` tasks.

    What cannot be awaited is wrapped, as asyncio offers it.
    """

    async def main() -> float:
        start = time.perf_counter()
        tasks = [pool.submit(functions.nothing) for _ in range(count)]
        await asyncio.gather(
            *(task if hasattr(task, "__await__") else _wrapped(task) for task in tasks)
        )
        return time.perf_counter() - start

    return {"time": asyncio.run(main())}


def _wrapped(future: Future[Any]) -> asyncio.Future[Any]:
    return asyncio.wrap_future(future)


_BOUNDS = (
    faster(2, "ppe-spawn", "ppe-fork", text="2x faster than ProcessPoolExecutor"),
    faster(1, "threads", text="stretch: the thread pool's rate"),
)

CASES = [
    Case(
        "asyncio-executor",
        "asyncio: gather of 2,000 run_in_executor, 2 workers",
        in_executor,
        2000,
        20,
        systems=_EXECUTORS,
        bounds=_BOUNDS,
    ),
    Case(
        "asyncio-tasks",
        "asyncio: gather of 2,000 tasks, 2 workers",
        awaited,
        2000,
        20,
        systems=_EXECUTORS,
        bounds=_BOUNDS,
    ),
]
