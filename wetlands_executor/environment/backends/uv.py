"""uv: the program on PATH, or the wheel from PyPI (extra ``create``), for PyPI packages.

Owns the argument lists and the meaning of uv's output. uv chooses the packages first and writes
them with their hashes as ``pylock.toml`` (PEP 751); then it installs exactly these.
"""

from __future__ import annotations

import json
import re
import shutil
import sysconfig
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from wetlands_executor.environment import contents, python_finding
from wetlands_executor.environment.backends import lock_texts, requirements
from wetlands_executor.environment.backends.protocol import InstallRequest, Made, Step
from wetlands_executor.environment.creation_run import CreationPhase
from wetlands_executor.environment.layout import interpreter_of
from wetlands_executor.environment.pins import pypi_pins
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir
from wetlands_executor.errors import EnvironmentCreationError, SpecError

#: What uv writes if an index cannot be reached.
UNREACHABLE = (
    "error sending request",
    "Failed to fetch",
    "dns error",
    "client error (Connect)",
    "Connection refused",
    "Network connectivity is disabled",
)
# uv.find_uv_bin() reads them. CPython fills them in steps, and a second thread that asks meanwhile
# gets a part of them; so they are filled here, where the lock of the import keeps others out.
sysconfig.get_config_vars()
_INSTALLED = re.compile(r"\+ ([\w.-]+)==(\S+)(?: \(from (\S+)\))?$")
#: Prints the tags of the wheels that were installed, by the names of the packages, as JSON.
TAGS_PROGRAM = """
import json, re
from importlib import metadata
found = {}
for each in metadata.distributions():
    lines = (each.read_text("WHEEL") or "").splitlines()
    name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
    found.setdefault(name, sorted(x[4:].strip() for x in lines if x.startswith("Tag:")))
print("\\n" + json.dumps(found))
"""
_COUNTED = re.compile(r"(Resolved|Prepared|Installed) (\d+) packages? in")


