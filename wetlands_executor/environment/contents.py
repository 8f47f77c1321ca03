"""What is installed in an environment, and whether that is what was asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from wetlands_executor.environment import libraries, python_finding
from wetlands_executor.environment.activate import VARIABLES
from wetlands_executor.environment.conda_notation import CondaParts, conda_parts, conda_versions
from wetlands_executor.environment.pins import CondaPin
from wetlands_executor.environment.spec import EnvironmentSpec

# Parses on every Python.
QUESTION: Final = """
import json, platform, sys
from importlib import metadata
found = {}
for each in metadata.distributions():
    name = each.metadata["Name"]
    if name:
        found.setdefault(name, each.version)
print("\\n" + json.dumps([platform.python_version(), sys.prefix, found]))
"""


class CondaPackage(NamedTuple):
    """A conda package that is installed.

    Attributes:
        version, build: of it.
        channel: URL of the channel that it came from, without the platform.
    """

    version: str
    build: str
    channel: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What an environment holds.

    Attributes:
        python: version of its interpreter.
        pypi: name to version of the distributions that its interpreter sees.
        conda: its conda packages by their names.
    """

    python: str
    pypi: Mapping[str, str]
    conda: Mapping[str, CondaPackage]


def normalized(name: str) -> str:
    """Return the name of a distribution as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_answer(answer: str, prefix: Path) -> Contents:
    """Return what an interpreter has answered to ``QUESTION``, and what conda's records say."""
    version, _, pypi = json.loads(answer.strip().splitlines()[-1])
    return Contents(version, dict(sorted(pypi.items(), key=_by_name)), conda_packages(prefix))


def _by_name(item: tuple[str, str]) -> str:
    return item[0].lower()


def conda_packages(prefix: Path) -> dict[str, CondaPackage]:
    """Return the conda packages of a prefix by their names."""
    found = {}
    try:
        files = sorted((prefix / "conda-meta").glob("*.json"))
    except OSError:
        return {}
    for file in files:
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            channel = str(told.get("url") or "").rsplit("/", 2)[0]
            found[str(told["name"])] = CondaPackage(
                str(told["version"]), str(told.get("build", "")), channel
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def conda_pins(prefix: Path) -> list[CondaPin]:
    """Return the conda packages of a prefix as a lock has them, sorted by URL."""
    found = []
    for file in sorted((prefix / "conda-meta").glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        found.append(CondaPin(url=str(told["url"]), sha256=told.get("sha256"), md5=told.get("md5")))
    return sorted(found, key=lambda pin: pin.url)


def ask(python: str, prefix: Path, variables: Mapping[str, str]) -> Contents:
    """Return what an environment holds.

    Raises:
        OSError, subprocess.SubprocessError, ValueError: its interpreter does not answer.
    """
    done = subprocess.run(
        [python, "-I", "-c", QUESTION],
        capture_output=True,
        text=True,
        check=True,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    return read_answer(done.stdout, prefix)


def missing(spec: EnvironmentSpec, contents: Contents, markers: Mapping[str, str]) -> list[str]:
    """Return what was asked for and is not there, in words.

    Args:
        spec: what was asked for.
        contents: what is there.
        markers: values of the environment markers of its interpreter, for requirements that apply
            to some machines only.
    """
    wrong = []
    if not python_finding.fits(contents.python, spec.python):
        wrong.append(f"python is {contents.python}, not {spec.python}")
    version = tuple(int(part) for part in contents.python.split(".")[:2])
    if version < python_finding.OLDEST:
        wrong.append(f"python is {contents.python}, workers need 3.8 or newer")
    if spec.lock is None:
        wrong += _missing_of_conda(spec, contents)
    wrong += _missing_of_pypi(spec, contents, markers)
    return wrong


def _missing_of_conda(spec: EnvironmentSpec, contents: Contents) -> list[str]:
    if not spec.needs_conda:
        return []
    wrong = []
    for text in spec.conda:
        parts = conda_parts(text)
        if parts is None:
            continue
        held = contents.conda.get(parts.name)
        if held is None:
            wrong.append(f"{parts.name} (conda) is not there")
        elif not _fits(parts, held):
            shown = f"{held.version} (build {held.build}, of {held.channel})"
            wrong.append(f"{parts.name} (conda) is {shown}, not {text}")
    return wrong


def _fits(parts: CondaParts, held: CondaPackage) -> bool:
    """Return True if a conda package is what was asked for, as far as that can be told here.

    Of versions that PEP 440 cannot say (a choice, a pattern), the solver's word counts.
    """
    if parts.build is not None and not fnmatchcase(held.build, parts.build):
        return False
    if parts.channel is not None and not _is_channel(parts.channel, held.channel):
        return False
    specifiers = libraries.any_packaging("specifiers")
    if parts.version is None or parts.version == "*" or specifiers is None:
        return True
    wanted = conda_versions(parts.version)
    if wanted is None:
        return True
    try:
        return bool(specifiers.SpecifierSet(wanted).contains(held.version, prereleases=True))
    except ValueError:  # a version that is none of PEP 440
        return True


def _is_channel(wanted: str, held: str) -> bool:
    """Return True if a package came from a channel; a mirror may have any name."""
    wanted = re.sub(r"/(noarch|(linux|osx|win|emscripten|wasi)-\w+)$", "", wanted.rstrip("/"))
    if "://" in wanted:
        return wanted == held
    return "://conda.anaconda.org/" not in held or held.endswith(f"/{wanted}")


def _missing_of_pypi(
    spec: EnvironmentSpec, contents: Contents, markers: Mapping[str, str]
) -> list[str]:
    requirements = libraries.any_packaging("requirements")
    if requirements is None:
        return []
    installed = {normalized(name): version for name, version in contents.pypi.items()}
    overridden = {
        normalized(requirements.Requirement(text).name) for text in spec.options.overrides
    }
    wrong = []
    for text in spec.pypi:
        wanted = requirements.Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({**markers, "extra": ""}):
            continue
        version = installed.get(normalized(wanted.name))
        if version is None:
            wrong.append(f"{wanted.name} is not there")
        elif normalized(wanted.name) not in overridden and not wanted.specifier.contains(
            version, prereleases=True
        ):
            wrong.append(f"{wanted.name} is {version}, not {wanted.specifier}")
    return wrong


def write_variables(prefix: Path, variables: Mapping[str, str]) -> None:
    """Have processes of a prefix get variables."""
    if variables:
        text = json.dumps(dict(variables), indent=1)
        Path(os.path.join(prefix, VARIABLES)).write_text(text, encoding="utf-8")
