"""A display in a notebook: one output that is updated in place, without widgets.

HTML where it can be shown, the plain lines elsewhere.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from html import escape
from typing import Any

from wetlands_executor import RunningTask
from wetlands_executor.observe import units
from wetlands_executor.observe.bars import BarState
from wetlands_executor.observe.plain import facts_of, plain_line

#: Rows of running tasks.
ROWS = 16
_CELL = "text-align:left;padding:0 1em 0 0;border:0;white-space:nowrap"


class Picture:
    """Bars, as a notebook shows them.

    Args:
        states: the bars.
    """

    def __init__(self, states: Sequence[BarState]) -> None:
        self._states = states

    def _repr_html_(self) -> str:
        return "".join(map(_html, self._states)) or "<div></div>"

    def __repr__(self) -> str:
        return "\n".join(map(plain_line, self._states))


def _html(state: BarState) -> str:
    counts = state.counts
    words_of_it = ", ".join(facts_of(state))
    text = plain_line(state)
    bar = (
        f'<progress value="{counts.done}" max="{max(counts.total, 1)}" '
        'style="width:16em;vertical-align:middle"></progress> '
        if counts.total is not None
        else ""
    )
    if words_of_it:
        text = text.removesuffix(words_of_it)
        words_of_it = f"<b>{words_of_it}</b>"
    rows = "".join(map(_row, state.running[:ROWS]))
    more = len(state.running) - ROWS
    after = f'<div style="opacity:.75">and {more} more running</div>' if more > 0 else ""
    table = f'<table style="margin:0 0 0 1em;border:0">{rows}</table>{after}' if rows else ""
    return f"<div>{bar}<span>{escape(text)}{words_of_it}</span></div>{table}"


def _row(task: RunningTask) -> str:
    share = (
        ""
        if task.progress is None
        else f'<progress value="{task.progress:.3f}" max="1" style="width:6em"></progress>'
    )
    cells = (
        escape(task.name),
        share,
        escape(task.message or ""),
        f"try {task.attempt}" if task.attempt > 1 else "",
        f"worker {task.worker}" if task.pid else "",
        "" if task.seconds is None else units.duration(task.seconds),
    )
    return "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"


class NotebookScreen:
    """Shows bars in the cell that has begun them. What is printed stands below it."""

    #: Seconds between two looks, at least.
    interval = 0.25

    def __init__(self) -> None:
        self._left: list[BarState] = []
        self._output: Any = None
        self._picture: Picture | None = None

    def begin(self) -> None:
        """Begin: the output is that of the cell which runs now."""
        display: Any = importlib.import_module("IPython.display")
        self._output = display.display(Picture(()), display_id=True)

    def due(self) -> bool:
        """Return True: it is always time to draw."""
        return True

    def draw(self, states: Sequence[BarState]) -> None:
        """Show how far the bars are."""
        if self._output is not None:
            self._output.update(Picture([*self._left, *states]))

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines that stay, below the bars."""
        print("\n".join(lines), flush=True)

    def leave(self, states: Sequence[BarState]) -> None:
        """Keep the last state of bars."""
        self._left.extend(states)

    def end(self) -> None:
        """Show the last states."""
        self.draw(())


def in_notebook() -> bool:
    """Return True if this program is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
