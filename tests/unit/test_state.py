"""The pool's rules, one conversation each: what happened, and what is to be done about it.

``Talk`` plays the shell where a test does not: ``say`` feeds one event, checks the invariants, and
returns the actions.
"""

from __future__ import annotations

import pytest

from wetlands_executor.scheduling.messages import (
    Action,
    Broken,
    CancelAnswered,
    Cancelled,
    CancelRequested,
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
    Released,
    Reserved,
    RestartDue,
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
    items_of,
)
from wetlands_executor.scheduling.phases import IllegalMove, Phase, Status
from wetlands_executor.scheduling.restarts import RESTART_DELAYS, START_TRIES
from wetlands_executor.scheduling.state import PoolState, check_invariants


class Named(Item):
    """An item that shows its name in a failed assertion."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __repr__(self) -> str:
        return self.name


def items(names: str) -> list[Item]:
    """Return one item per letter."""
    return [Named(name) for name in names]


class Talk:
    """A conversation with a PoolState."""

    def __init__(
        self,
        max_workers: int = 1,
        *,
        credit: int = 1,
        most_credit: int | None = None,
        tasks_per_worker: int | None = None,
    ) -> None:
        self.state = PoolState(
            max_workers, credit=credit, most_credit=most_credit, tasks_per_worker=tasks_per_worker
        )

    def say(self, event: Event) -> list[Action]:
        actions = self.state.handle(event)
        check_invariants(self.state)
        return actions

    def start(self, *workers: int) -> Talk:
        """Launch, and let these workers become ready."""
        self.say(LaunchRequested())
        for worker in workers:
            assert self.say(WorkerReady(worker)) == []
        return self


# --- starting on demand


def test_nothing_is_started_before_there_is_something_to_do() -> None:
    """The first item starts the first worker; it is dispatched when that is ready."""
    talk = Talk(2)
    (a,) = items("a")
    assert talk.say(Submitted([a])) == [StartWorker(1, 0)]
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [a])]


def test_as_many_workers_start_as_items_wait() -> None:
    """Three items, four slots: three workers; those already starting are counted."""
    talk = Talk(4)
    a, b, c = items("abc")
    assert talk.say(Submitted([a])) == [StartWorker(1, 0)]
    assert talk.say(Submitted([b, c])) == [StartWorker(2, 1), StartWorker(3, 2)]


def test_never_more_than_max_workers() -> None:
    """What does not find a slot waits."""
    talk = Talk(2)
    many = items("abcdef")
    assert talk.say(Submitted(many)) == [StartWorker(1, 0), StartWorker(2, 1)]
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [many[0]])]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [many[1]])]
    assert talk.say(ItemsFinished(2, [many[1]])) == [Dispatch(2, [many[2]])]


def test_an_idle_worker_is_used_before_another_starts() -> None:
    """The one that was busy last comes first: its caches are warm."""
    talk = Talk(3).start(1, 2)
    a, b = items("ab")
    assert talk.say(Submitted([a])) == [Dispatch(2, [a])]
    assert talk.say(Submitted([b])) == [Dispatch(1, [b])]


def test_launch_starts_all_workers() -> None:
    """And twice is as good as once."""
    talk = Talk(3)
    assert talk.say(LaunchRequested()) == [StartWorker(1, 0), StartWorker(2, 1), StartWorker(3, 2)]
    assert talk.say(LaunchRequested()) == []


def test_can_act_says_whether_a_new_item_would_move_anything() -> None:
    """While all workers are full no thread has to be woken for a new item."""
    talk = Talk(1)
    a, b = items("ab")
    assert talk.state.can_act
    talk.say(Submitted([a]))
    assert not talk.state.can_act
    talk.say(WorkerReady(1))
    assert not talk.state.can_act
    assert talk.say(Submitted([b])) == []
    talk.say(ItemsFinished(1, [a]))
    talk.say(ItemsFinished(1, [b]))
    assert talk.state.can_act


# --- credit


def test_without_credit_a_worker_holds_one_item() -> None:
    """Where nothing can be reclaimed, everything else waits in the queue."""
    talk = Talk(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [a])]
    assert talk.say(ItemsFinished(1, [a])) == [Dispatch(1, [b])]


def test_credit_fills_the_inbox() -> None:
    """The queue goes to the worker at once, up to the credit."""
    talk = Talk(1, credit=3).start(1)
    many = items("abcde")
    assert talk.say(Submitted(many)) == [Dispatch(1, many[:3])]


def test_a_refill_waits_until_half_the_credit_is_used_up() -> None:
    """One write then carries several frames."""
    talk = Talk(1, credit=4).start(1)
    many = items("abcdefgh")
    talk.say(Submitted(many))
    assert talk.say(ItemsFinished(1, [many[0]])) == []
    assert talk.say(ItemsFinished(1, [many[1]])) == [Dispatch(1, many[4:6])]


def test_the_credit_of_a_worker_that_runs_dry_grows() -> None:
    """It finished half of what it had before the host came round.

    It gets twice as much, up to the most.
    """
    talk = Talk(1, credit=4, most_credit=10).start(1)
    many = items("abcdefghijklmnopqrstuvwxyz")
    talk.say(Submitted(many))
    assert talk.say(ItemsFinished(1, many[:2])) == [Dispatch(1, many[4:10])]
    assert talk.say(ItemsFinished(1, many[2:6])) == [Dispatch(1, many[10:16])]
    assert talk.state.slots.all[0].credit == 10


def test_what_is_reclaimed_ends_the_growth() -> None:
    """Items that are wanted elsewhere were given out too far ahead."""
    talk = Talk(2, credit=4, most_credit=64).start(1, 2)
    talk.say(Submitted(items("abcdefghijklmnop")))
    quick, slow = talk.state.slots.all
    talk.say(ItemsFinished(1, list(quick.held)))
    assert quick.credit == 8
    while not quick.reclaiming:
        talk.say(ItemsFinished(2, list(slow.held)))
    assert quick.credit == 4


def test_a_short_queue_is_shared_among_the_workers() -> None:
    """No worker gets all of it: while one is still starting, nothing is given out ahead."""
    talk = Talk(2, credit=64)
    many = items("abcd")
    assert talk.say(Submitted(many)) == [StartWorker(1, 0), StartWorker(2, 1)]
    first = talk.say(WorkerReady(1))
    second = talk.say(WorkerReady(2))
    dealt = [action for action in first + second if isinstance(action, Dispatch)]
    assert dealt == first + second
    assert sorted((item for action in dealt for item in action.items), key=many.index) == many
    for worker in (1, 2):
        share = [item for action in dealt if action.worker == worker for item in action.items]
        assert 1 <= len(share) <= 3


def test_an_idle_worker_makes_a_full_one_give_back() -> None:
    """Nothing waits, one worker is idle.

    What another has not started is reclaimed and shared anew.
    """
    talk = Talk(2, credit=64).start(1, 2)
    a, b, c = items("abc")
    talk.say(Submitted([a]))
    talk.say(Submitted([b]))
    assert talk.say(Submitted([c])) == [Dispatch(1, [c])]
    assert talk.say(ItemsFinished(2, [a])) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [c])) == [Dispatch(2, [c])]


def test_an_empty_answer_to_a_reclaim_is_no_reason_for_another() -> None:
    """The worker had started everything, its results are on their way: asking again would spin."""
    talk = Talk(2, credit=64).start(1, 2)
    a, b, c = items("abc")
    for item in (a, b, c):
        talk.say(Submitted([item]))
    assert talk.say(ItemsFinished(2, [a])) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [])) == []


def test_a_worker_that_a_reclaim_leaves_idle_takes_over_from_others() -> None:
    """Its only item was cancelled; what queues behind another one's long item comes to it."""
    talk = Talk(2, credit=64).start(1, 2)
    a, b, c = items("abc")
    for item in (a, b, c):
        talk.say(Submitted([item]))
    assert talk.say(CancelRequested(a)) == [Reclaim(2)]
    assert talk.say(Reclaimed(2, [a])) == [Cancelled([a]), CancelAnswered(a, True), Reclaim(1)]
    assert talk.say(Reclaimed(1, [c])) == [Dispatch(2, [c])]


