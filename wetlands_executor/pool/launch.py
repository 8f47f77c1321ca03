"""How the workers of an environment are started: launch specs, and the initializer as bytes.

Any thread.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wetlands_executor.environment.launch import checked_variables
from wetlands_executor.environment.source import EnvironmentSource
from wetlands_executor.serialize.definitions import dump
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.serialize.pickler import CallPickler

#: How many threads numerical libraries start when they are loaded, or at their first call.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

WorkerEnv = Mapping[str, str] | Callable[[int], Mapping[str, str]] | None
#: argv, environment variables, working folder.
Spec = tuple[Sequence[str], Mapping[str, str], str | None]


@dataclass(frozen=True)
class Launcher:
    """How the workers of one executor are started.

    Attributes:
        source: gives the environment where they run.
        activate: see ``CondaEnvExecutor``.
        cwd: their working folder; None is the host's.
        variables: by slot, what is set for them.
    """

    source: EnvironmentSource
    activate: bool | Sequence[str]
    cwd: str | None
    variables: list[dict[str, str]]

    def worker(self, index: int) -> Spec:
        """Return how to start the worker of a slot. May take long: activation runs a shell once."""
        # Those beyond max_workers stand in for others, while these wait.
        return self._spec(self.variables[index % len(self.variables)])

    def first(self) -> Spec:
        """Return how to start the worker of the first slot."""
        return self.worker(0)

    def fork_server(self) -> Spec:
        """Return how to start the process that imports the preload.

        With the variables that are the same for all workers.
        """
        first = self.variables[0]
        common = {
            name: value
            for name, value in first.items()
            if all(each.get(name) == value for each in self.variables)
        }
        return self._spec({**dict.fromkeys(THREAD_VARIABLES, "1"), **common})

    def _spec(self, variables: dict[str, str]) -> Spec:
        spec = self.source.get().launch_spec(
            activate=self.activate, cwd=self.cwd, worker_env=variables
        )
        return spec.argv, spec.env, spec.cwd


def variables_of(worker_env: WorkerEnv, index: int) -> dict[str, str]:
    """Return what is set for the worker of a slot.

    Raises:
        TypeError, ValueError: it is no mapping of names to values that a process can have.
    """
    found = worker_env(index) if callable(worker_env) else worker_env
    what = f"worker_env({index})" if callable(worker_env) else "worker_env"
    return checked_variables(found, what)


def pickled_initializer(
    call: tuple[Any, ...], keeps: list[Any], remote: RemoteInterpreter
) -> tuple[bytes, CallPickler]:
    """Pickle (initializer, arguments) for the workers.

    Shared arrays in it are added to ``keeps``.
    """
    try:
        return dump(call, None, keeps, remote=remote)
    except pickle.PicklingError:
        if not remote.is_undecided:
            raise
        # It has no source, which would be right for any version. As it is it may be; else the
        # worker says so.
        return dump(call, None, keeps)
