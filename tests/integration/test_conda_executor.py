"""The executor in a real conda prefix: found by name, activated, and with activation that fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wetlands_executor import CondaEnvExecutor, WorkerStartError

VALUE = "line one\nline 'two' \"quoted\" é"


@pytest.fixture(scope="module")
def activated(
    conda_prefix_factory: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    script = (
        "export WET_MULTI='line one\nline '\\''two'\\'' \"quoted\" é'\necho this goes to stderr\n"
    )
    prefix = tmp_path_factory.mktemp("envs") / "imaging"
    return conda_prefix_factory(
        prefix, activate_scripts={"wet.sh": script}, env_vars={"WET_FROM_JSON": "yes"}
    )


def test_by_name_with_its_activation(activated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_ENVS_DIRS", str(activated.parent))
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with CondaEnvExecutor("imaging", max_workers=2) as executor:
        assert executor.environment.prefix == activated
        assert executor.submit("sys:intern", "x").result() == "x"
        variables = executor.map("os:getenv", ["WET_MULTI", "WET_FROM_JSON", "CONDA_PREFIX"])
        assert list(variables) == [VALUE, "yes", str(activated)]
        assert executor.submit("os:getenv", "PYTHONPATH").result() is None


def test_a_file_runs_there(activated: Path, tmp_path: Path) -> None:
    (tmp_path / "where.py").write_text(
        "import sys\ndef where(task):\n    task.update('here', "
        "current=1, maximum=1)\n    return sys.prefix\n"
    )
    with CondaEnvExecutor(activated, max_workers=1) as executor:
        task = executor.submit(f"{tmp_path / 'where.py'}:where")
        assert Path(task.result()) == activated
        assert (task.message, task.progress) == ("here", 1.0)
        assert executor.import_module(str(tmp_path / "where.py")).where() == str(activated)


def test_functions_of_this_process_run_there(activated: Path) -> None:
    with CondaEnvExecutor(activated, max_workers=1) as executor:
        version = executor.submit("platform:python_version_tuple").result()
        assert executor.submit(os.path.join, "a", "b").result() == os.path.join("a", "b")
        if tuple(map(int, version[:2])) == sys.version_info[:2]:
            assert executor.submit(lambda: 6 * 7).result() == 42


def test_a_script_that_calls_exit_fails_the_start(
    conda_prefix_factory: Callable[..., Path], tmp_path: Path
) -> None:
    prefix = conda_prefix_factory(
        tmp_path / "broken", activate_scripts={"bad.sh": "echo I give up >&2\nexit 3\n"}
    )
    with CondaEnvExecutor(prefix, max_workers=1) as executor:
        with pytest.raises(
            WorkerStartError,
            match=r"bad\.sh[\s\S]*I give up|I give "
            r"up[\s\S]*bad\.sh",
        ):
            executor.submit(abs, -1).result()
        (prefix / "etc" / "conda" / "activate.d" / "bad.sh").write_text("export WET_REPAIRED=1\n")
        assert executor.submit("os:getenv", "WET_REPAIRED").result() == "1"


def test_activation_can_be_left_out(activated: Path) -> None:
    with CondaEnvExecutor(activated, max_workers=1, activate=False) as executor:
        assert executor.submit("os:getenv", "WET_MULTI").result() is None
    with CondaEnvExecutor(activated, max_workers=1, activate=["export WET_MORE=more"]) as executor:
        assert executor.submit("os:getenv", "WET_MORE").result() == "more"
