"""Options that say how workers are started: for ``call`` and ``map``."""

from __future__ import annotations

import argparse


def add_worker_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say how workers are started."""
    parser.add_argument(
        "--initializer",
        metavar="TARGET",
        help="a function without arguments that each worker calls first, for example model.py:load",
    )
    parser.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULES",
        help="modules that each worker imports first, separated by commas",
    )
