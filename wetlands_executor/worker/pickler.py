"""The worker's pickler for results, outputs and exceptions that plain pickle cannot do.

With functions and classes by value.

cloudpickle, with the rules of ``code_reductions.py`` for classes, and for code if the host has
another magic number. The host's own is ``CallPickler``. Entered by any thread of a task.
"""

from __future__ import annotations

import io
from pickle import PicklingError

from . import code_reductions

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, ClassVar


def dump_by_value(value: Any, theirs: str, stream: Any, buffer_callback: Any = None) -> Any:
    """Pickle a value with the functions and classes that exist only here; return the pickler.

    Args:
        value: what is sent.
        theirs: version of the Python that receives it, if that has other bytecode: code travels as
            source then; else "".
        stream: the file that takes the pickle.
        buffer_callback: takes large buffers (PEP 574); None leaves them in the pickle.
    """
    pickler = _pickler()(stream, theirs, buffer_callback=buffer_callback)
    try:
        pickler.dump(value)
    except (PicklingError, TypeError) as error:
        if pickler.names is not None:
            pickler.names.blame(error, lambda part: _pickler()(io.BytesIO(), theirs).dump(part))
        raise
    return pickler


def dumps_by_value(value: Any, theirs: str) -> bytes:
    """Pickle as ``dump_by_value``; return the bytes."""
    with io.BytesIO() as stream:
        dump_by_value(value, theirs, stream)
        return stream.getvalue()


_pickler_class: Any = None


def _pickler() -> Any:
    """Return the class of picklers; made on first use, because it needs cloudpickle."""
    global _pickler_class  # made once; a race makes an equal one
    if _pickler_class is not None:
        return _pickler_class
    from collections import ChainMap

    from .calls import cloudpickle_module, own_reducers

    cloudpickle = cloudpickle_module()
    function_type, code_type = (
        type(code_reductions.reduce_code),
        type(code_reductions.reduce_code.__code__),
    )

    class SourcePickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]
        """cloudpickle with two differences.

        Generated classes are generated anew, and code travels as source if it has to.
        """

        dispatch_table: ClassVar[Any] = ChainMap(
            own_reducers, *cloudpickle.Pickler.dispatch_table.maps
        )

        def __init__(
            self, stream: Any, theirs: str, by_name: bool = False, buffer_callback: Any = None
        ) -> None:
            super().__init__(stream, protocol=5, buffer_callback=buffer_callback)
            # None: the host has this interpreter's bytecode, and code travels as it is.
            self.names = code_reductions.Names(theirs, self.dumps_by_name) if theirs else None
            self.by_name = by_name
            self.cells = code_reductions.Cells()

        def dumps_by_name(self, obj: Any) -> bytes:
            with io.BytesIO() as stream:
                SourcePickler(stream, self.names.theirs if self.names else "", by_name=True).dump(
                    obj
                )
                return stream.getvalue()

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if issubclass(kind, type):
                return self.reduce_class(obj)
            if kind is function_type:
                if cloudpickle._should_pickle_by_reference(obj):
                    return NotImplemented
                if self.by_name:
                    raise code_reductions.ByValue
                return code_reductions.reduce_dispatcher(obj) or self.reduce_function(obj)
            if (
                kind.__module__ in ("functools", "typing", "annotationlib")
                and cloudpickle._lookup_module_and_qualname(obj) is None
            ):
                found = code_reductions.reduce_decorated(obj)
                if found is not None:
                    return found
            if self.names is not None:
                found = code_reductions.reduce_value(obj, self.names)
            else:
                found = code_reductions.keep_file(obj) if kind is code_type else None
            return NotImplemented if found is None else found

        def reduce_class(self, obj: Any) -> Any:
            if obj in (type(None), type(...), type(NotImplemented)):
                return cloudpickle._class_reduce(obj)
            if self.names is not None:
                base = code_reductions.reduce_enum_base(obj)
                if base is not None:
                    return base
                if obj in cloudpickle._BUILTIN_TYPE_NAMES:
                    return code_reductions.builtin_type(cloudpickle._BUILTIN_TYPE_NAMES[obj])
            if obj in cloudpickle._BUILTIN_TYPE_NAMES or cloudpickle._should_pickle_by_reference(
                obj
            ):
                return cloudpickle._class_reduce(obj)
            if self.by_name:
                raise code_reductions.ByValue
            return code_reductions.reduce_class(obj, self.names)

        def reduce_function(self, obj: Any) -> Any:
            made, (attributes, slots) = (
                self._function_getnewargs(obj),
                code_reductions.function_state(obj),
            )
            if self.names is not None:
                made, attributes, slots = code_reductions.reduce_function(
                    obj, self.names, made, (attributes, slots), obj.__qualname__
                )
            made = made[:4] + (self.cells.of(obj, made[4]),)
            return (
                cloudpickle._make_function,
                made,
                (attributes, slots),
                None,
                None,
                cloudpickle._function_setstate,
            )

    _pickler_class = SourcePickler
    return SourcePickler
