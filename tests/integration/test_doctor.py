"""The command ``doctor``, as a process, in real environments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.interpreters import Interpreter
from wetlands_executor.doctor import advice

#: Seconds that the command may take.
LIMIT = 60


def doctor(*arguments: str | Path, **variables: str) -> tuple[int, str, str]:
    """Run the command; return exit code, output and errors."""
    command = [sys.executable, "-m", "wetlands_executor", "doctor", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def report_of(*arguments: str | Path, **variables: str) -> tuple[int, dict[str, Any]]:
    """Run the command with ``--json``."""
    code, out, _ = doctor(*arguments, "--json", **variables)
    return code, json.loads(out)


def levels(report: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"error": [], "warning": [], "note": []}
    for problem in report["problems"]:
        found[problem["level"]].append(problem["what"])
        assert problem["remedy"]
    return found


def make_venv(python: Path, folder: Path) -> Path:
    subprocess.run([python, "-I", "-m", "venv", "--without-pip", folder], check=True, timeout=LIMIT)
    return folder


def site_packages(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


def test_a_virtual_environment_of_every_python(anypython: Interpreter, tmp_path: Path) -> None:
    """All parts are there.

    The interpreter is the one that was asked for, and so is what follows from its version.
    """
    code, report = report_of(make_venv(anypython.path, tmp_path / "venv"))
    assert (code, report["ok"], report["failure"]) == (0, True, None)
    assert report["environment"]["kind"] == "venv"
    assert report["interpreter"]["version"] == ".".join(map(str, anypython.version))
    assert report["interpreter"]["prefix"] == str(tmp_path / "venv")
    same = anypython.version[:2] == sys.version_info[:2]
    assert report["code"] == {"same_bytecode": same, "transfer": "bytecode" if same else "source"}
    assert report["start"]["seconds"] > 0
    assert 0 < report["round_trip"]["fastest_us"] <= report["round_trip"]["median_us"]
    assert report["packages"]["numpy"]["there"] is None
    assert "VIRTUAL_ENV" in report["activation"]["set"]
    assert str(tmp_path / "venv" / "bin") in report["activation"]["path"]
    assert report["memory"]["available"] > 0
    assert not levels(report)["error"]


def test_a_conda_environment(conda_prefix: Path) -> None:
    """Its scripts are named, what they set too, but no value: it may be a secret."""
    code, out, errors = doctor(conda_prefix, "--json")
    assert code == 0, errors
    report = json.loads(out)
    assert report["environment"]["kind"] == "conda"
    assert [Path(script).name for script in report["activation"]["scripts"]] == [
        "a_values.sh",
        "b_order.sh",
    ]
    assert {"CONDA_PREFIX", "WEX_SHARE", "WEX_ORDER", "WEX_MULTI"} <= set(
        report["activation"]["set"]
    )
    assert "single" not in out.replace("single-", ""), "a value was told"
    code, out, _ = doctor(conda_prefix)
    assert code == 0
    assert re.search(r"^environment +wex \(conda\)", out, re.MULTILINE)
    assert "a_values.sh" in out
    assert "A worker can be started." in out


@pytest.mark.parametrize("minor", ["2.7", "3.6", "3.7"])
def test_an_old_python(minor: str) -> None:
    """It says its version, and which one is needed."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    python = next(root.glob(f"versions/{minor}.*/bin/python"), None)
    if python is None:
        pytest.skip(f"no Python {minor} on this machine")
    code, report = report_of(python)
    assert code == 1
    assert report["interpreter"]["version"].startswith(minor)
    assert len(levels(report)["error"]) == 1
    assert re.search(rf"Python {minor}\.\d+ is too old.*3\.8", levels(report)["error"][0])


def run_at_start(venv: Path, line: str) -> None:
    """Let each interpreter of an environment run a line as it starts.

    Not by sitecustomize.py: Debian's Python has one of its own, which comes first.
    """
    (site_packages(venv) / "at_start.pth").write_text(f"{line}\n")


def test_an_environment_whose_python_does_not_start(tmp_path: Path) -> None:
    """What it wrote is in the report."""
    venv = make_venv(Path(sys.executable), tmp_path / "venv")
    run_at_start(
        venv,
        r"import sys, os; sys.stderr.write('the licence has expired\n'); "
        r"os._exit(3)",
    )
    code, report = report_of(venv)
    assert (code, report["ok"], report["failure"]["step"]) == (1, False, "interpreter")
    assert "the licence has expired" in levels(report)["error"][0]
    assert "exit code 3" in levels(report)["error"][0]
    code, out, _ = doctor(venv)
    assert code == 1
    assert out.rstrip().endswith("No worker can be started.")


def test_an_environment_whose_worker_does_not_start(tmp_path: Path) -> None:
    """The interpreter answers, the worker is ended: by something that only a worker meets."""
    venv = make_venv(Path(sys.executable), tmp_path / "venv")
    end = r"[sys.stderr.write('no workers here\n'), os._exit(4)]"
    run_at_start(venv, f"import sys, os; len(sys.orig_argv) > 3 and {end}")
    code, report = report_of(venv)
    assert (code, report["failure"]["step"]) == (1, "start")
    assert report["failure"]["type"] == "WorkerStartError"
    assert "no workers here" in levels(report)["error"][0]


