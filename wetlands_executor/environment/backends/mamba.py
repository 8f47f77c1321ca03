"""micromamba, mamba and conda, from PATH: their argument lists and the meaning of their output.

After the manuals of conda 25 and mamba 2. None of them was on the machine where this was written:
the tests run the real program where it is found.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from wetlands_executor.environment.backends import conda_locks, lock_texts, pypi_part
from wetlands_executor.environment.backends.protocol import InstallRequest, Made, Step
from wetlands_executor.environment.creation_run import CreationPhase
from wetlands_executor.environment.spec import EnvironmentSpec

_SIZE = re.compile(r"([\d.]+)\s*([kKMG]?)i?B\b")
#: What a line begins with or contains -> phase, in words.
_SIGNS = (
    ("Collecting package metadata", CreationPhase.SOLVING, "reading the channels"),
    ("Retrieving notices", CreationPhase.SOLVING, "reading the channels"),
    ("Solving environment", CreationPhase.SOLVING, "the conda packages"),
    ("Downloading and Extracting Packages", CreationPhase.FETCHING, "the conda packages"),
    ("Preparing transaction", CreationPhase.INSTALLING, "the conda packages"),
    ("Verifying transaction", CreationPhase.INSTALLING, "the conda packages"),
    ("Executing transaction", CreationPhase.INSTALLING, "the conda packages"),
    ("Transaction starting", CreationPhase.INSTALLING, "the conda packages"),
    ("Linking ", CreationPhase.INSTALLING, ""),
)


#: conda would make pip a dependency of Python, which the other managers do not: a channel without
#: pip would have no Python then. What is asked for from PyPI needs no pip in the environment.
#: It would also add each environment to the user's list of environments, where it stays when
#: ``Environment.prune`` has removed it.
VARIABLES: Final = {
    "CONDA_ADD_PIP_AS_PYTHON_DEPENDENCY": "false",
    "CONDA_REGISTER_ENVS": "false",
}


class CondaOutput:
    """Reads the lines of micromamba, mamba and conda."""

    def __init__(self) -> None:
        self._linked = 0
        self._total: float | None = None

    def feed(self, line: str) -> Step | None:
        """Return what a line says of the progress; None if nothing."""
        text = line.strip()
        found = re.match(r"Install: (\d+) packages", text)
        if found is not None:
            self._total = float(found[1])
            return Step(CreationPhase.SOLVING, f"{found[1]} packages found")
        found = re.match(r"Total download: (.*)", text)
        if found is not None:
            return Step(CreationPhase.FETCHING, "the conda packages", 0.0, size_of(found[1]))
        for sign, phase, message in _SIGNS:
            if text.startswith(sign):
                if sign == "Linking ":
                    self._linked += 1
                    name = text.split()[1]
                    return Step(phase, name, float(self._linked), self._total)
                return Step(phase, message)
        return None


def size_of(text: str) -> float | None:
    """Return how many bytes a text like ``"25 MB"`` means; None if it is none."""
    found = _SIZE.search(text)
    if found is None:
        return None
    unit = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2].replace("K", "k")]
    return float(found[1]) * unit


def create_command(program: str, name: str, request: InstallRequest) -> list[str]:
    """Return the command that makes an environment.

    Args:
        program: its path.
        name: ``"micromamba"``, ``"mamba"`` or ``"conda"``.
        request: what is wanted.
    """
    spec = request.spec
    command = [program, "create", "--yes", "--prefix", str(request.prefix)]
    if request.creation.offline:
        command.append("--offline")
    if spec.lock is not None:
        text = lock_texts.explicit(conda_locks.explicit_lines(request))
        return [*command, "--file", str(request.file("explicit.txt", text))]
    command.append("--override-channels")
    for channel in spec.channels:
        command += ["--channel", channel]
    if spec.channel_priority is not None:
        command += _priority(name, spec.channel_priority)
    return [*command, *conda_locks.conda_specs(spec)]


def _priority(name: str, priority: str) -> list[str]:
    if name == "micromamba":
        return ["--channel-priority", priority]
    if priority == "flexible":
        return []
    return ["--strict-channel-priority" if priority == "strict" else "--no-channel-priority"]


class CondaBackend:
    """One of the programs that understand ``create --prefix``.

    Args:
        name: its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def program(self) -> str | None:
        """Return its path; None if there is none."""
        variable = {"micromamba": "MAMBA_EXE", "conda": "CONDA_EXE"}.get(self.name)
        named = os.environ.get(variable, "") if variable is not None else ""
        if named and Path(named).stem == self.name and os.access(named, os.X_OK):
            return named
        return shutil.which(self.name)

    def lacks(self, spec: EnvironmentSpec) -> str | None:
        """Return why it cannot make an environment; None if it can."""
        if self.program() is None:
            return f"there is no {self.name} on PATH"
        if spec.conda_constraints:
            return "it has no constraints"
        if spec.exclude_newer is not None:
            return "it cannot leave out what was published later (exclude-newer)"
        if spec.strategy not in (None, "highest"):
            return "it chooses the highest versions only"
        return pypi_part.lacks(spec)

    def make(self, request: InstallRequest) -> Made:
        """Make an environment."""
        creation, program, output = request.creation, self.program(), CondaOutput()
        assert program is not None
        version = creation.run([program, "--version"]).split()[-1]

        def on_line(line: str) -> None:
            step = output.feed(line)
            if step is not None:
                creation.report(*step)

        creation.report(CreationPhase.SOLVING, "the conda packages")
        creation.run(
            create_command(program, self.name, request),
            on_line=on_line,
            cwd=request.scratch,
            variables=VARIABLES,
            what=f"installing the conda packages with {self.name}",
            remedy="offline=True: only what was fetched before can be installed."
            if creation.offline
            else "",
        )
        held = pypi_part.install(request)
        return Made(f"{self.name} {version}", conda_locks.lock_of(request, held))
