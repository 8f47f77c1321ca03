"""Unpickling straight out of shared memory.

The C unpickler asks its file for one frame after the other, and has large values written straight
into the objects that it has made for them. ``BlockReader`` gives it views of a block, so that
those values are copied once, without the GIL, and the frames not at all. How such pickles are
written: ``calls.Pieces``.

Both sides import this module, with the first pickle that comes in a block. Entered by any thread;
owns no state.
"""

from __future__ import annotations

import gc
import io
import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable

#: Bytes from which a value is copied without the GIL, with more than one core if it is large.
WITHOUT_GIL = 1 << 18
#: Bytes from which the memory of a new value is asked for in huge pages: each page is cleared by
#: the system when it is touched first, which takes longer than the copy.
HUGE = 1 << 22
#: The unpickler is the one in C: it copies what it keeps, and takes any buffer from its file.
IN_C = sys.implementation.name == "cpython"
#: From 3.15 on it reads a text of more than 1 MB in parts, and extends the first one in place: that
#: has to be an object of ``bytes``.
_EXTENDS = sys.version_info >= (3, 15)


class BlockReader:
    """A file for the unpickler over the bytes of a block.

    Args:
        view: flat, of bytes.
    """

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def read(self, count: int) -> memoryview | bytes:
        """Return the next bytes: a view of them where the unpickler takes one."""
        found = self._next(count)
        return bytes(found) if _EXTENDS else found

    def _next(self, count: int) -> memoryview:
        start = self._at
        self._at = end = start + count
        return self._view[start:end]

    def readinto(self, target: memoryview) -> int:
        """Fill the memory of a new value; return how many bytes there were."""
        source = self._next(len(target))
        count = len(source)
        if count < WITHOUT_GIL or not _copy(target, source, count):
            target[:count] = source
        return count

    def readline(self) -> bytes:
        """Return a line; no pickle of protocol 5 has any."""
        raise ValueError("a pickle of an older protocol")

    def close(self) -> None:
        """Let go of the block."""
        self._view = memoryview(b"")


def _copy(target: memoryview, source: memoryview, count: int) -> bool:
    try:
        from . import shm_arena
    except (ImportError, AttributeError):
        return False  # an interpreter without ctypes: the block was read from its file
    address = shm_arena.address_of(target)
    if count >= HUGE:
        shm_arena.advise_huge(address, count)
    shm_arena.copy(address, shm_arena.address_of(source), count)
    return True


def load(view: memoryview, load_from: Callable[[Any], Any]) -> Any:
    """Return what ``load_from(file)`` unpickles of the bytes of a block."""
    if not IN_C:
        return load_from(io.BytesIO(view))
    file = BlockReader(view)
    try:
        return load_from(file)
    finally:
        file.close()  # the traceback of an error must not keep the block


#: The collector runs when so many objects were made, also while the unpickler makes them; from
#: 3.12 on between two steps of Python code only.
COLLECTS_IN_UNPICKLER = IN_C and sys.version_info < (3, 12)


def load_here(view: memoryview, load_from: Callable[[Any], Any]) -> Any:
    """Return ``load(view, load_from)`` without running the collector meanwhile.

    It would look at all objects that were made again and again, and find no garbage: that takes as
    long as the unpickling itself. For workers: in a host, other threads may be using the switch.

    The threshold is changed and not the switch: a module that is imported meanwhile may turn the
    collector off for good.
    """
    if not COLLECTS_IN_UNPICKLER:
        return load(view, load_from)
    thresholds = gc.get_threshold()
    try:
        gc.set_threshold(0)
        return load(view, load_from)
    finally:
        if not gc.get_threshold()[0]:  # else the user's code has set one of its own
            gc.set_threshold(*thresholds)
