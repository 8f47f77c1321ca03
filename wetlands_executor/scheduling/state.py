"""The pool's decisions: ``PoolState.handle(event) -> [action, ...]``, and nothing else.

Everything that decides which worker gets which item, which worker starts, stops or is replaced,
and when the pool is closed, lives in this folder. It is pure: no thread, clock, descriptor, future
or logging. The pool turns what happens into events, feeds them one at a time from one thread, and
performs the actions in their order.

An **item** is any object of a class derived from ``Item``; its ``place`` belongs to this folder:
None (unknown or settled), ``WAITING``, or the ``Slot`` that holds it. A **slot** is a place for one
worker process; an **incarnation** is the process in it, named by a number that is never used twice,
so that late events of a dead process are recognised.

How an item moves::

    Submitted -> waiting --Dispatch--> held by a slot --ItemsFinished--> gone
                   ^  |                   |  |
                   |  +--Cancelled        |  +--WorkerExited: the one that had started -> Lost
                   +----- Reclaimed, or WorkerExited and not started ----+

How a slot moves (``phases.py`` has the table)::

    EMPTY -StartWorker-> STARTING -WorkerReady-> READY -StopWorker-> STOPPING -WorkerExited-+
      ^                      |                     +---KillWorker--> DYING ---WorkerExited--+
      +----------------------|--------------------------------------------------------------+
                             +--WorkerExited: a failed start; see restarts.py

*Credit* is the number of items that a slot may hold before the first has finished. More than one
keeps a worker busy while the host decides, and is allowed only where the host can reclaim unstarted
items: else a short item could wait behind a long one, and a crash would cost items that never ran.

Guarantee: an illegal event (of an item that its worker does not hold, a phase that cannot follow)
raises before anything is changed. Late events of a worker that is gone are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wetlands_executor.scheduling.ahead import dry, give_ahead, mixed, unpark
from wetlands_executor.scheduling.messages import (
    WAITING,
    Action,
    Broken,
    CancelAnswered,
    Cancelled,
    CancelRequested,
    DeathReport,
    Dispatch,
    Event,
    InitializerFailed,
    Item,
    ItemsFinished,
    KillAnswered,
    KillIfRunning,
    KillRequested,
    KillWorker,
    LaunchRequested,
    Lost,
    ManyCancelsRequested,
    PoolClosed,
    Reclaim,
    Reclaimed,
    ReclaimRequested,
    Released,
    Reserved,
    RestartDue,
    RetireRequested,
    Retried,
    SendCancel,
    SentDirectly,
    SetRestartTimer,
    ShutdownRequested,
    StartFailed,
    StartWorker,
    StopWorker,
    Submitted,
    TerminateRequested,
    WaitBegan,
    WaitEnded,
    WorkerExited,
    WorkerReady,
)
from wetlands_executor.scheduling.phases import STATUS_MOVES, EndKind, Phase, Status, moved
from wetlands_executor.scheduling.restarts import Restarts
from wetlands_executor.scheduling.retry import forgives_loss
from wetlands_executor.scheduling.slots import Slot, Slots
from wetlands_executor.scheduling.waiting import WaitingItems

#: Items that a slot may hold where they can be reclaimed. 64 keeps a worker busy for the 100 us
#: that a refill takes.
CREDIT = 64
#: Items that it may hold if it finishes them before the I/O thread refills it: while a thread of
#: the program computes, that takes 5 ms (``sys.getswitchinterval``). No more fit into a pipe of 64
#: KB.
MOST_CREDIT = 512


class PoolState:
    """Which items wait, which run, and what has to be done.

    Args:
        max_workers: number of slots.
        credit: items that a slot may hold; 1 where unstarted items cannot be reclaimed.
        most_credit: what that grows to for a worker whose items are so short that it runs dry; None
            is no growth.
        tasks_per_worker: items after which an incarnation is replaced; None is no limit.
    """

    def __init__(
        self,
        max_workers: int,
        *,
        credit: int = CREDIT,
        most_credit: int | None = None,
        tasks_per_worker: int | None = None,
    ) -> None:
        self.max_workers = max_workers
        self.credit = credit
        self.most_credit = most_credit or credit
        self.tasks_per_worker = tasks_per_worker
        self.status = Status.OPEN
        self.end = EndKind.FINISH  # it only grows
        self.waiting = WaitingItems()
        # Items that will be submitted when their dependencies are ready.
        self.reserved = 0
        self.slots = Slots(max_workers)
        self._restarts = Restarts()
        self._broken_worker = 0
        self._broken_report: DeathReport | None = None
        # Items for whose Reclaim a cancellation waits, in the order of the requests.
        self._cancelling: dict[Item, None] = {}
        # Items whose worker is to be ended -> whether they may be run again.
        self._killing: dict[Item, bool] = {}

    # --- the entry point

    def handle(self, event: Event) -> list[Action]:
        """Take one event and return what has to be done, in order.

        Raises:
            IllegalMove, KeyError: the event is illegal; nothing has changed.
        """
        actions: list[Action] = []
        _HANDLERS[type(event)](self, event, actions)
        for slot in self.slots.level() if len(self.slots.all) > self.max_workers else ():
            self._stop(slot, actions)
        return actions

    @property
    def can_act(self) -> bool:
        """True if a new item would lead to an action now; else it waits, and wakes no thread."""
        slots = self.slots
        if slots.idle or self.over:
            return True
        if not self._restarts.held and slots.unparked < self.max_workers:
            return True
        if len(self.waiting.queues) > 1 and self.slots.mixed(self.waiting.priorities() | {0}):
            return True
        return dry(slots)

    @property
    def over(self) -> bool:
        """True if nothing more is started, and nothing that has failed is run again."""
        return self.end > EndKind.FINISH or self.status is Status.CLOSED

    def items(self) -> list[Item]:
        """Return all items that wait or are held."""
        found = [item for queue in self.waiting.queues.values() for item in queue]
        return found + [item for slot in self.slots.all for item in slot.held]

    def abandon(self) -> None:
        """Close the pool as it stands: its thread has failed, and feeds no event any more."""
        if self.status is not Status.CLOSED:
            self.status = moved(STATUS_MOVES, self.status, Status.CLOSED)

    # --- events: items

    def _submitted(self, event: Submitted, out: list[Action]) -> None:
        if event.front:
            self.waiting.append_left(event.items)
        else:
            self.waiting.append(event.items)
        if self.over:
            self._refuse(out)
        else:
            self._schedule(out)

    def _refuse(self, out: list[Action]) -> None:
        """Settle what arrived when nothing more is started.

        Race: a thread submitted before it could observe the end, or the worker of a chunk died.
        """
        items = self.waiting.take_all()
        if items and self.end is EndKind.BREAK:
            out.append(Broken(items, self._broken_worker, self._broken_report))
        elif items:
            late = self.status is Status.CLOSED and self.end < EndKind.KILL
            out.append(Cancelled(items, refused=late))

    def _sent_directly(self, event: SentDirectly, out: list[Action]) -> None:
        slot = self.slots.by_worker[event.worker]
        crowded = bool(slot.held)
        slot.give((event.item,))
        if crowded and self.credit > 1:
            # Race: it was given something else at the same moment. Another worker may be idle, and
            # the quota may be exceeded.
            _reclaim(slot, self.credit, out)

    def _items_finished(self, event: ItemsFinished, out: list[Action]) -> None:
        slot = self.slots.by_worker[event.worker]
        stops = slot.finish(event.items, self.most_credit)
        if slot.waits and self.slots.parents[slot].place is not slot:
            self.slots.resume(slot)
        if self._restarts.failures:
            self._restarts.forgive()
        if self._killing:
            for item in event.items:
                self._killing.pop(item, None)
        if self._cancelling:
            for item in event.items:
                if item in self._cancelling:
                    del self._cancelling[item]
                    out.append(CancelAnswered(item, False))
        if stops:
            self._stop(slot, out)
        if self.waiting.count:
            # Order: refill when half the credit is used up, so that one write carries many frames.
            if len(slot.held) * 2 <= slot.credit:
                self._schedule(out)
        elif self.slots.idle:
            self._balance(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _reclaimed(self, event: Reclaimed, out: list[Action]) -> None:
        slot = self.slots.by_worker.get(event.worker)
        if slot is None:
            return
        self._requeue(slot, event.items, out)
        slot.end_reclaim()
        for item in [item for item in self._cancelling if item.place is slot]:
            # It was not among what came back: the worker has taken it.
            del self._cancelling[item]
            out.append(SendCancel(event.worker, item))
            out.append(CancelAnswered(item, False))
        self._ask_to_kill(slot, out)
        if slot.rest():
            self._stop(slot, out)
        self._schedule(out)
        if event.items or slot in self.slots.idle:
            # An empty answer of a busy worker must not make it be asked again at once: its results
            # are still on the way.
            self._balance(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _requeue(self, slot: Slot, items: Sequence[Item], out: list[Action]) -> None:
        """Let unstarted items wait before the others (they are older); drop what is cancelled."""
        slot.give_back(items)
        back: list[Item] = []
        dropped: list[Item] = []
        answers: list[Action] = []
        for item in items:
            if self._killing.pop(item, True) is False:
                self._cancelling[item] = None
            if item in self._cancelling or self.end > EndKind.FINISH:
                if item in self._cancelling:
                    del self._cancelling[item]
                    answers.append(CancelAnswered(item, True))
                item.leave()
                dropped.append(item)
            else:
                back.append(item)
        self.waiting.append_left(back)
        if dropped and self.end is EndKind.BREAK:
            out.append(Broken(dropped, self._broken_worker, self._broken_report))
        elif dropped:
            out.append(Cancelled(dropped))
        out.extend(answers)  # Order: the thread that is answered observes a cancelled item

    def _cancel_requested(self, event: CancelRequested, out: list[Action]) -> None:
        item = event.item
        place = item.place
        if place is WAITING:
            self.waiting.remove(item)
            out.append(Cancelled([item]))
            out.append(CancelAnswered(item, True))
            if self.status is Status.DRAINING:
                self._drain(out)
            return
        if isinstance(place, Slot):
            item.forgo_retries()
            if self.credit > 1:
                self._cancelling[item] = None
                _reclaim(place, self.credit, out)
                return
            out.append(SendCancel(place.worker, item))
        out.append(CancelAnswered(item, False))

    def _many_cancels_requested(self, event: ManyCancelsRequested, out: list[Action]) -> None:
        for item in event.items:
            self._cancel_requested(CancelRequested(item), out)

    def _reclaim_requested(self, event: ReclaimRequested, out: list[Action]) -> None:
        place = event.item.place
        if isinstance(place, Slot) and self.credit > 1:
            _reclaim(place, self.credit, out)

    def _kill_requested(self, event: KillRequested, out: list[Action]) -> None:
        item = event.item
        place = item.place
        if place is WAITING:
            self._cancel_requested(CancelRequested(item), out)
        elif isinstance(place, Slot):
            # Guarantee: no other item is harmed. First everything that has not started is
            # reclaimed; then nothing but this item can be running.
            self._killing[item] = event.retry
            if self.credit > 1:
                _reclaim(place, self.credit, out)
            else:
                self._ask_to_kill(place, out)

    def _ask_to_kill(self, slot: Slot, out: list[Action]) -> None:
        for item in [item for item in self._killing if item.place is slot]:
            if not self._killing.pop(item):
                item.forgo_retries()
            slot.ask()
            out.append(KillIfRunning(slot.worker, item))

    def _kill_answered(self, event: KillAnswered, out: list[Action]) -> None:
        slot = self.slots.by_worker.get(event.worker)
        if slot is None:
            return
        slot.answered(replace=event.killed)
        if event.killed:
            self._kill(slot, out)
        elif slot.rest():
            self._stop(slot, out)
        self._schedule(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _count_reserved(self, event: Reserved | Released, out: list[Action]) -> None:
        self.reserved += 1 if isinstance(event, Reserved) else -1
        self._drain(out)

    # --- events: tasks inside tasks

    def _wait_began(self, event: WaitBegan, out: list[Action]) -> None:
        slot = self.slots.by_worker.get(event.worker)
        if slot is not None and event.item.place is slot:  # else it has ended meanwhile
            self.slots.wait(slot, event.item)
            if len(slot.held) > 1 and self.credit > 1:
                _reclaim(slot, self.credit, out)
            self._schedule(out)

    def _wait_ended(self, event: WaitEnded, out: list[Action]) -> None:
        slot = self.slots.by_worker.get(event.worker)
        if slot is not None and self.slots.resume(slot):
            self._schedule(out)

    # --- events: workers

    def _launch(self, event: LaunchRequested, out: list[Action]) -> None:
        if self.status is Status.OPEN:
            self._restarts.launch(event.count, self.slots.unparked, self.max_workers)
            self._replace(out)

    def _worker_ready(self, event: WorkerReady, out: list[Action]) -> None:
        slot = self.slots.by_worker.get(event.worker)
        if slot is None or slot.phase is not Phase.STARTING:
            return
        self.slots.move(slot, Phase.READY)
        self._restarts.ready(all_ready=self.slots.ready >= self.max_workers)
        self._replace(out)
        self._schedule(out)
        self._balance(out)

    def _worker_exited(self, event: WorkerExited, out: list[Action]) -> None:
        slots = self.slots
        slot = slots.by_worker.get(event.worker)
        if slot is None:
            return
        self._requeue(slot, event.unstarted, out)
        del slots.by_worker[event.worker]
        lost = list(slot.held)
        for item in lost:
            self._lose(item, event, out)
        phase, replace = slot.phase, slot.replace
        productive = slot.productive or bool(lost) or phase in (Phase.STOPPING, Phase.DYING)
        slots.empty(slot)
        restarts = self._restarts
        if self.end >= EndKind.KILL:
            self._refuse(out)
        else:
            if phase is Phase.READY or replace or (phase is Phase.STARTING and restarts.launching):
                restarts.replace()
            if not productive:
                self._start_failed(event, out)
            elif not slots.by_worker:
                restarts.last_worker_gone()
            self._replace(out)
        self._schedule(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _lose(self, item: Item, event: WorkerExited, out: list[Action]) -> None:
        """Decide about an item that had started in a worker that is gone."""
        self._killing.pop(item, None)
        if item in self._cancelling:
            del self._cancelling[item]
            out.append(CancelAnswered(item, False))
        if forgives_loss(item.retries_left, over=self.over):
            item.use_retry()
            self.waiting.append_left((item,))
            out.append(Retried(item, event.worker))
        else:
            item.leave()
            self.reserved += item.asks_whether_retried
            out.append(Lost(item, event.worker, event.report))

    def _start_failed(self, event: WorkerExited, out: list[Action]) -> None:
        """Return the actions after the end of a worker that had done nothing useful."""
        found = self._restarts.failed(
            final=event.final,
            others_start=self.slots.starting > 0,
            others_ready=self.slots.ready > 0,
        )
        if found.given_up:
            items = [] if self.slots.ready else self.waiting.take_all()
            out.append(StartFailed(items, event.worker, event.report))
        if found.delay is not None:
            out.append(SetRestartTimer(found.delay))

    def _restart_due(self, event: RestartDue, out: list[Action]) -> None:
        self._restarts.due()
        self._replace(out)
        self._schedule(out)

    def _replace(self, out: list[Action]) -> None:
        restarts = self._restarts
        if restarts.replacements and self.status is Status.OPEN and not restarts.held:
            self._start(self.slots.starting + restarts.take_replacements(), out)

    def _initializer_failed(self, event: InitializerFailed, out: list[Action]) -> None:
        slots = self.slots
        if event.worker not in slots.by_worker or self.end is EndKind.BREAK:
            return
        self._begin_to_drain(EndKind.BREAK)
        self._broken_worker = event.worker
        self._broken_report = event.report
        out.append(Broken(self.waiting.take_all(), event.worker, event.report))
        for other in list(slots.by_worker.values()):
            if len(other.held) > 1:
                _reclaim(other, self.credit, out)
            elif not other.held and other.phase is Phase.READY:
                self._stop(other, out)
            elif other.phase is Phase.STARTING:
                self._kill(other, out)

    def _retire_requested(self, event: RetireRequested, out: list[Action]) -> None:
        slot = self.slots.by_worker.get(event.worker)
        if slot is None or slot.phase is not Phase.READY or slot.retiring:
            return
        slot.retire()
        if slot.held and self.credit > 1:
            _reclaim(slot, self.credit, out)
        if slot.rest():
            self._stop(slot, out)

    # --- events: the end

    def _begin_to_drain(self, end: EndKind) -> None:
        if self.status is Status.OPEN:
            self.status = moved(STATUS_MOVES, self.status, Status.DRAINING)
        self.end = max(self.end, end)

    def _shutdown_requested(self, event: ShutdownRequested, out: list[Action]) -> None:
        drop = event.cancel_pending and self.status is not Status.CLOSED
        self._begin_to_drain(EndKind.CANCEL if drop else EndKind.FINISH)
        if drop:
            items = self.waiting.take_all()
            if items:
                out.append(Cancelled(items))
            for slot in list(self.slots.by_worker.values()):
                if len(slot.held) > 0 and self.credit > 1:
                    _reclaim(slot, self.credit, out)
        self._drain(out)

    def _terminate_requested(self, event: TerminateRequested, out: list[Action]) -> None:
        if self.status is Status.CLOSED:
            return
        self._begin_to_drain(EndKind.KILL)
        items = self.waiting.take_all()
        if items:
            out.append(Cancelled(items))
        for slot in list(self.slots.by_worker.values()):
            self._kill(slot, out)
        self._drain(out)

    def _drain(self, out: list[Action]) -> None:
        """Stop what has nothing left to do; close when the last process is gone."""
        if self.status is not Status.DRAINING or self.waiting.count or self.reserved:
            return
        if self.slots.parents and self.end is EndKind.FINISH:
            return  # those will go on, and may submit more: their workers would have to be started
        by_worker = self.slots.by_worker
        for slot in list(by_worker.values()):
            if slot.phase is Phase.READY and not slot.held and not slot.reclaiming:
                self._stop(slot, out)
            elif slot.phase is Phase.STARTING and not any(each.held for each in by_worker.values()):
                # No item can come back from a worker (its death, a reclaim) and need this one.
                self._kill(slot, out)
        if not by_worker:
            self.status = moved(STATUS_MOVES, self.status, Status.CLOSED)
            out.append(PoolClosed())

    # --- dispatch

    def _schedule(self, out: list[Action]) -> None:
        """Give waiting items to workers; start workers if that is not enough.

        One to each idle worker first, then up to the credit.
        """
        if not self.waiting.count or self.end is EndKind.BREAK:
            return
        for slot in self.slots.level() if len(self.slots.all) > self.max_workers else ():
            self._stop(slot, out)
        batches: dict[Slot, list[Item]] = {}
        while self.waiting.count and (self.slots.idle or unpark(self.waiting, self.slots)):
            items = self.waiting.take(1)
            if not items:
                continue  # what stood for many has been emptied meanwhile
            slot = next(reversed(self.slots.idle))
            slot.give(items)
            batches[slot] = items
        if self.waiting.count:
            if self.waiting.nested:
                depth, count = self.waiting.next_nested()
                self._start(count, out, depth)
            self._start(self.waiting.wanted, out)
            if self.credit > 1:
                self._give_ahead(batches, out)
        out.extend(Dispatch(slot.worker, items) for slot, items in batches.items() if items)

    def _give_ahead(self, batches: dict[Slot, list[Item]], out: list[Action]) -> None:
        """Let busy workers hold what waits; see ``ahead.py``."""
        found = mixed(self.waiting, self.slots)
        for slot in found:
            _reclaim(slot, self.credit, out)
        for slot, hand in () if found else give_ahead(self.waiting, self.slots):
            batches.setdefault(slot, []).extend(hand)

    def _balance(self, out: list[Action]) -> None:
        """Nothing waits and a worker is idle: reclaim what another has not started."""
        slots = self.slots
        idle = len(slots.idle)
        if self.credit == 1 or self.waiting.count or not idle or idle == len(slots.by_worker):
            return
        fullest = slots.fullest()
        if len(fullest.held) > 1:
            _reclaim(fullest, self.credit, out)

    # --- processes

    def _start(self, wanted: int, out: list[Action], depth: int = 0) -> None:
        """Start workers until ``wanted`` are starting, or items of a depth have no more room."""
        if self._restarts.held or self.end >= EndKind.KILL or self.status is Status.CLOSED:
            return
        slots = self.slots
        while slots.starting < wanted and slots.room(depth) > 0:
            slot = slots.start(self.tasks_per_worker, self.credit)
            out.append(StartWorker(slot.worker, slot.index))

    def _stop(self, slot: Slot, out: list[Action]) -> None:
        if slot.phase is Phase.READY:
            self.slots.move(slot, Phase.STOPPING)
            out.append(StopWorker(slot.worker))

    def _kill(self, slot: Slot, out: list[Action]) -> None:
        if slot.phase is not Phase.DYING:
            self.slots.move(slot, Phase.DYING)
            out.append(KillWorker(slot.worker))


def _reclaim(slot: Slot, credit: int, out: list[Action]) -> None:
    if not slot.reclaiming:
        slot.begin_reclaim(credit)
        out.append(Reclaim(slot.worker))


def check_invariants(state: PoolState) -> None:
    """Raise AssertionError if the fields of a state contradict each other; for tests."""
    state.waiting.check_invariants()
    state.slots.check_invariants()
    assert len(state.slots.by_worker) <= state.max_workers or len(state.slots.all) > (
        state.max_workers
    )
    for slot in state.slots.all:
        assert len(slot.held) <= state.credit or state.credit > 1
        assert state.credit <= slot.credit <= state.most_credit or slot.phase is Phase.EMPTY
    stalled = state.waiting.count and state.slots.idle and state.end is not EndKind.BREAK
    assert not stalled, "an idle worker while something waits"
    if state.status is Status.CLOSED:
        assert not state.slots.by_worker
        assert not state.waiting.count


#: What takes each type of event.
_HANDLERS: dict[type, Any] = {
    Submitted: PoolState._submitted,
    SentDirectly: PoolState._sent_directly,
    ItemsFinished: PoolState._items_finished,
    Reclaimed: PoolState._reclaimed,
    ReclaimRequested: PoolState._reclaim_requested,
    CancelRequested: PoolState._cancel_requested,
    ManyCancelsRequested: PoolState._many_cancels_requested,
    KillRequested: PoolState._kill_requested,
    KillAnswered: PoolState._kill_answered,
    WaitBegan: PoolState._wait_began,
    WaitEnded: PoolState._wait_ended,
    Reserved: PoolState._count_reserved,
    Released: PoolState._count_reserved,
    LaunchRequested: PoolState._launch,
    WorkerReady: PoolState._worker_ready,
    WorkerExited: PoolState._worker_exited,
    RestartDue: PoolState._restart_due,
    InitializerFailed: PoolState._initializer_failed,
    RetireRequested: PoolState._retire_requested,
    ShutdownRequested: PoolState._shutdown_requested,
    TerminateRequested: PoolState._terminate_requested,
}
