"""What is defined in this process, and what has run: definitions by id, instances by id.

Invariant: every instance that runs is listed; of those that have ended the last ``HISTORY``.

Entered by any thread. No lock, which an exception of a signal handler could leave locked (CPython
3.14): each step on a dictionary is one call of C code.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from wetlands_executor.tasks.instance import Record, TaskInstance

if TYPE_CHECKING:
    from wetlands_executor import Task

#: Ended instances that are remembered.
HISTORY = 1000


class TaskInstanceNotFoundError(LookupError):
    """No instance of that id runs, or is in the history."""


class Definition(Protocol):
    """A ``TaskDefinition``, as the registry knows it."""

    @property
    def id(self) -> str:
        """By which it is found."""
        ...

    @property
    def source(self) -> str:
        """What is run, as text."""
        ...


class Registry:
    """Definitions and instances.

    Args:
        history: how many ended instances are remembered.
    """

    def __init__(self, history: int = HISTORY) -> None:
        self._history = history
        self._definitions: dict[str, Any] = {}
        self._active: dict[str, Record] = {}
        self._ended: dict[str, Record] = {}
        # The ids of those, oldest first.
        self._order: deque[str] = deque()
        self._instances: WeakValueDictionary[str, TaskInstance] = WeakValueDictionary()

    # --- definitions

    def register(self, definition: Definition) -> None:
        """Add a definition; see ``register_task``."""
        known = self._definitions.setdefault(definition.id, definition)
        if known.source != definition.source:
            raise ValueError(
                f"the task id {definition.id!r} belongs to {known.source} already: give "
                f"{definition.source} another one, task(id=...)"
            )
        self._definitions[definition.id] = definition

    def definition(self, task_id: str) -> Any:
        """Return a definition by its id."""
        found = self._definitions.get(task_id)
        if found is None:
            known = sorted(self._definitions.copy())
            raise LookupError(
                f"there is no task definition {task_id!r}; there are: {', '.join(known) or 'none'}"
            )
        return found

    def definitions(self) -> list[Any]:
        """Return all, in the order in which they were registered."""
        return list(self._definitions.copy().values())

    # --- instances

    def begin(self, record: Record, task: Task[Any]) -> TaskInstance:
        """Add a run; return its instance."""
        record.begin(task)
        instance = TaskInstance(record)
        self._instances[record.id] = instance
        self._active[record.id] = record
        task.add_done_callback(lambda done: self._finish(record, done))  # type: ignore[arg-type]
        return instance

    def _finish(self, record: Record, task: Task[Any]) -> None:
        record.finish(task)
        # Order: a thread that looks meanwhile finds it in one of the two.
        self._ended[record.id] = record
        self._order.append(record.id)
        self._active.pop(record.id, None)
        while len(self._order) > self._history:
            try:
                oldest = self._order.popleft()
            except IndexError:
                return  # another thread was faster
            self._ended.pop(oldest, None)

    def instance(self, instance_id: str) -> TaskInstance:
        """Return an instance by its id."""
        record = self._active.get(instance_id) or self._ended.get(instance_id)
        found = self._instances.get(instance_id)
        if found is None and record is not None:
            # Race: two threads that ask for one that is kept nowhere may get an object each.
            found = self._instances.setdefault(instance_id, TaskInstance(record))
        if found is None:
            raise TaskInstanceNotFoundError(
                f"there is no task instance {instance_id!r}: it was never started in this process, "
                f"or more than {self._history} have ended since"
            )
        return found

    def instances(self, task_id: str | None = None) -> list[TaskInstance]:
        """Return those in the history and those that run, oldest first."""
        # Order: an instance that ends meanwhile is in one of the two at least.
        active = self._active.copy()
        records = list({**active, **self._ended.copy()}.values())
        records.sort(key=lambda record: record.created_at)
        found = []
        for record in records:
            if task_id is None or record.task_id == task_id:
                try:
                    found.append(self.instance(record.id))
                except TaskInstanceNotFoundError:
                    continue  # it has left the history meanwhile
        return found


registry = Registry()


def get_task_instance(instance_id: str) -> TaskInstance:
    """Return an instance by its id: one that runs, or one of the last 1000 that have ended.

    Raises:
        TaskInstanceNotFoundError: there is none.
    """
    return registry.instance(instance_id)


def list_task_instances(task_id: str | None = None) -> list[TaskInstance]:
    """Return the instances that run and the last 1000 that have ended, oldest first.

    Args:
        task_id: of one definition only.
    """
    return registry.instances(task_id)


def stop_task_instance(instance_id: str) -> bool:
    """Ask an instance to stop; True if it will not run, and never did.

    Raises:
        TaskInstanceNotFoundError: there is none.
    """
    return registry.instance(instance_id).stop()


def wait_for_completion(instance: TaskInstance, timeout: float | None = None) -> TaskInstance:
    """Wait until an instance has ended, however; return it.

    Args:
        instance: what to wait for.
        timeout: seconds to wait; None waits without limit.

    Raises:
        TimeoutError: the time is over (the instance goes on).
    """
    return instance.wait(timeout)
