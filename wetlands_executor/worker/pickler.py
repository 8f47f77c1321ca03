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


def dump_by_value(
    value: Any, theirs: str, stream: Any, buffer_callback: Any = None, by_name: Any = None
) -> Any:
    """Pickle a value with the functions and classes that exist only here; return the pickler.

    Args:
        value: what is sent.
        theirs: version of the Python that receives it, if that has other bytecode: code travels as
            source then; else "".
        stream: the file that takes the pickle.
        buffer_callback: takes large buffers (PEP 574); None leaves them in the pickle.
        by_name: a function that returns False for functions and classes that this process could
            import and the receiver cannot; None: it can.
    """
    pickler = _pickler()(stream, theirs, buffer_callback=buffer_callback, known_there=by_name)
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

    module = cloudpickle_module()

    class SourcePickler(_Rules, module.Pickler):  # type: ignore[misc, name-defined]
        """cloudpickle with two differences.

        Generated classes are generated anew, and code travels as source if it has to.
        """

        dispatch_table: ClassVar[Any] = ChainMap(own_reducers, *module.Pickler.dispatch_table.maps)
        cloudpickle = module

    _pickler_class = SourcePickler
    return SourcePickler


_FUNCTION = type(code_reductions.reduce_code)
_CODE = type(code_reductions.reduce_code.__code__)


class _Rules:
    """What differs from cloudpickle's pickler, of which a class with these rules is derived.

    Attributes:
        cloudpickle: the module.
        names: for a receiver of another version of Python; None if it has this one's bytecode, and
            code travels as it is.
        by_name: a function or class that would travel by value is an error.
        known_there: a function that returns True for what the receiver can import; None: all that
            this process can.
        cells: of the functions of this stream.
    """

    cloudpickle: ClassVar[Any]
    _function_getnewargs: Any

    def __init__(
        self,
        stream: Any,
        theirs: str,
        by_name: bool = False,
        buffer_callback: Any = None,
        known_there: Any = None,
    ) -> None:
        super().__init__(stream, protocol=5, buffer_callback=buffer_callback)  # type: ignore[call-arg]
        self.names = code_reductions.Names(theirs, self.dumps_by_name) if theirs else None
        self.by_name = by_name
        self.known_there = known_there
        self.cells = code_reductions.Cells()

    def dumps_by_name(self, obj: Any) -> bytes:
        """Pickle something; fail if it has to travel by value."""
        theirs = self.names.theirs if self.names else ""
        with io.BytesIO() as stream:
            _pickler()(stream, theirs, by_name=True).dump(obj)
            return stream.getvalue()

    def reducer_override(self, obj: Any) -> Any:
        """Reduce functions and classes by value; leave the rest to cloudpickle."""
        cloudpickle = self.cloudpickle
        kind = type(obj)
        if issubclass(kind, type):
            return self.reduce_class(obj)
        if kind is _FUNCTION:
            if self.is_named(obj):
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
            found = code_reductions.keep_file(obj) if kind is _CODE else None
        return NotImplemented if found is None else found

    def is_named(self, obj: Any) -> bool:
        """Return True for a function or class that travels as its name."""
        known = self.cloudpickle._should_pickle_by_reference(obj)
        return bool(known) and (self.known_there is None or self.known_there(obj))

    def reduce_class(self, obj: Any) -> Any:
        """Reduce a class: by its name where the receiver has it, else by value."""
        cloudpickle = self.cloudpickle
        if obj in (type(None), type(...), type(NotImplemented)):
            return cloudpickle._class_reduce(obj)
        if self.names is not None:
            base = code_reductions.reduce_enum_base(obj)
            if base is not None:
                return base
            if obj in cloudpickle._BUILTIN_TYPE_NAMES:
                return code_reductions.builtin_type(cloudpickle._BUILTIN_TYPE_NAMES[obj])
        if obj in cloudpickle._BUILTIN_TYPE_NAMES or self.is_named(obj):
            return cloudpickle._class_reduce(obj)
        if self.by_name:
            raise code_reductions.ByValue
        return code_reductions.reduce_class(obj, self.names)

    def reduce_function(self, obj: Any) -> Any:
        """Reduce a function by value."""
        made = self._function_getnewargs(obj)
        attributes, slots = code_reductions.function_state(obj)
        if self.names is not None:
            made, attributes, slots = code_reductions.reduce_function(
                obj, self.names, made, (attributes, slots), obj.__qualname__
            )
        made = made[:4] + (self.cells.of(obj, made[4]),)
        return (
            self.cloudpickle._make_function,
            made,
            (attributes, slots),
            None,
            None,
            self.cloudpickle._function_setstate,
        )
