"""What an executor was asked for, checked; and what follows for its workers.

Owns no state: values that are made once, when an executor is made, on the thread that makes it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wetlands_executor import seconds as seconds_of
from wetlands_executor.environment.launch import checked_lines
from wetlands_executor.environment.source import EnvironmentSource
from wetlands_executor.pool import spawn
from wetlands_executor.pool.fork_server import ForkServer
from wetlands_executor.pool.launch import Launcher, WorkerEnv, pickled_initializer, variables_of
from wetlands_executor.pool.start import Lends, StartSettings
from wetlands_executor.serialize import references
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.system import usable_processors
from wetlands_executor.worker import scripts

_LIMITS = ("worker_timeout", "task_timeout", "cancel_grace", "start_timeout")


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """The options of one executor. See ``CondaEnvExecutor`` for the attributes.

    Invariant: they are as checked. Limits are exact floats, or None for none.

    Raises:
        TypeError, ValueError: an option is invalid.
    """

    max_workers: int | None
    mp_context: Any
    initializer: Callable[..., object] | str | os.PathLike[str] | None
    initargs: tuple[Any, ...]
    max_tasks_per_child: int | None
    worker_env: WorkerEnv
    cwd: str | os.PathLike[str] | None
    preload: Sequence[str]
    share_preload: bool
    worker_timeout: float | None
    task_timeout: float | None
    start_timeout: float | None
    cancel_grace: float | None
    activate: bool | Sequence[str]
    debug: bool | str = False

    def __post_init__(self) -> None:
        _check_count(self.max_workers)
        _check_initializer(self.initializer)
        _check_tasks_per_child(self.max_tasks_per_child)
        _check_preload(self.preload, self.share_preload)
        checked_lines(self.activate)
        if not isinstance(self.debug, bool) and self.debug != "debugpy":
            raise ValueError(f"debug must be False, True or 'debugpy', not {self.debug!r}")
        for name in _LIMITS:
            object.__setattr__(self, name, seconds_of.limit(name, getattr(self, name)))
        method = getattr(self.mp_context, "get_start_method", None)
        if method is not None and method() == "fork":
            # The program has called CondaEnvExecutor(), that the method that the dataclass has, and
            # that this one.
            warnings.warn(
                "mp_context has no meaning for CondaEnvExecutor: its workers are new processes of "
                "another interpreter, never forks",
                stacklevel=4,
            )

    def count_workers(self) -> int:
        """Return the number of worker processes at most."""
        return self.max_workers if self.max_workers is not None else usable_processors()


def start_settings(
    settings: ExecutorSettings, source: EnvironmentSource, count: int
) -> StartSettings:
    """Return how the workers are started.

    Calls ``worker_env`` once per worker, and pickles the initializer: user code.

    Args:
        settings: the options.
        source: gives the environment where the workers run.
        count: the number of worker processes at most.
    """
    variables = [variables_of(settings.worker_env, index) for index in range(count)]
    folder = os.fspath(settings.cwd) if settings.cwd is not None else None
    launcher = Launcher(source, settings.activate, folder, variables)
    remote = RemoteInterpreter(source.python, launcher.first, source)
    fork_server = None
    if settings.share_preload and spawn.can_fork_workers():
        fork_server = ForkServer(launcher.fork_server, settings.preload, settings.start_timeout)
    elif settings.share_preload:
        # The program has called CondaEnvExecutor(), and that this function.
        warnings.warn(
            "share_preload=True works on Linux only: each worker imports its "
            "preload for itself here",
            stacklevel=3,
        )
    keeps: list[Any] = []
    first: tuple[bytes, str | None, bool] | None = None
    needs: tuple[Any, ...] = ()
    initializer = settings.initializer
    if initializer is not None and not callable(initializer):
        initializer = partial(
            scripts.call_target,
            references.definition_of(initializer),
        )
    if initializer:
        call = (initializer, tuple(settings.initargs))
        data, pickler = pickled_initializer(call, keeps, remote)
        first, needs = (data, pickler.by_value, pickler.bytecode), tuple(pickler.needs.values())
    return StartSettings(
        launcher.worker,
        remote,
        source,
        list(settings.preload),
        first,
        settings.start_timeout,
        fork_server,
        keeps,
        needs,
        _debugging() if settings.debug is True else None,
        settings.debug == "debugpy",
    )


def _debugging() -> Lends:
    """Return what lends the terminal to workers."""
    from wetlands_executor.debugging import Debugging  # few programs need it

    return Debugging()


def _check_count(max_workers: Any) -> None:
    if max_workers is None:
        return
    if isinstance(max_workers, bool) or not isinstance(max_workers, int):
        raise TypeError(f"max_workers must be an integer or None, not {max_workers!r}")
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")


def _check_initializer(initializer: Any) -> None:
    if (
        initializer is not None
        and not callable(initializer)
        and not isinstance(initializer, (str, os.PathLike))
    ):
        raise TypeError("initializer must be a callable")


def _check_tasks_per_child(count: Any) -> None:
    if count is None:
        return
    if not isinstance(count, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if count <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")


def _check_preload(preload: Sequence[str], share: bool) -> None:
    if isinstance(preload, str):
        raise TypeError(
            f"preload must be a sequence of module names, not the string {preload!r}: "
            f"write preload=[{preload!r}]"
        )
    if share and not preload:
        raise ValueError(
            "share_preload=True needs preload: name the modules that the workers "
            "are to share, preload=['numpy', ...]"
        )
