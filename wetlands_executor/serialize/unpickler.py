"""Bytes to values: results of workers, unpickled.

``decode`` runs user code (imports, ``__setstate__``), so it is for threads on which that may run.
``decode_arrays`` and ``restricted.trivial_value`` know what may be read anywhere. Owns no state.
"""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from typing import Any

from cloudpickle import cloudpickle as _cp

from wetlands_executor.errors import ScriptExit
from wetlands_executor.serialize import gc_threshold, interpreter, restricted, versions
from wetlands_executor.sharedmem.results import OutOfBandResult
from wetlands_executor.worker import moved_names, shm_streams, wire


class _ResultUnpickler(pickle.Unpickler):
    """Maps the worker's private names back to the host's."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("_wetlands_worker"):
            if module == "_wetlands_worker.cloudpickle":
                return getattr(_cp, name)
            if (module, name) == ("_wetlands_worker.scripts", "ScriptExit"):
                return ScriptExit
            module = "wetlands_executor.worker" + module[len("_wetlands_worker") :]
        self.modules.add(module)
        try:
            return moved_names.find(module, name, super().find_class)
        except (ImportError, AttributeError) as error:
            versions.note_name(error, module, name)
            raise

    #: Modules that the stream has named, for the message if it cannot be read.
    modules: set[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = set()


class _ForeignUnpickler(_ResultUnpickler):
    """Unpickler for a worker of another magic number: bytecode is refused."""

    def find_class(self, module: str, name: str) -> Any:
        from wetlands_executor.worker import code_portable

        code_portable.check_name(module, name)
        return super().find_class(module, name)


#: What numpy's own pickles of arrays, numbers and dtypes name. None of it runs user code, and it is
#: there at once if numpy is.
_ARRAY_NAMES = frozenset(
    [
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("_core", "core")),
        *(
            (f"numpy.{core}.multiarray", name)
            for core in ("_core", "core")
            for name in ("_reconstruct", "scalar")
        ),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
    ]
)


class NotArrays(pickle.UnpicklingError):
    """A result is not made of arrays of numbers and builtin types, or is long."""


class _ArrayUnpickler(pickle.Unpickler):
    """Knows what arrays of numbers need and nothing else: runs no user code."""

    def find_class(self, module: str, name: str) -> Any:
        # Not imported, which may have to wait, and not by attribute, which warns where numpy has
        # renamed it.
        found = (
            vars(sys.modules[module]).get(name)
            if (module, name) in _ARRAY_NAMES and module in sys.modules
            else None
        )
        if found is None:
            raise NotArrays(f"{module}.{name} is not looked up here")
        return found


def arrays_in(data: Any, buffers: Any = None) -> tuple[Any] | None:
    """Return what holds numpy's arrays, and plain containers and numbers beside them, in a tuple.

    None if it is anything else, which is read once more where user code may run. Runs none. What
    names nothing of numpy is not even tried.

    Raises:
        Exception: of a signal handler, in a thread where there may be any; or of numpy's code.
    """
    if len(data) > wire.CROSSOVER or b"numpy" not in data:
        return None
    try:
        return (_ArrayUnpickler(io.BytesIO(data), buffers=buffers).load(),)
    except NotArrays:
        return None
    except Exception as error:
        # none of Python's code was entered: it is the unpickler's own
        if error.__traceback__ is None or error.__traceback__.tb_next is None:
            return None
        raise


def decode_arrays(payload: bytes | bytearray | OutOfBandResult) -> tuple[Any] | None:
    """Return what ``arrays_in`` reads of a result if that takes little time and memory.

    For the I/O thread.
    """
    data: Any = payload
    buffers = None
    if isinstance(payload, OutOfBandResult):
        data, buffers = payload.data, payload.buffers
    if len(data) > wire.CROSSOVER or b"numpy" not in data or not restricted.is_array(data):
        return None
    try:
        found = arrays_in(data, buffers)
    except Exception:  # noqa: BLE001
        return None
    if found is not None and isinstance(payload, OutOfBandResult):
        payload.clear()
    return found


def names_nothing(payload: bytes | bytearray | OutOfBandResult) -> bool:
    """Return True for a short pickle without STACK_GLOBAL, which ``pickle.loads`` reads.

    No class or function is looked up then, so nothing of the worker's version concerns it.
    """
    return (
        type(payload) is bytes
        and restricted.STACK_GLOBAL not in payload
        and len(payload) < 65536
        and not restricted.extensions
    )


def decode(payload: bytes | bytearray | OutOfBandResult, foreign: bool = False) -> Any:
    """Unpickle a result. Raises whatever that raises.

    Args:
        payload: what the worker has sent.
        foreign: its bytecode is not ours, and is refused.
    """
    if names_nothing(payload):
        return pickle.loads(payload)  # type: ignore[arg-type]
    unpickler = _ForeignUnpickler if foreign and interpreter.PORTABLE else _ResultUnpickler
    data: Any = payload.data if isinstance(payload, OutOfBandResult) else payload
    if len(data) <= wire.CROSSOVER:
        return _decode(unpickler, payload)
    del data
    with gc_threshold.raised:
        return _decode(unpickler, payload)


def _decode(unpickler: type[_ResultUnpickler], payload: Any) -> Any:
    if isinstance(payload, OutOfBandResult):
        data, buffers = payload.data, payload.buffers
        payload.clear()
        try:
            if type(data) is memoryview and len(data) > wire.CROSSOVER:
                return shm_streams.load(data, lambda file: _load(unpickler(file, buffers=buffers)))
            return _load(unpickler(io.BytesIO(data), buffers=buffers))
        except BaseException as error:
            # The exception may be kept for long; what the frames of its traceback look at must not
            # be.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            # Nor as long as the traceback of a failure.
            data = buffers = None  # type: ignore[assignment]
    return _load(unpickler(io.BytesIO(payload)))


def _load(unpickler: _ResultUnpickler) -> Any:
    try:
        return unpickler.load()
    except Exception as error:
        versions.note_packages(error, unpickler.modules)
        raise
