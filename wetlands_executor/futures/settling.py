"""The one way in which a Task gets its final state, and notifies others of it.

Plain functions over the dictionary of a Task, for the thread that holds the outcome: any thread.
They run no code of the user's. What a Task has there:

* ``_final``: the final state, ``FINISHED`` or ``CANCELLED_AND_NOTIFIED``, stored last; not there
  before.
* ``_counted``: it is among the total of its pool; the pool's stats write this.
* ``_result``, ``_exception``, ``_cancel_reason``, ``_finished_at``, ``_worker_pid``, ``_duration``.
* ``_state``: what the standard library reads. It follows under the condition of the Task, if there
  is one: ``wait`` counts the futures that are not done and is then notified of each, and a state
  that changed in between would be counted wrong.
* what was made on demand: ``_wakeups`` of threads that sleep, ``_reports`` with the listeners,
  ``_hooks``, ``_waiters`` and ``_condition`` (``standard.py``), ``_done_callbacks``.

Order: settling stores the outcome and the state, and then looks at what was made on demand. A
waiting thread adds itself there, and then looks at the state. At least one of the two observes the
other's store.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED
from threading import get_ident
from typing import TYPE_CHECKING, Any

from wetlands_executor import threads
from wetlands_executor.errors import wants_call, with_call
from wetlands_executor.futures import callbacks
from wetlands_executor.futures.events import TaskEventType
from wetlands_executor.futures.reports import reports_of
from wetlands_executor.futures.standard import SETTLED, Notification, notify_only_waiter

if TYPE_CHECKING:
    from wetlands_executor.futures.protocols import TaskPool

LOGGER = logging.getLogger("concurrent.futures")


def settle(task: Any, value: Any, error: BaseException | None) -> None:
    """Store the outcome and wake the threads that wait for it; once."""
    fields = task.__dict__
    if "_final" in fields:
        return
    if error is not None:
        fields["_exception"] = _explained(task, error)
    else:
        fields["_result"] = value
    fields["_finished_at"] = time.time()
    fields["_final"] = FINISHED
    fields["_call"] = None
    _publish(task, FINISHED, failed=error is not None)


def settle_cancelled(task: Any, reason: str | None = None) -> None:
    """Make a task cancelled, at once for every thread that looks.

    Args:
        task: the task.
        reason: why, if its program did not ask for that.
    """
    fields = task.__dict__
    if "_final" in fields:
        return
    if reason is not None:
        fields["_cancel_reason"] = reason
    fields["_finished_at"] = time.time()
    fields["_final"] = CANCELLED_AND_NOTIFIED
    fields["_call"] = None
    _publish(task, CANCELLED_AND_NOTIFIED, failed=False)


def withdraw(task: Any) -> bool:
    """Take a deferred task back before its pool has it; return False if it is too late.

    The caller settles it.
    """
    guard = task.__dict__.get("_guard")
    return guard is not None and guard.withdraw()


def cancel_deferred(task: Any, reason: str | None = None) -> bool:
    """Cancel a task that was never handed to its pool; return False if it was.

    Args:
        task: the task.
        reason: as for ``settle_cancelled``.
    """
    if not withdraw(task):
        return False
    settle_cancelled(task, reason)
    return True


def settle_quietly(task: Any, value: Any, now: float, pid: int, duration: float) -> bool:
    """Settle with a result, and notify no other thread: for the thread that waits for it.

    It may be interrupted after each call, and is done again then by another thread, with the same
    arguments.

    Args:
        task: the task.
        value: the result.
        now: ``time.time()``.
        pid: process that ran the call.
        duration: seconds that it took.

    Returns:
        True if there is something to notify of it (``announce_late``).
    """
    fields = task.__dict__
    fields["_finished_at"] = now
    fields["_worker_pid"] = pid
    fields["_duration"] = duration
    fields["_result"] = value
    fields["_final"] = FINISHED
    fields["_call"] = None
    pool = fields["_pool"]
    if fields.setdefault("_lazy_condition", SETTLED) is not SETTLED:
        return True
    fields["_state"] = FINISHED
    return (
        "_wakeups" in fields
        or "_done_callbacks" in fields
        or "_hooks" in fields
        or "_reports" in fields
        or (pool is not None and bool(pool.listeners))
    )


def settle_in_batch(task: Any, value: Any, now: float, pid: int, duration: float) -> bool:
    """Settle with a result, in fewer steps than ``settle``, for the many short tasks.

    The caller counts it. I/O thread. Arguments as for ``settle_quietly``.

    Returns:
        False if the task was settled before.
    """
    fields = task.__dict__
    if "_final" in fields:
        return False
    if not settle_quietly(task, value, now, pid, duration):
        return True
    fields["_told"] = True
    condition, pool = fields["_lazy_condition"], fields["_pool"]
    if (
        condition is SETTLED
        or "_wakeups" in fields
        or "_reports" in fields
        or "_hooks" in fields
        or "_done_callbacks" in fields
        or (pool is not None and pool.listeners)
        or not notify_only_waiter(task, condition, FINISHED)
    ):
        _publish(task, FINISHED, failed=False, count=False)
    return True


def keep_input(task: Any, found: str | bytes) -> None:
    """Have a task that fails before it has a call keep its arguments, for its message.

    Args:
        task: the task.
        found: their text, or a pickle of at most ``arguments.KEPT`` bytes.
    """
    task.__dict__["_input"] = found


def input_of(task: Any) -> str | bytes:
    """Return the arguments of a task for messages: their text, or a pickle.

    Of a task that has failed it is kept; else it is looked up where the call is now.
    """
    fields = task.__dict__
    found: str | bytes | None = fields.get("_input")
    if found is not None:
        return found
    guard, call = fields.get("_guard"), fields.get("_call")
    if guard is not None and (text := guard.input()):
        return str(text)
    return "" if call is None else call.input


def hand_over(task: Any, call: Any) -> None:
    """Note the call of a task that no pool runs."""
    task.__dict__["_call"] = call


def note_run(task: Any, pid: int, duration: float) -> None:
    """Note which process has run a task, and for how many seconds; before it is settled."""
    fields = task.__dict__
    fields["_worker_pid"] = pid
    fields["_duration"] = duration


def note_traceback(task: Any, text: str) -> None:
    """Note where a task has failed that ran in this process; before it is settled."""
    task.__dict__["_trace"] = text


def tell_started(task: Any) -> None:
    """Deliver STARTED of a task. Order: a listener that gets it observes the task RUNNING."""
    fields = task.__dict__
    fields["_seen_running"] = True
    pool = fields.get("_pool")
    if "_reports" in fields or (pool is not None and pool.listeners):
        reports_of(task).emit(task, TaskEventType.STARTED)


def announce_late(task: Any) -> None:
    """Notify of the end of a task that was settled quietly; once. On the I/O thread."""
    fields = task.__dict__
    if "_told" not in fields:
        fields["_told"] = True
        _publish(task, FINISHED, failed=False, count=False)


def _explained(task: Any, error: BaseException) -> BaseException:
    """Return the failure with the call in it, and have the task keep the arguments' text."""
    try:
        fields = task.__dict__
        fields["_input"] = input_of(task)
        # Thousands may fail with the same broken pool, in a moment: then no text is made until it
        # is asked for.
        # What a function has raised in this process is left as it is.
        if "_trace" in fields or not wants_call(error):
            return error
        return with_call(error, task.name + task.arguments)
    except Exception:
        LOGGER.debug("wetlands_executor: a failure does not name its call", exc_info=True)
        return error


