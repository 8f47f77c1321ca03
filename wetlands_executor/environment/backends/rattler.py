"""py-rattler (extra ``conda``): conda packages without any conda manager.

Owns what is asked of ``rattler_program`` and the meaning of its answers.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from wetlands_executor.environment import _platform, frozen
from wetlands_executor.environment.backends import conda_locks, pypi_part
from wetlands_executor.environment.backends.protocol import InstallRequest, Made, Step
from wetlands_executor.environment.creation_run import CreationPhase
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import EnvironmentCreationError

#: The last line of ``rattler_program`` if all went well.
FINISHED: Final = '{"finished": true}'


def wanted_of(request: InstallRequest) -> dict[str, Any]:
    """Return what ``rattler_program`` is asked for."""
    spec = request.spec
    return {
        "prefix": str(request.prefix),
        "cache": os.path.join(_platform.cache_folder(), "conda"),
        "channels": list(spec.channels),
        "specs": [] if spec.lock is not None else conda_locks.conda_specs(spec),
        "constraints": list(spec.conda_constraints),
        "strategy": spec.strategy,
        "exclude_newer": spec.exclude_newer,
        "priority": spec.channel_priority,
        "offline": request.creation.offline,
        "explicit": conda_locks.explicit_lines(request) if spec.lock is not None else [],
        "sys_path": sys.path,
    }


def step_of(line: str) -> Step | None:
    """Return what a line of output says of the progress; None if it is none that tells it."""
    try:
        told = json.loads(line)
        phase, message, current, maximum = told["step"]
        return Step(CreationPhase(phase), message, current, maximum)
    except (ValueError, KeyError, TypeError):
        return None


class RattlerBackend:
    """py-rattler."""

    name = "rattler"

    def lacks(self, spec: EnvironmentSpec) -> str | None:
        """Return why it cannot make an environment; None if it can."""
        if find_spec("rattler") is None:
            return "py-rattler is not installed here (extra 'conda')"
        if frozen.is_frozen():
            return "py-rattler cannot be run from a frozen program"
        return pypi_part.lacks(spec)

    def make(self, request: InstallRequest) -> Made:
        """Make an environment."""
        creation = request.creation
        file = request.file("wanted.json", json.dumps(wanted_of(request)))
        has_finished = False

        def on_line(line: str) -> bool:
            nonlocal has_finished
            step = step_of(line)
            if step is not None:
                creation.report(*step)
                return True
            has_finished = has_finished or line == FINISHED
            return line == FINISHED

        creation.report(CreationPhase.SOLVING, "the conda packages")
        program = Path(__file__).with_name("rattler_program.py")
        try:
            creation.run(
                [sys.executable, "-I", program, file],
                on_line=on_line,
                what="installing the conda packages with py-rattler",
                remedy="offline=True: only what was fetched before can be installed."
                if creation.offline
                else "",
            )
        except EnvironmentCreationError:
            # Its threads may crash it at its end (0.28). What it has said before counts, and the
            # check of the environment.
            if not has_finished:
                raise
        held = pypi_part.install(request)
        return Made(f"rattler {metadata.version('py-rattler')}", conda_locks.lock_of(request, held))
