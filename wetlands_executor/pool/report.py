"""A pool as seen from outside, at one moment: workers, counts, tasks under way.

Reads only; entered by any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor.futures.overview import (
    LISTED,
    Overview,
    RunningTask,
    WorkerInfo,
    picture,
    task_entry,
)
from wetlands_executor.futures.reports import Snapshot
from wetlands_executor.futures.waiting import Latch
from wetlands_executor.pool.probing import Probe

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
    from wetlands_executor.pool.call import Call
    from wetlands_executor.pool.pool import Pool
    from wetlands_executor.pool.worker_process import WorkerProcess

#: Seconds within which the pool's own thread has to answer.
ANSWER = 2.0


def overview(pool: Pool, *, exact: bool = False) -> Overview:
    """Return what a display shows.

    Unlike ``progress`` it costs the same however many tasks wait or have failed, and asks the
    system for nothing.

    Args:
        pool: the pool.
        exact: count every task whose result a thread has seen. Race: the I/O thread may settle
            tasks, which wakes that thread, and count them a moment later.
    """
    if exact or any(process.direct_send.sent for process in list(pool.processes.values())):
        _ask(pool, pool.direct_calls.sync)  # some may have finished without being registered
    stats = pool.stats
    # Order: ends before the total, so that no more have ended than were submitted
    completed, failed, cancelled = stats.completed, stats.failed, stats.cancelled
    running = [
        _running(process.index, process.process.pid, call)
        for process in list(pool.processes.values())
        for call in process.given.current()
        if process.given.is_running(call)
    ]
    return Overview(
        stats.total,
        completed,
        failed,
        cancelled,
        stats.retried,
        tuple(sorted(running, key=lambda task: task.worker)),
    )


def _running(index: int, pid: int, call: Call) -> RunningTask:
    process = call.process
    since = process.given.running_since(call) if process is not None else None
    seconds = None if since is None else max(time.monotonic() - since, 0.0)
    task = call.task
    if task is None:
        name, reported = call.name, Snapshot()
        if call.batch is not None:
            name, reported = call.batch.running()
        return RunningTask(
            str(call.number), name, index, pid, seconds, *reported, reported.fraction
        )
    return RunningTask(
        task.id,
        task.name,
        index,
        pid,
        seconds,
        task.message,
        task.current,
        task.maximum,
        task.progress,
        task.attempt,
    )


def workers(pool: Pool) -> list[WorkerInfo]:
    """Return what the workers do, by index."""
    if any(process.direct_send.sent for process in list(pool.processes.values())):
        _under_way(pool)  # some may have finished without being registered
    return sorted(
        (_worker(process) for process in list(pool.processes.values())), key=lambda info: info.index
    )


def _worker(process: WorkerProcess) -> WorkerInfo:
    # Importing it takes as long as half of the standard library's pools, and few programs need it.
    import psutil

    calls = process.given.current()
    running = [call for call in calls if process.given.is_running(call)]
    state = (
        "stopping"
        if process.stopping
        else "starting"
        if not process.ready
        else "busy"
        if calls
        else "idle"
    )
    rss = cpu = started = None
    try:
        system = psutil.Process(process.process.pid)
        with system.oneshot():
            rss = system.memory_info().rss
            started = system.create_time()
            times = system.cpu_times()
            cpu = 100 * (times.user + times.system) / max(time.time() - started, 1e-3)
    except psutil.Error:
        pass  # it has ended since
    name = running[0].name if running else None
    return WorkerInfo(
        process.index,
        process.process.pid,
        state,
        name,
        process.finished,
        len(calls) - len(running),
        rss,
        cpu,
        started,
        process.debugger,
    )


def _under_way(pool: Pool) -> tuple[list[Call], list[Call]]:
    """Return the calls that run, and those that wait.

    Before all, then in inboxes, then in the queue.
    """
    # Between two steps of its own thread the picture of the pool is whole; from here a call could
    # be seen on its way from one list to the other.
    found: list[tuple[list[Call], list[Call]]] = []

    def look() -> None:
        pool.direct_calls.sync()
        found.append(_look(pool))

    return found[0] if _ask(pool, look) and found else _look(pool)


def _ask(pool: Pool, look: Callable[[], object]) -> bool:
    """Have the I/O thread look; return True if it has done so in time."""
    if not pool.started or pool.ended or pool.on_own_thread:
        return False
    done = Latch()

    def answer() -> None:
        look()
        done.set()

    pool.post(answer)
    return done.wait(ANSWER)


def _look(pool: Pool) -> tuple[list[Call], list[Call]]:
    running: list[Call] = []
    waiting: list[Call] = []
    for process in list(pool.processes.values()):
        for call in process.given.current():
            (running if process.given.is_running(call) else waiting).append(call)
    waiting.extend(pool.under_way.waiting())
    return running, waiting


def progress(pool: Pool) -> dict[str, Any]:
    """Return the whole picture, of builtin types."""
    running, waiting = _under_way(pool)
    held = [task for task in [*list(pool.dependents), *list(pool.unstarted)] if not task.done()]
    listed = [
        *map(_call, running),
        *map(_call, waiting[:LISTED]),
        *map(task_entry, held[:LISTED]),
    ]
    return picture(pool.stats, len(running), workers(pool), listed)


def _call(call: Any) -> dict[str, Any]:
    """Return what is known of a call, or of calls of a ``map`` that travel together."""
    if call.task is not None:
        return task_entry(call.task)
    process = call.process
    since = process.given.running_since(call) if process is not None else None
    running = process is not None and process.given.is_running(call)
    return {
        "id": str(call.number),
        "name": call.name,
        "parent": None,
        "state": "running" if running else "pending",
        "queued_duration_ms": round(1000 * (time.time() - call.batch.created_at), 3)
        if since is None
        else 0.0,
        "execution_duration_ms": None
        if since is None
        else round(1000 * (time.monotonic() - since), 3),
        "progress_pct": None,
    }


def find(pool: Pool, identifier: str) -> Task[Any] | None:
    """Return a task by its id."""
    running, waiting = _under_way(pool)
    for call in (*running, *waiting):
        if call.task is not None and call.task.id == identifier:
            found: Task[Any] = call.task
            return found
    for task in [*list(pool.dependents), *list(pool.unstarted)]:
        if task.id == identifier:
            return task
    return pool.stats.find(identifier)


def is_responsive(pool: Pool) -> bool:
    """Return True if calls would be taken and finished now, as far as that can be seen.

    False if a busy worker is past ``worker_timeout``, if a worker is stopped (SIGSTOP), if one that
    runs nothing does not answer, or if the I/O thread does not.
    """
    limit = pool.deadlines.worker_timeout
    processes = list(pool.processes.values())
    if limit is not None:
        now = time.monotonic()
        for process in processes:
            if now - process.last_activity > limit and any(
                process.given.is_running(call) for call in process.given.current()
            ):
                return False
    if any(_is_stopped(process) for process in processes):
        return False
    if not pool.started or pool.ended or pool.on_own_thread:
        return True
    probe = Probe()
    pool.post(partial(pool.probes.begin, probe))
    answered = probe.wait(ANSWER)
    if not answered:
        pool.post(partial(pool.probes.end, probe))
    return answered


def _is_stopped(process: WorkerProcess) -> bool:
    """Return True if the system does not let a worker run."""
    import psutil  # as above

    pid = process.process.pid if process.hello is None else process.hello["pid"]
    try:
        return not process.exited and psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False  # it has ended since
