"""Host programs that tests run in a process of their own.

``python -m tests.tasks.hosts name args...``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.programs import run
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, TaskEvent
from wetlands_executor.pool import lifecycle


def rss() -> int:
    """Return this process's resident memory in bytes."""
    import gc

    import psutil

    gc.collect()
    return int(psutil.Process().memory_info().rss)


def flood(count: str, how: str) -> None:
    """Print by how many bytes this process has grown under a flood of updates, and the last report.
    """
    blocked = threading.Event()

    def slow(event: TaskEvent) -> None:
        blocked.wait(60)

    with CondaEnvExecutor(max_workers=1) as ex:
        ex.submit(workload.flood, 1000).result()
        if how == "slow":
            ex.options(start=False).submit(workload.report, 1).listen(slow).start().result()
        before = rss()
        task = ex.options(start=False).submit(workload.flood, int(count))
        if how == "slow":
            task.listen(slow)
            ex.listen(slow)
        task.start().result()
        grown = rss() - before
        blocked.set()
        print(grown, task.current)


def many(count: str) -> None:
    """Print by how many bytes this process grows with ``count`` short tasks, after a first tenth of
    them.
    """
    total = int(count)
    with CondaEnvExecutor(max_workers=2) as ex:
        seen = [0]

        def run(number: int) -> None:
            for _ in range(number // 1000):
                tasks = [ex.submit(workload.add, index) for index in range(1000)]
                for task in tasks:
                    task.result()
                    seen[0] += 1

        run(total // 10)
        before = rss()
        run(total - total // 10)
        grown = rss() - before
        progress = ex.get_progress()
        print(grown, seen[0], progress["completed"], len(progress["tasks"]))


@contextlib.contextmanager
def attentive_sleep() -> Iterator[Callable[[float], object]]:
    """Give a ``time.sleep`` that a signal ends even if it has come just before the sleep began.

    CPython looks for it after the sleep then.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    try:
        yield lambda seconds: select.select([read], [], [], seconds)
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def interrupted(kind: str, path: str, seconds: str) -> None:
    """Block in ``with`` until Ctrl-C; print what became of the tasks."""
    lifecycle.INTERRUPT_AFTER = float(seconds)
    calls: dict[str, Any] = {
        "cooperative": workload.cooperate_by_update,
        "sleeping": workload.sleep_on,
        "stubborn": workload.stubborn,
    }
    running = queued = None
    ready = threading.Event()
    try:
        with CondaEnvExecutor(max_workers=1) as ex:
            args = () if kind == "cooperative" else ("/nowhere", "running", path)
            running = ex.options(start=False).submit(calls[kind], *args)
            running.listen(lambda event: ready.set())
            running.start()
            queued = ex.submit(workload.note, path, "queued ran")
            assert ready.wait(30)
            with attentive_sleep() as sleep:
                print("ready", flush=True)
                sleep(60)
    except KeyboardInterrupt:
        assert running is not None
        assert queued is not None
        print("left", running.status.value, queued.status.value, flush=True)


def exiting(path: str) -> None:
    """Leave ``with`` by SystemExit while a cooperative task runs."""
    ready = threading.Event()
    with CondaEnvExecutor(max_workers=1) as ex:
        running = ex.options(start=False).submit(workload.cooperate_by_update)
        running.listen(lambda event: ready.set())
        running.add_done_callback(lambda task: print("ended", running.status.value, flush=True))
        running.start()
        queued = ex.submit(workload.note, path, "queued ran")
        queued.add_done_callback(lambda task: print("queued", queued.status.value, flush=True))
        assert ready.wait(30)
        sys.exit(7)


def interrupted_async(kind: str, path: str, seconds: str, how: str) -> None:
    """Block in ``async with`` until a signal; print what became of the tasks.

    Args:
        kind: what runs.
        path: what it writes to.
        seconds: between the request, the interrupt, and the end of the worker.
        how: "inside" the block, or while it "ends"; "handler" cancels the block at SIGTERM.
    """
    import asyncio
    import signal

    lifecycle.INTERRUPT_AFTER = float(seconds)
    calls: dict[str, Any] = {
        "cooperative": workload.cooperate_by_update,
        "sleeping": workload.sleep_on,
        "stubborn": workload.stubborn,
    }
    tasks: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        if how == "handler":
            current = asyncio.current_task()
            assert current is not None
            loop.add_signal_handler(signal.SIGTERM, current.cancel)
        async with CondaEnvExecutor(max_workers=1) as ex:
            args = () if kind == "cooperative" else ("/nowhere", "running", path)
            running = ex.options(start=False).submit(calls[kind], *args)
            running.listen(lambda event: loop.call_soon_threadsafe(ready.set))
            running.start()
            tasks.extend((running, ex.submit(workload.note, path, "queued ran")))
            await ready.wait()
            print("ready", flush=True)
            if how != "ends":
                await asyncio.sleep(60)

    try:
        asyncio.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        print("left", *(task.status.value for task in tasks), type(error).__name__, flush=True)
        print(tasks[1].error, flush=True)


def in_process_left_behind() -> None:
    """End while a function goes on whose time was over."""
    import time

    from wetlands_executor import InProcessExecutor

    with InProcessExecutor(1) as ex:
        print(ex.options(timeout=0.05).submit(time.sleep, 600).wait_for(60).status.name)
        print(ex.submit(pow, 2, 3).result(60))


if __name__ == "__main__":
    run(globals())
