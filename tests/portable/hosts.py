"""A host with one worker of each Python.

Runs every case of ``cases.py`` there and some journeys back, and writes what went wrong.

``python hosts.py REPORT MINOR=PYTHON ...`` with this project and its dependencies on PYTHONPATH.
All bytes that pass the pool's pipes, and all that goes through shared memory, are recorded on the
way: ``tap`` looks for bytecode among them. With the variable PORTABLE=0, code travels as it is.
"""

import ast
import asyncio
import dataclasses
import json
import linecache
import math
import os
import pickle
import sys
import traceback
import types

HERE = os.path.dirname(os.path.abspath(__file__))
DEADLINE = 60

#: (direction, descriptor, or "memory") -> the bytes that passed there.
passed: dict = {}


def tap() -> None:
    """Record what the host reads and writes. Nothing is changed on the way."""
    read, write, readv = os.read, os.write, os.readv

    def reading(fd, count):
        data = read(fd, count)
        passed.setdefault(("in", fd), bytearray()).extend(data)
        return data

    def reading_into(fd, buffers):
        count = readv(fd, buffers)
        passed.setdefault(("in", fd), bytearray()).extend(
            b"".join(bytes(memoryview(b)) for b in buffers)[:count]
        )
        return count

    def writing(fd, data):
        count = write(fd, data)
        passed.setdefault(("out", fd), bytearray()).extend(memoryview(data)[:count])
        return count

    os.read, os.write, os.readv = reading, writing, reading_into
    tap_shared_pages()

    from wetlands_executor.sharedmem import arena
    from wetlands_executor.sharedmem.arguments import OutOfBandArguments
    from wetlands_executor.sharedmem.results import ResultMemory

    store, store_all, append = arena.Arena.store, arena.Arena.store_all, OutOfBandArguments._append
    take, take_back = ResultMemory._take, arena.Arena.take

    def storing(self, raw, token, more):
        passed.setdefault(("out", "memory"), bytearray()).extend(raw)
        return store(self, raw, token, more)

    def storing_all(self, pieces, size, token):
        passed.setdefault(("out", "memory"), bytearray()).extend(b"".join(pieces))
        return store_all(self, pieces, size, token)

    def appending(self, whole, blocks):
        passed.setdefault(("out", "memory"), bytearray()).extend(whole)
        return append(self, whole, blocks)

    def recorded(original):
        def taking(self, *args):
            view = original(self, *args)
            passed.setdefault(("in", "memory"), bytearray()).extend(view)
            return view

        return taking

    arena.Arena.store, arena.Arena.store_all, OutOfBandArguments._append = (
        storing,
        storing_all,
        appending,
    )
    ResultMemory._take, arena.Arena.take = recorded(take), recorded(take_back)


def tap_shared_pages() -> None:
    """Record the payloads and answers that pass on the shared pages."""
    from wetlands_executor.pool.direct import DirectSend
    from wetlands_executor.pool.direct_receive import DirectReceive

    by_page, begin = DirectSend._by_page, DirectReceive.__init__

    def sending(self, call):
        steps = by_page(self, call)
        if steps is not None:
            passed.setdefault(("out", "page"), bytearray()).extend(call.encoded.payload)
        return steps

    class Answers:
        """What the host slices out of a page, noted."""

        def __init__(self, view):
            self.view = view

        def __getitem__(self, place):
            found = self.view[place]
            passed.setdefault(("in", "page"), bytearray()).extend(found)
            return found

    def beginning(self, *args):
        begin(self, *args)
        self._answer = Answers(self._answer)

    DirectSend._by_page, DirectReceive.__init__ = sending, beginning


def bytecode_among(direction: str, codes: list, shipped: bytes) -> list:
    """Return what of bytecode passed in a direction.

    The reduction of a code object, or the instructions of one that is known.
    """
    data = b"".join(
        data.replace(shipped, b"") for (way, _fd), data in list(passed.items()) if way == direction
    )
    found = [word.decode() for word in (b"CodeType", b"marshal") if word in data]
    return found + [
        code.co_name for code in codes if len(code.co_code) >= 16 and code.co_code in data
    ]


def in_memory() -> dict:
    """Return how much went through shared memory, and whether code objects were in it. (Sources of
    ``main`` travel, so it must not say the word.)
    """
    found = {way: bytes(passed.get((way, "memory"), b"")) for way in ("in", "out")}
    return {
        way: {"bytes": len(data), "bytecode": b"CodeType" in data} for way, data in found.items()
    }


def load_cases() -> tuple:
    """Execute ``cases.py`` as ``__main__``; return its cases and its code objects."""
    from wetlands_executor.worker import code_portable

    path = os.path.join(HERE, "cases.py")
    with open(path, encoding="utf-8") as stream:
        code = compile(stream.read(), path, "exec", dont_inherit=True)
    exec(code, sys.modules["__main__"].__dict__)
    return sys.modules["__main__"].__dict__["CASES"], list(code_portable.walk(code))


