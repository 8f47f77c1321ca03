"""The shell around ``PoolState``.

``feed(event)`` lets the state decide, and has its actions performed, by a table.

Settle, then feed: a Task has its outcome before the state is fed that the item is finished, so that
a closed pool has no open task.

I/O thread only; other threads read ``wants_wakeup``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from wetlands_executor.errors import describe
from wetlands_executor.pool.blame import Blame
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.direct_calls import MOST_OPEN, DirectCalls
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.phases import Status
from wetlands_executor.scheduling.state import PoolState

Perform = Callable[[Any], st.Event | None]


class Shell:
    """Feeds the state and performs its actions.

    Args:
        state: the decisions.
        workers: the processes.
        stats: counts tasks.
        closing: how a call is refused that comes too late.

    Attributes:
        changed: the state was fed since ``publish`` was called last.
        closed: the state has closed, or has failed.
        wants_wakeup: True if a posted call could be acted on at once; else the I/O thread need not
            be woken for it.
    """

    def __init__(
        self, state: PoolState, workers: Workers, stats: TaskStats, closing: Closing
    ) -> None:
        self.changed = True
        self.closed = False
        self.wants_wakeup = True
        self._state = state
        self._workers = workers
        self._stats = stats
        self._closing = closing
        self._direct_calls: DirectCalls
        self._blame: Blame
        self._start_error: Callable[[str, str, BaseException | None], BaseException]
        self._perform: Mapping[type, Perform] = {}

    def connect(
        self,
        direct_calls: DirectCalls,
        blame: Blame,
        start_error: Callable[[str, str, BaseException | None], BaseException],
        perform: Mapping[type, Perform],
    ) -> None:
        """Set what performs the actions; once, before anything is fed.

        Args:
            direct_calls: what passes the I/O thread.
            blame: handles failures.
            start_error: makes the error of a start: (reason, stderr, cause).
            perform: type of an action -> what performs it, and returns the state's answer, if it
                waits for one.
        """
        self._direct_calls = direct_calls
        self._blame = blame
        self._start_error = start_error
        self._perform = {**perform, st.PoolClosed: self._close}

    def feed(self, event: st.Event | None, before: Sequence[st.Event] = ()) -> None:
        """Let the state decide, and perform its actions.

        Order: what submitting threads have sent comes before any other event.

        Args:
            event: what happened; None to register what was sent only.
            before: events that were registered already and come first.
        """
        self.changed = True
        queue: list[st.Event] = [*before]
        for process in self._workers.processes.values():
            if process.direct_send.sent:
                queue.extend(self._direct_calls.registered(process))
        if event is not None:
            queue.append(event)
        handle, perform = self._state.handle, self._perform
        events = iter(queue)  # answers are appended while it runs
        actions: Iterator[st.Action] = iter(())
        action: st.Action | None = None
        while True:
            try:
                for action in actions:  # the rest, after one that has failed
                    answer = perform[type(action)](action)
                    if answer is not None:
                        queue.append(answer)
                for this in events:
                    action = None
                    actions = iter(handle(this))
                    for action in actions:
                        answer = perform[type(action)](action)
                        if answer is not None:
                            queue.append(answer)
                return
            except Exception as error:
                if action is None:
                    raise  # the state itself: its answers can be relied on no more
                answer = self._recover(action, error)
                if answer is not None:
                    queue.append(answer)

    def _recover(self, action: st.Action, error: Exception) -> st.Event | None:
        """Handle the failure of an action, which is a bug: let its worker go.

        Return the answer for which the state waits.
        """
        worker = getattr(action, "worker", None)
        process = self._workers.processes.get(worker) if worker is not None else None
        if process is not None:
            self._blame.fault_later(process, error)  # Order: when the state has come to rest
        else:
            self._blame.log_bug(error, action)
        if isinstance(action, st.Dispatch) and process is None:
            for item in action.items:
                item.fail(error)  # type: ignore[attr-defined]
            return st.ItemsFinished(action.worker, action.items)
        if isinstance(action, st.StartWorker):
            reason = self._start_error(describe(error), "", error)
            return st.WorkerExited(action.worker, (), True, st.DeathReport(reason))
        if isinstance(action, st.Reclaim):
            return st.Reclaimed(action.worker, ())
        if isinstance(action, st.KillIfRunning):
            return st.KillAnswered(action.worker, action.item, False)
        for item in st.items_of([action]):
            item.fail(error)  # type: ignore[attr-defined] # if it has not been settled
        return None

    # --- what the loop asks

    def take(self, items: list[Any]) -> None:
        """Take calls that were submitted, in order."""
        self._stats.submitted_together([item.task for item in items if item.task is not None])
        try:
            self.feed(st.Submitted(items))
        except Exception as error:
            for item in items:
                if item.place is None:
                    item.fail(error)  # neither the state nor another list has it
            raise

    def reject(self, item: Any, error: BaseException | None) -> None:
        """Refuse a call that came too late: its Task fails with what submit() would have raised.

        Any thread.
        """
        item.fail(error if error is not None else self._closing.refusal())

    def contain(self, error: Exception, doing: Any) -> None:
        """Contain a failure: it costs at most one worker and one call."""
        self._blame.contain(error, doing)

    def publish(self) -> None:
        """Publish which workers submitting threads may write to, and whether a call needs a wakeup.

        Order: after this, ``posted`` is looked at once more before the thread sleeps.
        """
        self.changed = False
        state = self._state
        if (
            state.waiting.count
            or state.status is not Status.OPEN
            or state.credit == 1
            or state.tasks_per_worker is not None
        ):
            # Where an item cannot be reclaimed, or where they are counted, a second one at the
            # same moment would do harm.
            self._direct_calls.open([])
        else:
            processes = self._workers.processes
            idle = itertools.islice(reversed(state.slots.idle), MOST_OPEN)
            self._direct_calls.open(
                [processes[slot.worker] for slot in idle if slot.worker in processes]
            )
        self.wants_wakeup = bool(self._direct_calls.open_workers) or state.can_act

    def gone(self) -> bool:
        """Return True if no process is left, nor one that is being started."""
        return not self._workers.processes and not self._workers.starting

    def close(self) -> None:
        """Take nothing more."""
        self.closed = True

    def _close(self, _action: st.PoolClosed) -> None:
        self.closed = True
