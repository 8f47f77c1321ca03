"""What comes from one worker: the bytes of its results pipe, parsed into frames.

Malformed data is detected, and costs no frame behind it.

Threads: the I/O thread's.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, TypeAlias

from wetlands_executor.pool.call import GARBAGE
from wetlands_executor.pool.polling import Poller
from wetlands_executor.serialize.restricted import BadFrame
from wetlands_executor.serialize.results import TOO_LARGE
from wetlands_executor.sharedmem.results import ResultMemory
from wetlands_executor.worker import wire
from wetlands_executor.worker.available_memory import available_memory

#: Bytes read from a results pipe at once: many small results per wake-up.
READ = 65536
#: Results larger than this are read straight into a buffer of their own.
DIRECT = 262144
#: A longer frame is malformed.
LONGEST = 1 << 46
#: Bytes of a result below which the available memory is not looked up.
UNCHECKED_SIZE = 64 << 20
#: Where a frame's header has its nonce and its pid.
MARK = 8
#: Kinds of results whose payload begins with a list of blocks.
_IN_BLOCKS = frozenset((wire.VALUE_IN_BLOCKS, wire.VALUE_IN_LENT))
_MARK = struct.Struct("<II")


class Frame(NamedTuple):
    """A result frame.

    On its way through the pool it is a plain tuple of the same order: making one of these costs
    as much as reading it.
    """

    kind: int
    number: int
    payload: Any  # bytes; of the kinds ``_IN_BLOCKS`` an ``OutOfBandResult`` or ``LentResult``
    duration: int


class Garbage(BadFrame):
    """Malformed data, with which an outcome may have been lost."""


RawFrame: TypeAlias = tuple[int, int, Any, int]


class ResultStream:
    """The results pipe of one incarnation.

    Args:
        poller: what reads.
        fd: the pipe.
        nonce: what every frame of this worker has.
        pid: the process that was started.
        result_memory: what comes in shared memory.
        forked: no wrapper can be between the process that was started and the Python.

    Attributes:
        arrived: bytes read so far.
        ended: nothing more will come.
        sender: number under which the Python knows itself; every frame has it.
    """

    def __init__(
        self,
        poller: Poller,
        fd: int,
        nonce: int,
        pid: int,
        result_memory: ResultMemory,
        forked: bool,
    ) -> None:
        self.arrived = 0
        self.ended = False
        self.sender = pid
        self._poller = poller
        self._fd = fd
        self._nonce = nonce
        self._result_memory = result_memory
        # The Python has not said hello, and may have another number than the process that was
        # started.
        self._may_be_wrapped = not forked
        self._buffer = b""
        self._large: tuple[int, int, bytearray | None, int, int, int] | None = None

    def greet(self) -> None:
        """Note that the Python behind this pipe has said hello: its number is known."""
        self._may_be_wrapped = False

    def close(self) -> None:
        """Note that nothing more will come."""
        self.ended = True

    def read(self) -> tuple[list[RawFrame], bool]:
        """Read what is there, once; return (frames, whether the pipe is at its end).

        Malformed data is returned as GARBAGE.
        """
        fd = self._fd
        if self._large is not None:
            return self._read_large(fd)
        data = self._poller.read(fd, READ)
        if data is None:
            return [], False
        if not data:
            return [], True
        self.arrived += len(data)
        frames = self._parse(self._buffer + data if self._buffer else data)
        return frames, False

    def _parse(self, data: bytes) -> list[RawFrame]:
        frames: list[RawFrame] = []
        position, size, head = 0, len(data), wire.RESULT.size
        last = -1
        pid, nonce = self.sender, self._nonce
        unpack, append = wire.RESULT.unpack_from, frames.append
        while size - position >= head:
            length, its_nonce, its_pid, kind, duration, number = unpack(data, position)
            if its_nonce != nonce or length > LONGEST:
                append((GARBAGE, 0, f"nonce {its_nonce:#x}, length {length}", 0))
                at = self._other_header(data, last, position)
                # Without another header: the last bytes may be the first of one.
                position, last = (
                    at if at >= 0 else max(position + 1, size - MARK - _MARK.size + 1),
                    position,
                )
                continue
            end = position + head + length
            if (length >= head or its_pid != pid) and (
                at := data.find(self._mark(), position + MARK + 1, end + MARK + _MARK.size - 1)
            ) >= 0:
                append((GARBAGE, 0, f"a frame within a frame of kind {kind}", 0))
                position, last = at - MARK, position
                continue
            if end > size:
                if length > DIRECT:
                    self._begin_large(
                        kind if its_pid == pid else 0,
                        number,
                        length,
                        data[position + head :],
                        duration,
                    )
                    position = size
                break
            if its_pid == pid:  # else a child that a task has forked wrote it: it is dropped
                if kind in _IN_BLOCKS:
                    append(self._adopt(kind, number, data[position + head : end], duration))
                else:
                    append((kind, number, data[position + head : end], duration))
            elif kind == wire.HELLO and self._may_be_wrapped and not frames:
                # The interpreter is a wrapper whose child is the Python. It proves that by the
                # nonce, which is told to it alone, and by being the first: no code of the user's
                # has run before.
                self.sender = pid = its_pid
                append((kind, number, data[position + head : end], duration))
            position, last = end, position
        if (
            position < size
            and self._large is None
            and (at := self._other_header(data, last, position)) >= 0
        ):
            # What is left over does not wait for its end: it is not what it seems.
            append((GARBAGE, 0, "a frame within a frame", 0))
            return frames + self._parse(data[at:])
        self._buffer = data[position:]
        return frames

    def _mark(self) -> bytes:
        """Return what a frame's header has from its byte ``MARK`` on, and hardly anything else.

        Nonce and pid.

        Guarantee: a frame that says that it is longer than it is, or that was cut, or bytes that
        are no frame, cost no frame behind them.
        """
        return _MARK.pack(self._nonce, self.sender)

    def _other_header(self, data: bytes, last: int, position: int) -> int:
        """Return where the next frame begins if not at ``position``; -1 if there is none.

        What was taken for a frame at ``last`` may have been cut, and have its end from the header
        of the next one.
        """
        mark = self._mark()
        at = data.find(mark, last + 1 + MARK, position + MARK + _MARK.size - 1)
        if at < 0:
            at = data.find(mark, position + 1 + MARK)
        return at - MARK if at >= 0 else -1

    def _begin_large(
        self, kind: int, number: int, length: int, first: bytes, duration: int
    ) -> None:
        target: bytearray | None = None
        try:
            # The buffer is filled with zeros at once: what does not fit would be the end of this
            # process, not an error.
            if length < UNCHECKED_SIZE or length < available_memory():
                target = bytearray(length)
                target[: len(first)] = first
        except (MemoryError, OverflowError):
            target = None  # it is read and dropped, and its own task fails
        self._large = (kind, number, target, len(first), length, duration)

    def _read_large(self, fd: int) -> tuple[list[RawFrame], bool]:
        assert self._large is not None
        kind, number, target, done, length, duration = self._large
        chunk: bytes | None = None
        if target is not None:
            got = self._poller.read_into(fd, memoryview(target)[done:length])
        else:
            chunk = self._poller.read(fd, min(READ, length - done))
            got = None if chunk is None else len(chunk)
        if got is None:
            return [], False
        if got == 0:
            return [], True
        self.arrived += got
        if got < READ:  # not a full pipe: what comes here may be a frame of its own
            chunk = (
                chunk
                if target is None
                else bytes(target[max(0, done - MARK - _MARK.size) : done + got])
            )
            at = chunk.find(self._mark()) if chunk is not None else -1
            if at >= MARK and chunk is not None:
                self._large = None
                return [
                    (GARBAGE, 0, f"a frame within a frame of kind {kind}", 0),
                    *self._parse(chunk[at - MARK :]),
                ], False
        done += got
        if done < length:
            self._large = (kind, number, target, done, length, duration)
            return [], False
        self._large = None
        if not kind:
            return [], False
        if target is None:
            return [(TOO_LARGE, number, b"%d" % length, duration)], False
        return [
            self._adopt(kind, number, target, duration)
            if kind in _IN_BLOCKS
            else (kind, number, target, duration)
        ], False

    def _adopt(self, kind: int, number: int, data: bytes | bytearray, duration: int) -> RawFrame:
        """Take the blocks of a result over at once, whatever becomes of the frame."""
        try:
            if kind == wire.VALUE_IN_LENT:
                return kind, number, self._result_memory.pass_on(data), duration
            try:
                return wire.VALUE_IN_BLOCKS, number, self._result_memory.adopt(data), duration
            except MemoryError:
                return TOO_LARGE, number, b"%d" % self._result_memory.refuse(data), duration
        except Exception as error:  # noqa: BLE001
            # mostly BadBlock: the list of blocks is what the worker says, and may say anything
            return GARBAGE, 0, f"{type(error).__name__}: {error}", 0


def outcomes_of(data: bytes | bytearray | memoryview) -> list[tuple[int, Any]]:
    """Return the outcomes in the payload of a frame of several (see ``worker/batch.py``).

    Raises:
        BadFrame: it is none.
    """
    count = int.from_bytes(data[:4], "little")
    start = 4 + 4 * count
    if start > len(data):
        raise BadFrame(f"{count} outcomes in {len(data)} bytes")
    lengths = struct.unpack_from(f"<{count}I", data, 4)
    if start + sum(lengths) != len(data):
        raise BadFrame(f"outcomes of {sum(lengths)} bytes in {len(data)}")
    found: list[tuple[int, Any]] = []
    for length in lengths:
        if length:
            found.append((wire.VALUE, data[start : start + length]))
            start += length
        else:
            found.append(_NOTHING)
    return found


_NOTHING = (wire.NONE, None)
