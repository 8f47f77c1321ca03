"""``Environment`` and its ``LaunchSpec``: the public face of this sub-package.

Every method hands over to the module that owns the matter.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, List  # noqa: UP035 - inside the class, `list` is its method

from wetlands_executor.environment.commands import Command, prepared
from wetlands_executor.environment.described import project_environment, request_of, spec_of
from wetlands_executor.environment.launch import launch
from wetlands_executor.environment.locate import by_path, everything, locate
from wetlands_executor.environment.store import Record, Store
from wetlands_executor.errors import EnvironmentNotFoundError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wetlands_executor.environment.creation_run import OnProgress
    from wetlands_executor.environment.layout import Kind
    from wetlands_executor.environment.spec import EnvironmentSpec
    from wetlands_executor.environment.tasks import CreationTask


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
            what: a bare word is an environment's *name*; that of a Python file (``"segment.py"``)
                is the environment that its metadata block describes, if it was made. A string with
                a path separator, or a path object, is the path of a conda prefix, a virtual
                environment, a pixi project, an interpreter, any folder with ``bin/python``, or of a
                file that describes an environment which was made. So is an ``EnvironmentSpec``. An
                object with a ``.prefix`` or ``.path`` is the environment there. None is the
                environment of this process.

        Returns:
            The environment.

        Raises:
            EnvironmentNotFoundError: none, or more than one, answers to it; the message lists
                places or candidates.
            TypeError: ``what`` is nothing of these.
        """
        if isinstance(what, Environment):
            return what
        request = None if project_environment(what) is not None else request_of(what)
        if request is None:
            return cls(*locate(what))
        record = request[0].look_up(Store())
        if record is None:
            raise EnvironmentNotFoundError(
                f"{request[1]} is not made yet; make it with Environment.create, or give it to an "
                f"executor, which makes it"
            )
        return cls._of_record(record)

    @classmethod
    def _of_record(cls, record: Record) -> Environment:
        return cls(*by_path(str(record.prefix)))

    @classmethod
    def create(
        cls,
        spec: EnvironmentSpec | str | os.PathLike[str],
        name: str | None = None,
        *,
        backend: str = "auto",
        on_progress: OnProgress | None = None,
        offline: bool = False,
    ) -> Environment:
        """Make an environment, once; the next time it is found.

        Processes and threads that want the same environment at the same time make it once: the
        others wait.

        Args:
            spec: what it should contain, or a file that says so (``EnvironmentSpec.from_file``).
            name: its name; ``find`` finds it by that. None: it is cached by its
                content.
            backend: who makes it: ``"uv"``, ``"pip"``, ``"pixi"``, ``"micromamba"``, ``"mamba"``,
                ``"conda"`` or ``"rattler"``; ``"auto"`` is the first that is there and can make it.
            on_progress: called with a ``CreationProgress`` in this thread. Its ``cancel()`` may be
                called by any thread; what the callback raises ends the creation, too.
            offline: never use a network.

        Raises:
            EnvironmentCreationError: it cannot be made; the message has the package manager's own
                text.
            CancelledError: it was cancelled.
            SpecError: the file cannot be understood.
            ValueError: the name cannot be given, or belongs to an environment that holds something
                else; or there is no such backend.
        """
        from wetlands_executor.environment.create_request import CreateRequest
        from wetlands_executor.environment.creation import create

        request = CreateRequest(spec_of(spec), name, backend, offline)
        return cls._of_record(create(request, on_progress=on_progress))

    @classmethod
    def create_task(
        cls,
        spec: EnvironmentSpec | str | os.PathLike[str],
        name: str | None = None,
        *,
        backend: str = "auto",
        offline: bool = False,
    ) -> CreationTask[Environment]:
        """Make an environment in a thread of its own, as a Task.

        Its progress, events, and cancellation are those of any other task. Arguments as for
        ``create``.

        Raises:
            SpecError: the file cannot be understood.
        """
        from wetlands_executor.environment.create_request import CreateRequest
        from wetlands_executor.environment.tasks import start_task

        request = CreateRequest(spec_of(spec), name, backend, offline)
        task: CreationTask[Environment] = start_task(request, cls._of_record)
        return task

    def update(
        self,
        spec: EnvironmentSpec | str | os.PathLike[str],
        *,
        backend: str = "auto",
        on_progress: OnProgress | None = None,
        offline: bool = False,
    ) -> Environment:
        """Make what the name of this environment stands for anew; return it.

        Lookups find the old environment until the new one is complete, and never something between.
        The old one is removed when no process uses it any more. Arguments as for ``create``.

        Raises:
            ValueError: this library has not made it, or it was given no name: one that is cached by
                its content does not change.
            EnvironmentCreationError: it cannot be made; the old one stays.
        """
        from wetlands_executor.environment.create_request import CreateRequest
        from wetlands_executor.environment.creation import create
        from wetlands_executor.environment.upkeep import owned

        record = owned(self.prefix)
        if not record.named:
            raise ValueError(
                f"{self.label} is cached by its content, which does not change; make another one "
                f"with Environment.create(spec), or give it a name"
            )
        request = CreateRequest(spec_of(spec), record.name, backend, offline, replace=True)
        return self._of_record(create(request, on_progress=on_progress))

    def remove(self) -> None:
        """Remove this environment, which this library has made.

        Raises:
            EnvironmentInUseError: an executor or a process uses it.
            ValueError: this library has not made it.
        """
        from wetlands_executor.environment.upkeep import owned, remove

        remove(owned(self.prefix))

    def lock(self) -> str:
        """Return a text from which exactly this environment can be made again.

        ``EnvironmentSpec.from_file`` reads it from a file: ``pylock.toml`` for PyPI packages, with
        hashes if uv or pip has given them; an ``@EXPLICIT`` list or ``pixi.lock`` for conda
        packages; pinned requirements for an environment that this library has not made.
        """
        from wetlands_executor.environment.upkeep import lock_text

        return lock_text(str(self.python), self.prefix, self.launch_spec().env)

    def packages(self) -> dict[str, str]:
        """Return name and version of what is installed: conda packages and Python distributions."""
        from wetlands_executor.environment import contents

        held = contents.ask(str(self.python), self.prefix, self.launch_spec().env)
        conda = {name: package.version for name, package in held.conda.items()}
        return dict(sorted({**held.pypi, **conda}.items(), key=lambda item: item[0].lower()))

    @classmethod
    def prune(cls, unused_for: float | timedelta = timedelta(days=30)) -> List[str]:  # noqa: UP006
        """Remove environments that were made for their content and have not been used lately.

        Those that were given a name stay, and so do those that an executor or a process uses.

        Args:
            unused_for: seconds, or a ``timedelta``, since the last use.

        Returns:
            The names of those that were removed.
        """
        from wetlands_executor.environment.upkeep import prune

        seconds = unused_for.total_seconds() if isinstance(unused_for, timedelta) else unused_for
        return [record.name for record in prune(seconds)]

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
