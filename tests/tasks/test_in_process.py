"""What is particular to ``InProcessExecutor``: the calling thread, objects, functions that go on.

What it has in common with ``CondaEnvExecutor`` is tested by the other files (``both.py``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.observe import until
from tests.support.rendezvous import DEADLINE
from wetlands_executor import (
    CondaEnvExecutor,
    InProcessExecutor,
    RemoteTaskHandle,
    Task,
    TaskStatus,
    TaskTimeoutError,
    current_task,
)


@pytest.fixture(params=[0, 1], ids=["caller", "thread"])
def executor(request: pytest.FixtureRequest) -> Iterator[InProcessExecutor]:
    """One that runs calls in the calling thread, and one with a thread."""
    with InProcessExecutor(request.param) as executor:
        yield executor


class Endless:
    """A function that waits for the end of its task, and says when it is there."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.stop = threading.Event()
        self.ended = threading.Event()

    def __call__(self, *, look: bool = False) -> str:
        if look:
            current_task().on_cancel(self.stop.set)  # type: ignore[attr-defined]
        self.began.set()
        try:
            self.stop.wait(DEADLINE)
        finally:  # an interrupt may arrive first
            self.ended.set()
        return "stopped"


def test_objects_are_passed_as_they_are(executor: InProcessExecutor) -> None:
    lock = threading.Lock()
    assert executor.submit(lambda given: given, lock).result(DEADLINE) is lock
    error = LookupError("mine")

    def fail() -> None:
        raise error

    task = executor.submit(fail).wait_for(DEADLINE)
    assert task.exception() is error
    assert task.traceback is not None
    assert "raise error" in "".join(task.traceback)
    assert not any("/in_process/" in line for line in task.traceback), "not the library's lines"


def test_who_runs_it(executor: InProcessExecutor) -> None:
    caller = executor.max_workers == 0
    task = executor.submit(threading.get_ident)
    assert (task.result(DEADLINE) == threading.get_ident()) is caller
    assert task.worker_pid == os.getpid()
    assert executor.worker_count == executor.max_workers
    if caller:
        assert executor.submit(int).done(), "submit returns when the call has finished"


def test_every_method_is_called_as_that_of_the_other_executor() -> None:
    def methods(kind: type) -> dict[str, list[tuple[str, object, object]]]:
        return {
            name: [
                (each.name, each.kind, each.default)
                for each in inspect.signature(value).parameters.values()
            ]
            for name, value in vars(kind).items()
            if not name.startswith("_") and inspect.isfunction(value)
        }

    assert methods(InProcessExecutor) == methods(CondaEnvExecutor)


def test_calls_inside_calls_of_the_calling_thread() -> None:
    with InProcessExecutor(0) as executor:

        def outer(number: int) -> int:
            first = executor.submit(lambda: number)
            return executor.submit(lambda value: value + 1, first).result(DEADLINE)

        assert list(executor.map(outer, range(3))) == [1, 2, 3]
        with pytest.raises(RuntimeError, match="wait for itself"):
            executor.submit(executor.shutdown).result(DEADLINE)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)


def test_ctrl_c_reaches_the_caller_and_the_task() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with InProcessExecutor(0) as executor:
        task = executor.options(start=False).submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            task.start()
        assert isinstance(task.exception(), KeyboardInterrupt)


