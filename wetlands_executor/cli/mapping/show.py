"""What ``map`` shows people: progress, failures, a summary. All of it on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from wetlands_executor import CondaEnvExecutor

if TYPE_CHECKING:
    from typing_extensions import Self

    from wetlands_executor.cli.mapping.loop import Loop
    from wetlands_executor.cli.mapping.outcome import Failure, Outcome
    from wetlands_executor.cli.mapping.output import FailureTexts, Output


class Screen:
    """Standard error, while ``map`` runs.

    Args:
        total: number of items; None if it is not known.
        quiet: show failures only.
    """

    def __init__(self, total: int | None, *, quiet: bool) -> None:
        self._total = total
        self._quiet = quiet
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def attach(self, executor: CondaEnvExecutor) -> None:
        """Show the progress of an executor's tasks."""

    def tell(self, line: str) -> None:
        """Print a line, unless only failures are to be shown."""
        if not self._quiet:
            self._print(line)

    def _print(self, line: str) -> None:
        data = f"{line}\n".encode("utf-8", "backslashreplace").decode()
        sys.stderr.write(data)
        sys.stderr.flush()

    def failures(self, texts: FailureTexts) -> Callable[[Outcome, Failure], None]:
        """Return what prints the item of a failure, its last line, and where its full text is."""

        def show(outcome: Outcome, failure: Failure) -> None:
            text = outcome.item.text
            place = texts.add(f"item {outcome.item.seq}: {text}", failure.full)
            self._print(f"failed: {text}: {failure.summary} ({place})")

        return show

    def summarize(self, loop: Loop, output: Output, skipped: int) -> None:
        """Say how the run went."""
        parts = [f"{output.written - output.failed:,} done"]
        if output.failed:
            parts.append(f"{output.failed:,} failed")
        if loop.unfinished:
            parts.append(f"{loop.unfinished:,} stopped")
        if skipped:
            parts.append(f"{skipped:,} in the joblog")
        taken = time.monotonic() - self._started
        rate = output.written / taken if taken > 0 else 0.0
        self.tell(f"{', '.join(parts)}; {taken:.1f} s, {rate:,.1f} items/s")
