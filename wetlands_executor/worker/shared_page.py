"""The shared page.

A page of memory that a worker and the host share, with words that have one writer each, the latest
progress, and outcomes on their way.

Why not a message per update: a task may report its progress a million times. On the shared page a
report replaces the one before it, and only if the host has read the last one is a frame sent to
make it look again: no report blocks, no memory grows, and the last one is always seen.

*Order:* the worker writes a slot, then its number, then reads ``WAKEUP`` (1 while such a frame is
under way); the host clears ``WAKEUP``, then reads the number, then the slot. So either the worker
observes it cleared and sends a frame, or the host observes this report. On machines that reorder
stores (not x86) a lock is taken and released in between, which is a full barrier.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

from . import wire
from .system import REORDERS_STORES

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Tuple


def fence() -> None:
    """Order the stores and loads before this call before those after it."""
    if REORDERS_STORES:
        for _ in (1, 2):
            # a fresh one: finalizers come here too, in the middle of anything
            with allocate_lock():
                pass


class SharedPage:
    """One end of the shared page.

    Attributes:
        words: 64-bit words; see ``wire``.
        shared: False where memory cannot be shared: then the words are private, and progress goes
            by frames.
    """

    def __init__(self, memory: memoryview, shared: bool) -> None:
        self._bytes = memory
        self.words = memory.cast("Q")
        #: Outcomes that were not sent yet; see ``batch.py``.
        self.lengths = memory[wire.UNSENT_LENGTHS : wire.UNSENT].cast("I")
        self.outcomes = memory[wire.UNSENT : wire.ANSWER_AT]
        #: The payload of an answer that its submitter reads itself; see ``Answers.send``.
        self.answer = memory[wire.ANSWER_AT : wire.ARGUMENTS_AT]
        #: The payload of a call that was sent directly; see ``pool/direct.py``.
        self.arguments = memory[wire.ARGUMENTS_AT :]
        self.shared = shared

    def post(self, data: bytes) -> bool:
        """Make ``data`` the latest progress; return True if the host has to be notified.

        Only one thread at a time.
        """
        words = self.words
        number = words[wire.SLOT] + 1
        offset, _size = wire.SLOTS[number & 1]
        memory = self._bytes
        memory[offset + 4 : offset + 4 + len(data)] = data
        memory[offset : offset + 4] = len(data).to_bytes(4, sys.byteorder)
        fence()
        words[wire.SLOT] = number
        fence()
        if words[wire.WAKEUP]:
            return False
        words[wire.WAKEUP] = 1
        return True

    def read(self) -> bytes:
        """Return the latest progress, after clearing ``WAKEUP``."""
        words, memory = self.words, self._bytes
        words[wire.WAKEUP] = 0
        fence()
        data = b""
        for _ in range(100):
            number = words[wire.SLOT]
            offset, size = wire.SLOTS[number & 1]
            length = int.from_bytes(memory[offset : offset + 4], sys.byteorder)
            data = bytes(memory[offset + 4 : offset + 4 + min(length, size - 4)])
            fence()
            # Race: the worker may be writing this slot again if it has published the other one
            # meanwhile.
            if words[wire.SLOT] == number:
                return data
        # It reports faster than it can be read. It notifies again with the next report (the word is
        # cleared), or when the call ends.
        return b""

    def unsent(self) -> Tuple[int, bytes]:
        """Return (number of the first call, payload as of a frame) of the unsent outcomes.

        Called when the process has died.
        """
        words, memory = self.words, self._bytes
        count = words[wire.UNSENT_COUNT]
        if not 0 < count <= wire.UNSENT_MOST:
            return 0, b""
        lengths = bytes(memory[wire.UNSENT_LENGTHS : wire.UNSENT_LENGTHS + 4 * count])
        size = sum(memoryview(lengths).cast("I"))
        return words[wire.UNSENT_FIRST], b"".join(
            (count.to_bytes(4, "little"), lengths, memory[wire.UNSENT : wire.UNSENT + size])
        )

    def release(self) -> None:
        """Let go of the memory."""
        self.words.release()
        self.lengths.release()
        self.outcomes.release()
        self.answer.release()
        self.arguments.release()
        self._bytes.release()


def attach(fd: int) -> SharedPage:
    """Return the worker's end; ``fd`` is closed. -1: memory cannot be shared."""
    if fd < 0:
        return SharedPage(memoryview(bytearray(wire.PAGE)), False)
    shared = map_file(fd, wire.PAGE)
    os.close(fd)
    return SharedPage(memoryview(shared), True)


def map_file(fd: int, length: int) -> Any:
    """Return a mapping of the first bytes of a file that keeps no descriptor of it.

    Guarantee: a task that writes to each descriptor that it finds does not reach what it shares
    with the host. Before Python 3.13 an ``mmap`` object always has a descriptor of its own; the
    null device takes its place.
    """
    import mmap

    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, length, trackfd=False)
    copy = -1
    try:
        copy = os.dup(fd)
        os.close(copy)  # the next number, which `mmap` is about to take
    except OSError:
        pass  # no descriptor left
    shared = mmap.mmap(fd, length)
    try:
        if copy >= 0 and os.path.sameopenfile(copy, fd):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, copy, False)
            os.close(null)
    except OSError:
        # another thread has opened files, or there is no null device here: the descriptor stays
        pass
    return shared


def free_word(fd: int, slot: int) -> None:
    """Free a block whose file cannot be mapped as a whole, by setting its word to 0.

    To a worker's open of it nothing can be written.
    """
    try:
        table = map_file(fd, 4 * (slot + 1))
    except (OSError, ValueError):
        return  # not even that works: the host frees the block when this process has ended
    table[4 * slot : 4 * slot + 4] = bytes(4)
    table.close()
