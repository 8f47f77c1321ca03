"""The way back of a short call, on which its submitter takes the answer from the worker itself
(``pool/direct_receive.py``).

A call whose answer was not looked at yet is *quiet*: each way to look at it must find the end,
and nothing may get lost on the way.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import os
import pathlib
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.workload import arrive
from tests.faults import work
from tests.support.observe import DEADLINE, crash_of, gone, kill_first, pids, until
from tests.unit import classes
from wetlands_executor import CondaEnvExecutor, Task, TaskEventType, TaskStatus
from wetlands_executor.pool import direct, direct_receive
from wetlands_executor.worker import wire


def quiet(executor: CondaEnvExecutor, function: Callable[..., Any] = pow, *args: Any) -> Task[Any]:
    """Submit a call in the way that leaves its answer on the shared page, and return when it lies
    there.

    Nothing has looked at the task.
    """
    # After a call whose submitter has waited on the direct receive, the next one is expected there.
    # The first
    # calls go through the queue.
    for _ in range(200):
        assert executor.submit(pow, 2, 2).result() == 4
        task = executor.submit(function, *(args or (2, 3)))
        call = task._call
        if call is not None and call.unannounced:
            break
        task.result()
    else:
        pytest.fail("no call was sent quietly")
    page = call.process.process.page
    assert until(lambda: page.words[wire.ANSWERED] == call.number)
    return task


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (classes.Color, (1,)),
        (classes.Pair, (1, 2)),
        (classes.Frozen, (1, "x")),
        (classes.FrozenSlots, (1, "x")),
        (pathlib.Path, ("/a/b",)),
        (uuid.UUID, ("12345678123456781234567812345678",)),
    ],
)
def test_values_that_python_itself_reduces_are_read_by_the_thread_that_waits(
    function: Any, args: tuple[Any, ...]
) -> None:
    with CondaEnvExecutor(max_workers=1) as executor:
        task = quiet(executor, function, *args)
        call: Any = task._call
        assert task.result(DEADLINE) == function(*args)
        assert call.found[0] is task.result()  # no other thread has read it


def by_polling(task: Task[Any]) -> bool:
    return until(task.done)


def by_status(task: Task[Any]) -> bool:
    return until(lambda: task.status is TaskStatus.COMPLETED)


def by_running(task: Task[Any]) -> bool:
    return until(lambda: not task.running()) and until(task.done)


def by_end(task: Task[Any]) -> bool:
    return until(lambda: task.finished_at is not None)


def by_wait(task: Task[Any]) -> bool:
    return not concurrent.futures.wait([task], DEADLINE).not_done


def by_as_completed(task: Task[Any]) -> bool:
    return list(concurrent.futures.as_completed([task], DEADLINE)) == [task]


def by_callback(task: Task[Any]) -> bool:
    called = threading.Event()
    task.add_done_callback(lambda _task: called.set())
    return called.wait(DEADLINE)


def by_listener(task: Task[Any]) -> bool:
    seen: list[TaskEventType] = []
    ended = threading.Event()

    def listen(event: Any) -> None:
        seen.append(event.type)
        if event.type.is_terminal:
            ended.set()

    task.listen(listen)
    return ended.wait(DEADLINE) and seen[-1] is TaskEventType.COMPLETION


def by_await(task: Task[Any]) -> bool:
    async def wait() -> Any:
        return await asyncio.wait_for(task, DEADLINE)

    return asyncio.run(wait()) == 8


def by_events(task: Task[Any]) -> bool:
    async def wait() -> list[TaskEventType]:
        return [event.type async for event in task.events()]

    return asyncio.run(asyncio.wait_for(wait(), DEADLINE))[-1] is TaskEventType.COMPLETION


def by_cancel(task: Task[Any]) -> bool:
    return task.cancel() is False and until(task.done)


def by_kill(task: Task[Any]) -> bool:
    task.kill()
    return until(task.done)


def by_result_elsewhere(task: Task[Any]) -> bool:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(task.result(DEADLINE)))
    thread.start()
    thread.join(DEADLINE)
    return found == [8]


def by_exception(task: Task[Any]) -> bool:
    return task.exception(DEADLINE) is None


def by_wait_for(task: Task[Any]) -> bool:
    return task.wait_for(DEADLINE).done()


LOOKS = [
    by_polling,
    by_status,
    by_running,
    by_end,
    by_wait,
    by_as_completed,
    by_callback,
    by_listener,
    by_await,
    by_events,
    by_cancel,
    by_kill,
    by_result_elsewhere,
    by_exception,
    by_wait_for,
]


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_at_a_quiet_task_finds_its_end(single, look):
    task = quiet(single)
    assert look(task)
    assert task.result(DEADLINE) == 8
    assert task.status is TaskStatus.COMPLETED
    assert single.submit(pow, 2, 5).result(DEADLINE) == 32
    assert single.wait_all(DEADLINE)


def test_the_pool_finds_the_end_of_a_quiet_task(single):
    """The pool reports an idle worker after an unannounced call, not one that is busy with it."""
    task = quiet(single)
    assert [info.state for info in single.workers()] == ["idle"]
    assert task._final is not None
    task = quiet(single)
    progress = single.get_progress()
    assert (progress["running"], progress["queued"]) == (0, 0)
    task = quiet(single)
    assert single.wait_all(DEADLINE)
    assert task._final is not None
    task = quiet(single)
    assert single.get_task(task.id) is task
    single.set_timeout(0.05)
    assert single.submit(pow, 2, 4).result(DEADLINE) == 16
    single.set_timeout(None)
    task = quiet(single)
    single.shutdown()
    assert task.result(0) == 8


def test_a_limit_of_the_run_meets_no_quiet_task_that_has_ended(single):
    task = quiet(single)
    pid = single.workers()[0].pid
    task = quiet(single)
    single.set_timeout(0.02)
    assert until(lambda: task._final is not None)
    assert task.result(0) == 8
    assert pids(single) == {pid}


def test_the_next_call_runs_though_no_thread_looks(single):
    """The next call is given to the same worker, though the one before was not looked at."""
    for _ in range(50):
        forgotten = quiet(single)
        assert single.submit(pow, 3, 3).result(DEADLINE) == 27
        assert until(forgotten.done)
    del forgotten
    gc.collect()


@pytest.mark.parametrize("end", ["kill", "shutdown", "terminate_workers", "kill_workers"])
def test_a_worker_that_dies_after_a_quiet_answer_takes_nothing_along(make, end):
    executor = make(max_workers=1)
    task = quiet(executor)
    (pid,) = [process.process.pid for process in executor._pool.processes.values()]
    if end == "kill":
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: task._final is not None)
    else:
        getattr(executor, end)()
        executor.shutdown()
    assert task.result(DEADLINE) == 8
    assert gone([pid])


def test_a_worker_that_dies_in_a_direct_receive(single):
    for _ in range(3):
        assert single.submit(pow, 2, 2).result() == 4
        task = single.submit(work.fault, "segfault")
        crash_of(task)
        assert single.submit(pow, 2, 3).result(DEADLINE) == 8


def test_a_time_out_leaves_the_call_to_others(single, rendezvous):
    assert single.submit(pow, 2, 2).result() == 4
    for _ in range(3):
        assert single.submit(pow, 2, 2).result() == 4
        task = single.submit(arrive, rendezvous.address, "late")
        arrival = rendezvous.next()
        with pytest.raises(TimeoutError):
            task.result(0.01)
        called = threading.Event()
        task.add_done_callback(lambda _task, called=called: called.set())
        arrival.release()
        assert called.wait(DEADLINE)
        assert task.result(0) == "late"


@pytest.mark.parametrize("timeout", [0, -1, 1e-9, 1e12, float("inf")])
def test_odd_time_outs(single, timeout):
    for _ in range(3):
        assert single.submit(pow, 2, 2).result() == 4
    task = single.submit(pow, 2, 3)
    try:
        assert task.result(timeout) == 8
    except TimeoutError:
        assert timeout < 1
    assert task.result(DEADLINE) == 8


@pytest.mark.parametrize("way", ["print", "bytes", "command"])
def test_lines_come_before_the_result(single, capfd, way):
    """Also what is written below the streams, of which the worker knows nothing."""
    function, args = {
        "print": (work.say, ("a line",)),
        "bytes": (work.write_bytes, (1, b"a line\n")),
        "command": (work.subprocess_says, ("a line",)),
    }[way]
    single.submit(function, *args).result()
    capfd.readouterr()
    for _ in range(50):
        single.submit(pow, 2, 2).result()
        single.submit(pow, 2, 2).result()
        single.submit(function, *args).result()
        assert capfd.readouterr().out == "a line\n"


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        147,
        -(2**70),
        1.5,
        "\x93" * 10,
        b"x" * 4000,
        b"x" * 5000,
        b"x" * 100_000,
        (1, [2, {3}]),
        complex(1, 2),
    ],
)
def test_values(single, value):
    for _ in range(20):
        assert single.submit(pow, 2, 2).result() == 4
        assert single.submit(work.same, value).result() == value


def test_a_task_that_closes_all_descriptors(single):
    """The wakeup goes with them, and answers find another way.

    The worker's pipes went too, so another worker.
    """
    assert single.submit(pow, 2, 2).result() == 4
    for _ in range(3):
        task = single.submit(work.close_range, 3, 480)
        task.exception(DEADLINE)
        assert [single.submit(pow, 2, n).result(DEADLINE) for n in range(10)] == [
            2**n for n in range(10)
        ]


def test_a_forked_child_does_not_answer(single):
    for _ in range(20):
        assert single.submit(pow, 2, 2).result() == 4
        assert single.submit(work.fork_and_return).result(DEADLINE)[0] == "parent"


def test_threads_share_workers(executor):
    """Each gets its own results, whether it waits on a direct receive or elsewhere, and nothing
    stays behind.
    """
    errors: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            for number in range(seed * 10_000, seed * 10_000 + 600):
                task = executor.submit(abs, -number)
                way = number % 6
                if way == 4:
                    assert by_wait(task)
                elif way == 5:
                    assert by_polling(task)
                assert task.result(DEADLINE if way % 2 else None) == number
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    assert executor.wait_all(DEADLINE)
    assert executor.get_progress()["completed"] == 3000


def test_workers_are_killed_under_waiting_submitters(make, stress_rng):
    """Every call ends: with its own result, or as the one that its worker was running."""
    executor = make(max_workers=2).launch()
    stop = threading.Event()
    outcomes: list[tuple[int, Any]] = []

    def run(seed: int) -> None:
        number = seed << 32
        while not stop.is_set():
            number += 1
            task = executor.submit(abs, -number)
            error = task.exception()
            outcomes.append((number, error if error is not None else task.result()))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 4
    kills = 0
    while time.monotonic() < end:
        before = len(outcomes)
        assert until(lambda before=before: len(outcomes) > before + stress_rng.randrange(40))
        kills += kill_first(executor)
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    wrong = [
        (number, found)
        for number, found in outcomes
        if found != number and type(found).__name__ not in ("WorkerCrashed", "WorkerStartError")
    ]
    assert wrong == []
    assert kills > 3
    assert executor.wait_all(DEADLINE)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("interrupted", 100_000),
        ("value", 20_000),
        ("index", 20_000),
        ("timeout", 20_000),
        ("interrupt", 20_000),
    ],
)
def test_interrupted_at_every_step(host, kind, count):
    """An exception a thousand times a second through a hundred thousand results."""
    code, out, err = host("interrupted_in_result", count, kind).finish(100)
    assert code == 0, (out, err)
    found = out.splitlines()
    assert found[1:] == [
        f"done {count} wrong 0 timeouts 0",
        "running 0 queued 0 failed 0",
        "well",
    ], (out, err)
    assert int(found[0].split()[1]) > 100, "it has to be interrupted"


@pytest.mark.parametrize(
    "world", [{}, {"WETLANDS_EXECUTOR_PLAIN": "1"}], ids=["direct_receive", "plain"]
)
def test_where_there_is_no_direct_receive(host, world):
    """The same program with the short way and without it."""
    code, out, err = host("interrupted_in_result", 3_000, "interrupted", **world).finish(60)
    assert code == 0, (out, err)
    assert out.splitlines()[-1] == "well", (out, err)


@pytest.fixture
def handler():
    """Call a function in the main thread when SIGUSR1 comes: ``handler(function)``."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda function: signal.signal(signal.SIGUSR1, lambda _number, _frame: function())
    signal.signal(signal.SIGUSR1, before)


