"""What comes from workers, frame by frame: bytes go in, settled tasks and events come out.

No process: the poller hands out the bytes that the test has put into it, and the feed records.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.parts import NONCE, Crew, SharedPage
from wetlands_executor import Task
from wetlands_executor.pool import direct, inbound
from wetlands_executor.pool.call import FAILED, Call, CallPhase, Outcome
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.decoding import Decoding
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.inbound import Inbound, InboundParts
from wetlands_executor.pool.probing import Probe, Probes
from wetlands_executor.pool.result_stream import Garbage
from wetlands_executor.pool.settlement import Settlement
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.trimmer import Trimmer
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.encoded import EncodedCall
from wetlands_executor.serialize.restricted import BadFrame
from wetlands_executor.serialize.settings import current_settings
from wetlands_executor.worker import wire


class Said:
    """An output that writes nothing, and lets outcomes pass at once."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def read_before(self, _process: WorkerProcess, outcomes: bool) -> None:
        self.told.append(outcomes)

    def deliver(self, _process: WorkerProcess, _call: Call, job: Callable[[], object]) -> None:
        job()

    def on_log(self, _process: WorkerProcess, call: Call | None, fields: dict[str, Any]) -> None:
        self.told.append(("log", call, fields))

    def on_printed(self, _process: WorkerProcess, call: Call | None, data: bytes) -> None:
        self.told.append(("printed", call, data))


class Suspects:
    """Records what a worker is suspected of."""

    def __init__(self) -> None:
        self.faults: list[Exception] = []
        self.judged: list[int] = []

    def fault(self, _process: WorkerProcess, error: Exception) -> None:
        self.faults.append(error)

    def judge(self, _process: WorkerProcess, frame: Any) -> bool:
        self.judged.append(frame[1])
        return len(self.judged) < 2


class Arrivals:
    """The part, what it uses, and a worker that sends what the test says."""

    def __init__(self, page: SharedPage | None = None) -> None:
        self.crew = Crew()
        self.process = self.crew.process(page=page)
        self.output, self.suspects = Said(), Suspects()
        self.started: list[Call] = []
        self.starting: list[tuple[int, Any]] = []
        self.ended: list[WorkerProcess] = []
        self.stats = TaskStats(None)  # type: ignore[arg-type]
        self.probes = Probes(self.crew.workers)
        any_output: Any = self.output
        any_deadlines: Any = SimpleNamespace(
            worker_timeout=None, on_started=lambda _process, call: self.started.append(call)
        )
        self.nested: list[Any] = []
        any_nested: Any = SimpleNamespace(
            take=lambda _process, call, data: self.nested.append((call, data))
        )
        loop, workers = self.crew.loop, self.crew.workers
        self.direct = DirectCalls(
            loop=loop, workers=workers, stats=self.stats, feed=self.feed, contain=lambda *_: None
        )
        self.settlement = Settlement(
            loop=loop,
            feed=self.crew.feed,
            workers=workers,
            output=any_output,
            decoding=Decoding(loop),
            timers=self.crew.timers,
            closing=Closing(PoolState(1)),
            stats=self.stats,
            again=lambda call: call,
        )
        self.part = Inbound(
            InboundParts(
                loop=loop,
                workers=workers,
                stats=self.stats,
                output=any_output,
                settlement=self.settlement,
                deadlines=any_deadlines,
                timers=self.crew.timers,
                trimmer=Trimmer(loop, workers, list),
                probes=self.probes,
                direct_calls=self.direct,
                suspects=self.suspects,
                nested=any_nested,
                feed=self.crew.feed,
                starting=lambda _process, kind, data: self.starting.append((kind, data)),
                ended=self.ended.append,
            )
        )

    def feed(self, event: Any) -> None:
        """As the shell does: what was sent directly comes first."""
        self.crew.feed(event, self.direct.registered(self.process))

    def call(self, *, plain: bool = True, given: bool = True) -> Call:
        """Return a call with a task; the worker has it."""
        task: Task[Any] = Task()
        encoded = encode(abs, (-1,), {})
        call = Call(task._number, encoded, current_settings(), task, self.settlement, plain)
        task._call = call
        self.stats.submitted(task)
        if given:
            assert self.process.give([call]) == []
        return call

    def batch(self, count: int) -> Call:
        call = self.crew.call()
        made = EncodedCall(call.encoded.definition, wire.MANY, b"", None)
        call.encoded = made
        call.stand_for(Batch(count))
        assert self.process.give([call]) == []
        return call

    def receive(self, *data: bytes) -> None:
        """Let the worker's bytes come, one read after another."""
        fd = self.process.process.results
        self.crew.loop.poller.incoming[fd] = deque(data)
        for _ in data:
            self.part.read(self.process)


