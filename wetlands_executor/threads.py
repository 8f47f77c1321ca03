"""The threads of the pools.

How any thread may start one, and which of them must not wait for a task.

*Starting.* A thread of a pool is started from wherever it is needed first: by a user's main thread,
which a signal handler may interrupt, or within a finalizer. ``threading.Thread.start`` takes locks
of the standard library and waits for the new thread; an exception on the main thread can leave such
a lock locked for ever (seen on CPython 3.14, where a handler can run between the return of
``__enter__`` and the first step of a ``with`` block). So ``start`` makes a bare thread in one step
of C code, and that thread, which never runs signal handlers, starts the real one. Two re-entries
may both start a thread; these threads decide in one step which of them serves (see their targets).

*Waiting.* The garbage collector runs finalizers on any thread, those of a pool included. A
finalizer that waits for a task on a thread without which no task ends would wait for ever, and all
tasks with it. ``check`` refuses that. The output thread also runs code of the program, which may
wait while it is called for that: see ``writing``.

Any thread enters.
"""

from __future__ import annotations

import importlib
import sys
import threading
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from wetlands_executor.system import register_at_fork

#: What a thread of a pool does, as error messages name it. Threads of these kinds never wait for a
#: task, except the output thread while it is in ``writing``.
IO, OUTPUT, START = "feeds the workers", "writes what tasks print", "starts the workers"
#: User code runs on these, which may wait for any task but the one that it is about.
DECODE, CALLBACKS = "unpickles results", "runs callbacks"

#: Identifier of each thread of a pool -> what it does.
serving: dict[int, str] = {}
#: One entry for each thread that was started and is not yet in ``serving``.
starting: set[object] = set()
#: Identifier of a decoder thread -> the task whose outcome it is finding out.
deciding: dict[int, Any] = {}
#: Identifiers of decoder threads without which their pool cannot close: a call may be submitted, or
#: run again, when they return.
holding: set[int] = set()
#: Identifier of an output thread that is inside a stream or a log handler of the program -> what
#: lets it wait: it makes its pool hold back behind lines neither what is waited for (None: all) nor
#: what that depends on.
writing: dict[int, Callable[[Any], object]] = {}
#: Identifier of a thread that runs tasks of an ``InProcessExecutor`` -> what is told when such a
#: task begins and ends to wait for another one.
working: dict[int, Pauses] = {}
#: What is waited for if that is the end of no task.
NO_TASK = object()

_NEVER = frozenset((IO, OUTPUT, START))

# Held by a thread of a pool while it imports, and by a thread that forks: in a child that finds a
# module half made, each import of it waits for the parent's thread, which is not there. RLock,
# because the child releases it in the thread that forked. Meanwhile no other lock of ours is taken.
_importing = threading.RLock()


class Pauses(Protocol):
    """The waits of a thread that runs tasks."""

    def begin(self, key: object, task: Any, *, limited: bool) -> None:
        """Note that this thread begins to wait.

        Args:
            key: of this wait.
            task: what is waited for; None if unknown.
            limited: the wait has a time limit.

        Raises:
            RuntimeError: it would wait for ever.
        """
        ...

    def end(self, key: object) -> None:
        """Note that a wait is over; nothing happens if it is unknown."""
        ...


