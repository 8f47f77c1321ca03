"""Worker processes: started with private pipes, watched, and killed with their tree.

What the platform has of all that is decided in ``wetlands_executor/system.py``.

Why a session of its own per worker: a Ctrl-C in the terminal reaches the host only, which passes it
on by its own rules, and the whole tree of a worker can be killed by its process group.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

from wetlands_executor import children, threads
from wetlands_executor.descriptors import (
    MEMFD,
    close_owned,
    close_quietly,
    for_worker,
    making,
    memory,
    memory_file,
    own,
    pipe,
    seal_size,
    temporary_file,
)
from wetlands_executor.pool.host_page import HostPage
from wetlands_executor.pool.wakeup import Wakeup
from wetlands_executor.system import (
    F_ADD_SEALS,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    GROUPS,
    O_CLOEXEC,
    O_NONBLOCK,
    P_PID,
    PORTABLE_ONLY,
    SIGCHLD,
    SIGKILL,
    THREADS,
    WEXITED,
    WNOWAIT,
    above_standard,
    fcntl,
    killpg,
    pidfd_open,
    pidfd_send_signal,
    register_at_fork,
    reserve,
    set_blocking,
    start_process,
    waitid,
)
from wetlands_executor.worker import wire
from wetlands_executor.worker.shared_page import map_file
from wetlands_executor.worker.stage0 import STAGE0

_processes: weakref.WeakSet[Process] = weakref.WeakSet()


def register(process: Process) -> None:
    """Note a process that a forked child has to let go of."""
    _processes.add(process)


def close_all() -> None:
    """Close the descriptors of all pools, and let go of their processes; in a forked child."""
    close_owned()
    for process in list(_processes):
        process.disinherit()


def _fill(fd: int, data: bytes) -> None:
    """Write a file of ``Process._make_bundle``, and seal it against changes.

    Raises OSError.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)


