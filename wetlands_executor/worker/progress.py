"""What a running task reports: progress on the shared page, named outputs as frames.

Entered by any thread of the task.
"""

from __future__ import annotations

from _thread import allocate_lock

from . import wire
from .calls import dumps, dumps_result, text_of
from .channel import Channel
from .shared_page import SharedPage

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional

#: Reports that do not fit into a slot of the shared page go by a frame of their own.
_FITS = wire.SLOTS[0][1] - 4


class Progress:
    """Progress of the running call; started anew for each.

    Attributes:
        item: the call that has reported; 0 if none has.
    """

    def __init__(self, channel: Channel, page: SharedPage) -> None:
        self._channel = channel
        self._page = page
        # Guards the fields below and the writing of the shared page: threads of one task may report
        # at the same time.
        self._lock = allocate_lock()
        self.item = 0
        self._message: Optional[str] = None
        self._current: Any = None
        self._maximum: Any = None
        self._last = b""
        # The last report has gone by a frame with its payload, and not only to the shared page.
        self._sent = False

    def update(
        self,
        item: int,
        live: Callable[[], object],
        message: Optional[str],
        current: Any,
        maximum: Any,
    ) -> None:
        """Report; what is None stays as it was.

        Args:
            item: the call.
            live: returns None once it has ended.
            message: text.
            current: how far, a number.
            maximum: of ``current``.
        """
        if message is not None and type(message) is not str:
            message = text_of(message)  # user code: not under the lock
        with self._lock:
            if live() is None:
                # Race: the call has ended since this thread looked, and the fields below may be the
                # next call's
                return
            if item != self.item:
                self.item = item
                self._message = self._current = self._maximum = None
            if message is not None:
                self._message = message
            if current is not None:
                self._current = current
            if maximum is not None:
                self._maximum = maximum
            self._last = data = dumps((item, self._message, self._current, self._maximum), 4)
            self._sent = not self._page.shared or len(data) > _FITS
            if self._sent:
                self._channel.send(wire.UPDATE, item, data)
            elif self._page.post(data):
                self._channel.send(wire.UPDATE, item)

    def output(self, item: int, live: Callable[[], object], values: Dict[Any, Any]) -> None:
        """Send named outputs; an unpicklable value raises here.

        Order: what was reported before arrives before.
        """
        data = dumps_result(values, self._channel.by_value)
        with self._lock:
            if live() is None:
                return  # Race: as in `update`
            if self.item == item and not self._sent:
                self._sent = True
                self._channel.send(wire.UPDATE, item, self._last)
        self._channel.send(wire.OUTPUT, item, data)

    def finish(self, item: int) -> None:
        """Before the result.

        Send the last report of a call that has reported, because the next call will use the shared
        page.

        Whether the host has read the shared page cannot be known: it clears the wakeup before it
        reads.
        """
        if self.item == item:
            with self._lock:
                self.item = 0
                if not self._sent:
                    self._channel.send(wire.UPDATE, item, self._last)
