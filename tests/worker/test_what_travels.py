"""What a submit of a function by value sends: its definition once, then what is new.

Counted on the pipes of the worker, not in time: the records of the bulk pipe, and their bytes.
"""

from __future__ import annotations

import functools
import gc
import itertools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from tests.worker.conftest import DEADLINE, run, script_with
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.pool.outbox import Outbox
from wetlands_executor.worker import wire

SOURCE = """
import dataclasses, functools, math, re
NUMBER, SMALL, PATTERN = 3, [1, 2], re.compile("a")
TABLE = {i: str(i) for i in range(1000)}
def plain(x=0):
    return x
def uses(x=0):
    return NUMBER + math.floor(1.5) + len(SMALL) + bool(PATTERN.match("a"))
def table(x=0):
    return TABLE[x]
def other(x=0):
    return plain(x) + uses()
def decorate(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper
@decorate
@decorate
def wrapped(x=0):
    return x
def keywords(a, *, b=2):
    return a, b
def closures(value):
    return lambda: (value, len(SMALL), plain(value))
def over_a_function(value, function=plain):
    return lambda: function(value)
def with_a_list(value):
    table = [value]
    return lambda: (value, table)
def default(value):
    return lambda x=value, f=plain: f(x)
def function_in_function(value):
    def inner(y):
        return y + value
    return inner
def count():
    seen = 0
    def add():
        nonlocal seen
        seen += 1
        return seen
    return add, lambda: seen
class Thing:
    factor = 2
    def __init__(self, x):
        self.x = x
    def method(self, y=0):
        return self.x * self.factor + y
    def second(self):
        return self.method(1)
@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
class Nothing:
    pass
EMPTY = Nothing()
def attributes():
    return vars(EMPTY)
def take(thing):
    return thing.x, type(thing) is Thing or type(thing) is Point
def takes(things):
    return sum(thing.x for thing in things)
def gives(count):
    return [Thing(i) for i in range(count)]
def apply(function, x):
    return function(x)
"""
_names = itertools.count()


@pytest.fixture
def script() -> Iterator[Any]:
    with script_with(f"script_that_travels_{next(_names)}", SOURCE) as module:
        yield module


class Sent:
    """The records that went to workers: kind -> bytes of each."""

    def __init__(self) -> None:
        self.records: dict[int, list[int]] = {}

    def clear(self) -> None:
        self.records = {}

    def of(self, *kinds: int) -> list[int]:
        return [size for kind in kinds for size in self.records.get(kind, ())]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    found = Sent()
    record = Outbox.record

    def note(self: Outbox, kind: int, number: int, payload: bytes) -> None:
        found.records.setdefault(kind, []).append(len(payload))
        record(self, kind, number, payload)

    monkeypatch.setattr(Outbox, "record", note)
    return found