class Batch:
    """The calls of a batch."""

    name = "many"

    def __init__(self, count: int) -> None:
        self.count = count
        self.received = 0
        self.durations: list[tuple[int, int]] = []
        self.reports: list[Any] = []

    def advance(self, count: int = 1) -> int:
        self.received += count
        return self.received - count

    def note_duration(self, duration: int, count: int = 1) -> None:
        self.durations.append((duration, count))

    def report(self, *report: Any) -> None:
        self.reports.append(report)


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals()


def frame(
    number: int, data: bytes = b"", kind: int = wire.VALUE, *, nonce: int = NONCE, pid: int = 0
) -> bytes:
    """Return a result frame as the worker's channel writes it."""
    head = wire.RESULT.pack(len(data), nonce, pid or os.getpid(), kind, 5_000_000, number)
    return head + data


def value(call: Call, found: Any) -> bytes:
    return frame(call.number, pickle.dumps(found, 5))


def results(*calls: Call) -> list[Any]:
    return [call.task.result(0) for call in calls]


# ----------------------------------------------------------------------------------------- outcomes


def test_values_are_settled_then_fed_as_one_event(arrivals: Arrivals) -> None:
    calls = [arrivals.call() for _ in range(3)]
    seen: list[bool] = []
    feed = arrivals.crew.feed

    def look(event: Any, before: Any = ()) -> None:
        seen.extend(call.task.done() for call in calls)
        feed(event, before)

    arrivals.part._feed = look
    first, second, third = calls
    arrivals.receive(value(first, 1) + frame(second.number, kind=wire.NONE) + value(third, "x"))
    assert results(*calls) == [1, None, "x"]
    assert seen == [True] * 3, "a task has its outcome before the state hears of it"
    assert feed.take() == [st.ItemsFinished(arrivals.process.worker, calls)]
    assert {call.phase for call in calls} == {CallPhase.ENDED}
    assert (arrivals.process.calls, arrivals.process.finished) == ({}, 3)
    assert arrivals.process.proven
    assert (arrivals.stats.completed, arrivals.stats.active) == (3, 0)
    assert (first.task._duration, first.task._worker_pid) == (5.0, os.getpid())


def test_a_frame_may_come_in_pieces(arrivals: Arrivals) -> None:
    call = arrivals.call()
    data = value(call, 4)
    arrivals.receive(data[:20], data[20:-1])
    assert arrivals.crew.feed.take() == []
    arrivals.receive(data[-1:])
    assert results(call) == [4]
    assert arrivals.output.told == [True], "what was printed is read when an outcome has come"


def test_a_call_with_options_goes_the_general_way(arrivals: Arrivals) -> None:
    """Its receiver is called, behind the lines that it has printed."""
    call = arrivals.call(plain=False)
    arrivals.receive(value(call, 4))
    assert results(call) == [4]
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [call])]


def test_an_error_is_an_outcome(arrivals: Arrivals) -> None:
    call = arrivals.call()
    call.receiver = arrivals.crew.receiver
    arrivals.receive(frame(call.number, b"why", wire.ERROR))
    assert arrivals.crew.receiver.told == [("outcome", call.number, Outcome(wire.ERROR, b"why"))]
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [call])]


def test_an_interrupt_that_was_sent_is_a_cancellation(arrivals: Arrivals) -> None:
    call, other = arrivals.call(), arrivals.call()
    call.receiver = other.receiver = arrivals.crew.receiver
    call.interrupt("it was asked to stop")
    why = pickle.dumps(("KeyboardInterrupt", "", ""), 5)
    arrivals.receive(frame(call.number, why, wire.ERROR) + frame(other.number, why, wire.ERROR))
    kinds = [outcome.kind for _, _, outcome in arrivals.crew.receiver.told]
    assert kinds == [wire.CANCELLED, wire.ERROR], "the other one has raised it itself"


def test_a_kill_reason_stands_against_a_late_value(arrivals: Arrivals) -> None:
    call = arrivals.call()
    error = TimeoutError("too long")
    call.set_kill_reason(lambda _stacks: error)
    call.receiver = arrivals.crew.receiver
    arrivals.receive(value(call, 4))
    assert arrivals.crew.receiver.told == [("outcome", call.number, Outcome(FAILED, error))]
    assert arrivals.crew.loop.fire() == [inbound.STACKS_PRINTED]
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [call])]


