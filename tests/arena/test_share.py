"""One array for many tasks."""

from __future__ import annotations

import array
import ctypes
import gc
import os
import pickle
import re
import signal

import pytest

from tests.arena import workload
from tests.support.names import steady
from tests.support.observe import until
from tests.support.rendezvous import DEADLINE
from wetlands_executor import WorkerCrashed, share
from wetlands_executor.worker.shm_arena import SHARED

np = pytest.importorskip("numpy")
classes = pytest.importorskip("tests.arena.classes")


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("value", [
    np.arange(300_000.0).reshape(300, 1000), np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
    np.arange(10)[::-2], np.array(3.5),
    np.zeros((0, 4)), np.array([("a", 1)], [("s", "U3"), ("n", "<i4")]),
    np.array(["2020-01-01"], "M8[D]"),
], ids=lambda value: f"{value.dtype}{value.shape}")  # fmt: skip
def test_numpy_arrays_keep_their_kind(make, memory, value, writable):
    executor = make()
    shared = share(value, writable=writable)
    assert type(shared) is np.ndarray
    assert shared.flags.writeable == writable
    assert (shared.dtype, shared.shape, shared.flags.f_contiguous) == (
        value.dtype,
        value.shape,
        value.flags.f_contiguous or shared.ndim < 2,
    )
    assert (shared == value).all()
    assert executor.submit(workload.flags, shared).result(DEADLINE) == workload.flags(shared)
    assert (executor.submit(workload.same, shared).result(DEADLINE) == value).all()
    del shared
    executor.submit(workload.drop).result(DEADLINE)
    assert memory.is_free()


def test_one_copy_in_all(make, memory):
    executor = make(2)
    shared = share(np.ones(1_000_000))
    resident = memory.resident
    assert executor.submit(sum, [1]).result(DEADLINE) == 1
    tasks = [executor.submit(workload.total, shared) for _ in range(20)]
    assert all(len(task._call.encoded.payload) < 1000 for task in tasks if task._call is not None)
    assert [task.result(DEADLINE) for task in tasks] == [1_000_000] * 20
    assert memory.resident == resident
    del tasks, shared
    assert memory.is_free()


def test_read_only_for_tasks(make):
    executor = make()
    with pytest.raises(ValueError, match="read-only"):
        executor.submit(workload.add_one, share(np.ones(1000))).result(DEADLINE)


def test_both_sides_write(make, memory):
    executor = make(2)
    shared = share(np.zeros(1000), writable=True)
    for number in range(10):
        executor.submit(workload.set_item, shared, number, float(number)).result(DEADLINE)
    assert list(shared[:11]) == [*range(10), 0]
    shared[20] = 5
    assert executor.submit(workload.get_item, shared, 20).result(DEADLINE) == 5


def test_views_travel_as_references(make, memory):
    executor = make()
    shared = share(np.arange(1_000_000.0).reshape(1000, 1000), writable=True)
    part = shared[10:900:3, ::-2].T
    assert executor.submit(workload.total, part).result(DEADLINE) == part.sum()
    executor.submit(workload.set_item, part, 0, -1.0).result(DEADLINE)
    assert (part[0] == -1).all()
    assert len(memory.in_use) == 1
    frozen = shared[:5]
    frozen.flags.writeable = False
    assert "read-only" in str(
        executor.submit(workload.set_item, frozen, 0, 1.0).exception(DEADLINE)
    )
    # What is computed from it is an array like any other.
    assert (executor.submit(workload.add_one, shared + 1).result(DEADLINE) == shared + 2).all()


def test_within_containers_closures_and_initializers(make, memory):
    shared = share(np.zeros(10), writable=True)
    executor = make(initializer=workload.keep_quietly, initargs=(shared,))

    def write(index):
        shared[index] = index

    list(executor.map(write, range(5)))
    executor.submit(write, 5).result(DEADLINE)
    executor.submit(lambda things: workload.set_item(things["a"][0], 6, 6), {"a": [shared]}).result(
        DEADLINE
    )
    assert list(shared) == [0, 1, 2, 3, 4, 5, 6, 0, 0, 0]
    assert executor.submit(workload.kept_total).result(DEADLINE) == 21


