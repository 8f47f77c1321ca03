"""An ``InProcessExecutor`` as seen from outside, at one moment. Reads only; any thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wetlands_executor.pool.report import LISTED, WorkerInfo, task_entry, worker_entry

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
    from wetlands_executor.in_process.home import ThreadHome


def workers(home: ThreadHome) -> list[WorkerInfo]:
    """Return what the threads do, by index."""
    found = []
    for worker in home.workers.alive.copy():
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


def _under_way(home: ThreadHome) -> tuple[list[Task[Any]], list[Task[Any]]]:
    """Return the tasks that run, and those that wait: in the queue, for others, for a start."""
    running = [run.call.task for run in list(home.runs)]
    waiting = [call.task for call in home.queue.calls()]
    held = [*list(home.held.dependents), *list(home.held.unstarted)]
    return running, [*waiting, *(task for task in held if not task.done())]


def progress(home: ThreadHome) -> dict[str, Any]:
    """Return the whole picture, of builtin types."""
    stats = home.stats
    running, waiting = _under_way(home)
    return {
        "total": stats.total,
        "completed": stats.completed,
        "failed": stats.failed,
        "canceled": stats.cancelled,
        "running": len(running),
        "queued": max(stats.active - len(running), 0),
        "workers": [worker_entry(info) for info in workers(home)],
        "tasks": [task_entry(task) for task in (*running, *waiting[:LISTED])],
        "errors": [
            {"id": task.id, "name": task.name, "error": task.error} for task in stats.failures()
        ],
    }


def find(home: ThreadHome, identifier: str) -> Task[Any] | None:
    """Return a task by its id."""
    running, waiting = _under_way(home)
    for task in (*running, *waiting):
        if task.id == identifier:
            return task
    return home.stats.find(identifier)
