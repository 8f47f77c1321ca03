"""The main loop of a worker: one frame, one call, one result, on the only thread there is.

1. ``main`` opens the channel, reads the host's configuration, says hello, runs preload and initializer, says ready.
2. ``Runner.loop`` reads one frame from the inbox (the kernel hands it to this worker and to nobody else), writes its item on the board
   (that is what makes the task RUNNING for the host), finds the function, calls it and sends the result before it looks at the next frame.
3. The end of the inbox is the order to stop: buffers are flushed, exit hooks run, and the process ends.

The order to cancel is one store by the host into the shared board; nothing here has to wake up for it.

SIGINT is a KeyboardInterrupt in a running call, once, and nothing outside one: an idle worker must survive a Ctrl-C that reaches its
process group, and none may land in this module's own steps. ``interruptible`` is the item that may be interrupted; the handler clears it
before it raises, so that a second signal cannot hit the lines that deal with the first.
"""

import os
import sys

from . import stdio, wire
from .calls import dumps_error, dumps_result, loads, loads_rich
from .channel import Channel, ChannelLost


async def _coroutine():
    """Exist, so that its type can be taken."""


_probe = _coroutine()
_COROUTINE = type(_probe)
_probe.close()


class Board:
    """Two words of shared memory: [0] the item that this worker has taken, written here; [1] the item to cancel, written by the host.

    Where memory cannot be shared the words are private: then the host gives out one item at a time and knows what runs.
    """

    def __init__(self, fd):
        self.words = None
        if fd >= 0:
            import mmap

            self._map = mmap.mmap(fd, 4096)
            os.close(fd)
            self.words = memoryview(self._map).cast("Q")
        else:
            self.words = memoryview(bytearray(4096)).cast("Q")


