"""``pixi.lock``, versions 4 to 7 of rattler's format."""

from __future__ import annotations

import difflib
from typing import Final

from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.nodes import Node, parse
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.subdir import subdir

VERSIONS: Final = ("4", "5", "6", "7")
_KINDS: Final = ("conda", "pypi", "conda_source")


def read(source: Source, wanted: Wanted) -> Draft:
    """Read a ``pixi.lock``.

    Raises:
        SpecError: it is malformed, of a version that is not known, or lacks the environment or this
            machine's platform.
    """
    draft, root = Draft(source), parse(source)
    if wanted.groups or wanted.extras:
        raise source.error("a pixi.lock has no groups and no extras", "Give environment=...")
    found = packages_of(root, wanted.environment, subdir())
    if any(_is_local(address) for _, address, _ in found):
        draft.put("lock_folder", source.folder)
    draft.put("lock", source.text)
    draft.put("lock_format", "pixi")
    if wanted.environment not in (None, "default"):
        draft.put("lock_groups", [wanted.environment])
    return draft


def packages_of(root: Node, environment: str | None, platform: str) -> list[tuple[str, str, Node]]:
    """Return the packages of an environment on a platform.

    Args:
        root: of the lock.
        environment: its name; None stands for ``default``.
        platform: conda's name of it, ``"linux-64"``.

    Returns:
        Of each whether it is ``"conda"`` or ``"pypi"``, its address, and where it is listed.

    Raises:
        SpecError: the lock is malformed, or lacks the environment or the platform.
    """
    version = root.get("version")
    if not version or version.text() not in VERSIONS:
        shown = version.text() if version else "missing"
        raise version.error(
            f"the lock's version is {shown}, and {', '.join(VERSIONS)} are known",
            "Write the lock with another version of pixi.",
        )
    name = environment or "default"
    environments = dict(root.get("environments").items())
    if name not in environments:
        near = difflib.get_close_matches(name, environments, n=1)
        raise root.get("environments").error(
            f"the lock has no environment {name!r}",
            f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(environments)}.",
        )
    listed = environments[name].get("packages")
    platforms = dict(listed.items())
    chosen = _platform(root, platforms, platform)
    if chosen is None:
        known = ", ".join(platforms) or "no platform"
        raise listed.error(
            f"the lock is for {known}, and this machine is {platform}",
            f"Add {platform!r} to the workspace's platforms, and lock again.",
        )
    return [_package(entry) for entry in platforms[chosen].list()]


def _platform(root: Node, platforms: dict[str, Node], wanted: str) -> str | None:
    """Return how the lock calls a platform; version 7 may give it a name of its own."""
    if wanted in platforms:
        return wanted
    for entry in root.get("platforms").list():
        name = entry.get("name").text()
        if entry.get("subdir") and entry.get("subdir").text() == wanted and name in platforms:
            return name
    return None


def _package(entry: Node) -> tuple[str, str, Node]:
    for key, value in entry.items():
        if key not in _KINDS:
            continue
        address = value.text()
        is_source = key == "conda" and not address.endswith((".conda", ".tar.bz2"))
        if key == "conda_source" or is_source:
            raise value.error(
                f"{address!r} is to be built from its source, which no backend here can do",
                "Build and publish it, and lock again.",
            )
        return key, address, entry
    raise entry.error("the entry has neither 'conda' nor 'pypi'", "Lock again: pixi lock.")


def _is_local(address: str) -> bool:
    return "://" not in address
