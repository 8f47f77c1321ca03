"""Files of other tools that say what an environment shall hold: ``read(path)``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wetlands_executor.errors import SpecError

if TYPE_CHECKING:
    from wetlands_executor.environment.spec import EnvironmentSpec


def read(
    path: str | os.PathLike[str],
    *,
    groups: Iterable[str] = (),
    extras: Iterable[str] = (),
    environment: str | None = None,
) -> EnvironmentSpec:
    """Read what an environment shall hold from a file of any known format."""
    raise SpecError("this format is not known", path=os.fspath(path))
