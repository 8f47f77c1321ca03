"""Bytes between the host and a worker.

Layouts, result frames in pieces of any size, the inbox and what is taken back from it.

The host's half is the real ``WorkerProcess`` behind a real poller on real pipes; only the process
is
missing: ``Pipes`` is a record of descriptors like ``spawn.Process``, whose other ends the test
holds.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from wetlands_executor.pool import polling
from wetlands_executor.pool.call import GARBAGE, Call
from wetlands_executor.pool.result_stream import DIRECT, LONGEST, Frame
from wetlands_executor.pool.worker_output import TAIL
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.settings import current_settings
from wetlands_executor.worker import wire
from wetlands_executor.worker.channel import Channel, StreamBroken

NONCE = 0xC0FFEE42
#: Seconds after which a test gives up; nothing here takes longer than milliseconds.
DEADLINE = 5


class Pipes:
    """The host's ends of a worker's pipes, and the worker's ends (``its_*``). No process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.page = None
        self.killed = 0
        self.its_inbox, self.inbox = os.pipe()
        self.its_bulk, self.bulk = os.pipe()
        self.results, self.its_results = os.pipe()
        self.inbox_reader = -1
        if os.path.isdir("/proc/self/fd"):
            self.inbox_reader = os.open(
                f"/proc/self/fd/{self.its_inbox}", os.O_RDONLY | os.O_NONBLOCK
            )
        for fd in (self.inbox, self.bulk, self.results):
            os.set_blocking(fd, False)

    def kill_tree(self) -> None:
        self.killed += 1

    def close_fd(self, fd: int) -> None:
        for name, value in list(vars(self).items()):
            if name not in ("pid", "killed") and value == fd:
                setattr(self, name, -1)
        os.close(fd)

    def close(self) -> None:
        for name in (
            "its_inbox",
            "inbox",
            "its_bulk",
            "bulk",
            "results",
            "its_results",
            "inbox_reader",
        ):
            if getattr(self, name) >= 0:
                self.close_fd(getattr(self, name))


class Side:
    """A WorkerProcess, its poller, its pipes; ``read_until`` waits as the I/O thread does."""

    def __init__(self, poller: polling.Poller) -> None:
        self.pipes = Pipes()
        self.poller = poller
        self.process = WorkerProcess(1, 0, self.pipes, poller, NONCE)  # type: ignore[arg-type]
        self.frames: list[Frame] = []
        self.ended = False
        poller.add_reader(self.pipes.results, polling.RESULTS, self._on_results)

    def _on_results(self) -> None:
        frames, ended = self.process.results.read()
        self.frames += (Frame(*frame) for frame in frames)
        if ended:
            self.ended = True
            self.poller.remove(self.pipes.results)

    def read_until_end(self) -> list[Frame]:
        while not self.ended:
            callbacks = self.poller.wait(DEADLINE, ())
            assert callbacks, "nothing came"
            for callback in callbacks:
                callback()
        return self.frames

    def write(self, data: bytes, sizes: Iterator[int] | None = None) -> threading.Thread:
        """Write from another thread, in pieces, then end the pipe."""

        def run() -> None:
            view = memoryview(data)
            while view:
                size = next(sizes) if sizes is not None else len(view)
                view = view[os.write(self.pipes.its_results, view[:size]) :]
            self.pipes.close_fd(self.pipes.its_results)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def close(self) -> None:
        self.poller.close()
        self.pipes.close()


@pytest.fixture(params=[polling.SystemPoller, polling.ThreadPoller])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """Both ways of waiting for pipes."""
    side = Side(request.param())
    yield side
    side.close()


@pytest.fixture
def polled() -> Iterator[Side]:
    """The usual way of waiting."""
    side = Side(polling.SystemPoller())
    yield side
    side.close()


def frame(
    number: int,
    data: bytes = b"",
    *,
    kind: int = wire.VALUE,
    nonce: int = NONCE,
    pid: int | None = None,
    length: int | None = None,
) -> bytes:
    """Return a result frame as the worker's channel writes it."""
    size = len(data) if length is None else length
    return (
        wire.RESULT.pack(
            size, nonce, os.getpid() if pid is None else pid, kind, number % 1000, number
        )
        + data
    )


