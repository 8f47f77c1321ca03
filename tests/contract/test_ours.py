"""What our executor adds to the contract.

Functions that have no importable name, and coroutines.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import pytest

from tests.contract import workload
from tests.contract.executor_kinds import ExecutorKind
from tests.support.rendezvous import DEADLINE

OURS_AND_THREADS = pytest.mark.executor_kinds("thread", "in-process", "conda", "conda-other")
OURS = pytest.mark.executor_kinds("in-process", "conda", "conda-other")


def adder(number: int) -> Callable[[int], int]:
    def add(other: int) -> int:
        return number + other

    return add


@OURS_AND_THREADS
def test_a_lambda(executor: Executor) -> None:
    assert executor.submit(lambda x, *, y: x * y, 6, y=7).result(DEADLINE) == 42


@OURS_AND_THREADS
def test_a_closure(executor: Executor) -> None:
    assert list(executor.map(adder(10), range(5))) == [10, 11, 12, 13, 14]


@OURS_AND_THREADS
def test_a_class_made_in_a_function(executor: Executor) -> None:
    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

        def double(self) -> int:
            return 2 * self.value

    assert executor.submit(Local(21).double).result(DEADLINE) == 42
    result = executor.submit(Local, 5).result(DEADLINE)
    assert isinstance(result, Local)
    assert result.value == 5


@OURS_AND_THREADS
def test_a_recursive_function_made_in_a_function(executor: Executor) -> None:
    def factorial(number: int) -> int:
        return 1 if number < 2 else number * factorial(number - 1)

    assert executor.submit(factorial, 20).result(DEADLINE) == 2432902008176640000


@OURS_AND_THREADS
def test_lambdas_as_arguments_and_results(executor: Executor) -> None:
    assert (
        executor.submit(lambda function, value: function(value), lambda x: x + 1, 41).result(
            DEADLINE
        )
        == 42
    )
    assert executor.submit(lambda: lambda x: x + 1).result(DEADLINE)(41) == 42


@pytest.mark.executor_kinds("process")
def test_the_standard_library_refuses_a_lambda_on_the_future(executor: Executor) -> None:
    """Shown so that the difference is on record."""
    with pytest.raises(Exception, match="pickle|local object"):
        executor.submit(lambda: 1).result(DEADLINE)


@OURS
def test_a_coroutine_function_runs_to_its_end(executor: Executor) -> None:
    assert executor.submit(workload.async_multiply, 6, y=7).result(DEADLINE) == 42


@OURS
def test_a_coroutine_function_that_raises(executor: Executor) -> None:
    task = executor.submit(workload.async_throw, "from a coroutine")
    with pytest.raises(workload.Plain, match="from a coroutine"):
        task.result(DEADLINE)


@OURS
def test_a_coroutine_function_that_gathers(executor: Executor) -> None:
    assert executor.submit(workload.async_gather, 5).result(DEADLINE) == [0, 1, 4, 9, 16]
    assert list(executor.map(workload.async_multiply, range(5), range(5))) == [0, 1, 4, 9, 16]


@OURS
def test_a_coroutine_function_without_a_name(executor: Executor) -> None:
    async def local(value: int) -> int:
        return await workload.async_multiply(value, 2)

    assert executor.submit(local, 21).result(DEADLINE) == 42


@OURS
def test_a_function_can_be_named(executor: Executor) -> None:
    assert executor.submit("tests.contract.workload:multiply", 6, y=7).result(DEADLINE) == 42  # type: ignore[arg-type]
    assert list(executor.map("tests.contract.workload:Thing.double", [1, 2])) == [2, 4]  # type: ignore[arg-type]


@pytest.mark.executor_kinds("conda-other")
def test_the_other_environment_is_another_one(
    executor_kind: ExecutorKind, executor: Executor
) -> None:
    import sys

    assert executor.submit(eval, "__import__('sys').prefix").result(DEADLINE) != sys.prefix
    assert (
        executor.submit(eval, "__import__('sys').version_info[:2]").result(DEADLINE)
        == sys.version_info[:2]
    )
