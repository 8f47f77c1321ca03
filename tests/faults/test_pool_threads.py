"""The pool's own threads.

Started once however many come at the same time, never for nothing, and never made to wait.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from _thread import _count
from concurrent.futures import CancelledError, as_completed, wait
from pathlib import Path

import pytest

import wetlands_executor
from tests.contract.workload import arrive
from tests.support.observe import awaited
from wetlands_executor import CondaEnvExecutor, Task

# the first submit of code imports these, on a thread of its own
from wetlands_executor.serialize import by_value as by_value
from wetlands_executor.threads import PoolThread
from wetlands_executor.worker import code_reductions as code_reductions  # as above

#: Seconds after which a wait of these tests has failed.
DEADLINE = 30


#: Threads of executors that lived before the test: fixtures of other modules keep theirs for the
#: whole session.
_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def other_threads():
    _others.update(threading.enumerate())
    yield
    _others.clear()


def pool_threads() -> list[str]:
    """Return the names of the pool threads that the test has started and that are alive."""
    return [
        thread.name
        for thread in set(threading.enumerate()) - _others
        if isinstance(thread, PoolThread)
    ]


# ----------------------------------------------------------------------------------------- starting


@pytest.mark.parametrize("count", [2, 8])
def test_threads_that_submit_first_at_the_same_time_start_one_io_thread(count):
    for _ in range(15):
        with CondaEnvExecutor(max_workers=1) as executor:
            barrier, tasks = threading.Barrier(count), []

            def submit(executor=executor, barrier=barrier, tasks=tasks):
                barrier.wait()
                tasks.append(executor.submit(pow, 2, 3))

            threads = [threading.Thread(target=submit) for _ in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [task.result(DEADLINE) for task in tasks] == [8] * count
            assert pool_threads().count("wetlands-io") == 1
        assert "wetlands-io" not in pool_threads()


def test_a_signal_handler_submits_at_any_step_of_the_first_submit(stress_rng):
    before = signal.getsignal(signal.SIGALRM)
    try:
        for _ in range(60):
            with CondaEnvExecutor(max_workers=1) as executor:
                tasks: list[Task[int]] = []
                signal.signal(
                    signal.SIGALRM,
                    lambda *_, executor=executor, tasks=tasks: tasks.append(
                        executor.submit(pow, 2, 3)
                    ),
                )
                signal.setitimer(signal.ITIMER_REAL, stress_rng.uniform(0.00002, 0.001))
                tasks.append(executor.submit(pow, 2, 3))
                end = time.monotonic() + DEADLINE
                while len(tasks) < 2:
                    assert time.monotonic() < end
                    # the handler runs between two steps of this thread
                    executor.submit(pow, 2, 3).result(DEADLINE)
                assert [task.result(DEADLINE) for task in tasks] == [8, 8]
                assert pool_threads().count("wetlands-io") == 1
            assert pool_threads() == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("module", ["changes", "code_reductions", "calls"])
def test_a_signal_handler_submits_code_while_the_first_submit_of_code_imports_what_pickles_it(
    module,
):
    program = """
        import signal, sys, threading
        from wetlands_executor import CondaEnvExecutor

        main, tasks = threading.main_thread().ident, []

        def interrupt(event, args):
            if event == "open" and "wetlands" in str(args[0]) and sys.argv[1] in str(args[0]):
                signal.pthread_kill(main, signal.SIGUSR1)

        with CondaEnvExecutor(max_workers=1) as executor:
            signal.signal(signal.SIGUSR1, lambda *_: tasks.append(executor.submit(lambda: 7)))
            sys.addaudithook(interrupt)
            first = executor.submit(lambda: 5)
            print(first.result(30), [task.result(30) for task in tasks])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), f"{module}."],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("5 [7"), done.stderr  # its source may be opened as well
    assert done.stderr == ""


