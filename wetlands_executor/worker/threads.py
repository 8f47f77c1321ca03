"""Which call a thread works for.

Threads, pools of threads and copied contexts inherit it from the code that starts them.

The running call of the main thread is a context variable, so that ``asyncio`` tasks and
``contextvars.copy_context`` take it along. Python gives a new thread an empty context; therefore
``_thread.start_new_thread`` (which ``threading`` uses) passes it on here. A pool of threads may
outlive the call that has made it. What is handed to one belongs to the call that hands it over, not
to the call that started the thread.

A call is known by its *serial*: a number that no other call of this process has. The number of its
item will not do, because a retry has the same. Entered by any thread of a task; nothing here takes
a lock.
"""

from __future__ import annotations

import _thread
import sys
from _contextvars import ContextVar  # the Python half only re-exports it

from . import patches, running

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable

    from .running import Running

#: Serial of the call that the code in this context works for; 0 in a context in which nothing has
#: set it.
CALL: ContextVar[int] = ContextVar("_wetlands_call", default=0)


class _Local(_thread._local):
    """The same by thread, for code in an empty context (``Context().run``, greenlets).

    Attributes:
        serial: of the call that the thread works for; 0 is none.
    """

    serial = 0

    def work_for(self, serial: int) -> None:
        """Let the thread, which is its own, work for a call."""
        self.serial = serial
        CALL.set(serial)


_local = _Local()


def work_for_none() -> None:
    """Let this thread, which is one of ours, work for no call."""
    _local.work_for(0)


def serial_here(runner: Running) -> int:
    """Return the serial of the call that the calling code works for; 0 is none.

    A thread that C code has started is not known to belong to any call.
    """
    serial = CALL.get() or _local.serial
    if not serial and _thread.get_ident() == runner.thread:
        return runner.serial
    return serial


def item_here(runner: Running) -> int:
    """Return the running item if the calling code works for it, else 0."""
    item = runner.item
    # Order: the item first. Between two calls it is 0, and the serial changes only then.
    return item if item and serial_here(runner) == runner.serial else 0


class Inheriting:
    """A callable that works for the call whose code has made this object, on any thread."""

    __slots__ = ("_function", "_serial", "_thread")

    def __init__(self, function: Callable[..., Any], serial: int, thread: bool) -> None:
        self._function = function
        self._serial = serial
        self._thread = thread

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if self._thread:
            _local.work_for(self._serial)  # there is nothing to put back
            return self._function(*args, **kwargs)
        token = CALL.set(self._serial)
        try:
            return self._function(*args, **kwargs)
        finally:
            CALL.reset(token)

    def __repr__(self) -> str:
        return repr(self._function)


def inherit(function: Any, thread: bool = False) -> Any:
    """Return what calls ``function`` for the call that the calling code works for.

    ``function`` itself if there is none.

    Args:
        function: what another thread will call.
        thread: a new thread will call it, and nothing else after it.
    """
    runner = running.main_loop
    serial = serial_here(runner) if runner is not None else 0
    return Inheriting(function, serial, thread) if serial and callable(function) else function


def _passing_on(start: Any) -> Any:
    def start_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
        return start(inherit(function, thread=True), *args, **kwargs)

    return start_thread


def _pass_on_in_threading() -> None:
    """Let what starts threads pass the call on.

    In ``_thread``, and in ``threading`` if that has taken the functions over already.
    """
    threading = sys.modules.get("threading")
    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        start = patches.replace(_thread, name, _passing_on)
        patches.replace_copy(threading, "_" + name, start)


def _handing(method: Any) -> Any:
    """Wrap a method of a pool: it passes the call on with the function, its first argument."""

    def hand_over(self: Any, *args: Any, **kwargs: Any) -> Any:
        if args:
            return method(self, inherit(args[0]), *args[1:], **kwargs)
        # as ``multiprocessing`` names it; an executor takes it by position only
        if "func" in kwargs:
            kwargs["func"] = inherit(kwargs["func"])
        return method(self, **kwargs)

    return hand_over


def _hand_over_in_executors(module: Any) -> None:
    patches.replace(module.ThreadPoolExecutor, "submit", _handing)


def _hand_over_in_pools(module: Any) -> None:
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        patches.replace(module.ThreadPool, name, _handing)


def install() -> None:
    """Let threads and pools of threads inherit the call from now on. Once per process."""
    _pass_on_in_threading()
    patches.after_import("concurrent.futures.thread", _hand_over_in_executors)
    patches.after_import("multiprocessing.pool", _hand_over_in_pools)
