"""The words ``[ENV] TARGET``: which function is meant, and in which environment it runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from wetlands_executor.cli.errors import CommandError

TARGET_HELP: Final = "file.py:function or package.module:function"
#: Stands for the environment that the target's file carries.
CARRIED: Final = "-"


class Target(NamedTuple):
    """A function, as the command line names it.

    Attributes:
        text: the word itself.
        where: a module's name or a file's path.
        name: of the function in it, dotted.
    """

    text: str
    where: str
    name: str

    @property
    def is_file(self) -> bool:
        """True if it stands in a file, False if it stands in a module of the environment."""
        return self.where.endswith(".py") or os.path.basename(self.where) != self.where

    def definition(self) -> tuple[Any, ...]:
        """Return what ``in_worker.prepare`` takes.

        Raises:
            CommandError: there is no such file.
        """
        if not self.is_file:
            return ("reference", self.where, self.name, None)
        path = os.path.abspath(os.path.expanduser(self.where))
        try:
            with open(path, "rb") as stream:
                source = stream.read()
        except OSError as error:
            raise CommandError(f"{self.text}: {path}: {error.strerror or error}") from error
        return ("file", path, hashlib.sha256(source).hexdigest(), source, self.name)


def target_of(word: str) -> Target | None:
    """Return the target that a word is; None if it is none."""
    where, colon, name = word.rpartition(":")
    if not (colon and where and all(part.isidentifier() for part in name.split("."))):
        return None
    target = Target(word, where, name)
    if target.is_file:
        return target if where.endswith(".py") else None
    return target if all(part.isidentifier() for part in where.split(".")) else None


def checked_target(word: str) -> Target:
    """Return the target that a word is.

    Raises:
        CommandError: it is none.
    """
    target = target_of(word)
    if target is None:
        raise CommandError(f"{word!r} is no function: write {TARGET_HELP}")
    return target


def take_target(words: Sequence[str]) -> tuple[str, Target, list[str]]:
    """Take ``[ENV] TARGET`` from the beginning of the words.

    Returns:
        What ``CondaEnvExecutor`` takes as its environment, the target, and the words that follow.

    Raises:
        CommandError: there is no target, or neither it nor a word says which environment.
    """
    if not words:
        raise CommandError(f"which function? Give [ENV] and {TARGET_HELP}")
    first = target_of(words[0])
    if first is not None:
        return _carried(first), first, list(words[1:])
    if len(words) == 1:
        raise CommandError(
            f"{words[0]!r} is no function: after the environment, or instead of it, write "
            f"{TARGET_HELP}"
        )
    target = checked_target(words[1])
    env = _carried(target) if words[0] == CARRIED else words[0]
    return env, target, list(words[2:])


def _carried(target: Target) -> str:
    """Return the environment that a target's file carries, as the path of the file."""
    if not target.is_file:
        raise CommandError(
            f"{target.text!r} names no file that could carry its environment; give the "
            f"environment first, for example: cellpose {target.text}"
        )
    path = os.path.expanduser(target.where)
    if not os.path.isfile(path):
        raise CommandError(f"{target.text}: there is no file {os.path.abspath(path)}")
    return os.path.abspath(path)
