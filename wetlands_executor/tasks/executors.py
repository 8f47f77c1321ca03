"""Which executor runs a definition. Owns those that are made for ``env=``. Any thread enters."""

from __future__ import annotations

import os
import threading
from typing import Any

from wetlands_executor import CondaEnvExecutor, InProcessExecutor, get_default_executor

#: Commands that run at the same time, at least.
COMMANDS = 4


class Executors:
    """The executors that definitions have had made, by environment."""

    def __init__(self) -> None:
        # Guards the dictionary; held while an executor is made, which starts nothing.
        self._lock = threading.RLock()
        self._made: dict[Any, CondaEnvExecutor] = {}
        self._commands: InProcessExecutor | None = None

    def of(self, env: Any) -> CondaEnvExecutor:
        """Return the executor of an environment; made once."""
        try:
            hash(env)
        except TypeError:
            raise TypeError(
                f"env must be a name, a path, an Environment or an EnvironmentSpec, not {env!r}"
            ) from None
        with self._lock:
            found = self._made.get(env)
            if found is None:
                found = self._made[env] = CondaEnvExecutor(env)
            return found

    def commands(self) -> InProcessExecutor:
        """Return the executor whose threads wait for commands; made once."""
        with self._lock:
            if self._commands is None:
                self._commands = InProcessExecutor(max(COMMANDS, os.cpu_count() or 1))
            return self._commands

    def shutdown(self, wait: bool) -> None:
        """End them; new ones are made when they are needed."""
        with self._lock:
            found: list[Any] = list(self._made.values())
            if self._commands is not None:
                found.append(self._commands)
            self._made, self._commands = {}, None
        for executor in found:
            executor.shutdown(wait=False)
        for executor in found if wait else ():
            executor.shutdown()


executors = Executors()


def environment_of(env: Any, executor: Any) -> Any:
    """Return the Environment in which a command runs."""
    if env is not None:
        return executors.of(env).environment
    found = getattr(
        executor if executor is not None else get_default_executor(), "environment", None
    )
    return CondaEnvExecutor(None).environment if found is None else found


def shutdown(wait: bool = True) -> None:
    """End the executors that definitions with ``env=`` or a command have had made.

    They end with the program by themselves; the default executor, and those that were given, are
    not concerned. A definition that is called later has new ones made.

    Args:
        wait: return when what was submitted to them has finished.
    """
    executors.shutdown(wait)
