"""The fork server.

A process that imports the preload once and forks a worker whenever the host asks for one. Linux
only.

Owns the process until the fork, and the steps that make a fork as good as a process of its own. The
host's half, with the picture of the conversation, is ``pool/fork_server.py``. There is one thread,
the main one, and no user code runs on it after the preload.

1. ``serve`` imports the preload under the same conditions as a worker does (streams, project
   folders, log records, stand-ins), and answers with what came of it. A failure, or a thread that
   was started, ends the process: a fork would copy the locks of threads, not the threads.
2. It waits for requests, for the end of children, and for the host to acknowledge an end. A request
   carries the descriptors of a worker.
3. In the fork ``serve`` returns them, and ``bootstrap`` goes on as in every worker.

*Order:* a child that has ended is reported with ``WNOWAIT`` and stays a zombie until the host
closes its status pipe. As long as the host may send a signal to its number, no other process gets
that number.
"""

from __future__ import annotations

import _socket
import gc
import os
import select
import sys
from _signal import SIG_DFL, SIGCHLD, SIGINT, getsignal, set_wakeup_fd
from _signal import signal as set_signal
from errno import EMFILE

from . import calls, imports, running, startup, stdio, wire
from .calls import dumps, dumps_error, loads
from .system import native, tie_to_host

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    from .config import ProcessConfig

# Type checkers do not look at the rest on other platforms.
assert sys.platform == "linux"

#: Descriptors of a request at most: those of a worker in the order of ``STAGE0``, then stdout,
#: stderr and status.
_MOST = 32
#: ``MSG_CMSG_CLOEXEC``: no command that a sibling starts inherits them.
_CLOEXEC = 0x40000000
#: Seconds that threads of the preload may take to end by themselves.
_THREADS_GRACE = 1.0
#: Standard exit hooks that serve what a worker makes itself; see ``_forget_exit_hooks``.
_HOOKS = (
    ("weakref", "finalize._exitfunc"),
    ("logging", "shutdown"),
    ("multiprocessing.util", "_exit_function"),
)


class LogBuffer:
    """Takes the place of the runner until there is one.

    Keeps the log records of the preload, and passes those of a worker on to its runner.
    """

    def __init__(self) -> None:
        self.kept: List[bytes] = []

    @property
    def channel(self) -> Any:
        """Where records go."""
        real = running.main_loop
        return self if real is None else real.channel

    @property
    def item(self) -> int:
        """The running call."""
        real = running.main_loop
        return 0 if real is None else int(real.item)

    @property
    def serial(self) -> int:
        """Of the running call."""
        real = running.main_loop
        return 0 if real is None else int(real.serial)

    @property
    def thread(self) -> int:
        """The main thread."""
        real = running.main_loop
        return 0 if real is None else int(real.thread)

    def send(self, kind: int, item: int, payload: Any = b"") -> None:
        """Keep a record."""
        if kind == wire.LOG:
            self.kept.append(bytes(payload))


class Child:
    """A worker that was forked.

    Its pid, our end of its status pipe (-1 when the host has closed the other), whether its end was
    reported.
    """

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.status = status
        self.reported = False

    def report(self) -> None:
        """Note that its end was reported."""
        self.reported = True

    def close(self) -> None:
        """Close our end of its status pipe."""
        os.close(self.status)
        self.status = -1


def serve(fds: List[int]) -> List[int]:
    """Import the preload and fork workers; return, in each of them, its descriptors.

    Never returns in the fork server itself.
    """
    line = _socket.socket(fileno=fds[1])
    stdio.install()
    startup.watch_for_faults()
    set_signal(SIGINT, _ignore)  # a Ctrl-C that reaches this process does not concern it
    config = loads(_receive(line)[0])
    answer = _preload(config)
    stdio.finish_task()
    stdio.flush_buffered()
    line.sendall(_packed(answer))
    if answer["failure"] is not None:
        sys.exit(wire.EXIT_START_FAILED)
    collecting = _prepare_forks(config)
    worker = ForkServer(line, fds[3], bool(answer["threads"])).loop()
    if collecting:
        gc.enable()
    return worker


