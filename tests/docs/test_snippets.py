"""Every ``python`` snippet of the ``README.md`` and of ``docs/*.md`` runs, and prints what the page
says that it prints.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import pages, stage

#: Seconds that the snippets of one page may take.
LIMIT = 110

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
    (work / "page.py").write_text(source, encoding="utf-8")
    # Bytes, because a text pipe would take a progress bar's \r for a line's end.
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=work,
        env=variables,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    printed, errors = done.stdout.decode(), done.stderr.decode()
    if done.returncode and "index could be reached" in errors:
        pytest.skip(f"{page.name} makes environments, and no package registry can be reached")
    assert done.returncode == 0, (
        f"{page.name} failed (line numbers are the page's):\n{errors}\nprinted:\n{printed}"
    )
    _printed[page] = pages.outputs(printed)
    return _printed[page]


@pytest.mark.parametrize(("page", "parts"), _ALL, ids=[page.name for page, _ in _ALL])
def test_page_runs_and_prints_what_it_says(
    page: Path, parts: list[pages.Snippet], tmp_path: Path
) -> None:
    """All snippets that need nothing special."""
    printed = run_page(page, tmp_path)
    wrong = []
    for part in parts:
        if part.title is None and not part.obstacle:
            assert part.line in printed, f"{part} did not run"
            if part.output is not None and (
                difference := pages.difference(part.output, printed[part.line])
            ):
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


@pytest.mark.parametrize("contents", ["README.md", "docs/index.md"])
def test_every_page_can_be_found(contents: str) -> None:
    """The README and the table of contents link to all pages."""
    page = pages.ROOT / contents
    listed = {(page.parent / target.partition("#")[0]).resolve() for target in pages.links(page)}
    assert {*(pages.ROOT / "docs").glob("*.md"), pages.ROOT / "CHANGELOG.md"} - {page} <= listed


_FIRST = next(part for part in pages.snippets(pages.ROOT / "README.md"))


def _as_file(folder: Path, code: str) -> tuple[list[str], str]:
    (folder / "first.py").write_text(code, encoding="utf-8")
    return [sys.executable, "first.py"], ""


@pytest.mark.parametrize(
    "paste",
    [
        _as_file,
        lambda _, code: ([sys.executable, "-"], code),
        lambda _, code: ([sys.executable, "-c", code], ""),
    ],
    ids=["file", "standard input", "-c"],
)
def test_the_first_snippet_of_the_readme_needs_nothing_but_the_package(
    tmp_path: Path, paste: Callable[[Path, str], tuple[list[str], str]]
) -> None:
    """A reader pastes it in any folder.

    No environment, no other file, and no home folder with settings.
    """
    assert _FIRST.title is None
    assert not _FIRST.requires
    assert _FIRST.output
    command, text = paste(tmp_path, "\n".join(_FIRST.code) + "\n")
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        command,
        input=text,
        cwd=tmp_path,
        env=stage.variables(home),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not pages.difference(_FIRST.output, done.stdout)
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "first.py"}
    assert not any(home.iterdir())


def _firsts() -> list[pages.Snippet]:
    """Return of each page the first snippet, and the first one that is run."""
    found = {}
    for _, parts in _ALL:
        for part in [*parts[:1], *[part for part in parts if part.title is None][:1]]:
            found[str(part)] = part
    return list(found.values())


@pytest.mark.parametrize("part", _firsts(), ids=str)
def test_a_first_snippet_carries_its_imports(part: pages.Snippet) -> None:
    """Each name that it uses is bound in it: the reader of a page may begin there."""
    assert not pages.unbound(part), f"{part} uses what it neither imports nor defines"


def test_names_that_a_snippet_lacks_are_found() -> None:
    """By example.

    What is imported, assigned, an argument, a builtin or a loop's variable is there.
    """

    def lacks(code: str) -> set[str]:
        return pages.unbound(pages.Snippet("p.md", 1, code.splitlines(), None, ()))

    assert lacks("with CondaEnvExecutor() as e:\n    e.submit(print, np.ones(3))") == {
        "CondaEnvExecutor",
        "np",
    }
    assert not lacks(
        "import a.b, c as d\ndef f(x, *y, **z): return a, d, x, y, z, f\nfor i in "
        "[]: print(i, [j for j in i])"
    )
    assert not lacks(
        "from m import g\ntry: g()\nexcept OSError as error: "
        "print(error)\nprint(__name__, lambda q: q)"
    )


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
    assert (first.title, second.output, third.obstacle) == (
        "f.py",
        "2",
        "no_such_module_here is not installed",
    )
    done = subprocess.run(
        [sys.executable, "-c", pages.script([first, second, third], {})],
        capture_output=True,
        text=True,
        check=True,
    )
    assert pages.outputs(done.stdout) == {7: "2"}
    page.write_text("```python\nnever closed\n")
    with pytest.raises(ValueError, match="not closed"):
        pages.snippets(page)
