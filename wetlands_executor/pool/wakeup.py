"""The eventfd by which a worker wakes the thread that waits for its answer.

Threads: the waiting thread reads ``fd``; ``release`` is for any.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

from wetlands_executor.system import (
    EFD_CLOEXEC,
    F_DUPFD_CLOEXEC,
    POLLOUT,
    RWF_NOWAIT,
    eventfd,
    fcntl,
    poll,
    preadv,
    register_at_fork,
    set_blocking,
)

_ONE = (1).to_bytes(8, "little")
_wakeups: weakref.WeakSet[Wakeup] = weakref.WeakSet()


class Wakeup:
    """A reusable wakeup for one waiting thread, backed by an eventfd, which a worker notifies.

    The tasks of the worker have the descriptor too, and may have changed its flags and its counter.
    It is closed when the last reference is dropped.

    *Race:* a notification may arrive after the wait that it was for was interrupted, when the
    thread waits for something else. So each waiter checks its condition after it wakes up, and
    waits again.

    Attributes:
        fd: the descriptor; -1 when it is closed.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self) -> None:
        self.fd = -1
        self.fd = eventfd(0, EFD_CLOEXEC)
        if self.fd < 3:
            # The host's own standard streams are closed: what C code prints must notify no thread.
            low, self.fd = self.fd, fcntl(self.fd, F_DUPFD_CLOEXEC, 3)
            os.close(low)
        _wakeups.add(self)

    def release(self) -> None:
        """Notify the waiting thread; named as for a lock.

        Never blocks: a counter that a task has filled is a notification already.
        """
        if self.is_full():
            return
        try:
            os.write(self.fd, _ONE)
        except OSError:
            # The program has closed descriptors that it did not open. The waiting thread has met
            # that already.
            pass

    def is_full(self) -> bool:
        """Return True if a write would block."""
        ready = poll()
        try:
            ready.register(self.fd, POLLOUT)
            return not ready.poll(0)
        except (OSError, ValueError):
            return False  # closed

    def unblock_worker(self) -> None:
        """Empty a counter that a task has filled: the worker may be blocked in its write.

        Notify for a thread that sleeps.
        """
        if self.is_full():
            self.empty()
            self.release()

    def empty(self) -> None:
        """Take all notifications. Never blocks, whatever a task has made of the descriptor."""
        try:
            preadv(self.fd, [bytearray(8)], -1, RWF_NOWAIT)
        except OSError:
            pass  # there is none, or a thread that waits was faster, or the descriptor is closed

    def make_blocking(self) -> None:
        """Let ``wait`` wait again, after a task has made the descriptor non-blocking."""
        set_blocking(self.fd, True)

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close the descriptor."""
        # Order: the interpreter clears this module's names at its end, perhaps before the
        # wakeup goes. The default of an argument is there still.
        fd = getattr(self, "fd", -1)  # a signal may have ended the making of it
        self.fd = -1
        if fd >= 0:
            try:
                close(fd)
            except OSError:
                pass  # as above

    def __del__(self) -> None:
        """Close the descriptor with the last reference."""
        self.close()


def _after_fork_in_child() -> None:
    # The wakeups of the parent must not be notified from here.
    for wakeup in list(_wakeups):
        wakeup.close()


register_at_fork(after_in_child=_after_fork_in_child)
