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
        self._made: dict[Any, CondaEnvExecutor] = {}
        self._commands: dict[None, InProcessExecutor] = {}

    def of(self, env: Any) -> CondaEnvExecutor:
        """Return the executor of an environment; made once."""
        try:
            hash(env)
        except TypeError:
            raise TypeError(
                f"env must be a name, a path, an Environment or an EnvironmentSpec, not {env!r}"
            ) from None
        found = self._made.get(env)
        if found is None:
            made = CondaEnvExecutor(env)
            found = self._made.setdefault(env, made)
            if found is not made:
                made.shutdown(wait=False)
        return found

    def commands(self) -> InProcessExecutor:
        """Return the executor whose threads wait for commands; made once."""
        found = self._commands.get(None)
        if found is None:
            made = InProcessExecutor(max(COMMANDS, os.cpu_count() or 1))
            found = self._commands.setdefault(None, made)
            if found is not made:
                made.shutdown(wait=False)
        return found

    def shutdown(self, wait: bool) -> None:
        """End them; new ones are made when they are needed."""
        found: list[Any] = []
        held: dict[Any, Any]
        for held in (self._made, self._commands):
            while held:
                try:
                    found.append(held.popitem()[1])
                except KeyError:
                    break  # another thread ends them as well
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
