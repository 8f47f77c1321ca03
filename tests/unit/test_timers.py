"""The timers of a pool: order, stopping, and that a stopped one keeps nothing."""

from __future__ import annotations

import gc
import math
import random
import time
import weakref

from wetlands_executor.pool.timers import FEW, Timers
from wetlands_executor.seconds import LONGEST


class Job:
    """Something that a timer holds."""

    def __call__(self) -> None:
        """Be due."""


def _due(timers: Timers, later: float) -> list[object]:
    found = []
    now = time.monotonic() + later
    while (job := timers.take_due(now)) is not None:
        found.append(job)
    return found


def test_timers_are_due_in_their_order() -> None:
    timers = Timers()
    jobs = [Job() for _ in range(4)]
    for delay, job in zip((3.0, 1.0, 2.0, 1.0), jobs, strict=True):
        timers.set(delay, job)
    assert len(timers) == 4
    assert _due(timers, 0.5) == []
    assert _due(timers, 2.5) == [jobs[1], jobs[3], jobs[2]]
    assert _due(timers, 5.0) == [jobs[0]]
    assert not timers.heap
    assert timers.until_next() is None


def test_a_stopped_timer_holds_nothing_and_wakes_no_thread() -> None:
    timers = Timers()
    job = Job()
    gone = weakref.ref(job)
    timer = timers.set(3600.0, job)
    timers.stop(timer)
    timers.stop(timer)
    del job
    gc.collect()
    assert gone() is None
    assert len(timers) == 0
    assert timers.until_next() is None
    assert not timers.heap


def test_a_fired_timer_can_be_stopped() -> None:
    timers = Timers()
    timer = timers.set(0.0, Job())
    assert len(_due(timers, 1.0)) == 1
    timers.stop(timer)
    assert len(timers) == 0


def test_a_wait_is_never_longer_than_one_can_last() -> None:
    timers = Timers()
    for delay in (math.inf, 1e300, 90 * 86400.0):
        timers.set(delay, Job())
        assert timers.until_next() == LONGEST
    timers.set(-1.0, Job())
    assert timers.until_next() == 0.0


def test_stopped_timers_do_not_pile_up(stress_rng: random.Random) -> None:
    timers = Timers()
    running = []
    for _ in range(5000):
        running.append(timers.set(stress_rng.uniform(100, 1000), Job()))
        if len(running) > 10:
            timers.stop(running.pop(stress_rng.randrange(len(running))))
        assert len(timers) == len(running)
        assert len(timers.heap) <= 2 * len(running) + FEW + 2
    assert len(_due(timers, 2000.0)) == 10
