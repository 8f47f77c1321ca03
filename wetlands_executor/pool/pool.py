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
import heapq
import itertools
import logging
import multiprocessing
import os
import pickle
import secrets
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from wetlands_executor.errors import TaskTimeoutError, WorkerCrashed, WorkerUnresponsive
from wetlands_executor.events import Listener, TaskEventType
from wetlands_executor.pool import bundle, payload, ports, spawn
from wetlands_executor.pool import state as st
from wetlands_executor.pool.arrivals import Arrivals, python_version
from wetlands_executor.pool.delivery import Decoders, Latch, SerialThread
from wetlands_executor.pool.ledger import Ledger
from wetlands_executor.pool.lines import OutputStream
from wetlands_executor.pool.process import Call, WorkerProcess
from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from wetlands_executor.options import CallOptions
    from wetlands_executor.task import Task

LOGGER = logging.getLogger("concurrent.futures")

#: Seconds that a worker may take to end by itself (exit hooks, non-daemon threads) before it is killed.
STOP_GRACE = 5.0
#: Seconds after which a kill that met no running call is tried again.
KILL_AGAIN = 0.005

Launch: TypeAlias = Callable[[int], tuple[Sequence[str], Mapping[str, str], str | None]]
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool(Arrivals):
    """Workers of one environment. Thread-safe; see the module's text for which thread runs what.

    Args:
        launch: slot index -> (argv, environment, working folder) of its process; may take long and may raise.
        max_workers: number of slots.
        tasks_per_worker: see ``PoolState``.
        preload: modules that a worker imports before it is ready.
        initializer: pickled (function, args) and the name of what travels as code in it, or None.
        start_timeout: seconds from the process's start to its being ready.
        worker_timeout, task_timeout, cancel_grace: see ``CondaEnvExecutor``.
        what: how messages call the environment.
    """

    def __init__(
        self,
        launch: Launch,
        max_workers: int,
        *,
        tasks_per_worker: int | None,
        preload: Sequence[str],
        initializer: tuple[bytes, str | None] | None,
        start_timeout: float,
        worker_timeout: float | None,
        task_timeout: float | None,
        cancel_grace: float | None,
        what: str,
    ) -> None:
        self._launch = launch
        self._preload = list(preload)
        self._initializer = initializer
        self._start_timeout = start_timeout
        self.worker_timeout = worker_timeout
        self.task_timeout = task_timeout
        self.cancel_grace = cancel_grace
        self.what = what
        self.max_workers = max_workers
        self.pid = os.getpid()
        self._state = st.PoolState(max_workers, credit=st.CREDIT if spawn.can_take_back() else 1, tasks_per_worker=tasks_per_worker)
        self._posted: deque[Call | Callable[[], object]] = deque()
        self._port: ports.Port | None = None
        self._thread: threading.Thread | None = None
        # Guards the start of the I/O thread and of the end (`_refusing`); nothing else happens while it is held.
        self._lock = threading.RLock()
        self.refusing = False
        self.broken: BaseException | None = None
        #: Idle workers to which a submitting thread may write; replaced whole by the I/O thread.
        self.lanes: tuple[WorkerProcess, ...] = ()
        #: True if a posted call could be acted on at once; else nobody has to be woken for it. Written by the I/O thread.
        self.hungry = True
        self.processes: dict[int, WorkerProcess] = {}
        self._abandoned: set[int] = set()
        self._starts: dict[int, int] = {}
        self._reasons: dict[int, BaseException] = {}
        self._replies: dict[st.Item, list[Callable[[bool], object]]] = {}
        self._launch_waiters: list[tuple[threading.Lock, list[BaseException]]] = []
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._timer_ids = itertools.count()
        self._run_limit = 0
        self.ended = False
        self.workers_gone = Latch()
        self.finished = Latch()
        self.starter = SerialThread("wetlands-start")
        self.output = SerialThread("wetlands-output")
        self.decoders = Decoders("wetlands-decode")
        self.callbacks = SerialThread("wetlands-callbacks")
        self.ledger = Ledger(self.callbacks)
        self._backlog_lock = threading.Lock()
        #: Listeners to all tasks; replaced whole.
        self.listeners: tuple[Listener, ...] = ()
        # Tasks that were not started yet, and those that wait for others.
        self.unstarted: weakref.WeakSet[Task[Any]] = weakref.WeakSet()
        self.dependents: set[Task[Any]] = set()
        _pools.add(self)

    # --- from any thread

    def submit(self, encoded: payload.Encoded, task: Any) -> Call:
        """Take a call; its task will be settled. The caller has checked that the pool still accepts."""
        call = self.make_call(encoded, payload.current_context(), task)
        task._call = call
        if not self._posted and not call.priority:
            for process in self.lanes:
                if not process.sent_directly and process.knows(call) and process.send_directly(call, call.frame()):
                    return call
        if self._port is None:
            self._ensure_thread()  # Order: before the call is queued, so that a failure (no descriptors, no threads) is this caller's alone
        self._posted.append(call)
        if self.hungry or call.priority > 0:
            self._wake()
        elif self.ended:
            self._sweep()
        return call

    def make_call(self, encoded: payload.Encoded, context: payload.Context, task: Any) -> Call:
        """Return an item for a call, with the options of its task."""
        call = Call(task._number, encoded, context, task)
        options = task._options
        if options is not None:
            call.priority = options.priority
            if _retries_crash(options):
                call.tries = options.retries - task._attempt + 1
            if options.timeout is not None:
                call.watched |= wire.WATCHED
            if options.name is not None:
                call.watched |= wire.NAMED
        if self.listeners or self.task_timeout is not None or self.worker_timeout is not None or task._is_watched():
            call.watched |= wire.WATCHED
        return call

    def watch(self, call: Call) -> None:
        """Let the worker tell when this call begins, although it was not asked to when the call was submitted. Any thread."""

        def watch() -> None:
            call.watched |= wire.WATCHED
            known = self._is_known(call)
            process = call.process
            if process is None or not known:
                return
            if process.is_running(call):
                call.task._emit(TaskEventType.STARTED)
            else:
                self._feed(st.RecallRequested(call))

        self.post(watch)

    def kill(self, call: Call) -> None:
        """End the worker that runs this call; cancel the call if it waits. Any thread."""
        self.post(partial(self._kill_call, call))

    def _kill_call(self, call: Call) -> None:
        if self._is_known(call):
            self._feed(st.KillRequested(call))

    def _is_known(self, call: Call) -> bool:
        """Return True if the call has not finished. Order: what submitting threads have sent is absorbed first, else it would look finished."""
        if call.place is None:
            self._feed(None)
        return call.place is not None

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
        else:
            port.wake()
        if self.ended:
            self._sweep()

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._thread is None and not self.ended:
                port = ports.new_port()
                thread = threading.Thread(target=self._run, args=(port,), name="wetlands-io", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    port.close()
                    raise
                self._thread = thread
                self._port = port

    def cancel(self, call: Call) -> bool:
        """Take the call out of the queue, or ask it to stop; True if it will not run. Waits for the I/O thread to decide."""
        if self.forked:
            return False
        if threading.current_thread() is self._thread:  # a finalizer that the garbage collector ran here
            self.cancel_all([call])
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

    def cancel_all(self, calls: Sequence[Call]) -> None:
        """Take calls out of the queue, or ask them to stop, without waiting for the answers."""

        def cancel() -> None:
            for call in calls:
                if self._is_known(call):
                    self._feed(st.CancelRequested(call))

        if calls:
            self.post(cancel)

    def forget(self, definition: payload.Definition) -> None:
        """Let all workers drop a function that will not be called again."""

        def forget() -> None:
            for process in self.processes.values():
                process.forget(definition)

        self.post(forget)

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
        self.post(partial(self._limit_run, seconds))

    def _limit_run(self, seconds: float | None) -> None:
        self._run_limit += 1
        if seconds is not None:
            self._set_timer(seconds, partial(self._end_run, self._run_limit, seconds))

    def _end_run(self, limit: int, seconds: float) -> None:
        if limit != self._run_limit:
            return  # lifted or replaced meanwhile
        error = f"the run was limited to {seconds:g} s (set_timeout)"
        for task in list(self.dependents):
            if task._gate:
                task._gate.clear()
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

    @property
    def started(self) -> bool:
        """True once the I/O thread runs."""
        return self._thread is not None

    def later(self, delay: float, job: Callable[[], object]) -> None:
        """Run ``job`` on the I/O thread after ``delay`` seconds."""
        self.post(partial(self._set_timer, delay, job))

    def _cancel(self, call: Call, reply: Callable[[bool], object]) -> None:
        if self.ended or not self._is_known(call):
            reply(call.task.cancelled())
            return
        self._replies.setdefault(call, []).append(reply)
        self._feed(st.CancelRequested(call))

    def launch(self, wait: bool) -> None:
        """Start all workers; raise why if none can be started."""
        if self.forked:
            raise RuntimeError("this executor belongs to the process that forked this one: make a new one here")
        lock = threading.Lock()
        lock.acquire()
        errors: list[BaseException] = []

        def begin() -> None:
            if self._state.status is not st.Status.OPEN:
                lock.release()
                return
            self._launch_waiters.append((lock, errors))
            self._feed(st.LaunchRequested())
            self._check_launched()

        self.post(begin)
        if wait:
            lock.acquire()
            if errors:
                raise errors[0]

    def _check_launched(self) -> None:
        state = self._state
        if state.ready == state.max_workers or state.status is not st.Status.OPEN:
            self._answer_launch(None)

    def _answer_launch(self, error: BaseException | None) -> None:
        waiters, self._launch_waiters = self._launch_waiters, []
        for lock, errors in waiters:
            if error is not None:
                errors.append(error)
            lock.release()

    def shutdown(self, *, cancel_pending: bool = False) -> None:
        """Accept nothing more and end when everything is done. Does not wait: a finalizer may call it."""
        self.refusing = True
        for task in list(self.unstarted):
            task._cancel_at_gate()
        if cancel_pending:
            for task in list(self.dependents):
                task._cancel_at_gate()
        self.post(partial(self._feed, st.ShutdownRequested(cancel_pending)))

    def terminate(self, *, kill: bool) -> None:
        """End all workers now: running calls are lost, the others cancelled."""
        self.refusing = True
        for task in [*self.unstarted, *self.dependents]:
            task._cancel_at_gate()
        self.post(partial(self._terminate, kill))

    def _terminate(self, kill: bool) -> None:
        if not kill:
            for process in self.processes.values():
                process.process.terminate()
        self._feed(st.TerminateRequested())

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all workers are gone and everything was delivered; True if so. Not from a thread that delivers."""
        thread = self._thread
        if thread is None or thread is threading.current_thread() or self.forked:
            return True
        current = threading.get_ident()
        if current in (self.output.ident, self.callbacks.ident) or threading.current_thread().name == "wetlands-decode":
            return self.workers_gone.wait(timeout)  # delivery waits for this very thread
        if not self.finished.wait(timeout):
            return False
        thread.join()  # it has nothing left to do; an interrupt here harms nobody
        return True

    def ask_running(self, signal_number: int | None) -> None:
        """Ask every running call to stop: by its flag, or by a signal to its worker."""

        def ask() -> None:
            self._feed(None)
            for process in self.processes.values():
                for call in list(process.calls.values()):
                    if process.is_running(call):
                        if signal_number is None:
                            process.request_cancel(call)
                        else:
                            process.interrupt(call, signal_number)

        self.post(ask)

    # --- the I/O thread

    def _run(self, port: ports.Port) -> None:
        self._port = port
        try:
            while True:
                self._drain_posted()
                if self._state.status is st.Status.CLOSED and not self.processes and not self._starts:
                    break
                self._publish()
                for callback in port.wait(self._until_timer(), self._posted):
                    callback()
                self._fire_timers()
        except BaseException as error:  # a bug of ours: nobody may wait for ever because of it
            LOGGER.critical("wetlands_executor: the pool's I/O thread failed; this is a bug, please report it", exc_info=True)
            self._fail_everything(error)
        self._end(port)

    def _drain_posted(self) -> None:
        posted = self._posted
        while posted:
            calls: list[Call] = []
            job: Call | Callable[[], object] | None = None
            while posted:
                job = posted.popleft()
                if not isinstance(job, Call):
                    break
                calls.append(job)
                job = None
            if calls:
                self._feed(st.Submitted(calls))
            if job is not None and not isinstance(job, Call):
                job()

    def _absorb(self, process: WorkerProcess) -> None:
        """Tell the state what submitting threads have written to a worker."""
        if process.sent_directly:
            self._feed(None)

    def _publish(self) -> None:
        """Tell the submitting threads what they may do. Order: after this, `_posted` is looked at once more before the thread sleeps."""
        state = self._state
        if state.waiting_count or state.status is not st.Status.OPEN or state.credit == 1 or state.tasks_per_worker is not None:
            # Where an item cannot be taken back, or where they are counted, a second one at the same moment would do harm.
            self.lanes = ()
        else:
            lanes = tuple(self.processes[slot.worker] for slot in reversed(state.idle) if slot.worker in self.processes)
            for process in lanes:
                process.lane_open = True
            self.lanes = lanes
        self.hungry = state.can_act

    def _feed(self, event: st.Event | None) -> None:
        """Let the state decide, and do what it says. Order: what submitting threads have sent comes before any other news."""
        queue: deque[st.Event] = deque()
        for process in self.processes.values():
            if process.sent_directly:
                queue.extend(st.SentDirectly(process.worker, call) for call in process.absorb())
        if event is not None:
            queue.append(event)
        while queue:
            for action in self._state.handle(queue.popleft()):
                answer = self._PERFORM[type(action)](self, action)
                if answer is not None:
                    queue.append(answer)

    def _until_timer(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _set_timer(self, delay: float, job: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._timer_ids), job))

    def _fire_timers(self) -> None:
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()

    # --- actions

    def _start_worker(self, action: st.StartWorker) -> None:
        self._starts[action.worker] = action.index
        self.starter.put(partial(self._spawn, action.worker, action.index))

    def _spawn(self, worker: int, index: int) -> None:
        """Start a process; on the starter thread, because activation runs a shell and exec takes a millisecond."""
        try:
            argv, env, cwd = self._launch(index)
            process: spawn.Process | BaseException = spawn.Process(argv, env, cwd)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is why the worker cannot start
            process = error
        self.post(partial(self._spawned, worker, index, process))

    def _spawned(self, worker: int, index: int, process: spawn.Process | BaseException) -> None:
        self._starts.pop(worker, None)
        if isinstance(process, BaseException):
            self._abandoned.discard(worker)
            self._reasons[worker] = self._start_error(f"{type(process).__name__}: {process}", "", process)
            transient = isinstance(process, (BlockingIOError, MemoryError)) or getattr(process, "errno", None) in (11, 12, 23, 24)
            self._feed(st.WorkerExited(worker, (), final=not transient))
            return
        nonce = secrets.randbits(32)
        assert self._port is not None
        mine = self.processes[worker] = WorkerProcess(worker, index, process, self._port, nonce)
        mine.streams = (OutputStream("stdout"), OutputStream("stderr"))
        port = self._port
        for fd, stream in zip((process.stdout, process.stderr), mine.streams, strict=True):
            port.add_reader(fd, ports.OUTPUT, partial(self._on_output, mine, fd, stream))
        port.add_reader(process.results, ports.RESULTS, partial(self._on_results, mine))
        port.add_reader(process.exit, ports.EXIT, partial(self._on_exit, mine))
        mine.send_raw(bundle.source())
        mine.send_record(wire.CONFIG, 0, self._config(mine))
        mine.flush()
        self._set_timer(self._start_timeout, partial(self._check_started, mine))
        if worker in self._abandoned:
            self._abandoned.discard(worker)
            mine.stopping = True
            mine.kill()

    def _config(self, process: WorkerProcess) -> bytes:
        context = payload.current_context()
        process.sent_context = context.number
        data, code = self._initializer or (None, None)
        return pickle.dumps(
            {
                "nonce": process.nonce,
                "magic": payload.MAGIC,
                "surroundings": context.data,
                "context": context.number,
                "authkey": bytes(multiprocessing.current_process().authkey),
                "preload": self._preload,
                "initializer": data,
                "initializer_code": code,
                "index": process.index,
            },
            4,
        )

    def _check_started(self, process: WorkerProcess) -> None:
        if not process.ready and self.processes.get(process.worker) is process and process.worker not in self._reasons:
            self._reasons[process.worker] = self._start_error(
                f"it was not ready within {self._start_timeout:g} s (start_timeout)", process.stderr_tail()
            )
            process.kill()

    def _dispatch(self, action: st.Dispatch) -> st.Event | None:
        process = self.processes[action.worker]
        calls: list[Call] = list(action.items)  # type: ignore[arg-type]
        refused = None
        if process.foreign:
            refused = [call for call in calls if call.encoded.by_value is not None]
            for call in refused:
                call.task._settle(None, self._code_error(process, call))
            calls = [call for call in calls if call.encoded.by_value is None]
        if calls:
            if self.worker_timeout is not None and not process.calls:
                self._watch_silence(process)
            process.send_calls(calls)
        return st.ItemsFinished(action.worker, refused) if refused else None

    def _code_error(self, process: WorkerProcess, call: Call) -> BaseException:
        theirs = (process.hello or {}).get("version", "another version")
        return pickle.PicklingError(
            f"{call.encoded.by_value} would have to travel as code, and this process runs Python {python_version()}, {self.what} "
            f"Python {theirs}: bytecode is never sent across. Put it into a module or file that the worker can import "
            '(submit("file.py:function", ...)), or use an environment with the same Python version'
        )

    def _recall(self, action: st.Recall) -> st.Event:
        process = self.processes[action.worker]
        if not process.close_lane():
            # A submitting thread is inside, perhaps interrupted by a signal: what it writes cannot be told from what was there.
            return st.Recalled(action.worker, ())
        for call in process.absorb():
            # Within an action: the state is between two events, and while it recalls this slot it only takes note.
            self._state.handle(st.SentDirectly(process.worker, call))
        return st.Recalled(action.worker, process.take_back())

    def _send_cancel(self, action: st.SendCancel) -> None:
        process = self.processes[action.worker]
        call: Call = action.item  # type: ignore[assignment]
        process.request_cancel(call)
        options = call.task._options
        grace = options.cancel_grace if options is not None and options.cancel_grace is not None else self.cancel_grace
        if grace is not None and not call.task._escalating:
            call.task._escalating = True
            self._set_timer(grace, partial(self._escalate, call, grace))

    def _escalate(self, call: Call, grace: float) -> None:
        """The call has not stopped at the request: interrupt it, and if that does not help, end its worker."""
        process = call.process
        if process is None or self.processes.get(process.worker) is not process or call.number not in process.calls:
            return
        call.task._interrupted = True
        process.interrupt(call, signal.SIGINT)
        self._set_timer(grace, partial(self._end_escalation, call))

    def _end_escalation(self, call: Call) -> None:
        process = call.process
        if process is not None and self.processes.get(process.worker) is process and call.number in process.calls:
            call.task._verdict = True
            self._kill_call(call)

    def _stop_worker(self, action: st.StopWorker) -> None:
        process = self.processes[action.worker]
        process.stop()
        self._set_timer(STOP_GRACE, partial(self._kill_if_alive, process))

    def _kill_worker(self, action: st.KillWorker) -> None:
        process = self.processes.get(action.worker)
        if process is None:
            self._abandoned.add(action.worker)  # it is being started
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
            call.task._settle_cancelled()  # type: ignore[attr-defined]

    def _cancel_answered(self, action: st.CancelAnswered) -> None:
        for reply in self._replies.pop(action.item, ()):
            reply(action.done)

    def _lost(self, action: st.Lost) -> None:
        call: Call = action.item  # type: ignore[assignment]
        task = call.task
        if call.deciding:
            return  # its outcome is known; a decoder thread is dealing with it
        verdict = task._verdict
        if verdict is True:
            self._hand_over(task._settle_cancelled)
            return
        error = self._reasons[action.worker] if verdict is None else self._with_stacks(verdict)
        self._hand_over(partial(task._settle, None, error))

    def _with_stacks(self, verdict: Any) -> BaseException:
        error: BaseException = verdict(self._stacks)
        if self._stacks:
            error.args = (f"{error.args[0]}; its Python stacks at that moment:\n{self._stacks}", *error.args[1:])
        return error

    def _retried(self, action: st.Retried) -> None:
        call: Call = action.item  # type: ignore[assignment]
        call.process = None
        call.task._next_attempt(None)

    def _start_failed(self, action: st.StartFailed) -> None:
        error = self._reasons[action.worker]
        for call in action.items:
            call.task._settle(None, _copy_error(error))  # type: ignore[attr-defined]
        self._answer_launch(error)

    def _broken(self, action: st.Broken) -> None:
        error = self._reasons.get(action.worker) or BrokenProcessPool("the initializer of a worker failed; the pool is not usable any more")
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
        st.Recall: _recall,
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

    # --- the end of the pool

    def _end(self, port: ports.Port) -> None:
        """Deliver what is under way and let everybody go who waits. Runs last on the I/O thread."""
        self.lanes = ()
        self._answer_launch(None)
        for process in list(self.processes.values()):
            process.process.close()
        self.processes.clear()
        self.starter.end()
        self.ended = True
        self._sweep()
        self.workers_gone.set()
        self._port = _EndedPort()  # type: ignore[assignment] # nobody waits there any more; what is posted now runs in its caller
        port.close()
        self.output.end()
        self.decoders.end()
        self.callbacks.end()
        self.finished.set()

    def _sweep(self) -> None:
        """Deal with what was posted too late; any thread. Each entry is taken by exactly one."""
        while self._posted:
            try:
                late = self._posted.popleft()
            except IndexError:
                return
            if isinstance(late, Call):
                late.task._settle_cancelled()
                continue
            try:
                late()
            except Exception:  # a bug of ours; the others who wait must get their answers all the same
                LOGGER.critical("wetlands_executor: %r failed at the end of the pool; this is a bug, please report it", late, exc_info=True)

    def _fail_everything(self, error: BaseException) -> None:
        """After a bug in this file: kill all workers and fail every task that is known, so that nobody waits for ever."""
        self.refusing = True
        self.broken = failure = BrokenProcessPool(f"the pool of {self.what} failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        calls: dict[Any, None] = dict.fromkeys(self._state._take_waiting())
        for process in self.processes.values():
            process.absorb()
            calls.update(dict.fromkeys(process.calls.values()))
            process.kill()
            process.process.reap()
        for slot in self._state.slots:
            calls.update(dict.fromkeys(slot.held))
        for call in calls:
            call.task._settle(None, failure)
        for replies in self._replies.values():
            for reply in replies:
                reply(False)
        self._replies.clear()
        self._state.status = st.Status.CLOSED

    def after_fork_in_child(self) -> None:
        """Let go of everything: the pool belongs to the parent (``spawn`` closes the descriptors)."""
        self._port = _EndedPort()  # type: ignore[assignment]
        self.refusing = True
        self.ended = True
        self.lanes = ()
        self.processes = {}
        self._posted.clear()

    @property
    def forked(self) -> bool:
        """True in a child that the host has forked: the pool belongs to the parent."""
        return self.pid != os.getpid()


class _EndedPort:
    """Stands where the port was."""

    sleeping = False

    def wake(self) -> None:
        """Wake nobody."""

    def fds(self) -> set[int]:
        """Return no descriptors."""
        return set()


def _retries_crash(options: CallOptions) -> bool:
    """Return True if the end of the worker is among the failures after which the call is run again."""
    if not options.retries:
        return False
    wanted = options.retry_on
    if isinstance(wanted, (type, tuple)):
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        return any(issubclass(kind, kinds) for kind in (WorkerCrashed, WorkerUnresponsive, TaskTimeoutError))
    # A function cannot be asked here, on the I/O thread; the end of a worker counts as wanted.
    return True


def _copy_error(error: BaseException) -> BaseException:
    """Return an equal exception: each task raises its own, because raising one writes its traceback."""
    try:
        copy = type(error)(*error.args)
    except Exception:  # noqa: BLE001 - an __init__ with another signature: then the tasks share it
        return error
    copy.__cause__ = error.__cause__
    return copy


def _after_fork_in_child() -> None:
    spawn.close_all()
    for pool in list(_pools):
        pool.after_fork_in_child()


spawn.at_fork(_after_fork_in_child)


_exiting = False


def exiting() -> bool:
    """Return True once the interpreter is going down: nothing new can be scheduled."""
    return _exiting


def _finish_at_exit() -> None:
    """Do what the standard library does at interpreter exit: finish what was submitted."""
    global _exiting  # a fact about the process
    _exiting = True
    pools = [pool for pool in _pools if not pool.forked]
    for pool in pools:
        pool.shutdown()
    for pool in pools:
        pool.join()


# Before threading joins its threads, as concurrent.futures does it (bpo-39812); atexit would come too late for callbacks that start threads.
getattr(threading, "_register_atexit", atexit.register)(_finish_at_exit)
