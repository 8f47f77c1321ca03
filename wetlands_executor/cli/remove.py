"""``wetlands-executor remove``: remove environments that this program has made."""

from __future__ import annotations

import argparse
import sys

from wetlands_executor.cli.errors import CommandError

HELP = "remove environments that were made by create, call or map"
DESCRIPTION = (
    "Removes environments that this program has made. Those of other programs are left alone,\n"
    "and so are those that a process uses."
)
EPILOG = """\
examples:
  wetlands-executor remove cells
  wetlands-executor remove segment.py      # the one that the file carries

exit codes: 0 removed, 1 one is in use, 2 wrong arguments, or one that is not there or was not
made by this program"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "env", nargs="+", metavar="ENV", help="a name, a path, or the file that describes it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Remove the environments; return the exit code."""
    from wetlands_executor import (
        Environment,
        EnvironmentInUseError,
        EnvironmentNotFoundError,
        SpecError,
    )

    # all are looked up before one is removed
    try:
        found = [Environment.find(word) for word in dict.fromkeys(arguments.env)]
    except (EnvironmentNotFoundError, SpecError) as error:
        raise CommandError(str(error)) from error
    for environment in found:
        try:
            environment.remove()
        except EnvironmentInUseError as error:
            raise CommandError(str(error), 1) from error
        except ValueError as error:
            raise CommandError(str(error)) from error
        sys.stdout.write(f"{environment.prefix}\n")
    return 0
