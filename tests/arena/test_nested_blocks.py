"""Large data between tasks and those inside them: in shared memory, and not through the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.arena import nested
from tests.arena.conftest import Memory
from tests.arena.nested import LARGE
from tests.support import interpreters
from tests.support.observe import crash_of, until
from tests.support.rendezvous import DEADLINE, Rendezvous
from wetlands_executor import CondaEnvExecutor

Make = Callable[..., CondaEnvExecutor]
#: Seconds for several processes to start on a busy machine.
LONG = 100.0


def through_host(executor: CondaEnvExecutor) -> int:
    """Return the bytes that have come from workers and gone to them, but for shared memory."""
    processes = list(executor._pool.processes.values())
    return sum(each.results.arrived + each.outbox._bulk_written for each in processes)


def owners(executor: CondaEnvExecutor) -> dict[int, int]:
    """Return pid -> owner word of the workers."""
    processes = list(executor._pool.processes.values())
    return {each.process.pid: each.result_memory.incarnation for each in processes}


def is_well(executor: CondaEnvExecutor, memory: Memory) -> None:
    """It goes on, and no block is left."""
    assert executor.submit(nested.there_and_back, executor, LARGE, "bytes").result(DEADLINE)
    assert executor.wait_all(DEADLINE)
    assert memory.is_free(), memory.in_use


# ------------------------------------------------------------------------------- the way of data


@pytest.mark.parametrize("kind", ["bytearray", "bytes"])
@pytest.mark.parametrize("size", [1, 65_000, 70_000, 131_072, 131_073, 500_000, 5_000_000])
def test_sizes_around_every_border(
    single: CondaEnvExecutor, memory: Memory, size: int, kind: str
) -> None:
    assert single.submit(nested.there_and_back, single, size, kind).result(DEADLINE)
    assert memory.is_free()


def test_an_argument_is_the_same_block_in_the_other_worker(
    single: CondaEnvExecutor, memory: Memory, rendezvous: Rendezvous
) -> None:
    assert single.submit(nested.several, single, 3).result(DEADLINE) == 3  # both workers run
    before = through_host(single)
    task = single.submit(nested.hand_in, single, rendezvous.address)
    arrival = rendezvous.next()
    ((slot, owner),) = memory.in_use.items()
    child = next(each for each in single.get_progress()["tasks"] if "hold" in each["name"])
    assert owner in owners(single).values()
    assert child["state"] == "running"
    arrival.release()
    assert task.result(DEADLINE) == [slot]
    assert through_host(single) - before < LARGE // 10
    assert memory.is_free()


def test_a_result_is_a_block_of_the_parents_worker(
    single: CondaEnvExecutor, memory: Memory, rendezvous: Rendezvous
) -> None:
    task = single.submit(nested.take_back, single, rendezvous.address)
    arrival = rendezvous.next()
    assert through_host(single) < LARGE // 10
    (owner,) = memory.in_use.values()
    (parent,) = (each.pid for each in single.workers() if each.task and "take_back" in each.task)
    assert owner == owners(single)[parent]
    arrival.release()
    assert task.result(DEADLINE) == LARGE
    assert memory.is_free()


def test_an_argument_that_is_returned_comes_back_in_its_block(
    single: CondaEnvExecutor, memory: Memory
) -> None:
    there, here = single.submit(nested.blocks_on_the_way, single).result(DEADLINE)
    assert there == here
    assert len(here) == 1
    assert memory.is_free()


def test_several_buffers(single: CondaEnvExecutor, memory: Memory) -> None:
    assert single.submit(nested.several, single, 20).result(DEADLINE) == 20
    assert memory.is_free()


def test_between_two_pools(make: Make, memory: Memory) -> None:
    here, there = make(1), make(1)
    assert here.submit(nested.there_and_back, there, LARGE, "bytearray").result(DEADLINE)
    assert memory.is_free()


@pytest.mark.parametrize("minor", ["3.8", "3.13"])
def test_between_two_versions(make: Make, memory: Memory, minor: str) -> None:
    paths = [found.path for found in interpreters.find() if found.minor == minor]
    if not paths:
        pytest.skip(f"no working Python {minor} on this machine")
    here, there = make(1), make(1, env=str(paths[0]))
    for kind in ("bytearray", "bytes"):
        assert here.submit(nested.there_and_back, there, LARGE, kind).result(LONG)
        assert there.submit(nested.there_and_back, here, LARGE, kind).result(LONG)
    assert memory.is_free()


def test_forked_workers(make: Make, memory: Memory) -> None:
    executor = make(1, preload=("json",), share_preload=True)
    assert executor.submit(nested.there_and_back, executor, LARGE, "bytearray").result(LONG)
    assert memory.is_free()


def test_the_function_of_a_file(single: CondaEnvExecutor, memory: Memory, tmp_path: Path) -> None:
    """The host reads the file meanwhile."""
    path = tmp_path / "length.py"
    path.write_text("def run(value):\n    return len(value)\n")
    assert single.submit(nested.file_target, single, f"{path}:run").result(DEADLINE) == LARGE
    assert memory.is_free()


def test_no_room(single: CondaEnvExecutor, memory: Memory) -> None:
    """Then it goes through the pipes."""
    blocks = memory.arena.blocks()
    assert blocks is not None
    blocks.trim()
    blocks.limit = 1
    try:
        assert single.submit(nested.there_and_back, single, LARGE, "bytearray").result(DEADLINE)
        assert through_host(single) > 2 * LARGE
    finally:
        blocks.limit = None
    is_well(single, memory)


def test_what_is_never_read(single: CondaEnvExecutor, memory: Memory) -> None:
    assert single.submit(nested.never_read, single).result(DEADLINE)
    assert memory.is_free()


def test_what_cannot_be_pickled(single: CondaEnvExecutor, memory: Memory) -> None:
    assert single.submit(nested.not_picklable, single).result(DEADLINE) == "TypeError"
    is_well(single, memory)


def test_another_try_sees_the_argument_as_it_was(
    single: CondaEnvExecutor, memory: Memory, tmp_path: Path
) -> None:
    assert single.submit(nested.retried, single, str(tmp_path)).result(DEADLINE)
    assert memory.is_free()


# ------------------------------------------------------------------------ death, at each moment


@pytest.mark.parametrize("step", ["reserve", "store", "hand_over"])
def test_the_parent_dies_while_it_submits(
    single: CondaEnvExecutor, memory: Memory, rendezvous: Rendezvous, step: str
) -> None:
    crash_of(single.submit(nested.die_handing_in, single, step, rendezvous.address))
    is_well(single, memory)
    assert rendezvous.uninvited() == []


def test_the_parent_dies_when_children_run_and_wait(
    make: Make, memory: Memory, rendezvous: Rendezvous
) -> None:
    executor = make(2, cancel_grace=0.1)
    task = executor.submit(nested.die_after, executor, rendezvous.address, 6)
    arrivals = rendezvous.expect("parent", "child")
    assert len(memory.in_use) == 6
    arrivals["parent"].release()
    crash_of(task)
    arrivals["child"].wait_until_gone()
    is_well(executor, memory)


def test_the_parent_dies_before_it_reads_a_result(
    single: CondaEnvExecutor, memory: Memory, rendezvous: Rendezvous
) -> None:
    task = single.submit(nested.die_before_reading, single, rendezvous.address)
    arrival = rendezvous.next()
    assert len(memory.in_use) == 1
    arrival.release()
    crash_of(task)
    is_well(single, memory)


def test_the_parent_dies_while_it_reads_a_result(single: CondaEnvExecutor, memory: Memory) -> None:
    crash_of(single.submit(nested.parent_dies_reading, single))
    is_well(single, memory)


@pytest.mark.parametrize("step", ["run", "reserve", "store", "hand_over"])
def test_a_child_dies(single: CondaEnvExecutor, memory: Memory, step: str) -> None:
    assert single.submit(nested.child_dies, single, step).result(DEADLINE) == "WorkerCrashed"
    is_well(single, memory)


def test_a_child_dies_while_it_reads_its_argument(single: CondaEnvExecutor, memory: Memory) -> None:
    assert single.submit(nested.child_dies_reading, single).result(DEADLINE) == "WorkerCrashed"
    is_well(single, memory)


def test_children_that_are_cancelled_before_they_begin(
    executor: CondaEnvExecutor, memory: Memory, rendezvous: Rendezvous
) -> None:
    task = executor.submit(nested.cancel_waiting, executor, rendezvous.address)
    arrivals = rendezvous.expect("parent", "child")
    assert len(memory.in_use) == 20
    arrivals["parent"].release()
    assert task.result(DEADLINE) == [True] * 19 + [False]
    assert until(lambda: len(memory.in_use) == 1)  # of the one that runs
    arrivals["child"].release()
    is_well(executor, memory)


def test_a_detached_child_keeps_its_argument(
    make: Make, memory: Memory, rendezvous: Rendezvous
) -> None:
    executor = make(1)
    executor.submit(nested.detached, executor, rendezvous.address).result(DEADLINE)
    arrival = rendezvous.next()
    assert len(memory.in_use) == 1
    arrival.release()
    is_well(executor, memory)


@pytest.mark.parametrize("end", ["kill_workers", "terminate_workers", "shutdown"])
def test_the_pool_ends_meanwhile(
    make: Make, memory: Memory, rendezvous: Rendezvous, end: str
) -> None:
    executor = make(1, cancel_grace=0.1)
    task = executor.submit(nested.hand_in, executor, rendezvous.address)
    arrival = rendezvous.next()
    if end == "shutdown":
        executor.shutdown(wait=False, cancel_futures=True)
        arrival.release()
    else:
        getattr(executor, end)()
        arrival.wait_until_gone()
    assert until(task.done)
    executor.shutdown()
    assert memory.is_free(), memory.in_use


@pytest.mark.parametrize("after", [True, False], ids=["shut down", "killed"])
def test_another_pool_that_ends(
    make: Make, memory: Memory, rendezvous: Rendezvous, after: bool
) -> None:
    executor, other = make(1), make(1)
    if after:
        other.shutdown()
        task = executor.submit(nested.to_other, other, rendezvous.address)
        assert task.result(DEADLINE) == "RuntimeError"
    else:
        task = executor.submit(nested.to_other, other, rendezvous.address)
        arrival = rendezvous.next()
        other.kill_workers()
        arrival.wait_until_gone()
        assert task.result(DEADLINE) in ("WorkerCrashed", "CancelledError", "BrokenProcessPool")
    is_well(executor, memory)
