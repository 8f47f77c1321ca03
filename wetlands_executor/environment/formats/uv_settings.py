"""``[tool.uv]`` of a script or a project: indexes, sources, limits of versions.

Written after uv's reference of settings. A setting that changes what is installed and that no
backend here can honour is an error; one that only changes how uv works is passed over.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from typing import Any, Final

from wetlands_executor.environment.formats.direct import ORIGINS, add_direct, holds_here
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import load
from wetlands_executor.environment.formats.tables import Table, parse
from wetlands_executor.environment.notation import check_requirement, check_text

#: Settings that are read.
READ: Final = (
    "constraint-dependencies", "exclude-newer", "extra-index-url", "find-links", "index",
    "index-strategy", "index-url", "no-binary", "no-binary-package", "no-build",
    "no-build-package", "no-index", "override-dependencies", "prerelease", "resolution", "sources",
)  # fmt: skip
#: Settings that no backend here can do.
REFUSED: Final = (
    "build-constraint-dependencies", "config-settings", "config-settings-package",
    "dependency-metadata", "exclude-dependencies", "exclude-newer-package",
    "extra-build-dependencies", "extra-build-variables", "no-build-isolation",
    "no-build-isolation-package", "no-sources", "prerelease-package",
)  # fmt: skip
_NAME: Final = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?")


def normalized(name: str) -> str:
    """Return the normalised name of a PyPI package (packaging specification, "Names")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_settings(draft: Draft, uv: Table) -> None:
    """Take the settings of ``[tool.uv]``, without the sources.

    Raises:
        SpecError: one is malformed, or cannot be honoured.
    """
    for key in REFUSED:
        if uv.data.get(key):
            raise uv.error(
                f"{uv.named(key)} cannot be honoured by any backend here",
                "Take it out, or make the environment with uv and give its folder.",
                key,
            )
    _read_indexes(draft, uv)
    for key, option in (
        ("constraint-dependencies", "constraints"),
        ("override-dependencies", "overrides"),
    ):
        for text in uv.texts(key):
            with draft.source.at(uv.line(key, text)):
                draft.option(option, [_checked(text, uv.named(key))])
    if uv.text("prerelease") == "allow":
        draft.option("prereleases", True)
    if uv.data.get("exclude-newer") is not False:  # false takes back what uv's own settings say
        draft.put("exclude_newer", uv.text("exclude-newer"), uv.line("exclude-newer"))
    draft.put("strategy", uv.choice("resolution", ("highest", "lowest", "lowest-direct")))
    for key, option in (("no-build", "only_binary"), ("no-binary", "no_binary")):
        if uv.flag(key):
            draft.option(option, [":all:"])
        draft.option(option, list(uv.texts(f"{key}-package")))


def add_requirements(
    draft: Draft, table: Table, key: str, uv: Table, chosen: Iterable[str] = ()
) -> None:
    """Add the requirements of an array, each from the source that ``[tool.uv.sources]`` names.

    Args:
        draft: what is added to.
        table: the table that has the array.
        key: of the array.
        uv: the table ``[tool.uv]``.
        chosen: groups and extras that are wanted: sources may be for one of them only.

    Raises:
        SpecError: a requirement or its source is malformed, or cannot be honoured.
    """
    for text in table.texts(key):
        add_requirement(draft, text, table.line(key, text), uv, table.named(key), chosen)


def add_requirement(
    draft: Draft, text: str, line: int | None, uv: Table, name: str, chosen: Iterable[str] = ()
) -> None:
    """Add one requirement, from the source that ``[tool.uv.sources]`` names for it."""
    with draft.source.at(line):
        _checked(text, name)
    found = _NAME.match(text)
    source = None
    if found is not None and "@" not in text.partition(";")[0]:
        source = _source_of(uv, normalized(found[1]), tuple(chosen))
    if source is None or found is None:
        draft.pypi(text, line, name)
        return
    marker = text.partition(";")[2].strip() or None
    if "index" in source:
        draft.pypi(text, line, name)
        draft.option("sources", {normalized(found[1]): _index_url(uv, source)})
    elif any(key in source for key in ORIGINS):
        add_direct(draft, source, found[1], "".join((found[2] or "").split()), marker)
    elif source.flag("workspace"):
        if marker is None or holds_here(draft.source, marker, line):
            extras = "".join((found[2] or "").split())
            draft.add("editable", f"{_member(draft, uv, source, found[1])}{extras}", line)
    else:
        raise source.error(
            f"{source.named()} has none of index, git, url, path and workspace",
            'Give its folder: { path = "...", editable = true }.',
        )


