"""Run Python functions in worker processes of another conda (or any Python) environment.

``CondaEnvExecutor`` is a ``concurrent.futures.Executor``.
"""

from typing import TYPE_CHECKING

from wetlands_executor.environment import Environment
from wetlands_executor.environment import tasks as _tasks
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
from wetlands_executor.pool.lines import printing_task
from wetlands_executor.sharedmem.share import share
from wetlands_executor.watching import Watch, watch, watch_tasks
from wetlands_executor.worker.current_task import RemoteTaskHandle, current_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from wetlands_executor.default import get_default_executor, set_default_executor
    from wetlands_executor.environment.creation_run import CreationPhase, CreationProgress
    from wetlands_executor.environment.spec import EnvironmentSpec, PyPIOptions
    from wetlands_executor.in_process.executor import InProcessExecutor
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
    "get_default_executor",
    "get_task_controller",
    "get_task_inputs",
    "printing_task",
    "set_default_executor",
    "share",
    "watch",
    "watch_tasks",
]


#: Where names are that most programs do without: imported when they are first used.
_LATE = {
    "CreationPhase": "environment.creation_run",
    "CreationProgress": "environment.creation_run",
    "EnvironmentSpec": "environment.spec",
    "InProcessExecutor": "in_process.executor",
    "PyPIOptions": "environment.spec",
    "TaskController": "worker.task_controller",
    "WorkerDefinition": "worker.task_controller",
    "get_default_executor": "default",
    "get_task_controller": "worker.task_controller",
    "get_task_inputs": "worker.task_controller",
    "set_default_executor": "default",
}


def __getattr__(name: str) -> object:
    """Import what few programs need when it is first used."""
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f"wetlands_executor.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _start_creation(*arguments: object) -> object:
    from wetlands_executor import creation_tasks

    start: Callable[..., object] = creation_tasks.start
    return start(*arguments)


_tasks.provide(_start_creation)
