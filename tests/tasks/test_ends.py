"""The end of an executor: with a timeout, in an event loop, and what its tasks say of it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.rendezvous import Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, TaskStatus
from wetlands_executor.pool import lifecycle

DEADLINE = 60
CANCELED = TaskStatus.CANCELED


# --- shutdown(timeout=...)


def test_a_timeout_that_is_not_needed_changes_nothing(single: CondaEnvExecutor) -> None:
    tasks = [single.submit(workload.add, number) for number in range(10)]
    single.shutdown(timeout=DEADLINE)
    assert [task.result() for task in tasks] == list(range(10))


def test_after_the_timeout_what_waits_is_cancelled_and_what_runs_is_asked(
    single: CondaEnvExecutor,
) -> None:
    running = single.submit(workload.cooperate_by_update)
    waiting = single.submit(workload.add, 1)
    unstarted = single.options(start=False).submit(workload.add, 1)
    began = time.monotonic()
    single.shutdown(timeout=0.2)
    assert time.monotonic() - began < 4, "it did not wait for the interrupt"
    assert [task.status for task in (running, waiting, unstarted)] == [CANCELED] * 3
    assert "timeout of 0.2 s" in str(waiting.error)
    assert "timeout of 0.2 s" in str(running.error)
    assert "shut down" in str(unstarted.error)


def test_what_does_not_look_is_interrupted_and_then_killed(
    single: CondaEnvExecutor,
    rendezvous: Rendezvous,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "INTERRUPT_AFTER", 0.3)
    path = tmp_path / "journal"
    running = single.submit(workload.stubborn, rendezvous.address, "in", str(path))
    arrival = rendezvous.next()
    single.shutdown(timeout=0)
    assert "interrupted" in path.read_text()
    error = running.exception()
    assert isinstance(error, BrokenProcessPool)
    assert "its worker was killed because the executor was shut down" in str(error)
    arrival.wait_until_gone()


def test_a_shutdown_that_does_not_wait_ends_in_the_background(single: CondaEnvExecutor) -> None:
    running = single.submit(workload.cooperate_by_update)
    single.shutdown(wait=False, timeout=0.1)
    assert running.wait_for(DEADLINE).status is CANCELED
    single.shutdown()


def test_an_executor_that_was_never_used_ends_at_once(single: CondaEnvExecutor) -> None:
    before = threading.active_count()
    single.shutdown(timeout=0)
    single.shutdown(timeout=1)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("timeout", "error"), [("1", TypeError), (True, TypeError), (float("nan"), ValueError)], ids=str
)
def test_a_wrong_timeout_is_refused_and_nothing_is_shut_down(
    single: CondaEnvExecutor, timeout: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout"):
        single.shutdown(timeout=timeout)  # type: ignore[arg-type]
    assert single.submit(workload.add, 1).result(DEADLINE) == 1


def test_a_view_with_a_timeout_ends_its_own_tasks_only(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make(2)
    view = executor.options(name="view")
    mine = view.submit(workload.cooperate_by_update)
    other = executor.submit(workload.arrive, rendezvous.address, "other")
    arrival = rendezvous.next()
    view.shutdown(timeout=0.1)
    assert mine.status is CANCELED
    assert other.running()
    arrival.release()
    other.result(DEADLINE)


def test_a_view_says_why_it_killed_a_task(
    make: Callable[..., CondaEnvExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wetlands_executor.views.KILL_AFTER", 0.1)
    view = make(1).options(name="view")
    task = view.submit(time.sleep, 60)
    started = threading.Event()
    task.listen(lambda _: started.set())
    assert started.wait(DEADLINE)
    view.shutdown(timeout=0.1)
    assert task.status is CANCELED
    assert task.error is not None
    assert "view of the executor was shut down" in task.error


# --- reasons


def test_cancel_futures_leaves_a_reason(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    running = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    waiting = single.submit(workload.add, 1)
    by_hand = single.submit(workload.add, 2)
    assert by_hand.cancel()
    dependent = single.submit(workload.add, running)
    single.shutdown(wait=False, cancel_futures=True)
    for task in (waiting, dependent):
        with pytest.raises(CancelledError, match="the executor was shut down"):
            task.result(DEADLINE)
        with pytest.raises(CancelledError, match="the executor was shut down"):
            task.exception(DEADLINE)
        assert task.error == "the executor was shut down"
    assert by_hand.error is None, "its program asked for that"
    arrival.release()
    running.result(DEADLINE)
    assert running.error is None


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_the_end_of_all_workers_leaves_a_reason(
    single: CondaEnvExecutor, rendezvous: Rendezvous, method: str
) -> None:
    running = single.submit(workload.arrive, rendezvous.address, "in")
    rendezvous.next()
    waiting = single.submit(workload.add, 1)
    getattr(single, method)()
    with pytest.raises(BrokenProcessPool, match=rf"its worker was killed by {method}\(\)"):
        running.result(DEADLINE)
    with pytest.raises(CancelledError, match=method):
        waiting.result(DEADLINE)
    assert f"{method}()" in str(waiting.error)


def test_a_killed_task_says_so(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    rendezvous.next()
    task.kill()
    with pytest.raises(CancelledError, match=r"its worker was killed by Task.kill\(\)"):
        task.result(DEADLINE)


def test_a_task_whose_argument_was_cancelled_says_which(single: CondaEnvExecutor) -> None:
    argument = single.options(start=False, name="first").submit(workload.add, 1)
    task = single.options(name="second").submit(workload.add, argument)
    argument.cancel()
    with pytest.raises(CancelledError, match=r"the task 'first', an argument, was cancelled"):
        task.result(DEADLINE)


def test_an_awaited_task_says_why(single: CondaEnvExecutor) -> None:
    task = single.options(start=False).submit(workload.add, 1)
    single.shutdown()

    async def main() -> None:
        await task

    with pytest.raises(
        asyncio.CancelledError, match="the executor was shut down before the task was started"
    ):
        asyncio.run(main())


# --- async with


@pytest.mark.parametrize("how", ["inside", "ends", "handler"])
def test_a_signal_ends_an_async_block_as_a_with_block(
    host: Callable[..., Host], journal: Path, how: str
) -> None:
    """What has not started is cancelled, and not run first; what runs is asked to stop."""
    process = host("interrupted_async", "cooperative", journal, 5.0, how)
    assert process.line() == "ready"
    began = time.monotonic()
    if how == "handler":
        os.kill(process.process.pid, signal.SIGTERM)
    else:
        process.interrupt()
    assert process.line().startswith("left canceled canceled")
    assert time.monotonic() - began < 4, "it did not wait for the interrupt"
    assert "the executor was shut down by CancelledError" in process.line()
    assert process.finish()[0] == 0
    assert journal.read_text() == ""


def test_an_async_block_interrupts_what_does_not_look(
    host: Callable[..., Host], journal: Path
) -> None:
    process = host("interrupted_async", "sleeping", journal, 0.3, "inside")
    assert process.line() == "ready"
    process.interrupt()
    assert process.line().startswith(("left canceled canceled", "left failed canceled"))
    process.line()
    assert process.finish()[0] == 0
    assert journal.read_text() == "interrupted running\n"


def test_a_second_cancellation_kills_at_once(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    executor = make()

    async def main() -> float:
        begun = asyncio.Event()

        async def block() -> None:
            async with executor:
                executor.submit(workload.stubborn, rendezvous.address, "in")
                await asyncio.to_thread(rendezvous.next)
                begun.set()

        task = asyncio.ensure_future(block())
        # in the same step of the loop the block has begun to wait for the end of its executor
        await begun.wait()
        began = time.monotonic()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(main()) < lifecycle.INTERRUPT_AFTER


def test_the_loop_goes_on_while_a_block_ends(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    """Its end takes no thread of the loop's own either: all of them are busy here."""
    release = threading.Event()

    async def main() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            loop.run_in_executor(None, release.wait, DEADLINE)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                if ticks == 5:
                    arrival.release()
                await asyncio.sleep(0.01)

        async with single:
            task = single.submit(workload.arrive, rendezvous.address, "in")
            with ThreadPoolExecutor(1) as own:
                arrival = await loop.run_in_executor(own, rendezvous.next)
            ticking = asyncio.ensure_future(tick())
        assert task.done()
        ticking.cancel()
        release.set()
        return ticks

    assert asyncio.run(main()) >= 5


