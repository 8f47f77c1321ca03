"""A display: bars on one screen, and the thread that draws them.

The thread looks at its bars now and then, and draws. How often depends on what a look costs: it
takes at most ``SHARE`` of the time of one processor. No thread waits for it, and it adds no step to
any task. It lives as long as its display has bars.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from wetlands_executor import Overview
from wetlands_executor.observe.bars import Bar, BarState, Pool
from wetlands_executor.observe.notebook import NotebookScreen, in_notebook
from wetlands_executor.observe.plain import PlainScreen
from wetlands_executor.observe.terminal import LONGEST_INTERVAL, TerminalScreen

#: Part of the time of one processor that looking and drawing may take.
SHARE = 0.01
#: Seconds between two plain lines.
EVERY = 10.0


class Screen(Protocol):
    """Where bars are drawn."""

    @property
    def interval(self) -> float:
        """Seconds between two looks, at least."""
        ...

    def begin(self) -> None:
        """Begin."""

    def due(self) -> bool:
        """Return True if it is time to draw."""
        ...

    def draw(self, states: Sequence[BarState]) -> None:
        """Show how far the bars are."""

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines that stay."""

    def leave(self, states: Sequence[BarState]) -> None:
        """Keep the last state of bars that are over."""

    def end(self) -> None:
        """End."""


class Display:
    """Bars on one screen.

    Args:
        screen: where they are drawn.

    Attributes:
        stream: the stream that was asked for; None is the default.
    """

    def __init__(self, screen: Screen, stream: Any = None) -> None:
        self.stream = stream
        self._screen = screen
        self._bars: list[Bar] = []
        self._stop = threading.Lock()
        self._stop.acquire()
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()

    @property
    def is_open(self) -> bool:
        """True if it has a screen and a thread, and this is the process that has made them."""
        return self._thread is not None and self._owner == os.getpid()

    def begin(self) -> None:
        """Begin to draw."""
        self._screen.begin()
        self._thread = threading.Thread(target=self._serve, name="wetlands-display", daemon=True)
        self._thread.start()
        # A program that ends without leaving its block or loop leaves its terminal in order too.
        atexit.register(self.end)

    def end(self) -> None:
        """Draw no more: the streams of the program are its own again."""
        thread, self._thread = self._thread, None
        if thread is None or self._owner != os.getpid():
            return
        self._stop.release()
        thread.join()
        self._screen.end()
        atexit.unregister(self.end)

    def add(self, bar: Bar) -> None:
        """Show a bar below the others. It stays when it is over if it is the first."""
        bar.stay(not self._bars)
        self._bars = [*self._bars, bar]

    def remove(self, bars: Sequence[Bar]) -> None:
        """Show bars no more; leave their last states if they are to stay."""
        self._bars = [bar for bar in self._bars if bar not in bars]
        if self._owner != os.getpid():
            return
        leaving = [bar for bar in bars if bar.leave]
        if leaving:
            self._screen.leave(self._states(leaving, over=True))

    @property
    def is_empty(self) -> bool:
        """True if it has no bar."""
        return not self._bars

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines that stay, above the bars."""
        self._screen.lines(lines)

    def _serve(self) -> None:
        """Draw until the display ends. Runs on the display's thread."""
        screen, pause = self._screen, self._screen.interval
        while not self._stop.acquire(timeout=pause):
            bars = self._bars
            if not bars or not screen.due():
                continue
            began = time.thread_time()
            try:
                screen.draw(self._states(bars))
            except Exception as error:  # noqa: BLE001 - the program goes on without a display
                _tell(error)
                return
            used = time.thread_time() - began
            pause = min(max(screen.interval, used / SHARE), LONGEST_INTERVAL)

    @staticmethod
    def _states(bars: Sequence[Bar], *, over: bool = False) -> list[BarState]:
        overviews: dict[Pool, Overview] = {}
        last: dict[Pool, Bar] = {}
        for bar in bars:
            for pool in bar.pools:
                last[pool] = bar
                if pool not in overviews:
                    overviews[pool] = pool.overview(exact=over)
        return [
            bar.state(overviews, [pool for pool in bar.pools if last[pool] is bar], over=over)
            for bar in bars
        ]


def _tell(error: BaseException) -> None:
    """Log that a display has failed."""
    import logging

    logging.getLogger("concurrent.futures").warning(
        "wetlands_executor: the progress display has failed, and the program goes on without: "
        "%s: %s", type(error).__name__, error, exc_info=error,
    )  # fmt: skip


def choose_screen(stream: Any = None, every: float = EVERY) -> Screen:
    """Return what fits: a notebook's output, a terminal, or plain lines.

    Args:
        stream: where to draw; None is the notebook, or else ``sys.stderr``.
        every: seconds between two plain lines.
    """
    if stream is None and in_notebook():
        return NotebookScreen()
    stream = sys.stderr if stream is None else stream
    return TerminalScreen(stream) if _draws(stream) else PlainScreen(stream, every)


def _draws(stream: Any) -> bool:
    """Return True if bars can be drawn on this stream."""
    try:
        if not stream.isatty():
            return False
    except (AttributeError, ValueError):  # an object of the program's, or closed
        return False
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    if importlib.util.find_spec("rich") is None:
        return False
    return sys.platform != "win32" or not _is_legacy(stream)


def _is_legacy(stream: Any) -> bool:
    """Return True if this is a console of Windows that understands no escape sequences."""
    from rich.console import Console

    return bool(Console(file=stream).legacy_windows)


#: The display that further bars join, under the key "display"; empty if none is open.
_shared: dict[str, Display] = {}


def join(bars: Sequence[Bar], stream: Any, every: float) -> Display:
    """Show bars on the display that is open, or on a new one; return it."""
    display = _shared.get("display")
    if display is None or not display.is_open or display.stream is not stream:
        display = Display(choose_screen(stream, every), stream)
        display.begin()
        _shared["display"] = display
    for bar in bars:
        display.add(bar)
    return display


def part(display: Display, bars: Sequence[Bar]) -> None:
    """Take bars from a display; the last ones end it."""
    display.remove(bars)
    if display.is_empty:
        if _shared.get("display") is display:
            del _shared["display"]
        display.end()
