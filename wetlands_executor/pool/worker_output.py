"""What one worker prints: its streams on their way to the host's, its last lines, its stacks.

Which of its calls may have printed.

Threads: the I/O thread's. A thread that waits for a direct result reads ``reading`` and
``printed``.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from wetlands_executor.pool.lines import OutputStream, without_stacks
from wetlands_executor.worker import wire

#: Bytes of stderr that are kept for the error of a crash.
TAIL = 16384


class WorkerOutput:
    """The output of one incarnation.

    Args:
        page: the page that is shared with the worker, None if there is none.
        calls: number -> call, of what the worker has; always the same dictionary.

    Attributes:
        stdout, stderr: its streams.
        records: its log records on their way (only the counters are used).
        printed: something came that may be of a call whose outcome has not come yet.
        reading: what it has printed is just being read, and ``printed`` will follow.
        asked: it was asked for its stacks, and what it prints on stderr may be these.
    """

    def __init__(self, page: Any, calls: Container[int]) -> None:
        self.stdout = OutputStream("stdout")
        self.stderr = OutputStream("stderr")
        self.records = OutputStream("log")
        self.printed = False
        self.reading = False
        self._page = page
        self._calls = calls
        # The last call of which something printed may be, as on the shared page; None if unknown.
        self._until: int | None = None
        # What was said before the worker was ready is part of the error if it fails to start, and
        # is not said twice.
        self._held_back = b""
        self._tail = b""
        self._stderr_total = 0
        # Position in its stderr at which it was asked for its stacks.
        self._stacks_from: int | None = None

    @property
    def streams(self) -> tuple[OutputStream, OutputStream]:
        """Both streams."""
        return self.stdout, self.stderr

    @property
    def counters(self) -> tuple[OutputStream, ...]:
        """What may be under way: both streams, and the log records."""
        return self.stdout, self.stderr, self.records

    @property
    def asked(self) -> bool:
        """True if what it prints may be stacks that it was asked for."""
        return self._stacks_from is not None

    # --- whose output it is

    def begin_reading(self) -> None:
        """Note that its pipes are being read."""
        self.reading = True

    def end_reading(self) -> None:
        """Note that the reading is over, and ``printed`` is up to date."""
        self.reading = False

    def note(self, number: int | None = None) -> None:
        """Note that something was printed or logged.

        By call ``number``, or by one of those up to the one that runs now.
        """
        if number is None:
            self._until = None if self._page is None else self._page.taken()
        elif not self.printed:
            self._until = number
        self.printed = True

    def note_end(self, number: int, count: int = 1) -> None:
        """Note that the outcome of call ``number`` was dealt with.

        Of a batch, of the last of ``count`` that end now.
        """
        if not self.printed:
            return
        until = self._until
        place = (number >> wire.NUMBER_BITS) + count - 1
        if (
            until is None
            or until & wire.NUMBER not in self._calls
            or (until & wire.NUMBER == number & wire.NUMBER and until >> wire.NUMBER_BITS <= place)
        ):
            self.printed = False  # nothing that was printed so far can be of a call behind it

    # --- stderr

    def keep(self, data: bytes) -> None:
        """Remember the last bytes of stderr."""
        self._stderr_total += len(data)
        self._tail = (self._tail + data)[-TAIL:]

    def hold_back(self, data: bytes) -> None:
        """Keep what was said on stderr before the worker is ready."""
        self._held_back += data

    def release(self) -> str:
        """Return the whole lines of what was kept so."""
        data, self._held_back = self._held_back, b""
        return self.stderr.splitter.feed(data) if data else ""

    def tail(self) -> str:
        """Return the last lines that the process wrote to stderr."""
        return self._tail.decode("utf-8", "replace").strip()

    def said(self, stream: OutputStream, text: str) -> str:
        """Return what the worker itself has said.

        The stacks that it was asked for are part of an exception, and not said twice.
        """
        return (
            without_stacks(text)
            if text and self._stacks_from is not None and stream is self.stderr
            else text
        )

    # --- stacks

    def expect_stacks(self) -> None:
        """Note that the worker is asked for its stacks now."""
        self._stacks_from = self._stderr_total

    def forget_stacks(self) -> None:
        """Note that what it prints from now on is not what it was asked for."""
        self._stacks_from = None

    def stacks(self) -> str:
        """Return what it has printed since it was asked."""
        if self._stacks_from is None:
            return ""
        count = self._stderr_total - self._stacks_from
        return self._tail[-count:].decode("utf-8", "replace").strip() if count else ""
