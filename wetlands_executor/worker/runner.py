"""The main loop of a worker: one frame, one call, one result, on its only thread.

1. ``main`` opens the channel, reads the host's configuration, says hello, runs preload and
   initializer, says ready (``startup.py``).
2. ``Runner.loop`` reads one frame from the inbox (the kernel hands it to one reader only), writes
   its item on the shared page (that is what makes the task RUNNING for the host), finds the
   function (``definitions.py``), calls it and sends the result (``answers.py``) before it looks at
   the next frame.
3. The end of the inbox is the request to stop: buffers are flushed, exit hooks run, and the process
   ends.

The request to cancel is one store by the host into the shared page; nothing here has to wake up for
it.

SIGINT is a KeyboardInterrupt in a running call, once, and nothing outside one: an idle worker must
survive a Ctrl-C that reaches its process group, and none may land in this module's own steps.
``interruptible`` is the item that may be interrupted; the handler clears it before it raises, so
that a second signal cannot hit the lines that deal with the first. An interrupt that the host sends
names its item on the shared page and is ignored in any other.
"""

from __future__ import annotations

import os
import sys

# The C half of ``signal``: the Python half makes enums of everything, which costs 3 ms of a start
# and 2 us of every call.
from _signal import SIGINT, default_int_handler, getsignal
from _signal import signal as set_signal
from _thread import RLock, get_ident
from time import monotonic_ns

from . import alarms, running, shared_page, startup, stdio, threads, wire
from .answers import Answers
from .calls import dumps, dumps_error, dumps_pieces, loads, loads_rich
from .channel import STOLEN, Channel, ChannelLost, StreamBroken, describe, identity
from .coroutines import COROUTINE, run_coroutine
from .current_task import RemoteTaskHandle
from .definitions import Definitions
from .progress import Progress

# What every call needs, without an attribute look-up each time.
from .system import move_life, move_up, register_at_fork
from .wire import CANCELLED, MADE, MANY, NO_REFERENCES, NONE, OBJECTS, RUN, STARTED_NS, TAKEN

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple


getpid = os.getpid
#: Flags of calls whose payload any unpickler reads, and which need nothing else.
_READY = (NO_REFERENCES, NO_REFERENCES | MADE, OBJECTS)
_SIMPLE = frozenset((int, float, bool))
HEAD = wire.CALL.size
_NO_CALL: Any = (None, (), None)


