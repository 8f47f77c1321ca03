"""When a worker is started again after a start has failed, and how often it is tried.

Owns the count of failures, the delays and the workers that are to be replaced. It starts nothing
itself: ``PoolState`` reads ``held``, reports what has happened, and performs the ``Consequence``.

::

    FREE ------- a start fails --------------> DELAYED (a timer runs)
      ---------- ... for the last time ------> UNDECIDED (others are starting)
    DELAYED ---- the timer fires ------------> FREE
      ---------- no worker is left ----------> RELEASED (the timer still runs)
    UNDECIDED -- a worker is ready, or none is left, or the timer fires -> FREE
      ---------- given up, others work ------> DELAYED
    RELEASED --- the timer fires ------------> FREE
      ---------- a start fails, or succeeds -> DELAYED
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wetlands_executor.scheduling.phases import moved

#: Seconds before the second, third, ... try to start a worker after one did not come up.
RESTART_DELAYS = (0.05, 0.25)
#: Tries after which a start that always fails is given up.
START_TRIES = 1 + len(RESTART_DELAYS)
#: Seconds until a start that was given up is tried again, while other workers do the work.
GIVEN_UP_DELAY = 5.0


class Starts(Enum):
    """Whether workers may be started."""

    #: They may, and no timer runs.
    FREE = "free"
    #: They may not before the timer fires.
    DELAYED = "delayed"
    #: They may not: those that are starting decide.
    UNDECIDED = "undecided"
    #: They may; a timer that was set before has still to fire.
    RELEASED = "released"


STARTS_MOVES = {
    Starts.FREE: frozenset({Starts.DELAYED, Starts.UNDECIDED}),
    Starts.DELAYED: frozenset({Starts.FREE, Starts.RELEASED}),
    Starts.UNDECIDED: frozenset({Starts.FREE, Starts.DELAYED}),
    Starts.RELEASED: frozenset({Starts.FREE, Starts.DELAYED}),
}


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows a failed start.

    Attributes:
        delay: seconds after which ``due`` is to be called; None sets no timer.
        given_up: what waits for the start fails.
    """

    delay: float | None = None
    given_up: bool = False


class Restarts:
    """The tries to start workers.

    Attributes:
        phase: whether workers may be started.
        held: the same in short: no worker may be started now.
        failures: starts that have failed since a worker has done something.
        replacements: workers that died unexpectedly and have not been replaced yet.
        launching: all workers were asked for: those that fail to start are tried again although
            nothing waits for them.
    """

    __slots__ = ("failures", "held", "launching", "phase", "replacements")

    def __init__(self) -> None:
        self.phase = Starts.FREE
        self.held = False
        self.failures = 0
        self.replacements = 0
        self.launching = False

    def _move(self, phase: Starts) -> None:
        if phase is not self.phase:
            self.phase = moved(STARTS_MOVES, self.phase, phase)
            self.held = phase in (Starts.DELAYED, Starts.UNDECIDED)

    def launch(self, count: int | None, alive: int, most: int) -> None:
        """Note that workers are asked for.

        Args:
            count: how many there are to be; None is all, and those that fail are tried again.
            alive: processes that there are.
            most: processes that there may be.
        """
        if count is None:
            self.launching = True
            self.replacements = most - alive
        else:
            self.replacements = max(self.replacements, count - alive)

    def ready(self, *, all_ready: bool) -> None:
        """Note that a worker is ready.

        ``failures`` is not forgiven yet: a worker may come up and die before it has done anything,
        again and again.
        """
        self._move(Starts.FREE if self.phase in (Starts.FREE, Starts.UNDECIDED) else Starts.DELAYED)
        if all_ready:
            self.launching = False

    def forgive(self) -> None:
        """Note that a worker has done something."""
        self.failures = 0

    def replace(self) -> None:
        """Note that a worker died unexpectedly: it is replaced, whether or not something waits."""
        self.replacements += 1

    def take_replacements(self) -> int:
        """Return how many workers are to be replaced; they are the caller's from now on."""
        count, self.replacements = self.replacements, 0
        return count

    def failed(self, *, final: bool, others_start: bool, others_ready: bool) -> Consequence:
        """Note that a worker ended before it did anything useful: three tries, with growing delays.

        Args:
            final: another try would fail in the same way.
            others_start: further workers are starting.
            others_ready: workers are at work.
        """
        self.failures += 1
        if not final and self.failures < START_TRIES:
            return Consequence(self._delay(RESTART_DELAYS[self.failures - 1]))
        self.failures = START_TRIES
        if others_start:  # their outcome decides
            timer = self.phase in (Starts.DELAYED, Starts.RELEASED)
            self._move(Starts.DELAYED if timer else Starts.UNDECIDED)
            return Consequence()
        self.replacements = 0
        self.launching = False
        if not others_ready:
            # None is left that could do the work. The next item that is submitted is a reason to
            # try again.
            self.release()
            return Consequence(given_up=True)
        # Others do the work meanwhile; the threads that wait for all workers are notified, and it
        # is tried again later.
        return Consequence(self._delay(GIVEN_UP_DELAY), given_up=True)

    def _delay(self, seconds: float) -> float | None:
        """Hold starts; return the delay of the timer that is to be set, None if one runs."""
        running = self.phase in (Starts.DELAYED, Starts.RELEASED)
        self._move(Starts.DELAYED)
        return None if running else seconds

    def release(self) -> None:
        """Let workers be started at once, and count failures anew."""
        self.failures = 0
        if self.held:
            self._move(Starts.RELEASED if self.phase is Starts.DELAYED else Starts.FREE)

    def last_worker_gone(self) -> None:
        """Note that no process is left, the last one after it had done something.

        Starting more was given up while others worked; now there is no other. Or it was left to a
        worker that was starting, and that one was ended by a shutdown before it could decide.
        """
        if self.failures >= START_TRIES or self.phase is Starts.UNDECIDED:
            self.release()

    def due(self) -> None:
        """The timer has fired."""
        self._move(Starts.FREE)
        if self.failures >= START_TRIES:
            self.failures = 0
