"""Progress bars of many calls in a notebook, as one piece of text that is drawn anew.

Needs nothing but Jupyter's own ``IPython``.

In a cell::

    from notebook_progress import show_progress

    tasks = executor.map_tasks("segment.py:segment", paths)
    await show_progress(tasks)

Outside a notebook it prints to the terminal: ``python notebook_progress.py [environment]``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wetlands_executor import CondaEnvExecutor, Task, TaskStatus

#: What runs in a worker.
SLOW = f"{Path(__file__).with_name('slow.py')}:count"

_SIGNS = {
    TaskStatus.PENDING: " ",
    TaskStatus.RUNNING: ">",
    TaskStatus.COMPLETED: "+",
    TaskStatus.FAILED: "!",
    TaskStatus.CANCELED: "x",
}


def bars(tasks: Sequence[Task[Any]], width: int = 30) -> str:
    """Return one line per task."""
    lines = []
    for task in tasks:
        part = 1.0 if task.status is TaskStatus.COMPLETED else task.progress or 0.0
        filled = round(width * part)
        bar = "#" * filled + "." * (width - filled)
        text = task.error or task.message or ""
        lines.append(f"{_SIGNS[task.status]} [{bar}] {task.name} {text}".rstrip())
    return "\n".join(lines)


def _drawing() -> Callable[[str], object]:
    """Return what replaces the text shown before: a display of the notebook, or the terminal."""
    try:
        from IPython import get_ipython
        from IPython.display import Pretty, display
    except ImportError:
        return lambda text: print(text, end="\n\n")
    if get_ipython() is None:
        return lambda text: print(text, end="\n\n")
    handle: Any = display(Pretty(""), display_id=True)

    class Text:
        """Text as it is, without quotes."""

        def __init__(self, text: str) -> None:
            self.text = text

        def __repr__(self) -> str:
            return self.text

    return lambda text: handle.update(Text(text))


async def show_progress(
    tasks: Sequence[Task[Any]], draw: Callable[[str], object] | None = None, pause: float = 0.1
) -> None:
    """Show the tasks until all have finished. Cancelling this asks none of them to stop.

    Args:
        tasks: what to show.
        draw: gets the text; None chooses.
        pause: seconds between two drawings.
    """
    draw = draw or _drawing()
    changed = asyncio.Event()

    async def follow(task: Task[Any]) -> None:
        async for _ in task.events():
            changed.set()

    followers = [asyncio.ensure_future(follow(task)) for task in tasks]
    everything = asyncio.gather(*followers)
    try:
        while not everything.done():
            draw(bars(tasks))
            await asyncio.sleep(pause)  # not more often than this, however many events there are
            changer = asyncio.ensure_future(changed.wait())
            await asyncio.wait({everything, changer}, return_when=asyncio.FIRST_COMPLETED)
            changer.cancel()
            changed.clear()
        draw(bars(tasks))
    finally:
        everything.cancel()


async def main(
    environment: str | None = None, draw: Callable[[str], object] | None = None
) -> list[int]:
    """Run some calls and show them; return their results, for the tests."""
    async with CondaEnvExecutor(environment, max_workers=2) as executor:
        tasks = executor.map_tasks(SLOW, [5, 10, 15], [0.02] * 3)
        await show_progress(tasks, draw)
        return [await task for task in tasks]


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:2])))