class Runner:
    """The call that runs, and the parts that serve it.

    Invariant: between two calls ``item`` is 0, and the serial changes only then. Threads: the main
    thread, but for what is said to be read by threads of the task.

    Attributes:
        channel: the pipes.
        page: the shared page.
        definitions: what the host has told this worker: functions, settings, pieces.
        answers: sends outcomes to the host.
        progress: reports of the running call.
        item: the running call; 0 between calls. Read by threads of the task.
        serial: of the running call, or of the last one; see ``threads``.
        thread: the main thread.
        interruptible: the item that a SIGINT may interrupt now; 0 is none.
        acknowledged: the serial of the call whose function has called ``task.cancel()``.
        interrupted: the item that the host has interrupted.
    """

    def __init__(self, fds: List[int]) -> None:
        inbox, bulk, results = map(move_up, fds[:3])
        self.page = shared_page.attach(fds[4])
        self.channel = Channel(inbox, bulk, results, self.page.words)
        self.life = move_life(fds[3])
        #: Files of large arguments and results, -1 where there are none; what they were; what
        #: serves them, from the first use on; whether arguments and results travel in them (else
        #: arrays of ``share()`` only).
        self.shared = [move_up(fd) if fd >= 0 else fd for fd in fds[5:7]]
        self._identities = [identity(fd) for fd in self.shared]
        self.answers = Answers(
            self.channel, self.page, move_up(fds[7]) if len(fds) > 7 and fds[7] >= 0 else -1
        )
        self.buffers: Any = None
        self.nested: Any = None  # serves what its functions submit, from the first time on
        self._making = RLock()
        # The last call of a nested task: its large results go into lent blocks.
        self._nested_item = 0
        self.carries = False
        self.config: Any = {}  # a WorkerConfig, once it has come
        self.pid = os.getpid()
        self.progress = Progress(self.channel, self.page)
        self.thread = get_ident()
        self.serial = 0
        threads.CALL.set(0)  # in a fork, something else may have been left there
        self.definitions = Definitions(self.channel)
        self.item = 0
        self.interruptible = 0
        self.acknowledged = 0
        self.forked = False
        self.interrupted = 0
        #: The call that has just ended has printed something, or has changed its streams.
        self.printed = False
        self.name = ""
        self._call: Tuple[Any, Any, Any] = _NO_CALL
        # one object: making a bound method for every call costs more than comparing it
        self._handler = self.on_sigint

    # --- start

    def start(self, forked: bool) -> bool:
        """Read the configuration, say hello, prepare; True if the worker may take calls."""
        config = startup.greet(self.channel)
        self.config = config
        self.carries = config["carries"] and self.shared[1] >= 0
        self.definitions.begin(config["settings_number"])
        return startup.prepare(config, self, forked)

    # --- the loop

    def loop(self) -> None:
        """Serve frames until the inbox ends.

        Guarantee: whatever is raised here outside a call (by a signal handler that a task has left,
        or in this thread by another one) ends the process. Nothing can be said then of what has
        been read, and of what has been written.
        """
        try:
            self._serve()
        except (ChannelLost, SystemExit) as end:
            if isinstance(end, StreamBroken):
                self.page.words[TAKEN] = 0  # the host reads that this call has not begun
            raise
        except BaseException as error:
            raise ChannelLost("%s was raised between two calls" % describe(error)) from error

    def _serve(self) -> None:
        channel = self.channel
        set_call = threads.CALL.set
        armed = alarms.armed
        next_frame, unpack, answer = channel.next_frame, wire.CALL.unpack_from, self.answers.send
        words = self.page.words
        (direct, expected), step, bits = wire.marks(channel.nonce), wire.MARK_STEP, wire.MARK_BITS
        while True:
            frame = next_frame()
            if not frame:
                return
            kind, flags, length, function_id, settings, item, mark = unpack(frame)
            if mark != direct:
                if mark != expected:
                    raise StreamBroken(STOLEN)  # Order: before anything of the frame is believed
                expected = mark + step & bits
            if kind != RUN:
                _obey(self, kind, item)
                if kind != wire.RUN_NESTED:
                    continue  # or a request to cancel a call that has ended meanwhile
                self._nested_item = item
            if flags & MANY:
                self._run_many(frame, flags, length, function_id, settings, item)
                continue
            start = monotonic_ns()
            words[STARTED_NS] = start
            words[TAKEN] = item
            self.serial = serial = self.serial + 1
            set_call(serial)
            self.item = item
            sent = channel.sent
            try:
                outcome, payload = self._run(frame, flags, length, function_id, settings, item)
                if armed:
                    alarms.clear()
            except ChannelLost:
                raise
            except BaseException as error:  # noqa: BLE001
                # Race: a signal came between the call's end and the lines that end its right to
                # raise
                outcome, payload = self.fail_late(error, item)
            lasted = monotonic_ns() - start
            frame = b""
            if getpid() != self.pid:
                os._exit(0)  # forked by C code, which runs no hooks
            # Objects of which no finalizer can print: to let go of many takes long, and the host
            # need not wait for it.
            quiet = flags & NO_REFERENCES or (flags & wire.BLOCKS and self.buffers.quiet)
            plain: Any = self._call if quiet else None
            if self.conclude(item) and outcome != CANCELLED:
                outcome, payload = CANCELLED, b""
            answer(outcome, payload, item, lasted, sent, self.printed)
            payload = b""  # what is large must not live until the next call
            del plain

    def conclude(self, item: int) -> bool:
        """Clear up after a call: what it printed and reported goes before its outcome.

        Return True if it has acknowledged its cancellation.
        """
        if getsignal(SIGINT) is not self._handler:
            # Libraries put Python's own handler in place; between calls, and in the next one, ours
            # has to stand.
            set_signal(SIGINT, self._handler)
        if self.forked:
            # a child that the task has forked came back out of it: it must not go on as a second
            # worker
            os._exit(0)
        progress = self.progress
        if progress.item:
            progress.finish(item)
        if self.nested is not None:
            self.nested.end_call(item)
        self.item = 0
        self._call = _NO_CALL
        self.name = ""
        self.printed = stdio.finish_task()
        return self.acknowledged == self.serial

    def fail_late(self, error: BaseException, item: int) -> Tuple[int, bytes]:
        """Return the outcome of a call at whose very end a signal handler has raised."""
        self.interruptible = 0
        alarms.clear()
        return self.failure(error, item)

    def _run_many(
        self, frame: bytes, flags: int, length: int, function_id: int, settings: int, item: int
    ) -> None:
        """Find the function and the arguments of a frame of many, and make the calls."""
        self.page.words[wire.TAKEN] = item | 1 << wire.NUMBER_BITS
        failure: Any = None
        function: Any = None
        self.serial += 1
        threads.CALL.set(self.serial)
        # importing the function is the first call's business
        self.item = item | 1 << wire.NUMBER_BITS
        known = self.definitions
        if settings != known.settings_number:
            known.read_until(wire.SETTINGS, settings)
        data = self._payload_of(frame, flags, length, item)
        try:
            function = known.functions.get(function_id)
            if function is None:
                function = known.define(function_id)
        except ChannelLost:
            raise
        except BaseException as error:  # noqa: BLE001
            # importing the function is user code; it fails every one of these calls
            failure = error
        from .batch import make_calls

        where = known.task_positions.get(function_id)
        make_calls(self, item, function, where, data, flags, failure)

    def run_one(
        self, function: Any, where: Any, args: Any, item: int, load: Any
    ) -> Tuple[int, bytes]:
        """Make one of many calls; ``args`` is a tuple, or what ``load`` makes one of.

        As ``_run``.
        """
        try:
            self.interruptible = item
            if type(args) is not tuple:
                args = load(args)
            kwargs: Any = None
            self._call = (function, args, None)
            if where is not None:
                args, kwargs = _with_task(where, args, None, RemoteTaskHandle(item, self.serial))
                box = [function(*args, **kwargs) if kwargs else function(*args)]
            else:
                value = function(*args)
                if type(value) in _SIMPLE:
                    payload = dumps(value, 5)
                    self.interruptible = 0
                    return wire.VALUE, payload
                box = [value]
                value = None
            args = kwargs = None
            return self._outcome_of(box)
        except ChannelLost:
            raise
        except BaseException as error:  # noqa: BLE001
            # whatever the task raises is the task's outcome
            self.interruptible = 0
            return self.failure(error, item)

    def _outcome_of(self, box: List[Any]) -> Tuple[int, bytes]:
        """Pickle what a call has returned; ``box`` holds the only reference to it.

        An argument that comes back is handed back without a copy.
        """
        value = box.pop()
        if type(value) is COROUTINE:
            value = run_coroutine(value)
        if value is None:
            self.interruptible = 0
            return NONE, b""
        if type(value) in _SIMPLE:
            payload = dumps(value, 5)
            self.interruptible = 0
            return wire.VALUE, payload
        raws: Any = [] if self.carries else None
        pieces = dumps_pieces(value, self.channel.by_value, raws)
        self.interruptible = 0
        if raws or (len(pieces) > 1 and raws is not None and pieces.size > wire.CROSSOVER):
            value = None
            if raws:  # one of them may be an argument's
                self._call = _NO_CALL
            lent = None
            if self._nested_item == self.item:
                from .shm_lent import for_result

                lent = for_result(self)
            outcome: Tuple[int, bytes] = self.use_buffers().send(pieces, raws, lent)
            return outcome
        return wire.VALUE, pieces.whole()

    def _run(
        self, frame: bytes, flags: int, length: int, function_id: int, settings: int, item: int
    ) -> Tuple[int, bytes]:
        """Make the call of a frame; return (kind of result frame, payload).

        What escapes is the channel's end, or was raised by a signal handler at the very end of the
        call.
        """
        try:
            known = self.definitions
            function = known.without_handle.get(function_id)
            args: Any = ()
            # the way of most calls
            if function is not None and flags in _READY and settings == known.settings_number:
                self.interruptible = item
                if flags != NO_REFERENCES:
                    function, args, _, _ = _made(function, loads(frame[HEAD : HEAD + length]), None)
                elif length:
                    args = loads(frame[HEAD : HEAD + length])[0]
                self._call = (function, args, None)
                return self._outcome_of([function(*args)])
            if settings != known.settings_number:
                known.read_until(wire.SETTINGS, settings)
            payload, load = self._pickle_of(frame, flags, length, item)
            kwargs: Any = None
            if function_id:
                function = known.functions.get(function_id)
                if function is None:
                    function = known.define(function_id)
                self.interruptible = item
                where = known.task_positions[function_id]
                if flags & MADE:
                    function, args, kwargs, where = _made(function, load(payload), where)
                elif payload:
                    args, kwargs = load(payload)
            else:
                self.interruptible = item
                function, args, kwargs, where = _whole(*load(payload))
            payload = load = None
            self._call = (function, args, kwargs)
            if flags & wire.WATCHED:
                self.page.words[wire.STARTED_NS] = monotonic_ns()
                self.channel.send(wire.STARTED, item)
            if where is not None:
                args, kwargs = _with_task(where, args, kwargs, RemoteTaskHandle(item, self.serial))
            if known.contexts:
                function = self._within(function, item)
            box = [function(*args, **kwargs) if kwargs else function(*args)]
            args = kwargs = None
            return self._outcome_of(box)
        except ChannelLost:
            raise
        except BaseException as error:  # noqa: BLE001
            # whatever the task raises is the task's outcome
            self.interruptible = 0
            return self.failure(error, item)

    def _within(self, function: Any, item: int) -> Any:
        """Return a function that runs in what the call takes along of its caller's context."""
        carried = self.definitions.contexts.pop(item, None)
        # Those of calls that the host has reclaimed since.
        self.definitions.contexts.clear()
        if carried is None:
            return function
        from .contexts import within

        return within(carried, function, self.task_name(), str(item))

    def _pickle_of(self, frame: bytes, flags: int, length: int, item: int) -> Tuple[Any, Any]:
        """Return the pickle of a call, and what unpickles it; note the name of its task."""
        if flags & wire.NAMED:
            name = self.definitions.read_until(wire.NAME, item)
            self.name = name.decode("utf-8", "surrogatepass")
        payload = self._payload_of(frame, flags, length, item)
        if flags & wire.BLOCKS:
            pickle_and_reader: Tuple[Any, Any] = self.use_buffers().receive(payload, flags)
            return pickle_and_reader
        return payload, loads if flags & wire.NO_REFERENCES else loads_rich

    def _payload_of(self, frame: bytes, flags: int, length: int, item: int) -> Any:
        if flags & wire.IN_BULK:
            if not length:
                return self.definitions.read_until(wire.PAYLOAD, item)
            size = int.from_bytes(frame[HEAD : HEAD + length], "little")
            return self.page.arguments[:size]
        return frame[HEAD : HEAD + length]

    def use_buffers(self) -> Any:
        """Return what serves the files of large arguments and results. Any thread."""
        if self.buffers is None:
            from .shm_buffers import SharedBuffers

            me, limit = self.config["incarnation"], self.config["arena_limit"]
            with self._making:
                if self.buffers is None:
                    self.buffers = SharedBuffers(self.shared, self._identities, me, limit)
        return self.buffers

    def use_nested(self) -> Any:
        """Return what serves the tasks that functions submit.

        Raises:
            RuntimeError: this is a process that a task has forked.
        """
        if self.forked:
            raise RuntimeError(running.IN_FORK)
        if self.nested is None:
            from .nested import Nested

            with self._making:
                nested = Nested(self)
                if self.nested is None:  # no other thread, and no finalizer meanwhile
                    self.nested = nested
                    nested.start()
        return self.nested

    def executor(self) -> Any:
        """Return the executor whose pool runs the call."""
        from .remote_executor import executor_of

        return executor_of(self.config)

    def running_function(self) -> Any:
        """Return the function of the running call, and its number if the host can go by that."""
        function = self._call[0]
        numbers = [
            number for number, known in self.definitions.functions.items() if known is function
        ]
        return function, numbers[0] if len(numbers) == 1 else 0

    def failure(self, error: BaseException, item: int) -> Tuple[int, bytes]:
        """Return (kind of result frame, payload) of a call that has raised."""
        if self.acknowledged == self.serial or (
            self.interrupted == item and isinstance(error, KeyboardInterrupt)
        ):
            return wire.CANCELLED, b""
        if isinstance(error, SystemExit):
            stdio.renew_stdin()  # exit() has closed it
        return wire.ERROR, dumps_error(error, self.channel.by_value)

    def drop_stale(self, kept: Any = None) -> None:
        """Let functions by value be read again when they are called, but for ``kept``."""
        self.definitions.drop_stale(kept)

    def read_piece(self, number: int) -> None:
        """Read records up to a piece that a stream refers to.

        A signal does not interrupt that: the pipe would be out of step.
        """
        interruptible, self.interruptible = self.interruptible, 0
        try:
            self.definitions.read_until(wire.PIECE, number)
        except StreamBroken as error:
            # The call has begun: arguments are unpickled, which is user code.
            raise ChannelLost(str(error)) from error
        self.interruptible = interruptible

    # --- what the running task asks (any of its threads)

    def acknowledge(self, serial: int) -> None:
        """Note that the function of a call has called ``task.cancel()``."""
        self.acknowledged = serial

    def cancel_requested(self, item: int) -> bool:
        """Return True if the host has asked to cancel this item."""
        if not self.page.shared:
            self._look_for_cancel()
        return self.page.words[wire.CANCEL_WORD] == item & wire.NUMBER

    def _look_for_cancel(self) -> None:
        """Look in the inbox for a request to cancel, where there is no shared page.

        The inbox holds nothing else while a call runs.
        """
        while self.channel.inbox_ready():
            frame = self.channel.next_frame()
            if not frame:
                return
            kind, _flags, _length, _function, _context, item, _mark = wire.CALL.unpack_from(frame)
            if kind == wire.CANCEL:
                self.page.words[wire.CANCEL_WORD] = item

    @property
    def tries(self) -> Tuple[int, int]:
        """A call, and the number of its try; the others that run are first tries."""
        return self.definitions.tries

    def task_name(self) -> str:
        """Return the name of the running call."""
        from .injection import name_of

        return self.name or name_of(self._call[0])

    def inputs(self, defaults: bool = False) -> Dict[str, Any]:
        """Return the arguments of the running call by name; with those that have defaults."""
        from .injection import inputs_of

        return inputs_of(*self._call, defaults)

    # --- signals and forks

    def on_sigint(self, _signum: int, _frame: Any) -> None:
        """Interrupt the running call, or nothing."""
        item = self.interruptible
        if os.getpid() != self.pid:
            raise KeyboardInterrupt
        words = self.page.words
        meant = words[wire.INTERRUPT_WORD]
        if meant:
            words[wire.INTERRUPT_WORD] = 0
            if meant != item & wire.NUMBER:
                return  # it came too late: its call has ended
            self.interrupted = item
        if item:
            self.interruptible = 0
            raise KeyboardInterrupt

    def after_fork_in_child(self) -> None:
        """Leave the pipes to the parent: a child must neither answer nor keep them open."""
        self.forked = True
        self.item = 0  # its handles are inert: a report would go to the pipes of the parent
        pipes = self.channel.inbox, self.channel.bulk, self.channel.results
        for fd in (*pipes, self.life, self.answers.wakeup, *self.shared):
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError:
                    pass  # the task closed it before
        if getsignal(SIGINT) == self._handler:
            set_signal(SIGINT, default_int_handler)


