"""``@EXPLICIT`` lists, as ``conda list --explicit`` writes them: the URL of each package."""

from __future__ import annotations

import re

from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Source, Wanted

_URL = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://|/|\./|\.\./|~/|[A-Za-z]:[\\/])\S+?\.(?:conda|tar\.bz2)"
    r"(?:#(?:sha256:)?(?P<hash>[0-9a-f]+))?"
)
_PLATFORM = re.compile(r"#\s*platform:\s*(\S+)")


def read(source: Source, wanted: Wanted) -> Draft:
    """Read an explicit list.

    Raises:
        SpecError: a line is no URL of a package.
    """
    if wanted != Wanted():
        raise source.error("an explicit list has no groups and extras", "Take them out.")
    draft, lines, is_relative = Draft(source), [], False
    begun = False
    for number, text in enumerate(source.text.split("\n"), 1):
        line = text.strip()
        if line == "@EXPLICIT":
            begun = True
        if not line or line.startswith("#"):
            if _PLATFORM.match(line):
                lines.append(line)
            continue
        if line != "@EXPLICIT":
            _check(source, line, number)
            is_relative = is_relative or "://" not in line
        lines.append(line)
    if not begun:
        raise source.error("the line @EXPLICIT is missing", "Write it above the first package.", 1)
    draft.put("lock", "".join(f"{line}\n" for line in lines))
    draft.put("lock_format", "explicit")
    draft.put("lock_folder", source.folder if is_relative else None)
    return draft


def _check(source: Source, line: str, number: int) -> None:
    found = _URL.fullmatch(line)
    if found is None:
        raise source.error(
            f"{line!r} is no address of a conda package",
            "Write its URL (.conda or .tar.bz2), if need be with '#' and its MD5 hash.",
            number,
        )
    if found["hash"] is not None and len(found["hash"]) not in (32, 64):
        raise source.error(
            f"{found['hash']!r} is no hash: it has {len(found['hash'])} digits",
            "An MD5 hash has 32, a SHA-256 hash (sha256:...) 64.",
            number,
        )