def test_an_awaited_task_that_was_cancelled_is_no_end_of_the_block(
    single: CondaEnvExecutor,
) -> None:
    """It raises the same exception as the cancellation of the block.

    What was submitted is finished all the same (Python 3.11).
    """
    if not hasattr(asyncio.Task, "cancelling"):
        pytest.skip("Python 3.10 cannot tell them apart")

    async def main() -> list[int]:
        try:
            async with single:
                others = [single.submit(workload.add, number) for number in range(5)]
                cancelled = single.options(start=False).submit(workload.add, 1)
                cancelled.cancel()
                await cancelled
        except asyncio.CancelledError:
            pass
        return [task.result(0) for task in others]

    assert asyncio.run(main()) == list(range(5))


# --- launch


def test_launch_async_waits_for_all_workers(make: Callable[..., CondaEnvExecutor]) -> None:
    async def main() -> int:
        async with make(3) as executor:
            assert await executor.launch_async() is executor
            return executor.worker_count

    assert asyncio.run(main()) == 3


def test_launch_async_raises_why(make: Callable[..., CondaEnvExecutor]) -> None:
    executor = make(1, initializer=workload.fail)

    async def main() -> None:
        await executor.launch_async()

    with pytest.raises(BrokenProcessPool):
        asyncio.run(main())
    executor.shutdown()
    with pytest.raises(RuntimeError):
        asyncio.run(main())
