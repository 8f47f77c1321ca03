"""Runs ``async def`` functions to completion. Owns nothing; main thread only."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any


async def _coroutine() -> None:
    """Exist, so that its type can be taken."""


_probe = _coroutine()
#: The type of coroutines: what a call of an ``async def`` function returns.
COROUTINE = type(_probe)
_probe.close()


def run_coroutine(value: Any) -> Any:
    """Run a coroutine in an event loop of its own; return what it returns."""
    import asyncio

    return asyncio.run(value)
