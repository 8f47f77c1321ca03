"""What a running task of ``wetlands_executor.tasks`` knows and says of itself.

Works in a worker, in a thread of the host, and in a process that a platform or a command definition
has started with the variables below: there reports are lines of JSON. Entered by any thread of the
task.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

from .current_task import current_task

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional

#: Of a process that is a task: its id (which says that it is one), the inputs as a JSON object, and
#: the descriptor to which lines of JSON go; without that they go to stdout, behind ``PREFIX``.
ID, INPUTS, STATE_FD = "WETLANDS_TASK_ID", "WETLANDS_TASK_INPUTS", "WETLANDS_TASK_STATE_FD"
#: Begins a line on stdout that is a report.
PREFIX = "@task "
#: The named output of a Task that holds the dict of ``set_output``.
OUTPUT = "output"
#: Tasks whose own ``request_stop`` is remembered.
_REMEMBERED = 1000
_asked: Dict[str, None] = {}


class TaskController:
    """The running task, as its function steers it. Made by ``get_task_controller``."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        """The ``id`` of the ``TaskInstance``; in a process that is a task, the platform's."""
        return str(self._handle.instance_id)

    @property
    def should_stop(self) -> bool:
        """True once the task was asked to stop, by ``stop()`` or by ``request_stop``."""
        return self._handle.id in _asked or bool(self._handle.cancel_requested)

    def request_stop(self) -> None:
        """Ask the task to stop from inside: ``should_stop`` is True from now on."""
        while len(_asked) >= _REMEMBERED:
            _asked.pop(next(iter(_asked)), None)
        _asked[self._handle.id] = None

    def set_progress(self, progress: float) -> None:
        """Report progress, from 0 to 1."""
        self._handle.update(current=progress, maximum=1)

    def set_status(self, status: Any) -> None:
        """Report what is being done, as text.

        Args:
            status: the text; or a ``TaskStatus``, of which CANCELED says that the task stops as it
                was asked to: it is CANCELED when its function returns.
        """
        text = getattr(status, "value", status)
        if text == "canceled" and text is not status:
            self._handle.cancel()
        self._handle.update(str(text))

    def set_output(self, output: Dict[str, Any]) -> None:
        """Report a dict, which replaces the last one.

        Raises:
            TypeError: it is no dict.
        """
        if not isinstance(output, dict):
            raise TypeError("the output must be a dict, not %r" % (output,))
        self._handle.set_output(OUTPUT, dict(output))

    def __repr__(self) -> str:
        return "<TaskController of task %s>" % (self.id or "(ended)")


class ProcessHandle:
    """The handle of a process that is a task; reports are lines of JSON.

    Attributes:
        id, instance_id: from the variable.
        inputs: from the variable.
    """

    def __init__(self, variables: Any) -> None:
        import json

        self._dumps: Callable[[Any], str] = json.dumps
        self.id: str = variables[ID]
        self.instance_id = self.id
        self.inputs: Dict[str, Any] = json.loads(variables.get(INPUTS) or "{}")
        fd = variables.get(STATE_FD)
        self._fd: Optional[int] = int(fd) if fd else None
        # Guards the order of lines of several threads, and what follows.
        self._lock = allocate_lock()
        self._current: Any = None
        self._maximum: Any = None
        self._stopped = False
        self._watching = False

    @property
    def cancel_requested(self) -> bool:
        """True once the process has got SIGTERM.

        The first look takes the signal over, if it is still Python's default and this is the main
        thread: a program that never looks is ended by it.
        """
        if not self._watching:
            self._watching = True
            import signal

            try:
                if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                    signal.signal(signal.SIGTERM, self._on_signal)
            except ValueError:
                self._watching = False  # not the main thread, which may look later
        return self._stopped

    def _on_signal(self, _signal: int, _frame: Any) -> None:
        self._stopped = True

    def cancel(self) -> None:
        """Say that the task stops as it was asked to."""
        self._write({"status": "canceled"})

    def update(
        self, message: Optional[str] = None, *, current: Any = None, maximum: Any = None
    ) -> None:
        """Report progress; what is None stays as it was."""
        report: Dict[str, Any] = {}
        if message is not None:
            report["message"] = str(message)
        if current is not None:
            self._current = current
        if maximum is not None:
            self._maximum = maximum
        if self._current is not None and self._maximum:
            report["progress"] = float(self._current / self._maximum)
        self._write(report)

    def set_output(self, key: str, value: Any) -> None:
        """Report an output."""
        self._write({key: value})

    def _write(self, report: Dict[str, Any]) -> None:
        line = self._dumps(report) + "\n"
        with self._lock:
            if self._fd is not None:
                os.write(self._fd, line.encode())
            else:
                sys.stdout.write(PREFIX + line)
                sys.stdout.flush()


_process: Any = None


def _handle_here() -> Any:
    """Return the handle of the running task; None if the calling code works for none."""
    global _process  # a fact about this process
    handle = current_task()
    if handle.id:
        return handle
    if os.environ.get(ID):
        if _process is None:
            _process = ProcessHandle(os.environ)
        return _process
    return None


def get_task_controller() -> TaskController:
    """Return the controller of the running task.

    Raises:
        RuntimeError: the calling code does not run in a task.
    """
    handle = _handle_here()
    if handle is None:
        raise RuntimeError(
            "get_task_controller() was called outside a task: call the function through its task "
            "definition (train(...), not train.local(...)), or set the variable %s" % ID
        )
    return TaskController(handle)


def get_task_inputs() -> Dict[str, Any]:
    """Return the inputs of the running task by name, those with defaults included.

    Raises:
        RuntimeError: the calling code does not run in a task.
    """
    handle = _handle_here()
    if handle is None:
        raise RuntimeError("get_task_inputs() was called outside a task")
    if isinstance(handle, ProcessHandle):
        return dict(handle.inputs)
    runner = handle._live()
    return {} if runner is None else dict(runner.inputs(True))


class WorkerDefinition:
    """What a task definition is inside a worker: a plain function, which cannot be submitted."""

    def __init__(self, id: str, name: str, func: Any, command: Any = None) -> None:  # noqa: A002
        self.id = id
        self.name = name
        self.func = func
        self.command = command
        self.__wrapped__ = func

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.func(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: no task can be started from inside a worker yet."""
        raise RuntimeError(
            "the task %r was started inside a worker, which cannot start tasks: call %s.local(...) "
            "to run it as a plain function" % (self.name, self.name)
        )

    submit = map = __call__

    def __repr__(self) -> str:
        return "<WorkerDefinition %r>" % self.id


def task(function: Any = None, **options: Any) -> Any:
    """Stand in for ``wetlands_executor.tasks.task`` where that package is not installed."""
    if function is None and "command" not in options:
        return lambda function: task(function, **options)
    name = str(options.get("name") or getattr(function, "__name__", "command"))
    module = getattr(function, "__module__", "")
    return WorkerDefinition("%s:%s" % (module, name), name, function, options.get("command"))
