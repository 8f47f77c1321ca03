"""Background computations with names, for applications: definitions, instances, a history.

Over the public names of ``wetlands_executor`` alone; see ``docs/task-definitions.md``.
"""

from wetlands_executor import TaskController, get_task_controller, get_task_inputs
from wetlands_executor.tasks.definition import (
    TaskDefinition,
    get_task_definition,
    list_task_definitions,
    register_task,
    run_task,
    task,
)
from wetlands_executor.tasks.executors import shutdown
from wetlands_executor.tasks.instance import TaskInstance
from wetlands_executor.tasks.registry import (
    TaskInstanceNotFoundError,
    get_task_instance,
    list_task_instances,
    stop_task_instance,
    wait_for_completion,
)

__all__ = [
    "TaskController",
    "TaskDefinition",
    "TaskInstance",
    "TaskInstanceNotFoundError",
    "get_task_controller",
    "get_task_definition",
    "get_task_inputs",
    "get_task_instance",
    "list_task_definitions",
    "list_task_instances",
    "register_task",
    "run_task",
    "shutdown",
    "stop_task_instance",
    "task",
    "wait_for_completion",
]