@pytest.mark.parametrize("act", ["map", "launch", "listen", "shutdown", "kill_workers"])
def test_a_signal_handler_acts_at_any_step_of_the_first_submit(stress_rng, act):
    acts = {
        "map": lambda executor: list(executor.map(abs, [-1, -2])),
        "launch": lambda executor: executor.launch(),
        "listen": lambda executor: executor.listen(lambda event: None),
        "shutdown": lambda executor: executor.shutdown(wait=False),
        "kill_workers": lambda executor: executor.kill_workers(),
    }
    before = signal.getsignal(signal.SIGALRM)
    try:
        for _ in range(20):
            executor = CondaEnvExecutor(max_workers=1)
            done: list[object] = []
            signal.signal(
                signal.SIGALRM,
                lambda *_, executor=executor, done=done: done.append(acts[act](executor)),
            )
            signal.setitimer(signal.ITIMER_REAL, stress_rng.uniform(0.00002, 0.001))
            try:
                task = executor.submit(pow, 2, 3)
                found = task.exception(DEADLINE) or task.result(DEADLINE)
            except (RuntimeError, CancelledError) as error:
                found = error
            assert found == 8 or (
                act in ("shutdown", "kill_workers")
                and isinstance(found, (RuntimeError, CancelledError))
            ), found
            end = time.monotonic() + DEADLINE
            while not done:
                assert time.monotonic() < end
                time.sleep(0.001)  # the handler runs between two steps of this thread
            executor.shutdown()
            assert pool_threads() == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("waits", [False, True])
def test_the_collector_runs_a_finalizer_at_every_step_of_a_start(waits):
    """On whatever thread it comes to: those that are just starting too.

    It submits; then it waits as well, which some must not.
    """
    outcomes: list[object] = []

    class Garbage:
        def __init__(self, executor):
            self.executor, self.me = executor, self

        def __del__(self):
            if len(outcomes) >= 200:
                return
            task = self.executor.submit(pow, 2, 3)
            try:
                outcomes.append(task.result(DEADLINE) if waits else task)
            except RuntimeError as error:
                outcomes.append(error)
            Garbage(self.executor)

    thresholds = gc.get_threshold()
    for _ in range(6):
        outcomes.clear()
        executor = CondaEnvExecutor(max_workers=1)
        Garbage(executor)
        gc.set_threshold(1)
        try:
            task = executor.submit(pow, 2, 3)
            assert task.result(DEADLINE) == 8
        finally:
            gc.set_threshold(*thresholds)
            executor.shutdown()
        for found in outcomes:
            if isinstance(found, Task):
                assert found.exception(DEADLINE) is None
            else:
                assert found == 8 or "wait" in str(found) or "shutdown" in str(found), found
        outcomes.extend([None] * 200)
        del executor
        gc.collect()
    assert pool_threads() == []


def test_serial_threads_are_started_once_by_a_burst():
    """Callbacks of many tasks at once, from several threads."""
    with CondaEnvExecutor(max_workers=2) as executor:
        seen = []
        tasks = [executor.submit(pow, 2, 3) for _ in range(300)]
        for task in tasks:
            task.add_done_callback(lambda task: seen.append(threading.current_thread().name))
        wait(tasks, DEADLINE)
        assert executor.wait_all(DEADLINE)
    assert len(seen) == 300
    assert set(seen) <= {"wetlands-callbacks", threading.current_thread().name}
    assert pool_threads() == []


# -------------------------------------------------------------------------------------- for nothing


async def _async_with():
    async with CondaEnvExecutor(max_workers=1):
        pass


def _unstarted_task():
    with CondaEnvExecutor(max_workers=1) as executor:
        task = executor.options(start=False).submit(pow, 2, 3)
    assert task.cancelled()


