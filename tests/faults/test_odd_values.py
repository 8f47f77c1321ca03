"""Exceptions, log records, reports and names that are not what they seem.

The task that has them may suffer, nothing else, and nothing hangs.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import odd
from tests.support.observe import until
from tests.support.programs import limit_address_space
from tests.support.rendezvous import DEADLINE, Rendezvous
from wetlands_executor import CondaEnvExecutor, DependencyFailed, Task

WAYS: dict[str, Callable[[CondaEnvExecutor, Any, str], object]] = {
    "submit": lambda executor, fn, name: executor.submit(fn, name).result(DEADLINE),
    "retry_on": lambda executor, fn, name: (
        executor.options(retries=1, retry_on=OSError).submit(fn, name).result(DEADLINE)
    ),
    "retry_on a function": lambda executor, fn, name: (
        executor.options(retries=1, retry_on=lambda error: "x" in str(error))
        .submit(fn, name)
        .result(DEADLINE)
    ),
    "map": lambda executor, fn, name: list(executor.map(fn, [name] * 2, timeout=DEADLINE)),
    "map in chunks": lambda executor, fn, name: list(
        executor.map(fn, [name] * 4, timeout=DEADLINE, chunksize=2)
    ),
    "map_tasks": lambda executor, fn, name: [
        task.result(DEADLINE) for task in executor.map_tasks(fn, [name] * 2)
    ],
}
#: What may come out, besides the exception itself.
BASE = (Exception, SystemExit, KeyboardInterrupt)


def _healthy(executor: CondaEnvExecutor) -> bool:
    return executor.submit(odd.same, 1).result(DEADLINE) == 1 and executor.wait_all(DEADLINE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", odd.ERRORS)
def test_an_odd_exception_ends_its_task(single: CondaEnvExecutor, name: str, way: str) -> None:
    with pytest.raises(BASE) as caught:
        WAYS[way](single, odd.fail, name)
    assert not isinstance(caught.value, TimeoutError)
    assert _healthy(single)


@pytest.mark.parametrize("name", odd.ERRORS)
def test_an_odd_exception_within_another(single: CondaEnvExecutor, name: str) -> None:
    functions = [odd.fail_nested]
    if sys.version_info >= (3, 11):
        functions.append(odd.fail_in_group)
    for function in functions:
        for way in ("submit", "retry_on", "map"):
            with pytest.raises(BASE) as caught:
                WAYS[way](single, function, name)
            assert not isinstance(caught.value, TimeoutError)
    assert _healthy(single)


@pytest.mark.parametrize("name", odd.ERRORS)
def test_an_odd_exception_of_a_dependency_and_as_an_output(
    single: CondaEnvExecutor, name: str
) -> None:
    failed = single.submit(odd.fail, name)
    dependant = single.submit(odd.same, failed)
    assert isinstance(dependant.exception(DEADLINE), DependencyFailed)
    assert dependant.exception().__cause__ is failed.exception()  # type: ignore[union-attr]
    assert single.submit(odd.put_out, name).result(DEADLINE) == 5
    assert single.get_progress()["failed"] == 2
    assert isinstance(failed.error, str)
    assert isinstance(failed.traceback, list)
    assert _healthy(single)


def test_what_can_be_kept_of_an_exception_is_kept(single: CondaEnvExecutor) -> None:
    for name, kind in (
        ("StrSubclass", odd.StrSubclass),
        ("Frozen", odd.Frozen),
        ("CauseRefuses", odd.CauseRefuses),
        ("StrRaises", odd.StrRaises),
    ):
        error = single.submit(odd.fail, name).exception(DEADLINE)
        assert type(error) is kind, name
        assert error.args == ("a",)
    frozen = single.submit(odd.fail, "Frozen").exception(DEADLINE)
    assert isinstance(frozen, odd.Frozen)
    assert frozen.what == "a"


def test_a_chain_of_dependants_quotes_one_failure(single: CondaEnvExecutor) -> None:
    first = single.submit(odd.fail, "NeedsMore")
    task: Task[Any] = first
    depth = 400
    for _ in range(depth):
        task = single.submit(odd.same, task)
    error = task.exception(DEADLINE)
    assert isinstance(error, DependencyFailed)
    assert len(str(error)) < 1000
    assert "odd.fail" in str(error)
    assert "needs more" in str(error)
    steps, cause = 0, error.__cause__
    while isinstance(cause, DependencyFailed):
        assert len(str(cause)) < 1000
        steps, cause = steps + 1, cause.__cause__
    assert steps == depth - 1
    assert cause is first.exception()


def test_a_long_message_is_quoted_in_part(single: CondaEnvExecutor) -> None:
    failed = single.submit(int, "x" * 100_000)
    dependant = single.submit(odd.same, failed)
    assert len(str(dependant.exception(DEADLINE))) < 5000


# -------------------------------------------------------------------------------------- log records


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("enum", 1), ("float", 0.5), ("text", "x"), ("key", 1),
        ("unprintable", "<StrRaises object, its __repr__ raised ValueError>"),
        ("class", "<enum 'Level'>"), ("float64", 0.5), ("float32", 0.5), ("int64", 7),
        ("array", "array([0., 0., 0.])"),
    ],
)  # fmt: skip
def test_values_of_a_record_come_as_builtin_types(
    executor: CondaEnvExecutor, caplog: pytest.LogCaptureFixture, what: str, value: object
) -> None:
    if what in ("float64", "float32", "int64", "array"):
        pytest.importorskip("numpy")
    with caplog.at_level(logging.WARNING, "tests.odd"):
        assert executor.submit(odd.speak, what).result(DEADLINE) == 1
    (record,) = [record for record in caplog.records if record.name == "tests.odd"]
    found = vars(record)["value"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("how", ["message", "level", "argument", "error"])
def test_odd_records_come(
    executor: CondaEnvExecutor, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with caplog.at_level(logging.DEBUG, "tests.odd"):
        assert executor.submit(odd.speak_oddly, how).result(DEADLINE) == 1
    (record,) = [record for record in caplog.records if record.name == "tests.odd"]
    assert record.getMessage().startswith("spoken")
    assert type(record.levelno) is int


# -------------------------------------------------------------------------------- reports and names


@pytest.mark.parametrize("how", ["message", "numbers", "unprintable", "surrogates"])
def test_odd_reports_come(executor: CondaEnvExecutor, how: str) -> None:
    task = executor.submit(odd.report, how)
    assert task.result(DEADLINE) == 1
    assert task.progress == 0.5
    assert type(task.message) is str
    assert (type(task.current), type(task.maximum)) in ((int, int), (int, float))


def test_a_class_with_a_number_of_its_own(
    executor: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    from tests.contract import workload

    neighbour = executor.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    # the output is only logged about
    assert isinstance(executor.submit(odd.put_out_numbered).result(DEADLINE), odd.Numbered)
    assert neighbour.running()
    arrival.release()
    assert neighbour.result(DEADLINE) == "in"


@pytest.mark.parametrize(
    "name",
    [
        os.fsdecode(b"caf\xe9.tif"),
        "\ud800",
        "a\0b",
        "line\nline",
        "x" * 100_000,
        odd.Safe("safe"),
        "Ω",
    ],
)
def test_any_text_is_a_name(executor: CondaEnvExecutor, name: str) -> None:
    task = executor.options(name=name).submit(odd.name_of_task)
    assert task.result(DEADLINE) == name
    assert type(task.name) is str
    assert _healthy(executor)


# ------------------------------------------------------------------------------------------- memory


def test_what_has_ended_is_let_go_of_whatever_its_limits(
    make: Callable[..., CondaEnvExecutor],
) -> None:
    import gc
    import weakref

    executor = make(1, task_timeout=3600, worker_timeout=3600, cancel_grace=3600)
    kept = []
    for _ in range(5):
        for view in (executor, executor.options(timeout=1800, retries=1, cancel_grace=1800)):
            task = view.submit(odd.same, 1)
            assert task.result(DEADLINE) == 1
            kept.append(weakref.ref(task))
            del task
        failed = executor.submit(odd.fail, "NeedsMore")
        failed.wait_for(DEADLINE)
        kept.append(weakref.ref(failed))
        del failed
    executor.clear_failed()
    executor.submit(odd.same, 1).result(DEADLINE)

    def gone() -> bool:
        gc.collect()
        return sum(one() is not None for one in kept) <= 1

    assert until(gone)
    # Those of the watchdog and of the worker's silence. A third, of some milliseconds, looks
    # whether the decoder of the last error hangs; the limits of calls last half an hour.
    assert until(lambda: executor._pool.loop.timer_count <= 2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_blocks_of_arguments_that_do_not_fit_into_the_worker_are_free_again(
    single: CondaEnvExecutor,
) -> None:
    from wetlands_executor.sharedmem import arena

    single.submit(limit_address_space, 40 << 20).result(DEADLINE)
    large = [bytearray(64 << 20), bytearray(1 << 20)]
    for arguments in (large, large[::-1], [bytes(large[0])]):
        assert isinstance(single.submit(odd.size, *arguments).exception(DEADLINE), MemoryError)
    assert single.submit(odd.size, bytes(500_000)).result(DEADLINE) == 500_000
    memory = arena.current()
    if memory is not None:
        assert until(lambda: not memory.in_use()), memory.in_use()
