"""What ``map`` writes, and in which order: results, then the joblog, then failures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

from wetlands_executor.cli.errors import CommandError
from wetlands_executor.cli.files import truncate
from wetlands_executor.cli.mapping.joblog import JobLog
from wetlands_executor.cli.mapping.outcome import Failure, Outcome


class Watcher(Protocol):
    """Gets the outcomes that were written."""

    def failed(self, outcome: Outcome, failure: Failure) -> None:
        """Show a failure."""

    def advance(self, done: int, failed: int) -> None:
        """Count items that have ended, and how many of them have failed."""


class Output:
    """Writes outcomes as they come, or in the order of their items.

    Order: the result's line, then the joblog's. An item that the joblog names has its result.

    Args:
        write: is given the lines of JSON.
        joblog: gets its lines; None if there is none.
        watcher: gets failures, and how many items have ended.
        keep_order: outcomes wait for those of the items before them.

    Attributes:
        written: how many outcomes were written.
        failed: how many of them were failures.
        held: how many outcomes wait for others.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        joblog: JobLog | None,
        watcher: Watcher,
        *,
        keep_order: bool,
    ) -> None:
        self._write_results = write
        self._joblog = joblog
        self._watcher = watcher
        self._keep_order = keep_order
        self._held: dict[int, Outcome | None] = {}
        self._next = 0
        self.written = self.failed = 0
        #: True while lines of JSON are written, which may take any time.
        self.is_writing = False

    @property
    def next_place(self) -> int:
        """The place of the item whose outcome is written next, in order."""
        return self._next

    @property
    def held(self) -> int:
        """How many outcomes wait for others."""
        return len(self._held)

    def put(self, outcomes: Sequence[tuple[int, Outcome | None]]) -> None:
        """Write outcomes, or keep them until those before them have come.

        Args:
            outcomes: each with the place of its item among all that are called; None for one that
                is not finished.
        """
        if not self._keep_order:
            self._write([each for _, each in outcomes if each is not None])
            return
        self._held.update(outcomes)
        ready = []
        while self._next in self._held:
            found = self._held.pop(self._next)
            self._next += 1
            if found is not None:
                ready.append(found)
        self._write(ready)

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        self.is_writing = True
        self._write_results(b"".join([each.result for each in outcomes]))
        self.is_writing = False
        if self._joblog is not None:
            self._joblog.write(b"".join([each.entry for each in outcomes]))
        self.written += len(outcomes)
        failed = 0
        for each in outcomes:
            if each.failure is not None:
                failed += 1
                self._watcher.failed(each, each.failure)
        self.failed += failed
        self._watcher.advance(len(outcomes), failed)


class FailureTexts:
    """The file of full texts of failures, made with the first.

    Args:
        path: of the file; None makes a temporary one.
        append: what it holds stays.
    """

    def __init__(self, path: str | None, *, append: bool) -> None:
        self.path = path
        self._append = append
        self._stream: IO[str] | None = None
        self._line = 1

    def add(self, head: str, text: str) -> str:
        """Append a text below a line of its own; return its place: ``"path:line"``."""
        stream = self._stream or self._open()
        place = f"{self.path}:{self._line}"
        whole = f"{head}\n{text.rstrip()}\n\n"
        stream.write(whole)
        stream.flush()
        self._line += whole.count("\n")
        return place

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _open(self) -> IO[str]:
        if self.path is None:
            descriptor, self.path = tempfile.mkstemp(".txt", "wetlands-map-failures-")
            os.close(descriptor)
        try:
            if self._append and os.path.exists(self.path):
                with open(self.path, "rb") as before:
                    self._line += sum(1 for _ in before)
            mode = "a" if self._append else "w"
            stream = open(self.path, mode, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        except OSError as error:
            raise CommandError(f"--errors {self.path}: {error.strerror or error}") from error
        self._stream = stream
        return stream


def results_file(path: str, logged: set[int] | None) -> int:
    """Open the file of results; return its descriptor.

    Args:
        path: of the file.
        logged: numbers of the items in the joblog of the run that is resumed; what a killed run has
            written after the last of them is removed. None begins the file anew.

    Raises:
        CommandError: it cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
        # reading a pipe or a terminal would never end
        keep = _end_of_logged(Path(path), logged) if logged and os.path.isfile(path) else 0
        truncate(descriptor, keep)
    except OSError as error:
        raise CommandError(f"--results {path}: {error.strerror or error}") from error
    return descriptor


def _end_of_logged(path: Path, logged: set[int]) -> int:
    """Return where the line of the last item ends that the joblog names."""
    end = position = 0
    with path.open("rb") as stream:
        for line in stream:
            position += len(line)
            seq = line.partition(b'"seq": ')[2].partition(b",")[0]
            if line.endswith(b"\n") and seq.isdigit() and int(seq) in logged:
                end = position
    return end
