"""A request to stop the creation of an environment, and what it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager


class Cancellation:
    """A request to stop the creation of an environment. Any thread may make it."""

    def __init__(self) -> None:
        self._requested = False
        # What stops that which is under way. No lock, which a signal handler could meet locked: the
        # maker adds an entry and then looks at the flag, the other thread sets the flag and then
        # looks at the entries. At least one of the two observes the other's store.
        self._stops: dict[object, Callable[[], object]] = {}

    @property
    def requested(self) -> bool:
        """True once it was requested."""
        return self._requested

    def request(self) -> None:
        """Stop what is under way, and all that would follow."""
        self._requested = True
        for stop in list(self._stops.values()):
            stop()

    def check(self) -> None:
        """Raise ``CancelledError`` if it was requested."""
        if self._requested:
            raise CancelledError("the creation of the environment was cancelled")

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Call ``stop`` if it is requested while the block runs, or was before."""
        key = object()
        self._stops[key] = stop
        try:
            if self._requested:
                stop()
            yield
        finally:
            self._stops.pop(key, None)
        self.check()
