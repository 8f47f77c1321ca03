"""Ingredients that work as they should.

Values, exceptions, maps, dependencies, options, asyncio.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import math
import operator
import os
import threading
import uuid
from typing import Any

from tests.soak import work
from tests.soak.ledger import LIMIT, Kitchen, Violation
from wetlands_executor import DependencyFailed, ScriptExit, Task, TaskStatus


def values(kitchen: Kitchen) -> None:
    """Functions of all kinds."""
    rng = kitchen.rng
    executor = kitchen.executor()
    expected: list[tuple[Task[Any], Any]] = []
    for _ in range(rng.randrange(1, 30)):
        a, b = rng.randrange(1000), rng.randrange(1000)
        call, value = rng.choice(
            [
                ((operator.mul, a, b), a * b),
                ((work.add, a, b), a + b),
                (("math:gcd", a, b), math.gcd(a, b)),
                ((lambda x: x + b, a), a + b),
                ((functools.partial(work.add, a), b), a + b),
                ((work.echo, {"a": [a, (b, None)], b: "text"}), {"a": [a, (b, None)], b: "text"}),
                ((work.echo, work.Token((a, b))), work.Token((a, b))),
                ((work.echo, work.Level.HIGH), work.Level.HIGH),
                ((work.in_threads, [a, a + 1]), [(a, a * a), (a + 1, (a + 1) ** 2)]),
            ]
        )
        expected.append((kitchen.submit(executor, *call), value))
    rng.shuffle(expected)
    for task, value in expected:
        kitchen.value(task, value)


def fast_results(kitchen: Kitchen) -> None:
    """Short calls, one after the other: the direct ways."""
    executor = kitchen.executor()
    for number in range(kitchen.rng.randrange(5, 60)):
        kitchen.same(executor.submit(work.add, number, 1).result(LIMIT), number + 1, "a short call")


def exceptions(kitchen: Kitchen) -> None:
    """What a task raises is its own failure."""
    executor = kitchen.executor()
    bystanders = kitchen.bystanders(executor)
    number = kitchen.rng.randrange(100)
    error = kitchen.fails(kitchen.submit(executor, work.complain, number), work.Complaint)
    kitchen.same(getattr(error, "number", None), number, "an attribute of an exception")
    kitchen.fails(kitchen.submit(executor, work.complain_oddly), Exception, "odd text")
    kitchen.fails(kitchen.submit(executor, divmod, 1, 0), ZeroDivisionError)
    kitchen.fails(kitchen.submit(executor, work.give_lock), Exception, "pickle")
    kitchen.fails(kitchen.submit(executor, work.echo, work.Lock()), Exception, "pickle")
    kitchen.fails(kitchen.submit(executor, work.echo, work.Sour("elsewhere")), Exception, "sour")
    kitchen.fails(kitchen.submit(executor, work.give_sour), Exception, "sour")
    kitchen.fails(
        kitchen.submit(executor, "no_such_module_at_all:f"), Exception, "no_such_module_at_all"
    )
    bystanders()


def maps(kitchen: Kitchen) -> None:
    """Maps of all kinds, with and without errors, closed early or not."""
    rng = kitchen.rng
    executor = kitchen.executor()
    count, chunk = rng.choice([0, 1, 7, 60, 400]), rng.choice([1, 1, 3, 50])
    numbers = [rng.randrange(1000) for _ in range(count)]
    found = list(executor.map(work.add, numbers, range(count), chunksize=chunk, timeout=LIMIT))
    kitchen.same(
        found, [a + b for a, b in zip(numbers, range(count), strict=True)], "an ordered map"
    )
    unordered = executor.map(
        lambda n: n * 2, numbers, ordered=False, chunksize=chunk, timeout=LIMIT
    )
    kitchen.same(sorted(unordered), sorted(2 * n for n in numbers), "an unordered map")
    if count:
        results = executor.map(
            work.complain, numbers, timeout=LIMIT, buffersize=rng.choice([None, 2])
        )
        try:
            next(results)
        except work.Complaint as error:
            kitchen.same(error.number, numbers[0], "the first exception of a map")
        else:
            raise Violation("a map whose items fail has yielded something")
        results = executor.map(work.echo, numbers, timeout=LIMIT)
        kitchen.same(next(results), numbers[0], "the first item of a map")
        results.close()


def dependencies(kitchen: Kitchen) -> None:
    """Chains and diamonds across executors.

    A failure reaches all that depend on it, and nothing else.
    """
    rng = kitchen.rng
    task = kitchen.submit(kitchen.executor(), work.add, 1, 1)
    expected = 2
    for _ in range(rng.randrange(1, 15)):
        if rng.random() < 0.3:
            task, expected = kitchen.submit(kitchen.executor(), work.add, task, task), 2 * expected
        else:
            task, expected = (
                kitchen.submit(kitchen.executor(), work.add, task, right=1),
                expected + 1,
            )
    failed = kitchen.submit(kitchen.executor(), work.complain, 5)
    dependants = [kitchen.submit(kitchen.executor(), work.add, failed, task) for _ in range(3)]
    late = kitchen.submit(kitchen.executor().options(start=False), work.echo, 4)
    kitchen.value(kitchen.submit(kitchen.executor(), work.add, late, 1), 5)
    kitchen.value(task, expected)
    for dependant in dependants:
        kitchen.fails(dependant, DependencyFailed)
    kitchen.fails(failed, work.Complaint)
    unstarted = kitchen.submit(kitchen.executor().options(start=False), work.echo, 4)
    unstarted.cancel()
    kitchen.cancelled(kitchen.submit(kitchen.executor(), work.add, unstarted, 1))


def waiting(kitchen: Kitchen) -> None:
    """The standard library's functions over our tasks, and threads that wait for one task together.
    """
    executor = kitchen.executor()
    tasks = [kitchen.submit(executor, work.echo, number) for number in range(12)]
    kitchen.same(
        sorted(task.result() for task in concurrent.futures.as_completed(tasks, LIMIT)),
        list(range(12)),
        "as_completed",
    )
    task = kitchen.submit(executor, work.echo, "shared")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(task.result(LIMIT))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kitchen.same(found, ["shared"] * 4, "a task that four threads wait for")
    done, pending = concurrent.futures.wait(tasks, LIMIT)
    kitchen.same((len(done), len(pending)), (12, 0), "wait")


def scripts(kitchen: Kitchen) -> None:
    """A script runs as a script does."""
    path = os.path.join(kitchen.folder, f"{uuid.uuid4().hex}.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            "import sys\nassert __name__ == '__main__'\nif sys.argv[1] == 'raise':\n    "
            "raise ValueError('of a script')\n"
        )
        file.write("if sys.argv[1] == 'exit':\n    sys.exit(int(sys.argv[2]))\n")
    executor = kitchen.executor()
    kitchen.value(kitchen.track(executor.submit_script(path, ["exit", "0"])), None)
    left = kitchen.fails(kitchen.track(executor.submit_script(path, ["exit", "3"])), ScriptExit)
    kitchen.same(getattr(left, "code", None), 3, "the exit code of a script")
    kitchen.value(kitchen.track(executor.submit_script(path, ["well"])), None)
    kitchen.fails(kitchen.track(executor.submit_script(path, ["raise"])), ValueError, "of a script")


async def _awaited(kitchen: Kitchen, executor: Any, folder: str) -> None:
    rng = kitchen.rng
    numbers = [rng.randrange(1000) for _ in range(rng.randrange(1, 25))]
    found = await asyncio.wait_for(
        asyncio.gather(*(kitchen.submit(executor, work.add, n, 1) for n in numbers)), LIMIT
    )
    kitchen.same(found, [n + 1 for n in numbers], "tasks that are awaited together")
    types = [
        event.type.value
        async for event in kitchen.submit(executor, work.quiet_progress, 3).events()
    ]
    # A task that has ended before it is listened to has its last event only.
    if types.count("completion") != 1 or types[-1] != "completion" or "started" in types[1:]:
        raise Violation(f"the events of a task: {types}")
    waiter = asyncio.ensure_future(
        _await(kitchen.submit(executor, work.hold_politely, "/nonexistent/socket"))
    )
    await asyncio.sleep(rng.random() * 0.05)
    waiter.cancel()
    try:
        await asyncio.wait_for(waiter, LIMIT)
    except asyncio.CancelledError:
        pass
    else:
        raise Violation("an awaiter that was cancelled has returned")


async def _await(task: Task[Any]) -> Any:
    try:
        return await task
    except asyncio.CancelledError:
        await asyncio.get_running_loop().run_in_executor(None, task.wait_for, LIMIT)
        if task.status is not TaskStatus.CANCELED:
            raise Violation(
                f"the awaiter of {task} was cancelled, and the task did not stop: {task.error}"
            ) from None
        raise


def in_asyncio(kitchen: Kitchen) -> None:
    """Tasks of a loop.

    Gathered, watched, and asked to stop by the cancellation of what awaits them.
    """
    asyncio.run(_awaited(kitchen, kitchen.executor(), kitchen.folder))


def views(kitchen: Kitchen) -> None:
    """Options of a call: names, priorities, deferred starts, retries of what crashes."""
    executor = kitchen.executor("plain", "second")
    rng = kitchen.rng
    bystanders = kitchen.bystanders(executor)
    named = kitchen.submit(
        executor.options(name="a name", priority=rng.randrange(-5, 5)), work.echo, 1
    )
    kitchen.same(named.name, "a name", "the name of a task")
    kitchen.value(named, 1)
    path = os.path.join(kitchen.folder, uuid.uuid4().hex)
    again = kitchen.submit(executor.options(retries=3), work.die_until, path, 3, "third")
    kitchen.value(again, "third")
    kitchen.same(again.attempt, 3, "the attempts of a task that crashes twice")
    with executor.options(timeout=LIMIT) as view:
        inside = kitchen.submit(view, work.echo, 3)
    kitchen.same(inside.done(), True, "a task of a view that has ended")
    kitchen.value(inside, 3)
    bystanders()


INGREDIENTS = {
    function.__name__: function
    for function in (
        values,
        fast_results,
        exceptions,
        maps,
        dependencies,
        waiting,
        scripts,
        in_asyncio,
        views,
    )
}
