"""What host programs, and workers, of several folders do the same. Imported by Python 3.8 too."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any


def say(*words: object) -> None:
    """Print a line that the test reads at once."""
    print(*words, flush=True)


def run(programs: Mapping[str, Any]) -> None:
    """Run the program that the command line names, with the arguments that it takes.

    Args:
        programs: functions by their names, the ``globals()`` of a module for example.
    """
    program = programs[sys.argv[1]]
    program(*sys.argv[2 : 2 + program.__code__.co_argcount])


def fork() -> int:
    """Fork this process, which has threads.

    From CPython 3.15 on the warning of that comes before the fork, and is an error here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def limit_address_space(extra: int) -> None:
    """Let this process map only ``extra`` bytes more than it has."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
