"""Where an interpreter lives.

Find an environment, activate it, and say how a process of it is launched.

Owns everything between the word that a user writes (``"cellpose"``, a path, None) and the argument
vector, variables and folder of a process. Reads files only: no environment manager is ever started,
and the one process that may run is the shell that sources the environment's own activation scripts.
Imports the standard library and ``wetlands_executor.errors``, nothing else of the package.
"""

from __future__ import annotations

from wetlands_executor.environment.environment import Environment, LaunchSpec

__all__ = ["Environment", "LaunchSpec"]
