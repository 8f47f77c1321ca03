"""The start of a worker: configuration, hello, preload, initializer, ready.

Owns what this interpreter says of itself. Runs on the main thread, before the first call. What a
fork server has done already (``set_up_process``) its forks leave out.
"""

from __future__ import annotations

import os
import sys

from . import alarms, calls, patches, stdio, threads, wire
from .calls import PicklingError, dumps, dumps_error, loads, loads_rich
from .coroutines import COROUTINE, run_coroutine
from .current_task import use_program
from .definitions import use_settings
from .system import print_stacks_when_asked

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from .channel import Channel
    from .config import ProcessConfig, WorkerConfig

#: What this interpreter says of itself; made once.
_description: Dict[str, Any] = {}


def greet(channel: Channel) -> WorkerConfig:
    """Read the host's configuration, and say hello; return the configuration."""
    _kind, _ident, data = channel.read_record()
    config: WorkerConfig = loads(data)
    channel.configure(config["nonce"], by_value=config["magic"] in (None, magic()))
    if not channel.by_value:
        calls.use_sources(config["version"])
    channel.send(wire.HELLO, 0, dumps(_describe(), 4))
    return config


def prepare(config: WorkerConfig, runner: Any, forked: bool) -> bool:
    """Import the preload, run the initializer, say ready; return False if user code has failed.

    Args:
        config: the host's configuration.
        runner: the worker's main loop.
        forked: the fork server has set up the process.
    """
    from . import imports

    channel: Channel = runner.channel
    _use_program(config)
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = _hook(config["debugger"])
    if config["print_frames"]:
        stdio.send_frames(runner)
    if forked:
        use_settings(config["host_settings"])  # the fork server has done the rest
    else:
        set_up_process(config, runner)
    for name in config["preload"]:
        try:
            imports.import_named(name)
        except BaseException as error:  # noqa: BLE001
            # any failure of user code ends the start, with its reason
            return _fail(channel, wire.START_FAILED, error, "preload of %r failed" % name)
    try:
        attached = _serve_debugpy() if config["debugpy"] else b""
    except Exception as error:  # noqa: BLE001 - as above
        return _fail(channel, wire.START_FAILED, error, DEBUGPY)
    if config["initializer"] is not None and not _initialize(config, channel):
        return False
    stdio.finish_task()
    channel.send(wire.READY, 0, attached)
    return True


def _hook(address: Optional[str]) -> Any:
    """Return what ``breakpoint()`` does: a worker has no terminal.

    Args:
        address: where the host's is lent; None lends none.
    """
    if address is not None:
        from . import debugger

        return debugger.hook(address)

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError(
            "breakpoint() was called in a worker, which has no terminal: make the executor with "
            "debug=True, or run the function in this process, with InProcessExecutor(0)"
        )

    return refuse


DEBUGPY = "debug='debugpy' needs debugpy in the environment of the workers (pip install debugpy)"


def _serve_debugpy() -> bytes:
    """Let debuggers attach; return where."""
    debugpy: Any = __import__("debugpy")
    host, port = debugpy.listen(("127.0.0.1", 0))
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = debugpy.breakpoint
    return b"%s:%d" % (host.encode(), port)


def _initialize(config: WorkerConfig, channel: Channel) -> bool:
    code = config["initializer_code"]
    if code is not None and not channel.by_value:
        error = PicklingError(
            "the initializer %s would have to travel as code, but this is Python %s and the "
            "host is another version: put it into "
            "a module that the worker can import" % (code, sys.version.split()[0])
        )
        return _fail(channel, wire.START_FAILED, error, "initializer")
    if config["pieces"]:
        from . import objects

        objects.PIECES.update(config["pieces"])
    try:
        function, args = loads_rich(config["initializer"])
        value = function(*args)
        if type(value) is COROUTINE:
            run_coroutine(value)
    except BaseException as error:
        import logging

        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        return _fail(channel, wire.INITIALIZER_FAILED, error, "")
    return True


def _fail(channel: Channel, kind: int, error: BaseException, reason: str) -> bool:
    stdio.finish_task()
    channel.send(kind, 0, dumps_error(error, channel.by_value))
    if reason:
        sys.stderr.write("wetlands_executor: %s: %s: %s\n" % (reason, type(error).__name__, error))
    stdio.finish_task()
    return False


def set_up_process(config: ProcessConfig, runner: Any) -> None:
    """Make user code find what it finds in every worker.

    The host's project folders, its key, our stand-ins, its logging.
    """
    from . import imports, mainmodule, records

    threads.install()
    alarms.install()
    patches.after_import("multiprocessing.spawn", mainmodule.adjust_spawn)
    _use_program(config)
    use_settings(config["host_settings"])
    imports.use_authkey(config["authkey"])
    sys.meta_path.insert(0, imports.LastResort())
    records.install(runner)


def _use_program(config: ProcessConfig) -> None:
    """Give tasks the arguments and the ``__main__`` of the host's program.

    Those of this process say how it was started.
    """
    from . import mainmodule
    from .system import native

    use_program(config["instances"])
    sys.argv = [native(arg) for arg in config["argv"]]
    mainmodule.install(config)


def watch_for_faults() -> None:
    """Print the Python stacks to stderr at a crash, and when the host asks for them."""
    import faulthandler

    try:
        faulthandler.enable(2)
        print_stacks_when_asked()
    except (OSError, RuntimeError, ValueError):
        pass  # no usable stderr: the crash will be described by its signal alone


def magic() -> str:
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
        "magic": magic(),
        "prefix": sys.prefix,
        "executable": sys.executable,
    }