CODE = (wire.DEFINITION, wire.PIECE)
ROWS: dict[str, Callable[[Any, int], tuple[Any, ...]]] = {
    "function": lambda m, i: (m.plain, i),
    "with globals": lambda m, i: (m.uses, i),
    "with a table of 1,000": lambda m, i: (m.table, i),
    "that calls another": lambda m, i: (m.other, i),
    "wraps chain": lambda m, i: (m.wrapped, i),
    "lambda with a closure": lambda m, i: (m.closures(i),),
    "lambda that closes over a function": lambda m, i: (m.over_a_function(i),),
    "lambda with defaults": lambda m, i: (m.default(i),),
    "function in a function": lambda m, i: (m.function_in_function(i), 2),
    "partial": lambda m, i: (functools.partial(m.keywords, i, b=i),),
    "partial of a lambda": lambda m, i: (functools.partial(m.function_in_function(i), 5),),
    "method": lambda m, i: (m.Thing(i).method, i),
    "method that calls another": lambda m, i: (m.Thing(i).second,),
    "partial of a method": lambda m, i: (functools.partial(m.Thing(i).method, i),),
    "object as argument": lambda m, i: (m.take, m.Thing(i)),
    "dataclass as argument": lambda m, i: (m.take, m.Point(i)),
    "objects in a list": lambda m, i: (m.takes, [m.Thing(i), m.Point(2)]),
    "class as argument": lambda m, i: (m.apply, m.Point, i),
    "function as argument": lambda m, i: (m.apply, m.plain, i),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_is_submitted_again_travels_without_its_code(
    row: str, fresh: CondaEnvExecutor, script: Any, sent: Sent
) -> None:
    """From the third submit on nothing but the call, whose payload is short."""
    for i in range(3):
        function, *args = ROWS[row](script, i)
        assert repr(run(fresh, function, *args)) == repr(function(*args))
    assert 1 <= len(sent.of(*CODE)) <= 6
    sent.clear()
    for i in range(3, 8):
        function, *args = ROWS[row](script, i)
        assert repr(run(fresh, function, *args)) == repr(function(*args))
    assert sent.of(*CODE) == []
    assert max(sent.of(wire.PAYLOAD), default=0) < 600


def test_a_class_travels_once_for_many_objects_and_calls(
    fresh: CondaEnvExecutor, script: Any, sent: Sent
) -> None:
    """Also 100,000 in a list, in a map, and as results."""
    assert run(fresh, script.takes, [script.Thing(1) for _ in range(100_000)]) == 100_000
    assert len(sent.of(wire.PIECE)) == 1
    assert list(fresh.map(script.take, map(script.Thing, range(50)), timeout=DEADLINE)) == [
        (i, True) for i in range(50)
    ]
    assert len(sent.of(wire.PIECE)) == 1
    back = run(fresh, script.gives, 100_000)
    assert len(back) == 100_000
    assert {type(each) for each in back} == {script.Thing}
    assert len(sent.of(wire.PIECE)) == 1
    script.Thing.factor = 3
    assert run(fresh, script.Thing(2).method) == 6
    assert run(fresh, script.takes, [script.Thing(1)]) == 1
    assert len(sent.of(wire.PIECE)) == 2


def test_another_worker_gets_each_definition_once(script: Any, sent: Sent) -> None:
    with CondaEnvExecutor(sys.executable, max_workers=3) as executor:
        for _ in range(5):
            executor.launch()
            tasks = [executor.submit(script.closures(i)) for i in range(200)]
            assert [task.result(DEADLINE)[0] for task in tasks] == list(range(200))
    assert len(sent.of(*CODE)) <= 3 * 2


CHANGES: dict[str, tuple[str, str]] = {
    "rebound global": ("uses", "NUMBER = 30"),
    "changed in place": ("uses", "SMALL.append(1)"),
    "entry of a table": ("table", "TABLE[0] = 'changed'"),
    "redefined function": ("other", "def plain(x=0):\n    return 100"),
    "redefined itself": ("plain", "def plain(x=0):\n    return 101"),
    "default": ("plain", "plain.__defaults__ = (7,)"),
    "default of another": ("calls", "plain.__defaults__ = (7,)"),
    "code": ("plain", "plain.__code__ = (lambda x=0: 55).__code__"),
    "wrapped function": ("wrapped", "wrapped.__wrapped__.__wrapped__.__defaults__ = (9,)"),
    "cell": ("wrapped", "wrapped.__closure__[0].cell_contents = uses"),
    "class attribute": ("bound", "Thing.factor = 10"),
    "method": ("bound", "Thing.method = lambda self, y=0: 77"),
    "redefined class": ("made", "class Thing:\n    def __init__(self, x):\n        self.x = 5"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_kind_of_change_arrives(change: str, fresh: CondaEnvExecutor, script: Any) -> None:
    exec(
        "def bound():\n    return Thing(1).method()\ndef made():\n    return Thing(1).x\n"
        "def calls():\n    return plain()",
        vars(script),
    )
    name, source = CHANGES[change]
    for _ in range(3):
        before = run(fresh, getattr(script, name))
        assert before == getattr(script, name)()
    exec(source, vars(script))
    for _ in range(3):
        after = run(fresh, getattr(script, name))
        assert after == getattr(script, name)() != before


def test_a_deleted_global_is_gone(fresh: CondaEnvExecutor, script: Any) -> None:
    """And is there again when it is bound again. What a task has bound itself stays."""
    exec("def make():\n    global MADE\n    MADE = 1\ndef made():\n    return MADE", vars(script))
    assert run(fresh, script.uses)
    run(fresh, script.make)
    del script.NUMBER
    for _ in range(3):
        assert isinstance(fresh.submit(script.uses).exception(DEADLINE), NameError)
    script.NUMBER = 4
    assert run(fresh, script.uses) == script.uses()
    assert run(fresh, script.made) == 1


def test_a_name_that_hides_a_builtin_for_a_while(fresh: CondaEnvExecutor, script: Any) -> None:
    """Bound and deleted again: what was pickled before the change is not used as it was."""
    exec("def use():\n    return abs(-5)\ndef other():\n    return abs(-6)", vars(script))
    for _ in range(3):
        assert (run(fresh, script.use), run(fresh, script.other)) == (5, 6)
    script.abs = lambda x: "mine"
    assert run(fresh, script.use) == "mine"
    del script.abs
    for _ in range(3):
        assert (run(fresh, script.use), run(fresh, script.other)) == (5, 6)


def test_names_and_identity_of_functions_made_anew(fresh: CondaEnvExecutor, script: Any) -> None:
    """Each has its own name; a tuple or a NaN that is a global is that very object."""
    exec(
        "MISSING, NAN = ('missing',), float('nan')\n"
        "def missing(v):\n    return lambda: (v is MISSING, v is NAN)\n"
        "def named(i):\n    def job():\n        return i\n"
        "    job.__name__ = job.__qualname__ = f'job{i}'\n    return job\n",
        vars(script),
    )
    for i in range(4):
        assert run(fresh, script.missing(script.MISSING)) == (True, False)
        assert run(fresh, script.missing(script.NAN)) == (False, True)
        task = fresh.submit(script.named(i))
        assert task.result(DEADLINE) == i
        assert task.name == f"{script.__name__}.job{i}"


def test_changes_of_what_a_lambda_made_anew_uses(
    fresh: CondaEnvExecutor, script: Any, sent: Sent
) -> None:
    """A global, and what it closes over in a list."""

    def loop(count: int) -> list[Any]:
        return [run(fresh, script.closures(i)) for i in range(count)]

    assert loop(4) == [(i, 2, i) for i in range(4)]
    exec("def plain(x=0):\n    return -x", vars(script))
    sent.clear()
    assert loop(4) == [(i, 2, -i) for i in range(4)]
    assert len(sent.of(*CODE)) <= 2


def test_lambdas_that_close_over_new_objects(
    fresh: CondaEnvExecutor, script: Any, sent: Sent
) -> None:
    """Each list is one object in the worker, which keeps what tasks have made of it."""
    exec(
        "def changes(value):\n    seen = [value]\n    return lambda: seen.append(1) or len(seen)\n"
        "def share(value):\n    seen = [value]\n"
        "    return (lambda: seen.append(1)), (lambda: seen)\n"
        "def over_objects(value):\n    thing = Thing(value)\n    own = {'thing': thing}\n"
        "    return lambda x=own: (thing.x, x['thing'] is thing)\n"
        "def recursive(value):\n"
        "    def down(x):\n        return value if not x else down(x - 1)\n    return down",
        vars(script),
    )
    made: Any = None
    for i in range(8):
        if i == 6:
            sent.clear()
        made = script.with_a_list(i)
        assert run(fresh, made) == (i, [i])
        assert run(fresh, script.over_objects(i)) == (i, True)
        assert run(fresh, functools.partial(script.with_a_list(i))) == (i, [i])
    assert sent.of(*CODE) == []
    for i in range(8):
        assert run(fresh, made) == (7, [7])
        made = script.with_a_list(7)
        again = script.changes(i)
        assert [run(fresh, again) for _ in range(3)] == [2, 3, 4]
        add, read = script.share(i)
        run(fresh, add)
        assert run(fresh, read) == [i, 1]
        assert run(fresh, script.recursive(i), 3) == i
    with pytest.raises(Exception, match="seen"):  # the variable is named
        run(fresh, script.changes(threading.current_thread()))


def test_variables_that_a_function_binds_are_state_of_the_worker(
    fresh: CondaEnvExecutor, script: Any
) -> None:
    """A lambda that reads one sees what another function has made of it there."""
    add, read = script.count()
    assert [run(fresh, add) for _ in range(3)] == [1, 2, 3]
    assert run(fresh, read) == 3
    code, cells = read.__code__, read.__closure__
    for _ in range(3):  # the same variable, in a function that is made anew
        again = types.FunctionType(code, vars(script), "again", None, cells)
        assert run(fresh, again) == 3


def test_a_large_value_of_a_closure_is_not_copied_for_each_lambda(
    fresh: CondaEnvExecutor, script: Any, sent: Sent
) -> None:
    exec(
        "def loop(big):\n    for i in range(6):\n        yield lambda: (i, len(big))\n",
        vars(script),
    )
    assert [run(fresh, each) for each in script.loop(list(range(100_000)))] == [
        (i, 100_000) for i in range(6)
    ]
    assert sum(sent.of(*CODE, wire.PAYLOAD)) < 2 * 300_000


def test_a_handle_reaches_what_is_made_anew(fresh: CondaEnvExecutor, script: Any) -> None:
    exec(
        "class Reports:\n    def method(self, task=None):\n        return type(task).__name__\n"
        "def reports(x, *, task):\n    return type(task).__name__\n"
        "def lambdas(i):\n    return lambda task: (i, type(task).__name__)\n",
        vars(script),
    )
    for i in range(3):
        assert run(fresh, script.Reports().method) == "RemoteTaskHandle"
        assert run(fresh, functools.partial(script.reports, i)) == "RemoteTaskHandle"
        assert run(fresh, functools.partial(script.reports, i, task=1)) == "int"
        assert run(fresh, script.lambdas(i)) == (i, "RemoteTaskHandle")


def test_functions_made_anew_keep_what_is_their_own(fresh: CondaEnvExecutor, script: Any) -> None:
    """Annotations, documentation and names that differ from one function of a code to the next."""
    exec(
        "def make(i, T, doc):\n"
        "    def annotated(x: T) -> 'text': return i, look(i)\n"
        "    def documented(x): return i, look(i)\n"
        "    documented.__doc__ = doc\n"
        "    def plain(x: int, y: 'a' = None) -> None: return i, look(i)\n"
        "    def named(x): return i, look(i)\n"
        "    named.__qualname__ = doc\n"
        "    return annotated, documented, plain, named\n"
        "def look(i):\n"
        "    import gc, sys\n"
        "    code = sys._getframe(1).f_code\n"
        "    found = [f for f in gc.get_referrers(code) if getattr(f, '__code__', None) is code]\n"
        "    found = [f for f in found if [c for c in f.__closure__ if c.cell_contents == i]]\n"
        "    return {(repr(f.__annotations__), f.__doc__, f.__qualname__) for f in found}\n",
        vars(script),
    )
    for i in range(6):
        kind = (int, str, float, script.Box if hasattr(script, "Box") else complex)[i % 4]
        for made in script.make(i, kind, f"doc {i % 3}"):
            expected = {(repr(made.__annotations__), made.__doc__, made.__qualname__)}
            assert run(fresh, made, 1) == (i, expected)


def test_names_and_arguments_of_what_is_made_anew(fresh: CondaEnvExecutor, script: Any) -> None:
    exec(
        "class Fails:\n    def fail(self, x):\n        raise ValueError(x)\n"
        "def fails(x, y):\n    raise ValueError(x)",
        vars(script),
    )
    for i in range(3):
        task = fresh.submit(script.Fails().fail, i)
        assert isinstance(task.exception(DEADLINE), ValueError)
        assert task.name == "Fails.fail"
        assert task.arguments == f"({i})"
        task = fresh.submit(functools.partial(script.fails, i), 2)
        assert isinstance(task.exception(DEADLINE), ValueError)
        assert task.name == f"{script.__name__}.fails"
        assert task.arguments == f"({i}, 2)"  # what the function was called with


def test_ten_thousand_lambdas_leave_nothing(fresh: CondaEnvExecutor, script: Any) -> None:
    """Neither in this process nor in the worker; also if each has code of its own."""

    def tables() -> dict[str, int]:
        """Return the sizes of what the worker keeps."""
        objects = vars(sys.modules["_wetlands_worker.objects"])
        known = sys.modules["_wetlands_worker.running"].main_loop.definitions
        found = {name: len(objects[name]) for name in ("TABLE", "VERSIONS", "PIECES", "READ")}
        return {**found, "functions": len(known.functions), "told": len(known._definitions)}

    for _ in range(3):
        run(fresh, tables)
    before = run(fresh, tables)
    kept = []
    for i in range(10_000):
        made = script.closures(i)
        kept.append(weakref.ref(made))
        fresh.submit(made)
    for i in range(300):
        made = eval(f"lambda: {i}", vars(script))
        kept += [weakref.ref(made), weakref.ref(made.__code__)]
        for _ in range(3):
            fresh.submit(made)
    del made
    assert run(fresh, abs, -1) == 1
    gc.collect()
    record = fresh._pool.settings.remote.record
    left: dict[str, int] = {}
    # Each message lets go of a part: what was pickled before the collection has its own turn.
    for i in range(50):
        record.urgent = record.dirty = True  # what is not worth a message yet goes as well
        run(fresh, eval(f"lambda: -{i}", vars(script)))  # the worker reads its records
        after = run(fresh, tables)
        left = {name: after[name] - before[name] for name in after}
        left = {name: count for name, count in left.items() if count > 30}
        if i >= 5 and not left:
            break
    assert left == {}
    assert [each() for each in kept if each() is not None] == []
    assert len(record.functions) < 20
    assert len(record.codes) < 20
    assert len(record.known) < 200


def test_calls_that_bring_no_records_leave_nothing(fresh: CondaEnvExecutor, script: Any) -> None:
    """One after the other, each on the shared page: nothing else makes the worker read records."""

    def count() -> int:
        return len(vars(sys.modules["_wetlands_worker.objects"])["TABLE"])

    run(fresh, count)
    counts = []
    for i in range(2000):
        run(fresh, eval(f"lambda: {i}", vars(script)))
        if not i % 250:
            counts.append(run(fresh, count))
    assert max(counts) <= 600  # two messages at 256


@pytest.mark.parametrize("size", [10, 255, 256, 257, 5_000, 70_000, 200_000])
def test_parts_of_any_size_travel_with_what_is_made_anew(
    fresh: CondaEnvExecutor, script: Any, size: int
) -> None:
    """In the frame, on the shared page, in the bulk pipe, in a block."""
    text = "x" * size
    for _ in range(3):
        assert fresh.submit(functools.partial(len, text)).result(DEADLINE) == size
        assert fresh.submit(script.default(text)).result(DEADLINE) == text
        assert fresh.submit(script.default(1), (text, text)).result(DEADLINE) == (text, text)


def test_the_first_attribute_of_an_empty_instance_is_noticed(
    fresh: CondaEnvExecutor, script: Any
) -> None:
    for _ in range(2):
        assert run(fresh, script.attributes) == {}
    script.EMPTY.colour = "red"
    assert run(fresh, script.attributes) == {"colour": "red"}
    del script.EMPTY.colour
    assert run(fresh, script.attributes) == {}


def test_objects_that_hold_scalars_arrive_as_they_are(fresh: CondaEnvExecutor, script: Any) -> None:
    """Their attributes travel beside them; what is one object here is one there."""
    exec(
        "def what(*things):\n"
        "    return [(type(x).__name__, vars(x)) if hasattr(x, 'x') else x for x in things]\n"
        "def are_one(first, second):\n    return first is second\n"
        "class Made(Thing):\n"
        "    def __new__(cls, *args):\n"
        "        made = super().__new__(cls)\n        made.y = 'new'\n        return made\n"
        "class Handled(Thing):\n"
        "    def handled(self, task):\n        return self.x, task is not None\n"
        "    def fails(self, thing):\n        raise ValueError(self.x)",
        vars(script),
    )
    for i in range(4):
        given = [1, script.Thing(i), "text", script.Point(i, 2), None]
        assert run(fresh, script.what, *given) == script.what(*given)
        many = [script.Thing(value) for value in (i, 1.5, "text", b"bytes", None, True, 1j)]
        assert run(fresh, script.what, *many) == script.what(*many)
        assert run(fresh, script.Thing(i).method, i) == script.Thing(i).method(i)
        assert run(fresh, script.Handled(i).handled) == (i, True)
        assert run(fresh, script.what, script.Made(i)) == [("Made", {"y": "new", "x": i})]
        inner = script.Thing(script.Thing(i))
        assert run(fresh, script.apply, script.gives, i) is not None
        assert run(fresh, script.take, inner)[0].x == i
        thing = script.Thing(i)
        assert run(fresh, script.are_one, thing, thing) is True
        assert run(fresh, script.are_one, thing, script.Thing(i)) is False
        assert run(fresh, script.Thing.method, thing, 2) == 2 * i + 2
        long = script.Thing("x" * 300)
        assert run(fresh, script.what, long) == [("Thing", {"x": "x" * 300})]
        task = fresh.submit(script.Handled(i).fails, script.Thing(i))
        assert isinstance(task.exception(DEADLINE), ValueError)
        assert task.arguments == f"(<{script.__name__}.Thing object>)"
    script.Thing.factor = 5
    script.Thing.method = lambda self, y=0: (self.factor, y)
    assert run(fresh, script.Thing(1).method, 3) == (5, 3)


def test_changes_deep_in_containers_arrive(fresh: CondaEnvExecutor, script: Any) -> None:
    """Each of random changes, of those that leave lengths or values alone too."""
    exec(
        "DEEP = {i: [i, [str(i)], {i: {i}}] for i in range(40)}\n"
        "def deep():\n    return repr(DEEP)",
        vars(script),
    )
    random = Random(14)
    deep = script.DEEP

    def swap() -> None:
        first, second = random.sample(sorted(deep), 2)
        deep[first], deep[second] = deep[second], deep[first]

    def move() -> None:
        first, second = random.sample(sorted(deep), 2)
        if len(deep[first]) > 3:
            deep[second].append(deep[first].pop())

    steps: list[Callable[[], object]] = [
        swap,
        move,
        lambda: deep[random.choice(sorted(deep))].append(1),
        lambda: deep[random.choice(sorted(deep))].append(True),
        lambda: deep[random.choice(sorted(deep))][1].append("more"),
        lambda: deep[random.choice(sorted(deep))][2].update({5: 5.0}),
        lambda: deep[random.choice(sorted(deep))][1].reverse(),
        lambda: deep.__setitem__(random.choice(sorted(deep)), [0, [], {}]),
        lambda: deep.update({(key := random.choice(sorted(deep))): deep.pop(key)}),
        lambda: None,
    ]
    for _ in range(3):
        assert run(fresh, script.deep) == script.deep()
    for _ in range(150):
        random.choice(steps)()
        assert run(fresh, script.deep) == script.deep()
