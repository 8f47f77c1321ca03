"""The I/O thread of a pool: jobs that other threads post, timers, descriptors.

Knows no task and no worker.

::

    any thread                                I/O thread
    post(job) / put(item) --> posted, wake -> runs of items: client.take, jobs: job()
                                              client.publish, if something has changed
                                              poller.wait -> callbacks; timers that are due

1. Only this thread calls the client. It never runs signal handlers, so no exception can end it
   half-way; a thread that posts only appends to ``posted`` (one step in C) and wakes it.
2. *Guarantee:* each callback, job and timer is guarded. What one of them raises is given to
   ``client.contain``; the rest goes on. The guards stand outside the loops, where they cost
   nothing.
3. The thread starts with the first entry. Starting it is one step for every re-entry: see
   ``_fate``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from wetlands_executor import threads
from wetlands_executor.futures.waiting import Latch
from wetlands_executor.pool import polling
from wetlands_executor.pool.timers import Timer, Timers
from wetlands_executor.seconds import LONGEST

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds after which conditions that a thread has locked are tried again.
NOTIFY_DELAY = 0.002
#: Tries that may fail before the others are put off.
NOTIFY_EARLY = 8

Job = Callable[[], object]


class Client(Protocol):
    """What the loop serves.

    Attributes:
        changed: ``publish`` has to be called before the thread sleeps.
        closed: nothing more is taken; the loop ends when ``gone`` says so.
    """

    changed: bool
    closed: bool

    def publish(self) -> None:
        """Publish what other threads may do.

        Order: ``posted`` is looked at once more after this.
        """

    def gone(self) -> bool:
        """Return True if nothing is left to wait for. Asked only when ``closed``."""
        ...

    def take(self, items: list[Any]) -> None:
        """Take items that were put, in order."""

    def reject(self, item: Any, error: BaseException | None) -> None:
        """Refuse an item that was put too late, or for which no thread can start (``error``)."""

    def contain(self, error: Exception, doing: Any) -> None:
        """Deal with what ``doing`` (a job, a callback, a timer) has raised."""


class Lifespan(Protocol):
    """What happens when the thread begins and ends."""

    def begin(self, poller: polling.Poller) -> None:
        """Get ready: the thread runs and has its poller."""

    def fail(self, error: BaseException) -> None:
        """Fail all that is under way: the thread itself has failed, and ends."""

    def end(self) -> None:
        """Deliver what is under way.

        Called last on the thread; calls ``stop_timers``, ``finish``, ``reject_late``, ``close``.
        """

    def end_unused(self) -> bool:
        """End what has nothing to end, again if that was interrupted."""
        ...


class Start:
    """An attempt to start the I/O thread: how it went, for the thread that has asked for it."""

    def __init__(self) -> None:
        self.done = Latch()
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Note that it cannot run, and let the thread that waits raise why."""
        self.error = error
        self.done.set()


class EndedPoller:
    """Takes the place of the poller once that is closed."""

    sleeping = False

    def wake(self) -> None:
        """Do nothing: no thread waits."""

    def fds(self) -> set[int]:
        """Return no descriptors."""
        return set()


