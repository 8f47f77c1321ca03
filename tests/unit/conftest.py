"""Unit tests start no process."""

from __future__ import annotations

from tests.support.no_process import all_starts, refused_starts

__all__ = ["all_starts", "refused_starts"]
