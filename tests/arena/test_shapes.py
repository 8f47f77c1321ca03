"""Every shape of payload, around every border: as argument, as result, in an exception."""

from __future__ import annotations

import concurrent.futures
import signal
import sys
import threading
from typing import Any

import pytest

from tests.arena import workload
from tests.support.rendezvous import DEADLINE
from wetlands_executor.serialize.sentinels import is_stateless

KB = 1024
#: Into a frame, onto the shared page, a frame of the pickle by itself, a block; beside each border.
SIZES = [
    0,
    80,
    100,
    KB,
    4 * KB,
    63 * KB,
    64 * KB - 1,
    64 * KB,
    64 * KB + 1,
    65 * KB,
    127 * KB,
    128 * KB - 1,
    128 * KB,
    128 * KB + 1,
    300 * KB,
    5000 * KB,
]


def value_of(kind: str, size: int) -> Any:
    """Make a value of about so many bytes."""
    pattern = bytes(range(256)) * (size // 256 + 1)
    if kind == "str":
        return "ä" * (size // 2)
    if kind == "ascii":
        return "x" * size
    if kind == "numbers":
        return [number * 1.5 for number in range(size // 9)]
    if kind == "dicts":
        return [{"id": number, "name": f"n{number}"} for number in range(size // 20)]
    return {"bytes": bytes, "bytearray": bytearray}[kind](pattern[:size])


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "str", "ascii", "numbers", "dicts"])
def test_sizes(single, memory, kind):
    """There and back, alone and nested, the same object twice."""
    for size in SIZES:
        value = value_of(kind, size)
        assert single.submit(workload.same, value).result(DEADLINE) == value
        nested = {"a": [value, (1, value)], "b": None}
        found = single.submit(workload.same, nested).result(DEADLINE)
        assert found == nested
        assert found["a"][0] is found["a"][1][1]
        assert type(found["a"][0]) is type(value)
        del found
    assert memory.is_free()


@pytest.mark.parametrize("size", [100, 9000, 64 * KB, 127 * KB, 128 * KB, 300 * KB])
def test_arrays(single, memory, size):
    np = pytest.importorskip("numpy")
    value = np.arange(size, dtype="u1")
    for given in (value, [value, 1], {"a": (value, value)}):
        found = single.submit(workload.same, given).result(DEADLINE)
        assert repr(found) == repr(given)
    found = single.submit(workload.same, value).result(DEADLINE)
    found[:] = 1  # its own
    assert (single.submit(workload.same, value).result(DEADLINE) == value).all()
    del found
    assert memory.is_free()


def test_many_middle_sized_arrays(single, memory):
    """They share one block, which is free afterwards."""
    np = pytest.importorskip("numpy")
    value = [np.full(128, number, float) for number in range(3000)]
    task = single.submit(workload.same, value)
    found = task.result(DEADLINE)
    assert all((one == other).all() for one, other in zip(found, value, strict=True))
    assert not memory.in_use
    found[0][:] = -1
    assert found[1][0] == 1


def test_in_every_python(make, anypython):
    """The worker's unpickler and pickler are of other versions."""
    executor = make(env=anypython.path)
    for size in (100, KB, 64 * KB - 1, 64 * KB, 65 * KB, 129 * KB, 2000 * KB):
        for kind in ("bytes", "bytearray", "str", "dicts"):
            value = [value_of(kind, size), "after"]
            assert executor.submit(workload.same, value).result(DEADLINE) == value


@pytest.mark.parametrize("size", [63 * KB, 64 * KB, 65 * KB, 300 * KB])
def test_in_exceptions(single, size):
    value = bytes(range(256)) * (size // 256)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is long
        single.submit(workload.fail_with, [value, "x" * size]).result(DEADLINE)
    assert caught.value.args == ([value, "x" * size],)


class Point:
    """Something of this project."""

    def __init__(self, number: int) -> None:
        self.number = number


class Empty:
    """May be a sentinel."""


def test_objects_of_the_project(single):
    """Many of one class, beside such that hold nothing."""
    empty = Empty()
    assert is_stateless(empty)
    value = [Point(number) for number in range(5000)]
    found = single.submit(workload.same, [value, empty, empty]).result(DEADLINE)
    assert [one.number for one in found[0]] == list(range(5000))
    assert found[1] is found[2] is empty


@pytest.mark.parametrize("limit", ["0", "100000"])
def test_without_shared_memory(make, memory, limit, monkeypatch):
    """A host that has little of it sends everything through the pipe."""
    from wetlands_executor.sharedmem import arena

    monkeypatch.setattr(arena.Arena, "store", lambda *_: -1)
    monkeypatch.setattr(arena.Arena, "store_all", lambda *_: -1)
    monkeypatch.setenv("WETLANDS_EXECUTOR_ARENA", limit)
    executor = make(1)
    for kind in ("bytes", "str", "dicts"):
        value = [value_of(kind, 700 * KB), value_of(kind, 65 * KB)]
        assert executor.submit(workload.same, value).result(DEADLINE) == value
    assert not memory.in_use


def test_threads_that_submit_long_arguments_at_once(make):
    """They compete for the page: each call gets its own arguments."""
    executor = make(2)
    failures = []

    def submit(seed):
        for number in range(150):
            value = bytes([seed, number]) * (1 + (seed * 7919 + number * 104729) % 60000)
            if executor.submit(workload.same, value).result(DEADLINE) != value:
                failures.append((seed, number))

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(submit, range(4)))
    assert not failures


@pytest.mark.skipif(sys.platform == "win32", reason="there is no setitimer")
def test_a_handler_that_raises_while_long_arguments_are_sent(make):
    """Whatever it interrupts, the next calls get their own arguments."""
    executor = make(1)
    executor.submit(workload.same, 1).result(DEADLINE)

    class Interrupt(Exception):
        pass

    def interrupt(_number, _frame):
        raise Interrupt

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(300):
            value = bytes([number % 256]) * (200 + number * 300)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + number % 60 * 0.00001)
                try:
                    task = executor.submit(workload.same, value)
                    assert task.result(DEADLINE) == value
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                pass  # which may interrupt in the two lines that set the timer as well
    finally:
        signal.signal(signal.SIGALRM, before)
    value = b"last" * 10_000
    assert executor.submit(workload.same, value).result(DEADLINE) == value


def test_a_worker_that_dies_with_long_arguments(make, memory):
    """Only its call is lost; what is sent to the next one is right."""
    executor = make(1)
    for size in (200, 30_000, 200_000):
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            executor.submit(workload.die_with, bytes(size)).result(DEADLINE)
        value = bytes(range(256)) * (size // 256)
        assert executor.submit(workload.same, value).result(DEADLINE) == value
    assert memory.is_free()