UNUSED = {
    "with": lambda executor: executor.__exit__(None, None, None),
    "shutdown": lambda executor: executor.shutdown(),
    "shutdown at once": lambda executor: executor.shutdown(wait=False),
    "shutdown twice": lambda executor: (
        executor.shutdown(wait=False),
        executor.shutdown(cancel_futures=True),
    ),
    "kill_workers": lambda executor: executor.kill_workers(),
    "terminate_workers": lambda executor: executor.terminate_workers(),
    "view": lambda executor: (
        executor.options(priority=1).__exit__(None, None, None),
        executor.shutdown(),
    ),
    "interrupted": lambda executor: executor.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None),
    "an empty map": lambda executor: (list(executor.map(lambda x: x, [])), executor.shutdown()),
    "no limit": lambda executor: (executor.set_timeout(None), executor.shutdown()),
    "looked at": lambda executor: (
        executor.get_progress(),
        executor.workers(),
        executor.is_responsive(),
        executor.wait_all(),
        executor.shutdown(),
    ),
}


@pytest.mark.parametrize("how", UNUSED)
def test_an_executor_that_is_never_used_starts_no_thread(how, monkeypatch):
    # A module that a process loads late is loaded on a thread of its own, once: now.
    UNUSED[how](CondaEnvExecutor(max_workers=1))
    started = []
    start = PoolThread.start
    monkeypatch.setattr(PoolThread, "start", lambda self: (started.append(self.name), start(self)))
    executor = CondaEnvExecutor(max_workers=1)
    UNUSED[how](executor)
    assert executor._pool.ended
    assert executor._pool.lifecycle.join(0)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 3)
    assert started == []


@pytest.mark.parametrize(
    "how",
    [lambda: asyncio.run(_async_with()), _unstarted_task, lambda: CondaEnvExecutor(max_workers=1)],
)
def test_an_executor_that_is_made_and_left_starts_no_thread(how, monkeypatch):
    started = []
    start = PoolThread.start
    monkeypatch.setattr(PoolThread, "start", lambda self: (started.append(self.name), start(self)))
    how()
    gc.collect()
    assert started == []


def test_threads_of_the_program_go_on_at_exit_beside_an_unused_executor(tmp_path):
    """Before CPython 3.12.3 a thread that cannot be started at interpreter exit made `threading`
    forget the program's own.
    """
    program = tmp_path / "program.py"
    program.write_text(
        "import threading, time\n"
        "from wetlands_executor import CondaEnvExecutor\n"
        "kept = [CondaEnvExecutor(max_workers=1), "
        "CondaEnvExecutor(max_workers=1).options(priority=1)]\n"
        "go = threading.Event()\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    print('work done', flush=True)\n"
        "threading.Thread(target=work).start()\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "work done\n", "")


# ------------------------------------------------------------------------------------------ waiting


WAITS = {
    "result": lambda executor, task: task.result(DEADLINE),
    "result without limit": lambda executor, task: task.result(),
    "exception": lambda executor, task: task.exception(DEADLINE),
    "wait_for": lambda executor, task: task.wait_for(DEADLINE),
    "with": lambda executor, task: task.__exit__(None, None, None),
    "await": lambda executor, task: awaited(task),
    "wait": lambda executor, task: wait([task], DEADLINE),
    "as_completed": lambda executor, task: list(as_completed([task], DEADLINE)),
    "map": lambda executor, task: next(executor.map(abs, [1, 2], timeout=DEADLINE)),
    "map unordered": lambda executor, task: next(
        executor.map(abs, [1, 2], timeout=DEADLINE, ordered=False)
    ),
    "wait_all": lambda executor, task: executor.wait_all(DEADLINE),
    "launch": lambda executor, task: executor.launch(),
    "submit and result": lambda executor, task: executor.submit(abs, -1).result(DEADLINE),
}
#: How a function gets onto a thread of the pool: as what a finalizer does that the collector runs
#: there.
PLACES = {
    "io": lambda pool, job: pool.post(job),
    "output": lambda pool, job: pool.output.thread.put(job),
    "start": lambda pool, job: pool.starter.thread.put(job),
}


def _on_pool_thread(executor, place, act):
    """Run ``act`` in a finalizer on a thread of the pool.

    Return what it has raised, and the seconds that it took.
    """
    found, done = [], threading.Event()

    class Garbage:
        pass

    def finalize():
        began = time.monotonic()
        try:
            act()
        except BaseException as error:
            found.append(error)
        else:
            found.append(None)
        found.append(time.monotonic() - began)
        done.set()

    garbage = Garbage()
    garbage.me = garbage
    weakref.finalize(garbage, finalize)
    holder = [garbage]
    del garbage

    def collect():
        holder.clear()
        gc.collect()

    gc.disable()
    try:
        PLACES[place](executor._pool, collect)
        assert done.wait(DEADLINE)
    finally:
        gc.enable()
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAITS)
def test_a_wait_on_a_thread_of_the_pool_raises_at_once(single, rendezvous, place, way):
    task = single.submit(arrive, rendezvous.address, "in")
    arrival = rendezvous.next()
    error, seconds = _on_pool_thread(single, place, lambda: WAITS[way](single, task))
    assert isinstance(error, RuntimeError), error
    assert "must not wait for a task" in str(error)
    assert "finalizer" in str(error)
    assert seconds < 1
    arrival.release()
    assert task.result(DEADLINE) == "in"
    assert single.submit(pow, 2, 5).result(DEADLINE) == 32


