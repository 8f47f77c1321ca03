"""What pip and uv share: which Python is wanted, and what is installed by which call."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wetlands_executor.environment import libraries
from wetlands_executor.environment.backends import lock_texts
from wetlands_executor.environment.creation_run import CreationRun
from wetlands_executor.environment.pins import MARKERS_PROGRAM, PyPIPin, pypi_pins
from wetlands_executor.environment.pypi_options import PyPIOptions
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir

#: The index that installers ask if nothing else is said.
PYPI = "https://pypi.org/simple"


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


@dataclass(frozen=True, slots=True)
class Installation:
    """What an installer is to install, in one call for each group of lines.

    Installers want hashes for all lines of a call or for none, so there may be two.

    Attributes:
        asked: what is wanted.
        spec: the same, with the indexes that its lock names among its options.
        groups: the lines of the files of requirements.
        pins: what they come from, if that was a lock.
    """

    asked: EnvironmentSpec
    spec: EnvironmentSpec
    groups: tuple[tuple[str, ...], ...]
    pins: tuple[PyPIPin, ...] = ()


def installation(spec: EnvironmentSpec, interpreter: str, creation: CreationRun) -> Installation:
    """Return what installs the PyPI part of a spec.

    Args:
        spec: what is wanted.
        interpreter: that of the environment, for markers.
        creation: asks it.

    Raises:
        SpecError: a lock is not for this Python or platform.
    """
    beside = tuple(wanted_lines(spec))
    if spec.lock is None:
        return Installation(spec, spec, (beside,) if beside else ())
    pins: tuple[PyPIPin, ...] = ()
    if spec.lock_format == "requirements":
        lines = spec.lock.splitlines()
    elif spec.lock_format == "explicit":
        lines = []
    else:
        pins = pypi_pins(spec, subdir(), markers_of(interpreter, creation))
        lines = [pin.line() for pin in pins]
    hashed = tuple(line for line in lines if " --hash=" in line)
    loose = tuple(line for line in lines if " --hash=" not in line) + beside
    found = replace(spec, options=options_of(spec.options, pins))
    return Installation(spec, found, tuple(group for group in (hashed, loose) if group), pins)


def options_of(options: PyPIOptions, pins: Sequence[PyPIPin]) -> PyPIOptions:
    """Return options with which an installer finds what a lock lists.

    Args:
        options: those of the spec.
        pins: what is to be installed. Folders of archives stand for their index. The index of PyPI
            is left to the installer: its settings may name a mirror.
    """
    of_index = [pin for pin in pins if pin.url is None]
    folders = [folder for pin in of_index for folder in pin.folders]
    indexes = [
        pin.index
        for pin in of_index
        if pin.index is not None and not pin.folders and pin.index.rstrip("/") != PYPI
    ]
    found = replace(
        options,
        find_links=tuple(dict.fromkeys([*options.find_links, *folders])),
        extra_index_urls=tuple(dict.fromkeys([*options.extra_index_urls, *indexes])),
    )
    if indexes and options.index_strategy is None:
        # The hashes say which file it is, wherever that is found.
        found = replace(found, index_strategy="unsafe-best-match")
    if of_index and len(of_index) == len(pins) and all(pin.folders for pin in of_index):
        found = replace(found, no_index=True)
    return found


def lock_again(found: Installation, python: str) -> str | None:
    """Return the lock text of an environment of PyPI packages that was made from a lock.

    Args:
        found: what was installed.
        python: version of its Python.

    Returns:
        None if no text here can say it.
    """
    spec = found.asked
    if not lock_texts.needs_rewriting(spec):
        return spec.lock
    if spec.lock_format == "requirements":
        return lock_texts.requirements(spec)
    if spec.pypi:
        return None
    folders = [
        PyPIPin(name=each.name, url=each.url, editable=True)
        for each in map(lock_texts.locked_folder, spec.editable)
    ]
    return lock_texts.pylock_of_pins(python, [*found.pins, *folders])


def locked_of_urls(found: Installation) -> list[lock_texts.Locked] | None:
    """Return what a ``pixi.lock`` has installed, and what was asked for beside it.

    None if that cannot be locked.
    """
    if found.asked.pypi or found.asked.editable:
        return None
    locked = [lock_texts.locked(pin, None) for pin in found.pins]
    return [each for each in locked if each is not None]


def wanted_lines(spec: EnvironmentSpec) -> list[str]:
    """Return the lines for what is asked for without a lock."""
    return [*spec.pypi, *(f"--editable {_folder_url(each)}" for each in spec.editable)]


def _folder_url(path: str) -> str:
    """Return the path of a project, perhaps with extras, as URL.

    pip and uv do not agree about how a blank in a path is written.
    """
    folder, extras = path, ""
    found = re.search(r"\[[^\]]*\]$", path)
    if found is not None and not Path(path).exists():
        folder, extras = path[: found.start()], found[0]
    return Path(folder).as_uri() + extras


def markers_of(interpreter: str, creation: CreationRun) -> dict[str, str]:
    """Return the values of the environment markers (PEP 508) of an interpreter."""
    told = creation.run([interpreter, "-I", "-c", MARKERS_PROGRAM], separate=True)
    found: dict[str, str] = json.loads(told.splitlines()[-1])
    return found
