"""How much memory may still be taken.

What the system has available, and what the control groups of this process allow.

Memory of a file without a name counts for the system and for the control group; a process that
takes too much of it gets no error but the out-of-memory killer. So it is asked before. Files only,
about a tenth of a millisecond; any thread.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

#: Bytes, where the system tells nothing (not Linux).
UNKNOWN = 1 << 32
#: Bytes that are left to others: this share of all, within these limits.
RESERVE_SHARE, RESERVE_LEAST, RESERVE_MOST = 16, 64 << 20, 1 << 30


def available_memory(proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> int:
    """Return the bytes that this process may still take, with a reserve for others."""
    memory = _numbers(os.path.join(proc, "meminfo"), 1024)
    if "MemAvailable:" not in memory:
        return UNKNOWN
    found = [(memory["MemTotal:"], memory["MemAvailable:"])]
    if (
        _text(os.path.join(proc, "sys", "vm", "overcommit_memory")).strip() == "2"
        and "CommitLimit:" in memory
    ):
        # The system promises no more than it has: a page beyond that would be a SIGBUS.
        found.append((memory["CommitLimit:"], memory["CommitLimit:"] - memory["Committed_AS:"]))
    found += _group_limits(os.path.join(proc, "self", "cgroup"), groups)
    return min(
        left - min(max(total // RESERVE_SHARE, RESERVE_LEAST), RESERVE_MOST)
        for total, left in found
    )


def _group_limits(own: str, groups: str) -> List[Tuple[int, int]]:
    """Return (limit, what is left) of each control group above this process that has a limit.

    Versions 1 and 2.
    """
    found = []
    for line in _text(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base, names = (
                os.path.join(groups, "memory"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        else:
            continue
        # In a container the path may be the host's, which is not there; then the root is the
        # container's own group.
        folder = path.strip("/")
        while True:
            limit = _group(os.path.join(base, folder), *names)
            if limit is not None:
                found.append(limit)
            if not folder:
                break
            folder = os.path.dirname(folder)
    return found


def _group(
    folder: str, limit_name: str, usage_name: str, cache_name: str
) -> Optional[Tuple[int, int]]:
    limit = _text(os.path.join(folder, limit_name)).strip()
    usage = _text(os.path.join(folder, usage_name)).strip()
    if not limit.isdigit() or not usage.isdigit() or int(limit) >= 1 << 60:
        return None
    # the kernel drops it when memory is short
    cache = _numbers(os.path.join(folder, "memory.stat"), 1).get(cache_name, 0)
    return int(limit), int(limit) - int(usage) + cache


def _numbers(path: str, unit: int) -> Dict[str, int]:
    found = {}
    for line in _text(path).splitlines():
        parts = line.split()
        if len(parts) >= 2 and parts[1].isdigit():
            found[parts[0]] = int(parts[1]) * unit
    return found


def _text(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read()
    except OSError:
        return ""
