"""A function by value that is submitted again.

Sent as a number if nothing that it reaches has changed, else anew. No process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cases import cases
from wetlands_executor.serialize import changes, fingerprints, identity
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.serialize.known_functions import encode_again

SOURCE = """
import functools
number, text, nothing = 1, 'a', None
small, nested, table = [1], {'a': [{'b': (1, [2])}]}, {i: str(i) for i in range(200)}
large = list(range(2_000))
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
    simple = number, text, nothing, small, nested, table, large
    return simple, Class, instance, slots, helper, absent
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


def is_unchanged(function: Any, remote: RemoteInterpreter) -> bool:
    """Return True if that is told without a look at what things hold."""
    pool = types.SimpleNamespace(
        settings=types.SimpleNamespace(remote=remote),
        forgetting=types.SimpleNamespace(tidy=lambda record: record.take_dropped()),
    )
    return encode_again(function, (1,), pool) is not None


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
    assert is_unchanged(module.function, remote)
    assert is_recognised(module.function, remote)
    CHANGES[change](module)
    assert not is_unchanged(module.function, remote)
    assert not is_recognised(module.function, remote)
    assert is_recognised(module.function, remote)
    assert is_unchanged(module.function, remote)


@pytest.mark.parametrize(
    "change", ["in what a variable holds", "a variable is bound anew", "by the function itself"]
)
def test_a_change_in_a_closure_is_noticed(change: str, module: Any) -> None:
    remote = RemoteInterpreter()
    assert not is_recognised(module.inner, remote)
    assert is_recognised(module.inner, remote)
    assert is_unchanged(module.inner, remote)
    if change == "in what a variable holds":
        module.inner()[0].append(1)
    elif change == "a variable is bound anew":
        module.change(5)
    else:
        module.inner.__closure__[0].cell_contents = 5
    assert not is_unchanged(module.inner, remote)
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
        lambda: list(range(10_000)),
        lambda: {i: [i] for i in range(10_000)},
        lambda: set(range(10_000)),
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


# --- what is told by identities alone

VALUES = compile(
    """
import array, collections, dataclasses, datetime, decimal, enum, functools, ipaddress, pathlib
import re, types, uuid
class Colour(enum.Enum):
    RED = 1
    def other(self):
        return number
number = 5
@dataclasses.dataclass
class Data:
    x: int = 1
    items: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: int
class Mapping(dict):
    pass
class Sequence(list):
    pass
class OtherSequence(list):
    pass
class Parent:
    pass
class Other:
    pass
class Child(Parent):
    pass
class Equal:
    def __eq__(self, other):
        return True
""",
    "<script>",
    "exec",
)
VALUE_CHANGES: dict[str, tuple[str, str]] = {
    "list": ("[1, 2]", "value[0] = 3"),
    "long list": ("list(range(500))", "value[250] = -1"),
    "list of lists": ("[[i] for i in range(50)]", "value[25].append(1)"),
    "dict": ("{'a': 1}", "value['a'] = 2"),
    "key of a dict": ("{'a': 1}", "value['b'] = value.pop('a')"),
    "long dict": ("{i: str(i) for i in range(1000)}", "value[500] = 'x'"),
    "long dict, a key": ("dict.fromkeys(range(1000))", "value['last'] = value.pop(999)"),
    "order of a long dict": ("dict.fromkeys(range(100))", "value[0] = value.pop(0)"),
    "set": ("{1, 2}", "value.add(3)"),
    "long set": ("set(range(300))", "value.discard(5)"),
    "bytearray": ("bytearray(10)", "value[5] = 1"),
    "long bytearray": ("bytearray(100_000)", "value.append(1)"),
    "instance": ("Data()", "value.x = 2"),
    "in an instance": ("Data()", "value.items.append(2)"),
    "slots": ("Slotted(1)", "value.x = 2"),
    "subclass of dict": ("Mapping(a=1)", "value['a'] = 2"),
    "attribute of a subclass of list": ("Sequence('ab')", "value.x = 1"),
    "element of a subclass of list": ("Sequence('ab')", "value[1] = 1"),
    "OrderedDict": ("collections.OrderedDict(a=1)", "value['a'] = 2"),
    "defaultdict": ("collections.defaultdict(list, a=1)", "value['b']"),
    "deque": ("collections.deque([1])", "value.append(1)"),
    "Counter": ("collections.Counter('ab')", "value.update('a')"),
    "namespace": ("types.SimpleNamespace(a=1)", "value.a = 2"),
    "array": ("array.array('d', [1, 2])", "value[1] = 3"),
    "tuple with a list": ("(1, [2])", "value[1].append(3)"),
    "function": ("lambda x=1: x", "value.__defaults__ = (2,)"),
    "keyword default": ("(lambda *, x=1: x)", "value.__kwdefaults__['x'] = 2"),
    "attribute of a function": ("lambda: 1", "value.x = 2"),
    "enumeration": ("Colour.RED", "Colour.other = lambda self: 1"),
    "global of a method of an enumeration": ("Colour.RED", "number = 6"),
    "class": ("Data", "value.x = 5"),
    "pattern": ("re.compile('a')", "value = re.compile('b')"),
    "path": ("pathlib.Path('a')", "value = pathlib.Path('b')"),
    "time": ("datetime.datetime(2020, 1, 1)", "value = datetime.datetime(2021, 1, 1)"),
    "decimal": ("decimal.Decimal(1)", "value = decimal.Decimal(2)"),
    "uuid": ("uuid.UUID(int=1)", "value = uuid.UUID(int=2)"),
    "module": ("re", "value = uuid"),
    "float": ("1.5", "value = 2.5"),
    "sign of zero": ("0.0", "value = -0.0"),
    "type of a number": ("[1]", "value[0] = True"),
    "type of a number in a long list": ("list(range(300))", "value[1] = True"),
    "another type in a long list": ("list(range(300))", "value[1] = 1.0"),
    "sign of a zero in a long list": ("[0.0] * 100", "value[50] = -0.0"),
    "type of a number in a long dict": ("dict.fromkeys(range(300), 1)", "value[5] = True"),
    "an object that says it is equal": ("list(range(300))", "value[5] = Equal()"),
    "such an object in a long dict": ("dict.fromkeys(range(300), 1)", "value[5] = Equal()"),
    "type of a number in a large list": ("[1] * 3_000", "value[0] = True"),
    "type of a number in a large dict": ("dict.fromkeys(range(3_000), 1)", "value[0] = True"),
    "class of an instance": ("Data()", "value.__class__ = Other"),
    "class of a list": ("Sequence('ab')", "value.__class__ = OtherSequence"),
    "bases of a class": ("Child", "value.__bases__ = (Other,)"),
    "large list": ("list(range(3_000))", "value.pop()"),
    "large dict": ("{i: i for i in range(3_000)}", "value.popitem()"),
    "first of a large dict": ("{i: i for i in range(3_000)}", "value[0] = 1"),
    "large set": ("set(range(3_000))", "value.pop()"),
    "large text": ("'x' * 100_000", "value = 'y' * 100_000"),
}  # fmt: skip


