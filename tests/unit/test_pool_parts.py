"""The parts of a pool, each by itself: with a feed that records and a loop that the test turns.

No process, no thread.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import pytest

from tests.support.cases import cases
from tests.unit.parts import Crew, Receiver, SharedPage
from wetlands_executor.errors import (
    TaskTimeoutError,
    WorkerCrashed,
    WorkerStartError,
    WorkerUnresponsive,
)
from wetlands_executor.pool.announcing import Announcing
from wetlands_executor.pool.blame import Blame, concerned
from wetlands_executor.pool.call import CALL_MOVES, FAILED, CallPhase, Kill, Outcome
from wetlands_executor.pool.cancelling import Cancelling
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.readiness import Readiness
from wetlands_executor.pool.result_stream import Garbage
from wetlands_executor.pool.run_limit import RunLimit
from wetlands_executor.pool.shell import Shell
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.trimmer import Trimmer
from wetlands_executor.pool.worker_process import WORKER_MOVES, WorkerPhase
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.phases import IllegalMove
from wetlands_executor.scheduling.state import PoolState
from wetlands_executor.serialize.restricted import BadFrame
from wetlands_executor.sharedmem import arena
from wetlands_executor.worker import wire


@pytest.fixture
def crew() -> Crew:
    return Crew()


# ------------------------------------------------------------------------------------------- phases


@cases("old", WorkerPhase)
@cases("new", WorkerPhase)
def test_a_worker_moves_by_its_table_or_not_at_all(
    crew: Crew, old: WorkerPhase, new: WorkerPhase
) -> None:
    process = crew.process(ready=False)
    process.phase = old
    if new in WORKER_MOVES[old]:
        process.move(new)
        assert process.phase is new
    else:
        with pytest.raises(IllegalMove):
            process.move(new)
        assert process.phase is old


@cases("old", CallPhase)
@cases("new", CallPhase)
def test_a_call_moves_by_its_table_or_not_at_all(
    crew: Crew, old: CallPhase, new: CallPhase
) -> None:
    call = crew.call()
    call.phase = old
    if new in CALL_MOVES[old]:
        call.move(new)
        assert call.phase is new
    else:
        with pytest.raises(IllegalMove):
            call.move(new)
        assert call.phase is old


def test_what_a_worker_says_after_its_end_counts(crew: Crew) -> None:
    """Its last frames are read when its exit has been seen: it was ready."""
    process = crew.process(ready=False)
    process.note_exit()
    assert (process.ready, process.exited) == (False, True)
    process.greet({"magic": "", "version": "3", "prefix": "/", "pid": 1}, True)
    process.become_ready()
    assert (process.ready, process.exited, process.foreign) == (True, True, True)


def test_a_worker_that_is_given_up_while_it_starts_stops_when_it_is_ready(crew: Crew) -> None:
    process = crew.process(ready=False)
    process.begin_stop()
    assert (process.stopping, process.ready) == (True, False)
    process.become_ready()
    assert (process.stopping, process.ready) == (True, True)


def test_a_call_is_given_once(crew: Crew) -> None:
    process = crew.process()
    call = crew.call(process)
    assert call.phase is CallPhase.GIVEN
    with pytest.raises(IllegalMove):
        process.give([call])


# ---------------------------------------------------------------------------------- workers, timers


def test_workers_know_who_holds_a_call(crew: Crew) -> None:
    process = crew.process()
    call = crew.call(process)
    assert crew.workers.holder(call) is process
    del process.calls[call.number]
    assert crew.workers.holder(call) is None
    crew.workers.remove(process)
    assert not crew.workers.has(process)


def test_workers_that_are_not_wanted_any_more(crew: Crew) -> None:
    workers = crew.workers
    workers.begin(1, 0)
    workers.begin(2, 1)
    assert workers.give_up(1) is False
    assert workers.give_up(2) is True
    assert (workers.is_wanted(1), workers.is_wanted(3)) == (False, True)
    assert (workers.take_unwanted(1), workers.take_unwanted(1)) == (True, False)


def test_timers_end_with_their_call_or_worker(crew: Crew) -> None:
    process = crew.process()
    first, second = crew.call(process), crew.call(process)
    fired: list[str] = []
    crew.timers.set(first, 1, partial(fired.append, "first"))
    crew.timers.set(second, 1, partial(fired.append, "second"))
    crew.timers.set_for(process, 1, partial(fired.append, "process"))
    crew.timers.stop(first)
    crew.timers.stop_for(process)
    assert list(crew.timers.timed) == [second]
    crew.loop.fire()
    assert fired == ["second"]


# ---------------------------------------------------------------------------------------- deadlines


class SomeTask:
    """What a Task lets its pool see of its limits."""

    _options = None
    _cancel_reason: str | None = None
    _cancel_asked = False
    name = "some task"

    def __init__(self) -> None:
        self.emitted: list[Any] = []

    def _emit(self, kind: Any) -> None:
        self.emitted.append(kind)


def deadlines(
    crew: Crew, read: Callable[[Any], None] = lambda _process: None, **limits: float | None
) -> Deadlines:
    given: dict[str, Any] = {
        "worker_timeout": None,
        "task_timeout": None,
        "cancel_grace": None,
        **limits,
    }
    return Deadlines(
        workers=crew.workers, timers=crew.timers, feed=crew.feed, read=read, label="here", **given
    )


def test_a_call_over_its_limit_is_killed_after_its_stacks(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    call = crew.call(process, SomeTask())
    page.words[wire.TAKEN] = call.number
    part = deadlines(crew, task_timeout=5.0)
    part.on_started(process, call)
    crew.loop.fire()
    assert callable(call.kill_reason)
    assert isinstance(call.kill_reason("stacks"), TaskTimeoutError)
    assert not call.plain
    crew.loop.fire()
    assert crew.feed.take() == [st.KillRequested(call, retry=True)]


def test_a_result_that_is_on_its_way_saves_the_call(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    call = crew.call(process, SomeTask())
    page.words[wire.TAKEN] = call.number
    part = deadlines(crew, lambda process: process.calls.clear(), task_timeout=5.0)
    part.on_started(process, call)
    crew.loop.fire()
    assert (call.kill_reason, crew.feed.take()) == (None, [])


def test_silence_is_measured_from_the_last_sign_of_life(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    page = SharedPage()
    process = crew.process(page=page)
    call = crew.call(process, SomeTask())
    page.words[wire.TAKEN] = call.number
    part = deadlines(crew, worker_timeout=10.0)
    part.watch_silence(process)
    part.watch_silence(process)
    now[0] += 8
    process.note_activity()
    now[0] += 2
    assert crew.loop.fire() == [10.0]
    assert call.kill_reason is None
    now[0] += 8
    assert crew.loop.fire() == [8.0]
    assert callable(call.kill_reason)
    assert isinstance(call.kill_reason(""), WorkerUnresponsive)


def test_a_cancellation_escalates_once(crew: Crew) -> None:
    process = crew.process()
    task = SomeTask()
    call = crew.call(process, task)
    part = deadlines(crew, cancel_grace=1.0)
    part.on_cancel_sent(call)
    part.on_cancel_sent(call)
    assert crew.loop.fire() == [1.0]
    assert call.interrupted
    assert process.process.done[-1][0] == "signal"
    crew.loop.fire()
    assert call.kill_reason is Kill.CANCELLED
    assert "its worker was ended" in str(call.cancel_reason)
    assert crew.feed.take() == [st.KillRequested(call)]


# -------------------------------------------------------------------------------------------- blame


def blame(crew: Crew, failed_with_reason: list[Any], logged: list[Any]) -> Blame:
    class Log:
        def put_foreign(self, job: Callable[[], object]) -> None:
            logged.append(job)

    log: Any = Log()
    return Blame(
        loop=crew.loop,
        workers=crew.workers,
        timers=crew.timers,
        output=log,
        label="here",
        feed=crew.feed,
        read=lambda _process: None,
        read_all=lambda _process: None,
        register=lambda _process: None,
        fail_with_reason=lambda process, call: failed_with_reason.append((process, call)),
        start_error=lambda reason, _tail, _cause: WorkerStartError(reason),
    )


def test_a_bad_frame_costs_the_call_that_runs(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    running, waiting = crew.call(process), crew.call(process)
    page.words[wire.TAKEN] = running.number
    part = blame(crew, [], [])
    part.fault(process, BadFrame("no such kind"))
    crew.loop.turn()
    assert crew.feed.take() == [
        st.RetireRequested(process.worker),
        st.KillRequested(running, retry=True),
    ]
    assert callable(running.kill_reason)
    assert isinstance(running.kill_reason(""), WorkerCrashed)
    assert waiting.kill_reason is None


def test_the_call_whose_outcome_comes_next_is_to_blame(crew: Crew) -> None:
    process = crew.process()
    call = crew.call(process)
    part = blame(crew, [], [])
    part.fault(process, BadFrame("no such kind"))
    assert part.judge(process, (wire.UPDATE, call.number, b"", 0)) is True
    assert part.judge(process, (wire.VALUE, call.number, b"", 0)) is False
    assert callable(call.kill_reason)
    assert process.suspicion is None
    crew.loop.turn()
    assert crew.feed.take() == [st.RetireRequested(process.worker)]


def test_an_outcome_that_was_lost_in_garbage_is_given_the_kill_reason(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    first, second = crew.call(process), crew.call(process)
    page.words[wire.TAKEN] = second.number
    failed_with_reason: list[Any] = []
    part = blame(crew, failed_with_reason, [])
    part.fault(process, Garbage("bytes"))
    assert part.judge(process, (wire.VALUE, second.number, b"", 0)) is False
    assert failed_with_reason == [(process, first)]
    assert crew.feed.take() == [st.ItemsFinished(process.worker, [first])]


def test_a_worker_that_is_not_ready_cannot_be_started(crew: Crew) -> None:
    process = crew.process(ready=False)
    blame(crew, [], []).fault(process, BadFrame("noise"))
    assert isinstance(process.reason, WorkerStartError)
    assert process.process.done == ["killed"]


def test_a_failure_of_ours_is_logged_and_contained(crew: Crew) -> None:
    process = crew.process()
    logged: list[Any] = []
    part = blame(crew, [], logged)
    part.contain(LookupError("a bug"), partial(print, process))
    assert process.suspicion is not None
    part.contain(LookupError("a bug"), print)
    assert len(logged) == 2


def test_whom_a_job_concerns(crew: Crew) -> None:
    process = crew.process()
    call = crew.call(process)
    assert concerned(partial(print, 1, process)) is process
    assert concerned(partial(partial(print, call), 2)) is process
    assert concerned(partial(print, partial(print, process))) is process
    assert concerned(process.kill) is process
    assert concerned(process.outbox.flush) is process
    assert concerned(print) is None


# --------------------------------------------------------------------------- cancelling, announcing


def cancelling(crew: Crew) -> Cancelling:
    return Cancelling(loop=crew.loop, feed=crew.feed, sync=lambda: None)


def with_call(crew: Crew) -> Any:
    task: Any = SomeTask()
    task._call = crew.call(None, task)
    task._seen_running = False
    return task


def test_a_cancellation_is_fed_and_answered(crew: Crew) -> None:
    part, task = cancelling(crew), with_call(crew)
    task._call.place = st.WAITING
    answers: list[bool] = []
    part._cancel(task._call, answers.append)
    part._cancel(task._call, answers.append)
    assert crew.feed.take() == [st.CancelRequested(task._call)] * 2
    part.answered(st.CancelAnswered(task._call, True))
    part.answered(st.CancelAnswered(task._call, False))
    assert answers == [True, True]


def test_a_kill_reaches_the_present_try(crew: Crew) -> None:
    part, task = cancelling(crew), with_call(crew)
    before = crew.call(None, task)
    task._call.place = st.WAITING
    part.kill(before)
    crew.loop.turn()
    assert task._call.kill_reason is Kill.CANCELLED
    assert before.kill_reason is None
    assert crew.feed.take() == [st.KillRequested(task._call)]


def test_those_who_wait_are_answered_when_the_pool_fails(crew: Crew) -> None:
    part, task = cancelling(crew), with_call(crew)
    task._call.place = st.WAITING
    answers: list[bool] = []
    part._cancel(task._call, answers.append)
    for reply in part.refuse_all():
        reply()
    assert answers == [False]
    assert part.refuse_all() == []


def test_a_call_that_a_worker_has_taken_begins_for_a_late_listener(crew: Crew) -> None:
    process = crew.process()
    task = with_call(crew)
    process.give([task._call])
    task._call.place = object()
    part = Announcing(
        loop=crew.loop, feed=crew.feed, can_reclaim=True, latest=lambda call: (call, True)
    )
    part.watch(task._call)
    crew.loop.turn()
    assert crew.feed.take() == []  # a worker without a shared page runs what it has
    assert task._seen_running


def test_a_call_that_waits_with_a_worker_is_reclaimed_for_a_late_listener(crew: Crew) -> None:
    process = crew.process(page=SharedPage())
    task = with_call(crew)
    process.give([task._call])
    task._call.plain = True
    part = Announcing(
        loop=crew.loop, feed=crew.feed, can_reclaim=True, latest=lambda call: (call, True)
    )
    part.watch(task._call)
    crew.loop.turn()
    assert crew.feed.take() == [st.ReclaimRequested(task._call)]
    assert task._call.watched & wire.WATCHED
    assert not task._call.plain
    crew.loop.fire()  # nothing was reclaimed: it is tried again
    assert crew.feed.take() == [st.ReclaimRequested(task._call)]


# -------------------------------------------------------------------------- readiness, closing, run


def test_those_who_launch_are_answered_once(crew: Crew) -> None:
    state = PoolState(1)
    part = Readiness(
        loop=crew.loop, workers=crew.workers, state=state, feed=crew.feed, label="here"
    )
    answers: list[Any] = []
    part.launch_then(answers.append)
    crew.loop.turn()
    assert crew.feed.take() == [st.LaunchRequested()]
    assert answers == []
    error = part.start_error("why", "its words")
    assert "its stderr:\nits words" in str(error)
    part.answer_launch(error)
    part.end()
    assert answers == [error]


def test_the_first_reason_counts() -> None:
    part = Closing(PoolState(1))
    assert (part.refusing, part.over) == (False, False)
    part.cancel_because("one")
    part.cancel_because("two")
    part.kill_because("three")
    assert (part.reason, part.kill_reason) == ("one", "three")
    error = ValueError("broken")
    part.break_with(error)
    assert (part.refusing, part.broken) == (True, error)
    assert not part.over, "the state decides that"


def test_a_pool_that_decides_nothing_is_over_when_a_reason_is_given() -> None:
    part = Closing()
    part.refuse()
    assert (part.refusing, part.over) == (True, False)
    part.cancel_because("one")
    assert part.over


def test_why_a_call_is_refused() -> None:
    part = Closing()
    part.refuse()
    with pytest.raises(RuntimeError, match="process that forked"):
        part.refuse_call(forked=True)
    with pytest.raises(RuntimeError, match="after shutdown"):
        part.refuse_call(forked=False)
    error = ValueError("the initializer")
    part.break_with(error)
    with pytest.raises(BrokenProcessPool, match="the initializer") as caught:
        part.refuse_call(forked=False)
    assert caught.value.__cause__ is error


def test_the_limit_of_a_run_ends_what_waits_and_what_runs(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    running, held, waiting = (
        crew.call(process, SomeTask()),
        crew.call(process, SomeTask()),
        crew.call(None, SomeTask()),
    )
    page.words[wire.TAKEN] = running.number
    waiting.place = st.WAITING
    part = RunLimit(
        loop=crew.loop,
        feed=crew.feed,
        workers=crew.workers,
        deadlines=deadlines(crew),
        sync=lambda: None,
        waiting=lambda: [waiting],
        dependents=set(),
    )
    part.set(3.0)
    crew.loop.turn()
    part.set(2.0)
    crew.loop.turn()
    assert crew.loop.fire() == [2.0]
    assert callable(running.kill_reason)
    assert [(kind, number) for kind, number, _ in crew.receiver.told] == [
        ("outcome", waiting.number),
        ("outcome", held.number),
    ]
    assert crew.feed.take() == [st.CancelRequested(waiting), st.CancelRequested(held)]


# --------------------------------------------------------------------------------- output, trimming


def test_an_outcome_waits_for_the_lines_of_its_call(crew: Crew) -> None:
    process = crew.process()
    call = crew.call(process, SomeTask())
    part = Output(crew.loop, crew.workers, "here", None)
    done: list[str] = []
    part.deliver(process, call, partial(done.append, "nothing was printed"))
    process.output.note()
    part.deliver(process, call, partial(done.append, "all was written"))
    assert len(done) == 2
    process.output.stdout.enqueue()
    part.deliver(process, call, partial(done.append, "behind a line"))
    part.thread.end()
    assert done[2:] == ["behind a line"]


def test_a_stream_of_the_program_that_waits_for_an_outcome_is_overtaken(crew: Crew) -> None:
    process = crew.process()
    task = SomeTask()
    call = crew.call(process, task)
    part = Output(crew.loop, crew.workers, "here", None)
    part._pass_outcomes(task)
    done: list[int] = []
    process.output.note()
    process.output.stdout.enqueue()
    part.deliver(process, call, partial(done.append, 1))
    assert done == [1]


def test_whose_output_it_is(crew: Crew) -> None:
    page = SharedPage()
    process = crew.process(page=page)
    first, second = crew.call(process), crew.call(process)
    page.words[wire.TAKEN] = second.number
    process.output.note()
    process.output.note_end(first.number)
    assert process.output.printed, "it may be of the second"
    process.output.note_end(second.number)
    assert not process.output.printed


def test_memory_is_given_back_some_time_after_the_last_buffer(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    process = crew.process()
    synced: list[int] = []
    part = Trimmer(crew.loop, crew.workers, partial(synced.append, 1))
    assert part.note_now() is False
    part.note(process.result_memory)
    assert part.note_now() is True
    assert crew.loop.fire() == [arena.IDLE]
    assert synced == [], "a buffer has travelled since"
    now[0] += arena.IDLE
    crew.loop.fire()
    assert synced == [1]


# ------------------------------------------------------------------------------------ direct, shell


def stats() -> TaskStats:
    callbacks: Any = None
    return TaskStats(callbacks)


def test_the_state_hears_of_what_was_sent_directly_first(crew: Crew) -> None:
    process = crew.process()
    call = crew.call(None, with_call(crew))
    call.task._counted = False
    process.outbox.queue_records(call)
    part = DirectCalls(
        loop=crew.loop, workers=crew.workers, stats=stats(), feed=crew.feed, contain=lambda *_: None
    )
    part.open([process])
    assert part.open_workers == (process,)
    process.direct_send.sent.append((call,))
    call.process, call.phase = process, CallPhase.DIRECT
    assert part.registered(process) == [st.SentDirectly(process.worker, call)]
    assert (call.phase, process.calls) == (CallPhase.GIVEN, {call.number: call})
    assert not process.direct_send.open


def test_the_shell_performs_by_its_table_and_feeds_the_answers(crew: Crew) -> None:
    state = PoolState(1)
    shell = Shell(state, crew.workers, stats(), Closing(state))
    performed: list[st.Action] = []

    def start(action: st.StartWorker) -> st.Event:
        performed.append(action)
        return st.WorkerReady(action.worker)

    direct = DirectCalls(
        loop=crew.loop,
        workers=crew.workers,
        stats=stats(),
        feed=shell.feed,
        contain=lambda *_: None,
    )
    part = blame(crew, [], [])
    table: dict[type, Any] = {st.StartWorker: start, st.Dispatch: performed.append}
    shell.connect(direct, part, lambda reason, _tail, _cause: WorkerStartError(reason), table)
    call = crew.call()
    call.place = None
    shell.take([call_without_task(call)])
    assert [type(action) for action in performed] == [st.StartWorker, st.Dispatch]
    assert shell.changed


def call_without_task(call: Any) -> Any:
    assert call.task is None
    return call


def test_an_action_that_fails_is_answered_for(crew: Crew) -> None:
    """No process can be started.

    What waits fails, and the state is asked for nothing that it does not know.
    """
    state = PoolState(1)
    shell = Shell(state, crew.workers, stats(), Closing(state))
    direct = DirectCalls(
        loop=crew.loop,
        workers=crew.workers,
        stats=stats(),
        feed=shell.feed,
        contain=lambda *_: None,
    )
    logged: list[Any] = []
    failed: list[Any] = []

    def start(_action: st.StartWorker) -> None:
        raise LookupError("a bug")

    table: dict[type, Any] = {st.StartWorker: start, st.StartFailed: failed.append}
    shell.connect(
        direct,
        blame(crew, [], logged),
        lambda reason, _tail, _cause: WorkerStartError(reason),
        table,
    )
    shell.take([crew.call()])
    assert len(logged) == 1
    assert isinstance(failed[0].report.error, WorkerStartError)


def test_a_call_that_comes_too_late_is_refused(crew: Crew) -> None:
    state = PoolState(1)
    shell = Shell(state, crew.workers, stats(), Closing(state))
    late = crew.call()
    shell.reject(late, None)
    (told,) = crew.receiver.told
    assert told[:2] == ("outcome", late.number)
    assert told[2].kind == FAILED
    assert isinstance(told[2].data, RuntimeError)


def test_an_outcome_of_a_failure_goes_to_the_receiver_alone() -> None:
    crew = Crew()
    receiver = Receiver()
    call = crew.call()
    call.receiver = receiver
    error = ValueError("x")
    call.fail(error)
    assert receiver.told == [("outcome", call.number, Outcome(FAILED, error))]
    assert pickle.loads(pickle.dumps(Outcome(wire.NONE))) == Outcome(wire.NONE, None, -1)
