"""Every ``python`` snippet of the ``README.md`` and of ``docs/*.md`` runs, and prints what the page says that it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages, stage

#: Seconds that the snippets of one page may take.
LIMIT = 60

_ALL = [(page, pages.snippets(page)) for page in pages.pages()]
_OPTIONAL = [(page, part) for page, parts in _ALL for part in parts if part.requires]
_printed: dict[Path, dict[int, str]] = {}


def run_page(page: Path, folder: Path) -> dict[int, str]:
    """Run a page's snippets in a process of their own, once; return what each has printed."""
    if page in _printed:
        return _printed[page]
    parts = pages.snippets(page)
    work, variables = stage.set_up(page.name, folder)
    for part in parts:
        if part.title is not None:
            path = work / part.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(part.code) + "\n", encoding="utf-8")
    source = pages.script(parts, stage.SUBSTITUTIONS.get(page.name, {}))
    # The prologue goes where the page's first line is: that is a heading, never a snippet.
    (work / "page.py").write_text(stage.PROLOGUES.get(page.name, "") + source, encoding="utf-8")
    # Bytes, because a text pipe would take a progress bar's \r for a line's end.
    done = subprocess.run([sys.executable, "page.py"], cwd=work, env=variables, capture_output=True, timeout=LIMIT, check=False)
    printed, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, f"{page.name} failed (line numbers are the page's):\n{errors}\nprinted:\n{printed}"
    _printed[page] = pages.outputs(printed)
    return _printed[page]


@pytest.mark.parametrize(("page", "parts"), _ALL, ids=[page.name for page, _ in _ALL])
def test_page_runs_and_prints_what_it_says(page: Path, parts: list[pages.Snippet], tmp_path: Path) -> None:
    """All snippets that need nothing special."""
    printed = run_page(page, tmp_path)
    wrong = []
    for part in parts:
        if part.title is None and not part.obstacle:
            assert part.line in printed, f"{part} did not run"
            if part.output is not None and (difference := pages.difference(part.output, printed[part.line])):
                wrong.append(f"{part} printed something else:\n{difference}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("page", "part"), _OPTIONAL, ids=[str(part) for _, part in _OPTIONAL])
def test_snippet_that_needs_a_package(page: Path, part: pages.Snippet, tmp_path: Path) -> None:
    """Say which snippets did not run, and why."""
    if part.obstacle:
        pytest.skip(f"{part}: {part.obstacle}")
    assert part.line in run_page(page, tmp_path)


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Files that a page links to, or shows as a picture, exist; sections too."""
    missing = [target for target in pages.links(page) if not pages.leads_somewhere(page, target)]
    assert not missing


def test_every_page_can_be_found() -> None:
    """The table of contents links to all pages."""
    folder = pages.ROOT / "docs"
    listed = set(pages.links(folder / "index.md"))
    assert {page.name for page in folder.glob("*.md")} - {"index.md"} <= listed


def test_output_with_dots_is_compared() -> None:
    """What the comparison accepts and what it does not."""
    assert not pages.difference("a ... c\n...\nend", "a b c\nany\nthing\nend")
    assert not pages.difference("[1, 2]", "[1, 2]\n")
    assert pages.difference("[1, 2]", "[1, 3]")
    assert pages.difference("a", "a\nb")


def test_a_page_is_taken_apart(tmp_path: Path) -> None:
    """Fences, titles, requirements and outputs, by example."""
    page = tmp_path / "p.md"
    blocks = [
        '```python title="f.py"\nx = 1\n```',
        "```python\nprint(2)\n```",
        "```text\n2\n```",
        '```python requires="no_such_module_here"\nboom\n```',
    ]
    page.write_text("# P\n\n" + "\n\n".join(blocks) + "\n")
    first, second, third = pages.snippets(page)
    assert (first.title, second.output, third.obstacle) == ("f.py", "2", "no_such_module_here is not installed")
    done = subprocess.run([sys.executable, "-c", pages.script([first, second, third], {})], capture_output=True, text=True, check=True)
    assert pages.outputs(done.stdout) == {7: "2"}
    page.write_text("```python\nnever closed\n")
    with pytest.raises(ValueError, match="not closed"):
        pages.snippets(page)
