"""``wetlands-executor demo``."""

from __future__ import annotations

import argparse

from wetlands_executor.cli.values import whole_number

HELP = "make two environments that conflict, let them work together, draw a picture"
DESCRIPTION = (
    "Makes two virtual environments whose requirements conflict (once: they are kept in the\n"
    "user's cache folder), segments pictures in one, sorts what was found into kinds in the\n"
    "other, and writes a picture and a table of what ran where."
)
EPILOG = (
    "exit codes: 0 done, 1 failed, 2 wrong arguments, 3 no package registry could be\n"
    "reached, 130 interrupted"
)
_MOST_WORKERS = 64


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--out",
        default="wetlands-demo",
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, _MOST_WORKERS),
        metavar="N",
        help="worker processes in each environment (default: 2 to 4, by the cores)",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder that keeps the environments (default: in the user's cache folder)",
    )
    parser.add_argument("--refresh", action="store_true", help="make the environments anew")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    from pathlib import Path

    from wetlands_executor.demo import command

    workers = command.default_workers() if arguments.workers is None else arguments.workers
    cache = Path(arguments.cache).absolute() if arguments.cache else None
    return command.run_demo(Path(arguments.out), workers, cache, refresh=arguments.refresh)