class Runner:
    """Everything that a worker knows: its channel, its functions, the call that runs."""

    def __init__(self, fds):
        self.channel = Channel(fds[0], fds[1], fds[2])
        self.board = Board(fds[4])
        self.life = fds[3]
        self.pid = os.getpid()
        self.functions = {}
        self.definitions = {}
        self.context = 0
        self.by_value = True
        self.item = 0
        self.interruptible = 0

    # --- start

    def start(self):
        """Read the configuration, say hello, prepare; True if the worker may take calls."""
        channel = self.channel
        _kind, _ident, data = channel.read_record()
        config = loads(data)
        channel.nonce = config["nonce"]
        self.context = config["context"]
        self.by_value = config["magic"] == _magic()
        channel.send(wire.HELLO, 0, _dumps(_describe(config)))
        from . import imports

        imports.use_project_paths(config["paths"])
        imports.use_authkey(config["authkey"])
        sys.meta_path.append(imports.LastResort())
        for name in config["preload"]:
            try:
                imports.import_named(name)
            except BaseException as error:  # noqa: BLE001 - any failure of user code ends the start, with its reason
                return self._fail(wire.START_FAILED, error, "preload of %r failed" % name)
        if config["initializer"] is not None:
            if config["initializer_code"] is not None and not self.by_value:
                error = TypeError(
                    "the initializer %s would have to travel as code, but this is Python %s and the host is another version: put it into "
                    "a module that the worker can import" % (config["initializer_code"], sys.version.split()[0])
                )
                return self._fail(wire.START_FAILED, error, "initializer")
            try:
                function, args = loads_rich(config["initializer"])
                self._call(function, args, {})
            except BaseException as error:  # noqa: BLE001 - as above
                import logging

                logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
                return self._fail(wire.INITIALIZER_FAILED, error, "")
        self._flush()
        channel.send(wire.READY, 0)
        return True

    def _fail(self, kind, error, reason):
        self._flush()
        self.channel.send(kind, 0, dumps_error(error, self.by_value))
        if reason:
            sys.stderr.write("wetlands_executor: %s: %s: %s\n" % (reason, type(error).__name__, error))
        self._flush()
        return False

    def _flush(self):
        stdio.finish_task()

    # --- the loop

    def loop(self):
        """Serve frames until the inbox ends."""
        read, inbox, unpack, size = os.read, self.channel.inbox, wire.CALL.unpack_from, wire.FRAME
        words = self.board.words
        while True:
            frame = read(inbox, size)
            if len(frame) != size:
                if frame:
                    raise ChannelLost
                return
            _kind, flags, length, function_id, context, item = unpack(frame)
            words[0] = item
            self.item = item
            outcome, payload = self._run(frame, flags, length, function_id, context, item)
            self.item = 0
            if os.getpid() != self.pid:
                os._exit(0)  # a child that the task has forked came back out of it: it must not go on as a second worker
            self._flush()
            self.channel.send(outcome, item, payload)
            payload = frame = None  # a large result must not live until the next call

    def _run(self, frame, flags, length, function_id, context, item):
        """Make the call of a frame; return (kind of result frame, payload). Only the channel's end escapes."""
        try:
            try:
                if context != self.context:
                    self._read_until(wire.CONTEXT, context)
                if flags & wire.IN_BULK:
                    payload = self._read_until(wire.PAYLOAD, item)
                else:
                    payload = frame[wire.CALL.size : wire.CALL.size + length]
                if function_id:
                    function = self.functions.get(function_id)
                    if function is None:
                        function = self._define(function_id)
                    if payload:
                        self.interruptible = item
                        args, kwargs = (loads if flags & wire.PLAIN else loads_rich)(payload)
                        payload = None
                        value = function(*args, **kwargs) if kwargs else function(*args)
                    else:
                        self.interruptible = item
                        value = function()
                else:
                    self.interruptible = item
                    function, args, kwargs = loads_rich(payload)
                    payload = None
                    value = function(*args, **kwargs)
                if type(value) is _COROUTINE:
                    value = _run_coroutine(value)
                args = kwargs = None
                if value is None:
                    self.interruptible = 0
                    return wire.NONE, b""
                payload = dumps_result(value, self.by_value)
                self.interruptible = 0
                return wire.VALUE, payload
            except ChannelLost:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the task raises is the task's outcome
                self.interruptible = 0
                return wire.ERROR, dumps_error(error, self.by_value)
        except KeyboardInterrupt as error:  # Race: the signal came between the call's end and the line that forbids it
            self.interruptible = 0
            return wire.ERROR, dumps_error(error, self.by_value)

    def _call(self, function, args, kwargs):
        value = function(*args, **kwargs)
        if type(value) is _COROUTINE:
            _run_coroutine(value)

    def _define(self, function_id):
        """Return the function of a definition, reading records until it is there. A failure is raised anew for every call of it."""
        definition = self.definitions.get(function_id)
        if definition is None:
            self._read_until(wire.DEFINITION, function_id)
            definition = self.definitions[function_id]
        from . import imports

        function = imports.resolve(loads(definition))
        self.functions[function_id] = function
        return function

    def _read_until(self, kind, ident):
        """Read records up to the one that is asked for; what belongs to frames that the host took back is dropped."""
        while True:
            got, number, data = self.channel.read_record()
            if got == wire.DEFINITION:
                self.definitions[number] = bytes(data)
            elif got == wire.CONTEXT:
                from . import imports

                imports.use_project_paths(loads(data))
                self.context = number
            elif got == wire.FORGET:
                self.functions.pop(number, None)
                self.definitions.pop(number, None)
            if got == kind and number == ident:
                return data

    def cancel_requested(self, item):
        """Return True if the host has asked to cancel this item."""
        return self.board.words[1] == item

    # --- signals and forks

    def on_sigint(self, _signum, _frame):
        """Interrupt the running call, or nothing."""
        if self.interruptible and os.getpid() == self.pid:
            self.interruptible = 0
            raise KeyboardInterrupt

    def after_fork_in_child(self):
        """Leave the pipes to the parent: a child must neither answer nor keep them open."""
        for fd in (self.channel.inbox, self.channel.bulk, self.channel.results, self.life):
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError:
                    pass  # the task closed it before
        import signal

        if signal.getsignal(signal.SIGINT) == self.on_sigint:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_coroutine(value):
    import asyncio

    return asyncio.run(value)


def _magic():
    """Return what decides whether bytecode may travel: implementation and magic number."""
    import _frozen_importlib_external as external  # importlib.util costs 5 ms

    return "%s-%s" % (sys.implementation.name, external.MAGIC_NUMBER.hex())


def _dumps(value):
    from .calls import dumps

    return dumps(value, 4)


def _describe(config):
    return {
        "pid": os.getpid(),
        "version": sys.version.split()[0],
        "version_info": tuple(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "magic": _magic(),
        "prefix": sys.prefix,
        "executable": sys.executable,
    }


def main(fds):
    """Be a worker until the inbox ends; does not return."""
    stdio.install()
    import faulthandler

    try:
        faulthandler.enable(2)
    except (OSError, RuntimeError, ValueError):
        pass  # no usable stderr: the crash will be described by its signal alone
    import signal

    runner = Runner(fds)
    signal.signal(signal.SIGINT, runner.on_sigint)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=runner.after_fork_in_child)
    from . import context

    context._runner = runner
    code = 0
    try:
        if runner.start():
            runner.loop()
        else:
            code = wire.EXIT_START_FAILED
    except (ChannelLost, BrokenPipeError):
        code = wire.EXIT_CHANNEL_LOST
    except OSError as error:
        # The task has closed descriptors that it did not open; nothing can be answered any more.
        code = wire.EXIT_CHANNEL_LOST
        try:
            os.write(2, b"wetlands_executor: the worker lost its pipes (did the task close them?): %s\n" % str(error).encode())
        except OSError:
            pass  # descriptor 2 went the same way
    stdio.flush_buffered()
    sys.exit(code)
