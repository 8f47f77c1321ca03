"""How a process of an environment is launched: argument vector, variables, folder.

Owns the checks of what a caller adds (``activate=``, ``cwd=``, ``worker_env=``), so that a mistake
is reported where it was made and not by a process that does not come up.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wetlands_executor.environment import _platform, frozen
from wetlands_executor.environment.activate import activation
from wetlands_executor.environment.inherited import without_leaks

if TYPE_CHECKING:
    from wetlands_executor.environment.layout import Located


def launch(
    environment: Located,
    activate: bool | Sequence[str],
    cwd: str | os.PathLike[str] | None,
    worker_env: Mapping[str, str] | None,
) -> tuple[tuple[str, ...], dict[str, str], str | None]:
    """Return argument vector, variables and folder; see ``Environment.launch_spec``."""
    folder = checked_cwd(cwd)
    own = checked_variables(worker_env, "worker_env")
    env = variables(environment, activate)
    env.update(own)
    return (str(environment.python), *own_options(environment)), env, folder


def own_options(environment: Located) -> list[str]:
    """Return the options with which this interpreter was started, if the environment is its own.

    None for another.

    As ``multiprocessing`` does it for its children; the standard library has this function for that
    purpose, under a private name. The flags of a frozen program are its boot loader's, and say
    nothing of the interpreter that it names.
    """
    if environment.kind != "current" or frozen.is_frozen():
        return []
    options: Callable[[], list[str]] = getattr(subprocess, "_args_from_interpreter_flags", list)
    return options()


def variables(environment: Located, activate: bool | Sequence[str]) -> dict[str, str]:
    """Return the variables for a process of an environment.

    Args:
        environment: the environment.
        activate: True to activate it, False to leave PATH as it is, or shell lines to run after its
            activation scripts.
    """
    lines = checked_lines(activate)
    if lines is not None:
        return activation(environment, lines)
    host = frozen.without_bundle(_platform.normalized(os.environ))
    return host if environment.kind == "current" else without_leaks(host, str(environment.prefix))


def checked_lines(activate: bool | Sequence[str]) -> tuple[str, ...] | None:
    """Return the shell lines that ``activate=`` stands for; None if nothing is to be activated."""
    if isinstance(activate, bool):
        return () if activate else None
    if isinstance(activate, (str, bytes)) or not isinstance(activate, Sequence):
        raise TypeError(
            f"activate={activate!r}: True, False or a sequence of shell lines is expected, for "
            f"example activate=[{activate!r}]"
        )
    for line in activate:
        if not isinstance(line, str):
            raise TypeError(f"activate: {line!r} is no shell line, a str is expected")
        if "\0" in line:
            raise ValueError(f"activate: the shell line {line!r} holds a NUL character")
    return tuple(activate)


def checked_variables(given: Mapping[str, Any] | None, argument: str) -> dict[str, str]:
    """Return variables that a process can have.

    An error names the variable, never its value, which may be a secret.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{argument} must be a mapping of names to values, not {type(given).__name__}"
        )
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(
                f"{argument}: the name {name!r} must be a str, not {type(name).__name__}"
            )
        if not name or "=" in name or "\0" in name:
            raise ValueError(
                f"{argument}: {name!r} is no name of a variable; it may not be empty "
                f"or hold '=' or NUL"
            )
        if not isinstance(value, str):
            remedy = f"; to unset it, activate=['unset {name}']" if value is None else ""
            raise TypeError(
                f"{argument}: the value of {name!r} must be a str, not "
                f"{type(value).__name__}{remedy}"
            )
        if "\0" in value:
            raise ValueError(f"{argument}: the value of {name!r} holds a NUL character")
    return _platform.normalized(given)


def checked_cwd(cwd: str | os.PathLike[str] | None) -> str | None:
    """Return the absolute path of an existing folder, or None."""
    if cwd is None:
        return None
    folder = os.path.abspath(os.fspath(cwd))
    if not os.path.exists(folder):
        raise FileNotFoundError(errno.ENOENT, "cwd does not exist", folder)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, "cwd is not a folder", folder)
    return folder
