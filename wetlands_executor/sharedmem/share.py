"""``share()``: one array for many tasks, with one copy in all, or as memory that both sides write.

A shared array lies in a block of the arena that is given to no worker: its word holds a number of
its own, and the pickler of calls (``serialize.pickler.CallPickler``) sends a reference to it and to
its views. A worker that looks at it says so by a *lease*, a word in its own file of results that
only it writes.

The block is freed when the last view on the host is gone (calls under way hold one) and no living
worker has a lease. Leases are looked at when the host's last view dies, when a worker dies, and
when a block is needed. *Invariant:* a worker takes its lease while it unpickles a call, and the
host holds the array until that call is over; so there is no moment at which neither of them holds
it.
"""

from __future__ import annotations

import itertools
import sys
from functools import partial
from typing import Any

from wetlands_executor.sharedmem import arena as arenas
from wetlands_executor.system import register_at_fork
from wetlands_executor.worker import shm_share

_numbers = itertools.count()

#: address -> (arena, slot, length, writable) of the shared arrays of which this process has views.
_shares: dict[int, tuple[arenas.Arena, int, int, bool]] = {}


def share(array: Any, writable: bool = False) -> Any:
    """Copy an array into shared memory, so that it travels to tasks as a reference.

    Args:
        array: a numpy array (``ndarray``, ``matrix`` or ``recarray``) of any shape, order and dtype
            without Python objects; or any object with the buffer protocol, contiguous, whose format
            is one that ``memoryview.cast`` knows.
        writable: True lets tasks and this process write to the same memory (nothing but your own
            care keeps them from doing it at the same time); False makes it read-only everywhere.

    Returns:
        A numpy array of the same class, or for other objects a memoryview, over the shared memory.
        It, and views of it, can be passed to any task of any executor of this process, as an
        argument, inside containers or in a closure. Its memory is freed when neither this process
        nor a worker looks at it any more. Other pickles (``ProcessPoolExecutor``, files) copy a
        numpy array as usual.

    Raises:
        TypeError: ``array`` has no buffer, or holds Python objects, or is of a class or format that
            would be lost (a masked array's mask is no part of its buffer).
        BufferError: a buffer that is not contiguous (numpy arrays may be anything).
        OSError: ``writable`` where memory cannot be shared (Windows, an interpreter without
            ctypes).
        MemoryError: ``writable`` and there is not enough memory.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(array, numpy.ndarray):
        return _share_array(numpy, array, writable)
    source = memoryview(array)
    if not source.contiguous:
        raise BufferError("the buffer is not contiguous: copy it first")
    kind = shm_share.native_format(source.format, source.itemsize)
    if kind is None:
        raise TypeError(
            f"{type(array).__name__} has a buffer of format {source.format!r}, which a memoryview "
            f"cannot be cast to: "
            "share a numpy array of it, or its bytes"
        )
    if not source.c_contiguous:
        source = memoryview(source.tobytes())  # in the order of C; a view of bytes has no other
    view = _new_block(source.nbytes, writable)
    if source.nbytes:
        if not _copied(view, source):
            view[:] = source.cast("B")
        view = view.cast(kind, memoryview(array).shape or ())  # type: ignore[call-overload]
    return view if writable else view.toreadonly()


def _share_array(numpy: Any, array: Any, writable: bool) -> Any:
    """Return a numpy array over shared memory: content, layout and class are those of ``array``."""
    kind = type(array)
    name = _class_name(numpy, kind)
    if name is None:
        raise TypeError(
            f"an array of class {kind.__module__}.{kind.__qualname__} may hold more than its "
            f"buffer, "
            "which is all that can be shared: share the plain arrays that it is made of "
            "(numpy.asarray(...), .data and .mask of a masked array) and make it of them in the "
            "task"
        )
    if array.dtype.hasobject:
        raise TypeError(
            f"an array of dtype {array.dtype} holds Python objects, which exist in one process only"
        )
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    view = _new_block(array.nbytes, writable)
    shared = numpy.ndarray(array.shape, array.dtype, view, 0, None, order)
    if not (
        array.flags.forc and array.nbytes and _copied(view, array.__array_interface__["data"][0])
    ):
        numpy.copyto(shared, array, casting="no")
    if not writable:
        shared = numpy.ndarray(array.shape, array.dtype, view.toreadonly(), 0, None, order)
    return shared.view(kind) if name else shared


def _class_name(numpy: Any, kind: Any) -> str | None:
    """Return the name of a class of numpy that adds nothing to the buffer; "" for plain arrays.

    None for all other classes.
    """
    if kind is numpy.ndarray:
        return ""
    for name in shm_share.CLASSES:
        if kind is getattr(numpy, name, None):
            return name
    return None


def _new_block(count: int, writable: bool) -> memoryview:
    """Return a view of a new shared block.

    Of private memory where that cannot be had and makes no difference.
    """
    arena = arenas.current()
    if arena is None or arena.blocks() is None:
        if writable:
            raise OSError(
                "memory cannot be shared with workers here; share() without "
                "writable=True works with copies"
            )
        return memoryview(bytearray(count))
    found = arena.claim_shared(max(count, 1), next(_numbers), partial(_forget, arena))
    if found is None:
        if writable:
            raise MemoryError(f"no room for a shared array of {count:,} bytes")
        return memoryview(bytearray(count))
    slot, address, view = found
    _shares[address] = (arena, slot, max(count, 1), writable)
    return view[:count]


def _copied(view: memoryview, source: Any) -> bool:
    """Fill a view from an address or another view without the GIL; False if it cannot be done."""
    try:
        from wetlands_executor.worker import shm_arena
    except (ImportError, AttributeError):
        return False
    shm_arena.copy(
        shm_arena.address_of(view),
        source if isinstance(source, int) else shm_arena.address_of(source),
        view.nbytes,
    )
    return True


def any_shared() -> bool:
    """Return True if there is a shared array at all."""
    return bool(_shares)


def may_be_view(kind: type) -> bool:
    """Return True if an object of this type may be a view of a shared array."""
    numpy = sys.modules.get("numpy")
    return kind is memoryview or (numpy is not None and issubclass(kind, numpy.ndarray))


def reduce(obj: Any) -> Any:
    """Return how a shared array, or a view of one, is pickled for a worker.

    None if the object is no such thing.
    """
    if type(obj) is memoryview:
        if not obj.c_contiguous or obj.format not in shm_share.FORMATS or not obj.nbytes:
            return None
        from wetlands_executor.worker.shm_arena import address_of

        address = address_of(obj)
        layout: tuple[Any, ...] = (obj.format, obj.shape)
        readonly = obj.readonly
    else:
        numpy = sys.modules.get("numpy")
        if numpy is None or not isinstance(obj, numpy.ndarray) or not obj.nbytes:
            return None
        name = _class_name(numpy, type(obj))
        if name is None:
            return None  # it is pickled as its class says
        address = obj.__array_interface__["data"][0]
        layout = (obj.dtype, obj.shape, obj.strides, name)
        readonly = not obj.flags.writeable
    for start, (arena, slot, length, writable) in list(_shares.items()):
        if start <= address < start + length:
            blocks = arena.blocks()
            assert blocks is not None
            place = (slot, blocks.region.words[slot], *blocks.table[slot], length)
            return shm_share.attach, (place, address - start, writable and not readonly, *layout)
    return None


def _forget(arena: arenas.Arena, address: int, slot: int) -> None:
    """Forget a shared array whose last view of this process is gone. In a finalizer."""
    _shares.pop(address, None)
    arena.free_when_unread(slot)


register_at_fork(after_in_child=_shares.clear)
