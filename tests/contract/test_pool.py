"""The workers: how many, how they are prepared, when they are replaced.

What the constructor accepts.
"""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import sys
import warnings
from concurrent import futures
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.contract import workload
from tests.contract.executor_kinds import ExecutorKind, assert_processes_end
from tests.support.rendezvous import DEADLINE, Rendezvous

#: The kinds of executor that have ``max_tasks_per_child``.
REPLACING = ("process", "conda") if sys.version_info >= (3, 11) else ("conda",)

# -------------------------------------------------------------------------------------- max_workers


@pytest.mark.executor_kinds("thread", "process", "conda")
@pytest.mark.parametrize("number", [0, -1])
def test_at_least_one_worker(executor_kind: ExecutorKind, number: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        executor_kind.make(number)


@pytest.mark.parametrize("number", [1, 3])
def test_max_workers_can_be_read(executor_kind: ExecutorKind, number: int) -> None:
    assert executor_kind.make(number)._max_workers == number  # type: ignore[attr-defined]


@pytest.mark.executor_kinds("process", "conda")
def test_the_default_is_the_number_of_processors(executor_kind: ExecutorKind) -> None:
    expected = ProcessPoolExecutor()._max_workers  # type: ignore[attr-defined]
    assert executor_kind.make(None)._max_workers == expected  # type: ignore[attr-defined]


@pytest.mark.executor_kinds("conda")
def test_the_public_property_says_the_same(executor_kind: ExecutorKind) -> None:
    assert executor_kind.make(3).max_workers == 3  # type: ignore[attr-defined]


def test_no_more_workers_than_asked_for(
    executor_kind: ExecutorKind, rendezvous: Rendezvous
) -> None:
    executor = executor_kind.make(3)
    for number in range(10):
        executor.submit(workload.arrive, rendezvous.address, number)
    arrivals = [rendezvous.next() for _ in range(3)]
    if executor_kind.remote:
        assert len({arrival.pid for arrival in arrivals}) == 3
        assert os.getpid() not in {arrival.pid for arrival in arrivals}
    with pytest.raises(AssertionError, match="no task has reported"):
        rendezvous.next(timeout=0.1)


@pytest.mark.executor_kinds("process", "conda")
def test_an_idle_worker_is_used_before_another_is_started(executor_kind: ExecutorKind) -> None:
    executor = executor_kind.make(4)
    assert len({executor.submit(workload.pid).result() for _ in range(5)}) == 1


# -------------------------------------------------------------------------------------- constructor


@pytest.mark.executor_kinds("process", "conda")
def test_every_keyword_of_the_process_pool_is_accepted(
    executor_kind: ExecutorKind, tmp_path
) -> None:
    keywords: dict[str, object] = {
        "max_workers": 1,
        "mp_context": multiprocessing.get_context("spawn"),
        "initializer": workload.remember,
        "initargs": ("prepared",),
    }
    if sys.version_info >= (3, 11):
        keywords["max_tasks_per_child"] = 5
    assert set(inspect.signature(ProcessPoolExecutor.__init__).parameters) == {"self", *keywords}
    assert set(keywords) <= set(inspect.signature(executor_kind.type).parameters)
    with executor_kind.type(**keywords) as executor:
        assert executor.submit(workload.remembered).result() == "prepared"


@pytest.mark.executor_kinds("conda")
def test_no_context_or_a_spawn_context_is_accepted_without_a_word(
    executor_kind: ExecutorKind,
) -> None:
    for context in (None, multiprocessing.get_context("spawn"), multiprocessing.get_context()):
        if context is not None and context.get_start_method(allow_none=True) not in (
            None,
            "spawn",
            "forkserver",
        ):
            continue
        with warnings.catch_warnings(), executor_kind.make(1, mp_context=context) as executor:
            warnings.simplefilter("error")
            assert executor.submit(workload.identity, 1).result() == 1


@pytest.mark.executor_kinds("conda")
@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_a_fork_context_has_no_meaning_and_says_so(executor_kind: ExecutorKind) -> None:
    with pytest.warns(UserWarning, match="never forks"):
        executor = executor_kind.make(1, mp_context=multiprocessing.get_context("fork"))
    assert executor.submit(workload.identity, 1).result() == 1


@pytest.mark.executor_kinds("conda")
def test_a_number_in_the_place_of_the_environment_is_explained(executor_kind: ExecutorKind) -> None:
    with pytest.raises(TypeError, match="max_workers=4"):
        executor_kind.type(4)


def test_an_initializer_has_to_be_callable(executor_kind: ExecutorKind) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        executor_kind.make(1, initializer=3)


@pytest.mark.executor_kinds(*REPLACING)
@pytest.mark.parametrize(("number", "error", "words"), [
    (0, ValueError, "max_tasks_per_child must be >= 1"),
    (-1, ValueError, "max_tasks_per_child must be >= 1"),
    (1.5, TypeError, "max_tasks_per_child must be an integer"),
    ("3", TypeError, "max_tasks_per_child must be an integer"),
])  # fmt: skip
def test_max_tasks_per_child_has_to_be_a_positive_integer(
    executor_kind: ExecutorKind, number: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        executor_kind.make(1, max_tasks_per_child=number)


# -------------------------------------------------------------------------------------- initializer


@pytest.mark.executor_kinds("thread", "in-process", "process", "conda", "conda-other")
def test_the_initializer_runs_once_in_every_worker_before_its_first_task(
    executor_kind: ExecutorKind, rendezvous: Rendezvous, tmp_path
) -> None:
    journal = tmp_path / "journal"
    executor = executor_kind.make(
        2, initializer=workload.remember, initargs=("prepared", str(journal))
    )
    tasks = [executor.submit(workload.arrive, rendezvous.address, number) for number in range(2)]
    pids = {str(arrival.pid) for arrival in rendezvous.expect(0, 1).values()}
    rendezvous.open()
    assert [task.result() for task in tasks] == [0, 1]
    assert list(executor.map(workload.remembered, range(20))) == ["prepared"] * 20
    executor.shutdown()
    lines = journal.read_text().splitlines()
    assert len(lines) == 2
    assert len(set(lines)) == 2, "two threads or two processes"
    assert {line.split()[0] for line in lines} == pids


def test_an_initializer_without_arguments(executor_kind: ExecutorKind) -> None:
    executor = executor_kind.make(1, initializer=workload.thread_name)
    assert executor.submit(workload.identity, 1).result() == 1


def test_a_failing_initializer_breaks_the_executor_for_all(
    executor_kind: ExecutorKind, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    executor = executor_kind.make(
        2, initializer=workload.fail_to_initialize, initargs=("not today",)
    )
    tasks = []
    try:
        for _ in range(10):
            tasks.append(executor.submit(workload.identity, 1))
    except BrokenExecutor:
        pass
    assert tasks
    for task in tasks:
        with pytest.raises(BrokenExecutor):
            task.result(DEADLINE)
    with pytest.raises(BrokenExecutor):
        executor.submit(workload.identity, 1)
    with pytest.raises(BrokenExecutor):
        executor.map(workload.identity, [1])
    executor.shutdown()
    caplog.clear()
    capfd.readouterr()


@pytest.mark.executor_kinds("conda", "conda-other")
def test_the_error_of_a_failed_initializer_says_what_it_was(executor_kind: ExecutorKind) -> None:
    executor = executor_kind.make(
        1, initializer=workload.fail_to_initialize, initargs=("not today",)
    )
    with pytest.raises(BrokenProcessPool, match="not today") as caught:
        executor.submit(workload.identity, 1).result(DEADLINE)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.args == ("not today",)
    with pytest.raises(BrokenProcessPool, match="not today"):
        executor.submit(workload.identity, 1)


@pytest.mark.executor_kinds("thread")
def test_the_thread_pool_logs_a_failed_initializer(
    executor_kind: ExecutorKind, caplog: pytest.LogCaptureFixture
) -> None:
    """What the CPython suite asks of ours as well is covered by the error itself, which carries the
    cause.
    """
    executor = executor_kind.make(
        1, initializer=workload.fail_to_initialize, initargs=("not today",)
    )
    with pytest.raises(BrokenExecutor):
        executor.submit(workload.identity, 1).result(DEADLINE)
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)
    caplog.clear()


@pytest.mark.executor_kinds("conda")
def test_state_that_an_initializer_made_is_seen_by_functions_of_its_module(
    executor_kind: ExecutorKind,
) -> None:
    executor = executor_kind.make(1, initializer=workload.remember, initargs=({"model": [1, 2]},))
    assert executor.submit(workload.remembered).result() == {"model": [1, 2]}


# ------------------------------------------------------------------------------ max_tasks_per_child


@pytest.mark.executor_kinds(*REPLACING)
def test_a_worker_is_replaced_after_its_tasks(executor_kind: ExecutorKind) -> None:
    executor = executor_kind.make(1, max_tasks_per_child=3)
    pids = [executor.submit(workload.pid).result() for _ in range(7)]
    assert len(set(pids[:3])) == len(set(pids[3:6])) == 1
    assert len({pids[0], pids[3], pids[6]}) == 3
    assert_processes_end({pids[0], pids[3]})


@pytest.mark.executor_kinds("conda")
def test_no_task_is_lost_when_workers_are_replaced(executor_kind: ExecutorKind) -> None:
    """Not for the standard library.

    With two workers it may hang here for ever (its issue 115634).
    """
    executor = executor_kind.make(2, max_tasks_per_child=2)
    tasks = [executor.submit(workload.multiply, number, number) for number in range(12)]
    executor.shutdown()
    assert [task.result(timeout=0) for task in tasks] == [number * number for number in range(12)]


@pytest.mark.executor_kinds(*REPLACING)
def test_an_initializer_runs_in_every_replacement(executor_kind: ExecutorKind, tmp_path) -> None:
    journal = tmp_path / "journal"
    with executor_kind.make(
        1, max_tasks_per_child=1, initializer=workload.remember, initargs=("prepared", str(journal))
    ) as executor:
        assert [executor.submit(workload.remembered).result() for _ in range(3)] == ["prepared"] * 3
    assert len(set(journal.read_text().splitlines())) >= 3


# ------------------------------------------------------------------------------- a worker that dies


@pytest.mark.executor_kinds("process", "conda", "conda-other")
def test_a_worker_that_dies_is_a_broken_process_pool(executor: Executor) -> None:
    task = executor.submit(workload.die, 7)
    with pytest.raises(BrokenProcessPool):
        task.result(DEADLINE)
    assert isinstance(task.exception(), futures.process.BrokenProcessPool)


@pytest.mark.executor_kinds("conda", "conda-other")
def test_a_worker_that_dies_costs_only_the_task_that_it_ran(
    single: Executor, rendezvous: Rendezvous
) -> None:
    """Where the standard library's pool is broken for ever."""
    before = single.submit(workload.arrive, rendezvous.address, "before")
    rendezvous.next()
    culprit = single.submit(workload.die)
    after = [single.submit(workload.multiply, number, 2) for number in range(50)]
    rendezvous.open()
    assert before.result(DEADLINE) == "before"
    with pytest.raises(BrokenProcessPool):
        culprit.result(DEADLINE)
    assert [task.result(DEADLINE) for task in after] == list(range(0, 100, 2))
    assert single.submit(workload.identity, 1).result(DEADLINE) == 1
