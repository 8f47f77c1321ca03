"""uv: the program on PATH, or the wheel from PyPI (extra ``create``), for PyPI packages.

Owns the argument lists and the meaning of uv's output. uv chooses the packages first and writes
them with their hashes as ``pylock.toml`` (PEP 751); then it installs exactly these.
"""

from __future__ import annotations

import re
import shutil
import sysconfig
from pathlib import Path

from wetlands_executor.environment import python_finding
from wetlands_executor.environment.backends import requirements
from wetlands_executor.environment.backends.protocol import Made, Order, Step
from wetlands_executor.environment.layout import interpreter_of
from wetlands_executor.environment.making import CreationPhase
from wetlands_executor.environment.spec import EnvironmentSpec

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
    uv: str, python: str, spec: EnvironmentSpec, order: Order, lock: Path
) -> list[str]:
    """Return the command that chooses the packages and writes them to a lock file."""
    options = spec.options
    command = [uv, "pip", "compile", "--python", python, "--format", "pylock.toml"]
    command += ["--output-file", str(lock), "--no-header"]
    command += option_arguments(spec, offline=order.making.offline)
    if options.prereleases:
        command += ["--prerelease", "allow"]
    if spec.strategy is not None:
        command += ["--resolution", spec.strategy]
    for name, limits in (("constraints", options.constraints), ("overrides", options.overrides)):
        if limits:
            file = order.file(f"{name}.txt", "\n".join(limits) + "\n")
            command += [f"--{name}", str(file)]
    lines = requirements.wanted_lines(spec)
    if options.sources:
        command.append(str(order.file("pyproject.toml", _project(spec))))
        lines = [line for line in lines if line.startswith("--editable")]
        if not lines:
            return command
    return [*command, str(order.file("requirements.in", "\n".join(lines) + "\n"))]


def _project(spec: EnvironmentSpec) -> str:
    """Return a project that asks for the packages of a spec, some bound to one index."""
    quoted = requirements.toml_text
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

    def make(self, order: Order) -> Made:
        """Make an environment."""
        making, uv = order.making, self._program()
        version = making.run([uv, "--version"]).split()[1]
        making.report(CreationPhase.INSTALLING, "a virtual environment")
        making.run(
            venv_command(uv, self._python(order), order.prefix, offline=making.offline),
            cwd=order.scratch,
            what="making a virtual environment with uv",
        )
        interpreter = interpreter_of(str(order.prefix))
        if interpreter is None:
            raise making.failure("the virtual environment has no interpreter")
        return Made(f"uv {version}", self._install(order, uv, interpreter))

    def install(self, order: Order, interpreter: str) -> None:
        """Install the PyPI part beside what an environment has."""
        spec, making, uv = order.spec, order.making, self._program()
        for number, lines in enumerate(requirements.line_groups(spec, interpreter, making)):
            wanted = order.file(f"requirements-{number}.txt", "\n".join(lines) + "\n")
            command = install_command(uv, interpreter, spec, wanted, offline=making.offline)
            self._run(order, command, "installing the PyPI packages with uv")

    def _program(self) -> str:
        found = program()
        assert found is not None
        return found

    def _python(self, order: Order) -> str:
        """Return an interpreter of this machine, else what uv shall look for."""
        python = requirements.python_of(order.spec)
        try:
            return python_finding.fitting(python, virtual=False).executable
        except python_finding.NoInterpreter:
            return python or ">=3.8"

    def _install(self, order: Order, uv: str, interpreter: str) -> str | None:
        spec, making = order.spec, order.making
        lock = order.scratch / "pylock.toml"
        if spec.lock is None:
            if not requirements.wanted_lines(spec):
                return None
            making.report(CreationPhase.SOLVING, "the PyPI packages")
            command = compile_command(uv, interpreter, spec, order, lock)
            self._run(order, command, "choosing the PyPI packages with uv")
            text = _of_this_python(lock.read_text(encoding="utf-8"), interpreter, order)
        elif spec.lock_format != "pylock" or (
            spec.lock_groups or spec.lock_extras or spec.lock_folder
        ):
            self.install(order, interpreter)
            return spec.lock
        else:
            text = spec.lock
            lock.write_text(text, encoding="utf-8")
        command = sync_command(uv, interpreter, spec, lock, offline=making.offline)
        self._run(order, command, "installing the PyPI packages with uv")
        return text

    def _run(self, order: Order, command: list[str], what: str) -> None:
        output, making = UvOutput(), order.making

        def on_line(line: str) -> None:
            step = output.feed(line)
            if step is not None:
                making.report(*step)

        making.run(
            command,
            cwd=order.scratch,
            on_line=on_line,
            what=what,
            remedy=lambda said: _remedy(said, making.offline),
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


def _of_this_python(lock: str, interpreter: str, order: Order) -> str:
    """Return a lock whose ``requires-python`` says for which Python it was made.

    uv writes a lower bound; the wheels are those of one version.
    """
    version = requirements.markers_of(interpreter, order.making)["python_version"]
    return re.sub(
        r"^requires-python = .*$", f'requires-python = "=={version}.*"', lock, flags=re.MULTILINE
    )
