"""A function by value that is submitted again.

Sent as a number if nothing that it reaches has changed, else anew. No process.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wetlands_executor.serialize import changes, fingerprints, identity
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.interpreter import RemoteInterpreter

SOURCE = """
import functools
number, text, nothing = 1, 'a', None
small, nested, table = [1], {'a': [{'b': (1, [2])}]}, {i: str(i) for i in range(200)}
large = list(range(5000))
class Class:
    attribute = 1
    def method(self):
        return number
class Slots:
    __slots__ = ('x',)
instance, slots = Class(), Slots()
instance.items, slots.x = [], 1
def helper(x=[]):
    return number, x
def function(a=1, *, b=2):
    return number, text, nothing, small, nested, table, large, Class, instance, slots, helper, absent
function.mark = []
def closure():
    state = [0]
    other = 1
    def inner():
        return state, other
    def change(value):
        nonlocal other
        other = value
    return inner, change
inner, change = closure()
@functools.wraps(helper)
def wrapped():
    return helper()
"""


@pytest.fixture
def module() -> Iterator[Any]:
    name = "module_of_watching"
    sys.modules[name] = module = types.ModuleType(name)
    exec(SOURCE, module.__dict__)
    yield module
    del sys.modules[name]


def is_recognised(function: Any, remote: RemoteInterpreter) -> bool:
    return encode(function, (1,), {}, None, remote).definition is not None


def exchange(module: Any) -> None:
    """The same content, at the same place: only the identity differs."""
    module.large = list(module.large)


CHANGES: dict[str, Callable[[Any], object]] = {
    "a number is bound anew": lambda m: setattr(m, "number", 2),
    "a number of another type": lambda m: setattr(m, "number", True),
    "a text is bound anew": lambda m: setattr(m, "text", "b"),
    "None is bound anew": lambda m: setattr(m, "nothing", 0),
    "a name appears": lambda m: setattr(m, "absent", 1),
    "a name disappears": lambda m: delattr(m, "text"),
    "a list grows": lambda m: m.small.append(1),
    "a list is exchanged for an equal one": lambda m: setattr(m, "small", [1]),
    "deep in containers": lambda m: m.nested["a"][0]["b"][1].append(3),
    "a value of a dictionary": lambda m: m.table.update({100: "x"}),
    "a large list grows": lambda m: m.large.append(1),
    "a large list is exchanged for an equal one": exchange,
    "an attribute of a class": lambda m: setattr(m.Class, "attribute", 2),
    "a new attribute of a class": lambda m: setattr(m.Class, "more", 2),
    "a method of a class": lambda m: setattr(m.Class, "method", lambda _self: 5),
    "a global that a method uses is no number of another function": lambda m: setattr(
        m, "number", 1.0
    ),
    "an attribute of an instance": lambda m: setattr(m.instance, "more", 1),
    "in an attribute of an instance": lambda m: m.instance.items.append(1),
    "a slot": lambda m: setattr(m.slots, "x", 2),
    "a class is bound anew": lambda m: setattr(m, "Class", m.Slots),
    "another function is bound anew": lambda m: setattr(m, "helper", lambda: 1),
    "the code of another function": lambda m: setattr(m.helper, "__code__", (lambda x: 5).__code__),
    "a default of another function": lambda m: m.helper.__defaults__[0].append(1),
    "a default": lambda m: setattr(m.function, "__defaults__", (2,)),
    "a keyword default": lambda m: m.function.__kwdefaults__.update(b=3),
    "an attribute of the function": lambda m: setattr(m.function, "more", 1),
    "in an attribute of the function": lambda m: m.function.mark.append(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change: str, module: Any) -> None:
    """Each by itself; before it and after it the function is known."""
    remote = RemoteInterpreter()
    assert not is_recognised(module.function, remote)
    assert is_recognised(module.function, remote)
    assert is_recognised(module.function, remote)
    CHANGES[change](module)
    assert not is_recognised(module.function, remote)
    assert is_recognised(module.function, remote)


@pytest.mark.parametrize(
    "change", ["in what a variable holds", "a variable is bound anew", "by the function itself"]
)
def test_a_change_in_a_closure_is_noticed(change: str, module: Any) -> None:
    remote = RemoteInterpreter()
    assert not is_recognised(module.inner, remote)
    assert is_recognised(module.inner, remote)
    if change == "in what a variable holds":
        module.inner()[0].append(1)
    elif change == "a variable is bound anew":
        module.change(5)
    else:
        module.inner.__closure__[0].cell_contents = 5
    assert not is_recognised(module.inner, remote)
    assert is_recognised(module.inner, remote)


def test_what_looks_through_wraps(module: Any) -> None:
    remote = RemoteInterpreter()
    encode(module.wrapped, (), {}, None, remote)
    assert is_recognised(module.wrapped, remote)
    module.helper.__wrapped__ = 1
    assert not is_recognised(module.wrapped, remote)


def test_pools_do_not_share_what_they_know(module: Any) -> None:
    """Each has workers of its own."""
    first, second = RemoteInterpreter(), RemoteInterpreter()
    encode(module.inner, (), {}, None, first)
    assert is_recognised(module.inner, first)
    assert not is_recognised(module.inner, second)


def test_a_function_within_arguments_is_recognised_too(module: Any) -> None:
    """Its stream is the same object."""
    remote = RemoteInterpreter()
    for _ in range(2):
        encode(print, ([module.inner],), {}, None, remote)
    assert remote.record.functions[id(module.inner)].is_current(module.inner, remote.record)
    assert is_recognised(module.inner, remote)


def _left(remote: RemoteInterpreter) -> list[Any]:
    """Return what a record still knows, but for the empty tuple, which lives for ever."""
    left = [known.get() for known in remote.record.known.values()]
    return [each for each in left if each != ()]


def test_nothing_is_kept_alive(module: Any) -> None:
    """Neither the function nor what it has reached."""
    remote = RemoteInterpreter()
    for _ in range(3):
        encode(module.function, (), {}, None, remote)
    kept = [
        weakref.ref(each) for each in (module.function, module.instance, module.Class, module.Slots)
    ]
    number = len(remote.record.known)
    assert number > 10
    module.__dict__.clear()
    for _ in range(20):  # what refers to each other goes step by step
        remote.record.take_dropped()
        gc.collect()
        if not any(each() for each in kept) and not _left(remote):
            break
    assert [each() for each in kept] == [None] * 4
    assert _left(remote) == []
    assert not remote.record.functions
    assert len(remote.record.retired) == 1


def test_a_descriptor_is_known_by_its_class_and_name() -> None:
    class One:
        __slots__ = ("x", "y")

    class Other:
        __slots__ = ("x",)

    record = identity.Record()
    descriptors = (One.x, One.y, Other.x)
    parts = [changes.part(each, record) for each in descriptors]
    assert parts == [changes.part(each, record) for each in descriptors]
    assert len(set(parts)) == 3
    kept = weakref.ref(One)
    del One, descriptors
    gc.collect()
    assert kept() is None


def test_workers_are_told_of_what_is_dropped_only_when_no_call_can_refer_to_it(module: Any) -> None:
    """A call that is on its way may still bring an object that is gone here."""
    record = identity.Record()
    early = record.epoch
    numbers = [record.of([i]).number for i in range(identity.DROPPED)]
    record.purge()
    assert record.known == {}
    assert record.take_dropped() == []
    late = record.epoch
    assert late is not early
    assert record.take_dropped() == []
    del early
    assert sorted(record.take_dropped()) == numbers
    del late


@pytest.mark.parametrize(
    "make",
    [
        lambda: list(range(100_000)),
        lambda: {i: [i] for i in range(100_000)},
        lambda: set(range(100_000)),
        lambda: "x" * 100_000,
        lambda: bytearray(100_000),
        lambda: {a: {b: list(range(20)) for b in range(20)} for a in range(20)},
    ],
)
def test_what_is_large(make: Callable[[], Any]) -> None:
    """By its length, its bytes, or by what it holds in all; the same looks the same."""
    record = identity.Record()
    value = make()
    large, fingerprint = fingerprints.measure(value, record)
    assert large
    assert fingerprints.measure(value, record) == (True, fingerprint)


@pytest.mark.parametrize(
    "value", [[], [1] * 900, {i: [i] for i in range(200)}, "x" * 1000, (1, [2], {3})]
)
def test_what_is_small(value: Any) -> None:
    assert not fingerprints.measure(value, identity.Record())[0]
