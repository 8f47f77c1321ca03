r"""The shell around ``PoolState``: the I/O thread, its processes, timers, and the express lane of the submitting threads.

::

    any thread                          I/O thread                                   worker
    submit ---- idle? write frame ---------------------------------------------> inbox
       \--- post(call), wake ------> feed(Submitted) -> Dispatch: frames ------> inbox, bulk
    result() sleeps on a lock <----- settle <- results <--------------------------- one write per result
                                     feed(ItemsFinished) -> the next Dispatch
                                     exit descriptor -> drain, reap -> feed(WorkerExited)

1. Only the I/O thread calls ``PoolState.handle``. That thread never runs signal handlers, so no exception can end it half-way; the main
   thread, which a Ctrl-C can interrupt between any two steps, only appends to ``_posted`` (one step in C) and wakes it.
2. *Express lane.* Handing over to a second thread costs as much as the rest of a short call. So the I/O thread publishes the idle workers
   in ``lanes``, and a submitting thread may write one frame to one of them itself. Write and record are one step in C
   (``WorkerProcess.send_directly``); the state learns of it as ``SentDirectly`` before it hears anything else of that worker.
3. *Settle, then feed.* A task has its outcome before the state hears that the item is finished, so that a closed pool has no open task.
4. User code runs on none of this: results that name a class or function are unpickled by ``Decoders``, lines are written by the output
   thread, callbacks run on the callback thread (``delivery.py``).
5. A worker is declared dead in one place, ``_on_exit``. Everything else kills and waits for that.
"""

from __future__ import annotations

import atexit
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor import threads
from wetlands_executor.errors import TaskTimeoutError, describe
from wetlands_executor.pool import ports, spawn
from wetlands_executor.pool.actions import Actions
from wetlands_executor.pool.core import EndedPort, live_pools
from wetlands_executor.pool.delivery import Latch
from wetlands_executor.pool.process import Call
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.phases import Status
from wetlands_executor.serialize.calls import Definition, EncodedCall
from wetlands_executor.serialize.settings import current_settings
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.pool.bulk import Bulk, Series
    from wetlands_executor.serialize.identity import Record
    from wetlands_executor.task import Task

LOGGER = logging.getLogger("concurrent.futures")



#: How often a submitting thread that is inside a lane is waited for when the pool has failed.
LANE_TRIES = 200
#: Seconds that a running call has, when its pool is to end soon: to see the request, then to end at the interrupt.
INTERRUPT_AFTER = 5.0
#: Seconds that a cancellation of many calls is waited for at most.
PATIENCE = 5.0
#: Seconds after which a call that could not be recalled is looked at again.
WATCH_AGAIN = 0.005


