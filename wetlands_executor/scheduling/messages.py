"""Events and actions of the pool's state machine, and the base of the items that it schedules.

Data only. Events are facts in the past tense, actions are imperatives. ``state.py`` maps the one to
the other; the pool makes the events and performs the actions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Union

#: No limit of items.
ANY = 1 << 30
#: ``place`` of an item that no slot holds yet.
WAITING: object = object()


class Item:
    """Base of what is scheduled.

    Attributes:
        place: None, ``WAITING`` or the Slot that holds the item; only ``PoolState`` writes it.
        priority: higher goes first; equal ones in the order of their submission.
        retries_left: how often it is run again if its worker dies.
        asks_whether_retried: if its worker dies, a decoder thread decides whether it is run again:
            ``Lost`` counts as ``Reserved`` then.
        depth: 0 of what the program has submitted; of a task inside a task that of its parent and
            one more. Deeper items have the higher priority.
        many: it stands for many: it waits in the queue as one, and workers get parts of it
            (``split``) until it is ``exhausted``.
    """

    # What few items need are attributes of the class: one is made for each submit, and storing a
    # default in each of them would be a tenth of that.
    __slots__ = ("__dict__", "place")
    many = False
    priority = 0
    depth = 0
    retries_left = 0
    asks_whether_retried = False

    @property
    def left(self) -> int:
        """How many an item that stands for many still stands for."""
        return 0

    @property
    def ahead(self) -> int:
        """How many items a worker may hold if one is a part of an item that stands for many."""
        return ANY

    @property
    def exhausted(self) -> bool:
        """True if an item that stands for many has no part left."""
        return True

    def split(self) -> Item | None:
        """Return the next part of an item that stands for many; None if there is none.

        The part is an item of its own. Must be quick and pure.
        """
        return None

    def __init__(self) -> None:
        self.place: Any = None

    def wait(self) -> None:
        """Have no worker yet."""
        self.place = WAITING

    def leave(self) -> None:
        """Belong to no queue and no worker any more: settled, or handled elsewhere."""
        self.place = None

    def use_retry(self) -> None:
        """Use up one retry: its worker has died, and it waits for another try."""
        self.retries_left -= 1

    def forgo_retries(self) -> None:
        """Do not run again if its worker dies."""
        self.retries_left = 0


@dataclass(frozen=True, slots=True)
class DeathReport:
    """How a worker has ended, or why it could not be started.

    Attributes:
        error: what its running items fail with; of a start, what those fail with that waited.
        stacks: its Python stacks, if it was asked for them; else empty.
        streams: what it has printed and is still on its way: its items fail after that.
    """

    error: BaseException
    stacks: str = ""
    streams: tuple[Any, ...] = ()


# --- events: what happened


@dataclass(frozen=True, slots=True)
class Submitted:
    """New items, in order.

    Attributes:
        front: they go before those that wait (they are the rest of something older).
    """

    items: Sequence[Item]
    front: bool = False


@dataclass(frozen=True, slots=True)
class SentDirectly:
    """The submitting thread wrote this item to an idle worker itself.

    The state is fed this afterwards.
    """

    worker: int
    item: Item


@dataclass(frozen=True, slots=True)
class WaitBegan:
    """The function of this item waits for tasks inside it."""

    worker: int
    item: Item


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """The function that had waited goes on."""

    worker: int


@dataclass(frozen=True, slots=True)
class LaunchRequested:
    """Start workers now.

    Attributes:
        count: see that there are at least so many, but give up at the first failure; None starts
            all, and replaces those that fail.
    """

    count: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The incarnation has finished its initializer."""

    worker: int


@dataclass(frozen=True, slots=True)
class ItemsFinished:
    """The incarnation delivered the outcome of these items."""

    worker: int
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Answer to ``Reclaim``: these items had not started and are no longer with the worker."""

    worker: int
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The process is gone. ``unstarted`` came back from its inbox.

    Attributes:
        final: the start failed for a reason that the next try would meet again.
        report: why; passed on with the items that it concerns.
    """

    worker: int
    unstarted: Sequence[Item]
    final: bool = False
    report: DeathReport | None = None


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """The initializer raised in this incarnation.

    By the contract of the standard library the pool is broken.

    Attributes:
        report: what it raised, for all items from now on.
    """

    worker: int
    report: DeathReport | None = None