def test_buffers_without_numpy(make, memory):
    executor = make()
    shared = share(bytearray(b"abc" * 1000), writable=True)
    assert type(shared) is memoryview
    executor.submit(workload.set_item, shared, 1, 7).result(DEADLINE)
    assert shared[1] == 7
    numbers = share(array.array("d", range(100)))
    assert (numbers.format, numbers.readonly, numbers[5]) == ("d", True, 5)
    assert executor.submit(workload.get_item, numbers[10:20], 3).result(DEADLINE) == 13
    assert isinstance(
        executor.submit(workload.set_item, numbers, 3, 1.0).exception(DEADLINE), TypeError
    )


def _memmap(folder):
    return np.memmap(folder / "file", "f8", "w+", shape=(3, 4))


@pytest.mark.parametrize("value", [
    "text", 5, [1, 2], np.array([object()]), np.zeros(2, [("a", "O"), ("b", "f8")]),
    (ctypes.py_object * 2)(1, 2),
    np.ma.array([1.0, 2.0], mask=[0, 1]), np.ma.array([1, 2]), classes.chararray(["a", "b"]),
    _memmap,
    np.zeros(3).view(classes.Unit),
    memoryview(np.arange(3, dtype=">i4")), memoryview(np.zeros(2, "f2")),
    memoryview(np.zeros(2, [("a", "i4")])),
], ids=steady)  # fmt: skip
def test_what_cannot_be_shared(value, tmp_path):
    """What would lose its mask, its class, its state or the meaning of its bytes is refused, and
    named.
    """
    value = value(tmp_path) if callable(value) else value
    kind = type(value)
    named = (
        value.dtype if kind is np.ndarray else value.format if kind is memoryview else kind.__name__
    )
    with pytest.raises(TypeError, match=re.escape(str(named))):
        share(value)


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3).view(np.matrix),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)).view(np.matrix),
        np.rec.array([(1, "a"), (2, "b")], dtype=[("n", "i4"), ("s", "U3")]),
        np.rec.array(np.arange(5)),
    ],
    ids=lambda value: f"{type(value).__name__}{value.shape}",
)
def test_classes_that_are_kept(make, memory, value, writable):
    """As a reference: the task looks at the same memory, in an array of the same class."""
    executor = make()
    shared = share(value, writable=writable)
    assert (type(shared), shared.dtype, shared.flags.writeable) == (
        type(value),
        value.dtype,
        writable,
    )
    assert (shared == value).all()
    for one in (shared, shared[:1], shared.T):
        assert executor.submit(classes.described, one).result(DEADLINE) == classes.described(one)
    if writable:
        executor.submit(classes.clear, shared).result(DEADLINE)
        assert not shared.tobytes().strip(b"\0")
    del shared, one
    executor.submit(workload.drop).result(DEADLINE)
    assert memory.is_free()


def test_subclasses_over_shared_memory_are_copied_with_their_state(make, memory):
    shared = share(np.arange(4.0))
    masked = np.ma.array(shared, mask=[0, 0, 1, 0], copy=False)
    found = make().submit(workload.same, masked).result(DEADLINE)
    assert type(found) is np.ma.MaskedArray
    assert found.tolist() == [0.0, 1.0, None, 3.0]


@pytest.mark.parametrize(
    "value",
    [
        (ctypes.c_int * 3)(1, -2, 3),
        (ctypes.c_ulong * 2)(5, 6),
        (ctypes.c_double * 2 * 2)((1, 2), (3, 4)),
        (ctypes.c_bool * 2)(True, False),
        memoryview(np.arange(6).reshape(2, 3)),
        memoryview(np.arange(6).reshape(2, 3).T),
        memoryview(np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))),
        memoryview(np.array(3.5)),
        memoryview(np.zeros((0, 3))),
    ],
    ids=lambda value: f"{memoryview(value).format}{memoryview(value).shape}",
)
def test_buffers_keep_their_numbers_and_their_order(make, value):
    executor = make()
    shared = share(value)
    expected = np.asarray(value).tolist()
    if shared.nbytes:
        assert (shared.shape, shared.tolist()) == (memoryview(value).shape, expected)
        assert executor.submit(memoryview.tolist, shared).result(DEADLINE) == expected


