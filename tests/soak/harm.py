"""Ingredients that do harm.

Crashes, kills, cancellations, limits, interrupts, and tasks that harm what they have inherited.

What harms a worker harms the call that runs there, and no other: each has bystanders whose values
must come. A worker is killed from outside only while a call of the same ingredient holds it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tests.soak import work
from tests.soak.ledger import LIMIT, Kitchen, Violation
from tests.support import leaks
from tests.support.rendezvous import Arrival, Rendezvous
from wetlands_executor import CondaEnvExecutor, Task, TaskStatus, TaskTimeoutError, WorkerCrashed


@contextlib.contextmanager
def held(
    kitchen: Kitchen, executor: Any, function: Any = work.hold, *args: object
) -> Iterator[tuple[Task[Any], Arrival]]:
    """Have a call hold a worker; yields the task and the process in which it waits."""
    with Rendezvous() as rendezvous:
        task = kitchen.submit(executor, function, rendezvous.address, *args)
        try:
            arrival = rendezvous.next(LIMIT)
        except AssertionError:
            raise Violation(f"{task} has not begun within {LIMIT} s: {task.error}") from None
        yield task, arrival


def crashes(kitchen: Kitchen) -> None:
    """A call that ends its worker fails alone."""
    executor = kitchen.executor()
    bystanders = kitchen.bystanders(executor, 6)
    way = kitchen.rng.choice(["exit", "zero", "abort", "SIGSEGV", "SIGKILL", "SIGTERM"])
    task = kitchen.submit(executor, work.die, way)
    more = kitchen.bystanders(executor, 6)
    kitchen.fails(task, WorkerCrashed)
    bystanders()
    more()
    if kitchen.rng.random() < 0.3:
        kitchen.fails(kitchen.submit(executor, work.die_with_child), WorkerCrashed)


def kills(kitchen: Kitchen) -> None:
    """task.kill(), and a SIGKILL from elsewhere."""
    executor = kitchen.executor()
    bystanders = kitchen.bystanders(executor)
    with held(kitchen, executor) as (task, arrival):
        if kitchen.rng.random() < 0.5:
            task.kill()
            kitchen.cancelled(task)
        else:
            os.kill(arrival.pid, signal.SIGKILL)
            kitchen.fails(task, WorkerCrashed)
    if leaks.wait_for_exit([arrival.pid], LIMIT):
        raise Violation(f"the worker {arrival.pid} that was killed lives")
    bystanders()


def cancellations(kitchen: Kitchen) -> None:
    """Calls that wait, that run and look, and that run and do not."""
    executor = kitchen.executor()
    bystanders = kitchen.bystanders(executor)
    with held(kitchen, executor, work.hold_politely) as (task, arrival):
        kitchen.same(task.cancel(), False, "cancel() of a running task")
        arrival.release()
        kitchen.cancelled(task)
    unstarted = kitchen.submit(executor.options(start=False), work.echo, 1)
    kitchen.same(unstarted.cancel(), True, "cancel() of a task that was not started")
    kitchen.cancelled(unstarted)
    with held(kitchen, executor.options(cancel_grace=0.05), work.hold_deafly) as (task, arrival):
        arrival.release()
        task.cancel()
        kitchen.end(task)
        if task.status is TaskStatus.COMPLETED:
            kitchen.same(task.value, "interrupted", task)
        elif task.status is not TaskStatus.CANCELED:
            raise Violation(f"{task} should be interrupted: {task.error}")
    bystanders()


def races(kitchen: Kitchen) -> None:
    """Cancel calls at any moment: each has its value, or is cancelled."""
    executor = kitchen.executor()
    tasks = [(number, kitchen.submit(executor, work.echo, number)) for number in range(40)]
    kitchen.rng.shuffle(tasks)
    for number, task in tasks:
        if kitchen.rng.random() < 0.7 and task.cancel():
            kitchen.cancelled(task)
    for number, task in tasks:
        kitchen.end(task)
        if not task.cancelled():
            kitchen.value(task, number)


def limits(kitchen: Kitchen) -> None:
    """Time limits that are reached, and some that are not, however long."""
    executor = kitchen.executor()
    bystanders = kitchen.bystanders(executor)
    limit = kitchen.rng.choice([60, 1000.5, 10**7])
    within = kitchen.submit(executor.options(timeout=limit), work.echo, "within")
    over = kitchen.submit(executor.options(timeout=0.2), "time:sleep", LIMIT)
    kitchen.fails(over, TaskTimeoutError)
    kitchen.value(within, "within")
    bystanders()


def interrupts(kitchen: Kitchen) -> None:
    """A SIGINT at a worker is a KeyboardInterrupt in the call that runs, and nothing when none
    runs.
    """
    executor = kitchen.executor()
    with held(kitchen, executor) as (task, arrival):
        os.kill(arrival.pid, signal.SIGINT)
        kitchen.fails(task, KeyboardInterrupt)
    kitchen.bystanders(executor)()


def forks(kitchen: Kitchen) -> None:
    """A task that forks; one that leaves a thread behind, which belongs to no task afterwards."""
    kitchen.value(kitchen.submit(kitchen.executor(), work.fork_and_reap, 5), (5, 7))
    executor = kitchen.executor("quiet")
    kitchen.value(kitchen.submit(executor, work.leave_thread, 0.2), "left")
    for _ in range(5):
        task = kitchen.submit(executor, work.quiet_progress, 8)
        kitchen.value(task, 8)
        kitchen.same(
            (task.message, task.current, task.outputs),
            ("own 7", 8, {}),
            "the progress of a task after one that left a thread",
        )


def alarms(kitchen: Kitchen) -> None:
    """A timer that a task has left costs no other task anything."""
    executor = kitchen.executor("plain", "second")
    kitchen.value(kitchen.submit(executor, work.leave_alarm), "left")
    for _ in range(10):
        kitchen.bystanders(executor, 4)()


def vandals(kitchen: Kitchen) -> None:
    """A task that writes into, or changes the flags of, what it has inherited.

    Neighbours in other workers have their values.
    """
    function = kitchen.rng.choice([work.zeros_into_inherited, work.unblock_inherited])
    bulk = os.urandom(kitchen.rng.choice([1000, 300_000, 2_000_000]))
    with CondaEnvExecutor(max_workers=2) as executor:
        with held(kitchen, executor, work.hold, bulk) as (neighbour, arrival):
            vandal = kitchen.end(kitchen.submit(executor, function))
            if vandal.status is TaskStatus.FAILED:
                kitchen.fails(vandal, BrokenProcessPool)
            arrival.release()
            kitchen.value(neighbour, bulk)
        for _ in range(3):
            kitchen.value(kitchen.submit(executor, work.echo, bulk), bulk)


def endings(kitchen: Kitchen) -> None:
    """Executors of one ingredient, ended in every way."""
    how = kitchen.rng.choice(
        ["with", "cancel", "terminate", "kill", "unused", "dropped", "no wait"]
    )
    executor = CondaEnvExecutor(max_workers=2)
    if how == "unused":
        executor.shutdown()
        return
    tasks = [kitchen.submit(executor, work.echo, number) for number in range(8)]
    if how == "dropped":
        del executor
    elif how == "terminate":
        executor.terminate_workers()
    elif how == "kill":
        executor.kill_workers()
    else:
        executor.shutdown(wait=how != "no wait", cancel_futures=how == "cancel")
    for number, task in enumerate(tasks):
        kitchen.end(task)
        if task.status is TaskStatus.COMPLETED:
            kitchen.same(task.value, number, task)
        elif task.status is TaskStatus.FAILED:
            if how not in ("terminate", "kill"):
                raise Violation(
                    f"{task} failed in an executor that was ended by {how!r}: {task.error}"
                )
            kitchen.fails(task, BrokenProcessPool)
        elif how not in ("cancel", "terminate", "kill"):
            raise Violation(f"{task} was cancelled in an executor that was ended by {how!r}")
    if how == "no wait":
        executor.shutdown()


def finalizers(kitchen: Kitchen) -> None:
    """Objects whose finalizers submit and cancel, on whatever thread the collector runs, the pool's
    own included.
    """
    executor = kitchen.executor("plain", "second", "quiet")
    late: list[Task[Any]] = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            task = executor.submit(abs, -1)
            if len(late) % 3 == 0:
                task.cancel()
            late.append(task)

    count = 20
    for number in range(count):
        Cycle()
        kitchen.value(kitchen.submit(executor, work.add, number, 1), number + 1)
    deadline = time.monotonic() + LIMIT
    while len(late) < count and time.monotonic() < deadline:
        # returns at once while another thread collects, and that thread's end is announced by
        # nothing
        gc.collect()
        threading.Event().wait(0.01)
    kitchen.same(len(late), count, "objects that were finalized")
    for task in late:
        kitchen.end(task)
        if not task.cancelled():
            kitchen.value(task, 1)
    late.clear()


INGREDIENTS = {
    function.__name__: function
    for function in (
        crashes,
        kills,
        cancellations,
        races,
        limits,
        interrupts,
        forks,
        alarms,
        vandals,
        endings,
        finalizers,
    )
}
