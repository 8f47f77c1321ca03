"""The host's end of the shared page: its control words by name.

The words of the direct ways are the business of ``direct.py`` and ``direct_receive.py``, which use
them in place. Every method raises ValueError once the page is released: the process is gone.

Threads: any; each word has one writer, the worker's or the host's (see ``worker/wire.py``).
"""

from __future__ import annotations

from wetlands_executor.worker import wire
from wetlands_executor.worker.shared_page import SharedPage


class HostPage(SharedPage):
    """The shared page, as the host uses it."""

    def taken(self) -> int:
        """Return the number of the call that the worker has taken last; 0 before the first one.

        Of a batch, with the place of the call that it has begun above ``wire.NUMBER_BITS``.
        """
        return self.words[wire.TAKEN]

    def started(self) -> float:
        """Return when it took that call, on the monotonic clock in seconds."""
        return self.words[wire.STARTED_NS] / 1e9

    def sent(self) -> int:
        """Return how many bytes it has written to its results pipe."""
        return self.words[wire.SENT]

    def bulk_read(self) -> int:
        """Return how many bytes it has read from its bulk pipe."""
        return self.words[wire.BULK_READ]

    def request_cancel(self, number: int) -> None:
        """Make ``cancel_requested`` true in this call."""
        self.words[wire.CANCEL_WORD] = number

    def request_interrupt(self, number: int) -> None:
        """Name the call that the next signal is to interrupt, and no other."""
        self.words[wire.INTERRUPT_WORD] = number
