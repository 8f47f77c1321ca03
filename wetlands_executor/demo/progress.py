"""What the demo says, on standard error: standard output holds the result only.

The bars are those of ``wetlands_executor.observe``; what is said stands above them.
"""

from __future__ import annotations

import sys
import time


class Progress:
    """What the demo says while it runs."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print(text, file=sys.stderr, flush=True)
