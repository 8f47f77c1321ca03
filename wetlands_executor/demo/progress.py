"""Progress on the terminal with nothing but ``print``.

One line that rewrites itself, or whole lines in a log.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_QUIET_FOR = 15.0  # seconds after which a log, too, shows that something is still going on


class Progress:
    """What the demo says while it runs.

    On standard error, so that standard output holds the result only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._started = self._spoken = time.monotonic()
        self._shown = 0  # width of the line that is on the terminal now

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()
        self._spoken = time.monotonic()

    def show(self, text: str) -> None:
        """Show what is going on now: replaces the last such line on a terminal.

        Elsewhere it is printed now and then.
        """
        if not self._terminal:
            if time.monotonic() - self._spoken >= _QUIET_FOR:
                self.say(f"  {text}")
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._shown))
        self._stream.flush()
        self._shown = len(text)

    def clear(self) -> None:
        """Wipe the line that rewrites itself."""
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0


def bar(done: int, total: int, width: int = 24) -> str:
    """Draw a bar of plain characters."""
    filled = width * done // max(total, 1)
    return "[" + "#" * filled + "." * (width - filled) + "]"
