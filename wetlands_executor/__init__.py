"""Run Python functions in worker processes of another conda (or any Python) environment, as a ``concurrent.futures.Executor``."""

from wetlands_executor.environment import Environment
from wetlands_executor.errors import (
    ActivationError,
    EnvironmentNotFoundError,
    ExecutionException,
    WetlandsExecutorError,
    WorkerCrashed,
    WorkerStartError,
)
from wetlands_executor.executor import CondaEnvExecutor, WorkerInfo
from wetlands_executor.task import Task, TaskStatus
from wetlands_executor.worker.context import RemoteTaskHandle, current_task

__version__ = "0.1.0"

__all__ = [
    "ActivationError",
    "CondaEnvExecutor",
    "Environment",
    "EnvironmentNotFoundError",
    "ExecutionException",
    "RemoteTaskHandle",
    "Task",
    "TaskStatus",
    "WetlandsExecutorError",
    "WorkerCrashed",
    "WorkerInfo",
    "WorkerStartError",
    "current_task",
]
