"""Failures on the pool's I/O thread: what is guarded costs one worker or one job.

What is not ends the pool, and leaves no task open.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.contract import workload
from tests.faults import forging, odd
from tests.support.observe import until
from tests.support.rendezvous import DEADLINE, Rendezvous
from wetlands_executor import (
    CondaEnvExecutor,
    DependencyFailed,
    Task,
    WorkerCrashed,
    WorkerStartError,
)


def _fail() -> None:
    raise LookupError("a failure of the test's own")


@pytest.mark.parametrize("how", ["post", "later"])
def test_a_job_that_fails_costs_nothing_else(
    executor: CondaEnvExecutor, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    task = executor.submit(time.sleep, 0.3)
    pool = executor._pool
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        if how == "post":
            pool.post(_fail)
        else:
            pool.loop.later(0.0, _fail)
        assert task.result(DEADLINE) is None
        assert executor.submit(odd.same, 1).result(DEADLINE) == 1
        assert until(
            lambda: any("this is a bug" in record.getMessage() for record in caplog.records)
        )


@pytest.mark.parametrize("name", ["on_started", "on_progress", "on_printed", "on_log"])
def test_what_fails_for_one_worker_costs_that_one(
    executor: CondaEnvExecutor, rendezvous: Rendezvous, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A fault is put into the handling of what one call sends."""
    neighbour = executor.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    part = executor._pool.deadlines if name == "on_started" else executor._pool.inbound
    monkeypatch.setattr(part, name, lambda *_args: _fail())
    kind = {"on_started": 9, "on_progress": 10, "on_printed": 13, "on_log": 12}[name]
    bad = executor.submit(forging.forge_and_sleep, kind, "stream 0", "as it is", 60)
    assert isinstance(bad.exception(DEADLINE), WorkerCrashed)
    assert "a failure of the test's own" in str(bad.exception())
    monkeypatch.undo()
    assert neighbour.running()
    arrival.release()
    assert neighbour.result(DEADLINE) == "in"
    assert executor.submit(odd.same, 1).result(DEADLINE) == 1


@pytest.mark.parametrize("times", [1, 2])
def test_an_end_of_a_worker_that_cannot_be_dealt_with(
    single: CondaEnvExecutor, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A fault is put into its burial.

    Its call ends all the same, and another worker takes its place.
    """
    names = ["exit_error", "take_unsent"][:times]
    single.submit(odd.same, 1).result(DEADLINE)
    for name in names:
        monkeypatch.setattr(single._pool.reaper, name, lambda *_args: _fail())
    task = single.submit(os._exit, 3)
    assert isinstance(task.exception(DEADLINE), WorkerCrashed)
    monkeypatch.undo()
    assert single.submit(odd.same, 1).result(DEADLINE) == 1


def test_when_the_thread_itself_fails_no_task_stays_open(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make(2, task_timeout=3600)
    running = executor.submit(workload.arrive, rendezvous.address, "in")
    rendezvous.next()
    tasks: list[Task[object]] = [running]
    tasks += [executor.submit(odd.same, number) for number in range(100)]
    tasks += [
        executor.submit(odd.same, running),
        executor.options(retries=3).submit(odd.same, running),
    ]
    tasks += executor.map_tasks(odd.same, range(50))
    results = executor.map(odd.same, range(1000))
    pool = executor._pool

    def harm() -> None:
        pool.shell.publish = _fail  # type: ignore[method-assign]
        pool.shell.changed = True

    pool.post(harm)
    for task in tasks:
        error = None if task.wait_for(DEADLINE).cancelled() else task.exception()
        assert error is None or isinstance(
            error, (BrokenProcessPool, DependencyFailed, RuntimeError)
        ), repr(error)
    assert isinstance(running.exception(), BrokenProcessPool)
    with pytest.raises((BrokenProcessPool, RuntimeError)):
        list(results)
    with pytest.raises(BrokenProcessPool) as caught:
        executor.submit(odd.same, 1)
    assert isinstance(caught.value.__cause__, BrokenProcessPool)
    assert isinstance(caught.value.__cause__.__cause__, LookupError)
    executor.shutdown()


def test_a_call_on_the_direct_way_is_not_missed_when_the_thread_fails(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    """The state has not heard of a call that its submitter has written to an idle worker itself."""
    executor = make(1)
    for _ in range(3):
        executor.submit(odd.same, 1).result(DEADLINE)
    pool = executor._pool
    task = executor.submit(workload.arrive, rendezvous.address, "in")
    rendezvous.next()

    def harm() -> None:
        pool.shell.publish = _fail  # type: ignore[method-assign]
        pool.shell.changed = True

    pool.post(harm)
    assert isinstance(task.exception(DEADLINE), BrokenProcessPool)
    executor.shutdown()


# ----------------------------------------------------------------------------- why a pool is broken


def _refuse_to_start() -> None:
    raise ValueError("not today")


def test_the_cause_of_a_failed_initializer_stays(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(2, initializer=_refuse_to_start)
    first = executor.submit(odd.same, 1)
    dependant = executor.submit(odd.same, first)
    assert isinstance(first.exception(DEADLINE), BrokenProcessPool)
    assert isinstance(dependant.exception(DEADLINE), (DependencyFailed, BrokenProcessPool))
    assert until(lambda: not executor.workers())
    for _ in range(3):
        with pytest.raises(BrokenProcessPool, match="not today") as caught:
            executor.submit(odd.same, 1)
        cause: BaseException | None = caught.value.__cause__
        assert isinstance(cause, BrokenProcessPool)
        assert isinstance(cause.__cause__, ValueError)
        assert cause.__cause__.args == ("not today",)


def test_a_dependant_that_is_ready_after_the_pool_broke_hears_why(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    good = make(1)
    held = good.submit(workload.arrive, rendezvous.address, 5)
    arrival = rendezvous.next()
    executor = make(1, initializer=_refuse_to_start)
    dependant = executor.submit(odd.same, held)
    broken = executor.submit(odd.same, 1)
    assert isinstance(broken.exception(DEADLINE), BrokenProcessPool)
    assert until(lambda: not executor.workers())
    arrival.release()
    error = dependant.exception(DEADLINE)
    assert isinstance(error, BrokenProcessPool)
    assert "not today" in str(error)
    assert isinstance(error.__cause__, ValueError)


def test_starts_that_fail_leave_nothing(make: Callable[..., CondaEnvExecutor]) -> None:
    """Thirty submits that each meet an interpreter which cannot be started.

    The thirtieth error keeps none of the others.
    """
    import gc

    executor = make(1)
    pool = executor._pool
    pool.settings.launch = lambda _index: (["/no/such/interpreter"], {}, None)
    for _ in range(30):
        assert isinstance(executor.submit(odd.same, 1).exception(DEADLINE), WorkerStartError)
    executor.clear_failed()
    gc.collect()
    kept = [one for one in gc.get_objects() if type(one) is WorkerStartError]
    assert len(kept) <= 3
