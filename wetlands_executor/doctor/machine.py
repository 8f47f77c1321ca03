"""What the operating system offers to workers: memory, descriptors, the ways to watch and share.

Reads, never changes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import psutil

from wetlands_executor.pool import spawn
from wetlands_executor.system import MFD_CLOEXEC, PORTABLE_ONLY, memfd_create, pidfd_open


def memory() -> dict[str, Any]:
    """Return what memory can be had, in bytes; None where there is no such limit.

    ``available``, ``shm_free`` and ``shm_total`` (/dev/shm), ``cgroup_limit``, ``cgroup_used``,
    ``address_space_limit``; and ``memfd``: whether unnamed shared memory can be made.
    """
    shm_free = shm_total = None
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            status = os.statvfs("/dev/shm")  # noqa: S108 - looked at, not written to
            shm_free = status.f_bavail * status.f_frsize
            shm_total = status.f_blocks * status.f_frsize
    limit, used = _cgroup()
    return {
        "available": psutil.virtual_memory().available,
        "shm_free": shm_free,
        "shm_total": shm_total,
        "memfd": _has_memfd(),
        "cgroup_limit": limit,
        "cgroup_used": used,
        "address_space_limit": _limit("RLIMIT_AS")[0],
    }


def limits() -> dict[str, Any]:
    """Return the limits of this process; None is no limit.

    ``open_files``, ``open_files_hard`` and ``open_files_used`` are numbers of descriptors,
    ``processes`` is one of processes.
    """
    soft, hard = _limit("RLIMIT_NOFILE")
    used = None
    with contextlib.suppress(OSError):
        used = len(os.listdir("/proc/self/fd"))
    return {
        "open_files": soft,
        "open_files_hard": hard,
        "open_files_used": used,
        "processes": _limit("RLIMIT_NPROC")[0],
    }


def mechanisms() -> dict[str, bool]:
    """Return which fast ways the pool has here.

    ``pidfd``, ``reclaim`` (unstarted calls out of a worker's pipe), ``shared_page``.
    """
    return {
        "pidfd": _has_pidfd(),
        "reclaim": spawn.can_reclaim(),
        "shared_page": not PORTABLE_ONLY,
    }


def _limit(name: str) -> tuple[int | None, int | None]:
    if sys.platform != "win32":
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import resource

            soft, hard = resource.getrlimit(getattr(resource, name))
            endless = resource.RLIM_INFINITY
            return (None if soft == endless else soft), (None if hard == endless else hard)
    return None, None


def _has_memfd() -> bool:
    try:
        os.close(memfd_create("wetlands-doctor", MFD_CLOEXEC))
    except OSError:
        return False
    return True


def _has_pidfd() -> bool:
    if PORTABLE_ONLY:
        return False
    try:
        os.close(pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _cgroup() -> tuple[int | None, int | None]:
    """Return (limit, use) of memory in bytes of this process's control group; None without one.

    Of the groups around it the tightest counts.
    """
    tightest: tuple[int | None, int | None] = (None, None)
    for folder, limit_name, use_name in _cgroup_folders():
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(folder, limit_name), encoding="ascii") as file:
                limit = int(file.read())  # "max" is a ValueError: no limit
            if limit >= 1 << 60:  # version 1's way to say so
                continue
            with open(os.path.join(folder, use_name), encoding="ascii") as file:
                used = int(file.read())
            if tightest[0] is None or limit < tightest[0]:
                tightest = limit, used
    return tightest


def _cgroup_folders() -> list[tuple[str, str, str]]:
    """Return (folder, limit's file, use's file) of this process's group and of those around it.

    Both versions of control groups, 1 and 2.
    """
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = "/sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = (
                "/sys/fs/cgroup/memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            )
        else:
            continue
        path = path.strip("/")
        while True:
            found.append((os.path.join(root, path), *names))
            if not path:
                break
            path = os.path.dirname(path)
    return found
