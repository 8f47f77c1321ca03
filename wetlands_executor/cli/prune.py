"""``wetlands-executor prune``: remove environments that have not been used lately."""

from __future__ import annotations

import argparse
import math
import sys

HELP = "remove environments that were made for a file or spec and have not been used lately"
DESCRIPTION = (
    "Removes environments that were made for their content and have not been used lately, and\n"
    "prints their names. Those that were given a name stay, and so do those in use."
)
EPILOG = """\
examples:
  wetlands-executor prune
  wetlands-executor prune --unused-for 0     # all that are not in use

exit codes: 0 done, 2 wrong arguments"""
DAY = 24 * 60 * 60.0


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--unused-for",
        type=_days,
        default=30.0,
        metavar="DAYS",
        help="days since the last use (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Remove them; return the exit code."""
    from wetlands_executor import Environment

    for name in Environment.prune(arguments.unused_for * DAY):
        sys.stdout.write(f"{name}\n")
    return 0


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days") from None
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of days from 0, not {text}")
    return value
