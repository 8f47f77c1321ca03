"""One file is one module in a worker, by whichever name it is reached, and it never takes the place
of another module.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.interpreters import Interpreter
from wetlands_executor import CondaEnvExecutor

DEADLINE = 30.0
MODEL = """
MODEL, LOADS = None, []

def load(value=1):
    global MODEL
    MODEL = value
    LOADS.append(value)

def predict():
    return MODEL, len(LOADS)

def imported():
    import model
    return model.MODEL, model.predict is predict
"""
NAMESAKE = """
import sys

def use():
    import json, logging, queue, concurrent.futures
    stem = __file__.replace("\\\\", "/").rpartition("/")[2][:-3]
    found = sys.modules.get(stem)
    another = found is None or found.__file__ != __file__
    standard = hasattr(queue, "Queue"), hasattr(logging, "getLogger"), hasattr(json, "dumps")
    return *standard, another
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


@pytest.mark.parametrize("initializer", ["model.py:load", "./model.py:load", Path("model.py:load")])
def test_what_an_initializer_has_loaded(folder: Path, initializer: object) -> None:
    (folder / "link.py").symlink_to(folder / "model.py")
    with CondaEnvExecutor(max_workers=1, initializer=initializer, initargs=(7,)) as executor:  # type: ignore[arg-type]
        for target in (
            "model.py:predict",
            "./model.py:predict",
            f"{folder}/model.py:predict",
            Path("model.py:predict"),
            "link.py:predict",
        ):
            assert executor.submit(target).result(DEADLINE) == (7, 1), target
        assert executor.submit("model.py:imported").result(DEADLINE) == (7, True)
        assert executor.import_module("model.py").predict() == (7, 1)
        assert executor.import_module(Path("model.py")).MODEL == 7


def test_in_every_version(folder: Path, anypython: Interpreter) -> None:
    with CondaEnvExecutor(
        str(anypython.path), max_workers=1, initializer="model.py:load", initargs=(7,)
    ) as executor:
        assert executor.submit("model.py:predict").result(DEADLINE) == (7, 1)
        assert executor.submit("model.py:imported").result(DEADLINE) == (7, True)


@pytest.mark.parametrize("first", ["model:load", "model.py:load"])
def test_by_name_and_by_file(folder: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    monkeypatch.syspath_prepend(str(folder))
    with CondaEnvExecutor(max_workers=1, initializer=first, initargs=(3,)) as executor:
        assert executor.submit("model.py:predict").result(DEADLINE) == (3, 1)
        assert executor.submit("model:predict").result(DEADLINE) == (3, 1)


@pytest.mark.parametrize(
    "order", [["pkg.mod:add", "pkg/mod.py:add"], ["pkg/mod.py:add", "pkg.mod:add"]]
)
def test_a_file_of_a_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, order: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    (folder / "pkg").mkdir()
    (folder / "pkg" / "__init__.py").touch()
    (folder / "pkg" / "mod.py").write_text(
        "X = []\ndef add():\n    X.append(1)\n    return len(X)\n"
    )
    with CondaEnvExecutor(max_workers=1) as executor:
        assert [executor.submit(target).result(DEADLINE) for target in order] == [1, 2]


def test_relative_imports_of_a_file(folder: Path) -> None:
    """A file that lies in a package finds its neighbours as it does when the package is imported.

    Another package of that name does not.
    """
    for where, value in ("one", 1), ("two", 2):
        inner = folder / where / "result_memory" / "inner"
        inner.mkdir(parents=True)
        (inner.parent / "__init__.py").write_text("")
        (inner.parent / "values.py").write_text(f"VALUE = {value}\n")
        (inner / "__init__.py").write_text("")
        (inner / "near.py").write_text(f"NEAR = {value}\n")
        (inner / "use.py").write_text(
            "from ..values import VALUE\nfrom . import near\ndef "
            "use():\n    return VALUE, near.NEAR\n"
        )
    (folder / "one" / "result_memory" / "inner" / "__init__.py").write_text("from . import user\n")
    (folder / "one" / "result_memory" / "inner" / "user.py").write_text(
        "from .use import use\nLOADED = []\ndef loaded(): return list(LOADED)\n"
    )
    with CondaEnvExecutor(max_workers=1) as executor:
        assert executor.submit("one/result_memory/inner/use.py:use").result(DEADLINE) == (1, 1)
        executor.submit("one/result_memory/inner/user.py:LOADED.append", 5).result(DEADLINE)
        assert executor.submit("one/result_memory/inner/user.py:loaded").result(DEADLINE) == [5]
        assert executor.submit(lambda: sys.modules["result_memory.inner.user"].LOADED).result(
            DEADLINE
        ) == [5]  # type: ignore[attr-defined]
        with pytest.raises(ImportError, match="relative import"):
            executor.submit("two/result_memory/inner/use.py:use").result(DEADLINE)
        assert executor.submit("one/result_memory/inner/use.py:use").result(DEADLINE) == (1, 1)


def test_a_changed_file_is_a_new_module(folder: Path) -> None:
    with CondaEnvExecutor(max_workers=1, initializer="model.py:load") as executor:
        assert executor.submit("model.py:predict").result(DEADLINE) == (1, 1)
        (folder / "model.py").write_text(MODEL + "\ndef new():\n    return predict()\n")
        assert executor.submit("model.py:new").result(DEADLINE) == (None, 0)


@pytest.mark.parametrize("name", ["logging", "queue", "numpy", "json", "concurrent"])
def test_a_file_with_the_name_of_another_module(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text(NAMESAKE)
    with CondaEnvExecutor(max_workers=1) as executor:
        assert executor.submit(f"{name}.py:use").result(DEADLINE)[:3] == (True, True, True)
        assert (
            executor.submit(eval, f"'{os.sep}' in __import__({name!r}).__name__").exception(
                DEADLINE
            )
            is None
            or name == "numpy"
        )
        assert (
            executor.submit(eval, "__import__('queue').Queue.__name__").result(DEADLINE) == "Queue"
        )
        assert executor.submit(f"{name}.py:use").result(DEADLINE)[:3] == (True, True, True)


@pytest.mark.parametrize("bad", [5, None, b"model.py:load", object()])
def test_what_is_no_target_is_refused_at_once(bad: object) -> None:
    with CondaEnvExecutor(max_workers=1) as executor:
        for call in (
            executor.submit,
            executor.options(start=False).submit,
            executor.options(name="x").submit,
        ):
            with pytest.raises(TypeError, match="neither callable"):
                call(bad)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="neither callable"):
            executor.map(bad, [1])  # type: ignore[arg-type]
