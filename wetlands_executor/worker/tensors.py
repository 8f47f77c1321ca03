"""Tensors of torch on their way.

The memory of a large one as a buffer beside the pickle (PEP 574), which torch itself copies four
times.

Only the storage is pickled otherwise (and what torch cannot read itself). What a tensor makes of it
(shape, strides, ``requires_grad``, hooks) and every other kind of storage (small, of a device) stay
as torch does it. So what arrives is what ``pickle`` would make, but that its memory cannot grow in
place.

Both sides import this module, when torch has been imported and a storage travels. It keeps no
state; any thread enters.

*Order:* these reductions are for our own pickles alone, and never go into ``copyreg``:
``torch.save`` would use them too, and write files that only a worker could read.
"""

from __future__ import annotations

import ctypes
import importlib
from pickle import PickleBuffer

from . import wire

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict


def reducers(torch: Any) -> Dict[Any, Any]:
    """Return the reductions by class; none for a torch before 2.0, which has other classes."""
    if _is_old(torch):
        return {}
    return {
        torch.storage.TypedStorage: reduce_storage,
        torch.UntypedStorage: reduce_storage,
        torch.Tensor: reduce_tensor,
    }


def reduce_tensor(tensor: Any) -> Any:
    """Reduce a tensor as torch does, but so that it can be read again.

    Of dtypes newer than torch 2.1 (``uint16``, ``float8_e4m3fn``) torch pickles a storage without a
    type, and wants one with a type back, as ``torch.load`` makes it.
    """
    found = tensor.__reduce_ex__(5)
    torch = importlib.import_module("torch")
    if (
        found[0] is getattr(torch._utils, "_rebuild_tensor_v3", None)
        and type(found[1][0]) is torch.UntypedStorage
    ):
        typed = torch.storage.TypedStorage(
            wrap_storage=found[1][0], dtype=torch.uint8, _internal=True
        )
        return (found[0], (typed, *found[1][1:]), *found[2:])
    return found


def reduce_storage(storage: Any) -> Any:
    """Reduce a large storage in main memory to its bytes; others as torch does.

    One without a type is reduced at any size: torch does not read its own pickle of it.
    """
    untyped = getattr(storage, "_untyped_storage", storage)
    count = untyped.nbytes()
    if (count < wire.CROSSOVER and untyped is not storage) or untyped.device.type != "cpu":
        return storage.__reduce_ex__(5)
    memory = (ctypes.c_char * count).from_address(untyped.data_ptr())
    memory.owner = untyped  # it lives as long as its memory has a view
    return rebuild_storage, (PickleBuffer(memory), None if untyped is storage else storage.dtype)


def rebuild_storage(buffer: Any, dtype: Any) -> Any:
    """Return a storage over a buffer, which it keeps; called by the unpickler.

    Args:
        buffer: writable, this process's own.
        dtype: of the elements; None for a storage that has none.
    """
    torch = importlib.import_module("torch")
    if _is_old(torch):  # its storages are of other kinds: a copy in one of those
        view = memoryview(buffer)
        made = torch.empty(view.nbytes // torch.empty(0, dtype=dtype).element_size(), dtype=dtype)
        ctypes.memmove(
            made.data_ptr(), (ctypes.c_char * view.nbytes).from_buffer(view), view.nbytes
        )
        return made.storage()
    untyped = (
        torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()
        if len(buffer)
        else torch.UntypedStorage(0)
    )
    return (
        untyped
        if dtype is None
        else torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)
    )


def _is_old(torch: Any) -> bool:
    return str(torch.__version__).startswith(("0.", "1."))
