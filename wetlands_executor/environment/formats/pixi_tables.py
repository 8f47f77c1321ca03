"""The tables of a manifest of pixi: ``pixi.toml``, ``[tool.pixi]`` of a project or a script.

Written after pixi's reference of the manifest (0.76). What is read is what this machine would get:
the tables of its platform override the general ones. What cannot be honoured is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from wetlands_executor.environment.formats.direct import ORIGINS, add_direct
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.tables import Table
from wetlands_executor.environment.formats.uv_settings import normalized
from wetlands_executor.environment.subdir import selectors, subdir

PRIORITIES: Final = ("strict", "flexible", "disabled")
STRATEGIES: Final = ("highest", "lowest", "lowest-direct")
#: Keys of a conda dependency, and how conda calls them between brackets.
_CONDA_KEYS: Final = {
    "version": "version", "build": "build", "build-number": "build_number", "channel": "channel",
    "subdir": "subdir", "file-name": "fn", "md5": "md5", "sha256": "sha256", "license": "license",
}  # fmt: skip
_NEWER: Final = ("extras", "flags", "when")
_BARE: Final = re.compile(r"\d[\w.]*", re.ASCII)
_REFERENCE: Final = re.compile(r"\$\{?\w|%\w+%")
_NO_BACKEND: Final = "which no backend here can do"


def read_workspace(draft: Draft, workspace: Table) -> None:
    """Take what holds for the whole workspace, without its channels.

    Raises:
        SpecError: it is malformed, or not for this machine.
    """
    check_platform(workspace, {})
    read_priorities(draft, workspace)
    draft.put("exclude_newer", workspace.text("exclude-newer"), workspace.line("exclude-newer"))
    read_pypi_options(draft, workspace.table("pypi-options"))


def platforms_of(table: Table) -> dict[str, str]:
    """Return the platforms of a workspace or a feature: how each is called, and what it is.

    Raises:
        SpecError: they are malformed.
    """
    listed = table.data.get("platforms", [])
    found = {}
    for each in listed if isinstance(listed, list) else [None]:
        platform = name = each
        if isinstance(each, Mapping):
            platform = each.get("platform", each.get("name"))
            name = each.get("name", platform)
        if not isinstance(platform, str) or not isinstance(name, str):
            raise table.error(
                f"{table.named('platforms')} is not an array of platforms",
                'Write platforms = ["linux-64"], or tables with platform = "linux-64".',
                "platforms",
            )
        found[name] = platform
    return found


def check_platform(table: Table, known: Mapping[str, str]) -> None:
    """Raise if a workspace or a feature is not for this machine.

    Args:
        table: of the workspace or the feature; without platforms it is for all.
        known: of the workspace: how its platforms are called, and what they are.
    """
    here = subdir()
    found = [known.get(name, platform) for name, platform in platforms_of(table).items()]
    if found and here not in found:
        raise table.error(
            f"{table.named('platforms')} has {', '.join(found)}, and this machine is {here}",
            f"Add {here!r} to it if the packages are there for it.",
            "platforms",
        )


def read_priorities(draft: Draft, table: Table) -> None:
    """Take how channels and versions are preferred, unless it is said already."""
    for key, name, choices in (
        ("channel-priority", "channel_priority", PRIORITIES),
        ("solve-strategy", "strategy", STRATEGIES),
    ):
        value = table.choice(key, choices)
        if name not in draft.fields:
            draft.put(name, value)


def channels(table: Table) -> list[tuple[str, int]]:
    """Return the channels of a workspace or a feature, each with its priority."""
    found = []
    listed = table.data.get("channels", [])
    for each in listed if isinstance(listed, list) else [None]:
        name, priority = each, 0
        if isinstance(each, Mapping):
            name, priority = each.get("channel"), each.get("priority", 0)
        if not isinstance(name, str) or not isinstance(priority, int):
            raise table.error(
                f"{table.named('channels')} is not an array of channels",
                'Write channels = ["conda-forge"], or { channel = "nvidia", priority = 1 }.',
                "channels",
            )
        found.append((name, priority))
    return found


def add_channels(draft: Draft, found: Iterable[tuple[str, int]], line: int | None) -> None:
    """Add channels, those of a higher priority first, the others in their order."""
    for name, _ in sorted(found, key=lambda each: -each[1]):
        local = name.startswith(("./", "../"))
        draft.add("channels", draft.source.absolute(name) if local else name, line)


def add_feature(draft: Draft, feature: Table, pool: Table) -> None:
    """Add what a feature asks for on this machine.

    Args:
        draft: what is added to.
        feature: a table with ``dependencies``, ``pypi-dependencies``, ``activation``, ``target``.
        pool: ``[workspace.dependencies]``, from which entries may inherit.

    Raises:
        SpecError: an entry is malformed, or cannot be honoured.
    """
    for name, (table, _) in merged(feature, "dependencies").items():
        _add_conda(draft, table, name, pool)
    for name, (table, _) in merged(feature, "constraints").items():
        line = table.line(name)
        text = conda_text(draft, table, name, pool)
        draft.add("conda_constraints", text, line)
    for name, (table, _) in merged(feature, "pypi-dependencies").items():
        add_pypi(draft, table, name)
    for key in ("host-dependencies", "build-dependencies", "dev"):
        if feature.data.get(key):
            raise feature.error(
                f"{feature.named(key)} is for building packages, {_NO_BACKEND}", "Take it out.", key
            )
    for table in (feature, *_targets(feature)):
        _add_activation(draft, table.table("activation"))
    read_pypi_options(draft, feature.table("pypi-options"))


def merged(table: Table, key: str) -> dict[str, tuple[Table, Any]]:
    """Return the entries of a table by name, those of this platform over the general ones."""
    found: dict[str, tuple[Table, Any]] = {}
    for each in (table, *_targets(table)):
        entries = each.table(key)
        found |= {name: (entries, entries.data[name]) for name in entries}
    return found


def conda_text(draft: Draft, table: Table, name: str, pool: Table) -> str:
    """Return the conda specification that an entry of ``[dependencies]`` stands for.

    Raises:
        SpecError: it is malformed, or asks for what no backend can do.
    """
    value = table.data[name]
    if isinstance(value, str):
        return f"{name} {_versions(value)}".removesuffix(" *")
    entry = table.table(name)
    if entry.flag("workspace"):
        shared = pool.data.get(name)
        if shared is None:
            raise entry.error(
                f"{entry.named()} takes what [{pool.named()}] says, which has no {name!r}",
                f"Add {name!r} to [{pool.named()}].",
            )
        more = shared if isinstance(shared, Mapping) else {"version": shared}
        own = {key: each for key, each in entry.data.items() if key != "workspace"}
        entry = Table(entry.source, {**more, **own}, entry.keys)
    for key in _NEWER:
        if key in entry:
            raise entry.error(
                f"{entry.named(key)} belongs to repodata v3, {_NO_BACKEND}", "Take it out.", key
            )
    if "git" in entry or ("path" in entry and not _is_archive(entry.needed("path"))):
        raise entry.error(
            f"{entry.named()} is to be built from its source, {_NO_BACKEND}",
            "Ask for a built package, or install it with [pypi-dependencies].",
        )
    if "path" in entry:
        return Path(draft.source.absolute(entry.needed("path"))).as_uri()
    if "url" in entry:
        return entry.needed("url")
    entry.only((*_CONDA_KEYS, "workspace"))
    said = {key: text for key in _CONDA_KEYS if (text := entry.text(key)) is not None}
    version = _versions(said.pop("version", "*"))
    channel = said.get("channel", "")
    prefix = ""
    if channel and "/" not in channel:
        prefix = f"{said.pop('channel')}::"
    if not said:
        return f"{prefix}{name} {version}".removesuffix(" *")
    if version != "*":
        said["version"] = version
    quoted = ", ".join(f"{_CONDA_KEYS[key]}='{said[key]}'" for key in _CONDA_KEYS if key in said)
    return f"{prefix}{name}[{quoted}]"


def add_pypi(draft: Draft, table: Table, name: str) -> None:
    """Add an entry of ``[pypi-dependencies]``.

    Raises:
        SpecError: it is malformed, or asks for what no backend can do.
    """
    value, line = table.data[name], table.line(name)
    if isinstance(value, str):
        draft.pypi(f"{name}{_pypi_versions(value)}", line, table.named())
        return
    entry = table.table(name)
    entry.only((
        *ORIGINS, "version", "extras", "index", "rev", "tag", "branch", "subdirectory", "editable",
        "env-markers", "lfs",
    ))  # fmt: skip
    extras = f"[{','.join(entry.texts('extras'))}]" if entry.texts("extras") else ""
    marker = entry.text("env-markers") or None
    if any(key in entry for key in ORIGINS):
        add_direct(draft, entry, name, extras, marker)
        return
    condition = f" ; {marker}" if marker else ""
    versions = _pypi_versions(entry.text("version") or "*")
    draft.pypi(f"{name}{extras}{versions}{condition}", line, table.named())
    index = entry.text("index")
    if index:
        draft.option("sources", {normalized(name): index})


def read_pypi_options(draft: Draft, table: Table) -> None:
    """Take ``[pypi-options]``.

    Raises:
        SpecError: an option is malformed, or cannot be honoured.
    """
    if table.data.get("no-build-isolation"):
        raise table.error(
            f"{table.named('no-build-isolation')} cannot be honoured by any backend here",
            "Give a wheel of that package.",
            "no-build-isolation",
        )
    draft.option("index_url", table.text("index-url"))
    draft.option("extra_index_urls", list(table.texts("extra-index-urls")))
    strategies = ("first-index", "unsafe-first-match", "unsafe-best-match")
    draft.option("index_strategy", table.choice("index-strategy", strategies))
    for link in table.tables("find-links"):
        url = link.text("url")
        draft.option("find_links", [url or draft.source.absolute(link.needed("path"))])
    if table.text("prerelease-mode") == "allow":
        draft.option("prereleases", True)
    for key, option in (("no-build", "only_binary"), ("no-binary", "no_binary")):
        if isinstance(table.data.get(key), bool):
            draft.option(option, [":all:"] if table.data[key] else [])
        else:
            draft.option(option, list(table.texts(key)))


def _add_conda(draft: Draft, table: Table, name: str, pool: Table) -> None:
    text, line = conda_text(draft, table, name, pool), table.line(name)
    draft.conda(text, line, table.named())


def _add_activation(draft: Draft, activation: Table) -> None:
    if activation.data.get("scripts"):
        script = next(iter(activation.texts("scripts")))
        raise activation.error(
            f"{activation.named('scripts')} are not run by any backend here",
            f"Take them out, and give activate=['. {script}'] to the executor.",
            "scripts",
        )
    for name in activation.table("env"):
        variables = activation.table("env")
        value = variables.text(name) or ""
        if _REFERENCE.search(value):
            raise variables.error(
                f"{variables.named(name)} refers to another variable, which no backend expands",
                "Write the value out, or set it in worker_env of the executor.",
                name,
            )
        draft.variable(name, value, variables.line(name))


def _targets(table: Table) -> list[Table]:
    """Return the target tables for this machine, the most specific last."""
    targets = table.table("target")
    return [targets.table(name) for name in selectors(subdir()) if name in targets]


def _versions(text: str) -> str:
    """Return versions without blanks; a bare version is exact, as in pixi."""
    compact = "".join(text.split())
    return f"=={compact}" if _BARE.fullmatch(compact) else compact


def _pypi_versions(text: str) -> str:
    """Return versions of a PyPI package; pixi writes any version as ``*``, an exact one bare."""
    compact = text.strip()
    if compact == "*":
        return ""
    return f"=={compact}" if _BARE.match(compact) else compact


def _is_archive(path: str) -> bool:
    return path.endswith((".conda", ".tar.bz2"))
