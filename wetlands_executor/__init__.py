"""Run Python functions in worker processes of another conda (or any Python) environment.

``CondaEnvExecutor`` is a ``concurrent.futures.Executor``. Each public name is imported from its
module when it is first used (PEP 562): ``--help``, completion and a task in a worker need few.
"""

from typing import TYPE_CHECKING

from wetlands_executor.environment import tasks as _tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from wetlands_executor.carried.call import CarriedCall, Carrier
    from wetlands_executor.carried.executor import (
        CarriedExecutor,
        packed_has_failed,
        packed_interpreter,
        submit_packed,
    )
    from wetlands_executor.default import get_default_executor, set_default_executor
    from wetlands_executor.environment import Environment
    from wetlands_executor.environment.creation_run import CreationPhase, CreationProgress
    from wetlands_executor.environment.spec import EnvironmentSpec, PyPIOptions
    from wetlands_executor.errors import (
        ActivationError,
        DependencyFailed,
        EnvironmentCreationError,
        EnvironmentInUseError,
        EnvironmentNotFoundError,
        ExecutionException,
        ScriptExit,
        SpecError,
        TasksFailed,
        TaskTimeoutError,
        WetlandsExecutorError,
        WorkerCrashed,
        WorkerStartError,
        WorkerUnresponsive,
    )
    from wetlands_executor.executor import CondaEnvExecutor
    from wetlands_executor.futures.events import TaskEventType
    from wetlands_executor.futures.future import Task, TaskEvent, TaskStatus
    from wetlands_executor.futures.options import CallOptions
    from wetlands_executor.futures.overview import Overview, RunningTask, WorkerInfo
    from wetlands_executor.in_process.executor import InProcessExecutor
    from wetlands_executor.pool.lines import printing_task
    from wetlands_executor.sharedmem.share import share
    from wetlands_executor.watching import Watch, ends_of, watch, watch_tasks
    from wetlands_executor.worker.current_task import RemoteTaskHandle, current_task
    from wetlands_executor.worker.task_controller import (
        TaskController,
        WorkerDefinition,
        get_task_controller,
        get_task_inputs,
    )

__version__ = "0.1.0"

__all__ = [
    "ActivationError",
    "CallOptions",
    "CarriedCall",
    "CarriedExecutor",
    "Carrier",
    "CondaEnvExecutor",
    "CreationPhase",
    "CreationProgress",
    "DependencyFailed",
    "Environment",
    "EnvironmentCreationError",
    "EnvironmentInUseError",
    "EnvironmentNotFoundError",
    "EnvironmentSpec",
    "ExecutionException",
    "InProcessExecutor",
    "Overview",
    "PyPIOptions",
    "RemoteTaskHandle",
    "RunningTask",
    "ScriptExit",
    "SpecError",
    "Task",
    "TaskController",
    "TaskEvent",
    "TaskEventType",
    "TaskStatus",
    "TaskTimeoutError",
    "TasksFailed",
    "Watch",
    "WetlandsExecutorError",
    "WorkerCrashed",
    "WorkerDefinition",
    "WorkerInfo",
    "WorkerStartError",
    "WorkerUnresponsive",
    "current_task",
    "ends_of",
    "get_default_executor",
    "get_task_controller",
    "get_task_inputs",
    "packed_has_failed",
    "packed_interpreter",
    "printing_task",
    "set_default_executor",
    "share",
    "submit_packed",
    "watch",
    "watch_tasks",
]

#: The modules of this package, each with the public names that are imported from it.
_PLACES = {
    "carried.call": ("CarriedCall", "Carrier"),
    "carried.executor": (
        "CarriedExecutor",
        "packed_has_failed",
        "packed_interpreter",
        "submit_packed",
    ),
    "default": ("get_default_executor", "set_default_executor"),
    "environment.creation_run": ("CreationPhase", "CreationProgress"),
    "environment.environment": ("Environment",),
    "environment.spec": ("EnvironmentSpec", "PyPIOptions"),
    "errors": (
        "ActivationError",
        "DependencyFailed",
        "EnvironmentCreationError",
        "EnvironmentInUseError",
        "EnvironmentNotFoundError",
        "ExecutionException",
        "ScriptExit",
        "SpecError",
        "TaskTimeoutError",
        "TasksFailed",
        "WetlandsExecutorError",
        "WorkerCrashed",
        "WorkerStartError",
        "WorkerUnresponsive",
    ),
    "executor": ("CondaEnvExecutor",),
    "futures.events": ("TaskEventType",),
    "futures.future": ("Task", "TaskEvent", "TaskStatus"),
    "futures.options": ("CallOptions",),
    "futures.overview": ("Overview", "RunningTask", "WorkerInfo"),
    "in_process.executor": ("InProcessExecutor",),
    "pool.lines": ("printing_task",),
    "sharedmem.share": ("share",),
    "watching": ("Watch", "ends_of", "watch", "watch_tasks"),
    "worker.current_task": ("RemoteTaskHandle", "current_task"),
    "worker.task_controller": (
        "TaskController",
        "WorkerDefinition",
        "get_task_controller",
        "get_task_inputs",
    ),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


if not TYPE_CHECKING:  # a type checker is to refuse any other name

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        place = _PLACE_OF.get(name)
        if place is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f"{__name__}.{place}"), name)
        return found


def __dir__() -> list[str]:
    """Return the names of the module, those included that are not imported yet."""
    return sorted({*globals(), *__all__})


def _start_creation(*arguments: object) -> object:
    from wetlands_executor import creation_tasks

    start: Callable[..., object] = creation_tasks.start
    return start(*arguments)


_tasks.provide(_start_creation)
