"""Task definitions with real processes: workers, commands, and processes of their own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import interpreters
from tests.support.recorder import Recorder
from tests.support.rendezvous import DEADLINE
from tests.tasks import definitions
from wetlands_executor import (
    CondaEnvExecutor,
    ScriptExit,
    TaskStatus,
    TaskTimeoutError,
    set_default_executor,
    tasks,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def single(make: Callable[..., CondaEnvExecutor]) -> Iterator[CondaEnvExecutor]:
    """One worker, which is the default executor too."""
    executor = make(1)
    set_default_executor(executor)
    yield executor
    set_default_executor(None)


@pytest.fixture
def command() -> Iterator[Callable[..., tasks.TaskDefinition[..., None]]]:
    """Define a command that is a Python program; what is made for it ends with the test."""

    def define(program: str, *words: str, **options: Any) -> tasks.TaskDefinition[..., None]:
        options.setdefault("env", sys.prefix)
        return tasks.task(command=[sys.executable, "-c", program, *words], **options)

    yield define
    tasks.shutdown()


def wait_for_message(instance: tasks.TaskInstance, message: str) -> None:
    """Wait until a task has reported a message."""
    recorder = Recorder()
    assert instance.task is not None
    instance.task.listen(recorder)
    if instance.message != message:
        recorder.wait(lambda event: event.message == message)


# ------------------------------------------------------------------------------------------ workers


def test_a_run_in_a_worker(single: CondaEnvExecutor) -> None:
    instance = definitions.train(3, key="x").wait(DEADLINE)
    inputs, name, pid, identifier = instance.result
    assert identifier == instance.id
    assert tasks.get_task_instance(identifier) is instance
    assert inputs == instance.inputs == {"epochs": 3, "rate": 0.5, "key": "x"}
    assert (name, pid != os.getpid()) == ("train", True)
    assert (instance.progress, instance.message, instance.output) == (1.0, "epoch 3", {"epoch": 3})
    failed = definitions.fail().wait(DEADLINE)
    assert isinstance(failed.error, LookupError)
    dependant = definitions.train(definitions.train.func and 2, rate=definitions.train(1))
    assert dependant.wait(DEADLINE).result[0]["rate"][1] == "train"
    # The module of the definitions, imported there.
    assert single.submit(definitions.untouched, 5).result(DEADLINE)[0] == 5


@pytest.mark.parametrize("acknowledge", [True, False])
def test_stopping_a_run_in_a_worker(single: CondaEnvExecutor, acknowledge: bool) -> None:
    instance = definitions.wait_for_stop(acknowledge=acknowledge)
    wait_for_message(instance, "ready")
    assert tasks.stop_task_instance(instance.id) is False
    expected = TaskStatus.CANCELED if acknowledge else TaskStatus.COMPLETED
    assert instance.wait(DEADLINE).status is expected


def test_where_the_package_is_not_installed() -> None:
    """A module that defines tasks is imported there, and its functions run."""
    other = interpreters.another_of_this_version()
    if other is None:
        pytest.skip("no second environment with this version of Python")
    with CondaEnvExecutor(str(other.path), 1) as executor:
        made = tasks.TaskDefinition("there", "there", definitions.train.func, executor=executor)
        assert made(1).wait(DEADLINE).result[0] == {"epochs": 1, "rate": 0.5}
        assert executor.submit(definitions.untouched, 5).result(DEADLINE) == (
            5,
            "WorkerDefinition",
            "local",
        )


# ----------------------------------------------------------------------------------------- commands

REPORTS = """
import sys
print("hello", *sys.argv[1:])
print('@task {"progress": 0.25, "message": "quarter", "output": {"loss": 1}}')
print('@task {"output": {"loss": 0.5}}', flush=True)
print("@task {", file=sys.stderr)
"""


def test_a_command(command: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    made = command(REPORTS, "{who}", "--rate={rate}", id="reporting", defaults={"rate": 0.1})
    with caplog.at_level(logging.INFO, "wetlands_executor.tasks"):
        instance = made(who="a b; $HOME").wait(DEADLINE)
    assert (instance.status, instance.result) == (TaskStatus.COMPLETED, None)
    assert (instance.progress, instance.message) == (0.25, "quarter")
    assert instance.output == {"loss": 0.5}
    assert instance.inputs == {"rate": 0.1, "who": "a b; $HOME"}
    lines = [(record.name, record.getMessage()) for record in caplog.records]
    assert ("wetlands_executor.tasks.reporting", "hello a b; $HOME --rate=0.1") in lines
    assert any("a report of the command 'reporting' is wrong" in line for _, line in lines)


def test_a_command_that_fails_or_is_not_there(command: Callable[..., Any]) -> None:
    failed = command("import sys; print('last words'); sys.exit(4)", id="failing")()
    error = failed.wait(DEADLINE).error
    assert isinstance(error, ScriptExit)
    assert (error.code, error.stderr) == (4, "last words")
    missing = tasks.task(command=["no-such-command-here"], env=sys.prefix)()
    assert isinstance(missing.wait(DEADLINE).error, FileNotFoundError)


TREE = """
import signal, subprocess, sys, time
ignore = sys.argv[1] == "ignore"
if ignore:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\nprint('up', flush=True)\\ntime.sleep(600)"],
    stdout=subprocess.PIPE)
