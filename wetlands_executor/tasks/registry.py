"""What is defined in this process, and what has run: definitions by id, instances by id.

Invariant: every instance that runs is listed; of those that have ended the last ``HISTORY``.
Entered by any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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
        # Guards the four; nothing but dictionaries is used under it. Reentrant: the collector may
        # run a finalizer here that asks for an instance.
        self._lock = threading.RLock()
        self._definitions: dict[str, Any] = {}
        self._active: dict[str, Record] = {}
        self._ended: OrderedDict[str, Record] = OrderedDict()
        self._instances: WeakValueDictionary[str, TaskInstance] = WeakValueDictionary()

    # --- definitions

    def register(self, definition: Definition) -> None:
        """Add a definition; see ``register_task``."""
        with self._lock:
            known = self._definitions.get(definition.id)
            if known is not None and known.source != definition.source:
                raise ValueError(
                    f"the task id {definition.id!r} belongs to {known.source} already: give "
                    f"{definition.source} another one, task(id=...)"
                )
            self._definitions[definition.id] = definition

    def definition(self, task_id: str) -> Any:
        """Return a definition by its id."""
        with self._lock:
            found = self._definitions.get(task_id)
            known = sorted(self._definitions)
        if found is None:
            raise LookupError(
                f"there is no task definition {task_id!r}; there are: {', '.join(known) or 'none'}"
            )
        return found

    def definitions(self) -> list[Any]:
        """Return all, in the order in which they were registered."""
        with self._lock:
            return list(self._definitions.values())

    # --- instances

    def begin(self, record: Record, task: Task[Any]) -> TaskInstance:
        """Add a run; return its instance."""
        record.begin(task)
        instance = TaskInstance(record)
        with self._lock:
            self._active[record.id] = record
            self._instances[record.id] = instance
        task.add_done_callback(lambda done: self._finish(record, done))  # type: ignore[arg-type]
        return instance

    def _finish(self, record: Record, task: Task[Any]) -> None:
        record.finish(task)
        with self._lock:
            self._active.pop(record.id, None)
            self._ended[record.id] = record
            while len(self._ended) > self._history:
                self._ended.popitem(last=False)

    def instance(self, instance_id: str) -> TaskInstance:
        """Return an instance by its id."""
        with self._lock:
            record = self._active.get(instance_id) or self._ended.get(instance_id)
            found = self._instances.get(instance_id)
            if found is None and record is not None:
                found = self._instances[instance_id] = TaskInstance(record)
        if found is None:
            raise TaskInstanceNotFoundError(
                f"there is no task instance {instance_id!r}: it was never started in this process, "
                f"or more than {self._history} have ended since"
            )
        return found

    def instances(self, task_id: str | None = None) -> list[TaskInstance]:
        """Return those in the history and those that run, oldest first."""
        with self._lock:
            records = [*self._ended.values(), *self._active.values()]
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
