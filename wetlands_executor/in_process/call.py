"""A call that runs in a thread of this process, and its runs, one for each try.

Two claims, each a list with one entry that one thread takes in one step, decide what becomes of a
call: ``ThreadCall.take`` (run it, or cancel it before) and ``Run.decide`` (the function's own end,
or that it was given up: time limit, ``kill``, the end of ``cancel_grace``).

*Interrupts.* A thread cannot be killed. It can be interrupted: KeyboardInterrupt is raised in it
between two steps of Python code. Guarantee: never outside the call that is meant. The right to
interrupt a run is a third claim; the run takes it back when the function has ended, and if another
thread has it, waits until the interrupt was sent, and removes it if it has not arrived.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from wetlands_executor import arguments, threads
from wetlands_executor.futures import settling
from wetlands_executor.futures.reports import reports_of
from wetlands_executor.futures.waiting import Latch
from wetlands_executor.in_process.handle import CURRENT, CallHandle
from wetlands_executor.worker import contexts, imports, injection
from wetlands_executor.worker.coroutines import COROUTINE, run_coroutine

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task
    from wetlands_executor.futures.options import CallOptions
    from wetlands_executor.in_process.clock import Alarm

#: Seconds that a thread waits for another one to deliver an event, which takes microseconds.
DELIVERY_TIMEOUT = 1.0
#: Seconds after which an interrupt of the own thread is sent again.
AGAIN = 0.02


class ThreadCall:
    """A call, from its submission until its Task is settled.

    Args:
        task: its Task.
        what: a callable, or the definition of one (``worker/imports.py``).
        args: positional arguments.
        kwargs: keyword arguments.
        options: what is asked of it; None asks nothing.
    """

    #: As of a call of a pool: waiting threads are notified of its end, and no process has it.
    unannounced = False
    process = None

    def __init__(
        self,
        task: Task[Any],
        what: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions | None,
    ) -> None:
        self.task = task
        self.what = what
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.run: Run | None = None
        #: It was asked to stop. Order: stored before ``run`` is read; ``begin`` stores ``run`` and
        #: reads this.
        self.asked = False
        self._claim = [None]

    @property
    def priority(self) -> int:
        """Higher runs first."""
        return 0 if self.options is None else self.options.priority

    @property
    def input(self) -> str:
        """The arguments as text, for messages."""
        return arguments.of_values(self.args, self.kwargs)

    def take(self) -> bool:
        """Return True to the one thread that is to run it, or to cancel it."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    @property
    def waits(self) -> bool:
        """True while no thread has taken it."""
        return bool(self._claim)

    def offer(self) -> None:
        """Let it be taken again: it has another try."""
        self.run = None
        self._claim.append(None)

    def drop(self) -> None:
        """Let go of the arguments: it was cancelled, and the queue may keep this object."""
        self.what, self.args, self.kwargs = None, (), {}

    def begin(self, run: Run) -> None:
        """Note that it runs."""
        self.run = run
        if self.asked:
            run.request_stop()

    def end(self, run: Run) -> None:
        """Let go of a run that is over."""
        if self.run is run:
            self.run = None

    def ask(self) -> Run | None:
        """Ask it to stop; return its run, None if it has none."""
        self.asked = True
        run = self.run
        if run is not None:
            run.request_stop()
        return run

    @property
    def worker_pid(self) -> int | None:
        """This process, if a thread has taken it."""
        return None if self.run is None else os.getpid()

    def is_running(self) -> bool:
        """Return True if a thread has taken it."""
        return self.run is not None

    def running_since(self) -> float | None:
        """Return when a thread took it, on the monotonic clock in seconds; None before."""
        run = self.run
        return None if run is None else run.began


