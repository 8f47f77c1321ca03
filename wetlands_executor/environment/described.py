"""Environments that are described and not named: a spec, or a file that says what they hold.

What reads such files is imported when there is one: most programs do without it.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

from wetlands_executor.environment.layout import Layout
from wetlands_executor.environment.locate import by_path
from wetlands_executor.errors import EnvironmentNotFoundError

if TYPE_CHECKING:
    from typing import TypeGuard

    from wetlands_executor.environment.create_request import CreateRequest
    from wetlands_executor.environment.spec import EnvironmentSpec

#: How files end that describe an environment.
SUFFIXES: Final = (".py", ".yml", ".yaml", ".toml", ".txt", ".lock")
#: Files of projects, which may have been installed by their own manager.
OF_PROJECT: Final = ("pixi.toml", "pyproject.toml")


def description_file(what: object) -> str | None:
    """Return the path of a file that describes an environment; None if ``what`` is none.

    A bare word is an environment's name, but for that of a Python file.

    Raises:
        EnvironmentNotFoundError: it is the bare name of a Python file, and there is none.
    """
    if not isinstance(what, (str, os.PathLike)):
        return None
    path = os.path.expanduser(os.fsdecode(what))
    if not path.lower().endswith(SUFFIXES):
        return None
    if isinstance(what, str) and re.fullmatch(r"[^/\\]+", what):
        if not path.lower().endswith(".py"):
            return None
        if not os.path.isfile(path):
            raise EnvironmentNotFoundError(f"there is no file {what!r} in {os.getcwd()!r}")
    return path if os.path.isfile(path) else None


def is_spec(what: object) -> TypeGuard[EnvironmentSpec]:
    """Return True for an ``EnvironmentSpec``; imports nothing for that."""
    module = sys.modules.get("wetlands_executor.environment.spec")
    return module is not None and isinstance(what, module.EnvironmentSpec)


def project_environment(what: object) -> Layout | None:
    """Return the environment that a project's own manager has made, given the project's file.

    None if ``what`` is no such file, or nothing was made.
    """
    path = description_file(what)
    if path is None or os.path.basename(path) not in OF_PROJECT:
        return None
    try:
        return by_path(path)
    except EnvironmentNotFoundError:
        return None


def request_of(what: object) -> tuple[CreateRequest, str] | None:
    """Return the environment that a spec or a file describes, and how messages call it.

    None if ``what`` is neither.

    Raises:
        EnvironmentNotFoundError: see ``description_file``.
        SpecError: the file cannot be understood.
    """
    if is_spec(what):
        from wetlands_executor.environment.create_request import CreateRequest

        return CreateRequest(what), "the environment of its spec"
    path = description_file(what)
    if path is None:
        return None
    from wetlands_executor.environment.create_request import CreateRequest
    from wetlands_executor.environment.spec import EnvironmentSpec

    label = f"the environment of {os.path.basename(path)!r}"
    return CreateRequest(EnvironmentSpec.from_file(path)), label


def spec_of(what: object) -> EnvironmentSpec:
    """Return the spec that a spec or the path of a file stands for.

    Raises:
        TypeError: it is neither.
        SpecError: the file cannot be understood.
        OSError: it cannot be read.
    """
    from wetlands_executor.environment.spec import EnvironmentSpec

    if isinstance(what, EnvironmentSpec):
        return what
    if isinstance(what, (str, os.PathLike)):
        return EnvironmentSpec.from_file(what)
    raise TypeError(
        f"{what!r} is neither an EnvironmentSpec nor the path of a file that describes an "
        f"environment"
    )
