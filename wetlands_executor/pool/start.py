"""Starting workers: the process, its configuration, its messages until it is ready.

Threads: the I/O thread's, but for ``_spawn``, which runs on the start thread, because activation
runs a shell and exec takes a millisecond.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from wetlands_executor import threads
from wetlands_executor.environment.source import EnvironmentSource
from wetlands_executor.errors import EnvironmentCreationError, because, describe
from wetlands_executor.pool import bundle, deadlines, polling, spawn
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.delivery import SerialThread
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.direct_receive import direct_receive
from wetlands_executor.pool.fork_server import ForkServer, ForkServerFailed, ServerOutput
from wetlands_executor.pool.inbound import Inbound
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.readiness import Readiness
from wetlands_executor.pool.reaper import Reaper
from wetlands_executor.pool.watchdog import Watchdog
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.serialize import interpreter, restricted
from wetlands_executor.serialize.errors import decode_error
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.serialize.settings import arguments_of_host, current_settings, main_of_host
from wetlands_executor.sharedmem import arena
from wetlands_executor.sharedmem.results import ResultMemory
from wetlands_executor.system import THREADS
from wetlands_executor.worker import current_task, wire

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece
    from wetlands_executor.worker.config import WorkerConfig

LOGGER = logging.getLogger("concurrent.futures")

Launch: TypeAlias = Callable[[int], tuple[Sequence[str], Mapping[str, str], str | None]]


class Lends(Protocol):
    """What lends the host's terminal to workers; see ``debugging.py``."""

    @property
    def address(self) -> str:
        """What workers connect to."""
        ...

    def end(self) -> None:
        """Lend it no more; may be repeated."""
        ...


@dataclass
class StartSettings:
    """How workers are started.

    Attributes:
        launch: slot index -> (argv, environment, working folder) of its process; may take long and
            may raise.
        remote: the Python of the workers.
        source: gives their environment, made if need be before the first of them.
        preload: modules that a worker imports before it is ready.
        initializer: pickled (function, args), the name of what travels as code in it, and whether
            it does as bytecode; or None.
        timeout: seconds from the process's start to its being ready; None is no limit.
        fork_server: what forks the workers (``share_preload``); None if each is started by itself.
        keeps: shared arrays that the initializer refers to.
        needs: large objects that it needs.
        debugging: lends the host's terminal to ``breakpoint()``; None lends none.
        debugpy: workers let debuggers attach.
    """

    launch: Launch
    remote: RemoteInterpreter
    source: EnvironmentSource
    preload: list[str]
    initializer: tuple[bytes, str | None, bool] | None
    timeout: float | None
    fork_server: ForkServer | None = None
    keeps: list[Any] = field(default_factory=list)
    needs: tuple[Piece, ...] = ()
    debugging: Lends | None = None
    debugpy: bool = False

    def release(self) -> None:
        """Let go of what only workers need: no more of them are started."""
        self.keeps = []
        self.remote.drop_record()
        self.source.release()
        if self.debugging is not None:
            self.debugging.end()


@dataclass(frozen=True)
class StarterParts:
    """What ``Starter`` uses.

    Attributes:
        pool: number of the pool, and how many workers it may have: for nested tasks.
    """

    loop: IOLoop
    workers: Workers
    timers: CallTimers
    deadlines: Deadlines
    inbound: Inbound
    output: Output
    direct_calls: DirectCalls
    reaper: Reaper
    readiness: Readiness
    watchdog: Watchdog
    label: str
    feed: Callable[[st.Event | None], None]
    over: Callable[[], bool]
    pool: tuple[int, int]


