"""``pylock.toml``, the lock file of PEP 751 (packaging specification "pylock.toml").

What is in it is checked by ``packaging`` where that is new enough (26.0).
"""

from __future__ import annotations

import re

from wetlands_executor.environment import libraries
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.formats.tables import Table, parse
from wetlands_executor.environment.formats.uv_settings import normalized

_LOCAL = ("archive", "directory", "sdist", "vcs")
_KEYS = re.compile(r"\[(\d+)\]|([\w-]+)")


def read(source: Source, wanted: Wanted) -> Draft:
    """Read a ``pylock.toml``.

    Raises:
        SpecError: it is malformed, or of a version that is not known.
    """
    draft, root = Draft(source), parse(source)
    version = root.needed("lock-version")
    if version.partition(".")[0] != "1":
        raise root.error(
            f"lock-version is {version!r}, and only 1.x is known",
            "Write the lock with an older version of the tool.",
            "lock-version",
        )
    if "packages" not in root:
        raise root.error("the file lacks 'packages'", "Write it anew with the tool that made it.")
    _validate(root)
    versions = root.text("requires-python")
    if versions is not None:
        draft.python(versions, root.line("requires-python"))
    for kind, names, key in (
        ("group", wanted.groups, "dependency-groups"),
        ("extra", wanted.extras, "extras"),
    ):
        known = {normalized(each) for each in (*root.texts(key), *root.texts("default-groups"))}
        for name in names:
            if normalized(name) not in known:
                there = f"There are {', '.join(sorted(known))}." if known else "It has none."
                raise root.error(f"the lock has no {kind} {name!r}", there, key)
    draft.put("lock", source.text)
    draft.put("lock_format", "pylock")
    draft.put("lock_groups", list(wanted.groups) or None)
    draft.put("lock_extras", list(wanted.extras) or None)
    if any(_is_local(package) for package in root.tables("packages")):
        draft.put("lock_folder", source.folder)
    return draft


def _is_local(package: Table) -> bool:
    """Return True if a package lies at a path, which may be relative to the lock."""
    tables = [package.table(key) for key in _LOCAL if key in package]
    return any(each.text("path") for each in [*tables, *package.tables("wheels")])


def _validate(root: Table) -> None:
    pylock = libraries.packaging("pylock")
    if pylock is None:
        root.tables("packages")
        return
    try:
        pylock.Pylock.from_dict(root.data)
    except pylock.PylockValidationError as error:
        reason = str(error)
        keys = tuple(
            int(found[1]) if found[1] else found[2] for found in _KEYS.finditer(error.context or "")
        )
        place = Table(root.source, root.data, keys)
        raise root.source.error(
            reason,
            "Write the lock anew with the tool that made it.",
            place.line() if keys else None,
        ) from error