def test_nothing_is_dispatched_to_a_worker_that_is_being_reclaimed() -> None:
    """The answer has to describe what it holds."""
    talk = Talk(1, credit=4).start(1)
    a, b, c = items("abc")
    talk.say(Submitted([a, b]))
    assert talk.say(CancelRequested(b)) == [Reclaim(1)]
    assert talk.say(Submitted([c])) == []
    assert talk.say(Reclaimed(1, [b])) == [
        Cancelled([b]),
        CancelAnswered(b, True),
        Dispatch(1, [c]),
    ]


def test_what_came_back_goes_first() -> None:
    """It is older than what waits."""
    talk = Talk(1, credit=2).start(1)
    a, b, c, d = items("abcd")
    talk.say(Submitted([a, b, c, d]))
    assert talk.say(WorkerExited(1, [b])) == [Lost(a, 1), StartWorker(2, 0)]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [b, c])]


# --- the direct send


def test_an_item_sent_directly_occupies_its_worker() -> None:
    """The state learns of it later, and counts it."""
    talk = Talk(2).start(1, 2)
    a, b, c = items("abc")
    assert talk.say(SentDirectly(2, a)) == []
    assert talk.say(Submitted([b, c])) == [Dispatch(1, [b])]
    assert talk.say(ItemsFinished(2, [a])) == [Dispatch(2, [c])]


def test_an_item_sent_directly_to_a_worker_that_got_another_one_is_reclaimed() -> None:
    """The thread that sent it could not know.

    Another worker is idle: it must not wait behind the first.
    """
    talk = Talk(2, credit=64).start(1, 2)
    a, b = items("ab")
    assert talk.say(Submitted([a])) == [Dispatch(2, [a])]
    assert talk.say(SentDirectly(2, b)) == [Reclaim(2)]
    assert talk.say(Reclaimed(2, [b])) == [Dispatch(1, [b])]


