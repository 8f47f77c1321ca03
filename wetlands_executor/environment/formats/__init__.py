"""Files of other tools that say what an environment shall hold: ``read(path)``."""

from __future__ import annotations

import os
from typing import Any

from wetlands_executor.errors import SpecError


def read(
    path: str | os.PathLike[str],
    *,
    groups: tuple[str, ...] = (),
    extras: tuple[str, ...] = (),
    environment: str | None = None,
) -> dict[str, Any]:
    """Read what an environment shall hold from a file of any known format."""
    raise SpecError("this format is not known", path=f"{path}{groups}{extras}{environment}")
