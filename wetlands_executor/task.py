"""The names of ``futures`` under their old address, until the modules that use it have moved."""

from wetlands_executor.futures.aio import post_to_loop as post_to_loop
from wetlands_executor.futures.aio import wake_waiter as wake_waiter
from wetlands_executor.futures.deferral import needed as needed
from wetlands_executor.futures.future import Task as Task
from wetlands_executor.futures.future import TaskStatus as TaskStatus
