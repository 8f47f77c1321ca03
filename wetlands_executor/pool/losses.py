"""What is missing of the data that went to one worker and came from it. I/O thread only."""

from __future__ import annotations

from typing import NamedTuple

from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.system import unread
from wetlands_executor.worker import wire


class Losses(NamedTuple):
    """What is missing.

    Attributes:
        frames: calls that are neither in the inbox nor were taken.
        records: bytes of the bulk pipe.
        answers: bytes of the results pipe.
        seen: where the worker stood when that was seen.
    """

    frames: int
    records: int
    answers: int
    seen: tuple[int, ...]


class LossRecord:
    """What the last checks of one worker found.

    Attributes:
        harmed: a task has read what was written to the worker, or takes its wakeups.
    """

    def __init__(self) -> None:
        self.harmed = False
        self._losses: Losses | None = None
        self._times_seen = 0

    def note_harm(self) -> bool:
        """Note that the worker is harmed; return True for the first time."""
        first, self.harmed = not self.harmed, True
        return first

    def look(self, process: WorkerProcess) -> tuple[Losses | None, int]:
        """Return what is missing, or None; and how many looks in succession saw that before."""
        losses = find_losses(process)
        self._times_seen = (
            self._times_seen + 1 if losses is not None and losses == self._losses else 0
        )
        self._losses = losses
        return losses, self._times_seen


def find_losses(process: WorkerProcess) -> Losses | None:
    """Return what is missing of what went to the worker and came from it; None if nothing is.

    Race: data that the worker has just read, and not yet noted on the page, is missing too. Equal
    findings, with a wait of the I/O thread in between, show that it stays missing. Answers that are
    missing are lost for good.
    """
    page, calls = process.process.page, process.calls
    if page is None or not process.ready or process.exited or process.results.ended:
        return None
    # Order: before the pipe is looked at. What the worker has sent is in the pipe by then, or
    # has been read.
    sent, arrived = page.sent(), process.results.arrived
    answers = max(0, sent - arrived - unread(process.process.results))
    taken, read = page.taken() & wire.NUMBER, page.bulk_read()
    held = {call.number for call in process.given.current()}
    frames = records = 0
    if not process.stopping:
        there = process.outbox.in_pipes()
        frames = max(len(held) - (taken in held) - there.frames, 1 if there.cut else 0)
        records = max(0, there.records - read)
    back = process.direct_send.receive
    waiting, asleep = back.missed(calls) if back is not None else (0, False)
    if not (frames or records or answers or asleep):
        return None
    seen = (taken, read, sent, waiting, process.finished, arrived, len(held))
    return Losses(frames, records, answers, seen)
