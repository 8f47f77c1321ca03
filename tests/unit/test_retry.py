"""The rules of retries: a call that failed, and whether it runs again."""

from __future__ import annotations

import itertools

import pytest

from wetlands_executor.scheduling.retry import Failure, Next, RetryPolicy, forgives_loss, next_step

#: The end of a worker stands for itself here: the rules do not know its class.
ENDED = (ChildProcessError,)


def by_default(retries: int) -> RetryPolicy:
    return RetryPolicy(retries, ENDED, selects=False)


def chosen(retries: int) -> RetryPolicy:
    return RetryPolicy(retries, OSError, selects=True)


@pytest.mark.parametrize(("attempt", "left"), [(1, 2), (2, 1), (3, 0), (4, 0)])
def test_each_attempt_uses_up_one_retry(attempt: int, left: int) -> None:
    assert by_default(2).left(attempt) == left


def test_the_state_retries_a_lost_item_alone_unless_errors_were_selected() -> None:
    assert by_default(2).of_item(1) == (2, False)
    assert by_default(2).of_item(3) == (0, False)
    assert chosen(2).of_item(1) == (0, True)
    assert chosen(2).of_item(3) == (0, False)
    assert chosen(0).of_item(1) == (0, False)


def test_what_raised_is_asked_about_only_if_errors_were_selected() -> None:
    assert not by_default(9).is_asked(Failure.RAISED, 1, cancelled=False)
    assert chosen(9).is_asked(Failure.RAISED, 1, cancelled=False)


def test_what_was_condemned_is_always_asked_about() -> None:
    """Its worker lives on, so the state will not see it again by itself."""
    assert by_default(1).is_asked(Failure.CONDEMNED, 1, cancelled=False)
    assert chosen(1).is_asked(Failure.CONDEMNED, 1, cancelled=False)


def test_a_loss_that_the_state_has_refused_is_final() -> None:
    assert not by_default(1).is_asked(Failure.LOST, 1, cancelled=False)
    assert chosen(1).is_asked(Failure.LOST, 1, cancelled=False)


@pytest.mark.parametrize(
    ("policy", "failure"), list(itertools.product([by_default(1), chosen(1)], Failure))
)
def test_nothing_is_asked_of_a_cancelled_call_or_after_the_last_attempt(
    policy: RetryPolicy, failure: Failure
) -> None:
    assert not policy.is_asked(failure, 1, cancelled=True)
    assert not policy.is_asked(failure, 2, cancelled=False)


def test_types_and_functions_select_errors() -> None:
    assert chosen(1).matches(PermissionError())
    assert not chosen(1).matches(KeyError())
    assert RetryPolicy(1, (KeyError, OSError), selects=True).matches(KeyError())
    assert RetryPolicy(1, lambda error: "busy" in str(error), selects=True).matches(
        KeyError("busy")
    )
    assert not RetryPolicy(1, lambda error: 0, selects=True).matches(KeyError("busy"))


def test_a_lost_item_waits_again_while_it_has_tries_and_the_pool_goes_on() -> None:
    assert forgives_loss(1, over=False)
    assert not forgives_loss(0, over=False)
    assert not forgives_loss(1, over=True)


def test_a_cancellation_goes_before_the_end_of_the_pool() -> None:
    assert next_step(cancelled=False, over=False) is Next.RUN_AGAIN
    assert next_step(cancelled=False, over=True) is Next.FAIL
    assert next_step(cancelled=True, over=False) is Next.CANCEL
    assert next_step(cancelled=True, over=True) is Next.CANCEL
