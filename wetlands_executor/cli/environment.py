"""Environments as commands name them, and the lines that a creation of one prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO

from wetlands_executor.cli.errors import CommandError

if TYPE_CHECKING:
    from wetlands_executor import CreationProgress, Environment, EnvironmentSpec

ENV_HELP: Final = (
    "a name, or the path of an environment, an interpreter, a project, or a file that describes "
    "one (it is made if need be)"
)
#: How files end that describe an environment.
DESCRIPTIONS: Final = (".py", ".yml", ".yaml", ".toml", ".txt", ".lock")


def creation_lines(write: Callable[[str], object]) -> Callable[[CreationProgress], None]:
    """Return a callback that writes one line for each step of a creation.

    Args:
        write: is given each line, without its end.
    """
    told: list[tuple[str, str]] = []

    def tell(progress: CreationProgress) -> None:
        step = (progress.phase.value, progress.message)
        if not told or told[-1] != step:
            told[:] = [step]
            write(f"{progress.phase.value}: {progress.message}")

    return tell


def line_writer(stream: TextIO | None = None) -> Callable[[str], object]:
    """Return a function that writes a line to standard error, or to another stream."""

    def write(line: str) -> None:
        print(line, file=stream or sys.stderr, flush=True)

    return write


def is_description(word: str) -> bool:
    """Return True for the path of a file that describes an environment."""
    return word.lower().endswith(DESCRIPTIONS) and os.path.isfile(os.path.expanduser(word))


def found_or_made(word: str) -> Environment:
    """Return the environment that a word of the command line stands for, made if need be.

    Raises:
        CommandError: there is no such environment, or it cannot be made.
    """
    from wetlands_executor import (
        Environment,
        EnvironmentCreationError,
        EnvironmentNotFoundError,
        SpecError,
    )

    try:
        if is_description(word):
            try:
                return Environment.find(word)
            except EnvironmentNotFoundError:
                return Environment.create(word, on_progress=creation_lines(line_writer()))
        return Environment.find(word)
    except (EnvironmentNotFoundError, SpecError) as error:
        raise CommandError(str(error)) from error
    except EnvironmentCreationError as error:
        raise CommandError(str(error), 1) from error


def spec_of(path: str) -> EnvironmentSpec:
    """Read a file that describes an environment.

    Raises:
        CommandError: it cannot be read or understood.
    """
    from wetlands_executor import EnvironmentSpec, SpecError

    try:
        return EnvironmentSpec.from_file(path)
    except SpecError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from error
