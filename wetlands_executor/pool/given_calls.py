"""The calls that one worker was given and has not finished, and how far it has got.

The worker notes on the shared page which call it has taken last, and when.

Threads: ``current``, ``is_running`` and ``running_since`` any; the rest the I/O thread's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wetlands_executor.pool.call import Call
from wetlands_executor.pool.direct import DirectSend
from wetlands_executor.pool.result_stream import RawFrame
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.pool.host_page import HostPage


class GivenCalls:
    """Reads which call a worker has taken, and decides which calls its frames may concern.

    Invariant: outcomes come in the order in which the calls were given, but for two ways: an answer
    on the shared page may be taken later than a frame, and calls that submitting threads have
    written are registered later than the worker reads them (``crowded``, ``defer``).

    Args:
        calls: number -> call, oldest first; always the same dictionary, which the worker's process
            owns.
        page: the shared page; None where there is none.
        direct: the direct ways, on which calls come that are not registered.
    """

    def __init__(self, calls: dict[int, Call], page: HostPage | None, direct: DirectSend) -> None:
        self._calls = calls
        self._page = page
        self._direct = direct
        # The calls may have been written in another order than that of ``calls``, until they end.
        self._crowded = False
        #: Frames that came before their calls were registered, and are taken up again a little
        #: later, those of one call in order. Those of other calls come first.
        self.late: list[RawFrame] = []

    def current(self) -> list[Call]:
        """Return what the worker was given and has not finished, oldest first. Any thread."""
        return list(self._calls.values()) + [
            entry[0] for entry in list(self._direct.sent) if entry[0].number not in self._calls
        ]

    def oldest(self) -> Call | None:
        """Return the call that it was given first and has not finished."""
        return next(iter(self._calls.values()), None)

    # --- what the worker has written to the shared page

    def is_running(self, call: Call) -> bool:
        """Return True if the worker has taken this call. Any thread."""
        page = self._page
        try:
            return (
                call in self.current()
                if page is None
                else page.words[wire.TAKEN] & wire.NUMBER == call.number  # as in `taken`
            )
        except ValueError:  # released: the process is gone
            return False

    def running(self) -> list[Call]:
        """Return the calls that it has taken."""
        return [call for call in self._calls.values() if self.is_running(call)]

    def running_since(self, call: Call) -> float | None:
        """Return when the worker took the call that it runs, on the monotonic clock in seconds.

        None if unknown. Any thread.
        """
        page = self._page
        try:
            if page is None or page.taken() & wire.NUMBER != call.number:
                return None
            return page.started()
        except ValueError:
            return None

    def begun(self, call: Call) -> int | None:
        """Return how many calls of a batch the worker has begun; None if unknown."""
        page = self._page
        if page is None or not call.encoded.flags & wire.MANY:
            return None
        taken = page.taken()
        return taken >> wire.NUMBER_BITS if taken & wire.NUMBER == call.number else 0

    def taken(self) -> int | None:
        """Return the number of the call that the worker has taken last.

        None if unknown.
        """
        page = self._page
        try:
            # In place, not `page.taken()`: reports and registered calls come here, and each would
            # enter one more function (`tests/tasks/test_function_counts.py`).
            return None if page is None else page.words[wire.TAKEN] & wire.NUMBER
        except ValueError:
            return None

    # --- which calls its frames may concern

    def note_registered(self) -> bool:
        """Note that calls which submitting threads have written are among ``calls`` now.

        Return True if nothing was written to the worker after them.
        """
        # Race: the other frames may have been written after these. So may frames of calls that have
        # ended meanwhile, where an outcome waits because its call was not registered in time.
        self._crowded = len(self._calls) > 1
        return not (self._crowded or self.late)

    def defer(self, frame: RawFrame) -> bool:
        """Keep a frame whose call is not registered; return True if it is the only one."""
        self.late.append(frame)
        return len(self.late) == 1

    def is_late(self, number: int) -> bool:
        """Return True if a frame of this call was deferred: others of it go behind that one."""
        return any(number & wire.NUMBER == frame[1] & wire.NUMBER for frame in self.late)

    def take_late(self) -> list[RawFrame]:
        """Return the frames that were deferred, which are not any more."""
        frames, self.late = self.late, []
        return frames

    def is_due(self, number: int) -> bool:
        """Return True if the outcome of this call may come now, though there is an older call."""
        if self._crowded or self.late:
            return True
        back = self._direct.receive
        return back is not None and back.answer()[1] == next(iter(self._calls)) != number

    def may_say(self, ended: bool, number: int) -> bool:
        """Return True if a frame may concern this call, which is not the worker's oldest.

        ``ended``: the frame says that the call has ended; else it reports something of it.
        """
        return self.is_due(number) if ended else self.has_taken(number)

    def has_taken(self, number: int) -> bool:
        """Return True if a report may concern this call, which is not the worker's oldest.

        The worker has taken it, or a later one.
        """
        taken = self.taken()
        if self._crowded or self.late or taken is None:
            return True
        for one in self._calls:
            if one == number:
                return taken in self._calls
            if one == taken:
                return False
        return True  # the worker has taken a call that is not known here

    def not_begun(self) -> list[int]:
        """Return the numbers of the calls that have not begun although their frames are gone.

        Order: the inbox was emptied before, and after that all results that it has sent were read.

        Guarantee: nothing runs twice. A worker writes to the page which call it takes before
        anything of that runs, and answers it before it takes another one. So a call that was not
        answered is that call, or has not begun. Where an answer may have been lost on its way,
        nothing is returned.
        """
        taken = self.taken()
        if taken is None or self.late:
            return []
        return [
            number
            for number, call in self._calls.items()
            if number != taken and call.kill_reason is None
        ]
