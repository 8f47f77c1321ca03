"""A handle belongs to one call.

Threads inherit the call that started them, and are inert after its end.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.interpreters import Interpreter
from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE
from wetlands_executor import CondaEnvExecutor, TaskEventType

#: What the first call leaves behind, in ``PARKED``: an event that lets it go on, and one that says
#: that it has.
MODULE = '''
import _thread, asyncio, contextvars, logging, threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from wetlands_executor import current_task

GO, DONE, STARTED = threading.Event(), threading.Event(), threading.Event()
SAW, KEPT = [], []


def report(who):
    """Do all that a handle can do."""
    task = current_task()
    task.update(who, current=1, maximum=2)
    task.set_output(who, 1)
    SAW.append((task.id, task.name, task.cancel_requested, task.inputs))
    logging.getLogger("owners").warning(who)
    task.log("by handle of " + who, 30)
    task.cancel()


def late(who):
    STARTED.set()
    assert GO.wait(30)
    try:
        report(who)
    finally:
        DONE.set()


def reset():
    for event in (GO, DONE, STARTED):
        event.clear()
    SAW.clear()


def by_thread():
    threading.Thread(target=late, args=("thread",), daemon=True).start()


def by_raw_thread():
    _thread.start_new_thread(late, ("raw",))


def by_timer():
    threading.Timer(0, late, ("timer",)).start()


def by_executor():
    KEPT.append(ThreadPoolExecutor(1))
    KEPT[-1].submit(late, "executor")


def by_thread_pool():
    KEPT.append(ThreadPool(1))
    KEPT[-1].apply_async(late, ("pool",))


def by_map_of_pool():
    KEPT.append(ThreadPool(1))
    KEPT[-1].map_async(late, ["pool"])


def by_thread_of_a_thread():
    threading.Thread(target=by_thread).start()


def by_copied_context():
    context = contextvars.copy_context()
    threading.Thread(target=lambda: context.run(late, "context"), daemon=True).start()


def by_empty_context():
    threading.Thread(target=lambda: contextvars.Context().run(late, "empty"), daemon=True).start()


def by_loop_in_a_thread():
    loop = asyncio.new_event_loop()

    async def wait():
        await loop.run_in_executor(None, late, "loop")

    asyncio.run_coroutine_threadsafe(wait(), loop)
    threading.Thread(target=loop.run_forever, daemon=True).start()


async def by_async_function():
    threading.Thread(target=late, args=("async",), daemon=True).start()


def start(name):
    reset()
    value = globals()["by_" + name]()
    assert STARTED.wait(30)


async def start_async():
    reset()
    await by_async_function()
    assert STARTED.wait(30)


def victim(value):
    GO.set()
    assert DONE.wait(30)
    return value, list(SAW)


def fail_with_thread(state):
    """The first attempt leaves a thread and fails; the second meets it."""
    if not KEPT:
        KEPT.append(1)
        start("thread")
        raise ValueError("once")
    return victim(state)


# --- in the main thread, and in pools that outlive calls

def keep_loop():
    loop = asyncio.new_event_loop()
    new = __import__("sys").version_info >= (3, 10)
    event = asyncio.Event() if new else asyncio.Event(loop=loop)
    SAW.clear()

    async def wait():
        await event.wait()
        report("task of asyncio")

    KEPT[:] = [loop, event, loop.create_task(wait())]
    loop.run_until_complete(asyncio.sleep(0))


def go_on_with_loop():
    loop, event, task = KEPT
    event.set()
    loop.run_until_complete(task)
    loop.close()
    return 1, list(SAW)


def keep_context():
    SAW.clear()
    KEPT[:] = [contextvars.copy_context()]


def use_settings():
    KEPT[0].run(report, "context")
    return 1, list(SAW)


def keep_handle():
    SAW.clear()
    KEPT[:] = [current_task()]


def use_handle():
    handle = KEPT[0]
    handle.log("by handle", 30)
    handle.cancel()
    return 1, []


def make_pools():
    executor, pool = ThreadPoolExecutor(1), ThreadPool(1)
    executor.submit(int).result()
    pool.apply(int)
    KEPT[:] = [executor, pool]
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    KEPT.append(loop)


def say(who):
    current_task().set_output(who, current_task().id)
    current_task().update(who)
    return who


async def say_soon(who):
    return say(who)


def use_pools():
    executor, pool, loop = KEPT
    executor.submit(say, "submit").result(30)
    list(executor.map(say, ["map of the executor"]))
    pool.apply(say, ("apply",))
    pool.apply_async(func=say, args=("by keyword",)).get(30)
    pool.map(say, ["map"])
    pool.starmap(say, [["starmap"]])
    list(pool.imap(say, ["imap"]))
    list(pool.imap_unordered(say, ["unordered"]))
    asyncio.run_coroutine_threadsafe(say_soon("loop"), loop).result(30)


def fork():
    import os
    child = os.fork()
    if not child:
        try:
            report("child")
        finally:
            os._exit(0 if not SAW[-1][0] else 1)
    return os.waitpid(child, 0)[1]
'''

WAYS = (
    "thread", "raw_thread", "timer", "executor", "thread_pool", "map_of_pool", "thread_of_a_thread",
    "copied_context", "empty_context",
    "loop_in_a_thread",
)  # fmt: skip


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "owners.py"
    path.write_text(textwrap.dedent(MODULE))
    return path


def check_harmless(
    task: object, recorder: Recorder, caplog: pytest.LogCaptureFixture, value: object = 1
) -> None:
    result, seen = task.result(DEADLINE)  # type: ignore[attr-defined]
    assert result == value
    recorder.wait_for_end()
    assert recorder.of(TaskEventType.UPDATE) == []
    assert (task.message, task.current, task.outputs) == (None, None, {})  # type: ignore[attr-defined]
    assert all(each == ("", "", False, {}) for each in seen)
    for record in caplog.records:
        if record.name in ("owners", "wetlands_executor.task"):
            assert record.task_id == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", WAYS)
def test_what_a_call_leaves_behind_is_inert_in_the_next(
    single: CondaEnvExecutor, module: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    first = single.submit(f"{module}:start", way)
    assert first.result(DEADLINE) is None
    recorder = Recorder()
    second = single.options(start=False).submit(f"{module}:victim", 1).listen(recorder)
    check_harmless(second.start(), recorder, caplog)
    assert (first.message, first.outputs) == (None, {})
    assert any(record.name == "owners" for record in caplog.records)


@pytest.mark.parametrize("way", ["thread", "executor"])
def test_in_every_version(
    make: Callable[..., CondaEnvExecutor],
    anypython: Interpreter,
    module: Path,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    executor = make(env=str(anypython.path))
    executor.submit(f"{module}:start", way).result(DEADLINE)
    recorder = Recorder()
    check_harmless(
        executor.options(start=False).submit(f"{module}:victim", 1).listen(recorder).start(),
        recorder,
        caplog,
    )
    executor.submit(f"{module}:make_pools").result(DEADLINE)
    task = executor.submit(f"{module}:use_pools")
    task.result(DEADLINE)
    assert set(task.outputs.values()) == {task.id}


def test_after_an_async_function(
    single: CondaEnvExecutor, module: Path, caplog: pytest.LogCaptureFixture
) -> None:
    single.submit(f"{module}:start_async").result(DEADLINE)
    recorder = Recorder()
    check_harmless(
        single.options(start=False).submit(f"{module}:victim", 1).listen(recorder).start(),
        recorder,
        caplog,
    )


@pytest.mark.parametrize(
    ("keep", "use"),
    [
        ("keep_loop", "go_on_with_loop"),
        ("keep_context", "use_settings"),
        ("keep_handle", "use_handle"),
    ],
)
def test_what_goes_on_in_the_main_thread(
    single: CondaEnvExecutor, module: Path, caplog: pytest.LogCaptureFixture, keep: str, use: str
) -> None:
    single.submit(f"{module}:{keep}").result(DEADLINE)
    recorder = Recorder()
    check_harmless(
        single.options(start=False).submit(f"{module}:{use}").listen(recorder).start(),
        recorder,
        caplog,
    )


def test_calls_of_one_batch(
    single: CondaEnvExecutor, module: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Items that travel together are calls of their own."""
    assert list(single.map(f"{module}:start", ["thread"])) == [None]
    found = list(single.map(f"{module}:victim", range(3)))
    assert [value for value, _seen in found] == [0, 1, 2]
    assert found[0][1] == [("", "", False, {})]
    assert all(record.task_id == "" for record in caplog.records if record.name == "owners")  # type: ignore[attr-defined]


