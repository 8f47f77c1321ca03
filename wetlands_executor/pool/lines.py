"""What workers print, as whole lines on the host's ``sys.stdout`` and ``sys.stderr``.

Bytes come in on the I/O thread; text goes out on the output thread, because a stream of the host may block or be the user's own object.
``enqueued`` is written by the I/O thread and ``written`` by the output thread: they are equal when nothing is under way.
"""

from __future__ import annotations

import codecs
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wetlands_executor.task import Task

#: Characters after which a line that never ends is passed on anyway.
LONGEST_LINE = 65536


_printing = threading.local()


def printing_task() -> Task[Any] | None:
    """Return the task whose lines are being written, for an object that stands in ``sys.stdout`` or ``sys.stderr`` and is written to.

    None if the lines are not a worker's, or if it is not known which of its tasks printed them (several very short ones in a row, output
    of threads and processes that a task has left behind).
    """
    return getattr(_printing, "task", None)


class LineSplitter:
    r"""Cuts a byte stream into texts that end at a line's end (``\n``, or ``\r`` as progress bars write it)."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        """Return the whole lines that ``data`` completes, joined; keep the rest."""
        text = self._rest + self._decoder.decode(data)
        end = max(text.rfind("\n"), text.rfind("\r")) + 1
        if not end and len(text) > LONGEST_LINE:
            end = len(text)
        self._rest = text[end:]
        return text[:end]

    def finish(self) -> str:
        """Return what waits for its line's end, ended now; for the end of a task or of the stream."""
        rest, self._rest = self._rest, ""
        return rest + "\n" if rest else ""

    @property
    def pending(self) -> bool:
        """True if a line has begun and not ended."""
        return bool(self._rest)


class OutputStream:
    """One of a worker's two streams on its way to the host's.

    Attributes:
        name: ``"stdout"`` or ``"stderr"``: which of the host's streams, looked up when a line is written (so a redirection counts).
        paused: reading was stopped, because the host's stream takes less than the worker prints.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.splitter = LineSplitter()
        self.enqueued = 0
        self.written = 0
        self.paused = False

    @property
    def under_way(self) -> int:
        """Number of pieces that the output thread has not written yet."""
        return self.enqueued - self.written

    def write(self, text: str, task: Task[Any] | None = None) -> None:
        """Write to the host's stream; runs on the output thread."""
        _printing.task = task
        try:
            stream = getattr(sys, self.name)
            if stream is not None:  # None under pythonw
                stream.write(text)
                stream.flush()
        except (OSError, ValueError):
            pass  # the host closed its own stream; there is nobody to tell
        finally:
            _printing.task = None
            self.written += 1
