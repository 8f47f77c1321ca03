"""Waking a thread that waits for a result: by an eventfd, where there is such a thing.

Why not a lock: who releases a lock goes on with the interpreter lock in hand, and the thread that
it has woken goes to sleep again until it gets that. Writing to a descriptor gives the interpreter
lock away before the other one wakes up; that saves two changes of threads, a third of a short round
trip. Threads: ``mine`` and ``wait`` are the waiting thread's, ``release`` is anybody's.
"""

from __future__ import annotations

import os
import threading
import weakref

from wetlands_executor.system import (
    EFD_CLOEXEC,
    F_DUPFD_CLOEXEC,
    POLLOUT,
    RWF_NOWAIT,
    eventfd,
    fcntl,
    poll,
    preadv,
    set_blocking,
)

_ONE = (1).to_bytes(8, "little")
#: Linux has them from Python 3.10 on. Tests of what other systems do switch them off, as in
#: ``pool/spawn.py``.
_THERE = hasattr(os, "eventfd") and os.environ.get("WETLANDS_EXECUTOR_PLAIN") != "1"
_local = threading.local()
_wakeups: weakref.WeakSet[Wakeup] = weakref.WeakSet()


class Wakeup:
    """An eventfd that somebody listens to, again and again; closed when nobody knows it any more.

    *Race:* a thread that was interrupted while it waited may be rung for later, when it waits for
    something else. So who wakes up has to look whether it was for that, and wait again.

    Attributes:
        fd: the descriptor; -1 when it is closed.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self) -> None:
        self.fd = -1
        self.fd = eventfd(0, EFD_CLOEXEC)
        if self.fd < 3:
            # The host's own standard streams are closed: what C code prints must not notify a thread.
            low, self.fd = self.fd, fcntl(self.fd, F_DUPFD_CLOEXEC, 3)
            os.close(low)
        _wakeups.add(self)

    def wait(self) -> None:
        """Sleep until it rings."""
        os.read(self.fd, 8)

    def release(self) -> None:
        """Ring; named as for a lock."""
        try:
            os.write(self.fd, _ONE)
        except OSError:
            # the program has closed descriptors that it did not open; whoever waits there has met
            # that already
            pass

    def close(self) -> None:
        """Close the descriptor."""
        fd = getattr(self, "fd", -1)  # a signal may have ended the making of it
        self.fd = -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:
                pass  # as above

    def __del__(self) -> None:
        """Close it when neither the listener nor a notifier knows it any more."""
        self.close()


class WorkerWakeup(Wakeup):
    """What a worker rings.

    Its tasks have the descriptor too: flags and counter are what they make of them.
    """

    __slots__ = ()

    def release(self) -> None:
        """Ring. Never blocks: a counter that a task has filled rings already."""
        if not self.is_full():
            super().release()

    def is_full(self) -> bool:
        """Return True if a write would block."""
        ready = poll()
        ready.register(self.fd, POLLOUT)
        try:
            return not ready.poll(0)
        except (OSError, ValueError):
            return False  # closed

    def relieve(self) -> None:
        """Empty a counter that a task has filled, in which the worker may be stuck.

        Ring for those who sleep.
        """
        if self.is_full():
            self.empty()
            self.release()

    def empty(self) -> None:
        """Take all rings. Never blocks, whatever a task has made of the descriptor."""
        try:
            preadv(self.fd, [bytearray(8)], -1, RWF_NOWAIT)
        except OSError:
            pass  # there is none, or a thread that waits was faster, or the descriptor is closed

    def make_blocking(self) -> None:
        """Let ``wait`` wait again, after a task has made the descriptor non-blocking."""
        set_blocking(self.fd, True)


class ThreadWakeup(Wakeup):
    """What one thread listens to.

    Attributes:
        busy: the thread waits, and a signal handler that interrupts it and waits as well must not
            take its notification.
    """

    __slots__ = ("busy",)

    def __init__(self) -> None:
        self.busy = False
        super().__init__()


def mine() -> ThreadWakeup | None:
    """Return the wakeup of this thread, marked busy; None if it is in use, or cannot be had."""
    if not _THERE:
        return None
    wakeup: ThreadWakeup | None = getattr(_local, "wakeup", None)
    if wakeup is None:
        try:
            wakeup = _local.wakeup = ThreadWakeup()
        except OSError:  # no descriptors left: a lock will do
            return None
    if wakeup.busy:
        return None
    wakeup.busy = True
    return wakeup


def forget() -> None:
    """Let this thread have another wakeup the next time."""
    _local.wakeup = None


def _after_fork_in_child() -> None:
    # the threads of the parent are not here, and its wakeups are not to be rung from here
    global _local
    _local = threading.local()
    for wakeup in list(_wakeups):
        wakeup.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
