"""Copies large buffers with more than one core.

One core alone does not saturate the memory, and each core clears the new pages that it writes.

The sending thread waits for the copy, so it copies a slice itself, and threads that live no longer
than the copy do the others. Each takes the next slice as soon as it can: a helper that starts late,
or never, leaves more to the others. There are no more slices than threads, because each step from
one to the next needs the GIL, and a thread that computes in Python gives it away every 5 ms only.

*Invariant:* a helper says that it is at work before it takes a slice, and ``copy`` does not return,
nor raise, before it has taken the slices that are left away from the helpers and waited for all
that are at work. So no helper reads the source or writes the target afterwards, when the one may be
gone and the other have another owner. That holds wherever a signal handler raises.

Imported with ``arena``. Any thread enters; nothing is kept between calls.
"""

from __future__ import annotations

from _thread import RLock, start_new_thread
from ctypes import memmove

from .system import cores

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, List, Tuple

#: Bytes from which on several threads are faster than one, with what the receiver does to the data:
#: below, caches make one core as fast as two.
CROSSOVER = 1 << 24
#: Threads at most, the caller's among them: fewer than the cores of a large machine saturate its
#: memory.
MOST = 4
_PAGE = 4096


def copy(target: int, source: int, count: int) -> None:
    """Copy bytes between two addresses that do not overlap.

    Without the GIL, which a slice assignment between memoryviews keeps.
    """
    threads = min(cores(), MOST) if count >= CROSSOVER else 1
    if threads < 2:
        memmove(target, source, count)
        return
    size = -(-count // (threads * _PAGE)) * _PAGE  # no page is written by two
    slices = [
        (target + start, source + start, min(size, count - start))
        for start in range(0, count, size)
    ]
    wanted = len(slices)
    done: List[int] = []
    working: List[Any] = []
    try:
        try:
            try:
                for _ in range(threads - 1):
                    start_new_thread(_help, (slices, done, working))
            except (RuntimeError, MemoryError):
                pass  # a limit of threads or memory: those that have started help, if any
            _take(slices, done)
        finally:
            _part(slices, working)
    finally:
        # once more: a handler may have raised between two lines, before the first had begun
        _part(slices, working)
    if len(done) < wanted:
        memmove(target, source, count)  # a helper had no memory for its next step


def _take(slices: List[Tuple[int, int, int]], done: List[int]) -> None:
    while slices:
        try:
            part = slices.pop()
        except IndexError:
            return  # Race: another thread has taken the last one
        memmove(*part)
        done.append(part[2])


def _help(slices: List[Tuple[int, int, int]], done: List[int], working: List[Any]) -> None:
    """Be a helper."""
    lock = RLock()
    with lock:
        working.append(lock)
        try:
            _take(slices, done)
        except MemoryError:
            pass  # the caller counts


def _part(slices: List[Tuple[int, int, int]], working: List[Any]) -> None:
    """Take all slices that no helper has begun, and wait for the helpers that are at work.

    *Race:* a signal handler may raise between any two steps. All of them can be done again: the
    locks are the kind that one thread may take twice.
    """
    try:
        slices.clear()
        for lock in working:
            lock.acquire()
    except BaseException:  # a handler's exception, which goes on after the wait
        _part(slices, working)
        raise
