"""The main loop of a worker: one frame, one call, one result, on the only thread there is.

1. ``main`` opens the channel, reads the host's configuration, says hello, runs preload and
   initializer, says ready.
2. ``Runner.loop`` reads one frame from the inbox (the kernel hands it to one reader only), writes
   its item on the shared page (that is what makes the task RUNNING for the host), finds the
   function, calls it and sends the result before it looks at the next frame.
3. The end of the inbox is the order to stop: buffers are flushed, exit hooks run, and the process
   ends.

The order to cancel is one store by the host into the shared page; nothing here has to wake up for
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
from _thread import get_ident
from time import monotonic_ns

from . import alarms, calls, patches, running, shared_page, stdio, threads, wire
from .calls import PicklingError, dumps, dumps_error, dumps_result, loads, loads_rich
from .channel import STOLEN, Channel, ChannelLost, StreamBroken, describe, identity
from .current_task import RemoteTaskHandle
from .progress import Progress

# What every call needs, without a look into the module each time.
from .system import HIGH, move_up, set_blocking, stack_signal
from .wire import (
    ANSWER,
    ANSWER_MOST,
    ANSWERED,
    AWAITED,
    CANCELLED,
    MANY,
    NONE,
    PLAIN,
    RUN,
    STARTED_NS,
    TAKEN,
)

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, List, Set, Tuple

    from .config import ProcessConfig, WorkerConfig


async def _coroutine() -> None:
    """Exist, so that its type can be taken."""


getpid, write = os.getpid, os.write
_SIMPLE = frozenset((int, float, bool))
HEAD = wire.CALL.size
#: Microseconds from which a call may have put a file in the place of a descriptor that is not its.
LONG = 10
#: Outcomes that may go back on the shared page.
_SHORT = (wire.VALUE, wire.NONE)
_ONE = (1).to_bytes(8, sys.byteorder)
_NO_CALL: Any = (None, (), None)

_probe = _coroutine()
_COROUTINE = type(_probe)
_probe.close()


#: The host's project folders and levels of loggers as last received.
_surroundings = b""
#: What this interpreter says of itself; made once.
_description: Dict[str, Any] = {}


class Runner:
    """Everything that a worker knows: its channel, its functions, the call that runs.

    Attributes:
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
        # Elsewhere a thread reads it under its old number (``bootstrap.tie_to_host``).
        self.life = move_up(fds[3]) if fds[3] >= 0 and sys.platform.startswith("linux") else fds[3]
        #: Files of large arguments and results, -1 where there are none; what they were; what
        #: serves them, from the first use on; whether arguments and results travel in them (else
        #: arrays of ``share()`` only).
        self.shared = [move_up(fd) if fd >= 0 else fd for fd in fds[5:7]]
        self._identities = [identity(fd) for fd in self.shared]
        #: Wakes the thread of the host that waits for an answer on the shared page; -1 if there is
        #: none, or a task has closed it.
        self.wakeup = move_up(fds[7]) if len(fds) > 7 and fds[7] >= 0 else -1
        if self.wakeup < HIGH:
            self.wakeup = -1  # a task could close it and get its number for a file
        self.buffers: Any = None
        self.carries = False
        self.config: Any = {}  # a WorkerConfig, once it has come
        self.pid = os.getpid()
        self.progress = Progress(self.channel, self.page)
        self.thread = get_ident()
        self.serial = 0
        threads.CALL.set(0)  # in a fork, something else may have been left there
        self.functions: Dict[int, Any] = {}
        #: Those of them that get no handle.
        self.bare: Dict[int, Any] = {}
        self.definitions: Dict[int, bytes] = {}
        #: Numbers of those that hold the function itself.
        self.by_value: Set[int] = set()
        #: id of a defined function's number -> where its parameter ``task`` stands
        self.task_positions: Dict[int, Any] = {}
        self.context = 0
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
        channel = self.channel
        _kind, _ident, data = channel.read_record()
        config: WorkerConfig = loads(data)
        self.config = config
        channel.configure(config["nonce"], by_value=config["magic"] in (None, _magic()))
        if not channel.by_value:
            calls.use_sources(config["version"])
        self.carries = config["carries"] and self.shared[1] >= 0
        self.context = config["context"]
        channel.send(wire.HELLO, 0, dumps(_describe(), 4))
        from . import imports

        _use_program(config)
        if config["print_frames"]:
            stdio.send_frames(self)
        if forked:
            self._use_context(config["surroundings"])  # the fork server has done the rest
        else:
            surround(config, self)
        for name in config["preload"]:
            try:
                imports.import_named(name)
            except BaseException as error:  # noqa: BLE001
                # any failure of user code ends the start, with its reason
                return self._fail(wire.START_FAILED, error, "preload of %r failed" % name)
        if config["initializer"] is not None and not self._initialize(
            config["initializer"], config["initializer_code"]
        ):
            return False
        stdio.finish_task()
        channel.send(wire.READY, 0)
        return True

    def _initialize(self, payload: bytes, code: Any) -> bool:
        if code is not None and not self.channel.by_value:
            error = PicklingError(
                "the initializer %s would have to travel as code, but this is Python %s and the "
                "host is another version: put it into "
                "a module that the worker can import" % (code, sys.version.split()[0])
            )
            return self._fail(wire.START_FAILED, error, "initializer")
        if self.config["pieces"]:
            from . import objects

            objects.PIECES.update(self.config["pieces"])
        try:
            function, args = loads_rich(payload)
            value = function(*args)
            if type(value) is _COROUTINE:
                _run_coroutine(value)
        except BaseException as error:
            import logging

            logging.getLogger("concurrent.futures").critical(
                "Exception in initializer:", exc_info=True
            )
            return self._fail(wire.INITIALIZER_FAILED, error, "")
        return True

    def _fail(self, kind: int, error: BaseException, reason: str) -> bool:
        stdio.finish_task()
        self.channel.send(kind, 0, dumps_error(error, self.channel.by_value))
        if reason:
            sys.stderr.write(
                "wetlands_executor: %s: %s: %s\n" % (reason, type(error).__name__, error)
            )
        stdio.finish_task()
        return False

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
        next_frame, unpack = channel.next_frame, wire.CALL.unpack_from
        words = self.page.words
        (direct, expected), step, bits = wire.marks(channel.nonce), wire.MARK_STEP, wire.MARK_BITS
        while True:
            frame = next_frame()
            if not frame:
                return
            kind, flags, length, function_id, context, item, mark = unpack(frame)
            if mark != direct:
                if mark != expected:
                    raise StreamBroken(STOLEN)  # Order: before anything of the frame is believed
                expected = mark + step & bits
            if kind != RUN:
                if kind == wire.TRIM and self.buffers is not None:
                    self.buffers.trim()
                if kind == wire.AFTER and words[TAKEN] & wire.NUMBER != item:
                    raise StreamBroken(STOLEN)
                continue  # or an order to cancel a call that has ended meanwhile
            if flags & MANY:
                self._run_many(frame, flags, length, function_id, context, item)
                continue
            start = monotonic_ns()
            words[STARTED_NS] = start
            words[TAKEN] = item
            self.serial = serial = self.serial + 1
            set_call(serial)
            self.item = item
            sent = channel.sent
            try:
                outcome, payload = self._run(frame, flags, length, function_id, context, item)
                if armed:
                    alarms.clear()
            except ChannelLost:
                raise
            except BaseException as error:  # noqa: BLE001
                # Race: a signal came between the call's end and the lines that end its right to
                # raise
                outcome, payload = self.fail_late(error, item)
            frame = b""
            self._answer(outcome, payload, item, start, sent)
            payload = b""  # a large result must not live until the next call

    def _answer(self, outcome: int, payload: bytes, item: int, start: int, sent: int) -> None:
        """Send what came of a call, and make ready for the next.

        If a thread of the host waits for this very call, a short outcome goes onto the shared page
        and the wakeup wakes that thread. But only if nothing of this call went another way before,
        which could be overtaken: no frame (``sent``), and nothing that was printed.
        """
        if getpid() != self.pid:
            os._exit(0)  # forked by C code, which runs no hooks
        if self.conclude(item) and outcome != CANCELLED:
            outcome, payload = CANCELLED, b""
        duration = (monotonic_ns() - start) // 1000
        if duration > 0xFFFFFFFF:
            duration = 0xFFFFFFFF
        if duration > LONG:
            self.channel.verify()
        page = self.page
        words = page.words
        if (
            words[AWAITED] == item
            and outcome in _SHORT
            and self.channel.sent == sent
            and not self.printed
            and len(payload) <= ANSWER_MOST
            and self.wakeup >= 0
        ):
            if payload:
                page.answer[: len(payload)] = payload
            words[ANSWER] = outcome | len(payload) << 8 | duration << 32
            if shared_page.WEAK:
                shared_page.fence()
            words[ANSWERED] = item
            try:
                write(self.wakeup, _ONE)
            except BlockingIOError:
                self._notify_again()
                return
            except OSError:
                # the task has closed it; if a thread of the host has seen the answer all the
                # same, the frame concerns no call
                self.wakeup = -1
            else:
                return
        self.channel.send(outcome, item, payload, duration)

    def _notify_again(self) -> None:
        """Notify although the task has filled the counter, and has made it non-blocking.

        It is blocking afterwards.
        """
        try:
            os.read(self.wakeup, 8)
        except BlockingIOError:
            pass  # the host has read it meanwhile
        set_blocking(self.wakeup, True)
        write(self.wakeup, _ONE)

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
        self, frame: bytes, flags: int, length: int, function_id: int, context: int, item: int
    ) -> None:
        """Find the function and the arguments of a frame of many, and make the calls."""
        self.page.words[wire.TAKEN] = item | 1 << wire.NUMBER_BITS
        failure: Any = None
        function: Any = None
        self.serial += 1
        threads.CALL.set(self.serial)
        # importing the function is the first call's business
        self.item = item | 1 << wire.NUMBER_BITS
        if context != self.context:
            self._read_until(wire.CONTEXT, context)
        data: Any = (
            self._read_until(wire.PAYLOAD, item)
            if flags & wire.IN_BULK
            else frame[wire.CALL.size : wire.CALL.size + length]
        )
        try:
            function = self.functions.get(function_id)
            if function is None:
                function = self._define(function_id)
        except ChannelLost:
            raise
        except BaseException as error:  # noqa: BLE001
            # importing the function is user code; it fails every one of these calls
            failure = error
        from .batch import make_calls

        make_calls(self, item, function, self.task_positions.get(function_id), data, flags, failure)

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
                from .injection import with_handle

                args, kwargs = with_handle(where, args, None, RemoteTaskHandle(item, self.serial))
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
        if type(value) is _COROUTINE:
            value = _run_coroutine(value)
        if value is None:
            self.interruptible = 0
            return NONE, b""
        if type(value) in _SIMPLE:
            payload = dumps(value, 5)
            self.interruptible = 0
            return wire.VALUE, payload
        raws: Any = [] if self.carries else None
        payload = dumps_result(value, self.channel.by_value, raws)
        self.interruptible = 0
        if raws or (raws is not None and len(payload) > wire.CROSSOVER):
            value = None
            self._call = _NO_CALL
            outcome: Tuple[int, bytes] = self.use_buffers().send(payload, raws)
            return outcome
        return wire.VALUE, payload

    def _run(
        self, frame: bytes, flags: int, length: int, function_id: int, context: int, item: int
    ) -> Tuple[int, bytes]:
        """Make the call of a frame; return (kind of result frame, payload).

        What escapes is the channel's end, or was raised by a signal handler at the very end of the
        call.
        """
        try:
            function = self.bare.get(function_id)
            args: Any = ()
            # the way of most calls
            if function is not None and flags == PLAIN and context == self.context:
                self.interruptible = item
                if length:
                    args = loads(frame[HEAD : HEAD + length])[0]
                self._call = (function, args, None)
                return self._outcome_of([function(*args)])
            if context != self.context:
                self._read_until(wire.CONTEXT, context)
            payload: Any
            load = loads if flags & wire.PLAIN else loads_rich
            if flags & wire.NAMED:
                self.name = self._read_until(wire.NAME, item).decode("utf-8", "surrogatepass")
            if flags & wire.IN_BULK:
                payload = self._read_until(wire.PAYLOAD, item)
            else:
                payload = frame[HEAD : HEAD + length]
            if flags & wire.BLOCKS:
                payload, load = self.use_buffers().receive(payload, flags)
            kwargs: Any = None
            if function_id:
                function = self.functions.get(function_id)
                if function is None:
                    function = self._define(function_id)
                self.interruptible = item
                if payload:
                    args, kwargs = load(payload)
                where = self.task_positions[function_id]
            else:
                self.interruptible = item
                function, args, kwargs = load(payload)
                where = _position_of_task(function)
            payload = load = None  # type: ignore[assignment]
            self._call = (function, args, kwargs)
            if flags & wire.WATCHED:
                self.page.words[wire.STARTED_NS] = monotonic_ns()
                self.channel.send(wire.STARTED, item)
            if where is not None:
                from .injection import with_handle

                args, kwargs = with_handle(where, args, kwargs, RemoteTaskHandle(item, self.serial))
            box = [function(*args, **kwargs) if kwargs else function(*args)]
            args = kwargs = None
            return self._outcome_of(box)
        except ChannelLost:
            raise
        except BaseException as error:  # noqa: BLE001
            # whatever the task raises is the task's outcome
            self.interruptible = 0
            return self.failure(error, item)

    def use_buffers(self) -> Any:
        """Return what serves the files of large arguments and results."""
        if self.buffers is None:
            from .shm_buffers import SharedBuffers

            self.buffers = SharedBuffers(
                self.shared,
                self._identities,
                self.config["incarnation"],
                self.config["arena_limit"],
            )
        return self.buffers

    def failure(self, error: BaseException, item: int) -> Tuple[int, bytes]:
        """Return (kind of result frame, payload) of a call that has raised."""
        if self.acknowledged == self.serial or (
            self.interrupted == item and isinstance(error, KeyboardInterrupt)
        ):
            return wire.CANCELLED, b""
        if isinstance(error, SystemExit):
            stdio.renew_stdin()  # exit() has closed it
        return wire.ERROR, dumps_error(error, self.channel.by_value)

    def _define(self, function_id: int) -> Any:
        """Return the function of a definition, reading records until it is there.

        A failure is raised anew for every call of it.
        """
        definition = self.definitions.get(function_id)
        if definition is None:
            self._read_until(wire.DEFINITION, function_id)
            definition = self.definitions[function_id]
        from . import imports

        found = loads(definition)
        function = imports.resolve(found)
        if found[0] == "value":
            self.by_value.add(function_id)
        self.task_positions[function_id] = where = _position_of_task(function)
        self.functions[function_id] = function
        if where is None:
            self.bare[function_id] = function
        return function

    def _read_until(self, kind: int, ident: int) -> Any:
        """Read records up to the one that is asked for.

        What belongs to frames that the host took back is dropped.

        Guarantee: whatever is raised meanwhile (by a signal handler, or because memory is short) is
        the end of this worker. A record that was read in part, or whose content is lost, would be
        missed by the calls that follow.
        """
        try:
            return self._read_records(kind, ident)
        except ChannelLost:
            raise
        except BaseException as error:
            raise ChannelLost(
                "%s was raised while it read what belongs to a call" % describe(error)
            ) from error

    def _read_records(self, kind: int, ident: int) -> Any:
        while True:
            got, number, data = self.channel.read_record()
            if got == wire.DEFINITION:
                self.definitions[number] = bytes(data)
            elif got == wire.CONTEXT:
                self._use_context(data)
                self.context = number
            elif got == wire.PIECE:
                from . import objects

                objects.receive(number, bytes(data))
            elif got == wire.FORGET and number:
                for table in (self.functions, self.bare, self.definitions, self.task_positions):
                    table.pop(number, None)
            elif got == wire.FORGET:
                from . import objects

                objects.forget(loads(data))
            if got == kind and number == ident:
                return data

    def drop_stale(self) -> None:
        """Let functions by value be read again when they are called.

        What they refer to has been changed.
        """
        for number in self.by_value:
            self.functions.pop(number, None)
            self.bare.pop(number, None)
        self.by_value.clear()

    def read_piece(self, number: int) -> None:
        """Read records up to a piece that a stream refers to.

        A signal does not interrupt that: the pipe would be out of step.
        """
        interruptible, self.interruptible = self.interruptible, 0
        try:
            self._read_until(wire.PIECE, number)
        except StreamBroken as error:
            # The call has begun: arguments are unpickled, which is user code.
            raise ChannelLost(str(error)) from error
        self.interruptible = interruptible

    @staticmethod
    def _use_context(data: bytes) -> None:
        from . import imports, records

        global _surroundings  # a fact about this process
        if data == _surroundings:
            # a fork: the fork server has them, and what the preload has changed since stands, as in
            # a worker that imports it itself
            return
        _surroundings = bytes(data)
        paths, levels = loads(data)
        imports.use_project_paths(paths)
        records.use_levels(levels)

    # --- what the running task asks (any of its threads)

    def acknowledge(self, serial: int) -> None:
        """Take note that the function of a call has called ``task.cancel()``."""
        self.acknowledged = serial

    def cancel_requested(self, item: int) -> bool:
        """Return True if the host has asked to cancel this item."""
        if not self.page.shared:
            self._look_for_cancel()
        return self.page.words[wire.CANCEL_WORD] == item & wire.NUMBER

    def _look_for_cancel(self) -> None:
        """Look in the inbox for an order to cancel, where there is no shared page.

        The inbox holds nothing else while a call runs.
        """
        while self.channel.inbox_ready():
            frame = self.channel.next_frame()
            if not frame:
                return
            kind, _flags, _length, _function, _context, item, _mark = wire.CALL.unpack_from(frame)
            if kind == wire.CANCEL:
                self.page.words[wire.CANCEL_WORD] = item

    def task_name(self) -> str:
        """Return the name of the running call."""
        if self.name:
            return self.name
        function = self._call[0]
        name = str(getattr(function, "__qualname__", None) or type(function).__qualname__)
        if name.endswith("<lambda>"):
            return "<lambda>"
        name = name.rpartition("<locals>.")[2]
        module = getattr(function, "__module__", None)
        return (
            name
            if "." in name or module in (None, "__main__", "builtins")
            else "%s.%s" % (module, name)
        )

    def inputs(self) -> Dict[str, Any]:
        """Return the arguments of the running call by name."""
        function, args, kwargs = self._call
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        names = code.co_varnames[: code.co_argcount] if code is not None else ()
        if hasattr(function, "__func__"):
            names = names[1:]
        found = {
            names[i] if i < len(names) else str(i - len(names)): value
            for i, value in enumerate(args or ())
        }
        found.update(kwargs or {})
        return found

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
        for fd in (*pipes, self.life, self.wakeup, *self.shared):
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError:
                    pass  # the task closed it before
        if getsignal(SIGINT) == self._handler:
            set_signal(SIGINT, default_int_handler)