class Starter:
    """Starts the workers of a pool."""

    def __init__(self, settings: StartSettings, parts: StarterParts) -> None:
        self._settings = settings
        self._parts = parts
        self._feed = parts.feed
        self.thread = SerialThread("wetlands-start", threads.START)

    def start(self, action: st.StartWorker) -> None:
        """Start a process for a slot."""
        self._parts.workers.begin(action.worker, action.index)
        server = self._settings.fork_server
        asked = 0 if server is None else server.failures
        made = self._settings.source.failures
        self.thread.put(partial(self._spawn, action.worker, action.index, asked, made))

    def give_up(self, worker: int) -> None:
        """End a process as soon as it is started."""
        all_of_them = self._parts.workers.give_up(worker)
        if self._settings.fork_server is not None and all_of_them:
            # Order: after the worker was marked; see `ForkServer._begin`
            self._settings.fork_server.give_up()
        if all_of_them:
            # Order: as above; see `EnvironmentSource.make`
            self._settings.source.cancel()

    def end(self) -> None:
        """End the start thread, then the fork server, when the workers are gone."""
        self.thread.end()
        if self._settings.fork_server is not None:
            self._settings.fork_server.end(deadlines.STOP_GRACE)

    def _spawn(self, worker: int, index: int, asked: int, made: int) -> None:
        """Start a process. Start thread."""
        settings, loop = self._settings, self._parts.loop
        server, opening = settings.fork_server, b""
        process: spawn.Process | BaseException
        wanted = partial(self._parts.workers.is_wanted, worker)
        try:
            settings.source.make(wanted, made)
            argv, env, cwd = settings.launch(index)
            memory = arena.current()
            shared = memory.fd if memory is not None else -1
            compiled = settings.remote.surely_same
            if server is None:
                process = spawn.Process(argv, env, cwd, shared)
                try:
                    opening = process.ship(bundle.source(compiled))
                except BaseException:
                    process.reap()
                    process.close()
                    raise
            else:
                process = server.fork(
                    env, cwd, shared, asked=asked, wanted=wanted, compiled=compiled
                )
        except Exception as error:  # noqa: BLE001
            # whatever it is, it is why the worker cannot start
            process = error
            memory = None
        if server is not None:
            for said in server.take_output():
                loop.post(partial(self._on_server_output, said))
        loop.post(partial(self._on_spawned, worker, index, process, memory, opening))

    def _on_spawned(
        self,
        worker: int,
        index: int,
        process: spawn.Process | BaseException,
        memory: arena.Arena | None,
        opening: bytes,
    ) -> None:
        parts = self._parts
        parts.workers.started(worker)
        if isinstance(process, BaseException):
            if not parts.over():
                self._on_not_started(worker, process)
            return
        if parts.over():
            process.kill_tree()  # the pool has failed meanwhile
            process.reap()
            process.close()
            return
        poller = parts.loop.poller
        mine = WorkerProcess(
            worker,
            index,
            process,
            poller,
            secrets.randbits(32),
            ResultMemory(process.memory, memory),
        )
        parts.workers.add(mine)
        mine.watch_losses(parts.watchdog)
        if parts.deadlines.worker_timeout is None:
            mine.listen(
                direct_receive(process, parts.direct_calls.abandoned),
                partial(parts.direct_calls.on_notified, mine),
            )
        parts.output.watch(mine)
        poller.add_reader(process.results, polling.RESULTS, partial(parts.inbound.read, mine))
        parts.reaper.watch(mine)
        if opening:
            mine.outbox.raw(opening)
        mine.outbox.record(wire.CONFIG, 0, self._config(mine))
        mine.outbox.flush()
        if self._settings.timeout is not None:
            parts.timers.set_for(mine, self._settings.timeout, partial(self._check_started, mine))
        if parts.workers.take_unwanted(worker):
            mine.begin_stop()
            mine.kill()

    def _on_not_started(self, worker: int, error: BaseException) -> None:
        parts = self._parts
        parts.readiness.answer_hello()
        parts.workers.take_unwanted(worker)
        if isinstance(error, ForkServerFailed):
            cause = (
                decode_error(error.failure, trusted_only=True)
                if error.failure is not None
                else None
            )
            reason = parts.readiness.start_error(error.reason, error.tail, cause)
            self._feed(st.WorkerExited(worker, (), error.final, st.DeathReport(reason)))
            return
        reason = error
        if not isinstance(error, EnvironmentCreationError):
            reason = parts.readiness.start_error(describe(error), "", error)
        transient = isinstance(error, (BlockingIOError, MemoryError)) or getattr(
            error, "errno", None
        ) in (11, 12, 23, 24)
        self._feed(st.WorkerExited(worker, (), not transient, st.DeathReport(reason)))

    def _on_server_output(self, said: ServerOutput) -> None:
        """Pass on what a preload that is shared has said, once for all workers."""
        output = self._parts.output
        for name, data in (("stdout", said.stdout), ("stderr", said.stderr)):
            stream = OutputStream(name)
            output.put(stream, stream.splitter.feed(data) + stream.splitter.finish())
        for record in said.records:
            output.log(OutputStream("log"), restricted.read_record(record), -1, said.pid, None)
        for module, count in said.threads:
            warn = partial(
                LOGGER.warning,
                "wetlands_executor: the import of %s in %s has started %d threads in native code, "
                "and workers are forked from that process. "
                "That is safe only if the library says so. Numerical libraries start none if "
                "OMP_NUM_THREADS and its like are 1, as they are "
                "unless worker_env sets them",
                module,
                self._parts.label,
                count,
            )
            # handlers take locks, which the program may hold, or have left locked
            output.put_foreign(warn)

    def _config(self, process: WorkerProcess) -> bytes:
        settings = self._settings
        host_settings = current_settings()
        data, code, bytecode = settings.initializer or (None, None, False)
        process.outbox.note_sent(host_settings, settings.needs)
        config: WorkerConfig = {
            "nonce": process.nonce,
            "magic": interpreter.MAGIC if interpreter.PORTABLE else None,
            "host_settings": host_settings.data,
            "settings_number": host_settings.number,
            "authkey": bytes(multiprocessing.current_process().authkey),
            "preload": [] if process.process.forked else settings.preload,
            "initializer": data,
            "pieces": [(piece.number, piece.data) for piece in settings.needs],
            "initializer_code": code if bytecode else None,
            "version": python_version(),
            "argv": arguments_of_host(),
            "main": main_of_host(),
            "instances": current_task.program(),
            "print_frames": THREADS,
            "carries": process.result_memory.arena is not None
            and process.result_memory.arena.carries,
            "incarnation": process.result_memory.incarnation,
            "arena_limit": arena.LIMIT,
            "debugger": None if settings.debugging is None else settings.debugging.address,
            "debugpy": settings.debugpy,
            "pool": self._parts.pool[0],
            "max_workers": self._parts.pool[1],
        }
        return pickle.dumps(config, 4)

    def _check_started(self, process: WorkerProcess) -> None:
        if not process.ready and self._parts.workers.has(process) and process.reason is None:
            reason = f"it was not ready within {self._settings.timeout:g} s (start_timeout)"
            process.kill_with(self._parts.readiness.start_error(reason, process.output.tail()))

    # --- messages of a worker until it is ready

    def on_message(self, process: WorkerProcess, kind: int, data: Any) -> None:
        """Take a message of a worker that is not ready."""
        parts = self._parts
        if kind == wire.HELLO:
            hello = restricted.read_shape(data, _HELLO)
            process.greet(hello, hello["magic"] != interpreter.MAGIC)
            process.process.meet(process.results.sender)
            parts.reaper.watch_python(process)
            self._settings.remote.learn(hello)
            parts.readiness.answer_hello()
        elif kind == wire.READY:
            process.become_ready(bytes(data).decode("utf-8", "replace"))
            parts.timers.stop_for(process)  # the time that it had to become ready
            parts.output.release(process)
            self._feed(st.WorkerReady(process.worker))
            parts.readiness.check_launched()
        elif kind == wire.START_FAILED:
            process.fail(data)
        else:
            self._on_initializer_failed(process, data)

    def _on_initializer_failed(self, process: WorkerProcess, data: bytes | bytearray) -> None:
        cause = decode_error(data, trusted_only=True)
        error = BrokenProcessPool(
            f"The initializer raised {describe(cause)}; the pool of "
            f"{self._parts.label} is not usable any more"
        )
        process.blame(because(error, cause))
        self._parts.output.release(process)
        self._feed(st.InitializerFailed(process.worker, st.DeathReport(error)))


_HELLO: dict[str, tuple[type, ...]] = {
    "magic": (str,),
    "version": (str,),
    "prefix": (str,),
    "pid": (int,),
}


def python_version() -> str:
    """Return the host's Python version for messages."""
    return sys.version.split()[0]