def _publish(task: Any, state: str, *, failed: bool, count: bool = True) -> None:
    """Let the standard library read the final state; count the task; notify of its end."""
    fields = task.__dict__
    pool: TaskPool | None = fields.get("_pool")
    # Order: the outcome is stored. Now either there is a condition, and `_state` changes under it,
    # or there never was one.
    condition = fields.setdefault("_lazy_condition", SETTLED)
    notification = None
    if condition is SETTLED:
        fields["_state"] = state
    else:
        later = pool.notify_later if pool is not None else None
        notification = Notification(task, condition, state, failed, later)
    kind = TaskEventType.FAILURE if failed else TaskEventType.COMPLETION
    if state != FINISHED:
        kind = TaskEventType.CANCELATION
    try:
        if count and pool is not None:
            pool.stats.finished(task)  # Order: a thread that wakes up finds it counted
    finally:
        notify(task, pool, kind, notification)


def notify(
    task: Any,
    pool: TaskPool | None,
    kind: TaskEventType | None,
    notification: Notification | None = None,
) -> None:
    """Notify of the end of a task.

    Order: threads that sleep, listeners, hooks, the standard library's waiters, callbacks.

    Guarantee: a failure to notify one of them affects neither the others nor the thread that
    settles.

    Args:
        task: the task.
        pool: its pool; callbacks run here if there is none.
        kind: the event for its listeners; None if they are not concerned.
        notification: notifies the standard library's waiters, if there may be some.
    """
    fields = task.__dict__
    if "_wakeups" in fields:
        fields["_wakeups"].notify_all()
    if kind is not None and ("_reports" in fields or (pool is not None and pool.listeners)):
        callbacks.attempt(reports_of(task).emit, task, kind)
    if "_hooks" in fields:
        fields["_hooks"].run(task)
    if notification is not None:
        if (
            get_ident() in threads.serving
            or pool is None
            or not pool.started
            or threads.kind_of_this() is not None
        ):
            notification()
        else:
            # It takes locks, and an exception from a signal handler could leave them locked.
            pool.post(notification)
    added = fields.get("_done_callbacks")
    if added and pool is None:
        callbacks.run_callbacks(task, added)
    elif added and pool is not None:
        callbacks.run_callbacks_on(pool.callbacks, task, added)
