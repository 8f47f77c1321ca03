"""What is called when a task has finished.

Hooks of this library at once, callbacks of users on a thread for them.

A *hook* is a bridge of our own (asyncio, dependencies, views). It runs in the thread that settles,
must not block, and runs no user code. A *callback* is the user's, from ``add_done_callback``. Each
entry of either is taken out in one step by the thread that runs it, so it runs once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import SerialQueue

LOGGER = logging.getLogger("concurrent.futures")

#: Each callback in a tuple of its own, so that the same one added twice is two entries.
Callbacks = deque[tuple[Callable[[Any], object]]]


class Hooks(deque[Callable[[Any], object]]):
    """The hooks of one task."""

    __slots__ = ()

    def run(self, task: Any) -> None:
        """Run those that no other thread has taken."""
        while self:
            try:
                hook = self.popleft()
            except IndexError:
                return  # another thread has taken the last one
            attempt(hook, task)


def add_hook(task: Any, hook: Callable[[Any], object]) -> None:
    """Call ``hook(task)`` in the thread that settles a task, or now if it is settled."""
    hooks = task.__dict__.get("_hooks")
    if hooks is None:
        hooks = task.__dict__.setdefault("_hooks", Hooks())
    hooks.append(hook)
    if task.done():
        hooks.run(task)


def attempt(tell: Callable[..., object], *args: Any) -> None:
    """Call one of several; a failure keeps nothing from the others."""
    try:
        tell(*args)
    except Exception:
        LOGGER.exception("wetlands_executor: the end of a task could not be told by %r", tell)


def call_back(fn: Callable[[Any], object], task: Any) -> None:
    """Call one callback."""
    try:
        fn(task)
    except Exception:
        LOGGER.exception("exception calling callback for %r", task)


def run_callbacks(task: Any, callbacks: Callbacks) -> None:
    """Call those that no other thread has taken, in order."""
    while callbacks:
        try:
            (fn,) = callbacks.popleft()
        except IndexError:
            return
        try:
            call_back(fn, task)
        # User code: SystemExit in one callback must not skip the ones behind it.
        except BaseException:
            LOGGER.exception("exception calling callback for %r", task)


def run_callbacks_on(thread: SerialQueue, task: Any, callbacks: Callbacks) -> None:
    """Call bridges to an event loop here, and those of users on a thread for them."""
    theirs: Callbacks = deque()
    while callbacks:
        try:
            entry = callbacks.popleft()
        except IndexError:
            break
        if is_bridge(entry[0]):
            call_back(entry[0], task)
        else:
            theirs.append(entry)
    if theirs:
        thread.put(partial(run_callbacks, task, theirs))


def is_bridge(fn: Callable[[Any], object]) -> bool:
    """Return True for asyncio's own callback of ``wrap_future``.

    It only posts to a loop, and an ``await`` must not queue behind user code.
    """
    return (
        getattr(fn, "__module__", None) == "asyncio.futures"
        and getattr(fn, "__name__", "") == "_call_set_state"
    )