def test_activation_that_fails(conda_prefix_factory: Callable[..., Path], tmp_path: Path) -> None:
    """The script is named, with what it wrote."""
    prefix = conda_prefix_factory(
        tmp_path / "broken", activate_scripts={"bad.sh": "echo I give up >&2\nexit 3\n"}
    )
    code, report = report_of(prefix)
    assert (code, report["failure"]["step"], report["interpreter"]) == (1, "activation", None)
    assert "bad.sh" in levels(report)["error"][0]
    assert "I give up" in levels(report)["error"][0]


def test_no_such_environment(tmp_path: Path) -> None:
    """The places that were searched are listed."""
    places = str(tmp_path / "envs")
    code, out, errors = doctor("no-such-environment", CONDA_ENVS_PATH=places)
    assert (code, out) == (2, "")
    assert "no-such-environment" in errors
    assert places in errors
    code, report = report_of("no-such-environment", CONDA_ENVS_PATH=places)
    assert (code, report["ok"], report["failure"]["step"]) == (2, False, "find")
    assert "no-such-environment" in report["problems"][0]["what"]


def test_an_ambiguous_name(tmp_path: Path) -> None:
    """Both candidates are listed."""
    for root in ("one", "two"):
        prefix = tmp_path / root / "twice"
        (prefix / "conda-meta").mkdir(parents=True)
        (prefix / "conda-meta" / "history").touch()
        (prefix / "bin").mkdir()
        (prefix / "bin" / "python").symlink_to(sys.executable)
    code, _, errors = doctor(
        "twice", CONDA_ENVS_PATH=os.pathsep.join(str(tmp_path / root) for root in ("one", "two"))
    )
    assert code == 2
    assert str(tmp_path / "one" / "twice") in errors
    assert str(tmp_path / "two" / "twice") in errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "b"],
        ["--no-such-option", "a"],
        [".", "--start-timeout", "0"],
        [".", "--start-timeout", "x"],
    ],
)
def test_wrong_arguments(arguments: list[str]) -> None:
    """Are exit code 2, with a word about it."""
    code, out, errors = doctor(*arguments)
    assert (code, out) == (2, "")
    assert errors


def test_few_descriptors() -> None:
    """A warning that names the number, and the command that raises it."""
    command = (
        f"ulimit -n 120; exec {sys.executable} -m wetlands_executor doctor {sys.executable} --json"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["limits"]["open_files"] == report["worker"]["open_files"] == 120
    assert any("120 descriptors" in what for what in levels(report)["warning"])


def test_the_slower_ways() -> None:
    """A note says which mechanisms are not used."""
    code, report = report_of(sys.executable, WETLANDS_EXECUTOR_PLAIN="1")
    assert code == 0
    assert report["mechanisms"] == {"pidfd": False, "reclaim": False, "shared_page": False}
    assert any("pidfd" in what for what in levels(report)["note"])


def test_numpy_that_cannot_be_imported(tmp_path: Path) -> None:
    """The worker starts; a warning says what numpy said."""
    venv = make_venv(Path(sys.executable), tmp_path / "venv")
    site = site_packages(venv)
    (site / "numpy").mkdir()
    (site / "numpy" / "__init__.py").write_text(
        "raise ImportError('libopenblas.so.0: cannot open shared object file')\n"
    )
    (site / "numpy-1.22.0.dist-info").mkdir()
    (site / "numpy-1.22.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: numpy\nVersion: 1.22.0\n"
    )
    code, report = report_of(venv)
    assert code == 0
    assert report["packages"]["numpy"]["there"] == "1.22.0"
    assert any("libopenblas" in what for what in levels(report)["warning"])


@pytest.mark.parametrize(
    ("package", "here", "there", "expected"),
    [
        ("numpy", "2.4.6", "2.0.1", "all"),
        ("numpy", "2.4.6", "1.24.4", "most"),
        ("numpy", "1.26.4", "2.5.5", "most"),
        ("numpy", None, "2.0", "there only"),
        ("numpy", "2.0", None, "here only"),
        ("numpy", None, None, "neither"),
        ("pandas", "2.2.3", "2.0.0", "all"),
        ("pandas", "3.0.1", "2.2.3", "none"),
    ],
)
def test_what_can_be_exchanged(
    package: str, here: str | None, there: str | None, expected: str
) -> None:
    """By major versions; tests/data shows that it is so."""
    assert advice.exchange(package, here, there) == expected
    assert expected in advice.EXCHANGES


def test_every_key_is_documented() -> None:
    """And every documented one is there."""
    _, report = report_of(sys.executable)
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert set(rows) == set(report)
    for key, value in report.items():
        if isinstance(value, dict) and key != "packages":
            missing = [name for name in value if f"`{name}`" not in rows[key]]
            assert not missing, f"{key}: {missing}"
    for package in report["packages"].values():
        assert all(f"`{name}`" in rows["packages"] for name in package)
