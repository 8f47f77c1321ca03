"""Make the two environments of the demo, side by side, and show how far they are.

Each is described by the metadata block of a file in ``work``. The two exclude each other: what the
*older* one pins, the *newer* one forbids, so no single environment could hold both.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetlands_executor import (
    Environment,
    EnvironmentCreationError,
    EnvironmentNotFoundError,
    EnvironmentSpec,
    observe,
)

if TYPE_CHECKING:
    from wetlands_executor.demo.progress import Progress

_WORK = Path(__file__).parent / "work"
#: Role -> the file whose functions run in that environment, and whose block describes it.
FILES = {"older": _WORK / "segment.py", "newer": _WORK / "measure.py"}
#: What pip and uv write if no package index can be reached, or none has anything for this machine.
_UNREACHABLE = (
    "index could be reached",
    "Failed to fetch",
    "Max retries exceeded",
    "Connection refused",
    "(from versions: none)",
    "error sending request",
)


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class RegistryUnreachableError(DemoError):
    """No package registry could be reached."""


@dataclass(frozen=True, slots=True)
class MadeEnvironment:
    """An environment that is ready.

    Attributes:
        role: ``older`` or ``newer``.
        environment: it.
        requirements: name and version of what was asked for in it.
        seconds: how long it took to make; 0 if it was there already.
    """

    role: str
    environment: Environment
    requirements: tuple[str, ...]
    seconds: float

    @property
    def prefix(self) -> Path:
        """Its folder."""
        return self.environment.prefix


def prepare(
    progress: Progress, *, refresh: bool = False
) -> tuple[MadeEnvironment, MadeEnvironment]:
    """Give the two environments, made if need be.

    Args:
        progress: where to say what goes on.
        refresh: make them anew even if they are there.

    Raises:
        DemoError: one could not be made.
    """
    ready: dict[str, tuple[Environment, float]] = {}
    tasks: dict[Any, str] = {}
    for role, file in FILES.items():
        found = _find(file)
        if found is not None and refresh:
            found.remove()
        elif found is not None:
            ready[role] = found, 0.0
            continue
        progress.say(f"  making the {role} environment, which {file.name} describes")
        tasks[Environment.create_task(file)] = role
    ready.update(_finish(tasks, progress))
    older, newer = (
        MadeEnvironment(role, ready[role][0], _packages(file, ready[role][0]), ready[role][1])
        for role, file in FILES.items()
    )
    return older, newer


def _find(file: Path) -> Environment | None:
    try:
        return Environment.find(file)
    except EnvironmentNotFoundError:
        return None


def _packages(file: Path, environment: Environment) -> tuple[str, ...]:
    """Return name and version of what a file asks for, as they are in its environment."""
    there = environment.packages()
    names = [re.split(r"[^\w.-]", text)[0] for text in EnvironmentSpec.from_file(file).pypi]
    return tuple(f"{name}=={there[name]}" for name in dict.fromkeys(names) if name in there)


def _finish(tasks: dict[Any, str], progress: Progress) -> dict[str, tuple[Environment, float]]:
    """Wait for the creations; on an interrupt, or the failure of one, stop all."""
    started = time.monotonic()
    made: dict[str, tuple[Environment, float]] = {}
    try:
        with observe.progress(list(tasks), description="environments", leave=False) as bar:
            for task in bar:
                seconds = time.monotonic() - started
                made[tasks[task]] = task.result(), seconds
                progress.say(f"  the {tasks[task]} environment is ready after {seconds:.0f} s")
    except EnvironmentCreationError as error:
        if any(sign in str(error) for sign in _UNREACHABLE):
            raise RegistryUnreachableError(
                f"{error}\nCheck the network, or tell pip or uv about a proxy or a mirror, then "
                f"run the demo again."
            ) from error
        raise DemoError(f"{error}\n--cache chooses another folder for environments.") from error
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            task.wait_for()
    return made
