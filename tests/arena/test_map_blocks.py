"""Large arguments of a ``map``.

Many calls share a block, and still nothing concerns more than one of them.
"""

from __future__ import annotations

import gc
import itertools
import os
import threading
from pathlib import Path

import pytest

from tests.arena import workload
from tests.faults import work
from tests.support.observe import until
from tests.support.rendezvous import DEADLINE
from wetlands_executor import WorkerCrashed
from wetlands_executor.map import chunks, packing
from wetlands_executor.sharedmem import arena

#: Of all sizes around the limits, and of all that can be pickled without user code; the last ones
#: can be changed, and are pickled at once.
VALUES = [
    b"a" * (packing.LARGE - 1),
    b"b" * packing.LARGE,
    bytes(range(256)) * 400,
    "plain" * 20_000,
    "\N{EURO SIGN}\N{SNAKE}" * 9_000,
    "\ud800 is half a character" * 2_000,
    b"",
    "",
    "short",
    7,
    None,
    2.5j,
    b"c" * (packing.BLOCK_BYTES + 1),
    bytearray(b"d" * 100_000),
    [b"e" * 50_000, "f" * 50_000, {"key": (1, 2)}],
    [b"short"],
]


def _of(number: int, size: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(size - 8)


def test_everything_arrives_as_it_is(make, memory):
    """In runs of one kind and mixed, as one of two arguments, and in a part with others."""
    executor = make(2)
    for order in (1, 5, 7):  # none of them divides the number of values
        values = [VALUES[number * order % len(VALUES)] for number in range(20 * len(VALUES))]
        found = list(executor.map(workload.two, values, range(len(values)), timeout=DEADLINE))
        assert found == list(zip(values, range(len(values)), strict=True))
        assert [type(one) for one, _ in found] == [type(value) for value in values]
    for value in VALUES:
        assert (
            list(
                executor.map(workload.two, [value] * 100, reversed([value] * 100), timeout=DEADLINE)
            )
            == [(value, value)] * 100
        )
    del found, executor
    assert memory.is_free()


@pytest.mark.parametrize("way", ["no blocks", "no room"])
def test_without_blocks_it_goes_through_the_pipe(make, monkeypatch, way):
    executor = make(2)
    executor.launch()
    if way == "no blocks":
        monkeypatch.setattr(arena.current(), "carries", False)
    else:
        monkeypatch.setattr(arena.Arena, "store_all", lambda *_: -1)
    values = [*VALUES, *VALUES[::-1], *map(_of, range(200), itertools.repeat(100_000))]
    assert list(executor.map(workload.two, values, values, timeout=DEADLINE)) == list(
        zip(values, values, strict=True)
    )


def test_a_worker_that_cannot_map_the_file_reads_it(make):
    executor = make()
    # a segment of the file has more
    executor.submit(work.limit_memory, 40_000_000).result(DEADLINE)
    values = [_of(number, 100_000) for number in range(200)]
    assert list(executor.map(workload.two, values, values, timeout=DEADLINE)) == list(
        zip(values, values, strict=True)
    )


def test_a_crash_costs_one_call(make, memory, tmp_path: Path):
    executor = make(2)
    count, crashing = 300, 150
    marks = [str(tmp_path / str(number)) for number in range(count)]
    outcomes = executor.map(
        workload.mark_or_die,
        [_of(number, 50_000) for number in range(count)],
        marks,
        [crashing] * count,
    )
    assert list(itertools.islice(outcomes, crashing)) == list(range(crashing))
    with pytest.raises(WorkerCrashed):
        next(outcomes)
    assert executor.wait_all(DEADLINE)
    assert len(executor.get_failed()) == 1
    assert all(Path(mark).stat().st_size == 1 for mark in marks[: crashing + 1])
    assert all(
        Path(mark).stat().st_size == 1 for mark in marks[crashing + 1 :] if Path(mark).exists()
    ), "a call has run twice"
    del outcomes
    assert memory.is_free()


def test_random_kills_tear_nothing(make, memory, stress_rng):
    executor = make(3)
    executor.launch()
    done = threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        while not done.wait(0.02 + stress_rng.random() * 0.05):
            busy = [info.pid for info in executor.workers() if info.state == "busy"]
            if busy and kills < 12:
                kills += 1
                try:
                    os.kill(stress_rng.choice(busy), 9)
                except ProcessLookupError:
                    kills -= 1

    killer = threading.Thread(target=kill)
    killer.start()
    lost = 0
    for first in range(0, 3000, 100):
        outcomes = executor.map(
            workload.number_of,
            [_of(number, 20_000 + number) for number in range(first, first + 100)],
            timeout=DEADLINE,
        )
        for number in range(first, first + 100):
            try:
                assert next(outcomes) == (number, 20_000 + number)
            except WorkerCrashed:
                lost += 1
                break
        outcomes.close()
    done.set()
    killer.join()
    assert executor.wait_all(DEADLINE)
    assert lost <= len(executor.get_failed()) <= kills
    del outcomes
    assert memory.is_free()


def close_in_between(executor, rendezvous, count, size, place):
    """Close the iterator of a map of large bytes when the first result was taken and the call at
    ``place`` waits; wait for its end.
    """
    outcomes = executor.map(
        workload.wait_at,
        [_of(number, size) for number in range(count)],
        [rendezvous.address] * count,
        [place] * count,
    )
    assert next(outcomes) == 0
    rendezvous.next()
    outcomes.close()
    rendezvous.open()
    assert executor.wait_all(DEADLINE)


def test_closing_the_iterator_frees_the_rest(make, memory, rendezvous):
    close_in_between(make(2), rendezvous, 500, 100_000, place=40)
    assert memory.is_free()


def test_a_cancelled_part_frees_its_block_at_once(make, memory, rendezvous):
    """Not when the collector comes round, which may be never."""
    executor = make(1)
    gc.collect()
    gc.disable()
    try:
        close_in_between(executor, rendezvous, 60, 500_000, place=1)
        assert until(lambda: not memory.in_use, 10)
    finally:
        gc.enable()


def test_what_is_copied_ahead_is_little(make, memory, rendezvous):
    """However many calls wait.

    A call may take an hour, and its neighbours are a copy as long as they wait.
    """
    executor = make(2)
    executor.launch()
    outcomes = executor.map(
        workload.wait_at,
        [_of(number, 1_000_000) for number in range(300)],
        [rendezvous.address] * 300,
        [100] * 300,
    )
    rendezvous.next()
    rendezvous.next()  # the other worker
    assert len(memory.in_use) <= 2 * chunks.PREFETCH_BYTES // 1_000_000
    rendezvous.open()
    assert list(outcomes) == list(range(300))
    del outcomes
    assert memory.is_free()


def test_a_long_call_holds_no_block(make, memory, rendezvous):
    """What the last call of a part needs is taken out before it begins."""
    executor = make()
    outcomes = executor.map(workload.wait_at, [_of(0, 30_000_000)], [rendezvous.address], [0])
    rendezvous.next()
    assert memory.is_free()
    rendezvous.open()
    assert list(outcomes) == [0]


def test_others_are_served_while_a_large_map_waits(make, rendezvous):
    """Calls that were submitted behind it come behind it, and it does not keep those before it from
    their workers.
    """
    executor = make(2)
    executor.launch()
    before = [executor.submit(workload.number_of, _of(number, 100)) for number in range(200)]
    outcomes = executor.map(workload.number_of, [_of(number, 100_000) for number in range(200)])
    small = executor.map(workload.number_of, [_of(number, 100) for number in range(200)])
    behind = [executor.submit(workload.number_of, _of(number, 100)) for number in range(200)]
    assert [task.result(DEADLINE)[0] for task in behind] == list(range(200))
    assert [number for number, _ in small] == [number for number, _ in outcomes] == list(range(200))
    assert [task.result(DEADLINE)[0] for task in before] == list(range(200))


def test_in_every_python(make, memory, anypython):
    executor = make(env=anypython.path)
    values = [*VALUES, *map(_of, range(100), itertools.repeat(50_000)), *VALUES[::-1]]
    assert list(executor.map(workload.two, values, values[::-1], timeout=DEADLINE)) == list(
        zip(values, values[::-1], strict=True)
    )
    executor.shutdown()
    assert memory.is_free()
