"""What is one object in the host is one object in a worker's namespace.

Within a call, across calls, on equal and other versions.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.util
import itertools
import pickle
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker import identity_module
from tests.worker.conftest import DEADLINE, define, run, script_with
from wetlands_executor import CondaEnvExecutor

_names = itertools.count()


def load(name: str) -> types.ModuleType:
    """Execute the script as a module that only this process has."""
    spec = importlib.util.spec_from_file_location(
        name, Path(__file__).with_name("identity_script.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script() -> Iterator[Any]:
    """The script, executed anew: no worker has anything of it."""
    name = f"script_of_identity_{next(_names)}"
    yield load(name)
    del sys.modules[name]


@pytest.fixture
def module() -> Iterator[Any]:
    """An empty module that only this process has."""
    with script_with(f"module_of_identity_{next(_names)}", "") as module:
        yield module


# --- one object


def test_the_script_is_right_here(script: Any) -> None:
    """The tests below say the same of a worker."""
    assert [
        name for name, way in script.WAYS.items() if name != "by_coroutine" and way() is not True
    ] == []
    assert script.well_known()
    assert script.synchronize()


def test_a_default_is_the_sentinel_that_it_is_here(executor: CondaEnvExecutor, script: Any) -> None:
    """Defaults, closures, attributes, tables, dataclasses, instances, containers of the standard
    library; each in a call of its own.
    """
    assert [name for name, way in script.WAYS.items() if run(executor, way) is not True] == []


def test_all_ways_in_one_call(executor: CondaEnvExecutor, script: Any) -> None:
    """One stream, and the other way round."""
    ways = [way for name, way in script.WAYS.items() if name != "by_coroutine"]
    assert run(executor, lambda functions: [function() for function in functions], ways) == [
        True
    ] * len(ways)


@pytest.mark.parametrize("way", ["map", "map in chunks", "map_tasks", "initializer"])
def test_however_it_is_sent(way: str, script: Any) -> None:
    """A definition for many calls, a call of chunks, and what every worker begins with."""
    with CondaEnvExecutor(
        sys.executable,
        max_workers=1,
        initializer=script.one if way == "initializer" else None,
        initargs=(1,),
    ) as executor:
        if way == "initializer":
            assert run(executor, script.state)[0] == ["one"]
            assert run(executor, script.default)
        elif way == "map_tasks":
            assert [task.result(DEADLINE) for task in executor.map_tasks(script.two, range(3))] == [
                2,
                3,
                4,
            ]
            assert run(executor, script.state)[0] == ["two", "one"] * 3
        else:
            assert list(
                executor.map(
                    script.two, range(3), timeout=DEADLINE, chunksize=1 if way == "map" else 2
                )
            ) == [2, 3, 4]
            assert run(executor, script.state)[0] == ["two", "one"] * 3


def test_sentinels_of_modules_are_the_workers_own(executor: CondaEnvExecutor, script: Any) -> None:
    """Of the standard library, and of a module of the user's."""
    assert run(executor, script.well_known) is True


def test_sentinels_as_arguments_and_results(executor: CondaEnvExecutor, script: Any) -> None:
    """An object that holds nothing is nothing but its identity, so it keeps that on both ways."""
    assert run(executor, script.same, script.MISSING, script.UNSET, identity_module.MISSING) is True
    assert run(executor, script.give, "missing") is script.MISSING
    assert run(executor, script.give, "unset")[0] is script.UNSET
    assert run(executor, script.give, "theirs") is identity_module.MISSING


def test_sentinel_of_numpy() -> None:
    np = pytest.importorskip("numpy")
    novalue = np._NoValue
    with CondaEnvExecutor(sys.executable, max_workers=1) as executor:
        assert run(executor, lambda: novalue is __import__("numpy")._NoValue) is True


# --- across calls


def test_one_registry_by_two_names(executor: CondaEnvExecutor, script: Any) -> None:
    """And a list that a decorator's closure, a class and a global share.

    What one call changes, another function's call sees.
    """
    assert run(executor, script.two, 1) == 3
    assert run(executor, script.one, 1) == 2
    calls = ["two", "one", "one"]
    assert run(executor, script.state) == (calls, calls, True, ["one", "two"])
    assert run(executor, script.add, "three") is True
    assert run(executor, script.state)[3] == ["one", "three", "two"]


