"""The hosts' part: a pool of workers of an environment in each Dask worker.

``run_call`` is what Dask runs for each call. It is a coroutine, so that no thread of Dask waits for
the worker; Dask runs as many at a time as it has threads. Functions that the client runs here take
the plugin by its name.

Threads: the event loop of the Dask worker, and the callback thread of the executor.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from wetlands_executor import (
    CondaEnvExecutor,
    TaskEventType,
    TaskTimeoutError,
    WorkerCrashed,
    WorkerUnresponsive,
    packed_has_failed,
    packed_interpreter,
    submit_packed,
)
from wetlands_executor.integrations.dask.claims import handler_of

if TYPE_CHECKING:
    from wetlands_executor import Task, TaskEvent

LOGGER = logging.getLogger("wetlands_executor")
#: Seconds for which reports of running tasks are collected before they are sent.
COALESCE = 0.05
#: Bytes of named outputs that are sent at once; more would block the scheduler.
MOST_OUTPUTS = 1_000_000


class RaisedError(Exception):
    """The function of a call has raised; the argument is the packed outcome."""

    def __repr__(self) -> str:
        """Return what Dask writes to the log of the host, without the bytes."""
        return f"{type(self).__name__}(the function has raised; the client is told what)"


class CancelledCallError(Exception):
    """A call was cancelled where it ran; the argument is the reason or None."""


class LostCallError(Exception):
    """A call, or its result, was lost with its host; the argument is its key."""


class Report(NamedTuple):
    """What a host says of itself.

    Attributes:
        host: its name.
        error: why it cannot run calls; None if it can.
        missing: the environment was not found.
        interpreter: of its workers; None if it cannot run calls.
        workers: number of its workers.
    """

    host: str
    error: str | None
    missing: bool
    interpreter: tuple[Any, ...] | None
    workers: int


class WetlandsWorkerPlugin(WorkerPlugin):  # type: ignore[misc]
    """Has a pool of workers of an environment in each Dask worker, also in those that join later.

    Dask gives a worker no task before it has set the plugin up.

    Args:
        name: by which calls find it.
        env: as of ``CondaEnvExecutor``, as the host sees it: a name, a path, or an
            ``EnvironmentSpec``, of which the environment is made there.
        workers_per_host: number of workers in each Dask worker; None is its number of threads,
            which is also the most that is of use.
        options: further ones of ``CondaEnvExecutor``.
    """

    def __init__(
        self,
        name: str,
        env: Any,
        workers_per_host: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._env = env
        self._count = workers_per_host
        self._options = dict(options or {})
        self._executor: CondaEnvExecutor | None = None
        self._report: Report | None = None
        self._tasks: dict[str, Task[bytes]] = {}
        self._worker: Any = None
        # Reports that wait to be sent: of each call the last progress, and all named outputs.
        self._progress: dict[str, tuple[Any, ...]] = {}
        self._outputs: dict[str, dict[Any, Any]] = {}
        self._flush_planned = False

    async def setup(self, worker: Any) -> None:
        """Find or make the environment, and start a worker to see that it works."""
        self._worker = worker
        count = self._count or worker.state.nthreads
        host = f"{socket.gethostname()} ({worker.address})"
        try:
            self._executor = CondaEnvExecutor(self._env, count, **self._options)
            found = await asyncio.to_thread(packed_interpreter, self._executor)
            self._report = Report(host, None, False, found, count)
        except Exception as error:  # noqa: BLE001 - the client names all hosts that have failed
            missing = type(error).__name__ == "EnvironmentNotFoundError"
            self._report = Report(host, f"{type(error).__name__}: {error}", missing, None, 0)
            LOGGER.error("wetlands_executor: no calls can run here: %s", error)

    async def teardown(self, worker: Any) -> None:
        """End the workers, and what they run."""
        del worker
        if self._executor is not None:
            self._executor.kill_workers()
            await asyncio.to_thread(self._executor.shutdown)

    @property
    def report(self) -> Report:
        """What this host says of itself."""
        assert self._report is not None, "Dask sets plugins up before anything else"
        return self._report

    # --- calls

    async def run(
        self, key: str, call: bytes, options: Mapping[str, Any], outcomes: Sequence[bytes]
    ) -> bytes:
        """Run a call; return its outcome.

        Raises:
            LostCallError: it has begun elsewhere before, or was cancelled.
            RaisedError, CancelledCallError: what became of it.
            BaseException: its worker has failed.
        """
        if self._executor is None or self.report.error is not None:
            raise RuntimeError(f"{self.report.host} cannot run calls: {self.report.error}")
        claim = getattr(self._worker.scheduler, handler_of(self.name))
        if not await claim(keys=[key]):
            raise LostCallError(key)
        view = self._executor.options(**options)
        task = submit_packed(view, call, outcomes)
        self._tasks[key] = task
        try:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            task.listen(lambda event: self._on_event(key, event))
            task.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
            await ended.wait()
        finally:
            del self._tasks[key]
            self._flush()
        if task.cancelled():
            raise CancelledCallError(task.error)
        error = task.exception()
        if error is not None:
            raise _without_call(error, task)
        outcome = task.result()
        if packed_has_failed(outcome):
            raise RaisedError(outcome)
        return outcome

    def end(self, key: str, kill: bool) -> None:
        """Ask a call to stop, or end its worker. Any thread."""
        task = self._tasks.get(key)
        if task is not None:
            (task.kill if kill else task.cancel)()

    # --- reports

    def _on_event(self, key: str, event: TaskEvent) -> None:
        """On the callback thread."""
        if event.type is TaskEventType.STARTED:
            pid = event.task.worker_pid
            self._worker.log_event(self.name, ("started", key, self._worker.address, pid))
        elif event.type is TaskEventType.UPDATE:
            loop = self._worker.loop
            said = (event.message, event.current, event.maximum)
            loop.add_callback(self._note, key, said, dict(event.outputs))

    def _note(self, key: str, said: tuple[Any, ...], outputs: dict[Any, Any]) -> None:
        self._progress[key] = said
        if outputs:
            self._outputs.setdefault(key, {}).update(outputs)
        if not self._flush_planned:
            self._flush_planned = True
            self._worker.loop.call_later(COALESCE, self._flush)

    def _flush(self) -> None:
        """Send what was reported since the last time."""
        self._flush_planned = False
        progress, self._progress = self._progress, {}
        outputs, self._outputs = self._outputs, {}
        for key, said in progress.items():
            self._worker.log_event(self.name, ("reported", key, *said))
        for key, values in outputs.items():
            data = pickle.dumps(values, 5)
            if len(data) > MOST_OUTPUTS:
                LOGGER.warning(
                    "wetlands_executor: named outputs of %d bytes were not sent: return what is "
                    "large, or write it to a file", len(data),
                )
            else:
                self._worker.log_event(self.name, ("put out", key, data))


def _without_call(error: BaseException, task: Task[bytes]) -> BaseException:
    """Return a failure of a worker without the call, which is bytes here; the client names it."""
    if not isinstance(error, (WorkerCrashed, WorkerUnresponsive, TaskTimeoutError)):
        return error
    reduced: Any = error.__reduce__()
    make, arguments = reduced[:2]
    text = str(arguments[0]).replace(f"; the call was {task.name}{task.arguments}", "")
    found: BaseException = make(text, *arguments[1:])
    return found


async def run_call(
    name: str, key: str, call: bytes, options: Mapping[str, Any], outcomes: Sequence[bytes]
) -> bytes:
    """Run a call on this host: what Dask runs.

    Args:
        name: of the plugin.
        key: of the call, which is its key in Dask.
        call: the call, packed.
        options: of ``CondaEnvExecutor.options``.
        outcomes: of the calls that it depends on.
    """
    plugin = get_worker().plugins.get(name)
    if plugin is None:
        # Its executor was shut down, and Dask wants to make a lost result anew.
        raise LostCallError(key)
    outcome: bytes = await plugin.run(key, call, options, outcomes)
    return outcome


def report(name: str, dask_worker: Any = None) -> Report:
    """Return what a host says of itself; run by the client."""
    found: Report = dask_worker.plugins[name].report
    return found


def end_call(name: str, key: str, kill: bool, dask_worker: Any = None) -> None:
    """Ask a call to stop, or end its worker; run by the client on the host that has it."""
    plugin = dask_worker.plugins.get(name)
    if plugin is not None:
        plugin.end(key, kill)
