"""Slots, waiting items and what is given ahead, each by itself: pure data, no state around it."""

from __future__ import annotations

import pytest

from wetlands_executor.scheduling.ahead import give_ahead
from wetlands_executor.scheduling.messages import WAITING, Item
from wetlands_executor.scheduling.phases import IllegalMove, Phase
from wetlands_executor.scheduling.slots import Slot, Slots
from wetlands_executor.scheduling.waiting import WaitingItems


def items(count: int, priority: int = 0) -> list[Item]:
    made = [Item() for _ in range(count)]
    for item in made:
        item.priority = priority
    return made


def ready(slots: Slots, quota: int | None = None, credit: int = 2) -> Slot:
    slot = slots.start(quota, credit)
    slots.move(slot, Phase.READY)
    return slot


class Many(Item):
    """An item that stands for ``left`` calls."""

    many = True

    def __init__(self, left: int, ahead: int) -> None:
        super().__init__()
        self._left = left
        self._ahead = ahead

    @property
    def left(self) -> int:
        return self._left

    @property
    def ahead(self) -> int:
        return self._ahead

    @property
    def exhausted(self) -> bool:
        return self._left == 0

    def split(self) -> Item | None:
        self._left -= 1
        part = Item()
        part.priority = self.priority
        return part


# -------------------------------------------------------------------------------------------- slots


def test_numbers_of_incarnations_are_never_used_again() -> None:
    slots = Slots(2)
    first = slots.start(None, 1)
    assert (first.worker, first.index, slots.starting) == (1, 0, 1)
    slots.move(first, Phase.READY)
    del slots.by_worker[first.worker]
    slots.empty(first)
    again = slots.start(None, 1)
    assert again is first
    assert (again.worker, slots.ready, slots.starting) == (2, 0, 1)
    slots.check_invariants()


def test_a_slot_is_idle_as_long_as_it_holds_nothing() -> None:
    slots = Slots(1)
    slot, given = ready(slots), items(2)
    assert list(slots.idle) == [slot]
    slot.give(given)
    assert (list(slots.idle), given[0].place) == ([], slot)
    assert slot.finish(given[:1], 2) is False
    assert list(slots.idle) == []
    slot.finish(given[1:], 2)
    assert (list(slots.idle), given[1].place) == ([slot], None)
    slots.check_invariants()


@pytest.mark.parametrize("way", ["finish", "give_back"])
def test_an_item_of_another_worker_changes_nothing(way: str) -> None:
    slots = Slots(1)
    slot, mine = ready(slots), items(1)
    slot.give(mine)
    wrong = [*mine, Item()]
    with pytest.raises(IllegalMove):
        slot.finish(wrong, 2) if way == "finish" else slot.give_back(wrong)
    assert list(slot.held) == mine
    slots.check_invariants()


def test_a_quota_counts_what_was_given_and_not_given_back() -> None:
    slots = Slots(1)
    slot, given = ready(slots, quota=3, credit=8), items(3)
    assert slot.free_credit() == 3
    slot.give(given)
    assert (slot.quota, slot.free_credit()) == (0, 0)
    slot.give_back(given[2:])
    assert (slot.quota, slot.free_credit()) == (1, 1)
    assert slot.finish(given[:2], 8) is False, "one is left"
    slot.give(given[2:])
    assert slot.finish(given[2:], 8) is True
    assert list(slots.idle) == [], "it is to be stopped"


def test_credit_grows_only_for_a_worker_that_would_run_dry() -> None:
    slots = Slots(1)
    slot, given = ready(slots, credit=4), items(4)
    slot.give(given)
    slot.finish(given[:1], 16)
    assert slot.credit == 4
    slot.finish(given[1:3], 16)
    assert slot.credit == 8
    slot.finish(given[3:], 8)
    assert slot.credit == 8


def test_nothing_is_given_to_a_slot_that_has_to_answer() -> None:
    slots = Slots(1)
    slot, given = ready(slots, credit=4), items(2)
    slot.give(given)
    slot.begin_reclaim(1)
    assert (slot.free_credit(), slot.credit) == (0, 1)
    slot.give_back(given[1:])
    slot.end_reclaim()
    assert (slot.taken, slot.reclaiming) == (1, False)
    slot.ask()
    slot.finish(given[:1], 1)
    assert list(slots.idle) == []
    slot.answered(replace=True)
    assert slot.rest() is False
    assert (slot.replace, list(slots.idle)) == (True, [slot])
    slots.check_invariants()


def test_a_slot_that_retires_is_stopped_when_it_holds_nothing() -> None:
    slots = Slots(1)
    slot, given = ready(slots), items(1)
    slot.give(given)
    slot.retire()
    assert (slot.free_credit(), slot.replace) == (0, True)
    assert slot.finish(given, 2) is True


def test_what_a_worker_had_taken_is_not_asked_for_again() -> None:
    """Its results are on the way."""
    slots = Slots(1)
    slot = ready(slots, credit=4)
    given = [*items(2), *items(1, priority=5)]
    slot.give(given)
    assert slots.mixed({0, 5}) == [slot]
    assert slots.mixed({5}) == [slot]
    slot.end_reclaim()
    assert slots.mixed({0, 5}) == []


