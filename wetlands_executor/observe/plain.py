"""A display of plain lines: in logs, in pipes, and where ``rich`` is not installed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from wetlands_executor.observe import units
from wetlands_executor.observe.bars import BarState


def plain_line(state: BarState) -> str:
    """Return a bar as one line of text, in ASCII but for its label."""
    counts = state.counts
    share = units.percent(counts.done, counts.total)
    how_many = f"{counts.done}" if counts.total is None else f"{counts.done}/{counts.total}"
    facts = [
        f"{how_many} ({share})" if share else how_many,
        units.rate(state.rate),
        f"{units.duration(state.elapsed)} elapsed",
        "" if state.over or state.remaining is None else f"{units.duration(state.remaining)} left",
        *facts_of(state),
    ]
    text = ", ".join(fact for fact in facts if fact)
    return f"{state.label}: {text}" if state.label else text


def facts_of(state: BarState) -> list[str]:
    """Return what went wrong, in words."""
    counts = state.counts
    pairs = (
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.retried, "retried"),
    )
    return [f"{number} {what}" for number, what in pairs if number]


class PlainScreen:
    """Writes a line per bar now and then, and one at its end.

    Args:
        stream: where to.
        every: seconds between two lines.
    """

    #: Seconds between two looks, at least.
    interval = 0.5

    def __init__(self, stream: Any, every: float) -> None:
        self._stream = stream
        self._every = every
        self._written = time.monotonic()

    def begin(self) -> None:
        """Begin."""

    def due(self) -> bool:
        """Return True if it is time to draw."""
        return time.monotonic() - self._written >= self._every

    def draw(self, states: Sequence[BarState]) -> None:
        """Write how far the bars are."""
        self._written = time.monotonic()
        self.lines([plain_line(state) for state in states])

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines that stay."""
        if self._stream is not None:  # under pythonw
            try:
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()
            except (OSError, ValueError):
                pass  # closed, or a pipe that is read no more; the work goes on

    def leave(self, states: Sequence[BarState]) -> None:
        """Write the last state of bars."""
        self._written = time.monotonic()
        self.lines([plain_line(state) for state in states])

    def end(self) -> None:
        """End."""
