"""The command line: ``wetlands-executor`` and ``python -m wetlands_executor``.

Only the parser lives here; what a command does is imported when it is asked for, so that ``--help``
answers at once. A new command adds one ``_add_...`` function, which names its parser and sets
``run`` to a function from the parsed arguments to an exit code.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetlands_executor import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_WORKERS = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; None for those of this process.

    Returns:
        The exit code: 0, 1 (the command failed), 2 (no command given), 130 (interrupted), or what
            the command documents.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.run is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        with _terminated_as_interrupted():
            return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in "... | head"
        return 1


def _parser() -> argparse.ArgumentParser:
    """Describe all commands."""
    parser = argparse.ArgumentParser(
        prog="wetlands-executor",
        description="Run functions in the worker processes of another Python environment, as "
        "concurrent.futures does here.",
    )
    parser.set_defaults(run=None)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: Any) -> None:
    """Describe ``demo``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="make two environments that conflict, let them work together, draw a picture",
        description="Makes two virtual environments whose requirements conflict (once: they are "
        "kept in the user's cache folder), "
        "segments pictures in one, sorts what was found into kinds in the other, and writes a "
        "picture and a table of what ran where.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 no package registry could be "
        "reached, 130 interrupted.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("wetlands-demo"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="worker processes in each environment (default: 2 to 4, by the cores)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder that keeps the environments (default: in the user's cache folder)",
    )
    parser.add_argument("--refresh", action="store_true", help="make the environments anew")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    """Run ``demo``."""
    from wetlands_executor.demo import command

    workers = command.default_workers() if arguments.workers is None else arguments.workers
    cache = arguments.cache.absolute() if arguments.cache else None
    return command.run_demo(arguments.out, workers, cache, refresh=arguments.refresh)


def _add_doctor(commands: Any) -> None:
    """Describe ``doctor``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="examine an environment: does a worker start, how fast is it, which data can be "
        "exchanged",
        description="Starts one worker in an environment and reports what it is, what activation "
        "does, how long start and calls take, which "
        "versions of numpy and pandas meet, what the machine offers, and what to do about "
        "whatever is wrong.",
        epilog="Exit codes: 0 a worker can be started (there may be warnings), 1 it cannot, 2 "
        "wrong arguments or no such environment.",
    )
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
        type=float,
        default=60.0,
        metavar="S",
        help="seconds that the worker may take (default: %(default)s)",
    )
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    """Run ``doctor``."""
    from wetlands_executor.doctor import show

    if not arguments.start_timeout > 0:
        sys.stderr.write(
            "wetlands-executor doctor: --start-timeout must be greater than 0 seconds\n"
        )
        return 2
    return show.run(arguments.env, as_json=arguments.json, start_timeout=arguments.start_timeout)


def _workers(text: str) -> int:
    """Read a number of workers."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 1 <= number <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_MOST_WORKERS}, not {number}")
    return number


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, with everything cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
