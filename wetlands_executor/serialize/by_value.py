"""Functions and classes by value as bytes.

What they reach is named by number, so that it is one object in a worker's namespace.

``ByValuePickler`` writes one function or class with all that it needs, in a stream of its own.
``pickler.CallPickler``, which writes calls, puts such streams into its own; arguments beside them
are copies, as usual. Which objects have numbers, and whether their content has changed, is
``identity``'s business; ``worker/objects.py`` and ``worker/namespaces.py`` are the other end.
Entered by any thread that submits.
"""

from __future__ import annotations

import functools
import io
import itertools
import pickle
import sys
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

from cloudpickle import cloudpickle as _cp

from wetlands_executor.serialize import (
    changes,
    fingerprints,
    identity,
    kinds,
    references,
    special,
    templates,
)
from wetlands_executor.serialize.identity import Mark, ObjectProxy
from wetlands_executor.serialize.pickler import CallPickler, Space, reductions, space_name
from wetlands_executor.serialize.pickler import dump as dump_call
from wetlands_executor.serialize.scalars import SCALARS
from wetlands_executor.serialize.watched import Watched
from wetlands_executor.sharedmem import share
from wetlands_executor.worker import code_classes, namespaces, objects, shm_share

#: Neither numbered nor examined: scalars, and what is named or written as code.
_ATOMS: frozenset[Any] = frozenset({
    *SCALARS, tuple, frozenset, types.CodeType, types.ModuleType, types.FunctionType,
    types.BuiltinFunctionType, type, type(...), type(NotImplemented), range, slice, ObjectProxy,
    Space, property, staticmethod, classmethod, types.MethodType, types.MappingProxyType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, pickle.PickleBuffer,
})  # fmt: skip
_BUILTINS: dict[Any, int] = {
    list: objects.LIST,
    dict: objects.DICT,
    set: objects.SET,
    bytearray: objects.BYTEARRAY,
    object: objects.OBJECT,
    types.CellType: objects.CELL,
}
#: Classes of the standard library whose reductions hold nothing but their elements.
_TRANSPARENT: frozenset[Any] = frozenset(
    {OrderedDict, defaultdict, deque, Counter, functools.partial}
)
#: ids of the objects that this thread is pickling, one within the other.
_active = threading.local()


