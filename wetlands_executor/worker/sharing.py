"""The worker's end of ``share()``: from a reference in a pickle to an array over shared memory. See ``pool/shared.py``."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Tuple

#: Formats of buffers that a view of bytes can be cast to.
FORMATS = frozenset("BbchHiIlLqQnNfd?")


def attach(place: Tuple[int, int, int, int, int], start: int, writable: bool, *layout: Any) -> Any:
    """Return what the host calls by this reference; called by the unpickler.

    Args:
        place: slot, owner word, offset, capacity and length of its block.
        start: first byte in the block.
        writable: False makes it read-only.
        layout: (dtype, shape, strides) of a numpy array, or (format, shape) of a memoryview.
    """
    from . import context

    runner = context._runner
    if runner is None:
        raise RuntimeError("a reference to a shared array means something in a worker only")
    view = runner.use_parcels().attach(place, writable)
    if not writable:
        view = view.toreadonly()
    if len(layout) == 3:
        dtype, shape, strides = layout
        return importlib.import_module("numpy").ndarray(shape, dtype, view, start, strides)
    kind, shape = layout
    count = memoryview(bytes(8)).cast(kind).itemsize
    for size in shape:
        count *= size
    return view[start : start + count].cast("B").cast(kind, shape)
