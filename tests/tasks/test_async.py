"""``await task``, ``async for event in task.events()``.

From any loop, several at once, without a leak.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest

from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE, Arrival, Rendezvous
from tests.tasks import workload
from wetlands_executor import CondaEnvExecutor, Task, TaskEventType, TaskStatus

STARTED, UPDATE = TaskEventType.STARTED, TaskEventType.UPDATE
COMPLETION, FAILURE, CANCELATION = (
    TaskEventType.COMPLETION,
    TaskEventType.FAILURE,
    TaskEventType.CANCELATION,
)


async def types_of(task: Task[object]) -> list[TaskEventType]:
    return [event.type async for event in task.events()]


async def next_arrival(rendezvous: Rendezvous) -> Arrival:
    return await asyncio.to_thread(rendezvous.next)


def watchers(task: Task[object]) -> int:
    """Return how many listeners and streams a task has; nothing public tells."""
    return len(task.__dict__.get("_reports", ()))


# -------------------------------------------------------------------------------------------- await


def test_await_gives_the_result_or_raises_the_failure(single: CondaEnvExecutor) -> None:
    async def main() -> None:
        assert await single.submit(workload.add, 1, 2) == 3
        with pytest.raises(ValueError, match="on purpose"):
            await single.submit(workload.fail)
        finished = single.submit(workload.add, 1).wait_for(DEADLINE)
        assert await finished == await finished == 1

    asyncio.run(main())


def test_await_of_a_cancelled_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    async def main() -> None:
        single.submit(workload.arrive, rendezvous.address, "first")
        await next_arrival(rendezvous)
        task = single.submit(workload.add, 1)
        awaiting = asyncio.ensure_future(task)
        await asyncio.sleep(0)
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiting
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("wait", [False, True], ids=["while it runs", "afterwards"])
def test_await_of_stop_iteration(single: CondaEnvExecutor, wait: bool) -> None:
    async def main() -> None:
        task = single.submit(workload.stop_iteration)
        if wait:
            task.wait_for(DEADLINE)
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(task)), DEADLINE)
        assert isinstance(caught.value.__cause__, StopIteration)

    asyncio.run(main())


def test_gather_of_tasks(executor: CondaEnvExecutor) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(
            *(executor.submit(workload.add, number, 1) for number in range(200))
        )

    assert asyncio.run(main()) == list(range(1, 201))


def test_two_loops_await_one_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "both")
    arrival = rendezvous.next()
    got: list[object] = []
    inside = threading.Barrier(3)

    async def main() -> None:
        waiting = asyncio.ensure_future(task)
        await asyncio.sleep(0)
        await asyncio.to_thread(inside.wait, DEADLINE)
        got.append(await waiting)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(DEADLINE)
    arrival.release()
    for thread in threads:
        thread.join(DEADLINE)
    assert got == ["both", "both"]


def test_cancelling_the_awaiter_asks_the_running_task(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        task = single.submit(workload.cooperate, rendezvous.address, "in")
        arrival = await next_arrival(rendezvous)
        awaiting = asyncio.ensure_future(task)
        await asyncio.sleep(0)
        awaiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiting
        assert task.cancel_requested
        assert not task.done()
        arrival.release()
        task.wait_for(DEADLINE)
        assert task.status is TaskStatus.CANCELED

    asyncio.run(main())


def test_cancelling_the_awaiter_of_a_waiting_task(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        single.submit(workload.arrive, rendezvous.address, "first")
        arrival = await next_arrival(rendezvous)
        task = single.submit(workload.arrive, rendezvous.address, "second")
        awaiting = asyncio.ensure_future(task)
        await asyncio.sleep(0)
        awaiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiting
        task.wait_for(DEADLINE)
        assert task.status is TaskStatus.CANCELED
        arrival.release()

    asyncio.run(main())
    assert single.submit(workload.add, 1).result(DEADLINE) == 1
    assert rendezvous.uninvited() == []


def test_a_timeout_of_asyncio_cancels(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    async def main() -> None:
        task = single.submit(workload.cooperate, rendezvous.address, "in")
        (await next_arrival(rendezvous)).release()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(task, 0.05)
        assert task.cancel_requested
        assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED

    asyncio.run(main())


def test_shield_protects_the_task(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    async def main() -> None:
        task = single.submit(workload.arrive, rendezvous.address, "in")
        arrival = await next_arrival(rendezvous)
        inner = asyncio.ensure_future(task)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.02)
        assert not task.cancel_requested
        arrival.release()
        assert await inner == "in"

    asyncio.run(main())


def test_cancelling_one_of_two_awaiters_wakes_both_rightly(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        task = single.submit(workload.cooperate, rendezvous.address, "in")
        arrival = await next_arrival(rendezvous)
        one, two = asyncio.ensure_future(task), asyncio.ensure_future(task)
        await asyncio.sleep(0)
        one.cancel()
        arrival.release()
        results = await asyncio.gather(one, two, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(main())


def test_a_loop_that_is_closed_while_a_task_runs_harms_no_other(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    task = single.submit(workload.arrive, rendezvous.address, "in")
    arrival = rendezvous.next()

    async def look() -> None:
        reading = asyncio.ensure_future(types_of(task))
        await asyncio.sleep(0)
        reading.cancel()

    async def wait() -> object:
        return await task

    asyncio.run(look())
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    arrival.release()
    assert task.result(DEADLINE) == "in"
    del waiting
    gc.collect()


# ------------------------------------------------------------------------------------------- events


def test_the_events_of_a_task(single: CondaEnvExecutor) -> None:
    async def main() -> None:
        task = single.options(start=False).submit(workload.report, 3)
        reading = asyncio.ensure_future(types_of(task))
        await asyncio.sleep(0)
        task.start()
        types = await reading
        assert types[0] is STARTED
        assert types[-1] is COMPLETION
        assert UPDATE in types

    asyncio.run(main())


def test_the_last_update_is_among_them(single: CondaEnvExecutor) -> None:
    async def main() -> None:
        task = single.options(start=False).submit(workload.report, 1000)
        reading = asyncio.ensure_future(_collect(task))
        await asyncio.sleep(0)
        task.start()
        events = await reading
        updates = [event for event in events if event.type is UPDATE]  # type: ignore[attr-defined]
        assert updates[-1].message == "step 1000"  # type: ignore[attr-defined]
        assert {key for event in updates for key in event.outputs} == {"steps"}  # type: ignore[attr-defined]

    asyncio.run(main())


async def _collect(task: Task[object]) -> list[object]:
    return [event async for event in task.events()]


@pytest.mark.parametrize("kind", [COMPLETION, FAILURE, CANCELATION])
def test_a_finished_task_yields_its_terminal_event(
    single: CondaEnvExecutor, rendezvous: Rendezvous, kind: TaskEventType
) -> None:
    if kind is CANCELATION:
        single.submit(workload.arrive, rendezvous.address, "first")
        rendezvous.next()
    task = single.submit(workload.fail if kind is FAILURE else workload.add, 1)
    if kind is CANCELATION:
        task.cancel()
    task.wait_for(DEADLINE)
    assert asyncio.run(types_of(task)) == [kind]
    assert asyncio.run(types_of(task)) == [kind], "as often as one likes"
    assert watchers(task) == 0


def test_several_streams_in_several_loops(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    task = single.options(start=False).submit(workload.report_twice, rendezvous.address)
    ready = threading.Barrier(4)
    got: list[list[TaskEventType]] = []

    async def main() -> None:
        readers = [asyncio.ensure_future(types_of(task)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.to_thread(ready.wait, DEADLINE)
        got.extend(await asyncio.gather(*readers))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(DEADLINE)
    task.start()
    rendezvous.next().release()
    rendezvous.next().release()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(got) == 6
    for types in got:
        assert types[0] is STARTED
        assert types[-1] is COMPLETION
        assert types.count(STARTED) == types.count(COMPLETION) == 1
    assert watchers(task) == 0


def test_breaking_out_of_the_loop_leaves_nothing(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        task = single.submit(workload.arrive, rendezvous.address, "in")
        arrival = await next_arrival(rendezvous)
        async for event in task.events():
            assert event.type is STARTED
            break
        await asyncio.sleep(0)  # the generator is closed by the loop's hook, in a task of its own
        gc.collect()
        await asyncio.sleep(0)
        assert watchers(task) == 0
        arrival.release()
        await task

    asyncio.run(main())


def test_closing_the_stream_leaves_nothing(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        task = single.submit(workload.arrive, rendezvous.address, "in")
        arrival = await next_arrival(rendezvous)
        stream = task.events()
        assert (await anext(stream)).type is STARTED
        assert watchers(task) == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert watchers(task) == 0
        arrival.release()
        await task

    asyncio.run(main())


def test_a_cancelled_consumer_leaves_nothing_and_does_not_cancel_the_task(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        task = single.submit(workload.arrive, rendezvous.address, "in")
        arrival = await next_arrival(rendezvous)
        readers = [asyncio.ensure_future(types_of(task)) for _ in range(3)]
        await asyncio.sleep(0)
        readers[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await readers[0]
        assert watchers(task) == 2
        assert not task.cancel_requested
        arrival.release()
        for types in await asyncio.gather(*readers[1:]):
            assert types[-1] is COMPLETION
        assert watchers(task) == 0

    asyncio.run(main())


def test_a_slow_reader_gets_merged_updates(
    single: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        task = single.submit(workload.send_outputs, 300)
        recorder = Recorder()
        task.listen(recorder)
        outputs: dict[object, object] = {}
        count = 0
        async for event in task.events():
            if not count:
                recorder.wait_for_end()  # blocks the loop on purpose: everything piles up meanwhile
            count += 1
            outputs.update(event.outputs)
        late = {key: value for key, value in task.outputs.items() if key not in outputs}
        assert len(task.outputs) == 300
        assert count < 300
        assert not late or count == 1, "a stream that was there from the start has got them all"

    asyncio.run(main())


def test_a_loop_stays_free_while_it_reads(single: CondaEnvExecutor, rendezvous: Rendezvous) -> None:
    async def main() -> None:
        task = single.submit(workload.arrive, rendezvous.address, "in")
        arrival = await next_arrival(rendezvous)
        reading = asyncio.ensure_future(types_of(task))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.done()
        arrival.release()
        assert await reading == [STARTED, COMPLETION]

    asyncio.run(main())


def test_events_of_a_task_that_is_cancelled_at_the_gate(single: CondaEnvExecutor) -> None:
    async def main() -> None:
        task = single.options(start=False).submit(workload.add, 1)
        reading = asyncio.ensure_future(types_of(task))
        await asyncio.sleep(0)
        task.cancel()
        assert await asyncio.wait_for(reading, DEADLINE) == [CANCELATION]

    asyncio.run(main())


def test_reading_races_with_the_end(single: CondaEnvExecutor) -> None:
    async def main() -> None:
        for _ in range(100):
            types = await asyncio.wait_for(types_of(single.submit(workload.add, 1)), DEADLINE)
            assert types in ([STARTED, COMPLETION], [COMPLETION])

    asyncio.run(main())


# ----------------------------------------------------------------------------------------- executor


def test_async_with_of_the_executor(
    make: Callable[..., CondaEnvExecutor], rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        order: list[str] = []
        async with make() as executor:
            task = executor.submit(workload.arrive, rendezvous.address, "in")
            arrival = await next_arrival(rendezvous)

            async def free_the_task() -> None:
                order.append("the loop is free")
                arrival.release()

            freeing = asyncio.ensure_future(free_the_task())
        order.append("left")
        await freeing
        assert order == ["the loop is free", "left"]
        assert task.result(0) == "in"

    asyncio.run(main())


def test_async_with_lets_errors_through(make: Callable[..., CondaEnvExecutor]) -> None:
    async def main() -> None:
        async with make() as executor:
            await executor.submit(workload.fail)

    with pytest.raises(ValueError, match="on purpose"):
        asyncio.run(main())