def signal_me() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("expected", [True, False])
def test_a_time_limit_by_a_signal_handler(single, rendezvous, handler, expected):
    """TimeoutError is an OSError, which a closed descriptor raises too."""

    class Limit(TimeoutError):
        pass

    def raise_limit():
        raise Limit

    handler(raise_limit)
    if expected:
        assert until(
            lambda: (
                single.submit(pow, 2, 2).result() == 4
                and next(iter(single._pool.processes.values())).direct_send.receive.expected
            )
        )
    for _ in range(3):
        task = single.submit(arrive, rendezvous.address, "limited")
        arrival = rendezvous.next()
        timer = threading.Timer(0.05, signal_me)
        with pytest.raises(Limit):
            timer.start()  # on a busy machine the limit comes before this returns
            task.result()
        timer.join()
        arrival.release()
        assert task.result(DEADLINE) == "limited"


@pytest.mark.parametrize("look", [by_exception, by_polling, by_wait])
def test_a_signal_handler_looks_at_the_task_that_its_thread_waits_for(
    single, rendezvous, handler, look
):
    for _ in range(5):
        assert single.submit(pow, 2, 2).result() == 4
        task = single.submit(arrive, rendezvous.address, "looked at")
        arrival = rendezvous.next()
        seen = []

        def inspect(task=task, arrival=arrival, seen=seen):
            arrival.release()
            seen.append(look(task))

        handler(inspect)
        timer = threading.Timer(0.02, signal_me)
        timer.start()
        assert task.result() == "looked at"
        timer.join()
        assert until(lambda: seen == [True])


