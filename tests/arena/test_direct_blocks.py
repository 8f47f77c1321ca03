"""Large arguments on the direct send.

The thread that submits gives the blocks to an idle worker itself, and their list lies in one of
them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.arena import workload
from tests.support.observe import kill_first, until
from tests.support.rendezvous import DEADLINE
from wetlands_executor import WorkerCrashed
from wetlands_executor.pool.call import CallPhase
from wetlands_executor.sharedmem import arena

np = pytest.importorskip("numpy")

ROOT = Path(__file__).resolve().parents[2]


def test_each_call_sees_its_own(single, memory):
    """Several in a row, each with blocks of its own, and a list of its own behind one of them."""
    for number in range(100):
        first, second = np.full(20_000 + number, float(number)), np.full(30_000, -float(number))
        task = single.submit(workload.sums, first, [second, "x" * (number * 20)], named=first)
        first[:] = second[:] = 7
        assert task.result(DEADLINE) == (
            number * first.size,
            -number * 30_000.0,
            number * 20,
            number * first.size,
        )
    assert memory.is_free()


@pytest.mark.parametrize(
    "size", [131_072, 131_072 * 5 // 4, 1 << 18, (1 << 18) - 100, 10 << 20, 1 << 25]
)
def test_a_block_that_its_data_would_fill(single, memory, size):
    """The list needs room behind the data."""
    value = np.arange(size, dtype=np.uint8)
    for _ in range(5):
        assert single.submit(workload.total, value).result(DEADLINE) == float(value.sum())
        result = single.submit(workload.same, value).result(DEADLINE)
        assert (result == value).all()
        del result
    assert memory.is_free()


@pytest.mark.parametrize("end", ["kill", "cancel", "terminate_workers", "kill_workers"])
def test_its_blocks_are_freed_whatever_becomes_of_it(make, memory, rendezvous, end):
    executor = make()
    executor.submit(workload.wait_with, np.ones(50_000), "nowhere").exception(DEADLINE)
    executor.submit(workload.total, np.ones(50_000)).result(DEADLINE)
    task = executor.submit(workload.wait_with, np.ones(50_000), rendezvous.address)
    assert task._call.phase is CallPhase.DIRECT, "it was to be sent directly"
    arrival = rendezvous.next()
    assert memory.in_use
    if end == "kill":
        os.kill(executor.workers()[0].pid, signal.SIGKILL)
        assert isinstance(task.exception(DEADLINE), WorkerCrashed)
    elif end == "cancel":
        task.cancel()
        arrival.release()
        task.wait_for(DEADLINE)
    else:
        getattr(executor, end)()
        task.wait_for(DEADLINE)
    del task
    assert memory.is_free()


def test_memory_goes_back_after_calls_of_which_the_io_thread_has_not_heard(
    make, memory, monkeypatch
):
    monkeypatch.setattr(arena, "IDLE", 0.5)
    executor = make()
    assert executor.submit(workload.total, np.ones(20_000)).result(DEADLINE) == 20_000
    end = time.monotonic() + 1.2  # longer than the timer: each of these calls puts it off
    while time.monotonic() < end:
        assert executor.submit(workload.total, np.ones(2_000_000)).result(DEADLINE) == 2_000_000
    assert memory.resident > 15_000_000
    assert until(lambda: memory.resident < 2_000_000)
    for _ in range(3):
        assert executor.submit(workload.total, np.ones(2_000_000)).result(DEADLINE) == 2_000_000
    assert until(lambda: memory.resident < 2_000_000)


def test_memory_goes_back_after_a_call_that_is_longer_than_the_time(
    make, memory, monkeypatch, rendezvous
):
    monkeypatch.setattr(arena, "IDLE", 0.2)
    executor = make()
    executor.submit(workload.wait_with, np.ones(20_000), "nowhere").exception(DEADLINE)
    executor.submit(workload.total, np.ones(20_000)).result(DEADLINE)
    task = executor.submit(workload.wait_with, np.ones(2_000_000), rendezvous.address)
    arrival = rendezvous.next()
    assert until(lambda: memory.arena.idle)
    assert memory.resident > 15_000_000
    arrival.release()
    task.result(DEADLINE)
    assert memory.is_free()
    assert until(lambda: memory.resident < 2_000_000)


def test_interrupted_at_every_step():
    """An exception in the main thread every millisecond.

    No block is lost, none is given to two, and the worker is always believed.
    """
    command = [sys.executable, "-W", "error", "-m", "tests.arena.hosts", "interrupted", "3000"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    _interrupted, hits, well = done.stdout.split()
    assert well == "well"
    assert int(hits) > 100, "it has to be interrupted"


def test_kills_under_waiting_submitters(make, memory):
    """Every call ends with its own result, or as the one that its worker was running.

    Nothing is left.
    """
    executor = make(2).launch()
    stop = threading.Event()
    wrong: list[Any] = []
    right = [0, 0]

    def run(seed: int) -> None:
        number = seed << 20
        while not stop.is_set():
            number += 1
            value = np.full(20_000 + number % 7 * 9_000, float(number))
            size = value.size
            task = executor.submit(
                *[(workload.total, value), (workload.add_one, value), (workload.twice, value)][
                    number % 3
                ]
            )
            value[:] = -1
            error = task.exception()
            if error is not None:
                if not isinstance(error, WorkerCrashed):
                    wrong.append(error)
                continue
            found = task.result()
            expected = (float(number) * size, number + 1.0, number * 2.0)[number % 3]
            if not (found == expected if number % 3 == 0 else (found == expected).all()):
                wrong.append((number, found))
            right[seed] += 1

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    kills = 0
    end = time.monotonic() + 4
    while time.monotonic() < end:
        before = sum(right)
        assert until(lambda before=before: sum(right) > before + 20)
        kills += kill_first(executor)
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert wrong == []
    assert kills > 3
    assert executor.wait_all(DEADLINE)
    assert memory.is_free(), memory.in_use
