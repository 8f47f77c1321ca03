"""``environment.yml`` of conda and mamba.

Written after conda's documentation of the file; ``sel(win): name`` is micromamba's.
"""

from __future__ import annotations

import difflib
import re

from wetlands_executor.environment.formats import requirements
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.nodes import Node, parse
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.subdir import selectors, subdir

_READ = ("channels", "dependencies", "variables", "name", "prefix", "platforms")
_SELECTOR = re.compile(r"sel\(([\w-]+)\)")
_REFERENCE = re.compile(r"\$\{?\w")


def read(source: Source, wanted: Wanted) -> Draft:
    """Read an ``environment.yml``; name, prefix and keys of other tools are passed over.

    Raises:
        SpecError: it is malformed, or asks for what no backend can do.
    """
    if wanted != Wanted():
        raise source.error("an environment.yml has no groups and extras", "Take them out.")
    draft, root = Draft(source), parse(source)
    if not root:
        raise source.error("the file is empty", "Write 'dependencies:' and a list below it.", 1)
    for key, value in root.items():
        near = difflib.get_close_matches(key, _READ, n=1, cutoff=0.75)
        if key not in _READ and near:
            raise value.error(f"{key!r} is not known here", f"Did you mean {near[0]!r}?")
    if not root.get("dependencies"):
        raise source.error(
            "the file lacks 'dependencies'", "Write 'dependencies:' and a list below it.", 1
        )
    for channel in root.get("channels").list():
        if channel.text() != "nodefaults":
            draft.add("channels", channel.text(), channel.line)
    for entry in root.get("dependencies").list():
        _read_dependency(draft, entry)
    for name, value in root.get("variables").items():
        if not value:
            raise value.error(f"{value.name} has no value", "Write one, in quotes if in doubt.")
        draft.variable(name, value.text(), value.line)
    return draft


def _read_dependency(draft: Draft, entry: Node) -> None:
    if entry.kind != "mapping":
        draft.conda(entry.text(), entry.line)
        return
    for key, value in entry.items():
        selector = _SELECTOR.fullmatch(key)
        if key == "pip":
            lines = [(each.line or 1, each.text().strip()) for each in value.list()]
            requirements.read_lines(draft.source, draft, lines)
        elif selector is None:
            raise value.error(
                f"{entry.name} has packages of {key!r}, which is not known here",
                "Packages of PyPI stand below 'pip:'.",
            )
        elif selector[1] in selectors(subdir()):
            draft.conda(value.text(), value.line)
