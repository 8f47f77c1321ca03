"""What travels: large and odd values, manager proxies, executors inside tasks."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import Executor
from multiprocessing.managers import SyncManager

import pytest

from tests.contract import workload
from tests.contract.executor_kinds import ExecutorKind
from tests.support.names import steady
from tests.support.rendezvous import DEADLINE

MEGABYTE = 1 << 20

EVERYWHERE = ("thread", "in-process", "process", "conda", "conda-other")


@pytest.mark.executor_kinds(*EVERYWHERE)
@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**200), math.inf, 1.5 - 2j, "", "naïve 日本語 🐍 \0 \ud800", b"",
        b"\x00\xff" * 10, [], (), {}, set(), ...,
        NotImplemented, {"nested": [{"a": (1, [2, {3}])}, None]}, frozenset({1, "x"}),
        range(0, 10, 3), slice(1, None, 2), int,
        bytearray(b"abc"), workload.Thing([1, 2]), len, workload.identity,
    ],
    ids=lambda value: steady(value)[:30],
)  # fmt: skip
def test_values_come_back_as_they_went(executor: Executor, value: object) -> None:
    result = executor.submit(workload.identity, value).result(DEADLINE)
    assert type(result) is type(value)
    assert result == value or result is value


def test_not_a_number_comes_back(executor: Executor) -> None:
    assert math.isnan(executor.submit(workload.identity, math.nan).result(DEADLINE))


@pytest.mark.executor_kinds("process", "conda", "conda-other")
def test_what_arrives_is_a_copy(executor: Executor) -> None:
    value = [1, 2, 3]
    result = executor.submit(workload.identity, value).result(DEADLINE)
    assert result == value
    assert result is not value


def test_keyword_arguments_arrive(executor: Executor) -> None:
    """With the first call of a function, and with those that find it known."""
    for args, named in [
        ((1,), {"key": 2}),
        ((), {"key": None}),
        ((1, 2), {"a": "b", "c": [1]}),
    ] * 2:
        found = executor.submit(workload.describe, *args, **named).result(DEADLINE)
        assert found == (args, named)


def test_identity_is_kept_within_one_call(executor: Executor) -> None:
    shared = [1]
    (first, second), _ = executor.submit(workload.describe, shared, shared).result(DEADLINE)
    assert first is second


def test_a_structure_that_contains_itself(executor: Executor) -> None:
    value: list[object] = [1]
    value.append(value)
    result = executor.submit(workload.identity, value).result(DEADLINE)
    assert result[1] is result


@pytest.mark.executor_kinds(*EVERYWHERE)
@pytest.mark.parametrize(
    "size", [4095, 4096, 65535, 65536, 65537, 128 * 1024 + 1, MEGABYTE], ids=str
)
def test_sizes_around_the_limits_of_pipes_and_frames(executor: Executor, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    length, copy = executor.submit(workload.sort_out, data[:size]).result(DEADLINE)
    assert length == size
    assert copy == data[:size]


@pytest.mark.executor_kinds(*EVERYWHERE)
def test_tens_of_megabytes_in(executor: Executor) -> None:
    data = bytes(range(256)) * (40 * MEGABYTE // 256)
    assert (
        executor.submit(workload.checksum, data).result(DEADLINE)
        == hashlib.sha256(data).hexdigest()
    )


@pytest.mark.executor_kinds(*EVERYWHERE)
def test_tens_of_megabytes_out(executor: Executor) -> None:
    assert executor.submit(workload.blob, 40 * MEGABYTE, 7).result(DEADLINE) == b"\x07" * (
        40 * MEGABYTE
    )


def test_large_values_of_several_tasks_do_not_mix(executor: Executor) -> None:
    results = list(executor.map(workload.blob, [2 * MEGABYTE] * 8, range(8)))
    assert results == [bytes([number]) * (2 * MEGABYTE) for number in range(8)]


def test_a_large_error(executor: Executor) -> None:
    error = executor.submit(workload.throw_new, workload.Plain, "x" * MEGABYTE).exception(DEADLINE)
    assert type(error) is workload.Plain
    assert error.args == ("x" * MEGABYTE,)


def test_many_arguments(executor: Executor) -> None:
    keywords = {f"keyword{number}": number for number in range(1000)}
    assert executor.submit(workload.describe, *range(1000), **keywords).result(DEADLINE) == (
        tuple(range(1000)),
        keywords,
    )


def test_many_tasks(executor: Executor) -> None:
    tasks = [executor.submit(workload.identity, number) for number in range(2000)]
    assert [task.result(DEADLINE) for task in tasks] == list(range(2000))


def test_numpy_arrays(executor: Executor) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is an extra")
    array = numpy.arange(300_000, dtype=float).reshape(3, -1)
    result = executor.submit(workload.multiply, array, 2).result(DEADLINE)
    assert numpy.array_equal(result, array * 2)
    result[0, 0] = 7  # a copy that may be written to
    back = executor.submit(workload.identity, array[:, ::7]).result(DEADLINE)
    assert numpy.array_equal(back, array[:, ::7])


# ----------------------------------------------------------------------------------------- managers


def test_a_manager_queue_between_tasks(executor: Executor, manager: SyncManager) -> None:
    queue = manager.Queue()
    taker = executor.submit(workload.get, queue)
    executor.submit(workload.put, queue, {"through": ["the", "queue"]}).result(DEADLINE)
    assert taker.result(DEADLINE) == {"through": ["the", "queue"]}


def test_a_manager_queue_between_a_task_and_the_test(
    executor: Executor, manager: SyncManager
) -> None:
    queue = manager.Queue()
    task = executor.submit(workload.get, queue)
    queue.put("hello")
    assert task.result(DEADLINE) == "hello"


def test_a_manager_event_stops_a_task(executor: Executor, manager: SyncManager) -> None:
    event = manager.Event()
    task = executor.submit(workload.wait_for, event)
    assert not task.done()
    event.set()
    assert task.result(DEADLINE) is True


# ------------------------------------------------------------------------------------------- nested


def test_threads_inside_a_task(executor: Executor) -> None:
    assert executor.submit(workload.in_threads, 100).result(DEADLINE) == 5050


@pytest.mark.executor_kinds("process", "conda")
def test_processes_inside_a_task(executor: Executor) -> None:
    assert executor.submit(workload.in_processes, 100).result(DEADLINE) == (5050, True)


@pytest.mark.executor_kinds("thread", "in-process", "process", "conda")
def test_our_workers_inside_a_task(executor_kind: ExecutorKind, executor: Executor) -> None:
    pytest.importorskip("wetlands_executor.executor")
    total, elsewhere = executor.submit(workload.in_conda_workers, 100).result(DEADLINE)
    assert total == 5050
    assert elsewhere
