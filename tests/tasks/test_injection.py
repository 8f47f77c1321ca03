"""Which functions get a handle as ``task``: by signature, decided in the worker.

What the caller passes is never touched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.interpreters import Interpreter
from tests.support.names import steady
from tests.support.rendezvous import DEADLINE
from tests.tasks import workload
from tests.tasks.workload import Wanting
from wetlands_executor import CondaEnvExecutor, RemoteTaskHandle

HANDLE = "RemoteTaskHandle"


@pytest.fixture
def run(shared: CondaEnvExecutor) -> Callable[..., Any]:
    """Run a call and return its result."""
    return lambda fn, *args, **kwargs: shared.submit(fn, *args, **kwargs).result(DEADLINE)


def test_a_parameter_without_default(single: CondaEnvExecutor) -> None:
    task = single.submit(workload.wants)
    assert task.result(DEADLINE) == (HANDLE, task.id)


@pytest.mark.parametrize(
    ("call", "args", "expected"),
    [
        (workload.wants_optional, ("v",), ("v", HANDLE)),
        (workload.wants_keyword_only, (), HANDLE),
        (workload.wants_behind_args, (1, 2), ((1, 2), HANDLE)),
        (workload.wants_positional_only, ("v",), ("v", HANDLE)),
        (workload.wants_decorated, ("v",), ("v", HANDLE)),
        (workload.wants_decorated_twice, ("v",), ("v", HANDLE)),
        (workload.wants_cached, ("v",), ("v", HANDLE)),
        (workload.wants_async, ("v",), ("v", HANDLE)),
        (Wanting(1).method, ("v",), ("v", HANDLE)),
        (Wanting.of_class, ("v",), ("Wanting", "v", HANDLE)),
        (Wanting.static, ("v",), ("v", HANDLE)),
        (Wanting(1).static, ("v",), ("v", HANDLE)),
        (Wanting(1).of_class, ("v",), ("Wanting", "v", HANDLE)),
        (Wanting(1), ("v",), ("v", HANDLE)),
        (workload.WantingInNew, ("v",), HANDLE),
        (functools.partial(workload.wants_optional, "v"), (), ("v", HANDLE)),
        (functools.partial(workload.wants_optional), ("v",), ("v", HANDLE)),
        (
            functools.partial(functools.partial(workload.wants_in_the_middle, "b"), after="a"),
            (),
            ("b", HANDLE, "a"),
        ),
        (functools.partial(Wanting(1).method), ("v",), ("v", HANDLE)),
        (functools.partial(Wanting(1), "v"), (), ("v", HANDLE)),
        (functools.partial(workload.wants_decorated, "v"), (), ("v", HANDLE)),
    ],
    ids=lambda value: (
        getattr(value, "__qualname__", None) or (type(value).__name__ if callable(value) else "")
    ),
)
def test_injected(
    run: Callable[..., Any], call: Callable[..., object], args: tuple[object, ...], expected: object
) -> None:
    assert run(call, *args) == expected
    assert run(call, *args) == expected, "the same when it is called again"


def test_a_class_with_task_in_init(run: Callable[..., Any]) -> None:
    made = run(Wanting, 5)
    assert (made.value, made.kind) == (5, HANDLE)


def test_a_class_by_value_with_task_in_init(run: Callable[..., Any]) -> None:
    class Local:
        def __init__(self, task: Any) -> None:
            self.kind = type(task).__name__

    assert run(lambda: Local("mine").kind) == "str"
    assert run(Local).kind == HANDLE


@pytest.mark.parametrize(
    ("call", "args", "kwargs", "expected"),
    [
        (workload.wants_optional, ("v", "mine"), {}, ("v", "str")),
        (workload.wants_optional, ("v",), {"task": "mine"}, ("v", "str")),
        (workload.wants_optional, ("v",), {"task": None}, ("v", "NoneType")),
        (workload.wants_optional, ("v", None), {}, ("v", "NoneType")),
        (workload.wants_keyword_only, (), {"task": 5}, "int"),
        (workload.wants_positional_only, ("v", "mine"), {}, ("v", "str")),
        (workload.wants_first, ("mine", "v"), {}, ("str", "v")),
        (workload.wants_first, (), {"task": "mine", "value": "v"}, ("str", "v")),
        (workload.wants_in_the_middle, (1, "mine", 2), {}, (1, "str", 2)),
        (Wanting(1).method, ("v", "mine"), {}, ("v", "str")),
        (Wanting(1).method, ("v",), {"task": "mine"}, ("v", "str")),
        (Wanting.of_class, ("v", "mine"), {}, ("Wanting", "v", "str")),
        (Wanting(1), ("v", "mine"), {}, ("v", "str")),
        (functools.partial(workload.wants_optional, task="mine"), ("v",), {}, ("v", "str")),
        (functools.partial(workload.wants_optional, "v", "mine"), (), {}, ("v", "str")),
        (functools.partial(workload.wants_optional, "v", None), (), {}, ("v", "NoneType")),
        (functools.partial(workload.wants_optional, task=None), ("v",), {}, ("v", "NoneType")),
        (workload.wants_decorated, ("v",), {"task": "mine"}, ("v", "str")),
        (workload.wants_decorated, ("v", "mine"), {}, ("v", "str")),
        (workload.wants_by_kwargs, (), {"task": "mine"}, ["task"]),
    ],
    ids=steady,
)
def test_what_the_caller_passes_stays(
    run: Callable[..., Any],
    call: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    expected: object,
) -> None:
    assert run(call, *args, **kwargs) == expected


@pytest.mark.parametrize(
    ("call", "args", "expected"),
    [
        (workload.wants_other_default, (), "theirs"),
        (workload.wants_falsy_default, (), 0),
        (workload.wants_by_kwargs, (), []),
        (workload.wants_var_positional, (), ()),
        (workload.wants_var_positional, (1,), (1,)),
        (workload.wants_hidden, (), (None, "NoneType")),
        (functools.partial(workload.wants_by_kwargs, other=1), (), ["other"]),
        (max, (1, 2), 2),
        (len, ("abc",), 3),
        (dict, (), {}),
        (int, ("5",), 5),
        (str.upper, ("a",), "A"),
        ("abc".upper, (), "ABC"),
        (type, (3,), int),
    ],
    ids=steady,
)
def test_not_injected(
    run: Callable[..., Any], call: Callable[..., object], args: tuple[object, ...], expected: object
) -> None:
    assert run(call, *args) == expected


def test_annotated_with_another_default(run: Callable[..., Any], tmp_path: Path) -> None:
    module = tmp_path / "annotated.py"
    module.write_text(
        "from wetlands_executor import RemoteTaskHandle\n"
        "import wetlands_executor\n"
        "from typing import Optional\n"
        "class Other: pass\n"
        "def plain(task: RemoteTaskHandle = 5): return type(task).__name__\n"
        "def quoted(task: 'RemoteTaskHandle' = 5): return type(task).__name__\n"
        "def dotted(task: wetlands_executor.RemoteTaskHandle = 5): return type(task).__name__\n"
        "def optional(task: Optional[RemoteTaskHandle] = 5): return type(task).__name__\n"
        "def other(task: int = 5): return type(task).__name__\n"
        "def without(task: Other): return type(task).__name__\n"
    )
    future = tmp_path / "annotated_future.py"
    future.write_text("from __future__ import annotations\n" + module.read_text())
    for path in (module, future):
        for name in ("plain", "quoted", "dotted", "optional", "without"):
            assert run(f"{path}:{name}") == HANDLE, name
        assert run(f"{path}:other") == "int"


def test_injection_is_cached_by_function_not_by_name(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    module = tmp_path / "changing.py"
    module.write_text("def f(task=None): return type(task).__name__\n")
    assert run(f"{module}:f") == HANDLE
    module.write_text("def f(task=1): return type(task).__name__  # edited\n")
    assert run(f"{module}:f") == "int"


def test_lambdas_and_closures(run: Callable[..., Any]) -> None:
    bound = 3
    assert run(lambda task: type(task).__name__) == HANDLE
    assert run(lambda value, task=None: (value, bound, type(task).__name__), 1) == (1, 3, HANDLE)
    assert run(lambda task="mine": task) == "mine"


def test_in_map_and_map_tasks(single: CondaEnvExecutor) -> None:
    assert list(single.map(workload.wants_optional, "ab")) == [("a", HANDLE), ("b", HANDLE)]
    assert list(single.map(workload.wants_optional, "ab", ["mine", None])) == [
        ("a", "str"),
        ("b", "NoneType"),
    ]
    assert [task.result(DEADLINE) for task in single.map_tasks(workload.wants_optional, "ab")] == [
        ("a", HANDLE),
        ("b", HANDLE),
    ]
    assert list(single.map(lambda value, task: (value, type(task).__name__), "ab")) == [
        ("a", HANDLE),
        ("b", HANDLE),
    ]


def test_map_with_chunks_injects_too(single: CondaEnvExecutor) -> None:
    assert list(single.map(workload.wants_optional, "abcd", chunksize=2)) == [
        (letter, HANDLE) for letter in "abcd"
    ]


def test_positional_task_may_be_a_users_own(run: Callable[..., Any]) -> None:
    assert run(workload.wants_in_the_middle, 1, 2, 3) == (1, "int", 3)


def test_a_missing_other_argument_is_the_callers_error(run: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'value'"):
        run(workload.wants_first)
    with pytest.raises(TypeError):
        run(workload.wants_optional, "v", "mine", "too many")


def test_a_function_with_a_broken_signature(run: Callable[..., Any], tmp_path: Path) -> None:
    module = tmp_path / "broken_signature.py"
    module.write_text(
        "class Odd:\n"
        "    __signature__ = 'no signature at all'\n"
        "    def __call__(self, task=7): return task\n"
        "    def __getattr__(self, name): raise RuntimeError('do not look at ' + name)\n"
        "odd = Odd()\n"
    )
    assert run(f"{module}:odd") == 7


def test_without_a_worker_the_function_is_just_called() -> None:
    import wetlands_executor

    handle = wetlands_executor.current_task()
    assert isinstance(handle, RemoteTaskHandle)
    assert workload.wants_optional("v", handle) == ("v", HANDLE)
    assert workload.report(3, handle) == 3


def test_in_every_version_of_python(
    make: Callable[..., CondaEnvExecutor], anypython: Interpreter
) -> None:
    executor = make(env=str(anypython.path))
    task = executor.submit(workload.wants)
    assert task.result(DEADLINE) == (HANDLE, task.id)
    calls: list[tuple[Any, tuple[Any, ...], Any]] = [
        (workload.wants_optional, ("v",), ("v", HANDLE)),
        (workload.wants_positional_only, ("v",), ("v", HANDLE)),
        (workload.wants_decorated, ("v",), ("v", HANDLE)),
        (workload.wants_cached, ("v",), ("v", HANDLE)),
        (workload.wants_async, ("v",), ("v", HANDLE)),
        (Wanting(1).method, ("v",), ("v", HANDLE)),
        (Wanting.of_class, ("v",), ("Wanting", "v", HANDLE)),
        (functools.partial(workload.wants_in_the_middle, "b", after="a"), (), ("b", HANDLE, "a")),
        (workload.WantingInNew, ("v",), HANDLE),
        (workload.wants_other_default, (), "theirs"),
        (workload.wants_by_kwargs, (), []),
        (max, (1, 2), 2),
    ]
    for call, args, expected in calls:
        assert executor.submit(call, *args).result(DEADLINE) == expected
