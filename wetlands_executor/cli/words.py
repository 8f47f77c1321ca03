"""The words of ``call`` and ``map``: ``[ENV] TARGET`` and what follows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from wetlands_executor.cli.environment import ENV_HELP

ENV_AND_TARGET_HELP: Final = (
    f"ENV: {ENV_HELP}; it may be left out, or be -, if the target's file carries its environment. "
    "TARGET: file.py:function or package.module:function"
)


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
    found = parser.parse_intermixed_args(left)
    return argparse.Namespace(**{**vars(found), "words": [*found.words, *right]})
