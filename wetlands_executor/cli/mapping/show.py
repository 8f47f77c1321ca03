"""What ``map`` shows people: progress, failures, a summary. All of it on standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from wetlands_executor import CondaEnvExecutor
from wetlands_executor.observe import open_display

if TYPE_CHECKING:
    from typing_extensions import Self

    from wetlands_executor.cli.mapping.loop import Loop
    from wetlands_executor.cli.mapping.outcome import Failure, Outcome
    from wetlands_executor.cli.mapping.output import FailureTexts, Output


class Screen:
    """Standard error, while ``map`` runs: bars on a terminal, else lines.

    Args:
        total: number of items; None if it is not known.
        texts: the file of full texts of failures.
        quiet: show failures only.
    """

    def __init__(self, total: int | None, texts: FailureTexts, *, quiet: bool) -> None:
        self._display = open_display(total, quiet)
        self._texts = texts
        self._quiet = quiet
        self._started = time.monotonic()
        self._summary: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        self._display.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was, and say how the run went."""
        self._display.__exit__(exc_type, exc, tb)
        if self._summary is not None:
            parts, written = self._summary
            taken = time.monotonic() - self._started
            rate = written / taken if taken > 0 else 0.0
            self.tell(f"{parts}; {taken:.1f} s, {rate:,.1f} items/s")

    def attach(self, executor: CondaEnvExecutor) -> None:
        """Show the running tasks of an executor, and the progress of the items."""
        self._started = time.monotonic()
        # many items may travel in one task
        self._display.attach(executor, counted=True)

    def advance(self, done: int, failed: int) -> None:
        """Count items that have ended, and how many of them have failed."""
        self._display.advance(done, failed)

    def results(self, data: bytes) -> None:
        """Write lines of JSON above the bars."""
        self._display.line(data.decode().rstrip("\n"))

    def tell(self, line: str) -> None:
        """Print a line, unless only failures are to be shown."""
        if not self._quiet:
            self._print(line)

    def failed(self, outcome: Outcome, failure: Failure) -> None:
        """Print the item of a failure, its last line, and where its full text is."""
        text = outcome.item.text
        place = self._texts.add(f"item {outcome.item.seq}: {text}", failure.full)
        self._print(f"failed: {text}: {failure.summary} ({place})")

    def summarize(self, loop: Loop, output: Output, skipped: int) -> None:
        """Take note of how the run went, which is said below the last state of the bars."""
        parts = [f"{output.written - output.failed:,} done"]
        if output.failed:
            parts.append(f"{output.failed:,} failed")
        if loop.unfinished:
            parts.append(f"{loop.unfinished:,} stopped")
        if skipped:
            parts.append(f"{skipped:,} in the joblog")
        self._summary = ", ".join(parts), output.written

    def _print(self, line: str) -> None:
        self._display.line(line.encode("utf-8", "backslashreplace").decode())
