"""The heart of a pool: what threads post, the I/O thread that feeds the state and performs its actions, timers.

Everything else of ``Pool`` is built on this, layer by layer, each in a file of its own: ``settling`` (outcomes to tasks), ``limits`` (time),
``arrivals`` (what comes from workers), ``actions`` (what the state asks for), ``pool`` (what other threads ask for, and the end).
See ``pool.py`` for the whole picture.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from wetlands_executor import threads
from wetlands_executor.errors import WorkerStartError
from wetlands_executor.events import Listener
from wetlands_executor.pool import ports, spawn
from wetlands_executor.pool.delivery import Decoders, Latch, SerialThread
from wetlands_executor.pool.ledger import Ledger
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.nursery import Nursery
from wetlands_executor.pool.process import Call, WorkerProcess
from wetlands_executor.pool.return_lane import Departures
from wetlands_executor.pool.timers import Timer, Timers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.phases import Status
from wetlands_executor.scheduling.state import CREDIT, MOST_CREDIT, PoolState
from wetlands_executor.serialize.calls import EncodedCall
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.serialize.settings import HostSettings
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.serialize.identity import Piece
    from wetlands_executor.task import Task

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds after which conditions that somebody has locked are tried again.
NOTIFY_DELAY = 0.002
#: Tries that may fail before the others are put off.
NOTIFY_EARLY = 8
#: Express lanes that are open at once. A thread that submits many short calls to many idle workers would wake each of them for one call, and
#: the I/O thread for each answer; from the third call on they are handed out together. More lanes make nothing faster: one thread submits at a time.
LANES = 2

#: Pools of this process, for its forks and for the interpreter's exit.
live_pools: weakref.WeakSet[PoolCore] = weakref.WeakSet()

Launch: TypeAlias = Callable[[int], tuple[Sequence[str], Mapping[str, str], str | None]]


class Start:
    """An attempt to start the I/O thread: how it went, for the thread that has asked for it."""

    def __init__(self) -> None:
        self.done = Latch()
        self.error: BaseException | None = None


class EndedPort:
    """Stands where the port was."""

    sleeping = False

    def wake(self) -> None:
        """Wake nobody."""

    def fds(self) -> set[int]:
        """Return no descriptors."""
        return set()


class PoolCore:
    """Workers of one environment. Thread-safe; see the module's text for which thread runs what.

    Args:
        launch: slot index -> (argv, environment, working folder) of its process; may take long and may raise.
        max_workers: number of slots.
        tasks_per_worker: see ``PoolState``.
        preload: modules that a worker imports before it is ready.
        initializer: pickled (function, args), the name of what travels as code in it, and whether it does as bytecode; or None.
        start_timeout: seconds from the process's start to its being ready.
        worker_timeout, task_timeout, cancel_grace: see ``CondaEnvExecutor``.
        what: how messages call the environment.
        peer: the Python of the workers; None is one like this.
        nursery: what forks the workers (``share_preload``); None if each is started by itself.
    """

    def __init__(
        self,
        launch: Launch,
        max_workers: int,
        *,
        tasks_per_worker: int | None,
        preload: Sequence[str],
        initializer: tuple[bytes, str | None, bool] | None,
        start_timeout: float | None,
        worker_timeout: float | None,
        task_timeout: float | None,
        cancel_grace: float | None,
        what: str,
        peer: RemoteInterpreter | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        self._launch = launch
        self.nursery = nursery
        self._preload = list(preload)
        self._initializer = initializer
        #: Shared arrays that the initializer refers to.
        self.keeps: list[Any] = []
        #: Large objects that it needs.
        self.needs: tuple[Piece, ...] = ()
        self._start_timeout = start_timeout
        self.worker_timeout = worker_timeout
        self.task_timeout = task_timeout
        self.cancel_grace = cancel_grace
        self.what = what
        self.peer = peer or RemoteInterpreter()
        #: Threads that pickle code and wait for a worker to say which Python it is. I/O thread.
        self._hello_waiters: list[Latch] = []
        self.max_workers = max_workers
        self.pid = os.getpid()
        several = spawn.can_take_back()
        self._state = PoolState(
            max_workers,
            credit=CREDIT if several else 1,
            most_credit=MOST_CREDIT if several else 1,
            tasks_per_worker=tasks_per_worker,
        )
        self._posted: deque[Call | Callable[[], object]] = deque()
        self._port: ports.Port | None = None
        self._thread: threading.Thread | None = None
        # What has become of the I/O thread, under the key 0: the attempt that has started it, or None if the pool has ended without
        # one; empty before. Written once, with `setdefault`: one step, so that of threads, signal handlers and finalizers that come
        # at the same time one decides.
        self._fate: dict[int, Start | None] = {}
        self.refusing = False
        self.broken: BaseException | None = None
        #: Why what has not started is cancelled, once the pool is ended that way.
        self.end_reason: str | None = None
        #: Why all workers were ended at once, for the tasks that ran; None if they were not.
        self.kill_reason: str | None = None
        #: Called when the pool has ended and everything was delivered; see `when_finished`.
        self._when_finished: deque[Callable[[], object]] = deque()
        # The state was told something since it was last published.
        self._changed = True
        #: Idle workers to which a submitting thread may write; replaced whole by the I/O thread.
        self.lanes: tuple[WorkerProcess, ...] = ()
        #: True if a posted call could be acted on at once; else nobody has to be woken for it. Written by the I/O thread.
        self.hungry = True
        self.processes: dict[int, WorkerProcess] = {}
        self._abandoned: set[int] = set()
        self._starts: dict[int, int] = {}
        # Calls with timers of their own.
        self._timed: dict[Call, None] = {}
        # Calls that are being recalled because their frame does not ask the worker to tell when they begin.
        self._untold: set[Call] = set()
        self._notifications: deque[Callable[[], bool]] = deque()
        self._notifying = False
        self._replies: dict[st.Item, list[Callable[[bool], object]]] = {}
        self._launch_waiters: list[Callable[[BaseException | None], object]] = []
        self._timers = Timers()
        self._run_limit: Timer | None = None
        self.ended = False
        self.workers_gone = Latch()
        self.finished = Latch()
        self.starter = SerialThread("wetlands-start", threads.START)
        self.output = SerialThread("wetlands-output", threads.OUTPUT)
        # What the program's stream or log handler, which the output thread is inside of, has waited for. That thread replaces it whole.
        self.awaited: Container[object] = frozenset()
        # Jobs of outcomes that wait on the output thread behind lines. The I/O thread takes out those that have been run.
        self._behind_lines: deque[list[Callable[[], object]]] = deque()
        self.decoders = Decoders("wetlands-decode", self._watch_decoders)
        self._decoders_watched = False
        self.callbacks = SerialThread("wetlands-callbacks", threads.CALLBACKS)
        self.ledger = Ledger(self.callbacks)
        self.departures = Departures()
        #: Listeners to all tasks; replaced whole.
        self.listeners: tuple[Listener, ...] = ()
        # Tasks that were not started yet, and those that wait for others.
        self.unstarted: weakref.WeakSet[Task[Any]] = weakref.WeakSet()
        self.dependents: set[Task[Any]] = set()
        live_pools.add(self)

    def make_call(self, encoded: EncodedCall, context: HostSettings, task: Any) -> Call:
        """Return an item for a call, with the options of its task."""
        call = Call(task._number, encoded, context, task)
        options = task._options
        if options is not None:
            call.priority = options.priority
            if options.retries and encoded.parcel is not None:
                encoded.parcel.kept = True
            call.tries, call.asks = options.retry.of_item(task._attempt)
            if options.timeout is not None:
                call.watched |= wire.WATCHED
            if options.name is not None:
                call.watched |= wire.NAMED
        if self.listeners or self.task_timeout is not None or self.worker_timeout is not None or (task._gate is not None and task._is_watched()):
            call.watched |= wire.WATCHED
        return call

    def put_foreign(self, job: Callable[[], object]) -> None:
        """Run ``job`` on the output thread. It enters a stream or log handlers of the program, which may wait for tasks."""
        self.output.put(partial(self._run_foreign, job))

    def _run_foreign(self, job: Callable[[], object]) -> None:
        ident = threading.get_ident()
        if ident in threads.writing:
            job()  # at the end of the pool, put by what this very thread is inside of
            return
        threads.writing[ident] = self._pass_outcomes
        try:
            job()
        finally:
            threads.writing.pop(ident, None)
            self.awaited = frozenset()

    def post(self, job: Callable[[], object]) -> None:
        """Run ``job`` on the I/O thread; on this one if that has ended. In a forked child of the host, nothing happens."""
        if self.pid != os.getpid():
            return
        self._posted.append(job)
        self._wake()

    def _wake(self) -> None:
        port = self._port
        if port is None:
            self._ensure_thread()
            if self._fate.get(0, self) is None:
                self._end_unused()  # its end may have been interrupted
        else:
            port.wake()
        if self.ended:
            self._sweep()

    def _ensure_thread(self) -> None:
        """Start the I/O thread if that has not happened; raise why it cannot be started.

        Race: signal handlers and finalizers may come in at any step and call this as well. Each starts a thread, and the threads decide
        which of them serves.
        """
        if not self._fate:
            start = Start()
            threads.start(self._begin, (start,), "wetlands-io", threads.IO)
            start.done.wait()
            if start.error is not None:
                raise start.error

    def _begin(self, start: Start) -> None:
        """Run on a new thread: be the I/O thread, if there is none."""
        if self._fate.setdefault(0, start) is not start:
            start.done.set()
            return
        try:
            port = ports.new_port()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that has asked
            start.error = error
            self._fate.clear()
            self._refuse_posted(error)
            start.done.set()
            return
        self._thread = threading.current_thread()
        self._port = port
        start.done.set()
        self._run(port)

    def _refuse_posted(self, error: BaseException) -> None:
        """Fail the calls that came while the I/O thread was being started, which has failed."""
        for _ in range(len(self._posted)):
            entry = self._posted.popleft()
            if isinstance(entry, Call):
                entry.task._settle(None, error)
            else:
                self._posted.append(entry)  # the next start takes it up

    def later(self, delay: float, job: Callable[[], object]) -> None:
        """Run ``job`` on the I/O thread after ``delay`` seconds."""
        self.post(partial(self._set_timer, delay, job))

    def notify_later(self, job: Callable[[], bool]) -> None:
        """Run ``job`` on the I/O thread a little later, together with others. It returns False if it was too early, and has asked for another try.

        Who waits for many tasks locks the conditions of all of them for some time, and all of them end meanwhile.
        """
        self._notifications.append(job)
        if not self._notifying:
            self._notifying = True
            self.later(NOTIFY_DELAY, self._notify)

    def _notify(self) -> None:
        self._notifying = False  # Order: before they are taken; what is added from here on may set another timer
        early = 0
        for _ in range(len(self._notifications)):
            if not self._notifications.popleft()():
                early += 1
                if early == NOTIFY_EARLY:
                    break  # the others are locked by the same waiter, most likely; those that were tried stand behind them now

    def _is_known(self, call: Call) -> bool:
        """Return True if the call has not finished. Order: what submitting threads have sent is absorbed first, else it would look finished."""
        if call.place is None:
            self.catch_up()
        return call.place is not None

    @staticmethod
    def _latest(call: Call) -> Call:
        """Return the call of a task's present try. Race: who asks for something may have read the one of the try before, which is over."""
        latest: Call | None = call.task._call
        return call if latest is None else latest

    def _kill_call(self, call: Call) -> None:
        call = self._latest(call)
        if self._is_known(call):
            call.task._verdict = True  # once more: if a new try has begun meanwhile, it began without one
            self._feed(st.KillRequested(call))

    def _check_launched(self) -> None:
        state = self._state
        if state.ready == state.max_workers or state.status is not Status.OPEN:
            self._answer_launch(None)

    def _answer_launch(self, error: BaseException | None) -> None:
        waiters, self._launch_waiters = self._launch_waiters, []
        for answer in waiters:
            answer(error)

    def _answer_hello(self) -> None:
        """Let the threads go that wait for a worker's first word: it was said, or will not be."""
        waiters, self._hello_waiters = self._hello_waiters, []
        for latch in waiters:
            latch.set()

    def reason_of_cancel(self, task: Task[Any]) -> str | None:
        """Return why a task is cancelled, if its program has not asked for that: its pool is being ended."""
        return None if task._cancel_asked else self.end_reason

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked: the pool belongs to the parent."""
        return self.pid != os.getpid()

    def _run(self, port: ports.Port) -> None:
        self.departures.wake = port.urgent
        port.on_departure = self.take_departures
        try:
            self._serve(port)
        except BaseException as error:  # a bug of ours: no thread may wait for ever because of it
            LOGGER.critical("wetlands_executor: the pool's I/O thread failed; this is a bug, please report it", exc_info=True)
            self._fail_everything(error)
        self._end(port)

    def _serve(self, port: ports.Port) -> None:
        """Do what comes, until the pool is closed.

        Guarantee: what fails while the news of one worker are handled costs that worker and the call that it runs; a timer, a job or an
        action that fails costs its worker or its caller (``_contain``). The guards stand outside the loops, where they cost nothing.
        """
        # A short call goes through here once, with cold caches: what need not be done is not even called.
        state, posted, wait, timers = self._state, self._posted, port.wait, self._timers.heap
        doing: Any = None
        batch: Iterator[Callable[[], object]] = iter(())
        while True:
            try:
                for doing in batch:  # the rest, after one that has failed: most news are told again, but not those of bells
                    doing()
                doing = None
                while True:
                    if posted and state.status is not Status.CLOSED:
                        self._drain_posted()  # what comes after the end is refused by `_sweep`
                    if state.status is Status.CLOSED and not self.processes and not self._starts:
                        return
                    if self._changed:
                        self._publish()
                    batch = iter(wait(self._timers.until_next() if timers else None, posted))
                    for doing in batch:
                        doing()
                    doing = None
                    if timers:
                        self._fire_timers()
            except Exception as error:
                if doing is None:
                    raise
                self._contain(error, doing)

    def _drain_posted(self) -> None:
        posted, submitted = self._posted, self.ledger.submitted
        job: Call | Callable[[], object] | None
        while posted:
            calls: list[Call] = []
            job = None
            try:
                while posted:
                    job = posted.popleft()
                    if not isinstance(job, Call):
                        break
                    calls.append(job)
                    if job.task._final is None:
                        submitted(job.task)
                    job = None
                if calls:
                    self._feed(st.Submitted(calls))
                if job is not None and not isinstance(job, Call):
                    job()
            except Exception as error:
                for call in calls:
                    if call.place is None:
                        call.task._settle(None, error)  # the state has not heard of it, and no other list has it
                if job is None:
                    raise
                self._contain(error, job)

    def _contain(self, error: Exception, doing: Any) -> None:
        """Let what has failed cost the worker that it was done for, and its running call; or nothing but what was to be done.

        Args:
            error: what was raised.
            doing: what was being done: a callback, a timer, a job, an action.
        """
        process = _concerned(doing)
        if process is not None and self.processes.get(process.worker) is process:
            self._fault(process, error)
        else:
            self._log_bug(error, doing)

    def _log_bug(self, error: BaseException, what: object) -> None:
        """Log a failure of this package. On the output thread: handlers are user code, and take locks."""
        self.put_foreign(partial(LOGGER.critical, "wetlands_executor: %r failed; this is a bug, please report it", what, exc_info=error))

    def _absorbed(self, process: WorkerProcess) -> list[st.Event]:
        """Take what submitting threads have written to a worker into the books; return the events for the state."""
        calls = process.absorb()
        for call in calls:
            self.ledger.submitted(call.task)
        return [st.SentDirectly(process.worker, call) for call in calls]

    def _absorb(self, process: WorkerProcess) -> None:
        """Tell the state what submitting threads have written to a worker."""
        if process.sent_directly:
            self._feed(None)

    def _publish(self) -> None:
        """Tell the submitting threads what they may do. Order: after this, `_posted` is looked at once more before the thread sleeps."""
        self._changed = False
        state = self._state
        if state.waiting_count or state.status is not Status.OPEN or state.credit == 1 or state.tasks_per_worker is not None:
            # Where an item cannot be taken back, or where they are counted, a second one at the same moment would do harm.
            self.lanes = ()
        else:
            lanes = tuple(self.processes[slot.worker] for slot in itertools.islice(reversed(state.idle), LANES) if slot.worker in self.processes)
            for process in lanes:
                process.open_lane()
            self.lanes = lanes
        self.hungry = bool(self.lanes) or state.can_act

    def _feed(self, event: st.Event | None, before: Sequence[st.Event] = ()) -> None:
        """Let the state decide, and do what it says. Order: what submitting threads have sent comes before any other news.

        Args:
            event: what happened; None to absorb what was sent only.
            before: events that were absorbed already and come first.
        """
        self._changed = True
        queue: list[st.Event] = [*before]
        for process in self.processes.values():
            if process.sent_directly:
                queue.extend(self._absorbed(process))
        if event is not None:
            queue.append(event)
        handle, perform = self._state.handle, self._PERFORM
        events = iter(queue)  # answers are appended while it runs
        actions: Iterator[st.Action] = iter(())
        action: st.Action | None = None
        while True:
            try:
                for action in actions:  # the rest, after one that has failed
                    answer = perform[type(action)](self, action)
                    if answer is not None:
                        queue.append(answer)
                for this in events:
                    action = None
                    actions = iter(handle(this))
                    for action in actions:
                        answer = perform[type(action)](self, action)
                        if answer is not None:
                            queue.append(answer)
                return
            except Exception as error:
                if action is None:
                    raise  # the state itself: what it says can be relied on no more
                answer = self._recover(action, error)
                if answer is not None:
                    queue.append(answer)

    def _set_timer(self, delay: float, job: Callable[[], object]) -> Timer:
        return self._timers.set(delay, job)

    def _set_call_timer(self, call: Call, delay: float, job: Callable[[], object]) -> None:
        """Run ``job`` after ``delay`` seconds, unless the call has ended by then: a limit keeps nothing alive."""
        if call.timers is None:
            call.timers = []
            self._timed[call] = None
        call.timers.append(self._timers.set(delay, job))

    def _set_process_timer(self, process: WorkerProcess, delay: float, job: Callable[[], object]) -> None:
        """Run ``job`` after ``delay`` seconds, unless the process has ended by then."""
        process.timers = [timer for timer in process.timers if timer.job is not None]
        process.timers.append(self._timers.set(delay, job))

    def _stop_process_timers(self, process: WorkerProcess) -> None:
        timers, process.timers = process.timers, []
        for timer in timers:
            self._timers.stop(timer)

    def _stop_call_timers(self, call: Call) -> None:
        """The call has ended, or is with no worker any more."""
        timers, call.timers = call.timers, None
        self._timed.pop(call, None)
        for timer in timers or ():
            self._timers.stop(timer)

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while (job := self._timers.take_due(now)) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001 - a bug of ours, in one timer: the others fire all the same
                self._contain(error, job)

    def _start_error(self, reason: str, tail: str, cause: BaseException | None = None) -> BaseException:
        said = f"; its stderr:\n{tail}" if tail else ""
        error = WorkerStartError(f"A worker of {self.what} cannot be started: {reason}{said}")
        error.__cause__ = cause
        return error

    # --- supplied by the layers above

    _PERFORM: ClassVar[dict[type, Callable[[Any, Any], st.Event | None]]] = {}

    def _end(self, port: ports.Port) -> None:
        raise NotImplementedError

    def _sweep(self) -> None:
        raise NotImplementedError

    def _end_unused(self) -> bool:
        raise NotImplementedError

    def _fail_everything(self, error: BaseException) -> None:
        raise NotImplementedError

    def _on_results(self, process: WorkerProcess) -> None:
        raise NotImplementedError

    def _fault(self, process: WorkerProcess, error: Exception) -> None:
        raise NotImplementedError

    def _recover(self, action: st.Action, error: Exception) -> st.Event | None:
        raise NotImplementedError

    def _resume(self, stream: OutputStream) -> None:
        raise NotImplementedError

    def _refusal(self) -> RuntimeError:
        raise NotImplementedError

    def _resume_all(self) -> None:
        raise NotImplementedError

    def _pass_outcomes(self, what: Any) -> None:
        raise NotImplementedError

    def _watch_decoders(self) -> None:
        raise NotImplementedError

    def _on_bell(self, process: WorkerProcess) -> None:
        raise NotImplementedError

    def take_answer(self, process: WorkerProcess) -> None:
        """Take an answer that lies on the board of a worker."""
        raise NotImplementedError

    def catch_up(self) -> None:
        """Learn of all that was sent directly, and of its answers."""
        raise NotImplementedError

    def take_departures(self) -> None:
        """Finish what submitters have left on the return lanes."""
        raise NotImplementedError


def _concerned(doing: Any) -> WorkerProcess | None:
    """Return the worker for which something is done: the one that a bound method or a ``partial`` has, or that has the call that it has."""
    while isinstance(doing, partial):
        for value in doing.args:
            if isinstance(value, Call):
                value = value.process
            if isinstance(value, WorkerProcess):
                return value
            if isinstance(value, partial):
                found = _concerned(value)
                if found is not None:
                    return found
        doing = doing.func
    owner = getattr(doing, "__self__", None)
    return owner if isinstance(owner, WorkerProcess) else None
