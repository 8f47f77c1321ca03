"""The calls of one worker: which it has taken, of which it may speak, what is missing of them."""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.parts import Crew, SharedPage
from wetlands_executor.pool.call import CallPhase
from wetlands_executor.pool.forgetting import Forgetting
from wetlands_executor.pool.given_calls import GivenCalls
from wetlands_executor.pool.host_page import HostPage
from wetlands_executor.pool.losses import LossRecord
from wetlands_executor.pool.under_way import UnderWay
from wetlands_executor.scheduling import messages as st
from wetlands_executor.worker import wire


@pytest.fixture
def crew() -> Crew:
    return Crew()


def given(crew: Crew, page: Any) -> tuple[GivenCalls, list[Any], Any]:
    """Return the part, three calls that a worker has, and the direct ways."""
    calls = [crew.call() for _ in range(3)]
    direct = SimpleNamespace(sent=deque(), receive=None)
    any_direct: Any = direct
    return GivenCalls({call.number: call for call in calls}, page, any_direct), calls, direct


def test_the_page_says_what_runs(crew: Crew) -> None:
    page = SharedPage()
    part, (first, second, _third), _ = given(crew, page)
    assert (part.running(), part.taken(), part.running_since(first)) == ([], 0, None)
    page.words[wire.TAKEN] = second.number
    page.words[wire.STARTED_NS] = 3_000_000_000
    assert part.running() == [second]
    assert (part.taken(), part.running_since(second)) == (second.number, 3.0)
    assert not part.is_running(first)


def test_without_a_page_everything_may_run(crew: Crew) -> None:
    part, calls, _ = given(crew, None)
    assert part.running() == calls
    assert (part.taken(), part.running_since(calls[0]), part.begun(calls[0])) == (None, None, None)
    assert part.not_begun() == []
    assert part.has_taken(calls[2].number)


def test_the_page_of_a_process_that_is_gone_says_nothing(crew: Crew) -> None:
    page = HostPage(memoryview(bytearray(wire.PAGE)), False)
    page.release()
    part, calls, _ = given(crew, page)
    assert (part.running(), part.taken(), part.running_since(calls[0])) == ([], None, None)


def test_what_was_sent_directly_is_among_the_current_calls(crew: Crew) -> None:
    part, calls, direct = given(crew, SharedPage())
    new = crew.call()
    direct.sent.extend([(calls[0],), (new,)])
    assert part.current() == [*calls, new]
    assert part.oldest() is calls[0]


def test_outcomes_come_in_order(crew: Crew) -> None:
    page = SharedPage()
    part, (first, second, third), _ = given(crew, page)
    page.words[wire.TAKEN] = second.number
    assert not part.is_due(second.number)
    assert [part.has_taken(call.number) for call in (second, third)] == [True, False]
    assert part.may_say(False, second.number)
    assert not part.may_say(True, second.number)
    assert part.not_begun() == [first.number, third.number]


def test_an_answer_on_the_page_lets_a_frame_overtake_it(crew: Crew) -> None:
    part, (first, second, _), direct = given(crew, SharedPage())
    direct.receive = SimpleNamespace(answer=lambda: (wire.VALUE, first.number, b"", 0))
    assert part.is_due(second.number)
    assert not part.is_due(first.number)


def test_calls_that_were_registered_late_may_end_in_any_order(crew: Crew) -> None:
    part, (_, second, third), _ = given(crew, SharedPage())
    assert part.note_registered() is False
    assert part.is_due(second.number)
    assert part.has_taken(third.number)


def test_an_outcome_that_waits_lets_others_come_first(crew: Crew) -> None:
    page = SharedPage()
    part, (_, second, _third), _ = given(crew, page)
    page.words[wire.TAKEN] = second.number
    frame = (wire.NONE, second.number, b"", 0)
    assert part.defer(frame)
    assert not part.defer((wire.NONE, 99, b"", 0))
    assert (part.is_late(99), part.is_late(98)) == (True, False)
    assert (part.is_due(second.number), part.not_begun()) == (True, [])
    assert part.take_late() == [frame, (wire.NONE, 99, b"", 0)]
    assert not part.is_due(second.number)


def sent_directly(crew: Crew, process: Any) -> Any:
    """Return a call that was sent to a worker directly, and is registered."""
    call = crew.call()
    call.process, call.phase = process, CallPhase.DIRECT
    process.direct_send.sent.append((call,))
    assert process.register() == [call]
    return call


def kinds_of_frames(crew: Crew, process: Any) -> list[int]:
    frames = crew.loop.poller.written.pop(process.process.inbox)
    return [frames[place] for place in range(0, len(frames), wire.FRAME)]


@pytest.mark.parametrize("deferred", [0, 1])
def test_a_call_that_was_registered_late_is_not_said_to_be_the_last_one(
    crew: Crew, deferred: int
) -> None:
    """Its outcome waits, and another call was written after it and has ended.

    The worker, told that it has taken the first one last, believed that a task had read from its
    inbox, and ended.
    """
    process = crew.process(page=SharedPage())
    if deferred:
        process.given.defer((wire.NONE, 99, b"", 0))
    sent_directly(crew, process)
    process.given.take_late()
    process.give([crew.call()])
    kinds = kinds_of_frames(crew, process)
    assert kinds == ([wire.RUN] if deferred else [wire.AFTER, wire.RUN])


