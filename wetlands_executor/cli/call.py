"""``wetlands-executor call``: one function, once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from wetlands_executor.cli.errors import CommandError
from wetlands_executor.cli.values import json_object, json_or_text, seconds
from wetlands_executor.cli.words import ENV_AND_TARGET_HELP, parse_words
from wetlands_executor.cli.worker_options import add_worker_options

HELP = "call a function of a file or module in an environment, and print its result"
DESCRIPTION = (
    "Calls a function in a worker of an environment. An argument that is JSON is passed as\n"
    "that value, any other as text. The result is printed as JSON; what the function prints\n"
    "goes to standard error."
)
USAGE = (
    "wetlands-executor call [-h] [--kwargs JSON] [--format {json,repr}] [--output FILE]\n"
    "                              [--timeout S] [--initializer TARGET] [--preload MODULES]\n"
    "                              [ENV] TARGET [ARGUMENT ...]"
)
EPILOG = """\
examples:
  wetlands-executor call cellpose segment.py:segment image.tif
  wetlands-executor call segment.py:segment image.tif     # the environment that the file carries
  wetlands-executor call stats fit.py:fit '[1, 2.5]' --kwargs '{"degree": 2}' | jq .error
  wetlands-executor call cellpose segment.py:segment image.tif --output masks.npy
  wetlands-executor call ./.venv math:hypot 3 4

exit codes: 0 done, 1 the function failed or no worker could be started, 2 wrong arguments or no
such environment, file or function, 130 interrupted"""
#: How a file ends that a result can be written to, and what its content is.
OUTPUTS: Final = {".npy": "npy", ".json": "json", ".txt": "repr"}


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[ENV] TARGET [ARGUMENT ...]",
        help=f"{ENV_AND_TARGET_HELP}. After -- every word is an argument",
    )
    parser.add_argument(
        "--kwargs", type=json_object, metavar="JSON", help="an object of keyword arguments"
    )
    parser.add_argument(
        "--format",
        choices=("json", "repr"),
        default="json",
        help="how the result is printed (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the result to a file: .npy (an array), .json, or .txt (its repr)",
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="S", help="seconds that the function may take"
    )
    add_worker_options(parser)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; options may stand between the words."""
    return parse_words(parser, argv)


def run(arguments: argparse.Namespace) -> int:
    """Call the function; return the exit code."""
    from wetlands_executor.cli import workers
    from wetlands_executor.cli.environment import creation_lines, line_writer
    from wetlands_executor.cli.files import check_files
    from wetlands_executor.cli.target import take_target

    env, target, words = take_target(arguments.words)
    form = _form(arguments)
    if arguments.output is not None:
        read = workers.files_of(target, arguments.initializer)
        read += [("argument", word) for word in words]
        check_files(read, [("--output", arguments.output)])
    args = [json_or_text(word) for word in words]
    out, sys.stdout = sys.stdout, sys.stderr  # what the function prints is not its result
    try:
        with workers.open_executor(
            env, target, arguments, max_workers=1, task_timeout=arguments.timeout
        ) as executor:
            workers.start(executor, creation_lines(line_writer()))
            text = _result(executor, target.text, args, form, arguments)
    finally:
        sys.stdout = out
    if text:
        out.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        out.flush()
    return 0


def _form(arguments: argparse.Namespace) -> str:
    """Return how the result is written: by the ending of the file, or by ``--format``."""
    if arguments.output is None:
        return str(arguments.format)
    for ending, form in OUTPUTS.items():
        if arguments.output.endswith(ending):
            return form
    known = ", ".join(OUTPUTS)
    raise CommandError(f"--output {arguments.output!r}: the file must end in {known}")


def _result(
    executor: Any, name: str, args: list[Any], form: str, arguments: argparse.Namespace
) -> str:
    """Call the function in a worker; return the text of its result."""
    import os

    from wetlands_executor.cli import workers

    output = None if arguments.output is None else os.path.abspath(arguments.output)
    named = executor.options(name=name)
    task = named.submit(workers.RESULT, args, arguments.kwargs, form, output)
    try:
        return str(task.result())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the function has raised, SystemExit too
        # what the worker has written is on standard error already
        text = workers.full_text(error).partition("; the last lines of its stderr:")[0]
        raise CommandError(f"the call failed\n{text.rstrip()}", 1) from error