class IOLoop:
    """One thread, which sleeps until something happens.

    Attributes:
        pid: the process that it belongs to.
        posted: what was posted and not taken: jobs, and items, which are anything that cannot be
            called.
        poller: the poller; None before the thread runs. Used on the thread only.
        ended: the thread has done its last work; what is posted now runs in its caller.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.posted: deque[Any] = deque()
        self.ended = False
        self._client: Client
        self._lifespan: Lifespan
        self.poller: polling.Poller = None  # type: ignore[assignment] # until the thread runs
        self._thread: threading.Thread | None = None
        # What has become of the I/O thread, under the key 0: the attempt that has started it, or
        # None if the pool has ended without one; empty before. Written once, with `setdefault`: one
        # step, so that of threads, signal handlers and finalizers that come at the same time one
        # decides.
        self._fate: dict[int, Start | None] = {}
        self._timers = Timers()
        self._notifications: deque[Callable[[], bool]] = deque()
        self._notifying = False

    def serve(self, client: Client, lifespan: Lifespan) -> None:
        """Set the client and the lifespan; once, before anything is posted."""
        self._client = client
        self._lifespan = lifespan

    # --- any thread

    @property
    def started(self) -> bool:
        """True once the thread runs, or is being started; or has ended without one."""
        return bool(self._fate)

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked: the pool belongs to the parent."""
        return self.pid != os.getpid()

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, None before it runs."""
        return self._thread

    @property
    def is_current(self) -> bool:
        """True on the thread."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    @property
    def unused(self) -> bool:
        """True if nothing was ever posted."""
        return not self._fate and not self.posted

    def post(self, job: Job) -> None:
        """Run ``job`` on the I/O thread; on this one if that has ended.

        In a forked child of the host, nothing happens.
        """
        if self.pid != os.getpid():
            return
        self.posted.append(job)
        poller: Any = self.poller
        if poller is None or self.ended:
            self.wake()
        elif poller.sleeping:
            poller.wake()

    def put(self, item: Any) -> None:
        """Queue an item (anything that cannot be called) for the client, and wake the thread."""
        poller: Any = self.poller
        if poller is None:
            # Order: before the item is queued, so that a failure (no descriptors, no threads) is
            # this caller's alone
            self.ensure_thread()
        self.posted.append(item)
        self.wake()

    def wake(self) -> None:
        """Let the thread look at what was posted; start it if need be."""
        poller: Any = self.poller
        if poller is None:
            self.ensure_thread()
            if self._fate.get(0, self) is None:
                self._lifespan.end_unused()  # its end may have been interrupted
        elif poller.sleeping:
            poller.wake()
        if self.ended:
            self.reject_late()

    def ensure_thread(self) -> None:
        """Start the I/O thread if that has not happened; raise why it cannot be started.

        Race: signal handlers and finalizers may come in at any step and call this as well. Each
        starts a thread, and the threads decide which of them serves.
        """
        if not self._fate:
            start = Start()
            threads.start(self._begin, (start,), "wetlands-io", threads.IO)
            start.done.wait()
            if start.error is not None:
                raise start.error

    def later(self, delay: float, job: Job) -> None:
        """Run ``job`` on the I/O thread after ``delay`` seconds."""
        self.post(partial(self.set_timer, delay, job))

    def notify_later(self, job: Callable[[], bool]) -> None:
        """Run ``job`` on the I/O thread a little later, together with others.

        It returns False if it was too early, and has asked for another try.

        A thread that waits for many tasks locks the conditions of all of them for some time, and
        all of them end meanwhile.
        """
        self._notifications.append(job)
        if not self._notifying:
            self._notifying = True
            self.later(NOTIFY_DELAY, self._notify)

    def _notify(self) -> None:
        # Order: before they are taken; what is added from here on may set another timer
        self._notifying = False
        early = 0
        for _ in range(len(self._notifications)):
            if not self._notifications.popleft()():
                early += 1
                if early == NOTIFY_EARLY:
                    # the others are locked by the same waiter, most likely; those that were tried
                    # stand behind them now
                    break

    def close_unused(self, used: bool) -> bool:
        """End without ever having started; False if that is not so.

        Args:
            used: something else was started already.
        """
        if not self._fate and not used and not self.posted:
            self._fate.setdefault(0, None)
        if self._fate.get(0, self) is not None:
            return False
        self.ended = True
        self.poller = EndedPoller()  # type: ignore[assignment]
        return True

    def reject_late(self) -> None:
        """Deal with what was posted too late. Any thread; each entry is taken by exactly one."""
        while self.posted:
            try:
                late = self.posted.popleft()
            except IndexError:
                return
            try:
                if callable(late):
                    late()
                else:
                    # Race: submit() had looked before the end had begun. The call fails here with
                    # what submit() would have raised.
                    self._client.reject(late, None)
            except Exception:
                # a bug of ours; the other waiting threads must get their answers all the same
                LOGGER.critical(
                    "wetlands_executor: %r failed at the end of the pool; this is a "
                    "bug, please report it",
                    late,
                    exc_info=True,
                )

    def after_fork_in_child(self) -> None:
        """Let go of everything: it belongs to the parent."""
        self.poller = EndedPoller()  # type: ignore[assignment]
        self._fate = {0: None}
        self.ended = True
        self.posted.clear()

    # --- the I/O thread

    def set_timer(self, delay: float, job: Job) -> Timer:
        """Run ``job`` after ``delay`` seconds."""
        return self._timers.set(delay, job)

    def stop_timer(self, timer: Timer) -> None:
        """Forget a timer, if it has not fired."""
        self._timers.stop(timer)

    @property
    def timer_count(self) -> int:
        """Number of timers that are set."""
        return len(self._timers)

    def stop_timers(self) -> None:
        """Forget all timers."""
        self._timers.clear()

    def finish(self) -> None:
        """Let what is posted from now on run in its caller.

        Called by ``Lifespan.end``, which calls ``reject_late`` then.
        """
        self.ended = True

    def close(self) -> None:
        """Close the poller."""
        poller = self.poller
        self.poller = EndedPoller()  # type: ignore[assignment] # no thread waits there any more
        poller.close()

    def _begin(self, start: Start) -> None:
        """Run on a new thread: be the I/O thread, if there is none."""
        if self._fate.setdefault(0, start) is not start:
            start.done.set()
            return
        try:
            poller = polling.new_poller()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that has asked
            self._fate.clear()
            self._refuse_posted(error)
            start.fail(error)
            return
        self._thread = threading.current_thread()
        self.poller = poller
        start.done.set()
        try:
            self._lifespan.begin(poller)
            self._serve(poller)
        except BaseException as error:  # a bug of ours: no thread may wait for ever because of it
            LOGGER.critical(
                "wetlands_executor: the pool's I/O thread failed; this is a bug, please report it",
                exc_info=True,
            )
            self._lifespan.fail(error)
        self._lifespan.end()

    def _refuse_posted(self, error: BaseException) -> None:
        """Refuse the items that came while the I/O thread was being started, which has failed."""
        for _ in range(len(self.posted)):
            entry = self.posted.popleft()
            if callable(entry):
                self.posted.append(entry)  # the next start takes it up
            else:
                self._client.reject(entry, error)

    def _serve(self, poller: polling.Poller) -> None:
        """Do what comes, until the client is closed."""
        # A short call goes through here once, with cold caches: what need not be done is not even
        # called.
        client, posted, wait = self._client, self.posted, poller.wait
        timers, monotonic = self._timers.heap, time.monotonic
        doing: Any = None
        batch: Iterator[Job] = iter(())
        while True:
            try:
                # the rest, after one that has failed: most events are reported again, but not those
                # of wakeups
                for doing in batch:
                    doing()
                doing = None
                while True:
                    if posted and not client.closed:
                        self._drain_posted()  # what comes after the end is refused by `reject_late`
                    if client.closed and client.gone():
                        return
                    if client.changed:
                        client.publish()
                    left = timers[0].when - monotonic() if timers else None
                    found = wait(
                        left if left is None or 0 < left < LONGEST else self._timers.until_next(),
                        posted,
                    )
                    if posted and not client.closed:
                        # Order: what a thread has posted comes before news that it may have caused
                        # after that. On a busy machine this thread may learn of both at once.
                        self._drain_posted()
                    batch = iter(found)
                    for doing in batch:
                        doing()
                    doing = None
                    if timers and timers[0].when <= monotonic():
                        self._fire_timers()
            except Exception as error:
                if doing is None:
                    raise
                client.contain(error, doing)

    def _drain_posted(self) -> None:
        posted, client = self.posted, self._client
        while posted:
            items: list[Any] = []
            job: Any = None
            while posted:
                job = posted.popleft()
                if callable(job):
                    break
                items.append(job)
                job = None
            if items:
                try:
                    client.take(items)
                except BaseException:
                    if job is not None:
                        posted.appendleft(job)  # it is run at the end: a thread may wait for it
                    raise
            if job is not None:
                try:
                    job()
                except Exception as error:  # noqa: BLE001
                    # one job: it costs its worker or its caller
                    client.contain(error, job)

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while (job := self._timers.take_due(now)) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001
                # a bug of ours, in one timer: the others fire all the same
                self._client.contain(error, job)