def run(function, args):
    value = function(*args)
    return asyncio.run(value) if isinstance(value, types.CoroutineType) else value


# --- there and back


class Carried:
    def __init__(self, x):
        self.x = x

    def next(self):
        return Carried(self.x + 1)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    tags: tuple = ()


class Failure(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


counter = 0


def count():
    global counter
    counter += 1
    return counter


def journey_instances_keep_their_class(executor):
    back = executor.submit(lambda c: c.next(), Carried(1)).result(DEADLINE)
    assert type(back) is Carried, type(back)
    assert back.next().x == 3
    frozen = executor.submit(lambda f: dataclasses.replace(f, x=2), Frozen(1, ("a",))).result(
        DEADLINE
    )
    assert type(frozen) is Frozen
    assert frozen == Frozen(2, ("a",))


def journey_local_classes_keep_their_class(executor):
    @dataclasses.dataclass(slots=True)
    class Slotted:
        x: int

    class Slots:
        __slots__ = ("x",)

    @dataclasses.dataclass(frozen=True, slots=True)
    class FrozenSlots:
        x: int = 5

    made = Slots()
    made.x = 7
    one, two, three = executor.submit(lambda *given: given, Slotted(3), made, FrozenSlots()).result(
        DEADLINE
    )
    assert type(one) is Slotted
    assert one == Slotted(3)
    assert type(two) is Slots
    assert two.x == 7
    assert three == FrozenSlots()
    before = dict(vars(Slotted))
    fresh = executor.submit(lambda: Slotted(9)).result(DEADLINE)
    assert fresh == Slotted(9)
    assert dict(vars(Slotted)) == before, "the class at home was changed by what came back"


def journey_functions_return(executor):
    def make(k):
        def inner(x):
            return x * k

        return inner, lambda x: inner(x) + 1

    inner, other = executor.submit(make, 3).result(DEADLINE)
    assert (inner(2), other(2)) == (6, 7)
    assert inner.__code__.co_filename == __file__
    assert executor.submit(inner, 5).result(DEADLINE) == 15  # and go out again


def journey_classes_made_there_return(executor):
    def make():
        class Local(Carried):
            def get(self):
                return super().next().x, self.x

        @dataclasses.dataclass(order=True)
        class Record:
            a: int
            b: list = dataclasses.field(default_factory=list)

        import collections
        import enum

        Colour = enum.Enum("Colour", "RED GREEN")
        Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024
        return Local(4), Record(1), Colour.GREEN, Pair(1, 2)

    local, record, colour, pair = executor.submit(make).result(DEADLINE)
    assert local.get() == (5, 4)
    assert isinstance(local, Carried)
    assert record < type(record)(2)
    assert record.b == []
    assert (colour.name, colour is type(colour)(2)) == ("GREEN", True)
    assert pair._replace(a=0) == (0, 2)


def journey_exceptions_return(executor):
    def fail():
        raise Failure(3, detail="bad")

    def fail_locally():
        class Local(ValueError):
            pass

        raise Local("mine")

    error = executor.submit(fail).exception(DEADLINE)
    assert type(error) is Failure, error
    assert (error.code, error.detail) == (3, "bad")
    assert 'raise Failure(3, detail="bad")' in str(error.__cause__)
    error = executor.submit(fail_locally).exception(DEADLINE)
    assert isinstance(error, ValueError), error
    assert (type(error).__name__, str(error)) == ("Local", "mine")


def journey_globals_are_shared(executor):
    assert [executor.submit(count).result(DEADLINE) for _ in range(3)] == [1, 2, 3]
    assert executor.submit(lambda: counter).result(DEADLINE) == 3
    assert counter == 0


def journey_maps_and_targets(executor):
    assert list(executor.map(lambda x, y: x * y, range(5), range(5), timeout=DEADLINE)) == [
        0,
        1,
        4,
        9,
        16,
    ]
    assert list(executor.map(lambda x: x + counter, range(5), chunksize=2, timeout=DEADLINE)) == [
        3,
        4,
        5,
        6,
        7,
    ]
    made = executor.submit(f"{HERE}/made_there.py:make", 5).result(DEADLINE)
    assert made(2) == 7


def journey_functions_that_were_moved(executor):
    """Python 3.15 has them in a module ``math.integer``."""
    assert executor.submit(math.gcd, 4, 6).result(DEADLINE) == 2
    assert list(executor.map(math.factorial, range(4), timeout=DEADLINE)) == [1, 1, 2, 6]


def journey_outputs(executor):
    def report(task):
        task.set_output("function", lambda x: x + 1)

    task = executor.submit(report)
    task.result(DEADLINE)
    assert task.outputs["function"](1) == 2


def journey_cells_of_a_notebook(executor):
    name = "<ipython-input-7-0123456789ab>"
    source = "class Cell:\n    def get(self):\n        return helper_of_cell(self) / 0\n"
    source += "\ndef helper_of_cell(x): return 5\nrun_cell = lambda: Cell().get()\n"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), globals())
    error = executor.submit(globals()["run_cell"]).exception(DEADLINE)
    assert isinstance(error, ZeroDivisionError), error
    assert "return helper_of_cell(self) / 0" in str(error.__cause__)


