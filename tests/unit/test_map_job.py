"""Jobs of ``map``: how calls are cut into chunks, what becomes of their outcomes.

A pool of our own; no process.
"""

from __future__ import annotations

import math
import pickle
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from wetlands_executor.errors import WaitTimeout
from wetlands_executor.map import chunks
from wetlands_executor.map.chunks import Sizing
from wetlands_executor.map.job import MapJob
from wetlands_executor.map.results import Outcomes
from wetlands_executor.pool.call import FAILED, Outcome
from wetlands_executor.scheduling.messages import ANY, DeathReport
from wetlands_executor.serialize.definitions import define
from wetlands_executor.serialize.settings import current_settings
from wetlands_executor.worker import wire


class Pool:
    """What a job asks of its pool; notes it."""

    max_workers = 2
    forked = False
    end_reason = None
    settings = SimpleNamespace(remote=None)

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.counted: list[tuple[int, int]] = []
        self.cancelled: list[Any] = []
        self.stats = SimpleNamespace(
            expect=lambda count: None, count=lambda *counts: self.counted.append(counts)
        )

    def submit_item(self, item: Any) -> None:
        self.items.append(item)

    def cancel_found(self, find: Any) -> None:
        self.cancelled += find()


@pytest.fixture
def pool() -> Pool:
    return Pool()


def job_of(pool: Any, count: int) -> MapJob:
    definition = define(math.sqrt)
    assert definition is not None
    job = MapJob(pool, definition, current_settings())
    job.fill([(number,) for number in range(count)])
    job.submit()
    return job


def values(*found: Any) -> list[tuple[int, bytes]]:
    return [(wire.VALUE, pickle.dumps(value, 5)) for value in found]


def answer(job: MapJob, call: Any, *found: Any) -> None:
    """Let a worker answer the next calls of a chunk."""
    place = call.batch.advance(len(found))
    if len(found) == 1:
        job.on_outcome(call, Outcome(*values(*found)[0], place))
    else:
        job.on_outcome(call, Outcome(wire.SEVERAL, values(*found), place))


# -------------------------------------------------------------------------------------------- sizes


def test_chunks_have_one_call_while_no_duration_is_known() -> None:
    sizing = Sizing(2)
    assert sizing.calls(1000) == 1
    assert sizing.ahead() == chunks.PREFETCH_FIRST


def test_short_calls_travel_together_and_workers_come_to_the_end_together() -> None:
    sizing = Sizing(2)
    sizing.note(10, 1)
    assert sizing.calls(1000) == chunks.CHUNK_CALLS
    assert sizing.calls(8) == 2
    assert sizing.calls(1) == 1
    assert sizing.ahead() == ANY


def test_long_calls_travel_alone() -> None:
    sizing = Sizing(2)
    sizing.note(1_000_000, 1)
    assert sizing.calls(1000) == 1


def test_the_mean_follows_what_comes_later() -> None:
    sizing = Sizing(1)
    sizing.note(1_000_000, 1)
    sizing.note(10, 1000)
    assert sizing.calls(1000) == chunks.CHUNK_CALLS


