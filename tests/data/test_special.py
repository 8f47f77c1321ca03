"""Values that are no plain data.

Views, generators, deep and huge ones, classes that one side lacks. With workers of every Python.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.data import special
from tests.modules import layouts
from tests.support import interpreters
from tests.support.interpreters import Interpreter
from wetlands_executor import CondaEnvExecutor, ExecutionException

DEADLINE = 60

WORK = """
import sys

class OnlyThere:
    def __init__(self, value=0):
        self.value = value

class OnlyThereError(Exception):
    pass

def kind(value):
    return type(value).__name__, bytes(value)

def give(what):
    return {
        "generator": lambda: (i for i in range(3)),
        "memoryview": lambda: memoryview(b"abc"),
        "lock": lambda: __import__("threading").Lock(),
        "lambda in a list": lambda: [1, lambda: 2],
        "instance": lambda: OnlyThere(3),
        "deep": lambda: deep(100_000),
        "raises": lambda: fail(),
        "raises a group": lambda: fail_group(),
        "bytes": lambda: marked(2 ** 31 + 10),
    }[what]()

def marked(number):
    value = bytearray(number)  # its pages are not there before they are written to
    for at in range(0, number, 1 << 26):
        value[at] = 1 + at // (1 << 26)
    value[-3:] = b"end"
    return value

def marks(value):
    return len(value), bytes(value[::1 << 26]), bytes(value[-3:])

def deep(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value

def depth(value):
    count = 0
    while value:
        value, count = value[0], count + 1
    return count

def fail():
    raise OnlyThereError("of there", 7)

def fail_group():
    raise ExceptionGroup("two of them", [ValueError(1), KeyError("k")])

def same(value):
    return value
"""


@pytest.fixture(scope="module", params=interpreters.MINORS)
def python(request: pytest.FixtureRequest) -> Interpreter:
    """Each Python from 3.8 on."""
    found = next((each for each in interpreters.find() if each.minor == request.param), None)
    if found is None:
        pytest.skip(f"no working Python {request.param} on this machine")
    return found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file with the functions."""
    path = tmp_path_factory.mktemp("special") / "special_work.py"
    path.write_text(WORK)
    return str(path)


@pytest.fixture(scope="module")
def single(python: Interpreter) -> Iterator[CondaEnvExecutor]:
    """One worker of each Python, for all tests."""
    with CondaEnvExecutor(str(python.path), max_workers=1) as executor:
        # A result that names a class: the pool has all its threads before the first test counts.
        executor.submit("fractions:Fraction", 1).result(DEADLINE)
        yield executor


@pytest.fixture
def run(single: CondaEnvExecutor, work: str) -> Iterator[Callable[..., object]]:
    """``run("function", *args)`` in a worker; afterwards the same worker must still be there."""
    pid = single.submit(os.getpid).result(DEADLINE)
    yield lambda function, *arguments: single.submit(f"{work}:{function}", *arguments).result(
        DEADLINE
    )
    assert single.submit(os.getpid).result(DEADLINE) == pid, "the worker died"


@pytest.mark.parametrize("value", [bytearray(b"abc"), b"abc"], ids=["bytearray", "bytes"])
def test_a_memoryview_arrives_as_bytes(run: Callable[..., object], value: bytes) -> None:
    """Of whatever it is a view; ProcessPoolExecutor refuses one."""
    assert run("kind", memoryview(value)) == ("bytes", b"abc")
    assert run("kind", memoryview(bytearray(b"a1b2c3"))[::2]) == ("bytes", b"abc")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: (i for i in range(3)), "generator"),
        (threading.Lock, "lock"),
        (socket.socket, "socket"),
        (lambda: sys._getframe(), "frame"),
        (lambda: iter(set()) and threading.current_thread(), "lock|thread"),
    ],
    ids=["generator", "lock", "socket", "frame", "thread"],
)
def test_an_argument_that_cannot_travel(
    run: Callable[..., object], make: Callable[[], object], word: str
) -> None:
    """Its own task fails, here, with an error that names it."""
    value = make()
    with pytest.raises(
        (TypeError, pickle.PicklingError), match=f"(?i)cannot pickle.*({word})|({word}).*cannot"
    ):
        run("same", value)
    if isinstance(value, socket.socket):
        value.close()


@pytest.mark.parametrize(("what", "word"), [("generator", "generator"), ("lock", "lock")])
def test_a_result_that_cannot_travel(run: Callable[..., object], what: str, word: str) -> None:
    """The task fails, there, with an error that names it."""
    with pytest.raises((TypeError, pickle.PicklingError), match=f"(?i)({word})"):
        run("give", what)


def test_a_view_as_a_result(run: Callable[..., object]) -> None:
    """Bytes, or an error that names it; never something else."""
    with contextlib.suppress(TypeError):
        assert run("give", "memoryview") == b"abc"
        return
    with pytest.raises(TypeError, match="memoryview"):
        run("give", "memoryview")