def test_a_listener_to_the_executor_hears_of_a_quiet_call(single):
    task = quiet(single)
    ended = threading.Event()
    single.listen(
        lambda event: ended.set() if event.task is task and event.type.is_terminal else None
    )
    assert ended.wait(DEADLINE)


def test_what_waited_for_others_is_counted_once(executor):
    for _ in range(100):
        first = executor.submit(pow, 2, 3)
        second = executor.submit(pow, first, 2)
        assert second.result() == 64
    assert executor.wait_all(DEADLINE)
    progress = executor.get_progress()
    assert (progress["completed"], progress["total"]) == (200, 200)


def fail_twice(path):
    """Fail until there are two lines in a file."""
    with open(path, "a+", encoding="utf-8") as journal:
        journal.write("tried\n")
        journal.seek(0)
        if len(journal.readlines()) < 3:
            raise ValueError("not yet")
    return "done"


def test_retries_beside_calls_that_are_waited_for(executor, tmp_path):
    """A try that comes back to a worker, where an answer to its number was awaited before."""
    patient = executor.options(retries=2, retry_on=ValueError)
    for number in range(60):
        for _ in range(3):
            assert executor.submit(pow, 2, 2).result() == 4
        task = patient.submit(fail_twice, str(tmp_path / str(number)))
        others = [executor.submit(pow, 2, n) for n in range(3)]
        assert task.result(DEADLINE) == "done"
        assert [other.result(DEADLINE) for other in others] == [1, 2, 4]


