"""A call on its way through the pool, what its worker answers, and the receiver of the answer.

A ``Call`` is an item of the scheduling with its bytes and its number on the wire. An ``Outcome`` is
what has become of it. Exactly one method of the *receiver* of a call is called; a ``Task`` is
settled by the pool's own receiver (``settlement.py``), the calls of a ``map`` by the job that has
made them.

Threads: a call is made by the thread that submits it. From then on its fields are the I/O thread's,
but for those of the direct ways, which ``direct.py`` documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wetlands_executor.futures.reports import Snapshot
from wetlands_executor.scheduling.messages import DeathReport, Item
from wetlands_executor.scheduling.phases import moved
from wetlands_executor.serialize.encoded import EncodedCall
from wetlands_executor.serialize.results import TOO_LARGE
from wetlands_executor.serialize.settings import HostSettings
from wetlands_executor.worker import wire
from wetlands_executor.worker.wire import IN_BULK, RUN

if TYPE_CHECKING:
    from wetlands_executor.futures.options import CallOptions

#: Kinds of outcomes that are not on the wire, which has none below 0, besides ``TOO_LARGE``: what
#: is no frame; a failure that has happened in the host.
GARBAGE, FAILED = -2, -3
#: Kinds of result frames that end a call.
OUTCOMES = frozenset(
    (
        wire.VALUE,
        wire.NONE,
        wire.ERROR,
        wire.CANCELLED,
        wire.VALUE_IN_BLOCKS,
        wire.VALUE_IN_LENT,
        TOO_LARGE,
    )
)
#: ``Outcome.place``: it concerns the call, or all calls of a batch that are left.
WHOLE = -1


class Outcome(NamedTuple):
    """What has become of a call, or of some calls of a batch.

    Attributes:
        kind: of the result frame (``VALUE``, ``NONE``, ``ERROR``, ``CANCELLED``,
            ``VALUE_IN_BLOCKS``, ``VALUE_IN_LENT``, ``SEVERAL``), ``TOO_LARGE``, or ``FAILED``.
        data: the pickle; an ``OutOfBandResult`` if the kind is ``VALUE_IN_BLOCKS``, a
            ``LentResult`` if it is ``VALUE_IN_LENT`` (of nested tasks only); the size in bytes as
            digits if it is ``TOO_LARGE``; a list of (kind, data) if it is ``SEVERAL``; the
            exception if it is ``FAILED``.
        place: in a batch the place of the call, or of the first of ``SEVERAL``; else ``WHOLE``.
    """

    kind: int
    data: Any = None
    place: int = WHOLE


class Receiver(Protocol):
    """Takes what becomes of calls. Exactly one of its methods is called for a call, once.

    A batch has many calls: ``on_outcome`` is called for them one by one, or for several at once, in
    the order of their places. What has the place ``WHOLE`` concerns all of them that are left, and
    so do ``on_lost`` and ``on_cancelled``.

    Threads: the I/O thread; behind lines that the call has printed the output thread; a thread that
    posts a call to a pool that has ended. Must neither block nor run code of the user's.
    """

    def on_outcome(self, call: Any, outcome: Outcome) -> None:
        """Take the outcome."""

    def on_lost(self, call: Any, report: DeathReport) -> Item | None:
        """Note that its worker has died while it ran the call.

        Of a batch the call that ran has had its outcome by now; what is left has not begun.

        Returns:
            An item that takes what is left to the front of the queue; None if nothing is left.
        """

    def on_cancelled(self, call: Any, reason: str | None) -> None:
        """Note that it will not run, or has stopped because it was asked to.

        Args:
            call: what.
            reason: why, if its program did not ask for that.
        """


class CallPhase(Enum):
    """Where a call is."""

    QUEUED = "queued"  # it was posted, or waits in the state's queue
    # its submitter has written it to a worker; it is not registered
    DIRECT = "direct"
    GIVEN = "given"  # a worker has it, and it is registered
    DECIDING = "deciding"  # it has failed; a decoder thread is finding out whether it is run again
    ENDED = "ended"  # its receiver was called


CALL_MOVES: Mapping[CallPhase, frozenset[CallPhase]] = {
    CallPhase.QUEUED: frozenset({CallPhase.DIRECT, CallPhase.GIVEN, CallPhase.ENDED}),
    CallPhase.DIRECT: frozenset({CallPhase.QUEUED, CallPhase.GIVEN}),
    CallPhase.GIVEN: frozenset({CallPhase.QUEUED, CallPhase.DECIDING, CallPhase.ENDED}),
    CallPhase.DECIDING: frozenset({CallPhase.ENDED}),
    CallPhase.ENDED: frozenset(),
}
# What every call needs, without a look into the Enum, or the module, each time.
_QUEUED = CallPhase.QUEUED
_pack = wire.CALL_FRAME.pack


class Batch(Protocol):
    """The calls of a batch, as the pool needs them.

    Attributes:
        name: for messages.
        count: number of its calls.
        received: calls of which the outcome is there; they come in order.
    """

    name: str
    count: int
    received: int

    def report(
        self, begun: int, message: str | None, current: float | None, maximum: float | None
    ) -> None:
        """Take a report of the call that was begun as the ``begun``-th. I/O thread."""

    def running(self) -> tuple[str, Snapshot]:
        """Return name and last report of the call that runs, as far as is known. Any thread."""
        ...

    def advance(self, count: int = 1) -> int:
        """Return the place of the next outcome, which has arrived, or of the first of ``count``."""

    def note_duration(self, duration: int, count: int = 1) -> None:
        """Learn from the mean duration of ``count`` calls, in microseconds."""


class Parent(Protocol):
    """The function in a worker that has submitted a call.

    Attributes:
        asks: it says after a failure whether there is another try.
    """

    asks: bool

    def take_output(self, call: Any, data: bytes | bytearray) -> None:
        """Take named outputs of the running call, pickled. I/O thread."""

    def ask(self, error: BaseException, answer: Callable[[bool], object]) -> None:
        """Find out whether there is another try after ``error``. Any thread."""


class Kill(Enum):
    """Why a call is killed, if that is no error."""

    CANCELLED = "cancelled"


#: What makes the error of a killed call of its worker's stacks.
MakesError = Callable[[str], BaseException]
#: What a call was killed for; None: it was not.
KillReason = Kill | MakesError | None


class Call(Item):
    """An item with what the shell needs: its number on the wire, its bytes, its receiver.

    Attributes:
        number: unique in this host process.
        encoded: definition, flags and payload.
        host_settings: the project folders that it needs.
        task: its Task; None of a batch.
        receiver: gets the outcome.
        batch: the calls that it stands for; None if it is one call.
        plain: nothing is asked but its value: no options, no listener, no limit, no kill reason, no
            batch, and its Task was not counted. Its outcome may be settled in place, by the waiting
            thread too.
        phase: where it is.
        process: the worker that it was sent to, None while it waits.
        kill_reason: why its worker was killed, if for the sake of this call.
        escalating, interrupted: it was asked to stop with a time limit; that is over, and it was
            interrupted.
        backlog: ``Backlog`` of its frames that are unpickled one after another; None as long as
            there was none.
        cancel_reason: why it was interrupted or killed, if it did not stop at a request.
        kind: of its frame.
        watched: further flags of the frame: ``wire.WATCHED`` if the worker has to report when it
        begins, ``wire.NAMED`` if it gets a name.
        carried: what it takes along of its caller's context; the worker gets it before its name.
        parent: what has submitted it, if that runs in a worker itself.
        awaited, unannounced, abandoned, after, found: of the direct ways, see ``direct.py``.
    """

    # As in ``Item``: the others are the class's until they are set.
    __slots__ = (
        "awaited",
        "encoded",
        "found",
        "host_settings",
        "kind",
        "number",
        "phase",
        "plain",
        "process",
        "receiver",
        "task",
        "unannounced",
        "watched",
    )
    abandoned = False
    batch: Batch | None = None
    carried: bytes | None = None
    after: Call | None = None
    kill_reason: KillReason = None
    escalating = False
    interrupted = False
    cancel_reason: str | None = None
    backlog: Any = None
    parent: Parent | None = None

    def __init__(
        self,
        number: int,
        encoded: EncodedCall,
        host_settings: HostSettings,
        task: Any,
        receiver: Any = None,
        plain: bool = False,
    ) -> None:
        self.place = None
        self.plain = plain
        self.phase = _QUEUED
        self.awaited = False
        self.found: tuple[Any, float] | None = None
        self.unannounced = False
        self.watched = 0
        self.kind = RUN
        self.number = number
        self.encoded = encoded
        self.host_settings = host_settings
        self.task = task
        self.receiver: Receiver = receiver
        self.process: Any = None

    @property
    def options(self) -> CallOptions | None:
        """Those of its Task; None if it was submitted without, and of a batch."""
        return None if self.task is None else self.task._options

    def move(self, phase: CallPhase) -> None:
        """Go to another phase.

        Raises:
            IllegalMove: it cannot follow the present one.
        """
        self.phase = moved(CALL_MOVES, self.phase, phase)

    def fail(self, error: BaseException | None) -> None:
        """Fail the call, or what is left of the batch, in this process."""
        self.receiver.on_outcome(self, Outcome(FAILED, error))

    def set_kill_reason(self, kill_reason: KillReason, reason: str | None = None) -> None:
        """Decide what becomes of the call, whatever its worker answers.

        An answer counts only if the kill reason is a cancellation.

        Args:
            kill_reason: see ``KillReason``.
            reason: of a cancellation.
        """
        self.kill_reason = kill_reason
        self.cancel_reason = reason or self.cancel_reason
        self.plain = False

    def stand_for(self, batch: Any) -> None:
        """Note the calls that it stands for."""
        self.batch = batch

    def flag(self, flags: int) -> None:
        """Set further flags of the frame, see ``watched``."""
        self.watched = flags

    def demand(self, options: Any, attempt: int) -> None:
        """Take what the options of its task ask for this attempt, counted from 1."""
        self.priority = options.priority
        self.carried = options.carried
        self.retries_left, self.asks_whether_retried = options.retry.of_item(attempt)
        if options.retries and self.encoded.out_of_band is not None:
            self.encoded.out_of_band.keep()

    def nest(self, depth: int, parent: Parent | None) -> Call:
        """Be the call of a nested task, as deep as this; return it."""
        self.depth = depth
        self.kind = wire.RUN_NESTED if depth else RUN
        self.parent = parent
        return self

    def decide_elsewhere(self) -> None:
        """Let a decoder thread decide, if its worker dies, whether it is run again."""
        self.asks_whether_retried = True

    def watch(self) -> None:
        """Have its worker report when it begins."""
        self.watched |= wire.WATCHED
        self.plain = False

    def note_blocks(self, kept: int) -> None:
        """Let the frame say whether its blocks are kept: ``wire.KEPT``, or 0."""
        self.watched = self.watched & ~wire.KEPT | kept

    def go_another_way(self) -> None:
        """Be neither awaited nor unannounced: it was not sent directly after all."""
        self.awaited = self.unannounced = False

    def come_back(self) -> Call | None:
        """Leave the chain of abandoned waits; return the next one there."""
        # Race: no call stands between these stores: a thread that abandons this wait once more
        # finds the call in the chain, or adds it again.
        following, self.after = self.after, None
        self.abandoned = False
        return following

    def queue_again(self) -> None:
        """Wait for a worker again: it was reclaimed, or has another try."""
        self.move(CallPhase.QUEUED)
        self.process = None
        self.kill_reason = None

    def number_tries(self) -> None:
        """Have its worker know the number of its next try."""
        self.watched |= wire.NAMED

    def give_up_tries(self) -> None:
        """Let the state run it no more: a failure is final, or is decided upon elsewhere."""
        self.retries_left = 0
        self.asks_whether_retried = False

    def begin_escalation(self) -> bool:
        """Return True if it is asked to stop with a time limit for the first time."""
        first, self.escalating = not self.escalating, True
        return first

    def interrupt(self, reason: str) -> None:
        """Note that it was interrupted."""
        self.interrupted = True
        self.cancel_reason = reason

    def keep_backlog(self, backlog: Any) -> None:
        """Have frames that are unpickled in order: its outcome comes behind them."""
        self.backlog = backlog
        self.plain = False

    @property
    def name(self) -> str:
        """What was called, for messages."""
        return str(self.task.name) if self.batch is None else self.batch.name

    @property
    def sender(self) -> tuple[str, str]:
        """Prefix of the environment that answers it, and version of its Python.

        Empty if that is not known.
        """
        hello = self.process.hello if self.process is not None else None
        return (str(hello["prefix"]), str(hello["version"])) if hello else ("", "")

    @property
    def foreign(self) -> bool:
        """True if its worker's bytecode is not ours."""
        return self.process is not None and bool(self.process.foreign)

    @property
    def input(self) -> str | bytes:
        """Its arguments, for the message of a failure: their text or their pickle.

        Empty for a batch.
        """
        encoded = self.encoded
        if self.batch is not None:
            return ""
        return encoded.payload if encoded.summary is None else encoded.summary

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker that it was sent to; None while it waits."""
        process = self.process
        return None if process is None else int(process.process.pid)

    def is_running(self) -> bool:
        """Return True if a worker has taken it. Any thread."""
        process = self.process
        return process is not None and bool(process.given.is_running(self))

    def running_since(self) -> float | None:
        """Return when its worker took it, on the monotonic clock in seconds; None if unknown.

        Any thread.
        """
        process = self.process
        found: float | None = None if process is None else process.given.running_since(self)
        return found

    def frame(self, mark: int = 0, on_page: bool = False) -> bytes:
        """Return the inbox frame of this call.

        Args:
            mark: see ``wire.marks``.
            on_page: its payload lies on the shared page instead of in the bulk pipe.
        """
        encoded = self.encoded
        definition = encoded.definition
        payload = encoded.payload
        flags = encoded.flags
        if flags & IN_BULK:
            payload = len(payload).to_bytes(4, "little") if on_page else b""
        function = 0 if definition is None else definition.number
        return _pack(
            self.kind,
            flags | self.watched,
            len(payload),
            function,
            self.host_settings.number,
            self.number,
            mark,
            payload,
        )