class ForkServer:
    """The loop of the fork server."""

    def __init__(self, line: Any, life: int, threads: bool) -> None:
        self.line = line
        self.life = life
        self.threads = threads
        self.children: List[Child] = []
        self.poll = select.poll()
        self.poll.register(line.fileno(), select.POLLIN)
        self.wake, self.woken = os.pipe()
        for fd in (self.wake, self.woken):
            os.set_blocking(fd, False)
        self.poll.register(self.wake, select.POLLIN)
        self.previous = getsignal(SIGCHLD)
        set_signal(SIGCHLD, _ignore)  # a handler, so that the descriptor below is written to
        set_wakeup_fd(self.woken, warn_on_full_buffer=False)

    def loop(self) -> List[int]:
        """Serve the host until it closes the socket; return in each fork."""
        while True:
            # Race: serving one descriptor may close another one that is ready as well, and open a
            # new one under its number. So one at a time.
            fd = self.poll.poll()[0][0]
            if fd == self.line.fileno():
                found = self.answer()
                if found is not None:
                    return found
            elif fd == self.wake:
                os.read(self.wake, 4096)
                self.look_at_children()
            else:
                self.host_knows(fd)

    def answer(self) -> Optional[List[int]]:
        """Fork for a request.

        Return the worker's descriptors in the child, None in this process.
        """
        data, given = _receive(self.line)
        if not data:
            # the host uses no number any more, whether or not we have seen that it closed a pipe
            for child in self.children:
                _reap(child.pid)
            sys.exit(0)  # exit hooks of the preload run here, once
        request = loads(data)
        # the kernel has dropped descriptors for which this process had no room
        pid = 1 << 32 | EMFILE
        if len(given) == sum(request["passed"]) + 3:
            try:
                pid = self.fork()
            except OSError as error:
                pid = 1 << 32 | (error.errno or 0)
        if pid == 0:
            return self.become_worker(given, request)
        if not pid >> 32:
            status = given.pop()
            self.children.append(Child(pid, status))
            # POLLERR is reported unasked: the host has closed its end
            self.poll.register(status, 0)
        for fd in given:
            os.close(fd)
        self.line.sendall((8).to_bytes(8, "little") + pid.to_bytes(8, "little"))
        return None

    def fork(self) -> int:
        """Fork; Python 3.12 and newer warns of threads, of which the host was told."""
        if not self.threads:
            return os.fork()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()

    def look_at_children(self) -> None:
        """Report the ends of children, and reap those of which the host knows."""
        for child in list(self.children):
            if child.reported and child.status >= 0:
                continue
            try:
                found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # reaped by other code of this process: its status is lost
                self.drop(child)
                continue
            if found is None:
                continue
            if child.status < 0:
                _reap(child.pid)
                self.children.remove(child)
                continue
            child.report()
            code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            try:
                os.write(child.status, code.to_bytes(4, "little", signed=True))
            except BrokenPipeError:
                pass  # `host_knows` follows

    def host_knows(self, status: int) -> None:
        """Reap a child whose number the host no longer uses: it has closed the status pipe."""
        for child in self.children:
            if child.status == status:
                self.poll.unregister(status)
                child.close()
        self.look_at_children()

    def drop(self, child: Child) -> None:
        """Forget a child whose status is lost."""
        self.children.remove(child)
        if child.status >= 0:
            self.poll.unregister(child.status)
            child.close()

    def become_worker(self, given: List[int], request: Dict[str, Any]) -> List[int]:
        """Turn this fork into a process of its own; return its descriptors."""
        os.setsid()
        stdout, stderr, status = given[-3:]
        found = iter(given)
        fds = [next(found) if present else -1 for present in request["passed"]]
        tie_to_host(fds[3])
        set_wakeup_fd(-1)
        set_signal(SIGCHLD, self.previous if self.previous is not None else SIG_DFL)
        self.line.close()
        for fd in (
            self.life,
            self.wake,
            self.woken,
            status,
            *(child.status for child in self.children),
        ):
            if fd >= 0:
                os.close(fd)
        stdio.adopt(stdout, stderr)
        for name, value in request["env"].items():
            if value is None:
                os.environ.pop(native(name), None)
            else:
                os.environ[native(name)] = native(value)
        try:
            if request["cwd"]:
                os.chdir(native(request["cwd"]))
        except OSError as error:
            sys.stderr.write("wetlands_executor: the worker cannot go to its folder: %s\n" % error)
            sys.stderr.flush()
            os._exit(wire.EXIT_START_FAILED)
        _forget_exit_hooks()
        _reseed()
        return fds


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # other code of this process has reaped it


def _ignore(_signum: int, _frame: Any) -> None:
    """Do nothing."""


def _packed(content: Any) -> bytes:
    data = dumps(content, 4)
    return len(data).to_bytes(8, "little") + data


