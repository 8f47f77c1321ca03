"""Cancellations and kills that other threads ask for, and the answers to waiting threads.

Threads: those that say so any; else the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from wetlands_executor import threads
from wetlands_executor.futures.waiting import Latch
from wetlands_executor.pool.call import Call, Kill
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.scheduling import messages as st

#: Seconds that a cancellation of many calls is waited for at most.
MANY_GRACE = 5.0


class Cancelling:
    """Asks the state to cancel.

    Args:
        loop: the pool's I/O thread.
        feed: feeds the state.
        sync: registers what is under way past the I/O thread.
    """

    def __init__(
        self, *, loop: IOLoop, feed: Callable[[st.Event | None], None], sync: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._feed = feed
        self._sync = sync
        self._replies: dict[st.Item, list[Callable[[bool], object]]] = {}

    # --- any thread

    def cancel(self, call: Call) -> bool:
        """Take the call out of the queue, or ask it to stop; True if it will not run.

        Waits for the I/O thread to decide.
        """
        if self._loop.forked:
            return False
        if threads.must_not_wait():
            self.ask_to_cancel(call)
            return False
        answer: list[bool] = []
        decided = Latch()

        def reply(done: bool) -> None:
            answer.append(done)
            decided.set()

        self._loop.post(partial(self._cancel, call, reply))
        decided.wait()
        return answer[0]

    def ask_to_cancel(self, call: Call) -> None:
        """Take a call out of the queue, or ask it to stop, without waiting (for event loops)."""

        def cancel() -> None:
            latest, pending = self.latest(call)
            if pending:
                self._feed(st.CancelRequested(latest))

        self._loop.post(cancel)

    def cancel_all(self, calls: Sequence[Call]) -> None:
        """Take calls out of the queue, or ask them to stop.

        Returns when that is done (soon), except on the I/O thread itself.
        """

        def find() -> Iterable[st.Item]:
            self._feed(None)
            return [_latest(call) for call in calls]

        if calls:
            self.cancel_found(find)

    def cancel_found(self, find: Callable[[], Iterable[st.Item]]) -> None:
        """Do the same for what ``find`` returns on the I/O thread."""
        done = Latch()

        def cancel() -> None:
            try:
                self._feed(
                    st.ManyCancelsRequested([item for item in find() if item.place is not None])
                )
            finally:
                done.set()

        self._loop.post(cancel)
        if not threads.must_not_wait() and not self._loop.forked:
            done.wait(MANY_GRACE)

    def kill(self, call: Call) -> None:
        """End the worker that runs this call; cancel the call if it waits."""
        self._loop.post(partial(self._kill, call))

    # --- the I/O thread

    def latest(self, call: Call) -> tuple[Call, bool]:
        """Return the call of a task's present try, and whether it has not finished.

        Order: what submitting threads have sent is registered first, else it would look finished.
        """
        call = _latest(call)
        if call.place is None:
            self._sync()
        return call, call.place is not None

    def _cancel(self, call: Call, reply: Callable[[bool], object]) -> None:
        try:
            call = _latest(call)
            pending = not self._loop.ended and self.latest(call)[1]
        except BaseException:
            reply(False)
            raise
        if not pending:
            reply(call.task.cancelled())
            return
        self._replies.setdefault(call, []).append(reply)
        self._feed(st.CancelRequested(call))

    def _kill(self, call: Call) -> None:
        call, pending = self.latest(call)
        if pending:
            call.set_kill_reason(Kill.CANCELLED)
            self._feed(st.KillRequested(call))

    def answered(self, action: st.CancelAnswered) -> None:
        """Answer the threads that wait for one cancellation."""
        for reply in self._replies.pop(action.item, ()):
            reply(action.done)

    def refuse_all(self) -> list[Callable[[], object]]:
        """Return what answers all waiting threads: nothing was cancelled, the pool has failed."""
        replies = [partial(reply, False) for waiting in self._replies.values() for reply in waiting]
        self._replies.clear()
        return list(replies)


def _latest(call: Call) -> Call:
    """Return the call of a task's present try.

    Race: a thread that asks for something may have read the one of the try before, which is over.
    """
    latest: Call | None = call.task._call
    return call if latest is None else latest