def test_an_item_sent_directly_beyond_the_quota_does_not_end_the_counting() -> None:
    """The worker is replaced all the same."""
    talk = Talk(1, tasks_per_worker=1).start(1)
    a, b = items("ab")
    talk.say(Submitted([a]))
    talk.state.handle(SentDirectly(1, b))
    talk.state.handle(ItemsFinished(1, [a]))
    assert talk.state.handle(ItemsFinished(1, [b])) == [StopWorker(1)]


# --- quota


def test_a_worker_is_replaced_after_its_quota() -> None:
    """Stopped when it has done its share; the next starts when it is gone and something waits."""
    talk = Talk(1, tasks_per_worker=1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [a])]
    assert talk.say(ItemsFinished(1, [a])) == [StopWorker(1)]
    assert talk.say(WorkerExited(1, [])) == [StartWorker(2, 0)]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [b])]
    assert talk.say(ItemsFinished(2, [b])) == [StopWorker(2)]
    assert talk.say(WorkerExited(2, [])) == []


def test_the_quota_bounds_the_credit() -> None:
    """A worker with two items to go gets two."""
    talk = Talk(1, credit=64, tasks_per_worker=2).start(1)
    many = items("abc")
    assert talk.say(Submitted(many)) == [Dispatch(1, many[:2])]
    assert talk.say(ItemsFinished(1, many[:2])) == [StopWorker(1)]


def test_what_is_reclaimed_does_not_use_up_the_quota() -> None:
    """Only what a worker keeps is counted."""
    talk = Talk(1, credit=64, tasks_per_worker=2).start(1)
    a, b, c = items("abc")
    talk.say(Submitted([a, b]))
    talk.say(CancelRequested(b))
    assert talk.say(Reclaimed(1, [b])) == [Cancelled([b]), CancelAnswered(b, True)]
    assert talk.say(Submitted([c])) == [Dispatch(1, [c])]


# --- deaths


def test_only_the_item_that_had_started_is_lost() -> None:
    """The others are handed out again, in their order."""
    talk = Talk(1, credit=64).start(1)
    a, b, c = items("abc")
    talk.say(Submitted([a, b, c]))
    assert talk.say(WorkerExited(1, [b, c])) == [Lost(a, 1), StartWorker(2, 0)]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [b, c])]


def test_an_idle_worker_that_dies_is_replaced() -> None:
    """At once, although nothing waits."""
    talk = Talk(1).start(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    talk.say(ItemsFinished(1, [a]))
    assert talk.say(WorkerExited(1, [])) == [StartWorker(2, 0)]


def test_other_workers_take_over_from_a_dead_one() -> None:
    """An idle one gets what came back."""
    talk = Talk(2, credit=64).start(1, 2)
    a, b = items("ab")
    talk.say(Submitted([a]))
    talk.say(SentDirectly(2, b))
    actions = talk.say(WorkerExited(2, [b]))
    assert Lost(a, 2) in actions
    assert Dispatch(1, [b]) in actions


def test_late_words_about_a_dead_worker_are_ignored() -> None:
    """Its number is never used again."""
    talk = Talk(1, credit=2).start(1)
    talk.say(WorkerExited(1, []))
    assert talk.say(WorkerExited(1, [])) == []
    assert talk.say(WorkerReady(1)) == []
    assert talk.say(Reclaimed(1, [])) == []
    assert talk.say(InitializerFailed(1)) == []


# --- starts that fail


def test_a_failed_start_is_retried_with_growing_delays_then_given_up() -> None:
    """Three tries; then what waits is told why."""
    talk = Talk(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    for attempt, delay in enumerate(RESTART_DELAYS, 1):
        assert talk.say(WorkerExited(attempt, [])) == [SetRestartTimer(delay)]
        assert talk.say(RestartDue()) == [StartWorker(attempt + 1, 0)]
    assert talk.say(WorkerExited(START_TRIES, [])) == [StartFailed([a, b], START_TRIES)]


def test_a_start_that_cannot_succeed_is_not_retried() -> None:
    """A Python that is too old stays too old."""
    talk = Talk(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    assert talk.say(WorkerExited(1, [], final=True)) == [StartFailed([a], 1)]


def test_the_next_item_is_a_reason_to_try_again() -> None:
    """The user may have repaired the environment."""
    talk = Talk(1)
    a, b = items("ab")
    talk.say(Submitted([a]))
    talk.say(WorkerExited(1, [], final=True))
    assert talk.say(Submitted([b])) == [StartWorker(2, 0)]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [b])]


def test_items_wait_during_the_delay() -> None:
    """A new item does not cut it short."""
    talk = Talk(2)
    a, b = items("ab")
    talk.say(Submitted([a]))
    talk.say(WorkerExited(1, []))
    assert talk.say(Submitted([b])) == []
    assert talk.say(RestartDue()) == [StartWorker(2, 0), StartWorker(3, 1)]


def test_nothing_fails_while_another_worker_can_do_it() -> None:
    """One slot cannot start; the items go through the other."""
    talk = Talk(2)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [a])]
    assert [a for a in talk.say(WorkerExited(2, [], final=True)) if items_of([a])] == []
    assert talk.say(ItemsFinished(1, [a])) == [Dispatch(1, [b])]


