"""What an executor says of its workers, its tasks and its counts, as values.

Owns the values alone. How they are found out of processes is ``pool/report.py``, of threads
``in_process/report.py``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import weakref
    from collections.abc import Iterable

    from wetlands_executor.futures.future import Task
    from wetlands_executor.futures.options import CallOptions
    from wetlands_executor.futures.reports import Snapshot

#: Queued tasks that ``get_progress`` lists; all are counted.
LISTED = 1000


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as it was at one moment.

    Attributes:
        index: number of its slot.
        pid: of its process.
        state: ``"starting"``, ``"idle"``, ``"busy"`` or ``"stopping"``.
        task: name of the call that it has taken, None if idle.
        tasks_done: calls that this process has finished.
        queue_depth: calls in its inbox that it has not taken.
        rss: resident memory in bytes, None if the process is gone.
        cpu_percent: processor time per wall time since its start, in percent of one core, None if
            the process is gone.
        started_at: when the process was started, as ``time.time()``, None if it is gone.
        debugger: ``"127.0.0.1:port"``, where a debugger can attach (``debug="debugpy"``); None
            else.
    """

    index: int
    pid: int
    state: str
    task: str | None
    tasks_done: int
    queue_depth: int
    rss: int | None
    cpu_percent: float | None
    started_at: float | None
    debugger: str | None = None


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that runs, as it was at one moment.

    Attributes:
        id: of the task, or of the calls of a ``map`` that travel together.
        name: what was called.
        worker: index of its worker.
        pid: of the worker's process.
        seconds: how long it has run, None if unknown.
        message, current, maximum, progress: what it has reported, as of a ``Task``.
        attempt: number of the try that runs, from 1.
    """

    id: str
    name: str
    worker: int
    pid: int
    seconds: float | None
    message: str | None = None
    current: float | None = None
    maximum: float | None = None
    progress: float | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Overview:
    """What a display shows of a pool at one moment; made for looking often.

    Attributes:
        total: number of tasks that were submitted; each call of a ``map`` counts as one.
        completed, failed, cancelled: number of those that have ended so.
        retried: how often a task was begun anew after a failure.
        running: the tasks that run, by the index of their worker.
    """

    total: int
    completed: int
    failed: int
    cancelled: int
    retried: int
    running: tuple[RunningTask, ...]


class Ended(NamedTuple):
    """What stays of a finished task, which its program may have dropped; no result, no arguments.

    Attributes:
        task: a weak reference to it.
        number: its ``id``.
        label: what was called.
        options: of the call, which may name it.
        place: among the tasks of one ``map_tasks``.
        created, finished: as ``time.time()``.
        ran: seconds that the function took; None if it never began.
        reported: its progress, if it has reported some.
        state: the value of its ``TaskStatus``.
    """

    task: weakref.ref[Task[Any]]
    number: int
    label: str
    options: CallOptions | None
    place: int | None
    created: float
    finished: float
    ran: float | None
    reported: Snapshot | None
    state: str

    @property
    def name(self) -> str:
        """What the task was called."""
        if self.options is not None and self.options.name is not None:
            return self.options.name
        return self.label if self.place is None else f"{self.label}[{self.place}]"


class Counts(Protocol):
    """Counts of tasks; see ``pool/stats.py``."""

    @property
    def total(self) -> int:
        """Number of tasks that were submitted."""
        ...

    @property
    def completed(self) -> int:
        """Number of those that have a result."""
        ...

    @property
    def failed(self) -> int:
        """Number of those that have failed."""
        ...

    @property
    def cancelled(self) -> int:
        """Number of those that were cancelled."""
        ...

    @property
    def active(self) -> int:
        """Number of those that have not finished."""
        ...

    def failures(self) -> list[Task[Any]]:
        """Return the tasks that have failed."""
        ...

    def ended(self) -> list[Ended]:
        """Return the last tasks that have finished."""
        ...


def picture(
    stats: Counts, running: int, workers: Iterable[WorkerInfo], tasks: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the whole picture of an executor, of builtin types.

    Args:
        stats: its counts.
        running: number of tasks that run.
        workers: what they do.
        tasks: an entry for each task that waits or runs and is listed; those of the last finished
            ones are added.
    """
    # Race: a task may have ended since the others were looked at.
    known = {entry["id"] for entry in tasks}
    ended = [ended_entry(each) for each in stats.ended() if str(each.number) not in known]
    return {
        "total": stats.total,
        "completed": stats.completed,
        "failed": stats.failed,
        "canceled": stats.cancelled,
        "running": running,
        "queued": max(stats.active - running, 0),
        "workers": [worker_entry(info) for info in workers],
        "tasks": [*tasks, *ended],
        "errors": [
            {"id": task.id, "name": task.name, "error": task.error} for task in stats.failures()
        ],
    }


def worker_entry(info: WorkerInfo) -> dict[str, Any]:
    """Return what the picture of an executor says of one worker."""
    return {
        "id": info.index,
        "idle": info.state == "idle",
        "task": info.task or "",
        "queue_depth": info.queue_depth,
    }


def task_entry(task: Task[Any]) -> dict[str, Any]:
    """Return what is known of a task, of builtin types."""
    now = time.time()
    started, finished, fraction = task.started_at, task.finished_at, task.progress
    return {
        "id": task.id,
        "name": task.name,
        "parent": None if task._options is None else task._options.parent,
        "state": task.status.value,
        "queued_duration_ms": round(1000 * ((started or finished or now) - task.created_at), 3),
        "execution_duration_ms": None
        if started is None
        else round(1000 * ((finished or now) - started), 3),
        "progress_pct": None if fraction is None else round(100 * fraction, 2),
    }


def ended_entry(ended: Ended) -> dict[str, Any]:
    """Return what is known of a finished task, as ``task_entry``."""
    ran, reported = ended.ran, ended.reported
    fraction = None if reported is None else reported.fraction
    waited = ended.finished - ended.created - (ran or 0.0)
    return {
        "id": str(ended.number),
        "name": ended.name,
        "parent": None if ended.options is None else ended.options.parent,
        "state": ended.state,
        "queued_duration_ms": round(1000 * max(waited, 0.0), 3),
        "execution_duration_ms": None if ran is None else round(1000 * ran, 3),
        "progress_pct": None if fraction is None else round(100 * fraction, 2),
    }