def _checked(text: str, name: str) -> str:
    check_text(name, text)
    check_requirement(name, text)
    return text


def _read_indexes(draft: Draft, uv: Table) -> None:
    for index in uv.tables("index"):
        url = index.needed("url")
        if index.text("format") == "flat":
            draft.option("find_links", [url])
        elif index.flag("default"):
            draft.option("index_url", url)
        elif not index.flag("explicit"):
            draft.option("extra_index_urls", [url])
    draft.option("index_url", uv.text("index-url"))
    draft.option("extra_index_urls", list(uv.texts("extra-index-url")))
    draft.option("find_links", [_link(draft, each) for each in uv.texts("find-links")])
    draft.option("no_index", uv.flag("no-index"))
    strategies = ("first-index", "unsafe-first-match", "unsafe-best-match")
    draft.option("index_strategy", uv.choice("index-strategy", strategies))


def _link(draft: Draft, link: str) -> str:
    return link if "://" in link else draft.source.absolute(link)


def _source_of(uv: Table, name: str, chosen: tuple[str, ...]) -> Table | None:
    """Return the table that says where a package comes from on this machine; None if none does."""
    sources = uv.table("sources")
    for key in sources:
        if normalized(key) != name:
            continue
        several: Any = sources.data[key]
        tables = sources.tables(key) if isinstance(several, list) else [sources.table(key)]
        for table in tables:
            only = [table.text(each) for each in ("extra", "group") if each in table]
            if any(each not in chosen for each in only):
                continue
            marker = table.text("marker")
            if marker is None or holds_here(table.source, marker, table.line("marker")):
                return table
    return None


def _index_url(uv: Table, source: Table) -> str:
    name = source.needed("index")
    if "://" in name:
        return name
    for index in uv.tables("index"):
        if index.text("name") == name:
            return index.needed("url")
    raise source.error(
        f"{source.named()} names the index {name!r}, which is not there",
        f'Add [[{uv.named("index")}]] with name = "{name}" and its url.',
        "index",
    )


def _member(draft: Draft, uv: Table, source: Table, name: str) -> str:
    """Return the folder of a project of the workspace that this project belongs to.

    Raises:
        SpecError: there is no workspace, or it has no such project.
    """
    folder, workspace = draft.source.folder, uv.table("workspace")
    while not workspace:
        above = os.path.dirname(folder)
        if above == folder:
            raise source.error(
                f"{source.named()} names a project of a workspace, and there is none",
                'Give its folder: { path = "...", editable = true }.',
            )
        folder = above
        manifest = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(manifest):
            workspace = parse(load(manifest)).table("tool", "uv", "workspace")
    patterns = [folder, *(os.path.join(folder, each) for each in workspace.texts("members"))]
    left_out = {
        os.path.normpath(each)
        for pattern in workspace.texts("exclude")
        for each in glob.glob(os.path.join(folder, pattern))
    }
    for pattern in patterns:
        for path in map(os.path.normpath, sorted(glob.glob(pattern, recursive=True))):
            manifest = os.path.join(path, "pyproject.toml")
            if path in left_out or not os.path.isfile(manifest):
                continue
            called = parse(load(manifest)).table("project").text("name")
            if called is not None and normalized(called) == normalized(name):
                return path
    raise source.error(
        f"the workspace in {folder!r} has no project {name!r}",
        f"Add its folder to {workspace.named('members')}.",
    )