def test_after_a_success_the_tries_are_counted_anew() -> None:
    """Two failures long ago do not make the third the last."""
    talk = Talk(1)
    a, b = items("ab")
    talk.say(Submitted([a]))
    talk.say(WorkerExited(1, []))
    talk.say(RestartDue())
    talk.say(WorkerReady(2))
    talk.say(ItemsFinished(2, [a]))
    talk.say(WorkerExited(2, []))
    talk.say(Submitted([b]))
    assert talk.say(WorkerExited(3, [])) == [SetRestartTimer(RESTART_DELAYS[0])]


# --- cancelling


def test_a_waiting_item_is_cancelled_at_once() -> None:
    """And never dispatched."""
    talk = Talk(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(CancelRequested(a)) == [Cancelled([a]), CancelAnswered(a, True)]
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [b])]


def test_an_unstarted_item_is_taken_out_of_the_inbox() -> None:
    """It is cancelled before any thread hears that it is."""
    talk = Talk(1, credit=64).start(1)
    a, b, c = items("abc")
    talk.say(Submitted([a, b, c]))
    assert talk.say(CancelRequested(b)) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [b, c])) == [
        Cancelled([b]),
        CancelAnswered(b, True),
        Dispatch(1, [c]),
    ]


def test_a_running_item_is_asked_to_stop() -> None:
    """The answer is no: it ran."""
    talk = Talk(1, credit=64).start(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    assert talk.say(CancelRequested(a)) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [])) == [SendCancel(1, a), CancelAnswered(a, False)]


def test_an_item_that_finishes_while_it_is_being_reclaimed_was_not_cancelled() -> None:
    """Its result is the answer."""
    talk = Talk(1, credit=64).start(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    assert talk.say(CancelRequested(a)) == [Reclaim(1)]
    assert talk.say(ItemsFinished(1, [a])) == [CancelAnswered(a, False)]
    assert talk.say(Reclaimed(1, [])) == []


def test_where_nothing_can_be_reclaimed_a_dispatched_item_counts_as_running() -> None:
    """It is asked to stop."""
    talk = Talk(1).start(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    assert talk.say(CancelRequested(a)) == [SendCancel(1, a), CancelAnswered(a, False)]


def test_an_item_that_has_ended_cannot_be_cancelled() -> None:
    """The answer comes at once."""
    talk = Talk(1).start(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    talk.say(ItemsFinished(1, [a]))
    assert talk.say(CancelRequested(a)) == [CancelAnswered(a, False)]


def test_a_death_answers_a_request_to_cancel() -> None:
    """The unstarted item is cancelled instead of handed out again; the running one is lost."""
    talk = Talk(1, credit=64).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    talk.say(CancelRequested(a))
    talk.say(CancelRequested(b))
    actions = talk.say(WorkerExited(1, [b]))
    assert actions[:4] == [
        Cancelled([b]),
        CancelAnswered(b, True),
        CancelAnswered(a, False),
        Lost(a, 1),
    ]
    assert not any(isinstance(action, Dispatch) for action in actions)


# --- the initializer


def test_a_failed_initializer_breaks_the_pool() -> None:
    """What waits fails, what runs finishes, nothing more is accepted."""
    talk = Talk(2)
    a, b, c, d = items("abcd")
    talk.say(Submitted([a, b, c]))
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [a])]
    assert talk.say(InitializerFailed(2)) == [Broken([b, c], 2), KillWorker(2)]
    assert talk.say(WorkerExited(2, [])) == []
    assert talk.say(Submitted([d])) == [Broken([d], 2)]
    assert talk.say(ItemsFinished(1, [a])) == [StopWorker(1)]
    assert talk.say(WorkerExited(1, [])) == [PoolClosed()]


def test_a_failed_initializer_reclaims_what_has_not_started() -> None:
    """It would not have been sent a moment later."""
    talk = Talk(2, credit=64).start(1, 2)
    a, b, c, d = items("abcd")
    held = {action.worker: list(action.items) for action in talk.say(Submitted([a, b, c, d]))}
    assert {len(given) for given in held.values()} == {2}
    assert StartWorker(3, 1) in talk.say(WorkerExited(2, held[2][1:]))
    actions = talk.say(InitializerFailed(3))
    assert Broken(held[2][1:], 3) in actions
    assert Reclaim(1) in actions
    assert items_of(talk.say(Reclaimed(1, held[1][1:]))) == held[1][1:]


# --- the end


def test_shutdown_of_an_unused_pool_closes_it() -> None:
    """At once, and once."""
    talk = Talk(2)
    assert talk.say(ShutdownRequested()) == [PoolClosed()]
    assert talk.say(ShutdownRequested()) == []
    assert talk.say(TerminateRequested()) == []


def test_shutdown_finishes_what_was_submitted() -> None:
    """Workers still start for it, stop one by one, and the last one's exit closes the pool."""
    talk = Talk(2)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(ShutdownRequested()) == []
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [a])]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [b])]
    assert talk.say(ItemsFinished(1, [a])) == [StopWorker(1)]
    assert talk.say(WorkerExited(1, [])) == []
    assert talk.say(ItemsFinished(2, [b])) == [StopWorker(2)]
    assert talk.say(WorkerExited(2, [])) == [PoolClosed()]
    assert talk.state.status is Status.CLOSED