@pytest.mark.parametrize("place", PLACES)
def test_a_shutdown_in_a_finalizer_is_begun_and_not_waited_for(place):
    executor = CondaEnvExecutor(max_workers=1)
    task = executor.submit(pow, 2, 3)
    error, seconds = _on_pool_thread(executor, place, executor.shutdown)
    assert isinstance(error, RuntimeError)
    assert seconds < 1
    assert task.result(DEADLINE) == 8
    assert executor._pool.lifecycle.join(DEADLINE)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "act",
    [
        lambda executor, task: executor.submit(abs, -1),
        lambda executor, task: task.cancel(),
        lambda executor, task: executor.workers(),
        lambda executor, task: executor.get_progress(),
        lambda executor, task: executor.is_responsive(),
        lambda executor, task: executor.launch(wait=False),
        lambda executor, task: executor.map(abs, [1, 2]),
        lambda executor, task: task.done(),
    ],
    ids=["submit", "cancel", "workers", "get_progress", "is_responsive", "launch", "map", "done"],
)
def test_what_does_not_wait_is_allowed_in_a_finalizer(single, place, act):
    single.launch()
    task = single.submit(time.sleep, 0.2)
    error, seconds = _on_pool_thread(single, place, lambda: act(single, task))
    assert error is None
    assert seconds < 1
    task.wait_for(DEADLINE)
    assert single.submit(pow, 2, 5).result(DEADLINE) == 32


def test_another_pools_io_thread_must_not_wait_either(single, rendezvous):
    with CondaEnvExecutor(max_workers=1) as other:
        task = single.submit(arrive, rendezvous.address, "in")
        arrival = rendezvous.next()
        error, seconds = _on_pool_thread(other, "io", task.result)
        assert isinstance(error, RuntimeError)
        assert seconds < 1
        arrival.release()


class SelfAwaiting:
    """Waits, while it is unpickled, for the task whose result it is."""

    waits: list = []

    def __init__(self):
        self.way = ""

    def __setstate__(self, state):
        for wait_for in SelfAwaiting.waits:
            wait_for()


def make_self_awaiting():
    return _Made()


class _Made:
    def __reduce__(self):
        return _unpickled_here, ()


def _unpickled_here():
    for wait_for in list(SelfAwaiting.waits):
        wait_for()
    return "unpickled"


@pytest.mark.parametrize("what", ["task", "all", "another"])
def test_a_decoder_waits_for_any_task_but_its_own(single, what):
    single.launch()
    ready, errors = threading.Event(), []
    task: list[Task[object]] = []

    def attempt():
        assert ready.wait(DEADLINE)
        try:
            if what == "task":
                task[0].result()
            elif what == "all":
                single.wait_all()
            else:
                errors.append(single.submit(abs, -5).result(DEADLINE))
        except RuntimeError as error:
            errors.append(error)

    SelfAwaiting.waits[:] = [attempt]
    try:
        task.append(single.submit(make_self_awaiting))
        ready.set()
        assert task[0].result(DEADLINE) == "unpickled"
    finally:
        SelfAwaiting.waits.clear()
    if what == "another":
        assert errors == [5]
    else:
        assert "by this very thread" in str(errors[0])


