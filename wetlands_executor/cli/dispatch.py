"""From the arguments of the process to an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from wetlands_executor.cli.commands import COMMANDS, PROGRAM, module_of, parse, whole_parser
from wetlands_executor.cli.completion import complete, completion_code
from wetlands_executor.cli.errors import CommandError

INTERRUPTED: Final = 130
#: What a shell reports of a process that SIGPIPE has ended.
PIPE_CLOSED: Final = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; None for those of this process.

    Returns:
        The exit code: 0, 1 (the command failed), 2 (wrong arguments, no such environment or file),
            130 (interrupted), 141 (the reader of the output went away), or what the command
            documents.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        complete()  # the shell asks; this ends the process
    if not arguments or arguments[0] not in COMMANDS:
        return _without_command(arguments)
    command = arguments[0]
    if argv is None:
        _find_modules_here()
    try:
        with _terminated_as_interrupted():
            code = int(module_of(command).run(parse(command, arguments[1:])))
            sys.stdout.flush()
            return code
    except CommandError as error:
        sys.stderr.write(f"{PROGRAM} {command}: {error}\n")
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as in "... | head"
        discard_output()
        return PIPE_CLOSED


def _find_modules_here() -> None:
    """Let targets be modules of the folder in which the program was started.

    ``python -m`` does so itself. Behind all else, so that no file there takes the place of a module
    of the standard library.
    """
    if getattr(sys.flags, "safe_path", False):  # Python 3.11
        return
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return
    if here not in sys.path:
        sys.path.append(here)


def discard_output() -> None:
    """Let what standard output still buffers go nowhere: nothing reads it any more."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        return  # a standard output that is no descriptor buffers nothing for a pipe


def _without_command(arguments: Sequence[str]) -> int:
    """Print the help or the version, or say that there is no such command."""
    from wetlands_executor import __version__

    parser = whole_parser(__version__)
    found = parser.parse_args(arguments)
    assert found.command is None, "commands are dispatched before this parser sees them"
    if found.print_completion is not None:
        try:
            sys.stdout.write(completion_code(found.print_completion))
        except CommandError as error:
            sys.stderr.write(f"{PROGRAM}: {error}\n")
            return error.code
        return 0
    parser.print_help(sys.stderr)
    return 2


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, with everything cleaned up."""
    is_main = threading.current_thread() is threading.main_thread()
    # one that is ignored, by "trap '' TERM" for example, stays so
    if not is_main or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
