"""The libraries that read files of other tools: imported when a file needs one, never before.

``tomllib`` and ``packaging`` are also taken from the copies that pip carries, so that a file which
asks for PyPI packages only can be read with the library's own dependencies alone, on every Python.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
import zipimport
from collections.abc import Iterable, Iterator
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from wetlands_executor.errors import SpecError

#: How the extra is called that has all of them.
EXTRA = "create"
#: Stands for the folder of what pip carries, in the pip that lies packed beside ``ensurepip``.
_PACKED = "_wetlands_packed"


def toml() -> Iterator[Any]:
    """List the readers of TOML that are here, the best first.

    ``tomli`` 2.4 and ``tomllib`` of Python 3.15 read TOML 1.1 (tables in braces may go over several
    lines), in which pixi's manifests may be written; older ones do not.

    Raises:
        SpecError: there is none.
    """
    is_found = False
    for name in ("tomllib", "tomli", "pip._vendor.tomli"):
        found = _first(name)
        if found is not None:
            is_found = True
            yield found
    bundled = None if is_found else _bundled("tomli")
    if bundled is not None:
        yield bundled
    elif not is_found:
        raise SpecError(
            "reading TOML takes the package 'tomli' on this Python",
            f"Install it, or this library with the extra '{EXTRA}'.",
        )


def yaml() -> Any:
    """Return PyYAML.

    Raises:
        SpecError: it is not installed.
    """
    found = _first("yaml")
    if found is None:
        raise SpecError(
            "reading YAML takes the package 'PyYAML'",
            f"Install it, or this library with the extra '{EXTRA}'.",
        )
    return found


def packaging(module: str) -> Any | None:
    """Return a module of ``packaging``, or pip's copy of it; None if there is neither."""
    return _first(f"packaging.{module}", f"pip._vendor.packaging.{module}")


def any_packaging(module: str) -> Any | None:
    """Return a module of ``packaging``, of whatever age: also the one beside ``ensurepip``.

    For choosing an interpreter and for looking whether what is installed fits; old ones (21) do not
    refuse all that is malformed.
    """
    found = packaging(module)
    if found is not None:
        return found
    if _PACKED not in sys.modules:
        parent = ModuleType(_PACKED)
        parent.__path__ = [f"{wheel}/pip/_vendor" for wheel in _pip_wheels()]
        sys.modules.setdefault(_PACKED, parent)
    return _first(f"{_PACKED}.packaging.{module}")


def requirement_fault(text: str) -> str | None:
    """Return what is wrong with a requirement of PEP 508; None if nothing is known to be."""
    requirements = packaging("requirements")
    if requirements is None:
        return None
    try:
        return _legacy(requirements.Requirement(text).specifier)
    except requirements.InvalidRequirement as error:
        return " ".join(str(error).split())


def specifier_fault(text: str) -> str | None:
    """Return what is wrong with a set of versions of PEP 440; None if nothing is known to be."""
    specifiers = packaging("specifiers")
    if specifiers is None:
        return None
    try:
        return _legacy(specifiers.SpecifierSet(text))
    except specifiers.InvalidSpecifier as error:
        return " ".join(str(error).split())


def _legacy(specifiers: Iterable[Any]) -> str | None:
    """Return what is wrong with versions that only releases of ``packaging`` before 22 accept."""
    for each in specifiers:
        if type(each).__name__ == "LegacySpecifier":
            return f"Invalid specifier: {str(each)!r}"
    return None


def marker_holds(text: str, environment: dict[str, str] | None = None) -> bool | None:
    """Return whether a marker of PEP 508 holds; None if there is nothing that can tell.

    Args:
        text: the marker, ``"sys_platform == 'linux'"``.
        environment: values of the marker's variables; those that lack are this interpreter's.

    Raises:
        SpecError: it is no marker.
    """
    markers = packaging("markers")
    if markers is None:
        return None
    try:
        return bool(markers.Marker(text).evaluate(environment))
    except (markers.InvalidMarker, markers.UndefinedComparison, KeyError) as error:
        raise SpecError(
            f"{text!r} is no marker: {' '.join(str(error).split())}",
            "Write it like \"sys_platform == 'linux'\".",
        ) from error


def _first(*names: str) -> ModuleType | None:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _bundled(name: str) -> ModuleType | None:
    """Import a package from the pip that ``ensurepip`` would install, under a private name."""
    # A module's parts are looked up under its full name, whose parent need not exist.
    private = f"_wetlands_bundled.{name}"
    if private in sys.modules:
        return sys.modules[private]
    for wheel in _pip_wheels():
        try:
            spec = zipimport.zipimporter(f"{wheel}/pip/_vendor").find_spec(private)
            if spec is None or spec.loader is None:
                continue
            sys.modules[private] = module = module_from_spec(spec)
            spec.loader.exec_module(module)
        except ImportError:
            sys.modules.pop(private, None)
            continue
        return module
    return None


def _pip_wheels() -> list[Path]:
    """Return the pip that ``ensurepip`` would install, as a file; empty if it has none.

    It lies packed beside ``ensurepip``, or where a Linux distribution keeps its wheels (the build
    option ``--with-wheel-pkg-dir`` of Python).
    """
    ensurepip = _first("ensurepip")
    if ensurepip is None or ensurepip.__file__ is None:
        return []
    wheels = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    distribution = sysconfig.get_config_var("WHEEL_PKG_DIR")
    return wheels + sorted(Path(distribution).glob("pip-*.whl")) if distribution else wheels