class ByValuePickler(CallPickler):
    """Pickles one function or class by value.

    Args:
        file: where the bytes go.
        record: the objects that the pool's workers know.
        keeps: takes shared arrays that are referred to.
        remote: the Python that reads it; None is one like this.
        left_out: a namespace, and globals in it that are not written.
    """

    def __init__(
        self,
        file: io.BytesIO,
        record: identity.Record,
        keeps: list[Any] | None,
        remote: Any,
        left_out: tuple[Any, frozenset[str]],
    ) -> None:
        super().__init__(file, None, keeps, remote=remote, by_value=_this_module)
        self._record = record
        # id -> the proxy of an object of this stream, which keeps the object; or of one that is
        # written as it is.
        self._proxies: dict[int, ObjectProxy] = {}
        self._plain: dict[int, Any] = {}
        self._at: Mark | None = None
        self._left_out = left_out
        #: The conditions under which the stream may be used again; None if they cannot be
        #: determined.
        self.checks: list[tuple[Any, ...]] | None = []

    def _check(self, *check: Any) -> None:
        if self.checks is not None:
            self.checks.append(check)

    def dump(self, obj: Any) -> None:
        """Write the object.

        An error names the global that could not be pickled, and the function that uses it.
        """
        try:
            super().dump(obj)
        except (
            TypeError,
            pickle.PicklingError,
            AttributeError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            if self._at is not None:
                special.explain(error, self._at, self.explain)
            raise

    def forget(self) -> None:
        """Let go of the objects of the stream, without waiting for the collector."""
        self._proxies.clear()
        self._plain.clear()
        self._at = None

    # --- which objects have numbers

    def persistent_id(self, obj: Any) -> Any:
        """Return the proxy of an object that has a number; None for everything else.

        Called for each object of the stream.
        """
        proxy = self._proxies.get(id(obj))
        if proxy is not None:
            return proxy
        kind = type(obj)
        if kind is Mark:
            self._at = obj
            return obj.name
        if kind in _ATOMS or id(obj) in self._plain or isinstance(obj, type):
            return None
        return self._proxy_of(obj, kind)

    def _proxy_of(self, obj: Any, kind: Any) -> ObjectProxy | None:
        """Return the proxy of an object, made if its type has any."""
        found = self._proxies.get(id(obj))
        if found is not None:
            return found
        reduction: Any
        if kind in _BUILTINS:
            known = self.record.of(obj)
            reduction = self._reduce_builtin
        elif special.has_rules_of_its_own(obj, kind):
            return None
        else:
            known = _known(obj, kind, self.record)
            reduction = self._reduce_instance(obj, kind)
            if reduction is None:
                return None
            if type(reduction) is bytes:
                if type(known.shape) is bytes and known.shape != reduction:
                    known = self.record.renew(obj)
                known.take_shape(reduction)
                check = special.check_of_opaque(obj, kind, known)
                if check is None:
                    self.checks = None
                elif check:
                    self._check(*check)
                reduction = (objects.whole, (known.number, reduction))
        proxy = self._proxies[id(obj)] = ObjectProxy(obj, known.number, reduction)
        return proxy

    def _plainly(self, obj: Any) -> Any:
        """Mark a container that was made for this stream only."""
        self._plain[id(obj)] = obj
        return obj

    def reducer_override(self, obj: Any) -> Any:
        """Reduce proxies; functions and classes by value; the rest as in calls."""
        if type(obj) is ObjectProxy:
            reduction = obj.reduction
            if not isinstance(reduction, tuple):
                reduction = obj.reduction = reduction(obj)
            return reduction
        if type(obj) is types.ModuleType and not _cp._should_pickle_by_reference(obj):
            self.checks = None  # made by hand: it travels with its attributes, which may change
        return super().reducer_override(obj)

    # --- containers and instances

    def _reduce_builtin(self, proxy: ObjectProxy) -> Any:
        obj, kind = proxy.obj, type(proxy.obj)
        begin = (objects.begin, (proxy.number, _BUILTINS[kind]))
        if kind is object:
            found = special.reduce_sentinel(obj, self.record)
            return begin if found is None else found
        content = changes.content_of(obj)
        version = self._version(content)
        self._check(changes.CONTENT, self.record.of(obj), version)
        return (
            *begin,
            (proxy.number, version, content)
            if type(content) is bytes
            else (proxy.number, version, *content),
            None,
            None,
            objects.finish,
        )

    def _version(self, content: Any) -> int:
        return identity.digest(
            content if type(content) is bytes else tuple(map(self._part, content))
        )

    def _part(self, value: Any) -> Any:
        """Return what stands for one element in the version of its container."""
        kind = type(value)
        if kind in (str, bytes):
            return value if len(value) < fingerprints.BYTES else self.record.of(value).number
        if kind in SCALARS:
            return value
        if kind is tuple:
            return ("t", *map(self._part, value))
        if kind in changes.DESCRIPTORS:
            return changes.descriptor(value, self.record)
        if kind in _ATOMS or kind in _BUILTINS or isinstance(value, type):
            return ("o", self.record.of(value).number)
        proxy = self._proxy_of(value, kind)
        return ("o", proxy.number if proxy is not None else self.record.of(value).number)

    def _reduce_instance(self, obj: Any, kind: Any) -> Any:
        """Return the reduction of an instance, what makes it, or its pickle; None if by name."""
        if special.has_remote_form(obj):
            return self._numbered(obj, obj.__reduce__())
        special.refuse_process_bound(obj, kind)
        if kind in kinds.PER_PROCESS or isinstance(obj, threading.local):
            return special.reduce_anew(obj, kind, self.record.of(obj).number)
        found = special.reduce_sentinel(obj, self.record)
        if found is not None:
            if kinds.has_plain_state(kind):  # it holds nothing yet
                version = changes.version_of_state(changes.state_of(obj), self.record)
                self._check(changes.CONTENT, self.record.of(obj), version)
            return found
        if kind is functools.partial:
            found = reductions().reduce_decorated(obj)
            if found is not None:
                return self._numbered(obj, found)
        if kind in _TRANSPARENT or kinds.has_plain_state(kind):
            return self._reduce_parts
        active = _active.__dict__.setdefault("ids", set())
        if id(obj) in active:
            # it refers to itself through a function: the stream's own memo has to close the circle
            return None
        active.add(id(obj))
        try:
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and id(obj) not in self._plain:
                data, pickler = dump_call(
                    obj,
                    None,
                    self.keeps,
                    remote=self._remote,
                    record=self.record,
                    by_value=_this_module,
                )
            else:
                return self._numbered(obj, reduced)
        finally:
            active.discard(id(obj))
        self._take(pickler)
        return data

    def _numbered(self, obj: Any, reduced: Any) -> Any:
        """Return a reduction that makes an object once per worker.

        None for what has a reduction of another form.
        """
        if not isinstance(reduced, tuple) or len(reduced) != 2:
            return None
        function, args = reduced
        if function is shm_share.attach:
            # a view is made anew for each call, so that its memory is not held longer
            return reduced
        for part in args:
            if type(part) is dict:
                self._plainly(part)
        return objects.make, (self.record.of(obj).number, function, args)

    def _take(self, pickler: CallPickler) -> None:
        """Adopt the findings of another stream within this one."""
        self.needs.update(pickler.needs)
        for watched in pickler.nested:
            self._check(changes.NESTED, watched.known, watched)
        if pickler.by_value is not None:
            self._foreign()
            self.by_value = self.by_value or pickler.by_value

    def _reduce_parts(self, proxy: ObjectProxy) -> Any:
        """Reduce an instance to its class and its elements."""
        obj, kind = proxy.obj, type(proxy.obj)
        state = changes.state_of(obj)
        function, args, attributes, slots, other, elements, entries = state
        special.refuse_locks(kind, attributes)
        if other is not None:
            self._plainly(other[0])
        for found in (attributes, slots, elements, entries):
            for value in found or ():
                self._part(value)
        version = changes.version_of_state(state, self.record)
        self._check(changes.CONTENT, self.record.of(obj), version)
        made = objects.make, (proxy.number, function, args)
        groups = [found or () for found in (other, attributes, slots, elements, entries)]
        counts = tuple(
            -1 if found is None else len(found)
            for found in (other, attributes, slots, elements, entries)
        )
        # In one tuple: each level of nesting takes from the depth that can be pickled.
        return (
            *made,
            (proxy.number, version, counts, *itertools.chain.from_iterable(groups)),
            None,
            None,
            objects.set_state,
        )

    # --- globals, closures, defaults

    def _root(self, value: Any) -> None:
        """Prepare a value that a function or class reaches directly.

        A large one becomes a piece, a tuple gets a number.
        """
        kind = type(value)
        if id(value) in self._proxies or _goes_as_it_is(value, kind):
            return
        if share.any_shared() and share.reduce(value) is not None:
            return
        if kind is not float and self._as_piece(value):
            return
        if kind is float or (kind in (tuple, frozenset) and value):
            number = self.record.of(value).number
            content = repr(value) if kind is float else self._plainly(list(value))
            self._proxies[id(value)] = ObjectProxy(
                value, number, (objects.constant, (number, kind.__name__, content))
            )

    def _as_piece(self, value: Any) -> bool:
        """Let a large value travel as a piece; False if it is small."""
        record = self.record
        if (
            id(value) in _active.__dict__.setdefault("ids", set())
            or type(value) in kinds.PER_PROCESS
            or isinstance(value, special.PROCESS_BOUND_TYPES)
        ):
            return False
        piece = _piece_of(value, record, self._remote)
        if piece is None:
            return False
        known = record.of(value)
        self.needs[piece.number] = piece
        self.needs.update(piece.needs)
        if piece.by_value is not None:
            self._foreign()
            self.by_value = self.by_value or piece.by_value
        self._check(changes.PIECE, known, piece)
        self._proxies[id(value)] = ObjectProxy(
            value, known.number, (objects.large, (known.number, piece.number))
        )
        return True

    # --- functions and classes

    def _function_by_value(self, func: Any) -> Any:
        """Reduce a function by value; its globals are entries that the worker may skip."""
        dispatcher = reductions().reduce_dispatcher(func)
        if dispatcher is not None:
            return self._reduce_dispatcher(func, dispatcher)
        what = references.display_name(func)
        newargs, (attributes, slots) = (
            self._function_getnewargs(func),
            reductions().function_state(func),
        )
        if self._foreign():
            newargs, attributes, slots = reductions().reduce_function(
                func, self._names, newargs, (attributes, slots), what
            )
        code, base, function_name, defaults, _fresh = newargs
        record = self.record
        cells = func.__closure__ or ()
        known = record.of(func)
        space = space_name(func.__globals__) if isinstance(base, dict) else None
        if space is not None:
            base = self._spaces.get(id(func.__globals__))
            if base is None:
                base = self._spaces[id(func.__globals__)] = Space(
                    space, self._plainly(dict(_base_of(func)))
                )
        elif isinstance(base, dict):
            self._plainly(base)
        entries = self._entries(slots.pop("__globals__"), func, what, space)
        slots["__closure__"] = None
        given = func.__defaults__ or (), (func.__kwdefaults__ or {}).values(), attributes.values()
        for value in itertools.chain.from_iterable(given):
            self._root(value)
        for value in itertools.chain.from_iterable(given):
            self._part(value)
        version = changes.version_of_function(func, record)
        plain = func.__defaults__ is None and not func.__kwdefaults__ and not func.__dict__
        self._check(changes.FUNCTION, known, version, func.__code__, plain)
        parts = map(slots.get, ("__kwdefaults__", "_cloudpickle_submodules", "__annotations__"))
        for container in (slots, attributes, *parts):
            self._plainly(container)
        closure = (
            tuple(
                ObjectProxy(cell, 0, (objects.begin, (record.of(cell).number, objects.CELL)))
                for cell in cells
            )
            if cells
            else None
        )
        state = (
            attributes,
            slots,
            space,
            (known.number, version, self._cells_of(func, what)),
            entries,
        )
        made_of = (code, base, function_name, defaults, closure)
        args = (known.number, _cp._make_function, made_of)
        return objects.make, args, state, None, None, namespaces.restore

    def _cells_of(self, func: Any, what: str) -> tuple[Any, ...]:
        """Return (mark, number, version, content) of each variable that a function closes over."""
        found = []
        written = templates.written(func.__code__) if func.__closure__ else ()
        # of equal length
        for name, cell in zip(func.__code__.co_freevars, func.__closure__ or ()):  # noqa: B905
            content = changes.content_of(cell)
            self._at = Mark(name, "variable", what)
            for value in content:
                self._root(value)
            known, version = self.record.of(cell), self._version(content)
            if name in written:
                known.take_shape(identity.WRITTEN)
            self._check(changes.CONTENT, known, version)
            found.append((Mark(name, "variable", what), known.number, version, *content))
        return tuple(found)

    def _entries(
        self, used: dict[str, Any], func: Any, what: str, space: str | None
    ) -> tuple[Any, ...]:
        """Return mark, token, value of each global that a function uses, one after the other."""
        found: list[Any] = []
        known = self.record.of(func)
        left_out = self._left_out[1] if self._left_out[0] is func.__globals__ else ()
        for key, value in used.items():
            if key in left_out:
                continue
            mark = Mark(key, "global", what)
            self._at = mark
            self._root(value)
            token = None if space is None else self._token(value)
            self._check(changes.GLOBAL, known, key, changes.binding(value, self.record))
            found += (mark, token, value)
        for key in _cp._extract_code_globals(func.__code__):
            if key not in func.__globals__ and key not in left_out:
                self._check(changes.ABSENT, known, key)
                found += (Mark(key, "global", what), namespaces.ABSENT, None)
        return tuple(found)

    def _token(self, value: Any) -> Any:
        """Return a token of a global, which differs once its name or its object has changed."""
        kind = type(value)
        if kind in SCALARS and id(value) not in self._proxies:
            return (kind.__name__, repr(value))
        if isinstance(value, types.ModuleType):
            return ("module", value.__name__)
        proxy = self._proxies.get(id(value))
        part = ("o", proxy.number) if proxy is not None else self._part(value)
        proxy = self._proxies.get(id(value))
        if proxy is None:
            return part
        if callable(proxy.reduction):
            active = _active.__dict__.setdefault("ids", set())
            if id(value) not in active:
                active.add(id(value))
                try:
                    proxy.reduction = proxy.reduction(proxy)
                finally:
                    active.discard(id(value))
        if isinstance(proxy.reduction, tuple):
            state = proxy.reduction[2] if len(proxy.reduction) > 2 else proxy.reduction[1]
            return (part, state[1] if len(state) > 1 and type(state[1]) is int else 0)
        return part

    def _reduce_dispatcher(self, func: Any, reduced: Any) -> Any:
        """Reduce a function of ``functools.singledispatch`` or of an early ``typing.NewType``."""
        maker, args, *rest = reduced
        known = self.record.of(func)
        self.checks = None
        made = objects.make, (known.number, maker, args)
        if not rest:
            return made
        original, registered = rest[0]
        registered = tuple(registered)
        version = self._version((original, *itertools.chain.from_iterable(registered)))
        return (
            *made,
            (known.number, version, rest[-1], (original, registered)),
            None,
            None,
            objects.set_once,
        )

    def _class_by_value(self, cls: Any) -> Any:
        maker, args, state, _, _, setter = reductions().reduce_class(cls, self._foreign() or None)
        self._at = Mark(cls.__qualname__, "class", cls.__qualname__)
        if setter is code_classes.set_class:
            # Python 3.14 and newer evaluate annotations for this stream only (PEP 649).
            annotations = state[0].get("__annotations__")
            if annotations is not vars(cls).get("__annotations__"):
                self._plainly(annotations)
            what = cls.__qualname__
            state = _marked(state[0], what), state[1]
            for _kind, options in state[1][1].values() if state[1] is not None else ():
                self._plainly(options)
                self._plainly(options["metadata"])
        for found in (args, state):
            special.visit_parts(found, self._plainly)
        members = {
            name: value for name, value in vars(cls).items() if name not in changes.NOT_STATE
        }
        for name, value in members.items():
            self._at = Mark(name, "attribute", cls.__qualname__)
            self._root(value)
            self._part(value)
        version = changes.version_of_class(cls, self.record)
        self._check(changes.CLASS, self.record.of(cls), version)
        return (
            maker,
            args,
            (self.record.of(cls).number, version, setter, state),
            None,
            None,
            objects.set_once,
        )


def _goes_as_it_is(value: Any, kind: type) -> bool:
    """Return True for what neither needs a number nor can be a piece."""
    return (
        kind in (int, bool, type(None), complex)
        or isinstance(value, (type, types.ModuleType, types.FunctionType))
        or (kind is float and value == value)
        or kind in changes.DESCRIPTORS
        or (kind in (str, bytes) and len(value) < fingerprints.BYTES)
    )


def _known(obj: Any, kind: type, record: identity.Record) -> identity.Known:
    """Return the entry of an instance, a new one if it is of another class now."""
    known = record.of(obj)
    if isinstance(known.shape, type) and known.shape is not kind:
        known = record.renew(obj)
    if known.shape is None:
        known.take_shape(kind)
    return known


def _marked(members: dict[str, Any], what: str) -> dict[Any, Any]:
    """Return the attributes of a class with marks, but for what ``copyreg`` has noted in it."""
    return {
        Mark(name, "attribute", what): value
        for name, value in members.items()
        if name != "__slotnames__"
    }


def _base_of(func: Any) -> dict[str, Any]:
    """Return the entries with which a function's namespace begins in a worker."""
    return {
        key: func.__globals__[key]
        for key in ("__package__", "__name__", "__path__", "__file__")
        if key in func.__globals__
    }


def dump(
    obj: Any,
    keeps: list[Any] | None,
    remote: Any,
    record: identity.Record,
    left_out: frozenset[str] = frozenset(),
) -> tuple[bytes, ByValuePickler]:
    """Pickle a function or class by value, or a large value that one reaches.

    ``left_out``: globals of the function that go with each call.
    """
    with io.BytesIO() as stream:
        names = (obj.__globals__, left_out) if left_out else (None, left_out)
        pickler = ByValuePickler(stream, record, keeps, remote, names)
        try:
            pickler.dump(obj)
        finally:
            pickler.forget()
        return stream.getvalue(), pickler


def dump_values(
    values: tuple[Any, ...], keeps: list[Any] | None, remote: Any, record: identity.Record
) -> tuple[bytes, ByValuePickler]:
    """Pickle values as those that a function by value reaches."""
    with io.BytesIO() as stream:
        pickler = ByValuePickler(stream, record, keeps, remote, (None, frozenset()))
        try:
            for value in values:
                pickler._root(value)
            pickler.dump(values)
        finally:
            pickler.forget()
        return stream.getvalue(), pickler


def _piece_of(value: Any, record: identity.Record, remote: Any) -> identity.Piece | None:
    """Return the piece of a large value, pickled anew if it looks different, or None."""
    known = record.of(value)
    large, fingerprint = fingerprints.measure(value, record)
    piece = known.piece
    if piece is not None and piece.fingerprint == fingerprint and large:
        return piece
    if piece is not None:
        record.drop_piece(known)
        if type(value) not in _BUILTINS:
            record.renew(value)
    if not large:
        return None
    active = _active.__dict__.setdefault("ids", set())
    active.add(id(value))
    try:
        keeps: list[Any] = []
        data, pickler = dump(value, keeps, remote, record)
    finally:
        active.discard(id(value))
    known = record.of(value)
    needs, by_value = pickler.needs, pickler.by_value
    return known.take_piece(identity.Piece(known.number, data, fingerprint, needs, by_value, keeps))


def record_of(remote: Any) -> identity.Record:
    """Return the record of a pool; a new one for what is pickled for no pool."""
    if remote is None:
        return identity.Record()
    found: identity.Record = remote.record or remote.keep_record(identity.Record())
    return found


reduce_sentinel = special.reduce_sentinel


def current(obj: Any, keeps: list[Any] | None, remote: Any, record: identity.Record) -> Watched:
    """Return a function or class by value, pickled.

    The last pickle serves again if nothing has changed since.
    """
    key = id(obj)
    found: Watched | None = record.functions.get(key)
    if found is not None:
        if found.is_current(obj, record):
            return found
        record.retire(key)
    own: list[Any] = []
    record.note_change()
    data, pickler = dump(obj, own if keeps is not None else None, remote, record)
    if keeps is not None:
        keeps.extend(own)
    watched = Watched(record.of(obj), data, pickler)
    if pickler.checks is not None and not own and remote is not None:
        record.functions[key] = watched
    return watched


def _this_module() -> Any:
    return sys.modules[__name__]
