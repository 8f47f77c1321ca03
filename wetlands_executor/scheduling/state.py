"""The pool's decisions: ``PoolState.handle(event) -> [action, ...]``, and nothing else.

Everything that decides which worker gets which item, which worker starts, stops or is replaced, and when the pool is closed, lives in this
file. It is pure: no thread, clock, descriptor, future or logging. The shell (``pool.py``) turns what happens into events, feeds them one at
a time from one thread, and performs the actions in their order.

An **item** is any object of a class derived from ``Item``; its ``place`` belongs to this module: None (unknown or settled), ``WAITING``,
or the ``Slot`` that holds it. A **slot** is a place for one worker process; an **incarnation** is the process in it, named by a number
that is never used twice, so that a late word about a dead process is recognised.

How an item moves::

    Submitted -> waiting --Dispatch--> held by a slot --ItemsFinished--> gone
                   ^  |                   |  |
                   |  +--Cancelled        |  +--WorkerExited: the one that had started -> Lost
                   +----- Reclaimed, or WorkerExited and not started ----+

How a slot moves::

    EMPTY -StartWorker-> STARTING -WorkerReady-> READY -StopWorker-> STOPPING -WorkerExited-> EMPTY
                             |                     +---KillWorker--> DYING ---WorkerExited-> EMPTY
                             +--WorkerExited: a failed start; retried after a delay, three times

*Credit* is the number of items that a slot may hold before the first has finished. More than one keeps a worker busy while the host
decides, and is allowed only where the host can take unstarted items back (``Reclaim``): else a short item could wait behind a long one, and
a crash would cost items that never ran.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

from wetlands_executor.scheduling.messages import (
    ANY,
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
    WorkerExited,
    WorkerReady,
)
from wetlands_executor.scheduling.phases import Phase, Status
from wetlands_executor.scheduling.retry import forgives_loss

#: Items that a slot may hold where they can be taken back. 64 keeps a worker busy for the 100 us that a refill takes.
CREDIT = 64
#: Items that it may hold if it finishes them faster than the host comes round: while a thread of the program computes, that takes 5 ms
#: (``sys.getswitchinterval``). No more fit into a pipe of 64 KB.
MOST_CREDIT = 512
#: Seconds before the second, third, ... try to start a worker after one did not come up.
RESTART_DELAYS = (0.05, 0.25)
#: Tries after which a start that always fails is given up.
START_TRIES = 1 + len(RESTART_DELAYS)


#: Seconds until a start that was given up is tried again, while other workers do the work.
GIVEN_UP_DELAY = 5.0


class Slot:
    """A place for one worker process.

    Attributes:
        index: number of the slot, 0 to max_workers - 1.
        worker: the incarnation, None if EMPTY.
        held: the items given to it and not finished, in the order of dispatch.
        quota: how many more items this incarnation may be given; None is no limit.
        credit: how many it may hold now.
        productive: whether this incarnation has finished or run an item; a death after that is no failed start.
    """

    __slots__ = ("credit", "held", "index", "phase", "productive", "quota", "recalling", "replace", "retiring", "taken", "worker")

    def __init__(self, index: int) -> None:
        self.index = index
        self.worker: int | None = None
        self.phase = Phase.EMPTY
        self.held: dict[Item, None] = {}
        self.quota: int | None = None
        self.credit = 0
        self.productive = False
        # Invariant: while a Reclaim is under way nothing is dispatched to the slot, so that its answer describes what it holds.
        self.recalling = False
        # How many of the first items in `held` its last answer to a Reclaim has left there: the worker has taken them.
        self.taken = 0
        # The process is killed for the sake of one item: the slot gets another one.
        self.replace = False
        # The process is given nothing more, and stops when it holds nothing.
        self.retiring = False


class PoolState:
    """Who waits, who runs, and what to do about it.

    Args:
        max_workers: number of slots.
        credit: items that a slot may hold; 1 where unstarted items cannot be taken back.
        most_credit: what that grows to for a worker whose items are so short that it runs dry; None is no growth.
        tasks_per_worker: items after which an incarnation is replaced; None is no limit.
    """

    def __init__(
        self, max_workers: int, *, credit: int = CREDIT, most_credit: int | None = None, tasks_per_worker: int | None = None
    ) -> None:
        self.max_workers = max_workers
        self.credit = credit
        self.most_credit = most_credit or credit
        self.tasks_per_worker = tasks_per_worker
        self.status = Status.OPEN
        self.broken = False
        self.terminated = False
        # One queue per priority that was ever used, highest first.
        # Invariant: a queue may hold items that were cancelled (place is not WAITING); `waiting_count` counts only the others.
        self.queues: dict[int, deque[Item]] = {0: deque()}
        self.waiting_count = 0
        # Items that will be submitted when their dependencies are ready.
        self.reserved = 0
        self.slots = [Slot(index) for index in range(max_workers)]
        self.by_worker: dict[int, Slot] = {}
        # Slots in phase READY that hold nothing and are not being recalled, most recently idle last.
        self.idle: dict[Slot, None] = {}
        self.starting = 0
        self.ready = 0
        self.next_worker = 1
        self.failures = 0
        # While set, no worker is started: either a restart delay runs, or starting was given up while others still work.
        self.hold_starts = False
        self.timer_set = False
        # Workers that died unexpectedly and have not been replaced yet.
        self.replacements = 0
        # All workers were asked for: those that fail to start are tried again although nothing waits for them.
        self.launching = False
        self.broken_worker = 0
        self.broken_report: DeathReport | None = None
        self._drop_unstarted = False
        # Waiting items that stand for many.
        self._bulks: dict[Item, None] = {}
        self._cancelling: set[Item] = set()
        # Items whose worker is to be ended -> whether they may be run again.
        self._killing: dict[Item, bool] = {}

    # --- the only entrance

    def handle(self, event: Event) -> list[Action]:
        """Take one event and return what has to be done, in order."""
        actions: list[Action] = []
        self._HANDLERS[type(event)](self, event, actions)
        return actions

    @property
    def can_act(self) -> bool:
        """True if a new item would lead to an action now; else it only waits, and nobody has to be woken for it."""
        if self.idle or self.terminated or self.broken or self.status is Status.CLOSED:
            return True
        if not self.hold_starts and len(self.by_worker) < self.max_workers:
            return True
        if len(self.queues) > 1 and self._mixed(self._waiting_priorities() | {0}):
            return True
        # As long as half the credit is used, the next results come before the worker runs dry, and with them the refill.
        return any(len(slot.held) * 2 < slot.credit and self._room(slot) > 0 for slot in self.by_worker.values())

    # --- events

    def _submitted(self, event: Submitted, out: list[Action]) -> None:
        if event.front:
            self._append_left(event.items)
        else:
            self._append(event.items)
        if self.broken or self.status is Status.CLOSED or self.terminated:
            self._refuse(out)
            return
        self._schedule(out)

    def _append(self, items: Sequence[Item]) -> None:
        plain = self.queues[0]
        for item in items:
            item.place = WAITING
            if item.many:
                self._bulks[item] = None
            if item.priority:
                self._queue_of(item).append(item)
            else:
                plain.append(item)
        self.waiting_count += len(items)

    def _append_left(self, items: Sequence[Item]) -> None:
        for item in reversed(items):
            item.place = WAITING
            if item.many:
                self._bulks[item] = None
            self._queue_of(item).appendleft(item)
        self.waiting_count += len(items)

    def _queue_of(self, item: Item) -> deque[Item]:
        queue = self.queues.get(item.priority)
        if queue is None:
            self.queues[item.priority] = queue = deque()
            self.queues = dict(sorted(self.queues.items(), reverse=True))
        return queue

    def _refuse(self, out: list[Action]) -> None:
        """Settle what arrived after the end (the executor refuses it; this is the race between both)."""
        items = self._take_waiting()
        if items:
            refused = Cancelled(items, refused=not self.terminated)
            out.append(Broken(items, self.broken_worker, self.broken_report) if self.broken else refused)

    def _sent_directly(self, event: SentDirectly, out: list[Action]) -> None:
        slot = self.by_worker[event.worker]
        crowded = bool(slot.held)
        self._give(slot, event.item)
        if crowded and self.credit > 1:
            # Race: it was given something else at the same moment. Another worker may be idle, and the quota may be exceeded.
            self._recall(slot, out)

    def _launch(self, event: LaunchRequested, out: list[Action]) -> None:
        if self.status is Status.OPEN and not self.broken:
            if event.count is None:
                self.launching = True
                self.replacements = self.max_workers - len(self.by_worker)
            else:
                self.replacements = max(self.replacements, event.count - len(self.by_worker))
            self._replace(out)

    def _worker_ready(self, event: WorkerReady, out: list[Action]) -> None:
        slot = self.by_worker.get(event.worker)
        if slot is None or slot.phase is not Phase.STARTING:
            return
        self.starting -= 1
        self.ready += 1
        # `failures` is not forgiven yet: a worker may come up and die before it has done anything, again and again.
        self.hold_starts = self.timer_set
        if self.ready == self.max_workers:
            self.launching = False
        slot.phase = Phase.READY
        self.idle[slot] = None
        self._replace(out)
        self._schedule(out)
        self._balance(out)

    def _items_finished(self, event: ItemsFinished, out: list[Action]) -> None:
        slot = self.by_worker[event.worker]
        held = slot.held
        for item in event.items:
            del held[item]
            item.place = None
        slot.taken = max(0, slot.taken - len(event.items))
        if self._killing:
            for item in event.items:
                self._killing.pop(item, None)
        slot.productive = True
        self.failures = 0
        if self._cancelling:
            for item in event.items:
                if item in self._cancelling:
                    self._cancelling.discard(item)
                    out.append(CancelAnswered(item, False))
        self._rest(slot, out)
        if len(event.items) * 2 >= slot.credit and slot.credit < self.most_credit:
            # It has finished half of all that it may hold before the host came round: it would run dry.
            slot.credit = min(slot.credit * 2, self.most_credit)
        if self.waiting_count:
            # Order: refill when half the credit is used up, so that one write carries many frames.
            if len(held) * 2 <= slot.credit:
                self._schedule(out)
        elif self.idle:
            self._balance(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _recalled(self, event: Reclaimed, out: list[Action]) -> None:
        slot = self.by_worker.get(event.worker)
        if slot is None:
            return
        slot.recalling = False
        self._take_back(slot, event.items, out)
        slot.taken = len(slot.held)
        for item in [item for item in self._cancelling if item.place is slot]:
            # It was not among what came back: the worker has taken it.
            self._cancelling.discard(item)
            out.append(SendCancel(event.worker, item))
            out.append(CancelAnswered(item, False))
        self._ask_to_kill(slot, out)
        self._rest(slot, out)
        self._schedule(out)
        if event.items or slot in self.idle:
            # An empty answer of a busy worker must not make it be asked again at once: its results are still on the way.
            self._balance(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _rest(self, slot: Slot, out: list[Action]) -> None:
        """Note that a slot with nothing to do is idle, or stop it if it has done its share."""
        if slot.held or slot.recalling or slot.phase is not Phase.READY:
            return
        if slot.retiring or (slot.quota is not None and slot.quota <= 0):
            self._stop(slot, out)
        else:
            self.idle[slot] = None

    def _take_back(self, slot: Slot, items: Sequence[Item], out: list[Action]) -> None:
        """Put unstarted items in front of those that wait (they are older), dropping what is to be cancelled."""
        back: list[Item] = []
        dropped: list[Item] = []
        answers: list[Action] = []
        for item in items:
            del slot.held[item]
            if slot.quota is not None:
                slot.quota += 1
            if self._killing.pop(item, True) is False:
                self._cancelling.add(item)
            if item in self._cancelling or self._dropping:
                if item in self._cancelling:
                    self._cancelling.discard(item)
                    answers.append(CancelAnswered(item, True))
                item.place = None
                dropped.append(item)
            else:
                item.place = WAITING
                back.append(item)
        for item in reversed(back):
            self._queue_of(item).appendleft(item)
        self.waiting_count += len(back)
        if dropped:
            out.append(Broken(dropped, self.broken_worker, self.broken_report) if self.broken else Cancelled(dropped))
        out.extend(answers)  # Order: who hears that an item is cancelled finds it cancelled

    @property
    def ending(self) -> bool:
        """True if nothing that has failed is run again."""
        return self._dropping or self.terminated or self.broken or self.status is Status.CLOSED

    @property
    def _dropping(self) -> bool:
        return self.status is not Status.OPEN and self._drop_unstarted

    def _worker_exited(self, event: WorkerExited, out: list[Action]) -> None:
        slot = self.by_worker.pop(event.worker, None)
        if slot is None:
            return
        phase = slot.phase
        if phase is Phase.STARTING:
            self.starting -= 1
        elif phase is Phase.READY:
            self.ready -= 1
        self.idle.pop(slot, None)
        slot.recalling = False
        self._take_back(slot, event.unstarted, out)
        lost = list(slot.held)
        for item in lost:
            item.place = None
            self._killing.pop(item, None)
            if item in self._cancelling:
                self._cancelling.discard(item)
                out.append(CancelAnswered(item, False))
            if forgives_loss(item.tries, ending=self.ending):
                item.tries -= 1
                item.place = WAITING
                self._queue_of(item).appendleft(item)
                self.waiting_count += 1
                out.append(Retried(item, event.worker))
            else:
                self.reserved += item.asks
                out.append(Lost(item, event.worker, event.report))
        productive = slot.productive or bool(lost) or phase in (Phase.STOPPING, Phase.DYING)
        slot.held.clear()
        slot.worker = None
        slot.phase = Phase.EMPTY
        slot.quota = None
        slot.productive = False
        slot.taken = 0
        replace, slot.replace = slot.replace, False
        slot.retiring = False
        if self.terminated or self.broken:
            self._refuse(out)
        else:
            if phase is Phase.READY or replace or (phase is Phase.STARTING and self.launching):
                self.replacements += 1  # it died unexpectedly: it is replaced, whether or not something waits
            if not productive:
                self._failed_start(event, out)
            elif not self.by_worker and (self.failures >= START_TRIES or (self.hold_starts and not self.timer_set)):
                # Starting more was given up while others worked; now there is no other. Or it was left to a worker that was starting, and that one
                # was ended by a shutdown before it could decide anything.
                self.hold_starts = False
                self.failures = 0
            self._replace(out)
        self._schedule(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _failed_start(self, event: WorkerExited, out: list[Action]) -> None:
        """A worker ended before it did anything useful. Three tries with growing delays, then what waits is told why."""
        self.failures += 1
        if not event.final and self.failures < START_TRIES:
            self.hold_starts = True
            if not self.timer_set:
                self.timer_set = True
                out.append(SetRestartTimer(RESTART_DELAYS[self.failures - 1]))
            return
        self.failures = START_TRIES
        self.hold_starts = True
        if self.starting:
            return  # their outcome decides
        self.replacements = 0
        self.launching = False
        if not self.ready:
            # Nobody is left who could do it. The next item that is submitted is a reason to try again.
            self.hold_starts = False
            self.failures = 0
            out.append(StartFailed(self._take_waiting(), event.worker, event.report))
            return
        # Others do the work meanwhile; whoever waits for all workers is told, and it is tried again later.
        out.append(StartFailed([], event.worker, event.report))
        if not self.timer_set:
            self.timer_set = True
            out.append(SetRestartTimer(GIVEN_UP_DELAY))

    def _restart_due(self, event: RestartDue, out: list[Action]) -> None:
        self.timer_set = False
        self.hold_starts = False
        if self.failures >= START_TRIES:
            self.failures = 0
        self._replace(out)
        self._schedule(out)

    def _replace(self, out: list[Action]) -> None:
        if self.replacements and self.status is Status.OPEN and not self.hold_starts:
            wanted = self.starting + self.replacements
            self.replacements = 0
            self._start(wanted, out)

    def _initializer_failed(self, event: InitializerFailed, out: list[Action]) -> None:
        slot = self.by_worker.get(event.worker)
        if slot is None or self.broken:
            return
        self.broken = True
        self.broken_worker = event.worker
        self.broken_report = event.report
        out.append(Broken(self._take_waiting(), event.worker, event.report))
        self.status = Status.DRAINING if self.status is Status.OPEN else self.status
        self._drop_unstarted = True
        for other in list(self.by_worker.values()):
            if len(other.held) > 1:
                self._recall(other, out)
            elif not other.held and other.phase is Phase.READY:
                self._stop(other, out)
            elif other.phase is Phase.STARTING:
                self._kill(other, out)

    def _retire_requested(self, event: RetireRequested, out: list[Action]) -> None:
        slot = self.by_worker.get(event.worker)
        if slot is None or slot.phase is not Phase.READY or slot.retiring:
            return
        slot.retiring = slot.replace = True
        self.idle.pop(slot, None)
        if slot.held and self.credit > 1:
            self._recall(slot, out)
        self._rest(slot, out)

    def _cancel_requested(self, event: CancelRequested, out: list[Action]) -> None:
        item = event.item
        place = item.place
        if place is WAITING:
            item.place = None
            self.waiting_count -= 1
            self._bulks.pop(item, None)
            if not self.waiting_count:
                self._clear_queues()
            out.append(Cancelled([item]))
            out.append(CancelAnswered(item, True))
            if self.status is Status.DRAINING:
                self._drain(out)
        elif isinstance(place, Slot):
            item.tries = 0
            self._cancelling.add(item)
            if self.credit > 1:
                self._recall(place, out)
            else:
                self._cancelling.discard(item)
                assert place.worker is not None
                out.append(SendCancel(place.worker, item))
                out.append(CancelAnswered(item, False))
        else:
            out.append(CancelAnswered(item, False))

    def _many_cancels_requested(self, event: ManyCancelsRequested, out: list[Action]) -> None:
        for item in event.items:
            self._cancel_requested(CancelRequested(item), out)

    def _recall_requested(self, event: ReclaimRequested, out: list[Action]) -> None:
        place = event.item.place
        if isinstance(place, Slot) and self.credit > 1:
            self._recall(place, out)

    def _kill_requested(self, event: KillRequested, out: list[Action]) -> None:
        item = event.item
        place = item.place
        if place is WAITING:
            self._cancel_requested(CancelRequested(item), out)
        elif isinstance(place, Slot):
            # Guarantee: nobody else is harmed. First everything that has not started is taken back; then nothing but this item can be running.
            self._killing[item] = event.retry
            if self.credit > 1:
                self._recall(place, out)
            else:
                self._ask_to_kill(place, out)

    def _ask_to_kill(self, slot: Slot, out: list[Action]) -> None:
        for item in [item for item in self._killing if item.place is slot]:
            retry = self._killing.pop(item)
            if not retry:
                item.tries = 0
            slot.recalling = True  # nothing new until the answer
            self.idle.pop(slot, None)
            out.append(KillIfRunning(_worker(slot), item))

    def _kill_answered(self, event: KillAnswered, out: list[Action]) -> None:
        slot = self.by_worker.get(event.worker)
        if slot is None:
            return
        slot.recalling = False
        if event.killed:
            slot.replace = True
            self._kill(slot, out)
        else:
            self._rest(slot, out)
        self._schedule(out)
        if self.status is Status.DRAINING:
            self._drain(out)

    def _reserve(self, event: Reserved, out: list[Action]) -> None:
        self.reserved += 1

    def _release(self, event: Released, out: list[Action]) -> None:
        self.reserved -= 1
        self._drain(out)

    def _shutdown_requested(self, event: ShutdownRequested, out: list[Action]) -> None:
        if self.status is Status.OPEN:
            self.status = Status.DRAINING
        if event.cancel_pending and self.status is Status.DRAINING:
            self._drop_unstarted = True
            items = self._take_waiting()
            if items:
                out.append(Cancelled(items))
            for slot in list(self.by_worker.values()):
                if len(slot.held) > 0 and self.credit > 1:
                    self._recall(slot, out)
        self._drain(out)

    def _terminate_requested(self, event: TerminateRequested, out: list[Action]) -> None:
        if self.status is Status.CLOSED:
            return
        self.status = Status.DRAINING
        self.terminated = True
        self._drop_unstarted = True
        items = self._take_waiting()
        if items:
            out.append(Cancelled(items))
        for slot in list(self.by_worker.values()):
            self._kill(slot, out)
        self._drain(out)

    # --- moves

    def _room(self, slot: Slot) -> int:
        """Return how many more items the slot may be given."""
        if slot.phase is not Phase.READY or slot.recalling or slot.retiring:
            return 0
        room = max(0, slot.credit - len(slot.held))
        return room if slot.quota is None else max(0, min(room, slot.quota))

    def _give(self, slot: Slot, item: Item) -> None:
        item.place = slot
        if not slot.held:
            self.idle.pop(slot, None)
        slot.held[item] = None
        if slot.quota is not None:
            slot.quota -= 1

    def _ahead(self) -> int:
        """Return how many items a worker may hold if it gets what comes next."""
        return next((item.ahead for queue in self.queues.values() for item in queue if item.place is WAITING), ANY)

    def _next_items(self, count: int, ahead: int = 0) -> list[Item]:
        """Take up to ``count`` of the items that wait, oldest first; an item that stands for many gives parts of itself.

        An item of which workers may hold fewer than ``ahead`` is left where it is: ``count`` was made for others.
        """
        found: list[Item] = []
        taken = 0
        for queue in self.queues.values():
            while queue and len(found) < count:
                item = queue[0]
                if item.place is not WAITING:
                    queue.popleft()
                    continue
                if item.ahead < ahead:
                    count = 0
                    break
                part = item.split() if item.many else item
                if part is not None:
                    found.append(part)
                if not item.many or item.exhausted:
                    queue.popleft()
                    taken += 1
                    item.place = None
                    if item.many:
                        self._bulks.pop(item, None)
        self.waiting_count -= taken
        return found

    def _take_waiting(self) -> list[Item]:
        items = [item for queue in self.queues.values() for item in queue if item.place is WAITING]
        for item in items:
            item.place = None
        self._clear_queues()
        self.waiting_count = 0
        return items

    def _clear_queues(self) -> None:
        for queue in self.queues.values():
            queue.clear()
        self._bulks.clear()

    def _schedule(self, out: list[Action]) -> None:
        """Give waiting items to workers: one to each idle worker first, then up to the credit; start workers if that is not enough."""
        if not self.waiting_count or self.broken:
            return
        batches: dict[Slot, list[Item]] = {}
        while self.waiting_count and self.idle:
            items = self._next_items(1)
            if not items:
                continue  # what stood for many has been emptied meanwhile
            slot = next(reversed(self.idle))
            self._give(slot, items[0])
            batches[slot] = items
        if self.waiting_count:
            self._start(self._wanted(), out)
            if self.credit > 1:
                self._give_ahead(batches, out)
        out.extend(Dispatch(_worker(slot), items) for slot, items in batches.items() if items)

    def _give_ahead(self, batches: dict[Slot, list[Item]], out: list[Action]) -> None:
        """Let busy workers hold what waits, if all that waits and all that they hold ahead is of one priority.

        A lower item that was given out ahead would run before a higher one that waits. A higher one could wait behind
        what runs on its worker, while another worker that becomes free runs a lower one.
        """
        if len(self.queues) > 1:
            waiting = self._waiting_priorities()
            mixed = self._mixed(waiting)
            for slot in mixed:
                self._recall(slot, out)
            if mixed or len(waiting) > 1:
                return
        self._fill(batches, out)

    def _waiting_priorities(self) -> set[int]:
        return {priority for priority, queue in self.queues.items() if any(item.place is WAITING for item in queue)}

    def _mixed(self, priorities: set[int]) -> list[Slot]:
        """Return the slots that were given ahead an item whose priority is not the only one of ``priorities``.

        What a worker had taken when it answered a recall is not counted: its results are on the way, and to ask for it again
        at once would go on until they arrive.
        """
        return [slot for slot in self.by_worker.values() if _holds_other_ahead(slot, priorities)]

    def _wanted(self) -> int:
        """Return how many workers what waits could use."""
        return self.waiting_count + sum(item.left - 1 for item in self._bulks)

    def _fill(self, batches: dict[Slot, list[Item]], out: list[Action]) -> None:
        """Deal what waits to workers with room, one each in turn, so that items start about in their order.

        While workers are starting nothing is given out ahead: they are to take what comes first in the queue.
        """
        if self.starting:
            return
        ahead = self._ahead()
        slots = [slot for slot in sorted(self.by_worker.values(), key=_load) if self._room(slot) > 0 and len(slot.held) < ahead]
        rooms = [min(self._room(slot), ahead - len(slot.held)) for slot in slots]
        items = self._next_items(sum(rooms), ahead)
        if len(slots) == 1:  # the usual case: one worker has used up half of what it had
            self._give_all(slots[0], items, batches)
            return
        hands: list[list[Item]] = [[] for _ in slots]
        position = 0
        while position < len(items):
            for turn, hand in enumerate(hands):
                if rooms[turn] and position < len(items):
                    rooms[turn] -= 1
                    hand.append(items[position])
                    position += 1
        for slot, hand in zip(slots, hands, strict=True):
            self._give_all(slot, hand, batches)

    def _give_all(self, slot: Slot, items: list[Item], batches: dict[Slot, list[Item]]) -> None:
        """Let a worker hold these items, and note them for its dispatch."""
        if not items:
            return
        for item in items:
            item.place = slot
        self.idle.pop(slot, None)
        slot.held.update(dict.fromkeys(items))
        if slot.quota is not None:
            slot.quota -= len(items)
        batches.setdefault(slot, []).extend(items)

    def _balance(self, out: list[Action]) -> None:
        """Nothing waits and a worker is idle: take back what another has not started."""
        if self.credit == 1 or self.waiting_count or not self.idle or len(self.idle) == len(self.by_worker):
            return
        fullest = max(self.by_worker.values(), key=lambda slot: len(slot.held) if not slot.recalling else 0)
        if len(fullest.held) > 1 and not fullest.recalling:
            self._recall(fullest, out)

    def _recall(self, slot: Slot, out: list[Action]) -> None:
        if not slot.recalling and slot.worker is not None:
            slot.recalling = True
            slot.credit = self.credit  # what it was given ahead is wanted elsewhere
            self.idle.pop(slot, None)
            out.append(Reclaim(slot.worker))

    def _start(self, wanted: int, out: list[Action]) -> None:
        """Start workers until ``wanted`` are starting or the slots are used up."""
        if self.hold_starts or self.terminated or self.broken or self.status is Status.CLOSED:
            return
        while self.starting < wanted and len(self.by_worker) < self.max_workers:
            slot = next(slot for slot in self.slots if slot.phase is Phase.EMPTY)
            slot.worker = self.next_worker
            self.next_worker += 1
            slot.phase = Phase.STARTING
            slot.quota = self.tasks_per_worker
            slot.credit = self.credit
            self.by_worker[slot.worker] = slot
            self.starting += 1
            out.append(StartWorker(slot.worker, slot.index))

    def _stop(self, slot: Slot, out: list[Action]) -> None:
        if slot.phase is Phase.READY:
            self.ready -= 1
            self.idle.pop(slot, None)
            slot.phase = Phase.STOPPING
            out.append(StopWorker(_worker(slot)))

    def _kill(self, slot: Slot, out: list[Action]) -> None:
        if slot.phase in (Phase.DYING, Phase.EMPTY):
            return
        if slot.phase is Phase.READY:
            self.ready -= 1
        elif slot.phase is Phase.STARTING:
            self.starting -= 1
        self.idle.pop(slot, None)
        slot.phase = Phase.DYING
        out.append(KillWorker(_worker(slot)))

    def _drain(self, out: list[Action]) -> None:
        """Stop what has nothing left to do; close when the last process is gone."""
        if self.status is not Status.DRAINING:
            return
        if not self.waiting_count and not self.reserved:
            for slot in list(self.by_worker.values()):
                if slot.phase is Phase.READY and not slot.held and not slot.recalling:
                    self._stop(slot, out)
                elif slot.phase is Phase.STARTING and not self._might_return():
                    self._kill(slot, out)
            if not self.by_worker:
                self.status = Status.CLOSED
                out.append(PoolClosed())

    def _might_return(self) -> bool:
        """True if items could still come back from a worker (its death, a recall) and need another one."""
        return any(slot.held for slot in self.by_worker.values())

    # --- for tests

    def check_invariants(self) -> None:
        """Raise AssertionError if the fields contradict each other."""
        assert self.waiting_count == sum(item.place is WAITING for queue in self.queues.values() for item in queue)
        assert set(self._bulks) == {item for queue in self.queues.values() for item in queue if item.many and item.place is WAITING}
        assert self.starting == sum(slot.phase is Phase.STARTING for slot in self.slots)
        assert self.ready == sum(slot.phase is Phase.READY for slot in self.slots)
        assert set(self.by_worker.values()) == {slot for slot in self.slots if slot.phase is not Phase.EMPTY}
        assert all(slot.worker == worker for worker, slot in self.by_worker.items())
        assert len(self.by_worker) <= self.max_workers
        free = {slot for slot in self.slots if slot.phase is Phase.READY and not slot.held and not slot.recalling}
        assert set(self.idle) == free, "idle slots"
        for slot in self.slots:
            assert all(item.place is slot for item in slot.held)
            assert len(slot.held) <= self.credit or self.credit > 1
            assert self.credit <= slot.credit <= self.most_credit or slot.worker is None
            assert slot.phase is not Phase.EMPTY or not slot.held
        assert not (self.waiting_count and self.idle and not self.broken), "an idle worker while something waits"
        if self.status is Status.CLOSED:
            assert not self.by_worker
            assert not self.waiting_count

    _HANDLERS: ClassVar[dict[type, Any]] = {
        Submitted: _submitted,
        SentDirectly: _sent_directly,
        LaunchRequested: _launch,
        WorkerReady: _worker_ready,
        ItemsFinished: _items_finished,
        Reclaimed: _recalled,
        WorkerExited: _worker_exited,
        InitializerFailed: _initializer_failed,
        RetireRequested: _retire_requested,
        CancelRequested: _cancel_requested,
        ManyCancelsRequested: _many_cancels_requested,
        ReclaimRequested: _recall_requested,
        KillRequested: _kill_requested,
        KillAnswered: _kill_answered,
        Reserved: _reserve,
        Released: _release,
        ShutdownRequested: _shutdown_requested,
        TerminateRequested: _terminate_requested,
        RestartDue: _restart_due,
    }


def _holds_other_ahead(slot: Slot, priorities: set[int]) -> bool:
    ahead = itertools.islice(slot.held, max(1, slot.taken), None)
    return any(len(priorities) > 1 or item.priority not in priorities for item in ahead)


def _load(slot: Slot) -> int:
    return len(slot.held)


def _worker(slot: Slot) -> int:
    assert slot.worker is not None
    return slot.worker
