"""The worker's end of ``share()``: from a reference in a pickle to an array over shared memory.

See ``sharedmem/share.py``.
"""

from __future__ import annotations

import importlib
import sys

from . import running

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple

#: Formats of buffers that a view of bytes can be cast to.
FORMATS = frozenset("BbchHiIlLqQnNfd?")
#: Classes of numpy beside ``ndarray`` whose arrays hold nothing but their buffer.
CLASSES = ("matrix", "recarray")


def native_format(name: str, size: int) -> Optional[str]:
    """Return the format of ``FORMATS`` that means the same; None if there is none.

    Args:
        name: of a buffer. ``ctypes`` and others say the order of bytes, also where it is this
            machine's.
        size: bytes of an item.
    """
    if name in FORMATS:
        return name
    order, kind = name[:1], name[1:]
    if order in "@=<" if sys.byteorder == "little" else order in "@=>!":
        for kinds in ("bhilqn", "BHILQN", "fd", "?", "c"):
            if kind and kind in kinds:
                for native in kinds:
                    view: Any = memoryview(bytes(8))
                    if view.cast(native).itemsize == size:
                        return native
    return None


def attach(place: Tuple[int, int, int, int, int], start: int, writable: bool, *layout: Any) -> Any:
    """Return what the host calls by this reference; called by the unpickler.

    Args:
        place: slot, owner word, offset, capacity and length of its block.
        start: first byte in the block.
        writable: False makes it read-only.
        layout: (dtype, shape, strides, name of its class if it is no plain array) of a numpy array,
            or (format, shape) of a memoryview.
    """
    runner = running.main_loop
    if runner is None:
        raise RuntimeError("a reference to a shared array means something in a worker only")
    view = runner.use_buffers().attach(place, writable)
    if not writable:
        view = view.toreadonly()
    if len(layout) == 4:
        dtype, shape, strides, name = layout
        numpy = importlib.import_module("numpy")
        array = numpy.ndarray(shape, dtype, view, start, strides)
        return array.view(getattr(numpy, name)) if name else array
    kind, shape = layout
    count = memoryview(bytes(8)).cast(kind).itemsize
    for size in shape:
        count *= size
    return view[start : start + count].cast("B").cast(kind, shape)