def _give_up(reason: str) -> None:
    """End this process at once: it can serve no more calls.

    Exit hooks and threads of tasks could take for ever.
    """
    try:
        alarms.clear()
        stdio.flush_buffered()
        os.write(
            2,
            b"wetlands_executor: this worker ends, because it has lost its way to the "
            b"host: %s\n" % reason.encode("utf-8", "replace"),
        )
    except OSError:
        pass  # the task has closed descriptor 2
    finally:
        os._exit(wire.EXIT_CHANNEL_LOST)


def _obey(runner: Runner, kind: int, item: int) -> None:
    """Do what a control frame asks for.

    Raises:
        StreamBroken: a task has read a frame that came before it.
    """
    if kind == wire.TRIM and runner.buffers is not None:
        runner.buffers.trim()
    elif kind == wire.TIDY:
        runner.definitions.tidy(item)
    elif kind == wire.PING:
        runner.channel.send(wire.PONG, 0)
    elif kind == wire.AFTER and runner.page.words[TAKEN] & wire.NUMBER != item:
        raise StreamBroken(STOLEN)


_make: Any = None


def _made(function: Any, payload: Any, where: Any) -> Any:
    global _make  # imported with the first of them
    if _make is None:
        from .code_templates import make as _make
    return _make(function, payload, where)


