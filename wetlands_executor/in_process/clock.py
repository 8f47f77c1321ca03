"""Timers of an executor that has no I/O thread: one heap, and a thread that starts with the first.

Any thread sets and stops; jobs run on the clock's thread, one after another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from wetlands_executor import threads
from wetlands_executor.futures.waiting import Latch
from wetlands_executor.pool.timers import Timer, Timers

LOGGER = logging.getLogger("concurrent.futures")

Job = Callable[[], object]


class Alarm:
    """A timer that was asked for. Its ``timer`` is the clock thread's."""

    __slots__ = ("timer",)
    timer: Timer | None

    def __init__(self) -> None:
        self.timer = None

    def set(self, timer: Timer) -> None:
        """Note the timer."""
        self.timer = timer


class Clock:
    """Runs jobs when they are due."""

    def __init__(self) -> None:
        # What the thread is to do; None ends it.
        self._commands: SimpleQueue[Job | None] = SimpleQueue()
        self._timers = Timers()
        # One entry until a thread was started: the thread that takes it starts it.
        self._unstarted = [None]
        self._thread: threading.Thread | None = None
        self._gone = Latch()

    def set(self, delay: float, job: Job) -> Alarm:
        """Let ``job`` run ``delay`` seconds from now."""
        alarm = Alarm()
        when = time.monotonic() + delay
        self._commands.put(partial(self._set, alarm, when, job))
        try:
            self._unstarted.pop()
        except IndexError:
            return alarm
        threads.start(self._run, (), "wetlands-clock", threads.CALLBACKS)
        return alarm

    def stop(self, alarm: Alarm) -> None:
        """Forget a timer, if it has not fired."""
        self._commands.put(partial(self._stop, alarm))

    @property
    def ident(self) -> int | None:
        """The identifier of its thread; None before that runs."""
        return None if self._thread is None else self._thread.ident

    def end(self) -> None:
        """Forget all, and wait for the end of the thread, unless this is it."""
        try:
            self._unstarted.pop()
        except IndexError:
            self._commands.put(None)
            if self._thread is not threading.current_thread():
                self._gone.wait()
                if self._thread is not None:
                    self._thread.join()

    def _set(self, alarm: Alarm, when: float, job: Job) -> None:
        alarm.set(self._timers.set(when - time.monotonic(), job))

    def _stop(self, alarm: Alarm) -> None:
        if alarm.timer is not None:
            self._timers.stop(alarm.timer)

    def _run(self) -> None:
        self._thread = threading.current_thread()
        while True:
            try:
                order = self._commands.get(timeout=self._timers.until_next())
            except Empty:
                pass
            else:
                if order is None:
                    break
                order()
            while (job := self._timers.take_due(time.monotonic())) is not None:
                try:
                    job()
                except Exception:
                    # `on_cancel` and `retry_on` are user code; the other timers go on.
                    LOGGER.exception("wetlands_executor: exception in %r", job)
                job = None
        self._timers.clear()
        self._gone.set()