def test_shutdown_stops_idle_workers_and_kills_those_that_are_not_needed() -> None:
    """A worker that is still starting has nothing to lose."""
    talk = Talk(2)
    talk.say(LaunchRequested())
    talk.say(WorkerReady(1))
    assert talk.say(ShutdownRequested()) == [StopWorker(1), KillWorker(2)]


def test_a_crash_during_shutdown_does_not_lose_what_waits() -> None:
    """Its items are handed out again, to a new worker if need be."""
    talk = Talk(1, credit=64).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    talk.say(ShutdownRequested())
    assert talk.say(WorkerExited(1, [b])) == [Lost(a, 1), StartWorker(2, 0)]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [b])]
    assert talk.say(ItemsFinished(2, [b])) == [StopWorker(2)]
    assert talk.say(WorkerExited(2, [])) == [PoolClosed()]


def test_shutdown_with_cancel_drops_what_has_not_started() -> None:
    """In the queue, and in the inboxes."""
    talk = Talk(1, credit=2).start(1)
    a, b, c = items("abc")
    talk.say(Submitted([a, b, c]))
    assert talk.say(ShutdownRequested(cancel_pending=True)) == [Cancelled([c]), Reclaim(1)]
    assert talk.say(Reclaimed(1, [b])) == [Cancelled([b])]
    assert talk.say(ItemsFinished(1, [a])) == [StopWorker(1)]


def test_shutdown_with_cancel_may_follow_one_without() -> None:
    """A user who waited long enough."""
    talk = Talk(1).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(ShutdownRequested()) == []
    assert talk.say(ShutdownRequested(cancel_pending=True)) == [Cancelled([b])]


def test_terminate_kills_everything() -> None:
    """What waits is cancelled, what runs is lost, and no worker is replaced."""
    talk = Talk(2, credit=1)
    a, b, c = items("abc")
    talk.say(LaunchRequested())
    talk.say(WorkerReady(1))
    talk.say(Submitted([a, b, c]))
    assert talk.say(TerminateRequested()) == [Cancelled([b, c]), KillWorker(1), KillWorker(2)]
    assert talk.say(WorkerReady(2)) == []
    assert talk.say(WorkerExited(1, [])) == [Lost(a, 1)]
    assert talk.say(WorkerExited(2, [])) == [PoolClosed()]


def test_terminate_cancels_what_comes_back_from_an_inbox() -> None:
    """It never ran."""
    talk = Talk(1, credit=64).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(TerminateRequested()) == [KillWorker(1)]
    assert talk.say(WorkerExited(1, [b])) == [Cancelled([b]), Lost(a, 1), PoolClosed()]


def test_an_item_that_arrives_after_the_end_is_refused() -> None:
    """The executor refuses it; this is the race between both."""
    talk = Talk(1)
    (a,) = items("a")
    talk.say(ShutdownRequested())
    assert talk.say(Submitted([a])) == [Cancelled([a], refused=True)]
    assert a.place is None


def test_an_item_that_arrives_after_a_termination_is_cancelled() -> None:
    """As what was queued is."""
    talk = Talk(1)
    (a,) = items("a")
    talk.say(TerminateRequested())
    assert talk.say(Submitted([a])) == [Cancelled([a])]


def test_what_a_dead_worker_had_not_begun_is_not_started_after_a_cancelling_end() -> None:
    """The calls that come back wait for no other worker: they are pending, and cancelled."""
    talk = Talk(2, credit=64).start(1, 2)
    chunk, rest, late = items("crl")
    chunk.asks_whether_retried = True  # as those of a map job
    talk.say(Submitted([chunk]))
    talk.say(ShutdownRequested(cancel_pending=True))
    (worker,) = (slot.worker for slot in talk.state.slots.all if chunk in slot.held)
    assert Lost(chunk, worker) in talk.say(WorkerExited(worker, []))
    assert talk.say(Submitted([rest], front=True)) == [Cancelled([rest])]
    # Race: another thread had looked before the end had begun.
    assert talk.say(Submitted([late])) == [Cancelled([late])]


@pytest.mark.parametrize("credit", [1, 64])
def test_a_call_whose_worker_died_is_not_run_again_after_a_cancelling_end(credit: int) -> None:
    """Whichever of both comes first, as long as no other worker has taken the call."""
    for end in (ShutdownRequested(cancel_pending=True), TerminateRequested()):
        talk = Talk(1, credit=credit).start(1)
        (a,) = items("a")
        a.retries_left = 1
        talk.say(Submitted([a]))
        talk.say(end)
        assert Lost(a, 1) in talk.say(WorkerExited(1, []))
        talk = Talk(1, credit=credit).start(1)
        (a,) = items("a")
        a.retries_left = 1
        talk.say(Submitted([a]))
        assert Retried(a, 1) in talk.say(WorkerExited(1, []))
        assert talk.say(end) == [Cancelled([a]), KillWorker(2)]


