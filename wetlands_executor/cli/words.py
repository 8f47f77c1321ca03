"""The words of ``call`` and ``map``: ``[ENV] TARGET`` and what follows."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Final

from wetlands_executor.cli.environment import ENV_HELP

ENV_AND_TARGET_HELP: Final = (
    f"ENV: {ENV_HELP}; it may be left out, or be -, if the target's file carries its environment. "
    "TARGET: file.py:function or package.module:function"
)

_NEGATIVE: Final = re.compile(r"-[1-9][0-9.]*")


def parse_words(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of a command whose ``words`` may stand between the options.

    Args:
        parser: of the command.
        argv: what was given; behind ``--`` every word is one of the words.
    """
    left, right = list(argv), []
    if "--" in left:
        end = left.index("--")
        left, right = left[:end], left[end + 1 :]
    found = parser.parse_intermixed_args(_with_negative_values(left))
    return argparse.Namespace(**{**vars(found), "words": [*found.words, *right]})


def _with_negative_values(words: Sequence[str]) -> list[str]:
    """Attach negative numbers to the options before them.

    A parser with an option like ``-0`` takes ``-1`` for an option as well, and would say that the
    one before it has no value.
    """
    found: list[str] = []
    for word in words:
        before = found[-1] if found else ""
        if _NEGATIVE.fullmatch(word) and re.fullmatch(r"--[a-z-]+|-[jC]", before):
            found[-1] = f"{before}={word}" if before.startswith("--") else f"{before}{word}"
        else:
            found.append(word)
    return found
