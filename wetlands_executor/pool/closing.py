"""The status of a pool as a whole.

Whether it accepts calls, whether it is broken, why it is being ended.

Threads: each field is set by one store, by any thread, and read by any.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import NoReturn, Protocol

from wetlands_executor.futures.waiting import Latch

# Set at interpreter exit: a fact about the process.
_exiting: list[bool] = []


def refusal() -> str:
    """Return the message of the standard library for a submit that comes too late."""
    return f"cannot schedule new futures after {'interpreter ' if _exiting else ''}shutdown"


def foreign() -> RuntimeError:
    """Return what a call is refused with in a child that the host has forked."""
    return RuntimeError(
        "this executor belongs to the process that forked this one: make a new one here"
    )


class Finish(Latch):
    """Set when an executor has ended and everything was delivered, and what follows on that."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: deque[Callable[[], object]] = deque()

    def then(self, job: Callable[[], object], *, now: bool = False) -> None:
        """Call ``job`` when it is set, once; here if it is set already, or ``now``.

        ``job`` must neither block nor run user code.
        """
        self._jobs.append(job)
        if now or self.is_set():
            self._run_jobs()

    def come(self) -> None:
        """Set it, and do what follows."""
        self.set()
        self._run_jobs()

    def _run_jobs(self) -> None:
        while self._jobs:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return  # another thread has it
            job()


class Ends(Protocol):
    """How an executor is ended at interpreter exit."""

    def shutdown(self) -> None:
        """Accept nothing more, and end when everything is done."""
        ...

    def join(self) -> object:
        """Wait for that."""
        ...


def finish_at_exit(lifecycles: Callable[[], Iterable[Ends]]) -> None:
    """Do what the standard library does at interpreter exit: finish what was submitted.

    Args:
        lifecycles: returns those of the executors of this process that there are then.
    """

    def finish() -> None:
        _exiting.append(True)
        found = list(lifecycles())
        for lifecycle in found:
            lifecycle.shutdown()
        for lifecycle in found:
            lifecycle.join()

    # Before threading joins its threads, as concurrent.futures does it (bpo-39812); atexit would
    # come too late for callbacks that start threads.
    getattr(threading, "_register_atexit", atexit.register)(finish)


class Decider(Protocol):
    """What decides whether calls are run again."""

    @property
    def over(self) -> bool:
        """True if nothing more is started, and nothing that has failed is run again."""
        ...


class Closing:
    """How far the end of a pool has come.

    Args:
        state: its decisions; None is a pool without a thread that takes them, whose end begins
            with what is said here.

    Attributes:
        refusing: no new call is accepted.
        broken: why nothing will ever run any more, None if that is not so.
        reason: why what has not started is cancelled, once the pool is ended that way.
        kill_reason: why all workers were ended at once, for the tasks that ran; None if they were
            not.
    """

    def __init__(self, state: Decider | None = None) -> None:
        self._state = state
        self.refusing = False
        self.broken: BaseException | None = None
        self.reason: str | None = None
        self.kill_reason: str | None = None

    @property
    def over(self) -> bool:
        """True if nothing more is started, and nothing that has failed is run again."""
        return self._state.over if self._state is not None else self.reason is not None

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

    def refuse_call(self, *, forked: bool) -> NoReturn:
        """Raise why a call is not accepted.

        Args:
            forked: this process is a child that the host has forked.
        """
        if forked:
            raise foreign()
        if self.broken is not None:
            raise BrokenProcessPool(str(self.broken)) from self.broken
        raise self.refusal()

    @staticmethod
    def refusal() -> RuntimeError:
        """Return what a submit that comes too late raises."""
        return RuntimeError(refusal())
