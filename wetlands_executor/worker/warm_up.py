"""The warm-up of a fork server.

What a worker does at its start and in its first calls is done a few times before the first fork.

Python finishes much of a function only when it runs: it counts calls, specializes instructions,
fills caches, and as long as it has not done so, it writes to the names that the code looks up. In a
fork each of these writes copies a page of 4 KB. What the fork server has done, all workers share:
with numpy and scipy they own 0.3 MB less each (CPython 3.11), for about 5 ms of the fork server.

Nothing here is needed for anything to be right. The runner is a real one, over pipes that no other
process has.
"""

from __future__ import annotations

import os
import sys
from _signal import SIGINT, getsignal
from _signal import signal as set_signal

from . import running, wire
from .calls import dumps
from .config import idle
from .runner import Runner
from .system import set_blocking

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, List, Optional

    from .config import ProcessConfig

#: CPython 3.11 to 3.13 specialize what has run twice to eight times; more than this saves nothing
#: more.
TIMES = 10
_CALLS = 3


def warm_up(config: ProcessConfig) -> None:
    """Run a worker's start and a few calls, again and again.

    Where descriptors are short it does less.
    """
    handler = getsignal(SIGINT)
    _look_into_folders()
    try:
        for _ in range(TIMES):
            _run_once(config)
    except OSError:
        pass  # it was only to save memory
    finally:
        running.enter(None)
        set_signal(SIGINT, handler)


def _look_into_folders() -> None:
    """Let the folders of ``sys.path`` be listed that the preload has not reached.

    Listings are looked at again when a folder changes.
    """
    for finder in sys.meta_path:
        if getattr(finder, "__name__", "") == "PathFinder":
            finder.find_spec("_wetlands_worker_nothing", None)


def _run_once(config: ProcessConfig) -> None:
    pipes: List[int] = []
    runner: Optional[Runner] = None
    try:
        for _ in range(3):
            pipes += os.pipe()
        inbox, frames, bulk, records, answers, results = pipes
        _write_all(frames, records, config)
        os.close(frames)  # the end of the inbox is the order to stop
        pipes = [records, answers]
        runner = Runner([inbox, bulk, results, -1, -1, -1, -1, -1])
        running.enter(runner)
        if runner.start(True):
            runner.loop()
    finally:
        if runner is not None:
            pipes += (runner.channel.inbox, runner.channel.bulk, runner.channel.results)
        for fd in pipes:
            os.close(fd)


def _write_all(frames: int, records: int, config: ProcessConfig) -> None:
    definition = dumps(("reference", __name__, "_echo", None), 4)
    arguments = dumps((("text", 1), {}), 5)
    said = idle(config)
    direct, _ordered = wire.marks(said["nonce"])
    for pipe in (frames, records):
        set_blocking(pipe, False)
    for place, (kind, data) in enumerate(
        ((wire.CONFIG, dumps(said, 4)), (wire.DEFINITION, definition))
    ):
        first = kind | wire.FIRST_RECORD + place << 8
        _write(
            records, wire.RECORD.pack(first, len(data), place) + data + first.to_bytes(4, "little")
        )
    for item in range(1, 1 + _CALLS):
        _write(
            frames,
            wire.CALL_FRAME.pack(
                wire.RUN, wire.NO_REFERENCES, len(arguments), 1, 1, item, direct, arguments
            ),
        )


def _write(pipe: int, data: bytes) -> None:
    if os.write(pipe, data) < len(data):
        raise BlockingIOError("the pipe is too small for a warm-up")


def _echo(*args: Any) -> Any:
    """Stand for a task."""
    return args
