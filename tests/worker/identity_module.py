"""An importable module with sentinels of its own, for ``identity_script``."""

from __future__ import annotations


class Unset:
    """A class of sentinels."""


class Named:
    """A class of sentinels that have a name."""

    def __init__(self, name: str) -> None:
        self.name = name


MISSING = object()
UNSET = Unset()
NAMED = Named("NAMED")
