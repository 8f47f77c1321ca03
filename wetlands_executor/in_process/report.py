"""An ``InProcessExecutor`` as seen from outside, at one moment. Reads only; any thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wetlands_executor.futures.overview import LISTED, WorkerInfo, picture, task_entry

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
    from wetlands_executor.in_process.pool import ThreadPool


def workers(pool: ThreadPool) -> list[WorkerInfo]:
    """Return what the threads do, by index."""
    found = []
    for worker in pool.workers.alive.copy():
        run = worker.run
        found.append(
            WorkerInfo(
                index=worker.index,
                pid=os.getpid(),
                state="idle" if run is None else "busy",
                task=None if run is None else run.call.task.name,
                tasks_done=worker.finished,
                queue_depth=0,
                rss=None,
                cpu_percent=None,
                started_at=worker.started_at,
            )
        )
    return sorted(found, key=lambda info: info.index)


def _under_way(pool: ThreadPool) -> tuple[list[Task[Any]], list[Task[Any]]]:
    """Return the tasks that run, and those that wait: in the queue, for others, for a start."""
    running = [run.call.task for run in list(pool.runs)]
    waiting = [call.task for call in pool.queue.calls()]
    held = [*list(pool.held.dependents), *list(pool.held.unstarted)]
    return running, [*waiting, *(task for task in held if not task.done())]


def progress(pool: ThreadPool) -> dict[str, Any]:
    """Return the whole picture, of builtin types."""
    running, waiting = _under_way(pool)
    listed = [task_entry(task) for task in (*running, *waiting[:LISTED])]
    return picture(pool.stats, len(running), workers(pool), listed)


def find(pool: ThreadPool, identifier: str) -> Task[Any] | None:
    """Return a task by its id."""
    running, waiting = _under_way(pool)
    for task in (*running, *waiting):
        if task.id == identifier:
            return task
    return pool.stats.find(identifier)