@dataclass(frozen=True, slots=True)
class RetireRequested:
    """The incarnation is not trusted any more: it is given nothing, and ends after what it runs."""

    worker: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """This item is not to run, or to stop."""

    item: Item


@dataclass(frozen=True, slots=True)
class ManyCancelsRequested:
    """None of these items is to run. Each worker is asked once for what it has not started."""

    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class ReclaimRequested:
    """If this item is with a worker and has not started, reclaim it and send it again.

    Something about it has changed.
    """

    item: Item


@dataclass(frozen=True, slots=True)
class KillRequested:
    """End the worker that runs this item; if it waits, it is cancelled.

    Attributes:
        retry: it may be run again; False for a cancellation.
    """

    item: Item
    retry: bool = False


@dataclass(frozen=True, slots=True)
class KillAnswered:
    """Answer to ``KillIfRunning``: whether the item was running and its worker is being ended."""

    worker: int
    item: Item
    killed: bool


@dataclass(frozen=True, slots=True)
class Reserved:
    """An item will come later (its dependencies are not ready): the pool must not close before."""


@dataclass(frozen=True, slots=True)
class Released:
    """A reserved item has been submitted, or never will be."""


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """Accept nothing more; ``cancel_pending`` drops what has not started."""

    cancel_pending: bool = False


@dataclass(frozen=True, slots=True)
class TerminateRequested:
    """End all workers at once; what has not started is cancelled."""


@dataclass(frozen=True, slots=True)
class RestartDue:
    """The delay before the next try to start workers is over."""


Event = Union[
    Submitted,
    SentDirectly,
    WaitBegan,
    WaitEnded,
    LaunchRequested,
    WorkerReady,
    ItemsFinished,
    Reclaimed,
    WorkerExited,
    InitializerFailed,
    RetireRequested,
    CancelRequested,
    ManyCancelsRequested,
    ReclaimRequested,
    KillRequested,
    KillAnswered,
    Reserved,
    Released,
    ShutdownRequested,
    TerminateRequested,
    RestartDue,
]

# --- actions: what the shell has to do


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a process for slot ``index`` and call it ``worker``."""

    worker: int
    index: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send these items to the worker, in order."""

    worker: int
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Reclaim what the worker has not started, and answer with ``Reclaimed``."""

    worker: int


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Ask the running item to stop."""

    worker: int
    item: Item


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Let the worker end: it has nothing left to do."""

    worker: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End the worker at once."""

    worker: int


@dataclass(frozen=True, slots=True)
class KillIfRunning:
    """End the worker at once if it runs this item, and answer with ``KillAnswered``.

    Its inbox is empty.
    """

    worker: int
    item: Item


@dataclass(frozen=True, slots=True)
class Cancelled:
    """These items will never run; settle them as cancelled.

    Attributes:
        items: they.
        refused: they have come after the end of the pool, which nothing has broken off: submit()
            would have raised a moment later.
    """

    items: Sequence[Item]
    refused: bool = False


@dataclass(frozen=True, slots=True)
class CancelAnswered:
    """Answer to ``CancelRequested``: True if the item will not run."""

    item: Item
    done: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """This item was running in the worker that died."""

    item: Item
    worker: int
    report: DeathReport | None = None


@dataclass(frozen=True, slots=True)
class Retried:
    """This item was running in the worker that died, and waits for another try."""

    item: Item
    worker: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """No worker could be started: fail these items (perhaps none) for the reason of the report."""

    items: Sequence[Item]
    worker: int
    report: DeathReport | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """The initializer failed in ``worker``: fail these items; nothing more is accepted."""

    items: Sequence[Item]
    worker: int
    report: DeathReport | None = None


@dataclass(frozen=True, slots=True)
class SetRestartTimer:
    """Send ``RestartDue`` after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class PoolClosed:
    """The last process is gone and nothing is waiting."""


Action = Union[
    StartWorker,
    Dispatch,
    Reclaim,
    SendCancel,
    StopWorker,
    KillWorker,
    KillIfRunning,
    Cancelled,
    CancelAnswered,
    Lost,
    Retried,
    StartFailed,
    Broken,
    SetRestartTimer,
    PoolClosed,
]


def items_of(actions: Iterable[Action]) -> list[Item]:
    """Return all items that the actions settle; for tests, and for an action that has failed."""
    found: list[Item] = []
    for action in actions:
        if isinstance(action, (Cancelled, StartFailed, Broken)):
            found.extend(action.items)
        elif isinstance(action, Lost):
            found.append(action.item)
    return found
