"""What goes to one worker: frames and records in order, what it was sent, what is reclaimed."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.parts import NONCE
from tests.unit.wired import WiredCrew, WiredPipes, frames_in
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.outbox import JOINED, UNREAD, InPipes, Outbox
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.definitions import Definition
from wetlands_executor.serialize.encoded import EncodedCall
from wetlands_executor.serialize.settings import current_settings
from wetlands_executor.worker import wire

DIRECT_MARK, FIRST_MARK = wire.marks(NONCE)


class Writer:
    """A poller that takes as many bytes as a pipe has room for, in order over both pipes."""

    def __init__(self) -> None:
        self.room: dict[int, int] = {}
        self.broken = False
        self.written: list[tuple[int, bytes]] = []
        self.wanted: dict[int, Any] = {}
        self.removed: list[int] = []

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.broken:
            raise BrokenPipeError(errno.EPIPE, "its reader is gone")
        taken = min(len(data), self.room.get(fd, 1 << 30))
        if fd in self.room:
            self.room[fd] -= taken
        if taken:
            self.written.append((fd, bytes(data[:taken])))
        return taken

    def want_write(self, fd: int, callback: Any) -> None:
        self.wanted[fd] = callback

    def remove(self, fd: int) -> None:
        self.removed.append(fd)

    def on(self, fd: int) -> bytes:
        return b"".join(data for each, data in self.written if each == fd)


class Owner:
    killed = 0

    def kill(self) -> None:
        self.killed += 1


class Sender:
    """The part, with the pipes of a worker behind a poller that the test makes room for."""

    inbox, bulk = 101, 102

    def __init__(self) -> None:
        self.writer, self.owner = Writer(), Owner()
        self.closed: list[int] = []
        self.pipes = SimpleNamespace(
            inbox=self.inbox, bulk=self.bulk, inbox_reader=-1, close_fd=self.closed.append
        )
        any_writer: Any = self.writer
        self.part = Outbox(self.owner, any_writer, self.pipes, NONCE)
        self.numbers = iter(range(1, 1000))

    def call(self, *args: Any) -> Call:
        return Call(next(self.numbers), encode(abs, args or (-1,), {}), current_settings(), None)

    def records(self) -> list[tuple[int, int, bytes]]:
        """Return the records in the bulk pipe: (kind, number, payload)."""
        data, found = self.writer.on(self.bulk), []
        due = wire.FIRST_RECORD
        while data:
            first, length, number = wire.RECORD.unpack_from(data)
            assert first >> 8 == due, "records are numbered in their order"
            due = due + 1 & wire.RECORD_BITS
            end = wire.RECORD.size + length
            found.append((first & 0xFF, number, data[wire.RECORD.size : end]))
            if length:
                assert data[end : end + 4] == data[:4]
                end += 4
            data = data[end:]
        return found


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def wired() -> Iterator[tuple[Outbox, WiredPipes]]:
    """The part of a process with real pipes, and these."""
    crew = WiredCrew()
    process, pipes = crew.wired()
    crew.loop.poller.write = os.write
    yield process.outbox, pipes
    crew.close()


# ------------------------------------------------------------------------------ what a worker knows


def test_a_worker_is_sent_settings_and_functions_once(sender: Sender) -> None:
    part, first, second = sender.part, sender.call(), sender.call()
    definition = first.encoded.definition
    assert definition is not None
    assert not part.knows(first)
    part.queue_records(first)
    assert part.knows(second)
    part.queue_records(second)
    part.flush()
    settings = first.host_settings
    assert sender.records() == [
        (wire.SETTINGS, settings.number, settings.data),
        (wire.DEFINITION, definition.number, definition.data),
    ]


def test_what_a_worker_was_configured_with_is_not_sent_again(sender: Sender) -> None:
    call = sender.call()
    piece: Any = SimpleNamespace(owner=4, number=9, data=b"content")
    sender.part.note_sent(call.host_settings, [piece])
    call.encoded = needing(call, piece)
    sender.part.queue_records(call)
    sender.part.flush()
    assert [kind for kind, _, _ in sender.records()] == [wire.DEFINITION]


def needing(call: Call, *pieces: Any) -> EncodedCall:
    encoded = call.encoded

    class Needing(EncodedCall):
        needs = pieces

    return Needing(encoded.definition, encoded.flags, encoded.payload, None)


def test_the_content_of_an_object_is_sent_when_it_has_changed(sender: Sender) -> None:
    part = sender.part
    pieces: list[Any] = [
        SimpleNamespace(owner=4, number=number, data=b"content %d" % number)
        for number in (9, 9, 10)
    ]
    for piece in pieces:
        call = sender.call()
        call.encoded = needing(call, piece)
        known = part.knows(call)
        part.queue_records(call)
        assert part.knows(call)
        assert known is (piece is pieces[1])
    part.flush()
    sent = [(number, data) for kind, number, data in sender.records() if kind == wire.PIECE]
    assert sent == [(9, b"content 9"), (10, b"content 10")]


def test_a_name_and_a_context_go_before_the_frame(sender: Sender) -> None:
    call = sender.call()
    sender.part.queue_records(call)
    call.flag(wire.NAMED)
    call.carried = b"context"
    call.task = SimpleNamespace(name="näme", attempt=1)
    assert not sender.part.knows(call)
    sender.part.queue_records(call)
    sender.part.flush()
    assert sender.records()[2:] == [
        (wire.CONTEXT, call.number, b"context"),
        (wire.NAME, call.number, "näme".encode()),
    ]


def test_bytecode_is_for_workers_of_this_python(sender: Sender) -> None:
    call = sender.call()
    sender.part.queue_records(call)
    encoded = call.encoded
    call.encoded = EncodedCall(encoded.definition, encoded.flags, encoded.payload, None, True)
    assert sender.part.knows(call)
    sender.part.expect_bytecode(True)
    assert not sender.part.knows(call)


def test_what_is_forgotten_is_sent_again(sender: Sender) -> None:
    part, call = sender.part, sender.call()
    definition = call.encoded.definition
    assert definition is not None
    part.forget(definition)  # it was never sent: nothing to forget
    piece: Any = SimpleNamespace(owner=4, number=9, data=b"content")
    call.encoded = needing(call, piece)
    part.queue_records(call)
    part.forget(definition)
    part.forget_objects([4])
    assert not part.knows(call)
    part.queue_records(call)
    part.flush()
    kinds = [kind for kind, _, _ in sender.records()]
    assert kinds == [
        wire.SETTINGS,
        wire.PIECE,
        wire.DEFINITION,
        wire.FORGET,
        wire.FORGET,
        wire.PIECE,
        wire.DEFINITION,
    ]
    assert pickle.loads(sender.records()[4][2]) == [4]
    frames = [data for fd, data in sender.writer.written if fd == sender.inbox]
    assert frames == [part.control_frame(wire.TIDY, 2, part.direct_mark)]


def test_workers_are_asked_now_and_then_to_forget_functions(sender: Sender) -> None:
    part = sender.part
    for number in range(2 * UNREAD):
        call, definition = sender.call(), Definition(b"", "name")
        call.encoded = EncodedCall(definition, 0, b"", None)
        part.queue_records(call)
        part.forget(definition)
        frames = [data for fd, data in sender.writer.written if fd == sender.inbox]
        counts = [count for count in (UNREAD, 2 * UNREAD) if count <= number + 1]
        assert frames == [part.control_frame(wire.TIDY, n, part.direct_mark) for n in counts]


# -------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("size", [1, JOINED - 1, JOINED, 3 * JOINED])
def test_records_leave_before_the_frame_that_refers_to_them(sender: Sender, size: int) -> None:
    call = sender.call("x" * size)
    sender.part.queue_records(call)
    sender.part.frames(call.frame(FIRST_MARK), FIRST_MARK + wire.MARK_STEP)
    assert sender.writer.written[-1] == (sender.inbox, call.frame(FIRST_MARK))
    payloads = [data for kind, _, data in sender.records() if kind == wire.PAYLOAD]
    assert payloads == ([call.encoded.payload] if call.encoded.flags & wire.IN_BULK else [])
    assert sender.part.next_mark == FIRST_MARK + wire.MARK_STEP
    assert sender.writer.wanted == {}


def test_what_does_not_fit_waits_and_goes_on_where_it_was(sender: Sender) -> None:
    writer, part = sender.writer, sender.part
    writer.room = {sender.bulk: 10, sender.inbox: wire.FRAME}
    part.record(wire.NAME, 1, b"a name")
    part.frames(bytes(wire.FRAME) + b"\1" * wire.FRAME, FIRST_MARK)
    assert [fd for fd, callback in writer.wanted.items() if callback] == [
        sender.bulk,
        sender.inbox,
    ]
    part.frames(b"\2" * wire.FRAME, FIRST_MARK)  # behind what waits
    writer.room.clear()
    writer.wanted[sender.bulk]()
    assert sender.records() == [(wire.NAME, 1, b"a name")]
    assert writer.on(sender.inbox) == b"".join(bytes([number]) * wire.FRAME for number in range(3))
    assert list(writer.wanted.values()) == [None, None], "nothing waits any more"


def test_a_pipe_without_a_reader_ends_its_worker(sender: Sender) -> None:
    sender.writer.broken = True
    sender.part.frames(bytes(wire.FRAME), FIRST_MARK)
    assert sender.owner.killed == 1
    sender.writer.broken = False
    sender.part.flush()
    assert sender.writer.written == [], "what waited is dropped"


def test_control_frames_are_not_numbered(sender: Sender) -> None:
    sender.part.send_control(wire.CANCEL, 5)
    kind, *_, number, mark = wire.CALL.unpack_from(sender.writer.on(sender.inbox))
    assert (kind, number, mark) == (wire.CANCEL, 5, DIRECT_MARK)
    assert sender.part.next_mark == FIRST_MARK


def test_a_bulk_pipe_is_closed_once_and_takes_nothing_more(sender: Sender) -> None:
    part = sender.part
    sender.writer.room = {sender.bulk: 3}
    part.record(wire.NAME, 1, b"a name")
    part.flush()
    part.close_bulk()
    assert sender.closed == [], "a record is on its way"
    sender.writer.room.clear()
    part.flush()
    part.close_bulk()
    part.close_bulk()
    assert (sender.closed, sender.writer.removed) == ([sender.bulk], [sender.bulk])
    before = len(sender.writer.written)
    part.record(wire.NAME, 2, b"another")
    part.flush()
    assert len(sender.writer.written) == before


# --------------------------------------------------------------------------------------- reclaiming


def test_what_was_not_read_is_reclaimed_and_marks_go_on_there(
    wired: tuple[Outbox, WiredPipes],
) -> None:
    part, pipes = wired
    marks = [FIRST_MARK + step * wire.MARK_STEP for step in range(4)]
    for number, mark in enumerate(marks[:3], 1):
        part.frames(part.control_frame(wire.RUN, number, mark), mark + wire.MARK_STEP)
    part.frames(part.control_frame(wire.AFTER, 7, DIRECT_MARK), marks[3])
    os.read(pipes.its_inbox, wire.FRAME)  # the worker has taken the first
    assert part.reclaim() == ([2, 3], 7)
    assert part.next_mark == marks[1]
    assert part.reclaim() == ([], 0)
    assert frames_in(pipes.its_inbox) == []


def test_frames_that_have_not_left_are_reclaimed_too(sender: Sender) -> None:
    sender.writer.room = {sender.inbox: 0}
    frame = sender.part.control_frame(wire.RUN, 3, FIRST_MARK)
    sender.part.frames(frame, FIRST_MARK + wire.MARK_STEP)
    assert sender.part.reclaim() == ([3], 0)
    sender.writer.room.clear()
    sender.part.flush()
    assert sender.writer.written == []


def test_what_a_task_has_left_of_a_frame_is_not_reclaimed(
    wired: tuple[Outbox, WiredPipes],
) -> None:
    part, pipes = wired
    part.frames(part.control_frame(wire.RUN, 1, FIRST_MARK), FIRST_MARK + wire.MARK_STEP)
    os.read(pipes.its_inbox, 5)
    assert part.reclaim() == ([], 0)
    assert part.next_mark == FIRST_MARK + wire.MARK_STEP, "the worker notices what is missing"


# ----------------------------------------------------------------------------- what is in the pipes


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="not told how much a pipe holds")
def test_what_is_in_the_pipes_is_known(wired: tuple[Outbox, WiredPipes]) -> None:
    part, pipes = wired
    assert part.in_pipes() == InPipes(0, False, 0)
    part.raw(b"configuration")
    part.record(wire.NAME, 1, b"a name")
    part.frames(bytes(2 * wire.FRAME), FIRST_MARK)
    size = wire.RECORD.size + len(b"a name") + 4
    assert part.in_pipes() == InPipes(2, False, 0)
    os.read(pipes.its_bulk, len(b"configuration"))
    os.read(pipes.its_bulk, size)
    os.read(pipes.its_inbox, 5)
    assert part.in_pipes() == InPipes(1, True, size)
