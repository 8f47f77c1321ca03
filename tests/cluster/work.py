"""What tests call on hosts."""

from __future__ import annotations


def same(value: int) -> int:
    return value