def test_a_value_that_cannot_be_read_is_an_outcome_of_its_own_task(arrivals: Arrivals) -> None:
    """The short way meets the error first, and leaves it to the general one."""
    call, behind = arrivals.call(), arrivals.call()
    call.receiver = arrivals.crew.receiver
    data = b"\x80\x05\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x02\xff\xff."
    arrivals.receive(frame(call.number, data) + value(behind, 2))
    assert arrivals.crew.receiver.told == [("outcome", call.number, Outcome(wire.VALUE, data))]
    assert results(behind) == [2]


def test_what_was_sent_directly_is_fed_before_its_outcome(arrivals: Arrivals) -> None:
    call = arrivals.call(given=False)
    del call.task._counted
    call.process, call.phase = arrivals.process, CallPhase.DIRECT
    arrivals.process.direct_send.sent.append((call,))
    arrivals.receive(value(call, 3))
    assert results(call) == [3]
    worker = arrivals.process.worker
    assert arrivals.crew.feed.take() == [
        st.SentDirectly(worker, call),
        st.ItemsFinished(worker, [call]),
    ]


# ---------------------------------------------------------------------------------- malformed data


@pytest.mark.parametrize(
    "junk",
    [b"a line of text that a task has written", frame(7, b"x" * 40, nonce=NONCE + 1)],
    ids=["text", "another incarnation"],
)
def test_malformed_data_costs_no_frame_behind_it(arrivals: Arrivals, junk: bytes) -> None:
    first, second = arrivals.call(), arrivals.call()
    arrivals.receive(value(first, 1) + junk + value(second, 2))
    assert results(first, second) == [1, 2]
    assert [type(error) for error in arrivals.suspects.faults] == [Garbage]
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [first, second])]


def test_a_frame_of_another_incarnation_settles_nothing(arrivals: Arrivals) -> None:
    call = arrivals.call()
    arrivals.receive(frame(call.number, pickle.dumps(1), nonce=NONCE + 1))
    assert not call.task.done()
    assert arrivals.process.calls == {call.number: call}
    (error,) = arrivals.suspects.faults
    assert hex(NONCE + 1) in str(error)
    assert arrivals.crew.feed.take() == []


def test_a_child_that_a_task_has_forked_is_not_believed(arrivals: Arrivals) -> None:
    call = arrivals.call()
    arrivals.receive(frame(call.number, pickle.dumps(1), pid=os.getpid() + 1))
    assert not call.task.done()
    assert arrivals.suspects.faults == []


def test_an_outcome_that_is_not_due_is_malformed(arrivals: Arrivals) -> None:
    page = SharedPage()
    arrivals = Arrivals(page)
    first, second = arrivals.call(), arrivals.call()
    arrivals.receive(value(second, 2) + value(first, 1))
    assert results(first) == [1]
    assert not second.task.done()
    assert [type(error) for error in arrivals.suspects.faults] == [BadFrame]
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [first])]


@pytest.mark.parametrize(("kind", "number"), [(77, 0), (77, 1), (wire.HELLO, 0), (wire.READY, 0)])
def test_a_kind_that_no_worker_sends_now_is_malformed(
    arrivals: Arrivals, kind: int, number: int
) -> None:
    call = arrivals.call()
    arrivals.receive(frame(call.number * number, b"", kind) + value(call, 1))
    assert [type(error) for error in arrivals.suspects.faults] == [BadFrame]
    assert results(call) == [1]


def test_an_outcome_of_no_call_is_dropped(arrivals: Arrivals) -> None:
    """It may have been sent on the page as well, or its call was given up."""
    call = arrivals.call()
    arrivals.receive(frame(call.number + 1000, pickle.dumps(1)) + value(call, 2))
    assert results(call) == [2]
    assert arrivals.suspects.faults == []


def test_a_suspect_is_judged_until_that_is_decided(arrivals: Arrivals) -> None:
    calls = [arrivals.call() for _ in range(3)]
    arrivals.process.suspect(object())
    arrivals.receive(b"".join(value(call, 1) for call in calls))
    assert arrivals.suspects.judged == [calls[0].number, calls[1].number]
    assert results(*calls) == [1, 1, 1]


# ------------------------------------------------------------------------------------------ batches


def several(call: Call, place: int, *found: Any) -> bytes:
    parts = [b"" if each is None else pickle.dumps(each, 5) for each in found]
    lengths = b"".join(len(part).to_bytes(4, "little") for part in parts)
    data = len(parts).to_bytes(4, "little") + lengths + b"".join(parts)
    return frame(call.number | place + 1 << wire.NUMBER_BITS, data, wire.SEVERAL)


