"""Tasks in an event loop.

``await task``, ``async for event in task.events()``, ``async with task``.

Functions over the public names of a Task and the few that are passed in. A coroutine here runs in
the loop's thread; what settles a task calls into the loop with ``call_soon_threadsafe`` only.
asyncio is imported when it is first used: it takes a tenth of the time of importing this package,
and a program that awaits has it already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from wetlands_executor import threads
from wetlands_executor.errors import describe
from wetlands_executor.futures.callbacks import add_hook
from wetlands_executor.futures.elsewhere import is_elsewhere
from wetlands_executor.futures.events import Listener, TaskEventType

if TYPE_CHECKING:
    import asyncio


def post_to_loop(loop: asyncio.AbstractEventLoop, fn: Callable[..., object], *args: Any) -> None:
    """Call ``fn(*args)`` in an event loop soon.

    From any thread. Nothing happens if it is closed.
    """
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:
        pass  # the loop is closed: nothing waits there any more


def wake_waiter(waiter: asyncio.Future[None]) -> None:
    """End the wait for a future of this loop; in the loop."""
    if not waiter.done():
        waiter.set_result(None)


async def settled(task: Any) -> None:
    """Wait until a task has finished, however."""
    import asyncio

    loop = asyncio.get_running_loop()
    if not task.done():
        threads.check(task)
    waiter = loop.create_future()
    add_hook(task, lambda _task: post_to_loop(loop, wake_waiter, waiter))
    with threads.pause(task):
        await waiter


async def outcome(task: Any, ask_to_cancel: Callable[[], object]) -> Any:
    """Wait for a task, and return or raise what it has returned or raised; for ``await``.

    Args:
        task: the task.
        ask_to_cancel: called without waiting for the answer if the awaiter is cancelled.

    Raises:
        asyncio.CancelledError: the task was cancelled, or the awaiter was.
    """
    import asyncio

    if not task.done():
        try:
            await settled(task)
        except asyncio.CancelledError:
            if not task.done():
                ask_to_cancel()
            raise
    if task.cancelled():
        reason = (task.error,) if task.error is not None else ()
        raise asyncio.CancelledError(": ".join((f"task {task.name!r} was cancelled", *reason)))
    error = task.exception()
    if isinstance(error, StopIteration):
        # An exception of this type cannot leave a coroutine; asyncio's own futures hang on it
        # (python/cpython#112182).
        raise RuntimeError(f"the task raised {describe(error)}") from error
    if is_elsewhere(task):
        return await asyncio.to_thread(task.result)  # it is not here yet: a wait for the network
    return task.result(0)


async def events(
    task: Any, subscribe: Callable[[Listener], Callable[[Listener], object]]
) -> AsyncIterator[Any]:
    """Yield the events of a task from now on, up to the terminal one.

    Args:
        task: the task.
        subscribe: adds a listener to it; returns what removes it.
    """
    import asyncio

    if not task.done():
        threads.check(task)
    loop = asyncio.get_running_loop()
    waiting: deque[tuple[Any, dict[Any, Any]]] = deque()
    arrived = asyncio.Event()
    # Updates that the loop has not taken are merged, as for listeners.
    post = partial(post_to_loop, loop, _arrive, waiting, arrived)
    stream = Listener(post, None, once=True, inline=True)
    unsubscribe = subscribe(stream)
    try:
        while True:
            while waiting:
                event, outputs = waiting.popleft()
                yield replace(event, outputs=MappingProxyType(outputs))
                if event.type.is_terminal:
                    return
            arrived.clear()
            with threads.pause(task):
                await arrived.wait()
    finally:
        unsubscribe(stream)


def _arrive(waiting: deque[tuple[Any, dict[Any, Any]]], arrived: asyncio.Event, event: Any) -> None:
    """Add an event to a stream, in its loop.

    An update that was not taken yet is replaced; its outputs are kept.
    """
    outputs: dict[Any, Any] = {}
    last = waiting[-1][0].type if waiting else None
    if event.type is TaskEventType.UPDATE and last is TaskEventType.UPDATE:
        outputs = waiting.pop()[1]
    outputs.update(event.outputs)
    waiting.append((event, outputs))
    arrived.set()
