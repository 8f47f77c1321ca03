"""A Python file that carries its environment: inline script metadata (PEP 723).

Written after the packaging specification "Inline script metadata". conda packages stand where Pixi
0.76 and later read them (``[tool.pixi.workspace]``, ``[tool.pixi.dependencies]``), sources and
limits where uv reads them (``[tool.uv]``).
"""

from __future__ import annotations

import re
from dataclasses import replace

from wetlands_executor.environment.formats import pixi_tables, uv_settings
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.imported import suggest
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.formats.tables import Table, parse

_OPENING = re.compile(r"# /// ([a-zA-Z0-9-]+)")
_ALMOST = re.compile(r"\s*#\s*/{3,}\s*script\b.*")
_CLOSING = "# ///"
_OF_PIXI = (
    "activation", "constraints", "dependencies", "pypi-dependencies", "system-requirements",
    "target", "workspace",
)  # fmt: skip
_OF_WORKSPACE = (
    "channel-priority", "channels", "platforms", "preview", "pypi-options", "requires-pixi",
    "solve-strategy", "exclude-newer",
)  # fmt: skip
# Settings of uv that only change how uv works, or that other commands of it read.
_OF_UV = (
    "add-bounds", "cache-dir", "cache-keys", "compile-bytecode", "concurrent-builds",
    "concurrent-downloads", "concurrent-installs", "environments", "fork-strategy",
    "keyring-provider", "link-mode", "native-tls", "no-cache", "offline", "preview",
    "preview-features", "python-downloads", "python-install-mirror", "python-preference",
    "reinstall", "reinstall-package", "required-environments", "required-version", "system-certs",
    "upgrade", "upgrade-package", "allow-insecure-host", "http-proxy", "https-proxy", "no-proxy",
    "torch-backend",
)  # fmt: skip


def block(source: Source) -> Source | None:
    """Return the text of a file's block of the type ``script``; None if it has none.

    Raises:
        SpecError: there is more than one, or one is not closed.
    """
    lines, found, at = source.text.split("\n"), None, 0
    while at < len(lines):
        opening = _OPENING.fullmatch(lines[at])
        if opening is None:
            at += 1
            continue
        end = at + 1
        while end < len(lines) and (lines[end] == "#" or lines[end].startswith("# ")):
            end += 1
        # The last closing line of the comment counts: the block's content may have some of its own.
        closing = [number for number in range(at + 1, end) if lines[number] == _CLOSING]
        if opening[1] == "script":
            if not closing:
                raise source.error(
                    "this metadata block is not closed",
                    f"End it with the line '{_CLOSING}'; each line before it begins with '# '.",
                    at + 1,
                )
            if found is not None:
                raise source.error(
                    f"there is a second metadata block; the first begins in line {found[0] + 1}",
                    "Make one of the two.",
                    at + 1,
                )
            for number in range(at + 1, closing[-1]):
                if lines[number] == lines[at]:
                    raise source.error(
                        f"there is a second metadata block; the first begins in line {at + 1}",
                        "Make one of the two.",
                        number + 1,
                    )
            found = at, closing[-1]
        at = closing[-1] + 1 if closing else at + 1
    if found is None:
        return None
    content = "\n".join(line[2:] for line in lines[found[0] + 1 : found[1]])
    return replace(source, text=f"{content}\n", first_line=found[0] + 2)


def read(source: Source, wanted: Wanted) -> Draft:
    """Read the metadata block of a Python file.

    Raises:
        SpecError: there is none, or it is malformed, or asks for what no backend can do.
    """
    content = block(source)
    if content is None:
        raise _no_block(source)
    if wanted != Wanted():
        raise source.error("a script has no groups, extras and environments", "Take them out.")
    draft, root = Draft(content), parse(content)
    root.only(("dependencies", "requires-python", "tool"), "is no part of a script's metadata")
    pixi, uv = root.table("tool", "pixi"), root.table("tool", "uv")
    uv.only((*uv_settings.READ, *uv_settings.REFUSED, *_OF_UV))
    _read_pixi(draft, pixi)
    versions = root.text("requires-python")
    if versions is not None and "python" not in draft.fields:
        draft.python(versions, root.line("requires-python"))
    uv_settings.read_settings(draft, uv)
    uv_settings.add_requirements(draft, root, "dependencies", uv)
    return draft


def _read_pixi(draft: Draft, pixi: Table) -> None:
    pixi.only(_OF_PIXI, "is not read from a script")
    workspace = pixi.table("workspace")
    workspace.only(_OF_WORKSPACE, "is not read from a script")
    pixi_tables.read_workspace(draft, workspace)
    pixi_tables.add_channels(draft, pixi_tables.channels(workspace), workspace.line("channels"))
    pixi_tables.add_feature(draft, pixi, workspace.table("dependencies"))


def _no_block(source: Source) -> Exception:
    for number, line in enumerate(source.text.split("\n"), 1):
        if _ALMOST.fullmatch(line):
            return source.error(
                f"{line.strip()!r} does not begin a metadata block",
                "Write exactly '# /// script', at the beginning of the line, without more blanks.",
                number,
            )
    return source.error(
        "this file says nothing about its environment",
        f"Write a metadata block at its top (PEP 723). A first guess from its imports:\n\n"
        f"{suggest(source)}\n",
    )
