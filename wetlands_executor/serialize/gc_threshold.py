"""The garbage collector of this process while a large result is read.

Before Python 3.12 the collector runs within the unpickler, whenever so many objects were made. It
looks at all of them again and again and finds no garbage, which takes several times as long as to
make them. So its threshold is raised meanwhile.

It is not turned off: the program has other threads, whose garbage should go, and which may read the
threshold in this moment and set it again later. What they find here is one that a program could
work with for ever.

Entered by decoder threads.
"""

from __future__ import annotations

import gc
import threading

from wetlands_executor.system import register_at_fork
from wetlands_executor.worker import shm_streams

#: Objects that are made between two runs of the collector meanwhile. (Python's own number is 700.)
RAISED = 100_000


class _RaisedThreshold:
    """Raises the threshold as long as any thread is inside.

    Attributes:
        inside: number of threads that are.
        before: the thresholds that were there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = 0
        self.before: tuple[int, int, int] = (0, 0, 0)

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1
            if self.inside == 1:
                self.before = found = gc.get_threshold()
                if 0 < found[0] < RAISED:
                    gc.set_threshold(RAISED, *found[1:])

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.inside -= 1
            if not self.inside:
                self.restore()

    def restore(self) -> None:
        """Set the thresholds as they were, unless the program has set others."""
        if gc.get_threshold()[0] == RAISED:
            gc.set_threshold(*self.before)

    def after_fork_in_child(self) -> None:
        """Forget the decoder threads of the parent."""
        if self.inside:
            self.inside = 0
            self.restore()
        self._lock = threading.Lock()


class _Unchanged:
    """Changes nothing: this Python does not run it within the unpickler."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


raised: _RaisedThreshold | _Unchanged = (
    _RaisedThreshold() if shm_streams.COLLECTS_IN_UNPICKLER else _Unchanged()
)

if isinstance(raised, _RaisedThreshold):
    register_at_fork(after_in_child=raised.after_fork_in_child)