def _receive(line: Any) -> Tuple[bytes, List[int]]:
    """Return the next record and the descriptors that came with it; b"" at the end."""
    data = b""
    fds: List[int] = []
    while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "little"):
        wanted = (
            8 + int.from_bytes(data[:8], "little") - len(data) if len(data) >= 8 else 8 - len(data)
        )
        try:
            got, extra, _flags, _address = line.recvmsg(
                wanted, _socket.CMSG_SPACE(4 * _MOST), _CLOEXEC
            )
        except ConnectionResetError:
            return b"", fds
        if not got:
            return b"", fds
        for _level, _type, raw in extra:
            fds += list(memoryview(raw[: len(raw) // 4 * 4]).cast("i"))
        data += got
    return data[8:], fds


# --- the preload


def _preload(config: ProcessConfig) -> Dict[str, Any]:
    """Import the modules; return what the host wants to know."""
    # Imports make objects that stay. Looking for garbage among them again and again takes a tenth
    # of the time.
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1000)
    log_buffer = LogBuffer()
    startup.set_up_process(config, log_buffer)
    failure = None
    threads: List[Tuple[str, int]] = []
    by_value = config["magic"] in (None, startup.magic())
    if not by_value:
        calls.use_sources(config["version"])
    started: Dict[str, List[Any]] = {}
    for name in config["preload"]:
        before, natives = _python_threads(), _native_threads()
        try:
            imports.import_named(name)
        except BaseException as error:  # noqa: BLE001
            # any failure of user code ends the start, with its reason
            failure = _describe(error, "preload of %r failed" % name, by_value)
            break
        new = [thread for thread in _python_threads() if thread not in before]
        if new:
            started[name] = new
        native = _native_threads() - natives - len(new)
        if native > 0:
            threads.append((name, native))
    gc.set_threshold(*thresholds)
    if failure is None:
        failure = _refuse_threads(started, by_value)
    return {"failure": failure, "records": log_buffer.kept, "threads": threads, "pid": os.getpid()}


def _describe(error: BaseException, reason: str, by_value: bool) -> bytes:
    sys.stderr.write("wetlands_executor: %s: %s: %s\n" % (reason, type(error).__name__, error))
    return dumps_error(error, by_value)


def _python_threads() -> List[Any]:
    threading = sys.modules.get("threading")
    return (
        []
        if threading is None
        else [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    )


def _native_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def _refuse_threads(started: Dict[str, List[Any]], by_value: bool) -> Optional[bytes]:
    """Wait for threads that are about to end; return the failure that names those that stay."""
    import _thread
    from time import monotonic

    end = monotonic() + _THREADS_GRACE
    left = []
    for name, threads in started.items():
        for thread in threads:
            thread.join(max(0.0, end - monotonic()))
        alive = [thread for thread in threads if thread.is_alive()]
        if alive:
            left.append(
                "%s (started by the import of %s)"
                % (", ".join(repr(thread.name) for thread in alive), name)
            )
    if not left:
        count = _thread._count()
        if not count:
            return None
        left = ["%d without a name" % count]
    error = RuntimeError(
        "the preload has left threads running: %s. A process with threads cannot be forked "
        "safely. Take the module out of preload "
        "(workers then import it when they need it), or leave share_preload out" % "; ".join(left)
    )
    return _describe(error, "preload", by_value)


# --- before and after the fork


def _prepare_forks(config: ProcessConfig) -> bool:
    """Do once what every worker needs, and keep the collector from writing to shared pages.

    Return whether the collector was enabled.
    """
    import mmap  # noqa: F401

    from . import warm_up

    collecting = gc.isenabled()
    gc.disable()
    for _ in range(warm_up.TIMES):
        _reseed()
    warm_up.warm_up(config)
    if hasattr(gc, "freeze"):
        gc.freeze()  # without a collection before, which takes as long as many a fork
    return collecting


def _forget_exit_hooks() -> None:
    """Leave the exit hooks of the preload to the fork server, where they run once.

    Those that serve new objects stay.

    As with ``multiprocessing``: a fork must not remove a temporary folder that its siblings use, or
    end a library that they share.
    """
    import atexit

    weakref = sys.modules.get("weakref")
    if weakref is not None:
        for finalizer in list(weakref.finalize._registry):
            finalizer.atexit = False
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
    atexit._clear()
    hooks = _HOOKS
    if sys.version_info < (3, 9):  # newer ones have a list of their own, which stays
        hooks += (
            ("concurrent.futures.thread", "_python_exit"),
            ("concurrent.futures.process", "_python_exit"),
        )
    for module, path in hooks:
        found: Any = sys.modules.get(module)
        if found is not None and (module != "weakref" or found.finalize._registered_with_atexit):
            for name in path.split("."):
                found = getattr(found, name)
            atexit.register(found)


def _reseed() -> None:
    """Give numpy's global generator a state of its own.

    ``random`` reseeds itself when a process forks.

    The whole state is random. To have it made from a seed writes to twice as many pages, and each
    is copied in every fork.
    """
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        try:
            numbers.set_state(("MT19937", memoryview(os.urandom(4 * 624)).cast("I"), 624))
        except (TypeError, ValueError):
            # the preload has put another bit generator in its place, which cannot be seeded again
            pass
