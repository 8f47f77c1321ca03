"""pixi, from PATH: its manifest, its argument list and the meaning of its output.

After the manual of pixi 0.76. pixi was not on the machine where this was written: the tests run the
real program where it is found. It installs the conda packages; PyPI packages follow with uv or pip,
as for the other conda managers. Of a ``pixi.lock`` it installs all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from wetlands_executor.environment.backends import conda_locks, pypi_part
from wetlands_executor.environment.backends.protocol import InstallRequest, Made, Step
from wetlands_executor.environment.conda_notation import conda_parts
from wetlands_executor.environment.creation_run import CreationPhase
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir


def manifest(spec: EnvironmentSpec) -> str:
    """Return the ``pixi.toml`` of a workspace that has the environment."""
    text = [
        "[workspace]",
        'name = "made"',
        f"channels = {json.dumps(list(spec.channels))}",
        f"platforms = {json.dumps([subdir()])}",
    ]
    if spec.channel_priority in ("strict", "disabled"):
        text.append(f'channel-priority = "{spec.channel_priority}"')
    if spec.exclude_newer is not None:
        text.append(f"exclude-newer = {json.dumps(spec.exclude_newer)}")
    if spec.strategy is not None:
        text.append(f'solve-strategy = "{spec.strategy}"')
    text += ["", "[dependencies]"]
    if spec.lock is None:
        text += [_dependency(each) for each in conda_locks.conda_specs(spec)]
    if spec.conda_constraints:
        text += ["", "[constraints]", *map(_dependency, spec.conda_constraints)]
    if spec.lock_groups:
        text += ["", "[environments]", *(f"{json.dumps(name)} = []" for name in spec.lock_groups)]
    return "\n".join([*text, ""])


def _dependency(text: str) -> str:
    """Return a conda package as a line of a manifest."""
    parts = conda_parts(text)
    assert parts is not None, "lacks() has looked"
    version = parts.version or "*"
    if re.fullmatch(r"\d[\w.]*", version):
        version = f"=={version}"  # a bare version is exact for conda; pixi's manual wants it said
    told = [("version", version), ("build", parts.build), ("channel", parts.channel)]
    given = [f"{key} = {json.dumps(value)}" for key, value in told if value is not None]
    if len(given) == 1:
        return f"{json.dumps(parts.name)} = {json.dumps(version)}"
    return f"{json.dumps(parts.name)} = {{ {', '.join(given)} }}"


def install_command(program: str, project: Path, spec: EnvironmentSpec) -> list[str]:
    """Return the command that installs the environment of a workspace."""
    command = [program, "install", "--manifest-path", str(project / "pixi.toml")]
    command += ["--no-progress", "--color", "never"]
    if spec.lock is not None:
        command.append("--frozen")
    for name in spec.lock_groups[:1]:
        command += ["--environment", name]
    return command


def step_of(line: str) -> Step | None:
    """Return what a line of output says of the progress; None if nothing."""
    text = line.strip().lower()
    if "solving" in text or "updating lock" in text or "lock file" in text:
        return Step(CreationPhase.SOLVING, "the conda packages")
    if "download" in text or "fetching" in text:
        return Step(CreationPhase.FETCHING, "the conda packages")
    if "installing" in text or "linking" in text:
        return Step(CreationPhase.INSTALLING, "the conda packages")
    return None


class PixiBackend:
    """pixi."""

    name = "pixi"

    def lacks(self, spec: EnvironmentSpec) -> str | None:
        """Return why it cannot make an environment; None if it can."""
        if shutil.which("pixi") is None:
            return "there is no pixi on PATH"
        if spec.lock is not None and spec.lock_format != "pixi":
            return "it installs no other lock than pixi.lock"
        for text in (*spec.conda, *spec.conda_constraints):
            parts = conda_parts(text)
            if parts is None or parts.others:
                return f"{text!r} cannot be written into its manifest here"
        return pypi_part.lacks(spec)

    def make(self, request: InstallRequest) -> Made:
        """Make an environment."""
        spec, creation, program = request.spec, request.creation, shutil.which("pixi")
        assert program is not None
        if creation.offline:
            raise creation.failure("pixi has no mode in which it never uses the network")
        version = creation.run([program, "--version"]).split()[-1]
        project = request.prefix.parent / "workspace"
        project.mkdir()
        (project / "pixi.toml").write_text(manifest(spec), encoding="utf-8")
        if spec.lock is not None:
            (project / "pixi.lock").write_text(spec.lock, encoding="utf-8")

        def on_line(line: str) -> None:
            step = step_of(line)
            if step is not None:
                creation.report(*step)

        creation.report(CreationPhase.SOLVING, "the conda packages")
        creation.run(
            install_command(program, project, spec),
            cwd=project,
            on_line=on_line,
            variables={"PIXI_PROJECT_MANIFEST": ""},
            what="installing with pixi",
        )
        name = spec.lock_groups[0] if spec.lock_groups else "default"
        # pixi decides where an environment is; it is found under the name that it was promised.
        os.symlink(project / ".pixi" / "envs" / name, request.prefix, target_is_directory=True)
        held = pypi_part.install(request)
        lock = project / "pixi.lock"
        if lock.exists() and spec.lock is None and held == ():
            return Made(f"pixi {version}", lock.read_text(encoding="utf-8"))
        return Made(f"pixi {version}", conda_locks.lock_of(request, held))
