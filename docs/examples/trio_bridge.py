"""Tasks in trio: wait for one, cancel it with the wait, follow its events.

trio has no Future. A callback of the task wakes the waiting trio task through ``run_sync_soon``,
which may be called from any thread.

Run it with ``python trio_bridge.py [environment]``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import trio

from wetlands_executor import CondaEnvExecutor, Task, TaskEvent

T = TypeVar("T")

#: What runs in a worker.
SLOW = f"{Path(__file__).with_name('slow.py')}:count"


async def result(task: Task[T]) -> T:
    """Wait for a task. If the wait is cancelled, the task is asked to stop."""
    token = trio.lowlevel.current_trio_token()
    finished = trio.Event()

    def wake(_task: object) -> None:
        try:
            token.run_sync_soon(finished.set)
        except trio.RunFinishedError:
            pass  # trio has ended: no trio task waits any more

    task.add_done_callback(wake)
    try:
        await finished.wait()
    except trio.Cancelled:
        task.cancel()
        raise
    return task.result()


async def events(task: Task[Any]) -> AsyncIterator[TaskEvent]:
    """Yield what happens to a task, up to its end."""
    token = trio.lowlevel.current_trio_token()
    send, receive = trio.open_memory_channel[TaskEvent](float("inf"))

    def dispatch(_callback: object, event: TaskEvent) -> None:
        try:
            token.run_sync_soon(send.send_nowait, event)
        except trio.RunFinishedError:
            pass

    listener = send.send_nowait
    task.listen(listener, dispatch)
    try:
        async for event in receive:
            yield event
            if event.type.is_terminal:
                return
    finally:
        task.remove_listener(listener)


async def main(environment: str | None = None) -> dict[str, Any]:
    """Return what was seen, for the tests."""
    executor = CondaEnvExecutor(environment, max_workers=2)
    try:
        results: dict[int, int] = {}

        async def one(steps: int) -> None:
            results[steps] = await result(executor.submit(SLOW, steps, 0.01))

        async with trio.open_nursery() as nursery:
            for steps in (1, 2, 3):
                nursery.start_soon(one, steps)
        print("results:", results)

        kinds = [event.type.value async for event in events(executor.submit(SLOW, 5, 0.01))]
        print("events:", kinds[0], "...", kinds[-1])

        endless = executor.submit(SLOW, 1_000_000, 0.01)
        with trio.move_on_after(0.3):
            await result(endless)
        await trio.to_thread.run_sync(endless.wait_for)
        print("endless:", endless.status.value)
    finally:
        await trio.to_thread.run_sync(executor.shutdown)
    return {
        "results": results,
        "first": kinds[0],
        "last": kinds[-1],
        "endless": endless.status.value,
    }


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:2])
