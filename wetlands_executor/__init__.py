"""Run Python functions in worker processes of another conda (or any Python) environment.

``CondaEnvExecutor`` is a ``concurrent.futures.Executor``.
"""

from typing import TYPE_CHECKING

from wetlands_executor.environment import Environment
from wetlands_executor.errors import (
    ActivationError,
    DependencyFailed,
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
from wetlands_executor.pool.lines import printing_task
from wetlands_executor.pool.report import WorkerInfo
from wetlands_executor.sharedmem.share import share
from wetlands_executor.worker.current_task import RemoteTaskHandle, current_task

if TYPE_CHECKING:
    from wetlands_executor.environment.spec import EnvironmentSpec, PyPIOptions

__version__ = "0.1.0"

__all__ = [
    "ActivationError",
    "CallOptions",
    "CondaEnvExecutor",
    "DependencyFailed",
    "Environment",
    "EnvironmentNotFoundError",
    "EnvironmentSpec",
    "ExecutionException",
    "PyPIOptions",
    "RemoteTaskHandle",
    "ScriptExit",
    "SpecError",
    "Task",
    "TaskEvent",
    "TaskEventType",
    "TaskStatus",
    "TaskTimeoutError",
    "TasksFailed",
    "WetlandsExecutorError",
    "WorkerCrashed",
    "WorkerInfo",
    "WorkerStartError",
    "WorkerUnresponsive",
    "current_task",
    "printing_task",
    "share",
]


def __getattr__(name: str) -> object:
    """Import what describes environments when it is first used: most programs do without it."""
    if name in ("EnvironmentSpec", "PyPIOptions"):
        from wetlands_executor.environment import spec

        return getattr(spec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
