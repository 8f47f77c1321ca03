"""What conda managers share: the packages that are asked for, and lists of URLs."""

from __future__ import annotations

from collections.abc import Sequence

from wetlands_executor.environment.notation import conda_name
from wetlands_executor.environment.pins import conda_pins
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir


def conda_specs(spec: EnvironmentSpec) -> list[str]:
    """Return the conda packages to install: those asked for, and Python.

    An environment without Python cannot have workers.
    """
    found = list(spec.conda)
    if spec.conda_python is not None:
        found.append(spec.conda_python)
    elif not any(conda_name(text) == "python" for text in found):
        found.append("python >=3.8")
    return found


def explicit_lines(spec: EnvironmentSpec) -> list[str]:
    """Return the URLs of the conda packages of a lock, with their hashes.

    Raises:
        SpecError: the lock does not have this platform.
    """
    pins = conda_pins(spec, subdir())
    return [f"{pin.url}#{digest}" if (digest := pin.sha256 or pin.md5) else pin.url for pin in pins]


def explicit_text(urls: Sequence[str]) -> str:
    """Return an ``@EXPLICIT`` list."""
    return "\n".join([f"# platform: {subdir()}", "@EXPLICIT", *urls, ""])
