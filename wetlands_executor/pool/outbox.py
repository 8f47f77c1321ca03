"""What goes to ONE worker.

Frames and records that wait for its pipes to take them, and what it was told so far.

Order: records are queued before the frame that refers to them; frames leave in the order of
dispatch. Nothing here blocks.

Threads: the I/O thread's, but ``knows``, which a submitting thread asks while the worker holds
nothing.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wetlands_executor.pool.ports import Port
from wetlands_executor.serialize.calls import Definition
from wetlands_executor.serialize.settings import HostSettings
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.pool.call import Call
    from wetlands_executor.serialize.identity import Piece

#: Flags of calls that need more than their frame.
_WITH_RECORDS = wire.IN_BULK | wire.NAMED


class Outbox:
    """What waits to go out to one incarnation.

    Args:
        owner: the worker process; it is killed when it does not read any more.
        port: what writes.
        process: the pipes.
    """

    def __init__(self, owner: Any, port: Port, process: Any) -> None:
        self.owner = owner
        self._port = port
        self._process = process
        self._inbox: deque[bytes | memoryview] = deque()
        self._bulk: deque[bytes | memoryview] = deque()
        # Pipes that could not take everything, and of which the port says when they can.
        self._waiting: set[int] = set()
        # Numbers of the functions that it was told; number of a large object -> the piece that it
        # was given last.
        self._known: set[int] = set()
        self._pieces: dict[int, int] = {}
        self._context = 0
        # Its bytecode is not ours.
        self._foreign = False

    # --- what the worker knows

    def expect_bytecode(self, foreign: bool) -> None:
        """Take note whether the worker's bytecode is not ours."""
        self._foreign = foreign

    def told(self, context: HostSettings, needs: Iterable[Piece]) -> None:
        """Take note of what the worker's configuration tells it."""
        self._context = context.number
        self._pieces.update((piece.owner, piece.number) for piece in needs)

    def knows(self, call: Call) -> bool:
        """Return True if the call fits into one frame for this worker, without records before it."""
        encoded = call.encoded
        definition = encoded.definition
        return (
            call.context.number == self._context
            and not (encoded.flags | call.watched) & _WITH_RECORDS
            and (
                definition is None
                or (
                    definition.number in self._known
                    and (not definition.needs or self._has(definition.needs))
                )
            )
            and not (encoded.bytecode and self._foreign)
            and (not encoded.needs or self._has(encoded.needs))
            and not (encoded.parcel is not None and encoded.parcel.kept)
        )

    def _has(self, needs: Iterable[Piece]) -> bool:
        """Return True if the worker has these contents when it has made all calls that it was given."""
        return all(self._pieces.get(piece.owner) == piece.number for piece in needs)

    def tell(self, call: Call) -> None:
        """Queue what a call refers to and the worker does not know yet."""
        context, encoded = call.context, call.encoded
        if context.number != self._context:
            self.record(wire.CONTEXT, context.number, context.data)
            self._context = context.number
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
            self.record(wire.NAME, call.number, call.name.encode("utf-8", "surrogatepass"))
        if encoded.flags & wire.IN_BULK:
            self.record(wire.PAYLOAD, call.number, encoded.payload)

    def forget(self, definition: Definition) -> None:
        """Let the worker drop a function that will not be called again."""
        if definition.number in self._known:
            self._known.discard(definition.number)
            self.record(wire.FORGET, definition.number, b"")
            self.flush()

    def forget_objects(self, numbers: list[int]) -> None:
        """Let the worker drop objects of the host's namespaces that the host has dropped."""
        for number in numbers:
            self._pieces.pop(number, None)
        self.record(wire.FORGET, 0, pickle.dumps(numbers, 4))
        self.flush()

    # --- bytes

    def record(self, kind: int, number: int, payload: bytes) -> None:
        """Queue a record for the bulk pipe."""
        self._bulk.append(wire.RECORD.pack(kind, len(payload), number))
        if payload:
            self._bulk.append(payload)

    def raw(self, data: bytes) -> None:
        """Queue bytes for the bulk pipe."""
        self._bulk.append(data)

    def frames(self, data: bytes) -> None:
        """Queue whole frames for the inbox, and write what fits."""
        self._inbox.append(data)
        self.flush()

    def order(self, kind: int, number: int = 0) -> None:
        """Send a frame that is no call."""
        self.frames(wire.CALL.pack(kind, 0, 0, 0, 0, number).ljust(wire.FRAME, b"\0"))

    def flush(self) -> None:
        """Write what fits; ask to be called again for the rest."""
        if self._bulk or self._waiting:
            self._write(self._process.bulk, self._bulk)
        if self._inbox or self._waiting:
            self._write(self._process.inbox, self._inbox)

    def _write(self, fd: int, waiting: deque[bytes | memoryview]) -> None:
        try:
            while waiting:
                data = waiting[0]
                done = self._port.write(fd, data)
                if done < len(data):
                    if done:
                        waiting[0] = memoryview(data)[done:]
                    self._port.want_write(fd, self.flush)
                    self._waiting.add(fd)
                    return
                waiting.popleft()
        except OSError:
            # The process has closed its pipes or is dying; its exit, or the kill, will be noticed.
            waiting.clear()
            self.owner.kill()
        if fd in self._waiting:
            self._waiting.discard(fd)
            self._port.want_write(fd, None)

    def reclaim(self) -> list[int]:
        """Return the numbers of the calls that the worker has not read.

        Their frames are no longer in its inbox.

        Guarantee: the kernel decides. A frame that is read here was not read by the worker, and the
        other way round; frames are whole because the pipe holds only multiples of their size.
        """
        found: list[int] = []
        fd = self._process.take_back
        if fd >= 0:
            while True:
                try:
                    data = os.read(fd, 65536)
                except OSError:
                    break
                if not data:
                    break
                found += [
                    wire.CALL.unpack_from(data, offset)[5]
                    for offset in range(0, len(data) - wire.FRAME + 1, wire.FRAME)
                ]
        for chunk in self._inbox:  # frames that have not even left
            whole = len(chunk) % wire.FRAME
            found += [
                wire.CALL.unpack_from(chunk, offset)[5]
                for offset in range(whole, len(chunk) - wire.FRAME + 1, wire.FRAME)
            ]
        self._inbox.clear()
        return found
