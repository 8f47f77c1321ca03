"""Which executor runs a definition. Owns those that are made for ``env=``. Any thread enters."""

from __future__ import annotations

import os
from typing import Any

from wetlands_executor import CondaEnvExecutor, InProcessExecutor, get_default_executor

#: Commands that run at the same time, at least.
COMMANDS = 4


class Executors:
    """The executors that definitions have had made, by environment."""

    def __init__(self) -> None:
        # No lock, as in ``registry``. Two threads may make an executor at the same moment, which
        # starts nothing; one of the two is used.
        # By process: after a fork the parent's executors are of no use.
        self._made: dict[tuple[int, Any], CondaEnvExecutor] = {}
        self._commands: dict[int, InProcessExecutor] = {}

    def of(self, env: Any) -> CondaEnvExecutor:
        """Return the executor of an environment; made once."""
        try:
            hash(env)
        except TypeError:
            raise TypeError(
                f"env must be a name, a path, an Environment or an EnvironmentSpec, not {env!r}"
            ) from None
        key = (os.getpid(), env)
        found = self._made.get(key)
        if found is None:
            made = CondaEnvExecutor(env)
            found = self._made.setdefault(key, made)
            if found is not made:
                made.shutdown(wait=False)
        return found

    def commands(self) -> InProcessExecutor:
        """Return the executor whose threads wait for commands; made once."""
        pid = os.getpid()
        found = self._commands.get(pid)
        if found is None:
            made = InProcessExecutor(max(COMMANDS, os.cpu_count() or 1))
            found = self._commands.setdefault(pid, made)
            if found is not made:
                made.shutdown(wait=False)
        return found

    def shutdown(self, wait: bool) -> None:
        """End them; new ones are made when they are needed."""
        found: list[Any] = []
        pid = os.getpid()
        found.extend(self._made.pop(key, None) for key in self._made.copy() if key[0] == pid)
        found.append(self._commands.pop(pid, None))
        # Another thread may have taken them, to end them as well.
        found = [executor for executor in found if executor is not None]
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
