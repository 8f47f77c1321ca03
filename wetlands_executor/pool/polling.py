"""Waiting on many descriptors.

One thread sleeps until a descriptor can be read or written, or another thread wakes it.

``SystemPoller`` is for systems that can poll pipes. ``ThreadPoller`` serves where they cannot be
polled (Windows): a thread per descriptor reads ahead, a thread per written descriptor writes
behind. Both have one interface: ``wait`` returns callbacks in the order of their rank, and all
reading and writing of a registered descriptor goes through the poller. Only the I/O thread calls
anything but ``wake``.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Sized
from typing import Any

from wetlands_executor import descriptors
from wetlands_executor.system import (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLLET,
    EPOLLIN,
    EVENTFDS,
    POLLIN,
    POLLOUT,
    THREADS,
    above_standard,
    epoll,
    eventfd,
    poll,
    readv,
    set_blocking,
)

Callback = Callable[[], object]

#: What is added to the counter of ``urgent`` to say that a direct wait was abandoned. Ordinary
#: wake-ups add 1.
ABANDONED_COUNT = 1 << 32
ABANDONED = ABANDONED_COUNT.to_bytes(8, sys.byteorder)

# Ranks: what a worker printed comes before the results that it sent after it, and both before its
# end.
OUTPUT, RESULTS, EXIT = 0, 1, 2


class SystemPoller:
    """epoll, or poll where there is no epoll."""

    def __init__(self) -> None:
        self._readers: dict[int, tuple[int, Callback]] = {}
        self._writers: dict[int, Callback] = {}
        # Descriptors whose events are reported once only; those that ``printed`` has been given,
        # and ``wait`` has not.
        self._wakeups: set[int] = set()
        self._notified: set[int] = set()
        with descriptors.making:
            self._epoll = epoll() if epoll is not None else None
            if self._epoll is not None:
                descriptors.own(self._epoll.fileno())
        self._poll: Any = self._epoll or poll()
        with descriptors.making:
            try:
                self._wake_read, self._wake_write = _wake_pair()
            except OSError:
                # no descriptor left; the error may keep this object, and with it the other one
                if self._epoll is not None:
                    descriptors.disown(self._epoll.fileno())
                    self._epoll.close()
                raise
            descriptors.own(*self.fds())
        self._poll.register(self._wake_read, POLLIN)
        # Written by the I/O thread only: True from before it looks for posted events until it is
        # awake again. A thread that posts and reads False need not wake it. If the posting threads
        # cleared it, an interrupt between write and store could leave it wrong.
        self.sleeping = False
        self._on_abandoned_wait: Callback | None = None

    def watch_abandoned_waits(self, callback: Callback) -> None:
        """Call this when a thread has added ``ABANDONED_COUNT`` to the counter of ``urgent``."""
        self._on_abandoned_wait = callback

    @property
    def urgent(self) -> int:
        """An eventfd that wakes this poller in one system call; -1 if there is none."""
        return (
            self._wake_write
            if self._epoll is not None and self._wake_write == self._wake_read
            else -1
        )

    def add_reader(self, fd: int, rank: int, callback: Callback) -> None:
        """Call ``callback`` from ``wait`` whenever ``fd`` can be read (its end included)."""
        self._readers[fd] = (rank, callback)
        self._poll.register(fd, POLLIN)

    def add_wakeup(self, fd: int, rank: int, callback: Callback) -> None:
        """Call ``callback`` from ``wait`` once for each write to the eventfd.

        Not if another thread reads the eventfd before ``wait`` does: that thread notifies the I/O
        thread in another way, or writes to the eventfd once more.
        """
        self._readers[fd] = (rank, callback)
        self._wakeups.add(fd)
        self._poll.register(fd, EPOLLIN | EPOLLET)

    def want_write(self, fd: int, callback: Callback | None) -> None:
        """Call ``callback`` when ``fd`` can be written; None ends that."""
        known = fd in self._writers
        if callback is not None:
            self._writers[fd] = callback
            if not known:
                self._poll.register(fd, POLLOUT)
        elif known:
            del self._writers[fd]
            self._unregister(fd)

    def _unregister(self, fd: int) -> None:
        try:
            self._poll.unregister(fd)
        except (OSError, KeyError):
            pass  # it was closed before

    def remove(self, fd: int) -> None:
        """Forget a descriptor; before it is closed."""
        if self._readers.pop(fd, None) is not None or self._writers.pop(fd, None) is not None:
            try:
                self._poll.unregister(fd)
            except (OSError, KeyError):
                pass  # as above
        self._wakeups.discard(fd)
        self._notified.discard(fd)

    def read(self, fd: int, count: int) -> bytes | None:
        """Return what is there, up to ``count`` bytes: None if nothing is, b"" at the end."""
        try:
            return os.read(fd, count)
        except BlockingIOError:
            return None

    def read_into(self, fd: int, view: memoryview) -> int | None:
        """Read into a buffer: None if nothing is there, 0 at the end."""
        try:
            return readv(fd, [view[: 1 << 20]])
        except BlockingIOError:
            return None

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write what fits; return the number of bytes. OSError if the reading end is closed."""
        try:
            return os.write(fd, data)
        except BlockingIOError:
            return 0

    def wait(self, timeout: float | None, posted: Sized) -> list[Callback]:
        """Sleep until something happens or ``timeout`` seconds have passed.

        Return what to call, in order. Does not sleep if ``posted``.
        """
        self.sleeping = True
        if posted or self._notified:
            timeout = 0
        if self._epoll is not None:
            ready = self._epoll.poll(-1 if timeout is None else timeout)
        else:
            ready = self._poll.poll(None if timeout is None else timeout * 1000)
        self.sleeping = False
        if self._notified:
            ready = [*ready, *((fd, POLLIN) for fd in self._notified)]
            self._notified.clear()
        if len(ready) == 1:
            reader = self._readers.get(ready[0][0])
            if reader is not None and ready[0][0] not in self._writers:
                return [reader[1]]
        found: list[tuple[int, Callback]] = []
        for fd, _mask in ready:
            if fd == self._wake_read:
                try:
                    count = os.read(fd, 8 if self._wake_write == fd else 65536)
                except BlockingIOError:
                    pass  # another thread has read it
                else:
                    if (
                        self._on_abandoned_wait is not None
                        and int.from_bytes(count, sys.byteorder) >= ABANDONED_COUNT
                    ):
                        found.append((RESULTS, self._on_abandoned_wait))
                continue
            reader = self._readers.get(fd)
            if reader is not None:
                found.append(reader)
            writer = self._writers.get(fd)
            if writer is not None:
                found.append((EXIT, writer))
        if len(found) > 1:
            found.sort(key=_rank)
        return [callback for _, callback in found]

    def printed(self) -> list[Callback]:
        """Return what to call for output that can be read now.

        For a reader of results: what was printed before them is there by now.
        """
        readers = self._readers
        ready = self._epoll.poll(0) if self._epoll is not None else self._poll.poll(0)
        if ready and self._wakeups:
            self._notified.update(fd for fd, _mask in ready if fd in self._wakeups)
        return (
            [readers[fd][1] for fd, _mask in ready if fd in readers and readers[fd][0] == OUTPUT]
            if ready
            else []
        )

    def wake(self) -> None:
        """Make ``wait`` return; from any thread, from a signal handler, from a finalizer."""
        if self.sleeping:
            try:
                os.write(self._wake_write, b"\1\0\0\0\0\0\0\0")
            except OSError:
                pass  # full: the thread wakes up anyway; closed: none waits

    def fds(self) -> set[int]:
        """Return the poller's own descriptors."""
        found = {self._wake_read, self._wake_write}
        return found | {self._epoll.fileno()} if self._epoll is not None else found

    def close(self) -> None:
        """Close the poller's own descriptors."""
        fds = {self._wake_read, self._wake_write}
        self.sleeping = False
        descriptors.disown(*self.fds())
        self._wake_write = self._wake_read = -1
        if self._epoll is not None:
            self._epoll.close()
        for fd in fds:
            os.close(fd)


