"""The names of ``futures.events`` under their old address, until the modules that use it have moved."""

from wetlands_executor.futures.events import Listener as Listener
from wetlands_executor.futures.events import TaskEventType as TaskEventType
