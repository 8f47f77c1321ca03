"""The numbers by which the workers of a pool know objects of the host's namespaces.

Each has a version, which says whether the host has changed it since it was sent.

A function by value brings what it reaches: globals, closures, defaults, attributes. Each of these
objects gets a number for as long as it lives, so that it is one object in a worker however many
functions and calls bring it (``worker/objects.py``). Two sizes are told apart:

* A small value (``fingerprints.NODES`` objects and ``fingerprints.BYTES`` bytes at most) travels
  with each function that reaches it. The elements of each container in it make its *version*, so
  any change is noticed.
* The content of a large one travels once per worker, as a ``Piece``. Whether it has changed is
  judged by a *fingerprint*: its identity, its length, and a sample of what it holds, so that a
  submit costs nothing that grows with its size.

One ``Record`` belongs to each pool. Entered by any thread that submits, without a lock: tables
change by single operations, and two threads that meet an object for the first time at once agree on
its number by ``setdefault``.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import marshal
import pickle
import sys
import types
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wetlands_executor.worker import wire

if TYPE_CHECKING:
    from typing_extensions import Self

from wetlands_executor.serialize import cycles

#: Numbers of dropped objects that are collected before they are sent to workers.
DROPPED = 256
#: Small objects that get a number before it is worth a look which of all are in use.
SMALL = 64

_numbers = itertools.count(1)


def _instructions(owner: int, number: int, name: str) -> bytes:
    with io.BytesIO() as stream:
        pickler = pickle.Pickler(stream, 2)
        pickler.fast = True  # nothing else goes into the memo
        pickler.dump((owner, number, name))
        arguments = stream.getvalue()[2:-1]
    return b"".join((wire.DEFINED, arguments, b"R\x940"))  # REDUCE, MEMOIZE, POP


class Check(Protocol):
    """A fast check, as far as the objects in it know it: see ``fast_checks``."""

    void: bool


#: Types that have no weak references.
_NEVER_WEAK: frozenset[Any] = frozenset((list, dict, tuple, types.CellType))
#: Shape of a cell whose variable a function by value binds anew: its content is state of workers.
WRITTEN = object()


class Piece:
    """The content of one large object, as workers read it once.

    Attributes:
        number: its name on the wire.
        owner: number of the object.
        data: the pickle.
        fingerprint: what the object looked like then.
        needs: further pieces that it refers to.
        by_value: name of what travels as code in it, or None.
        keeps: the shared arrays in it.
        name: of a class or function, for messages; else empty.
        instructions: of a pickle, that put a class into the next place of the reader's memo.
    """

    __slots__ = (
        "by_value",
        "data",
        "fingerprint",
        "instructions",
        "keeps",
        "name",
        "needs",
        "number",
        "owner",
    )

    def __init__(
        self,
        owner: int,
        data: bytes,
        fingerprint: Any,
        needs: dict[int, Piece],
        by_value: str | None,
        keeps: list[Any] | None,
        name: str = "",
    ) -> None:
        self.number = next(_numbers)
        self.name = name
        self.instructions = _instructions(owner, self.number, name) if name else b""
        self.owner = owner
        self.data = data
        self.fingerprint = fingerprint
        self.needs = needs
        self.by_value = by_value
        self.keeps = keeps


class _Weak(weakref.ref):  # type: ignore[type-arg]
    """A weak reference that takes its object out of the record."""

    __slots__ = ("key", "number", "record")
    key: int
    number: int
    record: weakref.ref[Record]


def _gone(found: _Weak) -> None:
    record = found.record()
    if record is not None:
        record.drop(found.key, found.number)


class Known:
    """One object that has a number.

    Attributes:
        key: its id.
        number: what workers call it.
        weak, strong: the object; strong only where Python has no weak references to its type.
        shape: what cannot change without making it another object: the code of a function, the
            pickle of an opaque object.
        piece: its content if it is large.
        checks: the fast checks that go by the identity of the object; None as long as there was
            none.
    """

    __slots__ = ("__weakref__", "checks", "key", "number", "piece", "shape", "strong", "weak")

    def __init__(self, obj: Any, key: int, record: Record) -> None:
        self.key = key
        self.number = next(_numbers)
        self.shape: Any = None
        self.piece: Piece | None = None
        self.checks: dict[int, Check] | None = None
        self.strong: Any = None
        self.weak: _Weak | None = None
        if type(obj) in _NEVER_WEAK:  # an exception that is raised takes as long as the rest
            self.strong = obj
            return
        try:
            self.weak = weak = _Weak(obj, _gone)
        except TypeError:
            self.strong = obj
        else:
            weak.key, weak.number, weak.record = key, self.number, record.itself

    def get(self) -> Any:
        """Return the object; None if it is gone."""
        return self.strong if self.weak is None else self.weak()

    def add_check(self, check: Check) -> None:
        """Make a fast check void when this object is dropped."""
        checks = self.checks
        if checks is None:
            checks = self.checks = {}
        checks[id(check)] = check

    def remove_check(self, check: Check) -> None:
        """Forget a fast check that has ended."""
        checks = self.checks
        if checks is not None:
            checks.pop(id(check), None)

    def void_checks(self) -> None:
        """Make the fast checks void: the object is gone, or is another one for workers now."""
        checks, self.checks = self.checks, None
        for check in list((checks or {}).values()):
            check.void = True

    def take_shape(self, shape: Any) -> None:
        """Note what cannot change without making it another object."""
        self.shape = shape

    def take_piece(self, piece: Piece) -> Piece:
        """Keep the content of a large object; return it."""
        self.piece = piece
        return piece

    def drop_piece(self) -> Piece | None:
        """Forget the content; return it."""
        piece, self.piece = self.piece, None
        return piece

    def end(self) -> None:
        """Let go of the object."""
        self.strong = self.weak = None
        self.void_checks()


def _unused() -> int:
    """Return the count of references to an object that only a ``Known`` refers to."""
    known = Known(object(), 0, Record())
    return sys.getrefcount(known.strong)


class Retired(NamedTuple):
    """A definition that is gone.

    Attributes:
        number: its name on the wire.
    """

    number: int


class _Definition(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to the definition of something that this record knows."""

    __slots__ = ("number", "record")

    def __new__(cls, definition: Any, _record: Record) -> Self:
        return super().__new__(cls, definition, _retired)

    def __init__(self, definition: Any, record: Record) -> None:
        super().__init__(definition, _retired)  # type: ignore[call-arg]
        self.number: int = definition.number
        self.record = record.itself