class Process:
    """A started worker process and the host's ends of its pipes.

    Attributes:
        pid: the Python. It leads a session and a process group of its own on POSIX, unless it is
            the child of a wrapper, which leads both.
        inbox, bulk: writing ends, non-blocking.
        results, stdout, stderr: reading ends, non-blocking.
        life: writing end that is never written to; its closing ends the process tree.
        inbox_reader: second, non-blocking open of the inbox's reading end, -1 where there is none.
        exit: a descriptor that becomes readable when the process has ended.
        memory: the file of its large results, -1 where there is none.
        page: the page that is shared with the worker (see ``worker/shared_page.py``), or None.
        wakeup: what the worker notifies when an answer lies on the shared page, or None. It is
        closed with the last reference.
    """

    _popen: subprocess.Popen[bytes] | None = None

    _pidfd = -1

    #: Why ``reap`` may not know how the process has ended.
    why_lost = children.WHY_LOST

    #: True if it was forked by a fork server (``fork_server.py``), which has imported the preload
    #: and holds the sources.
    forked = False

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, arena: int = -1
    ) -> None:
        self._prepare()
        try:
            with making:
                self._start(list(argv), dict(env), cwd, arena)
        except BaseException:
            if self._popen is not None:
                self._popen.kill()
                self._popen.wait()
            self.close()
            raise
        register(self)

    def _prepare(self) -> None:
        self._close = contextlib.ExitStack()
        self.page: HostPage | None = None
        self.wakeup: Wakeup | None = None
        self._map: mmap.mmap | None = None
        self._open: set[int] = set()
        self._bundle = -1
        #: The Python, if a wrapper has started it; and whether that is known, because the Python
        #: has said its number.
        self._wrapped: children.WrappedPython | None = None
        self._met = False

    def _pipe(self) -> tuple[int, int]:
        read, write = pipe()
        own(read, write)
        self._close.callback(close_quietly, read)
        self._close.callback(close_quietly, write)
        return read, write

    def _start(self, argv: list[str], env: dict[str, str], cwd: str | None, arena: int) -> None:
        passed, outputs = self._make_pipes(arena)
        self._popen = start_process(
            [*argv, "-c", STAGE0], env, cwd, [*passed, self._make_bundle()], *outputs
        )
        self.pid = self._popen.pid
        self._let_go()
        self._watch()

    def _watch(self) -> None:
        """Make the descriptor that becomes readable at the end of the process."""
        assert self._popen is not None
        self.exit, is_pidfd = watch_exit(self._popen)
        own(self.exit)
        self._open.add(self.exit)
        if is_pidfd:
            self._pidfd = self.exit

    def _make_pipes(self, arena: int) -> tuple[list[int], tuple[int, int]]:
        """Make both ends of everything.

        Return what the worker gets, in the order of ``STAGE0``, and its stdout and stderr.
        """
        inbox_child, self.inbox = self._pipe()
        bulk_child, self.bulk = self._pipe()
        self.results, results_child = self._pipe()
        life_child, self.life = self._pipe()
        self.stdout, stdout_child = self._pipe()
        self.stderr, stderr_child = self._pipe()
        self.inbox_reader = -1
        page_child = -1
        if not PORTABLE_ONLY:
            # no /proc: the worker holds one item at a time, as elsewhere
            with contextlib.suppress(OSError):
                again = os.open(
                    f"/proc/self/fd/{inbox_child}", os.O_RDONLY | O_NONBLOCK | O_CLOEXEC
                )
                self.inbox_reader = above_standard(again)
                own(self.inbox_reader)
                self._close.callback(close_quietly, self.inbox_reader)
            page_child = self._share_page()
            with contextlib.suppress(OSError):  # no eventfd: all answers go through the pipe
                self.wakeup = Wakeup()
        self.memory = -1
        files = [-1, -1]
        if arena >= 0:
            files[0] = self._close_later(for_worker(arena))
            with contextlib.suppress(OSError):  # a limit of file sizes: results go through the pipe
                self.memory = self._close_later(memory_file())
                files[1] = self._close_later(for_worker(self.memory))
        for fd in (self.inbox, self.bulk, self.results, self.stdout, self.stderr):
            set_blocking(fd, False)
        passed = [inbox_child, bulk_child, results_child, life_child, page_child, *files]
        self._theirs = [*passed, stdout_child, stderr_child]
        return [*passed, -1 if self.wakeup is None else self.wakeup.fd], (
            stdout_child,
            stderr_child,
        )

    def _close_later(self, fd: int) -> int:
        own(fd)
        self._close.callback(close_quietly, fd)
        return fd

    def _make_bundle(self) -> int:
        """Make the file of its bundle; return its descriptor.

        -1 where there are no memory files, or no descriptor is left: the bundle goes through the
        pipe.
        """
        if MEMFD:
            with contextlib.suppress(OSError):
                self._bundle = self._close_later(memory("wetlands-bundle"))
        return self._bundle

    def ship(self, data: bytes) -> bytes:
        """Make the bundle available; return the bytes that have to go through its pipe first.

        Once, and after the start: the interpreter needs longer for its own start than the host for
        the bundle.
        """
        fd, self._bundle = self._bundle, -1
        if fd >= 0:
            try:
                _fill(fd, data)
            except OSError:
                # a limit of file sizes, or of memory: it does not look there unless it is told so
                pass
            else:
                return bytes(8)
            finally:
                self.close_fd(fd)
        return len(data).to_bytes(8, "little") + data

    def _let_go(self) -> None:
        """Close the worker's ends.

        Only the host's are kept for ``close``: the numbers of the others may be reused soon.
        """
        for fd in self._theirs:
            close_quietly(fd)
        self._close.pop_all()
        self._open = {
            self.inbox,
            self.bulk,
            self.results,
            self.life,
            self.stdout,
            self.stderr,
            self.inbox_reader,
            self.memory,
            self._bundle,
        }

    def _share_page(self) -> int:
        fd = self._close_later(memory("wetlands-page") if MEMFD else temporary_file())
        os.ftruncate(fd, wire.PAGE)
        if MEMFD:
            seal_size(fd)
        else:
            reserve(fd, 0, wire.PAGE)
        self._map = map_file(fd, wire.PAGE)
        self.page = HostPage(memoryview(self._map), True)
        return fd

    def close_fd(self, fd: int) -> None:
        """Close one of the host's ends, once."""
        if fd in self._open:
            self._open.discard(fd)
            close_quietly(fd)

    def fds(self) -> set[int]:
        """Return the descriptors that the host holds for this process."""
        return set(self._open)

    def close(self) -> None:
        """Close all that is left. The process itself is not touched."""
        self._wrapped = None  # Order: before its descriptor's number can become another one's
        self._close.close()
        for fd in list(self._open):
            self.close_fd(fd)
        self.wakeup = None
        self._close_page()

    def _close_page(self) -> None:
        if self.page is not None:
            self.page.release()
        if self._map is not None:
            self._map.close()
            self._map = None

    def disinherit(self) -> None:
        """Forget the process, which belongs to the parent of this forked one.

        The descriptors are closed already.
        """
        self._wrapped = None
        self._open.clear()
        self._close_page()
        if self._popen is not None:
            children.note_status(self._popen, 0)

    def meet(self, claimed: int) -> None:
        """Note which process the Python is, as it says itself.

        This one, or the child of this one, which is a wrapper then.

        An interpreter may be a script that runs Python as its child. Signals concern the Python,
        the exit is the wrapper's.

        Args:
            claimed: the number that the Python says; it has proven to be ours by the nonce, which
                only it was told.
        """
        assert self._popen is not None
        self._met = True
        if claimed == self._popen.pid:
            return
        with making:
            self._wrapped = found = children.find_wrapped(claimed, self._popen.pid)
            if found is not None:
                self.pid = found.pid
                if found.fd >= 0:
                    own(found.fd)
                    self._open.add(found.fd)

    def exit_of_python(self) -> int:
        """Return the descriptor that becomes readable when the Python behind a wrapper has ended.

        -1 where there is none. The wrapper may go on after that.
        """
        wrapped = self._wrapped
        return -1 if wrapped is None or THREADS else wrapped.fd

    def kill_tree(self) -> None:
        """End the process and all that it started in its process group, at once.

        Harmless when they are gone.
        """
        assert self._popen is not None
        if self._popen.returncode is not None:
            return
        others = [] if self._wrapped is None else [self._wrapped]
        if not self._met and GROUPS:
            # Before the hello of the Python: it may be there all the same, below a wrapper
            # and in a session of its own.
            others = children.in_other_groups(self._popen.pid)
        if GROUPS:
            self._kill_group()
        else:
            self._popen.kill()
        for other in others:
            other.kill()
            if other is not self._wrapped and other.fd >= 0:
                os.close(other.fd)

    def _kill_group(self) -> None:
        assert self._popen is not None
        if self._pidfd >= 0 and self._pidfd in self._open:
            try:
                pidfd_send_signal(self._pidfd, SIGKILL, None, children.TO_GROUP)
            except ProcessLookupError:
                return
            except OSError:
                # A kernel before 6.9. The group's number stays taken until the leader is collected:
                # by `reap`, after this, unless the program ignores SIGCHLD.
                if children.is_over(self._pidfd) and signal.getsignal(SIGCHLD) == signal.SIG_IGN:
                    return
            else:
                return
        # Race: the group's number stays taken until the leader is reaped, and only `reap` does
        # that, after this.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            killpg(self._popen.pid, SIGKILL)

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """Send a signal to the Python itself."""
        assert self._popen is not None
        if self._wrapped is not None:
            self._wrapped.send_signal(number)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError, OSError):
            if self._pidfd >= 0 and self._pidfd in self._open:
                # `Popen.send_signal` collects a process that has ended, before `reap`
                pidfd_send_signal(self._pidfd, number)
            else:
                self._popen.send_signal(number)

    def ended(self) -> bool:
        """Return True if the end of ``exit`` is the end of the worker.

        False if ``exit`` is another descriptor from now on, whose end is.
        """
        wrapped = self._wrapped
        if (
            wrapped is None
            or wrapped.fd < 0
            or THREADS
            or self.exit == wrapped.fd
            or wrapped.has_ended()
        ):
            return True
        # The wrapper has ended before the Python, which may still write to memory that it shares
        # with others.
        wrapped.kill()
        self.exit = wrapped.fd
        return False

    def reap(self) -> int | None:
        """Collect the process, which has ended.

        Return its exit code, negative for a signal, None if that is lost.
        """
        self.kill_tree()
        assert self._popen is not None
        return children.collect(self._popen, self._pidfd)


