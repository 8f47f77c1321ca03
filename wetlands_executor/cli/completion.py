"""Completion in shells, by argcomplete (extra ``cli``)."""

from __future__ import annotations

from typing import Any

from wetlands_executor.cli.commands import PROGRAM, whole_parser
from wetlands_executor.cli.errors import CommandError


def completion_code(shell: str) -> str:
    """Return what a shell evaluates to complete the words of this program.

    Raises:
        CommandError: argcomplete is not installed.
    """
    return str(_argcomplete().shellcode([PROGRAM], shell=shell))


def complete() -> None:
    """Answer the shell, which has asked by variables, and end the process."""
    from wetlands_executor import __version__

    _argcomplete().autocomplete(whole_parser(__version__))


def _argcomplete() -> Any:
    try:
        import argcomplete
    except ImportError:
        raise CommandError(
            "completion needs argcomplete: install the extra, wetlands-executor[cli]", 1
        ) from None
    return argcomplete