def some_frames(
    rng: random.Random, count: int, largest: int
) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """Return frames as bytes, and what they are: (kind, number, payload)."""
    expected = []
    for number in range(count):
        kind = rng.choice((wire.VALUE, wire.NONE, wire.ERROR, wire.HELLO))
        data = (
            b""
            if kind == wire.NONE
            else rng.randbytes(rng.choice((0, 1, 31, 32, 33, rng.randrange(largest))))
        )
        expected.append((kind, number, data))
    return b"".join(frame(number, data, kind=kind) for kind, number, data in expected), expected


def plain(frames: list[Frame]) -> list[tuple[int, int, bytes]]:
    return [(found.kind, found.number, bytes(found.payload)) for found in frames]


# --- layouts


def test_inbox_frames_divide_a_page() -> None:
    """A pipe then never holds part of one, so that a read of FRAME bytes gets a whole frame."""
    assert wire.FRAME & (wire.FRAME - 1) == 0
    assert 4096 % wire.FRAME == 0
    assert wire.CALL.size + wire.INLINE == wire.FRAME


def test_layouts_are_the_same_on_every_platform() -> None:
    """Fixed byte order, no native padding: the two interpreters may have been built differently."""
    for layout in (wire.CALL, wire.RECORD, wire.RESULT):
        assert layout.format.startswith("<")
        assert layout.size == struct.calcsize(layout.format)


def test_kinds_are_distinct() -> None:
    """A number that means two things would be read as the wrong one."""
    kinds = ["HELLO", "READY", "START_FAILED", "INITIALIZER_FAILED", "VALUE", "NONE", "ERROR"]
    assert len({getattr(wire, name) for name in kinds}) == len(kinds)
    flags = [wire.IN_BULK, wire.NO_REFERENCES]
    assert all(flag & (flag - 1) == 0 for flag in flags)
    assert len(set(flags)) == len(flags)


# --- results


def test_what_a_channel_sends_is_what_the_host_reads(side: Side) -> None:
    """The worker's own writer, payloads around every limit, whole and in pieces."""
    channel = Channel(side.pipes.its_inbox, side.pipes.its_bulk, side.pipes.its_results)
    channel.nonce = NONCE
    sizes = (0, 1, 3999, 4000, 4096, 65535, 65536, 70_000, DIRECT, DIRECT + 1, 1_000_000)
    sent = [(wire.VALUE, number, bytes([number]) * size) for number, size in enumerate(sizes)]

    def run() -> None:
        for kind, number, data in sent:
            channel.send(kind, number, data)
            channel.send(kind, number, [data[:2], memoryview(data)[2:]])
        side.pipes.close_fd(side.pipes.its_results)

    thread = threading.Thread(target=run)
    thread.start()
    frames = side.read_until_end()
    thread.join()
    assert plain(frames) == [frame for frame in sent for _ in range(2)]


def test_frames_in_pieces_of_any_size(side: Side, stress_rng: random.Random) -> None:
    """A pipe knows no frames: their borders may be anywhere."""
    data, expected = some_frames(stress_rng, 60, 2000)
    thread = side.write(
        data, iter(lambda: stress_rng.choice((1, 2, 7, 31, 32, 33, 500, 5000)), None)
    )
    frames = side.read_until_end()
    thread.join()
    assert plain(frames) == expected


def test_a_frame_cut_at_every_byte() -> None:
    """The parser alone: two pieces, every border of two frames."""
    poller = polling.SystemPoller()
    side = Side(poller)
    data = frame(1, b"first") + frame(2, b"")
    for cut in range(len(data) + 1):
        process = WorkerProcess(1, 0, side.pipes, poller, NONCE)  # type: ignore[arg-type]
        found = process.results._parse(data[:cut])
        found += process.results._parse(process.results._buffer + data[cut:])
        assert plain([Frame(*raw) for raw in found]) == [
            (wire.VALUE, 1, b"first"),
            (wire.VALUE, 2, b""),
        ]
    side.close()


@pytest.mark.parametrize("cut", [1, wire.RESULT.size - 1, wire.RESULT.size, wire.RESULT.size + 3])
def test_a_pipe_that_ends_within_a_frame(side: Side, cut: int) -> None:
    """The worker died while it wrote: what was whole before counts, the rest is nothing."""
    thread = side.write(frame(1, b"whole") + frame(2, b"torn")[:cut])
    frames = side.read_until_end()
    thread.join()
    assert plain(frames) == [(wire.VALUE, 1, b"whole")]