def test_the_next_attempt_of_the_same_task(
    single: CondaEnvExecutor, module: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the same number, and is another call."""
    task = single.options(retries=1, retry_on=ValueError).submit(f"{module}:fail_with_thread", 1)
    result, seen = task.result(DEADLINE)
    assert (result, seen) == (1, [("", "", False, {})])
    assert task.attempt == 2
    assert (task.message, task.outputs) == (None, {})


def test_pools_of_threads_that_outlive_a_call_work_for_the_next(
    single: CondaEnvExecutor, module: Path
) -> None:
    """What is handed to a pool belongs to the call that hands it over, not to the one that has
    started its threads.
    """
    single.submit(f"{module}:make_pools").result(DEADLINE)
    for _ in range(2):
        task = single.submit(f"{module}:use_pools")
        task.result(DEADLINE)
        assert set(task.outputs) == {
            "submit", "map of the executor", "apply", "by keyword", "map", "starmap", "imap",
            "unordered", "loop",
        }  # fmt: skip
        assert set(task.outputs.values()) == {task.id}
        assert task.message == "loop"


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_child_is_inert(single: CondaEnvExecutor, module: Path) -> None:
    task = single.submit(f"{module}:fork")
    assert task.result(DEADLINE) == 0
    assert (task.message, task.outputs) == (None, {})
