"""The ``python`` snippets of a page of documentation, and the script that runs them.

What the opening line of a snippet may say, in the page itself::

    ```python                        run, in order, all of a page in one namespace
    ```python title="segment.py"     written to that file in the page's folder before anything runs;
    not run by itself ```python requires="trio"        run only where these modules can be imported
    (several: separated by commas) ```text                          right after a snippet: what it
    prints; ``...`` stands for anything

A page becomes one script of as many lines: what is no snippet is blank, the opening and closing
lines say on standard output where a snippet begins and ends. So a traceback names the line of the
page, and each snippet's output can be told from the next one's.
"""

from __future__ import annotations

import builtins
import difflib
import fnmatch
import importlib.metadata
import importlib.util
import re
import symtable
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

#: Begins a line of ours in a page's output; no snippet prints it.
MARK = "\x02"

_OPENING = re.compile(r"^```(\w*)\s*(.*?)\s*$")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Snippet:
    """One fenced block of Python.

    Attributes:
        page: name of the file.
        line: number of its opening line, from 1.
        code: its lines.
        title: file that it is to be written to, or None if it is run.
        requires: modules that it needs.
        output: what it prints, None if the page does not say.
    """

    page: str
    line: int
    code: list[str]
    title: str | None
    requires: tuple[str, ...]
    output: str | None = None

    @property
    def obstacle(self) -> str:
        """Why it cannot run here; empty if it can."""
        return obstacle(self.requires)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def obstacle(modules: Iterable[str]) -> str:
    """Say why one of these modules cannot be used here, without importing it; empty if all can."""
    for module in modules:
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is None or importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
        if (
            package == "PySide6"
            and sys.version_info < (3, 12)
            and importlib.metadata.version("PySide6-Essentials") == "6.12.0"
        ):
            # It drops a reference to True with each emit; from Python 3.12 on True is immortal.
            return (
                "Signal.emit of PySide6 6.12.0 ends this version of Python after some hundred calls"
            )
    return ""


def pages() -> list[Path]:
    """Return the pages that are tested."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page: Path) -> list[Snippet]:
    """Return the Python snippets of a page, in order.

    Raises:
        ValueError: a block is not closed, or says what is not understood.
    """
    found: list[Snippet] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    last_end = -2
    number = 0
    while number < len(lines):
        opening = _OPENING.match(lines[number])
        if opening is None:
            number += 1
            continue
        end = next((n for n in range(number + 1, len(lines)) if lines[n].rstrip() == "```"), None)
        if end is None:
            raise ValueError(f"{page.name}:{number + 1}: the block is not closed")
        body = lines[number + 1 : end]
        language, rest = opening.groups()
        if language == "python":
            attributes = dict(_ATTRIBUTE.findall(rest))
            if _ATTRIBUTE.sub("", rest).strip() or attributes.keys() - {"title", "requires"}:
                raise ValueError(f"{page.name}:{number + 1}: what does {rest!r} mean?")
            requires = tuple(
                filter(None, attributes.get("requires", "").replace(" ", "").split(","))
            )
            found.append(Snippet(page.name, number + 1, body, attributes.get("title"), requires))
            last_end = end
        elif (
            language == "text"
            and found
            and found[-1].title is None
            and not any(line.strip() for line in lines[last_end + 1 : number])
        ):
            found[-1].output = "\n".join(body)
        number = end + 1
    return found


def unbound(part: Snippet) -> set[str]:
    """Return the names that a snippet reads although it neither imports nor binds them anywhere,
    and that are not built in.
    """
    table = symtable.symtable("\n".join(part.code) + "\n", str(part), "exec")
    bound = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned() or symbol.is_imported()
    }
    known = bound | set(dir(builtins)) | {"__name__", "__file__"}
    missing: set[str] = set()
    scopes = [table]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            if (
                symbol.is_referenced()
                and (symbol.is_global() or scope is table)
                and symbol.get_name() not in known
            ):
                missing.add(symbol.get_name())
    return missing


def script(parts: list[Snippet], substitutions: dict[str, str]) -> str:
    """Return the script of a page: snippet lines at their own numbers."""
    lines: dict[int, str] = {}
    for part in parts:
        if part.title is not None or part.obstacle:
            continue
        lines[part.line] = f"print({MARK + str(part.line)!r}, flush=True)"
        for offset, line in enumerate(part.code, start=1):
            for old, new in substitutions.items():
                line = line.replace(old, new)
            lines[part.line + offset] = line
        lines[part.line + len(part.code) + 1] = f"print({MARK!r}, flush=True)"
    return "\n".join(lines.get(number, "") for number in range(1, max(lines, default=0) + 1)) + "\n"


def outputs(stdout: str) -> dict[int, str]:
    """Take a page's output apart: number of the snippet's opening line -> what it printed."""
    found: dict[int, str] = {}
    current = 0
    for line in stdout.replace("\r\n", "\n").split("\n"):
        if line.startswith(MARK):
            current = int(line[1:] or 0)
            if current:
                found[current] = ""
        elif current:
            found[current] += line + "\n"
    return {number: text.rstrip("\n") for number, text in found.items()}


def difference(expected: str, printed: str) -> str:
    """Compare what a page says with what came; empty if they agree.

    ``...`` in a line stands for any part of it, alone for any lines.
    """
    pattern = "\n".join(
        "*" if line.strip() == "..." else _glob(line.rstrip())
        for line in expected.strip().splitlines()
    )
    actual = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    if fnmatch.fnmatchcase(actual, pattern):
        return ""
    return "\n".join(
        difflib.unified_diff(
            expected.strip().splitlines(), actual.splitlines(), "the page", "printed", lineterm=""
        )
    )


def _glob(line: str) -> str:
    return "*".join(re.sub(r"([*?[])", r"[\1]", part) for part in line.split("..."))


_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Return what a page links to within this project."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return [target for target in _LINK.findall(text) if "://" not in target]


def leads_somewhere(page: Path, target: str) -> bool:
    """Tell whether a link of a page has a file, and the section that it names."""
    name, _, section = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return False
    if not section:
        return True
    headings = re.findall(
        r"^#+\s+(.*)$", _FENCED.sub("", path.read_text(encoding="utf-8")), re.MULTILINE
    )
    return section in {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }
