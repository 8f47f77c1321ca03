"""What a program asks of the call of a Task: to be cancelled, or to be killed.

Plain functions over the dictionary of a Task (``settling.py`` says what is there), for any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wetlands_executor.futures import settling

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import PendingCall, TaskPool


def ask(task: Any) -> PendingCall | None:
    """Note that the end of a task was requested.

    A task that was never handed to its pool is cancelled here.

    Returns:
        The call if the pool has it, to ask it there; else None.
    """
    fields = task.__dict__
    fields["_cancel_asked"] = True
    if settling.cancel_deferred(task):
        return None
    call: PendingCall | None = fields.get("_call")
    return call


def ask_to_cancel(task: Any) -> None:
    """Request the cancellation without waiting for the answer: for event loops."""
    call, pool = ask(task), _pool_of(task)
    if call is not None and pool is not None:
        pool.ask_to_cancel(call)


def kill(task: Any, reason: str) -> None:
    """Cancel a task by all means.

    Args:
        task: the task.
        reason: why it is cancelled, if it runs: its worker is ended then.
    """
    call, pool = ask(task), _pool_of(task)
    if call is not None and pool is not None:
        task.__dict__["_cancel_reason"] = reason
        pool.kill(call)


def _pool_of(task: Any) -> TaskPool | None:
    pool: TaskPool | None = task.__dict__.get("_pool")
    return pool
