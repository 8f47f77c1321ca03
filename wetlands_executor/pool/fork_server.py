"""The fork server of a pool, seen from the host.

One process of the environment that has imported the preload and forks the workers.

Sixteen workers that import numpy and scipy each for themselves take sixteen times the memory and
the time. With ``share_preload=True`` one process imports them, and every worker is a fork of it
that shares its pages. The other half of the conversation is ``worker/fork_server.py``.

::

    start thread                        fork server                     worker
    Popen ------ sources, config -----> imports the preload
         <------ ready, or why not ----
    request, descriptors (SCM_RIGHTS) > fork -------------------------> setsid, life pipe, variables
         <------ pid ------------------                                 hello, ready (as others do)
    exit (pidfd) is readable <----------------------------------------- ends
    status pipe <------ how it ended -- waitid, leaves the zombie
    closes the status pipe -----------> reaps

*The worker is a child of the fork server, not of the host.* Its end is seen through a pidfd, how it
ended comes through its status pipe. The fork server reaps it only when the host has closed that
pipe, so that its number cannot become another process's while the host may still signal it. When
the fork server is killed, its workers go on, how they end cannot be found out any more, and the
next start makes a new fork server.

Threads: everything that starts or asks runs on the pool's start thread and may block, with a
deadline. ``kill`` and ``give_up`` may be called by any thread; ``end`` by the I/O thread, at the
very end. A ``ForkedProcess`` belongs to the I/O thread, like every process.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from wetlands_executor import children, descriptors
from wetlands_executor.pool import bundle, spawn
from wetlands_executor.seconds import LONGEST
from wetlands_executor.serialize import interpreter, restricted
from wetlands_executor.serialize.interpreter import VERSION
from wetlands_executor.serialize.settings import arguments_of_host, current_settings, main_of_host
from wetlands_executor.system import (
    AF_UNIX,
    POLLIN,
    POLLOUT,
    SIGKILL,
    above_standard,
    killpg,
    pidfd_open,
    pidfd_send_signal,
    poll,
    send_descriptors,
    set_blocking,
    start_process,
)
from wetlands_executor.worker import current_task, wire
from wetlands_executor.worker.stage0 import STAGE0

if TYPE_CHECKING:
    from wetlands_executor.worker.config import ProcessConfig

#: Seconds that a fork server may take to fork: it does nothing else.
FORK_TIMEOUT = 20.0
#: Seconds that a fork server whose socket is at its end may take to end itself.
CLOSED_GRACE = 1.0
#: Bytes of stderr that are kept for an error.
TAIL = 16384
#: Tries to fork a worker when one fork server after another is lost, and to start a fork server for
#: workers that were asked for together.
TRIES = 3

_LENGTH = struct.Struct("<Q")
_ANSWER: dict[str, tuple[type, ...]] = {
    "records": (list,),
    "threads": (list,),
    "failure": (bytes, type(None)),
    "pid": (int,),
}

Launch = Callable[[], tuple[Sequence[str], Mapping[str, str], "str | None"]]


# never leaves the pool: a WorkerStartError is made of it
class ForkServerFailed(Exception):  # noqa: N818
    """No worker can be forked.

    Attributes:
        reason: what happened.
        tail: the last lines of the fork server's stderr.
        failure: the pickled exception of the preload, or None.
        final: another try would meet it again.
    """

    def __init__(
        self, reason: str, tail: str = "", failure: bytes | None = None, final: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tail = tail
        self.failure = failure
        self.final = final


class _Lost(Exception):  # noqa: N818 - see above
    """The fork server is gone; another one may do better."""


class ServerOutput(NamedTuple):
    """What came out of a fork server while it imported.

    Bytes of its two streams, packed log records, and libraries with threads.
    """

    pid: int
    stdout: bytes
    stderr: bytes
    records: list[bytes]
    threads: list[tuple[str, int]]


class ForkServerProcess(spawn.Process):
    """The process of a fork server: a socket, a life pipe and two streams."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> None:
        # Guards the process's number between its collection and a kill from another thread; held
        # for one call into the kernel.
        self._collecting = threading.RLock()
        self.out = bytearray()
        self.err = bytearray()
        super().__init__(argv, env, cwd)

    def _start(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: str | None,
        arena: int,  # noqa: ARG002 - its workers get that
    ) -> None:
        life_child, self.life = self._pipe()
        self.stdout, stdout_child = self._pipe()
        self.stderr, stderr_child = self._pipe()
        mine, theirs = socket.socketpair(AF_UNIX, socket.SOCK_STREAM)
        self.socket = above_standard(mine.detach())
        socket_child = above_standard(theirs.detach())
        descriptors.own(self.socket, socket_child)
        self._open = {self.life, self.stdout, self.stderr, self.socket, socket_child}
        for fd in (self.socket, self.stdout, self.stderr):
            set_blocking(fd, False)
        # Order of STAGE0: inbox, bulk, results, life, shared page. Without an inbox it becomes a
        # fork server, and what it reads from is a socket.
        passed = [-1, socket_child, -1, life_child, -1, -1, -1, -1, self._make_bundle()]
        self._popen = start_process(
            [*argv, "-c", STAGE0], env, cwd, passed, stdout_child, stderr_child
        )
        self.pid = self._popen.pid
        for fd in (life_child, stdout_child, stderr_child):
            descriptors.close_quietly(fd)
        self._close.pop_all()
        self._open.add(self._bundle)
        self.close_fd(socket_child)
        self._watch()

    def listen(self) -> None:
        """Take what it has printed."""
        for fd, kept in ((self.stdout, self.out), (self.stderr, self.err)):
            if fd in self._open:
                with contextlib.suppress(BlockingIOError):
                    while data := os.read(fd, 65536):
                        kept += data
                        if kept is self.err and len(kept) > 2 * TAIL:
                            del kept[:-TAIL]

    def ask(self, data: bytes, deadline: float, fds: Sequence[int] = ()) -> bytes:
        """Send a record, with descriptors.

        Return the answer, reading meanwhile what the process prints.

        Raises:
            TimeoutError: there is none at the deadline (of the monotonic clock).
            _Lost: the process has closed its end.
        """
        waiting = memoryview(data)
        answer = bytearray()
        polled = poll()
        polled.register(self.socket, POLLIN | POLLOUT)
        polled.register(self.stdout, POLLIN)
        polled.register(self.stderr, POLLIN)
        polled.register(self.exit, POLLIN)
        while (
            len(answer) < _LENGTH.size
            or len(answer) < _LENGTH.size + _LENGTH.unpack_from(answer)[0]
        ):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            events = polled.poll(min(left, LONGEST) * 1000)
            if self.exit in dict(events) and not dict(events).get(self.socket, 0) & POLLIN:
                raise _Lost  # although a child of it may hold the socket open
            for fd, event in events:
                if fd == self.exit:
                    continue
                if fd != self.socket:
                    self.listen()
                    if not event & POLLIN:
                        polled.unregister(fd)  # closed by the process
                    continue
                try:
                    if event & POLLOUT and waiting:
                        waiting = waiting[self._send(waiting, fds) :]
                        fds = ()
                        if not waiting:
                            polled.modify(self.socket, POLLIN)
                    if event & ~POLLOUT:
                        got = os.read(self.socket, 65536)
                        if not got:
                            raise _Lost
                        answer += got
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise _Lost from error
        return bytes(answer[_LENGTH.size :])

    def _send(self, data: memoryview, fds: Sequence[int]) -> int:
        if not fds:
            return os.write(self.socket, data)
        line = socket.socket(fileno=self.socket)
        try:
            return send_descriptors(line, data, fds)
        finally:
            line.detach()

    def how_it_ended(self, timeout: float) -> int | None:
        """Wait for the end, make it the end of its children too, collect it.

        Return the exit code.
        """
        polled = poll()
        polled.register(self.exit, POLLIN)
        if not polled.poll(timeout * 1000):
            self.kill_tree()
            polled.poll()
        self.listen()
        return self.reap()

    def meet(self, claimed: int) -> None:
        """Note which process the Python is."""
        with self._collecting:
            super().meet(claimed)

    def kill_tree(self) -> None:
        """End the process and its children (not its workers), at once. Any thread."""
        with self._collecting:
            super().kill_tree()

    def reap(self) -> int | None:
        """Collect the process, which has ended."""
        with self._collecting:
            return super().reap()

    def disinherit(self) -> None:
        """Forget the process in a forked child."""
        self._collecting = threading.RLock()  # another thread of the parent may have held it
        super().disinherit()

    def tail(self) -> str:
        """Return the last lines of its stderr."""
        return self.err[-TAIL:].decode("utf-8", "replace").strip()


