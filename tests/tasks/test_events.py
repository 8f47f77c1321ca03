"""Listeners: who is told what, in which order, once. A slow or broken listener harms no other."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.recorder import Latch, Recorder
from tests.support.rendezvous import DEADLINE, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, TaskEvent, TaskEventType, TaskStatus
from wetlands_executor.pool.direct import DirectSend
from wetlands_executor.pool.given_calls import GivenCalls

STARTED, UPDATE = TaskEventType.STARTED, TaskEventType.UPDATE
COMPLETION, FAILURE, CANCELATION = (
    TaskEventType.COMPLETION,
    TaskEventType.FAILURE,
    TaskEventType.CANCELATION,
)


def test_the_events_of_a_completed_task(single: CondaEnvExecutor) -> None:
    recorder = Recorder()
    task = single.submit(workload.add, 1)
    assert task.listen(recorder) is task
    event = recorder.wait_for_end()
    assert recorder.types[-1] is COMPLETION
    # the second one: it had finished before the listener was added
    assert recorder.types in ([STARTED, COMPLETION], [COMPLETION])
    assert event.task is task
    assert task.created_at - 0.05 <= event.timestamp <= time.time()


def test_the_events_of_a_failed_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    recorder = Recorder()
    task = single.submit(workload.arrive_and_raise, rendezvous.address, "in").listen(recorder)
    rendezvous.next().release()
    recorder.wait_for_end()
    assert recorder.types == [STARTED, FAILURE]
    assert task.status is TaskStatus.FAILED


def test_a_task_that_never_ran_has_no_started(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    rendezvous.next()
    recorder = Recorder()
    single.submit(workload.add, 1).listen(recorder).cancel()
    recorder.wait_for_end()
    assert recorder.types == [CANCELATION]


def test_started_comes_when_a_worker_took_it_not_before(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    single.submit(workload.arrive, rendezvous.address, "first")
    first = rendezvous.next()
    recorder = Recorder()
    task = single.submit(workload.arrive, rendezvous.address, "second").listen(recorder)
    single.submit(workload.add, 1)
    assert not task.running()
    assert recorder.types == []
    first.release()
    rendezvous.next()
    recorder.wait(STARTED)
    assert task.running()


@pytest.mark.parametrize(
    "inside", [False, True], ids=["direct_receive free", "thread inside the direct_receive"]
)
def test_started_comes_if_the_worker_took_it_at_that_moment(
    single: CondaEnvExecutor, rendezvous: Rendezvous, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    """It has read the frame, which does not ask it to tell, and the shared page does not say so
    yet.
    """
    refused = threading.Event()
    close = DirectSend.close

    def close_and_note(direct: DirectSend) -> bool:
        closed = close(direct)
        if not closed:
            refused.set()
        return closed

    monkeypatch.setattr(DirectSend, "close", close_and_note)
    monkeypatch.setattr(GivenCalls, "is_running", lambda _given, _call: False)
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    recorder = Recorder()
    assert single._pool is not None
    (process,) = single._pool.processes.values()
    if inside:
        key = process.direct_send._key.get()  # as a submitting thread within its write
        task.listen(recorder)
        assert refused.wait(DEADLINE)
        process.direct_send._key.put(key)
    else:
        task.listen(recorder)
    recorder.wait(STARTED)
    assert task.running(), "who hears that it has started finds it running"
    arrival.release()
    recorder.wait_for_end()
    assert recorder.types == [STARTED, COMPLETION]


def test_a_listener_that_comes_while_the_task_runs_gets_started_first(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    recorder = Recorder()
    task.listen(recorder)
    started = recorder.wait(STARTED)
    assert task.started_at is not None
    assert started.task is task
    arrival.release()
    recorder.wait_for_end()
    assert recorder.types == [STARTED, COMPLETION]


def test_updates_carry_their_own_snapshots(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    recorder = Recorder()
    task = single.submit(workload.report_twice, rendezvous.address).listen(recorder)
    arrival = rendezvous.next()
    first = recorder.wait(lambda event: event.outputs.get("a") == 1)
    assert (first.message, first.current, first.maximum, first.attempt) == ("first", 1, 4, 1)
    arrival.release()
    arrival = rendezvous.next()
    second = recorder.wait(lambda event: "b" in event.outputs)
    assert (second.message, second.current, second.maximum) == ("second", 2, 4), (
        "what is not given stays"
    )
    assert dict(second.outputs) == {"b": [2], "c": {"three": 3}}, "only the new ones"
    assert (first.message, dict(first.outputs).get("b")) == ("first", None), (
        "an event does not change any more"
    )
    assert task.outputs == {"a": 1, "b": [2], "c": {"three": 3}}
    assert not task.done()
    arrival.release()
    recorder.wait_for_end()
    assert recorder.types[0] is STARTED
    assert set(recorder.types[1:-1]) == {UPDATE}
    times = [event.timestamp for event in recorder.events]
    assert times == sorted(times)


def test_an_event_is_frozen(single: CondaEnvExecutor) -> None:
    recorder = Recorder()
    single.submit(workload.report, 1).listen(recorder)
    event = recorder.wait_for_end()
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.message = "changed"  # type: ignore[misc]
    with pytest.raises(TypeError):
        event.outputs["new"] = 1  # type: ignore[index]


def test_the_terminal_event_knows_the_last_report(single: CondaEnvExecutor) -> None:
    recorder = Recorder()
    single.submit(workload.report, 5).listen(recorder)
    event = recorder.wait_for_end()
    assert (event.message, event.current, event.maximum) == ("step 5", 5, 5)


# --------------------------------------------------------------------------------- late and leaving


@pytest.mark.parametrize("kind", [COMPLETION, FAILURE, CANCELATION])
def test_a_late_listener_gets_the_terminal_event_once(
    single: CondaEnvExecutor, rendezvous: Rendezvous, kind: TaskEventType
) -> None:
    if kind is CANCELATION:
        single.submit(workload.arrive, rendezvous.address, "first")
        rendezvous.next()
    task = single.submit(workload.fail if kind is FAILURE else workload.add, 1)
    if kind is CANCELATION:
        task.cancel()
    task.wait_for(DEADLINE)
    early, late = Recorder(), Recorder()
    task.listen(early)
    early.wait_for_end()
    task.listen(late)
    event = late.wait_for_end()
    _quiet(single, task)
    assert early.types == late.types == [kind]
    assert event.timestamp == pytest.approx(task.finished_at or 0, abs=0.001)


def _quiet(executor: CondaEnvExecutor, task: object) -> None:
    """Return when all callbacks that were under way have run: they run one after another."""
    last = threading.Event()
    done: concurrent.futures.Future[None] = executor.options(start=False).submit(workload.add, 1)
    done.add_done_callback(lambda _task: last.set())
    done.cancel()
    assert last.wait(DEADLINE)


def test_a_callback_that_exits_skips_none_behind_it(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    called: list[int] = []
    last = threading.Event()

    def leave(_task: object) -> None:
        called.append(1)
        raise SystemExit(3)

    task.add_done_callback(leave)
    task.add_done_callback(lambda _task: called.append(2))
    task.add_done_callback(lambda _task: last.set())
    rendezvous.next().release()
    assert last.wait(DEADLINE)
    assert called == [1, 2]


def test_listening_races_with_the_end_and_the_terminal_event_comes_once(
    single: CondaEnvExecutor,
) -> None:
    recorders = []
    for _ in range(300):
        task = single.submit(workload.add, 1)
        recorders.append([Recorder() for _ in range(3)])
        for recorder in recorders[-1]:
            task.listen(recorder)
    assert single.wait_all(DEADLINE)
    for recorder in itertools.chain(*recorders):
        recorder.wait_for_end()
    _quiet(single, None)
    for recorder in itertools.chain(*recorders):
        assert recorder.types in ([STARTED, COMPLETION], [COMPLETION])


def test_a_removed_listener_hears_nothing_more(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    gone, stays = Recorder(), Recorder()
    task = single.submit(workload.arrive, rendezvous.address, "in").listen(gone).listen(stays)
    arrival = rendezvous.next()
    stays.wait(STARTED)
    gone.wait(STARTED)
    task.remove_listener(gone)
    arrival.release()
    stays.wait_for_end()
    _quiet(single, task)
    assert gone.types == [STARTED]


def test_removing_an_unknown_listener_is_ignored(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.add, 1)
    task.remove_listener(print)
    single.remove_listener(print)
    assert task.result(DEADLINE) == 1


def test_bound_methods_can_be_removed(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    class Window:
        def __init__(self) -> None:
            self.types: list[TaskEventType] = []

        def on_event(self, event: TaskEvent) -> None:
            self.types.append(event.type)

    window, other = Window(), Recorder()
    task = single.submit(workload.arrive, rendezvous.address, "in").listen(window.on_event)
    task.remove_listener(window.on_event)  # another object, equal to the first
    task.listen(other)
    rendezvous.next().release()
    other.wait_for_end()
    _quiet(single, task)
    assert window.types == []


def test_a_listener_can_remove_itself(single: CondaEnvExecutor) -> None:
    seen: list[TaskEventType] = []
    ended = Recorder()

    def once(event: TaskEvent) -> None:
        seen.append(event.type)
        event.task.remove_listener(once)

    single.options(start=False).submit(workload.report, 10).listen(once).listen(ended).start()
    ended.wait_for_end()
    _quiet(single, None)
    assert seen[:1] == [STARTED]
    assert COMPLETION not in seen


@pytest.mark.parametrize("wrong", [None, 3, "name"])
def test_a_listener_has_to_be_callable(single: CondaEnvExecutor, wrong: object) -> None:
    task = single.submit(workload.add, 1)
    for owner in (task, single):
        with pytest.raises(TypeError):
            owner.listen(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        task.listen(print, dispatch=5)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------- dispatch


def test_dispatch_takes_the_events_elsewhere(single: CondaEnvExecutor) -> None:
    import queue

    events: queue.Queue[tuple[Callable[[TaskEvent], object], TaskEvent]] = queue.Queue()
    recorder = Recorder()
    single.options(start=False).submit(workload.add, 1).listen(
        recorder, dispatch=lambda callback, event: events.put((callback, event))
    ).start()
    got = []
    while not got or not got[-1].type.is_terminal:
        callback, event = events.get(timeout=DEADLINE)
        got.append(event)
        assert recorder.types == [one.type for one in got[:-1]], "only this test calls it"
        callback(event)
    assert recorder.types == [STARTED, COMPLETION]
    assert recorder.threads == {threading.get_ident()}


def test_the_replayed_event_goes_through_dispatch_too(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.add, 1).wait_for(DEADLINE)
    dispatched, recorder = Recorder(), Recorder()
    task.listen(recorder, dispatch=lambda _callback, event: dispatched(event))
    dispatched.wait_for_end()
    assert dispatched.types == [COMPLETION]
    assert recorder.types == []


def test_a_dispatch_that_raises_is_logged(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    def dispatch(_callback: object, _event: object) -> None:
        raise RuntimeError("the window is gone")

    other = Recorder()
    task = single.submit(workload.add, 1).listen(print, dispatch=dispatch).listen(other)
    assert task.result(DEADLINE) == 1
    other.wait_for_end()
    assert "the window is gone" in caplog.text


# -------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("kind", [COMPLETION, FAILURE, CANCELATION])
def test_state_then_listeners_then_callbacks(
    single: CondaEnvExecutor, rendezvous: Rendezvous, kind: TaskEventType
) -> None:
    if kind is CANCELATION:
        task = single.submit(workload.cooperate, rendezvous.address, "in")
    else:
        task = single.submit(
            workload.arrive_and_raise if kind is FAILURE else workload.arrive,
            rendezvous.address,
            "in",
        )
    arrival = rendezvous.next()
    order: list[tuple[str, bool]] = []
    last = threading.Event()
    task.add_done_callback(lambda future: (order.append(("callback", future.done())), last.set()))
    task.listen(lambda event: order.append((event.type.value, event.task.done())))
    single.listen(lambda event: order.append(("all " + event.type.value, event.task.done())))
    if kind is CANCELATION:
        task.cancel()
    arrival.release()
    assert last.wait(DEADLINE)
    ended = [(what, done) for what, done in order if "started" not in what]
    assert ended == [(kind.value, True), ("all " + kind.value, True), ("callback", True)]


def test_a_listener_sees_the_final_state(single: CondaEnvExecutor) -> None:
    seen: list[object] = []
    task = single.options(start=False).submit(workload.report, 3)
    task.listen(
        lambda event: (
            seen.append((event.task.status, event.task.result(0), event.task.outputs))
            if event.type is COMPLETION
            else None
        )
    )
    recorder = Recorder()
    task.listen(recorder).start()
    recorder.wait_for_end()
    assert seen == [(TaskStatus.COMPLETED, 3, {"steps": 3})]


def test_callbacks_of_one_executor_run_one_after_another(executor: CondaEnvExecutor) -> None:
    inside, most, done = [0], [0], threading.Semaphore(0)
    lock = threading.Lock()

    def callback(_what: object) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.001)  # time for a second one to come, if there were one
        with lock:
            inside[0] -= 1
        done.release()

    executor.listen(callback)
    for number in range(20):
        executor.submit(workload.add, number).listen(callback).add_done_callback(callback)
    for _ in range(20 * 3):
        assert done.acquire(timeout=DEADLINE)
    assert executor.wait_all(DEADLINE)
    assert most == [1]


# -------------------------------------------------------------------- listeners that raise or block


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_listener_that_raises_is_logged_and_harms_nothing(
    single: CondaEnvExecutor, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    bad, good = Recorder(fail=error), Recorder()
    task = single.options(start=False).submit(workload.report, 2).listen(bad).listen(good)
    task.start()
    good.wait_for_end()
    assert task.result(DEADLINE) == 2
    assert good.types[0] is STARTED
    assert good.types[-1] is COMPLETION
    assert bad.types[-1] is COMPLETION, "it is called again, however often it raises"
    assert "from a listener, at started" in caplog.text
    again = Recorder()
    single.submit(workload.add, 1).listen(again)
    again.wait_for_end()


def test_a_blocking_callback_delays_no_other(executor: CondaEnvExecutor, journal: Path) -> None:
    latch = Latch()
    first = executor.submit(workload.add, 1)
    first.add_done_callback(latch)
    if not latch.entered.wait(0.5):
        executor.submit(workload.add, 1).add_done_callback(latch)
    first.result(DEADLINE)
    assert latch.entered.wait(DEADLINE) or first.done()
    _assert_everything_goes_on(executor, journal)
    latch.open.set()


@pytest.mark.parametrize("whole", [False, True], ids=["of a task", "of the executor"])
def test_a_blocking_listener_delays_no_other(
    executor: CondaEnvExecutor, journal: Path, whole: bool
) -> None:
    latch = Latch()
    if whole:
        executor.listen(latch)
    executor.options(start=False).submit(workload.add, 1).listen(latch).start()
    assert latch.entered.wait(DEADLINE)
    _assert_everything_goes_on(executor, journal)
    latch.open.set()


def _assert_everything_goes_on(executor: CondaEnvExecutor, journal: Path) -> None:
    """Result, wait, as_completed, await, dependency, retry, cancel, crash, wait_all.

    None waits for a user's callback.
    """
    import asyncio

    assert executor.submit(workload.add, 1, 2).result(DEADLINE) == 3
    tasks = [executor.submit(workload.report, 3) for _ in range(5)]
    assert not concurrent.futures.wait(tasks, timeout=DEADLINE).not_done
    tasks = [executor.submit(workload.add, number) for number in range(5)]
    assert len(list(concurrent.futures.as_completed(tasks, timeout=DEADLINE))) == 5

    async def main() -> None:
        assert await asyncio.wait_for(asyncio.ensure_future(_await(executor)), DEADLINE) == 3
        assert (
            await asyncio.wait_for(
                asyncio.wrap_future(executor.submit(workload.add, 1, 2)), DEADLINE
            )
            == 3
        )
        kinds = [
            event.type
            async for event in executor.options(start=False)
            .submit(workload.report, 2)
            .start()
            .events()
        ]
        assert kinds[-1] is COMPLETION

    asyncio.run(main())
    assert (
        executor.submit(
            workload.add, executor.submit(workload.add, 1), right=executor.submit(workload.add, 2)
        ).result(DEADLINE)
        == 3
    )
    assert (
        executor.options(retries=5, retry_on=OSError)
        .submit(workload.fail_until, journal, 3)
        .result(DEADLINE)
        == 3
    )
    assert (
        executor.options(retries=1)
        .submit(workload.die_until, journal.with_name("deaths"), 2)
        .result(DEADLINE)
        == 2
    )
    assert executor.wait_all(DEADLINE)
    assert executor.is_responsive()


async def _await(executor: CondaEnvExecutor) -> int:
    return await executor.submit(workload.add, 1, 2)


def test_submitting_and_waiting_inside_a_listener(single: CondaEnvExecutor) -> None:
    got: list[int] = []
    recorder = Recorder()

    def chain(event: TaskEvent) -> None:
        if event.type is COMPLETION:
            got.append(single.submit(workload.add, 20, 22).result(DEADLINE))

    single.submit(workload.add, 1).listen(chain).listen(recorder)
    recorder.wait_for_end()
    _quiet(single, None)
    assert got == [42]


def test_cancelling_inside_a_listener(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    recorder = Recorder()

    def stop(event: TaskEvent) -> None:
        if event.type is UPDATE:
            assert event.task.cancel() is False

    task = single.submit(workload.cooperate_by_update).listen(stop).listen(recorder)
    assert recorder.wait_for_end().type is CANCELATION
    assert task.cancelled()


def test_a_slow_listener_gets_the_last_update_and_all_outputs(single: CondaEnvExecutor) -> None:
    latch, recorder = Latch(), Recorder()

    def slow(event: TaskEvent) -> None:
        if event.type is STARTED:
            latch(event)
        recorder(event)

    task = single.options(start=False).submit(workload.send_outputs, 200).listen(slow)
    task.start()
    assert latch.entered.wait(DEADLINE)
    assert task.wait_for(DEADLINE).value is None
    latch.open.set()
    recorder.wait_for_end()
    updates = recorder.of(UPDATE)
    merged: dict[int, int] = {}
    for event in updates:
        assert not merged.keys() & event.outputs.keys(), "each key once"
        merged.update(event.outputs)
    assert merged == {number: number * number for number in range(200)} == task.outputs
    assert len(updates) < 200, "merged, not queued up"


def test_events_of_many_tasks_are_in_order_for_each(executor: CondaEnvExecutor) -> None:
    recorder = Recorder()
    executor.listen(recorder)
    tasks = [executor.submit(workload.report, 3) for _ in range(200)]
    tasks += [executor.submit(workload.fail) for _ in range(50)]
    assert executor.wait_all(DEADLINE)
    recorder.wait_for_ends(len(tasks))
    _quiet(executor, None)
    executor.remove_listener(recorder)
    of: dict[str, list[TaskEventType]] = {}
    for event in recorder.events:
        of.setdefault(event.task.id, []).append(event.type)
    for task in tasks:
        kinds = of[task.id]
        assert kinds[0] is STARTED
        assert kinds[-1] is (FAILURE if task.exception() else COMPLETION)
        assert kinds.count(STARTED) == 1
        assert set(kinds[1:-1]) <= {UPDATE}


# ---------------------------------------------------------------------------------- of the executor


def test_the_executor_tells_of_all_tasks_from_now_on(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    before = single.submit(workload.add, 1).wait_for(DEADLINE)
    recorder = Recorder()
    assert single.listen(recorder) is single
    first, second = single.submit(workload.report, 1), single.submit(workload.fail)
    recorder.wait(lambda event: event.task is second and event.type is FAILURE)
    assert {event.task for event in recorder.events} == {first, second}
    assert before not in {event.task for event in recorder.events}
    assert [event.type for event in recorder.events if event.task is first][0] is STARTED
    single.remove_listener(recorder)
    count = len(recorder.events)
    third = Recorder()
    single.submit(workload.add, 1).listen(third)
    third.wait_for_end()
    assert len(recorder.events) == count


def test_the_executor_tells_of_a_task_that_was_running_already(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    recorder = Recorder()
    single.listen(recorder)
    arrival.release()
    recorder.wait_for_end()
    assert recorder.types == [STARTED, COMPLETION]
    assert {event.task for event in recorder.events} == {task}


def test_dispatch_of_the_executor(single: CondaEnvExecutor) -> None:
    recorder = Recorder()
    single.listen(print, dispatch=lambda _callback, event: recorder(event))
    single.submit(workload.add, 1)
    recorder.wait_for_end()
    assert recorder.types == [STARTED, COMPLETION]


def test_shutdown_delivers_the_last_events(make: Callable[..., CondaEnvExecutor]) -> None:
    recorder = Recorder()
    with make(2) as executor:
        executor.listen(recorder)
        tasks = [executor.submit(workload.report, 2) for _ in range(20)]
        unstarted = executor.options(start=False).submit(workload.add, 1)
    ended = [event.task for event in recorder.events if event.type.is_terminal]
    assert set(ended) == {*tasks, unstarted}
    assert len(ended) == len(set(ended))


def test_listening_after_shutdown(make: Callable[..., CondaEnvExecutor]) -> None:
    with make() as executor:
        task = executor.submit(workload.add, 1)
    recorder = Recorder()
    task.listen(recorder)
    recorder.wait_for_end()
    assert recorder.types == [COMPLETION]
