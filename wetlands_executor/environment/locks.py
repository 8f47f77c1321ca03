"""Locks between processes: one maker per environment, and none removes what another uses.

Owns the files that are locked and the search for processes of an environment. The system frees a
lock when its process ends, however that happens. A lock only spares work, or keeps a removal away:
what is complete is decided by records (``store``), so a file system without locks does no harm.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetlands_executor.environment import file_locks

if TYPE_CHECKING:
    from wetlands_executor.environment.cancellation import Cancellation

#: Open files that a fork of this program must not keep: it would hold the locks.
_open: weakref.WeakSet[_Locked] = weakref.WeakSet()


class _Locked:
    """An open file that is, or will be, locked."""

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _open.add(self)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        _open.discard(self)
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class CreationLock:
    """The right to make one environment, among all threads and processes.

    Args:
        path: the file to lock; it stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: _Locked | None = None

    def acquire(self, cancellation: Cancellation, on_wait: Callable[[str], object]) -> None:
        """Take the lock, waiting as long as another has it.

        Args:
            cancellation: ends the wait with ``CancelledError``.
            on_wait: is told once who has it.

        Raises:
            OSError: the file cannot be opened.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        locked = _Locked(os.open(self._path, flags, 0o666))
        if not file_locks.lock_file(locked.fd, wait=False):
            on_wait(_owner(self._path))
            _wait_for(locked, cancellation)
        self._held = locked
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        with suppress(OSError):  # a full disk: it only tells others who waits for whom
            os.ftruncate(locked.fd, 0)
            os.lseek(locked.fd, 0, os.SEEK_SET)
            os.write(locked.fd, json.dumps(owner).encode())

    def release(self) -> None:
        """Give the lock back."""
        held, self._held = self._held, None
        if held is not None:
            held.close()


class _Wait:
    """A thread's wait for a lock; the thread that wanted it may have left meanwhile."""

    def __init__(self, locked: _Locked) -> None:
        self.over = threading.Event()
        self._locked: _Locked | None = locked
        # Guards the two fields; never held while the lock is waited for.
        self._mutex = threading.Lock()
        self._taken = False

    def run(self) -> None:
        locked = self._locked
        assert locked is not None
        with suppress(OSError):
            file_locks.lock_file(locked.fd)
        with self._mutex:
            self._taken = True
            if self._locked is None:
                locked.close()
        self.over.set()

    def leave(self) -> None:
        """Have the lock given back as soon as it is there."""
        with self._mutex:
            locked, self._locked = self._locked, None
            if self._taken and locked is not None:
                locked.close()


def _wait_for(locked: _Locked, cancellation: Cancellation) -> None:
    """Wait for a lock in a thread of its own: the system's wait cannot be cancelled."""
    wait = _Wait(locked)
    threading.Thread(target=wait.run, name="wetlands-environment-lock", daemon=True).start()
    try:
        with cancellation.stopping(wait.over.set):
            wait.over.wait()
    except BaseException:
        wait.leave()
        raise


def _owner(path: Path) -> str:
    """Tell who has a lock, for a person."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(told["since"]))
        here = told["host"] == socket.gethostname()
        where = "" if here else f" on {told['host']}"
        return f"process {int(told['pid'])}{where}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


class Lease:
    """Keeps an environment from being removed; the system closes it with the process."""

    def __init__(self, locked: _Locked | None) -> None:
        # None where there is nothing to lock.
        self._locked = locked

    @classmethod
    def take(cls, path: Path, *, alone: bool = False) -> Lease | None:
        """Lock the file of an environment.

        Args:
            path: the file.
            alone: no other may have a lease.

        Returns:
            None if another has a lease that excludes this one. Where there is no file, or none that
            may be opened, the lease keeps nothing.
        """
        try:
            locked = _Locked(os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
        except OSError:
            return None
        if not file_locks.lock_file(locked.fd, shared=not alone, wait=False):
            locked.close()
            return None
        return cls(locked)

    def close(self) -> None:
        """Give it back."""
        if self._locked is not None:
            self._locked.close()


def users_of(folder: Path, *, mentions: bool = False) -> list[Any]:
    """Return the processes (of ``psutil``) that use an environment in a folder.

    They run a program of it, or any program while it is activated.

    Args:
        folder: the folder.
        mentions: instead those whose command names something in it, as a package manager's does.
    """
    import psutil

    inside = os.path.join(str(folder), "")
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue  # it has ended, or is another user's
        if mentions:
            is_user = any(inside in word for word in words)
        else:
            is_user = any(word.startswith(inside) for word in [*words[:1], *_activated(process)])
        if is_user:
            found.append(process)
    return [process for process in found if not mentions or process.pid != os.getpid()]


def _activated(process: Any) -> list[str]:
    """Return the prefixes of the environments that are activated for a process."""
    import psutil

    try:
        variables = process.environ()
    except (psutil.Error, OSError):
        return []  # as above; some systems tell no process's variables
    return [variables[name] for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if name in variables]


def end_tree(pid: int, kill: bool = False) -> None:
    """Ask a process and its descendants to end, or kill them. Does not wait."""
    import psutil

    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.Error:
        return
    for process in family:
        with suppress(psutil.Error):
            if kill:
                process.kill()
            else:
                process.terminate()


def _after_fork_in_child() -> None:
    for locked in list(_open):
        with suppress(OSError):
            locked.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