def journey_statements_that_were_compiled_alone(executor):
    """As IPython does it.

    Each release of Python compiles a call of an imported module's function in its own way then.
    """
    name = "<statements>"
    source = "import math\ndef f(x): return math.floor(x)\ng = lambda x: math.ceil(x) + f(x)\n"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    space = {"__name__": "__main__"}
    for node in ast.parse(source).body:
        exec(compile(ast.Module([node], []), name, "exec", dont_inherit=True), space)
    assert executor.submit(space["f"], 1.5).result(DEADLINE) == 1
    assert executor.submit(space["g"], 1.5).result(DEADLINE) == 3


def journey_features_of_the_future(executor):
    name = "<cell of the future>"
    source = (
        "from __future__ import annotations\ndef f(x: Missing) -> Nothing: return x, "
        "f.__annotations__\n"
    )
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    space = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), space)
    assert executor.submit(space["f"], 1).result(DEADLINE) == (
        1,
        {"x": "Missing", "return": "Nothing"},
    )


def call(pair):
    """Call one part of an argument with the other."""
    return pair[0](pair[1])


def journey_large_code_goes_through_shared_memory(executor):
    text = "x" * 300_000
    assert executor.submit(lambda: len(text)).result(DEADLINE) == 300_000
    assert executor.submit(call, (lambda given: len(given), text)).result(DEADLINE) == 300_000
    back = executor.submit(lambda: lambda: len(text)).result(DEADLINE)
    assert back() == 300_000


def journey_what_cannot_travel_says_why(executor):
    space: dict = {}
    exec("def made_by_exec(): return 1", space)
    error = executor.submit(space["made_by_exec"]).exception(DEADLINE)
    version = executor.submit(lambda: sys.version.split()[0]).result(DEADLINE)
    assert isinstance(error, pickle.PicklingError), error
    for word in ("made_by_exec", version, sys.version.split()[0], "no source", "file.py:function"):
        assert word in str(error), (word, str(error))
    assert executor.submit(abs, -1).result(DEADLINE) == 1


def main(report: str, *workers: str) -> None:
    tap()
    cases, codes = load_cases()
    from wetlands_executor import CondaEnvExecutor
    from wetlands_executor.pool import bundle
    from wetlands_executor.serialize import interpreter

    interpreter.PORTABLE = os.environ.get("PORTABLE") != "0"
    journeys = {name: value for name, value in globals().items() if name.startswith("journey_")}
    for worker in workers:
        minor, _, python = worker.partition("=")
        passed.clear()
        failed = {}
        with CondaEnvExecutor(python, max_workers=1) as executor:
            if not interpreter.PORTABLE:  # only what shows that the tap sees bytecode
                executor.launch()
                executor.submit(cases["a_closure"][1]()[0], 1).exception(DEADLINE)
                executor.submit(cases["a_class"][1]()[0], 1).exception(DEADLINE)
                text = "x" * 300_000
                executor.submit(lambda: len(text)).exception(DEADLINE)
                executor.submit(call, (lambda given: len(given), text)).exception(DEADLINE)
                executor.submit(f"{HERE}/made_there.py:make", 5).exception(DEADLINE)
                cases_here, journeys_here = {}, {}
            else:
                cases_here, journeys_here = cases, dict(journeys)
                # bytecode needs no source, and shows none
                if minor == "{}.{}".format(*sys.version_info):
                    del (
                        journeys_here["journey_what_cannot_travel_says_why"],
                        journeys_here["journey_cells_of_a_notebook"],
                    )
            for name, (_row, make) in cases_here.items():
                try:
                    function, args = make()
                    if tuple(map(int, minor.split("."))) < sys.modules["__main__"].SINCE[name]:
                        error = executor.submit(function, *args).exception(DEADLINE)
                        if not isinstance(error, pickle.PicklingError):
                            failed[name] = f"is not refused: {error!r}"
                        continue
                    task = executor.submit(lambda f, a: repr(f(*a)), function, args)
                    if "async" in name or "coroutine" in name:
                        task = executor.submit(function, *args)
                        got, wanted = repr(task.result(DEADLINE)), repr(run(*make()))
                    else:
                        got, wanted = task.result(DEADLINE), repr(run(*make()))
                    if got != wanted:
                        failed[name] = f"got {got} instead of {wanted}"
                except Exception:
                    failed[name] = traceback.format_exc()
            for name, journey in journeys_here.items():
                try:
                    journey(executor)
                except BaseException:
                    failed[name] = traceback.format_exc()
        found = {way: bytecode_among(way, codes, bundle.source()) for way in ("in", "out")}
        with open(f"{report}-{minor}.json", "w") as stream:
            json.dump(
                {
                    "failed": failed,
                    "bytecode": found,
                    "memory": in_memory(),
                    "count": len(cases_here) + len(journeys_here),
                },
                stream,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
