"""What goes in arrives, as the receiver's own; what comes out too.

Blocks are free when they are not looked at any more.
"""

from __future__ import annotations

import array
import gc
import os
import pickle
import threading

import pytest

from tests.arena import workload
from tests.arena.workload import Buffers
from tests.support.observe import until
from tests.support.rendezvous import DEADLINE

np = pytest.importorskip("numpy")

MILLION = 1_000_000


@pytest.mark.parametrize(
    "size", [1, 100, 70_000, 131_071, 131_072, 131_073, 300_000, 5_000_000, 40_000_000]
)
def test_sizes_around_every_border(single, memory, size):
    value = np.frombuffer(os.urandom(size), np.uint8)
    result = single.submit(workload.same, value).result(DEADLINE)
    assert result.shape == value.shape
    assert (result == value).all()
    del result
    assert memory.is_free()


def test_the_argument_may_be_written_by_both(single, memory):
    value = np.arange(MILLION, dtype=float)
    task = single.submit(workload.add_one, value)
    value[:] = -1  # the caller may change it as soon as submit has returned
    result = task.result(DEADLINE)
    assert (result == np.arange(MILLION) + 1).all()
    result += 1
    assert (value == -1).all()
    del result, task
    assert memory.is_free()


def test_an_argument_that_is_returned_keeps_its_block(single, memory):
    task = single.submit(workload.add_one, np.zeros(MILLION))
    result = task.result(DEADLINE)
    assert list(memory.in_use.values()) == [1]  # handed back: the host's now
    part = result[5:9]
    del result, task
    gc.collect()
    assert len(memory.in_use) == 1
    del part
    assert memory.is_free()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype", ["<f8", ">i4", "c16", "?", "S7", "U3", "M8[ns]", [("a", "<i4"), ("b", "<f8", (3,))]]
)
def test_dtypes_and_orders(single, memory, dtype, order):
    dtype = np.dtype(dtype)
    count = 400_000 // dtype.itemsize // 6 * 6
    value = np.frombuffer(bytes(range(1, 127)) * 4000, np.uint8)[: count * dtype.itemsize]
    value = (
        (value % 2 if dtype.kind == "b" else value % 100)
        .astype(np.uint8)
        .view(dtype if dtype.kind != "U" else "<u4")
    )
    if dtype.kind == "U":
        value = value.view(dtype)
    value = np.asarray(value.reshape(6, -1), order=order)
    result = single.submit(workload.same, value).result(DEADLINE)
    assert result.tobytes() == value.tobytes()
    assert single.submit(workload.flags, value).result(DEADLINE) == workload.flags(value)
    del result
    assert memory.is_free()


def test_what_is_not_contiguous(single, memory):
    value = np.arange(2.0 * MILLION).reshape(1000, 2000)[::2, ::-3]
    result = single.submit(workload.twice, value).result(DEADLINE)
    assert (result == value * 2).all()
    del result
    assert memory.is_free()


def test_read_only_stays_read_only(single):
    value = np.arange(MILLION)
    value.flags.writeable = False
    assert single.submit(workload.flags, value).result(DEADLINE)[2] is False
    with pytest.raises(ValueError, match="read-only"):
        single.submit(workload.add_one, value).result(DEADLINE)
    assert not single.submit(workload.same, value).result(DEADLINE).flags.writeable


@pytest.mark.parametrize("function", [workload.twice, workload.tail, workload.little])
def test_results(single, memory, function):
    value = np.arange(2.0 * MILLION)
    result = single.submit(function, value).result(DEADLINE)
    assert (result == function(value)).all()
    result[:] = 0  # its own
    assert (single.submit(function, value).result(DEADLINE) == function(value)).all()
    del result
    assert memory.is_free()


def test_two_results_over_one_argument_are_independent(single, memory):
    first, second = single.submit(workload.both, np.arange(1.0 * MILLION)).result(DEADLINE)
    first[:] = -1
    assert (second == np.arange(1, MILLION)).all()
    del first, second
    assert memory.is_free()


def test_one_object_twice_stays_one_object(single, memory):
    first, second = single.submit(workload.pair, np.arange(1.0 * MILLION)).result(DEADLINE)
    assert first is second
    value = np.zeros(MILLION)
    assert single.submit(workload.same, [value, value]).result(DEADLINE)[0].shape == (MILLION,)
    del first, second
    assert memory.is_free()


