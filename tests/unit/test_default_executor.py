"""The default executor: what the variables say, and which executor that gives. Starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from wetlands_executor import (
    CondaEnvExecutor,
    EnvironmentNotFoundError,
    InProcessExecutor,
    get_default_executor,
    set_default_executor,
)
from wetlands_executor.default import ENGINE, ENV, WORKERS, Choice, read_choice


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither variables nor an executor; what was made is ended."""
    for name in (ENV, WORKERS, ENGINE):
        monkeypatch.delenv(name, raising=False)
    set_default_executor(None)
    yield
    set_default_executor(None)


@pytest.mark.parametrize(
    ("variables", "choice"),
    [
        ({}, Choice()),
        ({ENGINE: "", ENV: " ", WORKERS: ""}, Choice()),
        ({ENV: "cellpose", WORKERS: "4"}, Choice("local", "cellpose", 4)),
        ({ENGINE: "local"}, Choice()),
        ({ENGINE: "in-process", WORKERS: "0"}, Choice("in-process", None, 0)),
        (
            {ENGINE: "dask:tcp://10.0.0.1:8786", ENV: "x"},
            Choice("dask", "x", None, "tcp://10.0.0.1:8786"),
        ),
    ],
)
def test_what_the_variables_say(variables: dict[str, str], choice: Choice) -> None:
    assert read_choice(variables) == choice


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({ENGINE: "remote"}, ENGINE),
        ({ENGINE: "local:x"}, ENGINE),
        ({ENGINE: "dask"}, ENGINE),
        ({ENGINE: "in-process", ENV: "cellpose"}, ENV),
        ({WORKERS: "0"}, WORKERS),
        ({WORKERS: "-1"}, WORKERS),
        ({WORKERS: "two"}, WORKERS),
        ({WORKERS: "1.5"}, WORKERS),
        ({WORKERS: "²"}, WORKERS),
    ],
)
def test_what_cannot_be_meant_names_the_variable(variables: dict[str, str], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}="):
        read_choice(variables)


def test_it_is_made_once_and_anew_after_none() -> None:
    first = get_default_executor()
    assert type(first) is CondaEnvExecutor
    assert get_default_executor() is first
    set_default_executor(None)
    assert get_default_executor() is not first
    with pytest.raises(RuntimeError, match="shutdown"):
        first.submit(int)


def test_one_that_is_set_stays_the_programs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE, "not even looked at")
    with InProcessExecutor(0) as mine:
        view = mine.options(name="view")
        set_default_executor(view)
        assert get_default_executor() is view
        set_default_executor(None)
        assert mine.submit(int).result() == 0, "it was not ended"
    with pytest.raises(ValueError, match=ENGINE):
        get_default_executor()


def test_the_engine_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE, "in-process")
    monkeypatch.setenv(WORKERS, "0")
    executor = get_default_executor()
    assert isinstance(executor, InProcessExecutor)
    assert executor.max_workers == 0
    assert executor.submit(pow, 2, 5).result() == 32


def test_the_environment_and_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, sys.executable)
    monkeypatch.setenv(WORKERS, "3")
    executor = get_default_executor()
    assert isinstance(executor, CondaEnvExecutor)
    assert executor.max_workers == 3
    set_default_executor(None)
    monkeypatch.setenv(ENV, "./there/is/nothing")
    with pytest.raises(EnvironmentNotFoundError, match=f"^{ENV}="):
        get_default_executor()


def test_an_engine_whose_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE, "dask:tcp://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "wetlands_executor.integrations.dask", None)
    with pytest.raises(
        ImportError, match=f"{ENGINE}=dask:tcp://127.0.0.1:1 needs the extra 'dask'"
    ):
        get_default_executor()


@pytest.mark.parametrize("wrong", [4, "cellpose", ThreadPoolExecutor])
def test_what_is_no_executor_of_ours_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="CondaEnvExecutor"):
        set_default_executor(wrong)  # type: ignore[arg-type]