def test_a_view_in_the_order_of_fortran(make, memory):
    """Its shape says how to read it, and the reference has to as well."""
    shared = share(np.asfortranarray(np.arange(6.0).reshape(2, 3)), writable=True)
    view = memoryview(shared)
    assert view.f_contiguous
    assert "memoryview" in str(make().submit(memoryview.tolist, view).exception(DEADLINE))
    del shared, view
    assert memory.is_free()


@pytest.mark.parametrize(
    "name",
    [
        "masked", "masked hard", "matrix", "recarray", "memmap", "unit", "objects", "structured",
        "dates",
        "big-endian", "steps",
        # From numpy 2.5 on, pickling one warns.
        pytest.param("chararray", marks=pytest.mark.filterwarnings("ignore:The chararray class")),
    ],
)  # fmt: skip
def test_large_arrays_of_other_classes_travel_with_their_state(make, name, tmp_path):
    """As arguments, as results, and in containers; without ``share``."""
    value = classes.large(name, str(tmp_path / "file"))
    executor = make()
    expected = classes.described(value)
    assert executor.submit(classes.described, value).result(DEADLINE) == expected
    assert (
        classes.described(
            executor.submit(classes.large, name, str(tmp_path / "other")).result(DEADLINE)
        )
        == expected
    )
    (found,) = executor.submit(workload.same, {"a": value}).result(DEADLINE).values()
    assert classes.described(found) == expected


def test_a_class_of_which_numpy_warns_is_found_without_a_warning(make):
    """The result is unpickled on a thread of the pool, where a program cannot silence a warning.

    Warnings are errors here.
    """
    found = make().submit(classes.large, "chararray", "").result(DEADLINE)
    assert type(found).__name__ == "chararray"
    assert list(found[:2]) == ["some text", "another"]


def test_a_lease_keeps_it(make, memory):
    """The worker looks at it longer than the host: it stays, and goes when the worker lets go."""
    executor = make()
    shared = share(np.arange(50_000.0))
    executor.submit(workload.keep_quietly, shared[10:]).result(DEADLINE)
    executor.submit(workload.keep_quietly, shared).result(DEADLINE)
    del shared
    gc.collect()
    for _ in range(3):
        executor.submit(workload.total, np.ones(50_000)).result(DEADLINE)
    assert until(lambda: [word >= SHARED for word in memory.in_use.values()] == [True])
    assert executor.submit(workload.kept_total).result(DEADLINE) == np.arange(50_000.0).sum()
    executor.submit(workload.drop).result(DEADLINE)
    # a new block is when the host looks again
    executor.submit(workload.total, np.ones(50_000)).result(DEADLINE)
    assert memory.is_free()


def test_a_call_under_way_keeps_it(make, memory, rendezvous):
    executor = make()
    busy = executor.submit(workload.wait_with, np.ones(10), rendezvous.address)
    arrival = rendezvous.next()
    task = executor.submit(workload.total, share(np.ones(50_000)))
    gc.collect()
    assert [word >= SHARED for word in memory.in_use.values()] == [True]
    arrival.release()
    assert task.result(DEADLINE) == 50_000
    assert busy.result(DEADLINE) == 10
    del task, busy
    executor.submit(gc.collect).result(DEADLINE)
    assert memory.is_free()


def test_a_dead_worker_has_no_lease(make, memory):
    executor = make()
    shared = share(np.ones(50_000))
    executor.submit(workload.keep_quietly, shared).result(DEADLINE)
    del shared
    gc.collect()
    assert memory.in_use
    assert isinstance(
        executor.submit(os.kill, executor.workers()[0].pid, signal.SIGKILL).exception(DEADLINE),
        WorkerCrashed,
    )
    assert memory.is_free()


def test_before_and_between_executors(make, memory):
    shared = share(np.ones(50_000), writable=True)
    for number in range(2):
        executor = make()
        executor.submit(workload.set_item, shared, number, 5.0).result(DEADLINE)
        executor.shutdown()
    assert shared.sum() == 50_008
    del shared
    assert memory.is_free()


def test_other_pickles_copy(make):
    shared = share(np.arange(1000), writable=True)
    for protocol in (4, 5):
        copy = pickle.loads(pickle.dumps(shared, protocol))
        copy[:] = 0
        assert shared.sum() == 499_500
