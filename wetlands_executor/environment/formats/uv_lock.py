"""``uv.lock``, the lock file of uv for a project or a script."""

from __future__ import annotations

import difflib

from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.formats.tables import Table, parse
from wetlands_executor.environment.formats.uv_settings import normalized

_LOCAL = ("editable", "virtual", "directory", "path")


def read(source: Source, wanted: Wanted) -> Draft:
    """Read a ``uv.lock``.

    Raises:
        SpecError: it is malformed, or of a version that is not known.
    """
    draft, root = Draft(source), parse(source)
    if root.data.get("version") != 1:
        raise root.error(
            f"the lock's version is {root.data.get('version', 'missing')}, and only 1 is known",
            "Write the lock with another version of uv.",
            "version",
        )
    if wanted.environment is not None:
        raise source.error("a uv.lock has no environments", "Give groups=... or extras=...")
    packages = root.tables("package")
    for package in packages:
        package.needed("name")
        if not package.table("source"):
            raise package.error("a package lacks its source", "Write the lock anew: uv lock.")
    if root.data.get("conflicts"):
        raise root.error(
            "the lock has groups or extras that exclude each other, which is not read here",
            "Export what you want: uv export --format pylock.toml.",
            "conflicts",
        )
    project = project_of(root)
    for kind, names, key in (
        ("group", wanted.groups, "dev-dependencies"),
        ("extra", wanted.extras, "optional-dependencies"),
    ):
        known = list(project.table(key)) if project is not None else []
        for name in names:
            if normalized(name) not in map(normalized, known):
                near = difflib.get_close_matches(name, known, n=1)
                there = f"There are {', '.join(known)}." if known else "It has none."
                remedy = f"Did you mean {near[0]!r}?" if near else there
                place = project or root
                raise place.error(f"the lock has no {kind} {name!r}", remedy)
    versions = root.text("requires-python")
    if versions is not None:
        draft.python(versions, root.line("requires-python"))
    draft.put("lock", source.text)
    draft.put("lock_format", "uv")
    draft.put("lock_groups", list(wanted.groups) or None)
    draft.put("lock_extras", list(wanted.extras) or None)
    if any(_is_local(package.table("source")) for package in packages):
        draft.put("lock_folder", source.folder)
    return draft


def _is_local(origin: Table) -> bool:
    """Return True if a package comes from a place that may be relative to the lock."""
    return any(key in origin for key in _LOCAL) or "://" not in (origin.text("registry") or "://")


def project_of(root: Table) -> Table | None:
    """Return the package that the lock was made for; None if it was made for a script.

    Raises:
        SpecError: it is not clear which one it is.
    """
    if root.tables("package") and "requirements" in root.table("manifest"):
        return None
    for package in root.tables("package"):
        source = package.table("source")
        if any(source.text(key) == "." for key in ("editable", "virtual", "directory")):
            return package
    if "members" not in root.table("manifest"):
        return None
    raise root.error(
        "the lock is of a workspace without a project of its own",
        "Export what you want: uv export --package NAME --format pylock.toml.",
        "manifest",
    )
