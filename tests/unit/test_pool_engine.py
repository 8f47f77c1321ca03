"""The loop, the settlement, the actions and the reaper of a pool, each by itself. No process."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.parts import Crew, SharedPage
from wetlands_executor import Task
from wetlands_executor.errors import WorkerCrashed, WorkerStartError
from wetlands_executor.pool import polling
from wetlands_executor.pool.announcing import Announcing
from wetlands_executor.pool.call import FAILED, CallPhase, Kill, Outcome
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.decoding import Decoding
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.nested import Nested
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.readiness import Readiness
from wetlands_executor.pool.reaper import Reaper
from wetlands_executor.pool.settlement import Settlement
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.worker_actions import WorkerActions
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState
from wetlands_executor.serialize.encoded import EncodedCall
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.worker import wire

DEADLINE = 10.0


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    for output in crew.outputs:
        output.thread.end()


# ----------------------------------------------------------------------------------------- the loop


class Client:
    """Records what the loop asks of it, and ends it when the job ``close`` was run."""

    changed = False
    closed = False

    def __init__(self, loop: IOLoop) -> None:
        self.loop = loop
        self.told: list[Any] = []
        self.failing: Exception | None = None
        self.ended = threading.Event()

    def begin(self, _poller: Any) -> None:
        self.told.append("begin")

    def publish(self) -> None:
        self.changed = False
        self.told.append("publish")

    def gone(self) -> bool:
        return True

    def take(self, items: list[Any]) -> None:
        if self.failing is not None:
            raise self.failing
        self.told.append(items)

    def reject(self, item: Any, error: BaseException | None) -> None:
        self.told.append(("late", item, error))

    def contain(self, error: Exception, _doing: Any) -> None:
        self.told.append(repr(error))

    def fail(self, error: BaseException) -> None:
        self.told.append(("failed", error))

    def end(self) -> None:
        self.loop.stop_timers()
        self.loop.finish()
        self.loop.reject_late()
        self.loop.close()
        self.ended.set()

    def end_unused(self) -> bool:
        return self.loop.close_unused(False)

    def close(self) -> None:
        self.closed = True


def looped() -> tuple[IOLoop, Client]:
    loop = IOLoop()
    client = Client(loop)
    loop.serve(client, client)
    return loop, client


def finish(loop: IOLoop, client: Client) -> list[Any]:
    loop.post(client.close)
    assert client.ended.wait(DEADLINE)
    thread = loop.thread
    assert thread is not None
    thread.join(DEADLINE)
    return client.told


def test_items_are_taken_in_runs_and_jobs_in_between() -> None:
    loop, client = looped()
    loop.posted.extend([1, 2, lambda: client.told.append("job"), 3])
    loop.post(lambda: client.told.append("last"))
    assert finish(loop, client) == ["begin", [1, 2], "job", [3], "last"]


def test_what_a_job_or_a_timer_raises_is_contained() -> None:
    loop, client = looped()
    fired = threading.Event()
    loop.post(lambda: 1 / 0)
    loop.later(0.0, lambda: {}["no such key"])
    loop.later(0.001, fired.set)
    assert fired.wait(DEADLINE)
    assert finish(loop, client) == [
        "begin",
        "ZeroDivisionError('division by zero')",
        "KeyError('no such key')",
    ]


@pytest.mark.parametrize("posted", ["job", "item"])
def test_what_was_posted_comes_before_news_of_the_same_wake_up(
    posted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread asks for the end, then kills a worker; the I/O thread learns of both at once."""

    class BothAtOnce:
        sleeping = False
        turns = 0

        def wait(self, _timeout: float | None, _posted: Any) -> list[Any]:
            self.turns += 1
            if self.turns == 1:
                loop.posted.append(
                    "item" if posted == "item" else lambda: client.told.append("job")
                )
                return [lambda: client.told.append("exit")]
            client.close()
            return []

        def wake(self) -> None: ...

        def close(self) -> None: ...

    loop, client = looped()
    monkeypatch.setattr(polling, "new_poller", BothAtOnce)
    loop.post(lambda: client.told.append("first"))
    assert client.ended.wait(DEADLINE)
    assert loop.thread is not None
    loop.thread.join(DEADLINE)
    assert client.told == ["begin", "first", *(["job"] if posted == "job" else [["item"]]), "exit"]


def test_a_client_that_fails_ends_the_loop_and_no_job_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, client = looped()
    client.failing = error = LookupError("the state")
    run = threading.Event()
    loop.posted.extend([1, run.set])
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        loop.post(lambda: None)
        assert client.ended.wait(DEADLINE)
    assert run.is_set()
    assert ("failed", error) in client.told