def program() -> str | None:
    """Return the path of uv; None if there is none."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


class UvOutput:
    """Reads the lines of uv."""

    def __init__(self) -> None:
        self._total: float | None = None

    def feed(self, line: str) -> Step | None:
        """Return what a line says of the progress; None if nothing."""
        words = line.split()
        found = _COUNTED.match(line.strip())
        if found is not None:
            count = float(found[2])
            if found[1] == "Resolved":
                self._total = count
                return Step(CreationPhase.SOLVING, f"{found[2]} packages found")
            if found[1] == "Prepared":
                return Step(CreationPhase.INSTALLING, f"{found[2]} packages", 0.0, count)
            return Step(CreationPhase.INSTALLING, f"{found[2]} packages", count, count)
        if len(words) >= 2 and words[0] in ("Downloading", "Downloaded"):
            return Step(CreationPhase.FETCHING, " ".join(words[1:]))
        if len(words) >= 2 and words[0] in ("Building", "Built"):
            return Step(CreationPhase.INSTALLING, f"{words[0].lower()} {words[1]}")
        return None


def venv_command(uv: str, python: str, prefix: Path, *, offline: bool = False) -> list[str]:
    """Return the command that makes a virtual environment.

    Args:
        uv: the program.
        python: an interpreter, or versions that fit: uv looks for one, or fetches it.
        prefix: where.
        offline: no network may be used.
    """
    command = [uv, "venv", "--no-project", "--python", python]
    return [*command, *(["--offline"] if offline else []), str(prefix)]


def option_arguments(spec: EnvironmentSpec, *, offline: bool) -> list[str]:
    """Return the arguments for how packages are found and chosen."""
    options = spec.options
    found: list[str] = []
    if offline:
        found.append("--offline")
    if options.no_index:
        found.append("--no-index")
    if options.index_url is not None:
        found += ["--default-index", options.index_url]
    for url in options.extra_index_urls:
        found += ["--index", url]
    if options.index_strategy is not None:
        found += ["--index-strategy", options.index_strategy]
    for place in options.find_links:
        found += ["--find-links", place]
    for name in options.only_binary:
        found += ["--only-binary", name]
    for name in options.no_binary:
        found += ["--no-binary", name]
    if spec.exclude_newer is not None:
        found += ["--exclude-newer", spec.exclude_newer]
    return found


def compile_command(
    uv: str, python: str, spec: EnvironmentSpec, request: InstallRequest, lock: Path
) -> list[str]:
    """Return the command that chooses the packages and writes them to a lock file."""
    options = spec.options
    command = [uv, "pip", "compile", "--python", python, "--format", "pylock.toml"]
    command += ["--output-file", str(lock), "--no-header"]
    command += option_arguments(spec, offline=request.creation.offline)
    if options.prereleases:
        command += ["--prerelease", "allow"]
    if spec.strategy is not None:
        command += ["--resolution", spec.strategy]
    for name, limits in (("constraints", options.constraints), ("overrides", options.overrides)):
        if limits:
            file = request.file(f"{name}.txt", "\n".join(limits) + "\n")
            command += [f"--{name}", str(file)]
    lines = requirements.wanted_lines(spec)
    if options.sources:
        command.append(str(request.file("pyproject.toml", _project(spec))))
        lines = [line for line in lines if line.startswith("--editable")]
        if not lines:
            return command
    return [*command, str(request.file("requirements.in", "\n".join(lines) + "\n"))]


def _project(spec: EnvironmentSpec) -> str:
    """Return a project that asks for the packages of a spec, some bound to one index."""
    quoted = lock_texts.toml_text
    indexes = sorted(set(spec.options.sources.values()))
    text = ["[project]", 'name = "wanted"', 'version = "0"']
    text.append(f"dependencies = [{', '.join(quoted(each) for each in spec.pypi)}]")
    for number, url in enumerate(indexes):
        text += ["", "[[tool.uv.index]]", f'name = "index-{number}"']
        text += [f"url = {quoted(url)}", "explicit = true"]
    text += ["", "[tool.uv.sources]"]
    for name, url in spec.options.sources.items():
        text.append(f'{quoted(name)} = {{ index = "index-{indexes.index(url)}" }}')
    return "\n".join([*text, ""])


def sync_command(
    uv: str, python: str, spec: EnvironmentSpec, lock: Path, *, offline: bool
) -> list[str]:
    """Return the command that installs exactly what a lock file lists."""
    command = [uv, "pip", "sync", "--python", python, "--allow-empty-requirements"]
    # Once, here, and not by each of the workers that start; a shared store may be read-only, too.
    command.append("--compile-bytecode")
    return [*command, *option_arguments(spec, offline=offline), str(lock)]


def install_command(
    uv: str, python: str, spec: EnvironmentSpec, wanted: Path, *, offline: bool
) -> list[str]:
    """Return the command that installs beside what an environment has."""
    command = [uv, "pip", "install", "--python", python, "--compile-bytecode"]
    command += option_arguments(spec, offline=offline)
    if spec.lock is not None:
        command.append("--no-deps")
    return [*command, "--requirements", str(wanted)]


def installed(said: str, folders: Container[str]) -> list[str]:
    """Return as requirements what uv says that it has installed.

    Args:
        said: its output.
        folders: URLs of projects that are left out.
    """
    found = {}
    for line in said.splitlines():
        match = _INSTALLED.match(line.strip())
        if match is not None and match[3] not in folders:
            found[match[1]] = f"{match[1]} @ {match[3]}" if match[3] else f"{match[1]}=={match[2]}"
    return list(found.values())


class UvBackend:
    """uv."""

    name = "uv"

    def lacks(self, spec: EnvironmentSpec) -> str | None:
        """Return why it cannot make an environment; None if it can."""
        if spec.needs_conda:
            return "it installs no conda packages"
        if program() is None:
            return "there is no uv, neither installed here nor on PATH"
        return None

    def make(self, request: InstallRequest) -> Made:
        """Make an environment."""
        creation, uv = request.creation, self._program()
        version = creation.run([uv, "--version"]).split()[1]
        creation.report(CreationPhase.INSTALLING, "a virtual environment")
        creation.run(
            venv_command(uv, self._python(request), request.prefix, offline=creation.offline),
            cwd=request.scratch,
            what="creating a virtual environment with uv",
        )
        interpreter = interpreter_of(str(request.prefix))
        if interpreter is None:
            raise creation.failure("the virtual environment has no interpreter")
        return Made(f"uv {version}", self._install(request, uv, interpreter))

    def install(
        self, request: InstallRequest, interpreter: str
    ) -> tuple[requirements.Installation, str]:
        """Install the PyPI part beside what an environment has; return what uv has said, too."""
        creation, uv = request.creation, self._program()
        found, said = requirements.installation(request.spec, interpreter, creation), []
        for number, lines in enumerate(found.groups):
            wanted = request.file(f"requirements-{number}.txt", "\n".join(lines) + "\n")
            command = install_command(uv, interpreter, found.spec, wanted, offline=creation.offline)
            said.append(self._run(request, command, "installing the PyPI packages with uv"))
        return found, "\n".join(said)

    def install_beside(
        self, request: InstallRequest, interpreter: str
    ) -> Sequence[lock_texts.Locked] | None:
        """Install the PyPI part beside what an environment has.

        Returns:
            What was installed; None if that cannot be locked.
        """
        found, said = self.install(request, interpreter)
        if request.spec.lock is not None:
            return requirements.locked_of_urls(found)
        return self._lock_installed(request, interpreter, said)

    def _lock_installed(
        self, request: InstallRequest, interpreter: str, said: str
    ) -> Sequence[lock_texts.Locked] | None:
        """Return what uv has installed beside other packages, with the archives that it chose.

        uv says which versions it has installed, and not from which archives. So these versions are
        locked, and of the archives of each that one counts whose tags the package has.
        """
        creation, uv = request.creation, self._program()
        folders = [lock_texts.locked_folder(each) for each in request.spec.editable]
        names = installed(said, {each.url for each in folders})
        if not names:
            return folders
        lock = request.scratch / "pylock.installed.toml"
        pinned = replace(request.spec, pypi=tuple(names), editable=(), strategy=None)
        pinned = replace(pinned, options=replace(pinned.options, constraints=(), overrides=()))
        command = compile_command(uv, interpreter, pinned, request, lock)
        try:
            self._run(request, [*command, "--no-deps"], "locking the PyPI packages with uv")
            text = lock.read_text(encoding="utf-8")
            markers = requirements.markers_of(interpreter, creation)
            pins = pypi_pins(
                EnvironmentSpec(lock=text, lock_folder=str(request.scratch)), subdir(), markers
            )
        except (EnvironmentCreationError, SpecError, OSError) as error:
            creation.note(f"the PyPI packages cannot be locked: {error}")
            return None
        tags = json.loads(creation.run([interpreter, "-I", "-c", TAGS_PROGRAM]).splitlines()[-1])
        locked = [lock_texts.locked(pin, tags.get(contents.normalized(pin.name))) for pin in pins]
        return None if None in locked else [*(each for each in locked if each), *folders]

    def _program(self) -> str:
        found = program()
        assert found is not None
        return found

    def _python(self, request: InstallRequest) -> str:
        """Return an interpreter of this machine, else what uv is to look for."""
        python = requirements.python_of(request.spec)
        try:
            return python_finding.fitting(python, virtual=False).executable
        except python_finding.NoInterpreter:
            return python or ">=3.8"

    def _install(self, request: InstallRequest, uv: str, interpreter: str) -> str | None:
        spec, creation = request.spec, request.creation
        lock = request.scratch / "pylock.toml"
        if spec.lock is None:
            if not requirements.wanted_lines(spec):
                return None
            creation.report(CreationPhase.SOLVING, "the PyPI packages")
            command = compile_command(uv, interpreter, spec, request, lock)
            self._run(request, command, "choosing the PyPI packages with uv")
            text = _of_this_python(lock.read_text(encoding="utf-8"), interpreter, request)
        elif spec.lock_format != "pylock" or lock_texts.needs_rewriting(spec):
            found, _ = self.install(request, interpreter)
            return requirements.lock_again(
                found, requirements.markers_of(interpreter, creation)["python_version"]
            )
        else:
            text = spec.lock
            lock.write_text(text, encoding="utf-8")
        command = sync_command(uv, interpreter, spec, lock, offline=creation.offline)
        self._run(request, command, "installing the PyPI packages with uv")
        return text

    def _run(self, request: InstallRequest, command: list[str], what: str) -> str:
        output, creation = UvOutput(), request.creation

        def on_line(line: str) -> None:
            step = output.feed(line)
            if step is not None:
                creation.report(*step)

        return creation.run(
            command,
            cwd=request.scratch,
            on_line=on_line,
            what=what,
            remedy=lambda said: _remedy(said, creation.offline),
        )


def _remedy(said: str, offline: bool) -> str:
    if offline:
        return "offline=True: only what uv has fetched before can be installed."
    if any(sign in said for sign in UNREACHABLE):
        return (
            "No package index could be reached. Check the network, or tell uv about a proxy or a "
            "mirror (the variables HTTPS_PROXY and UV_DEFAULT_INDEX)."
        )
    return ""


def _of_this_python(lock: str, interpreter: str, request: InstallRequest) -> str:
    """Return a lock whose ``requires-python`` says for which Python it was made.

    uv writes a lower bound; the wheels are those of one version.
    """
    version = requirements.markers_of(interpreter, request.creation)["python_version"]
    return re.sub(
        r"^requires-python = .*$", f'requires-python = "=={version}.*"', lock, flags=re.MULTILINE
    )
