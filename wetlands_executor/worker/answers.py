"""How a worker answers a call: on the shared page, or as a frame.

Threads: the worker's main thread only.
"""

from __future__ import annotations

import os
import sys
from os import write

from . import wire
from .shared_page import fence
from .system import HIGH, REORDERS_STORES, set_blocking
from .wire import ANSWER, ANSWER_MOST, ANSWERED, AWAITED

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from .channel import Channel
    from .shared_page import SharedPage

#: Microseconds from which a call may have replaced a descriptor of this worker with a file.
LONG = 5
#: Outcomes that may go back on the shared page.
_SHORT = (wire.VALUE, wire.NONE)
_ONE = (1).to_bytes(8, sys.byteorder)


class Answers:
    """Sends outcomes to the host.

    Order: what a call printed, and each frame that it has sent, leaves before its outcome. So an
    outcome goes onto the page only if nothing of this call went another way, which could be
    overtaken.

    Args:
        channel: the pipes.
        page: the shared page.
        wakeup: descriptor of the counter on which a thread of the host waits for an answer on the
            page; -1 if there is none.

    Attributes:
        wakeup: the same; -1 too if a task has closed it, or could get its number for a file.
    """

    def __init__(self, channel: Channel, page: SharedPage, wakeup: int) -> None:
        self.wakeup = wakeup if wakeup >= HIGH else -1
        self._channel = channel
        self._words = page.words
        self._answer = page.answer

    def send(
        self, outcome: int, payload: bytes, item: int, lasted: int, sent: int, printed: bool
    ) -> None:
        """Send the outcome of a call.

        If a thread of the host waits for this very call, a short outcome goes onto the shared page,
        and that thread is woken.

        Args:
            outcome: kind of the result frame.
            payload: the pickle.
            item: number of the call.
            lasted: nanoseconds from its begin until its code had ended.
            sent: ``Channel.sent`` when it began.
            printed: it has printed something; then its code may have run once more, to flush.
        """
        duration = lasted // 1000
        if duration > 0xFFFFFFFF:
            duration = 0xFFFFFFFF
        channel = self._channel
        if duration > LONG or printed:
            channel.verify()
        words = self._words
        size = len(payload)
        if (
            words[AWAITED] == item
            and outcome in _SHORT
            and channel.sent == sent
            and not printed
            and size <= ANSWER_MOST
            and self.wakeup >= 0
        ):
            if size:
                self._answer[:size] = payload
            words[ANSWER] = outcome | size << 8 | duration << 32
            if REORDERS_STORES:
                fence()
            words[ANSWERED] = item
            try:
                write(self.wakeup, _ONE)
            except BlockingIOError:
                self._notify_again()
                return
            except OSError:
                # The task has closed it. If the host has seen the answer all the same, the frame
                # will be of no call that it knows.
                self.wakeup = -1
            else:
                return
        channel.send(outcome, item, payload, duration)

    def _notify_again(self) -> None:
        """Notify although the task has filled the counter, and has made it non-blocking.

        It is blocking afterwards.
        """
        try:
            os.read(self.wakeup, 8)
        except BlockingIOError:
            pass  # the host has read it meanwhile
        set_blocking(self.wakeup, True)
        write(self.wakeup, _ONE)
