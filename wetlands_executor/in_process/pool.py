"""The pool of the Tasks of one ``InProcessExecutor``: its queue, its threads, its time limits.

A call goes from ``submit`` into the queue, or, without threads, is run at once by the calling
thread; ``_serve`` runs it and ``_conclude`` gives its Task the outcome. Time limits, ``kill`` and
the end of ``cancel_grace`` give up a run that goes on: its Task is settled, the function is asked
to stop and interrupted, and its thread is left behind and replaced.

Any thread enters.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from wetlands_executor import threads
from wetlands_executor.errors import OF_STACKS, TaskTimeoutError, because, describe
from wetlands_executor.futures import settling
from wetlands_executor.futures.events import with_listener, without_callback
from wetlands_executor.futures.reports import begin_again
from wetlands_executor.futures.standard import NOTIFY_DELAY
from wetlands_executor.in_process import call as call_module
from wetlands_executor.in_process.call import Run, ThreadCall
from wetlands_executor.in_process.clock import Clock
from wetlands_executor.in_process.dependants import Dependants
from wetlands_executor.in_process.worker import CallQueue, WorkerThread, WorkerThreads
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.delivery import SerialThread
from wetlands_executor.pool.lifecycle import Held
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.scheduling.retry import Failure, Next

if TYPE_CHECKING:
    from wetlands_executor.futures.events import Listener
    from wetlands_executor.futures.future import Task

LOGGER = logging.getLogger("concurrent.futures")



class ThreadPool:
    """Runs calls in threads of this process. See ``futures/protocols.py`` for what a Task asks.

    Args:
        max_workers: number of threads; 0: the calling thread runs each call.
        task_timeout: seconds that one run may take; None is no limit.
        cancel_grace: seconds between the request to stop, the interrupt, and giving up.
        initializer: called with ``initargs`` in each thread first, or once if there are none.
        initargs: its arguments.
        owner: returns the executor, None if that does not exist any more.
    """

    #: As of a pool; see ``futures/protocols.py``.
    started, ended = True, False

    def __init__(
        self,
        max_workers: int,
        *,
        task_timeout: float | None,
        cancel_grace: float | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        owner: Callable[[], Any] | None = None,
    ) -> None:
        self.max_workers = max_workers
        #: Returns the executor; None if that does not exist any more.
        self.owner = owner or type(None)
        self.task_timeout = task_timeout
        self.cancel_grace = cancel_grace
        self.listeners: tuple[Listener, ...] = ()
        self.callbacks = SerialThread("wetlands-callbacks", threads.CALLBACKS)
        self.stats = TaskStats(self.callbacks)
        self.clock = Clock()
        self.held = Held()
        self.queue = CallQueue()
        self.workers = WorkerThreads(
            max_workers,
            self.queue,
            prepare=self._prepare,
            serve=self._serve,
            may_end=self._may_end,
            ended=self._note_end,
        )
        #: Runs under way, those of calling threads too.
        self.runs: dict[Run, None] = {}
        self.closing = Closing()
        self._pid = os.getpid()
        self._initializer, self._initargs = initializer, initargs
        self._initialized = initializer is None
        # Guards the call of the initializer by calling threads.
        self._initializing = threading.Lock()
        self._dependants = Dependants(self.workers)
        self._when_empty: Callable[[], object] | None = None

    # --- calls in

    def submit(self, call: ThreadCall) -> None:
        """Take a call of a Task that was counted."""
        settling.hand_over(call.task, call)
        if not self.max_workers:
            self._run_here(call)
            return
        self.queue.put(call)
        try:
            self.workers.call_in()
        except RuntimeError as error:
            if call.take():
                settling.settle(call.task, None, error)
        self._fail_if_broken()  # Race: the initializer may have failed meanwhile

    def _run_here(self, call: ThreadCall) -> None:
        """Run a call, and its further tries, on the calling thread."""
        jobs = self._dependants.begin_call()
        try:
            if not self._prepare() and call.take():
                settling.settle(call.task, None, self.closing.broken)
            while call.waits:
                run = self._take(call, None)
                if run is None:
                    break
                value, error = run.execute()
                if run.decide():
                    self._conclude(run, value, error)
                self._forget(run)
                if type(error) is KeyboardInterrupt and run.interrupt_reason is None:
                    raise error  # Ctrl-C is the program's as well as the task's
        finally:
            call = run = value = error = None  # type: ignore[assignment] # as in `_serve`
            self._dependants.end_call(jobs)
            self.workers.look()
            self._note_end()

    def _serve(self, call: ThreadCall, worker: WorkerThread) -> bool:
        """Run a call on a thread; False if the thread was left behind with it."""
        run = self._take(call, worker)
        if run is None:
            return True
        worker.begin(run)
        try:
            value, error = run.execute()
            if not run.decide():
                return False
            worker.end()
            self._conclude(run, value, error)
            self._forget(run)
            return True
        finally:
            # Not kept by the traceback of a failure, which its Task keeps.
            call = run = value = error = None  # type: ignore[assignment]

    def _take(self, call: ThreadCall, worker: WorkerThread | None) -> Run | None:
        if not call.take():
            return None
        run = Run(call, worker)
        self.runs[run] = None
        call.begin(run)
        run.tell_started()
        limit = self.task_timeout
        if call.options is not None and call.options.timeout is not None:
            limit = call.options.timeout
        if limit is not None:
            what = f"The task {call.task.name!r} ran longer than its limit of {limit:g} s"
            run.alarms.append(self.clock.set(limit, partial(self.end_with, run, what)))
        return run

    def _prepare(self) -> bool:
        """Call the initializer, if this thread has to; False if the pool is broken."""
        closing = self.closing
        if self._initializer is None or (self._initialized and not self.max_workers):
            return closing.broken is None
        with self._initializing:
            if closing.broken is None and not (self._initialized and not self.max_workers):
                try:
                    self._initializer(*self._initargs)
                    self._initialized = True
                except BaseException as error:  # noqa: BLE001 - it breaks the pool, as the stdlib's
                    what = f"The initializer raised {describe(error)}; the pool runs nothing more"
                    closing.break_with(because(BrokenProcessPool(what), error))
        return not self._fail_if_broken()

    def _fail_if_broken(self) -> bool:
        """Fail what waits if the initializer has failed; return whether it has."""
        error = self.closing.broken
        while error is not None and (call := self.queue.pop()) is not None:
            if call.take():
                settling.settle(call.task, None, error)
        return error is not None

    # --- outcomes

    def _conclude(self, run: Run, value: Any, error: BaseException | None) -> None:
        """Settle a Task with what its function did, or let it have another try."""
        self._stop_alarms(run)
        task = run.call.task
        settling.note_run(task, self._pid, time.monotonic() - run.began)
        interrupted = run.interrupt_reason is not None and isinstance(error, KeyboardInterrupt)
        if run.acknowledged:
            settling.settle_cancelled(task)
        elif interrupted:
            settling.settle_cancelled(task, run.interrupt_reason)
        elif error is None:
            settling.settle(task, value, None)
        elif not self._runs_again(run, error, Failure.RAISED):
            if (trace := error.__traceback__) is not None:
                # The lines of ``call.py`` say nothing about the failure.
                while trace.tb_next is not None and trace.tb_frame.f_globals is _CALL:
                    trace = trace.tb_next
                lines = traceback.format_exception(type(error), error, trace)
                settling.note_traceback(task, "".join(lines))
            settling.settle(task, None, error)

    def _runs_again(self, run: Run, error: BaseException, failure: Failure) -> bool:
        """Give a failed call another try if it is to have one, or cancel it; False: it fails."""
        call = run.call
        task, options = call.task, call.options
        if options is None:
            return False
        step = options.step_after(error, failure, task, lambda: self.closing.over)
        if step is Next.CANCEL:
            settling.settle_cancelled(task)
        elif step is Next.RUN_AGAIN:
            begin_again(task, None)
            self.stats.begun_again()
            call.offer()
            if self.max_workers:
                self.queue.put(call)
                self.workers.call_in()
        return step is not Next.FAIL

    def end_with(self, run: Run, what: str) -> None:
        """Let a run fail, because its time is over."""
        if not run.decide():
            return
        self._stop_alarms(run)
        stacks = run.stack()
        error = TaskTimeoutError(f"{what}{OF_STACKS}{stacks}" if stacks else what, stacks)
        task = run.call.task
        settling.note_run(task, self._pid, time.monotonic() - run.began)
        if not self._runs_again(run, error, Failure.CONDEMNED):
            settling.settle(task, None, error)
        self._leave_behind(run, what)

    def give_up(self, run: Run, reason: str) -> None:
        """Cancel the task of a run by all means that there are."""
        if run.decide():
            self._stop_alarms(run)
            settling.note_run(run.call.task, self._pid, time.monotonic() - run.began)
            settling.settle_cancelled(run.call.task, reason)
            self._leave_behind(run, reason)

    def _leave_behind(self, run: Run, reason: str) -> None:
        """Ask a run whose Task is settled to stop, interrupt it, and replace its thread."""
        self._forget(run)
        if run.worker is not None:
            self.workers.replace(run.worker)
        _attempt(run.request_stop)
        run.interrupt(reason)
        self.workers.look()
        self._note_end()

    def _forget(self, run: Run) -> None:
        self.runs.pop(run, None)
        run.call.end(run)

    def _stop_alarms(self, run: Run) -> None:
        for alarm in run.alarms:
            self.clock.stop(alarm)

    # --- cancelling (futures/protocols.py)

    def cancel(self, call: ThreadCall) -> bool:
        """Take the call out of the queue, or ask it to stop; return True if it will not run."""
        if call.take():
            settling.settle_cancelled(call.task)
            call.drop()
            return True
        self.ask_to_cancel(call)
        return False

    def ask_to_cancel(self, call: ThreadCall) -> None:
        """Do the same; nothing here waits."""
        if call.take():
            settling.settle_cancelled(call.task)
            call.drop()
            return
        run = _attempt(call.ask) or call.run
        grace = self.cancel_grace
        if call.options is not None and call.options.cancel_grace is not None:
            grace = call.options.cancel_grace
        if run is not None and grace is not None and run.begin_escalation():
            run.alarms.append(self.clock.set(grace, partial(self._escalate, run, grace)))

    def cancel_all(self, calls: Iterable[ThreadCall]) -> None:
        """Do the same for several calls."""
        for call in calls:
            self.ask_to_cancel(call)

    def kill(self, call: ThreadCall) -> None:
        """Cancel the call; if it runs, go on without it."""
        run = call.run
        if call.take():
            settling.settle_cancelled(call.task)
            call.drop()
        elif run is not None:
            self.give_up(run, "it was given up by Task.kill(): its thread was left behind")

    def _escalate(self, run: Run, grace: float) -> None:
        if run.live:
            run.alarms.append(self.clock.set(grace, partial(self._end_escalation, run)))
            run.interrupt(
                f"it did not stop within {grace:g} s of the request (cancel_grace): "
                f"it was interrupted"
            )

    def _end_escalation(self, run: Run) -> None:
        self.give_up(
            run,
            "it did not stop at the request nor at the interrupt (cancel_grace): "
            "its thread was left behind",
        )

    # --- jobs (futures/protocols.py)

    def post(self, job: Callable[[], object]) -> None:
        """Run a job here."""
        job()

    def notify_later(self, job: Callable[[], bool]) -> None:
        """Run a job a little later."""
        self.clock.set(NOTIFY_DELAY, job)

    def run_user_code(self, job: Callable[[], object]) -> None:
        """Do what has to be done for a dependant."""
        self._dependants.run(job)

    def ensure_tracked(self, call: Any) -> None:
        """Do nothing: every waiting thread is notified of the end."""

    def take_abandoned_waits(self) -> None:
        """Do nothing: no thread takes outcomes itself."""

    def watch(self, call: ThreadCall) -> None:
        """Deliver STARTED to a new listener if the call runs; else that comes when it begins."""
        run = call.run
        if run is not None:
            run.tell_started()

    @property
    def unstarted(self) -> WeakSet[Task[Any]]:
        """Tasks that were not started."""
        return self.held.unstarted

    def reserve(self, task: Task[Any]) -> None:
        """Keep the threads for a task whose dependencies are not ready."""
        self.held.dependents.add(task)

    def release(self, task: Task[Any]) -> None:
        """Note that a reserved task was submitted, or never will be."""
        self.held.dependents.discard(task)
        self.workers.look()
        self._note_end()

    # --- settings of its executor

    def add_listener(self, listener: Listener) -> None:
        """Deliver the events of all tasks to a listener from now on."""
        self.listeners = with_listener(self.listeners, listener)

    def remove_listener(self, callback: object) -> None:
        """Drop the listeners that call ``callback``, and the events on their way to them."""
        self.listeners = without_callback(self.listeners, callback)

    def limit_tasks(self, seconds: float | None) -> None:
        """Limit tasks that start from now on."""
        self.task_timeout = seconds

    # --- what has become of it

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked: the threads are the parent's."""
        return self._pid != os.getpid()

    @property
    def refusing(self) -> bool:
        """True if no new call is accepted."""
        return self.closing.refusing or self.forked

    @property
    def empty(self) -> bool:
        """True if nothing runs or waits."""
        return not (self.queue or self.held.dependents or self.workers.alive or self.runs)

    def when_empty(self, job: Callable[[], object]) -> None:
        """Call ``job`` when the pool is closed and empty, maybe several times."""
        self._when_empty = job
        self._note_end()

    def _may_end(self) -> bool:
        return self.closing.refusing and not self.queue and not self.held.dependents

    def _note_end(self) -> None:
        if self.closing.refusing and self._when_empty is not None and self.empty:
            self._when_empty()

    def end_threads(self) -> None:
        """End the threads that serve the others. Waits for callbacks, unless this is one."""
        self._dependants.end()
        self.callbacks.end()
        self.clock.end()


def _attempt(job: Callable[[], Any]) -> Any:
    """Run what may call ``on_cancel`` callbacks, which are user code."""
    try:
        return job()
    except Exception:
        LOGGER.exception("wetlands_executor: exception in a callback of on_cancel")
        return None


#: The globals of the module whose frames are left out of tracebacks.
_CALL = vars(call_module)
