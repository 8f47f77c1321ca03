"""The status of a pool as a whole.

Whether it accepts calls, whether it is broken, why it is being ended.

Threads: each field is set by one store, by any thread, and read by any.
"""

from __future__ import annotations

from wetlands_executor.scheduling.state import PoolState

# Set at interpreter exit: a fact about the process.
_exiting: list[bool] = []


def note_exit() -> None:
    """Note that the interpreter is going down."""
    _exiting.append(True)


def refusal() -> str:
    """Return the message of the standard library for a submit that comes too late."""
    return f"cannot schedule new futures after {'interpreter ' if _exiting else ''}shutdown"


class Closing:
    """How far the end of a pool has come.

    Args:
        state: its decisions.

    Attributes:
        refusing: no new call is accepted.
        broken: why nothing will ever run any more, None if that is not so.
        reason: why what has not started is cancelled, once the pool is ended that way.
        kill_reason: why all workers were ended at once, for the tasks that ran; None if they were
            not.
    """

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self.refusing = False
        self.broken: BaseException | None = None
        self.reason: str | None = None
        self.kill_reason: str | None = None

    @property
    def over(self) -> bool:
        """True if no call will be run again."""
        return self._state.ending

    def refuse(self) -> None:
        """Accept nothing more."""
        self.refusing = True

    def break_with(self, error: BaseException) -> None:
        """Accept nothing more, because nothing could run."""
        self.broken = error
        self.refusing = True

    def cancel_because(self, reason: str) -> None:
        """Give the reason why what has not started is cancelled; the first one counts."""
        self.reason = self.reason or reason

    def kill_because(self, reason: str) -> None:
        """Give the reason why all workers are ended; the first one counts."""
        self.kill_reason = self.kill_reason or reason

    @staticmethod
    def refusal() -> RuntimeError:
        """Return what a submit that comes too late raises."""
        return RuntimeError(refusal())
