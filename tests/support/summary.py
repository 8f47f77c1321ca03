"""What test modules want printed at the end of the session: the key under which they leave it."""

from __future__ import annotations

import pytest

#: Lines for the terminal, in ``config.stash``.
summary_lines = pytest.StashKey[list[str]]()
