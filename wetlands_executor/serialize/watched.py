"""A function or class by value as it was pickled last, and whether that is still right.

As long as nothing that it reaches has changed, it has a number like an importable function, and a
submit pickles only its arguments.

Invariant: a worker that has been given another content of something in between, by a call of
another function that was pickled at another time, reads the definition again before it calls the
function (``Runner.drop_stale``).

Entered by any thread that submits, without a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wetlands_executor.serialize import changes, fast_checks
from wetlands_executor.serialize.identity import Known, Piece, Record

_NEW: Any = object.__new__


class Watched:
    """A function or class by value as it was pickled last.

    Attributes:
        data: its stream.
        checks: what has to be as it was.
        needs, by_value, bytecode: of the stream; see ``calls.Definition``.
        definition: made when it is submitted again.
        parts: of a class whose objects are pickled as their class and what they hold: lists that;
            known from the first of them on.
        flat: these are all in ``__dict__``, and the class has no part in making its objects.
        piece: made when it travels beside calls, because their arguments refer to it.
    """

    __slots__ = (
        "_arguments",
        "_failed",
        "_fast",
        "by_value",
        "bytecode",
        "checks",
        "data",
        "definition",
        "flat",
        "known",
        "needs",
        "parts",
        "piece",
    )

    def __init__(self, known: Known, data: bytes, pickler: Any) -> None:
        self.known = known
        self.data = data
        self.checks: list[tuple[Any, ...]] = (
            [(changes.END,)] if pickler.checks is None else pickler.checks
        )
        self.needs: tuple[Piece, ...] = tuple(pickler.needs.values())
        self.by_value: str | None = pickler.by_value
        self.bytecode = bool(pickler.bytecode)
        self.definition: Any = None
        self.piece: Piece | None = None
        self.parts: Callable[[Any], Any] | None = None
        self.flat = False
        self._arguments = False
        self._fast: Any = None
        # How often the exact check has said otherwise than the fast one.
        self._failed = 0

    def is_current(self, obj: Any, record: Record) -> bool:
        """Return True if nothing has changed since.

        Runs user code only where an instance says itself what its state is.
        """
        if self.is_same(obj):
            return True
        if self.known.get() is not obj:
            return False
        if not all(changes.holds(check, record) for check in self.checks):
            return False
        self._failed += 1
        if not self._failed & (self._failed - 1):  # what changes each time is not worth it
            self._make_fast(record)
        return True

    def is_same(self, obj: Any) -> bool:
        """Return True if the fast check says that nothing has changed. Runs no code of the user's.

        Unless an object of theirs stands where a scalar stood, and is compared with it.
        """
        fast, known = self._fast, self.known
        if fast is None or fast.void:
            return False
        # without `Known.get`: each function more costs a short call as much as what it does
        found = known.strong if known.weak is None else known.weak()
        return found is obj and (not fast.looks or bool(fast.holds()))

    def _make_fast(self, record: Record) -> None:
        """Make the fast check of what is as it was."""
        self._end_fast()
        found = fast_checks.make(self.checks, record)
        # Order: another thread may have changed something after the exact check, and before its
        # identity was taken.
        if found is not None and all(changes.holds(check, record) for check in self.checks):
            self._fast = found

    def define(self, definition: Any) -> None:
        """Keep the definition, by which calls name it."""
        self.definition = definition

    def piece_for(self, obj: Any, record: Record, *, again: bool) -> Piece | None:
        """Return what workers read once when arguments refer to it.

        None if it has to travel with each of them, because it is not the same for the next one.

        Args:
            obj: what was pickled.
            record: of the pool.
            again: True if it is not worth a message of its own for the first argument.
        """
        if record.functions.get(self.known.key) is not self:
            return None
        if again and not self._arguments:
            self._arguments = True
            return None
        found: Piece | None = self.piece
        if found is None:
            number, name = self.known.number, f"{obj.__module__}.{obj.__qualname__}"
            found = Piece(number, self.data, None, {}, self.by_value, None, name)
            self.piece = found
            if isinstance(obj, type):
                self.parts = fast_checks.parts_of_simple(obj)
                self.flat = self.parts is fast_checks.attributes_of_instance and obj.__new__ is _NEW
        return found

    def reached(self) -> list[Known]:
        """Return the objects that it refers to."""
        return [check[1] for check in self.checks if check[0] != changes.END]

    def _end_fast(self) -> None:
        fast, self._fast = self._fast, None
        if fast is not None:
            fast.end()

    def end(self) -> None:
        """Let go of what it refers to: it was pickled anew, or is gone."""
        self._end_fast()
        self.checks = [(changes.END,)]
        definition, self.definition = self.definition, None
        if definition is not None:
            definition.end()
