"""The places for worker processes: what each process holds, its phase, and how many of each.

Pure data of ``PoolState``; decides nothing. Every change of a phase goes through ``Slots``, which
counts. A slot enters itself among the idle ones, and takes itself out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from wetlands_executor.scheduling.messages import Item
from wetlands_executor.scheduling.phases import PHASE_MOVES, IllegalMove, Phase, moved


class Slot:
    """A place for one worker process.

    Args:
        index: its number.
        idle: those of the pool, see ``Slots``.

    Attributes:
        index: number of the slot, 0 to max_workers - 1.
        worker: the incarnation, 0 if EMPTY.
        held: the items given to it and not finished, in the order of dispatch.
        quota: how many more items this incarnation may be given; None is no limit.
        credit: how many it may hold now.
        productive: whether this incarnation has finished or run an item; a death after that is no
            failed start.
        reclaiming: a Reclaim is under way. Invariant: nothing is dispatched to the slot meanwhile,
            so that the answer describes what it holds.
        taken: how many of the first items in ``held`` its last answer to a Reclaim has left there:
            the worker has taken them.
        replace: the process is ended for the sake of one item: the slot gets another one.
        retiring: the process is given nothing more, and stops when it holds nothing.
        waits: its function waits for tasks inside it; see ``Slots.parents``.
    """

    __slots__ = (
        "_idle",
        "credit",
        "held",
        "index",
        "phase",
        "productive",
        "quota",
        "reclaiming",
        "replace",
        "retiring",
        "taken",
        "waits",
        "worker",
    )

    def __init__(self, index: int, idle: dict[Slot, None]) -> None:
        self.index = index
        self._idle = idle
        self.phase = Phase.EMPTY
        self.held: dict[Item, None] = {}
        self.clear()

    def clear(self) -> None:
        """Forget the process."""
        self.worker = 0
        self.held.clear()
        self.quota: int | None = None
        self.credit = 0
        self.productive = False
        self.reclaiming = False
        self.taken = 0
        self.replace = False
        self.retiring = False
        self.waits = False

    def begin(self, worker: int, quota: int | None, credit: int) -> None:
        """Have a new process."""
        self.worker = worker
        self.quota = quota
        self.credit = credit

    def free_credit(self) -> int:
        """Return how many more items it may be given."""
        if self.phase is not Phase.READY or self.reclaiming or self.retiring or self.waits:
            return 0
        free = max(0, self.credit - len(self.held))
        return free if self.quota is None else max(0, min(free, self.quota))

    def move(self, phase: Phase) -> None:
        """Change the phase; for ``Slots.move``, which counts.

        Raises:
            IllegalMove: the phase cannot follow on the present one.
        """
        self.phase = moved(PHASE_MOVES, self.phase, phase)
        if phase is Phase.READY:
            self._idle[self] = None
        else:
            self._idle.pop(self, None)

    def give(self, items: Sequence[Item]) -> None:
        """Hold these items."""
        held = self.held
        if not held:
            self._idle.pop(self, None)
        for item in items:
            item.place = self
            held[item] = None
        if self.quota is not None:
            self.quota -= len(items)

    def finish(self, items: Sequence[Item], most_credit: int) -> bool:
        """Let go of items that have ended; return True if the process is to be stopped.

        Raises:
            IllegalMove: it does not hold one of them.
        """
        held = self.held
        if not all(map(held.__contains__, items)):
            raise IllegalMove(f"worker {self.worker} has ended an item that it does not hold")
        for item in items:
            del held[item]
            item.place = None
        count = len(items)
        self.taken = max(0, self.taken - count)
        self.productive = True
        if count * 2 >= self.credit and self.credit < most_credit:
            # It has finished half of its credit before the I/O thread refilled it: it would run
            # dry.
            self.credit = min(self.credit * 2, most_credit)
        # As `rest` does it, without a further call: every result comes this way.
        if held or self.reclaiming or self.phase is not Phase.READY:
            return False
        stops = self.retiring or (self.quota is not None and self.quota <= 0)
        if not stops:
            self._idle[self] = None
        return stops

    def rest(self) -> bool:
        """Be idle if there is nothing to do; return True if the process is to be stopped."""
        if self.held or self.reclaiming or self.phase is not Phase.READY:
            return False
        stops = self.retiring or (self.quota is not None and self.quota <= 0)
        if not stops:
            self._idle[self] = None
        return stops

    def give_back(self, items: Sequence[Item]) -> None:
        """Let go of items that it has not started.

        Raises:
            IllegalMove: it does not hold one of them.
        """
        if not all(map(self.held.__contains__, items)):
            raise IllegalMove(f"worker {self.worker} gives back an item that it does not hold")
        for item in items:
            del self.held[item]
        if self.quota is not None:
            self.quota += len(items)

    def begin_reclaim(self, credit: int) -> None:
        """Note that a Reclaim is under way."""
        self.reclaiming = True
        self._idle.pop(self, None)
        self.credit = credit  # what it was given ahead is wanted elsewhere

    def end_reclaim(self) -> None:
        """Note the answer to a Reclaim: what it holds now, its worker has taken."""
        self.reclaiming = False
        self.taken = len(self.held)

    def ask(self) -> None:
        """Note that its worker has to answer; nothing is given to it until then."""
        self.reclaiming = True
        self._idle.pop(self, None)

    def answered(self, *, replace: bool) -> None:
        """Note the answer. ``replace``: the process is ended, and replaced."""
        self.reclaiming = False
        self.replace = self.replace or replace

    def retire(self) -> None:
        """Give the process nothing more, and replace it."""
        self.retiring = self.replace = True
        self._idle.pop(self, None)

    def holds_other_ahead(self, priorities: set[int]) -> bool:
        """Return True if it was given ahead an item whose priority is not the only one of these."""
        ahead = itertools.islice(self.held, max(1, self.taken), None)
        return any(len(priorities) > 1 or item.priority not in priorities for item in ahead)


class Slots:
    """All slots of a pool.

    There are as many as the pool may have workers, and further ones for tasks inside tasks: a
    worker whose function waits for such a task does not count as busy for it, so another one may
    take its place (``room``). When there is nothing more to do for that one, it is *parked*: it is
    idle, and only tasks inside tasks may have it, until a worker less is there.

    Bound: of each depth at most ``most`` items are with workers.

    Attributes:
        most: how many workers the pool may have, but for those.
        parents: slots whose function waits for tasks inside it, and the item that it belongs to.
        parked: see above; most recently parked last.
        all: they, by index.
        by_worker: those with a process, by its number.
        idle: those in phase READY that hold nothing and are not being reclaimed, most recently
            idle last.
        starting: how many are in phase STARTING.
        ready: how many are in phase READY.
    """

    __slots__ = (
        "_next_worker",
        "all",
        "by_worker",
        "idle",
        "most",
        "parents",
        "parked",
        "ready",
        "starting",
    )

    def __init__(self, count: int) -> None:
        self.most = count
        self.parents: dict[Slot, Item] = {}
        self.parked: dict[Slot, None] = {}
        self.idle: dict[Slot, None] = {}
        self.all = [Slot(index, self.idle) for index in range(count)]
        self.by_worker: dict[int, Slot] = {}
        self.starting = 0
        self.ready = 0
        self._next_worker = 1

    def move(self, slot: Slot, phase: Phase) -> None:
        """Change the phase of a slot; count.

        Raises:
            IllegalMove: the phase cannot follow on the present one.
        """
        old = slot.phase
        slot.move(phase)
        if phase is not Phase.READY:
            self.parked.pop(slot, None)
        self.starting += (phase is Phase.STARTING) - (old is Phase.STARTING)
        self.ready += (phase is Phase.READY) - (old is Phase.READY)

    def start(self, quota: int | None, credit: int) -> Slot:
        """Return an empty slot with a new number, in phase STARTING."""
        slot = next((slot for slot in self.all if slot.phase is Phase.EMPTY), None)
        if slot is None:
            slot = Slot(len(self.all), self.idle)
            self.all.append(slot)
        self.move(slot, Phase.STARTING)
        slot.begin(self._next_worker, quota, credit)
        self._next_worker += 1
        self.by_worker[slot.worker] = slot
        return slot

    def empty(self, slot: Slot) -> None:
        """The process is gone."""
        self.move(slot, Phase.EMPTY)
        self.parents.pop(slot, None)
        slot.clear()

    # --- tasks inside tasks

    @property
    def unparked(self) -> int:
        """How many processes there are, but for those that are parked."""
        return len(self.by_worker) - len(self.parked)

    def room(self, depth: int) -> int:
        """Return how many more workers items of a depth may have, starting ones included.

        A worker that waits counts for an item as deep as its own, and for those above: so each
        depth has at most ``most`` workers, and the deepest item that has not finished has room, or
        runs. That is why none waits for ever.
        """
        apart = sum(item.depth < depth for item in self.parents.values()) if depth else 0
        return self.most - (self.unparked - apart)

    def wait(self, slot: Slot, item: Item) -> None:
        """The function of an item waits for tasks inside it."""
        self.parents[slot] = item
        slot.waits = True

    def resume(self, slot: Slot) -> bool:
        """It waits no more, or has ended; return False if it did not wait."""
        slot.waits = False
        return self.parents.pop(slot, None) is not None

    def level(self) -> list[Slot]:
        """Park idle slots that are too many, let parked ones be idle where there is room.

        Returns:
            Parked slots that are not worth keeping: there are more than ``most``.
        """
        over = self.unparked - self.most
        while over > 0 and self.idle:
            slot = next(iter(self.idle))
            del self.idle[slot]
            self.parked[slot] = None
            over -= 1
        while over < 0 and self.parked:
            self.unpark()
            over += 1
        return list(itertools.islice(self.parked, max(0, len(self.parked) - self.most)))

    def unpark(self) -> None:
        """Let the slot that was parked last be idle."""
        slot, _ = self.parked.popitem()
        self.idle[slot] = None

    def mixed(self, priorities: set[int]) -> list[Slot]:
        """Return the slots that hold ahead an item whose priority is not the only one of these.

        What a worker had taken when it answered a Reclaim is not counted: its results are on the
        way, and to ask for it again at once would go on until they arrive.
        """
        return [slot for slot in self.by_worker.values() if slot.holds_other_ahead(priorities)]

    def fullest(self) -> Slot:
        """Return the slot that holds most and is not being reclaimed."""
        return max(self.by_worker.values(), key=_reclaimable)

    def check_invariants(self) -> None:
        """Raise AssertionError if the fields contradict each other."""
        assert self.starting == sum(slot.phase is Phase.STARTING for slot in self.all)
        assert self.ready == sum(slot.phase is Phase.READY for slot in self.all)
        used = {slot for slot in self.all if slot.phase is not Phase.EMPTY}
        assert set(self.by_worker.values()) == used
        assert all(slot.worker == worker for worker, slot in self.by_worker.items())
        ready = {slot for slot in self.all if slot.phase is Phase.READY}
        free = {slot for slot in ready if not slot.held and not slot.reclaiming}
        assert set(self.idle) | set(self.parked) == free, "idle slots"
        assert not set(self.idle) & set(self.parked), "idle and parked"
        assert not self.idle or self.unparked <= self.most, "an idle slot that should be parked"
        assert not self.parked or self.unparked >= self.most, "parked although there is room"
        for slot, item in self.parents.items():
            assert slot.waits
            assert item.place is slot, "a slot waits for the sake of an item that it does not hold"
        for slot in self.all:
            assert all(item.place is slot for item in slot.held)
            assert slot.phase is not Phase.EMPTY or not slot.held


def _reclaimable(slot: Slot) -> int:
    return 0 if slot.reclaiming else len(slot.held)
