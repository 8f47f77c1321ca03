"""What a test may not leave behind.

Processes, threads, descriptors, shared memory, temporary files.

Owns the comparison only; the fixture that runs it around every test is in ``tests/conftest.py``.
The way of one check::

    before = Snapshot.take()         # about half a millisecond
    ...the test...
    found = since(before)            # the same again when nothing is left; else waits, bounded, for
    what is on its way out

Waiting is on what ends: a thread is joined, a process is watched through its pidfd (not
``waitpid``, which would tidy up the very zombie that we look for). Nothing announces a closed
descriptor or a removed file: those are looked at again a few times, growing intervals, until the
deadline.

Orphans are found too: the session's processes carry a mark in their environment (``MARK``), which a
grandchild keeps when its parent dies and it becomes init's child.
"""

from __future__ import annotations

import gc
import os
import re
import select
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Name of the variable that tells the processes of this test session from all others.
MARK = "WETLANDS_TEST_SESSION"
#: Prefix of every temporary file of the library.
TEMP_PREFIX = "wetlands"
#: Seconds that threads and processes on their way out may take after a test.
GRACE = 5.0
#: Seconds for what nothing announces (descriptors, mappings, files), once no thread or process is
#: left over.
SETTLE = 1.0

_PROC = Path("/proc/self/fd").is_dir()
_SHM = Path("/dev/shm")


def mark_session() -> None:
    """Mark this process's environment, so that every process started from now on is known as ours.
    """
    os.environ[MARK] = f"{os.getpid()}-{uuid.uuid4().hex}"


