"""When workers are started again: each test is a row of the table, and what follows it."""

from __future__ import annotations

import itertools

import pytest

from wetlands_executor.scheduling.phases import (
    PHASE_MOVES,
    STATUS_MOVES,
    IllegalMove,
    Phase,
    Status,
    moved,
)
from wetlands_executor.scheduling.restarts import (
    GIVEN_UP_DELAY,
    RESTART_DELAYS,
    START_TRIES,
    STARTS_MOVES,
    Consequence,
    Restarts,
    Starts,
)


def fail(
    restarts: Restarts, *, final: bool = False, starts: bool = False, ready: bool = False
) -> Consequence:
    return restarts.failed(final=final, others_start=starts, others_ready=ready)


def in_phase(phase: Starts) -> Restarts:
    """Return the object in a phase, as the pool gets there."""
    restarts = Restarts()
    if phase in (Starts.DELAYED, Starts.RELEASED):
        fail(restarts)
    if phase is Starts.UNDECIDED:
        fail(restarts, final=True, starts=True)
    if phase is Starts.RELEASED:
        fail(restarts, final=True)
    assert restarts.phase is phase
    return restarts


def test_a_start_is_tried_again_with_growing_delays_and_then_given_up() -> None:
    restarts = Restarts()
    for delay in RESTART_DELAYS:
        assert fail(restarts) == Consequence(delay)
        assert restarts.held
        restarts.due()
        assert not restarts.held
    assert fail(restarts) == Consequence(given_up=True)
    assert not restarts.held, "the next item is a reason to try again"
    assert restarts.failures == 0


def test_a_final_failure_is_not_tried_again() -> None:
    assert fail(Restarts(), final=True) == Consequence(given_up=True)


def test_one_timer_serves_several_failures() -> None:
    restarts = Restarts()
    assert fail(restarts).delay is not None
    assert fail(restarts).delay is None


def test_workers_that_are_starting_decide() -> None:
    restarts = in_phase(Starts.UNDECIDED)
    assert restarts.held
    restarts.ready(all_ready=False)
    assert restarts.phase is Starts.FREE


def test_while_others_work_it_is_tried_again_later() -> None:
    restarts = Restarts()
    restarts.launch(None, 1, 4)
    assert restarts.replacements == 3
    assert fail(restarts, final=True, ready=True) == Consequence(GIVEN_UP_DELAY, given_up=True)
    assert restarts.held
    assert not restarts.launching
    assert restarts.take_replacements() == 0
    restarts.due()
    assert (restarts.phase, restarts.failures) == (Starts.FREE, 0)


def test_the_end_of_the_last_worker_frees_starts_that_were_given_up() -> None:
    restarts = Restarts()
    fail(restarts, final=True, ready=True)
    restarts.last_worker_gone()
    assert (restarts.phase, restarts.failures) == (Starts.RELEASED, 0)
    restarts = in_phase(Starts.UNDECIDED)
    restarts.last_worker_gone()
    assert restarts.phase is Starts.FREE
    restarts = in_phase(Starts.DELAYED)
    restarts.last_worker_gone()
    assert restarts.phase is Starts.DELAYED, "fewer failures than tries: the delay stands"


@pytest.mark.parametrize("phase", Starts)
def test_a_timer_frees_starts_from_every_phase(phase: Starts) -> None:
    restarts = in_phase(phase)
    restarts.due()
    assert restarts.phase is Starts.FREE


def test_a_worker_that_works_forgives_the_failures() -> None:
    restarts = Restarts()
    for _ in range(START_TRIES - 1):
        fail(restarts)
    restarts.forgive()
    assert fail(restarts).given_up is False


def test_a_launch_of_some_adds_to_what_is_to_be_replaced() -> None:
    restarts = Restarts()
    restarts.launch(3, 1, 8)
    restarts.launch(2, 1, 8)
    assert not restarts.launching
    assert restarts.take_replacements() == 2
    assert restarts.take_replacements() == 0


@pytest.mark.parametrize(
    "table", [PHASE_MOVES, STATUS_MOVES, STARTS_MOVES], ids=["phase", "status", "starts"]
)
def test_an_illegal_move_raises(table: dict[Phase, frozenset[Phase]]) -> None:
    kind = type(next(iter(table)))
    assert set(table) == set(kind), "every phase has a row"
    for old, new in itertools.product(kind, kind):
        if new in table[old]:
            assert moved(table, old, new) is new
        else:
            with pytest.raises(IllegalMove, match=f"{old} cannot become {new}"):
                moved(table, old, new)


def test_what_leads_where() -> None:
    """The tables as a reader knows them, in short."""
    assert PHASE_MOVES[Phase.STOPPING] == {Phase.DYING, Phase.EMPTY}
    assert all(Phase.EMPTY in PHASE_MOVES[phase] for phase in Phase if phase is not Phase.EMPTY)
    assert STATUS_MOVES[Status.CLOSED] == set()