child.stdout.readline()
print('@task {"message": "up", "output": {"pid": %d}}' % child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["polite", "ignore"])
def test_stopping_a_command_ends_its_tree(command: Callable[..., Any], how: str) -> None:
    instance = command(TREE, "{how}", id=f"tree-{how}", cancel_grace=0.2)(how=how)
    wait_for_message(instance, "up")
    child = psutil.Process(instance.output["pid"])
    parent = child.parent()
    assert instance.stop() is False
    assert instance.wait(DEADLINE).status is TaskStatus.CANCELED
    _, alive = psutil.wait_procs([child, parent], timeout=DEADLINE)
    assert not alive


ORPHAN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('@task {"message": "up", "output": {"pid": %d}}' % child.pid, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there a process does not know its orphans")
def test_stopping_a_command_that_has_left_a_child(command: Callable[..., Any]) -> None:
    """The child has its output, so the run goes on when the command itself has ended."""
    instance = command(ORPHAN, id="orphan")()
    wait_for_message(instance, "up")
    child = psutil.Process(instance.output["pid"])
    assert instance.stop() is False
    assert instance.wait(DEADLINE).status is TaskStatus.CANCELED
    _, alive = psutil.wait_procs([child], timeout=DEADLINE)
    assert not alive


DEEP = """
import os, subprocess, sys
program = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
left = [
    subprocess.Popen([sys.executable, "-c", program], start_new_session=apart)
    for apart in (False, True)
]
print('@task {"message": "up", "output": {"pids": %s}}' % [one.pid for one in left], flush=True)
left[0].wait()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="trees are found in /proc")
@pytest.mark.parametrize("how", ["plain", "forked", "as a process"])
def test_a_command_ends_when_its_host_is_killed(how: str, tmp_path: Path) -> None:
    """The whole tree, sessions of its own included, although all of it ignores SIGTERM."""
    (tmp_path / "deep.py").write_text(
        "import sys\nfrom wetlands_executor.tasks import task\n"
        f"made = task(command=[sys.executable, '-c', {DEEP!r}], env=sys.prefix)\n"
    )
    program = """
import os, sys, time
from deep import made
instance = made()
while instance.message != "up":
    time.sleep(0.01)
if "forked" in sys.argv and os.fork() == 0:
    time.sleep(600)                 # it has inherited all descriptors
print(instance.output, flush=True)
time.sleep(600)
"""
    words = ["-c", program, how] if how != "as a process" else [
        "-m", "wetlands_executor.tasks", "run", "deep:made"
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as host:  # fmt: skip
        assert host.stdout is not None
        told = next(line for line in host.stdout if "pids" in line)
        pids = [int(pid) for pid in re.findall(r"\d+", told.split("pids")[1].split("]")[0])]
        children = psutil.Process(host.pid).children(recursive=True)
        host.kill()
    assert len(pids) == 2
    children = [one for one in children if not is_fork_of(one, host.args)]
    assert {one.pid for one in children} >= set(pids)
    try:
        _, alive = psutil.wait_procs(children, timeout=DEADLINE)
        assert not alive
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(host.pid, signal.SIGKILL)  # the child of the fork


def is_fork_of(process: psutil.Process, arguments: Any) -> bool:
    try:
        return process.cmdline() == list(arguments)
    except psutil.Error:
        return False


def test_no_guard_is_left(command: Callable[..., Any]) -> None:
    # Executors of other tests may have workers.
    before = set(psutil.Process().children(recursive=True))
    command("", id="short")().wait(DEADLINE)
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_command_in_a_child_of_a_fork() -> None:
    program = """
import os, sys
from wetlands_executor.tasks import task
made = task(command=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], env=sys.prefix)
for where in "parent", "child":
    print(where, made().wait(30).error, flush=True)
    if where == "parent" and os.fork():
        break