class ForkServer:
    """Starts workers of a pool by forking them; starts, and replaces, the process that does it.

    Args:
        launch: returns (argv, environment, working folder) of that process.
        preload: modules that it imports.
        start_timeout: seconds that it may take for that.
    """

    def __init__(self, launch: Launch, preload: Sequence[str], start_timeout: float | None) -> None:
        self._launch = launch
        self._preload = list(preload)
        self._start_timeout = start_timeout if start_timeout is not None else math.inf
        self._process: ForkServerProcess | None = None
        self._ready = False
        self._env: Mapping[str, str] = {}
        self._outputs: list[ServerOutput] = []
        #: Number of starts that have failed. Written by the start thread.
        self.failures = 0
        self._failure: ForkServerFailed | None = None

    def fork(
        self,
        env: Mapping[str, str],
        cwd: str | None,
        arena: int,
        *,
        asked: int,
        wanted: Callable[[], bool],
        compiled: bool = False,
    ) -> ForkedProcess:
        """Return a new worker process; start thread.

        Args:
            env: its complete variables.
            cwd: its working folder; None is the host's.
            arena: the host's file of large arguments, -1 if there is none.
            asked: ``failures`` when it was asked for. Those that were asked for together share a
                failure that is final, or the last of several: they would wait for the same preload
                again and again.
            wanted: returns False once the worker is not needed any more.
            compiled: the interpreter is known to be like this one; see ``bundle.source``.

        Raises:
            ForkServerFailed: it cannot be had.
        """
        for _ in range(TRIES):
            failure = self._failure
            if failure is not None and self.failures - asked >= (1 if failure.final else TRIES):
                raise failure
            if not wanted():
                raise ForkServerFailed("it is not wanted any more")
            try:
                process = self._process or self._begin(wanted, compiled)
                changes = {
                    name: env.get(name)
                    for name in {*env, *self._env}
                    if env.get(name) != self._env.get(name)
                }
                return ForkedProcess(process, changes, cwd or _here(), arena)
            except _Lost:
                self._finalize_exit()
            except TimeoutError:
                process.kill_tree()
                self._finalize_exit()
        raise ForkServerFailed("the process that forks the workers was lost, again and again")

    def _begin(self, wanted: Callable[[], bool], compiled: bool) -> ForkServerProcess:
        """Start the process and wait until it has imported the preload."""
        deadline = time.monotonic() + self._start_timeout
        argv, env, cwd = self._launch()
        self._ready = False
        self._env = env
        process = ForkServerProcess(argv, env, cwd)
        self._process = process
        if not wanted():
            process.kill_tree()  # Race: `give_up` looked before there was anything to end
        host_settings = current_settings()
        config: ProcessConfig = {
            "preload": self._preload,
            "host_settings": host_settings.data,
            "authkey": bytes(multiprocessing.current_process().authkey),
            "magic": interpreter.MAGIC if interpreter.PORTABLE else None,
            "version": VERSION,
            "argv": arguments_of_host(),
            "main": main_of_host(),
            "instances": current_task.program(),
        }
        try:
            answer = restricted.read_shape(
                process.ask(process.ship(bundle.source(compiled)) + _record(config), deadline),
                _ANSWER,
            )
        except TimeoutError:
            process.kill_tree()
            raise self._fail(
                f"its preload was not ready within {self._start_timeout:g} s (start_timeout)",
                final=True,
            ) from None
        except restricted.NotBuiltin as error:
            process.kill_tree()
            raise self._fail(
                f"the process that imports the preload for all workers sent what it "
                f"never sends ({error})",
                final=True,
            ) from error
        except _Lost:
            raise self._fail(None) from None
        process.meet(answer["pid"])
        process.listen()
        said = ServerOutput(
            process.pid, bytes(process.out), b"", answer["records"], answer["threads"]
        )
        process.out.clear()
        if answer["failure"] is not None:
            self._outputs.append(said)
            raise self._fail(None, answer["failure"])
        self._outputs.append(said._replace(stderr=bytes(process.err)))
        process.err.clear()
        self._ready = True
        return process

    def _fail(
        self, reason: str | None, failure: bytes | None = None, final: bool = False
    ) -> ForkServerFailed:
        process = self._process
        assert process is not None
        code = process.how_it_ended(CLOSED_GRACE)
        how = spawn.describe_end(code, process.why_lost)
        final = final or failure is not None or code in (wire.EXIT_TOO_OLD, wire.EXIT_START_FAILED)
        self._failure = ForkServerFailed(
            reason
            or f"the process that imports the preload for all workers ended {how} before "
            f"it was ready",
            process.tail(),
            failure,
            final,
        )
        self._outputs.append(ServerOutput(process.pid, bytes(process.out), b"", [], []))
        self._process = None
        process.close()
        self.failures += 1
        return self._failure

    def _finalize_exit(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.how_it_ended(CLOSED_GRACE)
            process.close()

    def take_output(self) -> list[ServerOutput]:
        """Return what has been said since the last time; start thread."""
        process = self._process
        if process is not None and self._ready:
            process.listen()
            if process.out or process.err:
                self._outputs.append(
                    ServerOutput(process.pid, bytes(process.out), bytes(process.err), [], [])
                )
                process.out.clear()
                process.err.clear()
        said, self._outputs = self._outputs, []
        return said

    def give_up(self) -> None:
        """End a preload that no start waits for any more. Any thread."""
        if not self._ready:
            self.kill()

    def kill(self) -> None:
        """End the process now, with what its preload has started; its workers go on. Any thread."""
        process = self._process
        if process is not None:
            process.kill_tree()

    def end(self, grace: float) -> None:
        """Let the process end (exit hooks of the preload run), within ``grace`` seconds.

        The start thread has ended.
        """
        process, self._process = self._process, None
        if process is not None:
            process.close_fd(process.socket)
            process.how_it_ended(grace)
            process.close()


class ForkedProcess(spawn.Process):
    """A worker that a fork server has forked.

    To the rest of the pool it is a process like any other.
    """

    forked = True
    why_lost = "what had forked it was gone"

    def __init__(
        self, server: ForkServerProcess, changes: Mapping[str, str | None], cwd: str, arena: int
    ) -> None:
        self._prepare()
        self._status: int | None = None
        self._status_read = False
        try:
            with descriptors.making:
                passed, outputs = self._make_pipes(arena)
                self._status_fd, status_child = self._pipe()
                set_blocking(self._status_fd, False)
                self._theirs.append(status_child)
                descriptors.own(*self._theirs)
                spawn.register(self)
            request = _record({"env": changes, "cwd": cwd, "passed": [fd >= 0 for fd in passed]})
            given = [fd for fd in (*passed, *outputs, status_child) if fd >= 0]
            # Outside `making`, for which a thread that forks the host waits.
            answer = server.ask(request, time.monotonic() + FORK_TIMEOUT, given)
            pid = int(_LENGTH.unpack(answer)[0])
            if pid >> 32:
                raise OSError(
                    pid & 0xFFFFFFFF, f"{os.strerror(pid & 0xFFFFFFFF)} (when a worker was forked)"
                )
            with descriptors.making:
                self._let_go()
                self._open.add(self._status_fd)
                self.pid = pid
                # The fork server cannot have reaped it: it keeps the zombie as long as our end of
                # the status pipe is open.
                self.exit = self._pidfd = pidfd_open(pid)
                descriptors.own(self._pidfd)
                self._open.add(self._pidfd)
                self._met = True
        except BaseException as error:
            self.close()  # its life pipe included: if it is there, it ends
            if isinstance(error, ProcessLookupError):
                raise _Lost from error  # the fork server has died with it
            raise

    def meet(self, claimed: int) -> None:
        """Do nothing: the fork server has said the number."""

    def ended(self) -> bool:
        """Return True if how it ended is known, or never will be.

        Else ``exit`` is the status pipe from now on.
        """
        if self._read_status() or self.exit == self._status_fd:
            return True
        self.exit = self._status_fd
        return False

    def _read_status(self) -> bool:
        """Read how it ended; True if that is known, or the fork server is gone."""
        if not self._status_read and self._status_fd in self._open:
            try:
                data = os.read(self._status_fd, 4)
            except BlockingIOError:
                return False
            self._status_read = True
            if len(data) == 4:
                self._status = int.from_bytes(data, "little", signed=True)
        return True

    def kill_tree(self) -> None:
        """End the process and its process group, at once."""
        if self._pidfd < 0 or self._pidfd not in self._open:
            return
        self.send_signal(SIGKILL)  # Race: a new fork does not lead a group yet
        try:
            pidfd_send_signal(self._pidfd, SIGKILL, None, children.TO_GROUP)
        except ProcessLookupError:
            return
        except OSError:
            # An older kernel: by number. That is the group's own while the process lives, and as
            # long as the fork server keeps the zombie.
            kept = self._status_fd in self._open and not (
                self._read_status() and self._status is None
            )
            if kept or not children.is_over(self._pidfd):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    killpg(self.pid, SIGKILL)

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """Send a signal to the worker process itself."""
        if self._pidfd >= 0 and self._pidfd in self._open:
            with contextlib.suppress(ProcessLookupError, PermissionError, OSError):
                pidfd_send_signal(self._pidfd, number)

    def reap(self) -> int | None:
        """Let the fork server collect the process, which has ended.

        Return how it ended, None if the fork server was gone.
        """
        self.kill_tree()
        self._read_status()
        self.close_fd(self._status_fd)
        return self._status


def _here() -> str:
    """Return the host's working folder; "" if it was removed.

    Then a fork stays where its fork server is.
    """
    try:
        return os.getcwd()
    except OSError:
        return ""


def _record(content: Any) -> bytes:
    data = pickle.dumps(content, 4)
    return _LENGTH.pack(len(data)) + data
