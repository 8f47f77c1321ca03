"""Frames that no worker sends: they cost the worker and the call that it runs, nothing else.

The calls that forge have a name, so that their outcomes come through the pipe, behind what they
have forged. An answer on the shared page can overtake bytes in the pipe that are half a frame; the
next call of that worker may be blamed then. So may it be where an outcome was forged that lacks its
last byte: what the worker sends next completes it, and the rest is no frame; but by then the worker
runs the next call, and the host cannot know which of the two has written that.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.faults import forging
from tests.support.rendezvous import DEADLINE, Rendezvous
from wetlands_executor import CondaEnvExecutor, Task, TaskStatus, WorkerCrashed
from wetlands_executor.worker import wire

KINDS = {name: value for name, value in vars(wire).items() if name in (
    "HELLO", "READY", "START_FAILED", "INITIALIZER_FAILED", "VALUE", "NONE", "ERROR", "CANCELLED",
    "STARTED", "UPDATE", "OUTPUT", "LOG",
    "PRINTED", "SEVERAL", "VALUE_IN_BLOCKS",
)}  # fmt: skip
#: Kinds that end their call.
OUTCOMES = {wire.VALUE, wire.NONE, wire.ERROR, wire.CANCELLED, wire.SEVERAL, wire.VALUE_IN_BLOCKS}
KINDS.update({"kind 0": 0, "kind 99": 99, "kind 250": 250, "kind 251": 251, "kind 255": 255})


def _check(
    executor: CondaEnvExecutor, bad: list[Task[object]], neighbours: list[Task[int]]
) -> None:
    assert [task.result(DEADLINE) for task in neighbours] == [
        2 * value for value in range(len(neighbours))
    ]
    for task in bad:
        task.exception(DEADLINE) if not task.wait_for(DEADLINE).cancelled() else None
        assert task.status is not TaskStatus.PENDING
    assert executor.submit(forging.double, 21).result(DEADLINE) == 42
    assert executor.wait_all(DEADLINE)


@pytest.mark.parametrize("shape", forging.SHAPES)
def test_a_forged_frame_costs_nothing_but_its_call(
    executor: CondaEnvExecutor, stress_rng: random.Random, shape: str
) -> None:
    """Every kind, with some of the payloads; other ones with another seed."""
    executor.submit(forging.double, 1).result(DEADLINE)
    bad: list[Task[object]] = []
    neighbours: list[Task[int]] = []
    for kind in KINDS.values():
        if shape == "cut" and kind in OUTCOMES:
            continue  # see the test below
        for payload in stress_rng.sample(list(forging.PAYLOADS), 2):
            bad.append(executor.options(name="bad").submit(forging.forge, kind, payload, shape))
            neighbours += [
                executor.submit(forging.double, len(neighbours) + more) for more in range(3)
            ]
    _check(executor, bad, neighbours)


@pytest.mark.parametrize("payload", forging.PAYLOADS)
def test_a_forged_outcome_without_its_last_byte_costs_one_neighbour_at_most(
    executor: CondaEnvExecutor, payload: str
) -> None:
    """What completes it is not told from what the next call has written; nothing else is lost."""
    executor.submit(forging.double, 1).result(DEADLINE)
    for kind in sorted(OUTCOMES):
        bad = executor.options(name="bad").submit(forging.forge, kind, payload, "cut")
        neighbours = [executor.submit(forging.double, value) for value in range(6)]
        blamed = [task for task in neighbours if task.wait_for(DEADLINE).exception(DEADLINE)]
        assert len(blamed) <= 1
        for task in blamed:
            assert isinstance(task.exception(), WorkerCrashed)
            assert "no worker sends" in str(task.exception())
        for value, task in enumerate(neighbours):
            assert task in blamed or task.result() == 2 * value
        bad.wait_for(DEADLINE)
    assert executor.wait_all(DEADLINE)


@pytest.mark.parametrize("payload", ["class", "exit", "rubbish", "memo"])
@pytest.mark.parametrize(
    "kind", [wire.LOG, wire.UPDATE, wire.PRINTED, wire.HELLO, wire.INITIALIZER_FAILED, 99]
)
def test_the_task_that_has_sent_it_fails_and_says_why(
    executor: CondaEnvExecutor, rendezvous: Rendezvous, kind: int, payload: str
) -> None:
    neighbour = executor.submit(
        forging.forge, wire.NONE, "empty", "unknown number", rendezvous.address
    )
    arrival = rendezvous.next()
    bad = executor.submit(
        forging.forge_and_sleep,
        kind,
        payload,
        "number 0" if kind in (wire.HELLO, wire.INITIALIZER_FAILED) else "as it is",
        60,
    )
    with pytest.raises(WorkerCrashed, match="no worker sends") as caught:
        bad.result(DEADLINE)
    assert isinstance(caught.value, BrokenProcessPool)
    assert neighbour.running()
    arrival.release()
    assert neighbour.result(DEADLINE) == "forged"
    assert executor.submit(forging.double, 1).result(DEADLINE) == 2


def test_a_call_that_forges_is_run_again_if_that_was_asked_for(single: CondaEnvExecutor) -> None:
    task = single.options(retries=2).submit(forging.forge_and_sleep, 99, "empty", "as it is", 60)
    assert isinstance(task.exception(DEADLINE), WorkerCrashed)
    assert task.attempt == 3
    assert single.submit(forging.double, 1).result(DEADLINE) == 2


def test_calls_that_the_worker_holds_already_are_unharmed(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    """An outcome that is forged for a call which waits in the same worker's inbox is not believed.
    """
    single.submit(forging.double, 1).result(DEADLINE)
    bad = single.submit(
        forging.arrive_and_forge, rendezvous.address, wire.VALUE, "text", "numbers behind"
    )
    arrival = rendezvous.next()
    neighbours = [single.submit(forging.double, value) for value in range(20)]
    arrival.release()
    assert isinstance(bad.exception(DEADLINE), WorkerCrashed)
    assert [task.result(DEADLINE) for task in neighbours] == [2 * value for value in range(20)]


@pytest.mark.parametrize("shape", forging.SHAPES)
def test_a_forged_frame_in_a_map_costs_one_call_at_most(
    executor: CondaEnvExecutor, shape: str
) -> None:
    for kind in (
        wire.VALUE,
        wire.NONE,
        wire.ERROR,
        wire.CANCELLED,
        wire.SEVERAL,
        wire.VALUE_IN_BLOCKS,
        wire.UPDATE,
        99,
    ):
        found = []
        results = executor.map(
            forging.forge_at,
            range(60),
            [30] * 60,
            [kind] * 60,
            ["outcomes"] * 60,
            [shape] * 60,
            timeout=DEADLINE,
        )
        try:
            found.extend(results)
        except TimeoutError:
            raise
        except BaseException:  # noqa: BLE001, S110 - whatever the forged outcome is
            pass
        wrong = [value for value, result in enumerate(found) if result != 2 * value]
        assert set(wrong) <= {30}, (kind, wrong)
        assert executor.submit(forging.double, 21).result(DEADLINE) == 42


def test_random_frames(make: Callable[..., CondaEnvExecutor], stress_rng: random.Random) -> None:
    executor = make()
    for _ in range(25):
        bad = [
            executor.options(name="bad").submit(forging.write_random, stress_rng.randrange(1 << 30))
            for _ in range(4)
        ]
        neighbours = [executor.submit(forging.double, value) for value in range(10)]
        _check(executor, bad, neighbours)  # type: ignore[arg-type]