else:
    os._exit(0)
os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["parent", "child"]
    assert all(line.endswith("exit code -9 (SIGKILL)") for line in lines)


def test_the_time_limit_of_a_command_ends_it(command: Callable[..., Any]) -> None:
    instance = command("import time; time.sleep(600)", id="slow", timeout=0.2)()
    assert isinstance(instance.wait(DEADLINE).error, TaskTimeoutError)


USES_VARIABLES = """
from wetlands_executor.tasks import get_task_controller, get_task_inputs
import time
controller = get_task_controller()
controller.set_output(get_task_inputs())
assert not controller.should_stop
controller.set_status("ready")
while not controller.should_stop:
    time.sleep(0.002)
controller.set_status(type("Status", (), {"value": "canceled"}))
"""


def test_a_command_that_uses_the_library(command: Callable[..., Any]) -> None:
    instance = command(USES_VARIABLES, "{a}", id="with variables")(a=[1, "two"])
    wait_for_message(instance, "ready")
    assert instance.output == {"a": [1, "two"]}
    instance.stop()
    assert instance.wait(DEADLINE).status is TaskStatus.CANCELED


# ------------------------------------------------------------------------------------ own processes


class Process:
    """``python -m wetlands_executor.tasks run ...`` and the states that it writes."""

    def __init__(self, *arguments: str, stdin: str = "", **variables: str) -> None:
        states, write = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "wetlands_executor.tasks", "run", *arguments, "--state-fd",
                str(write),
            ],
            cwd=ROOT,
            env={**os.environ, **variables},
            pass_fds=[write],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        os.close(write)
        self.lines = open(states)  # noqa: SIM115 - closed by `end`
        assert self.process.stdin is not None
        self.process.stdin.write(stdin)
        self.process.stdin.close()
        self.process.stdin = None

    def end(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the exit code and the states that were not read."""
        last_resort = threading.Timer(DEADLINE, self.process.kill)
        last_resort.start()
        with self.lines:
            states = [json.loads(line) for line in self.lines]
        self.process.communicate()
        last_resort.cancel()
        last_resort.join()
        return self.process.returncode, states


def test_a_definition_as_a_process() -> None:
    given = json.dumps({"epochs": 2, "key": "x"})
    variables = {"WETLANDS_TASK_INPUTS": given, "WETLANDS_TASK_ID": "mine"}
    one = Process("tests.tasks.definitions:train", **variables)
    other = Process(f"{ROOT}/tests/tasks/definitions.py:train", "--stdin", stdin='{"epochs": 1}')
    failing = Process("tests.tasks.definitions:fail")
    code, states = one.end()
    assert code == 0
    assert {state["id"] for state in states} == {"mine"}
    last = states[-1]
    assert (last["status"], last["progress"], last["message"]) == ("completed", 1.0, "epoch 2")
    assert last["output"] == {"epoch": 2}
    assert last["result"][:2] == [{"epochs": 2, "rate": 0.5, "key": "x"}, "train"]
    assert last["result"][2] == one.process.pid
    code, states = other.end()
    assert (code, states[-1]["result"][0]) == (0, {"epochs": 1, "rate": 0.5})
    code, states = failing.end()
    assert (code, states[-1]["status"]) == (1, "failed")
    assert states[-1]["error"] == "LookupError: on purpose"
    assert "raise LookupError" in "".join(states[-1]["traceback"])


def test_stopping_a_process() -> None:
    process = Process("tests.tasks.definitions:wait_for_stop")
    for line in process.lines:
        if json.loads(line).get("message") == "ready":
            break
    process.process.terminate()
    code, states = process.end()
    assert (code, states[-1]["status"]) == (3, "canceled")


@pytest.mark.parametrize(
    ("target", "inputs", "message"),
    [
        ("tests.tasks.definitions:train", "{}", "missing a required argument: 'epochs'"),
        ("tests.tasks.definitions:untouched", "{}", "no task definition"),
        ("tests.tasks.definitions:train", "[]", "JSON object"),
    ],
)
def test_what_a_process_refuses(target: str, inputs: str, message: str) -> None:
    code, states = Process(target, WETLANDS_TASK_INPUTS=inputs).end()
    assert (code, states[0]["status"]) == (2, "failed")
    assert message in states[0]["error"]
