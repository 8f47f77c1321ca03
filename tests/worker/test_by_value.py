"""Functions and classes by value in one worker.

One namespace per module of the host, as with ``ProcessPoolExecutor``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worker import workload
from tests.worker.conftest import DEADLINE, define, run, script_with
from wetlands_executor import CondaEnvExecutor

Write = Callable[[str, str], Path]


@pytest.fixture
def module(write: Write) -> Iterator[types.ModuleType]:
    """A module that no other process can import by its name.

    Loaded from a file that has another one.
    """
    spec = importlib.util.spec_from_file_location("made_by_hand", write("some_file.py", ""))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["made_by_hand"] = module
    yield module
    del sys.modules["made_by_hand"]


def test_calls_share_the_globals_of_their_module(
    fresh: CondaEnvExecutor, module: types.ModuleType
) -> None:
    """What one call sets the next one sees, another function of the module too."""
    define(
        module,
        "count = 0\ndef add():\n    global count\n    count += 1\n    return "
        "count\ndef read():\n    return count\n",
    )
    assert [run(fresh, module.add) for _ in range(3)] == [1, 2, 3]
    assert run(fresh, module.read) == 3


def test_what_an_initializer_sets_is_seen(module: types.ModuleType) -> None:
    """The reason why there are initializers."""
    define(
        module,
        "model = None\ndef setup(name):\n    global model\n    model = name\ndef "
        "use():\n    return model\n",
    )
    with CondaEnvExecutor(
        sys.executable, max_workers=1, initializer=module.setup, initargs=("big",)
    ) as executor:
        assert run(executor, module.use) == "big"
        assert run(executor, module.use) == "big"


def test_a_global_that_the_host_changes_is_sent(
    fresh: CondaEnvExecutor, module: types.ModuleType
) -> None:
    """One that it has not changed keeps the worker's value."""
    define(
        module,
        "a = 1\nb = [1]\ndef both():\n    return a, list(b)\ndef change():\n    global "
        "a\n    a = 50\n    b.append(2)\n    return both()\n",
    )
    assert run(fresh, module.both) == (1, [1])
    assert run(fresh, module.change) == (50, [1, 2])
    assert run(fresh, module.both) == (50, [1, 2])
    module.a = 7
    assert run(fresh, module.both) == (7, [1, 2])
    module.b.append(9)
    assert run(fresh, module.both) == (7, [1, 9])


def test_a_new_definition_wins(fresh: CondaEnvExecutor, module: types.ModuleType) -> None:
    """A cell that was edited and run again.

    Also for a function that another one calls, and for a class.
    """
    define(
        module,
        "class C:\n    n = 1\ndef inner():\n    return 1\ndef outer():\n    return inner(), C.n\n",
    )
    assert run(fresh, module.outer) == (1, 1)
    define(module, "class C:\n    n = 2\ndef inner():\n    return 2\n")
    assert run(fresh, module.outer) == (2, 2)


def test_functions_that_refer_to_themselves_and_each_other(
    fresh: CondaEnvExecutor, module: types.ModuleType
) -> None:
    """Recursion, mutual recursion, a table that holds the function itself."""
    define(
        module,
        "def fact(n):\n    return 1 if n < 2 else n * fact(n - 1)\n"
        "def even(n):\n    return True if n == 0 else odd(n - 1)\n"
        "def odd(n):\n    return False if n == 0 else even(n - 1)\n"
        "def pick(name):\n    return table[name].__name__\n"
        "table = {'pick': pick, 'fact': fact}\n",
    )
    assert run(fresh, module.fact, 6) == 720
    assert run(fresh, module.even, 7) is False
    assert run(fresh, module.pick, "pick") == "pick"
    assert run(fresh, module.pick, "fact") == "fact"


def test_a_module_without_a_file(fresh: CondaEnvExecutor) -> None:
    """Made by ``types.ModuleType``: it cannot be imported, so its functions go by value."""
    with script_with("made_of_nothing", "step = 2\ndef f(x):\n    return x + step\n") as module:
        assert run(fresh, module.f, 1) == 3


def test_a_closure_that_refers_to_itself(fresh: CondaEnvExecutor) -> None:
    """Through its own cell."""

    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert run(fresh, fib, 10) == 55


def test_a_class_by_value_is_the_same_on_its_way_back(
    fresh: CondaEnvExecutor, module: types.ModuleType
) -> None:
    """An instance that returns is one of the class that was sent.

    Equal classes in two calls are one.
    """
    define(
        module,
        "class Point:\n    def __init__(self, x):\n        self.x = x\n"
        "def move(p):\n    return Point(p.x + 1)\ndef same(p, cls):\n    return type(p) is cls "
        "and type(p) is Point\n",
    )
    back = run(fresh, module.move, module.Point(1))
    assert type(back) is module.Point
    assert back.x == 2
    assert run(fresh, module.same, module.Point(1), module.Point) is True
    assert type(run(fresh, module.move, back)) is module.Point


def test_local_classes_return(same: CondaEnvExecutor) -> None:
    """Defined in a function, nowhere to be imported from."""

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    back = run(same, lambda given: Local(given.value + 1), Local(1))
    assert type(back) is Local
    assert back.value == 2


