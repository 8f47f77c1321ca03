"""A display on a terminal: bars below, whole lines above them. ``rich`` draws, this places.

The bars stand in the last rows; the cursor is in the row below them, and is never hidden. So
whatever ends or stops the program, even SIGKILL, leaves a terminal that can be used. Each change is
one write: up to the first row of the bars, what is new, the bars.

Threads: that of the display draws; any thread writes lines. They take turns.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import psutil

from wetlands_executor import RunningTask
from wetlands_executor.observe import units
from wetlands_executor.observe.bars import BarState
from wetlands_executor.observe.plain import facts_of
from wetlands_executor.observe.streams import Redirection, cleaned

#: Columns of a bar, and of all that is drawn: a window that is made narrower wraps less of it.
BAR, WIDEST = 40, 100
#: Seconds between two looks at the memory of a worker.
MEMORY_EVERY = 1.0
#: Seconds that a thread waits for its turn; then it goes on without.
TURN = 1.0
#: Seconds without any step of the program, beyond those expected, after which it was suspended.
SUSPENDED = 1.0


class Turns:
    """Lets one thread at a time change the screen.

    Not a lock to be relied upon: on CPython 3.14 a signal handler may raise between the moment that
    a lock is taken and the block that releases it, and the lock is left. Then a thread waits
    ``TURN`` seconds, once, and goes on. So does a handler that writes within its own thread's turn.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    def take(self) -> threading.Lock | None:
        """Wait for a turn; return what ``give`` takes."""
        me, lock = threading.get_ident(), self._lock
        if self._owner == me:
            return None
        if not lock.acquire(timeout=TURN):
            self._lock = threading.Lock()
            return None
        self._owner = me
        return lock

    def give(self, lock: threading.Lock | None) -> None:
        """End a turn."""
        if lock is not None:
            self._owner = None
            lock.release()