def test_a_restart_timer_may_fire_after_the_end() -> None:
    """It starts nothing."""
    talk = Talk(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    talk.say(WorkerExited(1, []))
    assert talk.say(TerminateRequested()) == [Cancelled([a]), PoolClosed()]
    assert talk.say(RestartDue()) == []


def test_events_and_actions_are_frozen() -> None:
    """What has happened is not changed."""
    with pytest.raises(AttributeError):
        StartWorker(1, 0).worker = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        ShutdownRequested().cancel_pending = True  # type: ignore[misc]


# --- killing for the sake of one item


def test_a_kill_harms_no_other_item() -> None:
    """First what has not started is reclaimed.

    Then nothing but the item can be running, and the worker is ended and replaced.
    """
    talk = Talk(1, credit=64).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(KillRequested(a)) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [b])) == [KillIfRunning(1, a)]
    assert talk.say(KillAnswered(1, a, killed=True)) == [KillWorker(1)]
    assert talk.say(WorkerExited(1, [])) == [Lost(a, 1), StartWorker(2, 0)]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [b])]


def test_a_kill_of_an_item_that_had_not_started_kills_no_worker() -> None:
    """It is cancelled; the running one goes on."""
    talk = Talk(1, credit=64).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    assert talk.say(KillRequested(b)) == [Reclaim(1)]
    assert Cancelled([b]) in talk.say(Reclaimed(1, [b]))
    assert talk.say(ItemsFinished(1, [a])) == []


def test_a_kill_of_an_item_that_has_just_finished_kills_no_worker() -> None:
    """Its result is on the way; what came back in vain is sent again."""
    talk = Talk(1, credit=64).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    talk.say(KillRequested(a))
    assert talk.say(Reclaimed(1, [b])) == [KillIfRunning(1, a)]
    assert talk.say(KillAnswered(1, a, killed=False)) == [Dispatch(1, [b])]
    assert talk.say(ItemsFinished(1, [a])) == []


def test_a_kill_of_a_waiting_item_cancels_it() -> None:
    """There is nothing to kill."""
    talk = Talk(1)
    (a,) = items("a")
    talk.say(Submitted([a]))
    assert talk.say(KillRequested(a)) == [Cancelled([a]), CancelAnswered(a, True)]


# --- tries, priorities, items that come later


def test_an_item_with_another_try_waits_again() -> None:
    """In front of the others; when its tries are used up it is lost."""
    talk = Talk(1).start(1)
    a, b = items("ab")
    a.retries_left = 1
    talk.say(Submitted([a, b]))
    assert talk.say(WorkerExited(1, [])) == [Retried(a, 1), StartWorker(2, 0)]
    assert talk.say(WorkerReady(2)) == [Dispatch(2, [a])]
    assert talk.say(WorkerExited(2, [])) == [Lost(a, 2), StartWorker(3, 0)]


def test_a_terminated_pool_tries_nothing_again() -> None:
    """The end is the end."""
    talk = Talk(1).start(1)
    (a,) = items("a")
    a.retries_left = 5
    talk.say(Submitted([a]))
    talk.say(TerminateRequested())
    assert talk.say(WorkerExited(1, [])) == [Lost(a, 1), PoolClosed()]


def test_the_urgent_goes_first() -> None:
    """Equal ones in the order of their submission."""
    talk = Talk(1)
    a, b, c, d = items("abcd")
    b.priority, c.priority, d.priority = 1, -1, 1
    talk.say(Submitted([a, b, c, d]))
    assert talk.say(WorkerReady(1)) == [Dispatch(1, [b])]
    assert talk.say(ItemsFinished(1, [b])) == [Dispatch(1, [d])]
    assert talk.say(ItemsFinished(1, [d])) == [Dispatch(1, [a])]
    assert talk.say(ItemsFinished(1, [a])) == [Dispatch(1, [c])]


def test_an_urgent_item_overtakes_what_is_in_an_inbox() -> None:
    """That was given out ahead of time, and is reclaimed.

    Nothing is given out ahead while something urgent waits for a free worker.
    """
    talk = Talk(1, credit=2).start(1)
    a, b, c = items("abc")
    c.priority = 1
    talk.say(Submitted([a, b]))
    assert talk.say(Submitted([c])) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [b])) == []
    assert talk.say(ItemsFinished(1, [a])) == [Dispatch(1, [c, b])]


@pytest.mark.parametrize(("ahead", "new"), [(-1, 0), (-2, -1), (-5, 3), (0, 7)])
def test_priorities_are_compared_with_each_other_and_not_with_zero(ahead: int, new: int) -> None:
    talk = Talk(1, credit=4).start(1)
    a, b, c, d = items("abcd")
    a.priority = b.priority = c.priority = ahead
    d.priority = new
    talk.say(Submitted([a, b, c]))
    assert talk.say(Submitted([d])) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [b, c])) == []
    assert talk.say(ItemsFinished(1, [a])) == [Dispatch(1, [d, b, c])]


