"""Functions made anew over short lists, dictionaries and sets: these travel with each call.

Each is one object in the worker all the same, and its content is that of the host's.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.worker.conftest import DEADLINE, run, script_with
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.serialize.encoded import ObjectsCall
from wetlands_executor.serialize.known_functions import encode_again
from wetlands_executor.serialize.templates import MOST_ELEMENTS

SOURCE = """
def make(held, do=None):
    def anew(*args):
        if do: getattr(held, do)(*args)
        return id(held), held, type(held).__name__
    return anew

def other():
    return id(kept)
"""


@pytest.fixture
def script() -> Iterator[Any]:
    with script_with("script_with_short_containers", SOURCE) as module:
        yield module


@pytest.fixture
def make(script: Any) -> Callable[..., Any]:
    """Return what makes functions of one code."""
    found: Callable[..., Any] = script.make
    return found


def is_short(executor: CondaEnvExecutor, fn: Any, *args: Any) -> bool:
    """Return True if the containers of a function travel with its call."""
    return isinstance(encode_again(fn, args, executor._pool), ObjectsCall)


def settle(executor: CondaEnvExecutor, make: Callable[..., Any], *more: Any) -> None:
    """Let it be known that the container is another one each time."""
    for number in range(4):
        run(executor, make([number], *more), *(7,) * len(more))


CONTAINERS: list[Any] = [
    [1, "two", None], {"a": 1, "b": 2.5}, {3}, [], {}, [True, 1, 1.0, b"x"], ["x" * 200] * 64,
]  # fmt: skip


@pytest.mark.parametrize("held", CONTAINERS, ids=lambda held: repr(held)[:20])
def test_the_content_travels(fresh: CondaEnvExecutor, make: Callable[..., Any], held: Any) -> None:
    settle(fresh, make)
    first = run(fresh, make(held))
    assert first[1:] == (held, type(held).__name__)
    assert list(map(type, first[1])) == list(map(type, held))
    assert is_short(fresh, make(held))
    assert run(fresh, make(held)) == first, "one object in the worker"
    assert run(fresh, make(type(held)(held)))[0] != first[0], "another one is another object"


def test_what_the_host_changes_is_changed(
    fresh: CondaEnvExecutor, make: Callable[..., Any]
) -> None:
    settle(fresh, make)
    held: Any = [1, 2]
    where, _, _ = run(fresh, make(held))
    held.append(3)
    assert run(fresh, make(held))[:2] == (where, [1, 2, 3])
    held[0] = True
    assert str(run(fresh, make(held))[1]) == "[True, 2, 3]"
    held[0] = 1.0
    assert str(run(fresh, make(held))[1]) == "[1.0, 2, 3]"
    held[:] = [object]
    assert run(fresh, make(held))[1] == [object], "what is no scalar goes another way"
    held[:] = range(MOST_ELEMENTS + 1)
    assert not is_short(fresh, make(held))
    assert run(fresh, make(held))[:2] == (where, [*range(MOST_ELEMENTS + 1)])


def test_what_tasks_make_of_it_stays(fresh: CondaEnvExecutor, make: Callable[..., Any]) -> None:
    """As long as the host has not changed it."""
    settle(fresh, make, "append")
    held: Any = [1]
    assert run(fresh, make(held, "append"), 2)[1] == [1, 2]
    assert run(fresh, make(held, "append"), 3)[1] == [1, 2, 3]
    held.append(9)
    assert run(fresh, make(held, "append"), 4)[1] == [1, 9, 4]


def test_it_is_the_object_that_other_functions_know(
    fresh: CondaEnvExecutor, script: Any, make: Callable[..., Any]
) -> None:
    """Whichever way it went first."""
    script.kept = held = {"a": 1}
    there = run(fresh, script.other)
    settle(fresh, make)
    assert run(fresh, make(held))[0] == there
    assert is_short(fresh, make(held))
    later: Any = [1]
    where = run(fresh, make(later))[0]
    script.kept = later
    assert run(fresh, script.other) == where
    later.append(2)
    assert run(fresh, make(later))[:2] == (where, [1, 2])
    assert run(fresh, script.other) == where


@pytest.mark.parametrize("args", [(), (1, "x"), ([1, 2],), (object,)])
def test_with_arguments_and_as_part_of_a_partial_object(
    fresh: CondaEnvExecutor, make: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    settle(fresh, make)
    held: Any = [1]
    where = run(fresh, make(held))[0]
    for fn in (make(held), functools.partial(make(held), 5)):
        assert run(fresh, fn, *args)[:2] == (where, [1])
    task = fresh.options(retries=1).submit(make(held), *args)
    assert task.result(DEADLINE)[:2] == (where, [1])


def test_many_at_once_and_from_asyncio(fresh: CondaEnvExecutor, make: Callable[..., Any]) -> None:
    settle(fresh, make)
    lists = [[number] for number in range(500)]
    tasks = [fresh.submit(make(held)) for held in lists]
    found = [task.result(DEADLINE) for task in tasks]
    assert [held for _, held, _ in found] == lists
    assert len({where for where, _, _ in found}) == 500
    assert [run(fresh, make(held))[0] for held in lists[::50]] == [w for w, _, _ in found[::50]]

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(fresh, make(held)) for held in lists[:20]]
        return [await each for each in waiting]

    assert asyncio.run(main()) == found[:20]


def test_lists_that_were_dropped_leave_nothing(
    fresh: CondaEnvExecutor, make: Callable[..., Any]
) -> None:
    def count() -> int:
        return len(vars(sys.modules["_wetlands_worker.objects"])["TABLE"])

    settle(fresh, make)
    counts = []
    for number in range(3000):
        run(fresh, make([number]))
        if not number % 250:
            counts.append(run(fresh, count))
    assert max(counts) <= 600  # two messages of 256
    record = fresh._pool.settings.remote.record
    assert record is not None
    assert len(record.known) < 100
