"""Options of a call. Owns no state; imports nothing of the pool."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from wetlands_executor import seconds as seconds_of
from wetlands_executor.errors import TaskTimeoutError, WorkerCrashed, WorkerUnresponsive
from wetlands_executor.futures import contexts
from wetlands_executor.scheduling.retry import Failure, Next, RetryPolicy, next_step

LOGGER = logging.getLogger("concurrent.futures")

RetryOn = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None
)
#: What a call is run again after if ``retry_on`` says nothing: its worker has ended, or had to be.
ENDED_WORKER = (WorkerCrashed, WorkerUnresponsive, TaskTimeoutError)


class Tried(Protocol):
    """What is asked of a Task whose call has failed."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def attempt(self) -> int: ...  # noqa: D102
    @property
    def cancel_requested(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls are made.

    Attributes:
        name: of the tasks; None derives it from the function.
        start: False makes tasks that wait for ``start()``.
        timeout: seconds that one run of the function may take, from its start; None is the
            executor's ``task_timeout``.
        retries: how often a call is run again after a failure.
        retry_on: which failures: exception types, or a function of the exception; None is the end
            of the worker (crash, hang, time-out).
        priority: higher runs first.
        cancel_grace: seconds between the request to stop, the interrupt, and the end of the worker;
            None is the executor's.
        context: what of the caller's context travels with a call: context variables of modules that
            workers can import, or their names ``"module:variable"``; and ``"traceparent"``, the
            trace of OpenTelemetry.
        carried: that, as it was when a call was submitted.
        parent: ``id`` of the task whose function has submitted the call; None if the program has.
        retry: what ``retries`` and ``retry_on`` mean.
    """

    name: str | None = None
    start: bool = True
    timeout: float | None = None
    retries: int = 0
    retry_on: RetryOn = None
    priority: int = 0
    cancel_grace: float | None = None
    context: Sequence[str | ContextVar[Any]] | None = None
    carried: bytes | None = field(default=None, repr=False, compare=False)
    parent: str | None = field(default=None, repr=False, compare=False)
    retry: RetryPolicy = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a string, not {self.name!r}")
        if self.name is not None:
            # A subclass may encode and compare in any way.
            object.__setattr__(self, "name", str.__str__(self.name))
        for key in ("timeout", "cancel_grace"):
            # What is checked is what is used.
            object.__setattr__(self, key, seconds_of.limit(key, getattr(self, key)))
        for key in ("retries", "priority"):
            if isinstance(getattr(self, key), bool) or not isinstance(getattr(self, key), int):
                raise TypeError(f"{key} must be an integer, not {getattr(self, key)!r}")
        if self.retries < 0:
            raise ValueError(f"retries must be 0 or more, not {self.retries}")
        wanted = self.retry_on
        if wanted is not None and not callable(wanted) and not isinstance(wanted, tuple):
            raise TypeError(
                f"retry_on must be exception types or a function of the exception, not {wanted!r}"
            )
        if self.context is not None:
            object.__setattr__(self, "context", contexts.names_of(self.context))
        selects = wanted is not None
        policy = RetryPolicy(self.retries, ENDED_WORKER if wanted is None else wanted, selects)
        object.__setattr__(self, "retry", policy)

    def run_again_after(self, error: BaseException, name: str) -> bool:
        """Return True if a call that has failed so is to be run again.

        ``retry_on`` may be user code: what it raises is logged, and the call fails. SystemExit too,
        which would end a thread that does not belong to that code.

        Args:
            error: of a call about which ``retry.is_asked``.
            name: of its task.
        """
        try:
            return self.retry.matches(error)
        except BaseException:
            LOGGER.exception("wetlands_executor: exception in retry_on of task %r", name)
            return False

    def step_after(
        self, error: BaseException, failure: Failure, task: Tried, is_over: Callable[[], bool]
    ) -> Next:
        """Return what follows on a failed try, where one thread may find that out at once.

        Args:
            error: how it has failed.
            failure: the kind of that.
            task: of the call.
            is_over: whether the pool runs nothing again; asked when the error has been looked at.
        """
        cancelled = task.cancel_requested
        if not self.retry.is_asked(failure, task.attempt, cancelled=cancelled):
            return Next.FAIL
        if not self.run_again_after(error, task.name):
            return Next.FAIL
        return next_step(cancelled=task.cancel_requested, over=is_over())

    def with_context(self) -> CallOptions:
        """Return the options of a call that is submitted now, by the calling code."""
        if not self.context:
            return self
        return replace(self, carried=contexts.carried([str(each) for each in self.context]))
