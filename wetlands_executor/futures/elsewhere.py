"""A result that stays where it was made until it is asked for.

It stands in a completed Task in the place of the result. ``Task.result`` brings it: the calling
thread waits for that. Two threads may both bring it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Elsewhere:
    """Stands for a result.

    Args:
        outcome: where it is, as what runs the calls knows it.
        read: returns the result; gets the seconds to wait, or None. May raise.
    """

    __slots__ = ("_read", "outcome")

    def __init__(self, outcome: Any, read: Callable[[float | None], Any]) -> None:
        self.outcome = outcome
        self._read = read

    def read(self, timeout: float | None) -> Any:
        """Bring the result here, and return it.

        Raises:
            TimeoutError: it has not come within ``timeout`` seconds.
            BaseException: it is lost, or cannot be rebuilt here.
        """
        return self._read(timeout)


def bring(task: Any, found: Elsewhere, timeout: float | None) -> Any:
    """Return the result of a completed task that stands elsewhere; from now on it is here."""
    value = task.__dict__["_result"] = found.read(timeout)
    return value


def is_elsewhere(task: Any) -> bool:
    """Return True if the result of a completed task is not here yet."""
    return type(task.__dict__.get("_result")) is Elsewhere


def place_of(task: Any, pool: object) -> Elsewhere | None:
    """Return what stands for the result of a completed task of this pool; None if that is here."""
    fields = task.__dict__
    found = fields.get("_result")
    same = fields.get("_pool") is pool and type(found) is Elsewhere
    return found if same else None
