"""Whole lines above a display: what stands in for ``sys.stdout``, ``sys.stderr`` and log streams.

Only streams that go to the very terminal of the display are replaced; a file or a pipe keeps what
is written to it. The replacement outlives the display, because a program may have kept it: then it
hands everything on.

Any thread writes.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: Sequences that move the cursor or change the terminal, and control characters; colours stay.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\[\]]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"
)


def cleaned(text: str) -> list[str]:
    r"""Return the lines of a text, as a terminal would end up showing each.

    Of a line with ``\r`` in it, as progress bars write it, what was written last.
    """
    lines = []
    for line in text.split("\n"):
        shown = _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2])
        lines.append(shown + "\x1b[0m" if "\x1b" in shown else shown)
    return lines


class LineStream:
    """Passes whole lines on, to be written above the display.

    A line without an end waits for its end. All else is as of the stream that it replaces.

    Args:
        stream: what it replaces.
        above: writes lines above the display.
    """

    def __init__(self, stream: Any, above: Callable[[list[str]], object]) -> None:
        self._stream = stream
        self._above: Callable[[list[str]], object] | None = above
        self._owner = os.getpid()
        self._rest = ""

    def write(self, text: str) -> int:
        """Write a text."""
        above = self._above
        if above is None or os.getpid() != self._owner:  # a fork has no display
            written: int = self._stream.write(text)
            return written
        whole, end, rest = (self._rest + text).rpartition("\n")
        self._rest = rest[rest.rstrip("\r").rfind("\r") + 1 :]
        if end:
            above(cleaned(whole))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush the stream; a line that has not ended goes on waiting."""
        if self._above is None or os.getpid() != self._owner:
            self._stream.flush()

    def release(self) -> None:
        """Hand everything on from now on, and what has waited for its line's end."""
        self._above = None
        rest, self._rest = self._rest, ""
        if rest:
            self._stream.write(rest)
            self._stream.flush()

    @property
    def original(self) -> Any:
        """What it replaces."""
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


class Redirection:
    """Replaces the program's streams that go to the terminal of a display, and puts them back.

    Args:
        terminal: the stream of the display.
        above: writes lines above it.
    """

    def __init__(self, terminal: Any, above: Callable[[list[str]], object]) -> None:
        self._terminal = terminal
        self._above = above
        self._replaced: list[tuple[str, LineStream]] = []
        self._handlers: list[tuple[logging.StreamHandler[Any], Any, LineStream]] = []

    def begin(self) -> None:
        """Replace them."""
        streams: dict[int, LineStream] = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, LineStream) or not _same_terminal(stream, self._terminal):
                continue
            streams[id(stream)] = stands_in = LineStream(stream, self._above)
            setattr(sys, name, stands_in)
            self._replaced.append((name, stands_in))
        for handler in _stream_handlers():
            stands_in_for = streams.get(id(handler.stream))
            if stands_in_for is not None:
                handler.setStream(stands_in_for)
                self._handlers.append((handler, stands_in_for.original, stands_in_for))

    def end(self) -> None:
        """Put them back, unless the program has put others in their place meanwhile."""
        for name, stands_in in self._replaced:
            if getattr(sys, name) is stands_in:
                setattr(sys, name, stands_in.original)
        for handler, stream, stands_in in self._handlers:
            if handler.stream is stands_in:
                handler.setStream(stream)
        for _, stands_in in self._replaced:
            stands_in.release()
        self._replaced, self._handlers = [], []


def _same_terminal(stream: Any, terminal: Any) -> bool:
    """Return True if both go to one terminal."""
    if stream is None:
        return False
    if stream is terminal:
        return True
    try:
        first, second = stream.fileno(), terminal.fileno()
        if not (os.isatty(first) and os.isatty(second)):
            return False
        return sys.platform == "win32" or os.fstat(first).st_rdev == os.fstat(second).st_rdev
    except (OSError, ValueError, AttributeError):  # an object of the program's, or closed
        return False


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    """Return the log handlers that write to a stream, each once."""
    manager = logging.root.manager
    loggers = [logging.root, *manager.loggerDict.copy().values()]
    seen = set()
    for logger in loggers:
        for handler in tuple(getattr(logger, "handlers", ())):  # a placeholder has none
            # Exactly these: a file handler is one too, and has a stream of its own.
            if isinstance(handler, logging.StreamHandler) and id(handler) not in seen:
                seen.add(id(handler))
                yield handler
