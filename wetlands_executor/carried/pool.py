"""What a Task of a ``CarriedExecutor`` asks of its pool (``futures/protocols.py``).

Owns which calls are under way. What runs them is the ``Carrier``; what has become of them is
decoded on a thread of its own, because unpickling runs user code, and settled there. Any thread
enters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor import threads
from wetlands_executor.carried.call import CarriedCall, CarriedOutcome, Carrier
from wetlands_executor.futures import settling
from wetlands_executor.futures.elsewhere import Elsewhere
from wetlands_executor.futures.events import with_listener, without_callback
from wetlands_executor.futures.reports import begin_again
from wetlands_executor.futures.standard import run_a_little_later
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.delivery import SerialThread
from wetlands_executor.pool.lifecycle import Held
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.scheduling.retry import Failure, Next
from wetlands_executor.worker import packed

if TYPE_CHECKING:
    from weakref import WeakSet

    from wetlands_executor.futures.events import Listener
    from wetlands_executor.futures.future import Task



class CarriedPool:
    """The calls of one executor.

    Args:
        carrier: what runs them.
    """

    #: As of a pool; see ``futures/protocols.py``.
    started, ended = True, False

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.closing = Closing()
        self.listeners: tuple[Listener, ...] = ()
        self.callbacks = SerialThread("wetlands-callbacks", threads.CALLBACKS)
        self.stats = TaskStats(self.callbacks)
        self.held = Held()
        #: Calls that are not decided.
        self.calls: dict[CarriedCall, None] = {}
        self._decoding = SerialThread("wetlands-decode", threads.CALLBACKS)
        # For requests to the carrier that wait for an answer.
        self._requests = SerialThread("wetlands-requests", threads.CALLBACKS)
        self._pid = os.getpid()
        self._when_empty: Callable[[], object] | None = None

    # --- calls in, outcomes out

    def submit(self, call: CarriedCall) -> None:
        """Take a call of a Task that was counted."""
        self.calls[call] = None
        settling.hand_over(call.task, call)
        try:
            self.carrier.carry(call)
        except Exception as error:  # noqa: BLE001 - whatever the other system raises
            self.conclude(call, None, error)

    def conclude(
        self, call: CarriedCall, outcome: CarriedOutcome | None, error: BaseException | bytes | None
    ) -> None:
        """Settle the Task of a call with what its function did, or let it have another try."""
        if call.take():
            self._decoding.put(partial(self._conclude, call, outcome, error))

    def _conclude(
        self, call: CarriedCall, outcome: CarriedOutcome | None, error: BaseException | bytes | None
    ) -> None:
        task = call.task
        failure = packed.unpack(error, task.name)[1] if isinstance(error, bytes) else error
        settling.note_run(task, call.worker_pid or 0, call.seconds)
        if failure is None:
            settling.settle(task, Elsewhere(outcome, partial(_read, outcome, task.name)), None)
        elif not self._runs_again(call, failure):
            settling.settle(task, None, failure)
        self._forget(call)

    def conclude_cancelled(self, call: CarriedCall, reason: str | None) -> None:
        """Settle the Task of a call that was cancelled where it ran."""
        if call.take():
            settling.note_run(call.task, call.worker_pid or 0, call.seconds)
            settling.settle_cancelled(call.task, reason)
            self._forget(call)

    def _runs_again(self, call: CarriedCall, error: BaseException) -> bool:
        """Give a failed call another try if it is to have one, or cancel it; False: it fails."""
        task, options = call.task, call.options
        if options is None:
            return False
        # Whatever the failure: no ``PoolState`` has decided before about calls that were lost.
        step = options.step_after(error, Failure.CONDEMNED, task, lambda: self.closing.over)
        if step is Next.CANCEL:
            settling.settle_cancelled(task)
        elif step is Next.RUN_AGAIN:
            again = CarriedCall(self, task, call.data, call.outcomes, options, call.input)
            begin_again(task, again)
            self.stats.begun_again()
            self.submit(again)
        return step is not Next.FAIL

    def _forget(self, call: CarriedCall) -> None:
        self.calls.pop(call, None)
        self._note_end()

    # --- cancelling (futures/protocols.py)

    def cancel(self, call: CarriedCall) -> bool:
        """Take the call back, or ask it to stop; return True if it will not run.

        Waits for the carrier's answer.
        """
        return self.cancel_now([call])

    def ask_to_cancel(self, call: CarriedCall) -> None:
        """Do the same without waiting."""
        self._requests.put(partial(self.cancel_now, [call]))

    def cancel_all(self, calls: Iterable[CarriedCall]) -> None:
        """Do the same for several calls, with one request."""
        self._requests.put(partial(self.cancel_now, list(calls)))

    def cancel_now(self, calls: list[CarriedCall]) -> bool:
        """Take calls back, or ask them to stop; return True if none of them will run.

        Waits for the carrier's answer.
        """
        live = [call for call in calls if call.live]
        waiting = [call for call in live if not call.is_running()]
        gone = set(self.carrier.withdraw(waiting)) if waiting else set()
        for call in live:
            if call not in gone:
                self.carrier.ask_to_cancel(call)
            elif call.take():
                settling.settle_cancelled(call.task)
                self._forget(call)
        return len(gone) == len(calls)

    def kill(self, call: CarriedCall) -> None:
        """Cancel the call, and end the worker that runs it."""
        if call.take():
            self._requests.put(partial(self.carrier.kill, call))
            settling.settle_cancelled(call.task, "its worker was killed by Task.kill()")
            self._forget(call)

    # --- jobs (futures/protocols.py)

    def post(self, job: Callable[[], object]) -> None:
        """Run a job here."""
        job()

    def notify_later(self, job: Callable[[], bool]) -> None:
        """Run a job a little later."""
        run_a_little_later(job)

    def run_user_code(self, job: Callable[[], object]) -> None:
        """Do what has to be done for a dependant."""
        self._decoding.put(job)

    def ensure_tracked(self, call: Any) -> None:
        """Do nothing: every thread is told of the end."""

    def take_abandoned_waits(self) -> None:
        """Do nothing: no thread takes outcomes itself."""

    def watch(self, call: CarriedCall) -> None:
        """Tell a new listener of the start of a call that runs; of others it will be told."""
        if call.is_running() and call.live:
            settling.tell_started(call.task)

    @property
    def unstarted(self) -> WeakSet[Task[Any]]:
        """Tasks that were not started."""
        return self.held.unstarted

    def reserve(self, task: Task[Any]) -> None:
        """Keep the pool open for a task whose dependencies are not ready."""
        self.held.dependents.add(task)

    def release(self, task: Task[Any]) -> None:
        """Note that a reserved task was submitted, or never will be."""
        self.held.dependents.discard(task)
        self._note_end()

    # --- settings of its executor

    def add_listener(self, listener: Listener) -> None:
        """Tell a listener what happens to all tasks from now on."""
        self.listeners = with_listener(self.listeners, listener)

    def remove_listener(self, callback: object) -> None:
        """Drop the listeners that call ``callback``, and what is on its way to them."""
        self.listeners = without_callback(self.listeners, callback)

    # --- what has become of it

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked: the connections are the parent's."""
        return self._pid != os.getpid()

    @property
    def refusing(self) -> bool:
        """True if no new call is accepted."""
        return self.closing.refusing or self.forked

    @property
    def empty(self) -> bool:
        """True if nothing runs or waits."""
        return not (self.calls or self.held.dependents)

    def when_empty(self, job: Callable[[], object]) -> None:
        """Call ``job`` when the pool is closed and empty, maybe several times."""
        self._when_empty = job
        self._note_end()

    def _note_end(self) -> None:
        if self.closing.refusing and self._when_empty is not None and self.empty:
            self._when_empty()

    def end_threads(self) -> None:
        """End the threads, and what carries the calls. Waits."""
        self._requests.end()
        self._decoding.end()
        self.callbacks.end()
        self.carrier.close()


def _read(outcome: Any, name: str, timeout: float | None) -> Any:
    """Bring the result of a call here.

    Raises:
        RuntimeError: it cannot be rebuilt in this process.
        WorkerCrashed: it is lost.
    """
    value, error = packed.unpack(outcome.fetch(timeout), name)
    if error is not None:
        raise error
    return value
