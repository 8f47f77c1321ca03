"""The phases of a slot and the status of the pool, with the tables of their legal moves.

``moved`` returns the new phase or raises, so that an illegal move changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import TypeVar

Phase_ = TypeVar("Phase_", bound=Enum)


class IllegalMove(RuntimeError):  # noqa: N818 - named by what happened, as the events are
    """A phase cannot follow on another one. Nothing has changed."""


class Phase(Enum):
    """What the process in a slot is doing."""

    EMPTY = "empty"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DYING = "dying"


class Status(Enum):
    """What the pool as a whole accepts."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class EndKind(IntEnum):
    """What the end of the pool does to items; each kind goes further than those before it."""

    #: All that was submitted is run.
    FINISH = 0
    #: What has not started is cancelled, and nothing that has failed is run again.
    CANCEL = 1
    #: Every worker was killed as well.
    KILL = 2
    #: The initializer has failed: what has not started fails, for that reason.
    BREAK = 3


#: A process ends from every phase: each leads to EMPTY.
PHASE_MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.EMPTY: frozenset({Phase.STARTING}),
    Phase.STARTING: frozenset({Phase.READY, Phase.DYING, Phase.EMPTY}),
    Phase.READY: frozenset({Phase.STOPPING, Phase.DYING, Phase.EMPTY}),
    Phase.STOPPING: frozenset({Phase.DYING, Phase.EMPTY}),
    Phase.DYING: frozenset({Phase.EMPTY}),
}

#: A pool never opens again.
STATUS_MOVES: Mapping[Status, frozenset[Status]] = {
    Status.OPEN: frozenset({Status.DRAINING, Status.CLOSED}),
    Status.DRAINING: frozenset({Status.CLOSED}),
    Status.CLOSED: frozenset(),
}


def moved(table: Mapping[Phase_, frozenset[Phase_]], old: Phase_, new: Phase_) -> Phase_:
    """Return ``new``, which replaces ``old``.

    Raises:
        IllegalMove: ``new`` cannot follow on ``old``.
    """
    if new not in table[old]:
        raise IllegalMove(f"{old} cannot become {new}")
    return new
