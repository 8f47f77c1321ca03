"""A call on its way through the pool, what its worker answers, and who takes the answer.

A ``Call`` is an item of the scheduling with its bytes and its number on the wire. An ``Outcome`` is what
has become of it. The *receiver* of a call gets exactly one word on it; a ``Task`` is settled by the
pool's own receiver (``settlement.py``), the calls of a ``map`` by the job that has made them.

Threads: a call is made by the thread that submits it. From then on its fields are the I/O thread's, but
for those of ``direct.py``, which that module documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wetlands_executor.scheduling.messages import DeathReport, Item
from wetlands_executor.worker import wire

if TYPE_CHECKING:

    from wetlands_executor.pool.process import WorkerProcess
    from wetlands_executor.pool.timers import Timer
    from wetlands_executor.serialize.calls import EncodedCall
    from wetlands_executor.serialize.settings import HostSettings

#: Kinds of outcomes that are not on the wire, which has none below 0: a result that was too large for
#: the host's memory; what is no frame; a failure that has happened in the host.
TOO_LARGE, GARBAGE, FAILED = -1, -2, -3


class Outcome(NamedTuple):
    """What has become of a call, or of some calls of a batch.

    Attributes:
        kind: of the result frame (``VALUE``, ``NONE``, ``ERROR``, ``CANCELLED``, ``VALUE_IN_BLOCKS``,
            ``SEVERAL``), ``TOO_LARGE``, or ``FAILED``.
        data: the pickle; a ``OutOfBandResult`` if the kind is ``VALUE_IN_BLOCKS``; the size in bytes as digits
            if it is ``TOO_LARGE``; a list of (kind, data) if it is ``SEVERAL``; the exception, or None
            for an unknown one, if it is ``FAILED``.
        place: in a batch, the place of the call, or of the first of ``SEVERAL``.
    """

    kind: int
    data: Any = None
    place: int = 0


class Receiver(Protocol):
    """Takes what becomes of calls. Each method is called at most once for a call, and only one of them.

    A batch (``Call.several``) has many calls: ``on_outcome`` is called for its calls one by one, or for
    several of them at once, in the order of their places; ``on_lost`` and ``on_cancelled`` concern those
    that are left, and an outcome of kind ``FAILED`` all of these.

    Threads: the I/O thread; ``on_outcome`` also the output thread, behind lines that the call has
    printed, and any thread that posts a call to a pool that has ended. Must neither block nor run code
    of the user's.
    """

    def on_outcome(self, call: Any, outcome: Outcome) -> None:
        """Take the outcome."""

    def on_lost(self, call: Any, report: DeathReport) -> Item | None:
        """Its worker has died while it ran the call.

        Returns:
            An item that goes to the front of the queue, with what has not begun; None if nothing is left.
        """

    def on_cancelled(self, call: Any, reason: str | None) -> None:
        """It will not run, or has stopped because it was asked to. ``reason``: why, if its program did not ask."""


class Call(Item):
    """An item with what the shell needs: its number on the wire, its bytes, its Task.

    Attributes:
        number: unique in this host process.
        encoded: definition, flags and payload.
        context: the project folders that it needs.
        task: who gets the outcome.
        process: the worker that it was sent to, None while it waits.
        deciding: it has failed, and a decoder thread is finding out whether it is run again.
        backlog: ``Backlog`` of the frames of this call that are unpickled one after another; None as long as there was none.
        known: the I/O thread has taken it into its books; False as long as only those know of it who have sent it directly.
        awaited: the worker may have been told that somebody waits for its answer on the board.
        departed, after: it is in the chain of those whose submitter has left the return lane; the next one of that chain.
        found: what its submitter has read from the board, (value, duration), or None.
        quiet: its answer may come without anybody being told; see ``return_lane.py``.
        timers: its limits that have not been reached; None if it has none.
        watched: further flags of the frame: ``wire.WATCHED`` if the worker has to tell when it begins, ``wire.NAMED`` if it gets a name.
    """

    __slots__ = (
        "after",
        "awaited",
        "backlog",
        "context",
        "deciding",
        "departed",
        "encoded",
        "found",
        "known",
        "number",
        "process",
        "quiet",
        "task",
        "timers",
        "watched",
    )
    #: It is a part of a map: several calls, each answered by itself (see ``bulk.py``).
    several = False

    def __init__(self, number: int, encoded: EncodedCall, context: HostSettings, task: Any) -> None:
        self.place = None
        self.priority = 0
        self.tries = 0
        self.asks = False
        self.watched = 0
        self.known = False
        self.awaited = False
        self.departed = False
        self.after: Call | None = None
        self.found: tuple[Any, float] | None = None
        self.quiet = False
        self.deciding = False
        self.timers: list[Timer] | None = None
        self.backlog: Any = None
        self.number = number
        self.encoded = encoded
        self.context = context
        self.task = task
        self.process: WorkerProcess | None = None

    @property
    def sender(self) -> tuple[str, str]:
        """Who answers it: prefix of the environment and version of its Python; empty if that is not known."""
        hello = self.process.hello if self.process is not None else None
        return (str(hello["prefix"]), str(hello["version"])) if hello else ("", "")

    @property
    def input(self) -> str | bytes:
        """What tells its arguments, for a failure: their text or their pickle; empty for several calls."""
        encoded = self.encoded
        if self.several or self.many:
            return ""
        return encoded.payload if encoded.summary is None else encoded.summary

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker that it was sent to; None while it waits."""
        process = self.process
        return None if process is None else process.process.pid

    def is_running(self) -> bool:
        """Return True if a worker has taken it. Any thread."""
        process = self.process
        return process is not None and process.is_running(self)

    def running_since(self) -> float | None:
        """Return when its worker took it, on the monotonic clock in seconds; None if unknown. Any thread."""
        process = self.process
        return None if process is None else process.running_since(self)

    def frame(self) -> bytes:
        """Return the inbox frame of this call."""
        encoded = self.encoded
        definition = encoded.definition
        payload = encoded.payload
        flags = encoded.flags
        if flags & wire.IN_BULK:
            payload = b""
        return wire.CALL_FRAME.pack(
            wire.RUN, flags | self.watched, len(payload), 0 if definition is None else definition.number, self.context.number, self.number, payload
        )
