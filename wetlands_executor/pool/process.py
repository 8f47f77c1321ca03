"""ONE worker process: what waits to go out to it, what came in from it, the end of its life.

``WorkerProcess`` is entered by the I/O thread only, with one exception: ``send_directly`` is the express lane of the submitting threads.

Order: bulk records are queued before the frame that refers to them; frames leave in the order of dispatch. Nothing here blocks.

The death certificate: only ``Pool`` declares a process dead, when its ``exit`` descriptor says so. Everything else (a bad frame, a broken
pipe, a time limit, shutdown) only kills.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from os import write
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from wetlands_executor.pool import spawn
from wetlands_executor.pool.call import GARBAGE as GARBAGE
from wetlands_executor.pool.call import TOO_LARGE as TOO_LARGE
from wetlands_executor.pool.call import Call as Call
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.ports import RESULTS, Port
from wetlands_executor.pool.return_lane import ReturnLane, raised_elsewhere
from wetlands_executor.pool.timers import Timer
from wetlands_executor.serialize.calls import Definition
from wetlands_executor.sharedmem.results import ResultMemory
from wetlands_executor.worker import wire
from wetlands_executor.worker.room import room

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece

#: Bytes read from a results pipe at once: many small results per wake-up.
READ = 65536
#: Results larger than this are read straight into their own buffer.
DIRECT = 262144
#: Bytes of stderr that are kept for the error of a crash.
TAIL = 16384
#: Seconds that a submitting thread may be inside the lane before the I/O thread does something else first. It writes one frame there.
LANE_PATIENCE = 0.005
#: Flags of calls that need more than their frame.
_WITH_RECORDS = wire.IN_BULK | wire.NAMED
#: A frame longer than this is no frame.
LONGEST = 1 << 46
#: Bytes of a result that are there without a question.
SURE = 64 << 20
#: Where a frame's header has its nonce and its pid.
MARK = 8
_MARK = struct.Struct("<II")


class Frame(NamedTuple):
    """A result frame. On the way to whom it concerns it is a plain tuple of the same order: making one of these costs as much as reading it."""

    kind: int
    number: int
    payload: Any  # bytes; a ``OutOfBandResult`` if the kind is VALUE_IN_BLOCKS
    duration: int


RawFrame: TypeAlias = tuple[int, int, Any, int]


class WorkerProcess:
    """One incarnation.

    Attributes:
        worker: the incarnation's number in ``PoolState``.
        index: its slot.
        process: pipes and pid.
        calls: number -> call, of what was given to it and is not finished.
        hello: what it said about itself, None before.
        foreign: its bytecode is not ours.
        exited, results_ended: the process has ended; nothing more will come through its results pipe.
        arrived: bytes read from its results pipe.
        parcels: what goes and comes in shared memory.
        streams: its stdout and stderr on their way to the host's.
        printed: something came through a stream or a log record that may be of a call whose outcome has not come yet.
        printed_until: the last call of which it may be, as on the board; None if unknown.
        records: its log records on their way (only the counters are used).
        timers: those that concern it, stopped when it has ended.
        proven: the state has heard of a call that it has finished.
        last_heard: when something came from it, on the monotonic clock; kept up to date only under ``worker_timeout``.
        stacks_from: position in its stderr at which it was asked for its stacks.
        failure: why it cannot start (payload of START_FAILED or INITIALIZER_FAILED), else None.
        reason: why it was killed, if not for the sake of one call: what its calls fail with, or those that wait for it to start.
        garbled: among that were bytes that are no frame, with which an outcome may have been lost.
        suspicion: it has sent what no worker sends, or that could not be handled: what the call fails with that is to blame for it.
        crowded: it may have been given calls in another order than that of ``calls``, until those have ended.
        stopping: it was told to end, or killed on purpose.
        reading: what it has printed is just being read, and ``printed`` will follow.
        return_lane: where submitters take answers themselves, or None.
        sender: number under which the Python knows itself; every frame has it.
        on_answer: what the I/O thread does when an answer lies on the board for it.
    """

    def __init__(self, worker: int, index: int, process: spawn.Process, port: Port, nonce: int, parcels: ResultMemory | None = None) -> None:
        self.worker = worker
        self.index = index
        self.process = process
        self.port = port
        self.nonce = nonce
        self.sender = process.pid
        self.calls: dict[int, Call] = {}
        self.hello: dict[str, Any] | None = None
        self.ready = False
        self.failure: bytes | bytearray | None = None
        self.stopping = False
        self.tail = b""
        self.held_back = b""
        self.known: set[int] = set()
        #: Number of a large object -> the piece that it was given last.
        self.pieces: dict[int, int] = {}
        self.sent_context = 0
        self.finished = 0
        self.foreign = False
        self.exited = False
        self.results_ended = False
        self.arrived = 0
        self.parcels = parcels if parcels is not None else ResultMemory(-1, None)
        self.streams: tuple[OutputStream, ...] = ()
        self.records = OutputStream("log")
        self.printed = False
        #: Outcomes that came before their calls were recorded, and are taken up again a little later. Those behind them come first.
        self.deferred = 0
        self.reading = False
        self.return_lane: ReturnLane | None = None
        self.on_answer: Callable[[], None] | None = None
        self.printed_until: int | None = None
        self.proven = False
        self.timers: list[Timer] = []
        self.last_heard = 0.0
        self.silence_watched = False
        self.stderr_total = 0
        self.stacks_from: int | None = None
        self._inbox: deque[bytes | memoryview] = deque()
        self._bulk: deque[bytes | memoryview] = deque()
        self._buffer = b""
        self._large: tuple[int, int, bytearray | None, int, int, int] | None = None
        self.reason: BaseException | None = None
        self.suspicion = ""
        self.garbled = False
        self.crowded = False
        self.lane_open = False
        #: (call, ..., bytes written, ...), one entry per frame that a submitting thread wrote itself; absorbed by the I/O thread.
        self.sent_directly: deque[tuple[Any, ...]] = deque()
        # The key of the lane: the number of the inbox, in here unless a submitting thread is writing to it or the I/O thread has closed the
        # lane. So that number is not closed during a write. No lock: on CPython 3.14 an exception from a signal handler could leave it locked.
        self._lane_key: SimpleQueue[int] = SimpleQueue()
        self._lane_key.put(process.inbox)
        self._lane_closed = False
        # What `send_directly` is made of; each step raises, and changes nothing, if it must not go on. `_lane_empty`: ValueError if a call was
        # sent that is not absorbed (an empty deque is equal to an empty deque only). `_take_key`: Empty if the key is not there.
        self._lane_empty = map([deque[Any]()].index, repeat(self.sent_directly))
        self._take_key = iter(self._lane_key.get_nowait, None)
        self._give_key = map(self._lane_key.put, repeat(process.inbox))

    # --- going out

    def send_directly(self, call: Call) -> bool:
        """Write one frame from the submitting thread, to a worker that holds nothing; False if it cannot be done.

        Race: an exception from a signal handler may end this method between any two steps, and other threads may come in there. So this is
        one step in C (``extend`` over ``zip`` over ``map``): nothing else was sent, the key is taken, the frame written, the key given back,
        all of it recorded. Either the frame is in the pipe and recorded, or neither. The same step notes that its blocks are given. Only the
        write lets other threads run. In it no signal handler runs: writing to a pipe that does not block is not interrupted.
        """
        frame = call.frame()
        sent, back = self.sent_directly, self.return_lane
        parcel = call.encoded.parcel
        if not self.lane_open or sent:
            return False
        call.process = self
        notes = () if parcel is None else (parcel.offer(self.parcels.incarnation),)
        if back is not None and back.expected and not call.watched and call.task._options is None:
            back.expect(call)
            if sent or not self.lane_open:
                # Race: another thread or a signal handler has sent a call meanwhile, whose answer this one's would overwrite.
                return self._refuse_directly(call)
        try:
            sent.extend(zip((call,), self._lane_empty, map(write, self._take_key, (frame,)), self._give_key, *notes))  # noqa: B905 - not strict, which takes as long as the rest
        except OSError as error:
            trace = error.__traceback__
            if trace is not None and trace.tb_next is not None:
                raise  # a signal handler's, for example a TimeoutError, when the frame was out
            self._lane_key.put(self.process.inbox)  # Order: the first call of this block, before which no signal handler runs
            if call.awaited and back is not None:
                back.expect_no_more(call)
            return self._refuse_directly(call)
        except (ValueError, Empty) as error:
            if raised_elsewhere(error):
                raise  # as above
            return self._refuse_directly(call)  # Race: another thread was faster
        return True

    @staticmethod
    def _refuse_directly(call: Call) -> bool:
        """Undo what ``send_directly`` has done for a call that it has not sent; return False."""
        call.awaited = call.quiet = False
        if call.encoded.parcel is not None:
            call.encoded.parcel.take_back()
        return False

    def send_record(self, kind: int, number: int, payload: bytes) -> None:
        """Queue a record for the bulk pipe."""
        self._bulk.append(wire.RECORD.pack(kind, len(payload), number))
        if payload:
            self._bulk.append(payload)

    def send_raw(self, data: bytes) -> None:
        """Queue bytes for the bulk pipe."""
        self._bulk.append(data)

    def send_calls(self, calls: Iterable[Call]) -> list[tuple[Call, Exception]]:
        """Send calls, with the records that they refer to; return those that cannot be sent, and why."""
        self.lane_open = False
        mine = self.calls
        lane = self.return_lane
        awaited = 0
        if lane is not None:
            awaited = lane.awaited
            # Race: a ring of an answer that nothing has looked at yet stays: the I/O thread would not wake up for it.
            if lane.ring_left and not lane.watched and not self.sent_directly:
                lane.take_rings()
        frames = []
        failed = []
        for call in calls:
            if call.number == awaited and lane is not None:
                lane.expect_no_more(call)  # it was here before, in another try, and nobody listens to the bell now
            call.process = self
            call.known = True
            mine[call.number] = call
            try:
                if not self.knows(call):
                    self._send_records(call)
                parcel = call.encoded.parcel
                if parcel is not None:
                    call.watched = call.watched & ~wire.KEPT | parcel.send(self.parcels.incarnation)
                    self.parcels.used = True
                frames.append(call.frame())
            except Exception as error:  # noqa: BLE001 - one call; records of it that are on the way are skipped by the worker
                del mine[call.number]
                failed.append((call, error))
        if frames:
            self._inbox.append(b"".join(frames))
        self.flush()
        return failed

    def _send_records(self, call: Call) -> None:
        """Queue what a call refers to and the worker does not know yet."""
        context, encoded = call.context, call.encoded
        if context.number != self.sent_context:
            self.send_record(wire.CONTEXT, context.number, context.data)
            self.sent_context = context.number
        definition = encoded.definition
        needs = encoded.needs
        if definition is not None and definition.needs:
            needs = (*definition.needs, *needs)
        for piece in needs:
            if self.pieces.get(piece.owner) != piece.number:
                self.pieces[piece.owner] = piece.number
                self.send_record(wire.PIECE, piece.number, piece.data)
        if definition is not None and definition.number not in self.known:
            self.known.add(definition.number)
            self.send_record(wire.DEFINITION, definition.number, definition.data)
        if call.watched & wire.NAMED:
            self.send_record(wire.NAME, call.number, call.task.name.encode("utf-8", "surrogatepass"))
        if encoded.flags & wire.IN_BULK:
            self.send_record(wire.PAYLOAD, call.number, encoded.payload)

    def knows(self, call: Call) -> bool:
        """Return True if the call fits into one frame for this worker, without records before it."""
        encoded = call.encoded
        definition = encoded.definition
        return (
            call.context.number == self.sent_context
            and not (encoded.flags | call.watched) & _WITH_RECORDS
            and (definition is None or (definition.number in self.known and (not definition.needs or self._has(definition.needs))))
            and not (encoded.bytecode and self.foreign)
            and (not encoded.needs or self._has(encoded.needs))
            and not (encoded.parcel is not None and encoded.parcel.kept)
        )

    def _has(self, needs: Iterable[Piece]) -> bool:
        """Return True if the worker has these contents when it has made all calls that it was given."""
        return all(self.pieces.get(piece.owner) == piece.number for piece in needs)

    def forget(self, definition: Definition) -> None:
        """Let the worker drop a function that will not be called again."""
        if definition.number in self.known:
            self.known.discard(definition.number)
            self.send_record(wire.FORGET, definition.number, b"")
            self.flush()

    def forget_objects(self, numbers: list[int]) -> None:
        """Let the worker drop objects of the host's namespaces that the host has dropped."""
        for number in numbers:
            self.pieces.pop(number, None)
        self.send_record(wire.FORGET, 0, pickle.dumps(numbers, 4))
        self.flush()

    def flush(self) -> None:
        """Write what fits; ask to be called again for the rest."""
        self._write(self.process.bulk, self._bulk)
        self._write(self.process.inbox, self._inbox)

    def _write(self, fd: int, waiting: deque[bytes | memoryview]) -> None:
        try:
            while waiting:
                data = waiting[0]
                done = self.port.write(fd, data)
                if done < len(data):
                    if done:
                        waiting[0] = memoryview(data)[done:]
                    self.port.want_write(fd, self.flush)
                    return
                waiting.popleft()
        except OSError:
            # Nobody reads any more: the process has closed its pipes or is dying; its exit, or the kill, will be noticed.
            waiting.clear()
            self.kill()
        self.port.want_write(fd, None)

    def absorb(self) -> list[Call]:
        """Return the calls that submitting threads have written since the last time, now counted among ``calls``.

        Invariant: the lane is open only while the state has the slot idle; it is opened by ``open_lane``, for ``Pool._publish``, and nowhere else.
        """
        self.lane_open = False
        found = []
        sent, lane = self.sent_directly, self.return_lane
        while sent:
            try:
                call = sent.popleft()[0]
            except IndexError:  # its submitter has settled it in this very moment
                break
            call.known = True
            self.crowded = bool(self.calls)  # Race: the other frames may have been written after this one
            self.calls[call.number] = call
            found.append(call)
            if lane is not None and (call.awaited or lane.caller is call):
                # Race: the worker may have looked already whether somebody waits, and put the answer onto the board: both of us listen now.
                call.task._add_sleeper(lane.bell)
                if not lane.watched and self.on_answer is not None:
                    lane.watched = True
                    self.port.add_bell(lane.bell.fd, RESULTS, self.on_answer)
        return found

    def open_lane(self) -> None:
        """Let submitting threads write to the worker, which holds nothing, and take the answers themselves."""
        lane = self.return_lane
        if lane is not None and lane.watched:
            lane.watched = False
            self.port.remove(lane.bell.fd)
            if not self.sent_directly:
                lane.take_rings()  # Race: an answer may have been taken in another way, before its ring
        if self._lane_closed:
            self._lane_closed = False
            self._lane_key.put(self.process.inbox)
        self.lane_open = True

    def take_back(self) -> list[Call]:
        """Return the calls that the worker has not started; they are no longer with it.

        Guarantee: the kernel decides. A frame that is read here was not read by the worker, and the other way round; frames are whole
        because the pipe holds only multiples of their size.
        """
        found: list[Call] = []
        fd = self.process.take_back
        if fd >= 0:
            while True:
                try:
                    data = os.read(fd, 65536)
                except OSError:
                    break
                if not data:
                    break
                for offset in range(0, len(data) - wire.FRAME + 1, wire.FRAME):
                    self._taken_back(wire.CALL.unpack_from(data, offset)[5], found)
        for chunk in self._inbox:  # frames that have not even left
            whole = len(chunk) % wire.FRAME
            for offset in range(whole, len(chunk) - wire.FRAME + 1, wire.FRAME):
                self._taken_back(wire.CALL.unpack_from(chunk, offset)[5], found)
        self._inbox.clear()
        return found

    def _taken_back(self, number: int, found: list[Call]) -> None:
        call = self.calls.pop(number, None)
        if call is not None:
            call.process = None
            if call.encoded.parcel is not None:
                call.encoded.parcel.take_back()
            found.append(call)

    def current_calls(self) -> list[Call]:
        """Return what the worker was given and has not finished, oldest first. Any thread."""
        return list(self.calls.values()) + [entry[0] for entry in list(self.sent_directly) if entry[0].number not in self.calls]

    def request_cancel(self, call: Call) -> None:
        """Make ``cancel_requested`` true in the worker."""
        board = self.process.board
        if board is not None:
            board.words[wire.CANCEL_WORD] = call.number
        else:
            self._inbox.append(wire.CALL.pack(wire.CANCEL, 0, 0, 0, 0, call.number).ljust(wire.FRAME, b"\0"))
            self.flush()

    def ask_to_trim(self) -> None:
        """Let the worker give the memory of its free blocks back, between two calls."""
        if self.ready and not self.stopping:
            self._inbox.append(wire.CALL.pack(wire.TRIM, 0, 0, 0, 0, 0).ljust(wire.FRAME, b"\0"))
            self.flush()

    def interrupt(self, call: Call, number: int) -> None:
        """Send a signal that is a KeyboardInterrupt in this call and nothing in any other."""
        board = self.process.board
        if board is not None:
            board.words[wire.INTERRUPT_WORD] = call.number
        self.process.send_signal(number)

    def is_running(self, call: Call) -> bool:
        """Return True if the worker has taken this call. Any thread."""
        board = self.process.board
        try:
            return call in self.current_calls() if board is None else board.words[wire.TAKEN] & wire.NUMBER == call.number
        except ValueError:  # released: the process is gone
            return False

    def running_since(self, call: Call) -> float | None:
        """Return when the worker took the call that it runs, on the monotonic clock in seconds; None if unknown. Any thread."""
        board = self.process.board
        try:
            if board is None or board.words[wire.TAKEN] & wire.NUMBER != call.number:
                return None
            return board.words[wire.STARTED_NS] / 1e9
        except ValueError:
            return None

    def note_printed(self, number: int | None = None) -> None:
        """Note that something was printed or logged: by call ``number``, or by one of those up to the one that runs now."""
        if number is None:
            board = self.process.board
            self.printed_until = None if board is None else board.words[wire.TAKEN]
        elif not self.printed:
            self.printed_until = number
        self.printed = True

    def has_printed_all(self, number: int, count: int = 1) -> bool:
        """Return True if nothing that was printed so far can be of a call behind ``number`` (the last of ``count`` that end now)."""
        until = self.printed_until
        if until is None or until & wire.NUMBER not in self.calls:
            return True
        place = (number >> wire.NUMBER_BITS) + count - 1
        return until & wire.NUMBER == number & wire.NUMBER and until >> wire.NUMBER_BITS <= place

    def begun(self, call: Call) -> int | None:
        """Return how many of several calls the worker has begun; None if unknown."""
        board = self.process.board
        if board is None or not call.encoded.flags & wire.MANY:
            return None
        taken = board.words[wire.TAKEN]
        return taken >> wire.NUMBER_BITS if taken & wire.NUMBER == call.number else 0

    # --- coming in

    def read_results(self) -> tuple[list[RawFrame], bool]:
        """Read what is there, once; return (frames, whether the pipe is at its end). What is no frame comes as GARBAGE."""
        fd = self.process.results
        if self._large is not None:
            return self._read_large(fd)
        data = self.port.read(fd, READ)
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
        pid, nonce = self.sender, self.nonce
        unpack, append = wire.RESULT.unpack_from, frames.append
        while size - position >= head:
            length, its_nonce, its_pid, kind, duration, number = unpack(data, position)
            if its_nonce != nonce or length > LONGEST:
                append((GARBAGE, 0, f"nonce {its_nonce:#x}, length {length}", 0))
                at = self._other_header(data, last, position)
                # Without another header: the last bytes may be the first of one.
                position, last = at if at >= 0 else max(position + 1, size - MARK - _MARK.size + 1), position
                continue
            end = position + head + length
            if (length >= head or its_pid != pid) and (at := data.find(self._mark(), position + MARK + 1, end + MARK + _MARK.size - 1)) >= 0:
                append((GARBAGE, 0, f"a frame within a frame of kind {kind}", 0))
                position, last = at - MARK, position
                continue
            if end > size:
                if length > DIRECT:
                    self._begin_large(kind if its_pid == pid else 0, number, length, data[position + head :], duration)
                    position = size
                break
            if its_pid == pid:  # else a child that a task forked speaks: it is not believed
                if kind == wire.VALUE_IN_BLOCKS:
                    append(self._adopt(number, data[position + head : end], duration))
                else:
                    append((kind, number, data[position + head : end], duration))
            elif kind == wire.HELLO and self.hello is None and not frames and not self.process.forked:
                # The interpreter is a wrapper whose child is the Python. It proves that by the nonce, which is told to it alone, and by being
                # the first: no code of the user's has run before.
                self.sender = pid = its_pid
                append((kind, number, data[position + head : end], duration))
            position, last = end, position
        if position < size and self._large is None and (at := self._other_header(data, last, position)) >= 0:
            # What is left over does not wait for its end: it is not what it seems.
            append((GARBAGE, 0, "a frame within a frame", 0))
            return frames + self._parse(data[at:])
        self._buffer = data[position:]
        return frames

    def _mark(self) -> bytes:
        """Return what a frame's header has from its byte ``MARK`` on, and hardly anything else: nonce and pid.

        Guarantee: a frame that says that it is longer than it is, or that was cut, or bytes that are no frame, cost no frame behind them.
        """
        return _MARK.pack(self.nonce, self.sender)

    def _other_header(self, data: bytes, last: int, position: int) -> int:
        """Return where the next frame begins if not at ``position``; -1 if there is none.

        What was taken for a frame at ``last`` may have been cut, and have its end from the header of the next one.
        """
        mark = self._mark()
        at = data.find(mark, last + 1 + MARK, position + MARK + _MARK.size - 1)
        if at < 0:
            at = data.find(mark, position + 1 + MARK)
        return at - MARK if at >= 0 else -1

    def _begin_large(self, kind: int, number: int, length: int, first: bytes, duration: int) -> None:
        target: bytearray | None = None
        try:
            # The buffer is filled with zeros at once: what does not fit would be the end of this process, not an error.
            if length < SURE or length < room():
                target = bytearray(length)
                target[: len(first)] = first
        except (MemoryError, OverflowError):
            target = None  # it is read and dropped, and its own task is told
        self._large = (kind, number, target, len(first), length, duration)

    def _read_large(self, fd: int) -> tuple[list[RawFrame], bool]:
        assert self._large is not None
        kind, number, target, done, length, duration = self._large
        chunk: bytes | None = None
        if target is not None:
            got = self.port.read_into(fd, memoryview(target)[done:length])
        else:
            chunk = self.port.read(fd, min(READ, length - done))
            got = None if chunk is None else len(chunk)
        if got is None:
            return [], False
        if got == 0:
            return [], True
        self.arrived += got
        if got < READ:  # not a full pipe: what comes here may be a frame of its own
            chunk = chunk if target is None else bytes(target[max(0, done - MARK - _MARK.size) : done + got])
            at = chunk.find(self._mark()) if chunk is not None else -1
            if at >= MARK and chunk is not None:
                self._large = None
                return [(GARBAGE, 0, f"a frame within a frame of kind {kind}", 0), *self._parse(chunk[at - MARK :])], False
        done += got
        if done < length:
            self._large = (kind, number, target, done, length, duration)
            return [], False
        self._large = None
        if not kind:
            return [], False
        if target is None:
            return [(TOO_LARGE, number, b"%d" % length, duration)], False
        return [self._adopt(number, target, duration) if kind == wire.VALUE_IN_BLOCKS else (kind, number, target, duration)], False

    def _adopt(self, number: int, data: bytes | bytearray, duration: int) -> RawFrame:
        """Take the blocks of a result over at once, whatever becomes of the frame."""
        try:
            try:
                return wire.VALUE_IN_BLOCKS, number, self.parcels.adopt(data), duration
            except MemoryError:
                return TOO_LARGE, number, b"%d" % self.parcels.refuse(data), duration
        except Exception as error:  # noqa: BLE001 - mostly BadBlock: the list of blocks is what the worker says, and may say anything
            return GARBAGE, 0, f"{type(error).__name__}: {error}", 0

    def is_due(self, number: int) -> bool:
        """Return True if the outcome of this call may come now, though there is an older call: outcomes come in order, but for two ways."""
        if self.crowded or self.deferred:
            return True
        lane = self.return_lane
        return lane is not None and lane.answer()[1] == next(iter(self.calls)) != number

    def may_say(self, ended: bool, number: int) -> bool:
        """Return True if the worker may say that a call which is not its oldest has ended, or may report something of it."""
        return self.is_due(number) if ended else self.has_taken(number)

    def taken(self) -> int | None:
        """Return the number of the call that the worker has taken last, as it says; None if unknown."""
        board = self.process.board
        try:
            return None if board is None else board.words[wire.TAKEN] & wire.NUMBER
        except ValueError:
            return None

    def has_taken(self, number: int) -> bool:
        """Return True if the worker may speak of this call, which is not the oldest that it has: it has taken it, or a later one."""
        taken = self.taken()
        if self.crowded or self.deferred or taken is None:
            return True
        for one in self.calls:
            if one == number:
                return taken in self.calls
            if one == taken:
                return False
        return True  # it is of no call that is known

    def keep_tail(self, data: bytes) -> None:
        """Remember the last bytes of stderr."""
        self.stderr_total += len(data)
        self.tail = (self.tail + data)[-TAIL:]

    # --- the end

    def close_lane(self) -> bool:
        """Close the express lane; False if another thread is inside right now and the descriptors must stay open a little longer."""
        self.lane_open = False
        if not self._lane_closed:
            try:
                self._lane_key.get(timeout=LANE_PATIENCE)
            except Empty:
                return False
            # From here on no thread writes: who comes later finds no key.
            self._lane_closed = True
        return True

    def wait_for_lane(self) -> bool:
        """Let a thread that is inside the lane finish the step that records what it has sent; False if it needs longer."""
        if not self._lane_closed:
            try:
                key = self._lane_key.get(timeout=LANE_PATIENCE)
            except Empty:
                return False
            self._lane_key.put(key)
        return True

    def stop(self) -> None:
        """Let the process end: its inbox is at an end. What was sent is still served."""
        self.stopping = True
        self.lane_open = False
        self.port.remove(self.process.inbox)
        if self.return_lane is not None:
            self.return_lane.bell.relieve()
        if self.close_lane():
            self.process.close_fd(self.process.inbox)
        else:
            self.kill()

    def kill(self) -> None:
        """End the process and its children now. Its death is declared later, by its exit."""
        self.lane_open = False
        self.process.kill_tree()

    def ask_for_stacks(self) -> bool:
        """Let the process print its Python stacks to stderr; False if it cannot."""
        number = spawn.stack_signal()
        if number is None:
            return False
        self.stacks_from = self.stderr_total
        self.process.send_signal(number)
        return True

    def stacks(self) -> str:
        """Return what it has printed since ``ask_for_stacks``."""
        if self.stacks_from is None:
            return ""
        count = self.stderr_total - self.stacks_from
        return self.tail[-count:].decode("utf-8", "replace").strip() if count else ""

    def stderr_tail(self) -> str:
        """Return the last lines that the process wrote to stderr."""
        return self.tail.decode("utf-8", "replace").strip()