class PoolThread(threading.Thread):
    """A daemon thread of a pool.

    Args:
        target: what it runs.
        args: arguments of the target.
        name: its name.
        kind: what it does, one of the constants above.
        entry: its entry in ``starting``.
    """

    def __init__(
        self,
        target: Callable[..., object],
        args: tuple[Any, ...],
        name: str,
        kind: str,
        entry: object,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.kind = kind
        self.entry = entry
        self._serve: Callable[..., object] | None = target
        self._serve_args = args

    def run(self) -> None:
        """Serve."""
        target, args = self._serve, self._serve_args
        self._serve = None
        self._serve_args = ()
        if target is not None:
            _serve(target, args, self.kind, self.entry)


def _serve(target: Callable[..., object], args: tuple[Any, ...], kind: str, entry: object) -> None:
    ident = get_ident()
    serving[ident] = kind
    starting.discard(entry)
    try:
        target(*args)
    finally:
        serving.pop(ident, None)


def start(
    target: Callable[..., object],
    args: tuple[Any, ...],
    name: str,
    kind: str,
    note: Callable[[object], object] | None = None,
) -> None:
    """Start a thread of a pool. Any thread, signal handler or finalizer; does not wait for it.

    Args:
        target: what it runs.
        args: arguments of the target.
        name: its name.
        kind: what it does, one of the constants above.
        note: called in the same step, with something true, if the thread has been started; a
            function in C.

    Raises:
        RuntimeError: no thread can be started (a limit of the system, or the interpreter is going
            down).
    """
    entry = object()
    begin = (entry, target, args, name, kind)
    try:
        # One step: the thread is noted if, and only if, it is started. `deque` of length 0 only
        # consumes.
        started = map(start_new_thread, (_begin,), (begin,))
        # one of each
        noted = started if note is None else map(note, started)
        deque(zip(map(starting.add, (entry,)), noted), 0)  # noqa: B905
    except RuntimeError:
        starting.discard(entry)
        raise


def _begin(
    entry: object, target: Callable[..., object], args: tuple[Any, ...], name: str, kind: str
) -> None:
    """Start the real thread. Runs on a bare thread, which no signal handler interrupts."""
    serving[get_ident()] = kind
    try:
        PoolThread(target, args, name, kind, entry).start()
    except RuntimeError:  # no second thread: this one serves
        _serve(target, args, kind, entry)
    finally:
        serving.pop(get_ident(), None)


def kind_of_this() -> str | None:
    """Return what this thread does for a pool; None if it is a thread of the program."""
    kind = serving.get(get_ident())
    if kind is None and starting:
        # Race: the collector may run a finalizer before a new thread has noted itself in `serving`.
        # Its first frame shows its kind. That counts only until the thread has noted itself: in a
        # child that was forked on a thread of a pool, the same frame is below the child's only
        # thread.
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
        if frame.f_code is _begin.__code__:
            return str(frame.f_locals["kind"]) if frame.f_locals["entry"] in starting else None
        thread = frame.f_locals.get("self")
        if isinstance(thread, PoolThread) and thread.entry in starting:
            return thread.kind
    return kind


def must_not_wait() -> bool:
    """Return True on a thread without which no task ends."""
    return kind_of_this() in _NEVER and get_ident() not in writing


def decide(task: Any) -> None:
    """Note that this thread, if it is a decoder, is finding out the outcome of a task."""
    ident = get_ident()
    if serving.get(ident) == DECODE:
        deciding[ident] = task


def check(task: Any = None, among: Any = None) -> None:
    """Refuse to wait on this thread if that would stop a pool.

    Args:
        task: what is waited for, a task, a map or the end of a pool; None if that is more than one
            task.
        among: a pool all of whose tasks are waited for.

    Raises:
        RuntimeError: it would; says why.
    """
    kind = kind_of_this()
    if kind is None:
        return
    if kind == OUTPUT and (pass_outcomes := writing.get(get_ident())) is not None:
        pass_outcomes(task if among is None else among)
        return
    if kind in _NEVER:
        raise RuntimeError(
            f"this thread ({threading.current_thread().name}) {kind} and must not wait for a "
            f"task: what waits here is most likely a "
            "finalizer (__del__, weakref.finalize) that the garbage collector has run on it; let "
            "it submit or cancel, not wait"
        )
    own = deciding.get(get_ident())
    if own is not None and (own is task or (own._pool is among and own._final is None)):
        raise RuntimeError(
            f"the outcome of the task {own.name!r} is being found out by this very "
            f"thread, which must not wait for it"
        )


@contextmanager
def pause(task: Any = None) -> Iterator[None]:
    """Wait for a task in this block; a thread that runs tasks lets another one take its place."""
    pauses, key = working.get(get_ident()), object()
    try:
        if pauses is not None:
            pauses.begin(key, task, limited=True)  # an event loop has timers, and other coroutines
        yield
    finally:
        if pauses is not None:
            pauses.end(key)


class Call:
    """A function call on a thread of its own, whose caller waits for the outcome.

    The call goes on if the wait is interrupted.

    Args:
        function: what to call.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._value: Any = None
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Call, and wake the waiting thread."""
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self._error = error
        finally:
            self._done.release()

    def outcome(self) -> Any:
        """Wait for the end of the call; return its value, or raise its exception."""
        self._done.acquire()
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self = None  # type: ignore[assignment] # no cycle with the traceback


def run_uninterrupted(function: Callable[[], Any]) -> Any:
    """Call a function on a thread that no signal handler interrupts, and wait for it.

    For functions that take locks which other threads need.

    Args:
        function: it must not wait for a task.

    Returns:
        What it returns; whatever it raises is raised.

    Raises:
        RuntimeError: no thread can be started.
    """
    if get_ident() in serving:
        return function()
    call = Call(function)
    start(call.run, (), "wetlands-uninterrupted", START)
    return call.outcome()


def import_atomically(name: str) -> Any:
    """Import a module, and let no fork find it half made. For ``run_uninterrupted``.

    A thread of the program does not hold back forks: a signal handler could leave the lock behind.

    Args:
        name: a module of this package or of the standard library, which takes no lock and runs
            nothing of the program.

    Returns:
        The module.
    """
    if get_ident() not in serving:
        return importlib.import_module(name)
    with _importing:
        return importlib.import_module(name)


def release_all(lock: threading.RLock) -> None:
    """Release a lock in a child that this thread has forked, also what a caller of this one holds.

    The collector may run a finalizer that forks, inside a block that holds the lock. The child's
    other threads must not wait for the end of a finalizer that uses them.
    """
    try:
        while True:
            lock.release()
    except RuntimeError:
        pass  # it is free


def _after_fork_in_child() -> None:
    """Forget the parent's threads.

    They are not here, and the child's own may get their identifiers.
    """
    for known in (serving, starting, deciding, holding, writing, working):
        known.clear()
    release_all(_importing)


register_at_fork(
    before=_importing.acquire,
    after_in_parent=_importing.release,
    after_in_child=_after_fork_in_child,
)
