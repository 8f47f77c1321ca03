"""The design page and the comments name what exists."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "wetlands_executor"
SOURCES = sorted(PACKAGE.rglob("*.py"))
FILES = [
    f"/{path.relative_to(ROOT)}"
    for folder in ("wetlands_executor", "tests", "docs")
    for path in (ROOT / folder).rglob("*.py")
]
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
#: Files of an imagined user, and of other projects.
NOT_OURS = {
    "path/to/file.py", "mod.py", "FILE.py", "conda/activate.py", "conda/base/constants.py",
}  # fmt: skip
TABLES = {
    folder: set(re.findall(r"`(\w+\.py)`", rows))
    for folder, rows in re.findall(
        r"^\| files in `(\w+)/` \| own \|\n\|---\|---\|\n((?:\|.*\n)+)", DESIGN, re.MULTILINE
    )
    for rows in ["".join(row.split(" | ")[0] for row in rows.splitlines())]
}


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments and docstrings of a file with their lines."""
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if "#" in line:
            yield number, line.partition("#")[2]
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found = ast.get_docstring(node, clean=False)
            if found is not None:
                yield node.body[0].lineno, found


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def members() -> dict[str, set[str]]:
    """Return what each class of the package has: methods, fields, nested names; with its bases."""
    found: dict[str, set[str]] = {}
    bases: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ClassDef):
                continue
            names = found.setdefault(node.name, set())
            bases.setdefault(node.name, set()).update(
                re.split(r"[\[(]", ast.unparse(base))[0].rpartition(".")[2] for base in node.bases
            )
            for inner in ast.walk(node):
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    names.add(inner.name)
                elif isinstance(inner, ast.Attribute):
                    names.add(inner.attr)
                elif isinstance(inner, ast.Name):
                    names.add(inner.id)
                elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    names.add(inner.value)  # a slot
    for _ in range(3):  # no class of the package has a longer chain of bases in it
        for name, above in bases.items():
            for base in above:
                found[name] |= found.get(base, set())
    return found


MEMBERS = members()


def wrong_names(text: str) -> list[str]:
    """Return the ``Class.member`` of a text whose class is of the package and lacks the member."""
    return [
        f"{name}.{member}"
        for name, member in re.findall(r"(?<![\w.])([A-Z]\w+)\.([a-z_]\w*)", text)
        if name in MEMBERS and member not in MEMBERS[name]
    ]


def missing_files(text: str) -> list[str]:
    """Return the files that a text names and that neither the package nor the tests have."""
    return [
        name
        for name in re.findall(r"(?<![\w/.*{}])[\w/]+\.py\b", text)
        if name not in NOT_OURS
        and not any(file.endswith(f"/{name}") for file in FILES)
    ]


@pytest.mark.parametrize("folder", TABLES)
def test_a_table_has_the_files_of_its_folder(folder: str) -> None:
    files = {path.name for path in (PACKAGE / folder).glob("*.py")}
    assert TABLES[folder] == files - {"__init__.py"}


def test_the_folders_that_a_call_meets_have_a_table() -> None:
    assert set(TABLES) == {
        "carried", "futures", "in_process", "map", "pool", "scheduling", "serialize", "sharedmem",
        "worker",
    }  # fmt: skip


def test_the_picture_of_the_layers_is_complete() -> None:
    picture = DESIGN.partition("## Layers")[2].partition("```")[2].partition("```")[0]
    named = [
        name
        for line in picture.splitlines()
        for name in re.split(r" {3,}", line.strip())[0].split()
    ]
    parts = [path.stem for path in PACKAGE.glob("*.py")]
    parts += [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert sorted(named) == sorted(parts)


def test_comments_name_what_exists() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}:{line}": found
        for path in SOURCES
        for line, text in comments(path)
        if (found := [*wrong_names(text), *missing_files(text)])
    }
    assert wrong == {}


@pytest.mark.parametrize("page", ["design.md", "where-to-change-what.md", "glossary.md"])
def test_the_pages_for_contributors_name_what_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert [*wrong_names(text), *missing_files(text)] == []


def test_wrong_names_are_found() -> None:
    assert wrong_names("see ``Outbox.flush`` and ``Outbox.no_such``") == ["Outbox.no_such"]
    assert missing_files("``pool/outbox.py`` and ``pool/no_such.py``") == ["pool/no_such.py"]