def test_a_lower_item_does_not_run_while_a_higher_one_waits_in_an_inbox() -> None:
    """The higher one was given out ahead.

    It is reclaimed, so that the first worker that becomes free runs it.
    """
    talk = Talk(2, credit=4).start(1, 2)
    a, b, c, d = items("abcd")
    d.priority = -1
    assert talk.say(Submitted([a, b, c])) == [Dispatch(2, [a]), Dispatch(1, [b, c])]
    assert talk.say(Submitted([d])) == [Reclaim(1)]
    assert talk.say(Reclaimed(1, [c])) == []
    assert talk.say(ItemsFinished(2, [a])) == [Dispatch(2, [c]), Dispatch(1, [d])]


def test_items_of_one_priority_are_given_out_ahead_whatever_it_is() -> None:
    talk = Talk(1, credit=4).start(1)
    found = items("abc")
    for item in found:
        item.priority = -3
    assert talk.say(Submitted(found)) == [Dispatch(1, found)]
    assert talk.say(Submitted(items("d"))) == [Reclaim(1)]


def test_a_pool_waits_for_items_that_were_announced() -> None:
    """Their dependencies are not ready; the workers are kept for them."""
    talk = Talk(1)
    (a,) = items("a")
    talk.say(Reserved())
    assert talk.say(ShutdownRequested()) == []
    assert talk.say(Submitted([a])) == [StartWorker(1, 0)]
    assert talk.say(Released()) == []
    talk.say(WorkerReady(1))
    assert talk.say(ItemsFinished(1, [a])) == [StopWorker(1)]
    assert talk.say(WorkerExited(1, [])) == [PoolClosed()]


def test_an_announced_item_that_never_comes_does_not_keep_the_pool() -> None:
    """Its dependency failed."""
    talk = Talk(1)
    talk.say(Reserved())
    talk.say(ShutdownRequested())
    assert talk.say(Released()) == [PoolClosed()]


def test_a_failed_start_is_told_to_callers_that_wait_for_all_workers() -> None:
    """One worker starts, the other cannot.

    An empty StartFailed ends the wait, and it is tried again later.
    """
    talk = Talk(2)
    talk.say(LaunchRequested())
    talk.say(WorkerReady(1))
    actions = talk.say(WorkerExited(2, [], final=True))
    assert actions[0] == StartFailed([], 2)
    assert isinstance(actions[1], SetRestartTimer)


# --- items that stand for many


class Source(Named):
    """Stands for so many items, and gives them away one by one."""

    __slots__ = ("rest",)
    many = True

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name)
        self.rest = [Named(f"{name}{number}") for number in range(count)]

    @property
    def left(self) -> int:
        return len(self.rest)

    @property
    def exhausted(self) -> bool:
        return not self.rest

    def split(self) -> Item | None:
        return self.rest.pop(0) if self.rest else None


def names(actions: list[Action]) -> list[list[str]]:
    return [
        [item.name for item in action.items] for action in actions if isinstance(action, Dispatch)
    ]  # type: ignore[attr-defined]


def test_one_item_that_stands_for_many_starts_as_many_workers_as_it_can_use() -> None:
    talk = Talk(3)
    assert talk.say(Submitted([Source("a", 2)])) == [StartWorker(1, 0), StartWorker(2, 1)]


def test_parts_are_dealt_to_all_workers_up_to_the_credit() -> None:
    talk = Talk(2, credit=64)
    talk.say(LaunchRequested())
    talk.say(WorkerReady(1))
    talk.say(WorkerReady(2))
    source = Source("a", 200)
    first, second = names(talk.say(Submitted([source])))
    assert len(first) == len(second) == 64
    assert source.place is not None, "what is left waits"
    assert talk.state.waiting.count == 1
    check_invariants(talk.state)


def test_parts_keep_their_place_in_the_queue() -> None:
    """What was submitted before comes before all parts, what was submitted after comes behind all
    of them.
    """
    talk = Talk(1, credit=1)
    before, running = items("br")
    talk.say(Submitted([running]))
    talk.say(WorkerReady(1))
    after = Named("z")
    talk.say(Submitted([before]))
    talk.say(Submitted([Source("a", 2)]))
    talk.say(Submitted([after]))
    order, now = [], running
    for _ in range(4):
        (action,) = talk.say(ItemsFinished(1, [now]))
        assert isinstance(action, Dispatch)
        (now,) = action.items  # type: ignore[assignment]
        order.append(now.name)
    assert order == ["b", "a0", "a1", "z"]
    assert talk.state.waiting.count == 0


class Heavy(Source):
    """Of its parts a worker may hold two; before the first has been made that is unknown."""

    __slots__ = ()

    @property
    def ahead(self) -> int:
        return 2 if len(self.rest) < 20 else 64


def test_a_worker_holds_few_heavy_parts() -> None:
    talk = Talk(2, credit=64)
    talk.say(LaunchRequested())
    talk.say(WorkerReady(1))
    talk.say(WorkerReady(2))
    source = Heavy("a", 20)
    held = {
        action.worker: action.items
        for action in talk.say(Submitted([source]))
        if isinstance(action, Dispatch)
    }
    assert [len(items) for items in held.values()] == [2, 2]
    number = 4
    while number < 20:
        for worker, (first, second) in held.items():
            (action,) = talk.say(ItemsFinished(worker, [first]))
            assert isinstance(action, Dispatch)
            assert action.worker == worker
            held[worker] = [second, *action.items]
            assert len(held[worker]) == 2
            number += 1
    assert source.place is None


def test_heavy_parts_wait_behind_others_and_before_others() -> None:
    """They hold up neither.

    What is light is given out ahead as far as the heavy ones, and what is behind those stays behind
    them.
    """
    talk = Talk(1, credit=64)
    talk.say(LaunchRequested())
    talk.say(WorkerReady(1))
    light = items("bcdef")
    source, behind = Heavy("a", 3), items("xyz")
    running = Named("r")
    assert names(talk.say(Submitted([running]))) == [["r"]]
    assert names(talk.say(Submitted([*light, source, *behind]))) == [["b", "c", "d", "e", "f"]]
    assert names(talk.say(ItemsFinished(1, [running, *light[:3]]))) == []
    assert names(talk.say(ItemsFinished(1, [light[3]]))) == [["a0"]]
    check_invariants(talk.state)
    assert names(talk.say(ItemsFinished(1, [light[4]]))) == [["a1"]]


def test_the_rest_of_something_older_goes_first() -> None:
    talk = Talk(1, credit=1)
    running, young, rest = items("ryo")
    talk.say(Submitted([running]))
    talk.say(WorkerReady(1))
    talk.say(Submitted([young]))
    talk.say(Submitted([rest], front=True))
    assert talk.say(ItemsFinished(1, [running])) == [Dispatch(1, [rest])]


def test_a_source_that_has_been_emptied_is_passed_over() -> None:
    talk = Talk(1, credit=1)
    (running,) = items("r")
    talk.say(Submitted([running]))
    talk.say(WorkerReady(1))
    source, other = Source("a", 1), Named("z")
    talk.say(Submitted([source]))
    talk.say(Submitted([other]))
    source.rest.clear()
    assert talk.say(ItemsFinished(1, [running])) == [Dispatch(1, [other])]
    assert talk.state.waiting.count == 0


def test_many_cancels_ask_each_worker_once() -> None:
    """However many of its items are meant."""
    talk = Talk(1, credit=64)
    a, b, c, d = items("abcd")
    talk.say(Submitted([a, b, c]))
    talk.say(WorkerReady(1))
    source = Source("s", 500)
    talk.say(Submitted([source, d]))
    said = talk.say(ManyCancelsRequested([source, b, c]))
    assert [action for action in said if isinstance(action, Reclaim)] == [Reclaim(1)]
    assert Cancelled([source]) in said
    given = [item for item in talk.state.slots.all[0].held if item is not a]
    answers = talk.say(Reclaimed(1, given))
    assert {item.name for item in items_of(answers)} == {"b", "c"}  # type: ignore[attr-defined]


# --- what cannot be


def picture(talk: Talk) -> tuple[object, ...]:
    """Return everything that an event could have changed."""
    state = talk.state
    slots = [
        (slot.phase, slot.worker, list(slot.held), slot.quota, slot.credit)
        for slot in state.slots.all
    ]
    return (
        slots,
        state.waiting.count,
        state.status,
        list(state.slots.idle),
        [item.place for item in state.items()],
    )


def test_an_item_that_its_worker_does_not_hold_cannot_end_or_come_back() -> None:
    """The event raises, and those of its items that could have ended have not."""
    talk = Talk(1, credit=4).start(1)
    a, b, c = items("abc")
    talk.say(Submitted([a, b]))
    before = picture(talk)
    for event in (
        ItemsFinished(1, [a, c]),
        Reclaimed(1, [b, c]),
        WorkerExited(1, [b, c]),
    ):
        with pytest.raises(IllegalMove):
            talk.say(event)
        assert picture(talk) == before
    with pytest.raises(KeyError):
        talk.say(ItemsFinished(2, [a]))
    assert picture(talk) == before


def test_a_phase_that_cannot_follow_changes_nothing() -> None:
    """Slots count their phases: a move that is refused is not counted."""
    slots = Talk(2).start(1, 2).state.slots
    slot = slots.all[0]
    with pytest.raises(IllegalMove, match="READY cannot become Phase.STARTING"):
        slots.move(slot, Phase.STARTING)
    assert (slot.phase, slots.starting, slots.ready) == (Phase.READY, 0, 2)
    slots.check_invariants()


def test_a_pool_whose_thread_has_failed_is_closed_as_it_stands() -> None:
    """What waits and what is held is still found."""
    talk = Talk(1).start(1)
    a, b = items("ab")
    talk.say(Submitted([a, b]))
    talk.state.abandon()
    talk.state.abandon()
    assert talk.state.status is Status.CLOSED
    assert set(talk.state.items()) == {a, b}
