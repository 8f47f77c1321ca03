"""Holding all workers of a pool at a known place, without asking any of them again and again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

from . import functions


class Held:
    """One call per worker, each of which holds its worker until ``release``.

    The constructor returns when all of them have come that far.

    Args:
        pool: of ``systems.py``, able to ``submit``.
        workers: how many it has.
        fn: gets the path of a named pipe, and ends by ``functions.hold``.
    """

    def __init__(
        self, pool: Any, workers: int, fn: Callable[[str], object] = functions.hold
    ) -> None:
        self._pool = pool
        self._folder = tempfile.TemporaryDirectory(prefix="wetlands-benchmark-")
        paths = [os.path.join(self._folder.name, str(number)) for number in range(workers)]
        for path in paths:
            os.mkfifo(path)
        self._handles = [pool.submit(fn, path) for path in paths]
        # Opening returns when the worker has opened its end.
        self._ends = [os.open(path, os.O_WRONLY) for path in paths]

    def release(self) -> None:
        """Let the workers go on."""
        for end in self._ends:
            os.close(end)
        self._folder.cleanup()

    def finish(self) -> None:
        """Let the workers go on, and wait until they have."""
        self.release()
        for handle in self._handles:
            self._pool.get(handle)
