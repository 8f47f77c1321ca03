"""Packages that come from a repository, a URL or a folder, as uv's and pixi's tables write them.

Both have the same keys (``git``, ``rev``, ``url``, ``path``, ``editable``, ...); both become direct
references of PEP 508, or folders that are installed in editable mode.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from wetlands_executor.environment import libraries
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Source
from wetlands_executor.environment.formats.tables import Table

#: Keys of which one says where a package comes from.
ORIGINS: Final = ("git", "url", "path")
_REVISIONS: Final = ("rev", "tag", "branch")
# What a marker may ask about that depends on the Python of an environment that does not exist yet.
_OF_PYTHON: Final = re.compile(
    r"\b(python_version|python_full_version|implementation_name|implementation_version|"
    r"platform_python_implementation|extra)\b"
)


def add_direct(
    draft: Draft, table: Table, name: str, extras: str = "", marker: str | None = None
) -> None:
    """Add the package that a table with ``git``, ``url`` or ``path`` tells of.

    Args:
        draft: what is added to.
        table: the package's table.
        name: of the package.
        extras: that are wanted, in brackets: ``"[gui]"``.
        marker: when it is wanted; None is always.

    Raises:
        SpecError: the table is not understood.
    """
    origins = [key for key in ORIGINS if key in table]
    if len(origins) != 1:
        raise table.error(f"{table.named()} has {' and '.join(origins)}", "Keep one of them.")
    if table.flag("lfs"):
        raise table.error(
            f"{table.named('lfs')} asks for files of Git LFS, which no backend here fetches",
            "Give a package that has them, or a folder with a checkout.",
            "lfs",
        )
    origin = origins[0]
    if origin == "path" and table.flag("editable"):
        if marker is None or holds_here(draft.source, marker, table.line("marker")):
            folder = draft.source.absolute(table.needed("path"))
            draft.add("editable", f"{folder}{extras}", table.line("path"))
        return
    address = {"git": _git, "url": _url, "path": _path}[origin](draft, table)
    condition = f" ; {marker}" if marker else ""
    draft.pypi(f"{name}{extras} @ {address}{condition}", table.line(), table.named())


def holds_here(source: Source, marker: str, line: int | None) -> bool:
    """Return whether a marker holds on this machine.

    Raises:
        SpecError: it is none, or depends on the Python of the environment.
    """
    if _OF_PYTHON.search(marker):
        raise source.error(
            f"{marker!r} depends on the environment's Python, which is not chosen yet",
            "Use markers of the platform here (sys_platform, platform_machine).",
            line,
        )
    with source.at(line):
        holds = libraries.marker_holds(marker)
    if holds is None:
        raise source.error(
            f"reading {marker!r} takes the package 'packaging'",
            f"Install it, or this library with the extra '{libraries.EXTRA}'.",
            line,
        )
    return holds


def _git(draft: Draft, table: Table) -> str:
    revisions = [key for key in _REVISIONS if key in table]
    if len(revisions) > 1:
        raise table.error(f"{table.named()} has {' and '.join(revisions)}", "Keep one of them.")
    address = table.needed("git")
    if "://" not in address:  # git's own short form, git@host:path
        address = re.sub(r"^([\w.-]+@[\w.-]+):", r"ssh://\1/", address)
    if "://" not in address:
        address = Path(draft.source.absolute(address)).as_uri()
    address = address if address.startswith("git+") else f"git+{address}"
    if revisions:
        address += f"@{table.needed(revisions[0])}"
    return address + _fragment(table)


def _url(draft: Draft, table: Table) -> str:  # noqa: ARG001 - one signature for the three
    return table.needed("url") + _fragment(table)


def _path(draft: Draft, table: Table) -> str:
    path = draft.source.absolute(table.needed("path"))
    if not os.path.exists(path):
        raise table.error(
            f"{table.named('path')} leads to {path!r}, which does not exist",
            f"Paths are relative to {draft.source.folder!r}.",
            "path",
        )
    return Path(path).as_uri() + _fragment(table)


def _fragment(table: Table) -> str:
    folder = table.text("subdirectory")
    return f"#subdirectory={folder}" if folder else ""