def test_state_of_classes_and_instances_stays(executor: CondaEnvExecutor, script: Any) -> None:
    """As in a process that has imported the script."""
    assert [run(executor, script.open_account) for _ in range(2)] == [1, 2]
    assert run(executor, script.opened) == 2
    assert [run(executor, script.put, item) for item in "ab"] == [1, 2]
    assert run(executor, script.items) == (["a", "b"], ["a", "b"], True)
    script.Account.opened = 10
    assert run(executor, script.opened) == 10


def test_what_functions_share_stays(executor: CondaEnvExecutor, script: Any) -> None:
    """A variable of two closures; the cache of a function."""
    assert [run(executor, script.count) for _ in range(2)] == [1, 2]
    assert run(executor, script.counted) == 2
    assert [run(executor, script.misses) for _ in range(2)] == [1, 1]


def test_an_object_that_changes_here_changes_there(executor: CondaEnvExecutor, script: Any) -> None:
    """In place, so that all names still lead to one object."""
    assert run(executor, script.two, 1) == 3
    script.CALLS[:] = ["host"]
    script.REGISTRY["more"] = None
    assert run(executor, script.state) == (["host"], ["host"], True, ["more", "one", "two"])
    script.CALLS = script.Store.calls = ["another"]
    assert run(executor, script.state)[:2] == (["another"], ["another"])
    script.ACCOUNT.items.append("host")
    assert run(executor, script.items) == (["host"], [], True)
    script.FIRST.append("more")
    assert run(executor, script.by_large) is True


def test_calls_that_are_made_out_of_order_see_what_was_there_when_they_were_submitted(
    fresh: CondaEnvExecutor, module: Any
) -> None:
    """Small and large values, by two functions, one of which overtakes the other."""
    functions = (
        "def f():\n    return x, L[0], BIG[0]\ndef g():\n    return x, L[0], BIG[0]\ndef "
        "own(v):\n    global x\n    x = v\n"
    )
    define(module, f"x = 0\nL = [0]\nBIG = list(range(5000))\n{functions}")
    for _ in range(3):
        assert run(fresh, module.f) == run(fresh, module.g) == (0, 0, 0)
    first = fresh.options(priority=5)
    blocker = fresh.submit(time.sleep, 0.2)
    tasks = []
    for i in range(60):
        module.x = module.L[0] = module.BIG[0] = i % 2
        tasks.append((i % 2, (first if i % 3 else fresh).submit(module.f)))
        tasks.append((i % 2, fresh.submit(module.g)))
    blocker.result(DEADLINE)
    assert [task.result(DEADLINE) for _, task in tasks] == [(x, x, x) for x, _ in tasks]
    run(fresh, module.own, 7)
    assert run(fresh, module.f)[0] == run(fresh, module.g)[0] == 7


def test_a_replaced_worker_is_given_everything_again(module: Any) -> None:
    define(
        module, "BIG = list(range(5000))\nS = object()\ndef f(x=S):\n    return len(BIG), x is S\n"
    )
    with CondaEnvExecutor(sys.executable, max_workers=1, max_tasks_per_child=2) as executor:
        assert [run(executor, module.f) for _ in range(7)] == [(5000, True)] * 7


# --- what each process has for itself


def test_locks_and_their_like_are_made_anew(executor: CondaEnvExecutor, script: Any) -> None:
    """Once per worker."""
    assert run(executor, script.synchronize) is True
    assert run(executor, script.own) is True
    assert run(executor, script.kept) is True
    assert run(executor, script.synchronize) is True


def test_a_lock_in_a_closure(executor: CondaEnvExecutor) -> None:
    lock = threading.Lock()
    with lock:
        assert run(executor, lambda: lock.acquire(timeout=0)) is True


def test_a_lock_as_an_argument_is_refused(executor: CondaEnvExecutor) -> None:
    """It would protect nothing; so it is with ``ProcessPoolExecutor``."""
    with pytest.raises(TypeError, match="lock"):
        run(executor, id, threading.Lock())


@pytest.mark.parametrize(
    ("function", "names"),
    [
        ("unpicklable", ["'STEPS'", "unpicklable"]),
        ("through_helper", ["'STEPS'", "unpicklable"]),
        ("through_class", ["'steps'", "Holder"]),
    ],
)
def test_a_global_that_cannot_be_sent_is_named(
    executor: CondaEnvExecutor, script: Any, function: str, names: list[str]
) -> None:
    """With the function that uses it, and what to do."""
    error = executor.submit(getattr(script, function)).exception(DEADLINE)
    assert isinstance(error, pickle.PicklingError)
    assert [name for name in [*names, "generator", "initializer"] if name not in str(error)] == []


