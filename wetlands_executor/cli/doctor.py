"""``wetlands-executor doctor``."""

from __future__ import annotations

import argparse

from wetlands_executor.cli.values import seconds

HELP = "examine an environment: does a worker start, how fast is it, which data can be exchanged"
DESCRIPTION = (
    "Starts one worker in an environment and reports what it is, what activation does, how\n"
    "long start and calls take, which versions of numpy and pandas meet, what the machine\n"
    "offers, and what to do about whatever is wrong."
)
EPILOG = (
    "exit codes: 0 a worker can be started (there may be warnings), 1 it cannot, 2 wrong\n"
    "arguments or no such environment"
)


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "env",
        metavar="ENV",
        help="a name, or the path of an environment, a project or an interpreter",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of lines of text"
    )
    parser.add_argument(
        "--start-timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="seconds that the worker may take (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Examine the environment; return the exit code."""
    from wetlands_executor.doctor import show

    return show.run(arguments.env, as_json=arguments.json, start_timeout=arguments.start_timeout)
