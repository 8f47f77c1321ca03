"""A record keeps no objects alive that refer to each other and that nothing else refers to."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from wetlands_executor.serialize import by_value, cycles, identity
from wetlands_executor.serialize.interpreter import RemoteInterpreter


class Node:
    """Something that may refer to others, and has weak references."""

    def __init__(self, *parts: object) -> None:
        self.parts = list(parts)


@pytest.fixture
def record() -> identity.Record:
    return identity.Record()


def write(function: Callable[..., Any], record: identity.Record) -> None:
    """Pickle a function by value, as a submit does."""
    by_value.current(function, [], RemoteInterpreter(), record)


def recursive() -> Callable[[], Any]:
    def count(number: int) -> int:
        return number and count(number - 1)

    return lambda: count(2)


def with_super() -> Callable[[], Any]:
    class Base:
        def name(self) -> str:
            return "base"

    class Derived(Base):
        def name(self) -> str:
            return super().name()

    return lambda: Derived().name()


def with_parents() -> Callable[[], Any]:
    child, parent = Node(), Node()
    child.parts.append(parent)
    parent.parts.append(child)
    return lambda: parent.parts[0]


@pytest.mark.parametrize("make", [recursive, with_super, with_parents])
def test_a_dropped_cycle_leaves_nothing(make: Any, record: identity.Record) -> None:
    write(make(), record)
    assert record.known
    record._purge_cycles()
    gc.collect()
    record.purge()
    gc.collect()
    left = [known.get() for known in record.known.values()]
    # The empty tuple is the interpreter's own: classes have it since 3.13, and it stays known.
    assert [each for each in left if each != ()] in ([], [Node])


@pytest.mark.parametrize("make", [recursive, with_super, with_parents])
def test_a_cycle_in_use_keeps_its_numbers(make: Any, record: identity.Record) -> None:
    function = make()
    write(function, record)
    numbers = {key: known.number for key, known in record.known.items()}
    record._purge_cycles()
    record.purge()
    assert {key: known.number for key, known in record.known.items()} == numbers
    assert function() is not None


def test_a_reference_from_elsewhere_keeps_what_it_leads_to() -> None:
    inner: list[Any] = []
    outer = [inner]
    inner.append(outer)
    key, other = id(inner), id(outer)
    kept = [[inner], [outer]]  # stands for the references of a record
    alive = weakref.ref(node := Node(inner))
    del inner, outer
    assert cycles.unreachable([kept[0][0], kept[1][0]]) == set()
    del node
    gc.collect()
    assert alive() is None
    assert cycles.unreachable([kept[0][0], kept[1][0]]) == {key, other}


def test_what_is_too_large_to_look_into_keeps_what_it_holds() -> None:
    inner: list[Any] = []
    large = [inner, *[None] * cycles.MOST_ELEMENTS]
    inner.append(large)
    kept = [[inner]]
    del inner, large
    assert cycles.unreachable([kept[0][0]]) == set()


def test_a_record_looks_for_cycles_when_it_has_grown(record: identity.Record) -> None:
    for _ in range(identity.DROPPED):
        write(recursive(), record)
        record.take_dropped()
        if not _ % 50:
            gc.collect()
    gc.collect()
    assert len(record._strong) <= identity.DROPPED + 50
