"""What a program asks of the call of a Task: to be cancelled, or to be killed.

Plain functions over the dictionary of a Task (``settling.py`` says what is there), for any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wetlands_executor.futures import settling

if TYPE_CHECKING:
    from wetlands_executor.futures.home import Home, PendingCall


def ask(task: Any) -> PendingCall | None:
    """Note that the end is asked for.

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
    call, home = ask(task), _home_of(task)
    if call is not None and home is not None:
        home.ask_to_cancel(call)


def kill(task: Any, reason: str) -> None:
    """Cancel a task by all means.

    Args:
        task: the task.
        reason: why it is cancelled, if it runs: its worker is ended then.
    """
    call, home = ask(task), _home_of(task)
    if call is not None and home is not None:
        task.__dict__["_cancel_reason"] = reason
        home.kill(call)


def _home_of(task: Any) -> Home | None:
    home: Home | None = task.__dict__.get("_pool")
    return home
