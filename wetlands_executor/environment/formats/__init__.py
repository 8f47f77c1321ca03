"""Files of other tools that say what an environment should contain: ``read(path)``.

One module for each format; ``detect`` says which one reads a file. All are imported when a file
needs them. None knows ``EnvironmentSpec``: what they return are its fields.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from wetlands_executor.environment.formats.detect import NAMES, format_of
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Wanted, load
from wetlands_executor.environment.pypi_options import PyPIOptions
from wetlands_executor.errors import SpecError


def read(
    path: str | os.PathLike[str],
    *,
    groups: tuple[str, ...] = (),
    extras: tuple[str, ...] = (),
    environment: str | None = None,
) -> dict[str, Any]:
    """Read what an environment should contain from a file of any known format.

    Returns:
        The arguments of ``EnvironmentSpec``.

    Raises:
        SpecError: the format is not known, or the file is malformed, or asks for what no backend
            can do.
        OSError: the file cannot be read.
    """
    if os.path.isdir(os.path.expanduser(path)):
        inside = sorted(set(os.listdir(os.path.expanduser(path))) & {*NAMES, "requirements.txt"})
        remedy = f"Give {' or '.join(repr(name) for name in inside)} in it." if inside else ""
        raise SpecError("this is a folder, not a file", remedy, os.fsdecode(path))
    source = load(path)
    module = import_module(f"{__name__}.{format_of(source)}")
    with source.at(None):
        draft: Draft = module.read(source, Wanted(groups, extras, environment))
        fields = dict(draft.fields)
        if draft.options:
            fields["options"] = PyPIOptions(**draft.options)
    return fields
