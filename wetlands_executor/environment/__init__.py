"""Where an interpreter lives.

Find an environment, activate it, and say how a process of it is launched; or make one.

Owns everything between the word that a user writes (``"cellpose"``, a path, None) and the argument
vector, variables and folder of a process. Finding reads files only: no environment manager is ever
started, and the one process that may run is the shell that sources the environment's own activation
scripts. Creation (``creation``, ``backends``) is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wetlands_executor.environment.environment import Environment, LaunchSpec

__all__ = ["Environment", "LaunchSpec"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from wetlands_executor.environment import environment

        found = globals()[name] = getattr(environment, name)
        return found