def _with_task(where: Any, args: Any, kwargs: Any, handle: Any) -> Tuple[Any, Any]:
    """Return the arguments with the handle of the task, for a function that asks for it."""
    from .injection import with_handle

    return with_handle(where, args, kwargs, handle)


def _whole(function: Any, args: Any, kwargs: Any) -> Tuple[Any, Any, Any, Any]:
    """Return the parts of a call that came in one pickle, and where its task's handle goes."""
    from .injection import position_of_task

    return function, args, kwargs, position_of_task(function)


def main(fds: List[int], forked: bool = False) -> None:
    """Be a worker until the inbox ends; does not return.

    ``forked``: from a fork server, which has set up the process.
    """
    if not forked:
        stdio.install()
        startup.watch_for_faults()
    runner = Runner(fds)
    set_signal(SIGINT, runner._handler)
    register_at_fork(after_in_child=runner.after_fork_in_child)
    running.enter(runner)
    code = 0
    try:
        if runner.start(forked):
            runner.loop()
        else:
            code = wire.EXIT_START_FAILED
    except ChannelLost as lost:
        # The host is gone, or nothing can be answered any more.
        code = wire.EXIT_CHANNEL_LOST
        if str(lost):
            _give_up(str(lost))
    stdio.flush_buffered()
    sys.exit(code)