def test_what_a_call_says_before_it_is_registered_comes_before_its_end(
    single, rendezvous, monkeypatch, caplog
):
    """Its submitter has written its frame, and has not recorded that yet.

    The I/O thread takes the log record up again later; the outcome came first, and the output was
    lost, if the submitter went on in between.
    """
    first = single.submit(arrive, rendezvous.address, "first")
    rendezvous.next().release()
    first.result(DEADLINE)
    single.submit(log_and_set, "known now").result(DEADLINE)
    (process,) = single._pool.processes.values()
    write = os.write

    def write_and_wait(fd, data):
        monkeypatch.setattr(direct, "write", write)
        count = write(fd, data)
        assert until(lambda: process.given.late)
        return count

    monkeypatch.setattr(direct, "write", write_and_wait)
    task = single.submit(log_and_set, "told once")
    assert task.result(DEADLINE) == "told once"
    assert [record.task_id for record in caplog.records if record.msg == "told once"] == [task.id]
    assert task.outputs == {"name": "told once"}


def log_and_set(text, task):
    logging.getLogger("some.library").warning(text)
    task.set_output("name", text)
    return text


def test_who_wakes_up_after_the_end_leaves_nothing_behind(single, rendezvous, monkeypatch):
    """An ended executor may be kept for long, and a call that it still knew kept its arguments."""
    first = single.submit(
        arrive, rendezvous.address, "first"
    )  # so that the worker knows the function
    rendezvous.next().release()
    assert first.result(DEADLINE) == "first"
    pool = single._pool
    (process,) = pool.processes.values()
    task = single.submit(arrive, rendezvous.address, "held")
    rendezvous.next()
    monkeypatch.setattr(
        direct_receive,
        "read",
        lambda fd, count: (os.read(fd, count), pool.lifecycle.finished.wait(DEADLINE))[0],
    )
    waiter = threading.Thread(target=task.exception)
    waiter.start()
    assert until(lambda: process.direct_send.receive.caller is not None)
    single.kill_workers()
    waiter.join(DEADLINE)
    assert not waiter.is_alive()
    assert pool.direct_calls.abandoned.first is None