def can_fork_workers() -> bool:
    """Return True if workers may be forked by a fork server.

    Linux with pidfds, which report the end of a process that is not a child of this one.
    """
    if PORTABLE_ONLY:
        return False
    try:
        os.close(pidfd_open(os.getpid()))
    except OSError:  # there are none, a kernel before 5.3, or a sandbox that forbids it
        return False
    return True


def signal_name(code: int | None) -> str | None:
    """Return the name of the signal of a negative exit code."""
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def describe_end(code: int | None, why_lost: str) -> str:
    """Return how a process has ended, for the sentence "it ended ..."."""
    if code is None:
        return f"in an unknown way ({why_lost})"
    if code < 0:
        return f"by {signal_name(code)}"
    # A wrapper that is a shell ends so when its Python was ended by a signal.
    name = signal_name(128 - code) if 128 < code < 128 + signal.NSIG else None
    return f"with exit code {code}" + (
        f" (a shell's for a program that {name} has ended)" if name else ""
    )


def watch_exit(process: subprocess.Popen[bytes]) -> tuple[int, bool]:
    """Return (descriptor, whether it is a pidfd); it becomes readable when the process has ended.

    The process is not collected, where that is possible.
    """
    if not PORTABLE_ONLY:
        with contextlib.suppress(OSError):  # as in `can_fork_workers`
            return pidfd_open(process.pid), True
    read, write = pipe()

    def wait() -> None:
        try:
            waitid(P_PID, process.pid, WEXITED | WNOWAIT)
        except ChildProcessError:
            # the program's own SIGCHLD handler has collected it, or ignores the signal: it has
            # ended all the same
            pass
        except OSError:  # the call is absent
            children.collect(process)
        finally:
            os.close(write)

    threading.Thread(target=wait, name=f"wetlands-exit-{process.pid}", daemon=True).start()
    return read, False


def can_reclaim() -> bool:
    """Return True if unstarted items can be read back from a worker's inbox.

    A worker may then be given several.
    """
    return not PORTABLE_ONLY and os.path.isdir("/proc/self/fd")


def at_fork(after_in_child: Callable[[], None]) -> None:
    """Register what a forked child of the host has to do (nothing where there is no fork)."""

    def in_child() -> None:
        try:
            after_in_child()
        finally:
            threads.release_all(making)

    register_at_fork(before=making.acquire, after_in_parent=making.release, after_in_child=in_child)
