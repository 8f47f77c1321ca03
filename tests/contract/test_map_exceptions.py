"""``map(..., return_exceptions=True)``.

The exception of a failed call stands in its place, and nothing is cancelled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest

from wetlands_executor import CondaEnvExecutor, WorkerCrashed

DEADLINE = 60


@pytest.fixture
def executor() -> Iterator[CondaEnvExecutor]:
    with CondaEnvExecutor(max_workers=2) as executor:
        yield executor


def uneven(number: int) -> int:
    if number % 3 == 0:
        raise ValueError(number)
    return number


def leave(number: int) -> int:
    if number == 2:
        os._exit(3)
    return number


def raise_it(error: BaseException) -> None:
    raise error


def wait_and_double(number: int) -> int:
    time.sleep(0.01)
    return 2 * number


#: Each of them takes another way through the library.
WAYS: dict[str, Callable[[CondaEnvExecutor, Callable[[int], int], range], list[object]]] = {
    "at once": lambda ex, fn, items: list(ex.map(fn, items, return_exceptions=True)),
    "chunks": lambda ex, fn, items: list(ex.map(fn, items, chunksize=4, return_exceptions=True)),
    "buffered": lambda ex, fn, items: list(ex.map(fn, items, buffersize=3, return_exceptions=True)),
    "as they come": lambda ex, fn, items: sorted(
        ex.map(fn, items, ordered=False, return_exceptions=True), key=str
    ),
    "view": lambda ex, fn, items: list(ex.options(name="x").map(fn, items, return_exceptions=True)),
    "listened to": lambda ex, fn, items: list(
        ex.options(timeout=DEADLINE).map(fn, items, return_exceptions=True)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_failures_stand_in_their_places(executor: CondaEnvExecutor, way: str) -> None:
    found = WAYS[way](executor, uneven, range(10))
    expected: list[object] = [
        ValueError(number) if number % 3 == 0 else number for number in range(10)
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    if way != "as they come":
        assert list(map(repr, found)) == list(map(repr, expected))
    assert all(error.__cause__ is not None for error in found if isinstance(error, ValueError)), (
        "the remote traceback"
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_crash_costs_one_item(executor: CondaEnvExecutor, way: str) -> None:
    found = WAYS[way](executor, leave, range(6))
    lost = [each for each in found if isinstance(each, BaseException)]
    assert [type(each) for each in lost] == [WorkerCrashed]
    assert sorted(each for each in found if isinstance(each, int)) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt("x"), SystemExit(3), StopIteration(1), CancelledError("x")],
    ids=repr,
)
def test_exceptions_that_end_programs_are_values_here(
    executor: CondaEnvExecutor, error: BaseException
) -> None:
    for found in (
        executor.map(raise_it, [error], return_exceptions=True),
        executor.options().map(raise_it, [error], return_exceptions=True),
    ):
        (got,) = found
        assert type(got) is type(error)
        assert got.args == error.args


def test_what_cannot_be_pickled_is_a_failure_of_its_item(executor: CondaEnvExecutor) -> None:
    found = list(executor.map(len, [[1], iter([1]).__iter__, [1, 2]], return_exceptions=True))
    assert found[0] == 1
    assert isinstance(found[1], (TypeError, AttributeError)) or "pickle" in repr(found[1])
    assert found[2] == 2


def test_the_time_limit_still_raises(executor: CondaEnvExecutor) -> None:
    results = executor.map(time.sleep, [0, DEADLINE], timeout=0.5, return_exceptions=True)
    assert next(results) is None
    with pytest.raises(TimeoutError):
        next(results)
    executor.kill_workers()  # a call of a map is no task, and this one would go on for a minute


def test_an_end_of_the_executor_shows_in_the_places() -> None:
    executor = CondaEnvExecutor(max_workers=1)
    results = executor.map(wait_and_double, range(2000), return_exceptions=True)
    assert next(results) == 0
    executor.kill_workers()
    rest = list(results)
    kinds = {type(each) for each in rest}
    assert len(rest) == 1999
    assert CancelledError in kinds
    assert kinds <= {int, CancelledError, WorkerCrashed, BrokenProcessPool}
    assert "kill_workers()" in str(next(each for each in rest if isinstance(each, CancelledError)))
    executor.shutdown()


def test_without_it_the_first_failure_is_raised(executor: CondaEnvExecutor) -> None:
    with pytest.raises(ValueError, match="0"):
        list(executor.map(uneven, range(10)))