def test_a_deep_argument(run: Callable[..., object]) -> None:
    """Fails its own task here; one within the limits arrives."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(
        (RecursionError, pickle.PicklingError), match="(?i)recursion|stack overflow"
    ):
        run("depth", value)
    shallow: list[object] = []
    for _ in range(150):
        shallow = [shallow]
    assert run("depth", shallow) == 150
    while value:  # taken apart by hand: the interpreter's own way is deep too
        value = value.pop()  # type: ignore[assignment]


def test_a_deep_result(run: Callable[..., object]) -> None:
    """Fails its own task there."""
    with pytest.raises(
        (RecursionError, pickle.PicklingError), match="(?i)recursion|stack overflow"
    ):
        run("give", "deep")
    assert run("same", 1) == 1


def test_a_result_of_a_class_that_is_not_here(run: Callable[..., object]) -> None:
    """An error that names the module."""
    with pytest.raises(
        ModuleNotFoundError,
        match="No module named 'special_work'.*this process "
        "lacks, special_work.*return builtin types",
    ) as caught:
        run("give", "instance")
    assert caught.value.name == "special_work"


def test_an_error_of_a_class_that_is_not_here(run: Callable[..., object]) -> None:
    """Its name, words and lines arrive."""
    with pytest.raises(ExecutionException, match="special_work.OnlyThereError.*of there") as caught:
        run("give", "raises")
    assert caught.value.type_name == "special_work.OnlyThereError"
    assert any("raise OnlyThereError" in line for line in caught.value.traceback)


def test_a_group_of_errors(run: Callable[..., object], python: Interpreter) -> None:
    """As it is; where one side has no groups, as an error whose lines tell all of it."""
    if python.version < (3, 11):
        pytest.skip("that Python has no groups")
    with pytest.raises(Exception, match="two of them") as caught:
        run("give", "raises a group")
    if sys.version_info >= (3, 11):
        assert [type(each) for each in caught.value.exceptions] == [ValueError, KeyError]  # type: ignore[attr-defined]
    else:
        assert isinstance(caught.value, ExecutionException)
        assert caught.value.type_name == "ExceptionGroup"
        assert any("KeyError" in line for line in caught.value.traceback)


def test_an_argument_of_a_class_that_is_not_there(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: Interpreter
) -> None:
    """An error that names the module, the environment, its Python and where it looked.

    And the version here.
    """
    layouts.write(
        tmp_path, {"site-packages/only_here_7.py": "__version__ = '3.1'\nclass Thing:\n    pass\n"}
    )
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    module = importlib.import_module("only_here_7")
    try:
        with pytest.raises(ModuleNotFoundError) as caught:
            run("same", module.Thing())
    finally:
        sys.modules.pop("only_here_7")
    words = str(caught.value)
    assert words.startswith("No module named 'only_here_7' in the environment ")
    assert str(python.path.parent.parent) in words
    assert ".".join(map(str, python.version)) in words
    assert "only_here_7.Thing" in words
    assert "looked in: " in words
    assert "install it there" in words
    assert "only_here_7 is 3.1 in this process and none in the worker's environment" in words


def test_a_version_that_lacks_a_name(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: Interpreter
) -> None:
    """Both versions of the package are told."""
    layouts.write(
        tmp_path,
        {"site-packages/versioned/__init__.py": "__version__ = '3.1'\nclass New:\n    pass\n"},
    )
    layouts.write(tmp_path, {"there/versioned/__init__.py": "__version__ = '2.0'\n"})
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    versioned = importlib.import_module("versioned")
    try:
        with CondaEnvExecutor(str(python.path), max_workers=1, activate=False) as executor:
            executor.submit("sys:path.append", str(tmp_path / "there")).result(DEADLINE)
            with pytest.raises(AttributeError, match="versioned.New") as caught:
                executor.submit(isinstance, versioned.New(), int).result(DEADLINE)
        assert "versioned 2.0 of the environment" in str(caught.value)
        assert "versioned is 3.1 in this process and 2.0 in the worker's environment" in str(
            caught.value
        )
    finally:
        sys.modules.pop("versioned")


def test_errors_of_unpickling_that_are_the_users_own(run: Callable[..., object]) -> None:
    """Are not commented upon."""
    with pytest.raises(ValueError, match="^mine$"):
        run("same", special.Refuses())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    psutil.virtual_memory().available < 8 << 30, reason="less than 8 GB of memory are free"
)
def test_more_than_two_gigabytes(work: str) -> None:
    """There and back, whole, with the oldest Python."""
    found = interpreters.find()[0]
    here: dict[str, Callable[..., Any]] = {}
    exec(WORK, here)
    value = here["marked"](2**31 + 10)
    expected = here["marks"](value)
    with CondaEnvExecutor(str(found.path), max_workers=1) as executor:
        assert executor.submit(f"{work}:marks", value).result(180) == expected
        del value
        back = executor.submit(f"{work}:give", "bytes").result(180)
        assert isinstance(back, bytearray)
        assert here["marks"](back) == expected


def test_types_that_are_functions_of_a_version() -> None:
    """``list[int]`` is no class, although Python 3.10 says that it is an instance of ``type``."""
    alias = list[int]
    with CondaEnvExecutor(sys.executable, max_workers=1) as executor:
        back = executor.submit(special.itself, alias).result(DEADLINE)
    assert isinstance(back, types.GenericAlias)
    assert back == alias
