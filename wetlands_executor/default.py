"""The default executor: what a program submits to that leaves the choice to its user.

Owns the one that is set, the one that was made, and the meaning of the variables. Entered by any
thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Union

from wetlands_executor.carried.executor import CarriedExecutor
from wetlands_executor.errors import EnvironmentNotFoundError
from wetlands_executor.executor import CondaEnvExecutor
from wetlands_executor.in_process.executor import InProcessExecutor
from wetlands_executor.views import OptionsView

if TYPE_CHECKING:
    from collections.abc import Mapping

AnyExecutor = Union[CondaEnvExecutor, InProcessExecutor, CarriedExecutor, OptionsView]

ENV = "WETLANDS_EXECUTOR_ENV"
WORKERS = "WETLANDS_EXECUTOR_WORKERS"
ENGINE = "WETLANDS_EXECUTOR_ENGINE"
#: Where ``dask:ADDRESS`` is served.
DASK = "wetlands_executor.integrations.dask"


class Choice(NamedTuple):
    """What the variables say, checked.

    Attributes:
        engine: ``"local"``, ``"in-process"`` or ``"dask"``.
        env: the environment, as for ``CondaEnvExecutor``; None is this one.
        workers: number of workers; None is the engine's default.
        address: of a Dask scheduler; empty for the other engines.
    """

    engine: str = "local"
    env: str | None = None
    workers: int | None = None
    address: str = ""


def read_choice(variables: Mapping[str, str]) -> Choice:
    """Return what the variables say; one that is empty says nothing.

    Raises:
        ValueError: one of them cannot be meant; the message names it.
    """
    engine, _, address = variables.get(ENGINE, "").strip().partition(":")
    engine = engine or "local"
    if engine not in ("local", "in-process", "dask") or (address and engine != "dask"):
        raise ValueError(
            f"{ENGINE}={variables[ENGINE]!r} is no engine: use local, in-process or dask:ADDRESS"
        )
    if engine == "dask" and not address:
        raise ValueError(f"{ENGINE}={variables[ENGINE]!r} has no address: use dask:tcp://HOST:PORT")
    env = variables.get(ENV, "").strip() or None
    if engine == "in-process" and env is not None:
        raise ValueError(
            f"{ENV}={env!r} names an environment, but {ENGINE}=in-process runs everything in this "
            f"process: unset one of them"
        )
    return Choice(engine, env, _count(variables.get(WORKERS, "").strip(), engine), address)


def _count(text: str, engine: str) -> int | None:
    if not text:
        return None
    least = 0 if engine == "in-process" else 1
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise ValueError(f"{WORKERS}={text!r} must be a whole number, {least} or more")
    return int(text)


def make_executor(choice: Choice) -> AnyExecutor:
    """Return a new executor.

    Raises:
        EnvironmentNotFoundError, ValueError: there is no such environment; the message names the
            variable.
        ImportError: its extra is not installed.
    """
    if choice.engine == "in-process":
        return InProcessExecutor(1 if choice.workers is None else choice.workers)
    if choice.engine == "dask":
        return _dask_executor(choice)
    try:
        return CondaEnvExecutor(choice.env, choice.workers)
    except EnvironmentNotFoundError as error:
        raise EnvironmentNotFoundError(f"{ENV}={choice.env!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{ENV}={choice.env!r}: {error}") from error


def _dask_executor(choice: Choice) -> AnyExecutor:
    from importlib import import_module

    try:
        module = import_module(DASK)
        made: AnyExecutor = module.DaskEnvExecutor(
            choice.address, choice.env, choice.workers
        )
    except ImportError as error:
        raise ImportError(
            f"{ENGINE}=dask:{choice.address} needs the extra 'dask': "
            f"python -m pip install 'wetlands-executor[dask]' ({error})"
        ) from error
    return made


class DefaultExecutor:
    """Holds the default executor of this process."""

    def __init__(self) -> None:
        # No lock, which an exception of a signal handler could leave locked (CPython 3.14): each
        # step is one call of C code. Two threads may make an executor at the same moment, which
        # starts nothing; one of the two is used.
        self._set: AnyExecutor | None = None
        # By process: after a fork the parent's executor is of no use.
        self._made: dict[int, AnyExecutor] = {}

    def get(self) -> AnyExecutor:
        """Return the one that was set, or the one that the variables choose; made if need be."""
        chosen = self._set
        if chosen is not None:
            return chosen
        pid = os.getpid()
        found = self._made.get(pid)
        if found is None:
            made = make_executor(read_choice(os.environ))
            found = self._made.setdefault(pid, made)
            if found is not made:
                made.shutdown(wait=False)
        return found

    def set(self, executor: AnyExecutor | None) -> None:
        """Use this one from now on; None: the one that the variables choose, made anew."""
        self._set = executor
        made = self._made.pop(os.getpid(), None)
        if made is not None:
            made.shutdown(wait=False)  # what was submitted is finished


_default = DefaultExecutor()


def get_default_executor() -> AnyExecutor:
    """Return the executor that is used where none is given.

    The one of ``set_default_executor``; else one that is made when it is first asked for, as the
    variables say, and that ends with the program as any executor:

    * ``WETLANDS_EXECUTOR_ENGINE``: ``local`` (worker processes; the default), ``in-process``, or
      ``dask:ADDRESS``.
    * ``WETLANDS_EXECUTOR_ENV``: the environment of the workers, as for ``CondaEnvExecutor``;
      without it this one.
    * ``WETLANDS_EXECUTOR_WORKERS``: how many.

    Raises:
        ValueError: a variable cannot be meant; the message names it.
        EnvironmentNotFoundError: there is no such environment.
        ImportError: the engine needs an extra.
    """
    return _default.get()


def set_default_executor(executor: AnyExecutor | None) -> None:
    """Use an executor, or a view of one, where none is given.

    Args:
        executor: the caller keeps it alive, and ends it; None: the one that the variables choose,
            which are read again.

    Raises:
        TypeError: it is no executor of this library.
    """
    if executor is not None and not callable(getattr(executor, "options", None)):
        raise TypeError(
            f"{executor!r} is no executor of this library: it has no options(); give a "
            f"CondaEnvExecutor, an InProcessExecutor, a view of one, or None"
        )
    _default.set(executor)