def test_outcomes_of_a_batch_come_one_by_one_or_together(arrivals: Arrivals) -> None:
    call = arrivals.batch(4)
    batch: Any = call.batch
    arrivals.receive(several(call, 0, 1, None))
    assert arrivals.crew.feed.take() == []
    assert arrivals.process.finished == 2
    number = call.number | 3 << wire.NUMBER_BITS
    arrivals.receive(frame(number, b"why", wire.ERROR) + several(call, 3, 4))
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [call])]
    outcomes = [outcome for _, _, outcome in arrivals.crew.receiver.told]
    assert [(outcome.kind, outcome.place) for outcome in outcomes] == [
        (wire.SEVERAL, 0),
        (wire.ERROR, 2),
        (wire.SEVERAL, 3),
    ]
    assert batch.durations == [(5_000_000, 2), (5_000_000, 1), (5_000_000, 1)]
    assert (arrivals.process.finished, call.phase) == (4, CallPhase.ENDED)


@pytest.mark.parametrize(("place", "count"), [(1, 1), (0, 3), (0, 0)])
def test_outcomes_that_a_batch_does_not_expect_are_malformed(
    arrivals: Arrivals, place: int, count: int
) -> None:
    call = arrivals.batch(2)
    arrivals.receive(several(call, place, *range(count)))
    assert [type(error) for error in arrivals.suspects.faults] == [BadFrame]
    assert (arrivals.crew.receiver.told, arrivals.crew.feed.take()) == ([], [])
    arrivals.receive(several(call, 0, 1, 2))
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [call])]


def test_one_outcome_of_several_calls_is_malformed(arrivals: Arrivals) -> None:
    call = arrivals.batch(2)
    arrivals.receive(frame(call.number, b"x"))
    assert [type(error) for error in arrivals.suspects.faults] == [BadFrame]
    assert arrivals.process.calls == {call.number: call}
    arrivals.receive(frame(call.number, b"", wire.CANCELLED))
    assert arrivals.crew.receiver.told == [("cancelled", call.number, None)]
    assert arrivals.crew.feed.take() == [st.ItemsFinished(arrivals.process.worker, [call])]


# ------------------------------------------------------------------------ reports of a running call


def report(number: int, message: str) -> bytes:
    return pickle.dumps((number, message, 1, 4), 5)


def test_a_call_that_begins_starts_its_limit(arrivals: Arrivals) -> None:
    call = arrivals.call(plain=False)
    arrivals.receive(frame(call.number, b"", wire.STARTED))
    assert arrivals.started == [call]
    assert arrivals.output.told == [False], "no outcome has come"


def test_progress_is_in_the_frame_or_on_the_page() -> None:
    page: Any = SharedPage()
    arrivals = Arrivals(page)
    call = arrivals.call(plain=False)
    arrivals.receive(frame(call.number, report(call.number, "one"), wire.UPDATE))
    assert (call.task.message, call.task.current, call.task.maximum) == ("one", 1, 4)
    page.read = lambda: report(call.number, "two")
    arrivals.receive(frame(call.number, b"", wire.UPDATE))
    assert call.task.message == "two"
    page.read = lambda: report(call.number + 1, "of another call")
    arrivals.receive(frame(call.number, b"", wire.UPDATE))
    assert call.task.message == "two"


def test_progress_of_a_batch_goes_to_it(arrivals: Arrivals) -> None:
    call = arrivals.batch(3)
    batch: Any = call.batch
    arrivals.receive(
        frame(call.number, report(call.number | 2 << wire.NUMBER_BITS, "x"), wire.UPDATE)
    )
    assert batch.reports == [(2, "x", 1, 4)]


def test_a_report_that_is_none_is_malformed(arrivals: Arrivals) -> None:
    call = arrivals.call(plain=False)
    arrivals.receive(frame(call.number, pickle.dumps("no report"), wire.UPDATE))
    assert len(arrivals.suspects.faults) == 1
    assert isinstance(arrivals.suspects.faults[0], BadFrame)


def test_a_named_output_is_added(arrivals: Arrivals) -> None:
    call = arrivals.call(plain=False)
    arrivals.receive(frame(call.number, pickle.dumps({"area": 3}, 5), wire.OUTPUT))
    assert dict(call.task.outputs) == {"area": 3}


def test_what_a_function_submits_is_of_the_call_that_runs_it(arrivals: Arrivals) -> None:
    call = arrivals.call(plain=False)
    arrivals.receive(frame(call.number, b"a call", wire.NESTED))
    arrivals.receive(frame(call.number + 1000, b"of none", wire.NESTED))
    assert arrivals.nested == [(call, b"a call")]