def test_defaults_annotations_and_attributes_travel(same: CondaEnvExecutor) -> None:
    """A function is more than its code."""

    def function(a: int, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
        """Text."""
        return a, b, c

    function.mark = "mark"  # type: ignore[attr-defined]
    assert run(same, function, 1) == (1, 2, 3)
    found = run(
        same, lambda: (function.__doc__, function.mark, function.__kwdefaults__, function.__name__)
    )  # type: ignore[attr-defined]
    assert found == ("Text.", "mark", {"c": 3}, "function")


def test_two_functions_of_one_call_share_what_they_close_over(same: CondaEnvExecutor) -> None:
    """One cell, not two copies."""
    state = [0]

    def bump() -> None:
        state[0] += 1

    def read() -> int:
        return state[0]

    assert run(same, lambda: (bump(), bump(), read())[2]) == 2
    assert state == [0]


def test_modules_as_globals(same: CondaEnvExecutor, module: types.ModuleType) -> None:
    """Imported there."""
    define(
        module,
        "import os.path as p, math\ndef f():\n    return p.basename('a/b'), math.floor(1.5)\n",
    )
    assert run(same, module.f) == ("b", 1)


def test_map_of_a_function_by_value(same: CondaEnvExecutor) -> None:
    """Sent once for the whole map."""
    factor = 3
    assert list(same.map(lambda x: x * factor, range(50), timeout=DEADLINE)) == [
        x * 3 for x in range(50)
    ]
    assert list(same.map(lambda x: x * factor, range(50), timeout=DEADLINE, chunksize=7)) == [
        x * 3 for x in range(50)
    ]


def test_the_environments_own_cloudpickle_is_not_touched(fresh: CondaEnvExecutor) -> None:
    """The shipped one has a private name."""
    assert run(fresh, lambda: 1) == 1
    assert [name for name in run(fresh, workload.loaded) if name.startswith("cloudpickle")] == []  # type: ignore[attr-defined]


# --- namesakes


def test_a_namesake_in_the_environment_is_refused(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's module has the name of one that the worker finds elsewhere.

    Never a different function.
    """
    ours = write("ours/namesake_of_test.py", "def f():\n    return 'host'\n")
    theirs = write("theirs/namesake_of_test.py", "def f():\n    return 'environment'\n")
    monkeypatch.syspath_prepend(str(ours.parent))
    import namesake_of_test  # type: ignore[import-not-found]

    monkeypatch.delitem(sys.modules, "namesake_of_test")
    sys.modules["namesake_of_test"] = namesake_of_test
    try:
        code = f"import sys; sys.path.insert(0, {str(theirs.parent)!r})"
        with CondaEnvExecutor(
            sys.executable, max_workers=1, initializer=exec, initargs=(code,)
        ) as executor:
            task = executor.submit(namesake_of_test.f)
            error = task.exception(DEADLINE)
            if error is None:
                assert task.result() == "host"  # it went by value
            else:
                assert isinstance(error, ImportError)
                assert str(ours) in str(error)
                assert str(theirs) in str(error)
            nested = executor.submit(workload.echo, namesake_of_test.f)
            assert isinstance(nested.exception(DEADLINE), ImportError)
    finally:
        sys.modules.pop("namesake_of_test", None)


def test_a_project_module_is_found_without_pythonpath(
    write: Write, monkeypatch: pytest.MonkeyPatch, fresh: CondaEnvExecutor
) -> None:
    """Entries of ``sys.path`` travel; the variable does not."""
    path = write(
        "project/module_of_project.py",
        "import os\ndef f():\n    return __file__, os.environ.get('PYTHONPATH')\n",
    )
    monkeypatch.setenv("PYTHONPATH", str(path.parent))
    monkeypatch.syspath_prepend(str(path.parent))
    import module_of_project  # type: ignore[import-not-found]

    try:
        file, variable = run(fresh, module_of_project.f)  # type: ignore[misc]
        assert os.path.samefile(file, path)
        assert variable is None
    finally:
        sys.modules.pop("module_of_project", None)


def test_a_module_that_was_loaded_from_a_file_outside_sys_path(
    write: Write, fresh: CondaEnvExecutor
) -> None:
    """As plug-in systems and test runners load them."""
    path = write("plugins/plugin_of_test.py", "class K:\n    pass\ndef f(x):\n    return x, K()\n")
    spec = importlib.util.spec_from_file_location("plugin_of_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plugin_of_test"] = module
    spec.loader.exec_module(module)
    try:
        value, instance = run(fresh, module.f, 5)  # type: ignore[misc]
        assert value == 5
        assert type(instance) is module.K
    finally:
        del sys.modules["plugin_of_test"]


DELETIONS = """
class Plain:
    pass

class Slotted:
    __slots__ = ("one", "two")

class Listed(list):
    pass

class Base:
    shared = ()

class Derived(Base):
    shared = (1,)
    other = 1

plain, slotted, listed = Plain(), Slotted(), Listed([1])
plain.one = slotted.one = slotted.two = listed.one = 1

def called():
    return 1

called.one = called.two = 1

def look():
    return (
        vars(plain), hasattr(slotted, "one"), hasattr(slotted, "two"), vars(listed),
        Derived.shared, hasattr(Derived, "other"), called.__dict__,
    )

def mark():
    called.own = Derived.own = 5
    return called.own
"""


def test_what_is_deleted_is_deleted_in_the_worker(
    fresh: CondaEnvExecutor, module: types.ModuleType
) -> None:
    """Attributes of instances, slots, classes and functions; not what a task has set itself."""
    define(module, DELETIONS)
    for _ in range(3):
        assert run(fresh, module.look) == module.look()
    assert run(fresh, module.mark) == 5
    del module.plain.one, module.slotted.two, module.listed.one
    del module.called.two, module.Derived.other
    module.Derived.shared = module.Base.shared  # inherited ones do not travel
    found = module.look()
    assert found == ({}, True, False, {}, (), False, {"one": 1})
    for _ in range(2):
        assert run(fresh, module.look) == (*found[:-1], {"one": 1, "own": 5})
    module.plain.one = module.slotted.two = 2
    module.Derived.other = 2
    expected = (*module.look()[:-1], {"one": 1, "own": 5})
    assert run(fresh, module.look) == expected
