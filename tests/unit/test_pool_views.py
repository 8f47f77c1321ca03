"""A pool as seen from outside: whether idle workers answer, what runs and what waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.parts import Crew, SharedPage
from wetlands_executor import Task
from wetlands_executor.pool import report
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.probing import Probe, Probes
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.worker_output import TAIL, WorkerOutput
from wetlands_executor.worker import wire


@pytest.fixture
def crew() -> Crew:
    return Crew()


def asked(crew: Crew, process: Any) -> int:
    """Return how many pings were written to a worker."""
    data = crew.loop.poller.written.pop(process.process.inbox, b"")
    frames = [data[at : at + wire.FRAME] for at in range(0, len(data), wire.FRAME)]
    return sum(frame[0] == wire.PING for frame in frames)


# ------------------------------------------------------------------------------------------ probing


def test_only_workers_that_should_answer_are_asked(crew: Crew) -> None:
    page = SharedPage()
    busy, starting, idle = (
        crew.process(page=page),
        crew.process(ready=False),
        crew.process(page=SharedPage()),
    )
    page.words[wire.TAKEN] = crew.call(busy).number
    crew.loop.poller.written.clear()
    part, probe = Probes(crew.workers), Probe()
    part.begin(probe)
    assert asked(crew, idle) == 1, "all have the same descriptors here"
    part.answer(busy)
    part.answer(starting)
    assert not probe.complete
    part.answer(idle)
    assert probe.complete
    assert probe.wait(0)


def test_a_pool_without_workers_answers(crew: Crew) -> None:
    probe = Probe()
    Probes(crew.workers).begin(probe)
    assert probe.wait(0)


def test_a_probe_that_was_not_begun_is_no_answer() -> None:
    probe = Probe()
    assert (probe.complete, probe.wait(0)) == (False, False), "the I/O thread does not come"


def test_a_worker_that_went_on_otherwise_need_not_answer(crew: Crew) -> None:
    """Race: it has begun a call, has finished one or has ended since it was asked."""
    page = SharedPage()
    process = crew.process(page=page)
    probe = Probe()
    probe.ask([process])
    assert not probe.wait(0), "it is stuck"
    process.note_finished(1, True)
    assert probe.wait(0)
    again = Probe()
    again.ask([process])
    page.words[wire.TAKEN] = crew.call(process).number
    assert again.wait(0)
    third = Probe()
    process.calls.clear()
    third.ask([process])
    process.note_exit()
    assert third.wait(0)


def test_a_probe_that_has_ended_takes_no_answer(crew: Crew) -> None:
    process = crew.process()
    part, probe = Probes(crew.workers), Probe()
    part.begin(probe)
    part.end(probe)
    part.answer(process)
    assert not probe.complete


# ------------------------------------------------------------------------------------------- report


class Seen:
    """What the views read of a pool: its I/O thread has not begun."""

    started = ended = on_own_thread = False

    def __init__(self, crew: Crew, *waiting: Call) -> None:
        self.processes = crew.workers.processes
        self.stats = TaskStats(None)  # type: ignore[arg-type]
        self.under_way = SimpleNamespace(waiting=lambda: list(waiting))
        self.dependents: set[Any] = set()
        self.unstarted: set[Any] = set()
        self.deadlines = SimpleNamespace(worker_timeout=None)


def with_task(crew: Crew, process: Any = None) -> Call:
    task: Task[Any] = Task(None, "some.function")
    return crew.call(process, task)


def test_what_runs_is_told_from_what_waits(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    running, held, queued = (
        with_task(crew, process),
        with_task(crew, process),
        with_task(crew),
    )
    page.words[wire.TAKEN] = running.number
    pool: Any = Seen(crew, queued)
    deferred: Task[Any] = Task(None, "deferred")
    pool.unstarted.add(deferred)
    pool.stats.submitted(running.task)
    seen = report.overview(pool)
    assert (seen.total, seen.completed) == (1, 0)
    assert [(task.id, task.name) for task in seen.running] == [(running.task.id, "some.function")]
    for task in (running.task, held.task, queued.task, deferred):
        assert report.find(pool, task.id) is task
    assert report.find(pool, "no such id") is None
    states = [entry["id"] for entry in report.progress(pool)["tasks"]]
    assert states == [running.task.id, held.task.id, queued.task.id, deferred.id]


def test_a_busy_worker_that_is_silent_is_not_responsive(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    pool: Any = Seen(crew)
    assert report.is_responsive(pool)
    pool.deadlines.worker_timeout = 1e-9
    assert report.is_responsive(pool), "it runs nothing"
    page.words[wire.TAKEN] = with_task(crew, process).number
    assert not report.is_responsive(pool)


# ------------------------------------------------------------------------------- output of a worker


def test_what_was_printed_may_be_of_calls_that_the_worker_has() -> None:
    calls = {1: None, 2: None}
    page = SharedPage()
    part = WorkerOutput(page, calls)
    page.words[wire.TAKEN] = 2
    part.note()
    del calls[1]
    part.note_end(1)
    assert part.printed, "it may be of the second"
    del calls[2]
    part.note_end(2)
    assert not part.printed


def test_what_was_printed_by_a_batch_is_of_it_until_that_place() -> None:
    calls = {1: None}
    page = SharedPage()
    part = WorkerOutput(page, calls)
    page.words[wire.TAKEN] = 1 | 3 << wire.NUMBER_BITS
    part.note()
    part.note_end(1 | 1 << wire.NUMBER_BITS, 2)
    assert part.printed
    part.note_end(1 | 3 << wire.NUMBER_BITS)
    assert not part.printed


def test_the_first_call_that_is_named_counts() -> None:
    part = WorkerOutput(None, {1: None, 2: None})
    part.note(1)
    part.note(2)
    part.note_end(1)
    assert not part.printed


def test_stacks_are_what_came_after_they_were_asked_for() -> None:
    part = WorkerOutput(None, {})
    part.keep(b"before\n")
    assert (part.stacks(), part.asked) == ("", False)
    part.expect_stacks()
    assert (part.stacks(), part.asked) == ("", True)
    part.keep(b"the stacks\n")
    assert part.stacks() == "the stacks"
    assert part.tail() == "before\nthe stacks"
    part.forget_stacks()
    assert part.stacks() == ""


def test_only_the_last_of_stderr_is_kept() -> None:
    part = WorkerOutput(None, {})
    part.keep(b"x" * (3 * TAIL) + b"end")
    assert len(part.tail()) == TAIL
    assert part.tail().endswith("xend")


def test_what_was_said_before_the_start_is_said_once() -> None:
    part = WorkerOutput(None, {})
    assert part.release() == ""
    part.hold_back(b"one\ntwo")
    assert part.release() == "one\n"
    assert part.release() == ""