class Memory:
    """Looks at the memory of processes, each now and then."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, int | None]] = {}

    def of(self, pid: int) -> int | None:
        """Return the resident memory of a process in bytes, None if it is gone."""
        now = time.monotonic()
        when, size = self._known.get(pid, (-MEMORY_EVERY, None))
        if pid and now - when >= MEMORY_EVERY:
            try:
                size = psutil.Process(pid).memory_info().rss
            except psutil.Error:
                size = None
            self._known[pid] = now, size
        return size


class Drawing:
    """Draws bars as lines of text with colours, by ``rich``.

    Args:
        console: a ``rich.console.Console``; None makes one for the stream.
        stream: whose colours and encoding count.
    """

    def __init__(self, stream: Any, console: Any = None) -> None:
        from rich import cells
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        self._stream = stream
        self.console: Any = console or Console(
            file=stream, force_terminal=True, highlight=False, markup=False, emoji=False
        )
        self._bar, self._text, self._cells = ProgressBar, Text, cells
        self._memory = Memory()

    def lines(self, states: Sequence[BarState], width: int, height: int) -> list[Any]:
        """Return lines of ``rich.text.Text``, none wider than ``width``.

        At most ``height``: of the running tasks as many are shown as there is room for.
        """
        rooms = _rooms([len(state.running) for state in states], height - len(states))
        found = []
        for state, room in zip(states[: max(height, 1)], rooms, strict=False):
            found.append(self._bar_line(state, width))
            shown = state.running[:room]
            if len(state.running) > room:
                shown = shown[: max(room - 1, 0)]
            found.extend(self._task_line(task, width) for task in shown)
            if room and len(state.running) > room:
                more = len(state.running) - len(shown)
                found.append(self._join([("", f"  and {more} more running", "dim")], width))
        return found

    def _bar_line(self, state: BarState, width: int) -> Any:
        counts = state.counts
        how_many = f"{counts.done}" if counts.total is None else f"{counts.done}/{counts.total}"
        share = units.percent(counts.done, counts.total)
        left = None if state.over else state.remaining
        # From left to right, with what it costs to leave one out: the least important goes first.
        facts = dict.fromkeys(facts_of(state), "")
        pieces = [
            (4, self._cut(state.label, 24), "bold"),
            (0, share, "progress.percentage"),
            (0, how_many, "progress.download"),
            (6, units.rate(state.rate), "progress.data.speed"),
            (5, f"{units.duration(state.elapsed)} elapsed", "progress.elapsed"),
            (7, "" if left is None else f"{units.duration(left)} left", "progress.remaining"),
            *(
                (8 if fact.endswith("failed") else 3, fact, _FACTS.get(fact.split()[-1], ""))
                for fact in facts
            ),
        ]
        pieces = [piece for piece in pieces if piece[1]]
        room = 12 if share else 0
        while self._width(pieces) + room > width and any(cost for cost, _, _ in pieces):
            if room > 6:
                room = 6
                continue
            pieces.remove(min((piece for piece in pieces if piece[0]), key=lambda piece: piece[0]))
        bar = min(BAR, width - self._width(pieces) - 2) if share else 0
        found = self._text(no_wrap=True, end="")
        for place, (_, text, style) in enumerate(pieces):
            if place:
                found.append("  ")
            if text is share and bar >= 4:
                found.append_text(self._drawn_bar(counts.done, counts.total, bar, state))
                found.append("  ")
            found.append(text, style)
        found.truncate(width, overflow="crop")
        return found

    def _drawn_bar(self, done: float, total: float | None, width: int, state: BarState) -> Any:
        finished = "red" if state.counts.failed else "bar.finished"
        bar = self._bar(total=total or 1, completed=done, width=width, finished_style=finished)
        options = self.console.options.update(width=width)
        if not self._unicode:
            options.encoding = "ascii"
        found = self._text()
        for segment in self.console.render(bar, options):
            found.append(segment.text, segment.style)
        return found

    @property
    def _unicode(self) -> bool:
        return (getattr(self._stream, "encoding", None) or "").lower().startswith("utf")

    def _task_line(self, task: RunningTask, width: int) -> Any:
        share = "" if task.progress is None else units.percent(task.progress, 1)
        message, called = task.message or "", _short(task.name)
        if not share and task.current is not None:
            share = units.number(task.current)
            if task.maximum is not None:
                share += f"/{units.number(task.maximum)}"
        tail = [
            (7, share, "progress.percentage"),
            (5, "" if task.attempt < 2 else f"try {task.attempt}", "yellow"),
            (6, "" if task.seconds is None else units.duration(task.seconds), "progress.elapsed"),
            (3, f"worker {task.worker}" if task.pid else "", "dim"),
            (4, units.amount(self._memory.of(task.pid)), "dim"),
        ]
        tail = [piece for piece in tail if piece[1]]
        wanted = min(self._cells.cell_len(called), 16) + min(self._cells.cell_len(message), 12)
        while tail and self._width(tail) + wanted + 6 > width:
            tail.remove(min(tail, key=lambda piece: piece[0]))
        room = width - self._width(tail) - 2 - 2 * bool(tail)
        name = self._cut(called, max(room - (min(len(message), 20) + 2 if message else 0), 8))
        room -= self._cells.cell_len(name) + 2
        pieces = [(0, f"  {name}", ""), (0, self._cut(message, room) if room >= 4 else "", "cyan")]
        shares = [piece for piece in tail if piece[1] is share]
        rest = [piece for piece in tail if piece[1] is not share]
        return self._join([*pieces[:1], *shares, *pieces[1:], *rest], width)

    def _join(self, pieces: Sequence[tuple[Any, str, str]], width: int) -> Any:
        found = self._text(no_wrap=True, end="")
        for place, (_, text, style) in enumerate(piece for piece in pieces if piece[1]):
            found.append(("  " if place else "") + text, style)
        found.truncate(width, overflow="crop")
        return found

    def _width(self, pieces: Sequence[tuple[int, str, str]]) -> int:
        texts = [text for _, text, _ in pieces if text]
        return sum(map(self._cells.cell_len, texts)) + 2 * max(len(texts) - 1, 0)

    def _cut(self, text: str, width: int) -> str:
        """Return a text on one line; a mark stands at the end if it was cut to the width."""
        text = " ".join(cleaned(text.replace("\n", " "))[0].split())
        if self._cells.cell_len(text) <= width:
            return text
        mark = "\u2026" if self._unicode else "~"
        cut: str = self._cells.set_cell_size(text, max(width - 1, 0)).rstrip() + mark
        return cut

    def width_of(self, row: str) -> int:
        """Return the columns that a rendered line takes."""
        width: int = self._cells.cell_len(_COLOURS.sub("", row))
        return width

    def rendered(self, lines: Sequence[Any]) -> list[str]:
        """Return lines as what is written to the terminal."""
        found = []
        for line in lines:
            with self.console.capture() as capture:
                self.console.print(line, soft_wrap=True, end="")
            found.append(capture.get())
        return found


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FACTS = {"failed": "bold red", "cancelled": "yellow", "retried": "yellow"}


def _short(name: str) -> str:
    """Return the name of a call without the folder of its file."""
    _, separator, rest = name.rpartition("/" if "/" in name else "\\")
    return rest if separator and ".py:" in rest else name


def _rooms(wanted: Sequence[int], room: int) -> list[int]:
    """Share rows out: each gets what it wants, if there are enough; else a fair part."""
    found = [0] * len(wanted)
    while room > 0:
        short = [place for place, want in enumerate(wanted) if found[place] < want]
        if not short:
            break
        for place in short[:room]:
            found[place] += 1
        room -= len(short)
    return found


class TerminalScreen:
    """Bars in the last rows of a terminal.

    Args:
        stream: the terminal.
    """

    #: Seconds between two looks, at least.
    interval = 0.1

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._drawing = Drawing(stream)
        self._turns = Turns()
        self._redirection = Redirection(stream, self.lines)
        # The bars on the screen: their rows as text, and how wide the terminal was then.
        self._shown: list[str] = []
        self._columns = 0
        # Monotonic and processor time of the last step.
        self._seen = time.monotonic(), time.process_time()
        self._behind = False

    def begin(self) -> None:
        """Begin."""
        self._redirection.begin()

    def due(self) -> bool:
        """Return True: it is always time to draw."""
        return True

    def draw(self, states: Sequence[BarState]) -> None:
        """Show how far the bars are."""
        width, height = self._size()
        lines = self._drawing.lines(states, min(width - 1, WIDEST), max(height - 2, 1))
        self._replace("", self._drawing.rendered(lines), width)

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines that stay, above the bars."""
        self._replace("".join(f"{line}\n" for line in lines), None)

    def leave(self, states: Sequence[BarState]) -> None:
        """Write the last state of bars, as lines that stay."""
        width, _ = self._size()
        drawn = [self._drawing.lines([state], min(width - 1, WIDEST), 1)[0] for state in states]
        self.lines(self._drawing.rendered(drawn))

    def end(self) -> None:
        """Wipe the bars, and give the streams back."""
        self._replace("", [])
        self._redirection.end()

    def _replace(self, above: str, bars: list[str] | None, columns: int = 0) -> None:
        """Write what stands above, and then the bars; None leaves them as they are.

        Args:
            above: lines.
            bars: rows.
            columns: for which they were drawn; the terminal may have been resized since.
        """
        lock = self._turns.take()
        try:
            up, wipe = self._way_up(bool(above) or not bars)
            if self._behind and not above:
                return
            if bars is not None:
                self._shown, self._columns = bars, columns
            shown = [] if self._behind else self._shown
            text = "".join(
                (up, wipe, above, *(f"{row}\x1b[K\n" for row in shown), "" if wipe else "\x1b[J")
            )
            if above or shown or up:
                self._write(text, lost_is_error=bool(above))
        finally:
            self._turns.give(lock)

    def _way_up(self, wipe: bool) -> tuple[str, str]:
        """Return what takes the cursor to the first row of the bars, and what wipes them."""
        now, used = time.monotonic(), time.process_time()
        before, used_before = self._seen
        self._seen = now, used
        was_behind, self._behind = self._behind, not _is_in_foreground(self._stream)
        gap = now - before
        if gap > LONGEST_INTERVAL + SUSPENDED and used - used_before < gap / 4:
            # The program was stopped (Ctrl-Z) and goes on: below the bars stands what the shell has
            # written since, which is not to be overwritten.
            self._shown = []
        if self._behind or was_behind:
            self._shown = []
        rows = self._rows()
        return (f"\r\x1b[{rows}A" if rows else ""), ("\x1b[J" if wipe and rows else "")

    def _rows(self) -> int:
        """Return how many rows of the terminal the bars take now."""
        shown, columns = self._shown, self._size()[0]
        if columns >= self._columns or not _breaks_rows_anew():
            return len(shown)
        widths = map(self._drawing.width_of, shown)
        return sum(max(-(-width // columns), 1) for width in widths)

    def _write(self, text: str, *, lost_is_error: bool) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        if not text.isascii():
            text = text.encode(encoding, "replace").decode(encoding, "replace")
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, takes no more now, or was closed
            if lost_is_error:
                raise

    def _size(self) -> tuple[int, int]:
        """Return columns and rows of the terminal now."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
            columns = rows = 0
        return max(columns or 80, 10), max(rows or 24, 3)


#: Seconds between two looks, at most.
LONGEST_INTERVAL = 1.0


def _breaks_rows_anew() -> bool:
    """Return True if this terminal is known to break its rows anew when it is made narrower.

    To go up too many rows in one that does not would wipe lines that are to stay.
    """
    term = os.environ.get("TERM", "")
    return term.startswith("tmux") or (term.startswith("screen") and "TMUX" in os.environ)


def _is_in_foreground(stream: Any) -> bool:
    """Return False if the program was put into the background of this terminal."""
    if sys.platform != "win32":
        try:
            return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
        except (OSError, ValueError, AttributeError):
            pass  # not its controlling terminal
    return True