def descendants(pid: int | None = None) -> set[int]:
    """Return the process ids below ``pid`` (default: this process), zombies included.

    A process that ends while we look is simply not there.
    """
    root = os.getpid() if pid is None else pid
    if not _PROC:
        try:
            return {child.pid for child in psutil.Process(root).children(recursive=True)}
        except psutil.NoSuchProcess:
            return set()
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in _children(queue.pop()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def _children(pid: int) -> Iterator[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                yield from map(int, file.read().split())
        except OSError:
            continue


def _system_pids() -> frozenset[int]:
    if not _PROC:
        return frozenset()
    return frozenset(int(name) for name in os.listdir("/proc") if name.isdigit())


def _is_marked(pid: int) -> bool:
    mark = os.environ.get(MARK)
    if mark is None:
        return False
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or another user's
        return False
    return f"{MARK}={mark}".encode() in environ.split(b"\0")


def _descriptors() -> frozenset[tuple[int, str]]:
    if not _PROC:
        try:
            # counts only
            return frozenset((number, "") for number in range(psutil.Process().num_fds()))
        except AttributeError:  # Windows
            return frozenset()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of this very listing
            continue
        # libffi (of ctypes) opens its own file at the first callback of a process, to map code from
        # it, and never closes it.
        if not os.path.basename(target).startswith("libffi.so"):
            found.add((int(name), target))
    return frozenset(found)


def _shared_memory() -> frozenset[str]:
    try:
        return frozenset(os.listdir(_SHM))
    except OSError:
        return frozenset()


def _memfds() -> frozenset[str]:
    """Return the memfd mappings of this process, each as start address, inode and name."""
    try:
        with open("/proc/self/maps", "rb") as file:
            text = file.read()
    except OSError:
        return frozenset()
    found = set()
    if b"memfd:" in text:
        for line in text.splitlines():
            if b"memfd:" in line:
                area, _, _, _, inode, name = line.decode(errors="replace").split(None, 5)
                found.add(f"{area.partition('-')[0]} inode {inode} {name}")
    return frozenset(found)


def _temporary_files() -> frozenset[str]:
    try:
        names = os.listdir(tempfile.gettempdir())
    except OSError:
        return frozenset()
    return frozenset(name for name in names if name.startswith(TEMP_PREFIX))


def _allowed() -> tuple[set[int], set[int]]:
    """Return the processes and descriptors that multiprocessing keeps for the rest of the session,
    by its own design.
    """
    pids: set[int] = set()
    fds: set[int] = set()
    for module, instance, attributes in (
        ("multiprocessing.resource_tracker", "_resource_tracker", ("_pid", "_fd")),
        ("multiprocessing.forkserver", "_forkserver", ("_forkserver_pid", "_forkserver_alive_fd")),
    ):
        owner = getattr(sys.modules.get(module), instance, None)
        for kind, attribute in zip((pids, fds), attributes):
            value = getattr(owner, attribute, None)
            if isinstance(value, int):
                kind.add(value)
    return pids, fds


@dataclass(frozen=True)
class Snapshot:
    """What exists at one moment.

    Attributes:
        pids: every process of the system, so that only new ones have to be looked at later.
        children: processes below this one.
        threads: live Python threads.
        fds: open descriptors as number and target.
        shm: names in ``/dev/shm``.
        memfds: memfd mappings of this process.
        temps: our entries in the temporary folder.
        processes: whether processes were looked at.
    """

    pids: frozenset[int]
    children: frozenset[int]
    threads: frozenset[threading.Thread]
    fds: frozenset[tuple[int, str]]
    shm: frozenset[str]
    memfds: frozenset[str]
    temps: frozenset[str]
    processes: bool = True

    @classmethod
    def take(cls, *, processes: bool = True) -> Snapshot:
        """Look at everything once.

        Args:
            processes: False where none can be started (the unit tests): what other programs start
                is not looked at then.
        """
        return cls(
            pids=_system_pids() if processes else frozenset(),
            children=frozenset(descendants()) if processes else frozenset(),
            threads=frozenset(threading.enumerate()),
            fds=_descriptors(),
            shm=_shared_memory(),
            memfds=_memfds(),
            temps=_temporary_files(),
            processes=processes,
        )


@dataclass
class Leaks:
    """What exists now and did not before; false if that is nothing."""

    pids: set[int]
    threads: set[threading.Thread]
    fds: set[tuple[int, str]]
    shm: set[str]
    memfds: set[str]
    temps: set[str]

    def __bool__(self) -> bool:
        return any((self.pids, self.threads, self.fds, self.shm, self.memfds, self.temps))

    def __str__(self) -> str:
        lines = [f"process {describe_process(pid)}" for pid in sorted(self.pids)]
        lines += [f"thread {thread!r}" for thread in self.threads]
        lines += [f"descriptor {number} -> {target}" for number, target in sorted(self.fds)]
        lines += [f"shared memory segment {name}" for name in sorted(self.shm)]
        lines += [f"memfd mapping {name}" for name in sorted(self.memfds)]
        lines += [f"temporary file {name}" for name in sorted(self.temps)]
        return "\n".join(lines)

    def kill(self) -> None:
        """End and reap the processes, so that one leak does not show up in the tests that follow.
        """
        for pid in self.pids:
            try:
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except OSError:
                continue
        for pid in self.pids:
            try:
                os.waitpid(pid, 0)
            except OSError:  # not our child, or reaped by its owner
                continue


def _compare(before: Snapshot) -> Leaks:
    now = Snapshot.take(processes=before.processes)
    allowed_pids, allowed_fds = _allowed()
    orphans = {pid for pid in now.pids - before.pids - now.children if _is_marked(pid)}
    orphans.discard(os.getpid())
    return Leaks(
        pids=((now.children - before.children) | orphans) - allowed_pids,
        threads={
            thread
            for thread in now.threads - before.threads
            if thread.is_alive() and not isinstance(thread, threading._DummyThread)
        },
        fds={fd for fd in now.fds - before.fds if fd[0] not in allowed_fds}
        if _PROC
        else set(now.fds - before.fds),
        shm=_ours_of(now.shm - before.shm),
        memfds={area for area in now.memfds - before.memfds if not _is_in_use(area)},
        temps=set(now.temps - before.temps),
    )


def _is_in_use(area: str) -> bool:
    """Say whether a mapping is of the shared memory of pools that live on.

    Those of a session share one file, and any of them may make it grow.
    """
    arena = sys.modules.get("wetlands_executor.sharedmem.arena")
    references = [] if arena is None else list(arena._arenas.values())
    found = next((each for reference in references if (each := reference()) is not None), None)
    return (
        found is not None and bool(found.workers) and f"inode {os.fstat(found.fd).st_ino} " in area
    )


def _ours_of(segments: set[str]) -> set[str]:
    """Leave out the segments of other sessions on this machine.

    Those that a process maps which is not ours, and folders with the number of such a process in
    their name, as joblib makes them.

    Named semaphores are ours only while one of our processes maps them: those of a session that was
    killed stay until they are removed.
    """
    if not segments:
        return set()
    ours = descendants() | {os.getpid()}
    # Each map is read once: another session may have made thousands of names.
    mine = b"".join(_maps(pid) for pid in ours)
    theirs = b"".join(_maps(pid) for pid in _system_pids() - ours if not _is_marked(pid))
    found = set()
    for segment in segments:
        path = f"{_SHM}/{segment}".encode()
        owner = re.match(r"joblib_memmapping_folder_(\d+)_", segment)
        if owner and psutil.pid_exists(int(owner[1])):
            if int(owner[1]) in ours or _is_marked(int(owner[1])):
                found.add(segment)
            continue
        if path in mine if segment.startswith("sem.") else path not in theirs:
            found.add(segment)
    return found


def _maps(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return b""


def since(before: Snapshot, grace: float = GRACE, settle: float = SETTLE) -> Leaks:
    """Return what has been left since ``before``, after waiting for what is about to go.

    Args:
        before: what existed then.
        grace: seconds for threads and processes that are on their way out.
        settle: seconds for what gives no sign when it goes.
    """
    found = _compare(before)
    if not found:
        return found
    gc.collect()
    found = _compare(before)
    deadline = time.monotonic() + grace
    while found.threads or _running(found.pids):
        left = deadline - time.monotonic()
        if left <= 0:
            return found
        if found.threads:
            next(iter(found.threads)).join(left)
        else:
            wait_for_exit(_running(found.pids), left)
        gc.collect()
        found = _compare(before)
    deadline = time.monotonic() + settle
    pause = 0.002
    while found and time.monotonic() < deadline:
        # not to synchronise: nothing announces a closed descriptor, so look again
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
        gc.collect()
        found = _compare(before)
    return found


def _running(pids: Iterable[int]) -> set[int]:
    found = set()
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for_exit(pids: Iterable[int], timeout: float) -> set[int]:
    """Wait until every one of these processes has ended, and return those that have not.

    Leaves zombies to their parents.

    Args:
        pids: the processes, of any parent.
        timeout: seconds.
    """
    deadline = time.monotonic() + timeout
    pending = set(pids)
    for pid in sorted(pending):
        if _ends_by(pid, deadline):
            pending.discard(pid)
    return pending


def _ends_by(pid: int, deadline: float) -> bool:
    if hasattr(os, "pidfd_open") and _PROC:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
        finally:
            os.close(fd)
    while _running([pid]):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)  # no pidfd on this system
    return True


def describe_process(pid: int) -> str:
    """Return one line about a process: number, state, parent, command."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return (
                f"{pid} ({process.status()}, child of {process.ppid()}): "
                f"{' '.join(process.cmdline())[:300]}"
            )
    except psutil.Error:
        return f"{pid} (gone)"
