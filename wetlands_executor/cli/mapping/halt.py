"""``--halt``: when failures end the whole run."""

from __future__ import annotations

import argparse
import re
from typing import Final, NamedTuple

#: Failures before which a percentage says nothing, as in GNU parallel.
LEAST: Final = 3


class Halt(NamedTuple):
    """When to halt, and how.

    Attributes:
        now: kill what runs; else let it finish.
        failures: number of failures; None if it is a percentage.
        percent: of the items that have finished; None if it is a number.
    """

    now: bool
    failures: int | None
    percent: float | None

    def is_due(self, failed: int, finished: int) -> bool:
        """Return True if so many failures of so many finished items are too many."""
        if self.failures is not None:
            return failed >= self.failures
        return (
            self.percent is not None and failed >= LEAST and 100 * failed >= self.percent * finished
        )


def halt_of(text: str) -> Halt | None:
    """Read the value of ``--halt``; None stands for never."""
    if text == "never":
        return None
    found = re.fullmatch(r"(soon|now),fail=(\d+)(%?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write never, soon,fail=N, soon,fail=N%, now,fail=N or now,fail=N%"
        )
    number = int(found[2])
    if number < 1 or (found[3] and number > 100):
        raise argparse.ArgumentTypeError(
            f"{text!r}: {'a percentage from 1 to 100' if found[3] else 'at least 1'} is expected"
        )
    percent = float(number) if found[3] else None
    return Halt(found[1] == "now", None if found[3] else number, percent)
