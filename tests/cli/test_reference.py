"""The page of all commands says what their parsers say."""

from __future__ import annotations

from tests.cli import reference


def test_the_reference_is_that_of_the_parsers() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), (
        "run python -m tests.cli.reference"
    )
