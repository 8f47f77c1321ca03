"""A real conda prefix: found in every way there is, activated, and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration import conda, fakes
from wetlands_executor.environment import Environment
from wetlands_executor.errors import ActivationError, EnvironmentNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPORT = "import json, os, sys; print(json.dumps([sys.prefix, sys.path, dict(os.environ)]))"


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fakes.isolate(monkeypatch, tmp_path / "home")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_prefix_is_complete(conda_prefix: Path) -> None:
    records = [
        json.loads(path.read_text()) for path in (conda_prefix / "conda-meta").glob("*.json")
    ]
    assert sorted(record["name"] for record in records) == ["python", "wex-activate"]
    for record in records:
        assert all(os.path.lexists(conda_prefix / name) for name in record["files"])
    share = conda_prefix / "share" / "wex"
    assert (share / "prefix.txt").read_text() == f"{share}\n"
    binary = (share / "prefix.bin").read_bytes()
    assert binary.startswith(b"\x7fBIN\0" + os.fsencode(share) + b"\0")
    assert binary.endswith(b"\0tail\0\xff")
    assert len(binary) == len(b"\x7fBIN\0" + conda.PLACEHOLDER.encode() + b"/share/wex\0tail\0\xff")


def test_found_by_prefix_and_by_interpreter(conda_prefix: Path) -> None:
    found = Environment.find(conda_prefix)
    assert found == Environment("wex", conda_prefix, conda_prefix / "bin" / "python", "conda")
    assert Environment.find(str(conda_prefix) + os.sep) == found
    assert Environment.find(conda_prefix / "bin" / "python") == found


def test_found_by_name_through_a_variable(
    conda_prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDA_ENVS_DIRS", os.pathsep.join(["/nowhere", str(conda_prefix.parent)]))
    assert Environment.find("wex") == Environment.find(conda_prefix)
    assert Environment.list() == [Environment.find(conda_prefix)]


def test_found_by_name_through_condarc(conda_prefix: Path, tmp_path: Path) -> None:
    _write(
        tmp_path / "home" / ".condarc",
        f"channels:\n  - conda-forge\nenvs_dirs:\n  - ~/none  "
        f"# nothing there\n  - '{conda_prefix.parent}'\n",
    )
    assert Environment.find("wex").prefix == conda_prefix


def test_found_by_name_through_the_list_of_environments(conda_prefix: Path, tmp_path: Path) -> None:
    _write(
        tmp_path / "home" / ".conda" / "environments.txt",
        f"/gone/envs/wex\n\n{conda_prefix}\n{conda_prefix}\nrelative/wex\n",
    )
    assert Environment.find("wex").prefix == conda_prefix
    assert [env.prefix for env in Environment.list()] == [conda_prefix]


def test_ambiguous_and_missing_names(
    conda_prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fakes.conda(tmp_path / "other" / "wex")
    monkeypatch.setenv(
        "CONDA_ENVS_DIRS", os.pathsep.join([str(conda_prefix.parent), str(other.parent)])
    )
    with pytest.raises(EnvironmentNotFoundError) as ambiguous:
        Environment.find("wex")
    assert str(conda_prefix) in str(ambiguous.value)
    assert str(other) in str(ambiguous.value)
    with pytest.raises(EnvironmentNotFoundError, match="did you mean 'wex'") as missing:
        Environment.find("wexx")
    assert str(other.parent) in str(missing.value)


def test_python_of_the_prefix_runs_inside(
    conda_prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/leak")
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    done = Environment.find(conda_prefix).run(
        ["python", "-c", REPORT], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    prefix, path, environ = json.loads(done.stdout)
    assert prefix == str(conda_prefix)
    assert [entry for entry in path if entry and not entry.startswith(str(conda_prefix))] == []
    assert environ["CONDA_PREFIX"] == str(conda_prefix)
    assert environ["CONDA_DEFAULT_ENV"] == "wex"
    assert environ["PATH"].split(os.pathsep)[0] == str(conda_prefix / "bin")


def test_activation_carries_every_value(conda_prefix: Path) -> None:
    env = (
        Environment.find(conda_prefix)
        .launch_spec(worker_env={"WEX_OWN": "1", "WEX_ORDER": "mine"})
        .env
    )
    assert env["WEX_MULTI"] == conda.MULTI
    assert env["WEX_SHARE"] == str(conda_prefix / "share" / "wex")
    assert env["WEX_SEEN_BY_SCRIPT"] == "yes"
    assert env["WEX_OVERRIDDEN"] == "by the user"
    assert "WEX_REMOVED" not in env
    assert (env["WEX_OWN"], env["WEX_ORDER"]) == ("1", "mine")
    assert Environment.find(conda_prefix).launch_spec().env["WEX_ORDER"] == "ab"


def test_launch_spec_starts_the_interpreter(conda_prefix: Path, tmp_path: Path) -> None:
    spec = Environment.find(conda_prefix).launch_spec(cwd=tmp_path)
    assert spec.argv == (str(conda_prefix / "bin" / "python"),)
    code = "import os, sys; print(sys.executable, os.getcwd())"
    done = subprocess.run(
        [*spec.argv, "-c", code],
        env=spec.env,
        cwd=spec.cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(conda_prefix / "bin" / "python"), str(tmp_path)]


def test_popen(conda_prefix: Path) -> None:
    environment = Environment.find(conda_prefix)
    code = "import os, sys; print(input(), os.environ['WEX_EXTRA'], os.environ['WEX_ORDER'])"
    with environment.popen(
        ["python", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"WEX_EXTRA": "over", "WEX_ORDER": "too"},
    ) as process:
        assert process.communicate("in", timeout=30)[0].split() == ["in", "over", "too"]


def test_script_that_exits(conda_prefix_factory: Callable[..., Path], tmp_path: Path) -> None:
    scripts = {
        "a.sh": "export A=1\n",
        "b_exits.sh": "echo reason >&2\nexit 3\n",
        "c.sh": "export C=1\n",
    }
    environment = Environment.find(
        conda_prefix_factory(tmp_path / "exits", activate_scripts=scripts, env_vars={})
    )
    with pytest.raises(
        ActivationError,
        match=r"b_exits\.sh' ended the shell with exit code "
        r"3(.|\n)*reason",
    ):
        environment.launch_spec()
    with pytest.raises(ActivationError):
        environment.run(["python", "-V"])
    done = environment.run(
        [str(environment.python), "-c", "import sys; print(sys.prefix)"],
        activate=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(environment.prefix)


def test_another_version(conda_prefix_factory: Callable[..., Path], tmp_path: Path) -> None:
    minor = "3.12" if sys.version_info[1] != 12 else "3.11"
    prefix = conda_prefix_factory(tmp_path / "envs" / "another", python=minor, activate_scripts={})
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.prefix)"
    done = Environment.find(prefix).run(
        ["python", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [minor, str(prefix)]
