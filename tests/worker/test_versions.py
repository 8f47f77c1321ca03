"""The executor from end to end, with a worker of every Python from 3.8 on."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.managers import SyncManager
from pathlib import Path

import pytest

from tests.support.interpreters import Interpreter
from tests.worker import workload
from tests.worker.conftest import DEADLINE
from wetlands_executor import (
    CondaEnvExecutor,
    ExecutionException,
    ScriptExit,
    WorkerCrashed,
    current_task,
)

Write = Callable[[str, str], Path]


def test_it_runs_there(executor: CondaEnvExecutor, python: Interpreter) -> None:
    """In that interpreter, in another process."""
    assert executor.submit(workload.version).result(DEADLINE) == python.version
    assert executor.submit(os.getpid).result(DEADLINE) == executor.workers()[0].pid != os.getpid()


def test_importable_functions(executor: CondaEnvExecutor) -> None:
    """Of the standard library, builtins and the project; positional and keyword arguments."""
    assert executor.submit(math.sqrt, 16).result(DEADLINE) == 4
    assert executor.submit(os.path.join, "a", "b").result(DEADLINE) == os.path.join("a", "b")
    assert executor.submit(int, "ff", base=16).result(DEADLINE) == 255
    assert executor.submit(workload.echo, 1, task=2, fn=3, self=4).result(DEADLINE) == (
        (1,),
        {"task": 2, "fn": 3, "self": 4},
    )
    assert executor.submit(workload.thing, 5).result(DEADLINE) == workload.Thing(5)
    assert list(executor.map(pow, [1, 2, 3], [2, 2, 2], timeout=DEADLINE)) == [1, 4, 9]


def test_targets(executor: CondaEnvExecutor, write: Write) -> None:
    """A function named by its module, or by its file, which is shipped by content and anew when it
    has changed.
    """
    assert executor.submit("math:sqrt", 9).result(DEADLINE) == 3
    assert executor.submit("os.path:join", "a", "b").result(DEADLINE) == os.path.join("a", "b")
    write("neighbour_of_target.py", "NAME = 'neighbour'\n")
    text = (
        "import neighbour_of_target\ndef where():\n    return __file__, neighbour_of_target.NAME, "
        "{}\n"
    )
    path = write("target_of_test.py", text.format(1))
    assert executor.submit(f"{path}:where").result(DEADLINE) == (str(path), "neighbour", 1)
    path.write_text(text.format(2))
    assert executor.submit(f"{path}:where").result(DEADLINE) == (str(path), "neighbour", 2)


def test_targets_that_lead_nowhere(executor: CondaEnvExecutor) -> None:
    """The error says which environment looked."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here") as caught:
        executor.submit("no_such_module_here:f").result(DEADLINE)
    assert "environment" in str(caught.value)
    with pytest.raises(AttributeError, match="no_such_function"):
        executor.submit("math:no_such_function").result(DEADLINE)


def test_an_async_function_of_a_file(executor: CondaEnvExecutor, write: Write) -> None:
    """Runs to its end."""
    path = write(
        "asynchronous.py",
        "import asyncio\nasync def main(x):\n    await asyncio.sleep(0)\n    return x + 1\n",
    )
    assert executor.submit(f"{path}:main", 41).result(DEADLINE) == 42
    assert executor.submit(workload.coroutine, "project").result(DEADLINE) == "project"


def test_errors_keep_type_and_traceback(executor: CondaEnvExecutor) -> None:
    """The remote lines are the cause; nothing of the worker's own machinery is in them."""
    with pytest.raises(ValueError, match="^bad luck$") as caught:
        executor.submit(workload.fail, "bad luck").result(DEADLINE)
    lines = str(caught.value.__cause__)
    assert "workload.py" in lines
    assert "raise ValueError(message)" in lines
    assert "_wetlands_worker" not in lines
    with pytest.raises(workload.Unfit) as unfit:
        executor.submit(workload.fail_unfit, 3, "detail").result(DEADLINE)
    assert (unfit.value.code, unfit.value.detail) == (3, "detail")


