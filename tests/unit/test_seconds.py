"""Numbers of seconds: what is accepted, what it becomes, what is refused and how."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from tests.support.cases import cases
from wetlands_executor import CondaEnvExecutor, Task, seconds


class Real(float):
    """A number of a class of its own."""

    def __float__(self) -> float:
        return Real(2.5)


GOOD = [
    (5, 5.0),
    (0.25, 0.25),
    (Decimal("1.5"), 1.5),
    (Fraction(1, 4), 0.25),
    (Real(2.5), 2.5),
    (30 * 86400, 2592000.0),
    (1e300, 1e300),
]
ENDLESS = [math.inf, Decimal("Infinity"), 10**400, Fraction(10**400)]
NO_NUMBERS: list[Any] = [True, False, "5", b"5", 5j, [5], object(), None.__class__]
PARAMETERS = ["worker_timeout", "task_timeout", "start_timeout", "cancel_grace"]


@cases(("value", "expected"), GOOD)
def test_real_numbers_become_floats(value: Any, expected: float) -> None:
    for read in (seconds.limit, seconds.wait):
        found = read("key", value)
        assert found == expected
        assert type(found) is float


@pytest.mark.parametrize("value", ENDLESS)
def test_what_never_ends_is_no_limit(value: Any) -> None:
    assert seconds.limit("key", value) is None
    assert seconds.wait("key", value) is None


@cases("value", NO_NUMBERS)
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    for read in (seconds.limit, seconds.wait):
        with pytest.raises(TypeError, match="^key must be a number of seconds, not ") as caught:
            read("key", value)
        assert repr(value) in str(caught.value)


@cases("value", [0, -1, -math.inf, math.nan, Decimal("NaN"), Decimal(-1), -(10**400)])
def test_a_limit_is_greater_than_zero(value: Any) -> None:
    with pytest.raises(ValueError, match="^key must be greater than 0 seconds, not "):
        seconds.limit("key", value)


@cases("value", [0, -1, -math.inf, Decimal(-1), -(10**400)])
def test_a_wait_may_be_over_at_once(value: Any) -> None:
    found = seconds.wait("key", value)
    assert found is not None
    assert found <= 0
    with pytest.raises(ValueError, match="^key must be a number of seconds, not nan"):
        seconds.wait("key", math.nan)


def test_scalars_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    for value in (numpy.float64(1.5), numpy.float32(1.5), numpy.float16(1.5)):
        assert seconds.limit("key", value) == 1.5
    assert seconds.limit("key", numpy.int64(3)) == 3.0
    for value in (numpy.bool_(True), numpy.array([1.0])):
        with pytest.raises(TypeError):
            seconds.limit("key", value)


@pytest.mark.parametrize("key", PARAMETERS)
def test_the_executor_checks_its_limits_when_they_are_given(key: str) -> None:
    for value in ("5", True, b"5"):
        with pytest.raises(TypeError, match=f"{key} must be a number of seconds, not {value!r}"):
            CondaEnvExecutor(None, 1, **{key: value})  # type: ignore[arg-type]
    for value in (0, -1, math.nan):
        with pytest.raises(
            ValueError, match=f"{key} must be greater than 0 seconds, not {value!r}"
        ):
            CondaEnvExecutor(None, 1, **{key: value})  # type: ignore[arg-type]


def test_the_options_check_their_limits_and_keep_what_was_checked() -> None:
    executor = CondaEnvExecutor(None, 1)
    for key in ("timeout", "cancel_grace"):
        with pytest.raises(TypeError, match=f"{key} must be a number of seconds, not '5'"):
            executor.options(**{key: "5"})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{key} must be greater than 0"):
            executor.options(**{key: Decimal(0)})  # type: ignore[arg-type]
        kept = getattr(executor.options(**{key: Decimal(5)})._options, key)  # type: ignore[arg-type]
        assert type(kept) is float
    with pytest.raises(TypeError, match="seconds must be a number of seconds"):
        executor.set_timeout("5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout is a number of seconds; write wait_all"):
        executor.wait_all(True)
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        executor.map(abs, [1], timeout="5")  # type: ignore[arg-type]
    executor.shutdown()


def test_a_task_checks_how_long_it_is_waited_for() -> None:
    task: Task[int] = Task()
    for wait in (task.result, task.exception, task.wait_for):
        with pytest.raises(TypeError, match="timeout must be a number of seconds, not '5'"):
            wait("5")  # type: ignore[operator]
        with pytest.raises(ValueError, match="timeout must be a number of seconds, not nan"):
            wait(math.nan)  # type: ignore[operator]
        with pytest.raises(TimeoutError):
            wait(Decimal("0.001"))  # type: ignore[operator]
        with pytest.raises(TimeoutError):
            wait(-1)  # type: ignore[operator]
