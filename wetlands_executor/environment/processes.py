"""Processes that lead a group of their own: started, read until they end, killed with their group.

Any thread may enter; nothing is shared. Calls into the operating system are chosen by
``sys.platform``, which the type checker understands; the branches for Windows and macOS have never
been run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wetlands_executor import children
from wetlands_executor.system import (
    POLLERR,
    POLLIN,
    POLLOUT,
    SIGCHLD,
    SIGKILL,
    killpg,
    poll,
    set_blocking,
)

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence

# Seconds; poll() takes a C int of milliseconds.
_LONGEST_WAIT: Final = 2_000_000.0
# Bytes of stderr that are kept.
_TAIL: Final = 65536


class Finished(NamedTuple):
    """What came of a process.

    Attributes:
        code: its exit code, negative for a signal; None if that is lost (``children.WHY_LOST``).
        ended: False if it did not end in time, and was killed.
        out: what it has written to its standard output.
        err: the last of what it has written to its standard error.
    """

    code: int | None
    ended: bool
    out: bytes
    err: bytes


def new_group() -> dict[str, Any]:
    """Return the arguments with which ``Popen`` starts a process that leads a group of its own.

    A Ctrl-C of the terminal does not reach it.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    else:  # noqa: RET505
        return {"start_new_session": True}


def run_to_end(
    argv: Sequence[str],
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
    *,
    cwd: str | None = None,
    linger: float | None = None,
    feed: tuple[int, int, bytes] | None = None,
) -> Finished:
    """Run a process in a process group of its own until it ends, and read what it writes.

    Needs no file.

    Waits for the process and not for the end of its output: a daemon that it leaves behind may keep
    the pipes open. If it does not end in time, or ends without the answer, its whole group is
    killed.

    Args:
        argv: the command.
        env: its variables.
        seconds: how long it may take.
        answered: what its output holds if all went well.
        cwd: its folder; None is that of this process.
        linger: seconds that it may take to end after it has answered; None is as long as all of it.
        feed: a pipe (reading end, writing end) that it inherits, and what is written to it.

    Raises:
        OSError: it cannot be started.
    """
    run = _run_with_files if sys.platform == "win32" else _run_with_pipes
    return run(argv, env, seconds, answered, cwd, linger, feed)


def _run_with_pipes(
    argv: Sequence[str],
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
    cwd: str | None,
    linger: float | None,
    feed: tuple[int, int, bytes] | None,
) -> Finished:
    process = subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
        pass_fds=(feed[0],) if feed else (),
    )
    pidfd = -1
    try:
        if hasattr(os, "pidfd_open"):
            # an old kernel, a sandbox; or it has ended, and the kernel has collected it
            with suppress(OSError):
                pidfd = os.pidfd_open(process.pid)
        ended, out, err = _listen(process, pidfd, seconds, answered, linger, feed)
        if not ended or not answered.search(out):
            kill_group(process)
        code = children.collect(process, pidfd)
        return Finished(code, ended, out, err)
    except BaseException:  # also KeyboardInterrupt: no other code knows of this process
        kill_group(process)
        children.collect(process, pidfd)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if pidfd >= 0:
            os.close(pidfd)


def _listen(
    process: subprocess.Popen[bytes],
    pidfd: int,
    seconds: float,
    answered: re.Pattern[bytes],
    linger: float | None,
    feed: tuple[int, int, bytes] | None,
) -> tuple[bool, bytes, bytes]:
    """Return whether a process has ended in time, and what it has written.

    All of stdout, the end of stderr.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    found = {out: bytearray(), err: bytearray()}
    ready = poll()
    for fd in (out, err):
        set_blocking(fd, False)
        ready.register(fd, POLLIN)
    if pidfd >= 0:
        ready.register(pidfd, POLLIN)
    waiting = memoryview(feed[2]) if feed else memoryview(b"")
    if feed:
        set_blocking(feed[1], False)
        ready.register(feed[1], POLLOUT)
    deadline = time.monotonic() + seconds
    quick = linger is None
    ended = False
    while not ended:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        for fd, event in ready.poll(min(left, _LONGEST_WAIT) * 1000):
            if fd == pidfd:
                ended = True
            elif feed and fd == feed[1]:
                try:
                    waiting = (
                        waiting[os.write(fd, waiting) :] if not event & POLLERR else waiting[:0]
                    )
                except BlockingIOError:
                    continue
                if not waiting:
                    ready.unregister(fd)  # the program says itself when it is at its end
            elif not _take(fd, found[fd]):
                ready.unregister(fd)
                if fd == out and pidfd < 0:
                    ended = _wait(process, deadline)
                    if not ended:
                        deadline = 0.0
        del found[err][:-_TAIL]
        if not quick and linger is not None and answered.search(found[out]):
            quick = True
            deadline = min(deadline, time.monotonic() + linger)
    for fd, data in found.items():
        _take(fd, data)
    return ended, bytes(found[out]), bytes(found[err])


def _take(fd: int, data: bytearray) -> bool:
    """Read what is there; False at the end."""
    try:
        while part := os.read(fd, 65536):
            data += part
    except BlockingIOError:
        return True
    return False


def _wait(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end of a process that has closed its output; True if it came in time.

    Where there is no pidfd.
    """
    try:
        process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    if process.returncode == 0 and not _collects_by_itself():
        # `Popen.wait` says 0 as well if the status was thrown away
        children.note_status(process, children.LOST)
    return True


def _collects_by_itself() -> bool:
    """Return True if neither the kernel nor a handler of the program collects ended children."""
    handler: object = signal.getsignal(SIGCHLD)
    return handler in (signal.SIG_DFL, None)


def _run_with_files(
    argv: Sequence[str],
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
    cwd: str | None,
    linger: float | None,  # noqa: ARG001 - the output is read when the process has ended
    feed: tuple[int, int, bytes] | None,  # noqa: ARG001 - for POSIX shells
) -> Finished:  # pragma: no cover - never run here
    """Do what ``run_to_end`` does, where pipes cannot be polled."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            creationflags=flags,
        )
        ended = True
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            ended = False
        except BaseException:
            kill_group(process)
            raise
        out.seek(0)
        data = out.read()
        if not ended or not answered.search(data):
            kill_group(process)
        code = process.wait()
        err.seek(0)
        return Finished(code, ended, data, err.read()[-_TAIL:])


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, and everything in that group."""
    if sys.platform == "win32":
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False
        )
        process.kill()
    else:
        # Race: the leader may have been reaped already; a group that still has members keeps its
        # number, an empty one is gone.
        try:
            killpg(process.pid, SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
            pass
