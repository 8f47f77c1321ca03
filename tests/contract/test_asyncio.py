"""``loop.run_in_executor`` and ``asyncio.wrap_future``."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor

import pytest

from tests.contract import workload
from tests.support.rendezvous import DEADLINE, Rendezvous


def test_run_in_executor_gives_the_result(executor: Executor) -> None:
    async def main() -> object:
        return await asyncio.get_running_loop().run_in_executor(executor, workload.multiply, 6, 7)

    assert asyncio.run(main()) == 42


def test_run_in_executor_raises_the_error(executor: Executor) -> None:
    async def main() -> None:
        with pytest.raises(workload.Plain, match="from a worker"):
            await asyncio.get_running_loop().run_in_executor(
                executor, workload.throw_new, workload.Plain, "from a worker"
            )

    asyncio.run(main())


def test_gather(executor: Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(executor, workload.multiply, number, 2) for number in range(100))
        )

    assert asyncio.run(main()) == list(range(0, 200, 2))


def test_gather_with_errors_returned(executor: Executor) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, divmod, 1, number) for number in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, *rest = asyncio.run(main())
    assert isinstance(first, ZeroDivisionError)
    assert rest == [(1, 0), (0, 1)]


def test_the_loop_goes_on_while_a_task_runs(executor: Executor, rendezvous: Rendezvous) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(executor, workload.arrive, rendezvous.address, "result")
        arrival = await asyncio.to_thread(rendezvous.next)
        order: list[object] = []
        loop.call_soon(order.append, "the loop")
        await asyncio.sleep(0)
        arrival.release()
        order.append(await call)
        return order

    assert asyncio.run(main()) == ["the loop", "result"]


def test_cancelling_the_awaiter_of_a_waiting_task_cancels_the_task(
    single: Executor, rendezvous: Rendezvous
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(single, workload.arrive, rendezvous.address, "running")
        arrival = await asyncio.to_thread(rendezvous.next)
        waiting = [
            single.submit(workload.arrive, rendezvous.address, number) for number in range(4)
        ]
        awaiter = asyncio.ensure_future(asyncio.wrap_future(waiting[-1]))
        await asyncio.sleep(0)
        awaiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiter
        await asyncio.sleep(0)  # the cancellation is passed on by a callback of the loop
        assert waiting[-1].cancelled()
        arrival.release()
        assert await running == "running"

    asyncio.run(main())
    for _ in range(3):
        rendezvous.next().release()
    single.shutdown()
    assert rendezvous.uninvited() == []


def test_cancelling_the_awaiter_of_a_running_task_leaves_the_task_alone(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    async def main() -> object:
        task = executor.submit(workload.arrive, rendezvous.address, "result")
        arrival = await asyncio.to_thread(rendezvous.next)
        awaiter = asyncio.wrap_future(task)
        awaiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiter
        assert task.running()
        arrival.release()
        return await asyncio.to_thread(task.result, DEADLINE)

    assert asyncio.run(main()) == "result"


def test_wait_for_with_a_time_out(executor: Executor, rendezvous: Rendezvous) -> None:
    async def main() -> None:
        call = asyncio.get_running_loop().run_in_executor(
            executor, workload.arrive, rendezvous.address
        )
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call, 0.05)

    asyncio.run(main())
    rendezvous.open()
    assert executor.submit(workload.identity, 1).result() == 1


def test_wrap_future_of_a_finished_task(executor: Executor) -> None:
    task = executor.submit(workload.identity, "x")
    task.result()

    async def main() -> object:
        return await asyncio.wrap_future(task)

    assert asyncio.run(main()) == "x"


def test_loops_of_several_threads_share_an_executor(executor: Executor) -> None:
    async def main(start: int) -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(
                loop.run_in_executor(executor, workload.multiply, start, number)
                for number in range(20)
            )
        )

    results: dict[int, list[int]] = {}
    threads = [
        threading.Thread(
            target=lambda start=start: results.update({start: asyncio.run(main(start))})
        )
        for start in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {start: [start * number for number in range(20)] for start in range(4)}


def test_a_callback_that_blocks_does_not_delay_an_await(
    executor: Executor, rendezvous: Rendezvous
) -> None:
    """The bridge to asyncio runs before or beside a user's callback, not behind it."""
    blocked, release = threading.Event(), threading.Event()

    async def main() -> object:
        task = executor.submit(workload.arrive, rendezvous.address, "result")
        await asyncio.to_thread(rendezvous.next)
        future = asyncio.wrap_future(task)
        task.add_done_callback(lambda _: (blocked.set(), release.wait(DEADLINE)))
        rendezvous.open()
        return await asyncio.wait_for(future, DEADLINE)

    try:
        assert asyncio.run(main()) == "result"
        assert blocked.wait(DEADLINE)
    finally:
        release.set()


@pytest.mark.executor_kinds("conda")
def test_a_default_executor_of_a_loop_has_to_be_threads_but_ours_can_be_named(
    executor: Executor,
) -> None:
    """``set_default_executor`` insists on a ThreadPoolExecutor.

    Everything else takes any Executor.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # a warning, which is an error here, in Python 3.10
        with pytest.raises((TypeError, DeprecationWarning)):
            loop.set_default_executor(executor)  # type: ignore[arg-type]
        assert await loop.run_in_executor(executor, workload.identity, 1) == 1

    asyncio.run(main())
