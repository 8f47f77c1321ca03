"""One definition as a process of its own: ``python -m wetlands_executor.tasks run MODULE:NAME``.

For platforms that start, watch and stop processes. The function runs in the main thread; states go
as lines of JSON to a descriptor. SIGTERM asks it to stop.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetlands_executor import InProcessExecutor, TaskStatus
from wetlands_executor.tasks.command import CommandRun
from wetlands_executor.tasks.definition import TaskDefinition
from wetlands_executor.tasks.instance import OUTPUT
from wetlands_executor.tasks.protocol import PREFIX, state_line

if TYPE_CHECKING:
    from wetlands_executor import Task, TaskEvent

#: Exit codes: COMPLETED, FAILED, refused before the start, CANCELED.
COMPLETED, FAILED, REFUSED, CANCELED = 0, 1, 2, 3
_CODES = {
    TaskStatus.COMPLETED: COMPLETED,
    TaskStatus.FAILED: FAILED,
    TaskStatus.CANCELED: CANCELED,
}


class StateWriter:
    """Writes the states of a task, one line each.

    Args:
        identifier: of the task, for the platform.
        fd: where lines go; None: to stdout, behind ``PREFIX``.
    """

    def __init__(self, identifier: str, fd: int | None) -> None:
        self._identifier = identifier
        self._fd = fd
        #: What the task has reported so far.
        self._known: dict[str, Any] = {"progress": 0.0}

    def write(self, status: str, **more: Any) -> None:
        """Write one state."""
        state = {"id": self._identifier, "time": time.time(), "status": status, **more}
        line = state_line(state)
        if self._fd is None:
            sys.stdout.write(PREFIX + line)
            sys.stdout.flush()
            return
        data = line.encode()
        while data:
            data = data[os.write(self._fd, data) :]

    def on_event(self, event: TaskEvent) -> None:
        """Write the state of a task at an event of it."""
        task: Task[Any] = event.task
        if event.current is not None and event.maximum:
            self._known["progress"] = min(max(event.current / event.maximum, 0.0), 1.0)
        if event.message is not None:
            self._known["message"] = event.message
        if OUTPUT in event.outputs:
            self._known["output"] = event.outputs[OUTPUT]
        status = task.status if event.type.is_terminal else TaskStatus.RUNNING
        more: dict[str, Any] = {}
        if status is TaskStatus.COMPLETED:
            more["result"] = task.value
        elif status is TaskStatus.FAILED:
            more["error"], more["traceback"] = task.error, task.traceback
        self.write(status.value, **self._known, **more)


def load(target: str) -> TaskDefinition[Any, Any]:
    """Return the definition that ``MODULE:NAME`` or ``FILE.py:NAME`` names.

    Raises:
        ValueError: the text names none.
        ImportError, AttributeError, FileNotFoundError: it cannot be found.
    """
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise ValueError(f"{target!r} is no target: write MODULE:NAME or FILE.py:NAME")
    if where.endswith(".py"):
        path = Path(where).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"{where!r}: there is no file {path}")
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, TaskDefinition):
        raise ValueError(f"{target!r} is {found!r}, and no task definition: put @task above it")
    return found


def state_descriptor(given: int | None, variables: Mapping[str, str]) -> int | None:
    """Return the descriptor to which states go; None is stdout.

    Raises:
        ValueError: there is no such descriptor; the message names the option or the variable.
    """
    text = variables.get("WETLANDS_TASK_STATE_FD", "") if given is None else str(given)
    if not text:
        return None
    try:
        os.fstat(int(text))
    except (ValueError, OSError, OverflowError):
        where = "the variable WETLANDS_TASK_STATE_FD" if given is None else "--state-fd"
        raise ValueError(
            f"{where} is {text!r}, which is no open descriptor of this process: pass it on "
            f"(pass_fds of subprocess)"
        ) from None
    return int(text)


def read_inputs(variables: Mapping[str, str], stdin: str | None) -> dict[str, Any]:
    """Return the inputs of the process.

    Args:
        variables: of the process.
        stdin: what was read there; None if nothing was to be read.

    Raises:
        ValueError: they are no JSON object.
    """
    text = variables.get("WETLANDS_TASK_INPUTS", "") if stdin is None else stdin
    where = "the variable WETLANDS_TASK_INPUTS" if stdin is None else "stdin"
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"{where} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where} must be a JSON object, {{...}}, not {text[:80]!r}")
    return found


def run(definition: TaskDefinition[Any, Any], inputs: dict[str, Any], writer: StateWriter) -> int:
    """Run a definition in this thread; return the exit code."""
    options = {"name": definition.name, **definition.options, "start": False}
    function: Any = definition.func
    if definition.command is not None:
        grace = options.pop("cancel_grace", None)
        words = tuple(definition.command)
        function = CommandRun(definition.id, words, definition.env, definition.executor, grace)
        inputs = {**definition.defaults, **inputs}
        logger = logging.getLogger(f"wetlands_executor.tasks.{definition.id}")
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.setLevel(logging.INFO)
    with InProcessExecutor(0) as executor:
        task = executor.options(**options).submit(function, **inputs)
        task.listen(writer.on_event)
        signal.signal(signal.SIGTERM, lambda _signal, _frame: task.cancel())
        try:
            task.start()
        except KeyboardInterrupt:
            pass  # its Task has it, and it is the last state
    return _CODES[task.status]


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wetlands_executor.tasks")
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("run", help="run one task definition as this process")
    one.add_argument("target", metavar="MODULE:NAME", help="or FILE.py:NAME")
    one.add_argument("--stdin", action="store_true", help="read the inputs from stdin")
    one.add_argument("--state-fd", type=int, help="descriptor for the states; else stdout")
    given = parser.parse_args(arguments)
    variables = os.environ
    try:
        fd = state_descriptor(given.state_fd, variables)
    except ValueError as error:
        print(f"wetlands_executor.tasks: {error}", file=sys.stderr)
        return REFUSED
    writer = StateWriter(variables.get("WETLANDS_TASK_ID") or uuid.uuid4().hex, fd)
    try:
        inputs = read_inputs(variables, sys.stdin.read() if given.stdin else None)
        definition = load(given.target)
        definition.bind((), inputs)
    except Exception as error:  # noqa: BLE001 - importing the module is user code
        message = f"{type(error).__name__}: {error}"
        print(f"wetlands_executor.tasks: {message}", file=sys.stderr)
        writer.write("failed", error=message)
        return REFUSED
    return run(definition, inputs, writer)