class Run:
    """One run of a call, on the thread that makes this object.

    It is what its handle looks at, as that of a worker looks at its main loop.

    Args:
        call: the call.
        worker: the ``WorkerThread``; None if the thread is not the executor's.
    """

    def __init__(self, call: ThreadCall, worker: Any) -> None:
        self.call = call
        self.worker = worker
        self.began = time.monotonic()
        self.stop_requested = False
        self.acknowledged = False
        #: Why it was interrupted; None if it was not.
        self.interrupt_reason: str | None = None
        self.alarms: list[Alarm] = []
        self._thread = get_ident()
        # Held while STARTED and what is reported are delivered: so STARTED comes once, and first.
        # The thread that holds it runs no code of the user's.
        self._telling = threading.RLock()
        self._returned = False
        self._undecided = [None]
        self._unescalated = [None]
        self._right: list[None] = []
        self._closed = False
        self._sent = Latch()
        self._stops: list[Callable[[], object]] = []
        self._given: tuple[Any, Any, Any] = (call.what, call.args, call.kwargs)
        # Each is one store: of two threads that report at once, none loses the other's value.
        self._message: str | None = None
        self._current: Any = None
        self._maximum: Any = None

    @property
    def progress(self) -> Run:
        """What takes reports."""
        return self

    def executor(self) -> Any:
        """Return the executor that runs the call.

        Raises:
            RuntimeError: it does not exist any more.
        """
        pool: Any = self.call.task._pool
        found = pool.owner()
        if found is None:
            raise RuntimeError("the executor of this task does not exist any more")
        return found

    @property
    def tries(self) -> tuple[int, int]:
        """The number of its task, and that of this try."""
        task = self.call.task
        return int(task.id), task.attempt

    # --- its outcome

    @property
    def live(self) -> bool:
        """True until its outcome is decided."""
        return bool(self._undecided)

    def decide(self) -> bool:
        """Return True to the one thread that is to settle the Task with this run's outcome."""
        try:
            self._undecided.pop()
        except IndexError:
            return False
        # Order: what another thread is delivering goes before the end. The limit: an interrupt can
        # leave a lock locked for ever (see ``futures/standard.py``).
        if self._telling.acquire(timeout=DELIVERY_TIMEOUT):
            self._telling.release()
        return True

    def tell_started(self) -> None:
        """Deliver STARTED to the listeners that have not got it, while the function runs."""
        if self._telling.acquire(timeout=DELIVERY_TIMEOUT):
            try:
                if self.live:
                    settling.tell_started(self.call.task)
            finally:
                self._telling.release()

    def execute(self) -> tuple[Any, BaseException | None]:
        """Call the function; return what it returned, or what it raised."""
        handle = CallHandle(int(self.call.task.id), self)
        token = CURRENT.set(handle)
        try:
            self._right.append(None)
            try:
                return self._call(handle), None
            finally:
                self._close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome
            # Race: the interrupt may have arrived in `_close` itself.
            self._close()
            return None, error
        finally:
            CURRENT.reset(token)
            # A handle that is kept, or a traceback, keeps neither arguments nor the Task.
            handle.end()
            self._returned = True
            self._given = (None, (), {})
            self = handle = token = None  # type: ignore[assignment]

    def _call(self, handle: CallHandle) -> Any:
        try:
            function, args, kwargs = self._given
            if not callable(function):
                function = imports.resolve(function)
                self._given = (function, args, kwargs)
            where = injection.position_of_task(function)
            if where is not None:
                args, kwargs = injection.with_handle(where, args, kwargs, handle)
            options, task = self.call.options, self.call.task
            if options is not None and options.carried is not None:
                function = contexts.within(options.carried, function, task.name, task.id)
            value = function(*args, **kwargs)
            return run_coroutine(value) if type(value) is COROUTINE else value
        finally:
            self = function = args = kwargs = handle = task = None  # type: ignore[assignment]

    # --- stopping

    @property
    def wants_stop(self) -> bool:
        """True if the function is to stop; also after its task was given up."""
        return self.stop_requested and not self._returned

    def request_stop(self) -> None:
        """Ask the function to stop."""
        self.stop_requested = True
        while self._stops:
            try:
                stop = self._stops.pop()
            except IndexError:
                return  # another thread has taken it
            stop()

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once when the function is to stop; now if it is."""
        self._stops.append(callback)
        if self.stop_requested:
            self.request_stop()

    def begin_escalation(self) -> bool:
        """Return True if it is asked to stop with a time limit for the first time."""
        try:
            self._unescalated.pop()
        except IndexError:
            return False
        return True

    def interrupt(self, reason: str) -> None:
        """Raise KeyboardInterrupt in the function, once; nothing happens if it has ended."""
        try:
            self._right.pop()
        except IndexError:
            return
        self.interrupt_reason = reason
        if sys.version_info < (3, 13):
            # By a thread of its own, which has started none and is interrupted by nothing else.
            try:
                threads.start(self._send_interrupt, (), "wetlands-interrupt", threads.CALLBACKS)
            except RuntimeError:
                pass  # no thread can be started: the flag stays up until the interrupt arrives
            else:
                return
        try:
            _interrupt(self._thread)
        finally:
            self._sent.set()

    def _send_interrupt(self) -> None:
        try:
            remove_interrupt(self._thread)
        finally:
            self._sent.set()

    def _close(self) -> None:
        """From here on no interrupt arrives. May be repeated."""
        if self._closed:
            return
        try:
            self._right.pop()
        except IndexError:
            self._sent.wait()
            remove_interrupt()
        self._closed = True

    def runs_on(self, ident: int) -> bool:
        """Return True if the thread of this identifier runs it."""
        return self._thread == ident

    def stack(self) -> str:
        """Return the Python stack of the function, the latest call first, as faulthandler does.

        Not by ``sys._current_frames``: to walk the frames of a thread that runs meanwhile has
        crashed CPython 3.11. faulthandler reads them in one step.
        """
        import faulthandler
        import tempfile

        try:
            with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(0)
                sections = file.read().split("\n\n")
        except OSError:
            return ""  # no temporary folder; the message does without
        for section in sections:
            header, *lines = section.splitlines()
            found = re.search(r"hread 0x([0-9a-fA-F]+)", header)
            if found is not None and int(found[1], 16) == self._thread:
                ours = [place for place, line in enumerate(lines) if __file__ in line]
                return "\n".join(lines[: ours[0]] if ours else lines)
        return ""

    # --- what the function asks and reports (any of its threads)

    def task_name(self) -> str:
        """Return the name of the task."""
        return self.call.task.name

    def inputs(self, defaults: bool = False) -> dict[str, Any]:
        """Return the arguments of the call by name; those with defaults that were not given too."""
        return injection.inputs_of(*self._given, defaults)

    def cancel_requested(self, item: int) -> bool:  # noqa: ARG002
        """Return True if the function is to stop."""
        return self.stop_requested

    def acknowledge(self, serial: int) -> None:  # noqa: ARG002
        """Note that the function has called ``task.cancel()``."""
        self.acknowledged = True

    def update(
        self, item: int, live: Callable[[], object], message: Any, current: Any, maximum: Any
    ) -> None:
        """Report; what is None stays as it was. See ``worker/progress.py``."""
        del item
        if message is not None:
            self._message = str(message)
        if current is not None:
            self._current = current
        if maximum is not None:
            self._maximum = maximum
        task = self.call.task
        with self._telling:
            if live() is not None:
                reports_of(task).update(task, self._message, self._current, self._maximum)

    def output(self, item: int, live: Callable[[], object], values: dict[Any, Any]) -> None:
        """Send named outputs."""
        del item
        with self._telling:
            if live() is not None:
                reports_of(self.call.task).add_outputs(self.call.task, values)


class _Removed(BaseException):
    """Stands for an interrupt that is not wanted any more."""


def remove_interrupt(instead_of: int | None = None) -> None:
    """Remove an interrupt of the calling thread that has not arrived.

    Not by setting it to nothing. Before Python 3.13 a flag of the whole interpreter says that some
    thread is to be interrupted, and is only taken down by one that is: all threads would run more
    slowly from then on, and CPython 3.11 would hang in the next function that is traced.

    Args:
        instead_of: a thread that gets an interrupt at the same moment. It may block in C code for
            long, and the flag stay up; once taken down it goes up again when that thread comes
            back, which looks for its interrupt each time it takes the GIL.
    """
    import ctypes  # 5 ms, for programs that interrupt

    send = ctypes.pythonapi.PyThreadState_SetAsyncExc
    own = ctypes.c_ulong(get_ident()), ctypes.py_object(_Removed)
    theirs = ctypes.c_ulong(instead_of or 0), ctypes.py_object(KeyboardInterrupt)
    clock = time.perf_counter
    try:
        if instead_of is not None:
            send(*theirs)
        while True:
            # Order: no function of Python is called from here to the end, which may be traced.
            send(*own)
            # It arrives at once; but up to Python 3.11 a thread that this one has just started
            # answers to the same identifier, and may have got it.
            end = clock() + AGAIN
            while clock() < end:
                pass
    except _Removed:
        pass


def _interrupt(thread: int) -> None:
    """Raise KeyboardInterrupt in a thread."""
    import ctypes

    send = ctypes.pythonapi.PyThreadState_SetAsyncExc
    send(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
