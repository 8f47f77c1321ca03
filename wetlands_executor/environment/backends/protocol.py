"""What a backend is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from wetlands_executor.environment.creation_run import CreationPhase, CreationRun
from wetlands_executor.environment.spec import EnvironmentSpec


class Step(NamedTuple):
    """What a line of a package manager's output says of the progress; see ``CreationProgress``."""

    phase: CreationPhase
    message: str
    current: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """One environment to be made.

    Attributes:
        spec: what it should contain.
        prefix: where it is to be; does not exist yet, its parent does.
        scratch: an empty folder for files of the backend, removed afterwards.
        creation: runs commands and tells progress.
    """

    spec: EnvironmentSpec
    prefix: Path
    scratch: Path
    creation: CreationRun

    def file(self, name: str, text: str) -> Path:
        """Write a file for the backend; return its path."""
        path = self.scratch / name
        path.write_text(text, encoding="utf-8")
        return path


@dataclass(frozen=True, slots=True)
class Made:
    """What a backend has made.

    Attributes:
        backend: its name with version, ``"uv 0.9.2"``.
        lock: a text from which exactly this can be made again; None if it gives none now.
    """

    backend: str
    lock: str | None = None


class Backend(Protocol):
    """A package manager.

    Attributes:
        name: what users call it.
    """

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    def lacks(self, spec: EnvironmentSpec) -> str | None:
        """Return why it cannot make an environment; None if it can. Starts no process."""
        ...

    def make(self, request: InstallRequest) -> Made:
        """Make an environment.

        Raises:
            EnvironmentCreationError: it cannot be made.
            CancelledError: it was stopped.
        """
        ...
