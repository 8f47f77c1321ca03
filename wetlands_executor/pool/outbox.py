"""What goes to one worker.

Frames and records that wait for its pipes to take them, and what it has been sent so far.

Order: records are queued before the frame that refers to them; frames leave in the order of
dispatch. Nothing here blocks.

Threads: the I/O thread, but for ``knows``, which a submitting thread calls while the worker holds
nothing.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from wetlands_executor.pool.polling import Poller
from wetlands_executor.serialize.definitions import Definition
from wetlands_executor.serialize.encoded import PlainCall
from wetlands_executor.serialize.settings import HostSettings
from wetlands_executor.system import unread
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.pool.call import Call
    from wetlands_executor.serialize.identity import Piece, Retired

#: Flags of calls that need more than their frame.
_WITH_RECORDS = wire.IN_BULK | wire.NAMED
#: Kinds of the frames of calls.
_CALLS = (wire.RUN, wire.RUN_NESTED)
#: Bytes from which a record is written in pieces: the system calls cost less than the copy.
JOINED = 16384
#: Functions to be forgotten of which the worker may not have read, if no call brings it to.
UNREAD = 64


class InPipes(NamedTuple):
    """What was written to a worker and not read by it, or waits to be written.

    Attributes:
        frames: whole frames in the inbox or before it.
        cut: the inbox holds a part of a frame.
        records: bytes of the bulk pipe that were written and are not in it any more: the worker has
            read them, if nothing else has.
    """

    frames: int
    cut: bool
    records: int


class Outbox:
    """What waits to go out to one incarnation.

    Args:
        owner: the worker process; it is killed when it does not read any more.
        poller: what writes.
        process: the pipes.
        nonce: of the incarnation; the marks of its frames begin there.

    Attributes:
        direct_mark: of a frame that goes to a worker which holds nothing; see ``wire.marks``.
        next_mark: of the next frame that may have to wait for its turn.
    """

    def __init__(self, owner: Any, poller: Poller, process: Any, nonce: int) -> None:
        self.owner = owner
        self.direct_mark, self.next_mark = wire.marks(nonce)
        self._next_record = wire.FIRST_RECORD
        # Bytes that were written to the bulk pipe from the first record on; whether more may be.
        self._bulk_written = 0
        self._bulk_open = True
        self._poller = poller
        self._process = process
        self._inbox: deque[bytes | memoryview] = deque()
        self._bulk: deque[bytes | memoryview] = deque()
        # Pipes that could not take everything; the poller calls back when they can.
        self._waiting: set[int] = set()
        # Numbers of the functions that it was sent; number of a large object -> the piece that it
        # was sent last.
        self._known: set[int] = set()
        self._pieces: dict[int, int] = {}
        self._settings = 0
        # Records that name what the worker should drop.
        self._forgotten = 0
        # Its bytecode is not ours.
        self._foreign = False

    # --- what the worker was sent

    def expect_bytecode(self, foreign: bool) -> None:
        """Note whether the worker's bytecode is not ours."""
        self._foreign = foreign

    def note_sent(self, host_settings: HostSettings, needs: Iterable[Piece]) -> None:
        """Note what the worker's configuration has told it."""
        self._settings = host_settings.number
        self._pieces.update((piece.owner, piece.number) for piece in needs)

    def knows(self, call: Call, records: int = _WITH_RECORDS) -> bool:
        """Return True if the call needs nothing but one frame: no record has to go before it."""
        encoded = call.encoded
        definition = encoded.definition
        return (
            call.host_settings.number == self._settings
            and (
                definition is None
                or (
                    definition.number in self._known
                    and (not definition.needs or self._has(definition.needs))
                )
            )
            and (
                # Most are this, and have nothing of what is asked below.
                (type(encoded) is PlainCall and not call.watched)
                or (
                    not (encoded.flags | call.watched) & records
                    and not (encoded.bytecode and self._foreign)
                    and (not encoded.needs or self._has(encoded.needs))
                    and not (encoded.out_of_band is not None and encoded.out_of_band.kept)
                )
            )
        )

    def _has(self, needs: Iterable[Piece]) -> bool:
        """Return True if the worker was sent these contents, with the calls that it holds."""
        pieces = self._pieces
        for piece in needs:  # noqa: SIM110 - a generator is one function more for each piece
            if pieces.get(piece.owner) != piece.number:
                return False
        return True

    def queue_records(self, call: Call) -> None:
        """Queue what a call refers to and the worker does not know yet."""
        host_settings, encoded = call.host_settings, call.encoded
        if host_settings.number != self._settings:
            self.record(wire.SETTINGS, host_settings.number, host_settings.data)
            self._settings = host_settings.number
        definition = encoded.definition
        needs = encoded.needs
        if definition is not None and definition.needs:
            needs = (*definition.needs, *needs)
        for piece in needs:
            if self._pieces.get(piece.owner) != piece.number:
                self._pieces[piece.owner] = piece.number
                self.record(wire.PIECE, piece.number, piece.data)
        if definition is not None and definition.number not in self._known:
            self._known.add(definition.number)
            self.record(wire.DEFINITION, definition.number, definition.data)
        if call.watched & wire.NAMED:
            if call.carried is not None:
                self.record(wire.CONTEXT, call.number, call.carried)
            if call.task is not None and call.task.attempt > 1:
                self.record(wire.ATTEMPT, call.number, int(call.task.attempt).to_bytes(4, "little"))
            self.record(wire.NAME, call.number, call.name.encode("utf-8", "surrogatepass"))
        if encoded.flags & wire.IN_BULK:
            self.record(wire.PAYLOAD, call.number, encoded.payload)

    def forget(self, definition: Definition | Retired) -> None:
        """Let the worker drop a function that will not be called again."""
        if definition.number in self._known:
            self._known.discard(definition.number)
            self._forget(definition.number, b"", ask=not (self._forgotten + 1) % UNREAD)

    def forget_objects(self, numbers: list[int]) -> None:
        """Let the worker drop objects of the host's namespaces that the host has dropped."""
        for number in numbers:
            self._pieces.pop(number, None)
        self._forget(0, pickle.dumps(numbers, 4), ask=True)

    def _forget(self, number: int, data: bytes, *, ask: bool) -> None:
        """Queue a record of what the worker should drop.

        Args:
            number: of a function; 0 for objects.
            data: pickled numbers of objects.
            ask: have the worker read its records, which most short calls do not.
        """
        self.record(wire.FORGET, number, data)
        self._forgotten += 1
        if ask:
            self.send_control(wire.TIDY, self._forgotten)
        else:
            self.flush()

    # --- bytes

    def record(self, kind: int, number: int, payload: Any, *more: Any) -> None:
        """Queue a record for the bulk pipe; ``more`` are further pieces of its payload."""
        first = kind | self._next_record << 8
        self._next_record = self._next_record + 1 & wire.RECORD_BITS
        size = len(payload) + sum(map(len, more))
        head = wire.RECORD.pack(first, size, number)
        if size < JOINED:
            self._bulk.append(b"".join((head, payload, *more, head[:4])) if size else head)
        else:
            self._bulk.extend((head, payload, *more, head[:4]))

    def raw(self, data: bytes) -> None:
        """Queue bytes for the bulk pipe, before the first record."""
        self._bulk.append(data)
        self._bulk_written -= len(data)

    def frames(self, data: bytes, next_mark: int) -> None:
        """Queue whole frames for the inbox, and write what fits.

        ``next_mark``: that behind them.
        """
        self.next_mark = next_mark
        self._inbox.append(data)
        self.flush()

    def send_control(self, kind: int, number: int = 0) -> None:
        """Send a control frame."""
        self.frames(self.control_frame(kind, number, self.direct_mark), self.next_mark)

    @staticmethod
    def control_frame(kind: int, number: int, mark: int) -> bytes:
        """Return a control frame."""
        return wire.CALL.pack(kind, 0, 0, 0, 0, number, mark).ljust(wire.FRAME, b"\0")

    def flush(self) -> None:
        """Write what fits; ask to be called again for the rest."""
        if not self._bulk_open:
            self._bulk.clear()
        elif self._bulk or self._waiting:
            self._bulk_written += self._write(self._process.bulk, self._bulk)
        if self._inbox or self._waiting:
            self._write(self._process.inbox, self._inbox)

    def _write(self, fd: int, waiting: deque[bytes | memoryview]) -> int:
        """Write what fits; return the number of bytes."""
        written = 0
        try:
            while waiting:
                data = waiting[0]
                done = self._poller.write(fd, data)
                written += done
                if done < len(data):
                    if done:
                        waiting[0] = memoryview(data)[done:]
                    self._poller.want_write(fd, self.flush)
                    self._waiting.add(fd)
                    return written
                waiting.popleft()
        except OSError:
            # The process has closed its pipes or is dying; its exit, or the kill, will be noticed.
            waiting.clear()
            self.owner.kill()
        if fd in self._waiting:
            self._waiting.discard(fd)
            self._poller.want_write(fd, None)
        return written

    def reclaim(self) -> tuple[list[int], int]:
        """Return the numbers of the calls that the worker has not read.

        Their frames are no longer in its inbox. Return too which call ``wire.AFTER`` has named, if
        such a frame was among them: none was written between that call and these; else 0.

        Guarantee: the kernel decides. A frame that is read here was not read by the worker, and the
        other way round; frames are whole because the pipe holds only multiples of their size. If a
        task has read from it as well, they are neither whole nor complete; then what is missing
        stays with the worker, and ``watchdog.py`` finds that out.
        """
        chunks: list[bytes | memoryview] = []
        fd = self._process.inbox_reader
        if fd >= 0:
            while True:
                try:
                    data = os.read(fd, 65536)
                except OSError:
                    break
                if not data:
                    break
                if not len(data) % wire.FRAME:
                    chunks.append(data)
        chunks += self._inbox  # frames that have not even left
        self._inbox.clear()
        found: list[int] = []
        first, after = None, 0
        for chunk in chunks:
            for offset in range(len(chunk) % wire.FRAME, len(chunk), wire.FRAME):
                kind, *_, number, mark = wire.CALL.unpack_from(chunk, offset)
                if kind in _CALLS:
                    found.append(number)
                elif kind == wire.AFTER:
                    after = number
                if first is None and mark != self.direct_mark:
                    first = mark
        if first is not None:
            self.next_mark = first  # the worker expects that one
        return found, after

    # --- what the worker has read

    def in_pipes(self) -> InPipes:
        """Look at the pipes. Only where the system tells how much a pipe holds."""
        inbox = unread(self._process.inbox)
        unsent = sum(map(len, self._inbox))
        records = max(0, self._bulk_written - unread(self._process.bulk)) if self._bulk_open else 0
        return InPipes((inbox + unsent) // wire.FRAME, bool(inbox % wire.FRAME), records)

    def close_bulk(self) -> None:
        """End the bulk pipe, of which bytes are missing.

        A worker that waits for them ends, and its call runs elsewhere.
        """
        if self._bulk_open and not self._bulk:
            self._bulk_open = False
            self._poller.remove(self._process.bulk)
            self._process.close_fd(self._process.bulk)
