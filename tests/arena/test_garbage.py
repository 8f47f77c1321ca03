"""Views and calls with blocks that end in the hands of the garbage collector, in circles, in any
order.
"""

from __future__ import annotations

import subprocess
import sys
import threading

from tests.support.rendezvous import DEADLINE

PROGRAM = """
import gc

from tests.arena import workload
from wetlands_executor import CondaEnvExecutor

SIZE = 300_000
seen = []


class Holder:
    # Looks at its memory when it dies; the collector may have finalized anything else of the circle
    # before. (A numpy array in between would hide the circle from it.)
    def __init__(self, view):
        assert type(view) is memoryview, type(view)
        self.view = view
        self.circle = self

    def __del__(self):
        seen.append(bytes(self.view) == b"x" * SIZE)


for _ in range(10):
    with CondaEnvExecutor(max_workers=1) as executor:
        holders = [Holder(executor.submit(workload.bare_buffer, SIZE).result()) for _ in range(3)]
    del executor, holders
    gc.collect()
assert seen == [True] * 30, seen
"""


def test_finalizers_find_the_memory_there() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_arena_whose_file_is_being_closed_is_not_found(monkeypatch):
    """A worker that starts at that moment would get the number of a closed file, or of another one.
    """
    from wetlands_executor import descriptors
    from wetlands_executor.sharedmem import arena

    monkeypatch.setattr(arena, "_arenas", {})
    dying = arena.current()
    fd, found, close = dying.fd, [], descriptors.close_quietly
    closed = threading.Event()

    def closing(number):
        if number == fd and not found:
            found.append(arena.current())
            closed.set()
        close(number)

    monkeypatch.setattr(descriptors, "close_quietly", closing)
    del dying
    assert closed.wait(30), (
        "the thread on which it was made may hold it for a moment more, and no longer"
    )
    assert len(found) == 1
    assert found[0].fd != fd
