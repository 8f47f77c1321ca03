"""What becomes of tasks inside tasks, as bytes: settled in the host, and sent on."""

from __future__ import annotations

import pickle
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from wetlands_executor import WorkerCrashed
from wetlands_executor.futures.future import Task
from wetlands_executor.futures.settling import settle_cancelled
from wetlands_executor.pool.call import FAILED, CallPhase, Outcome
from wetlands_executor.pool.nested_outcomes import (
    ChildReceiver,
    Passed,
    PassedError,
    error_of,
    failure,
    outcome_of,
)
from wetlands_executor.serialize.results import TOO_LARGE
from wetlands_executor.sharedmem.results import LentResult, OutOfBandResult
from wetlands_executor.worker import wire


class Settled:
    """A settlement that notes what it is left with."""

    def __init__(self) -> None:
        self.left: list[Any] = []

    def on_outcome(self, call: Any, outcome: Outcome) -> None:
        self.left.append(outcome)

    def find_out(self, call: Any, error: BaseException) -> None:
        self.left.append(error)


class Blocks:
    """Blocks that note to whom they were sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send(self, incarnation: int) -> int:
        self.sent.append(incarnation)
        return 0


@pytest.fixture
def settled() -> Settled:
    return Settled()


def take(settled: Settled, kind: int, data: Any, phase: CallPhase = CallPhase.ENDED) -> Task[Any]:
    task: Task[Any] = Task()
    any_settlement: Any = settled
    call: Any = SimpleNamespace(task=task, name="job", phase=phase)
    ChildReceiver(any_settlement).on_outcome(call, Outcome(kind, data))
    return task


@pytest.mark.parametrize("kind", [FAILED, wire.CANCELLED])
def test_what_is_no_bytes_of_a_worker_is_settled_as_ever(settled: Settled, kind: int) -> None:
    assert not take(settled, kind, None).done()
    assert [outcome.kind for outcome in settled.left] == [kind]


@pytest.mark.parametrize(("kind", "data"), [(wire.VALUE, b"pickle"), (wire.NONE, None)])
def test_a_value_goes_on_unread(settled: Settled, kind: int, data: bytes | None) -> None:
    task = take(settled, kind, data)
    assert task.result() == Passed(kind, data)
    assert outcome_of(task, 7) == (bytes((kind,)), data or b"")


def test_an_exception_goes_on_unread(settled: Settled) -> None:
    data = pickle.dumps(("KeyError", "'x'", "line 1\nline 2", b"its class is not here", None))
    task = take(settled, wire.ERROR, data)
    error = task.exception()
    assert isinstance(error, PassedError)
    assert str(error) == "KeyError: 'x'"
    assert outcome_of(task, 7) == (bytes((wire.ERROR,)), data)


def test_the_parent_may_want_another_try(settled: Settled) -> None:
    data = pickle.dumps(("KeyError", "'x'", "", None, None))
    assert not take(settled, wire.ERROR, data, CallPhase.DECIDING).done()
    (error,) = settled.left
    assert error_of(error) == (wire.ERROR, data)


def test_an_exception_that_is_none(settled: Settled) -> None:
    task = take(settled, wire.ERROR, pickle.dumps(5))
    assert "no description" in str(task.exception())
    assert outcome_of(task, 7)[1] == pickle.dumps(5)


def test_what_does_not_fit_here(settled: Settled) -> None:
    task = take(settled, TOO_LARGE, b"5000000")
    with pytest.raises(MemoryError, match="job has 5,000,000 bytes"):
        task.result()


def test_buffers_that_were_not_lent_are_copied_behind_each_other(settled: Settled) -> None:
    result = OutOfBandResult(b"pickle", [bytearray(b"buffer"), b""])
    task = take(settled, wire.VALUE_IN_BLOCKS, result)
    head, *rest = outcome_of(task, 7)
    assert head == struct.pack("<BI3Q", wire.BUFFERS, 3, 6, 6, 0)
    assert b"".join(rest) == b"picklebuffer"


def test_lent_blocks_are_the_other_workers_before_the_record_leaves(settled: Settled) -> None:
    blocks: Any = Blocks()
    task = take(settled, wire.VALUE_IN_LENT, LentResult(b"list", blocks))
    assert blocks.sent == []
    assert outcome_of(task, 7) == (bytes((wire.VALUE_IN_LENT,)), b"list")
    assert blocks.sent == [7]


def test_a_cancellation_has_its_reason() -> None:
    task: Task[Any] = Task()
    settle_cancelled(task, "the pool was ended")
    assert outcome_of(task, 7) == (bytes((wire.CANCELLED,)) + b"the pool was ended",)


def test_a_failure_of_the_host_names_its_classes() -> None:
    names, text, args = pickle.loads(failure(WorkerCrashed("it died", -9, "SIGKILL")))
    assert (names[0], text) == ("WorkerCrashed", "it died")
    assert args == ("it died", -9, "SIGKILL", "")
    assert {"BrokenProcessPool", "Exception"} <= set(names)
    task: Task[Any] = Task()
    task.set_exception(OSError("no such file"))
    head, data = outcome_of(task, 7)
    assert head == bytes((wire.FAILED,))
    assert pickle.loads(data)[1:] == ("no such file", None)