@pytest.mark.parametrize("of_a_call", [False, True])
def test_lines_and_records_are_of_a_call_or_of_none(arrivals: Arrivals, of_a_call: bool) -> None:
    call = arrivals.call(plain=False)
    number = call.number if of_a_call else 0
    arrivals.receive(frame(number, b"\x01a line\n", wire.PRINTED))
    assert arrivals.output.told[-1] == ("printed", call if of_a_call else None, b"\x01a line\n")


# --------------------------------------------------------------------------- messages of a worker


def test_what_a_worker_says_before_it_is_ready(arrivals: Arrivals) -> None:
    process = arrivals.process = arrivals.crew.process(ready=False)
    arrivals.receive(frame(0, b"me", wire.HELLO))
    assert arrivals.starting == [(wire.HELLO, b"me")]
    process.greet({"magic": "", "version": "3", "prefix": "/p", "pid": 1}, False)
    arrivals.receive(frame(0, b"again", wire.HELLO) + frame(0, b"", wire.READY))
    assert arrivals.starting == [(wire.HELLO, b"me"), (wire.READY, b"")]
    assert [type(error) for error in arrivals.suspects.faults] == [BadFrame]


def test_a_worker_that_is_asked_for_a_sign_gives_it(arrivals: Arrivals) -> None:
    probe = Probe()
    arrivals.probes.begin(probe)
    assert not probe.complete
    arrivals.receive(frame(0, b"", wire.PONG))
    assert probe.complete
    assert probe.wait(0)


def test_the_end_of_the_pipe_is_told_once(arrivals: Arrivals) -> None:
    call = arrivals.call()
    arrivals.receive(value(call, 1), b"")
    assert results(call) == [1]
    assert (arrivals.ended, arrivals.process.results.ended) == ([arrivals.process], True)


def test_nothing_is_read_of_a_process_that_is_gone(arrivals: Arrivals) -> None:
    call = arrivals.call()
    arrivals.process.discard()
    arrivals.receive(value(call, 1))
    assert (call.task.done(), arrivals.crew.feed.take(), arrivals.ended) == (False, [], [])


# ------------------------------------------------------------------- frames that come too early


def test_an_outcome_waits_until_its_call_is_registered(
    arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Race: the worker answers before the thread that sends has recorded what it has sent."""
    monkeypatch.setattr(direct, "INSIDE", 0.0)
    out = arrivals.process.direct_send
    call, other = arrivals.call(given=False), arrivals.call()
    next(out._take_key)  # the thread has written, and is still inside its step
    arrivals.receive(frame(call.number, report(call.number, "half"), wire.UPDATE) + value(call, 3))
    assert arrivals.crew.feed.take() == [], "neither is lost, nor of no call"
    arrivals.receive(value(other, 1))
    assert results(other) == [1]
    arrivals.crew.feed.take()
    call.process, call.phase = arrivals.process, CallPhase.DIRECT
    out.sent.append((call,))
    next(out._give_key)
    assert arrivals.crew.loop.fire() == [inbound.TAKE_AGAIN]
    assert results(call) == [3]
    assert call.task.message == "half"
    worker = arrivals.process.worker
    assert arrivals.crew.feed.take() == [
        st.SentDirectly(worker, call),
        None,
        st.ItemsFinished(worker, [call]),
    ]


def test_a_thread_that_has_recorded_by_now_makes_no_frame_wait(arrivals: Arrivals) -> None:
    """Race: it records between the look for new calls and the look at the frame."""
    call = arrivals.call(given=False)
    call.process, call.phase = arrivals.process, CallPhase.DIRECT
    out = arrivals.process.direct_send
    wait = out.wait_for_sender

    def recorded() -> bool:
        out.sent.append((call,))
        return wait()

    out.wait_for_sender = recorded  # type: ignore[method-assign]
    arrivals.receive(value(call, 3))
    assert results(call) == [3]
    assert arrivals.crew.loop.fire() == []


def test_frames_of_a_process_that_has_gone_meanwhile_are_dropped(
    arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "INSIDE", 0.0)
    call = arrivals.call(given=False)
    next(arrivals.process.direct_send._take_key)
    arrivals.receive(value(call, 3))
    arrivals.crew.workers.remove(arrivals.process)
    assert arrivals.crew.loop.fire() == [inbound.TAKE_AGAIN]
    assert arrivals.crew.feed.take() == []