@pytest.mark.parametrize("first", [0, 1, 100, 65_000, DIRECT - 100])
def test_a_large_frame_split_anywhere(side: Side, stress_rng: random.Random, first: int) -> None:
    """Read straight into its own buffer, whatever came before it in the same piece and after it."""
    large = stress_rng.randbytes(DIRECT + 77)
    data = (
        frame(1, bytes(first)) + frame(2, large) + frame(3, b"after") + frame(4, large) + frame(5)
    )
    thread = side.write(data, iter(lambda: stress_rng.randrange(1, 100_000), None))
    frames = side.read_until_end()
    thread.join()
    assert [found.number for found in frames] == [1, 2, 3, 4, 5]
    assert bytes(frames[1].payload) == bytes(frames[3].payload) == large
    assert bytes(frames[2].payload) == b"after"


def test_every_cut_around_the_head_of_a_large_frame(polled: Side) -> None:
    """The head may be torn, or be the last thing in a piece."""
    large = bytes(range(256)) * (DIRECT // 256 + 1)
    data = frame(1, b"x") + frame(2, large)
    begin = len(frame(1, b"x"))
    for cut in range(begin - 2, begin + wire.RESULT.size + 3):
        process = WorkerProcess(1, 0, polled.pipes, polled.poller, NONCE)  # type: ignore[arg-type]
        found: list[Frame] = []
        borders = [0, cut, *range(cut + 5000, len(data), 60_000), len(data)]
        for start, end in zip(borders, borders[1:]):
            assert os.write(polled.pipes.its_results, data[start:end]) == end - start
            while (arrived := process.results.arrived) < end:
                found += [Frame(*frame) for frame in process.results.read()[0]]
                assert process.results.arrived > arrived
        assert plain(found) == [(wire.VALUE, 1, b"x"), (wire.VALUE, 2, large)]


def test_a_wrong_nonce_is_a_bad_frame(side: Side) -> None:
    """Another process than this worker wrote into the pipe."""
    side.write(frame(1) + frame(2, nonce=NONCE ^ 1) + frame(3)).join()
    frames = side.read_until_end()
    assert [(one.kind, one.number) for one in frames] == [
        (wire.VALUE, 1),
        (GARBAGE, 0),
        (wire.VALUE, 3),
    ]
    assert "nonce" in frames[1].payload


@pytest.mark.parametrize("length", [LONGEST + 1, (1 << 64) - 1])
def test_an_absurd_length_is_a_bad_frame(side: Side, length: int) -> None:
    """It is refused before any code asks for that much memory."""
    side.write(frame(1, length=length) + frame(2)).join()
    frames = side.read_until_end()
    assert [(one.kind, one.number) for one in frames] == [(GARBAGE, 0), (wire.VALUE, 2)]
    assert f"length {length}" in frames[0].payload


def test_text_in_the_results_pipe_is_a_bad_frame(side: Side) -> None:
    """A task that wrote to a descriptor that it had guessed."""
    text = b"hello, world: this is no frame at all\n"
    side.write(text + frame(1) + text + frame(2)).join()
    frames = side.read_until_end()
    assert [(one.kind, one.number) for one in frames] == [
        (GARBAGE, 0),
        (wire.VALUE, 1),
        (GARBAGE, 0),
        (wire.VALUE, 2),
    ]


@pytest.mark.parametrize("length", [32, 40, 1000, 70_000, DIRECT, DIRECT + 1, 10 * DIRECT, 1 << 45])
@pytest.mark.parametrize("cut", [0, 1, 10, 31])
def test_a_frame_that_says_that_it_is_longer_costs_none_behind_it(
    side: Side, length: int, cut: int
) -> None:
    side.write(frame(1, bytes(cut), length=length) + frame(2, b"two") + frame(3, b"three")).join()
    frames = side.read_until_end()
    assert [(one.kind, one.number) for one in frames] == [
        (GARBAGE, 0),
        (wire.VALUE, 2),
        (wire.VALUE, 3),
    ]


def test_no_bytes_in_between_cost_a_frame(side: Side, stress_rng: random.Random) -> None:
    data, numbers = b"", []
    for number in range(1, 200):
        if stress_rng.random() < 0.5:
            whole = frame(1000, stress_rng.randbytes(stress_rng.randrange(50)))
            broken = bytearray(whole[: stress_rng.randrange(1, len(whole))])
            broken[8:12] = b"\0\0\0\0"[: len(broken[8:12])]
            data += bytes(broken)
        data += frame(number, stress_rng.randbytes(stress_rng.choice((0, 5, 100))))
        numbers.append(number)
    thread = side.write(data)
    frames = side.read_until_end()
    thread.join()
    assert [one.number for one in frames if one.kind == wire.VALUE] == numbers


def test_a_forked_child_is_not_believed(side: Side) -> None:
    """It has the nonce, but another pid; its frames are skipped, the next ones count."""
    large = bytes(DIRECT + 5)
    data = (
        frame(1, b"a")
        + frame(2, b"child's", pid=1)
        + frame(3, b"b")
        + frame(4, large, pid=1)
        + frame(5, b"c")
    )
    thread = side.write(data)
    frames = side.read_until_end()
    thread.join()
    assert plain(frames) == [(wire.VALUE, 1, b"a"), (wire.VALUE, 3, b"b"), (wire.VALUE, 5, b"c")]


def test_a_length_that_fits_nowhere_is_told_to_its_own_task(
    polled: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plausible on the wire, too much for this host: read, dropped, reported.

    The next frame is unharmed.
    """
    import builtins

    from wetlands_executor.pool import result_stream as module

    def no_memory(size: int) -> bytearray:
        raise MemoryError

    monkeypatch.setattr(module, "bytearray", no_memory, raising=False)
    assert builtins.bytearray is not no_memory
    thread = polled.write(frame(1, bytes(DIRECT + 1)) + frame(2, b"next"))
    frames = polled.read_until_end()
    thread.join()
    assert plain(frames) == [(module.TOO_LARGE, 1, b"%d" % (DIRECT + 1)), (wire.VALUE, 2, b"next")]


def test_arrived_counts_every_byte(side: Side) -> None:
    """The end of a process is judged by it: something still came, or nothing did."""
    data = frame(1, bytes(100)) + frame(2, bytes(DIRECT * 2)) + frame(3)[:-1]
    thread = side.write(data)
    side.read_until_end()
    thread.join()
    assert side.process.results.arrived == len(data)


# --- the inbox


def call(number: int, *args: object) -> Call:
    """Return a call of ``abs``."""
    return Call(number, encode(abs, args, {}), current_settings(), None)


@pytest.mark.parametrize("args", [(), (-1,), ("x" * 50,), ("x" * 200,), ("x" * 10_000,)])
def test_an_inbox_frame_always_has_its_size(args: tuple[object, ...]) -> None:
    """Whatever the payload: it is inside, or in the bulk pipe and the frame says so."""
    made = call(7, *args)
    data = made.frame()
    assert len(data) == wire.FRAME
    kind, flags, length, function, context, number, _mark = wire.CALL.unpack_from(data)
    assert (kind, number, context) == (wire.RUN, 7, made.host_settings.number)
    assert function == made.encoded.definition.number
    if flags & wire.IN_BULK:
        assert length == 0
        assert len(made.encoded.payload) > wire.INLINE
    else:
        assert data[wire.CALL.size : wire.CALL.size + length] == made.encoded.payload


def test_every_length_of_payload_around_the_limit() -> None:
    """No payload is cut off, none is lost between the two ways."""
    for size in range(wire.INLINE + 40):
        made = call(1, "y" * size)
        data = made.frame()
        assert len(data) == wire.FRAME
        _kind, flags, length, *_ = wire.CALL.unpack_from(data)
        assert bool(flags & wire.IN_BULK) == (len(made.encoded.payload) > wire.INLINE)
        assert length == (0 if flags & wire.IN_BULK else len(made.encoded.payload))


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="needs a second open of a pipe's reading end"
)
def test_reclaim_returns_what_the_worker_has_not_read(
    polled: Side, stress_rng: random.Random
) -> None:
    """Whole frames, in order, each to exactly one side."""
    polled.poller.remove(polled.pipes.results)
    for _ in range(20):
        calls = [
            call(number, "z" * stress_rng.choice((1, 10, 500)))
            for number in range(1, stress_rng.randrange(2, 40))
        ]
        polled.process.give(calls)
        taken = stress_rng.randrange(len(calls) + 1)
        read = [
            wire.CALL.unpack_from(os.read(polled.pipes.its_inbox, wire.FRAME))[5]
            for _ in range(taken)
        ]
        back = polled.process.reclaim()
        assert read == [made.number for made in calls[:taken]]
        assert back == calls[taken:]
        assert all(made.process is None for made in back)
        assert set(polled.process.calls) == set(read)
        polled.process.calls.clear()


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="needs a second open of a pipe's reading end"
)
def test_reclaim_includes_what_did_not_fit_into_the_pipe(polled: Side) -> None:
    """Frames in the pipe and frames in the outbox, none twice, none torn."""
    capacity = 65536 // wire.FRAME
    calls = [call(number) for number in range(1, 2 * capacity)]
    polled.process.give(calls)
    read = [wire.CALL.unpack_from(os.read(polled.pipes.its_inbox, wire.FRAME))[5] for _ in range(3)]
    back = polled.process.reclaim()
    assert read == [1, 2, 3]
    assert [made.number for made in back] == [made.number for made in calls[3:]]
    assert polled.process.reclaim() == []


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="needs a second open of a pipe's reading end"
)
def test_the_kernel_decides_who_gets_a_frame(polled: Side) -> None:
    """A worker that reads while the host takes back.

    Every frame goes to exactly one of them, whole.
    """
    calls = [call(number) for number in range(1, 400)]
    read: list[int] = []
    go = threading.Event()

    def work() -> None:
        go.wait(DEADLINE)
        while data := os.read(polled.pipes.its_inbox, wire.FRAME):
            assert len(data) == wire.FRAME
            read.append(wire.CALL.unpack_from(data)[5])

    worker = threading.Thread(target=work)
    worker.start()
    polled.process.give(calls)
    go.set()
    back = [made.number for made in polled.process.reclaim()]
    polled.pipes.close_fd(polled.pipes.inbox)
    worker.join()
    assert sorted(read + back) == [made.number for made in calls]


def test_a_direct_frame_is_written_once_and_recorded(polled: Side) -> None:
    """One frame per direct receive.

    A second thread is refused until the first record is absorbed and the direct receive published
    again.
    """
    process = polled.process
    first, second = call(1), call(2)
    process.outbox.queue_records(first)
    assert not process.direct_send.send(first)
    process.direct_send.open = True
    assert process.direct_send.send(first)
    assert not process.direct_send.send(second)
    assert process.register() == [first]
    assert process.calls == {1: first}
    process.direct_send.open = True
    assert process.direct_send.send(second)
    assert len(os.read(polled.pipes.its_inbox, 4096)) == 2 * wire.FRAME


def test_a_direct_frame_that_does_not_fit_leaves_no_record(polled: Side) -> None:
    """The pipe is full: the caller has to take the long way."""
    process = polled.process
    process.direct_send.open = True
    made = call(1)
    process.outbox.queue_records(made)
    try:
        while True:
            os.write(polled.pipes.inbox, made.frame())
    except BlockingIOError:
        pass
    assert not process.direct_send.send(made)
    assert process.register() == []


def test_records_precede_the_frame_that_refers_to_them(polled: Side) -> None:
    """And a definition is sent once."""
    process = polled.process
    process.outbox._settings = current_settings().number
    big = call(5, "w" * 1000)
    assert not process.outbox.knows(big)
    process.give([big, call(6)])
    channel = Channel(polled.pipes.its_inbox, polled.pipes.its_bulk, -1)
    kind, ident, data = channel.read_record()
    assert (kind, ident, bytes(data)) == (
        wire.DEFINITION,
        big.encoded.definition.number,
        big.encoded.definition.data,
    )
    kind, ident, data = channel.read_record()
    assert (kind, ident, bytes(data)) == (wire.PAYLOAD, 5, big.encoded.payload)
    assert process.outbox.knows(call(7))
    os.set_blocking(polled.pipes.its_bulk, False)
    with pytest.raises(BlockingIOError):
        os.read(polled.pipes.its_bulk, 1)


def test_a_record_that_is_missing_is_noticed(polled: Side) -> None:
    """Something else has read exactly one record."""
    process = polled.process
    for number in range(3):
        process.outbox.record(wire.PAYLOAD, number, b"x" * 100)
    process.outbox.flush()
    assert len(os.read(polled.pipes.its_bulk, wire.RECORD.size + 104)) == wire.RECORD.size + 104
    with pytest.raises(StreamBroken):
        Channel(polled.pipes.its_inbox, polled.pipes.its_bulk, -1).read_record()


@pytest.mark.parametrize("skipped", [1, 4, 20, 50])
@pytest.mark.parametrize("size", [100, 20_000])
def test_bytes_that_are_missing_in_a_payload_are_noticed(
    polled: Side, size: int, skipped: int
) -> None:
    """No payload ends with bytes of what follows it."""
    for number in range(3):
        polled.process.outbox.record(wire.PAYLOAD, number, b"%d" % number * size)
    polled.process.outbox.flush()
    data = os.read(polled.pipes.its_bulk, 65536)
    assert len(data) == 3 * (wire.RECORD.size + size + 4)
    read, end = os.pipe()
    os.write(end, data[:60] + data[60 + skipped :])
    try:
        with pytest.raises(StreamBroken):
            Channel(-1, read, -1).read_record()
    finally:
        os.close(read)
        os.close(end)


def test_marks_go_on_where_a_worker_stands(polled: Side) -> None:
    """What was taken back gives its marks back; a direct frame has none of them.

    They never become a direct frame's.
    """
    process = polled.process
    direct, first = wire.marks(NONCE)
    process.outbox.next_mark = first = wire.MARK_BITS - 2  # about to start anew
    process.give([call(number) for number in range(1, 9)])
    marks = [
        wire.CALL.unpack_from(os.read(polled.pipes.its_inbox, wire.FRAME))[6] for _ in range(3)
    ]
    assert [made.number for made in process.reclaim()] == [4, 5, 6, 7, 8]
    process.give([call(9)])
    marks.append(wire.CALL.unpack_from(os.read(polled.pipes.its_inbox, wire.FRAME))[6])
    assert marks == [(first + wire.MARK_STEP * n) & wire.MARK_BITS for n in range(4)]
    assert direct % 2 == 0
    assert all(mark % 2 for mark in marks)
    process.calls.clear()
    process.direct_send.open = True
    assert process.direct_send.send(call(10))
    assert wire.CALL.unpack_from(os.read(polled.pipes.its_inbox, wire.FRAME))[6] == direct


@pytest.mark.parametrize("skipped", [1, 24, 127])
def test_a_frame_that_was_cut_is_not_taken_back(polled: Side, skipped: int) -> None:
    """What is left in the inbox makes no calls.

    They stay with the worker, which will not find them either.
    """
    process = polled.process
    calls = [call(number) for number in range(1, 9)]
    process.give(calls)
    os.read(polled.pipes.its_inbox, skipped)
    assert process.reclaim() == []
    assert list(process.calls.values()) == calls


def test_large_records_arrive_whole(side: Side, stress_rng: random.Random) -> None:
    """More than a pipe holds: the rest goes out when there is room."""
    side.poller.remove(side.pipes.results)
    sizes = [0, 1, 65_535, 65_536, 300_000, 3]
    records = [stress_rng.randbytes(size) for size in sizes]
    for number, data in enumerate(records):
        side.process.outbox.record(wire.PAYLOAD, number, data)
    side.process.outbox.flush()
    channel = Channel(side.pipes.its_inbox, side.pipes.its_bulk, -1)
    found: list[tuple[int, int, bytes]] = []

    def read() -> None:
        for _ in records:
            kind, ident, data = channel.read_record()
            found.append((kind, ident, bytes(data)))
            if len(found) == len(records):
                side.poller.wake()

    reader = threading.Thread(target=read)
    reader.start()
    while len(found) < len(records):
        for callback in side.poller.wait(0.5, found[len(records) - 1 :]):
            callback()
    reader.join()
    assert found == [(wire.PAYLOAD, number, data) for number, data in enumerate(records)]


def test_a_thread_that_starts_late_reads_its_own_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The poller's owner has closed the descriptor before the reading thread runs."""
    started: list[tuple[Callable[..., None], tuple[object, ...]]] = []
    monkeypatch.setattr(polling, "start_new_thread", lambda *thread: started.append(thread))
    poller = polling.ThreadPoller()
    read, write = os.pipe()
    poller.add_reader(read, polling.RESULTS, lambda: None)
    os.write(write, b"text")
    os.close(write)
    os.close(read)
    for function, arguments in started:
        function(*arguments)
    assert poller.read(read, 100) == b"text"
    assert poller.read(read, 100) == b""
    poller.close()


def test_an_inbox_that_is_not_read_kills_the_process(polled: Side) -> None:
    """Its death will be noticed by its exit; nothing is raised here."""
    polled.pipes.close_fd(polled.pipes.its_inbox)
    if polled.pipes.inbox_reader >= 0:
        polled.pipes.close_fd(polled.pipes.inbox_reader)
    polled.process.give([call(1)])
    assert polled.pipes.killed == 1


def test_the_tail_of_stderr_is_bounded(polled: Side) -> None:
    """The last bytes, decoded whatever they are."""
    polled.process.output.keep(b"x" * TAIL)
    polled.process.output.keep(b"\xff last words\n")
    assert len(polled.process.output._tail) == TAIL
    assert polled.process.output.tail().endswith("\ufffd last words")
