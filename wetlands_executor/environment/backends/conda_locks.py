"""What conda managers share: the packages that are asked for, lists of URLs, and lock texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from wetlands_executor.environment import contents
from wetlands_executor.environment.backends import lock_texts
from wetlands_executor.environment.backends.protocol import InstallRequest
from wetlands_executor.environment.notation import conda_name
from wetlands_executor.environment.pins import CondaPin, conda_pins
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


def explicit_lines(request: InstallRequest) -> list[str]:
    """Return the URLs of the conda packages of a lock, with their hashes.

    Raises:
        SpecError: the lock does not have this platform.
        EnvironmentCreationError: a file of this machine has another hash; managers look at what
            they fetch only.
    """
    pins = conda_pins(request.spec, subdir())
    for pin in pins:
        wrong = _wrong_hash(pin)
        if wrong:
            raise request.creation.failure(
                f"the lock has another hash for {pin.url}: {wrong}",
                remedy="The file was changed since it was locked: lock again.",
            )
    return [pin.line() for pin in pins]


def _wrong_hash(pin: CondaPin) -> str:
    """Return what is wrong with a file of this machine; empty if nothing is, or it is elsewhere."""
    expected = pin.sha256 or pin.md5
    if not pin.url.startswith("file:") or expected is None:
        return ""
    try:
        data = Path(url2pathname(urlsplit(pin.url).path)).read_bytes()
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    kind = "sha256" if pin.sha256 else "md5"
    found = hashlib.new(kind, data, usedforsecurity=False).hexdigest()
    return "" if found == expected.lower() else f"{kind} {found}, not {expected}"


def lock_of(request: InstallRequest, held: Sequence[lock_texts.Locked] | None) -> str | None:
    """Return the text from which an environment of conda packages is made again.

    Args:
        request: what was wanted; it is made.
        held: its PyPI packages; None if they cannot be locked.
    """
    spec = request.spec
    if spec.lock is not None and not lock_texts.needs_rewriting(spec):
        return spec.lock
    if held is None:
        return None
    conda = contents.conda_pins(request.prefix)
    if held or spec.lock_format == "pixi":
        return lock_texts.pixi(conda, held)
    return lock_texts.explicit([pin.line() for pin in conda])