class Pool(Actions):
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

    def submit(self, encoded: EncodedCall, task: Any) -> Call:
        """Take a call; its task will be settled. The caller has checked that the pool still accepts."""
        call = self.make_call(encoded, current_settings(), task)
        task._call = call
        if not self._posted and not call.priority and (encoded.parcel is None or self._note_block()):
            for process in self.lanes:
                if not process.sent_directly and process.knows(call) and process.send_directly(call):
                    return call
        if self._port is None:
            self._ensure_thread()  # Order: before the call is queued, so that a failure (no descriptors, no threads) is this caller's alone
        self._posted.append(call)
        if self.hungry or call.priority:
            self._wake()
        elif self.ended:
            self._sweep()
        return call

    @property
    def sees_calls_alone(self) -> bool:
        """True if something is asked of each single call: then those of a ``map`` are submitted one by one, as tasks."""
        state = self._state
        limits = (self.task_timeout, self.worker_timeout, self.cancel_grace, state.tasks_per_worker)
        return bool(self.listeners) or any(limit is not None for limit in limits)

    def submit_bulk(self, bulk: Bulk) -> None:
        """Take the calls of a ``map``. The caller has checked that the pool still accepts."""
        if self._port is None:
            self._ensure_thread()
        self._posted.append(bulk)
        self._wake()

    def cancel_series(self, series: Series) -> None:
        """Take the rest of a ``map`` out of the queue and ask what runs to stop. Returns when that is done (soon), except on the I/O thread."""
        done = Latch()

        def cancel() -> None:
            try:
                series.closed = True
                self._feed(st.ManyCancelsRequested([call for call in (series.bulk, *series.parts) if call.place is not None]))
            finally:
                done.set()

        self.post(cancel)
        if not self.on_own_thread and not self.forked:
            done.wait(PATIENCE)

    def ensure_tracked(self, call: Call) -> None:
        """Let the I/O thread settle a call that was sent quietly: a thread wants to be told of its end. Any thread."""
        process = call.process
        lane = process.return_lane if process is not None else None
        if lane is not None and process is not None:
            lane.expected = False
            self.post(partial(self.take_answer, process))
        call.quiet = False  # Order: last, so that who is interrupted before is followed by the next who looks

    def watch(self, call: Call) -> None:
        """Let the worker tell when this call begins, although it was not asked to when the call was submitted. Any thread."""
        self.post(partial(self._watch, call))

    def _watch(self, call: Call) -> None:
        call = self._latest(call)
        call.watched |= wire.WATCHED
        known = self._is_known(call)
        process = call.process
        if process is None or not known:
            return
        if self._state.credit == 1 or process.is_running(call):
            self._begin_untold(call)  # what such a worker has is what it runs
            return
        self._untold.add(call)
        self._feed(st.ReclaimRequested(call))
        if call in self._untold:
            # Race: a submitting thread was inside the lane, and nothing was taken back.
            self._untold.discard(call)
            self._set_timer(WATCH_AGAIN, partial(self._watch, call))

    def kill(self, call: Call) -> None:
        """End the worker that runs this call; cancel the call if it waits. Any thread."""
        self.post(partial(self._kill_call, call))

    def cancel(self, call: Call) -> bool:
        """Take the call out of the queue, or ask it to stop; True if it will not run. Waits for the I/O thread to decide."""
        if self.forked:
            return False
        if self.on_own_thread:
            self.ask_to_cancel(call)
            return False
        answer: list[bool] = []
        lock = threading.Lock()
        lock.acquire()

        def reply(done: bool) -> None:
            answer.append(done)
            lock.release()

        self.post(partial(self._cancel, call, reply))
        lock.acquire()
        return answer[0]

    def _cancel(self, call: Call, reply: Callable[[bool], object]) -> None:
        try:
            call = self._latest(call)
            known = not self.ended and self._is_known(call)
        except BaseException:
            reply(False)
            raise
        if not known:
            reply(call.task.cancelled())
            return
        self._replies.setdefault(call, []).append(reply)
        self._feed(st.CancelRequested(call))

    def cancel_all(self, calls: Sequence[Call]) -> None:
        """Take calls out of the queue, or ask them to stop. Returns when that is done (soon), except on the I/O thread itself."""
        done = Latch()

        def cancel() -> None:
            try:
                self._feed(None)
                latest = [self._latest(call) for call in calls]
                self._feed(st.ManyCancelsRequested([call for call in latest if call.place is not None]))
            finally:
                done.set()

        if calls:
            self.post(cancel)
            if not self.on_own_thread and not self.forked:
                done.wait(PATIENCE)

    def ask_to_cancel(self, call: Call) -> None:
        """Take a call out of the queue, or ask it to stop, without waiting (for event loops)."""

        def cancel() -> None:
            latest = self._latest(call)
            if self._is_known(latest):
                self._feed(st.CancelRequested(latest))

        self.post(cancel)

    def forget(self, definition: Definition) -> None:
        """Let all workers drop a function that will not be called again."""

        def forget() -> None:
            for process in self.processes.values():
                process.forget(definition)

        if self.started:
            self.post(forget)

    def tidy(self, record: Record) -> None:
        """Let all workers drop what the host has dropped of its namespaces, once that is worth a message."""
        if not record.restless:
            return
        numbers = record.take_dropped()
        if numbers:
            self.post(partial(self._forget_objects, numbers))
        while record.retired:
            try:
                self.forget(record.retired.popleft())
            except IndexError:  # another thread was faster
                break

    def _forget_objects(self, numbers: list[int]) -> None:
        for process in self.processes.values():
            if process.ready:
                process.forget_objects(numbers)

    def reserve(self, task: Task[Any]) -> None:
        """Keep the pool open for a task whose dependencies are not ready."""
        self.dependents.add(task)
        self.post(partial(self._feed, st.Reserved()))

    def release(self, task: Task[Any]) -> None:
        """The task was handed in, or never will be."""
        self.dependents.discard(task)
        self.post(partial(self._feed, st.Released()))

    def waiting_calls(self) -> list[Call]:
        """Return the calls that no worker holds, as far as they can be seen from another thread."""
        found: list[Call] = []
        for queue in list(self._state.queues.values()):
            for _ in range(10):
                try:
                    found.extend(call for call in list(queue) if call.place is st.WAITING)  # type: ignore[misc]
                    break
                except RuntimeError:  # it changed while it was copied
                    continue
        return found + [entry for entry in list(self._posted) if isinstance(entry, Call)]

    def limit_run(self, seconds: float | None) -> None:
        """End all tasks that have not finished ``seconds`` from now; None lifts the limit."""
        if self.started or seconds is not None:
            self.post(partial(self._limit_run, seconds))

    def _limit_run(self, seconds: float | None) -> None:
        if self._run_limit is not None:
            self._timers.stop(self._run_limit)
        self._run_limit = None if seconds is None else self._set_timer(seconds, partial(self._end_run, seconds))

    def _end_run(self, seconds: float) -> None:
        self.catch_up()
        error = f"the run was limited to {seconds:g} s (set_timeout)"
        for task in list(self.dependents):
            if task._gate is not None and task._gate.withdraw():
                task._settle(None, TaskTimeoutError(error))
        for call in self.waiting_calls():
            if call.place is st.WAITING:
                call.task._settle(None, TaskTimeoutError(error))
                self._feed(st.CancelRequested(call))
        for process in list(self.processes.values()):
            for call in list(process.calls.values()):
                if process.is_running(call):
                    call.tries = 0
                    self._end_hung(process, call, partial(TaskTimeoutError, f"The task {call.task.name!r} was ended: {error}"))
                else:
                    call.task._settle(None, TaskTimeoutError(error))
                    self._feed(st.CancelRequested(call))

    def wait_all(self, timeout: float | None) -> bool:
        """Wait until every task that was handed in has finished; False if ``timeout`` seconds were over before."""
        end = None if timeout is None else time.monotonic() + timeout
        threads.check(among=self)
        if self.started and not self.ended and not self.forked:
            # What was submitted is counted by the I/O thread. When that comes to this, it has counted all of it.
            counted = Latch()

            def count() -> None:
                try:
                    self.catch_up()
                finally:
                    counted.set()

            self.post(count)
            if not counted.wait(timeout):
                return False
        return self.ledger.wait(None if end is None else end - time.monotonic())

    @property
    def on_own_thread(self) -> bool:
        """True on an I/O thread: in a finalizer that the garbage collector runs there, which must not wait for that thread.

        That of another pool counts too: two of them could wait for each other.
        """
        return threads.must_not_wait()

    @property
    def started(self) -> bool:
        """True once the I/O thread runs, or is being started."""
        return bool(self._fate)

    def launch(self, wait: bool) -> None:
        """Start all workers; raise why if none can be started."""
        lock = threading.Lock()
        lock.acquire()
        errors: list[BaseException] = []

        def answer(error: BaseException | None) -> None:
            if error is not None:
                errors.append(error)
            lock.release()

        if wait:
            threads.check(threads.NO_TASK)
        self.launch_then(answer)
        if wait:
            lock.acquire()
            if errors:
                raise errors[0]

    def hear_hello(self) -> None:
        """Start a worker if there is none, and wait until one has said hello or has failed to start. Any thread that may pickle."""
        if self.forked or self.refusing or self.on_own_thread:
            return
        said = Latch()

        def begin() -> None:
            if self.ended:
                said.set()
                return
            self._hello_waiters.append(said)
            self._feed(st.LaunchRequested(1))
            if not self._starts and all(process.hello is not None for process in self.processes.values()):
                self._answer_hello()  # none is being started: it was given up lately, or the pool ends

        self.post(begin)
        said.wait(self._start_timeout)

    def launch_then(self, answer: Callable[[BaseException | None], object]) -> None:
        """Start all workers. Does not wait; any thread.

        Args:
            answer: called on the I/O thread when all are ready, or with the reason why none can be started; must neither
                block nor run user code.
        """
        if self.forked:
            raise RuntimeError("this executor belongs to the process that forked this one: make a new one here")

        def begin() -> None:
            if self._state.status is not Status.OPEN:
                answer(None)
                return
            self._launch_waiters.append(answer)
            self._feed(st.LaunchRequested())
            self._check_launched()

        self.post(begin)

    def shutdown(self, *, cancel_pending: bool = False, reason: str = "the executor was shut down") -> None:
        """Accept nothing more and end when everything is done. Does not wait: a finalizer may call it.

        Args:
            cancel_pending: cancel what has not started.
            reason: why, for tasks that are cancelled.
        """
        self.refusing = True
        if cancel_pending and self.end_reason is None:
            self.end_reason = reason
        for task in list(self.unstarted):
            task._cancel_at_gate(f"{reason} before the task was started")
        if cancel_pending:
            for task in list(self.dependents):
                task._cancel_at_gate(reason)
        if not self._end_unused():
            self.post(partial(self._feed, st.ShutdownRequested(cancel_pending)))

    def _end_unused(self) -> bool:
        """End a pool that has nothing to end, without starting anything; False if it has been used.

        Threads that are started at interpreter exit only to end harm others: before CPython 3.12.3 they make `threading` forget to wait
        for the program's own threads.
        """
        if not self._fate and not self.callbacks.started and not self._posted:
            self._fate.setdefault(0, None)
        if self._fate.get(0, self) is not None:
            return False
        # Repeated on each call: an exception from a signal handler may have interrupted the call before.
        self.ended = True
        self._port = EndedPort()  # type: ignore[assignment]
        self.keeps = []
        self.peer.drop_record()
        self._sweep()
        self.workers_gone.set()
        self.finished.set()
        self._run_when_finished()
        return True

    def wind_down(self, reason: str) -> None:
        """End soon. Does not wait; any thread.

        What has not started is cancelled; what runs is asked to stop, interrupted after ``INTERRUPT_AFTER`` seconds, and
        its worker is ended after as many more.

        Args:
            reason: why, for tasks that are cancelled.
        """
        self.shutdown(cancel_pending=True, reason=reason)
        if self.started and not self.ended:
            self.ask_running(None)
            self.later(INTERRUPT_AFTER, partial(self.ask_running, signal.SIGINT))
            self.later(2 * INTERRUPT_AFTER, partial(self.terminate, kill=True, why=f"because {reason}"))

    def wind_down_later(self, seconds: float, reason: str) -> None:
        """Call ``wind_down`` after ``seconds``, unless the pool has ended by then. Any thread."""
        if self.started and not self.ended:
            self.later(max(seconds, 0.0), partial(self.wind_down, reason))

    def when_finished(self, job: Callable[[], object]) -> None:
        """Call ``job``, which must neither block nor run user code, when the pool has ended and everything was delivered; now if it has."""
        self._when_finished.append(job)
        if self.finished.is_set() or not self.started or self.forked:
            self._run_when_finished()

    def _run_when_finished(self) -> None:
        while self._when_finished:
            try:
                job = self._when_finished.popleft()
            except IndexError:
                return  # another thread has it
            job()

    def terminate(self, *, kill: bool, why: str) -> None:
        """End all workers now: running calls are lost, the others cancelled.

        Args:
            kill: at once; else SIGTERM comes first.
            why: for the tasks that it costs; continues "its worker was killed".
        """
        self.refusing = True
        self.kill_reason = self.kill_reason or f"its worker was killed {why}"
        reason = self.end_reason = self.end_reason or f"the workers of its executor were killed {why}"
        for task in [*self.unstarted, *self.dependents]:
            task._cancel_at_gate(reason)
        if not self._end_unused():
            self.post(partial(self._terminate, kill))

    def _terminate(self, kill: bool) -> None:
        if self.nursery is not None:
            self.nursery.kill()
        if not kill:
            for process in self.processes.values():
                process.process.terminate()
        self._feed(st.TerminateRequested())

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers are gone and everything was delivered; True if so. Not from a thread that delivers."""
        if not self._fate or self.forked:
            return True
        kind = threads.kind_of_this()
        if kind is not None and not self.finished.is_set():
            threads.check(self)
            if threading.get_ident() in threads.holding:
                raise RuntimeError("the executor cannot end before this function (retry_on, or the pickling of a call) has returned")
            if kind == threads.DECODE or threading.get_ident() in (self.callbacks.ident, self.output.ident):
                return self.workers_gone.wait(timeout)  # delivery waits for this very thread
        if not self.finished.wait(timeout):
            return False
        thread = self._thread
        if isinstance(thread, threads.PoolThread) and thread is not threading.current_thread():
            thread.join()  # it has nothing left to do; an interrupt here does no harm
        return True

    def ask_running(self, signal_number: int | None) -> None:
        """Ask every running call to stop: by its flag, or by a signal to its worker."""

        def ask() -> None:
            self.catch_up()
            for process in self.processes.values():
                for call in list(process.calls.values()):
                    if process.is_running(call):
                        if signal_number is None:
                            process.request_cancel(call)
                        else:
                            process.interrupt(call, signal_number)

        self.post(ask)

    def _end(self, port: ports.Port) -> None:
        """Deliver what is under way and let everybody go who waits. Runs last on the I/O thread."""
        self.lanes = ()
        self.keeps = []
        self.peer.drop_record()
        self._timers.clear()
        self._timed.clear()
        self._answer_launch(None)
        self._answer_hello()
        for process in list(self.processes.values()):  # after a failure only: others are closed when they have ended
            self._try(self._close_process, process)
        self.processes.clear()
        self.starter.end()
        self._end_nursery()
        self.ended = True
        self.departures.wake = -1
        self.take_departures()
        self._sweep()
        self.workers_gone.set()
        self._port = EndedPort()  # type: ignore[assignment] # nobody waits there any more; what is posted now runs in its caller
        port.close()
        self.output.end()
        self.decoders.end()
        self.callbacks.end()
        self.finished.set()
        self._run_when_finished()

    def _sweep(self) -> None:
        """Deal with what was posted too late; any thread. Each entry is taken by exactly one."""
        while self._posted:
            try:
                late = self._posted.popleft()
            except IndexError:
                return
            if isinstance(late, Call):
                # Race: submit() had looked before the end had begun. Its caller learns here what it would have learned there.
                late.task._settle(None, self._refusal())
                continue
            try:
                late()
            except Exception:  # a bug of ours; the others who wait must get their answers all the same
                LOGGER.critical("wetlands_executor: %r failed at the end of the pool; this is a bug, please report it", late, exc_info=True)

    def _refusal(self) -> RuntimeError:
        return RuntimeError(refusal())

    def _fail_everything(self, error: BaseException) -> None:
        """After a bug in this file: kill all workers and fail every task that is known, so that nobody waits for ever."""
        self.refusing = True
        self.broken = failure = BrokenProcessPool(f"the pool of {self.what} failed: {describe(error)}")
        failure.__cause__ = error
        self.lanes = ()  # Order: first. A thread that is inside a lane is waited for below, and no other enters one
        calls: dict[Any, None] = {}
        if self.nursery is not None:
            self._try(self.nursery.kill)
        for process in list(self.processes.values()):
            self._try(process.kill)
            for _ in range(LANE_TRIES):  # each waits a little; a thread inside writes one frame
                if process.close_lane():
                    break
            self._try(process.absorb)
            calls.update(dict.fromkeys(process.calls.values()))
            self._try(process.process.reap)
        self._try(self.take_departures)
        for queue in self._state.queues.values():
            calls.update(dict.fromkeys(queue))
        for slot in self._state.slots:
            calls.update(dict.fromkeys(slot.held))
        calls.update(dict.fromkeys(self._untold))
        calls.update(dict.fromkeys(self._timed))
        for call in calls:
            self._try(call.task._settle, None, failure)
        for replies in list(self._replies.values()):
            for reply in replies:
                self._try(reply, False)
        self._replies.clear()
        self._state.status = Status.CLOSED

    @staticmethod
    def _try(job: Callable[..., object], *args: Any) -> None:
        """Do one of several things that must all be tried, after a failure that may have harmed any of them."""
        try:
            job(*args)
        except Exception:
            LOGGER.critical("wetlands_executor: %r failed as well", job, exc_info=True)

    def after_fork_in_child(self) -> None:
        """Let go of everything: the pool belongs to the parent (``spawn`` closes the descriptors)."""
        self._port = EndedPort()  # type: ignore[assignment]
        self._fate = {0: None}
        self.refusing = True
        self.ended = True
        self.departures.wake = -1
        self.lanes = ()
        self.processes = {}
        self._posted.clear()


def _after_fork_in_child() -> None:
    spawn.close_all()
    for pool in list(live_pools):
        if isinstance(pool, Pool):
            pool.after_fork_in_child()


spawn.at_fork(_after_fork_in_child)


_exiting = False


def refusal() -> str:
    """Return the standard library's words for a submit that comes too late."""
    return f"cannot schedule new futures after {'interpreter ' if _exiting else ''}shutdown"


def _finish_at_exit() -> None:
    """Do what the standard library does at interpreter exit: finish what was submitted."""
    global _exiting  # a fact about the process
    _exiting = True
    pools = [pool for pool in live_pools if isinstance(pool, Pool) and not pool.forked]
    for pool in pools:
        pool.shutdown()
    for pool in pools:
        pool.join()


# Before threading joins its threads, as concurrent.futures does it (bpo-39812); atexit would come too late for callbacks that start threads.
getattr(threading, "_register_atexit", atexit.register)(_finish_at_exit)
