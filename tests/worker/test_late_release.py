"""When the arguments of a call are let go of: large ones, if that runs no code, after its answer.

What has a finalizer is let go of before, so that what it prints belongs to the call.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from tests.worker.conftest import DEADLINE
from wetlands_executor import CondaEnvExecutor

COUNT = 20_000


class Plain:
    def __init__(self, number: int) -> None:
        self.number = number


class Ends(Plain):
    def __del__(self) -> None:
        """Be code of the user's."""


class Reduced(Plain):
    def __reduce__(self) -> Any:
        return Reduced, (self.number,)


def take(value: Any) -> int:
    return len(value)


def same(value: Any) -> Any:
    return value


def is_quiet() -> bool:
    """Return what the worker has noted of the last large arguments."""
    main_loop: Any = sys.modules["_wetlands_worker.running"].main_loop  # type: ignore[attr-defined]
    return bool(main_loop.buffers.quiet)


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


def _array(_number: int) -> Any:
    return pytest.importorskip("numpy").arange(100.0)


@pytest.mark.parametrize(
    ("make", "quiet"), [(Plain, True), (_array, True), (Ends, False), (Reduced, False)]
)
def test_what_may_be_let_go_of_late(fresh: CondaEnvExecutor, make: Any, quiet: bool) -> None:
    value = [make(number) for number in range(COUNT)]
    assert fresh.submit(take, value).result(DEADLINE) == COUNT
    assert fresh.submit(is_quiet).result(DEADLINE) is quiet
    assert fresh.submit(alive, type(value[0])).result(DEADLINE) == 0
    back = fresh.submit(same, value).result(DEADLINE)
    assert [type(each) for each in back] == [type(each) for each in value]
    del back
    assert fresh.submit(alive, type(value[0])).result(DEADLINE) == 0


def test_classes_of_a_script_are_known_by_what_they_say(fresh: CondaEnvExecutor) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("class Own:\n    x = 1\nclass Ending:\n    def __del__(self): pass\n", space)
    for name, quiet in (("Own", True), ("Ending", False)):
        things = [space[name]() for _ in range(COUNT)]
        for number, each in enumerate(things):
            each.number = number
        assert fresh.submit(take, things).result(DEADLINE) == COUNT
        assert fresh.submit(is_quiet).result(DEADLINE) is quiet
