"""The display of the command line: one executor, a total, lines above."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from wetlands_executor.observe import bar_of
from wetlands_executor.observe.bars import Bar, ItemCounts
from wetlands_executor.observe.display import EVERY, Display, choose_screen
from wetlands_executor.observe.plain import PlainScreen

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class CommandDisplay:
    """Bars of a command; see ``open_display``."""

    def __init__(self, total: int | None, quiet: bool, stream: Any, description: str) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._total = total
        self._description = description
        self._counts: ItemCounts | None = None
        self._bars: list[Bar] = []
        screen = PlainScreen(self._stream, EVERY) if quiet else choose_screen(self._stream)
        self._display = Display(screen, self._stream)

    def __enter__(self) -> Self:
        """Show it."""
        if not self._quiet:
            self._display.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state, and give the streams back."""
        if not self._quiet:
            self._display.remove(self._bars)
            self._display.end()

    def attach(self, executor: Any, *, counted: bool = False) -> None:
        """Show an executor.

        Args:
            executor: its running tasks are shown, and its tasks are counted.
            counted: the command counts by ``advance`` instead, because its tasks are not its items.
        """
        if self._quiet:
            return
        if counted:
            pool = bar_of.pool_of(executor)
            pools = [] if pool is None else [pool]
            self._counts = ItemCounts(pools, self._total, own=True)
            bar = Bar(self._description, pools, self._counts, leave=True)
        else:
            bar = bar_of.bar_of_executor(executor, self._total, self._description, leave=True)
        self._bars.append(bar)
        self._display.add(bar)

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Count items that have ended, and how many of them have failed."""
        if self._counts is not None:
            self._counts.advance(done, failed)

    def expect(self, total: int | None) -> None:
        """Set the number of items, once it is known."""
        self._total = total
        if self._counts is not None:
            self._counts.expect(total)

    def line(self, text: str) -> None:
        """Write a line that stays, above the bars; also if it is quiet."""
        self._display.lines(text.split("\n"))


def open_display(
    total: int | None = None, quiet: bool = False, stream: Any = None, description: str = ""
) -> CommandDisplay:
    """Return a display for a ``with`` block.

    Args:
        total: number of items; None if unknown.
        quiet: show no bars; ``line`` writes all the same.
        stream: where to draw; None is ``sys.stderr``.
        description: stands before the bar.
    """
    return CommandDisplay(total, quiet, stream, description)
