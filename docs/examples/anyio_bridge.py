"""Tasks in anyio, on any of its backends: wait for one, cancel it with the wait.

A callback of the task wakes the waiting anyio task through a ``BlockingPortal``, which may be
called from any thread. On the asyncio backend ``await task`` does the same.

Run it with ``python anyio_bridge.py [environment]``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from wetlands_executor import CondaEnvExecutor, Task

T = TypeVar("T")

#: What runs in a worker.
SLOW = f"{Path(__file__).with_name('slow.py')}:count"


async def result(task: Task[T]) -> T:
    """Wait for a task. If the wait is cancelled, the task is asked to stop."""
    finished = anyio.Event()
    async with anyio.from_thread.BlockingPortal() as portal:

        def wake(_task: object) -> None:
            try:
                portal.start_task_soon(finished.set)
            except RuntimeError:
                pass  # the wait was cancelled before: the portal is closed

        task.add_done_callback(wake)
        try:
            await finished.wait()
        except anyio.get_cancelled_exc_class():
            task.cancel()
            raise
    return task.result()


async def main(environment: str | None = None) -> dict[str, Any]:
    """Return what was seen, for the tests."""
    executor = CondaEnvExecutor(environment, max_workers=2)
    try:
        results: dict[int, int] = {}

        async def one(steps: int) -> None:
            results[steps] = await result(executor.submit(SLOW, steps, 0.01))

        async with anyio.create_task_group() as group:
            for steps in (1, 2, 3):
                group.start_soon(one, steps)
        print("results:", results)

        endless = executor.submit(SLOW, 1_000_000, 0.01)
        with anyio.move_on_after(0.3):
            await result(endless)
        await anyio.to_thread.run_sync(endless.wait_for)
        print("endless:", endless.status.value)
    finally:
        await anyio.to_thread.run_sync(executor.shutdown)
    return {"results": results, "endless": endless.status.value}


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:2])
