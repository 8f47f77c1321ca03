"""Calls in the form of other libraries fail at once, with the form that is right here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.rendezvous import DEADLINE
from wetlands_executor import CondaEnvExecutor, InProcessExecutor


def measure(path: str, *, channel: int = 0) -> tuple[str, int]:
    return path, channel


def accepts(name: str, **more: int) -> tuple[str, dict[str, int]]:
    return name, more


@pytest.fixture(params=[CondaEnvExecutor, InProcessExecutor])
def submit(request: pytest.FixtureRequest) -> Any:
    """``submit`` of an executor; no worker starts for a call that is refused."""
    with request.param(max_workers=1) as executor:
        yield executor.submit


@pytest.mark.parametrize(
    ("args", "kwargs", "right"),
    [
        (
            ("compute.py", "fn"),
            {"args": (1, "a"), "start": False},
            "executor.options(start=False).submit('compute.py:fn', 1, 'a')",
        ),
        (
            ("compute.py", "fn"),
            {"args": [3], "kwargs": {"x": 4}},
            ".submit('compute.py:fn', 3, x=4)",
        ),
        (("pkg.mod", "fn", 7), {}, "executor.submit('pkg.mod:fn', 7)"),
        ((Path("compute.py"), "fn", 7), {}, "executor.submit('compute.py:fn', 7)"),
        (
            ("compute.py",),
            {"start": False},
            "executor.options(start=False).submit_script('compute.py')",
        ),
        (("compute.py",), {}, "executor.submit_script('compute.py')"),
        (("compute.py", "not a name"), {}, '"path/to/file.py:function"'),
        (("nothing",), {}, '"package.module:function"'),
    ],
)
def test_a_file_and_no_function(
    submit: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], right: str
) -> None:
    with pytest.raises(ValueError, match="is not a target") as caught:
        submit(*args, **kwargs)
    assert right in str(caught.value)


@pytest.mark.parametrize(
    ("args", "kwargs", "right"),
    [
        (("a.tif",), {"name": "scan"}, "executor.options(name='scan').submit({}, 'a.tif')"),
        (
            ("a.tif",),
            {"channel": 2, "start": False, "timeout": 5},
            "executor.options(start=False, timeout=5).submit({}, 'a.tif', channel=2)",
        ),
        ((), {"args": ("a.tif", 3)}, "one by one: executor.submit({}, 'a.tif', 3)"),
        (
            ("a.tif",),
            {"kwargs": {"channel": 2}, "name": "scan"},
            "executor.options(name='scan').submit({}, 'a.tif', channel=2)",
        ),
    ],
)
def test_an_option_among_the_arguments(
    submit: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], right: str
) -> None:
    with pytest.raises(TypeError, match="has no parameter") as caught:
        submit(measure, *args, **kwargs)
    assert right.format(f"{__name__}.measure") in str(caught.value)


def test_a_function_that_has_such_a_parameter_gets_it(submit: Callable[..., Any]) -> None:
    assert submit(accepts, name="x", timeout=3).result(DEADLINE) == ("x", {"timeout": 3})
    task = submit(measure, "a", colour=3)
    assert isinstance(task.exception(DEADLINE), TypeError), "as in the standard library"


FILE = """
def measure(path, *, channel=0):
    return path, channel

def accepts(path, **more):
    return path, sorted(more)

def named(name):
    return name

def wrapped(path):
    return path

wrapped = accepts

class Cells:
    @staticmethod
    def count(path, **more):
        return path, sorted(more)

    def size(self, path):
        return path
"""


@pytest.mark.parametrize(
    ("function", "kwargs", "right"),
    [
        ("measure", {"start": False}, "executor.options(start=False).submit({}, 'a.tif')"),
        (
            "measure",
            {"name": "x", "channel": 2},
            "executor.options(name='x').submit({}, 'a.tif', channel=2)",
        ),
        ("measure", {"kwargs": {"channel": 2}}, "executor.submit({}, 'a.tif', channel=2)"),
        ("Cells.size", {"timeout": 5}, "executor.options(timeout=5).submit({}, 'a.tif')"),
    ],
)
def test_options_for_a_function_of_a_file(
    submit: Callable[..., Any], tmp_path: Path, function: str, kwargs: dict[str, Any], right: str
) -> None:
    path = tmp_path / "compute.py"
    path.write_text(FILE, encoding="utf-8")
    target = f"{path}:{function}"
    with pytest.raises(TypeError, match="submit.. passes every keyword on") as caught:
        submit(target, "a.tif", **kwargs)
    assert right.format(repr(target)) in str(caught.value)


@pytest.mark.parametrize("function", ["accepts", "wrapped", "Cells.count"])
def test_a_function_of_a_file_that_may_take_them_is_called(
    submit: Callable[..., Any], tmp_path: Path, function: str
) -> None:
    path = tmp_path / "compute.py"
    path.write_text(FILE, encoding="utf-8")
    got = submit(f"{path}:{function}", "a.tif", start=False).result(DEADLINE)
    assert got == ("a.tif", ["start"])
    assert submit(f"{path}:named", name="x").result(DEADLINE) == "x"
