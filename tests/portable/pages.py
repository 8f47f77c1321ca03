"""The tables of docs/portable.md."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "portable.md"


def _rows(heading: str) -> set[str]:
    """Return the first column of the table under a heading."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return set(rows[2:])


def kinds_of_the_page() -> set[str]:
    """Return what the page says that travels."""
    return _rows("What travels")


def refusals_of_the_page() -> set[str]:
    """Return what the page says that cannot travel."""
    return _rows("What cannot travel")
