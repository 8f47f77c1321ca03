"""Two environments and one event loop: calls side by side, the progress of one, a time limit.

Run it with ``python asyncio_gather.py [environment]``. Without a name, the workers run in the
environment of this program.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from wetlands_executor import CondaEnvExecutor, RemoteTaskHandle


def count_primes(below: int, task: RemoteTaskHandle) -> int:
    """Runs in a worker. ``task`` is filled in there."""
    found = 0
    for number in range(2, below):
        found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        if number % 1000 == 0:
            task.update(f"{found} primes", current=number, maximum=below)
    return found


def wait_until_told(task: RemoteTaskHandle) -> None:
    """Runs in a worker until it is asked to stop."""
    while not task.should_stop():
        time.sleep(0.01)
    task.cancel()


async def watch(executor: CondaEnvExecutor) -> int:
    """Show the progress of one call."""
    task = executor.submit(count_primes, 20_000)
    reports = 0
    async for event in task.events():
        reports += event.current is not None
    print("reports were seen" if reports else "it was too fast to be seen")
    return await task


async def main(environment: str | None = None) -> dict[str, Any]:
    """Return what was found, for the tests."""
    async with CondaEnvExecutor(environment, max_workers=2) as executor:
        numbers = await asyncio.gather(
            *(executor.submit(count_primes, n) for n in (10, 100, 1000)), watch(executor)
        )
        print("primes:", numbers)

        endless = executor.submit(wait_until_told)
        try:
            await asyncio.wait_for(endless, timeout=0.3)
        except asyncio.TimeoutError:  # cancelling the wait has asked the task to stop
            await asyncio.wait({asyncio.wrap_future(endless)})
        print("endless:", endless.status.value)
    return {"primes": numbers, "endless": endless.status.value}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2]))
