"""What pip and uv share: files of requirements, and ``pylock.toml`` (PEP 751) read and written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from wetlands_executor.environment import libraries
from wetlands_executor.environment.making import Making
from wetlands_executor.environment.pins import MARKERS_PROGRAM, pypi_pins
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of a lock.

    Attributes:
        name, version: of the package.
        url: of its file or folder.
        hashes: algorithm to hexadecimal digits.
        editable: it is a folder that is installed in editable mode.
    """

    name: str
    version: str
    url: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    editable: bool = False


def python_of(spec: EnvironmentSpec) -> str | None:
    """Return which versions of Python fit: those of the spec and of its lock."""
    parts = [spec.python] if spec.python else []
    if spec.lock is not None and spec.lock_format in ("pylock", "uv"):
        required = loads(spec.lock).get("requires-python")
        if isinstance(required, str):
            parts.append(required)
    return ",".join(parts) or None


def loads(text: str) -> dict[str, Any]:
    """Return what a TOML text holds."""
    found: dict[str, Any] = next(iter(libraries.toml())).loads(text)
    return found


def line_groups(spec: EnvironmentSpec, interpreter: str, making: Making) -> list[list[str]]:
    """Return the lines of the files of requirements that install the PyPI part of a spec.

    Installers want hashes for all lines of a file or for none, so there may be two.

    Args:
        spec: what is wanted.
        interpreter: that of the environment, for markers.
        making: asks it.

    Raises:
        SpecError: a lock is not for this Python or platform.
    """
    if spec.lock is None:
        found = [wanted_lines(spec)]
    elif spec.lock_format == "requirements":
        found = [spec.lock.splitlines()]
    else:
        pins = pypi_pins(spec, subdir(), markers_of(interpreter, making))
        found = [
            [pin.line() for pin in pins if pin.hashes],
            [pin.line() for pin in pins if not pin.hashes],
        ]
    return [lines for lines in found if lines]


def wanted_lines(spec: EnvironmentSpec) -> list[str]:
    """Return the lines for what is asked for without a lock."""
    return [*spec.pypi, *(f"--editable {_quoted(each)}" for each in spec.editable)]


def _quoted(path: str) -> str:
    """Return a path as it stands in a file of requirements."""
    return path.replace(" ", "\\ ") if os.name != "nt" else f'"{path}"'


def markers_of(interpreter: str, making: Making) -> dict[str, str]:
    """Return the values of the environment markers (PEP 508) of an interpreter."""
    told = making.run([interpreter, "-I", "-c", MARKERS_PROGRAM], separate=True)
    found: dict[str, str] = json.loads(told.splitlines()[-1])
    return found


# ------------------------------------------------------------------------------ writing pylock.toml


def pylock(python: str, packages: Iterable[Locked]) -> str:
    """Return a pylock.toml (PEP 751) that installs exactly these packages.

    Args:
        python: version of the Python for which they were chosen.
        packages: the packages.
    """
    minor = ".".join(python.split(".")[:2])
    text = [
        'lock-version = "1.0"',
        'created-by = "wetlands-executor"',
        f"requires-python = {toml_text(f'=={minor}.*')}",
    ]
    for package in sorted(packages, key=lambda each: each.name.lower()):
        name = re.sub(r"[-_.]+", "-", package.name).lower()
        text += ["", "[[packages]]", f"name = {toml_text(name)}"]
        url = urlparse(package.url)
        if not package.hashes and url.scheme == "file":
            text += [f"version = {toml_text(package.version)}"]
            path = url2pathname(url.path)
            editable = ", editable = true" if package.editable else ""
            text.append(f"directory = {{ path = {toml_text(path)}{editable} }}")
            continue
        text.append(f"version = {toml_text(package.version)}")
        place = (
            f"path = {toml_text(url2pathname(url.path))}"
            if url.scheme == "file"
            else f"url = {toml_text(package.url)}"
        )
        file = unquote(url.path).rsplit("/", 1)[-1]
        hashes = ", ".join(f"{kind} = {toml_text(value)}" for kind, value in package.hashes.items())
        entry = f"{{ name = {toml_text(file)}, {place}, hashes = {{ {hashes} }} }}"
        text.append(f"wheels = [{entry}]" if file.endswith(".whl") else f"sdist = {entry}")
    return "\n".join([*text, ""])


def toml_text(value: str) -> str:
    """Return a basic string of TOML; JSON's escapes are a part of TOML's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
