"""``wetlands-executor run``: a command in an activated environment.

On POSIX this process becomes the command, so that its terminal, its standard streams, its process
group and every signal are the command's own.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from wetlands_executor.cli.environment import ENV_HELP
from wetlands_executor.cli.errors import CommandError

HELP = "run a command in an activated environment"
DESCRIPTION = (
    "Runs a command in an activated environment. Standard input, exit code and signals pass\n"
    "through, and a terminal stays a terminal."
)
USAGE = "wetlands-executor run [-h] [--no-activate] ENV [--] COMMAND [ARGUMENT ...]"
EPILOG = """\
examples:
  wetlands-executor run cellpose -- python -V
  wetlands-executor run ./.venv -- pytest -x
  wetlands-executor run segment.py -- python          # a prompt in the environment of a file
  generate | wetlands-executor run stats -- Rscript fit.R > fit.txt

exit codes: the command's; 125 the environment cannot be used or the arguments are wrong, 126
the command cannot be executed, 127 there is no such command"""
#: Exit codes as env(1) and nohup(1) have them: all others belong to the command.
USAGE_CODE: Final = 125
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--no-activate",
        action="store_true",
        help="leave the activation scripts and the environment's PATH out",
    )
    parser.add_argument("env", metavar="ENV", help=ENV_HELP)
    parser.add_argument(
        "command",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help="the command and its arguments, looked up on the PATH of the environment",
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments: the first ``--`` ends ours, every other word belongs to the command."""
    argv = list(argv)
    left, right = argv, []
    if "--" in argv:
        left, right = argv[: argv.index("--")], argv[argv.index("--") :]
    found = parser.parse_args(left)
    command = [*found.command, *(right if found.command else right[1:])]
    if not command:
        parser.error("which command? For example: run ENV -- python -V")
    return argparse.Namespace(**{**vars(found), "command": command})


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code where this process does not become it."""
    from wetlands_executor import WetlandsExecutorError
    from wetlands_executor.cli.environment import found_or_made

    try:
        environment = found_or_made(arguments.env)
        spec = environment.launch_spec(activate=not arguments.no_activate)
    except CommandError as error:
        raise CommandError(str(error), USAGE_CODE) from error
    except WetlandsExecutorError as error:
        raise CommandError(str(error), USAGE_CODE) from error
    command = list(arguments.command)
    program = _found(command[0], spec.env, environment.label)
    start = _wait_for if os.name == "nt" else _become
    return start(program, command[1:], spec.env)


def _found(word: str, variables: Mapping[str, str], label: str) -> str:
    """Return the path of a command; one without a separator is looked up on that PATH.

    Raises:
        CommandError: there is none.
    """
    if os.path.dirname(word):
        if not os.path.exists(word):
            raise CommandError(f"there is no command {word!r}", NOT_FOUND)
        return word
    import shutil

    found = shutil.which(word, path=variables.get("PATH", os.defpath))
    if found is None:
        raise CommandError(f"there is no command {word!r} on the PATH of {label}", NOT_FOUND)
    return os.path.abspath(found)


def _become(program: str, words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Replace this process by the command.

    Raises:
        CommandError: it cannot be executed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and what is ignored stays so in the new program: a command that writes
    # to a pipe without a reader would not end.
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        # The full path goes into argv[0] as well: an interpreter finds its prefix by it.
        os.execve(program, [program, *words], dict(variables))
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE
        raise CommandError(
            f"{program!r} cannot be executed: {error.strerror or error}", code
        ) from error


def _wait_for(program: str, words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run the command as a child, which gets Ctrl-C from the console itself (Windows)."""
    import subprocess

    try:
        with subprocess.Popen([program, *words], env=dict(variables)) as process:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                return process.wait()
            finally:
                signal.signal(signal.SIGINT, before)
    except OSError as error:
        raise CommandError(
            f"{program!r} cannot be executed: {error.strerror or error}", CANNOT_EXECUTE
        ) from error
