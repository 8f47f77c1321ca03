"""The names of the package, which are imported when they are first used."""

from __future__ import annotations

import pickle
from importlib import import_module

import pytest

import wetlands_executor
from wetlands_executor import environment


def test_every_public_name_has_one_place() -> None:
    found: dict[str, object] = {}
    exec("from wetlands_executor import *", found)
    found.pop("__builtins__")
    assert sorted(found) == sorted(wetlands_executor.__all__)
    assert sorted(wetlands_executor._PLACE_OF) == sorted(wetlands_executor.__all__)
    for name, place in wetlands_executor._PLACE_OF.items():
        module = import_module(f"wetlands_executor.{place}")
        assert getattr(wetlands_executor, name) is getattr(module, name)


def test_dir_has_those_that_were_not_used() -> None:
    assert {*wetlands_executor.__all__, "__version__"} <= set(dir(wetlands_executor))


def test_classes_are_pickled_by_name() -> None:
    for name in ("Task", "TaskStatus", "CallOptions", "WorkerCrashed"):
        one = getattr(wetlands_executor, name)
        assert pickle.loads(pickle.dumps(one)) is one


@pytest.mark.parametrize("module", [wetlands_executor, environment])
def test_another_name_is_told(module: object) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'CondaExecutor'"):
        module.CondaExecutor  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(module, "task")
    assert issubclass(environment.Environment, wetlands_executor.Environment)