def test_fewer_large_chunks_are_held() -> None:
    sizing = Sizing(2)
    sizing.note(10, 1)
    sizing.weigh(chunks.PREFETCH_BYTES // 4)
    assert sizing.ahead() == 4
    sizing.weigh(chunks.PREFETCH_BYTES * 9)
    assert sizing.ahead() == 2


# ----------------------------------------------------------------------------------------- outcomes


def test_a_waiting_thread_is_woken_by_its_outcome_alone() -> None:
    outcomes = Outcomes()
    outcomes.open(3)
    woken = threading.Event()

    def wait() -> None:
        outcomes.wait(1, None)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    outcomes.store(0, wire.NONE, None)
    outcomes.store_many(1, values(5, 6))
    thread.join(30)
    assert woken.is_set()
    assert outcomes.entries == [(wire.NONE, None), *values(5, 6)]


def test_the_time_of_a_wait_is_over() -> None:
    outcomes = Outcomes()
    outcomes.open(1)
    with pytest.raises(WaitTimeout):
        outcomes.wait(0, time.monotonic())


# --------------------------------------------------------------------------------------------- jobs


def test_results_come_in_the_order_of_the_calls(pool: Pool) -> None:
    job = job_of(pool, 5)
    assert pool.items == [job.entry]
    assert job.entry.left == 5
    first, second = job.next_chunk(), job.next_chunk()
    assert first is not None
    assert second is not None
    answer(job, second, 1)
    answer(job, first, 0)
    first.batch.note_duration(10)
    rest = job.next_chunk()
    assert rest is not None
    while (more := job.next_chunk()) is not None:
        answer(job, more, *range(more.batch.first, more.batch.first + more.batch.count))
    answer(job, rest, *range(rest.batch.first, rest.batch.first + rest.batch.count))
    assert job.entry.exhausted
    assert not job.chunks
    assert list(job.results(iter(range(job.size)), None, None)) == [0, 1, 2, 3, 4]
    assert sum(completed for completed, _ in pool.counted) == 5


def test_what_a_dead_worker_had_not_begun_waits_again_in_front(pool: Pool) -> None:
    job = job_of(pool, 100)
    job.sizing.note(10, 1)
    chunk = job.next_chunk()
    assert chunk is not None
    count = chunk.batch.count
    answer(job, chunk, 0, 1)
    assert job.on_lost(chunk, DeathReport(RuntimeError())) is job.entry
    assert not job.chunks
    assert job.left == 98
    again = job.next_chunk()
    assert again is not None
    assert again.batch.first == 2
    assert count > 2


def test_a_lost_chunk_without_a_rest_gives_nothing_back(pool: Pool) -> None:
    job = job_of(pool, 1)
    chunk = job.next_chunk()
    assert chunk is not None
    chunk.batch.advance()
    assert job.on_lost(chunk, DeathReport(RuntimeError())) is None


def test_what_is_cancelled_is_counted_and_raised(pool: Pool) -> None:
    job = job_of(pool, 3)
    chunk = job.next_chunk()
    job.on_cancelled(chunk, None)
    job.on_cancelled(job.entry, None)
    assert pool.counted == [(0, 1), (0, 2)]
    found = list(job.results(iter(range(job.size)), None, None, return_exceptions=True))
    assert [type(each).__name__ for each in found] == ["CancelledError"] * 3


def test_a_result_that_cannot_be_read_names_its_call(pool: Pool) -> None:
    job = job_of(pool, 2)
    for data in (b"\x80\x05\x8c\x04math\x8c\x07nothing\x93.", b"12345"):
        chunk = job.next_chunk()
        assert chunk is not None
        place = chunk.batch.advance()
        job.on_outcome(chunk, Outcome(wire.VALUE if place == 0 else -1, data, place))
    unreadable, too_large = job.results(iter(range(job.size)), None, None, return_exceptions=True)
    assert "sqrt[0]" in str(unreadable)
    assert isinstance(too_large, MemoryError)
    assert "sqrt[1] has 12,345 bytes" in str(too_large)


def test_who_takes_no_more_results_cancels_the_rest(pool: Pool) -> None:
    job = job_of(pool, 3)
    chunk = job.next_chunk()
    assert chunk is not None
    answer(job, chunk, 7)
    waiting = job.next_chunk()
    done: list[None] = []
    found = job.results(iter(range(job.size)), None, lambda: done.append(None))
    assert next(found) == 7
    found.close()  # type: ignore[attr-defined]
    assert pool.cancelled == [job.entry, waiting]
    assert job.closed
    assert done == [None]
    assert job.on_lost(waiting, DeathReport(RuntimeError())) is None


def test_only_the_calls_of_a_failure_get_a_task(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(pool, 2)
    made: list[int] = []
    monkeypatch.setattr(job, "_failed", lambda error, place: made.append(place) or error)
    chunk = job.next_chunk()
    assert chunk is not None
    answer(job, chunk, 7)
    job.on_outcome(job.entry, Outcome(FAILED, ValueError("no")))
    assert made == [1]
