"""Jobs of dependants: one at a time on each thread, and none on a thread of another pool."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wetlands_executor import threads
from wetlands_executor.in_process.dependants import Dependants


@pytest.fixture
def dependants() -> Dependants:
    workers: Any = SimpleNamespace(alive=set())
    return Dependants(workers)


def test_a_job_waits_for_the_one_that_is_under_way(dependants: Dependants) -> None:
    done: list[str] = []

    def first() -> None:
        dependants.run(lambda: done.append("second"))
        done.append("first")

    dependants.run(first)
    assert done == ["first", "second"]


def test_what_a_call_settles_is_done_within_it(dependants: Dependants) -> None:
    done: list[str] = []

    def first() -> None:
        before = dependants.begin_call()
        dependants.run(lambda: done.append("within"))
        dependants.end_call(before)
        dependants.run(lambda: done.append("behind"))
        done.append("first")

    dependants.run(first)
    assert done == ["within", "first", "behind"]


def test_the_job_after_one_that_fails_is_done(dependants: Dependants) -> None:
    done: list[int] = []
    with pytest.raises(ZeroDivisionError):
        dependants.run(lambda: 1 // 0)
    dependants.run(lambda: done.append(1))
    assert done == [1]


def test_a_thread_of_another_pool_hands_it_on(
    dependants: Dependants, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(threads, "kind_of_this", lambda: threads.IO)
    put: list[Any] = []
    monkeypatch.setattr(dependants._aside, "put", put.append)
    dependants.run(lambda: done.append("job"))
    assert done == []
    put.pop()()
    assert done == ["job"]