def _retired(found: _Definition) -> None:
    record = found.record()
    if record is not None:
        record.note_retired(found.number)


class Epoch:
    """What was dropped in one span of time, kept until no call under way may refer to it.

    Each call holds the epoch in which it was pickled, and each epoch the next one. So when one
    goes, all calls pickled before its end have gone.
    """

    __slots__ = ("dropped", "following", "ready")

    def __init__(self, ready: deque[int]) -> None:
        self.dropped: list[int] = []
        self.following: Epoch | None = None
        self.ready = ready

    def __del__(self) -> None:
        self.ready.extend(self.dropped)


class Record:
    """The objects of one pool's namespaces.

    Attributes:
        known: id -> what has that id. An entry without a weak reference keeps its object until
            ``purge`` finds that nothing else does.
        epoch: takes the numbers of objects and pieces that the host drops.
        ready: such numbers that may be sent to workers.
        urgent: the host has dropped a piece since: its memory is worth a message.
        functions: id of a function or class -> how it was pickled last (``watched.Watched``).
        codes: id of a code object -> what is known of functions made of it (``templates.Code``).
        retired: definitions that will not be called again, and that no call under way refers to.
        dirty: something was pickled or dropped since the last look.
    """

    __slots__ = (
        "__weakref__", "_cycles_from", "_definitions", "_purge_in", "_small", "_strong", "codes",
        "dirty", "epoch", "functions", "itself", "known", "ready", "retired", "urgent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        # Those of them that keep their object.
        self._strong: dict[int, Known] = {}
        self.ready: deque[int] = deque()
        self.epoch = Epoch(self.ready)
        self.urgent = False
        self.functions: dict[int, Any] = {}
        self.codes: dict[int, Any] = {}
        self.retired: deque[Retired] = deque()
        self._definitions: dict[int, _Definition] = {}
        self.dirty = False
        self._purge_in = 0
        self._small = 0
        # Objects that are kept from which on it is worth a look for cycles among them.
        self._cycles_from = DROPPED
        self.itself = weakref.ref(self)

    def of(self, obj: Any) -> Known:
        """Return the entry of an object, made if there is none."""
        key = id(obj)
        found = self.known.get(key)
        if found is not None:
            if found.get() is obj and (
                type(obj) is not types.FunctionType or found.shape is obj.__code__
            ):
                return found
            # its object is gone, and this one has its address; or it has other code now
            self.drop(key, found.number)
        made = Known(obj, key, self)
        if type(obj) is types.FunctionType:
            made.take_shape(obj.__code__)
        found = self.known.setdefault(key, made)
        if found.weak is None:
            self._strong[key] = found
        return found

    def renew(self, obj: Any) -> Known:
        """Give an object another number: for workers it is another object."""
        found = self.of(obj)
        self.drop(id(obj), found.number)
        return self.of(obj)

    def drop(self, key: int, number: int) -> None:
        """Forget an object."""
        self._drop(key, number)
        self.dirty = True

    def _drop(self, key: int, number: int) -> None:
        found = self.known.get(key)
        if found is None or found.number != number:
            return
        self.known.pop(key, None)
        self._strong.pop(key, None)
        self.retire(key)
        self.epoch.dropped.append(number)
        if found.piece is not None:
            self.drop_piece(found)
        found.end()

    def retire(self, key: int) -> None:
        """Forget how a function or class was pickled."""
        watched = self.functions.pop(key, None)
        if watched is not None:
            watched.end()
            if watched.piece is not None:
                self.epoch.dropped.append(watched.piece.number)

    def refresh(self, obj: Any) -> None:
        """Forget how something was pickled, with the large objects that it reaches.

        Args:
            obj: a function or class by value, or a method or a ``functools.partial`` of one.
        """
        while True:
            inner = getattr(obj, "__func__", obj)
            inner = inner.func if isinstance(inner, functools.partial) else inner
            if inner is obj:
                break
            obj = inner
        code = self.codes.get(id(getattr(obj, "__code__", None)))
        reached: list[Known] = [] if code is None else code.reached()
        waiting, seen = [id(obj)], set()
        while waiting or reached:
            for known in reached:
                waiting.append(known.key)
                if type(known.shape) is bytes:
                    self.drop(known.key, known.number)  # it is made by its pickle, once
                else:
                    self.drop_piece(known)
            reached = []
            key = waiting.pop()
            watched = self.functions.get(key)
            if watched is not None and key not in seen:
                seen.add(key)
                reached = watched.reached()
                self.retire(key)

    def follow(self, definition: Any) -> None:
        """Let workers forget a definition when neither this record nor a call has it any more.

        Not before: a call that waits for a worker would bring it once more, for good.
        """
        self._definitions[definition.number] = _Definition(definition, self)

    def note_retired(self, number: int) -> None:
        """Note that a definition is gone."""
        self._definitions.pop(number, None)
        self.retired.append(Retired(number))
        self.dirty = True

    def note_change(self) -> None:
        """Note that something was pickled: the next look for what was dropped is worth it."""
        self.dirty = True

    def note_small(self) -> None:
        """Note that a container of a few scalars has a number, which travels with its call."""
        self._small += 1
        if not self._small % SMALL:
            self.dirty = True

    def forget(self, numbers: list[int]) -> None:
        """Let workers forget numbers that are no object's any more."""
        self.dirty = True
        self.epoch.dropped.extend(numbers)

    def drop_piece(self, known: Known) -> None:
        """Forget the content of a large object."""
        piece = known.drop_piece()
        if piece is not None:
            self.epoch.dropped.append(piece.number)
            known.void_checks()
            self.urgent = True

    def purge(self) -> None:
        """Drop the objects that this record alone keeps alive."""
        limit = _UNUSED
        for key, known in list(self._strong.items()):
            if sys.getrefcount(known.strong) <= limit:
                self._drop(key, known.number)
        if len(self._strong) > self._cycles_from:
            self._purge_cycles()
            self._cycles_from = max(DROPPED, 2 * len(self._strong))

    def _purge_cycles(self) -> None:
        """Drop the objects that only this record and each other refer to.

        Python's collector frees them then.
        """
        strong = dict(self._strong)
        for key in cycles.unreachable([known.strong for known in strong.values()]):
            known = strong.get(key)
            if known is not None:
                self._drop(key, known.number)

    def take_dropped(self) -> list[int]:
        """Return what workers should forget now, after a call was pickled.

        Empty if it is not worth a message yet.
        """
        # Order: before the look, so that what is dropped from now on is seen by the next one.
        self.dirty = False
        self._purge_in -= 1
        if self._purge_in < 0:
            self._purge_in = len(self._strong) // DROPPED
            self.purge()
        epoch = self.epoch
        if self.urgent or len(epoch.dropped) >= DROPPED:
            self.urgent = False
            epoch.following = self.epoch = Epoch(self.ready)
            del epoch
        found: list[int] = []
        while self.ready:
            try:
                found.append(self.ready.popleft())
            except IndexError:  # another thread was faster
                break
        return found


_UNUSED = _unused()


class ObjectProxy:
    """Takes the place of an object in a stream; its reduction names the object by its number.

    Attributes:
        obj: the object.
        reduction: as ``__reduce__`` returns it.
        number: of the object.
    """

    __slots__ = ("number", "obj", "reduction")

    def __init__(self, obj: Any, number: int, reduction: Any) -> None:
        self.obj = obj
        self.number = number
        self.reduction = reduction


class Mark:
    """The name of a global or attribute in a stream.

    Tells the pickler what comes next, for messages.
    """

    __slots__ = ("function", "kind", "name")

    def __init__(self, name: str, kind: str, function: str) -> None:
        self.name = name
        self.kind = kind
        self.function = function


#: The hash of bytes is a keyed one of 64 bits, as on almost every machine. It takes a tenth of the
#: time of ``blake2b``, and a digest is compared with others of this process only.
_HASH_IS_WIDE = (
    sys.hash_info.width == 64
    and sys.hash_info.algorithm.startswith("siphash")
    and not sys.hash_info.cutoff
)


def digest(parts: Any) -> int:
    """Return a number of 64 bits for builtin values, equal for equal ones of equal types."""
    data = marshal.dumps(parts, 2)
    if _HASH_IS_WIDE:
        return hash(data)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
