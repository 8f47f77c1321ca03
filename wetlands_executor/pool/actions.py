"""What the state asks for, done: one method per action. I/O thread only, but for the start of a process, which has a thread of its own."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import secrets
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from wetlands_executor import descriptors
from wetlands_executor.errors import describe
from wetlands_executor.pool import bundle, ports, spawn
from wetlands_executor.pool.arrivals import Arrivals
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.nursery import NurseryFailed, Said
from wetlands_executor.pool.process import Call, WorkerProcess
from wetlands_executor.pool.return_lane import lane_of
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.messages import items_of
from wetlands_executor.scheduling.phases import Status
from wetlands_executor.scheduling.retry import Failure
from wetlands_executor.serialize import interpreter, plain
from wetlands_executor.serialize.errors import decode_error
from wetlands_executor.serialize.settings import arguments_of_host, current_settings, main_of_host
from wetlands_executor.sharedmem import arena
from wetlands_executor.sharedmem.results import ResultMemory
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.pool.bulk import Part

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds that a worker may take to end by itself (exit hooks, non-daemon threads) before it is killed.
STOP_GRACE = 5.0
#: Seconds after which a kill that met no running call is tried again.
KILL_AGAIN = 0.005


class Actions(Arrivals):
    """Performs the actions of ``PoolState``."""

    def _hand_over(self, report: st.DeathReport, job: Callable[[], object], call: Call) -> None:
        """Run ``job``, which tells of ``call``, after the lines of the process that has died."""
        if any(stream.under_way for stream in report.streams):
            self._run_after_lines(job, call)
        else:
            job()

    def _start_worker(self, action: st.StartWorker) -> None:
        self._starts[action.worker] = action.index
        asked = 0 if self.nursery is None else self.nursery.failures
        self.starter.put(partial(self._spawn, action.worker, action.index, asked))

    def _spawn(self, worker: int, index: int, asked: int) -> None:
        """Start a process; on the starter thread, because activation runs a shell and exec takes a millisecond."""
        opening = b""
        try:
            argv, env, cwd = self._launch(index)
            memory = arena.current()
            shared = memory.fd if memory is not None else -1
            process: spawn.Process | BaseException
            compiled = self.peer.surely_same
            if self.nursery is None:
                process = spawn.Process(argv, env, cwd, shared)
                try:
                    opening = process.ship(bundle.source(compiled))
                except BaseException:
                    process.reap()
                    process.close()
                    raise
            else:
                process = self.nursery.fork(env, cwd, shared, asked=asked, wanted=lambda: worker not in self._abandoned, compiled=compiled)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is why the worker cannot start
            process = error
            memory = None
        if self.nursery is not None:
            for said in self.nursery.take_said():
                self.post(partial(self._on_said, said))
        self.post(partial(self._spawned, worker, index, process, memory, opening))

    def _spawned(self, worker: int, index: int, process: spawn.Process | BaseException, memory: arena.Arena | None, opening: bytes) -> None:
        self._starts.pop(worker, None)
        if self._state.status is Status.CLOSED and not isinstance(process, BaseException):
            process.kill_tree()  # the pool has failed meanwhile
            process.reap()
            process.close()
            return
        if isinstance(process, BaseException):
            self._answer_hello()
            self._abandoned.discard(worker)
            if isinstance(process, NurseryFailed):
                cause = decode_error(process.failure, trusted_only=True) if process.failure is not None else None
                error = self._start_error(process.reason, process.tail, cause)
                self._feed(st.WorkerExited(worker, (), process.final, st.DeathReport(error)))
                return
            error = self._start_error(describe(process), "", process)
            transient = isinstance(process, (BlockingIOError, MemoryError)) or getattr(process, "errno", None) in (11, 12, 23, 24)
            self._feed(st.WorkerExited(worker, (), not transient, st.DeathReport(error)))
            return
        nonce = secrets.randbits(32)
        assert self._port is not None
        mine = self.processes[worker] = WorkerProcess(worker, index, process, self._port, nonce, ResultMemory(process.memory, memory))
        mine.streams = (OutputStream("stdout"), OutputStream("stderr"))
        if self.worker_timeout is None:
            mine.return_lane = lane_of(process, self.departures)
            mine.on_answer = partial(self._on_bell, mine)
        port = self._port
        for fd, stream in zip((process.stdout, process.stderr), mine.streams, strict=True):
            port.add_reader(fd, ports.OUTPUT, partial(self._on_output, mine, fd, stream))
        port.add_reader(process.results, ports.RESULTS, partial(self._on_results, mine))
        port.add_reader(process.exit, ports.EXIT, partial(self._on_exit, mine))
        if opening:
            mine.send_raw(opening)
        mine.send_record(wire.CONFIG, 0, self._config(mine))
        mine.flush()
        if self._start_timeout is not None:
            self._set_process_timer(mine, self._start_timeout, partial(self._check_started, mine))
        if worker in self._abandoned:
            self._abandoned.discard(worker)
            mine.stopping = True
            mine.kill()

    def _end_nursery(self) -> None:
        """Runs when the workers are gone and the starter thread has ended."""
        if self.nursery is not None:
            self.nursery.end(STOP_GRACE)

    def _on_said(self, said: Said) -> None:
        """Pass on what a preload that is shared has said, once for all workers."""
        for name, data in (("stdout", said.stdout), ("stderr", said.stderr)):
            stream = OutputStream(name)
            self._put_text(stream, stream.splitter.feed(data) + stream.splitter.finish())
        for record in said.records:
            self._log(OutputStream("log"), plain.read_record(record), -1, said.pid, None)
        for module, count in said.threads:
            warn = partial(
                LOGGER.warning,
                "wetlands_executor: the import of %s in %s has started %d threads in native code, and workers are forked from that process. "
                "That is safe only if the library says so. Numerical libraries start none if OMP_NUM_THREADS and its like are 1, as they are "
                "unless worker_env sets them",
                module,
                self.what,
                count,
            )
            self.put_foreign(warn)  # handlers take locks, which the program may hold, or have left locked

    def _config(self, process: WorkerProcess) -> bytes:
        context = current_settings()
        process.sent_context = context.number
        data, code, bytecode = self._initializer or (None, None, False)
        process.pieces.update((piece.owner, piece.number) for piece in self.needs)
        return pickle.dumps(
            {
                "nonce": process.nonce,
                "magic": interpreter.MAGIC if interpreter.PORTABLE else None,
                "surroundings": context.data,
                "context": context.number,
                "authkey": bytes(multiprocessing.current_process().authkey),
                "preload": [] if process.process.forked else self._preload,
                "initializer": data,
                "pieces": [(piece.number, piece.data) for piece in self.needs],
                "initializer_code": code if bytecode else None,
                "version": python_version(),
                "argv": arguments_of_host(),
                "main": main_of_host(),
                "print_frames": descriptors.THREADS,
                "carries": process.parcels.arena is not None and process.parcels.arena.carries,
                "incarnation": process.parcels.incarnation,
                "arena_limit": arena.LIMIT,
            },
            4,
        )

    def _check_started(self, process: WorkerProcess) -> None:
        if not process.ready and self.processes.get(process.worker) is process and process.reason is None:
            process.reason = self._start_error(
                f"it was not ready within {self._start_timeout:g} s (start_timeout)", process.stderr_tail()
            )
            process.kill()

    def _dispatch(self, action: st.Dispatch) -> st.Event | None:
        process = self.processes[action.worker]
        calls: list[Call] = list(action.items)  # type: ignore[arg-type]
        refused: list[st.Item] = []
        if process.foreign:
            refused += [call for call in calls if call.encoded.bytecode]
            for call in calls:
                if call.encoded.bytecode:
                    call.task._settle(None, self._code_error(process, call))
            calls = [call for call in calls if not call.encoded.bytecode]
        if calls:
            if self.worker_timeout is not None and not process.calls:
                self._watch_silence(process)
            for call, error in process.send_calls(calls):
                call.task._settle(None, error)
                refused.append(call)
        return st.ItemsFinished(action.worker, refused) if refused else None

    def _recover(self, action: st.Action, error: Exception) -> st.Event | None:
        """An action has failed, which is a bug: let its worker go; return the answer for which the state waits."""
        worker = getattr(action, "worker", None)
        process = self.processes.get(worker) if worker is not None else None
        if process is not None:
            self.post(partial(self._fault, process, error))  # Order: when the state has come to rest
        else:
            self._log_bug(error, action)
        if isinstance(action, st.Dispatch) and process is None:
            for item in action.items:
                item.task._settle(None, error)  # type: ignore[attr-defined]
            return st.ItemsFinished(action.worker, action.items)
        if isinstance(action, st.StartWorker):
            return st.WorkerExited(action.worker, (), True, st.DeathReport(self._start_error(describe(error), "", error)))
        if isinstance(action, st.Reclaim):
            return st.Reclaimed(action.worker, ())
        if isinstance(action, st.KillIfRunning):
            return st.KillAnswered(action.worker, action.item, False)
        for item in items_of([action]):
            item.task._settle(None, error)  # type: ignore[attr-defined] # if it has not been settled
        return None

    def _code_error(self, process: WorkerProcess, call: Call) -> BaseException:
        theirs = (process.hello or {}).get("version", "another version")
        before = self.peer.replaced
        if before is not None:
            why = f"{self.what} had Python {before} when it was, and its interpreter has been replaced since: its worker is Python {theirs}"
        else:
            why = f"{self.what} did not tell its version when it was asked; its worker is Python {theirs}"
        return pickle.PicklingError(
            f"{call.encoded.by_value} was pickled as bytecode of Python {python_version()}, because {why}. Bytecode is never sent across. Submit "
            'it again, or put it into a module or file that the worker can import (submit("file.py:function", ...))'
        )

    def _recall(self, action: st.Reclaim) -> st.Event:
        process = self.processes[action.worker]
        if not process.close_lane():
            # A submitting thread is inside, perhaps interrupted by a signal: what it writes cannot be told from what was there.
            return st.Reclaimed(action.worker, ())
        for event in self._absorbed(process):
            # Within an action: the state is between two events, and while it recalls this slot it only takes note.
            self._state.handle(event)
        back = process.take_back()
        for call in [call for call in self._untold if call.process is process or call in back]:
            self._untold.discard(call)
            if call.process is process:
                # Race: the worker was faster, even if it has not written to the board yet, and its frame does not ask it to tell.
                self._begin_untold(call)
        return st.Reclaimed(action.worker, back)

    def _send_cancel(self, action: st.SendCancel) -> None:
        process = self.processes[action.worker]
        call: Call = action.item  # type: ignore[assignment]
        process.request_cancel(call)
        options = call.task._options
        grace = options.cancel_grace if options is not None and options.cancel_grace is not None else self.cancel_grace
        if grace is not None and not call.task._escalating:
            call.task._escalating = True
            self._set_call_timer(call, grace, partial(self._escalate, call, grace))

    def _escalate(self, call: Call, grace: float) -> None:
        """The call has not stopped at the request: interrupt it, and if that does not help, end its worker."""
        process = call.process
        if process is None or self.processes.get(process.worker) is not process or call.number not in process.calls:
            return
        call.task._interrupted = True
        call.task._cancel_reason = f"it did not stop within {grace:g} s of the request (cancel_grace): it was interrupted"
        process.interrupt(call, signal.SIGINT)
        self._set_call_timer(call, grace, partial(self._end_escalation, call))

    def _end_escalation(self, call: Call) -> None:
        process = call.process
        if process is not None and self.processes.get(process.worker) is process and call.number in process.calls:
            call.task._verdict = True
            call.task._cancel_reason = "it did not stop at the request nor at the interrupt (cancel_grace): its worker was ended"
            self._kill_call(call)

    def _stop_worker(self, action: st.StopWorker) -> None:
        process = self.processes[action.worker]
        process.stop()
        self._set_process_timer(process, STOP_GRACE, partial(self._kill_if_alive, process))

    def _kill_worker(self, action: st.KillWorker) -> None:
        process = self.processes.get(action.worker)
        if process is None:
            self._abandoned.add(action.worker)  # it is being started
            if self.nursery is not None and self._abandoned.issuperset(self._starts):
                self.nursery.give_up()  # Order: after the worker was marked; see `Nursery._begin`
        else:
            process.stopping = True
            process.kill()

    def _kill_if_running(self, action: st.KillIfRunning) -> st.Event:
        process = self.processes[action.worker]
        call: Call = action.item  # type: ignore[assignment]
        running = process.is_running(call)
        if running:
            process.stopping = True
            process.kill()
        elif call.number in process.calls:
            # Race: the worker has read the frame and not yet written the board, or its result is on the way.
            self._set_timer(KILL_AGAIN, partial(self._kill_again, call))
        return st.KillAnswered(action.worker, call, running)

    def _kill_again(self, call: Call) -> None:
        if call.place is not None and call.process is not None and call.number in call.process.calls:
            self._feed(st.KillRequested(call, retry=call.tries > 0))

    def _cancelled(self, action: st.Cancelled) -> None:
        for call in action.items:
            task = call.task  # type: ignore[attr-defined]
            if action.refused and not task._cancel_asked:
                task._settle(None, self._refusal())  # its caller learns here what submit() would have said
                continue
            task._settle_cancelled(self.reason_of_cancel(task))

    def _cancel_answered(self, action: st.CancelAnswered) -> None:
        for reply in self._replies.pop(action.item, ()):
            reply(action.done)

    def _lost(self, action: st.Lost) -> st.Event | None:
        call: Call = action.item  # type: ignore[assignment]
        self._stop_call_timers(call)
        if call.several:
            return self._lose_part(call, _report(action))  # type: ignore[arg-type]
        self._lose_call(call, _report(action))
        return None

    def _lose_part(self, part: Part, report: st.DeathReport) -> st.Event | None:
        """One of several calls is lost; the rest waits again, before what is younger. The state keeps a place until that is done."""
        self.post(partial(self._feed, st.Released()))
        series, process, verdict = part.series, part.process, part.task._verdict
        if verdict is not None:
            error = None if verdict is True else self._with_stacks(verdict, report.stacks)
            self._hand_over(report, part.task._settle_cancelled if error is None else partial(part.task._settle, None, error), part)
            return None
        begun = process.begun(part) if process is not None else None
        if begun is None or begun > part.received:
            self._hand_over(report, partial(series.fail, part.advance(), report.error), part)
        if series.closed:
            part.task._settle_cancelled()
        if part.complete:
            return None
        series.give_back(part, part.first + part.received)
        return st.Submitted([series.bulk], front=True) if series.bulk.place is None else None

    def _lose_call(self, call: Call, report: st.DeathReport) -> None:
        task = call.task
        if call.deciding:
            return  # its outcome is known; a decoder thread is dealing with it
        process = call.process
        if process is not None:
            since = process.running_since(call)
            task._worker_pid = process.process.pid
            task._duration = 0.0 if since is None else time.monotonic() - since
        verdict = task._verdict
        if call.asks and self._asks_for_retry(task, Failure.LOST):
            error = report.error if verdict is None else self._with_stacks(verdict, report.stacks)
            self.run_user_code(partial(self._decide, call, error))
            return
        if call.asks:
            self.post(partial(self._feed, st.Released()))
        if verdict is True:
            self._hand_over(report, task._settle_cancelled, call)
            return
        error = report.error if verdict is None else self._with_stacks(verdict, report.stacks)
        self._hand_over(report, partial(task._settle, None, error), call)

    def _retried(self, action: st.Retried) -> None:
        call: Call = action.item  # type: ignore[assignment]
        call.process = None
        self._stop_call_timers(call)
        call.task._next_attempt(None)

    def _start_failed(self, action: st.StartFailed) -> None:
        error = _report(action).error
        for call in action.items:
            call.task._settle(None, _copy_error(error))  # type: ignore[attr-defined]
        self._answer_launch(error)

    def _broken(self, action: st.Broken) -> None:
        error = _report(action).error
        self.broken = error
        self.refusing = True  # Order: before the tasks fail, so that whoever sees that cannot submit any more
        for call in action.items:
            call.task._settle(None, _copy_error(error))  # type: ignore[attr-defined]
        self._answer_launch(error)

    def _set_restart_timer(self, action: st.SetRestartTimer) -> None:
        self._set_timer(action.delay, partial(self._feed, st.RestartDue()))

    def _closed(self, action: st.PoolClosed) -> None:
        """Nothing to do here: the loop looks at the status."""

    _PERFORM: ClassVar[dict[type, Callable[[Any, Any], st.Event | None]]] = {
        st.StartWorker: _start_worker,
        st.Dispatch: _dispatch,
        st.Reclaim: _recall,
        st.SendCancel: _send_cancel,
        st.StopWorker: _stop_worker,
        st.KillWorker: _kill_worker,
        st.KillIfRunning: _kill_if_running,
        st.Cancelled: _cancelled,
        st.CancelAnswered: _cancel_answered,
        st.Lost: _lost,
        st.Retried: _retried,
        st.StartFailed: _start_failed,
        st.Broken: _broken,
        st.SetRestartTimer: _set_restart_timer,
        st.PoolClosed: _closed,
    }


def _report(action: st.Lost | st.StartFailed | st.Broken) -> st.DeathReport:
    assert action.report is not None  # every death that this file tells the state has one
    return action.report


def _copy_error(error: BaseException) -> BaseException:
    """Return an equal exception: each task raises its own, because raising one writes its traceback."""
    try:
        copy = type(error)(*error.args)
    except Exception:  # noqa: BLE001 - an __init__ with another signature: then the tasks share it
        return error
    copy.__cause__ = error.__cause__
    return copy


def python_version() -> str:
    """Return the host's Python version for messages."""
    return sys.version.split()[0]
