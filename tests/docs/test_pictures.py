"""The pictures of the pages are what the library draws."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.docs import pages


def test_pictures_of_progress_bars() -> None:
    """Their text; how ``rich`` writes it down differs by its version."""
    pytest.importorskip("rich", reason="draws the pictures (extra progress)")
    program = pages.ROOT / "docs" / "progress_pictures.py"
    spec = importlib.util.spec_from_file_location("progress_pictures", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[Path, str] = module.pictures()
    assert len(found) == 2
    for path, text in found.items():
        assert _text(text) == _text(path.read_text(encoding="utf-8")), (
            f"run python docs/{program.name}"
        )


def _text(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)
