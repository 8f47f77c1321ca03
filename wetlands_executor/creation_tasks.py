"""The creation of an environment as a Task: ``Environment.create_task``.

Owns the thread in which it is made, and the one on which its listeners and callbacks are called.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from wetlands_executor import threads
from wetlands_executor.environment.cancellation import Cancellation
from wetlands_executor.environment.create_request import CreateRequest
from wetlands_executor.environment.creation import create
from wetlands_executor.environment.creation_run import CreationProgress
from wetlands_executor.environment.store import Record
from wetlands_executor.futures import settling
from wetlands_executor.futures.future import Task
from wetlands_executor.futures.reports import reports_of
from wetlands_executor.futures.standard import run_a_little_later
from wetlands_executor.pool.delivery import SerialThread

T = TypeVar("T")



class _Nothing:
    """A count of no tasks, and a set of none."""

    def submitted(self, task: Any) -> None:
        """Count nothing."""

    def finished(self, task: Any) -> None:
        """Count nothing."""

    def add(self, task: Any) -> None:
        """Keep nothing."""

    def discard(self, task: Any) -> None:
        """Keep nothing."""

    def __contains__(self, task: object) -> bool:
        return False


_NOTHING = _Nothing()


class CreationPool:
    """The creation of an environment, as its Task sees it: its call, and the pool of that call.

    See ``futures/protocols.py``. It runs from the beginning: nothing waits for a worker.
    """

    started = True
    refusing = ended = forked = unannounced = False
    process = worker_pid = None
    listeners = ()
    stats = unstarted = _NOTHING
    input = ""

    def __init__(self) -> None:
        self.cancellation = Cancellation()
        self.callbacks = SerialThread("wetlands-callbacks", threads.CALLBACKS)
        self._began = time.monotonic()

    def is_running(self) -> bool:
        """Return True: it runs from the beginning."""
        return True

    def running_since(self) -> float:
        """Return when it began, on the monotonic clock."""
        return self._began

    def cancel(self, call: Any) -> bool:  # noqa: ARG002
        """Ask it to stop; return False, as for any call that runs."""
        self.cancellation.request()
        return False

    def ask_to_cancel(self, call: Any) -> None:  # noqa: ARG002
        """Ask it to stop."""
        self.cancellation.request()

    def kill(self, call: Any) -> None:  # noqa: ARG002
        """Ask it to stop; what runs for it is ended."""
        self.cancellation.request()

    def cancel_all(self, calls: Any) -> None:  # noqa: ARG002
        """Ask it to stop."""
        self.cancellation.request()

    def post(self, job: Callable[[], object]) -> None:
        """Run a job here."""
        job()

    def notify_later(self, job: Callable[[], bool]) -> None:
        """Run a job a little later."""
        run_a_little_later(job)

    def run_user_code(self, job: Callable[[], object]) -> None:
        """Run a job here."""
        job()

    def ensure_tracked(self, call: Any) -> None:
        """Do nothing: every thread is told of the end."""

    def take_abandoned_waits(self) -> None:
        """Do nothing."""

    def watch(self, call: Any) -> None:
        """Do nothing: its start is told."""

    def reserve(self, task: Any) -> None:
        """Do nothing."""

    def release(self, task: Any) -> None:
        """Do nothing."""


def start(request: CreateRequest, of_record: Callable[[Record], T]) -> Task[T]:
    """Start a creation in a thread of its own; return its Task."""
    pool = CreationPool()
    label = f"create {request.name}" if request.name is not None else "create an environment"
    task: Task[T] = Task(pool, label)
    settling.hand_over(task, pool)
    thread = threading.Thread(
        target=_run, args=(task, request, of_record, pool), name="wetlands-environment"
    )
    thread.start()
    return task


def _run(
    task: Task[T],
    request: CreateRequest,
    of_record: Callable[[Record], T],
    pool: CreationPool,
) -> None:
    """Make the environment and settle the Task. Its own thread."""
    started = time.monotonic()
    settling.tell_started(task)
    reports = reports_of(task)

    def on_progress(progress: CreationProgress) -> None:
        new = {"phase": progress.phase.value, "backend": progress.backend}
        changed = {name: value for name, value in new.items() if reports.outputs.get(name) != value}
        if changed:
            reports.add_outputs(task, changed)
        reports.update(task, progress.message, progress.current, progress.maximum)

    result: Any = None
    error: BaseException | None = None
    try:
        result = of_record(create(request, on_progress=on_progress, cancellation=pool.cancellation))
    except BaseException as failure:  # noqa: BLE001 - whatever it is, the Task's outcome
        error = failure
    settling.note_run(task, os.getpid(), time.monotonic() - started)
    if isinstance(error, CancelledError):
        settling.settle_cancelled(task)
    else:
        settling.settle(task, result, error)
    pool.callbacks.end()
