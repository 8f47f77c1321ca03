"""``TaskInstance``: one run of a definition, and the record that outlives its Task.

A record holds the Task until it has finished, then what there is to say of it; the result only if
that was asked for. The instance that a caller holds keeps the Task, and with it the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures.process import _RemoteTraceback
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from wetlands_executor import ExecutionException, RemoteTaskHandle, Task, TaskStatus

if TYPE_CHECKING:
    from typing_extensions import Self

#: The named output of a Task that holds the dict of ``TaskController.set_output``.
OUTPUT = "output"
#: Inputs of these types stay in the history as they are; of others their type's name stays.
PLAIN = (str, int, float, bool, type(None))
#: Characters of a text that stay in the history.
LONGEST_TEXT = 200


@dataclass(frozen=True)
class Facts:
    """What there is to say of a finished run."""

    status: TaskStatus
    progress: float
    message: str | None
    output: dict[str, Any]
    error: BaseException | None
    started_at: datetime | None
    finished_at: datetime | None


class Record:
    """One run of a definition, as the history keeps it.

    Args:
        task_id: of the definition.
        inputs: by name.
        keep_result: keep the Task, and so the result, as long as this record.
    """

    def __init__(self, task_id: str, inputs: Mapping[str, Any], keep_result: bool) -> None:
        #: Known once it has a Task.
        self.id = ""
        self.task_id = task_id
        self.inputs = dict(inputs)
        self.created_at = datetime.now(timezone.utc)
        self.keep_result = keep_result
        self.task: Task[Any] | None = None
        self.facts: Facts | None = None

    def begin(self, task: Task[Any]) -> None:
        """Take the Task."""
        # As the handle of the call says it, wherever that runs.
        self.id = RemoteTaskHandle(int(task.id)).instance_id
        self.task = task

    def finish(self, task: Task[Any]) -> None:
        """Take what there is to say of a finished Task, and let go of it unless it is kept."""
        self.facts = facts_of(task)
        if not self.keep_result:
            if self.facts.error is not None:
                # Frames would keep the arguments alive, and all that the function had.
                kept = without_frames(self.facts.error, task.traceback or ())
                self.facts = replace(self.facts, error=kept)
            self.inputs = {key: _shown(value) for key, value in self.inputs.items()}
            self.task = None


def without_frames(error: BaseException, lines: Iterable[str]) -> BaseException:
    """Return an exception like another one, whose traceback is text.

    Args:
        error: what a function has raised.
        lines: of its traceback.

    Returns:
        One of the same class, with the same message and attributes; of a class that does not let
        that be made, an ``ExecutionException`` that names it.
    """
    kind, text = type(error), "\n".join(lines)
    try:
        made: BaseException
        # An __init__ in C sets fields that are in no dictionary; one in Python may do anything.
        if isinstance(kind.__init__, type(BaseException.__init__)):
            made = copy(error)
        else:
            made = kind.__new__(kind, *error.args)
            vars(made).update(vars(error))
        same = (type(made), str(made)) == (kind, str(error))
    except Exception:  # noqa: BLE001 - the class is the user's
        same = False
    if not same:
        name, message = f"{kind.__module__}.{kind.__qualname__}", _message(error)
        made = ExecutionException(f"{name}: {message}", name, message, text.splitlines())
    make_cause: Any = _RemoteTraceback
    made.__cause__ = make_cause(f'\n"""\n{text}"""')
    return made


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the class is the user's
        return ""


def facts_of(task: Task[Any]) -> Facts:
    """Return what there is to say of a Task now."""
    failed = task.status is TaskStatus.FAILED
    output = task.outputs.get(OUTPUT)
    return Facts(
        status=task.status,
        progress=task.progress or 0.0,
        message=task.message,
        # A function may have reported another value of that name through its handle.
        output=dict(output) if isinstance(output, dict) else {},
        error=task.exception() if failed else None,
        started_at=_when(task.started_at),
        finished_at=_when(task.finished_at),
    )


class TaskInstance:
    """One run of a task definition. Made by calling the definition.

    Attributes:
        inputs: the arguments by name, defaults included; of a run in the history whose result was
            not kept, only numbers and short texts.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._task = record.task
        self.inputs: Mapping[str, Any] = record.inputs

    @property
    def id(self) -> str:
        """An identifier, unique across processes and machines."""
        return self._record.id

    @property
    def task_id(self) -> str:
        """The ``id`` of the definition."""
        return self._record.task_id

    @property
    def task(self) -> Task[Any] | None:
        """The Task beneath; None of a run in the history whose result was not kept."""
        return self._task

    @property
    def _facts(self) -> Facts:
        if self._task is not None:
            return facts_of(self._task)
        assert self._record.facts is not None
        return self._record.facts

    @property
    def status(self) -> TaskStatus:
        """The state."""
        return self._facts.status if self._task is None else self._task.status

    @property
    def progress(self) -> float:
        """What the function has reported, 0 to 1; 0.0 before the first report."""
        return self._facts.progress

    @property
    def message(self) -> str | None:
        """What ``set_status`` has reported last."""
        return self._facts.message

    @property
    def output(self) -> dict[str, Any]:
        """The last dict of ``set_output``; empty before the first."""
        return dict(self._facts.output)

    @property
    def result(self) -> Any:
        """What the function has returned; None unless the run is COMPLETED.

        Raises:
            LookupError: this is a run in the history, and its result was not kept.
        """
        if self.status is not TaskStatus.COMPLETED:
            return None
        if self._task is None:
            raise LookupError(
                f"the result of the task instance {self.id} was not kept: keep the instance that "
                f"the call has returned, or define the task with keep_results=True"
            )
        return self._task.value

    @property
    def error(self) -> BaseException | None:
        """What the function has raised; None unless the run has FAILED."""
        return self._facts.error

    @property
    def created_at(self) -> datetime:
        """When the run was asked for."""
        return self._record.created_at

    @property
    def started_at(self) -> datetime | None:
        """When the function began; None before."""
        return self._facts.started_at

    @property
    def finished_at(self) -> datetime | None:
        """When the run ended; None before."""
        return self._facts.finished_at

    def is_done(self) -> bool:
        """Return True if the run has ended."""
        return self.status.is_finished()

    def stop(self) -> bool:
        """Ask the run to stop; see ``Task.cancel``. True if it will not run, and never did."""
        return self._task is not None and self._task.cancel()

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the run has ended, however; return this.

        Args:
            timeout: seconds to wait; None waits without limit.

        Raises:
            TimeoutError: the time is over (the run goes on).
        """
        if self._task is not None:
            self._task.wait_for(timeout)
        return self

    def get_progress(self) -> float:
        """Return ``progress``."""
        return self.progress

    def get_status(self) -> TaskStatus:
        """Return ``status``."""
        return self.status

    def get_output(self) -> dict[str, Any]:
        """Return ``output``."""
        return self.output

    def __repr__(self) -> str:
        return f"<TaskInstance {self.id} of {self.task_id!r} {self.status.value}>"


def _when(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)


def _shown(value: Any) -> Any:
    """Return an input as the history keeps it."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "..."
    return value if isinstance(value, PLAIN) else f"<{type(value).__name__}>"


#: Called with a record when its Task has finished.
Finished = Callable[[Record], object]
