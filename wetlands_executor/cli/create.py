"""``wetlands-executor create``: make an environment."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from wetlands_executor.cli.errors import CommandError

if TYPE_CHECKING:
    from wetlands_executor import EnvironmentSpec

HELP = "make an environment, of packages or of a file that describes it"
DESCRIPTION = (
    "Makes an environment once, and prints its path; the next time it is there at once. What\n"
    "is being done is reported on standard error."
)
EPILOG = """\
examples:
  wetlands-executor create segment.py                     # the one that the file carries
  wetlands-executor create cells --from environment.yml   # called "cells" from now on
  wetlands-executor create plots --python 3.12 --pypi matplotlib --pypi 'pandas>=2'
  wetlands-executor create maps --conda gdal --channel conda-forge

exit codes: 0 it is there, 1 it cannot be made, 2 wrong arguments or a file that cannot be
understood, 130 interrupted"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "what",
        metavar="NAME|FILE",
        help="what it shall be called, or a file that describes it (it is kept by its content)",
    )
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="environment.yml, pixi.toml, pyproject.toml, requirements.txt, a lock file, or a "
        "Python file with a metadata block",
    )
    parser.add_argument("--python", metavar="VERSION", help="for example 3.11 or '>=3.10,<3.13'")
    parser.add_argument(
        "--conda",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a conda package; may be given several times",
    )
    parser.add_argument(
        "--pypi",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a PyPI package; may be given several times",
    )
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="CHANNEL",
        help="a channel of conda packages, the most important first (default: conda-forge)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "uv", "pip", "pixi", "micromamba", "mamba", "conda", "rattler"),
        help="who makes it (default: the first that is there and can)",
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="if an environment of that name holds something else, replace it",
    )
    parser.add_argument("--offline", action="store_true", help="use no network")
    parser.add_argument("--quiet", action="store_true", help="do not report what is being done")


def run(arguments: argparse.Namespace) -> int:
    """Make the environment; return the exit code."""
    from concurrent.futures import CancelledError

    from wetlands_executor import Environment, EnvironmentCreationError
    from wetlands_executor.cli.environment import creation_lines, line_writer

    name, spec = _wanted(arguments)
    tell = None if arguments.quiet else creation_lines(line_writer())
    try:
        if name is not None and arguments.update and _differs(name):
            made = Environment.find(name).update(
                spec, backend=arguments.backend, on_progress=tell, offline=arguments.offline
            )
        else:
            made = Environment.create(
                spec, name, backend=arguments.backend, on_progress=tell, offline=arguments.offline
            )
    except EnvironmentCreationError as error:
        raise CommandError(str(error), 1) from error
    except CancelledError as error:
        raise CommandError("it was cancelled", 1) from error
    except ValueError as error:
        remedy = "" if name is None else "; from the command line: --update replaces it"
        told = str(error)
        raise CommandError(told + (remedy if "something else" in told else "")) from error
    sys.stdout.write(f"{made.prefix}\n")
    return 0


def _differs(name: str) -> bool:
    """Return True if there is an environment of that name, which may hold something else."""
    from wetlands_executor import Environment, EnvironmentNotFoundError

    try:
        Environment.find(name)
    except EnvironmentNotFoundError:
        return False
    return True


def _wanted(arguments: argparse.Namespace) -> tuple[str | None, EnvironmentSpec]:
    """Return the name and the content that were asked for.

    Raises:
        CommandError: they cannot be meant.
    """
    import dataclasses

    from wetlands_executor import EnvironmentSpec, SpecError
    from wetlands_executor.cli.environment import DESCRIPTIONS, spec_of

    what: str = arguments.what
    is_file = os.path.basename(what) != what or what.lower().endswith(DESCRIPTIONS)
    if is_file and arguments.file is not None:
        raise CommandError(f"{what!r} is a file, and --from {arguments.file!r} too; give one name")
    given = arguments.python or arguments.conda or arguments.pypi
    file = what if is_file else arguments.file
    if file is None and not given:
        raise CommandError(
            f"what shall {what!r} hold? Give --from FILE, or packages with --pypi and --conda"
        )
    try:
        spec = EnvironmentSpec() if file is None else spec_of(file)
        changes: dict[str, Any] = {
            "python": arguments.python or spec.python,
            "conda": (*spec.conda, *arguments.conda),
            "pypi": (*spec.pypi, *arguments.pypi),
            "channels": tuple(arguments.channel) or spec.channels,
        }
        return (None if is_file else what), dataclasses.replace(spec, **changes)
    except SpecError as error:
        raise CommandError(str(error)) from error