@contextlib.contextmanager
def new_script() -> Iterator[dict[str, Any]]:
    name = "script_of_watching"
    sys.modules[name] = module = types.ModuleType(name)
    exec(VALUES, module.__dict__)
    try:
        yield module.__dict__
    finally:
        del sys.modules[name]


@pytest.mark.parametrize("where", ["global", "cell", "default"])
@cases("name", VALUE_CHANGES)
def test_each_kind_of_value(name: str, where: str) -> None:
    """No change is told by identities alone, and no change is overlooked."""
    with new_script() as script:
        check_value(name, where, script)


def check_value(name: str, where: str, script: dict[str, Any]) -> None:
    made, change = VALUE_CHANGES[name]
    functions = {
        "global": f"value = {made}\ndef f():\n    return value",
        "default": f"value = {made}\ndef f(x=value):\n    return x",
        "cell": f"def outer():\n    value = {made}\n    def f():\n        return value\n    "
        f"def change():\n        nonlocal value\n        global number\n        {change}\n    "
        "return f, change\nf, change = outer()",
    }
    exec(functions[where], script)
    remote = RemoteInterpreter()
    encode(script["f"], (), {}, None, remote)
    for _ in range(3):
        assert is_recognised(script["f"], remote)
        assert is_unchanged(script["f"], remote)
    if where == "cell":
        script["change"]()
    elif where == "default" and change.startswith("value = "):
        exec(change, script)
        script["f"].__defaults__ = (script["value"],)
    else:
        exec(change, script)
    assert not is_unchanged(script["f"], remote)
    assert not is_recognised(script["f"], remote)
    assert is_recognised(script["f"], remote)


def test_a_module_made_by_hand_travels_each_time(module: Any) -> None:
    """With its attributes: whether they have changed is not looked at."""
    remote = RemoteInterpreter()
    module.own = types.ModuleType("made_by_hand")
    module.own.value = 1
    exec("def user():\n    return own.value\ndef by_user():\n    return user()", module.__dict__)
    for function in (module.user, module.by_user):
        for _ in range(3):
            assert not is_recognised(function, remote)
            assert not is_unchanged(function, remote)


def test_an_equal_value_at_another_place_is_no_change(module: Any) -> None:
    remote = RemoteInterpreter()
    module.number = 10**10
    for _ in range(2):
        encode(module.function, (), {}, None, remote)
    module.number = int("1" + 10 * "0")
    assert not is_unchanged(module.function, remote)
    assert is_recognised(module.function, remote)


def test_what_always_looks_different_is_not_prepared_for_each_time(module: Any) -> None:
    """A failed comparison by identity is followed by a thorough one; a new list of identities costs
    more than that.
    """
    remote = RemoteInterpreter()
    made = []
    for i in range(100):
        module.number = int("1" + 10 * "0")
        assert is_recognised(module.function, remote) == (i > 0)
        made.append(id(remote.record.functions[id(module.function)]._fast))
    assert len(set(made)) < 20


