"""``pyproject.toml``: the project, its groups (PEP 735), ``[tool.uv]`` and ``[tool.pixi]``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from wetlands_executor.environment.formats import pixi_toml, uv_settings
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.formats.tables import Table, parse
from wetlands_executor.environment.formats.uv_settings import normalized
from wetlands_executor.environment.notation import conda_name

_REQUIRED = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?\s*$")


def read(source: Source, wanted: Wanted) -> Draft:
    """Read a ``pyproject.toml``.

    Raises:
        SpecError: it is malformed, says nothing about an environment, or asks for what no backend
            can do.
    """
    draft, root = Draft(source), parse(source)
    project, pixi = root.table("project"), root.table("tool", "pixi")
    if project and list(pixi) == ["package"]:  # only how pixi builds it
        pixi = Table(source, {}, pixi.keys)
    uv = root.table("tool", "uv")
    has_groups = bool(root.table("dependency-groups")) and bool(wanted.groups)
    if not project and not pixi and not has_groups:
        raise _nothing(root)
    versions = project.text("requires-python")
    if pixi:
        _read_pixi(draft, root, pixi, wanted)
    elif wanted.environment is not None:
        raise source.error(
            f"there is no environment {wanted.environment!r}: there is no [tool.pixi]",
            "Give groups=... or extras=... instead.",
        )
    if versions is not None and "python" not in draft.fields:
        draft.python(versions, project.line("requires-python"))
    uv_settings.read_settings(draft, uv)
    chosen = (*wanted.groups, *wanted.extras)
    uv_settings.add_requirements(draft, project, "dependencies", uv, chosen)
    for extra in wanted.extras:
        for text, line, name in extra_requirements(root, extra):
            uv_settings.add_requirement(draft, text, line, uv, name, chosen)
    for group in wanted.groups:
        for text, line, name in group_requirements(root, group):
            uv_settings.add_requirement(draft, text, line, uv, name, chosen)
    _add_itself(draft, root, uv, bool(pixi), wanted)
    if pixi:
        _prefer_conda(draft)
    return draft


def extra_requirements(
    root: Table, extra: str, within: tuple[str, ...] = ()
) -> list[tuple[str, int | None, str]]:
    """Return the requirements of an extra, each with its line and the name of its array.

    Raises:
        SpecError: there is no such extra, or it asks for itself.
    """
    project = root.table("project")
    table = project.table("optional-dependencies")
    key = _key_of(table, extra, "extra")
    if key is None:
        if "optional-dependencies" in project.texts("dynamic"):
            return []  # the build says what it asks for
        raise _unknown(table, extra, "extra")
    if key in within:
        raise table.error(f"the extra {key!r} asks for itself", "Cut the circle.", key)
    found = []
    for text in table.texts(key):
        inner = _REQUIRED.match(text)
        if inner and inner[2] and normalized(inner[1]) == normalized(project.text("name") or ""):
            for each in inner[2].split(","):
                found += extra_requirements(root, each.strip(), (*within, key))
        else:
            found.append((text, table.line(key, text), table.named(key)))
    return found


def group_requirements(
    root: Table, group: str, within: tuple[str, ...] = ()
) -> list[tuple[str, int | None, str]]:
    """Return the requirements of a dependency group, each with its line and its array's name.

    Raises:
        SpecError: there is no such group, it is malformed, or includes itself.
    """
    table = root.table("dependency-groups")
    key = _key_of(table, group, "group")
    if key is None:
        raise _unknown(table, group, "dependency group")
    if key in within:
        raise table.error(f"the group {key!r} includes itself", "Cut the circle.", key)
    entries: Any = table.data[key]
    if not isinstance(entries, list):
        table.texts(key)  # says what is wrong
    found: list[tuple[str, int | None, str]] = []
    for entry in entries:
        if isinstance(entry, str):
            found.append((entry, table.line(key, entry), table.named(key)))
        elif isinstance(entry, Mapping) and list(entry) == ["include-group"]:
            found += group_requirements(root, str(entry["include-group"]), (*within, key))
        else:
            raise table.error(
                f"{table.named(key)} holds {entry!r}",
                'An entry is a requirement in quotes, or { include-group = "..." }.',
                key,
            )
    return found


def _read_pixi(draft: Draft, root: Table, pixi: Table, wanted: Wanted) -> None:
    """Add an environment of ``[tool.pixi]``; the project's extras and groups are features there."""
    extras = root.table("project", "optional-dependencies")
    groups = root.table("dependency-groups")
    used = pixi_toml.read_environment(draft, pixi, wanted.environment, [*extras, *groups])
    for name in used:
        found = extra_requirements(root, name) if name in extras else []
        found += group_requirements(root, name) if name in groups else []
        for text, line, array in found:
            draft.pypi(text, line, array)


def _add_itself(draft: Draft, root: Table, uv: Table, has_pixi: bool, wanted: Wanted) -> None:
    """Install the project too, if it says how it is built (as uv does)."""
    project = root.table("project")
    package = uv.flag("package")
    is_package = bool(root.table("build-system")) if package is None else package
    if project and is_package and not has_pixi:
        extras = f"[{','.join(wanted.extras)}]" if wanted.extras else ""
        draft.add("editable", f"{draft.source.folder}{extras}", project.line())
    elif "dependencies" in project.texts("dynamic"):
        raise project.error(
            "the project's dependencies are found out by its build",
            "Add [build-system], or list them in [project] dependencies.",
            "dynamic",
        )


def _prefer_conda(draft: Draft) -> None:
    """Leave out PyPI packages that are asked for from conda by the same name, as pixi does."""
    names = {normalized(conda_name(text)) for text in draft.fields.get("conda", ())}
    kept = []
    for text in draft.fields.get("pypi", ()):
        found = re.match(r"[\w.-]+", text)
        if found is None or normalized(found[0]) not in names:
            kept.append(text)
    draft.fields["pypi"] = kept


def _key_of(table: Table, name: str, kind: str) -> str | None:
    keys = [key for key in table if normalized(key) == normalized(name)]
    if len(keys) > 1:
        raise table.error(
            f"{' and '.join(repr(key) for key in keys)} are one {kind}", "Keep one.", keys[1]
        )
    return keys[0] if keys else None


def _unknown(table: Table, name: str, kind: str) -> Exception:
    near = difflib.get_close_matches(name, list(table), n=1)
    there = f"There are {', '.join(table)}." if table else f"Add [{table.named()}]."
    return table.error(
        f"there is no {kind} {name!r}", f"Did you mean {near[0]!r}?" if near else there
    )


def _nothing(root: Table) -> Exception:
    if root.table("tool", "poetry"):
        poetry = root.table("tool", "poetry")
        return poetry.error(
            "the dependencies stand in Poetry's own table, which only Poetry reads",
            "Move them to [project] dependencies (Poetry 2 reads those), or export them: "
            "poetry export -f requirements.txt.",
        )
    if root.table("dependency-groups"):
        return root.error(
            "there are only dependency groups",
            f"Say which are wanted: groups=({next(iter(root.table('dependency-groups')))!r},).",
        )
    return root.source.error(
        "there is neither [project] nor [tool.pixi]",
        "Add [project] with name and dependencies.",
    )
