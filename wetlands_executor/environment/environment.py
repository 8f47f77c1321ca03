"""``Environment`` and its ``LaunchSpec``: the public face of this sub-package.

Every method hands over to the module that owns the matter.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List  # noqa: UP035 - inside the class, `list` is its method

from wetlands_executor.environment.commands import Command, prepared
from wetlands_executor.environment.launch import launch
from wetlands_executor.environment.locate import everything, locate

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wetlands_executor.environment.layout import Kind


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment on this machine.

    Where its interpreter lives, and how processes of it are started.

    Make one with ``Environment.find``. It is a value: comparable, hashable, picklable. It holds
    paths and no state, so it does not notice when the environment is removed.

    Attributes:
        name: what it is called, ``"base"`` for a root prefix; None where it has no name.
        prefix: absolute path of its folder (``sys.prefix`` in it).
        python: absolute path of its interpreter; links are not resolved.
        kind: ``"current"`` is the one of this very process, ``"python"`` an interpreter that
            belongs to no environment.
    """

    name: str | None
    prefix: Path
    python: Path
    kind: Kind

    @property
    def label(self) -> str:
        """How the environment is called in messages."""
        if self.kind == "current":
            return f"this environment ({self.prefix})"
        return (
            f"environment {self.name!r} ({self.prefix})"
            if self.name
            else f"the Python {str(self.python)!r}"
        )

    @classmethod
    def find(cls, what: str | os.PathLike[str] | Environment | object | None = None) -> Environment:
        """Find an environment. Only files are read; no manager and no process is started.

        Args:
            what: a bare word is an environment's *name*. A string with a path separator, or a path
                object, is the path of a conda prefix, a virtual environment, a pixi project, an
                interpreter, or any folder with ``bin/python``. An object with a ``.prefix`` or
                ``.path`` is the environment there. None is the environment of this process.

        Returns:
            The environment.

        Raises:
            EnvironmentNotFoundError: none, or more than one, answers to it; the message lists
                places or candidates.
            TypeError: ``what`` is nothing of these.
        """
        if isinstance(what, Environment):
            return what
        return cls(*locate(what))

    def launch_spec(
        self,
        *,
        activate: bool | Sequence[str] = True,
        cwd: str | os.PathLike[str] | None = None,
        worker_env: Mapping[str, str] | None = None,
    ) -> LaunchSpec:
        """Return all that starting this environment's interpreter takes.

        Args:
            activate: True to activate the environment; a sequence holds further shell lines, run
                after the activation scripts in
            the
                same shell. With False the process has the host's variables, PATH included, without
                those that would lead it astray.
            cwd: its folder, which must exist; None stands for that of the host at the time.
            worker_env: variables that are set last, over all others.

        Raises:
            ActivationError: an activation script failed; the message names it and holds what it
                wrote.
            FileNotFoundError: ``cwd`` does not exist.
            NotADirectoryError: ``cwd`` is not a folder.
            TypeError: ``worker_env`` or ``activate`` holds something other than str.
            ValueError: ``worker_env`` holds a name or value that no process can have.
        """
        return LaunchSpec(*launch(self, activate, cwd, worker_env), self)

    def run(
        self, argv: Command, *, activate: bool | Sequence[str] = True, **kwargs: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command in this environment and wait for it.

        Args:
            argv: the command, looked up on the environment's PATH, and its arguments; with
                ``shell=True`` a string.
            activate: as for ``launch_spec``.
            **kwargs: those of ``subprocess.run``; ``env`` is laid over the environment's variables.

        Raises:
            ActivationError: an activation script failed.
            FileNotFoundError: there is no such command in this environment.
        """
        command, options = prepared(self, argv, activate, kwargs)
        return subprocess.run(command, **options)

    def popen(
        self, argv: Command, *, activate: bool | Sequence[str] = True, **kwargs: Any
    ) -> subprocess.Popen[Any]:
        """Start a command in this environment.

        Arguments as for ``run``, keywords those of ``subprocess.Popen``.

        Raises:
            ActivationError: an activation script failed.
            FileNotFoundError: there is no such command in this environment.
        """
        command, options = prepared(self, argv, activate, kwargs)
        return subprocess.Popen(command, **options)

    @classmethod
    def list(cls) -> List[Environment]:  # noqa: UP006 - see the import
        """Return every conda environment that can be found by name or is listed by conda.

        Sorted, each once. Places that are stale or cannot be read are passed over. What has no
        Python in it is left out.
        """
        return [cls(*layout) for layout in everything()]


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that starting an interpreter of an environment takes.

    Attributes:
        argv: the interpreter's path, and for this very environment the options of this interpreter
            (-O, -W, -X, ...); the caller appends arguments of its own.
        env: the complete variables of the process.
        cwd: absolute path of its folder; None stands for that of the host at the time.
        environment: whose interpreter it is.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    environment: Environment