def test_an_executor_is_no_result(same: CondaEnvExecutor) -> None:
    """It travels to workers only; what it is there would be nothing here."""
    error = same.submit(lambda: same).exception(DEADLINE)
    assert isinstance(error, RuntimeError)
    assert "do not return it" in str(error)


def test_tasks_and_threads_are_named(same: CondaEnvExecutor) -> None:
    """They hold locks, which would be made anew, and would be nothing without the rest."""
    task = same.submit(abs, 1)
    thread = threading.Thread()
    for function, name in (
        (lambda: task, "task"),
        (lambda: thread, "thread"),
    ):
        error = same.submit(function).exception(DEADLINE)
        assert isinstance(error, pickle.PicklingError)
        assert f"{name!r}" in str(error)


def test_a_library_of_ctypes_is_named(same: CondaEnvExecutor) -> None:
    """What the program has declared of its functions cannot be seen, and without it they return
    wrong numbers.
    """
    library = ctypes.CDLL(None)
    error = same.submit(lambda: library.getpid()).exception(DEADLINE)
    assert isinstance(error, pickle.PicklingError)
    assert [word for word in ("'library'", "CDLL", "initializer") if word not in str(error)] == []


# --- large globals


def seconds(work: Callable[[], object]) -> float:
    """Return the least time of three that this thread has used the processor."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return min(found)


def fifty_milliseconds() -> float:
    """Return the time of work that takes about 50 ms on a machine of today that is not busy."""
    return 5 * seconds(lambda: sum(range(1_000_000)))


@pytest.mark.parametrize(
    "make",
    [
        "list(range(1_000_000))",
        "{i: str(i) for i in range(300_000)}",
        "b'x' * 50_000_000",
        "bytearray(50_000_000)",
        "[{'a': [i]} for i in range(30_000)]",
        "{a: {b: {c: [c] for c in range(50)} for b in range(50)} for a in range(50)}",
        "set(range(500_000))",
        "__import__('array').array('d', range(1_000_000))",
    ],
)
def test_a_large_global_costs_a_submit_nothing(
    fresh: CondaEnvExecutor, module: Any, make: str
) -> None:
    """Once the worker has it.

    In the same function, another one, a lambda made anew, and with a small global that changes each
    time.
    """
    functions = (
        "def f():\n    return len(BIG) + small\ndef g():\n    return len(BIG)\ndef new():\n    "
        "return lambda: len(BIG)\n"
    )
    define(module, f"BIG = {make}\nsmall = 0\n{functions}")
    first = seconds(lambda: pickle.dumps(module.BIG, 5))
    assert run(fresh, module.f) == len(module.BIG)
    limit = max(first / 3, fifty_milliseconds())

    def change() -> None:
        module.small += 1
        assert run(fresh, module.f) == len(module.BIG) + module.small

    for work in (
        lambda: run(fresh, module.f),
        lambda: run(fresh, module.g),
        lambda: run(fresh, module.new()),
        change,
    ):
        assert seconds(work) < limit


def test_a_large_global_that_is_bound_anew_is_sent(fresh: CondaEnvExecutor, module: Any) -> None:
    """Always, also if it looks the same."""
    define(
        module,
        "BIG = list(range(5000))\ndef change():\n    BIG[2500] = 'worker'\ndef f():\n  "
        "  return BIG[2500]\n",
    )
    run(fresh, module.change)
    assert run(fresh, module.f) == "worker"
    module.BIG = list(range(5000))
    assert run(fresh, module.f) == 2500
    module.BIG.append(1)
    module.BIG[2500] = "host"
    assert run(fresh, module.f) == "host"


def test_a_small_global_that_changes_is_noticed(fresh: CondaEnvExecutor, module: Any) -> None:
    """At any place, however deep."""
    define(
        module,
        "T = {'a': [{'b': (1, [2])}], 'n': dict.fromkeys(range(300))}\ndef f():\n    return T\n",
    )
    assert run(fresh, module.f) == module.T
    module.T["a"][0]["b"][1].append(3)
    assert run(fresh, module.f) == module.T
    module.T["n"][150] = "changed"
    assert run(fresh, module.f) == module.T
    del module.T["n"]
    assert run(fresh, module.f) == module.T


def test_a_large_array_is_compared_by_a_sample(fresh: CondaEnvExecutor, module: Any) -> None:
    np = pytest.importorskip("numpy")
    module.np = np
    define(
        module,
        "A = np.zeros(2_000_000)\ndef f():\n    return float(A.sum())\ndef add():\n    A[0] += 1\n",
    )
    assert run(fresh, module.f) == 0
    run(fresh, module.add)
    assert run(fresh, module.f) == 1
    module.A[:] = 1
    assert run(fresh, module.f) == 2_000_000
    run(fresh, module.add)
    assert run(fresh, module.f) == 2_000_001
    assert seconds(lambda: run(fresh, module.f)) < fifty_milliseconds()


def test_the_record_keeps_nothing_alive(fresh: CondaEnvExecutor, module: Any) -> None:
    """What the host drops is gone after the next call of a function by value.

    Here, and in the worker.
    """
    values = "BIG = [C() for _ in range(3000)]\nSMALL = [C()]\nONE = C()\n"
    define(module, f"class C:\n    pass\n{values}def f():\n    return len(BIG) + len(SMALL), ONE\n")
    run(fresh, module.f)
    kept = [weakref.ref(each) for each in (module.BIG[0], module.SMALL[0], module.ONE)]
    module.BIG = module.SMALL = ()
    module.ONE = None
    for _ in range(5):
        run(fresh, module.f)
    gc.collect()
    assert [each() for each in kept] == [None] * 3


def test_many_lambdas_leave_nothing_behind(fresh: CondaEnvExecutor) -> None:
    """In the host's record, and in the worker's tables."""

    def tables() -> list[int]:
        return run(
            fresh,
            lambda: [
                len(vars(sys.modules["_wetlands_worker.objects"])[name])
                for name in ("TABLE", "VERSIONS", "PIECES", "READ")
            ],
        )

    before = tables()
    for i in range(2000):
        fresh.submit(lambda i=i: [i])
    run(fresh, abs, 1)
    for _ in range(600):
        run(fresh, lambda: 1)
    assert max(tables()) < max(before) + 2000
    record = fresh._pool.settings.remote.record
    assert len(record.known) < 1500


# --- what is changed besides attributes


def test_bases_and_classes_change_there_too(executor: CondaEnvExecutor, script: Any) -> None:
    for _ in range(3):
        assert run(executor, script.who) == ("left", "left", 1)
    script.Child.__bases__ = (script.Right,)
    for _ in range(3):
        assert run(executor, script.who) == ("right", "left", 1)
    script.chosen.__class__ = script.Right
    for _ in range(3):
        assert run(executor, script.who) == ("right", "right", 1)


def test_objects_methods_and_partial_objects_of_what_is_known(
    executor: CondaEnvExecutor, script: Any
) -> None:
    """The first call sends all, later ones what is new: what arrives is the same."""
    kept = script.Held([1, {"a": (2, 3)}])
    for i in range(4):
        held = script.Held(i)
        assert run(executor, held.get) == (i, ())
        assert run(executor, kept.get, i, "x") == (kept.value, (i, "x"))
        assert run(executor, functools.partial(held.get, 1), 2) == (i, (1, 2))
        assert run(executor, script.Held.name) == "Held"
        assert run(executor, script.look, held, [held]) == (True, i)
        assert run(executor, script.look, script.SlotHeld(i), []) == (False, i)
        assert run(executor, script.look, script.SlotHeld([held]), [held])[0] is False
        assert run(executor, script.is_class, script.Held, held) is True
        given = functools.partial(script.given, 1)
        assert run(executor, given) == {"a": 1}
        assert run(executor, functools.partial(given, c=3), 2) == {"a": 1, "b": 2, "c": 3}


def test_a_lambda_in_a_loop_whose_variable_is_a_global(
    executor: CondaEnvExecutor, script: Any
) -> None:
    """As at the top of a script: its value goes with each call, what a task has set stays."""
    tasks = []
    for script.COUNT in range(8):
        tasks.append((script.COUNT, executor.submit(script.counting("a"))))
        if script.COUNT % 3 == 0:
            assert run(executor, script.number_of_loop) == script.COUNT
    for number, task in tasks:
        assert task.result(DEADLINE) == (number, number, "a")
    assert run(executor, script.set_count) == -1
    assert run(executor, script.counting("b")) == (-1, -1, "b")
    for script.COUNT in (1, True, 1.0, "1", "é", None, 0.0, -0.0, [1], (1,), 2**70, 7):
        found, by_helper, _ = run(executor, script.counting("c"))
        assert repr(found) == repr(by_helper) == repr(script.COUNT)
    record = executor._pool.settings.remote.record
    assert [code for code in record.codes.values() if "COUNT" in code.varying]
    assert run(executor, script.number_of_loop) == 7