def test_what_comes_after_the_end_runs_in_its_caller() -> None:
    loop, client = looped()
    loop.post(lambda: None)
    finish(loop, client)
    loop.post(lambda: client.told.append(threading.current_thread()))
    loop.put("item")
    assert client.told[-2:] == [threading.current_thread(), ("late", "item", None)]


def test_a_loop_that_was_never_used_starts_no_thread() -> None:
    loop, client = looped()
    assert loop.close_unused(True) is False
    assert loop.close_unused(False) is True
    assert (loop.ended, loop.started, loop.thread) == (True, True, None)
    loop.put("item")
    assert client.told == [("late", "item", None)]


# --------------------------------------------------------------------------------------- settlement


def settlement(crew: Crew) -> Settlement:
    output = Output(crew.loop, crew.workers, "here", None)
    crew.outputs.append(output)
    return Settlement(
        loop=crew.loop,
        feed=crew.feed,
        workers=crew.workers,
        output=output,
        decoding=Decoding(crew.loop),
        timers=crew.timers,
        closing=Closing(PoolState(1)),
        stats=TaskStats(None),  # type: ignore[arg-type]
        again=lambda call: call,
    )


def given(crew: Crew) -> tuple[Settlement, Any, Task[Any]]:
    part = settlement(crew)
    task: Task[Any] = Task()
    call = crew.call(crew.process(), task)
    call.receiver = part
    return part, call, task


OUTCOMES = [
    (Outcome(wire.NONE), None),
    (Outcome(wire.VALUE, pickle.dumps([1, "two"], 5)), [1, "two"]),
    (Outcome(FAILED, KeyError("x")), KeyError),
]


@pytest.mark.parametrize(("outcome", "expected"), OUTCOMES)
def test_an_outcome_settles_its_task(crew: Crew, outcome: Outcome, expected: Any) -> None:
    part, call, task = given(crew)
    part.on_outcome(call, outcome)
    if isinstance(expected, type):
        assert isinstance(task.exception(0), expected)
    else:
        assert task.result(0) == expected


def test_a_cancellation_has_the_reason_of_the_escalation(crew: Crew) -> None:
    part, call, task = given(crew)
    call.interrupt("it was interrupted")
    part.on_cancelled(call, "the end of the pool")
    assert task.cancelled()
    assert task.error == "it was interrupted"


def test_a_death_costs_the_call_that_ran(crew: Crew) -> None:
    part, call, task = given(crew)
    error = WorkerCrashed("gone")
    assert part.lost(st.Lost(call, 1, st.DeathReport(error))) is None
    assert isinstance(task.exception(0), WorkerCrashed)
    assert call.phase is CallPhase.ENDED


def test_a_death_that_was_asked_for_cancels(crew: Crew) -> None:
    part, call, task = given(crew)
    call.set_kill_reason(Kill.CANCELLED, "killed")
    part.lost(st.Lost(call, 1, st.DeathReport(WorkerCrashed("gone"))))
    assert task.cancelled()
    assert task.error == "killed"


def test_a_kill_reason_makes_its_error_of_the_stacks(crew: Crew) -> None:
    part, call, task = given(crew)
    call.set_kill_reason(lambda stacks: TimeoutError(f"too long, {len(stacks)}"))
    part.lost(st.Lost(call, 1, st.DeathReport(WorkerCrashed("gone"), "stacks of it")))
    error = task.exception(0)
    assert isinstance(error, TimeoutError)
    assert "stacks of it" in str(error)


def test_each_task_that_waited_for_a_start_has_an_error_of_its_own(crew: Crew) -> None:
    part, first, one = given(crew)
    _, second, two = given(crew)
    error = WorkerStartError("no")
    error.__cause__ = cause = OSError("why")
    second.receiver = part
    assert part.failed(st.StartFailed([first, second], 1, st.DeathReport(error))) is error
    assert one.exception(0) is not two.exception(0)
    assert [task.exception(0).__cause__ for task in (one, two)] == [cause, cause]  # type: ignore[union-attr]


def test_the_rest_of_a_batch_goes_back_to_the_front(crew: Crew) -> None:
    part = settlement(crew)

    class Batch:
        name, count, received = "f", 3, 1

        def advance(self, count: int = 1) -> int:
            self.received += count
            return self.received - 1

        def note_duration(self, _duration: int, _count: int = 1) -> None:
            pass

    rest = st.Item()
    page = SharedPage()
    process = crew.process(page=page)
    call = crew.call(process)
    call.batch = Batch()
    crew.receiver.on_lost = lambda _call, _report: rest  # type: ignore[assignment, method-assign]
    error = WorkerCrashed("gone")
    assert part.lost(st.Lost(call, 1, st.DeathReport(error))) == st.Submitted([rest], front=True)
    crew.loop.turn()
    assert crew.feed.take() == [st.Released()]
    assert crew.receiver.told == [("outcome", call.number, Outcome(FAILED, error, 1))]


