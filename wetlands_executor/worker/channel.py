"""The worker's end of its pipes: frames and records in, result frames out. Knows bytes, not calls.

Threads: the main thread reads; any thread may write results (a lock keeps large ones in one piece).
"""

from __future__ import annotations

import os
from _thread import allocate_lock  # the threading module costs 2 ms of a start

from . import wire
from .system import HIGH, can_read, readinto, set_blocking
from .wire import FRAME, SENT

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Tuple

#: Bytes of a payload that is copied behind its header, to be written with it, are fewer.
_JOINED = 4000
_HEAD = wire.RESULT.size
# What every outcome needs, without a look into the modules each time.
_pack, getpid, read, write = wire.RESULT.pack, os.getpid, os.read, os.write
_MAX_IOV = 1 << 20  # bytes of one write; the pipe's capacity decides how much of it is taken


class ChannelLost(Exception):  # noqa: N818 - an end, not an error of the program
    """The host has closed its end; the worker has to exit."""


class StreamBroken(ChannelLost):
    """Data of a call cannot be read; the call has not begun.

    A task has read from our pipes, or has closed them.
    """


#: What is said of it.
STOLEN = "a task has read what was written to this worker"
CLOSED = "the task has closed descriptors that it did not open"


class Channel:
    """Pipes of this worker.

    Args:
        inbox, bulk, results: their descriptors.
        words: the control words of the shared page; None if there is none.
    """

    def __init__(self, inbox: int, bulk: int, results: int, words: Any = None) -> None:
        self.inbox = inbox
        self.bulk = bulk
        self.results = results
        # Guarantee: a task that has closed our descriptors and opened files does not find frames in
        # its files. The system gives no other file a number that far up; where there is none, the
        # pipe is looked at before every frame. Else a task must name the number itself, and the
        # pipe is looked at after calls that were long enough for that (``verify``); the host
        # notices what is missing all the same.
        self._identity = os.fstat(results).st_ino if results >= 0 else 0
        self._exposed = 0 <= results < HIGH
        self.nonce = 0
        # Whether code may travel as bytecode: both interpreters have the same magic number.
        self.by_value = True
        self._buffer = b""
        self.words: Any = [0] * (SENT + 1) if words is None else words
        self._record = wire.FIRST_RECORD
        # Where the records come from, once another thread reads them.
        self._next_record: Any = None
        # Race: a thread that a call has left behind may submit a task, the first of this worker,
        # while the main thread reads.
        self._reading = allocate_lock()
        self._bulk_read = 0
        #: Changes with every frame that is sent, whichever thread sends it.
        self.sent = 0
        self._written = 0
        # Guards the results pipe: a frame larger than PIPE_BUF takes several writes. User code
        # never runs while it is held.
        self._lock = allocate_lock()

    def configure(self, nonce: int, by_value: bool) -> None:
        """Apply the host's configuration to the frames that are sent from now on."""
        self.nonce = nonce
        self.by_value = by_value

    def share_records(self, next_record: Any) -> None:
        """Let another thread read the bulk pipe; ``next_record`` gives what it leaves.

        Returns when the main thread has read the record that it is reading.
        """
        with self._reading:
            self._next_record = next_record

    def read_record(self) -> Tuple[int, int, Any]:
        """Return the next record of the bulk pipe as (kind, id, payload). Blocks."""
        with self._reading:
            if self._next_record is None:
                return self.read_from_pipe()
        record: Tuple[int, int, Any] = self._next_record()
        return record

    def read_from_pipe(self) -> Tuple[int, int, Any]:
        """Read the next record. Only the thread that reads them."""
        head = self._take(wire.RECORD.size)
        first, length, ident = wire.RECORD.unpack(head)
        if first >> 8 != self._record:
            raise StreamBroken(STOLEN)
        payload = self._take(length)
        if length and self._take(4) != head[:4]:
            raise StreamBroken(STOLEN)  # bytes of the payload are missing
        self._record = (first >> 8) + 1 & wire.RECORD_BITS
        return first & 0xFF, ident, payload

    def _take(self, count: int) -> Any:
        try:
            return self._read(count)
        except OSError as error:
            raise StreamBroken(str(error)) from error

    def _count(self, count: int) -> None:
        """Let the host know how much of the bulk pipe was read.

        It knows how much it has written, and how much is in the pipe.
        """
        self._bulk_read += count
        self.words[wire.BULK_READ] = self._bulk_read

    # Guarantee: a task that has made our pipes non-blocking (the flag belongs to the open file, a
    # command that it has started can do that as well) harms no later call. The code that meets it
    # makes the pipe block again.

    def _read_bulk(self, count: int) -> bytes:
        while True:
            try:
                return os.read(self.bulk, count)
            except BlockingIOError:
                set_blocking(self.bulk, True)

    def _readinto_bulk(self, view: memoryview) -> int:
        while True:
            try:
                return readinto(self.bulk, view)
            except BlockingIOError:
                set_blocking(self.bulk, True)

    def _write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self.results, data)
            except BlockingIOError:
                set_blocking(self.results, True)

    def _read(self, count: int) -> Any:
        have = self._buffer
        if len(have) >= count:
            self._buffer = have[count:]
            return have[:count]
        if count < 65536:
            parts = [have]
            size = len(have)
            while size < count:
                part = self._read_bulk(65536)
                if not part:
                    raise StreamBroken
                self._count(len(part))
                parts.append(part)
                size += len(part)
            have = b"".join(parts)
            self._buffer = have[count:]
            return have[:count]
        try:
            target = bytearray(count)
        except MemoryError:
            raise ChannelLost(
                "a record of %d bytes does not fit into the memory of this process" % count
            ) from None
        view = memoryview(target)
        view[: len(have)] = have
        done = len(have)
        self._buffer = b""
        while done < count:
            got = self._readinto_bulk(view[done:])
            if not got:
                raise StreamBroken
            self._count(got)
            done += got
        return target

    def send(self, kind: int, item: int, payload: Any = b"", duration: int = 0) -> None:
        """Write one result frame.

        Blocks while the pipe is full; raises ChannelLost when there is no way to the host any more.

        Order: the frame is in the pipe, which outlives this process, before the caller goes on.
        That is what makes a finished result safe from the next task's crash.

        Args:
            kind: of the frame.
            item: the call that it is about, 0 for none.
            payload: bytes, or a list of pieces that are to be joined.
            duration: of the call, in microseconds.
        """
        length = len(payload)
        rest: Any = None
        if type(payload) is list or length >= _JOINED:
            rest = payload if type(payload) is list else (payload,)
            length, payload = sum(map(len, rest)), b""
        # Guarantee: the pid is asked anew, so that a child that a task forked cannot pass for this
        # worker.
        self.sent += 1
        data = _pack(length, self.nonce, getpid(), kind, duration, item) + payload
        try:
            with self._lock:
                if self._exposed:
                    self.verify()
                try:
                    done = write(self.results, data)
                except BlockingIOError:
                    done = 0
                if done < len(data):
                    self._write_all(data[done:])
                if rest is not None:
                    for piece in rest:
                        self._write_all(piece)
                # Order: after the write. The host may find fewer bytes here than were written,
                # never more.
                self._written = written = self._written + _HEAD + length
                self.words[SENT] = written
        except OSError as error:
            raise ChannelLost(str(error)) from error

    def verify(self) -> None:
        """Raise ChannelLost if a task has closed the results pipe, or has covered it."""
        try:
            found = os.fstat(self.results).st_ino
        except OSError as error:
            raise ChannelLost(str(error)) from error
        if found != self._identity:
            raise ChannelLost(CLOSED)

    def next_frame(self) -> bytes:
        """Return the next frame of the inbox, b"" at its end. Blocks."""
        try:
            frame = read(self.inbox, FRAME)
        except BlockingIOError:
            set_blocking(self.inbox, True)
            return self.next_frame()
        except OSError as error:
            raise ChannelLost(str(error)) from error
        if len(frame) != FRAME and frame:
            raise StreamBroken(STOLEN)
        return frame

    def inbox_ready(self) -> bool:
        """Return True if the inbox can be read without waiting."""
        return can_read(self.inbox)

    def _write_all(self, data: Any) -> None:
        view = memoryview(data)
        if view.format != "B":
            view = view.cast("B")
        while view:
            view = view[self._write(view[:_MAX_IOV]) :]


def describe(error: BaseException) -> str:
    """Return the type and the text of an exception for a message."""
    try:
        text = str(error)
    except BaseException as second:  # noqa: BLE001 - __str__ is the user's code
        text = "its __str__ raised %s" % type(second).__name__
    return "%s (%s)" % (type(error).__name__, text) if text else type(error).__name__


def identity(fd: int) -> Any:
    """Return what identifies an open file; None if it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
