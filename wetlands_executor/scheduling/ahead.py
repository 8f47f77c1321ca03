"""Items that workers hold before they have finished the first: which gets how many. Pure."""

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
    if slots.starting:
        return []
    ahead = waiting.ahead
    found = sorted(slots.by_worker.values(), key=_load)
    free = [(slot, min(slot.free_credit(), ahead - len(slot.held))) for slot in found]
    free = [(slot, count) for slot, count in free if count > 0]
    items = waiting.take(sum(count for _, count in free), ahead)
    # The usual case is one worker that has used up half of what it had.
    hands = [items] if len(free) == 1 else _deal(items, [count for _, count in free])
    given = [(slot, hand) for (slot, _), hand in zip(free, hands, strict=True) if hand]
    for slot, hand in given:
        slot.give(hand)
    return given


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
