"""``wetlands-executor lock``: the text from which an environment can be made again."""

from __future__ import annotations

import argparse
import sys

from wetlands_executor.cli.environment import ENV_HELP
from wetlands_executor.cli.errors import CommandError

HELP = "print a text from which exactly this environment can be made again"
DESCRIPTION = (
    "Prints the lock of an environment: pylock.toml for PyPI packages, an @EXPLICIT list or\n"
    "pixi.lock for conda packages, pinned requirements for an environment that this program\n"
    'has not made. "create NAME --from LOCK" makes it again.'
)
EPILOG = """\
examples:
  wetlands-executor lock cells --output pylock.toml
  wetlands-executor create cells-2 --from pylock.toml

exit codes: 0 done, 1 there is no lock of it, 2 wrong arguments or no such environment"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("env", metavar="ENV", help=ENV_HELP)
    parser.add_argument(
        "--output", metavar="FILE", help="write the text to a file instead of standard output"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the lock; return the exit code."""
    import subprocess
    from pathlib import Path

    from wetlands_executor.cli.environment import found_or_made, is_description
    from wetlands_executor.cli.files import check_files

    if arguments.output is not None:
        read = [("the file", arguments.env)] if is_description(arguments.env) else []
        check_files(read, [("--output", arguments.output)])
    environment = found_or_made(arguments.env)
    try:
        text = environment.lock()
    except (ValueError, OSError, subprocess.SubprocessError) as error:
        raise CommandError(str(error), 1) from error
    text = text if text.endswith("\n") else text + "\n"
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    try:
        Path(arguments.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{arguments.output}: {error.strerror or error}", 1) from error
    return 0