def test_a_long_chain_of_dependants_in_any_order_of_ends(executor: InProcessExecutor) -> None:
    first = executor.options(start=False).submit(int)
    last: Task[int] = first
    for _ in range(3 * sys.getrecursionlimit() // 2):
        last = executor.submit(lambda value: value + 1, last)
    assert last.result(DEADLINE) == 3 * sys.getrecursionlimit() // 2


def test_a_dependency_in_another_executor(executor: InProcessExecutor) -> None:
    """The thread that settles it belongs to that pool, and runs no task of this one."""
    with CondaEnvExecutor(max_workers=1) as other:
        task = executor.submit(
            lambda value: (value, threading.current_thread().name), other.submit(int, 5)
        )
        value, thread = task.result(DEADLINE)
        assert value == 5
        assert not thread.startswith("wetlands-io")
        assert other.submit(pow, task, 2).exception(DEADLINE) is not None, "a tuple has no power"


def test_a_time_limit_ends_the_task_and_leaves_the_thread_behind() -> None:
    function = Endless()
    with InProcessExecutor(1) as executor:
        task = executor.options(timeout=0.05).submit(function)
        error = task.wait_for(DEADLINE).exception()
        assert isinstance(error, TaskTimeoutError)
        assert f'File "{__file__}", line' in error.stacks
        assert "in_process/call.py" not in error.stacks, "not the library's own lines"
        assert executor.submit(pow, 2, 3).result(DEADLINE) == 8, "by another thread"
        assert executor.worker_count == 1
        function.stop.set()
        assert function.ended.wait(DEADLINE)
    assert task.status is TaskStatus.FAILED, "whatever the function returned later"


def test_a_limit_asks_the_function_to_stop_and_interrupts_it() -> None:
    seen: list[object] = []
    done = threading.Event()

    def busy() -> None:
        try:
            while True:
                pass
        except KeyboardInterrupt:
            seen.append(current_task().cancel_requested)
            done.set()

    with InProcessExecutor(1) as executor:
        task = executor.options(timeout=0.05).submit(busy)
        assert isinstance(task.exception(DEADLINE), TaskTimeoutError)
        assert done.wait(DEADLINE)
    assert seen == [True]


def test_the_grace_of_a_cancellation_interrupts() -> None:
    began = threading.Event()

    def busy() -> None:
        began.set()
        while True:
            pass

    with InProcessExecutor(1, cancel_grace=0.05) as executor:
        task = executor.submit(busy)
        assert began.wait(DEADLINE)
        assert task.cancel() is False
        assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
        assert "interrupted" in str(task.error)
        assert executor.submit(int).result(DEADLINE) == 0


def test_an_interrupt_never_leaves_its_call() -> None:
    """Calls as long as the grace: many interrupts arrive around their end."""
    with InProcessExecutor(1, cancel_grace=0.001) as executor:
        states = set()
        for number in range(200):
            task = executor.submit(lambda count: sum(range(count)), 500 * number)
            neighbour = executor.submit(int)
            task.cancel()
            assert neighbour.result(DEADLINE) == 0
            states.add(task.wait_for(DEADLINE).status)
        assert states <= {TaskStatus.COMPLETED, TaskStatus.CANCELED}


def test_the_stacks_of_functions_that_run() -> None:
    """Frames of a running thread must not be walked in Python: that has crashed CPython 3.11."""

    def count(number: int) -> int:
        return sum(each for each in range(number))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with InProcessExecutor(2, task_timeout=0.002) as executor:
            tasks = [executor.submit(count, 2000 * number) for number in range(300)]
            for task in tasks:
                error = task.wait_for(DEADLINE).exception()
                assert error is None or isinstance(error, TaskTimeoutError)
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("how", ["cancel", "kill", "before"])
def test_on_cancel_wakes_a_function_that_blocks(how: str) -> None:
    function = Endless()
    with InProcessExecutor(1) as executor:
        if how == "before":
            function.began.wait = lambda _timeout: True  # type: ignore[method-assign]
            held = Endless()
            executor.submit(held)
            assert held.began.wait(DEADLINE)
            task = executor.submit(function, look=True)
            assert task.cancel() is True
            held.stop.set()
            return
        task = executor.submit(function, look=True)
        assert function.began.wait(DEADLINE)
        getattr(task, how)()
        assert function.ended.wait(DEADLINE)
        task.wait_for(DEADLINE)
        assert task.status is (TaskStatus.COMPLETED if how == "cancel" else TaskStatus.CANCELED)


def test_the_handle(executor: InProcessExecutor) -> None:
    kept: list[RemoteTaskHandle] = []

    def function(count: int, task: RemoteTaskHandle) -> int:
        kept.append(task)
        assert current_task() is task
        task.update("half", current=count, maximum=2 * count)
        task.set_output("lock", lock)
        return count

    lock = threading.Lock()
    done = executor.submit(function, 4).wait_for(DEADLINE)
    assert (done.value, done.progress, done.message, done.outputs) == (
        4,
        0.5,
        "half",
        {"lock": lock},
    )
    kept[0].update("late")
    assert done.message == "half", "the handle is inert"
    assert not kept[0].cancel_requested
    assert current_task().id == ""


def test_an_async_function(executor: InProcessExecutor) -> None:
    async def add(left: int, right: int) -> int:
        await asyncio.sleep(0)
        return left + right

    assert executor.submit(add, 1, 2).result(DEADLINE) == 3

    async def main() -> int:
        async with InProcessExecutor(1) as other:
            return await other.submit(add, 3, 4)

    assert asyncio.run(main()) == 7


def test_targets_are_imported_here(executor: InProcessExecutor, tmp_path: Path) -> None:
    file = tmp_path / "target_of_in_process.py"
    file.write_text(
        "import os\nSEEN = []\ndef see(x):\n    SEEN.append(x)\n    return SEEN, os.getpid()\n"
    )
    try:
        executor.submit(f"{file}:see", 1).result(DEADLINE)
        assert executor.submit(f"{file}:see", 2).result(DEADLINE) == ([1, 2], os.getpid())
        module = executor.import_module(file)
        assert module.SEEN == [1, 2]
        assert module.see(3)[0] is module.SEEN
    finally:
        sys.modules.pop("target_of_in_process", None)
        sys.path[:] = [path for path in sys.path if path != str(tmp_path)]
    with pytest.raises(FileNotFoundError):
        executor.submit(str(tmp_path / "missing.py:see"))
    with pytest.raises(NotImplementedError, match="CondaEnvExecutor"):
        executor.submit_script(file)


def test_an_initializer_that_fails_breaks_it(executor: InProcessExecutor) -> None:
    with InProcessExecutor(executor.max_workers, initializer=pow, initargs=("x",)) as broken:
        task = broken.submit(int)
        assert "The initializer raised TypeError" in str(task.exception(DEADLINE))
        with pytest.raises(RuntimeError, match="initializer"):
            broken.submit(int)


def test_shutdown_in_time(executor: InProcessExecutor) -> None:
    with InProcessExecutor(2) as other:
        function, second = Endless(), Endless()
        tasks = [other.submit(one, look=True) for one in (function, second)]
        waiting = other.submit(int)
        assert function.began.wait(DEADLINE)
        assert second.began.wait(DEADLINE)
        other.shutdown(timeout=0.05)
    assert waiting.cancelled()
    assert "timeout" in str(waiting.error)
    assert [task.value for task in tasks] == ["stopped", "stopped"]


def test_kill_workers_gives_up_what_runs() -> None:
    function = Endless()
    executor = InProcessExecutor(1)
    task, waiting = executor.submit(function), executor.submit(int)
    assert function.began.wait(DEADLINE)
    executor.kill_workers()
    executor.shutdown()
    assert (task.status, waiting.status) == (TaskStatus.CANCELED, TaskStatus.CANCELED)
    function.stop.set()
    assert function.ended.wait(DEADLINE)


def test_the_view_from_outside() -> None:
    function = Endless()
    with InProcessExecutor(1) as executor:
        task = executor.options(name="first").submit(function)
        waiting = executor.submit(int)
        assert function.began.wait(DEADLINE)
        progress = executor.get_progress()
        assert (progress["total"], progress["running"], progress["queued"]) == (2, 1, 1)
        assert [entry["state"] for entry in progress["tasks"]] == ["running", "pending"]
        (worker,) = executor.workers()
        assert (worker.pid, worker.state, worker.task) == (os.getpid(), "busy", "first")
        assert executor.get_task(task.id) is task
        assert executor.get_task(waiting.id) is waiting
        function.stop.set()
        assert executor.wait_all(DEADLINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "the calling thread"),
        (("1",), "integer"),
        ((True,), "integer"),
        ((1, 5), "callable"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        InProcessExecutor(*arguments)  # type: ignore[arg-type]


def test_a_program_that_ends_while_a_function_goes_on(host: Callable[..., object]) -> None:
    """A thread that was left behind does not keep the interpreter."""
    program = host("in_process_left_behind")
    code, out, err = program.finish(DEADLINE)  # type: ignore[attr-defined]
    assert (code, out.split(), err) == (0, ["FAILED", "8"], "")


def test_tracing_works_after_an_interrupt_was_removed():
    """A flag of the interpreter that stays set lets CPython 3.11 hang in a traced function."""
    program = (
        "import sys\n"
        "from wetlands_executor.in_process.call import remove_interrupt\n"
        "remove_interrupt()\n"
        "def traced():\n    return 7\n"
        "sys.settrace(lambda *_: None)\n"
        "print(traced())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("7\n", "")


BLOCKED = """
import sys, threading
from wetlands_executor import InProcessExecutor

began, held, ended, seen = threading.Event(), threading.Lock(), threading.Event(), []
held.acquire()

def block():
    began.set()
    try:
        held.acquire()
        while True:
            pass
    except KeyboardInterrupt:
        seen.append("interrupted")
    finally:
        ended.set()

def traced():
    return 7

with InProcessExecutor(1) as executor:
    task = executor.submit(block)
    began.wait()
    task.kill()
    sys.settrace(lambda *_: None)
    print(traced())
    sys.settrace(None)
    held.release()
    ended.wait()
    print(task.status.value, *seen)
"""


def test_an_interrupt_of_a_function_that_blocks_leaves_other_threads_alone() -> None:
    """The flag of the interpreter is taken down at once; the interrupt arrives after the C code."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("7\ncanceled interrupted\n", "")


def _waits() -> dict[str, Callable[[Task[int]], object]]:
    async def awaits(task: Task[int]) -> int:
        return await task

    async def events(task: Task[int]) -> int:
        return [event async for event in task.events()][-1].task.value  # type: ignore[no-any-return]

    return {
        "result": lambda task: task.result(),
        "exception": lambda task: task.exception(),
        "wait_for": lambda task: task.wait_for().value,
        "wait": lambda task: concurrent.futures.wait([task]),
        "as_completed": lambda task: list(concurrent.futures.as_completed([task])),
        "await": awaits,
        "events": events,
    }


@pytest.mark.parametrize("how", [*_waits(), "map", "map unordered"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_task_that_waits_for_another_one_lends_its_thread(how: str, threads: int) -> None:
    """Fewer threads than tasks that wait: each in a task of the same executor."""
    depth = 5
    with InProcessExecutor(threads) as executor:

        def down(left: int) -> object:
            if not left:
                return 7
            if how.startswith("map"):
                return list(executor.map(down, [left - 1], ordered="unordered" not in how))
            task = executor.submit(down, left - 1)
            found = _waits()[how](task)
            return asyncio.run(found) if asyncio.iscoroutine(found) else found

        tasks = [executor.submit(down, depth) for _ in range(3)]
        for task in tasks:
            task.result(DEADLINE)
        assert executor.submit(int).result(DEADLINE) == 0
    assert executor.worker_count == 0


def test_a_hundred_tasks_wait_inside_each_other_and_the_threads_end_again() -> None:
    with InProcessExecutor(1) as executor:

        def down(left: int) -> int:
            return executor.submit(down, left - 1).result(DEADLINE) + 1 if left else 0

        assert executor.submit(down, 100).result(DEADLINE) == 100
        # Those that are too many end when they have nothing to do.
        until(lambda: executor.worker_count == 1, DEADLINE)
        assert len(executor.workers()) == 1


def test_one_thread_runs_one_task_that_does_not_wait() -> None:
    """While no task waits, the number of threads is what it was."""
    most, now, lock = [0], [0], threading.Lock()
    with InProcessExecutor(2) as executor:

        def leaf() -> None:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            sum(range(2000))
            with lock:
                now[0] -= 1

        def parent() -> None:
            for task in [executor.submit(leaf) for _ in range(5)]:
                task.result(DEADLINE)

        for task in [executor.submit(parent) for _ in range(20)]:
            task.result(DEADLINE)
    assert 1 <= most[0] <= 2


def test_a_task_cannot_wait_for_itself(executor: InProcessExecutor) -> None:
    box: list[Task[object]] = []
    known = threading.Event()

    def alone() -> object:
        known.wait(DEADLINE)
        return box[0].result()

    error = executor.submit(executor.wait_all).exception(DEADLINE)
    assert "wait for itself" in str(error)
    if executor.max_workers:
        box.append(executor.submit(alone))
        known.set()
        assert "cannot wait for itself" in str(box[0].exception(DEADLINE))


@pytest.mark.parametrize("count", [2, 3])
def test_tasks_cannot_wait_for_each_other(count: int) -> None:
    """In a ring, and each in another executor."""
    tasks: list[Task[object]] = []
    known = threading.Event()

    def one(number: int) -> object:
        known.wait(DEADLINE)
        return tasks[(number + 1) % count].result()

    with ExitStack() as stack:
        executors = [stack.enter_context(InProcessExecutor(1)) for _ in range(count)]
        tasks += [each.submit(one, number) for number, each in enumerate(executors)]
        known.set()
        errors = [task.exception(DEADLINE) for task in tasks]
    assert all(isinstance(error, RuntimeError) for error in errors)
    assert all("which waits for it" in str(error) for error in errors)


def test_a_task_cannot_wait_for_one_that_depends_on_it() -> None:
    tasks: list[Task[object]] = []
    known = threading.Event()

    def first() -> object:
        known.wait(DEADLINE)
        return tasks[-1].result()

    with InProcessExecutor(1) as executor:
        tasks.append(executor.submit(first))
        tasks += [executor.submit(lambda value: value, tasks[-1])]
        tasks += [executor.submit(lambda value: value, tasks[-1])]
        known.set()
        assert "which waits for it" in str(tasks[0].exception(DEADLINE))


def test_tasks_wait_for_each_other_with_a_limit() -> None:
    """Such a wait ends, and then the other one does."""
    tasks: list[Task[object]] = []
    known = threading.Event()

    def patient() -> object:
        known.wait(DEADLINE)
        return tasks[1].result()

    def impatient() -> object:
        known.wait(DEADLINE)
        with pytest.raises(TimeoutError):
            tasks[0].result(0.05)
        return "done"

    with InProcessExecutor(1) as executor:
        tasks += [executor.submit(patient), executor.submit(impatient)]
        known.set()
        assert tasks[0].result(DEADLINE) == "done"


def test_a_task_that_is_given_up_while_it_waits() -> None:
    blocked = Endless()
    with InProcessExecutor(1) as executor:
        task = executor.submit(lambda: executor.submit(blocked).result())
        assert blocked.began.wait(DEADLINE)
        task.kill()
        assert task.wait_for(DEADLINE).status is TaskStatus.CANCELED
        blocked.stop.set()
        assert executor.submit(int).result(DEADLINE) == 0
        until(lambda: executor.worker_count == 1, DEADLINE)
