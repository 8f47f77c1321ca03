"""A call that a ``Carrier`` has, and what the carrier says of it.

``Carrier`` is what another system has to do for a ``CarriedExecutor``: to take calls as bytes, and
to say what becomes of them. Any thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from wetlands_executor.futures import settling
from wetlands_executor.futures.reports import reports_of

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
    from wetlands_executor.futures.options import CallOptions
    from wetlands_executor.futures.overview import WorkerInfo


class CarriedOutcome(Protocol):
    """The outcome of a call, wherever it is."""

    def fetch(self, timeout: float | None = None) -> bytes:
        """Return its bytes; each time anew.

        Args:
            timeout: seconds to wait for them; None waits without limit.

        Raises:
            WorkerCrashed: it is lost.
        """
        ...


class Carrier(Protocol):
    """Carries calls to workers on other machines. Any thread calls each method."""

    @property
    def max_workers(self) -> int:
        """Number of calls that can run at the same time, as far as is known."""
        ...

    @property
    def interpreter(self) -> Sequence[Any]:
        """Version, implementation and magic number of the interpreters that run the calls."""
        ...

    def carry(self, call: CarriedCall) -> None:
        """Let a call be run. What becomes of it is said by its methods. Does not wait for that."""
        ...

    def withdraw(self, calls: Sequence[CarriedCall]) -> list[CarriedCall]:
        """Return those of the calls that will not run, by this request. May wait for an answer."""
        ...

    def ask_to_cancel(self, call: CarriedCall) -> None:
        """Ask a call that could not be withdrawn to stop. May wait."""
        ...

    def kill(self, call: CarriedCall) -> None:
        """See that a call does not run, or end its worker. May wait."""
        ...

    def workers(self) -> list[WorkerInfo]:
        """Return what the workers do, as far as is known."""
        ...

    def close(self) -> None:
        """Let go of everything: no call is under way, and none will come. May wait."""
        ...


class Concludes(Protocol):
    """What a call tells of its end; see ``pool.py``."""

    def conclude(
        self, call: CarriedCall, outcome: CarriedOutcome | None, error: BaseException | bytes | None
    ) -> None:
        """Settle its Task, or let it have another try."""
        ...

    def conclude_cancelled(self, call: CarriedCall, reason: str | None) -> None:
        """Settle its Task as cancelled."""
        ...


class CarriedCall:
    """A call, from its submission until its Task is settled.

    A carrier says of it ``started``, ``reported`` and ``put_out``, and then one of ``returned``,
    ``failed``, ``cancelled`` and ``lost``. What comes after the end is ignored.

    Args:
        pool: of the executor.
        task: its Task.
        data: the call, see ``worker/packed.py``.
        outcomes: of the calls that it depends on, in the order of their places.
        options: what is asked of it; None asks nothing.
        text: its arguments, for messages.
    """

    #: As of a call of a pool: every thread is told of its end, and no process of this machine has
    #: it.
    unannounced = False
    process = None

    def __init__(
        self,
        pool: Concludes,
        task: Task[Any],
        data: bytes,
        outcomes: Sequence[CarriedOutcome],
        options: CallOptions | None,
        text: str,
    ) -> None:
        self._pool = pool
        self.task = task
        self.data = data
        self.outcomes = outcomes
        self.options = options
        self.input = text
        self.worker_pid: int | None = None
        self._began: float | None = None
        # One entry: the thread that takes it decides what becomes of this call.
        self._claim = [None]

    def take(self) -> bool:
        """Return True to the one thread that decides what becomes of it."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    @property
    def live(self) -> bool:
        """True until it is decided what becomes of it."""
        return bool(self._claim)

    def is_running(self) -> bool:
        """Return True if a worker has taken it."""
        return self._began is not None

    def running_since(self) -> float | None:
        """Return when a worker took it, on the monotonic clock in seconds; None before."""
        return self._began

    # --- what the carrier says

    def started(self, pid: int | None = None) -> None:
        """Say that a worker has taken it.

        Args:
            pid: of the worker's process, on its machine.
        """
        if self.live and self._began is None:
            self.worker_pid = pid
            self._began = time.monotonic()
            settling.tell_started(self.task)

    def reported(
        self, message: str | None, current: float | None, maximum: float | None
    ) -> None:
        """Say what the function has reported last."""
        if self.live:
            self.started()
            reports_of(self.task).update(self.task, message, current, maximum)

    def put_out(self, outputs: Mapping[Any, Any]) -> None:
        """Say which named outputs the function has made."""
        if self.live:
            self.started()
            reports_of(self.task).add_outputs(self.task, dict(outputs))

    def returned(self, outcome: CarriedOutcome) -> None:
        """Say that the function has returned."""
        self._pool.conclude(self, outcome, None)

    def failed(self, error: BaseException | bytes) -> None:
        """Say that it has failed.

        Args:
            error: why; bytes are the outcome of a function that has raised.
        """
        self._pool.conclude(self, None, error)

    def cancelled(self, reason: str | None = None) -> None:
        """Say that the worker has cancelled it, at its function's wish or for a reason."""
        self._pool.conclude_cancelled(self, reason)

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return 0.0 if self._began is None else time.monotonic() - self._began