def test_an_error_that_only_the_worker_knows(executor: CondaEnvExecutor, write: Write) -> None:
    """Its class cannot be imported here: type, message and lines arrive all the same."""
    path = write(
        "own_error.py", "class Own(Exception):\n    pass\ndef f():\n    raise Own('mine')\n"
    )
    with pytest.raises(Exception, match="mine") as caught:
        executor.submit(f"{path}:f").result(DEADLINE)
    if isinstance(caught.value, ExecutionException):
        assert caught.value.type_name.endswith("Own")
        assert caught.value.exception == "mine"
        assert any("raise Own" in line for line in caught.value.traceback)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_errors_that_would_end_a_process_are_the_tasks_own(
    executor: CondaEnvExecutor, error: type[BaseException], write: Write
) -> None:
    """The worker goes on."""
    before = executor.submit(os.getpid).result(DEADLINE)
    path = write(f"ends_{error.__name__}.py", f"def f():\n    raise {error.__name__}(3)\n")
    with pytest.raises(error):
        executor.submit(f"{path}:f").result(DEADLINE)
    assert executor.submit(os.getpid).result(DEADLINE) == before


def test_prints_precede_the_result(
    executor: CondaEnvExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole lines, on the stream that they were written to."""
    executor.submit(workload.shout, "out ä 🎉\nno end", "err\n").result(DEADLINE)
    printed = capsys.readouterr()
    assert printed.out == "out ä 🎉\nno end\n"
    assert printed.err == "err\n"


def test_standard_input_is_at_its_end(executor: CondaEnvExecutor) -> None:
    """A task cannot wait for a keyboard that it does not have."""
    with pytest.raises(EOFError):
        executor.submit(workload.standard_input).result(DEADLINE)


def test_scripts(
    executor: CondaEnvExecutor, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``python script.py args`` would run it; what it changes in ``sys`` is put back."""
    write("helper_of_script.py", "VALUE = 'from the helper'\n")
    path = write(
        "script_of_test.py",
        "import sys, helper_of_script\nprint(__name__, sys.argv[1:], helper_of_script.VALUE)\n",
    )
    assert executor.submit_script(path, ["a", "b"]).result(DEADLINE) is None
    assert capsys.readouterr().out == "__main__ ['a', 'b'] from the helper\n"
    leaves = write("leaves.py", "import sys\nprint('why', file=sys.stderr)\nsys.exit(4)\n")
    with pytest.raises(ScriptExit) as caught:
        executor.submit_script(leaves).result(DEADLINE)
    assert (caught.value.code, caught.value.stderr) == (4, "why")
    assert (
        executor.submit_script(write("ends.py", "import sys\nsys.exit()\n")).result(DEADLINE)
        is None
    )


def test_modules(executor: CondaEnvExecutor, write: Write) -> None:
    """A stand-in for a module that this process never imports."""
    path = write(
        "module_of_test.py",
        "SCALE = 3\ndef scale(x, by=SCALE):\n    return x * by\nclass Box:\n    pass\n",
    )
    module = executor.import_module(str(path))
    assert module.scale(2) == 6
    assert module.scale.submit(2, by=5).result(DEADLINE) == 10
    assert list(module.scale.map([1, 2])) == [3, 6]
    assert module.SCALE == 3
    assert {"scale", "SCALE", "Box"} <= set(dir(module))
    with pytest.raises(AttributeError, match="missing"):
        _ = module.missing
    assert "module_of_test" not in sys.modules
    assert executor.import_module("math").floor(2.5) == 2


def test_a_function_by_value(executor: CondaEnvExecutor) -> None:
    """Runs there, whatever its bytecode; ``tests/portable`` has all the cases."""
    offset = 40
    assert executor.submit(lambda x: x + offset, 2).result(DEADLINE) == 42
    (back,), _keywords = executor.submit(workload.echo, lambda: offset).result(DEADLINE)
    assert back() == 40
    assert list(executor.map(lambda x: x + offset, range(3))) == [40, 41, 42]


def test_an_initializer_by_value(python: Interpreter) -> None:
    """Pickled before any worker has said which Python it is."""
    name, value = "WETLANDS_OF_TEST", "set"

    def setup() -> None:
        os.environ[name] = value

    with CondaEnvExecutor(str(python.path), max_workers=1, initializer=setup) as executor:
        assert executor.submit(os.getenv, name).result(DEADLINE) == value


def test_a_module_that_imports_this_package_loads_where_it_is_not_installed(
    executor: CondaEnvExecutor, write: Write
) -> None:
    """``current_task`` works there, the rest exists until it is used."""
    path = write(
        "uses_the_package.py",
        "from wetlands_executor import CondaEnvExecutor, Task, current_task\n"
        "import wetlands_executor\n"
        "def f():\n"
        "    task = current_task()\n"
        "    return bool(task.id), task.cancel_requested, task.should_stop()\n",
    )
    assert executor.submit(f"{path}:f").result(DEADLINE) == (True, False, False)


def test_nothing_of_ours_is_imported_there(python: Interpreter) -> None:
    """Neither the host's half nor a cloudpickle: a fresh worker has the standard library only."""
    with CondaEnvExecutor(str(python.path), max_workers=1) as executor:
        assert executor.submit(workload.loaded).result(DEADLINE) == []


def test_current_task_is_inert_here() -> None:
    """The same function runs under pytest."""
    task = current_task()
    assert task.id == ""
    assert not task.cancel_requested
    assert not task.should_stop()


def test_multiprocessing_inside_a_task(python: Interpreter) -> None:
    """With forks of the worker, and with children that start anew.

    Neither is believed to be the worker, and all end with it.
    """
    with CondaEnvExecutor(str(python.path), max_workers=1) as executor:
        assert executor.submit(workload.pooled, [1, 2, 3]).result(DEADLINE) == [1, 4, 9]
        assert executor.submit(workload.spawned, [4]).result(DEADLINE) == [16]
        assert executor.submit(abs, -1).result(DEADLINE) == 1


def test_manager_proxies_as_arguments(executor: CondaEnvExecutor, manager: SyncManager) -> None:
    """The worker has the host's key."""
    queue = manager.Queue()
    there = executor.submit(workload.put, queue, "hello").result(DEADLINE)
    assert queue.get(timeout=DEADLINE) == "hello"
    assert there != os.getpid()


def test_an_idle_worker_ignores_ctrl_c(executor: CondaEnvExecutor) -> None:
    """It may reach the whole process group."""
    pid = executor.submit(os.getpid).result(DEADLINE)
    os.kill(pid, signal.SIGINT)
    assert executor.submit(os.getpid).result(DEADLINE) == pid


def test_a_signal_interrupts_the_running_call_only(
    executor: CondaEnvExecutor, tmp_path: Path
) -> None:
    """As KeyboardInterrupt; the worker and the calls behind it go on."""
    fifo, answer = tmp_path / "fifo", tmp_path / "answer"
    os.mkfifo(fifo)
    os.mkfifo(answer)
    task = executor.submit(workload.wait_for, str(fifo), str(answer))
    behind = executor.submit(abs, -1)
    pid = int(fifo.read_text())
    os.kill(pid, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        task.result(DEADLINE)
    assert behind.result(DEADLINE) == 1
    assert executor.submit(os.getpid).result(DEADLINE) == pid


def test_logging_of_the_host_is_not_touched(
    executor: CondaEnvExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """A record of the worker is handled here once, under its own name.

    Handlers and levels stay what they are.
    """
    handlers, level = list(logging.root.handlers), logging.root.level
    with caplog.at_level(logging.WARNING):
        executor.submit(workload.log, "some.library", "told once").result(DEADLINE)
    assert [
        (record.name, record.getMessage())
        for record in caplog.records
        if "told once" in record.getMessage()
    ] == [("some.library", "told once")]
    assert (list(logging.root.handlers), logging.root.level) == (handlers, level)


def test_commands_of_a_task_do_not_inherit_the_pipes(executor: CondaEnvExecutor) -> None:
    """They would keep them open."""
    assert executor.submit(workload.descriptors_are_closed_on_exec).result(DEADLINE) == []


def test_a_crash_costs_one_task(python: Interpreter) -> None:
    """The next one gets a new worker."""
    with CondaEnvExecutor(str(python.path), max_workers=1) as executor:
        first = executor.submit(os.getpid).result(DEADLINE)
        crash = executor.submit(os._exit, 3)
        behind = executor.submit(os.getpid)
        with pytest.raises(WorkerCrashed) as caught:
            crash.result(DEADLINE)
        assert caught.value.exit_code == 3
        assert behind.result(DEADLINE) != first


def test_threads_of_a_task_do_not_disturb_the_next(executor: CondaEnvExecutor) -> None:
    """The caller's threads are here, the worker's there."""
    before = threading.active_count()
    tasks = [executor.submit(workload.echo, number) for number in range(200)]
    assert [task.result(DEADLINE)[0][0] for task in tasks] == list(range(200))
    assert threading.active_count() <= before
