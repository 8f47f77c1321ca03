"""venv and pip: always there, for environments that need PyPI packages only.

Owns the argument lists and the meaning of pip's output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wetlands_executor.environment import python_finding
from wetlands_executor.environment.backends import lock_texts, requirements
from wetlands_executor.environment.backends.protocol import InstallRequest, Made, Step
from wetlands_executor.environment.creation_run import CreationPhase
from wetlands_executor.environment.layout import interpreter_of
from wetlands_executor.environment.spec import EnvironmentSpec, without_credentials

#: What pip writes if no index can be reached, or none has anything for this machine.
UNREACHABLE = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "SSLError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Max retries exceeded",
    "Connection refused",
    "Network is unreachable",
)
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_REPORTS = (22, 2)
_RAW_PROGRESS = (24, 1)
_NO_INDEX = "Could not fetch URL"
#: In such a line: the index has no package of that name.
_NO_PACKAGE = ": 404 Client Error"
#: Indexes whose errors are shown.
SHOWN_ERRORS = 5
_OTHER_PYTHON = (22, 3)


class PipOutput:
    """Reads the lines of ``pip install``."""

    def __init__(self) -> None:
        self._fetching = ""
        self._total = 0

    def feed(self, line: str) -> Step | None:
        """Return what a line says of the progress; None if nothing."""
        found = _PROGRESS.fullmatch(line.strip())
        if found is not None:
            current, maximum = float(found[1]), float(found[2])
            return Step(CreationPhase.FETCHING, self._fetching, current, maximum)
        words = line.split()
        if len(words) < 2:
            return None
        if words[0] == "Collecting":
            return Step(CreationPhase.SOLVING, words[1])
        if words[0] in ("Downloading", "Using", "Processing", "Obtaining"):
            name = words[2] if words[:2] == ["Using", "cached"] and len(words) > 2 else words[1]
            self._fetching = _file_name(name)
            return Step(CreationPhase.FETCHING, self._fetching)
        if words[:2] in (["Building", "wheel"], ["Building", "editable"]):
            return Step(CreationPhase.INSTALLING, f"building {words[-1].split('(')[0]}")
        if words[:2] == ["Installing", "collected"]:
            self._total = len(words) - 3
            return Step(
                CreationPhase.INSTALLING, f"{self._total} packages", 0.0, float(self._total)
            )
        if words[:2] == ["Successfully", "installed"]:
            total = float(len(words) - 2)
            return Step(CreationPhase.INSTALLING, f"{len(words) - 2} packages", total, total)
        return None

    def is_progress(self, line: str) -> bool:
        """Return True for a line that only tells progress."""
        return _PROGRESS.fullmatch(line.strip()) is not None


def venv_command(python: str, prefix: Path, *, with_pip: bool) -> list[str]:
    """Return the command that makes a virtual environment."""
    return [python, "-I", "-m", "venv", *([] if with_pip else ["--without-pip"]), str(prefix)]


def pip_command(base: python_finding.Interpreter, interpreter: str) -> tuple[list[str], str]:
    """Return the command of the pip that installs into a virtual environment, and its version.

    That of the interpreter from which the environment is made, if it can: putting pip into the
    environment first takes longer than installing most packages.

    Args:
        base: the interpreter from which it is made.
        interpreter: that of the environment.
    """
    if version_of(base.pip) >= _OTHER_PYTHON:
        return [base.executable, "-I", "-m", "pip", "--python", interpreter], base.pip
    return [interpreter, "-I", "-m", "pip"], base.packed_pip


def install_command(
    program: list[str],
    spec: EnvironmentSpec,
    wanted: Path,
    *,
    pip: tuple[int, ...],
    offline: bool = False,
    constraints: Path | None = None,
    report: Path | None = None,
    details: Path | None = None,
) -> list[str]:
    """Return the command that installs what a file of requirements lists.

    Args:
        program: the command of pip, for the environment.
        spec: what is wanted; its options are passed on.
        wanted: the file of requirements.
        pip: version of that pip.
        offline: no index may be asked.
        constraints: a file that limits versions.
        report: the file that gets pip's report.
        details: the file that gets what pip says of its work, errors of indexes too.
    """
    command = [*program, "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "raw" if pip >= _RAW_PROGRESS else "off"]
    options = spec.options
    if offline or options.no_index:
        command.append("--no-index")
    else:
        if options.index_url is not None:
            command += ["--index-url", options.index_url]
        for url in options.extra_index_urls:
            command += ["--extra-index-url", url]
    for place in options.find_links:
        command += ["--find-links", place]
    if options.prereleases:
        command.append("--pre")
    for name in options.only_binary:
        command += ["--only-binary", name]
    for name in options.no_binary:
        command += ["--no-binary", name]
    if constraints is not None:
        command += ["--constraint", str(constraints)]
    if spec.lock is not None:
        command.append("--no-deps")
    if report is not None and pip >= _REPORTS:
        command += ["--report", str(report)]
    if details is not None:
        command += ["--log", str(details)]
    return [*command, "--requirement", str(wanted)]


class PipBackend:
    """``python -m venv`` and ``pip install``."""

    name = "pip"

    def lacks(self, spec: EnvironmentSpec) -> str | None:
        """Return why it cannot make an environment; None if it can."""
        if spec.needs_conda:
            return "it installs no conda packages"
        return self.lacks_options(spec)

    def lacks_options(self, spec: EnvironmentSpec) -> str | None:
        """Return which option for PyPI packages it cannot do; None if there is none."""
        if spec.exclude_newer is not None:
            return "it cannot leave out what was published later (exclude-newer)"
        if spec.options.sources:
            return "it cannot bind a package to one index"
        if spec.options.overrides:
            return "it has no overrides"
        if spec.strategy not in (None, "highest"):
            return "it chooses the highest versions only"
        if spec.options.index_strategy not in (None, "unsafe-best-match"):
            return "it takes the best version of all indexes (index-strategy)"
        return None

    def make(self, request: InstallRequest) -> Made:
        """Make an environment."""
        spec, creation = request.spec, request.creation
        python = requirements.python_of(spec)
        try:
            base = python_finding.fitting(python)
        except python_finding.NoInterpreter as error:
            raise creation.failure(
                str(error),
                remedy="Install such a Python, or the extra 'create', whose uv fetches one.",
            ) from error
        creation.report(CreationPhase.INSTALLING, f"a virtual environment of Python {base.text}")
        with_pip = version_of(base.pip) < _OTHER_PYTHON
        creation.run(
            venv_command(base.executable, request.prefix, with_pip=with_pip),
            what=f"creating a virtual environment with {base}",
            remedy="This Python cannot make virtual environments; on Debian and Ubuntu the package "
            "python3-venv is missing.",
        )
        interpreter = interpreter_of(str(request.prefix))
        if interpreter is None:
            raise creation.failure("the virtual environment has no interpreter")
        program, version = pip_command(base, interpreter)
        found = self.install(request, interpreter, program, version)
        if spec.lock is not None:
            return Made(f"pip {version}", requirements.lock_again(found, base.text))
        told = read_report(self._report(request))
        lock = None if told is None else lock_texts.pylock(*told)
        return Made(f"pip {version}", lock)

    @staticmethod
    def _report(request: InstallRequest) -> Path:
        return request.scratch / "report.json"

    def install_beside(
        self, request: InstallRequest, interpreter: str
    ) -> Sequence[lock_texts.Locked] | None:
        """Install the PyPI part beside what an environment has, by a pip that can.

        Returns:
            What was installed; None if that cannot be locked.
        """
        found = python_finding.probe(interpreter)
        base = found if found is not None and found.pip else None
        if base is None:
            base = python_finding.fitting(None)
        program, version = [interpreter, "-I", "-m", "pip"], base.pip
        if found is None or not found.pip:
            program, version = pip_command(base, interpreter)
        installation = self.install(request, interpreter, program, version)
        if request.spec.lock is not None:
            return requirements.locked_of_urls(installation)
        told = read_report(self._report(request))
        return None if told is None else told[1]

    def install(
        self, request: InstallRequest, interpreter: str, program: list[str], version: str
    ) -> requirements.Installation:
        """Install the PyPI part into an environment that is there.

        Args:
            request: what is wanted.
            interpreter: that of the environment.
            program: the command of pip, for it.
            version: of that pip.
        """
        found = requirements.installation(request.spec, interpreter, request.creation)
        report = self._report(request)
        for number, lines in enumerate(found.groups):
            wanted = request.file(f"requirements-{number}.txt", "\n".join(lines) + "\n")
            self._install(request, found.spec, program, version, wanted, report)
        return found

    def _install(
        self,
        request: InstallRequest,
        spec: EnvironmentSpec,
        program: list[str],
        version: str,
        wanted: Path,
        report: Path,
    ) -> None:
        """Install what a file of requirements lists."""
        creation = request.creation
        limits = spec.options.constraints
        constraints = request.file("constraints.txt", "\n".join(limits) + "\n") if limits else None
        details = request.scratch / "pip.log"
        output = PipOutput()

        def on_line(line: str) -> bool:
            step = output.feed(line)
            if step is not None:
                creation.report(*step)
            return output.is_progress(line)

        creation.report(CreationPhase.SOLVING, "the PyPI packages")
        creation.run(
            install_command(
                program,
                spec,
                wanted,
                pip=version_of(version),
                offline=creation.offline,
                constraints=constraints,
                report=report,
                details=details,
            ),
            cwd=request.scratch,
            on_line=on_line,
            what="installing the PyPI packages with pip",
            remedy=lambda said: _remedy(said, details, creation.offline),
        )


def _remedy(said: str, details: Path, offline: bool) -> str:
    if offline:
        return (
            "offline=True: pip takes packages only from find-links then, not from what it has "
            "fetched before; uv (the extra 'create') does."
        )
    told = index_errors(details)
    if told and all(_NO_PACKAGE in line for line in told):  # it was reached, and has answered
        return "".join(f"{line}\n" for line in told) + "Check the names of the packages."
    if told or any(sign in said for sign in UNREACHABLE):
        return "".join(f"{line}\n" for line in told) + (
            "No package index could be reached. Check the network, or tell pip about a proxy or a "
            "mirror (pip config set global.index-url ...)."
        )
    return ""


def index_errors(details: Path) -> list[str]:
    """Return what pip says of indexes that gave no page of a package; it keeps that to its log."""
    try:
        lines = details.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = [line[line.index(_NO_INDEX) :] for line in lines if _NO_INDEX in line]
    return [without_credentials(line) for line in dict.fromkeys(found)][:SHOWN_ERRORS]


def read_report(report: Path) -> tuple[str, list[lock_texts.Locked]] | None:
    """Return the version of Python and the packages of pip's report of an installation.

    None if there is no report, or if it has something in it that cannot be locked.
    """
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        version = told["environment"]["python_full_version"]
        packages = [lock_texts.Locked(**_locked(entry)) for entry in told["install"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version, packages


def _locked(entry: dict[str, Any]) -> dict[str, Any]:
    info = entry["download_info"]
    archive = info.get("archive_info")
    if archive is None:
        directory = info.get("dir_info")
        if directory is None:
            raise KeyError("vcs_info")
        return {
            "name": entry["metadata"]["name"],
            "version": entry["metadata"]["version"],
            "url": info["url"],
            "editable": bool(directory.get("editable")),
        }
    return {
        "name": entry["metadata"]["name"],
        "version": entry["metadata"]["version"],
        "url": info["url"],
        "hashes": dict(archive["hashes"]),
    }


def _file_name(text: str) -> str:
    name = text.rstrip("/").rsplit("/", 1)[-1]
    return name.partition("-cp")[0].partition("-py")[0]


def version_of(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