def _rank(entry: tuple[int, Callback]) -> int:
    return entry[0]


def _wake_pair() -> tuple[int, int]:
    if EVENTFDS:
        fd = above_standard(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
        return fd, fd
    read, write = descriptors.pipe()
    set_blocking(read, False)
    set_blocking(write, False)
    return read, write


class ThreadPoller:
    """A thread per descriptor, for systems whose pipes cannot be polled."""

    def __init__(self) -> None:
        # One entry per chunk that was read and per wake-up; what they say is found in `_chunks`.
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._readers: dict[int, tuple[int, Callback]] = {}
        # What was read ahead: chunks, b"" for the end. Appended by the descriptor's thread, taken
        # by the I/O thread.
        self._chunks: dict[int, deque[bytes]] = {}
        self._room: dict[int, threading.Semaphore] = {}
        self._writers: dict[int, queue.SimpleQueue[bytes | None]] = {}
        self._failed: set[int] = set()
        self.sleeping = False
        self.urgent = -1

    def watch_abandoned_waits(self, callback: Callback) -> None:
        """Do nothing: without ``urgent`` no thread can say that."""

    def add_reader(self, fd: int, rank: int, callback: Callback) -> None:
        """Start a thread that reads ahead, at most 16 chunks."""
        self._readers[fd] = (rank, callback)
        chunks = self._chunks[fd] = deque()
        room = self._room[fd] = threading.Semaphore(16)
        _start_pump(self._pump_in, fd, chunks, room)

    def add_wakeup(self, fd: int, rank: int, callback: Callback) -> None:
        """Refuse: there is no direct receive, and so no wakeup, where threads read the pipes."""
        raise NotImplementedError

    def _pump_in(self, copy: int, chunks: deque[bytes], room: threading.Semaphore) -> None:
        try:
            set_blocking(copy, True)
            while True:
                room.acquire()
                try:
                    data = os.read(copy, 65536)
                except OSError:
                    data = b""
                chunks.append(data)
                self._ready.put(None)
                if not data:
                    return
        finally:
            os.close(copy)

    def want_write(self, fd: int, callback: Callback | None) -> None:
        """Nothing to wait for: ``write`` takes everything."""

    def remove(self, fd: int) -> None:
        """Forget a descriptor."""
        self._readers.pop(fd, None)
        self._chunks.pop(fd, None)
        room = self._room.pop(fd, None)
        if room is not None:
            room.release()
        writer = self._writers.pop(fd, None)
        if writer is not None:
            writer.put(None)
        self._failed.discard(fd)

    def read(self, fd: int, count: int) -> bytes | None:
        """Return the next chunk (however long): None if nothing is there, b"" at the end."""
        chunks = self._chunks.get(fd)
        if not chunks:
            return None
        data = chunks[0]
        if not data:
            return data
        if len(data) > count:
            chunks[0] = data[count:]
            return data[:count]
        chunks.popleft()
        self._room[fd].release()
        return data

    def read_into(self, fd: int, view: memoryview) -> int | None:
        """Read into a buffer: None if nothing is there, 0 at the end."""
        data = self.read(fd, len(view))
        if data is None:
            return None
        view[: len(data)] = data
        return len(data)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Hand everything to the descriptor's thread."""
        if fd in self._failed:
            raise BrokenPipeError(fd)
        writer = self._writers.get(fd)
        if writer is None:
            writer = self._writers[fd] = queue.SimpleQueue()
            _start_pump(self._pump_out, fd, fd, writer)
        writer.put(bytes(data))
        return len(data)

    def _pump_out(self, copy: int, fd: int, data: queue.SimpleQueue[bytes | None]) -> None:
        try:
            set_blocking(copy, True)
            while (chunk := data.get()) is not None:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(copy, view) :]
        except OSError:
            self._failed.add(fd)
        finally:
            os.close(copy)

    def wait(self, timeout: float | None, posted: Sized) -> list[Callback]:
        """Sleep until something happens or ``timeout`` seconds have passed.

        Return what to call, in order. Does not sleep if ``posted``.
        """
        self.sleeping = True
        # A callback takes one chunk at a time: as with poll, what is left makes the next wait
        # return at once.
        if posted or any(self._chunks.values()):
            timeout = 0
        try:
            self._ready.get(timeout=timeout)
            self.sleeping = False
            while True:
                self._ready.get_nowait()
        except queue.Empty:
            self.sleeping = False
        found = [
            self._readers[fd]
            for fd, chunks in list(self._chunks.items())
            if chunks and fd in self._readers
        ]
        found.sort(key=_rank)
        return [callback for _, callback in found]

    def printed(self) -> list[Callback]:
        """Return nothing.

        Where threads read, lines and results have no order but that of frames.
        """
        return []

    def wake(self) -> None:
        """Make ``wait`` return; from any thread."""
        if self.sleeping:
            self._ready.put(None)

    def fds(self) -> set[int]:
        """Return the poller's own descriptors: none."""
        return set()

    def close(self) -> None:
        """End the writing threads; the reading ones end with their pipes."""
        for fd in list(self._writers) + list(self._readers):
            self.remove(fd)


def _start_pump(pump: Callable[..., None], fd: int, *arguments: object) -> None:
    """Start a thread that reads or writes a descriptor, with a duplicate that the thread closes.

    Race: the I/O thread may close the descriptor before the new thread runs, or while it waits, and
    the number may be used again. So the duplicate is made here. ``Thread.start`` would wait for the
    new thread, in which the collector may run a finalizer that waits for this one.
    """
    copy = os.dup(fd)
    try:
        start_new_thread(pump, (copy, *arguments))
    except RuntimeError:
        os.close(copy)
        raise


Poller = SystemPoller | ThreadPoller


def new_poller() -> Poller:
    """Return the poller for this platform."""
    if THREADS:
        return ThreadPoller()
    return SystemPoller()