def test_views_that_the_worker_keeps(single, memory):
    value = np.arange(1.0 * MILLION)
    result = single.submit(workload.keep, value).result(DEADLINE)
    result[:] = 0
    for _ in range(3):
        single.submit(workload.total, np.ones(MILLION)).result(DEADLINE)
    assert single.submit(workload.kept_total).result(DEADLINE) == value.sum()
    del result
    gc.collect()
    assert until(lambda: len(memory.in_use) == 1)
    single.submit(workload.drop).result(DEADLINE)
    assert memory.is_free()


def test_results_that_the_host_keeps(single):
    value = np.arange(1.0 * MILLION)
    held = [single.submit(workload.twice, value + number).result(DEADLINE) for number in range(8)]
    for number, result in enumerate(held):
        assert (result == 2 * (value + number)).all()
    single.shutdown()
    for number, result in enumerate(held):  # they outlive their worker
        result += 1
        assert (result == 2 * (value + number) + 1).all()


def test_many_at_the_same_time(make, memory):
    executor = make(2)
    values = [np.full(50_000 + 1000 * number, float(number)) for number in range(60)]
    for number, result in enumerate(executor.map(workload.twice, values)):
        assert result.shape == values[number].shape
        assert (result == 2 * number).all()
    del result
    assert memory.is_free()


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "str", "array"])
def test_large_values_without_buffers(single, memory, kind):
    value = workload.make_bytes(kind, 900_000)
    for result in (
        single.submit(workload.same, value).result(DEADLINE),
        single.submit(workload.make_bytes, kind, 900_000).result(DEADLINE),
    ):
        assert type(result) is type(value)
        assert result == value
    result = single.submit(workload.same, {"a": [value, value[:9]]}).result(DEADLINE)
    assert result == {"a": [value, value[:9]]}
    assert memory.is_free()


def test_buffers_in_every_python(make, memory, anypython):
    """The worker has no numpy, perhaps; what arrives belongs to it."""
    executor = make(env=anypython.path)
    parts = (
        bytearray(os.urandom(500_000)),
        array.array("d", range(70_000)),
        memoryview(bytearray(b"x" * 200_000)),
        b"constant" * 50_000,
    )
    described = executor.submit(workload.describe_parts, Buffers(*parts)).result(DEADLINE)
    assert described == [(workload.digest(part), part is not parts[3]) for part in parts]
    result = executor.submit(workload.overwrite_parts, Buffers(*parts[:3])).result(DEADLINE)
    assert [bytes(part) for part in result.parts] == [
        bytes(memoryview(part).nbytes) for part in parts[:3]
    ]
    made = executor.submit(workload.make_buffers, 4, 300_000).result(DEADLINE)
    assert [bytes(part[:2]) for part in made.parts] == [
        bytes([number, number]) for number in range(4)
    ]
    made.parts[0][0] = 9
    del result, made
    assert memory.is_free()


def test_a_result_that_cannot_be_unpickled_frees_its_blocks(single, memory):
    for _ in range(3):
        with pytest.raises(ValueError, match="not to be unpickled"):
            single.submit(workload.make_bad, 3_000_000).result(DEADLINE)
    gc.collect()
    before = single.submit(workload.resident).result(DEADLINE)
    assert before < 6_000_000  # the same block each time


def test_an_argument_that_cannot_be_unpickled_frees_its_blocks(single, memory):
    with pytest.raises(ValueError, match="not to be unpickled"):
        single.submit(workload.same, workload.BadToLoad(bytearray(1_000_000))).result(DEADLINE)
    assert memory.is_free()


def test_what_cannot_be_pickled_frees_its_blocks(single, memory):
    with pytest.raises((TypeError, pickle.PicklingError)):
        single.submit(workload.same, [np.zeros(MILLION), threading.Lock()]).result(DEADLINE)
    assert memory.is_free()


def test_a_function_that_is_not_there_frees_its_arguments(single, memory):
    with pytest.raises(AttributeError):
        single.submit("tests.arena.workload:absent", np.zeros(MILLION)).result(DEADLINE)
    assert memory.is_free()


def test_with_closures_and_keywords(single, memory):
    factor = np.full(MILLION, 3.0)

    def scale(values, *, by):
        return values * by + factor

    result = single.submit(scale, np.ones(MILLION), by=np.full(MILLION, 2.0)).result(DEADLINE)
    assert (result == 5).all()
    del result
    assert memory.is_free()
