"""The tables of ``docs/coming-from-process-pools.md`` have every public name of what they compare.

Of ``concurrent.futures`` and joblib, which the tests have; the packages of the other pages are not
among what the tests need.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import joblib
import pytest

from tests.docs import pages

_PAGE = pages.ROOT / "docs" / "coming-from-process-pools.md"
_TEXT = _PAGE.read_text(encoding="utf-8")
_TABLES = _TEXT.partition("## Every member")[2]
#: Names that stand in the tables as code.
_NAMES = {
    name for code in re.findall(r"`([^`]+)`", _TABLES) for name in re.findall(r"[^\W\d]\w*", code)
}


def _parameters(value: object) -> Iterator[str]:
    if callable(value):
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):
            return  # a function of C that says nothing of its parameters
        yield from (name for name in signature.parameters if name not in {"self", "cls"})


def _members(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Give all public names of a function or class, and where each is found."""
    yield name, name
    if inspect.isclass(value) and issubclass(value, BaseException):
        return  # they add nothing to their bases
    yield from ((each, f"{name}({each})") for each in _parameters(value))
    if inspect.isclass(value):
        for member in dir(value):
            if not member.startswith("_"):
                yield member, f"{name}.{member}"
                for each in _parameters(getattr(value, member)):
                    yield each, f"{name}.{member}({each})"


def _missing(module: ModuleType, *names: str) -> list[str]:
    found = [
        where
        for name in names
        for word, where in _members(name, getattr(module, name))
        if not word.startswith("_") and word not in _NAMES
    ]
    return sorted(set(found))


def test_the_tables_have_all_of_concurrent_futures() -> None:
    assert _missing(concurrent.futures, *concurrent.futures.__all__) == []
    assert _missing(concurrent.futures.process, "BrokenProcessPool") == []
    assert _missing(concurrent.futures.thread, "BrokenThreadPool") == []


def test_the_tables_have_all_of_joblib() -> None:
    read = re.search(r"joblib ([\d.]+) \(the package", _TEXT)
    assert read is not None
    if joblib.__version__ != read[1]:
        pytest.skip(f"the page is about joblib {read[1]}, this is {joblib.__version__}")
    assert _missing(joblib, *joblib.__all__) == []
