"""``pixi.toml``, and the same tables in ``[tool.pixi]``: one environment of a workspace."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from wetlands_executor.environment.formats import pixi_tables
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.formats.tables import Table, parse

_OF_FEATURE = (
    "activation", "channel-priority", "channels", "constraints", "dependencies", "platforms",
    "pypi-dependencies", "pypi-options", "solve-strategy", "system-requirements", "target", "tasks",
    "host-dependencies", "build-dependencies", "dev",
)  # fmt: skip
_ROOT = (
    *_OF_FEATURE, "workspace", "project", "feature", "environments", "package", "exclude-newer",
    "pypi-exclude-newer", "$schema",
)  # fmt: skip
_OF_ENVIRONMENT = (*_OF_FEATURE, "features", "no-default-feature", "solve-group")


def read(source: Source, wanted: Wanted) -> Draft:
    """Read a ``pixi.toml``.

    Raises:
        SpecError: it is malformed, or asks for what no backend can do.
    """
    draft, root = Draft(source), parse(source)
    root.only(_ROOT)
    if wanted.groups or wanted.extras:
        raise source.error("a pixi.toml has no groups and no extras", "Give environment=...")
    read_environment(draft, root, wanted.environment)
    return draft


def read_environment(
    draft: Draft, root: Table, environment: str | None, elsewhere: Collection[str] = ()
) -> list[str]:
    """Add one environment of a workspace.

    Args:
        draft: what is added to.
        root: the table that has ``workspace``, ``dependencies``, ``feature``, ``environments``.
        environment: its name; None stands for ``default``.
        elsewhere: names of features that do not stand in ``root`` (dependency groups of a project).

    Returns:
        Those of ``elsewhere`` that belong to the environment.

    Raises:
        SpecError: there is none of that name, or it is malformed.
    """
    workspace = root.table("workspace") or root.table("project")
    if not workspace:
        name = root.table("workspace").named()
        raise root.source.error(
            f"there is no table [{name}]"
            + (", only a package to build" if "package" in root else ""),
            f'Add [{name}] with channels = ["conda-forge"] and platforms = [...].',
        )
    for key in ("exclude-newer", "pypi-exclude-newer"):
        if root.data.get(key):
            raise root.error(
                f"{root.named(key)} has a date for each package, which no backend here can do",
                f"Use exclude-newer in [{workspace.named()}] alone.",
                key,
            )
    own = _environment(root, environment)
    features = [*([own] if own else []), *_features(root, own, elsewhere)]
    found = []
    known = pixi_tables.platforms_of(workspace)
    for feature in features:
        pixi_tables.check_platform(feature, known)
        has_channels = feature is not root and "channels" in feature
        if has_channels or feature is not own:
            found += pixi_tables.channels(feature if has_channels else workspace)
        pixi_tables.read_priorities(draft, feature)
    pixi_tables.read_workspace(draft, workspace)
    pixi_tables.add_channels(
        draft, found or pixi_tables.channels(workspace), workspace.line("channels")
    )
    if not draft.fields.get("channels"):
        draft.fields["channels"] = []
    pool = workspace.table("dependencies")
    for feature in features:
        pixi_tables.add_feature(draft, feature, pool)
    return [name for name in own.texts("features") if name in elsewhere]


def _environment(root: Table, name: str | None) -> Table:
    """Return the table of an environment; an empty one if it is ``default`` and has none."""
    environments = root.table("environments")
    if name is None or name in environments or name == "default":
        name = name or "default"
        value: Any = environments.data.get(name, {})
        if isinstance(value, list):  # the short form, a list of features
            return Table(root.source, {"features": value}, (*environments.keys, name))
        table = environments.table(name)
        table.only(_OF_ENVIRONMENT)
        return table
    known = ["default", *environments]
    near = difflib.get_close_matches(name, known, n=1)
    raise root.source.error(
        f"there is no environment {name!r}",
        f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}.",
        environments.line(),
    )


def _features(root: Table, environment: Table, elsewhere: Collection[str]) -> list[Table]:
    found = []
    features = root.table("feature")
    for name in environment.texts("features"):
        if name not in features and name not in elsewhere:
            known = [*features, *elsewhere]
            near = difflib.get_close_matches(name, known, n=1)
            raise environment.error(
                f"there is no feature {name!r}",
                f"Did you mean {near[0]!r}?" if near else f"Add [{features.named(name)}].",
                "features",
                name,
            )
        if name in features:
            feature = features.table(name)
            feature.only(_OF_FEATURE)
            found.append(feature)
    if not environment.flag("no-default-feature"):
        found.append(root)
    return found