def test_a_call_is_said_once_to_be_the_last_one(crew: Crew) -> None:
    """Its answer still lies on the page when the next one has ended."""
    process = crew.process(page=SharedPage())
    direct = sent_directly(crew, process)
    second, third = crew.call(), crew.call()
    process.give([second])
    assert kinds_of_frames(crew, process) == [wire.AFTER, wire.RUN]
    del process.calls[second.number]
    process.give([third])
    assert list(process.calls) == [direct.number, third.number]
    assert kinds_of_frames(crew, process) == [wire.RUN]


def test_what_is_reclaimed_with_that_is_said_again(crew: Crew) -> None:
    process = crew.process(page=SharedPage())
    direct = sent_directly(crew, process)
    second = crew.call()
    process.give([second])
    reading, writing = os.pipe()
    os.write(writing, crew.loop.poller.written.pop(process.process.inbox))
    os.close(writing)
    process.process.inbox_reader = reading
    assert process.reclaim() == [second]
    os.close(reading)
    process.give([second])
    assert list(process.calls) == [direct.number, second.number]
    assert kinds_of_frames(crew, process) == [wire.AFTER, wire.RUN]


# ------------------------------------------------------------------------------------------- losses


def test_a_call_that_is_neither_in_the_inbox_nor_taken_is_missing(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wetlands_executor.pool.outbox.unread", lambda _fd: 0)
    monkeypatch.setattr("wetlands_executor.pool.losses.unread", lambda _fd: 0)
    page = SharedPage()
    page.words = [0] * 1024
    process = crew.process(page=page)
    call = crew.call(process)
    page.words[wire.BULK_READ] = process.outbox.in_pipes().records
    record = LossRecord()
    losses, times = record.look(process)
    assert losses is not None
    assert (losses.frames, losses.records, losses.answers, times) == (1, 0, 0, 0)
    assert record.look(process)[1] == 1
    page.words[wire.TAKEN] = call.number
    assert record.look(process) == (None, 0)


def test_an_answer_that_does_not_arrive_is_missing(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wetlands_executor.pool.outbox.unread", lambda _fd: 0)
    monkeypatch.setattr("wetlands_executor.pool.losses.unread", lambda _fd: 40)
    page = SharedPage()
    page.words = [0] * 1024
    process = crew.process(page=page)
    page.words[wire.SENT] = 100
    losses, _ = LossRecord().look(process)
    assert losses is not None
    assert losses.answers == 60


def test_a_worker_is_harmed_once(crew: Crew) -> None:
    process, record = crew.process(), LossRecord()
    assert (record.harmed, record.look(process)) == (False, (None, 0))
    assert [record.note_harm(), record.note_harm(), record.harmed] == [True, False, True]


# ----------------------------------------------------------------------- what workers need not keep


class Told:
    """An outbox that records what is to be forgotten."""

    def __init__(self) -> None:
        self.forgotten: list[Any] = []

    def forget(self, definition: Any) -> None:
        self.forgotten.append(definition)

    def forget_objects(self, numbers: list[int]) -> None:
        self.forgotten.append(numbers)


def test_workers_are_told_what_they_need_not_keep(crew: Crew) -> None:
    old, new = crew.process(), crew.process(ready=False)
    outboxes = Told(), Told()
    for process, outbox in zip((old, new), outboxes, strict=True):
        any_outbox: Any = outbox
        process.outbox = any_outbox
    definition: Any = object()
    record: Any = SimpleNamespace(
        dirty=True, take_dropped=lambda: [3, 4], retired=deque([definition])
    )
    part = Forgetting(crew.loop, crew.workers)
    part.tidy(record)
    assert [outbox.forgotten for outbox in outboxes] == [[], []]
    crew.loop.turn()
    assert outboxes[0].forgotten == [[3, 4], definition]
    assert outboxes[1].forgotten == [definition]  # it has been told of no object yet
    record.dirty = False
    part.tidy(record)
    assert not crew.loop.posted


# -------------------------------------------------------------------------------- what is under way


def under_way(crew: Crew, *queues: Any) -> tuple[UnderWay, list[str]]:
    said: list[str] = []
    state: Any = SimpleNamespace(waiting=SimpleNamespace(queues=dict(enumerate(queues))))
    direct: Any = SimpleNamespace(sync=lambda: said.append("sync"))

    def wait(timeout: float | None) -> bool:
        said.append("wait")
        return timeout is None

    stats: Any = SimpleNamespace(wait=wait)
    return UnderWay(loop=crew.loop, state=state, direct_calls=direct, stats=stats), said


def test_what_waits_is_queued_or_posted(crew: Crew) -> None:
    queued, elsewhere, posted = crew.call(), crew.call(), crew.call()
    queued.place = st.WAITING
    part, _ = under_way(crew, deque([queued, elsewhere]))
    crew.loop.posted.extend([posted, print])
    assert part.waiting() == [queued, posted]


def test_a_queue_that_changes_is_looked_at_again(crew: Crew) -> None:
    queued = crew.call()
    queued.place = st.WAITING

    class Changing(deque[Any]):
        tries = 0

        def __iter__(self) -> Any:
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("deque mutated during iteration")
            return super().__iter__()

    part, _ = under_way(crew, Changing([queued]))
    assert part.waiting() == [queued]


def test_waiting_for_all_counts_first(crew: Crew) -> None:
    part, said = under_way(crew)
    post = crew.loop.post
    crew.loop.post = lambda job: (post(job), crew.loop.turn())
    assert part.wait_all(None)
    assert said == ["sync", "wait"]
    said.clear()
    assert not part.wait_all(0.0)
    crew.loop.ended = True
    assert part.wait_all(None)
    assert said == ["sync", "wait", "wait"]
