"""Whether a call runs again: the one place that decides it, pure.

Three moments ask, and each gets its answer here:

* the item is made: ``RetryPolicy.of_item`` says what ``PoolState`` may decide alone, when the
  worker dies;
* a try has failed: ``RetryPolicy.is_asked`` says whether the error has to be looked at, which is
  user code (``retry_on``) and runs on a decoder thread; ``RetryPolicy.matches`` looks at it;
* that thread has found that it matches: ``next_step`` says what follows, because a cancellation or
  the end of the pool may have come meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Union

Kinds = Union[type[BaseException], tuple[type[BaseException], ...]]
Test = Callable[[BaseException], bool]


class Failure(Enum):
    """How a try has failed."""

    #: The call raised, and its worker goes on.
    RAISED = "raised"
    #: It was ended by a limit, or blamed for what its worker wrote; the worker has survived that.
    CONDEMNED = "condemned"
    #: Its worker has died.
    LOST = "lost"


class Next(Enum):
    """What becomes of a call whose failure is to be retried."""

    RUN_AGAIN = "run again"
    FAIL = "fail"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call is run again, and after which failures.

    Attributes:
        retries: runs after the first one.
        on: the errors after which it is run again: types, or a function of the error.
        selects: ``on`` was chosen by the user. False: it names the end of the worker and nothing
            else, so that nothing has to be asked when the worker dies.
    """

    retries: int
    on: Kinds | Test
    selects: bool

    def left(self, attempt: int) -> int:
        """Return how many runs may follow on this one; ``attempt`` counts from 1."""
        return max(0, self.retries - attempt + 1)

    def of_item(self, attempt: int) -> tuple[int, bool]:
        """Return ``retries_left`` and ``asks_whether_retried`` of this attempt's item."""
        left = self.left(attempt)
        return (0, left > 0) if self.selects else (left, False)

    def is_asked(self, failure: Failure, attempt: int, *, cancelled: bool) -> bool:
        """Return True if ``matches`` decides whether the call is run again; False if it is not.

        A call that is LOST and whose policy does not select was offered to ``PoolState`` before
        (``of_item``): it is lost because that has refused.

        Args:
            failure: how this attempt has failed.
            attempt: its number, from 1.
            cancelled: the call is to be ended: it was cancelled, or killed for good.
        """
        if cancelled or not self.left(attempt):
            return False
        return self.selects or failure is Failure.CONDEMNED

    def matches(self, error: BaseException) -> bool:
        """Return True if the call is run again after ``error``.

        User code if ``on`` is a function, which may raise.
        """
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return bool(self.on(error))


def forgives_loss(retries_left: int, *, over: bool) -> bool:
    """Return True if an item whose worker has died waits for another try.

    Args:
        retries_left: how many it has left.
        over: the pool runs nothing again.
    """
    return retries_left > 0 and not over


def next_step(*, cancelled: bool, over: bool) -> Next:
    """Return what becomes of a call whose error matches.

    Args:
        cancelled: its cancellation was requested while the error was looked at.
        over: the pool runs nothing again.
    """
    if cancelled:
        return Next.CANCEL
    return Next.FAIL if over else Next.RUN_AGAIN