def test_callbacks_may_wait(single):
    found: list[object] = []
    done = threading.Event()

    def callback(task):
        found.append(single.submit(abs, -7).result(DEADLINE))
        done.set()

    single.submit(time.sleep, 0.05).add_done_callback(callback)
    assert done.wait(DEADLINE)
    assert found == [7]


# -------------------------------------------------------------------------------------------- locks


#: Where the host's code makes, or takes in a block, a lock that more than one thread knows, and why
#: an exception on the main thread cannot leave it locked.
LOCKS = {
    "futures/standard.py: RLock": "the type of the lock of a Future's condition, which the "
    "standard library takes; ours only try it",
    "futures/standard.py: Condition": "for users who wait on a Future's condition themselves",
    "descriptors.py: RLock": "taken by threads of the pool, and by the hooks of a fork, in C",
    "threads.py: RLock": "taken by threads of the pool, and by the hooks of a fork, in C",
    "pool/fork_server.py: RLock": "taken by threads of the pool",
    "pool/polling.py: Semaphore": "taken by threads of the pool",
    "environment/locks.py: Event": "of one wait for a maker's lock; set by a daemon thread that "
    "ends "
    "with it, and that nothing waits for",
    **dict.fromkeys(
        [
            f"serialize/kinds.py: {kind}"
            for kind in ("RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
        ],
        "types of what a program may send to a worker; one RLock is made for its type, and not "
        "taken",
    ),
    "pool/spawn.py: with making": "as above",
    "descriptors.py: with making": "by the thread that starts workers, or one of its own "
    "(`threads.run_uninterrupted`)",
    "pool/polling.py: with descriptors.making": "by the I/O thread",
    "pool/fork_server.py: with descriptors.making": "by the thread that starts workers",
    "pool/fork_server.py: with self._collecting": "by the I/O thread and that one",
    "cli/mapping/reader.py: Semaphore": "released by the main thread, which takes no more items "
    "after an exception; the thread that reads is a daemon",
    "in_process/call.py: RLock": "taken by threads that run calls; by others with a time limit",
    "serialize/gc_threshold.py: with self._lock": "before Python 3.12 only, where no signal "
    "handler runs "
    "between ``__enter__`` of a lock and the first step of the block",
    "serialize/unpickler.py: with gc_threshold.raised": "no lock, but what takes the one above",
}

#: Names of locks, as a ``with`` statement shows them.
LOCKED = re.compile(r"lock\b|Lock|making|_collecting|gc_threshold")


def test_no_lock_that_an_exception_on_the_main_thread_could_leave_locked():
    """On CPython 3.14 a signal handler can raise between the return of a lock's ``__enter__`` and
    the first step of the block.
    """
    root = Path(wetlands_executor.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        name = str(path.relative_to(root))
        if name.partition("/")[0] in ("worker", "demo", "doctor"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in (
                "RLock",
                "Condition",
                "Semaphore",
                "BoundedSemaphore",
                "Event",
                "Barrier",
            ):
                if isinstance(node.value, ast.Name) and node.value.id == "threading":
                    found.add(f"{name}: {node.attr}")
            # A plain lock is made, and known, by one thread that waits; `with` is what shares one.
            if isinstance(node, ast.With) and any(
                LOCKED.search(ast.unparse(item.context_expr)) for item in node.items
            ):
                found.add(f"{name}: with {ast.unparse(node.items[0].context_expr)}")
    assert found == set(LOCKS)


def test_bare_threads_are_gone(single):
    """Those that only start another one."""
    single.submit(pow, 2, 3).result(DEADLINE)
    end = time.monotonic() + DEADLINE
    while _count() > threading.active_count() + 1:
        assert time.monotonic() < end
