"""The executor that ``call`` and ``map`` use, and what its failures mean for a command."""

from __future__ import annotations

import argparse
import logging
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from wetlands_executor import (
    CondaEnvExecutor,
    CreationProgress,
    EnvironmentNotFoundError,
    SpecError,
    WetlandsExecutorError,
)
from wetlands_executor.cli.errors import CommandError
from wetlands_executor.cli.target import Target, checked_target

#: The file of this folder that is sent to workers, and its functions.
_FILE: Final = Path(__file__).with_name("shipped") / "in_worker.py"
RUN: Final = f"{_FILE}:run"
RUN_ONE: Final = f"{_FILE}:run_one"
RESULT: Final = f"{_FILE}:result"
_PREPARE: Final = f"{_FILE}:prepare"
#: Files of frames that say nothing to the author of a function.
_OWN_FRAMES: Final = (str(_FILE), "<wetlands_executor>", 'File "<string>", line')
#: What messages say of the arguments, which are those of ``in_worker.py``.
_CALL: Final = re.compile(
    r"; the call was .*?\)(?=; the last lines of its stderr|; its Python stacks|$)",
    re.DOTALL,
)
#: Before many lines that the full text has, too.
_LISTING: Final = re.compile("; the last lines of its stderr:|; its Python stacks at that moment:")


@contextmanager
def open_executor(
    env: str, target: Target, arguments: argparse.Namespace, **options: Any
) -> Iterator[CondaEnvExecutor]:
    """Have an executor whose workers can run a target; nothing is started.

    Args:
        env: the environment.
        target: the function.
        arguments: with those that ``worker_options`` has added.
        **options: further ones of ``CondaEnvExecutor``.

    Raises:
        CommandError: there is no such environment or file.
    """
    initializer = arguments.initializer
    loaded = None if initializer is None else checked_target(initializer).definition()
    preload = [name for text in arguments.preload for name in text.split(",") if name]
    definition = target.definition()
    try:
        executor = CondaEnvExecutor(
            env, initializer=_PREPARE, initargs=(definition, loaded), preload=preload, **options
        )
    except (EnvironmentNotFoundError, SpecError, ValueError) as error:
        raise CommandError(f"{error}{_other_remedy(env, target, error)}") from error
    log = logging.getLogger("concurrent.futures")
    log.addFilter(_is_no_initializer_failure)
    try:
        with executor:
            yield executor
    finally:
        log.removeFilter(_is_no_initializer_failure)


def _other_remedy(env: str, target: Target, error: Exception) -> str:
    """Say that an environment can be named, where a file carries none."""
    if not isinstance(error, SpecError) or Path(env).name != Path(target.where).name:
        return ""
    return f"\nOr give the environment first, for example: cellpose {target.text}"


def files_of(target: Target, initializer: str | None) -> list[tuple[str, str]]:
    """Return the files in which functions of the command line stand, each with what it is."""
    loaded = None if initializer is None else checked_target(initializer)
    named = (("target", target), ("--initializer", loaded))
    return [(what, each.where) for what, each in named if each is not None and each.is_file]


def start(
    executor: CondaEnvExecutor, tell: Callable[[CreationProgress], object] | None, code: int = 1
) -> None:
    """Make the environment if need be, and start the workers.

    Args:
        executor: whose they are.
        tell: called with each step of the creation; None shows none.
        code: exit code of what fails here.

    Raises:
        CommandError: the environment cannot be made, no worker can be started, or the function or
            the initializer cannot be had.
    """
    from concurrent.futures.process import BrokenProcessPool

    try:
        executor.launch(on_progress=tell)
    except (BrokenProcessPool, WetlandsExecutorError) as error:
        raise CommandError(start_failure(error), code) from error


def _is_no_initializer_failure(record: logging.LogRecord) -> bool:
    """Return False for the record of a failed initializer, whose error the command shows."""
    return "in initializer" not in record.getMessage()


def start_failure(error: BaseException) -> str:
    """Say why workers cannot be started: of a failed initializer, what it has raised."""
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None and not _is_traceback(cause.__cause__):
        cause = cause.__cause__
    if cause is None or _is_traceback(cause):
        return str(error)
    return full_text(cause).rstrip() if not _is_plain(cause) else f"{type(cause).__name__}: {cause}"


def _is_plain(error: BaseException) -> bool:
    """Return True for what says enough without its traceback: the function cannot be found."""
    return isinstance(error, (ImportError, AttributeError))


def _is_traceback(error: BaseException) -> bool:
    return type(error).__name__ == "_RemoteTraceback"


def last_line(error: BaseException) -> str:
    """Return the last line of an exception's text: its type and message on one line.

    What a worker has printed, and its stacks, stand in the full text only.
    """
    lines = traceback.format_exception_only(error)
    text = _CALL.sub("", "".join(lines))
    if isinstance(error, WetlandsExecutorError):
        text = _LISTING.split(text, maxsplit=1)[0]
    text = " ".join(text.split())
    name = type(error).__name__
    # the qualified names of this library's exceptions say no more than the short ones
    return text.replace(f"{type(error).__module__}.{name}", name, 1)


def full_text(error: BaseException) -> str:
    """Return the traceback of the worker, or the message; without what is this program's own."""
    cause = error.__cause__
    if cause is not None and _is_traceback(cause):
        lines = str(cause).strip().strip('"').strip().splitlines()
        lines = [line for line in lines if not line.startswith("The call was ")]
    else:
        lines = _CALL.sub("", f"{type(error).__name__}: {error}").splitlines()
    return "\n".join(_without_own_frames(lines)) + "\n"


def _without_own_frames(lines: list[str]) -> list[str]:
    kept, ours = [], False
    for line in lines:
        if line.lstrip().startswith('File "'):
            ours = any(mark in line for mark in _OWN_FRAMES)
        elif not line.startswith("    "):
            ours = False
        if not ours:
            kept.append(line)
    if len(kept) > 1 and kept[0].startswith("Traceback") and not kept[1].startswith(" "):
        del kept[0]  # of no frame
    return kept


def variables_of(texts: list[str]) -> Callable[[int], Mapping[str, str]] | None:
    """Return the variables of each worker from ``NAME=VALUE`` texts.

    ``{slot}`` in a value is the number of the worker from 0, ``{%}`` that from 1.

    Raises:
        CommandError: a text is no assignment.
    """
    if not texts:
        return None
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise CommandError(f"--env-var {text!r}: write NAME=VALUE")
        pairs.append((name, value))

    def variables(slot: int) -> Mapping[str, str]:
        return {
            name: value.replace("{slot}", str(slot)).replace("{%}", str(slot + 1))
            for name, value in pairs
        }

    return variables
