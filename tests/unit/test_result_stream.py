"""Bytes of a results pipe to frames: large ones, wrappers, blocks, outcomes of several calls.

``test_wire.py`` cuts the bytes at every place, with real pipes; here they come as the test says.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from wetlands_executor.pool import result_stream
from wetlands_executor.pool.call import GARBAGE
from wetlands_executor.pool.result_stream import DIRECT, ResultStream, outcomes_of
from wetlands_executor.serialize.restricted import BadFrame
from wetlands_executor.serialize.results import TOO_LARGE
from wetlands_executor.worker import wire

NONCE, PID = 0xBEEF, 4321


class Source:
    """A poller whose pipe has what the test has put into it."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()

    def read(self, _fd: int, count: int) -> bytes | None:
        if not self.waiting:
            return None
        data = self.waiting.popleft()
        if len(data) > count:
            self.waiting.appendleft(data[count:])
        return data[:count]

    def read_into(self, fd: int, target: memoryview) -> int | None:
        data = self.read(fd, len(target))
        if data is None:
            return None
        target[: len(data)] = data
        return len(data)


class Memory:
    """The memory of a worker's results: adopts what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.refused: list[bytes] = []

    def adopt(self, data: Any) -> Any:
        if self.error is not None:
            raise self.error
        return ("adopted", bytes(data))

    def refuse(self, data: Any) -> int:
        self.refused.append(bytes(data))
        return 12345


class Stream:
    """The part, with its source."""

    def __init__(self, forked: bool = False) -> None:
        self.source, self.memory = Source(), Memory()
        any_source: Any = self.source
        any_memory: Any = self.memory
        self.part = ResultStream(any_source, 5, NONCE, PID, any_memory, forked)

    def read(self, *data: bytes) -> list[Any]:
        self.source.waiting.extend(data)
        found: list[Any] = []
        while self.source.waiting:
            frames, ended = self.part.read()
            assert not ended
            found += frames
        return found


def frame(
    number: int, data: bytes = b"", kind: int = wire.VALUE, pid: int = PID, length: int = -1
) -> bytes:
    size = len(data) if length < 0 else length
    return wire.RESULT.pack(size, NONCE, pid, kind, 9, number) + data


def test_nothing_and_the_end_are_told_apart() -> None:
    stream = Stream()
    assert stream.part.read() == ([], False)
    stream.source.waiting.append(b"")
    assert stream.part.read() == ([], True)


def test_a_large_frame_is_read_into_its_own_buffer() -> None:
    stream = Stream()
    data = bytes(range(256)) * (DIRECT // 256 + 1)
    whole = frame(1, data) + frame(2, b"behind")
    cuts = [whole[at : at + 60000] for at in range(0, len(whole), 60000)]
    first, second = stream.read(*cuts)
    assert (first[0], first[1], bytes(first[2]), first[3]) == (wire.VALUE, 1, data, 9)
    assert type(first[2]) is bytearray
    assert second == (wire.VALUE, 2, b"behind", 9)
    assert stream.part.arrived == len(whole)


def test_what_no_memory_holds_is_dropped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_stream, "UNCHECKED_SIZE", 0)
    monkeypatch.setattr(result_stream, "available_memory", lambda: DIRECT)
    stream = Stream()
    data = bytes(DIRECT + 1)
    frames = stream.read(frame(1, data) + frame(2))
    assert frames == [(TOO_LARGE, 1, b"%d" % len(data), 9), (wire.VALUE, 2, b"", 9)]


def test_a_wrapper_is_met_by_the_hello_of_the_python_behind_it() -> None:
    """It has another number than the process that was started."""
    stream = Stream()
    assert stream.read(frame(0, b"me", wire.HELLO, pid=99)) == [(wire.HELLO, 0, b"me", 9)]
    assert stream.part.sender == 99
    stream.part.greet()
    assert stream.read(frame(1, pid=PID) + frame(2, pid=99)) == [(wire.VALUE, 2, b"", 9)]


@pytest.mark.parametrize("why", ["forked", "greeted", "no hello", "not the first"])
def test_another_process_is_not_believed(why: str) -> None:
    stream = Stream(forked=why == "forked")
    if why == "greeted":
        stream.part.greet()
    kind = wire.READY if why == "no hello" else wire.HELLO
    before = frame(7) if why == "not the first" else b""
    frames = stream.read(before + frame(0, b"me", kind, pid=99))
    assert [each[1] for each in frames] == ([7] if before else [])
    assert stream.part.sender == PID


def test_blocks_are_adopted_with_their_frame() -> None:
    stream = Stream()
    assert stream.read(frame(1, b"list", wire.VALUE_IN_BLOCKS)) == [
        (wire.VALUE_IN_BLOCKS, 1, ("adopted", b"list"), 9)
    ]
    stream.memory.error = MemoryError()
    assert stream.read(frame(2, b"list", wire.VALUE_IN_BLOCKS)) == [(TOO_LARGE, 2, b"12345", 9)]
    assert stream.memory.refused == [b"list"]
    stream.memory.error = ValueError("a wrong owner")
    ((kind, number, why, _),) = stream.read(frame(3, b"list", wire.VALUE_IN_BLOCKS))
    assert (kind, number, why) == (GARBAGE, 0, "ValueError: a wrong owner")


def test_a_frame_that_says_that_it_is_longer_costs_none_behind_it() -> None:
    stream = Stream()
    frames = stream.read(frame(1, b"short", length=5000) + frame(2, b"whole"))
    assert [each[:2] for each in frames] == [(GARBAGE, 0), (wire.VALUE, 2)]


def outcomes(*parts: bytes) -> bytes:
    lengths = b"".join(len(part).to_bytes(4, "little") for part in parts)
    return len(parts).to_bytes(4, "little") + lengths + b"".join(parts)


def test_outcomes_of_several_calls_in_one_frame() -> None:
    assert outcomes_of(outcomes(b"one", b"", b"three")) == [
        (wire.VALUE, b"one"),
        (wire.NONE, None),
        (wire.VALUE, b"three"),
    ]
    assert outcomes_of(outcomes()) == []


@pytest.mark.parametrize(
    "data",
    [(1 << 31).to_bytes(4, "little"), outcomes(b"one") + b"x", outcomes(b"one")[:-1]],
    ids=["count", "more", "less"],
)
def test_outcomes_that_contradict_their_lengths_are_malformed(data: bytes) -> None:
    with pytest.raises(BadFrame):
        outcomes_of(data)
