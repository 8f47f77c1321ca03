"""Items that workers hold before they have finished the first: which gets how many. Pure.

What waits is given ahead if that and what workers hold ahead is of one priority. A lower item that
was given out ahead would run before a higher one that waits. A higher one could wait behind what
runs on its worker, while another worker that becomes free runs a lower one.
"""

from __future__ import annotations

from collections.abc import Sequence

from wetlands_executor.scheduling.messages import Item
from wetlands_executor.scheduling.slots import Slot, Slots
from wetlands_executor.scheduling.waiting import WaitingItems


def give_ahead(waiting: WaitingItems, slots: Slots) -> list[tuple[Slot, list[Item]]]:
    """Deal what waits to workers with room, so that items start about in their order.

    While workers are starting nothing is given out ahead: they are to take what comes first in the
    queue.

    Returns:
        What each slot holds now in addition.
    """
    if slots.starting or (len(waiting.queues) > 1 and len(waiting.priorities()) > 1):
        return []
    depth = waiting.next_nested()[0] if waiting.nested else 0
    # A worker that was started for a task inside a task must not take one further above.
    if len(slots.all) > slots.most and slots.room(depth) < 0:
        return []
    ahead = waiting.ahead
    found = sorted(slots.by_worker.values(), key=_load)
    if slots.parked:
        found = [slot for slot in found if slot not in slots.parked]
    if depth:
        # What runs further above is most likely about to wait for it: it would have to come back.
        found = [slot for slot in found if all(item.depth >= depth for item in slot.held)]
    free = [(slot, min(slot.free_credit(), ahead - len(slot.held))) for slot in found]
    free = [(slot, count) for slot, count in free if count > 0]
    items = waiting.take(sum(count for _, count in free), ahead)
    # The usual case is one worker that has used up half of what it had.
    hands = [items] if len(free) == 1 else _deal(items, [count for _, count in free])
    given = [(slot, hand) for (slot, _), hand in zip(free, hands, strict=True) if hand]
    for slot, hand in given:
        slot.give(hand)
    return given


def mixed(waiting: WaitingItems, slots: Slots) -> list[Slot]:
    """Return the slots that hold ahead what is of another priority than what waits.

    What they have not started is to be reclaimed.
    """
    return slots.mixed(waiting.priorities()) if len(waiting.queues) > 1 else []


def dry(slots: Slots) -> bool:
    """Return True if a worker could run dry.

    As long as half the credit is used, the next results come before that, and with them the refill.
    """
    return any(
        len(slot.held) * 2 < slot.credit and slot.free_credit() > 0
        for slot in slots.by_worker.values()
        if slot not in slots.parked
    )


def unpark(waiting: WaitingItems, slots: Slots) -> bool:
    """Let a parked slot be idle for the task inside a task that comes next; False if none."""
    if not slots.parked or not waiting.nested:
        return False
    depth, _ = waiting.next_nested()
    if not depth or slots.room(depth) <= 0:
        return False
    slots.unpark()
    return True


def _deal(items: Sequence[Item], left: list[int]) -> list[list[Item]]:
    """Deal items one each in turn; no slot gets more than is ``left`` for it."""
    hands: list[list[Item]] = [[] for _ in left]
    position = 0
    while position < len(items):
        for turn, hand in enumerate(hands):
            if left[turn] and position < len(items):
                left[turn] -= 1
                hand.append(items[position])
                position += 1
    return hands


def _load(slot: Slot) -> int:
    return len(slot.held)
