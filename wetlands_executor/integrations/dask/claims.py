"""The scheduler's part: who has claimed a call, so that none is begun twice, or after its end.

Dask runs a task again whose worker has died, and one whose result was lost with it. A function may
have sent a mail by then. So a host claims a call here before it begins it, and gets it if no other
process has claimed it before. The client claims a call to cancel it: then no host gets it.
"""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin


class ClaimedCalls(SchedulerPlugin):  # type: ignore[misc]
    """Keeps the keys of calls that were claimed, until Dask forgets them.

    Args:
        name: of the executor's plugins.
    """

    def __init__(self, name: str) -> None:
        self.name = f"{name}-claims"
        self._handler = handler_of(name)
        self._claimed: set[Any] = set()

    async def start(self, scheduler: Any) -> None:
        """Answer the hosts and the client."""
        scheduler.handlers[self._handler] = self.claim

    async def claim(self, keys: list[str]) -> list[str]:
        """Return those of the calls that were not claimed before; now they are."""
        found = [key for key in keys if key not in self._claimed]
        self._claimed.update(found)
        return found

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Forget a call with Dask."""
        del start, args, kwargs
        if finish == "forgotten":
            self._claimed.discard(key)


def handler_of(name: str) -> str:
    """Return what the scheduler calls the request of an executor's hosts and client."""
    return f"{name.replace('-', '_')}_claim"
