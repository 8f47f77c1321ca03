r"""``Pool``: the parts of a pool, put together; and what other threads ask of it.

::

    any thread                    I/O thread (io_loop.py)                          worker
    submit -- idle? write frame (direct.py) -------------------------------------> inbox
       \----- put(call), wake --> Shell.feed(Submitted) -> WorkerActions.dispatch,
                                  Outbox ----------------------------------------> inbox, bulk
    result() sleeps <------------ Settlement <- Inbound <- ResultStream <--------- results
                                  Shell.feed(ItemsFinished) -> the next Dispatch
                                  Reaper: DeathReport <- exit descriptor <-------- ends
                                  Shell.feed(WorkerExited)

1. Only the I/O thread calls ``PoolState.handle``, through ``Shell.feed``. That thread never runs
   signal handlers, so no exception can end it half-way; the main thread, which a Ctrl-C can
   interrupt between any two steps, only appends to ``IOLoop.posted`` (one step in C) and wakes it.
2. Each part owns its fields; it gets what it uses when it is made, and reports its news through
   ``feed(event)``.
3. User code runs on none of this: results that name a class or function are unpickled by decoder
   threads, lines are written by the output thread, callbacks run on the callback thread
   (``delivery.py``).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from wetlands_executor import threads
from wetlands_executor.futures.events import Listener, with_listener, without_callback
from wetlands_executor.futures.settling import announce_late
from wetlands_executor.pool import nested, spawn
from wetlands_executor.pool.announcing import Announcing
from wetlands_executor.pool.blame import Blame
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.call_timers import CallTimers
from wetlands_executor.pool.cancelling import Cancelling
from wetlands_executor.pool.closing import Closing, finish_at_exit
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.decoding import Decoding
from wetlands_executor.pool.delivery import SerialThread
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.forgetting import Forgetting
from wetlands_executor.pool.inbound import Inbound, InboundParts
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.lifecycle import Held, Lifecycle, LifecycleParts
from wetlands_executor.pool.nested_outcomes import ChildReceiver
from wetlands_executor.pool.output import Output
from wetlands_executor.pool.probing import Probes
from wetlands_executor.pool.readiness import Readiness
from wetlands_executor.pool.reaper import Reaper
from wetlands_executor.pool.run_limit import RunLimit
from wetlands_executor.pool.settlement import Settlement
from wetlands_executor.pool.shell import Shell
from wetlands_executor.pool.start import Starter, StarterParts, StartSettings
from wetlands_executor.pool.stats import TaskStats
from wetlands_executor.pool.trimmer import Trimmer
from wetlands_executor.pool.under_way import UnderWay
from wetlands_executor.pool.watchdog import Watchdog
from wetlands_executor.pool.worker_actions import WorkerActions
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import CREDIT, MOST_CREDIT, PoolState
from wetlands_executor.serialize.encoded import EncodedCall
from wetlands_executor.serialize.settings import HostSettings, current_settings
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.futures.future import Task

#: Pools of this process, for its forks and for the interpreter's exit.
live_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """Workers of one environment. Thread-safe.

    Args:
        settings: how workers are started.
        max_workers: number of slots.
        tasks_per_worker: see ``PoolState``.
        worker_timeout, task_timeout, cancel_grace: see ``CondaEnvExecutor``.
        label: how messages call the environment.

    Attributes:
        listeners: to all tasks; replaced whole.
    """

    def __init__(
        self,
        settings: StartSettings,
        max_workers: int,
        *,
        tasks_per_worker: int | None,
        worker_timeout: float | None,
        task_timeout: float | None,
        cancel_grace: float | None,
        label: str,
    ) -> None:
        can_reclaim = spawn.can_reclaim()
        state = PoolState(
            max_workers,
            credit=CREDIT if can_reclaim else 1,
            most_credit=MOST_CREDIT if can_reclaim else 1,
            tasks_per_worker=tasks_per_worker,
        )
        self.max_workers = max_workers
        self.label = label
        self.settings = settings
        self.listeners: tuple[Listener, ...] = ()
        self._state = state
        self._held = Held()
        self._workers = workers = Workers()
        self.closing = Closing(state)
        self.loop = loop = IOLoop()
        self.callbacks = SerialThread("wetlands-callbacks", threads.CALLBACKS)
        self.stats = TaskStats(self.callbacks)
        self.shell = shell = Shell(state, workers, self.stats, self.closing)
        self._timers = CallTimers(loop)
        self._decoding = Decoding(loop)
        self.output = Output(loop, workers, label, self)
        self.direct_calls = DirectCalls(
            loop=loop, workers=workers, stats=self.stats, feed=shell.feed, contain=shell.contain
        )
        self.number = nested.enter(self)
        self._make_answerers(label, can_reclaim)
        self._answer_tasks()
        self.deadlines = Deadlines(
            workers=workers,
            timers=self._timers,
            feed=shell.feed,
            read=self._read_all,
            label=label,
            worker_timeout=worker_timeout,
            task_timeout=task_timeout,
            cancel_grace=cancel_grace,
        )
        self._trimmer = Trimmer(loop, workers, self.direct_calls.sync)
        self.probes = Probes(workers)
        self._make_takers(label)
        performers = self._performers(self._make_workers_parts(label))
        self._make_ends(label)
        shell.connect(self.direct_calls, self.blame, self.readiness.start_error, performers)
        loop.serve(shell, self.lifecycle)
        live_pools.add(self)

    def _make_answerers(self, label: str, can_reclaim: bool) -> None:
        """Make the parts that do what other threads ask for."""
        loop, workers, feed = self.loop, self._workers, self.shell.feed
        self.cancelling = Cancelling(loop=loop, feed=feed, sync=self.direct_calls.sync)
        self.announcing = Announcing(
            loop=loop, feed=feed, can_reclaim=can_reclaim, latest=self.cancelling.latest
        )
        self.forgetting = Forgetting(loop, workers)
        self.under_way = UnderWay(
            loop=loop, state=self._state, direct_calls=self.direct_calls, stats=self.stats
        )
        self.readiness = Readiness(
            loop=loop, workers=workers, state=self._state, feed=feed, label=label
        )

    def _answer_tasks(self) -> None:
        """Give Tasks what they ask of one part alone (``futures/protocols.py``)."""
        loop, direct_calls, cancelling = self.loop, self.direct_calls, self.cancelling
        self.post, self.notify_later = loop.post, loop.notify_later
        # For the calls of a ``map``, and nested tasks: nothing of them is sent directly.
        self.submit_item = loop.put
        self.run_user_code = self._decoding.run
        self.ensure_tracked, self.take_abandoned_waits = (
            direct_calls.ensure_tracked,
            direct_calls.take_abandoned,
        )
        self.cancel, self.ask_to_cancel = cancelling.cancel, cancelling.ask_to_cancel
        self.cancel_all, self.kill = cancelling.cancel_all, cancelling.kill
        self.cancel_found = cancelling.cancel_found
        self.watch = self.announcing.watch

    def _make_takers(self, label: str) -> None:
        """Make the parts that take what workers send."""
        loop, workers, feed = self.loop, self._workers, self.shell.feed
        self.settlement = Settlement(
            loop=loop,
            feed=feed,
            workers=workers,
            output=self.output,
            decoding=self._decoding,
            timers=self._timers,
            closing=self.closing,
            again=self._call_again,
            stats=self.stats,
        )
        self.children_receiver = ChildReceiver(self.settlement)
        self._nested = nested.Nested(
            loop=loop, workers=workers, feed=feed, decoding=self._decoding, pool=self.number
        )
        self.blame = Blame(
            loop=loop,
            workers=workers,
            timers=self._timers,
            output=self.output,
            label=label,
            feed=feed,
            read=self._read,
            read_all=self._read_all,
            register=self.direct_calls.register,
            fail_with_reason=self._fail_with_reason,
            start_error=self.readiness.start_error,
        )
        self.inbound = Inbound(
            InboundParts(
                loop=loop,
                workers=workers,
                stats=self.stats,
                output=self.output,
                settlement=self.settlement,
                deadlines=self.deadlines,
                timers=self._timers,
                trimmer=self._trimmer,
                probes=self.probes,
                direct_calls=self.direct_calls,
                suspects=self.blame,
                nested=self._nested,
                feed=feed,
                starting=self._on_starting,
                ended=self._on_results_ended,
            )
        )

    def _make_workers_parts(self, label: str) -> WorkerActions:
        """Make the parts that start, order and reap workers."""
        loop, workers, feed = self.loop, self._workers, self.shell.feed
        self.direct_calls.connect(self.inbound.take_printed)
        self.watchdog = Watchdog(
            loop=loop,
            workers=workers,
            feed=feed,
            read=self._read,
            take_answer=self.direct_calls.take_answer,
            retire=self.blame.retire,
            output=self.output,
            label=label,
        )
        self.reaper = Reaper(
            loop=loop,
            workers=workers,
            feed=feed,
            closing=self.closing,
            inbound=self.inbound,
            output=self.output,
            direct_calls=self.direct_calls,
            deadlines=self.deadlines,
            blame=self.blame,
            readiness=self.readiness,
            nested=self._nested,
            label=label,
        )
        self.starter = Starter(
            self.settings,
            StarterParts(
                loop=loop,
                workers=workers,
                timers=self._timers,
                deadlines=self.deadlines,
                inbound=self.inbound,
                output=self.output,
                direct_calls=self.direct_calls,
                reaper=self.reaper,
                readiness=self.readiness,
                watchdog=self.watchdog,
                label=label,
                feed=feed,
                over=self._is_over,
                pool=(self.number, self.max_workers),
            ),
        )
        return WorkerActions(
            loop=loop,
            workers=workers,
            state=self._state,
            feed=feed,
            direct_calls=self.direct_calls,
            deadlines=self.deadlines,
            announcing=self.announcing,
            starter=self.starter,
            remote=self.settings.remote,
            nested=self._nested,
            label=label,
        )

    def _make_ends(self, label: str) -> None:
        """Make the parts that end what runs."""
        loop, workers, feed = self.loop, self._workers, self.shell.feed
        self.run_limit = RunLimit(
            loop=loop,
            feed=feed,
            workers=workers,
            deadlines=self.deadlines,
            sync=self.direct_calls.sync,
            waiting=self.under_way.waiting,
            dependents=self._held.dependents,
        )
        self.lifecycle = Lifecycle(
            LifecycleParts(
                loop=loop,
                state=self._state,
                shell=self.shell,
                workers=workers,
                direct_calls=self.direct_calls,
                timers=self._timers,
                cancelling=self.cancelling,
                announcing=self.announcing,
                readiness=self.readiness,
                reaper=self.reaper,
                starter=self.starter,
                settings=self.settings,
                output=self.output,
                decoding=self._decoding,
                callbacks=self.callbacks,
                closing=self.closing,
                held=self._held,
                label=label,
                pool=self,
            )
        )

    def _performers(self, actions: WorkerActions) -> dict[type, Callable[[Any], st.Event | None]]:
        """Return what performs each type of action."""
        performers: dict[type, Callable[[Any], Any]] = {
            st.StartWorker: self.starter.start,
            st.Dispatch: actions.dispatch,
            st.Reclaim: actions.reclaim,
            st.SendCancel: actions.send_cancel,
            st.StopWorker: actions.stop,
            st.KillWorker: actions.kill,
            st.KillIfRunning: actions.kill_if_running,
            st.Cancelled: self.settlement.cancelled,
            st.CancelAnswered: self.cancelling.answered,
            st.Lost: self.settlement.lost,
            st.Retried: self.settlement.retried,
            st.StartFailed: self._on_start_failed,
            st.Broken: self._on_broken,
            st.SetRestartTimer: self._set_restart_timer,
        }
        return performers

    # --- parts that are made before those that they need (I/O thread)

    def _read(self, process: WorkerProcess) -> None:
        self.inbound.read(process)

    def _read_all(self, process: WorkerProcess) -> None:
        self.inbound.read_all(process)

    def _fail_with_reason(self, process: WorkerProcess, call: Call) -> None:
        self.inbound.fail_with_reason(process, call)

    def _on_starting(self, process: WorkerProcess, kind: int, data: Any) -> None:
        self.starter.on_message(process, kind, data)

    def _on_results_ended(self, process: WorkerProcess) -> None:
        self.reaper.on_results_ended(process)

    def _is_over(self) -> bool:
        return self.shell.closed

    # --- actions that concern all (I/O thread)

    def _on_start_failed(self, action: st.StartFailed) -> None:
        self.readiness.answer_launch(self.settlement.failed(action))

    def _on_broken(self, action: st.Broken) -> None:
        report = action.report
        assert report is not None
        # Order: before the tasks fail, so that a thread which sees that cannot submit any more
        self.closing.break_with(report.error)
        self.readiness.answer_launch(self.settlement.failed(action))

    def _set_restart_timer(self, action: st.SetRestartTimer) -> None:
        self.loop.set_timer(action.delay, partial(self.shell.feed, st.RestartDue()))

    # --- submitting

    def submit(self, encoded: EncodedCall, task: Any) -> Call:
        """Take a call; its task will be settled.

        The caller has checked that the pool still accepts.
        """
        call = self.make_call(encoded, current_settings(), task)
        task._call = call
        loop = self.loop
        if (
            not loop.posted
            and not call.priority
            and (encoded.out_of_band is None or self._trimmer.note_now())
        ):
            for process in self.direct_calls.open_workers:
                direct_send = process.direct_send
                if not direct_send.sent and direct_send.send(call):
                    if not direct_send.open:
                        # Race: the I/O thread may have given this worker another call at the same
                        # moment. It looks for what was sent after it has closed the way, this
                        # thread looks whether the way is closed after it has sent: at least one of
                        # the two observes it, and the call behind is given to an idle worker.
                        self.direct_calls.ask_to_register(process)
                    return call
        poller: Any = loop.poller
        if poller is None:
            loop.put(call)
            return call
        loop.posted.append(call)
        # Order: the call is queued, and only then is `wants_wakeup` read. The I/O thread does the
        # reverse before it sleeps: it publishes that, and then looks at the queue. Were it read
        # before, the I/O thread could do both in between, and sleep beside this call.
        if self.shell.wants_wakeup or call.priority:
            loop.wake()
        elif loop.ended:
            loop.reject_late()
        return call

    def make_call(
        self, encoded: EncodedCall, host_settings: HostSettings, task: Any, receiver: Any = None
    ) -> Call:
        """Return an item for a call, with the options of its task; None is the settlement."""
        options = task._options
        reported = (
            self.listeners or self.deadlines.reported or (task._guard is not None and task._reports)
        )
        if options is None and not reported:
            plain = not task._counted
            return Call(task._number, encoded, host_settings, task, self.settlement, plain)
        call = Call(task._number, encoded, host_settings, task, receiver or self.settlement)
        flags = wire.WATCHED if reported else 0
        if options is not None:
            if options.timeout is not None:
                flags |= wire.WATCHED
            if options.name is not None or options.carried is not None:
                flags |= wire.NAMED
            call.demand(options, task.attempt)
        call.flag(flags)
        return call

    def _call_again(self, call: Call) -> Call:
        """Return the call of the next try of a task."""
        again = self.make_call(call.encoded, call.host_settings, call.task, call.receiver)
        return again.nest(call.depth, call.parent)

    @property
    def sees_calls_alone(self) -> bool:
        """True if a limit, a listener or a quota concerns each single call.

        Then those of a ``map`` are submitted one by one, as tasks.
        """
        return (
            bool(self.listeners) or self.deadlines.any or self._state.tasks_per_worker is not None
        )

    def add_listener(self, listener: Listener) -> None:
        """Tell a listener what happens to all tasks from now on. Any thread."""
        self.listeners = with_listener(self.listeners, listener)
        if self.started:
            self.post(self.direct_calls.sync)  # it gets the events of what is under way as well

    def remove_listener(self, callback: object) -> None:
        """Drop the listeners that call ``callback``, and what is on its way to them. Any thread."""
        self.listeners = without_callback(self.listeners, callback)

    # --- what a Task asks (futures/protocols.py)

    def notify_settled(self, task: Task[Any]) -> None:
        """Notify listeners, waiters, callbacks of a task that its submitter settled. I/O thread."""
        announce_late(task)

    @property
    def unstarted(self) -> weakref.WeakSet[Task[Any]]:
        """Tasks that were not started."""
        return self._held.unstarted

    @property
    def dependents(self) -> set[Task[Any]]:
        """Tasks that wait for others."""
        return self._held.dependents

    def reserve(self, task: Task[Any]) -> None:
        """Keep the pool open for a task whose dependencies are not ready."""
        self._held.dependents.add(task)
        self.loop.post(partial(self.shell.feed, st.Reserved()))

    def release(self, task: Task[Any]) -> None:
        """Note that a reserved task was submitted, or never will be."""
        self._held.dependents.discard(task)
        self.loop.post(partial(self.shell.feed, st.Released()))

    # --- the workers

    @property
    def processes(self) -> dict[int, WorkerProcess]:
        """Number -> process of the workers whose death has not been declared."""
        return self._workers.processes

    def wait_for_hello(self) -> None:
        """Wait until a worker has said hello or has failed to start; start one if there is none.

        Any thread that may pickle.
        """
        if self.loop.forked or self.closing.refusing or self.on_own_thread:
            return
        # The making of its environment may take any time; how long a start takes is limited.
        made = self.settings.source.known is not None
        self.readiness.wait_for_hello(self.settings.timeout if made else None)

    # --- what is under way

    def wait_all(self, timeout: float | None) -> bool:
        """Wait until every task that was submitted has finished.

        False if ``timeout`` seconds were over before.
        """
        threads.check(among=self)
        return self.under_way.wait_all(timeout)

    # --- what has become of the pool

    @property
    def on_own_thread(self) -> bool:
        """True on an I/O thread.

        In a finalizer that the garbage collector runs there, which must not wait for that thread.

        That of another pool counts too: two of them could wait for each other.
        """
        return threads.must_not_wait()

    @property
    def started(self) -> bool:
        """True once the I/O thread runs, or is being started."""
        return self.loop.started

    @property
    def ended(self) -> bool:
        """True once the I/O thread has done its last work."""
        return self.loop.ended

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked: the pool belongs to the parent."""
        return self.loop.pid != os.getpid()

    @property
    def refusing(self) -> bool:
        """True if no new call is accepted."""
        return self.closing.refusing

    @property
    def broken(self) -> BaseException | None:
        """Why nothing will ever run any more; None if that is not so."""
        return self.closing.broken

    @property
    def end_reason(self) -> str | None:
        """Why what has not started is cancelled, once the pool is ended that way."""
        return self.closing.reason


def _after_fork_in_child() -> None:
    spawn.close_all()
    for pool in list(live_pools):
        pool.lifecycle.after_fork_in_child()


spawn.at_fork(_after_fork_in_child)


def _lifecycles() -> list[Lifecycle]:
    return [pool.lifecycle for pool in live_pools if not pool.forked]


finish_at_exit(_lifecycles)