def test_the_fullest_slot_is_one_that_can_be_asked() -> None:
    slots = Slots(2)
    first, second = ready(slots, credit=4), ready(slots, credit=4)
    first.give(items(3))
    second.give(items(2))
    assert slots.fullest() is first
    first.begin_reclaim(1)
    assert slots.fullest() is second


def test_an_illegal_move_of_a_slot_counts_nothing() -> None:
    slots = Slots(1)
    slot = slots.start(None, 1)
    with pytest.raises(IllegalMove):
        slots.move(slot, Phase.STOPPING)
    assert (slots.starting, slots.ready, slot.phase) == (1, 0, Phase.STARTING)
    slots.check_invariants()


# ---------------------------------------------------------------------------------- waiting items


def test_the_highest_priority_is_first_then_the_oldest() -> None:
    waiting = WaitingItems()
    low, usual, high = items(2, -1), items(2), items(2, 7)
    for each in (low, usual, high):
        waiting.append(each)
    assert (waiting.count, waiting.wanted, waiting.priorities()) == (6, 6, {-1, 0, 7})
    assert waiting.take(3) == [*high, usual[0]]
    assert waiting.take(9) == [usual[1], *low]
    assert (waiting.count, waiting.take(1)) == (0, [])
    waiting.check_invariants()


def test_what_comes_back_goes_to_the_front_in_its_order() -> None:
    waiting = WaitingItems()
    back, there = items(2), items(1)
    waiting.append(there)
    waiting.append_left(back)
    waiting.check_invariants()
    assert waiting.take(3) == [*back, *there]


def test_an_item_that_was_removed_is_passed_over() -> None:
    waiting = WaitingItems()
    first, second = items(2)
    waiting.append([first, second])
    waiting.remove(first)
    assert (first.place, waiting.count) == (None, 1)
    waiting.check_invariants()
    assert waiting.take(2) == [second]


def test_the_last_item_that_is_removed_leaves_nothing_behind() -> None:
    waiting = WaitingItems()
    (item,) = items(1, 3)
    waiting.append([item])
    waiting.remove(item)
    assert not any(waiting.queues.values())
    assert waiting.priorities() == set()


def test_an_item_that_stands_for_many_gives_parts_until_it_is_exhausted() -> None:
    waiting = WaitingItems()
    many, (single,) = Many(3, ahead=2), items(1)
    waiting.append([many, single])
    assert (waiting.count, waiting.wanted, waiting.ahead) == (2, 4, 2)
    parts = waiting.take(2)
    assert (len(parts), many.place, waiting.wanted) == (2, WAITING, 2)
    assert many not in parts
    rest = waiting.take(5)
    assert (rest[-1], len(rest), many.place) == (single, 2, None)
    waiting.check_invariants()


def test_an_item_of_which_workers_hold_fewer_is_left_for_later() -> None:
    waiting = WaitingItems()
    (single,), many = items(1), Many(3, ahead=2)
    waiting.append([single, many])
    assert waiting.take(4, ahead=3) == [single]
    assert (waiting.count, many.left) == (1, 3)


def test_all_are_taken_as_they_are() -> None:
    waiting = WaitingItems()
    many, others = Many(3, ahead=2), items(2, 4)
    waiting.append([many])
    waiting.append(others)
    assert waiting.take_all() == [*others, many]
    assert (waiting.count, many.left, many.place) == (0, 3, None)
    waiting.check_invariants()


# ---------------------------------------------------------------------------------- given ahead


def test_items_are_dealt_in_turn_the_emptiest_first() -> None:
    slots, waiting = Slots(2), WaitingItems()
    full, empty = ready(slots, credit=4), ready(slots, credit=2)
    full.give(items(1))
    new = items(6)
    waiting.append(new)
    assert give_ahead(waiting, slots) == [
        (empty, [new[0], new[2]]),
        (full, [new[1], new[3], new[4]]),
    ]
    assert (waiting.count, empty.free_credit(), full.free_credit()) == (1, 0, 0)
    slots.check_invariants()


def test_nothing_is_given_ahead_while_a_worker_starts() -> None:
    slots, waiting = Slots(2), WaitingItems()
    ready(slots)
    slots.start(None, 2)
    waiting.append(items(2))
    assert give_ahead(waiting, slots) == []
    assert waiting.count == 2


def test_parts_of_many_are_held_only_as_far_as_they_allow() -> None:
    slots, waiting = Slots(1), WaitingItems()
    slot = ready(slots, credit=8)
    waiting.append([Many(9, ahead=2)])
    ((given_to, parts),) = give_ahead(waiting, slots)
    assert (given_to, len(parts)) == (slot, 2)
    assert give_ahead(waiting, slots) == []


def test_a_slot_that_gets_nothing_is_not_named() -> None:
    slots, waiting = Slots(3), WaitingItems()
    first, _second, retiring = (ready(slots) for _ in range(3))
    retiring.retire()
    (item,) = items(1)
    waiting.append([item])
    assert give_ahead(waiting, slots) == [(first, [item])]
