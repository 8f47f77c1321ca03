"""Calls that do not go straight: cancelled, taken back, tried again, lost.

And what is left of their blocks.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from concurrent.futures import CancelledError, wait

import pytest

from tests.arena import workload
from tests.support.observe import until
from tests.support.rendezvous import DEADLINE
from wetlands_executor import WorkerCrashed
from wetlands_executor.sharedmem import arena

np = pytest.importorskip("numpy")

MILLION = 1_000_000


def test_cancelled_calls_free_their_blocks(single, memory, rendezvous):
    busy = single.submit(workload.wait_with, np.ones(50_000), rendezvous.address)
    rendezvous.next()
    waiting = [single.submit(workload.total, np.ones(50_000)) for _ in range(100)]
    assert len(memory.in_use) == 101
    assert all(task.cancel() for task in waiting)
    rendezvous.open()
    assert busy.result(DEADLINE) == 50_000
    del waiting, busy
    assert memory.is_free()


def test_calls_that_are_taken_back_go_to_another_worker(make, memory, rendezvous):
    """One worker is busy, and what it holds unstarted is stolen by the other.

    With the right content.
    """
    executor = make(2)
    executor.launch()
    busy = [executor.submit(workload.wait_with, np.ones(50_000), rendezvous.address)]
    rendezvous.next()
    tasks = [
        executor.submit(workload.total, np.full(40_000, float(number))) for number in range(200)
    ]
    assert [task.result(DEADLINE) for task in tasks] == [40_000.0 * number for number in range(200)]
    rendezvous.open()
    wait(busy)
    del tasks, busy
    assert memory.is_free()


def test_shutdown_frees_what_was_queued(make, memory, rendezvous):
    executor = make()
    busy = executor.submit(workload.wait_with, np.ones(50_000), rendezvous.address)
    rendezvous.next()
    queued = [executor.submit(workload.total, np.ones(50_000)) for _ in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    # Race: the worker may take the next call as soon as the first one ends. All are taken back
    # before it does.
    assert not wait(queued, DEADLINE).not_done
    rendezvous.open()
    executor.shutdown()
    assert busy.result() == 50_000
    assert all(task.cancelled() for task in queued)
    del queued, busy
    assert memory.is_free()


def test_killed_workers_free_everything(make, memory, rendezvous):
    executor = make()
    busy = executor.submit(workload.wait_with, np.ones(50_000), rendezvous.address)
    rendezvous.next()
    queued = [executor.submit(workload.total, np.ones(50_000)) for _ in range(20)]
    executor.kill_workers()
    assert isinstance(busy.exception(DEADLINE), WorkerCrashed)
    del queued, busy
    assert memory.is_free()


@pytest.mark.parametrize("function", [workload.crash_after_writing, workload.raise_after_writing])
def test_a_second_try_sees_what_the_first_saw(make, memory, tmp_path, function):
    executor = make()
    value = np.arange(1.0 * MILLION)
    view = executor.options(retries=2, retry_on=(ValueError, WorkerCrashed))
    task = view.submit(function, value, str(tmp_path / "tried"))
    assert task.result(DEADLINE) == value.sum()
    assert task.attempt == 2
    del task
    assert memory.is_free()


def test_with_retries_a_kept_argument_is_the_tasks_own(make, memory):
    executor = make()
    view = executor.options(retries=1)
    view.submit(workload.keep_quietly, np.arange(1.0 * MILLION)).result(DEADLINE)
    for _ in range(3):
        executor.submit(workload.total, np.ones(MILLION)).result(DEADLINE)
    assert executor.submit(workload.kept_total).result(DEADLINE) == np.arange(1.0 * MILLION).sum()
    result = view.submit(workload.add_one, np.ones(MILLION)).result(DEADLINE)
    assert (result == 2).all()
    del result
    assert memory.is_free()


def test_dependencies_pass_arrays_on(make, memory):
    executor = make(2)
    first = executor.submit(workload.twice, np.ones(MILLION))
    second = executor.submit(workload.add_one, first)
    assert (second.result(DEADLINE) == 3).all()
    assert (first.result() == 2).all()
    del first, second
    assert memory.is_free()


@pytest.mark.timeout(90)
def test_kills_during_transfers(make, memory):
    """Workers are killed at random moments: what arrives is right, and no block stays behind.

    For five seconds, and on a busy machine as long as it takes to have killed enough.
    """
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    executor = make(2)
    executor.launch()
    held = []
    lost = right = kills = 0
    end = time.monotonic() + 5
    number = 0
    while time.monotonic() < end or kills < 6 or right < 21:
        expected = []
        for _ in range(6):
            number += 1
            ways = [
                (workload.add_one, number + 1),
                (workload.twice, 2 * number),
                (workload.keep, number),
                (workload.tail, number),
            ]
            function, result = rng.choice(ways)
            value = np.full(rng.choice([20_000, 150_000, 900_000]), float(number))
            expected.append((executor.submit(function, value), float(result)))
            value[:] = -1
        # Three starts in a row that are killed would be a WorkerStartError.
        victims = [info for info in executor.workers() if info.state in ("idle", "busy")]
        if victims and rng.random() < 0.7:
            time.sleep(rng.random() * 0.004)
            try:
                os.kill(rng.choice(victims).pid, signal.SIGKILL)
                kills += 1
            except (ProcessLookupError, TypeError):
                pass
        for task, result in expected:
            try:
                array = task.result(DEADLINE)
            except WorkerCrashed:
                lost += 1
            else:
                right += 1
                assert (array == result).all(), seed
                array += 0.5
                if rng.random() < 0.3:
                    held.append((array, result + 0.5))
        del task, expected
        array = None
        while len(held) > 20:
            array, result = held.pop(rng.randrange(len(held)))
            assert (array == result).all(), seed
    assert all((array == result).all() for array, result in held), seed
    executor.shutdown()
    held.clear()
    array = None
    assert memory.is_free(), (seed, memory.in_use)


def test_a_fork_in_a_task_has_its_own_copy(single, memory):
    for _ in range(2):
        value = np.zeros(MILLION)
        result = single.submit(workload.fork_and_write, value).result(DEADLINE)
        assert (result == 1).all()
        del result
        for _ in range(3):  # the block is used again while the child lives
            assert (
                single.submit(workload.total, np.full(MILLION, 5.0)).result(DEADLINE) == 5 * MILLION
            )
        assert single.submit(workload.forked_child_saw).result(DEADLINE) == b"y"
    assert memory.is_free()


def test_threads_of_a_task_fork_at_the_same_time(single, memory):
    assert single.submit(workload.fork_on_threads, np.zeros(MILLION), 50).result(DEADLINE) == (
        100,
        0,
    )
    assert memory.is_free()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_of_the_host_has_its_own_copy(single, memory):
    results = [
        single.submit(workload.add_one, np.zeros(MILLION)).result(DEADLINE),
        single.submit(workload.twice, np.ones(MILLION)).result(DEADLINE),
    ]
    pid = os.fork()
    if not pid:
        status = 1
        try:
            for result in results:
                result += 10
            del result
            right = all((each == expected).all() for each, expected in zip(results, (11, 12)))
            results.clear()
            gc.collect()
            status = 0 if right else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert [float(result[0]) for result in results] == [1, 2]
    assert len(memory.in_use) == 1  # the child has freed nothing
    results.clear()
    assert memory.is_free()


def test_memory_goes_back_when_idle(make, memory, monkeypatch):
    monkeypatch.setattr(arena, "IDLE", 0.3)
    executor = make()
    handed_back = executor.submit(workload.add_one, np.ones(4 * MILLION)).result(DEADLINE)
    made = executor.submit(workload.twice, np.ones(4 * MILLION)).result(DEADLINE)
    # Looked at while it is held: afterwards a busy machine may need longer to look than the
    # memory stays.
    assert memory.resident > 30_000_000
    assert executor.submit(workload.resident).result(DEADLINE) > 30_000_000
    del handed_back, made
    gc.collect()
    assert until(lambda: memory.resident < 2_000_000)
    assert until(lambda: executor.submit(workload.resident).result(DEADLINE) < 2_000_000)
    # And it still works afterwards.
    assert executor.submit(workload.total, np.ones(MILLION)).result(DEADLINE) == MILLION


def test_what_is_freed_while_idle_goes_back_at_once(make, memory, monkeypatch):
    monkeypatch.setattr(arena, "IDLE", 0.2)
    executor = make()
    handed_back = executor.submit(workload.add_one, np.ones(4 * MILLION)).result(DEADLINE)
    made = executor.submit(workload.twice, np.ones(4 * MILLION)).result(DEADLINE)
    assert until(lambda: memory.arena.idle)
    assert memory.resident > 30_000_000
    assert executor.submit(workload.resident).result(DEADLINE) > 30_000_000
    del handed_back, made
    gc.collect()
    assert until(lambda: memory.resident < 2_000_000)
    assert until(lambda: executor.submit(workload.resident).result(DEADLINE) < 2_000_000)


WRONG = [
    "slot", "not filled", "before the first", "behind the last", "longer than it is",
    "over the edge", "another worker's", "no such argument",
    "place", "following",
]  # fmt: skip


@pytest.mark.parametrize("which", WRONG)
def test_a_worker_is_not_believed(make, memory, which):
    executor = make(2)
    other = executor.submit(workload.same, np.ones(MILLION)).result(DEADLINE)
    waiting = executor.submit(time.sleep, 0.2)
    task = executor.submit(workload.send_false_blocks, which, 1)
    error = task.exception(DEADLINE)
    assert isinstance(error, WorkerCrashed), error
    assert "no worker sends" in str(error)
    waiting.result(DEADLINE)
    assert (other == 1).all()
    assert executor.submit(workload.total, np.ones(MILLION)).result(DEADLINE) == MILLION
    del other
    assert memory.is_free()


def test_a_list_that_is_too_long_is_not_believed(make):
    executor = make()
    assert isinstance(
        executor.submit(workload.send_false_blocks, "place", 1 << 31).exception(DEADLINE),
        WorkerCrashed,
    )


def test_asking_to_cancel_a_running_task_frees_its_blocks(single, memory, rendezvous):
    task = single.submit(workload.wait_with, np.ones(MILLION), rendezvous.address)
    rendezvous.next()
    task.kill()
    with pytest.raises(CancelledError):
        task.result(DEADLINE)
    del task
    assert memory.is_free()
