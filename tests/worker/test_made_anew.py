"""Lambdas over numbers and partial objects with numbers: the shortest ways of what is made anew.

What they bring is exactly what the host has, and state that a worker keeps stays its own.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.worker.conftest import DEADLINE, run, script_with
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.serialize.encoded import DefinedCall
from wetlands_executor.serialize.identity import Record, digest
from wetlands_executor.serialize.known_functions import encode_again

SOURCE = """
NUMBER = 0

def over(one, two=None):
    return lambda: (one, type(one).__name__, two)

def counter():
    count = 0
    def add():
        nonlocal count
        count += 1
        return count
    return add, lambda: count

def keywords(*args, value=None, **more):
    return args, value, type(value).__name__, more

def with_global(value=None):
    return value, NUMBER

class Number(int):
    def __eq__(self, other):
        return True
    def __hash__(self):
        return 1
"""


@pytest.fixture
def script() -> Iterator[Any]:
    with script_with("script_with_numbers", SOURCE) as module:
        yield module


def is_known(executor: CondaEnvExecutor, fn: Any) -> bool:
    return isinstance(encode_again(fn, (), executor._pool), DefinedCall)


@pytest.mark.parametrize("value", [1, True, None, -(1 << 70), 1.0, -0.0, "1", b"1", (1, True)])
def test_a_lambda_brings_its_own_values(fresh: CondaEnvExecutor, script: Any, value: Any) -> None:
    for number in range(4):
        run(fresh, script.over(number, number))
    fn = script.over(value, False)
    assert is_known(fresh, fn)
    assert repr(run(fresh, fn)) == repr((value, type(value).__name__, False))
    assert repr(run(fresh, script.over(0, value))) == repr((0, "int", value))


def test_a_number_that_only_says_it_is_one(fresh: CondaEnvExecutor, script: Any) -> None:
    for number in range(4):
        run(fresh, script.over(number))
    assert run(fresh, script.over(script.Number(7)))[1] == "Number"
    assert run(fresh, script.over(7))[1] == "int"
    for number in range(4):
        run(fresh, functools.partial(script.keywords, value=number))
    assert run(fresh, functools.partial(script.keywords, value=script.Number(7)))[2] == "Number"


def test_a_variable_that_tasks_bind_is_state_of_the_worker(
    fresh: CondaEnvExecutor, script: Any
) -> None:
    pairs = [script.counter() for _ in range(6)]
    for _add, read in pairs[:5]:
        assert run(fresh, read) == 0
    add, read = pairs[5]
    assert [run(fresh, add), run(fresh, add)] == [1, 2]
    assert run(fresh, read) == 2
    assert run(fresh, pairs[0][1]) == 0


def test_keywords_of_a_partial_object(fresh: CondaEnvExecutor, script: Any) -> None:
    for number in range(4):
        run(fresh, functools.partial(script.keywords, value=number))
    for value in (True, 1, 1.0, None, 2j, "text", [1], {"a": (1,)}):
        fn = functools.partial(script.keywords, 1, value=value, other=2)
        expected = ((1,), value, type(value).__name__, {"other": 2})
        assert repr(run(fresh, fn)) == repr(expected)
        assert repr(run(fresh, fn)) == repr(expected)
    fn = functools.partial(script.keywords, value=1)
    assert is_known(fresh, fn)
    fn.keywords["value"] = True  # changed in place
    assert run(fresh, fn)[1] is True
    fn.keywords["more"] = 3
    assert run(fresh, fn)[3] == {"more": 3}
    assert run(fresh, fn, 4)[0] == (4,)
    many = functools.partial(script.keywords, *range(100), value=1)
    assert run(fresh, many)[0] == tuple(range(100))


def test_a_change_of_the_function_of_a_partial_object(fresh: CondaEnvExecutor, script: Any) -> None:
    for number in range(4):
        assert run(fresh, functools.partial(script.with_global, value=number)) == (number, 0)
    script.NUMBER = 5
    assert run(fresh, functools.partial(script.with_global, value=1)) == (1, 5)
    exec("def with_global(value=None):\n    return value, 'anew'", vars(script))
    assert run(fresh, functools.partial(script.with_global, value=1)) == (1, "anew")


def test_threads_that_submit_at_once(fresh: CondaEnvExecutor, script: Any) -> None:
    found: dict[int, list[Any]] = {}

    def submit(first: int) -> None:
        tasks = []
        for number in range(first, first + 100):
            tasks.append(fresh.submit(script.over(number, number)))
            tasks.append(fresh.submit(functools.partial(script.keywords, value=number)))
        found[first] = [task.result(DEADLINE) for task in tasks]

    threads = [threading.Thread(target=submit, args=(first * 100,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, values in found.items():
        numbers = range(first, first + 100)
        assert values[::2] == [(number, "int", number) for number in numbers]
        assert values[1::2] == [((), number, "int", {}) for number in numbers]


def test_a_digest_tells_types_and_order_apart() -> None:
    values: list[Any] = [
        (), (0,), (False,), (0.0,), (-0.0,), (None,), ("",), (b"",), (1, 2), (2, 1), ((1,), 2),
        (float("nan"),), b"", b"\0", tuple(range(1000)), (1 << 70,), (-(1 << 70),), ("\ud800",),
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    assert digest((1, "a" * 3)) == digest((1, "".join(["a", "aa"])))
    assert all(-(1 << 63) <= digest((number,)) < 1 << 64 for number in range(1000))
    assert len({digest((number,)) for number in range(100_000)}) == 100_000


def test_a_record_keeps_what_has_no_weak_references() -> None:
    record = Record()
    kept = [[], {}, (1, []), (lambda: kept).__closure__[0]]  # type: ignore[index]
    for each in kept:
        known = record.of(each)
        assert known.get() is each
        assert known.weak is None
    one = {1}
    assert record.of(one).strong is None
    number = record.of(one).number
    del one
    assert all(known.number != number for known in record.known.values())
