"""Commands of the user's in an activated environment.

What ``Environment.run`` and ``Environment.popen`` give to ``subprocess``.

Owns the lookup of the command: ``subprocess`` would look on the *host's* PATH, and an argument such
as ``python`` would start the wrong one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from wetlands_executor.environment import _platform
from wetlands_executor.environment.launch import checked_variables, variables
from wetlands_executor.environment.store import Store

if TYPE_CHECKING:
    from wetlands_executor.environment.layout import Located

Argument = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Command = Union[Argument, Sequence[Argument]]


def prepared(
    environment: Located, argv: Command, activate: bool | Sequence[str], options: dict[str, Any]
) -> tuple[Command, dict[str, Any]]:
    """Return the arguments with which ``subprocess`` runs a command in an environment.

    Args:
        environment: the environment.
        argv: the command and its arguments; a lone string is a command without arguments, unless
            ``shell=True``.
        activate: as for ``Environment.launch_spec``.
        options: the caller's keywords of ``subprocess``; not changed.

    Raises:
        FileNotFoundError: the environment has no such command.
    """
    options = dict(options)
    record = Store().owner_of(environment.prefix)
    if record is not None:
        record.note_use()
    env = variables(environment, activate)
    env.update(checked_variables(options.get("env"), "env"))
    options["env"] = env
    if options.get("shell"):
        return argv, options
    words: list[Argument] = [argv] if isinstance(argv, (str, bytes, os.PathLike)) else list(argv)
    if not words:
        raise ValueError("argv is empty; name the command to run")
    folder = os.fsdecode(options["cwd"]) if options.get("cwd") is not None else ""
    if options.get("executable") is not None:
        options["executable"] = _found(environment, options["executable"], env, folder)
    else:
        # The full path goes into argv[0] as well: an interpreter finds its prefix by it.
        words[0] = _found(environment, words[0], env, folder)
    return words, options


def _found(environment: Located, command: Argument, env: Mapping[str, str], folder: str) -> str:
    """Return the path of a command.

    One without a separator is looked up on the environment's PATH.
    """
    text = os.fsdecode(command)
    if _platform.has_separator(text):
        if not os.path.exists(os.path.join(folder, text)) and (not folder or os.path.isdir(folder)):
            raise FileNotFoundError(errno.ENOENT, f"no such command for {environment.label}", text)
        return text
    found = shutil.which(text, path=env.get("PATH", os.defpath))
    if found is None:
        raise FileNotFoundError(
            errno.ENOENT, f"no such command on the PATH of {environment.label}", text
        )
    return os.path.abspath(found)
