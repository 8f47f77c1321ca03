"""Performs the actions that name a worker: dispatch, reclaim, cancel, stop, kill.

I/O thread only.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial

from wetlands_executor.pool import deadlines
from wetlands_executor.pool.announcing import Announcing
from wetlands_executor.pool.call import Call
from wetlands_executor.pool.deadlines import Deadlines
from wetlands_executor.pool.direct_calls import DirectCalls
from wetlands_executor.pool.io_loop import IOLoop
from wetlands_executor.pool.nested import Nested
from wetlands_executor.pool.start import Starter, python_version
from wetlands_executor.pool.worker_process import WorkerProcess
from wetlands_executor.pool.workers import Workers
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState
from wetlands_executor.serialize.interpreter import RemoteInterpreter

#: Seconds after which a kill that met no running call is tried again.
KILL_AGAIN = 0.005


class WorkerActions:
    """Performs the actions that name a worker.

    Args:
        loop: the pool's I/O thread.
        workers: its processes.
        state: its decisions; fed within a reclaim with what was sent directly.
        feed: feeds it anything else.
        direct_calls: what passes the I/O thread.
        deadlines: the limits.
        announcing: calls that must report their start.
        starter: starts processes.
        remote: the Python of the workers.
        nested: what functions in the workers have submitted.
        label: how messages call the environment.
    """

    def __init__(
        self,
        *,
        loop: IOLoop,
        workers: Workers,
        state: PoolState,
        feed: Callable[[st.Event | None], None],
        direct_calls: DirectCalls,
        deadlines: Deadlines,
        announcing: Announcing,
        starter: Starter,
        remote: RemoteInterpreter,
        nested: Nested,
        label: str,
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._state = state
        self._feed = feed
        self._direct_calls = direct_calls
        self._deadlines = deadlines
        self._announcing = announcing
        self._starter = starter
        self._remote = remote
        self._nested = nested
        self._label = label

    def dispatch(self, action: st.Dispatch) -> st.Event | None:
        """Send calls to a worker; those that cannot be sent fail."""
        process = self._workers.processes[action.worker]
        calls: list[Call] = list(action.items)  # type: ignore[arg-type]
        refused: list[st.Item] = []
        if process.foreign:
            refused += [call for call in calls if call.encoded.bytecode]
            for call in calls:
                if call.encoded.bytecode:
                    call.fail(self._code_error(process, call))
            calls = [call for call in calls if not call.encoded.bytecode]
        if calls:
            if self._deadlines.worker_timeout is not None and not process.calls:
                self._deadlines.watch_silence(process)
            for call, error in process.give(calls):
                call.fail(error)
                refused.append(call)
            if process.direct_send.sent:
                # Race: a submitting thread has written to this worker since such calls were last
                # registered, and what it was given now lies behind that call.
                self._direct_calls.ask_to_register(process)
        return st.ItemsFinished(action.worker, refused) if refused else None

    def _code_error(self, process: WorkerProcess, call: Call) -> BaseException:
        theirs = (process.hello or {}).get("version", "another version")
        before = self._remote.replaced
        if before is not None:
            why = (
                f"{self._label} had Python {before} when it was, and its interpreter has been "
                f"replaced since: its worker is Python {theirs}"
            )
        else:
            asked = (
                "did not tell its version when it was asked"
                if self._remote.silent
                else "was not made yet when it was"
            )
            why = f"it has no source, and {self._label} {asked}: its worker is Python {theirs}"
        return pickle.PicklingError(
            f"{call.encoded.by_value} was pickled as bytecode of Python {python_version()}, "
            f"because {why}. Bytecode is never sent across. Submit "
            "it again, or put it into a module or file that the worker can import "
            '(submit("file.py:function", ...))'
        )

    def reclaim(self, action: st.Reclaim) -> st.Event:
        """Reclaim what a worker has not started."""
        process = self._workers.processes[action.worker]
        if not process.direct_send.close():
            # A submitting thread is inside, perhaps interrupted by a signal: what it writes cannot
            # be told from what was there.
            return st.Reclaimed(action.worker, ())
        for event in self._direct_calls.registered(process):
            # Within an action: the state is between two events, and while it reclaims from this
            # slot it only takes note.
            actions = self._state.handle(event)
            assert not actions, actions
        back = process.reclaim()
        self._announcing.on_reclaimed(process, back)
        return st.Reclaimed(action.worker, back)

    def send_cancel(self, action: st.SendCancel) -> None:
        """Ask a running call to stop."""
        call: Call = action.item  # type: ignore[assignment]
        process = self._workers.processes[action.worker]
        process.request_cancel(call)
        self._nested.cancel_children(process, call)
        self._deadlines.on_cancel_sent(call)

    def stop(self, action: st.StopWorker) -> None:
        """Let a worker end."""
        process = self._workers.processes[action.worker]
        process.stop()
        self._deadlines.kill_later(process, deadlines.STOP_GRACE)

    def kill(self, action: st.KillWorker) -> None:
        """End a worker, or give up one that is being started."""
        process = self._workers.processes.get(action.worker)
        if process is None:
            self._starter.give_up(action.worker)
        else:
            process.begin_stop()
            process.kill()

    def kill_if_running(self, action: st.KillIfRunning) -> st.Event:
        """End a worker if it runs this call."""
        process = self._workers.processes[action.worker]
        call: Call = action.item  # type: ignore[assignment]
        running = process.given.is_running(call)
        if running:
            process.begin_stop()
            process.kill()
        elif call.number in process.calls:
            # Race: the worker has read the frame and not yet written the page, or its result is on
            # the way.
            self._loop.set_timer(KILL_AGAIN, partial(self._kill_again, call))
        return st.KillAnswered(action.worker, call, running)

    def _kill_again(self, call: Call) -> None:
        if call.place is not None and self._workers.holder(call) is not None:
            self._feed(st.KillRequested(call, retry=call.retries_left > 0))