# --------------------------------------------------------------------- worker actions, reaper


def nested_of(crew: Any) -> Nested:
    return Nested(
        loop=crew.loop,
        workers=crew.workers,
        feed=crew.feed,
        decoding=None,  # type: ignore[arg-type]
        pool=0,
    )


def worker_actions(crew: Crew, state: PoolState) -> WorkerActions:
    stats = TaskStats(None)  # type: ignore[arg-type]
    direct = DirectCalls(
        loop=crew.loop, workers=crew.workers, stats=stats, feed=crew.feed, contain=lambda *_: None
    )
    none: dict[str, Any] = {"worker_timeout": None, "task_timeout": None, "cancel_grace": None}
    return WorkerActions(
        loop=crew.loop,
        workers=crew.workers,
        state=state,
        feed=crew.feed,
        direct_calls=direct,
        deadlines=Deadlines(
            workers=crew.workers,
            timers=crew.timers,
            feed=crew.feed,
            read=print,
            label="here",
            **none,
        ),
        announcing=Announcing(
            loop=crew.loop, feed=crew.feed, can_reclaim=True, latest=lambda call: (call, True)
        ),
        starter=None,  # type: ignore[arg-type]
        remote=RemoteInterpreter(),
        nested=nested_of(crew),
        label="here",
    )


def test_a_dispatch_writes_frames(crew: Crew) -> None:
    process = crew.process()
    first, second = crew.call(), crew.call()
    assert (
        worker_actions(crew, PoolState(1)).dispatch(st.Dispatch(process.worker, [first, second]))
        is None
    )
    assert list(process.calls.values()) == [first, second]
    assert len(crew.loop.poller.written[process.process.inbox]) == 2 * wire.FRAME


def test_bytecode_is_not_sent_to_another_python(crew: Crew) -> None:
    process = crew.process()
    process.foreign = True
    call = crew.call()
    definition = call.encoded.definition
    call.encoded = EncodedCall(definition, wire.NO_REFERENCES, b"", None, bytecode=True)
    answer = worker_actions(crew, PoolState(1)).dispatch(st.Dispatch(process.worker, [call]))
    assert answer == st.ItemsFinished(process.worker, [call])
    assert isinstance(crew.receiver.told[0][2].data, pickle.PicklingError)


@pytest.mark.parametrize("running", [True, False])
def test_a_worker_is_killed_if_it_runs_the_call(crew: Crew, running: bool) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    call = crew.call(process)
    page.words[wire.TAKEN] = call.number if running else 0
    call.place = object()
    answer = worker_actions(crew, PoolState(1)).kill_if_running(
        st.KillIfRunning(process.worker, call)
    )
    assert answer == st.KillAnswered(process.worker, call, running)
    assert ("killed" in process.process.done) is running
    crew.loop.fire()
    assert crew.feed.take() == ([] if running else [st.KillRequested(call)])


def reaper(crew: Crew) -> Reaper:
    none: dict[str, Any] = {"worker_timeout": None, "task_timeout": None, "cancel_grace": None}
    state = PoolState(1)
    stats = TaskStats(None)  # type: ignore[arg-type]

    class Inbound:
        def read(self, process: Any) -> None:
            process.results.close()

    return Reaper(
        loop=crew.loop,
        workers=crew.workers,
        feed=crew.feed,
        closing=Closing(state),
        inbound=Inbound(),  # type: ignore[arg-type]
        output=Output(crew.loop, crew.workers, "here", None),
        direct_calls=DirectCalls(
            loop=crew.loop,
            workers=crew.workers,
            stats=stats,
            feed=crew.feed,
            contain=lambda *_: None,
        ),
        deadlines=Deadlines(
            workers=crew.workers,
            timers=crew.timers,
            feed=crew.feed,
            read=print,
            label="here",
            **none,
        ),
        blame=None,  # type: ignore[arg-type]
        readiness=Readiness(
            loop=crew.loop, workers=crew.workers, state=state, feed=crew.feed, label="here"
        ),
        nested=nested_of(crew),
        label="here",
    )


@pytest.mark.parametrize("ready", [True, False])
def test_an_exit_becomes_one_report(crew: Crew, ready: bool) -> None:
    process = crew.process(ready=ready)
    process.output.keep(b"its last words")
    part = reaper(crew)
    part.watch(process)
    crew.loop.poller.readers[process.process.exit]()
    (event,) = crew.feed.take()
    assert isinstance(event, st.WorkerExited)
    assert isinstance(event.report, st.DeathReport)
    assert type(event.report.error) is (WorkerCrashed if ready else WorkerStartError)
    assert "its last words" in str(event.report.error)
    assert not crew.workers.has(process)
    assert process.process.done == ["killed", "reaped", "closed"]
    part._on_exit(process)
    assert crew.feed.take() == []
