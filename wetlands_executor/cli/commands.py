"""The commands by name, and the parsers that are made of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

PROGRAM: Final = "wetlands-executor"
#: Name of a command -> its module in this folder; in the order in which the help lists them.
COMMANDS: Final = {
    "demo": "demo",
    "doctor": "doctor",
    "envs": "envs",
    "create": "create",
    "remove": "remove",
    "prune": "prune",
    "lock": "lock",
    "run": "run",
    "call": "call",
    "map": "map",
}
DESCRIPTION: Final = (
    "Run functions and commands in other Python environments. Nothing has to be installed there."
)
EPILOG: Final = """\
examples:
  wetlands-executor envs
  wetlands-executor run cellpose -- python -V
  wetlands-executor call cellpose segment.py:segment image.tif
  wetlands-executor map cellpose segment.py:segment 'scans/*.tif' > results.jsonl
  wetlands-executor create plots --python 3.12 --pypi matplotlib

"wetlands-executor COMMAND --help" explains a command and its exit codes."""


class CommandParser(argparse.ArgumentParser):
    """The parser of one command.

    Args:
        usage_code: exit code for wrong arguments.
        **options: those of ``ArgumentParser``.
    """

    def __init__(self, *, usage_code: int = 2, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self.usage_code = usage_code

    def error(self, message: str) -> Any:
        """Print the usage and the error to standard error, and end."""
        self.print_usage(sys.stderr)
        self.exit(self.usage_code, f"{self.prog}: error: {message}\n")


def module_of(command: str) -> Any:
    """Import the module of a command."""
    return import_module(f"wetlands_executor.cli.{COMMANDS[command]}")


def parser_of(command: str) -> CommandParser:
    """Return the parser of one command; no other command is imported for it."""
    module = module_of(command)
    parser = CommandParser(
        prog=f"{PROGRAM} {command}",
        description=module.DESCRIPTION,
        usage=getattr(module, "USAGE", None),
        epilog=module.EPILOG,
        usage_code=getattr(module, "USAGE_CODE", 2),
    )
    module.describe(parser)
    return parser


def parse(command: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of a command.

    Raises:
        SystemExit: they are wrong, or ``--help`` was asked for.
    """
    module = module_of(command)
    parser = parser_of(command)
    own = getattr(module, "parse", None)
    found = parser.parse_args(argv) if own is None else own(parser, argv)
    assert isinstance(found, argparse.Namespace)
    return found


def whole_parser(version: str) -> argparse.ArgumentParser:
    """Return a parser that knows all commands: for the help, completion and the reference."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version}")
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "fish"),
        help="print what makes a shell complete the words of this program (extra cli)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in COMMANDS:
        module = module_of(name)
        added = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            usage=getattr(module, "USAGE", None),
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.describe(added)
    return parser