def _position_of_task(function: Any) -> Any:
    from .injection import position_of_task

    return position_of_task(function)


def _run_coroutine(value: Any) -> Any:
    import asyncio

    return asyncio.run(value)


def _use_program(config: ProcessConfig) -> None:
    """Give tasks the arguments and the ``__main__`` of the host's program.

    Those of this process say how it was started.
    """
    from . import mainmodule
    from .imports import native

    sys.argv = [native(arg) for arg in config["argv"]]
    mainmodule.install(config)


def surround(config: ProcessConfig, runner: Any) -> None:
    """Make user code find what it finds in every worker.

    The host's project folders, its key, our stand-ins, its logging.
    """
    from . import imports, mainmodule, records

    threads.install()
    alarms.install()
    patches.after_import("multiprocessing.spawn", mainmodule.adjust_spawn)
    _use_program(config)
    Runner._use_context(config["surroundings"])
    imports.use_authkey(config["authkey"])
    sys.meta_path.insert(0, imports.LastResort())
    records.install(runner)


def _magic() -> str:
    """Return what decides whether bytecode may travel: implementation and magic number."""
    import _frozen_importlib_external as external  # importlib.util costs 5 ms

    return "%s-%s" % (sys.implementation.name, external.MAGIC_NUMBER.hex())


def _describe() -> Dict[str, Any]:
    if not _description:  # forks have that of their fork server
        _description.update(_describe_interpreter())
    return {**_description, "pid": os.getpid()}


def _describe_interpreter() -> Dict[str, Any]:
    return {
        "version": sys.version.split()[0],
        "version_info": tuple(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "magic": _magic(),
        "prefix": sys.prefix,
        "executable": sys.executable,
    }


def watch_for_faults() -> None:
    """Print the Python stacks to stderr at a crash, and when the host asks for them."""
    import faulthandler

    try:
        faulthandler.enable(2)
        number = stack_signal()
        if number is not None and hasattr(faulthandler, "register"):
            faulthandler.register(number, 2)
    except (OSError, RuntimeError, ValueError):
        pass  # no usable stderr: the crash will be described by its signal alone


def _give_up(reason: str) -> None:
    """End this process, which is of no use any more, at once.

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


def main(fds: List[int], forked: bool = False) -> None:
    """Be a worker until the inbox ends; does not return.

    ``forked``: from a fork server, which has set up the process.
    """
    if not forked:
        stdio.install()
        watch_for_faults()
    runner = Runner(fds)
    set_signal(SIGINT, runner._handler)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=runner.after_fork_in_child)
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