def test_an_address_that_is_used_again_is_no_identity(module: Any) -> None:
    """The check is void as soon as one of its objects is gone."""
    remote = RemoteInterpreter()
    for _ in range(2):
        encode(module.function, (), {}, None, remote)
    assert is_unchanged(module.function, remote)
    place = id(module.instance)
    module.instance = None
    for _ in range(100):
        module.instance = module.Class()
        if id(module.instance) == place:
            break
        module.instance = None
    assert not is_unchanged(module.function, remote)
    assert not is_recognised(module.function, remote)


def test_a_class_that_has_gone_is_not_taken_for_another(module: Any) -> None:
    remote = RemoteInterpreter()
    for _ in range(2):
        encode(module.helper, (), {}, None, remote)
    known = remote.record.functions[id(module.helper)].known
    assert known.checks is not None
    remote.record.drop(known.key, known.number)
    assert not is_unchanged(module.helper, remote)


def test_refresh_sends_a_change_that_is_not_noticed(module: Any) -> None:
    """With the functions that it reaches, whose large values are theirs too."""
    remote = RemoteInterpreter()
    module.many = {i: [i] for i in range(2_000)}
    exec("def user():\n    return len(many)\ndef by_user():\n    return user()", module.__dict__)

    def pieces_of(function: Any) -> set[int]:
        """Return the numbers of the large objects with which a function is sent."""
        call = encode(function, (1,), {}, None, remote)
        needs = (*call.needs, *(call.definition.needs if call.definition is not None else ()))
        return {piece.number for piece in needs}

    assert not is_recognised(module.by_user, remote)
    assert not is_recognised(module.user, remote)
    like = [types.FunctionType(module.user.__code__, vars(module)) for _ in range(3)]
    for function in (module.by_user, module.user, *like):
        before = pieces_of(function)
        assert len(before) == 1
        assert is_recognised(function, remote)
        module.many[1_001].append(1)
        assert is_recognised(function, remote)
        assert pieces_of(function) == before, "it is not noticed"
        remote.record.refresh(function)
        assert pieces_of(function).isdisjoint(before)
        assert is_recognised(function, remote)
    before = pieces_of(module.user)
    remote.record.refresh(functools.partial(module.user))
    assert pieces_of(module.user).isdisjoint(before)
    remote.record.refresh(print)
    remote.record.refresh(5)


def test_ended_functions_leave_no_checks_with_what_they_used(module: Any) -> None:
    """A function that is defined again and again uses the same module and the same class."""
    remote = RemoteInterpreter()
    for _ in range(50):
        exec("def again():\n    return Class, functools", module.__dict__)
        for _ in range(2):
            encode(module.again, (), {}, None, remote)
    for used in (module.Class, functools):
        assert len(remote.record.of(used).checks) <= 2


def _nested() -> Any:
    return {i: [{"a": j, "b": [j, (j, [])]} for j in range(5)] for i in range(60)}


def _rows() -> Any:
    return [{"a": i} for i in range(2_100)]


def _lists() -> Any:
    return [[i, i + 1] for i in range(900)] + [[]]


LARGE: dict[str, tuple[Callable[[], Any], Callable[[Any], object], bool]] = {
    "it grows": (_nested, lambda large: large.update({99: []}), True),
    "a list in it grows": (_nested, lambda large: large[59].append(1), True),
    "a list in it is exchanged": (_nested, lambda large: large.update({5: [*large[5]]}), True),
    "an element of the first list": (_nested, lambda large: large[0].__setitem__(0, {}), True),
    "an element of the last list": (_nested, lambda large: large[59].__setitem__(0, {}), True),
    "rows are added": (_rows, lambda large: large.append({}), True),
    "the first row": (_rows, lambda large: large.__setitem__(0, {"a": 0}), True),
    "in the first row": (_rows, lambda large: large[0].update(a=True), True),
    "in another row": (_rows, lambda large: large[1].update(a=7), False),
    "an element": (_lists, lambda large: large[3].__setitem__(0, 3.0), True),
    "all elements": (_lists, lambda large: [each.append(0) for each in large], True),
    "an empty list": (_lists, lambda large: large[-1].append(0), True),
}


@pytest.mark.parametrize("change", LARGE)
def test_what_is_noticed_of_a_large_object_with_containers(change: str, module: Any) -> None:
    """The same as with its fingerprint, which is what decides when identities differ."""
    make, do, noticed = LARGE[change]
    module.wide = make()
    exec("def over(x): return wide", vars(module))
    remote = RemoteInterpreter()
    assert not is_recognised(module.over, remote)
    assert is_recognised(module.over, remote)
    assert is_recognised(module.over, remote)
    assert is_unchanged(module.over, remote), "by identities alone"
    record = remote.record
    assert record is not None
    large, before = fingerprints.measure(module.wide, record)
    assert large
    do(module.wide)
    _, after = fingerprints.measure(module.wide, record)
    assert (before != after) is noticed
    assert is_unchanged(module.over, remote) is not noticed
    assert is_recognised(module.over, remote) is not noticed
